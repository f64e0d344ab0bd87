//! How soon an interrupted watch is tried again.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::watcher::ExponentialBackoff;

/// First wait, before it is spread.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait, before it is spread.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits that double from 250 ms to 1 s, each made longer at random by up to itself, so that the tries of a
/// fleet spread. An operator that does not watch sees no host die, and an agent that does not watch starts
/// nothing that it is given: neither waits longer than the two seconds after which a missed renewal shows.
#[must_use]
pub fn watch_backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST)
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::runtime::utils::Backoff;

    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_are_spread_and_begin_anew_after_success() {
        let mut waits = watch_backoff();
        let mut seen = BTreeSet::new();
        for least in [250, 500].into_iter().chain([1_000; 60]) {
            let wait = waits.next().expect("never ends").as_millis();
            assert!((least..=2 * least).contains(&wait), "{wait} of {least}");
            seen.insert(wait);
        }
        assert!(seen.len() > 10, "spread: {seen:?}");
        waits.reset();
        assert!(waits.next().expect("never ends") <= FIRST * 2);
    }
}
