//! The hardware watchdog: a timer outside the kernel's schedule that resets the host when the
//! guard feeds it no more. Opening it starts it.
//!
//! A watchdog that stops when its file is closed by a dying process protects nothing: accepted
//! is only one that runs on then, and stops by the magic close at most, or not at all
//! (`nowayout`). A timer in the BMC is refused, as the BMC may lose power with its host's fate
//! undecided.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ioctl;

/// A watchdog that runs.
pub trait Watchdog: Send {
    /// Sets the time-out as near as it can, never longer; returns the one in force.
    ///
    /// # Errors
    /// It takes no such time-out.
    fn set_timeout(&mut self, wanted: Duration) -> io::Result<Duration>;

    /// Begins the time-out anew.
    ///
    /// # Errors
    /// It could not be fed; it resets the host when this goes on.
    fn feed(&mut self) -> io::Result<()>;

    /// Stops it, so that closing it resets nothing.
    ///
    /// # Errors
    /// It can not be stopped and runs on.
    fn disarm(&mut self) -> io::Result<()>;
}

/// Opens the watchdog at a path and sets its time-out.
///
/// # Errors
/// Why it does not do, in one sentence; then it does not run.
pub fn open(path: &Path, timeout: Duration) -> Result<(Box<dyn Watchdog>, Duration), String> {
    let say = |error: io::Error| format!("{}: {error}", path.display());
    let kind = fs::metadata(path).map_err(say)?.file_type();
    let mut watchdog: Box<dyn Watchdog> = if kind.is_char_device() {
        Box::new(Device::open(path)?)
    } else {
        return Err(format!("{} is no watchdog device", path.display()));
    };
    accept(watchdog.as_mut(), timeout)
        .map(|timeout| (watchdog, timeout))
        .map_err(say)
}

/// Opens the stand-in of a watchdog, for labs: see [`Simulated`].
///
/// # Errors
/// Why it does not do.
pub fn open_simulated(
    path: &Path,
    timeout: Duration,
) -> Result<(Box<dyn Watchdog>, Duration), String> {
    let mut watchdog = Simulated::new(path, false);
    accept(&mut watchdog, timeout)
        .map(|timeout| (Box::new(watchdog) as Box<dyn Watchdog>, timeout))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Sets the time-out and feeds once; one that does not do is stopped again.
fn accept(watchdog: &mut dyn Watchdog, wanted: Duration) -> io::Result<Duration> {
    let set = watchdog.set_timeout(wanted).and_then(|timeout| {
        if timeout > wanted {
            return Err(io::Error::other(format!(
                "its shortest time-out is {} s, the policy allows {} s",
                timeout.as_secs(),
                wanted.as_secs()
            )));
        }
        watchdog.feed()?;
        Ok(timeout)
    });
    if set.is_err() {
        watchdog.disarm()?;
    }
    set
}

/// `/dev/watchdog`.
struct Device {
    file: File,
    /// Closing it by the magic byte stops it.
    stoppable: bool,
}

impl Device {
    fn open(path: &Path) -> Result<Self, String> {
        let about = |name: &str| about(path, name);
        // Asked before it is opened: opening starts it.
        let identity = about("identity");
        if identity.as_deref().is_some_and(in_bmc) {
            return Err(format!("{} is a timer in the BMC", path.display()));
        }
        let nowayout = about("nowayout").is_some_and(|value| value != "0");
        let say = |error: io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().write(true).open(path).map_err(say)?;
        let mut device = Self {
            file,
            stoppable: true,
        };
        let support = ioctl::support(&device.file).map_err(say);
        let refused = match &support {
            Err(error) => Some(error.clone()),
            Ok(support) if in_bmc(&support.identity) => {
                Some(format!("{} is a timer in the BMC", path.display()))
            }
            Ok(support) if !support.magic_close && !nowayout => Some(format!(
                "{} ({}) stops when the guard dies; load its driver with nowayout=1",
                path.display(),
                support.identity
            )),
            Ok(_) => None,
        };
        if let Some(refused) = refused {
            device.disarm().map_err(say)?;
            return Err(refused);
        }
        device.stoppable = !nowayout;
        Ok(device)
    }
}

/// Names under which BMCs' timers come.
fn in_bmc(identity: &str) -> bool {
    identity.to_ascii_uppercase().contains("IPMI")
}

/// What sysfs says of a watchdog device.
fn about(path: &Path, name: &str) -> Option<String> {
    /// The device number of the old name `/dev/watchdog`, which is the first watchdog.
    const MISCELLANEOUS: (u64, u64) = (10, 130);
    let number = fs::metadata(path).ok()?.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let folder = if (major, minor) == MISCELLANEOUS {
        PathBuf::from("/sys/class/watchdog/watchdog0")
    } else {
        PathBuf::from(format!("/sys/dev/char/{major}:{minor}"))
    };
    let text = fs::read_to_string(folder.join(name)).ok()?;
    Some(text.trim().to_owned())
}

impl Watchdog for Device {
    fn set_timeout(&mut self, wanted: Duration) -> io::Result<Duration> {
        let seconds = i32::try_from(wanted.as_secs()).unwrap_or(i32::MAX);
        // Drivers round up; the one in force is read back.
        ioctl::set_timeout(&self.file, seconds)?;
        let seconds = ioctl::timeout(&self.file)?;
        Ok(Duration::from_secs(
            u64::try_from(seconds).unwrap_or(u64::MAX),
        ))
    }

    fn feed(&mut self) -> io::Result<()> {
        self.file.write_all(b"\0")
    }

    fn disarm(&mut self) -> io::Result<()> {
        if !self.stoppable {
            return Err(io::Error::other(
                "its driver was loaded with nowayout: it runs until the host is off",
            ));
        }
        self.file.write_all(b"V")
    }
}

/// A stand-in: a file that whoever plays the hardware watches. It holds the time-out in
/// milliseconds; each feed writes it anew; when it has not changed for that long, the host is to
/// be reset; when it is gone, the watchdog is stopped. For labs and tests.
pub struct Simulated {
    path: PathBuf,
    timeout: Duration,
    nowayout: bool,
}

impl Simulated {
    /// A stand-in at a path.
    pub fn new(path: &Path, nowayout: bool) -> Self {
        Self {
            path: path.to_owned(),
            timeout: Duration::from_secs(60),
            nowayout,
        }
    }
}

impl Watchdog for Simulated {
    fn set_timeout(&mut self, wanted: Duration) -> io::Result<Duration> {
        self.timeout = wanted;
        Ok(wanted)
    }

    fn feed(&mut self) -> io::Result<()> {
        fs::write(&self.path, format!("{}\n", self.timeout.as_millis()))
    }

    fn disarm(&mut self) -> io::Result<()> {
        if self.nowayout {
            return Err(io::Error::other("it can not be stopped"));
        }
        fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every watchdog must do; the real one too, on a machine that may be reset.
    fn contract(watchdog: &mut dyn Watchdog, stoppable: bool) {
        let wanted = Duration::from_secs(30);
        let timeout = accept(watchdog, wanted).expect("accepted");
        assert!(timeout <= wanted && !timeout.is_zero());
        watchdog.feed().expect("fed");
        watchdog.feed().expect("fed again");
        assert_eq!(watchdog.disarm().is_ok(), stoppable);
    }

    #[test]
    fn the_stand_in_keeps_the_contract() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("watchdog");
        contract(&mut Simulated::new(&path, false), true);
        assert!(!path.exists(), "stopped");
        contract(&mut Simulated::new(&path, true), false);
        assert_eq!(fs::read_to_string(&path).expect("runs"), "30000\n");
    }

    /// Run on purpose only: `ZHENGYUN_TEST_WATCHDOG=/dev/watchdog cargo test -p agent -- --ignored watchdog`.
    #[test]
    #[ignore = "starts the machine's own watchdog"]
    fn the_machines_own_watchdog_keeps_the_contract() {
        let path = std::env::var_os("ZHENGYUN_TEST_WATCHDOG")
            .expect("ZHENGYUN_TEST_WATCHDOG names a device");
        let mut device = Device::open(path.as_ref()).expect("a watchdog");
        let stoppable = device.stoppable;
        contract(&mut device, stoppable);
    }

    #[test]
    fn what_is_no_watchdog_is_refused_by_name() {
        let timeout = Duration::from_secs(20);
        let refused = |path: &Path| open(path, timeout).err().unwrap_or_default();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("watchdog");
        assert!(
            refused(&file).contains("No such file"),
            "{}",
            refused(&file)
        );
        fs::write(&file, "").expect("write");
        assert!(refused(&file).contains("no watchdog device"));
        assert!(
            !refused(Path::new("/dev/null")).is_empty(),
            "a device of another kind"
        );
        assert!(in_bmc("IPMI") && in_bmc("ipmi-watchdog") && !in_bmc("iTCO_wdt"));
    }

    /// One that is too slow for the policy.
    struct Slow(bool);

    impl Watchdog for Slow {
        fn set_timeout(&mut self, _: Duration) -> io::Result<Duration> {
            Ok(Duration::from_secs(60))
        }
        fn feed(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn disarm(&mut self) -> io::Result<()> {
            self.0 = true;
            Ok(())
        }
    }

    #[test]
    fn one_that_is_slower_than_the_policy_is_stopped_again() {
        let mut slow = Slow(false);
        let error = accept(&mut slow, Duration::from_secs(20))
            .expect_err("too slow")
            .to_string();
        assert!(error.contains("60 s") && error.contains("20 s"), "{error}");
        assert!(slow.0, "stopped");
    }
}
