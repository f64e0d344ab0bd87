//! The host's wall clock, for display only: never compared with another machine's.

use api::Time;

/// Now, as the API writes it.
pub fn now() -> Time {
    Time(jiff::Timestamp::now())
}
