//! The host's wall clock: for display, and whether a time service keeps it. Never compared with
//! another machine's.

#![allow(
    unsafe_code,
    reason = "adjtimex has no safe form; its block says why it is sound"
)]

use api::Time;
use hardware::ClockState;

/// Now, as the API writes it.
pub fn now() -> Time {
    Time(jiff::Timestamp::now())
}

/// What the kernel says about the clock; none when it says nothing.
pub fn state() -> Option<ClockState> {
    // SAFETY: all fields are numbers, for which zero is a value; `modes` 0 asks to change nothing.
    let mut kernel: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `timex` of ours that lives until the call returns.
    if unsafe { libc::adjtimex(&raw mut kernel) } < 0 {
        return None;
    }
    Some(clock_state(kernel.status, kernel.offset))
}

/// By adjtimex(2): the offset is in nanoseconds where `STA_NANO` is set, else in microseconds.
fn clock_state(status: libc::c_int, offset: libc::c_long) -> ClockState {
    let unit = if status & libc::STA_NANO == 0 {
        1e-6
    } else {
        1e-9
    };
    ClockState {
        synchronised: status & libc::STA_UNSYNC == 0,
        offset_seconds: offset as f64 * unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_has_the_unit_that_the_status_says() {
        let micro = clock_state(libc::STA_UNSYNC, 1_500_000);
        assert!(!micro.synchronised);
        assert!((micro.offset_seconds - 1.5).abs() < 1e-9);
        let nano = clock_state(libc::STA_NANO | libc::STA_PLL, -2_000_000);
        assert!(nano.synchronised);
        assert!((nano.offset_seconds + 0.002).abs() < 1e-12);
    }

    #[test]
    fn the_kernel_of_this_machine_tells_its_clock() {
        let state = state().expect("Linux");
        assert!(state.offset_seconds.is_finite());
    }
}
