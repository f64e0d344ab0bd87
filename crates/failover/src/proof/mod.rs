//! Stop proofs: evidence that a copy of a VM cannot be writing, now or later.
//!
//! ```text
//!  agent's report ── StopProof::closed / handed_over ──────────────┐
//!  registration   ── HostStopProof::rebooted ──────┐               ▼
//!  BMC readings   ── power::PowerWitness::conclude ┤           StopProof ──by value──► assignment::*
//!  observers      ── self_fence::self_fenced ──────┼─► for_copy ───▲
//!  a person       ── confirmation::confirm ────────┘               │
//!  storage        ── storage::storage_fenced ──────────────────────┘
//! ```
//!
//! Both types have private fields, so they are built only by the functions below and in
//! the witnesses of this folder, each of which checks its evidence. A proof about a host
//! covers one incarnation and stays good although the host may be switched on again a
//! second later: a new incarnation may not start an old epoch. Nothing here decides what
//! is done with a proof.
//!
//! What the seal guarantees is that evidence was **checked**: whoever holds a proof passed facts
//! that meet the rule of its kind, about exactly this copy or incarnation. It does not guarantee
//! where these facts **come from**: [`storage::StorageCut`] (through its `read_back`), the retired
//! boots of [`HostStopProof::rebooted`], [`CopyReport`] and [`power::PowerReading`] are plain values
//! that their caller makes, and a caller that invents one gets its proof. That they are true is the
//! shells' affair, in few places: `operator/src/door.rs` (reports, which the API server's admission
//! lets only the host's own agent write), `operator/src/hosts/gather.rs` (boots, by way of
//! `host::incarnation`), `crates/bmc` and `hosts/storage.rs` (readings of the BMC and
//! of the storage's server).
//!
//! Nobody else can make one, copy one, or change what one is about:
//!
//! ```compile_fail,E0451
//! use failover::StopProof;
//! let assignment = model::Assignment { host: "h1".into(), boot_id: "b1".into(), epoch: model::Epoch(1) };
//! let kind = model::StopProofKind::Closed;
//! let forged = StopProof { vm: "v".into(), assignment, kind, evidence: String::new() };
//! ```
//!
//! ```compile_fail,E0451
//! use failover::HostStopProof;
//! let kind = model::StopProofKind::PoweredOff;
//! let forged = HostStopProof { host: "h1".into(), boot_id: "b1".into(), kind, evidence: String::new() };
//! ```
//!
//! ```compile_fail,E0599
//! fn twice(proof: failover::StopProof) -> (failover::StopProof, failover::StopProof) {
//!     (proof.clone(), proof)
//! }
//! ```
//!
//! ```compile_fail,E0616
//! fn about_another(mut proof: failover::StopProof) -> failover::StopProof {
//!     proof.vm = "another".into();
//!     proof
//! }
//! ```
//!
//! ```compile_fail,E0277
//! let read: failover::StopProof = serde_json::from_str("{}").unwrap();
//! ```
//!
//! and it is used up by the assignment that rests on it:
//!
//! ```compile_fail,E0382
//! use failover::{CopiesStopped, Rights, StopProof, assignment};
//! fn start_twice(rights: &Rights, proof: StopProof) {
//!     let stopped = CopiesStopped { current: proof, incoming: None };
//!     let _ = assignment::restart(rights, stopped, "h2".into(), "b2".into());
//!     let _ = assignment::restart(rights, stopped, "h3".into(), "b3".into());
//! }
//! ```
//!
//! The same words with one use compile:
//!
//! ```
//! use failover::{CopiesStopped, Rights, StopProof, assignment};
//! fn start(rights: &Rights, proof: StopProof) {
//!     let stopped = CopiesStopped { current: proof, incoming: None };
//!     let _ = assignment::restart(rights, stopped, "h2".into(), "b2".into());
//! }
//! ```

pub mod confirmation;
pub mod evidence;
pub mod power;
pub mod self_fence;
pub mod storage;

use std::collections::BTreeSet;

use model::{Assignment, BootId, HostName, StopProofKind, StopProofRecord, VmUid};
use thiserror::Error;

use crate::copy::{CloseCause, CopyPhase, CopyReport};

/// Why evidence is no proof.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The report is about another copy.
    #[error(
        "the report is about epoch {reported} on {host}, not about epoch {wanted}; wait for a report of that epoch"
    )]
    OtherCopy {
        /// Epoch in the report.
        reported: model::Epoch,
        /// Host in the report.
        host: HostName,
        /// Epoch in question.
        wanted: model::Epoch,
    },
    /// The copy is not in a state that proves anything.
    #[error(
        "the copy on {host} is {phase:?}, which is no stop proof; wait for Closed or HandedOver"
    )]
    NotStopped {
        /// Host in the report.
        host: HostName,
        /// State in the report.
        phase: CopyPhase,
    },
    /// The proof is about another incarnation of a host.
    #[error(
        "the proof covers host {host} boot {boot_id}, the copy belongs to host {copy_host} boot {copy_boot_id}"
    )]
    OtherIncarnation {
        /// Host of the proof.
        host: HostName,
        /// Boot id of the proof.
        boot_id: BootId,
        /// Host of the copy.
        copy_host: HostName,
        /// Boot id of the copy.
        copy_boot_id: BootId,
    },
    /// The boot id was not retired, or is the one that runs.
    #[error("boot id {boot_id} of host {host} is not retired; it may still run")]
    NotRetired {
        /// The host.
        host: HostName,
        /// Its boot id.
        boot_id: BootId,
    },
}

/// What the evidence of a `Closed` ends with when QEMU crashed or was killed: the stored record tells
/// that to a leader which did not see it happen.
pub const CRASHED: &str = ": its QEMU crashed or was killed";

/// Proof that one copy of one VM cannot be writing. Not `Clone`: it is consumed by the
/// assignment that rests on it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct StopProof {
    vm: VmUid,
    assignment: Assignment,
    kind: StopProofKind,
    evidence: String,
}

impl StopProof {
    /// `Closed`: the agent of the assigned host says that this very epoch is closed for
    /// ever and libvirt shows no such domain. The API server's admission has checked that
    /// only that agent can have written the report.
    ///
    /// # Errors
    /// When the report is about another copy or shows another state.
    pub fn closed(
        vm: &VmUid,
        assignment: &Assignment,
        report: &CopyReport,
    ) -> Result<Self, ProofError> {
        let sentence = if report.cause == Some(CloseCause::Crashed) {
            evidence::CRASHED_COPY
        } else {
            evidence::CLOSED
        };
        let evidence = sentence.told(&[&assignment.host, &assignment.epoch]);
        Self::from_report(
            vm,
            assignment,
            report,
            CopyPhase::Closed,
            StopProofKind::Closed,
            evidence,
        )
    }

    /// `HandedOver`: the agent of the source says that its QEMU is dead after the switch-over of this epoch's move, or
    /// that the job ended as migrated: its vCPUs never ran after switch-over.
    ///
    /// # Errors
    /// When the report is about another copy or shows another state.
    pub fn handed_over(
        vm: &VmUid,
        assignment: &Assignment,
        report: &CopyReport,
    ) -> Result<Self, ProofError> {
        let evidence = evidence::HANDED_OVER.told(&[&assignment.host, &assignment.epoch]);
        Self::from_report(
            vm,
            assignment,
            report,
            CopyPhase::HandedOver,
            StopProofKind::HandedOver,
            evidence,
        )
    }

    fn from_report(
        vm: &VmUid,
        assignment: &Assignment,
        report: &CopyReport,
        needed: CopyPhase,
        kind: StopProofKind,
        evidence: String,
    ) -> Result<Self, ProofError> {
        if report.assignment != *assignment {
            return Err(ProofError::OtherCopy {
                reported: report.assignment.epoch,
                host: report.assignment.host.clone(),
                wanted: assignment.epoch,
            });
        }
        if report.phase != needed {
            return Err(ProofError::NotStopped {
                host: assignment.host.clone(),
                phase: report.phase,
            });
        }
        Ok(Self {
            vm: vm.clone(),
            assignment: assignment.clone(),
            kind,
            evidence,
        })
    }

    /// The VM whose copy is proven stopped.
    pub fn vm(&self) -> &VmUid {
        &self.vm
    }

    /// The assignment whose copy is proven stopped.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Kind of evidence.
    pub fn kind(&self) -> StopProofKind {
        self.kind
    }

    /// The proof as it is stored beside the assignment that used it.
    pub fn record(&self) -> StopProofRecord {
        StopProofRecord {
            kind: self.kind,
            assignment: self.assignment.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

/// Proof that one incarnation of a host, and so every copy started by it, is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostStopProof {
    host: HostName,
    boot_id: BootId,
    kind: StopProofKind,
    evidence: String,
}

impl HostStopProof {
    /// `Rebooted`: the same machine registered with a new boot id, and the operator has
    /// retired the old one (see `host::incarnation`, which compares the identity).
    ///
    /// # Errors
    /// When the boot id in question is not retired, or is the registered one.
    pub fn rebooted(
        host: &HostName,
        old: &BootId,
        registered: &BootId,
        retired: &BTreeSet<BootId>,
    ) -> Result<Self, ProofError> {
        if old == registered || !retired.contains(old) {
            return Err(ProofError::NotRetired {
                host: host.clone(),
                boot_id: old.clone(),
            });
        }
        Ok(Self {
            host: host.clone(),
            boot_id: old.clone(),
            kind: StopProofKind::Rebooted,
            evidence: evidence::REBOOTED.told(&[host, registered, old]),
        })
    }

    /// The host.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// The dead incarnation.
    pub fn boot_id(&self) -> &BootId {
        &self.boot_id
    }

    /// Kind of evidence.
    pub fn kind(&self) -> StopProofKind {
        self.kind
    }

    /// The evidence in one sentence.
    pub fn evidence(&self) -> &str {
        &self.evidence
    }

    /// The proof for one copy that this incarnation may have started.
    ///
    /// # Errors
    /// When the copy belongs to another host or incarnation.
    pub fn for_copy(&self, vm: &VmUid, assignment: &Assignment) -> Result<StopProof, ProofError> {
        if assignment.host != self.host || assignment.boot_id != self.boot_id {
            return Err(ProofError::OtherIncarnation {
                host: self.host.clone(),
                boot_id: self.boot_id.clone(),
                copy_host: assignment.host.clone(),
                copy_boot_id: assignment.boot_id.clone(),
            });
        }
        Ok(StopProof {
            vm: vm.clone(),
            assignment: assignment.clone(),
            kind: self.kind,
            evidence: self.evidence.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::CopyReport;
    use model::Epoch;

    fn assignment(epoch: i64) -> Assignment {
        Assignment {
            host: "h1".into(),
            boot_id: "b1".into(),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn the_record_of_a_closed_copy_tells_a_crash_and_only_that() {
        for (cause, crashed) in [
            (CloseCause::Crashed, true),
            (CloseCause::GuestShutdown, false),
            (CloseCause::StartFailed, false),
        ] {
            let report = CopyReport::closed(assignment(3), cause);
            let proof = StopProof::closed(&"v".into(), &assignment(3), &report).unwrap();
            assert_eq!(proof.evidence.ends_with(CRASHED), crashed, "{cause:?}");
        }
    }

    #[test]
    fn a_report_proves_only_its_own_epoch_and_state() {
        let vm = VmUid::from("v");
        let report = CopyReport::new(assignment(3), CopyPhase::Closed);
        assert!(StopProof::closed(&vm, &assignment(3), &report).is_ok());
        assert!(matches!(
            StopProof::closed(&vm, &assignment(4), &report),
            Err(ProofError::OtherCopy { .. })
        ));
        assert!(matches!(
            StopProof::handed_over(&vm, &assignment(3), &report),
            Err(ProofError::NotStopped { .. })
        ));
        for phase in [
            CopyPhase::Running,
            CopyPhase::Starting,
            CopyPhase::Stopping,
            CopyPhase::CloseStuck,
            CopyPhase::Stalled,
            CopyPhase::Arrived,
            CopyPhase::Preparing,
        ] {
            let report = CopyReport::new(assignment(3), phase);
            assert!(
                StopProof::closed(&vm, &assignment(3), &report).is_err(),
                "{phase:?}"
            );
            assert!(
                StopProof::handed_over(&vm, &assignment(3), &report).is_err(),
                "{phase:?}"
            );
        }
    }

    #[test]
    fn a_reboot_proves_only_retired_boots() {
        let host = HostName::from("h1");
        let retired = BTreeSet::from([BootId::from("b1")]);
        let proof = HostStopProof::rebooted(&host, &"b1".into(), &"b2".into(), &retired).unwrap();
        assert!(proof.for_copy(&"v".into(), &assignment(1)).is_ok());
        let newer = Assignment {
            boot_id: "b2".into(),
            ..assignment(2)
        };
        assert!(proof.for_copy(&"v".into(), &newer).is_err());
        assert!(HostStopProof::rebooted(&host, &"b2".into(), &"b2".into(), &retired).is_err());
        assert!(HostStopProof::rebooted(&host, &"b3".into(), &"b2".into(), &retired).is_err());
    }
}
