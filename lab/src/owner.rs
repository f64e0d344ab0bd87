//! Whose a lab is: the process that will take it down. When it has died without doing so, the next
//! lab that comes up removes what it left. A lab that was left running on purpose has no owner, and
//! no other lab touches it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::files::{LabFiles, all_labs, write_at_once};
use crate::lifecycle::remove;

/// A process; its start time tells it from a later one that has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    /// Clock ticks since the machine's boot, as `/proc/PID/stat` has it.
    started: u64,
}

impl Owner {
    /// A process that lives.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let started = start_time(&stat)
            .with_context(|| format!("--owner {pid}: no such process; name one that lives"))?;
        Ok(Self { pid, started })
    }

    fn lives(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }

    /// Notes it in the lab's folder.
    ///
    /// # Errors
    /// The folder can not be written.
    pub fn note(self, files: &LabFiles) -> Result<()> {
        let line = format!("{} {}\n", self.pid, self.started);
        write_at_once(&file(files), line.as_bytes())
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }
}

/// Start time in a `/proc/PID/stat`; none of a process that is dead and only not yet reaped.
fn start_time(stat: &str) -> Option<u64> {
    // The program's name, in brackets, may hold anything: blanks and brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    // The state is field 3 and the start time field 22.
    fields.nth(18)?.parse().ok()
}

fn file(files: &LabFiles) -> PathBuf {
    files.root.join("owner")
}

/// Makes a lab nobody's, when it is this process's: it is left running on purpose.
///
/// # Errors
/// The folder can not be written.
pub fn release(files: &LabFiles) -> Result<()> {
    let noted = fs::read_to_string(file(files)).unwrap_or_default();
    if Owner::parse(&noted).is_some_and(|owner| owner.pid == std::process::id()) {
        fs::remove_file(file(files))
            .with_context(|| format!("{}: can not be removed", file(files).display()))?;
    }
    Ok(())
}

/// Removes every lab whose owner is dead. One that can not be removed is told on standard error, and
/// stops nobody else's lab from coming up. The caller holds the lock of those that come up.
///
/// # Errors
/// The folder of all labs can not be read.
pub fn remove_abandoned() -> Result<()> {
    for entry in fs::read_dir(all_labs())? {
        let name = entry?.file_name();
        let Some(Ok(files)) = name.to_str().map(LabFiles::of) else {
            continue;
        };
        let noted = fs::read_to_string(file(&files)).unwrap_or_default();
        if Owner::parse(&noted).is_none_or(Owner::lives) {
            continue;
        }
        eprintln!("zylab: removing lab {}, whose owner is dead", files.name);
        if let Err(error) = remove(&files) {
            eprintln!(
                "zylab: lab {}: {error:#}; try: zylab down --name {}",
                files.name, files.name
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let own = Owner::of(std::process::id()).unwrap();
        assert!(own.lives());
        assert_eq!(
            Owner::parse(&format!("{} {}\n", own.pid, own.started)),
            Some(own)
        );
        let former = Owner {
            started: own.started - 1,
            ..own
        };
        assert!(!former.lives(), "another process of the same number");
        assert_eq!(Owner::parse(""), None, "a lab that nobody owns");
    }

    #[test]
    fn a_dead_process_that_nobody_has_reaped_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let owner = Owner::of(child.id());
        crate::process::wait_for("it to end", std::time::Duration::from_secs(10), || {
            Ok(Owner::of(child.id()).is_err())
        })
        .unwrap();
        assert!(!owner.is_ok_and(Owner::lives));
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_brackets_and_blanks_hides_nothing() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = |state: &str| format!("7 (a) R (b) {state} {}", fields.join(" "));
        assert_eq!(start_time(&stat("S")), Some(22));
        assert_eq!(start_time(&stat("Z")), None);
        assert_eq!(start_time(""), None);
    }
}
