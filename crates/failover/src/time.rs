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

/// Steps of whole seconds in which durations are told, each below the duration beside it.
const STEPS: [(u64, u64); 4] = [(10, 1), (60, 5), (600, 30), (3_600, 300)];

fn step(seconds: u64) -> u64 {
    let fits = STEPS.iter().find(|(below, _)| seconds < *below);
    fits.map_or(3_600, |(_, step)| *step)
}

/// How long something has lasted so far, in seconds for a sentence: at least so long. A status that
/// says it is written a few dozen times in an hour, and not at every turn.
pub(crate) fn lasted(milliseconds: u64) -> u64 {
    let seconds = milliseconds / 1000;
    seconds - seconds % step(seconds)
}

/// How long something takes yet, in the same steps: at most so long.
pub(crate) fn left(milliseconds: u64) -> u64 {
    let seconds = milliseconds.div_ceil(1000);
    seconds.next_multiple_of(step(seconds.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_duration_is_told_seldom_and_nearly() {
        let hour = (0..36_000).map(|tenth| tenth * 100);
        let (mut so_far, mut yet) = (BTreeSet::new(), BTreeSet::new());
        for milliseconds in hour {
            let (lasted, left) = (lasted(milliseconds), left(milliseconds));
            assert!(lasted * 1000 <= milliseconds && milliseconds <= left * 1000);
            assert!(
                left - lasted <= (milliseconds / 2_000).max(1),
                "{milliseconds}: {lasted} to {left}"
            );
            so_far.insert(lasted);
            yet.insert(left);
        }
        assert!(so_far.len() < 60 && yet.len() < 60);
    }

    #[test]
    fn a_duration_of_seconds_is_told_to_the_second() {
        assert_eq!((lasted(3_999), left(3_001)), (3, 4));
        assert_eq!((lasted(0), left(0), left(1)), (0, 0, 1));
        assert_eq!((lasted(59_999), left(55_001)), (55, 60));
        assert_eq!((lasted(1_740_000), left(1_740_000)), (1_500, 1_800));
    }
}
