//! How long a start waits for what it needs. What it waits for may never come (a bridge that can not be made, a Secret
//! that nobody wrote): past the deadline of a start the epoch is declined, so that the VM is tried elsewhere and the
//! host has its place among the starts free again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::{Runtime, RuntimePhase};
use model::Assignment;

use super::starting::DEADLINE;

/// How long one try may take: as long as the slowest step that has a bound of its own (the seed), and half of all, so
/// that what a start waits for is shown before it is declined.
const TRY: Duration = Duration::from_secs(60);
/// What a try gets at least, as one that begins late (the API server was away) may find everything ready.
const TRY_LEAST: Duration = Duration::from_secs(10);

/// Starts that wait, by uid of their VM: epoch, and since when this agent prepares it.
#[derive(Debug, Default)]
pub struct Preparing(Mutex<BTreeMap<String, (i64, Instant)>>);

impl Preparing {
    /// Notes that an epoch waits yet; whether it has for as long as a start may take.
    pub fn is_overdue(&self, uid: &str, epoch: i64, now: Instant) -> bool {
        self.waits(uid, epoch, now) >= DEADLINE
    }

    /// Notes that an epoch is prepared; how long this try may take.
    pub fn try_within(&self, uid: &str, epoch: i64, now: Instant) -> Duration {
        let left = DEADLINE.saturating_sub(self.waits(uid, epoch, now));
        left.clamp(TRY_LEAST, TRY)
    }

    /// Notes an epoch; how long it has waited.
    fn waits(&self, uid: &str, epoch: i64, now: Instant) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (waits, since) = all.entry(uid.to_owned()).or_insert((epoch, now));
        if *waits != epoch {
            (*waits, *since) = (epoch, now);
        }
        now.saturating_duration_since(*since)
    }

    /// A start of this VM waits no more: it began, or was declined.
    pub fn ends(&self, uid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(uid);
        // VMs that went elsewhere meanwhile are not told here.
        all.retain(|_, (_, since)| since.elapsed() < 10 * DEADLINE);
    }
}

/// Whether a report tells that this start waits, and for what.
pub fn is_told(told: Option<&Runtime>, assignment: &Assignment, why: &str) -> bool {
    told.is_some_and(|told| {
        told.assignment == *assignment
            && told.phase == RuntimePhase::Preparing
            && told.message.as_deref() == Some(why)
    })
}

/// The message of an epoch that was declined for what it waited for.
pub fn declined(why: &str) -> String {
    format!("not started within {} s: {why}", DEADLINE.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_whose_every_try_hangs_is_shown_once_and_declined_in_time() {
        let (preparing, begin) = (Preparing::default(), Instant::now());
        let (mut now, mut tries) = (begin, 0);
        loop {
            now += preparing.try_within("v", 1, now);
            tries += 1;
            if preparing.is_overdue("v", 1, now) {
                break;
            }
        }
        assert_eq!((now - begin, tries), (DEADLINE, 2));
        let late = preparing.try_within("v", 1, now + DEADLINE);
        assert_eq!(late, TRY_LEAST, "it may find everything ready");
    }

    #[test]
    fn what_a_start_waits_for_is_told_once() {
        let copy = |epoch: i64| -> Assignment {
            serde_json::from_value(serde_json::json!({"host": "h1", "bootId": "b", "epoch": epoch}))
                .expect("an assignment")
        };
        let told = |epoch: i64, phase: RuntimePhase, why: &str| Runtime {
            assignment: copy(epoch),
            phase,
            since: crate::clock::now(),
            close_reason: None,
            message: Some(why.to_owned()),
            started_at: None,
            dirty_mebibytes_per_second: None,
        };
        let known = told(2, RuntimePhase::Preparing, "no seed");
        assert!(is_told(Some(&known), &copy(2), "no seed"));
        for news in [
            None,
            Some(told(1, RuntimePhase::Preparing, "no seed")),
            Some(told(2, RuntimePhase::Closed, "no seed")),
            Some(told(2, RuntimePhase::Preparing, "no bridge")),
        ] {
            assert!(!is_told(news.as_ref(), &copy(2), "no seed"), "{news:?}");
        }
    }

    #[test]
    fn an_epoch_is_declined_when_it_has_waited_for_as_long_as_a_start_may_take() {
        let (preparing, begin) = (Preparing::default(), Instant::now());
        assert!(!preparing.is_overdue("v", 1, begin));
        let late = begin + DEADLINE;
        assert!(!preparing.is_overdue("v", 1, late - Duration::from_secs(1)));
        assert!(preparing.is_overdue("v", 1, late));
        assert!(
            !preparing.is_overdue("v", 2, late),
            "the next epoch waits anew"
        );
        assert!(!preparing.is_overdue("w", 1, late), "as does another VM");
        preparing.ends("v");
        assert!(!preparing.is_overdue("v", 2, late + DEADLINE));
    }
}
