//! What the guard keeps in the run folder: its memory, and the count of its firings, which the
//! agent and the hook read too. Both mean something for one boot; the folder lies in `/run`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use failover::guard::GuardMemory;
use serde::{Deserialize, Serialize};

/// How often the guard has fired in this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Firings {
    /// The count.
    pub count: u64,
    /// What had to be killed is not gone yet.
    pub killing: bool,
}

impl Firings {
    /// Reads the count; none has happened where there is no file.
    ///
    /// # Errors
    /// The file is there and can not be read, or holds no count: then nobody knows, and nothing
    /// may be started.
    pub fn read(run_dir: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(file(run_dir)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut words = text.split_whitespace();
        let count = words.next().and_then(|word| word.parse().ok());
        match (count, words.next(), words.next()) {
            (Some(count), None, None) => Ok(Self {
                count,
                killing: false,
            }),
            (Some(count), Some("killing"), None) => Ok(Self {
                count,
                killing: true,
            }),
            _ => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("{} holds no count of firings", file(run_dir).display()),
            )),
        }
    }

    /// Writes the count durably.
    ///
    /// # Errors
    /// The file can not be written.
    pub fn write(self, run_dir: &Path) -> io::Result<()> {
        let killing = if self.killing { " killing" } else { "" };
        replace(
            &file(run_dir),
            format!("{}{killing}\n", self.count).as_bytes(),
        )
    }
}

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("guard-firings")
}

/// Replaces a file at once: a reader sees the old content or the new one.
///
/// # Errors
/// It can not be written.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut new = File::create(&temporary)?;
    new.write_all(content)?;
    new.sync_all()?;
    fs::rename(&temporary, path)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    boot_id: String,
    memory: GuardMemory,
}

/// Reads the memory of this boot's guard; an empty one where there is none, a lost one where it can not
/// be read: a guard that did not start would let the watchdog reset a host that reaches everything.
///
/// # Errors
/// The firings can not be read: nobody knows under which name the host may live.
pub fn load(run_dir: &Path, boot_id: &str) -> io::Result<GuardMemory> {
    let mut memory = match read_memory(run_dir) {
        Ok(stored) => stored
            .filter(|stored| stored.boot_id == boot_id)
            .map(|stored| stored.memory)
            .unwrap_or_default(),
        Err(error) => {
            tracing::error!(
                %error,
                "what the guard had registered could not be read: it is not armed, and feeds no watchdog before the API server has heard that"
            );
            GuardMemory {
                lost: true,
                ..GuardMemory::default()
            }
        }
    };
    // The count is written first: it may be ahead.
    let firings = Firings::read(run_dir)?;
    memory.firings = memory.firings.max(firings.count);
    memory.killing |= firings.killing;
    Ok(memory)
}

fn read_memory(run_dir: &Path) -> io::Result<Option<Stored>> {
    match fs::read(run_dir.join("guard.json")) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the memory.
///
/// # Errors
/// It can not be written.
pub fn store(run_dir: &Path, boot_id: &str, memory: &GuardMemory) -> io::Result<()> {
    let stored = Stored {
        boot_id: boot_id.to_owned(),
        memory: memory.clone(),
    };
    replace(&run_dir.join("guard.json"), &serde_json::to_vec(&stored)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover::Moment;

    #[test]
    fn firings_are_counted_durably_and_an_unreadable_count_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = || Firings::read(folder.path());
        assert_eq!(read().expect("none yet"), Firings::default());
        for firings in [(1, true), (1, false), (12, true)] {
            let firings = Firings {
                count: firings.0,
                killing: firings.1,
            };
            firings.write(folder.path()).expect("write");
            assert_eq!(read().expect("read"), firings);
        }
        for wrong in ["", "many", "1 2", "-1", "1 killing now"] {
            fs::write(file(folder.path()), wrong).expect("write");
            read().expect_err(wrong);
        }
    }

    #[test]
    fn memory_survives_the_guard_and_not_the_boot() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut memory = GuardMemory {
            renewed_at: Moment(7),
            ..GuardMemory::default()
        };
        memory.beaten("p", Moment(8));
        store(folder.path(), "b1", &memory).expect("store");
        assert_eq!(load(folder.path(), "b1").expect("load"), memory);
        assert_eq!(
            load(folder.path(), "b2").expect("load"),
            GuardMemory::default()
        );
        let firings = Firings {
            count: 3,
            killing: true,
        };
        firings.write(folder.path()).expect("write");
        let ahead = load(folder.path(), "b1").expect("load");
        assert_eq!(
            (ahead.firings, ahead.killing),
            (3, true),
            "it died between count and memory"
        );
    }

    #[test]
    fn a_memory_that_can_not_be_read_is_lost_and_its_firings_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let firings = Firings {
            count: 3,
            killing: false,
        };
        firings.write(folder.path()).expect("write");
        let lost = GuardMemory {
            lost: true,
            firings: 3,
            ..GuardMemory::default()
        };
        let path = folder.path().join("guard.json");
        for torn in [
            "",
            "{",
            "no JSON",
            r#"{"bootId": "b1", "memory": {"renewedAt": "then"}}"#,
        ] {
            fs::write(&path, torn).expect("write");
            assert_eq!(load(folder.path(), "b1").expect("load"), lost, "{torn}");
        }
        store(folder.path(), "b1", &lost).expect("store");
        let again = load(folder.path(), "b1").expect("load");
        assert!(again.lost, "started again before it was acknowledged");
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder in its place");
        assert_eq!(load(folder.path(), "b1").expect("load"), lost);
    }
}
