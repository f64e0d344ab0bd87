//! Clocks of the shell: the observer's monotonic one for decisions, the wall clock for display.

use std::sync::LazyLock;
use std::time::Instant;

use failover::Moment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, on the observer's monotonic clock.
pub fn now() -> Moment {
    at(Instant::now())
}

/// An instant, on the observer's monotonic clock.
pub fn at(instant: Instant) -> Moment {
    // A day is added so that moments before the start can be expressed.
    Moment(
        86_400_000
            + u64::try_from(instant.saturating_duration_since(*START).as_millis())
                .unwrap_or(u64::MAX / 2),
    )
}

/// Now, as the API writes it.
pub fn wall() -> Time {
    Time(jiff::Timestamp::now())
}
