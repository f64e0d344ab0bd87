//! The clock a run is bounded by.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What "seconds" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time as it passes.
    Wall,
    /// Processor time of the whole process, divided by its searching threads.
    Cpu,
}

impl Clock {
    /// Reads the value of `--clock`; wall time when it is not given.
    pub fn named(name: Option<&str>) -> Result<Clock, String> {
        match name {
            None | Some("wall") => Ok(Clock::Wall),
            Some("cpu") => Ok(Clock::Cpu),
            Some(other) => Err(format!("--clock is {other:?}, not wall or cpu")),
        }
    }

    /// Time used since the process began; wall time is counted from `began`.
    pub fn used(self, began: Instant, threads: u32) -> Duration {
        match self {
            Clock::Wall => began.elapsed(),
            // A kernel without this clock does not run Rust's standard library either.
            Clock::Cpu => {
                clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
                    .map(Duration::from)
                    .unwrap_or_default()
                    / threads.max(1)
            }
        }
    }
}
