//! Kills everything on this host that can write to a VM's disk: the cgroup of QEMU processes,
//! and every QEMU process or disk tool wherever it runs. Says what is left.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Program names that write to disks: `qemu-system-*`, `qemu-kvm`, `qemu-img`, `qemu-nbd`, …
const PREFIX: &str = "qemu-";

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

/// By its program; by its name where the program can not be told any more, as it is ending.
fn writes(folder: &Path) -> bool {
    let program = fs::read_link(folder.join("exe")).ok();
    let named = |name: &str| name.starts_with(PREFIX);
    let by_program = program
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .is_some_and(named);
    by_program || fs::read_to_string(folder.join("comm")).is_ok_and(|name| named(&name))
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
    use std::process::Command;

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
