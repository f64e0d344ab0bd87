//! Machines that are not what they are called: another one under a host's name, one with another's system UUID, and
//! one that boots a clone of a host's disk.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use crate::address::HOSTS_MAX;
use crate::files::LabFiles;
pub use crate::host::Board;
use crate::{bmc, host, namespace, process};

/// File of a machine that boots a clone of a host's disk: whose.
const CLONE_OF: &str = "clone-of";

/// The board of the machine under a host's name.
///
/// # Errors
/// There is no such host.
pub fn board(files: &LabFiles, host: &str) -> Result<Board> {
    host::read_board(files, host)
}

/// A board like no other.
pub fn new_board() -> Board {
    // Locally administered addresses, as those of the lab's own NICs, which begin with 02:5a.
    let nic = || {
        let [one, two, three, ..] = Uuid::new_v4().into_bytes();
        format!("02:5b:00:{one:02x}:{two:02x}:{three:02x}")
    };
    Board {
        uuid: Uuid::new_v4().to_string(),
        nics: [nic(), nic()],
    }
}

/// Puts another board, with its BMC, under a host's name. The host is off, and stays so.
///
/// # Errors
/// The host is on, or a BMC can not be started.
pub fn exchange(files: &LabFiles, host: &str, board: &Board) -> Result<()> {
    ensure!(
        !host::is_on(files, host),
        "host {host} is on; switch it off before its board is exchanged"
    );
    host::write_board(files, host, board)?;
    bmc::kill(files, host)?;
    bmc::start(files, files.addresses()?, host)
}

/// Makes a machine of this system UUID that is no host of the site, and boots it from a clone of a host's disk: with that
/// host's name, keys and certificates, and an address and NICs of its own. Returns the machine's name.
///
/// # Errors
/// There is no room for another machine, or it can not be started.
pub fn boot_clone(files: &LabFiles, of: &str, uuid: &str) -> Result<String> {
    let number = (1..=HOSTS_MAX).find(|number| !files.host(&host::name(*number)).exists());
    let number = number.with_context(|| format!("a lab has {HOSTS_MAX} machines at most"))?;
    let (name, addresses) = (host::name(number), files.addresses()?);
    host::prepare_machine(files, addresses, number, number)?;
    fs::write(files.host(&name).join(CLONE_OF), of)?;
    let board = Board {
        uuid: uuid.to_owned(),
        ..board(files, &name)?
    };
    host::write_board(files, &name, &board)?;
    let keys = |host: &str| files.host(host).join("etc/upper/pki");
    let (from, to) = (keys(of), keys(&name));
    process::run("cp", ["-a".as_ref(), from.as_os_str(), to.as_os_str()])?;
    namespace::make_host(&files.name, addresses, &name, number)?;
    host::power_on(files, &name)?;
    Ok(name)
}

/// Takes a machine that booted a clone away, with all that it was.
///
/// # Errors
/// It is a host of the site, or something of it survived.
pub fn remove_clone(files: &LabFiles, name: &str) -> Result<()> {
    ensure!(is_clone(files, name), "{name} is no clone");
    host::power_off(files, name)?;
    namespace::remove_cgroup(&namespace::cgroup(&files.name, name)?)?;
    namespace::remove_host(&files.name, name, host::number(name)?)?;
    Ok(fs::remove_dir_all(files.host(name))?)
}

/// Names of the machines that boot clones.
///
/// # Errors
/// The lab's folder can not be read.
pub fn clones(files: &LabFiles) -> Result<Vec<String>> {
    let all = fs::read_dir(files.root.join("hosts"))?;
    let names = all.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names
        .into_iter()
        .filter(|name| is_clone(files, name))
        .collect())
}

/// Whether a machine boots a clone of a host's disk, and so is no host of the site.
pub(crate) fn is_clone(files: &LabFiles, name: &str) -> bool {
    clone_of(files, name).exists()
}

/// The host that a machine takes itself for, by its disk.
pub(crate) fn boots_as(files: &LabFiles, name: &str) -> String {
    fs::read_to_string(clone_of(files, name)).unwrap_or_else(|_| name.to_owned())
}

fn clone_of(files: &LabFiles, name: &str) -> PathBuf {
    files.host(name).join(CLONE_OF)
}
