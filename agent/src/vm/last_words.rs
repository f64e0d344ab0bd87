//! Why copies were closed here, until the cache shows that it was told. A report that fails, or that the cache does not show
//! yet, is made again with its reason: by that the operator decides whether the VM starts again, and when.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::CloseReason;
use model::Epoch;

/// Why a copy was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWord {
    /// The reason.
    pub reason: CloseReason,
    /// More than the reason.
    pub message: Option<String>,
}

/// Those that were not seen to be told, by VM and epoch.
#[derive(Debug, Default)]
pub struct LastWords(Mutex<BTreeMap<(String, Epoch), LastWord>>);

impl LastWords {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, Epoch), LastWord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps why an epoch was closed, and returns it. The first word stands: what comes after it is about what was left
    /// of the copy.
    pub fn keep(&self, uid: &str, epoch: Epoch, word: LastWord) -> LastWord {
        let mut all = self.all();
        all.entry((uid.to_owned(), epoch)).or_insert(word).clone()
    }

    /// Why an epoch was closed, if it was in this run of the agent.
    pub fn of(&self, uid: &str, epoch: Epoch) -> Option<LastWord> {
        self.all().get(&(uid.to_owned(), epoch)).cloned()
    }

    /// Forgets all but those that are still to be told.
    pub fn retain(&self, is_to_tell: impl Fn(&str, Epoch) -> bool) {
        self.all().retain(|(uid, epoch), _| is_to_tell(uid, *epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(reason: CloseReason, message: Option<&str>) -> LastWord {
        LastWord {
            reason,
            message: message.map(str::to_owned),
        }
    }

    #[test]
    fn why_a_copy_was_closed_is_known_until_it_was_seen_to_be_told() {
        let words = LastWords::default();
        assert_eq!(words.of("u1", Epoch(3)), None);
        let locked = word(CloseReason::ImageLocked, Some("write lock"));
        words.keep("u1", Epoch(3), locked.clone());
        words.retain(|_, _| true);
        assert_eq!(words.of("u1", Epoch(3)), Some(locked));
        assert_eq!(words.of("u1", Epoch(4)), None, "another epoch");
        assert_eq!(words.of("u2", Epoch(3)), None, "another VM");
        words.retain(|uid, epoch| (uid, epoch) != ("u1", Epoch(3)));
        assert_eq!(words.of("u1", Epoch(3)), None);
    }

    #[test]
    fn what_is_cleared_up_after_a_close_has_no_reason_of_its_own() {
        let words = LastWords::default();
        let first = word(CloseReason::StartFailed, Some("no memory"));
        assert_eq!(words.keep("u1", Epoch(3), first.clone()), first);
        let again = word(CloseReason::Superseded, None);
        assert_eq!(words.keep("u1", Epoch(3), again.clone()), first);
        assert_eq!(words.keep("u1", Epoch(4), again.clone()), again);
    }
}
