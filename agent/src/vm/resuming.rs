//! When a guest that stands still since a disk failed may be let run on again: a disk that fails at
//! once anew (a full pool, a broken file) is not tried at every turn.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Least time between two tries.
const AGAIN: Duration = Duration::from_secs(10);
/// Least time between two looks whether one may be tried: each reads the VM and all its volumes, of every guest of a pool
/// that failed, and a guest waits for its storage that much longer.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// When a guest is looked at next, by domain.
#[derive(Debug, Default)]
pub struct Resumes(Mutex<BTreeMap<Uuid, Instant>>);

impl Resumes {
    /// Whether to look whether a guest may be let run on.
    pub fn is_due(&self, uuid: Uuid, now: Instant) -> bool {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        next.get(&uuid).is_none_or(|next| now >= *next)
    }

    /// It is looked at now.
    pub fn looked(&self, uuid: Uuid, now: Instant) {
        self.not_before(uuid, now, LOOK_AGAIN);
    }

    /// It is let run on now.
    pub fn begun(&self, uuid: Uuid, now: Instant) {
        self.not_before(uuid, now, AGAIN);
    }

    fn not_before(&self, uuid: Uuid, now: Instant, wait: Duration) {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        next.retain(|_, next| *next > now);
        next.insert(uuid, now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_let_run_on_at_once_and_then_seldom() {
        let (resumes, now) = (Resumes::default(), Instant::now());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(resumes.is_due(one, now));
        resumes.begun(one, now);
        assert!(!resumes.is_due(one, now + LOOK_AGAIN));
        assert!(resumes.is_due(one, now + AGAIN));
        assert!(resumes.is_due(other, now), "each for itself");
    }

    #[test]
    fn a_guest_whose_storage_is_away_is_looked_at_seldom_too() {
        let (resumes, now) = (Resumes::default(), Instant::now());
        let one = Uuid::from_u128(1);
        resumes.looked(one, now);
        assert!(!resumes.is_due(one, now));
        assert!(resumes.is_due(one, now + LOOK_AGAIN));
    }
}
