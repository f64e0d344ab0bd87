//! When the QEMU of a guest that was moved away is dead.
//!
//! libvirt (seen with 9.0) ends a move on its source by ending QEMU (SIGTERM), and looks only 200 ms later whether that is
//! done. The call of the move returns after that, and the guest stands still all the time. A process that is dead
//! runs nothing any more, so that is what is waited for here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procfs::ProcError;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::LibvirtHypervisor;
use crate::Hypervisor;
use crate::types::Event;

/// How often it is looked whether the process is dead, once the guest stands still for its switch-over.
const LOOK: Duration = Duration::from_millis(4);
/// A move that succeeds ends its source sooner after the guest's stop.
const DIES_WITHIN: Duration = Duration::from_secs(2);
/// Where libvirt keeps the process numbers of its domains, under the root.
const PID_FILES: &str = "run/libvirt/qemu";

impl LibvirtHypervisor {
    /// Ends when the domain stood still for the switch-over of its move and its process died without having run
    /// again; says for how long it stood still. Never ends when that can not be told.
    pub(super) async fn gone(&self, uuid: Uuid) -> Duration {
        let mut events = self.events();
        let Some(process) = self.process(uuid).await else {
            tracing::debug!(%uuid, "the domain's process is not known; its move is over when libvirt says so");
            return std::future::pending().await;
        };
        loop {
            let since = switched_over(&mut events, uuid).await;
            // Later, its death may have another cause than its move's success.
            let died = dies_before_it_runs(&mut events, uuid, &process);
            if tokio::time::timeout(DIES_WITHIN, died).await == Ok(true) {
                return since.elapsed();
            }
        }
    }

    async fn process(&self, uuid: Uuid) -> Option<Process> {
        let domains = self.list().await.ok()?;
        let domain = domains.into_iter().find(|domain| domain.uuid == uuid)?;
        Process::of(&self.root, &domain.name, uuid)
    }
}

async fn switched_over(events: &mut Receiver<Event>, uuid: Uuid) -> Instant {
    loop {
        match events.recv().await {
            Ok(Event::SwitchedOver(which)) if which == uuid => return Instant::now(),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Whether the process is found dead; no when the guest runs again, or may have: events were lost.
async fn dies_before_it_runs(events: &mut Receiver<Event>, uuid: Uuid, process: &Process) -> bool {
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(Event::Resumed(which)) if which == uuid => return false,
                Ok(Event::Reconnected) | Err(_) => return false,
                Ok(_) => {}
            },
            () = tokio::time::sleep(LOOK) => if process.is_dead() {
                return true;
            }
        }
    }
}

/// A process by its folder and the moment of its start, as numbers are used again.
#[derive(Debug)]
struct Process {
    folder: PathBuf,
    started: u64,
}

impl Process {
    /// The QEMU of a domain, if its file names one that carries the domain's UUID.
    fn of(root: &Path, name: &str, uuid: Uuid) -> Option<Self> {
        let file = root.join(PID_FILES).join(format!("{name}.pid"));
        let number: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let folder = root.join("proc").join(number.to_string());
        let process = procfs::process::Process::new_with_root(folder.clone()).ok()?;
        let words = process.cmdline().ok()?;
        let found = words.iter().any(|word| *word == uuid.to_string());
        let started = process.stat().ok()?.starttime;
        found.then_some(Self { folder, started })
    }

    /// Whether it is certainly dead: gone, another's number by now, or waited for by its parent. One whose first thread
    /// has ended while another still writes is none of these.
    fn is_dead(&self) -> bool {
        match procfs::process::Process::new_with_root(self.folder.clone())
            .and_then(|process| process.stat())
        {
            Ok(stat) => {
                stat.starttime != self.started
                    || (matches!(stat.state, 'Z' | 'X') && stat.num_threads <= 1)
            }
            // Gone, if processes can be seen at all.
            Err(ProcError::NotFound(_)) => self.folder.with_file_name("stat").exists(),
            // Not known: looked at again.
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use tokio::sync::broadcast;

    use super::*;

    const UUID: Uuid = Uuid::from_u128(7);

    /// A shell that keeps the UUID among its words, and a root in which libvirt's file names it.
    fn sleeper() -> (Child, tempfile::TempDir) {
        let words = ["-c", "read line; true", "-uuid", &UUID.to_string()];
        let child = Command::new("sh").args(words).stdin(Stdio::piped()).spawn();
        let child = child.expect("sh");
        let root = tempfile::tempdir().expect("a folder");
        let files = root.path().join(PID_FILES);
        std::fs::create_dir_all(&files).expect("made");
        std::fs::write(files.join("vm.pid"), format!("{}\n", child.id())).expect("written");
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).expect("linked");
        (child, root)
    }

    /// The words of a process are its parent's for a moment after it was forked.
    async fn process(root: &tempfile::TempDir) -> Process {
        loop {
            if let Some(process) = Process::of(root.path(), "vm", UUID) {
                return process;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    #[tokio::test]
    async fn a_process_is_dead_when_it_has_ended_and_not_before() {
        let (mut child, root) = sleeper();
        let process = process(&root).await;
        assert!(!process.is_dead());
        assert!(Process::of(root.path(), "vm", Uuid::from_u128(8)).is_none());
        assert!(Process::of(root.path(), "other", UUID).is_none());
        let reused = Process {
            folder: process.folder.clone(),
            started: process.started + 1,
        };
        assert!(reused.is_dead(), "the number is another's by now");
        child.kill().expect("killed");
        // Not waited for yet: it runs no more all the same.
        while !process.is_dead() {
            tokio::time::sleep(LOOK).await;
        }
        child.wait().expect("waited for");
        assert!(process.is_dead());
    }

    #[tokio::test]
    async fn a_guest_that_runs_again_has_not_gone() {
        let (mut child, root) = sleeper();
        let process = process(&root).await;
        let (sender, mut events) = broadcast::channel(8);
        for event in [Event::Resumed(UUID), Event::Reconnected] {
            sender.send(event).expect("heard");
            assert!(!dies_before_it_runs(&mut events, UUID, &process).await);
        }
        let other = Event::Resumed(Uuid::from_u128(8));
        sender.send(other).expect("heard");
        child.kill().expect("killed");
        assert!(dies_before_it_runs(&mut events, UUID, &process).await);
        child.wait().expect("waited for");
    }
}
