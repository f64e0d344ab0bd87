//! Copies that were handed over and that libvirt still shows: nobody destroys them, as their QEMU has ended and libvirt
//! clears up by itself. One that stays is told, as a close that does not end is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::BootId;
use tokio::time::Instant;
use uuid::Uuid;

use super::closing;
use crate::ledger::{EpochState, Known};

/// Since when each is seen, by domain and epoch: the VM may come back and go again.
#[derive(Debug, Default)]
pub struct Departed(Mutex<BTreeMap<(Uuid, i64), Instant>>);

impl Departed {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(Uuid, i64), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all domains of ours on this host.
    pub fn see(&self, boot_id: &BootId, known: &[Known<'_>]) {
        self.see_at(boot_id, known, Instant::now());
    }

    fn see_at(&self, boot_id: &BootId, known: &[Known<'_>], now: Instant) {
        let mut all = self.all();
        let mut seen = BTreeMap::new();
        for known in known {
            let epoch = known.owner.epoch.0;
            // An entry that can not be read says nothing; that it can not be is an alarm of its own.
            let entry = known.entry.as_ref();
            let departed =
                entry.is_ok_and(|entry| entry.state(epoch) == Some(EpochState::HandedOver));
            if departed && known.owner.boot_id == *boot_id {
                let key = (known.domain.uuid, epoch);
                seen.insert(key, all.get(&key).copied().unwrap_or(now));
            }
        }
        *all = seen;
    }

    /// Domains that libvirt shows for longer than a close may take.
    pub fn stuck(&self) -> Vec<Uuid> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Vec<Uuid> {
        let all = self.all();
        let stuck = all
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= closing::patience());
        stuck.map(|((uuid, _), _)| *uuid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::tests::copy as any_copy;
    use crate::ledger::Ledger;
    use hypervisor::{Domain, DomainState};
    use std::time::Duration;

    fn copy(boot: &str, epoch: i64) -> Domain {
        Domain {
            uuid: Uuid::from_u128(7),
            state: DomainState::Paused,
            ..any_copy(boot, epoch)
        }
    }

    #[test]
    fn a_copy_that_was_handed_over_is_told_when_libvirt_keeps_it_past_the_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ledger, departed) = (Ledger::new(folder.path()), Departed::default());
        let boot = BootId::from("b1");
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let stuck = |domains: &[Domain], seconds| {
            departed.see_at(&boot, &ledger.known(domains), after(seconds));
            departed.stuck_at(after(seconds))
        };
        ledger.take("u1", 3, 0).expect("use");
        ledger.start("u1", 3).expect("start");
        let left = [copy("b1", 3)];
        assert!(stuck(&left, 0).is_empty() && stuck(&left, 100).is_empty());
        ledger.hand_over("u1", 3).expect("hand over");
        assert!(stuck(&left, 101).is_empty(), "libvirt clears up");
        assert!(stuck(&left, 160).is_empty());
        assert_eq!(stuck(&left, 161), [Uuid::from_u128(7)]);
        assert!(stuck(&[], 162).is_empty(), "libvirt let go of it");
        assert!(stuck(&left, 163).is_empty(), "counted anew");
        // It came back under a new epoch; a copy of another boot is destroyed, not waited for.
        assert!(stuck(&[copy("b1", 4)], 300).is_empty());
        assert!(stuck(&[copy("b0", 3)], 301).is_empty() && stuck(&[copy("b0", 3)], 400).is_empty());
    }
}
