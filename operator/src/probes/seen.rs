//! What probes saw of an endpoint, so that downtime is measured and never guessed; time that nobody
//! observed is a third state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use failover::Moment;
use jiff::Timestamp;

use crate::clock;

/// States of an endpoint that are kept.
const HISTORY_MAX: usize = 512;
/// Without a probe for so long nobody observed.
const UNOBSERVED_AFTER: u64 = 5_000;

/// What an endpoint did at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At least one replica answered.
    Up,
    /// None did.
    Down,
    /// Nobody looked.
    Unobserved,
}

/// What the latest probe of a replica saw, by the moment at which it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replica {
    pub(super) up: bool,
    pub(super) sent: Moment,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointState {
    /// Changes of state, the oldest first.
    pub(super) history: VecDeque<(Timestamp, Seen)>,
    pub(super) replicas: BTreeMap<String, Replica>,
    looked: Option<Moment>,
    /// When the latest probe that counts was sent.
    observed: Option<Timestamp>,
    /// When it was last probed, and which replica's turn is next.
    pub(super) probed: Option<Moment>,
    pub(super) turn: usize,
}

/// Downtime of an endpoint within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Downtime {
    /// Seconds down.
    pub down_seconds: f64,
    /// Seconds that nobody observed.
    pub unobserved_seconds: f64,
    /// First moment down.
    pub down_at: Option<Timestamp>,
    /// When it answered again, if it did.
    pub up_at: Option<Timestamp>,
}

impl EndpointState {
    /// Whether it answers and since when, how many replicas do, and how many there are.
    pub(super) fn now(&self) -> (Seen, Option<Timestamp>, i32, i32) {
        let count = |replicas: usize| i32::try_from(replicas).unwrap_or(0);
        let all = count(self.replicas.len());
        if self
            .looked
            .is_none_or(|looked| clock::now().since(looked) > UNOBSERVED_AFTER)
        {
            return (Seen::Unobserved, None, 0, all);
        }
        let up = self.replicas.values().filter(|replica| replica.up).count();
        let (since, seen) = self
            .history
            .back()
            .map_or((None, Seen::Unobserved), |(at, seen)| (Some(*at), *seen));
        (seen, since, count(up), all)
    }

    /// Notes what the probe saw that was sent at `sent`, which the wall clock called `at`.
    pub(super) fn note(&mut self, replica: &str, up: bool, sent: Moment, at: Timestamp) {
        let now = clock::now();
        if self
            .looked
            .is_some_and(|looked| now.since(looked) > UNOBSERVED_AFTER)
            && let Some((last, _)) = self.history.back().copied()
        {
            // Nobody looked since a little after the last look.
            self.history.push_back((
                last.max(at - jiff::SignedDuration::from_millis(1)),
                Seen::Unobserved,
            ));
        }
        self.looked = Some(now);
        // A lost probe ends with its time-out, after later ones were answered: those count. Which is later is
        // not asked of the wall clock, which may be set back.
        let newer = self
            .replicas
            .get(replica)
            .is_some_and(|replica| replica.sent > sent);
        if newer {
            return;
        }
        self.replicas
            .insert(replica.to_owned(), Replica { up, sent });
        let seen = if self.replicas.values().any(|replica| replica.up) {
            Seen::Up
        } else {
            Seen::Down
        };
        let last = self.history.back().copied();
        if last.is_none_or(|(_, last)| last != seen) {
            let changed = last.map_or(at, |(since, last)| {
                change_between(self.observed.filter(|_| last != Seen::Unobserved), at).max(since)
            });
            self.history.push_back((changed, seen));
        }
        // Of several replicas one may have been asked earlier and have answered later.
        self.observed = self.observed.max(Some(at));
        while self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
    }
}

/// When a state changed that was seen by one probe and not by the one before: the middle between the
/// two, which is wrong by half an interval at most and, unlike either end, not always in one direction.
fn change_between(before: Option<Timestamp>, at: Timestamp) -> Timestamp {
    before
        .filter(|before| *before < at)
        .map_or(at, |before| before + at.duration_since(before) / 2)
}

/// What a history says of a moment. Before its first entry nobody observed.
fn state_at(history: &[(Timestamp, Seen)], at: Timestamp) -> Seen {
    let after = history.partition_point(|(begin, _)| *begin <= at);
    after
        .checked_sub(1)
        .map_or(Seen::Unobserved, |index| history[index].1)
}

/// A history from a moment on, in which a failure that stood then already and was over by `until` counts as none: what began at
/// that moment has not caused it.
pub(super) fn without_former(
    history: &[(Timestamp, Seen)],
    from: Timestamp,
    until: Timestamp,
) -> Vec<(Timestamp, Seen)> {
    let later = history.partition_point(|(at, _)| *at <= from);
    let stood = later.checked_sub(1).map(|index| history[index].1);
    let over = history
        .get(later)
        .filter(|(at, seen)| *seen == Seen::Up && *at <= until);
    match (stood, over) {
        (Some(Seen::Down), Some(_)) => {
            let mut without = vec![(from, Seen::Up)];
            without.extend_from_slice(&history[later..]);
            without
        }
        _ => history.to_vec(),
    }
}

/// Sums what histories together say about a window: down while any is, else unobserved while any is. Without any,
/// nobody observed.
pub(super) fn measure(
    histories: &[Vec<(Timestamp, Seen)>],
    from: Timestamp,
    to: Timestamp,
) -> Downtime {
    let mut bounds: BTreeSet<Timestamp> = histories
        .iter()
        .flatten()
        .map(|(at, _)| *at)
        .filter(|at| *at > from && *at < to)
        .collect();
    bounds.extend([from, to]);
    let bounds: Vec<Timestamp> = bounds.into_iter().collect();
    let mut sum = Downtime::default();
    for span in bounds.windows(2) {
        let (begin, seconds) = (span[0], span[1].duration_since(span[0]).as_secs_f64());
        let seen = |wanted: Seen| {
            histories
                .iter()
                .any(|history| state_at(history, begin) == wanted)
        };
        if seen(Seen::Down) {
            sum.down_seconds += seconds;
            sum.down_at = sum.down_at.or(Some(begin));
            sum.up_at = None;
        } else if histories.is_empty() || seen(Seen::Unobserved) {
            sum.unobserved_seconds += seconds;
        } else if sum.down_at.is_some() && sum.up_at.is_none() {
            sum.up_at = Some(begin);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn downtime_counts_only_within_the_window_and_unobserved_is_never_up() {
        let history = vec![
            (at(0), Seen::Up),
            (at(10), Seen::Down),
            (at(16), Seen::Up),
            (at(20), Seen::Unobserved),
            (at(30), Seen::Up),
        ];
        let all = measure(std::slice::from_ref(&history), at(0), at(40));
        assert_eq!((all.down_seconds, all.unobserved_seconds), (6.0, 10.0));
        assert_eq!((all.down_at, all.up_at), (Some(at(10)), Some(at(16))));
        let part = measure(std::slice::from_ref(&history), at(12), at(14));
        assert_eq!((part.down_seconds, part.up_at), (2.0, None));
        let before = measure(&[history], at(-4), at(2));
        assert_eq!(
            before.unobserved_seconds, 4.0,
            "nobody looked before the first probe"
        );
    }

    /// A system that came up a moment before its host died was not down because of that host.
    #[test]
    fn a_failure_that_was_over_before_is_another_story() {
        let history = vec![
            (at(0), Seen::Down),
            (at(9), Seen::Up),
            (at(11), Seen::Down),
            (at(20), Seen::Up),
        ];
        let down = |from, until| {
            let own = without_former(&history, at(from), at(until));
            measure(&[own], at(from), at(30)).down_seconds
        };
        assert_eq!(down(7, 12), 9.0, "what stood at the beginning was over");
        assert_eq!(down(7, 8), 11.0, "it was not over yet: it counts");
        assert_eq!(down(10, 12), 9.0, "nothing stood");
        assert_eq!(down(12, 15), 8.0, "it stands on");
    }

    #[test]
    fn without_an_endpoint_nobody_observed() {
        let none = measure(&[], at(10), at(40));
        assert_eq!((none.down_seconds, none.unobserved_seconds), (0.0, 30.0));
        assert_eq!((none.down_at, none.up_at), (None, None));
    }

    #[test]
    fn endpoints_together_are_down_while_any_is() {
        let one = vec![(at(0), Seen::Up), (at(10), Seen::Down), (at(14), Seen::Up)];
        let two = vec![(at(0), Seen::Up), (at(12), Seen::Down), (at(19), Seen::Up)];
        let both = measure(&[one, two], at(0), at(30));
        assert_eq!(both.down_seconds, 9.0, "the overlap counts once");
        assert_eq!((both.down_at, both.up_at), (Some(at(10)), Some(at(19))));
    }

    #[test]
    fn an_endpoint_is_down_only_when_no_replica_answers() {
        let mut state = EndpointState::default();
        state.note("a", true, Moment(1_000), at(1));
        state.note("b", false, Moment(2_000), at(2));
        assert_eq!(state.history.len(), 1, "one answers: still up");
        state.note("a", false, Moment(4_000), at(4));
        assert_eq!(
            state.history.back(),
            Some(&(at(3), Seen::Down)),
            "between the last answer and the first that did not come"
        );
    }

    #[test]
    fn a_probe_that_was_lost_does_not_undo_a_later_answer() {
        let mut state = EndpointState::default();
        state.note("a", false, Moment(1_000), at(1));
        state.note("a", true, Moment(3_000), at(3));
        state.note("a", false, Moment(2_000), at(2));
        let history: Vec<_> = state.history.iter().copied().collect();
        assert_eq!(history, [(at(1), Seen::Down), (at(2), Seen::Up)]);
    }

    #[test]
    fn a_wall_clock_that_is_set_back_hides_no_failure() {
        let mut state = EndpointState::default();
        state.note("a", true, Moment(1_000), at(100));
        state.note("a", false, Moment(2_000), at(40));
        let last = state.history.back().map(|(_, seen)| *seen);
        assert_eq!(last, Some(Seen::Down));
    }
}
