//! Kills everything on this host that can write to a VM's disk: the cgroup of QEMU processes,
//! and every QEMU process or disk tool wherever it runs. Says what is left.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Program names that write to disks: `qemu-system-*`, `qemu-kvm`, `qemu-img`, `qemu-nbd`, …
const PREFIX: &str = "qemu-";
/// The one that makes and grows volumes.
const DISK_TOOL: &str = "qemu-img";

/// Kills, and returns one line for each thing that is not gone yet.
pub fn kill_writers(cgroups: &[PathBuf], proc_root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for cgroup in cgroups.iter().filter(|cgroup| cgroup.is_dir()) {
        if !populated(cgroup) {
            continue;
        }
        if let Err(error) = fs::write(cgroup.join("cgroup.kill"), "1") {
            left.push(format!("{}: {error}", cgroup.display()));
        } else if populated(cgroup) {
            left.push(format!("{} is populated", cgroup.display()));
        }
    }
    match fs::read_dir(proc_root) {
        Ok(entries) => {
            for entry in entries.flatten() {
                let pid = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok());
                if let Some(pid) = pid {
                    left.extend(kill_process(proc_root, pid));
                }
            }
        }
        Err(error) => left.push(format!("{}: {error}", proc_root.display())),
    }
    left
}

/// Kills every disk tool that has a file of this volume among its words, and returns one line for each that is not gone yet.
/// One whose words can not be read, as it has just begun or is ending, may be of this volume: it is not killed, and not gone.
///
/// # Errors
/// Processes can not be seen.
pub fn kill_disk_tools(volume_uid: &str, proc_root: &Path) -> io::Result<Vec<String>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(proc_root)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let folder = proc_root.join(&name);
        if !is_named(&folder, |program| program == DISK_TOOL) {
            continue;
        }
        match has_file_of(&folder, volume_uid) {
            Some(true) => left.extend(kill_process(proc_root, pid)),
            None if !is_dead(&folder) => {
                left.push(format!("process {pid} does not tell its files"));
            }
            None | Some(false) => {}
        }
    }
    Ok(left)
}

/// Whether a file of this volume, which its pool has as `UID.` and an ending, is among the words of a process; none where it
/// has no words.
fn has_file_of(folder: &Path, volume_uid: &str) -> Option<bool> {
    let bytes = fs::read(folder.join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let prefix = format!("{volume_uid}.");
    let mut names = text
        .split('\0')
        .filter_map(|word| Path::new(word).file_name());
    let is_its = |name: &OsStr| name.to_string_lossy().starts_with(&prefix);
    (!text.is_empty()).then(|| names.any(is_its))
}

fn populated(cgroup: &Path) -> bool {
    // Unreadable counts as populated: nothing is said to be gone that was not seen to be.
    fs::read_to_string(cgroup.join("cgroup.events")).map_or(true, |events| {
        !events.lines().any(|line| line == "populated 0")
    })
}

fn kill_process(proc_root: &Path, pid: i32) -> Option<String> {
    let folder = proc_root.join(pid.to_string());
    if !writes(&folder) || is_dead(&folder) {
        return None;
    }
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        && error != nix::errno::Errno::ESRCH
    {
        return Some(format!("process {pid}: {error}"));
    }
    (!is_dead(&folder)).then(|| format!("process {pid} is not gone"))
}

fn writes(folder: &Path) -> bool {
    is_named(folder, |name| name.starts_with(PREFIX))
}

/// By its program; by its name where the program can not be told any more, as it is ending.
fn is_named(folder: &Path, named: impl Fn(&str) -> bool) -> bool {
    let program = fs::read_link(folder.join("exe")).ok();
    let by_program = program
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .is_some_and(&named);
    by_program || fs::read_to_string(folder.join("comm")).is_ok_and(|name| named(name.trim_end()))
}

/// No thread of it can run: a process whose first thread has ended may still write by another.
fn is_dead(folder: &Path) -> bool {
    let Ok(tasks) = fs::read_dir(folder.join("task")) else {
        return true;
    };
    tasks.flatten().all(|task| {
        fs::read_to_string(task.path().join("stat"))
            .ok()
            .and_then(|stat| stat.rsplit_once(") ")?.1.chars().next())
            .is_none_or(|state| matches!(state, 'Z' | 'X'))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    use super::*;

    /// A real process that runs under the name of a disk tool, in a procfs of its own making,
    /// so that no other test's processes are touched.
    #[test]
    fn a_disk_tool_is_killed_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = folder.path().join("qemu-img");
        fs::copy("/bin/sleep", &tool).expect("a program");
        let proc_root = folder.path().join("proc");
        fs::create_dir(&proc_root).expect("a folder");
        let start = |program: &Path| Command::new(program).arg("600").spawn().expect("started");
        let (mut writer, mut other) = (start(&tool), start(Path::new("/bin/sleep")));
        for child in [&writer, &other] {
            let pid = child.id().to_string();
            symlink(Path::new("/proc").join(&pid), proc_root.join(&pid)).expect("a link");
        }
        while !kill_writers(&[], &proc_root).is_empty() {
            std::thread::yield_now();
        }
        assert!(
            writer.wait().expect("ended").code().is_none(),
            "killed by a signal"
        );
        assert!(other.try_wait().expect("looked at").is_none(), "runs on");
        other.kill().expect("ended");
        other.wait().expect("ended");
    }

    /// Shells under the name of a disk tool, that wait for a word and have files of two volumes among theirs.
    #[test]
    fn of_disk_tools_those_of_one_volume_are_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = folder.path().join("qemu-img");
        fs::copy("/bin/sh", &tool).expect("a program");
        let proc_root = folder.path().join("proc");
        fs::create_dir(&proc_root).expect("a folder");
        let start = |program: &Path, file: &str| {
            let words = ["-c", "read line; true", "convert", file];
            let mut command = Command::new(program);
            let child = command.args(words).stdin(Stdio::piped()).spawn();
            let child = child.expect("started");
            let pid = child.id().to_string();
            symlink(Path::new("/proc").join(&pid), proc_root.join(&pid)).expect("a link");
            child
        };
        let mut own = start(&tool, "/pool/volumes/u1.making-2");
        let mut others = [
            start(&tool, "/pool/volumes/u12.making-2"),
            start(Path::new("/bin/sh"), "/pool/volumes/u1.qcow2"),
        ];
        let kill = || kill_disk_tools("u1", &proc_root).expect("processes");
        while own.try_wait().expect("looked at").is_none() {
            kill();
            std::thread::yield_now();
        }
        assert_eq!(kill(), Vec::<String>::new(), "none is left");
        for other in &mut others {
            assert!(other.try_wait().expect("looked at").is_none(), "runs on");
            other.kill().expect("ended");
            other.wait().expect("ended");
        }
        kill_disk_tools("u1", &folder.path().join("nowhere")).expect_err("nobody knows");
    }

    #[test]
    fn what_can_not_be_seen_gone_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let proc_root = folder.path().join("proc");
        fs::create_dir(&proc_root).expect("a folder");
        let cgroup = folder.path().join("machine.slice");
        assert!(
            kill_writers(std::slice::from_ref(&cgroup), &proc_root).is_empty(),
            "there is none"
        );
        fs::create_dir(&cgroup).expect("a folder");
        let left = kill_writers(std::slice::from_ref(&cgroup), &proc_root);
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(
            fs::read_to_string(cgroup.join("cgroup.kill")).expect("written"),
            "1"
        );
        fs::write(cgroup.join("cgroup.events"), "populated 1\nfrozen 0\n").expect("write");
        assert_eq!(
            kill_writers(std::slice::from_ref(&cgroup), &proc_root).len(),
            1
        );
        fs::write(cgroup.join("cgroup.events"), "populated 0\nfrozen 0\n").expect("write");
        assert!(kill_writers(std::slice::from_ref(&cgroup), &proc_root).is_empty());
        assert!(!kill_writers(&[], &folder.path().join("nowhere")).is_empty());
    }
}
