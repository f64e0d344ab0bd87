//! The hosts' watchdogs, played from outside of them: what resets a host whose guard feeds its
//! watchdog no more. The guard's side is the stand-in of `agent::guard::watchdog`, a file that
//! holds the time-out in milliseconds and is written anew with each feed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::files::LabFiles;
use crate::host;
use crate::lifecycle::hosts;

/// How often the watchdogs are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Who resets a host whose watchdog bites, as judges are told.
const WATCHDOG: &str = "watchdog";

/// The watchdog of a host, as its guard sees it.
pub fn path(files: &LabFiles, host: &str) -> PathBuf {
    host::hardware(files, host).join("watchdog")
}

/// Stops the watchdog of a host, as each boot does.
///
/// # Errors
/// The file can not be removed.
pub fn stop(files: &LabFiles, host: &str) -> Result<()> {
    match fs::remove_file(path(files, host)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Plays every host's watchdog until it is killed.
///
/// # Errors
/// The lab's folder can not be read.
pub fn run(files: &LabFiles) -> Result<()> {
    let mut timers: BTreeMap<String, Timer> = BTreeMap::new();
    loop {
        for host in hosts(files)? {
            let timer = timers.entry(host.clone()).or_default();
            // One without power bites nobody.
            if timer.look(&path(files, &host), Instant::now()) && host::is_on(files, &host) {
                eprintln!("{host}: the watchdog was not fed; reset");
                if let Err(error) = host::reset(files, &host, WATCHDOG) {
                    eprintln!("{host}: {error:#}");
                }
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// One watchdog: when it was last fed, and its time-out, while it runs.
#[derive(Debug, Default)]
struct Timer {
    fed: Option<(SystemTime, Instant, Duration)>,
}

impl Timer {
    /// Takes a feed, and says whether it is overdue. One that bit begins anew.
    fn look(&mut self, path: &Path, now: Instant) -> bool {
        let Ok(modified) = fs::metadata(path).and_then(|metadata| metadata.modified()) else {
            self.fed = None;
            return false;
        };
        match self.fed {
            Some((known, at, timeout)) if known == modified => {
                let overdue = now.duration_since(at) > timeout;
                if overdue {
                    self.fed = None;
                }
                overdue
            }
            before => {
                // Between the guard's truncation and its writing the file is empty: it was fed.
                let timeout = read(path).or(before.map(|(_, _, timeout)| timeout));
                self.fed = timeout.map(|timeout| (modified, now, timeout));
                false
            }
        }
    }
}

fn read(path: &Path) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    Some(Duration::from_millis(text.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bites_once_it_is_overdue_and_never_when_it_is_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("watchdog");
        let begin = Instant::now();
        let after = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut timer = Timer::default();
        assert!(!timer.look(&path, begin), "it was never started");
        fs::write(&path, "2000\n").expect("fed");
        assert!(!timer.look(&path, begin));
        assert!(!timer.look(&path, after(2_000)));
        let later = SystemTime::now() + Duration::from_secs(2);
        fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(later))
            .expect("fed again");
        assert!(!timer.look(&path, after(2_100)), "fed in time");
        assert!(!timer.look(&path, after(4_000)));
        assert!(timer.look(&path, after(4_200)), "overdue");
        assert!(!timer.look(&path, after(4_300)), "it begins anew");
        fs::remove_file(&path).expect("stopped");
        assert!(!timer.look(&path, after(60_000)));
        assert!(!timer.look(&path, after(90_000)));
    }
}
