//! Two real libvirt hosts: a private lab of `zylab`, used as a program so that this crate
//! stays free of the API and its client.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

use hypervisor::libvirt::LibvirtHypervisor;

use super::Route;

/// The first host, as the second one reaches it.
pub const TO_FIRST: Route<'static> = ("qemu+tls://h1/system", "tcp://h1", Some("h1"));
/// The second host, as the first one reaches it.
pub const TO_SECOND: Route<'static> = ("qemu+tls://h2/system", "tcp://h2", Some("h2"));

/// A private lab with two hosts and nothing of the product in them.
pub struct Hosts {
    name: String,
}

fn zylab() -> Option<PathBuf> {
    let current = std::env::current_exe().ok()?;
    let named = std::env::var_os("ZYLAB_BIN").map(PathBuf::from);
    named.or_else(|| {
        current
            .ancestors()
            .skip(1)
            .map(|folder| folder.join("zylab"))
            .find(|path| path.is_file())
    })
}

/// Whether this machine can run the lab.
pub fn available() -> bool {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    let libvirt = ["libvirtd", "qemu-system-x86_64"]
        .iter()
        .all(|program| Command::new(program).arg("--version").output().is_ok());
    root && libvirt && zylab().is_some()
}

fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> std::io::Result<Output> {
    let output = Command::new(zylab().ok_or_else(|| std::io::Error::other("zylab is not built"))?)
        .args(arguments)
        .output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    Ok(output)
}

impl Hosts {
    /// Starts them.
    pub fn start() -> std::io::Result<Self> {
        let hosts = Self {
            name: format!("hv{}", std::process::id() % 1_000_000),
        };
        let empty = std::env::temp_dir().join(&hosts.name);
        std::fs::create_dir_all(&empty)?;
        let result = run([
            "up",
            "--name",
            &hosts.name,
            "--hosts",
            "2",
            "--operators",
            "0",
            "--bin-dir",
            &empty.display().to_string(),
            // Killed tests leave nothing for good: the next lab that comes up removes these hosts.
            "--owner",
            &std::process::id().to_string(),
        ]);
        std::fs::remove_dir(&empty)?;
        result.map(|_| hosts)
    }

    /// The libvirt of host N, through its socket.
    pub fn connect(&self, number: u8) -> LibvirtHypervisor {
        let init = run([
            "exec",
            "--name",
            &self.name,
            "control",
            "--",
            "pgrep",
            "-of",
            &format!("host-init --name {} h{number}", self.name),
        ]);
        // The first match is `unshare`, whose own mounts are the machine's; its child is PID 1 of the host.
        let outer = String::from_utf8(init.expect("the host runs").stdout).expect("a number");
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.trim()))
                .expect("children");
        let pid = children
            .split_whitespace()
            .next()
            .expect("PID 1 of the host")
            .to_owned();
        let uri = format!("qemu+unix:///system?socket=/proc/{pid}/root/run/libvirt/libvirt-sock");
        LibvirtHypervisor::connect(&uri, Some("qemu".to_owned()))
            .expect("event loop")
            .at_root(format!("/proc/{pid}/root").into())
    }

    /// Kills libvirtd; the host's init starts it again.
    pub fn restart_libvirtd(&self, number: u8) -> std::io::Result<()> {
        run([
            "fault",
            "--name",
            &self.name,
            "libvirtd-kill",
            &format!("h{number}"),
        ])
        .map(drop)
    }

    /// An empty raw disk of 1 MiB that both hosts see as one file; it goes with the hosts.
    pub fn disk(&self) -> std::io::Result<PathBuf> {
        let file = self.disk_file();
        std::fs::File::create(&file)?.set_len(1 << 20)?;
        Ok(file)
    }

    fn disk_file(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}-disk.raw", self.name))
    }

    /// Starts a domain that is none of ours.
    pub fn make_stray(&self, number: u8) -> std::io::Result<()> {
        let file = std::env::temp_dir().join(format!("{}-stray.xml", self.name));
        std::fs::write(
            &file,
            "<domain type='qemu'><name>stray</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>",
        )?;
        let result = self.virsh(number, &["create", &file.display().to_string()]);
        std::fs::remove_file(&file)?;
        result
    }

    /// Defines a domain that runs, as an administrator may, so that libvirt keeps it when it has ended.
    pub fn define(&self, number: u8, guest: &str) -> std::io::Result<()> {
        let script = format!(
            "virsh dumpxml --inactive {guest} >/run/defined.xml && virsh define /run/defined.xml"
        );
        let host = format!("h{number}");
        let words = [
            "exec", "--name", &self.name, &host, "--", "sh", "-c", &script,
        ];
        run(words).map(drop)
    }

    /// Lets a guest that is being moved away from host N stand still for longer, milliseconds.
    pub fn allow_pause(&self, number: u8, guest: &str, milliseconds: u64) -> std::io::Result<()> {
        let pause = milliseconds.to_string();
        self.virsh(number, &["migrate-setmaxdowntime", guest, &pause])
    }

    fn virsh(&self, number: u8, words: &[&str]) -> std::io::Result<()> {
        let host = format!("h{number}");
        let begin = ["exec", "--name", &self.name, &host, "--", "virsh"];
        run(begin.iter().chain(words)).map(drop)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = run(["down", "--name", &self.name]) {
            eprintln!("{error}");
        }
        let disk = self.disk_file();
        if disk.exists()
            && let Err(error) = std::fs::remove_file(&disk)
        {
            eprintln!("{}: {error}", disk.display());
        }
    }
}
