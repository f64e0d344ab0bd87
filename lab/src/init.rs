//! PID 1 of a lab host: mounts the host's own folders, starts libvirtd, guard and agent,
//! restarts what crashes as systemd would, and reaps orphans (libvirt waits for QEMU to be
//! reaped, and QEMU daemonises).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::address::Addresses;
use crate::bmc;
use crate::clock;
use crate::files::LabFiles;
use crate::host;
use crate::machine;

/// Where the shared storage is mounted.
const SHARED: &str = "/srv/zhengyun/shared";
/// Wait before a crashed service is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// How often the services are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Runs a host until its power is cut.
///
/// # Errors
/// A folder can not be mounted.
pub fn run(files: &LabFiles, host: &str) -> Result<()> {
    let folder = files.host(host);
    nix::unistd::sethostname(host)?;
    mount_all(files, host).with_context(|| format!("host {host}: mounts"))?;
    let mut services = services(files, host, files.addresses()?)?;
    loop {
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) =
            waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG))
        {
            ended(&mut services, pid);
        }
        for (name, service) in &mut services {
            let before = clock::words(name, &clock::file(files, host));
            service.step(&folder.join("stopped").join(name), before);
        }
        std::thread::sleep(TICK);
    }
}

fn bind(from: &Path, to: &str) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("{} on {to}", from.display()))
}

fn mount_all(files: &LabFiles, host: &str) -> Result<()> {
    let folder = files.host(host);
    // The namespace is new, and so must be the view of its devices.
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    mount(
        Some("tmpfs"),
        "/srv",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    let etc = folder.join("etc");
    let layers = format!(
        "lowerdir=/etc,upperdir={},workdir={}",
        etc.join("upper").display(),
        etc.join("work").display()
    );
    mount(
        Some("overlay"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(layers.as_str()),
    )?;
    for part in [
        "/run/libvirt",
        "/run/zhengyun",
        "/run/lock",
        SHARED,
        "/srv/zhengyun/local",
    ] {
        fs::create_dir_all(part)?;
    }
    bind(&folder.join("lib"), "/var/lib/libvirt")?;
    bind(&folder.join("cache"), "/var/cache/libvirt")?;
    bind(&folder.join("log"), "/var/log/libvirt")?;
    bind(&folder.join("local"), "/srv/zhengyun/local")?;
    bind(&folder.join("boot_id"), "/proc/sys/kernel/random/boot_id")?;
    // What of the machine's disk is no part of this host's root disk, which may turn read-only (`root_disk`).
    for other in [files.logs(), files.shared(), folder.join("root")] {
        bind(&other, &other.display().to_string())?;
    }
    Ok(())
}

/// One service of the host.
struct Service {
    command: Vec<String>,
    log: PathBuf,
    /// Started only once this path exists.
    after: Option<PathBuf>,
    /// What it mounts; a mount that a former one left is taken away before it starts.
    mounts: Option<&'static str>,
    pid: Option<Pid>,
    not_before: Instant,
}

impl Service {
    /// Starts it, with these words before its command, when it should run and does not.
    fn step(&mut self, stopped: &Path, before: Vec<String>) {
        let waits = self.after.as_ref().is_some_and(|path| !path.exists());
        if self.pid.is_some() || waits || stopped.exists() || Instant::now() < self.not_before {
            return;
        }
        self.not_before = Instant::now() + RESTART_AFTER;
        match self.start(before) {
            Ok(pid) => self.pid = Some(pid),
            Err(error) => eprintln!("{}: {error:#}", self.command[0]),
        }
    }

    fn start(&self, mut words: Vec<String>) -> Result<Pid> {
        words.extend(self.command.iter().cloned());
        if let Some(path) = self.mounts {
            // A file system whose server was killed stays mounted, dead, and nothing mounts over it.
            // At the first start there is none, which is what this says then.
            match umount2(path, MntFlags::MNT_DETACH) {
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(error) => return Err(error).context(path),
            }
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        // Reaped by the loop above, as PID 1 reaps everybody.
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }
}

fn ended(services: &mut BTreeMap<&'static str, Service>, pid: Pid) {
    for service in services.values_mut() {
        if service.pid == Some(pid) {
            service.pid = None;
            service.not_before = Instant::now() + RESTART_AFTER;
        }
    }
}

/// Where the agent reads power supplies, fans and temperatures.
fn sensors(files: &LabFiles, host: &str, number: u8, addresses: Addresses) -> Vec<String> {
    let words = if bmc::has_redfish(number) {
        [
            "--bmc-url".to_owned(),
            format!(
                "http://{}:{}",
                addresses.control(),
                addresses.redfish_port(number)
            ),
            "--bmc-credentials-file".to_owned(),
            files.host(host).join("bmc-password").display().to_string(),
        ]
    } else {
        // In band, were there a device: the program asks over the network, and which device, it ignores.
        [
            "--ipmitool".to_owned(),
            bmc::ipmitool(files, host).display().to_string(),
            "--ipmi-device".to_owned(),
            "/dev/null".to_owned(),
        ]
    };
    words.to_vec()
}

fn services(
    files: &LabFiles,
    host: &str,
    addresses: Addresses,
) -> Result<BTreeMap<&'static str, Service>> {
    let number = host::number(host)?;
    let logs = files.logs();
    let root = host::hardware(files, host);
    let bin = PathBuf::from(fs::read_to_string(files.root.join("bin-dir"))?.trim());
    let program = |name: &str| bin.join(name).display().to_string();
    // Name and keys lie on the disk.
    let named = machine::boots_as(files, host);
    let kubeconfig = files.kubeconfig(&named).display().to_string();
    let at = |path: &str| root.join(path).display().to_string();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let service = |name: &str, command: Vec<String>, after: Option<&str>| Service {
        command,
        log: logs.join(format!("{host}-{name}.log")),
        after: after.map(PathBuf::from),
        mounts: None,
        pid: None,
        not_before: Instant::now(),
    };
    // A FUSE server for each host, so that one host's storage can be cut or hung. Locks end at it: the kernel keeps those
    // of one mount itself and does not hand them on, so QEMU's image locks hold between processes of one host and not
    // between hosts. What must never run twice is judged by the disk ledger (`lab/judge`), not by a lock.
    let shared = files.shared().display().to_string();
    // Beyond its limits it fails, and does not die: that is how a lab cuts storage off.
    let bindfs = words(&[
        "env",
        "--ignore-signal=XFSZ",
        "bindfs",
        "-f",
        "--multithreaded",
        "-o",
        "allow_other,direct_io",
        &shared,
        SHARED,
    ]);
    let libvirtd = words(&[
        "libvirtd",
        "--listen",
        "--config",
        "/etc/libvirt/libvirtd.conf",
        "--pid-file",
        "/run/libvirt/libvirtd.pid",
    ]);
    let watchdog = crate::watchdog::path(files, host).display().to_string();
    let guard = words(&[
        &program("zhengyun-guard"),
        "--host",
        &named,
        "--kubeconfig",
        &kubeconfig,
        "--run-dir",
        "/run/zhengyun",
        "--simulated-watchdog",
        &watchdog,
    ]);
    let management = addresses.management(number).to_string();
    let mut agent = words(&[
        &program("zhengyun-agent"),
        "--host",
        &named,
        "--kubeconfig",
        &kubeconfig,
        "--sysfs-root",
        &at("sys"),
        "--procfs-root",
        &at("proc"),
        "--kernel-log",
        &at("kmsg"),
        "--smartctl",
        &at("smartctl"),
        "--management-address",
        &management,
        "--business-device",
        "eth1",
        "--vtep-address",
        &addresses.business(number).to_string(),
        "--run-dir",
        "/run/zhengyun",
        "--tls-cert",
        "/etc/pki/zhengyun/cert.pem",
        "--tls-key",
        "/etc/pki/zhengyun/key.pem",
        "--tls-ca",
        "/etc/pki/zhengyun/ca.pem",
        "--listen",
        &format!("{management}:9443"),
        "--capacity",
        &fs::read_to_string(files.root.join("capacity"))?,
        "--hypervisor",
        &fs::read_to_string(files.root.join("hypervisor"))?,
        "--domain-type",
        "qemu",
    ]);
    agent.extend(sensors(files, host, number, addresses));
    let mut services = BTreeMap::new();
    let shared = Service {
        mounts: Some(SHARED),
        ..service("bindfs", bindfs, None)
    };
    services.insert("bindfs", shared);
    services.insert("libvirtd", service("libvirtd", libvirtd, None));
    if Path::new(&program("zhengyun-agent")).is_file() {
        services.insert("guard", service("guard", guard, None));
        services.insert(
            "agent",
            service("agent", agent, Some("/run/libvirt/libvirt-sock")),
        );
        let hook = Path::new("/etc/libvirt/hooks/qemu");
        let _ = fs::remove_file(hook);
        fs::copy(program("zhengyun-qemu-hook"), hook).context("the qemu hook")?;
    }
    Ok(services)
}
