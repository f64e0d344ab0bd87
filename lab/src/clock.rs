//! A host's wall clock, which may be an hour off. libfaketime stands between its agent and guard and the kernel's
//! clock; the clocks that never jump (CLOCK_MONOTONIC, CLOCK_BOOTTIME), the kernel's own time stamps and the guests
//! are left alone.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::files::{LabFiles, write_at_once};

/// The library; the linker knows where this machine has such ones.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";
/// Services whose clock it is.
const SERVICES: [&str; 2] = ["agent", "guard"];

/// The file that says by how much a host's clock is off. Where it is not, the clock is the machine's.
pub fn file(files: &LabFiles, host: &str) -> PathBuf {
    files.host(host).join("clock")
}

/// Sets by how many seconds a host's clock is ahead of the machine's, or behind it. Services that were started when
/// it had no clock of its own keep the machine's: they are to be started anew after the first time.
///
/// # Errors
/// The file can not be written.
pub fn set(files: &LabFiles, host: &str, seconds: i64) -> Result<()> {
    write_at_once(&file(files, host), format!("{seconds:+}\n").as_bytes())
}

/// The words that stand before the command of a service of a host with a clock of its own; none, where it has none.
pub(crate) fn words(service: &str, file: &Path) -> Vec<String> {
    if !SERVICES.contains(&service) || !file.exists() {
        return Vec::new();
    }
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={LIBRARY}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        // A clock that is set jumps at once, not when the library next reads the file, after 10 s.
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "NO_FAKE_STAT=1".to_owned(),
    ];
    words.to_vec()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn tell(file: &Path, clock: &str) -> f64 {
        let read = format!("import time; print(time.clock_gettime(time.CLOCK_{clock}))");
        let mut words = words("agent", file);
        words.extend(["python3", "-c", &read].map(str::to_owned));
        let output = Command::new("env").args(&words).output().expect("python3");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse().expect("seconds")
    }

    #[test]
    fn the_wall_clock_is_off_and_the_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("clock");
        assert!(words("agent", &file).is_empty(), "it has none of its own");
        let own: Vec<f64> = ["REALTIME", "MONOTONIC", "BOOTTIME"]
            .map(|it| tell(&file, it))
            .into();
        for (seconds, off) in [("+3600", 3600.0), ("-3600", -3600.0)] {
            std::fs::write(&file, format!("{seconds}\n")).expect("set");
            assert!(words("libvirtd", &file).is_empty(), "not its clock");
            let wall = tell(&file, "REALTIME") - own[0];
            assert!((wall - off).abs() < 60.0, "{seconds}: {wall}");
            for (clock, before) in [("MONOTONIC", own[1]), ("BOOTTIME", own[2])] {
                let passed = tell(&file, clock) - before;
                assert!((0.0..60.0).contains(&passed), "{clock}: {passed}");
            }
        }
    }
}
