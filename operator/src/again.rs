//! How soon an interrupted watch is tried again. An operator that does not watch sees no host die, so
//! it never waits longer than a missed renewal takes to be noticed; a site has few operators, and an
//! API server that starts carries their tries.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// First wait.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double up to the longest.
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
        Some(wait)
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
    fn waits_grow_to_two_seconds_and_begin_anew_after_success() {
        let mut again = Again::default();
        let waits: Vec<u128> = again
            .by_ref()
            .take(6)
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 2_000, 2_000]);
        again.reset();
        assert_eq!(again.next(), Some(FIRST));
    }
}
