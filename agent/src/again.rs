//! How soon an interrupted watch is tried again. An agent that does not watch starts nothing that it
//! is given, so it never waits much longer than two seconds; a fleet's agents spread their tries.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use kube::runtime::utils::Backoff;

/// First wait.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait, before it is spread.
const LONGEST: Duration = Duration::from_secs(2);
/// A wait is made longer or shorter by up to this share, percent.
const SPREAD: u32 = 25;

/// Waits that double up to the longest, each spread at random.
#[derive(Clone, Copy, Debug)]
pub struct Again(Duration);

impl Default for Again {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        // A new RandomState is keyed anew: chance enough to spread tries, and no more is needed.
        let chance = u32::try_from(RandomState::new().hash_one(0) % u64::from(2 * SPREAD + 1));
        Some(wait * (100 - SPREAD + chance.unwrap_or(SPREAD)) / 100)
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_are_spread_and_begin_anew_after_success() {
        let mut again = Again::default();
        let mut seen = std::collections::BTreeSet::new();
        for middle in [250, 500, 1_000, 2_000].into_iter().chain([2_000; 60]) {
            let wait = again.next().expect("never ends").as_millis();
            assert!(
                (middle * 3 / 4..=middle * 5 / 4).contains(&wait),
                "{wait} of {middle}"
            );
            seen.insert(wait);
        }
        assert!(seen.len() > 10, "spread: {seen:?}");
        again.reset();
        assert!(again.next().expect("never ends") <= FIRST * 5 / 4);
    }
}
