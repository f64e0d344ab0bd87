//! Since when copies of VMs are handed over, as one operator saw it: a VM whose source never runs again, and whose
//! target does not run yet, is down. Who leads next begins anew, by its own clock.

use std::collections::{BTreeMap, BTreeSet};

use model::{Assignment, Epoch, VmUid};

use crate::assignment::Rights;
use crate::copy::{CopyPhase, CopyReport};
use crate::migration::SourcePhase;
use crate::time::Moment;

/// The hand-overs that one operator has heard of: of each VM the last one, by the epoch that was given up.
#[derive(Clone, Debug, Default)]
pub struct HandOvers {
    heard: BTreeMap<VmUid, (Epoch, Moment)>,
}

impl HandOvers {
    /// Hears what the assigned host reports of a VM, and what a move's source says; tells when it was first heard that
    /// the assigned copy is handed over. None: nobody has said so. A word about another copy is none, and one that was
    /// heard stands: an epoch is handed over for ever.
    pub fn hear(
        &mut self,
        rights: &Rights,
        report: Option<&CopyReport>,
        source: Option<(&Assignment, SourcePhase)>,
        now: Moment,
    ) -> Option<Moment> {
        let current = rights.assignment.as_ref()?;
        let reported = report.is_some_and(|report| {
            report.assignment == *current && report.phase == CopyPhase::HandedOver
        });
        let said = source == Some((current, SourcePhase::HandedOver));
        let known = self.heard.get(&rights.vm).copied();
        match known.filter(|(epoch, _)| *epoch == current.epoch) {
            Some((_, at)) => Some(at),
            None if reported || said => {
                self.heard.insert(rights.vm.clone(), (current.epoch, now));
                Some(now)
            }
            None => None,
        }
    }

    /// Forgets VMs that are gone.
    pub fn keep(&mut self, vms: &BTreeSet<VmUid>) {
        self.heard.retain(|vm, _| vms.contains(vm));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(host: &str, epoch: i64) -> Assignment {
        Assignment {
            host: host.into(),
            boot_id: "b".into(),
            epoch: Epoch(epoch),
        }
    }

    fn rights(assignment: Assignment) -> Rights {
        Rights {
            last_epoch: assignment.epoch,
            assignment: Some(assignment),
            ..Rights::none("v".into())
        }
    }

    #[test]
    fn the_first_word_counts_whoever_says_it() {
        let mut heard = HandOvers::default();
        let (source, target) = (copy("h1", 1), copy("h2", 2));
        let before = rights(source.clone());
        let running = CopyReport::new(source.clone(), CopyPhase::Running);
        let sends = Some((&source, SourcePhase::Migrating));
        assert_eq!(heard.hear(&before, Some(&running), sends, Moment(1)), None);
        let said = Some((&source, SourcePhase::HandedOver));
        let first = heard.hear(&before, Some(&running), said, Moment(2));
        assert_eq!(first, Some(Moment(2)));
        let report = CopyReport::new(source.clone(), CopyPhase::HandedOver);
        let again = heard.hear(&before, Some(&report), None, Moment(3));
        assert_eq!(again, Some(Moment(2)));
        let silent = heard.hear(&before, None, None, Moment(4));
        assert_eq!(silent, Some(Moment(2)), "it stands");
        // The move is over, and its object still tells of the source.
        let after = rights(target.clone());
        assert_eq!(heard.hear(&after, Some(&report), said, Moment(5)), None);
        let on = Some((&target, SourcePhase::HandedOver));
        assert_eq!(heard.hear(&after, None, on, Moment(6)), Some(Moment(6)));
        heard.keep(&BTreeSet::new());
        assert_eq!(heard.hear(&after, None, None, Moment(7)), None);
    }
}
