//! The three calls to the kernel's watchdog interface (`linux/watchdog.h`) that have no file
//! operation.

#![allow(
    unsafe_code,
    reason = "ioctl has no safe form; each block says why it is sound"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IOR('W', 0, struct watchdog_info)`, 40 bytes.
const GET_SUPPORT: libc::c_ulong = 0x8028_5700;
/// `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::c_ulong = 0xc004_5706;
/// `_IOR('W', 7, int)`.
const GET_TIMEOUT: libc::c_ulong = 0x8004_5707;
/// Closing the file stops the timer only after the byte `V` was written.
const MAGIC_CLOSE: u32 = 0x0100;

/// `struct watchdog_info`.
#[repr(C)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// What a watchdog can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// Its name.
    pub identity: String,
    /// It runs on when its file is closed, unless the magic byte came before.
    pub magic_close: bool,
}

fn result(code: libc::c_int) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What it can do.
///
/// # Errors
/// It is no watchdog.
pub fn support(file: &File) -> io::Result<Support> {
    let mut info = Info {
        options: 0,
        firmware_version: 0,
        identity: [0; 32],
    };
    // SAFETY: the descriptor is open while `file` is borrowed, and the kernel writes at most the
    // 40 bytes of `Info`, which is laid out as in C.
    result(unsafe { libc::ioctl(file.as_raw_fd(), GET_SUPPORT, &raw mut info) })?;
    let name = info.identity.split(|byte| *byte == 0).next();
    Ok(Support {
        identity: String::from_utf8_lossy(name.unwrap_or_default()).into_owned(),
        magic_close: info.options & MAGIC_CLOSE != 0,
    })
}

/// Sets the time-out, seconds.
///
/// # Errors
/// It takes no such time-out.
pub fn set_timeout(file: &File, seconds: i32) -> io::Result<()> {
    let mut seconds: libc::c_int = seconds;
    // SAFETY: the descriptor is open while `file` is borrowed, and the kernel reads and writes
    // one int.
    result(unsafe { libc::ioctl(file.as_raw_fd(), SET_TIMEOUT, &raw mut seconds) })
}

/// The time-out in force, seconds.
///
/// # Errors
/// It does not tell.
pub fn timeout(file: &File) -> io::Result<i32> {
    let mut seconds: libc::c_int = 0;
    // SAFETY: the descriptor is open while `file` is borrowed, and the kernel writes one int.
    result(unsafe { libc::ioctl(file.as_raw_fd(), GET_TIMEOUT, &raw mut seconds) })?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernels_header() {
        let number = |direction: u64, size: usize, nr: u64| {
            direction << 30 | (size as u64) << 16 | u64::from(b'W') << 8 | nr
        };
        assert_eq!(GET_SUPPORT, number(2, size_of::<Info>(), 0));
        assert_eq!(SET_TIMEOUT, number(3, size_of::<libc::c_int>(), 6));
        assert_eq!(GET_TIMEOUT, number(2, size_of::<libc::c_int>(), 7));
    }

    #[test]
    fn a_file_that_is_no_watchdog_is_an_error() {
        let file = File::open("/dev/null").expect("a file");
        support(&file).expect_err("no watchdog");
        timeout(&file).expect_err("no watchdog");
        set_timeout(&file, 20).expect_err("no watchdog");
    }
}
