//! Time as this crate knows it: milliseconds on the observer's monotonic clock, passed
//! in by the caller. Wall clocks of two machines are never compared, and no clock is
//! read here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment on the observer's monotonic clock, in milliseconds since an arbitrary start.
/// Moments of two observers, or of one observer before and after its restart, mean
/// nothing to each other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since `earlier`; zero when `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment so many milliseconds later.
    #[must_use]
    pub fn plus(self, milliseconds: u64) -> Moment {
        Moment(self.0.saturating_add(milliseconds))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Seconds with one decimal, for sentences.
pub(crate) fn seconds(milliseconds: u64) -> String {
    format!("{}.{}", milliseconds / 1000, milliseconds % 1000 / 100)
}
