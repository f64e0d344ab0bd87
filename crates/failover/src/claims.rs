//! What the claims of a VM's volume are to be.
//!
//! The rights are the truth, and claims follow them: where the one who wrote the rights died before
//! the claims, or wrote late and won over the one that had claimed, the next leader makes them what
//! they are to be. A claim alone permits nobody anything, so one that goes may at worst make a start
//! or an arrival wait until it is written again; the volume itself stays held by `claim`.
//!
//! A VM without any right has no claims; to release them is the caller's work.

use model::{Assignment, Claim, ClaimHolder};

use crate::assignment::Rights;

/// The two claims of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who may write it.
    pub claim: Option<Claim>,
    /// Who may receive it by live migration.
    pub incoming: Option<Claim>,
}

/// The claims that a volume of a VM is to have; none where both stand as they should.
///
/// - `claim` names the assignment where it is missing, or where this VM holds it under another right
///   that was issued. One above `lastEpoch` belongs to an assignment that is being written.
/// - `incoming` names the incoming right. What names the assignment has arrived and is the claim; what
///   names neither goes, but for one above `lastEpoch` while the VM is `moving` (a move of it is not
///   over): claims are written first, so that one belongs to a move that begins.
/// - What another VM or a job holds is never touched.
pub fn mended(
    fleet: &str,
    rights: &Rights,
    moving: bool,
    claim: Option<&Claim>,
    incoming: Option<&Claim>,
) -> Option<Claims> {
    let assigned = rights.assignment.as_ref()?;
    let ours = |claim: &Claim| {
        claim.holder == ClaimHolder::VirtualMachine && claim.uid == rights.vm.as_str()
    };
    let behind = claim.is_none_or(|claim| {
        ours(claim) && claim.assignment != *assigned && claim.assignment.epoch <= rights.last_epoch
    });
    let astray = incoming.map_or(rights.incoming.is_some(), |claim| {
        let begins = moving && claim.assignment.epoch > rights.last_epoch;
        ours(claim) && rights.incoming.as_ref() != Some(&claim.assignment) && !begins
    });
    if !behind && !astray {
        return None;
    }
    let claim_for = |right: &Assignment| Claim::of_vm(fleet, rights.vm.as_str(), right);
    Some(Claims {
        claim: if behind {
            Some(claim_for(assigned))
        } else {
            claim.cloned()
        },
        incoming: if astray {
            rights.incoming.as_ref().map(claim_for)
        } else {
            incoming.cloned()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Epoch;

    fn right(host: &str, epoch: i64) -> Assignment {
        Assignment {
            host: host.into(),
            boot_id: "b".into(),
            epoch: Epoch(epoch),
        }
    }

    fn held(holder: ClaimHolder, uid: &str, right: Assignment) -> Claim {
        Claim {
            fleet: "f".to_owned(),
            holder,
            uid: uid.to_owned(),
            assignment: right,
        }
    }

    fn own(host: &str, epoch: i64) -> Claim {
        held(ClaimHolder::VirtualMachine, "v", right(host, epoch))
    }

    fn rights(assignment: Assignment, incoming: Option<Assignment>, last: i64) -> Rights {
        Rights {
            assignment: Some(assignment),
            incoming,
            last_epoch: Epoch(last),
            ..Rights::none("v".into())
        }
    }

    /// What the claims become, or what they are where nothing is to be written.
    fn end(rights: &Rights, moving: bool, claim: Option<Claim>, incoming: Option<Claim>) -> Claims {
        let mended = mended("f", rights, moving, claim.as_ref(), incoming.as_ref());
        mended.unwrap_or(Claims { claim, incoming })
    }

    fn claims(claim: Claim, incoming: Option<Claim>) -> Claims {
        Claims {
            claim: Some(claim),
            incoming,
        }
    }

    #[test]
    fn only_missing_claims_and_older_ones_of_the_same_vm_are_written_anew() {
        let rights = rights(right("h1", 4), None, 4);
        let behind = |claim: Option<&Claim>| mended("f", &rights, false, claim, None).is_some();
        let vm = |uid: &str, epoch| held(ClaimHolder::VirtualMachine, uid, right("h1", epoch));
        assert!(behind(None));
        assert!(behind(Some(&vm("v", 3))));
        assert!(!behind(Some(&vm("v", 4))));
        assert!(!behind(Some(&vm("v", 5))), "being assigned");
        assert!(!behind(Some(&vm("w", 1))), "another VM's");
        let job = held(ClaimHolder::Job, "v", right("h1", 1));
        assert!(!behind(Some(&job)), "a job's");
    }

    /// A start was claimed and not written, as its proof was void; a move took the number later, and was dropped.
    #[test]
    fn a_claim_above_the_assignment_of_a_number_that_is_over_follows_it() {
        let rights = rights(right("h1", 1), None, 2);
        let end = end(&rights, false, Some(own("h2", 2)), None);
        assert_eq!(end, claims(own("h1", 1), None));
    }

    #[test]
    fn a_claim_that_lost_against_a_late_assignment_of_the_same_epoch_follows_it() {
        let rights = rights(right("h2", 4), None, 4);
        let end = end(&rights, false, Some(own("h3", 4)), None);
        assert_eq!(end, claims(own("h2", 4), None));
    }

    #[test]
    fn what_arrived_becomes_the_claim() {
        let promoted = rights(right("h2", 2), None, 2);
        for moving in [true, false] {
            let end = end(&promoted, moving, Some(own("h1", 1)), Some(own("h2", 2)));
            assert_eq!(end, claims(own("h2", 2), None), "the leader died at once");
        }
        let end = end(&promoted, false, Some(own("h2", 2)), Some(own("h2", 2)));
        assert_eq!(end, claims(own("h2", 2), None), "mended by halves before");
    }

    #[test]
    fn an_incoming_claim_that_names_no_right_is_taken_away() {
        let stayed = rights(right("h1", 1), None, 2);
        for moving in [true, false] {
            let end = end(&stayed, moving, Some(own("h1", 1)), Some(own("h2", 2)));
            assert_eq!(end, claims(own("h1", 1), None), "dropped");
        }
        let anew = rights(right("h4", 3), None, 3);
        let end = end(&anew, false, Some(own("h4", 3)), Some(own("h2", 2)));
        assert_eq!(end, claims(own("h4", 3), None), "started anew");
    }

    #[test]
    fn a_claim_for_a_move_that_begins_stays_while_there_is_a_move() {
        let rests = rights(right("h1", 1), None, 1);
        let (claim, incoming) = (own("h1", 1), own("h2", 2));
        let mended = |moving| mended("f", &rests, moving, Some(&claim), Some(&incoming));
        assert_eq!(mended(true), None);
        assert_eq!(mended(false), Some(claims(own("h1", 1), None)));
    }

    #[test]
    fn the_incoming_claim_of_a_move_follows_the_incoming_right() {
        let moves = rights(right("h1", 1), Some(right("h2", 2)), 2);
        let good = claims(own("h1", 1), Some(own("h2", 2)));
        let end = |incoming| end(&moves, true, Some(own("h1", 1)), incoming);
        assert_eq!(end(Some(own("h2", 2))), good, "as it should be");
        assert_eq!(end(None), good, "missing");
        assert_eq!(end(Some(own("h3", 2))), good, "a late incoming won");
    }

    #[test]
    fn what_others_hold_is_never_touched() {
        let promoted = rights(right("h2", 2), Some(right("h3", 3)), 3);
        for other in [
            held(ClaimHolder::VirtualMachine, "w", right("h2", 1)),
            held(ClaimHolder::Job, "v", right("h2", 1)),
        ] {
            let mended = mended("f", &promoted, false, Some(&other), Some(&other));
            assert_eq!(mended, None);
        }
    }

    #[test]
    fn a_vm_without_an_assignment_is_given_no_claim() {
        let none = Rights::none("v".into());
        let (claim, incoming) = (own("h1", 1), own("h2", 2));
        assert_eq!(mended("f", &none, false, None, None), None);
        let left = mended("f", &none, false, Some(&claim), Some(&incoming));
        assert_eq!(left, None);
    }

    #[test]
    fn what_was_mended_stands() {
        let standing = [
            None,
            Some(own("h1", 1)),
            Some(own("h2", 2)),
            Some(own("h3", 3)),
        ];
        for rights in [
            rights(right("h1", 1), None, 2),
            rights(right("h1", 1), Some(right("h2", 2)), 2),
            rights(right("h2", 2), None, 2),
            rights(right("h2", 2), Some(right("h3", 3)), 3),
        ] {
            for moving in [true, false] {
                for claim in &standing {
                    for incoming in &standing {
                        let once = end(&rights, moving, claim.clone(), incoming.clone());
                        let (claim, incoming) = (once.claim.as_ref(), once.incoming.as_ref());
                        assert_eq!(mended("f", &rights, moving, claim, incoming), None);
                    }
                }
            }
        }
    }
}
