//! A host that its pools' servers have cut off: what lets it in again.

use std::collections::BTreeSet;

use super::fixtures::{UUID, facts, identity, word};
use super::*;
use crate::proof::power::{PowerAnswer, PowerReading};
use crate::signs::{LifeSigns, Sign};

/// A silent host of boot b1 that was cut off, whose only BMC answers nothing unless it is let to.
struct Cut {
    machine: HostMachine,
    facts: HostFacts,
    second: u64,
    renews: bool,
    reads: Option<PowerAnswer>,
    lifts: usize,
}

impl Cut {
    fn new() -> Self {
        let mut facts = facts("b1", 1);
        facts.storage.ordered = Some("b1".into());
        facts.signs.lease = Some(Sign {
            changes: 1,
            changed_at: Moment(0),
        });
        Self {
            machine: HostMachine::new("h1".into(), Moment(0)),
            facts,
            second: 0,
            renews: false,
            reads: None,
            lifts: 0,
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let now = Moment(self.second * 1_000);
            if self.renews {
                let lease = Some(Sign {
                    changes: self.second,
                    changed_at: now,
                });
                self.facts.signs = LifeSigns {
                    lease,
                    ..LifeSigns::default()
                };
            }
            let permit = FencePermit::Refused(Reason::Disarmed);
            let step = self
                .machine
                .step(&self.facts, &permit, &Policy::default(), now);
            for action in step.actions {
                match (action, &self.reads) {
                    (HostAction::LiftCut, _) => self.lifts += 1,
                    (HostAction::ReadPower, Some(answer)) => {
                        self.facts.reading = Some(PowerReading {
                            answer: answer.clone(),
                            system_uuid: Some(UUID.to_owned()),
                            unanimous: true,
                            contradicted: false,
                            sent_at: now,
                            received_at: now,
                        });
                    }
                    _ => {}
                }
            }
        }
    }

    fn proof(&self) -> Option<StopProofKind> {
        let proof = self.machine.stop_proof(&"b1".into(), &self.facts);
        proof.map(|proof| proof.kind())
    }

    /// A person says that it is off, and is believed.
    fn confirmed() -> Self {
        let mut cut = Self::new();
        cut.pass(20);
        let seen_at = Moment(cut.second * 1_000);
        cut.facts.confirmation = Some((word(), seen_at));
        cut.pass(20);
        assert_eq!(cut.proof(), Some(StopProofKind::Confirmed));
        cut
    }

    /// It boots anew: the former boot is retired.
    fn boots(&mut self) {
        self.facts.identity = Some(identity("b2"));
        self.facts.lease_boot_id = Some("b2".into());
        self.facts.retired = BTreeSet::from(["b1".into()]);
        self.renews = true;
        self.pass(1);
    }
}

/// Its VMs run elsewhere already, and the cut alone keeps the old copies' last writes from their disks.
#[test]
fn a_persons_word_does_not_let_it_in_and_its_next_boot_does() {
    let mut cut = Cut::confirmed();
    assert_eq!(cut.lifts, 0, "the word may be wrong");
    // It was: the host is back, as the boot that was cut off.
    cut.renews = true;
    cut.pass(5);
    assert_eq!(cut.lifts, 0);
    cut.boots();
    assert_eq!(cut.proof(), Some(StopProofKind::Rebooted));
    assert_eq!(cut.lifts, 1);
}

#[test]
fn a_host_that_its_bmc_reads_off_is_let_in() {
    let mut cut = Cut::new();
    cut.pass(20);
    assert_eq!((cut.proof(), cut.lifts), (None, 0));
    cut.reads = Some(PowerAnswer::Off);
    cut.pass(10);
    assert_eq!(cut.proof(), Some(StopProofKind::PoweredOff));
    assert!(cut.lifts > 0);
}

/// A machine that is gone for good never boots again, and its name is to be free: a person has said that it is off, and
/// another act of people says that it will not be back.
#[test]
fn a_confirmed_host_that_is_deleted_is_let_in() {
    let mut cut = Cut::new();
    cut.facts.deleted = true;
    cut.pass(20);
    assert_eq!(cut.lifts, 0, "nobody has said that it is off");
    let mut cut = Cut::confirmed();
    cut.facts.deleted = true;
    cut.pass(1);
    assert_eq!(cut.lifts, 1);
}
