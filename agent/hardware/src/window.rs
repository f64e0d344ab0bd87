//! Counting events in a sliding window, from counters that only grow. Pure.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::finding::Moment;

/// Events of the last minutes or hours, kept per minute so that a burst costs no memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventWindow {
    /// `(boot seconds of the minute's first event, events)`, oldest first.
    buckets: VecDeque<(i64, u64)>,
    last: Option<Moment>,
}

/// Width of one bucket.
const BUCKET_SECONDS: i64 = 60;
/// A day of buckets, the longest window in use, and some.
const BUCKETS_MAX: usize = 24 * 60 + 2;

impl EventWindow {
    /// Notes `events` that happened up to now.
    pub fn add(&mut self, now: Moment, events: u64) {
        if events == 0 {
            return;
        }
        self.last = Some(now);
        match self.buckets.back_mut() {
            Some((start, count)) if now.boot_seconds < *start + BUCKET_SECONDS => {
                *count = count.saturating_add(events);
            }
            _ => self.buckets.push_back((now.boot_seconds, events)),
        }
        while self.buckets.len() > BUCKETS_MAX {
            self.buckets.pop_front();
        }
    }

    /// Events within the last `seconds`; older ones are forgotten.
    pub fn count(&mut self, now: Moment, seconds: i64) -> u64 {
        let oldest = now.boot_seconds.saturating_sub(seconds);
        while self.buckets.front().is_some_and(|(at, _)| *at < oldest) {
            self.buckets.pop_front();
        }
        self.buckets
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// When the last event happened.
    pub fn last(&self) -> Option<Moment> {
        self.last
    }

    /// Forgets all events if the last happened no later than this: a person has seen them.
    pub fn clear_until(&mut self, unix_seconds: i64) {
        if self
            .last
            .is_some_and(|last| last.unix_seconds <= unix_seconds)
        {
            *self = EventWindow::default();
        }
    }
}

/// A counter of the kernel with the events that its growth means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CountedEvents {
    value: Option<u64>,
    /// The events.
    pub window: EventWindow,
}

/// What a counter's first value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstValue {
    /// History of unknown age: begin counting here.
    IsBaseline,
    /// It happened in this boot, and once is enough.
    Counts,
}

impl CountedEvents {
    /// Notes the counter's value now. A value below the last means that the counter began anew
    /// (driver reloaded), so all of it is new.
    pub fn observe(&mut self, now: Moment, value: u64, first: FirstValue) {
        let new = match self.value {
            Some(before) if value >= before => value - before,
            Some(_) => value,
            None if first == FirstValue::Counts => value,
            None => 0,
        };
        self.value = Some(value);
        self.window.add(now, new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_seconds: i64) -> Moment {
        Moment {
            boot_seconds,
            unix_seconds: 1_000_000 + boot_seconds,
        }
    }

    #[test]
    fn growth_counts_and_a_reset_counts_from_zero() {
        let mut events = CountedEvents::default();
        events.observe(at(0), 1000, FirstValue::IsBaseline);
        assert_eq!(events.window.count(at(0), 600), 0);
        events.observe(at(10), 1007, FirstValue::IsBaseline);
        assert_eq!(events.window.count(at(10), 600), 7);
        events.observe(at(20), 3, FirstValue::IsBaseline);
        assert_eq!(events.window.count(at(20), 600), 10);
        let mut fresh = CountedEvents::default();
        fresh.observe(at(0), 2, FirstValue::Counts);
        assert_eq!(fresh.window.count(at(0), 600), 2);
    }

    #[test]
    fn the_window_slides_and_stays_small() {
        let mut window = EventWindow::default();
        for second in 0..200_000 {
            window.add(at(second), 1);
        }
        assert!(window.buckets.len() <= BUCKETS_MAX);
        let counted = window.count(at(200_000), 600);
        assert!((600 - 60..=600 + 60).contains(&counted), "{counted}");
        assert_eq!(window.count(at(300_000), 600), 0);
        assert_eq!(window.last(), Some(at(199_999)));
    }

    #[test]
    fn a_clearance_forgets_what_was_seen_but_not_what_came_later() {
        let mut window = EventWindow::default();
        window.add(at(100), 60);
        window.clear_until(at(99).unix_seconds);
        assert_eq!(window.count(at(100), 600), 60);
        window.clear_until(at(100).unix_seconds);
        assert_eq!(window.count(at(100), 600), 0);
    }
}
