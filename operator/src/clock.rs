//! Clocks of the shell: the observer's CLOCK_BOOTTIME for decisions, the wall clock for display.
//!
//! CLOCK_BOOTTIME runs on while the machine is suspended. By CLOCK_MONOTONIC an operator that wakes
//! would hold its lead and its fencing intent for as long again as it slept.

use std::sync::LazyLock;
use std::time::Duration;

use failover::Moment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::time::{ClockId, clock_gettime};

/// The clock of every decision.
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;

static START: LazyLock<Duration> = LazyLock::new(read);

/// The clock's time. Without a clock nothing can be decided, and what was decided must not stand.
fn read() -> Duration {
    match clock_gettime(CLOCK) {
        Ok(time) => Duration::from(time),
        Err(error) => {
            tracing::error!(%error, "CLOCK_BOOTTIME can not be read; the operator ends");
            std::process::abort();
        }
    }
}

/// Now, on the observer's clock.
pub fn now() -> Moment {
    let start = *START;
    moment(start, read())
}

fn moment(start: Duration, now: Duration) -> Moment {
    let since = now.saturating_sub(start).as_millis();
    // A day is added so that moments before the start can be expressed.
    Moment(86_400_000 + u64::try_from(since).unwrap_or(u64::MAX / 2))
}

/// Now, as the API writes it.
pub fn wall() -> Time {
    Time(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_run_on_the_clock_that_a_suspended_machine_does_not_stop() {
        assert_eq!(CLOCK, ClockId::CLOCK_BOOTTIME);
        let (first, outside) = (now(), read());
        assert!(moment(*START, outside) >= first);
        assert!(now().since(first) < 60_000, "no other clock's count");
    }

    #[test]
    fn an_intent_is_void_after_a_sleep_longer_than_its_expiry() {
        let start = Duration::from_secs(1_000);
        let written = moment(start, Duration::from_secs(1_010));
        let expires_at = written.plus(60_000);
        let woken = moment(start, Duration::from_secs(1_010 + 3_600));
        assert!(woken > expires_at);
        assert_eq!(woken.since(written), 3_600_000);
    }
}
