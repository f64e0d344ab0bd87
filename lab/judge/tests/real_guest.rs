//! The judges against the real guest in plain QEMU: boot, answers, power cut, restart, power button,
//! and two copies on one disk. QEMU's user network on the loopback: no root, no namespace.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use judge::ledger::Problem;
use judge::report::{self, Window};
use judge::results::{Config, Results, Sample, Target};
use judge::{judge_disk, probe};
use tokio::sync::watch;

/// Software emulation on a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// Programs that the test needs; `None` when one is missing.
fn missing_tool() -> Option<&'static str> {
    [
        "qemu-system-x86_64",
        "qemu-img",
        "genisoimage",
        "lz4",
        "cpio",
    ]
    .into_iter()
    .find(|tool| {
        let status = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_err()
    })
}

fn build() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/build.sh");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", script.display());
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// Disks of one VM in a folder of their own.
struct Machine {
    folder: tempfile::TempDir,
    image: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let (folder, image) = (tempfile::tempdir().unwrap(), build());
        let at = folder.path();
        fs::create_dir(at.join("seed")).unwrap();
        fs::write(
            at.join("seed/meta-data"),
            "instance-id: i-1\nlocal-hostname: oa-database-0\n",
        )
        .unwrap();
        fs::write(
            at.join("seed/user-data"),
            "#cloud-config\nzhengyun: {role: database, tier: database}\n",
        )
        .unwrap();
        fs::write(
            at.join("seed/network-config"),
            "network:\n  version: 2\n  ethernets:\n    nic0:\n      match: {macaddress: '52:54:00:00:00:01'}\n      addresses: [10.0.2.15/24]\n      gateway4: 10.0.2.2\n",
        )
        .unwrap();
        run(
            "genisoimage",
            &[
                "-quiet", "-output", "seed.iso", "-volid", "cidata", "-joliet", "-rock", "seed",
            ],
            at,
        );
        run(
            "qemu-img",
            &["create", "-q", "-f", "raw", "data.raw", "32M"],
            at,
        );
        run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "data.qcow2", "32M"],
            at,
        );
        Self { folder, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a copy named `name` on `data`; without `locked` nothing keeps a second copy away.
    fn start(&self, name: &str, data: &str, locked: bool) -> Guest {
        let system = format!("system-{name}.qcow2");
        if !self.path(&system).exists() {
            let base = self.image.join("system.qcow2").display().to_string();
            run(
                "qemu-img",
                &[
                    "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &system,
                ],
                self.folder.path(),
            );
        }
        let address = free_address();
        let manifest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(self.image.join("guest.json")).unwrap())
                .unwrap();
        let format = if data.ends_with(".raw") {
            "raw"
        } else {
            "qcow2"
        };
        let locking = if locked { "on" } else { "off" };
        let monitor = self.path(&format!("{name}.monitor"));
        let console = self.path(&format!("{name}.console"));
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "q35",
                "-accel",
                "tcg,tb-size=32",
                "-cpu",
                "Nehalem",
                "-m",
                "128",
            ])
            .args(["-nodefaults", "-display", "none"])
            .arg("-kernel")
            .arg(self.image.join("vmlinux"))
            .arg("-initrd")
            .arg(self.image.join("initrd.cpio"))
            .args(["-append", manifest["kernel_command_line"].as_str().unwrap()])
            .args(["-serial", &format!("file:{}", console.display())])
            .args([
                "-monitor",
                &format!("unix:{},server,nowait", monitor.display()),
            ])
            .args([
                "-netdev",
                &format!("user,id=n,hostfwd=tcp:{address}-10.0.2.15:80"),
            ])
            .args([
                "-device",
                "virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:01",
            ])
            .args([
                "-drive",
                &format!("file={system},if=none,id=s,format=qcow2,cache=none"),
            ])
            .args(["-device", "virtio-blk-pci,drive=s,serial=system"])
            .args([
                "-drive",
                &format!(
                    "file={data},if=none,id=d,format={format},cache=none,file.locking={locking}"
                ),
            ])
            .args(["-device", "virtio-blk-pci,drive=d,serial=data"])
            .args([
                "-drive",
                "file=seed.iso,if=none,id=c,format=raw,readonly=on",
            ])
            .args(["-device", "virtio-blk-pci,drive=c,serial=seed"])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Guest {
            child,
            address,
            monitor,
            console,
            results: self.path(&format!("{name}-{}.jsonl", address.port())),
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A running copy; killed when dropped.
struct Guest {
    child: Child,
    address: SocketAddr,
    monitor: PathBuf,
    console: PathBuf,
    results: PathBuf,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Already gone after a power cut or a shutdown: nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    fn samples(&self) -> Vec<Sample> {
        Results::read(&self.results).unwrap_or_default().samples
    }

    /// Probes until `enough`, appending to this copy's results.
    async fn probe_until(&self, what: &str, enough: impl Fn(&Results) -> bool) {
        let target = Target {
            id: "oa/database".into(),
            system: "oa".into(),
            address: self.address,
            path: "/healthz".into(),
            host_header: None,
            replica_of: None,
            interval_milliseconds: None,
            hold_path: Some("/hold".into()),
        };
        let config = Config {
            interval_milliseconds: 200,
            timeout_milliseconds: 10_000,
            targets: vec![target],
        };
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.results)
            .unwrap();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(async move { probe::run(&config, out, stopped).await });
        let limit = Instant::now() + PATIENCE;
        while !enough(&Results::read(&self.results).unwrap_or_default()) {
            let console = || fs::read_to_string(&self.console).unwrap_or_default();
            assert!(Instant::now() < limit, "{what}; console:\n{}", console());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.send_replace(true);
        running.await.unwrap().unwrap();
    }

    /// Waits until the guest answers and its disk has acknowledged a write.
    async fn ready(&self) {
        self.probe_until("no good answer", |results| {
            results.samples.iter().any(|sample| sample.ok)
        })
        .await;
    }

    fn power_cut(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Presses the power button and waits until QEMU has ended by itself.
    async fn press_power_button(&mut self) {
        let mut stream = UnixStream::connect(&self.monitor).unwrap();
        let mut greeting = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut greeting)
            .unwrap();
        stream.write_all(b"system_powerdown\n").unwrap();
        let limit = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(
                Instant::now() < limit,
                "not off; console:\n{}",
                fs::read_to_string(&self.console).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn need_tools() {
    assert_eq!(missing_tool(), None, "missing; run scripts/setup.sh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_loses_power_and_is_shut_down_loses_no_write() {
    need_tools();
    let machine = Machine::new();
    let mut first = machine.start("a", "data.qcow2", true);
    first.ready().await;
    let begin = first.samples().iter().find(|sample| sample.ok).unwrap().at;
    let enough = |results: &Results| {
        let good = results.samples.iter().filter(|sample| sample.ok).count();
        good >= 25 && results.holds.iter().any(|event| event.lines >= 3)
    };
    first
        .probe_until("no 25 answers and 3 held lines", enough)
        .await;
    let results = Results::read(&first.results).unwrap();
    let report = report::judge(
        &results,
        Window {
            from: begin,
            to: u64::MAX,
        },
    );
    assert_eq!(
        report.replicas["oa/database"].failures, 0,
        "{:?}",
        report.replicas["oa/database"].errors
    );
    let guest = &report.guests["oa-database-0"];
    assert!(guest.problems.is_empty(), "{:?}", guest.problems);
    assert_eq!(guest.boots.keys().copied().collect::<Vec<_>>(), [1]);
    first.power_cut();

    let mut samples = first.samples();
    let verdict = judge_disk(&machine.path("data.qcow2"), &samples).unwrap();
    assert!(verdict.is_clean(), "{:?}", verdict.problems);
    assert!(verdict.acknowledged_checked > 0 && verdict.guest == "oa-database-0");

    let mut second = machine.start("a", "data.qcow2", true);
    second.ready().await;
    second.press_power_button().await;
    samples.extend(second.samples());
    let verdict = judge_disk(&machine.path("data.qcow2"), &samples).unwrap();
    assert!(verdict.is_clean(), "{:?}", verdict.problems);
    let boots: Vec<u64> = verdict
        .reigns
        .iter()
        .map(|reign| reign.boot_count)
        .collect();
    assert_eq!(boots, [1, 2]);
    let all = Results {
        samples,
        ..Results::default()
    };
    let guest = report::judge(&all, Window::ALL).guests["oa-database-0"].clone();
    assert_eq!(guest.boots.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(guest.problems.is_empty(), "{:?}", guest.problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_running_copies_on_one_disk_are_red() {
    need_tools();
    let machine = Machine::new();
    let (first, second) = (
        machine.start("a", "data.raw", false),
        machine.start("b", "data.raw", false),
    );
    let told = |results: &Results| {
        let words = results
            .samples
            .iter()
            .filter_map(|sample| sample.guest.as_ref()?.disk.as_ref());
        words.into_iter().any(|disk| disk.counter > 3)
    };
    first
        .probe_until("the first copy does not write", told)
        .await;
    second
        .probe_until("the second copy does not write", told)
        .await;
    let limit = Instant::now() + PATIENCE;
    loop {
        let verdict = judge_disk(&machine.path("data.raw"), &[]).unwrap();
        let conflict = verdict
            .problems
            .iter()
            .any(|problem| matches!(problem, Problem::Conflict { .. }));
        if conflict && !verdict.is_clean() {
            break;
        }
        assert!(
            Instant::now() < limit,
            "two writers were not noticed: {:?}",
            verdict.problems
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
