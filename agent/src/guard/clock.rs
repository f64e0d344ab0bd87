//! The host's CLOCK_BOOTTIME: runs on while the host sleeps, and never jumps.

use failover::Moment;
use nix::time::{ClockId, clock_gettime};

/// Now.
///
/// # Errors
/// The kernel has no such clock.
pub fn now() -> std::io::Result<Moment> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Ok(Moment(seconds * 1000 + nanoseconds / 1_000_000))
}
