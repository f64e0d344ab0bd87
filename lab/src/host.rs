//! A lab host's folder (identity, certificates, configuration, hardware that the agent reads)
//! and its power.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use uuid::Uuid;

use crate::address::Addresses;
use crate::files::{LabFiles, write_at_once};
use crate::namespace::{self, Link};
use crate::pki::{Authority, write_secret};
use crate::process::Daemon;

/// Virtual processors and memory that a lab host offers, unless told otherwise: room for
/// about ten small guests, so that N+1 means something.
pub const CAPACITY: &str = "cpu=8,memory=1536Mi";

/// The line of libvirt's configuration that tells a machine's UUID.
const HOST_UUID: &str = "host_uuid";

/// Who switches a host when no BMC does: a fault, its healing, a person at the button.
const LAB: &str = "lab";

/// Name of host N.
pub fn name(number: u8) -> String {
    format!("h{number}")
}

/// Number of a host by its name.
///
/// # Errors
/// No such name.
pub fn number(name: &str) -> Result<u8> {
    name.strip_prefix('h')
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("host {name:?}: hosts are named h1, h2, …"))
}

/// Makes a host's folder.
///
/// # Errors
/// The folder can not be written.
pub fn prepare(
    files: &LabFiles,
    addresses: Addresses,
    number: u8,
    hosts: u8,
    authority: &Authority,
) -> Result<()> {
    let name = name(number);
    prepare_machine(files, addresses, number, hosts)?;
    write_certificates(&files.host(&name), addresses, number, &name, authority)
}

/// Makes the folder of a machine: everything but the keys of a host.
///
/// # Errors
/// The folder can not be written.
pub(crate) fn prepare_machine(
    files: &LabFiles,
    addresses: Addresses,
    number: u8,
    hosts: u8,
) -> Result<()> {
    let name = name(number);
    let folder = files.host(&name);
    for part in [
        "etc/upper",
        "etc/work",
        "lib",
        "cache",
        "log",
        "local",
        "stopped",
        "root/smart",
        "root/proc",
    ] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("power"), "Off")?;
    fs::write(folder.join("bmc-mode"), "ok")?;
    write_secret(
        &folder.join("bmc-password"),
        &Uuid::new_v4().simple().to_string()[..16],
    )?;
    write_hardware(&folder)?;
    write_configuration(&folder, addresses, number, hosts)?;
    let nics = namespace::NICS.map(|nic| namespace::hardware_address(addresses, number, nic));
    let uuid = Uuid::new_v4().to_string();
    write_board(files, &name, &Board { uuid, nics })
}

/// What tells a machine from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its system UUID.
    pub uuid: String,
    /// What its NICs were made with, in the order of [`namespace::NICS`].
    pub nics: [String; 2],
}

/// Gives a machine a board, of which its firmware, libvirt and its BMC tell.
///
/// # Errors
/// A file can not be written.
pub(crate) fn write_board(files: &LabFiles, host: &str, board: &Board) -> Result<()> {
    let (folder, uuid) = (files.host(host), &board.uuid);
    fs::write(folder.join("uuid"), uuid)?;
    let root = folder.join("root");
    put(&root, "sys/class/dmi/id/product_uuid", uuid)?;
    for (nic, address) in namespace::NICS.iter().zip(&board.nics) {
        put(&root, &format!("sys/class/net/{nic}/address"), address)?;
    }
    let path = folder.join("etc/upper/libvirt/libvirtd.conf");
    let text = fs::read_to_string(&path)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.retain(|line| !line.starts_with(HOST_UUID));
    let own = format!("{HOST_UUID} = \"{uuid}\"\n");
    lines.push(&own);
    Ok(fs::write(path, lines.join("\n"))?)
}

/// The board of the machine under a host's name.
///
/// # Errors
/// There is none.
pub(crate) fn read_board(files: &LabFiles, host: &str) -> Result<Board> {
    let read = |path: &str| -> Result<String> {
        let path = files.host(host).join(path);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    };
    let [one, two] = namespace::NICS.map(|nic| read(&format!("root/sys/class/net/{nic}/address")));
    Ok(Board {
        uuid: read("uuid")?,
        nics: [one?, two?],
    })
}

/// Writes one value below a host's sysfs and procfs root.
fn put(root: &Path, path: &str, content: &str) -> Result<()> {
    let path = root.join(path);
    fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    Ok(fs::write(path, format!("{content}\n"))?)
}

/// Counters of memory errors: a kernel counts from its own boot on.
fn write_memory_counters(root: &Path) -> Result<()> {
    let controller = "sys/devices/system/edac/mc/mc0";
    for (file, content) in [
        ("mc_name", "lab"),
        ("size_mb", "1536"),
        ("seconds_since_reset", "0"),
        ("ce_count", "0"),
        ("ue_count", "0"),
        ("ce_noinfo_count", "0"),
        ("ue_noinfo_count", "0"),
        ("csrow0/ce_count", "0"),
        ("csrow0/ue_count", "0"),
    ] {
        put(root, &format!("{controller}/{file}"), content)?;
    }
    Ok(())
}

/// What the kernel tells of a NIC's link.
const LINK_PARTS: [&str; 7] = [
    "carrier",
    "carrier_changes",
    "carrier_down_count",
    "flags",
    "operstate",
    "speed",
    "statistics",
];

/// The pieces of sysfs, procfs and kernel log that the agent reads; faults are injected here.
fn write_hardware(folder: &Path) -> Result<()> {
    let root = folder.join("root");
    let put = |path: &str, content: &str| put(&root, path, content);
    write_memory_counters(&root)?;
    let sensor = "sys/class/hwmon/hwmon0";
    for (file, content) in [
        ("name", "coretemp"),
        ("temp1_label", "Package id 0"),
        ("temp1_input", "41000"),
        ("temp1_max", "80000"),
        ("temp1_crit", "100000"),
    ] {
        put(&format!("{sensor}/{file}"), content)?;
    }
    // Links and mounts are real: inside the host these lead to its own. Its NICs are those of its board, with hardware
    // below them, which the kernel's own do not have here.
    for nic in namespace::NICS {
        let folder = root.join("sys/class/net").join(nic);
        fs::create_dir_all(folder.join("device"))?;
        for part in LINK_PARTS {
            symlink(format!("/sys/class/net/{nic}/{part}"), folder.join(part))?;
        }
    }
    symlink("/proc/mounts", root.join("proc/mounts"))?;
    put("proc/mdstat", "Personalities : \nunused devices: <none>")?;
    fs::write(root.join("kmsg"), "")?;
    fs::write(
        root.join("smart/sda.json"),
        include_str!("../hardware/sda.json"),
    )?;
    let smartctl = root.join("smartctl");
    fs::write(&smartctl, include_str!("../hardware/smartctl.sh"))?;
    fs::set_permissions(&smartctl, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// libvirt's and QEMU's configuration, in the upper layer of the host's /etc.
fn write_configuration(folder: &Path, addresses: Addresses, number: u8, hosts: u8) -> Result<()> {
    let etc = folder.join("etc/upper");
    fs::create_dir_all(etc.join("libvirt/hooks"))?;
    let libvirtd = format!(
        "listen_tls = 1\nlisten_tcp = 0\ntls_port = \"16514\"\nlisten_addr = \"{}\"\nauth_unix_rw = \"none\"\nunix_sock_dir = \"/run/libvirt\"\nkeepalive_interval = 5\nkeepalive_count = 3\nlog_outputs = \"3:stderr\"\n",
        addresses.management(number)
    );
    fs::write(etc.join("libvirt/libvirtd.conf"), libvirtd)?;
    fs::write(
        etc.join("libvirt/qemu.conf"),
        "security_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\ndefault_tls_x509_cert_dir = \"/etc/pki/qemu\"\ndefault_tls_x509_verify = 1\n",
    )?;
    let mut names = String::from("127.0.0.1 localhost\n");
    for other in 1..=hosts {
        names.push_str(&format!(
            "{} {}\n",
            addresses.management(other),
            name(other)
        ));
    }
    fs::write(etc.join("hosts"), names)?;
    fs::write(etc.join("hostname"), name(number))?;
    Ok(())
}

/// The group ffdhe2048 (RFC 7919, appendix A.1), PKCS #3. Without the file every QEMU that is to
/// receive a guest makes a group of its own first: half a second to many seconds of processor time.
const DH_PARAMETERS: &str = "-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
";

fn write_certificates(
    folder: &Path,
    addresses: Addresses,
    number: u8,
    name: &str,
    authority: &Authority,
) -> Result<()> {
    let identity = authority.issue(
        name,
        api::names::HOSTS_GROUP,
        &[name],
        &[addresses.management(number).into()],
    )?;
    let pki = folder.join("etc/upper/pki");
    for (file, content) in [
        ("CA/cacert.pem", &authority.certificate),
        ("libvirt/servercert.pem", &identity.certificate),
        ("libvirt/clientcert.pem", &identity.certificate),
        ("libvirt/private/serverkey.pem", &identity.key),
        ("libvirt/private/clientkey.pem", &identity.key),
        ("qemu/ca-cert.pem", &authority.certificate),
        ("qemu/server-cert.pem", &identity.certificate),
        ("qemu/server-key.pem", &identity.key),
        ("qemu/client-cert.pem", &identity.certificate),
        ("qemu/client-key.pem", &identity.key),
        ("qemu/dh-params.pem", &DH_PARAMETERS.to_owned()),
        ("zhengyun/ca.pem", &authority.certificate),
        ("zhengyun/cert.pem", &identity.certificate),
        ("zhengyun/key.pem", &identity.key),
    ] {
        write_secret(&pki.join(file), content)?;
    }
    Ok(())
}

/// Whether a host is on: what its BMC reads.
pub fn is_on(files: &LabFiles, host: &str) -> bool {
    fs::read_to_string(files.host(host).join("power")).is_ok_and(|state| state == "On")
}

/// Cuts a host's power: its links drop first, then everything in it dies at once.
///
/// # Errors
/// Something survived.
pub fn power_off(files: &LabFiles, host: &str) -> Result<()> {
    switch_off(files, host, LAB)
}

/// Cuts a host's power in somebody's name: `lab`, or `bmc` when a command to the BMC did it.
///
/// # Errors
/// Something survived.
pub fn switch_off(files: &LabFiles, host: &str, by: &str) -> Result<()> {
    let _lock = crate::files::lock(&files.host(host).join("power.lock"))?;
    let (was_on, at) = (is_on(files, host), crate::judges::now());
    die(files, host)?;
    write_at_once(&files.host(host).join("power"), b"Off")?;
    if was_on {
        note_power(files, host, at, false, by)?;
    }
    Ok(())
}

/// Resets a host in somebody's name, as its watchdog does: everything in it dies at once and it boots
/// anew, while its BMC reads On. One that is off stays off.
///
/// # Errors
/// Something survived, or the host can not be started.
pub fn reset(files: &LabFiles, host: &str, by: &str) -> Result<()> {
    let _lock = crate::files::lock(&files.host(host).join("power.lock"))?;
    if !is_on(files, host) {
        return Ok(());
    }
    let at = crate::judges::now();
    die(files, host)?;
    note_power(files, host, at, false, by)?;
    boot(files, host)?;
    note_power(files, host, crate::judges::now(), true, by)
}

/// The end of a boot: the links drop first, then everything in the host dies at once.
fn die(files: &LabFiles, host: &str) -> Result<()> {
    let number = number(host)?;
    for link in [Link::Management, Link::Business] {
        namespace::set_link(&files.name, number, link, false)?;
    }
    namespace::kill_cgroup(&namespace::cgroup(&files.name, host)?)
}

/// The file that tells every switching of a host, for judges: one line each, as a history has them.
pub fn power_file(files: &LabFiles) -> PathBuf {
    files.root.join("power.jsonl")
}

fn note_power(files: &LabFiles, host: &str, at: u64, on: bool, by: &str) -> Result<()> {
    let power = judge::history::Power {
        at,
        host: host.to_owned(),
        on,
        boot_id: boot_id(files, host)?,
        by: by.to_owned(),
    };
    let line = serde_json::to_string(&judge::history::Entry::Power(power))?;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(power_file(files))?;
    // One write for the whole line: other processes append here too.
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// Boot id of the present or last boot of a host.
///
/// # Errors
/// The host was never on.
pub fn boot_id(files: &LabFiles, host: &str) -> Result<String> {
    let text = fs::read_to_string(files.host(host).join("boot_id"))
        .with_context(|| format!("host {host} was never on"))?;
    Ok(text.trim().to_owned())
}

/// Switches a host on: a new boot id, nothing left of the former boot.
///
/// # Errors
/// The host can not be started.
pub fn power_on(files: &LabFiles, host: &str) -> Result<()> {
    let folder = files.host(host);
    if !folder.is_dir() {
        bail!("host {host} does not exist in lab {}", files.name);
    }
    let _lock = crate::files::lock(&folder.join("power.lock"))?;
    if is_on(files, host) {
        return Ok(());
    }
    boot(files, host)?;
    write_at_once(&folder.join("power"), b"On")?;
    note_power(files, host, crate::judges::now(), true, LAB)
}

/// A new boot, with nothing of the former one.
fn boot(files: &LabFiles, host: &str) -> Result<()> {
    let number = number(host)?;
    let cgroup = namespace::cgroup(&files.name, host)?;
    namespace::make_cgroup(&cgroup)?;
    namespace::freeze(&cgroup, false)?;
    namespace::clear_host(&files.name, host)?;
    crate::watchdog::stop(files, host)?;
    // The file stays in place, as it may be a mount's source: written, not replaced.
    let boot_id = files.host(host).join("boot_id");
    fs::write(boot_id, format!("{}\n", Uuid::new_v4()))?;
    write_memory_counters(&files.host(host).join("root"))?;
    for link in [Link::Management, Link::Business] {
        namespace::set_link(&files.name, number, link, true)?;
    }
    namespace::raise_host(&files.name, host)?;
    let zylab = crate::process::zylab()?;
    let arguments: [&std::ffi::OsStr; 12] = [
        "unshare".as_ref(),
        "--mount".as_ref(),
        "--uts".as_ref(),
        "--pid".as_ref(),
        "--fork".as_ref(),
        "--kill-child".as_ref(),
        "--mount-proc".as_ref(),
        zylab.as_ref(),
        "host-init".as_ref(),
        "--name".as_ref(),
        files.name.as_ref(),
        host.as_ref(),
    ];
    Daemon {
        cgroup: &cgroup,
        namespace: Some(&namespace::host(&files.name, host)),
        log: &files.logs().join(format!("{host}.log")),
        command: arguments
            .iter()
            .map(|argument| argument.to_os_string())
            .collect(),
    }
    .start()
}

/// Process ids of a program in a host or the control node, by the program's file name.
///
/// # Errors
/// The cgroup can not be read.
pub fn processes(files: &LabFiles, part: &str, program: &str) -> Result<Vec<i32>> {
    let procs = fs::read_to_string(namespace::cgroup(&files.name, part)?.join("cgroup.procs"))?;
    let runs = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
            // A program that was built anew while it ran has " (deleted)" behind its name.
            exe.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.trim_end_matches(" (deleted)") == program)
        })
    };
    Ok(procs
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .filter(runs)
        .collect())
}

/// Folder of hardware files of a host.
pub fn hardware(files: &LabFiles, host: &str) -> PathBuf {
    files.host(host).join("root")
}
