//! When a guest that stands still since a disk failed may be let run on again: a disk that fails at
//! once anew (a full pool, a broken file) is not tried at every turn.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Least time between two tries.
const AGAIN: Duration = Duration::from_secs(10);

/// The last tries, by domain.
#[derive(Debug, Default)]
pub struct Resumes(Mutex<BTreeMap<Uuid, Instant>>);

impl Resumes {
    /// Whether a guest may be let run on now.
    pub fn is_due(&self, uuid: Uuid) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&uuid).is_none_or(|last| last.elapsed() >= AGAIN)
    }

    /// It is let run on now.
    pub fn begun(&self, uuid: Uuid) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, last| last.elapsed() < AGAIN);
        last.insert(uuid, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_let_run_on_at_once_and_then_seldom() {
        let resumes = Resumes::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(resumes.is_due(one));
        resumes.begun(one);
        assert!(!resumes.is_due(one));
        assert!(resumes.is_due(other), "each for itself");
    }
}
