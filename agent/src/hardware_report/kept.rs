//! What the probes remember, kept in `/run` beside the ledger: a restart of the agent neither clears a
//! fault that stands nor begins its clean time anew. It means something for one boot only.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hardware::{Probes, State};

use crate::guard::files::replace;

/// The probes of one slot, with what they remembered before this agent started.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    written: State,
}

fn file(run_dir: &Path, slot: usize) -> PathBuf {
    run_dir.join(format!("hardware-{slot}.json"))
}

fn read(path: &Path) -> Option<State> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "what the probes remember can not be read; they begin anew");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|error| {
            tracing::error!(%error, path = %path.display(), "what the probes remember is damaged; they begin anew");
        })
        .ok()
}

/// Probes that go on where those of the former agent ended.
pub fn open(run_dir: &Path, slot: usize, boot_id: &str) -> (Probes, Kept) {
    let path = file(run_dir, slot);
    let probes = Probes::new(boot_id, read(&path));
    let written = probes.state().clone();
    (probes, Kept { path, written })
}

impl Kept {
    /// Keeps what the probes remember now, if it changed.
    pub fn keep(&mut self, probes: &Probes) {
        if *probes.state() == self.written {
            return;
        }
        let stored = serde_json::to_vec(probes.state())
            .map_err(std::io::Error::from)
            .and_then(|bytes| replace(&self.path, &bytes));
        match stored {
            Ok(()) => self.written = probes.state().clone(),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "what the probes remember can not be kept; a restart of the agent would forget faults");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hardware::{Bmc, Inputs, Moment, Poll, Probe, Roots, Thresholds};

    use super::*;

    fn poll(probes: &mut Probes, boot_seconds: i64, text: &str) -> Poll {
        let roots = Roots::default();
        probes.poll(
            &[Probe::Bmc],
            &Inputs {
                roots: &roots,
                now: Moment {
                    boot_seconds,
                    unix_seconds: 1_700_000_000 + boot_seconds,
                },
                watched_links: &[],
                bmc: Bmc::Ipmi(text),
                pools: &[],
                clock: None,
            },
        )
    }

    const LOST: &str =
        "PS2 Status       | 52h | ok  | 10.2 | Presence detected, Power Supply AC lost\n";
    const WELL: &str = "PS2 Status       | 52h | ok  | 10.2 | Presence detected\n";

    #[test]
    fn a_restart_of_the_agent_keeps_a_fault_and_its_clean_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut probes, mut kept) = open(folder.path(), 1, "b1");
        poll(&mut probes, 0, LOST);
        assert_eq!(poll(&mut probes, 2, LOST).faults.len(), 1);
        poll(&mut probes, 4, WELL);
        kept.keep(&probes);
        let clear = Thresholds::default().clear_seconds;
        let (mut again, mut kept) = open(folder.path(), 1, "b1");
        assert_eq!(again.faults().len(), 1, "before any poll");
        assert_eq!(poll(&mut again, 4 + clear - 1, WELL).faults.len(), 1);
        kept.keep(&again);
        let (mut third, _) = open(folder.path(), 1, "b1");
        assert!(poll(&mut third, 4 + clear, WELL).faults.is_empty());
        // Another slot, another boot: nothing of it.
        assert!(open(folder.path(), 0, "b1").0.faults().is_empty());
        assert!(open(folder.path(), 1, "b2").0.faults().is_empty());
    }

    #[test]
    fn other_thresholds_count_from_the_next_poll_on_forget_nothing_and_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut probes, mut kept) = open(folder.path(), 1, "b1");
        poll(&mut probes, 0, LOST);
        probes.set_thresholds(Thresholds {
            raise_polls: 3,
            clear_seconds: 60,
            ..Thresholds::default()
        });
        assert!(poll(&mut probes, 2, LOST).faults.is_empty(), "seen twice");
        let third = poll(&mut probes, 4, LOST);
        assert_eq!(third.faults.len(), 1, "the first sight counts");
        poll(&mut probes, 6, WELL);
        kept.keep(&probes);
        // Another agent, which nobody has told the policy yet.
        let (mut again, _) = open(folder.path(), 1, "b1");
        assert_eq!(poll(&mut again, 65, WELL).faults.len(), 1);
        assert!(poll(&mut again, 66, WELL).faults.is_empty());
    }

    #[test]
    fn what_an_earlier_version_kept_is_judged_by_the_defaults() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(file(folder.path(), 1), r#"{"boot_id":"b1"}"#).expect("written");
        let (probes, _) = open(folder.path(), 1, "b1");
        assert_eq!(*probes.state(), *Probes::new("b1", None).state());
    }

    #[test]
    fn a_damaged_memory_begins_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(file(folder.path(), 1), "{").expect("written");
        let (mut probes, mut kept) = open(folder.path(), 1, "b1");
        assert!(probes.faults().is_empty());
        poll(&mut probes, 0, LOST);
        poll(&mut probes, 2, LOST);
        kept.keep(&probes);
        assert_eq!(open(folder.path(), 1, "b1").0.faults().len(), 1);
    }
}
