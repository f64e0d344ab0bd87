//! The only functions that make new assignments. Each takes the stop proofs that it needs
//! by value and returns the new state as a value; the caller writes it by compare-and-swap.
//!
//! What holds after every call: at most one copy of the VM has the right to run (the
//! assignment's, or after hand-over the incoming's); every right that was taken away was
//! proven stopped; `last_epoch` never falls and no epoch is issued twice.

use model::{Assignment, BootId, Epoch, HostName, StopProofKind, StopProofRecord, VmUid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::copy::{CopyPhase, CopyReport};
use crate::proof::StopProof;
use crate::rebase::EveryHostHeard;

/// How many proof records are kept beside an assignment.
const PROOFS_KEPT: usize = 4;

/// Who may run a VM, as stored in its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rights {
    /// The VM.
    pub vm: VmUid,
    /// Who may run it.
    #[serde(default)]
    pub assignment: Option<Assignment>,
    /// Who may receive it by live migration.
    #[serde(default)]
    pub incoming: Option<Assignment>,
    /// Highest epoch ever issued.
    #[serde(default)]
    pub last_epoch: Epoch,
    /// Proofs that the present assignment rests on, the newest last.
    #[serde(default)]
    pub proofs: Vec<StopProofRecord>,
}

impl Rights {
    /// The rights of a VM that was never assigned.
    pub fn none(vm: VmUid) -> Self {
        Self {
            vm,
            assignment: None,
            incoming: None,
            last_epoch: Epoch(0),
            proofs: Vec::new(),
        }
    }
}

/// Proofs for every copy that may exist: the current one, and the incoming one where the
/// VM has one.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct CopiesStopped {
    /// Proof for the current assignment.
    pub current: StopProof,
    /// Proof for `incoming`, needed exactly when the VM has one.
    pub incoming: Option<StopProof>,
}

/// New rights of a VM, made by one of the functions of this module and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RightsChange {
    before: Rights,
    after: Rights,
}

impl RightsChange {
    /// The rights that the change was computed from; the write must compare with them.
    pub fn before(&self) -> &Rights {
        &self.before
    }

    /// The new rights.
    pub fn after(&self) -> &Rights {
        &self.after
    }
}

/// Why an assignment is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AssignmentError {
    /// A first assignment of a VM that has one.
    #[error(
        "VM {vm} is assigned to {host} already; give a stop proof and restart it, or migrate it"
    )]
    AlreadyAssigned {
        /// The VM.
        vm: VmUid,
        /// Its host.
        host: HostName,
    },
    /// There is no assignment to replace.
    #[error("VM {vm} has no assignment; make a first one")]
    NotAssigned {
        /// The VM.
        vm: VmUid,
    },
    /// A move is under way already.
    #[error("VM {vm} is moving to {host} already; end that migration first")]
    AlreadyMoving {
        /// The VM.
        vm: VmUid,
        /// The incoming host.
        host: HostName,
    },
    /// No move is under way.
    #[error("VM {vm} has no incoming assignment")]
    NotMoving {
        /// The VM.
        vm: VmUid,
    },
    /// The move would end where it began.
    #[error("VM {vm} runs on {host} already; choose another target")]
    SameHost {
        /// The VM.
        vm: VmUid,
        /// The host.
        host: HostName,
    },
    /// A proof for another copy than the one in question.
    #[error("VM {vm}: the stop proof covers epoch {proven}, needed is one for epoch {needed}")]
    WrongProof {
        /// The VM.
        vm: VmUid,
        /// Epoch that the proof covers.
        proven: Epoch,
        /// Epoch that needs a proof.
        needed: Epoch,
    },
    /// `incoming` stands and nothing proves that copy stopped.
    #[error("VM {vm}: epoch {epoch} is incoming on {host} and has no stop proof")]
    IncomingUnproven {
        /// The VM.
        vm: VmUid,
        /// The incoming host.
        host: HostName,
        /// The incoming epoch.
        epoch: Epoch,
    },
    /// The kind of proof does not allow this step.
    #[error(
        "VM {vm}: a proof of kind {kind:?} does not allow a resume on the target; only HandedOver does"
    )]
    WrongKind {
        /// The VM.
        vm: VmUid,
        /// Kind given.
        kind: StopProofKind,
    },
    /// Epochs are used up or corrupt.
    #[error(
        "VM {vm}: lastEpoch {last} is below the epoch {seen} of a standing assignment; rebase the fleet before anything starts"
    )]
    EpochsWentBack {
        /// The VM.
        vm: VmUid,
        /// Highest epoch issued, as stored.
        last: Epoch,
        /// Epoch of a standing assignment.
        seen: Epoch,
    },
}

/// First assignment of a VM that has none.
///
/// # Errors
/// When the VM has an assignment or an incoming one.
pub fn first(
    rights: &Rights,
    host: HostName,
    boot_id: BootId,
) -> Result<RightsChange, AssignmentError> {
    check_epochs(rights)?;
    if let Some(standing) = rights.assignment.as_ref().or(rights.incoming.as_ref()) {
        return Err(AssignmentError::AlreadyAssigned {
            vm: rights.vm.clone(),
            host: standing.host.clone(),
        });
    }
    let epoch = rights.last_epoch.next();
    Ok(change(rights, |after| {
        after.assignment = Some(Assignment {
            host,
            boot_id,
            epoch,
        });
        after.last_epoch = epoch;
    }))
}

/// A new start, on the same host or on another one, of a VM whose copies are proven stopped.
///
/// # Errors
/// When a proof is missing or covers another copy.
pub fn restart(
    rights: &Rights,
    stopped: CopiesStopped,
    host: HostName,
    boot_id: BootId,
) -> Result<RightsChange, AssignmentError> {
    let records = consume(rights, stopped)?;
    let epoch = rights.last_epoch.next();
    Ok(change(rights, |after| {
        after.assignment = Some(Assignment {
            host,
            boot_id,
            epoch,
        });
        after.incoming = None;
        after.last_epoch = epoch;
        keep(after, records);
    }))
}

/// Takes the assignment away without a new one: the VM is halted or deleted, or waits for
/// a host.
///
/// # Errors
/// When a proof is missing or covers another copy.
pub fn clear(rights: &Rights, stopped: CopiesStopped) -> Result<RightsChange, AssignmentError> {
    let records = consume(rights, stopped)?;
    Ok(change(rights, |after| {
        after.assignment = None;
        after.incoming = None;
        keep(after, records);
    }))
}

/// Lets a target prepare to receive the VM: `incoming` with a new epoch.
///
/// # Errors
/// When the VM is not assigned, moves already, or would move to where it is.
pub fn begin_migration(
    rights: &Rights,
    host: HostName,
    boot_id: BootId,
) -> Result<RightsChange, AssignmentError> {
    check_epochs(rights)?;
    let current = current(rights)?;
    if let Some(incoming) = &rights.incoming {
        return Err(AssignmentError::AlreadyMoving {
            vm: rights.vm.clone(),
            host: incoming.host.clone(),
        });
    }
    if current.host == host {
        return Err(AssignmentError::SameHost {
            vm: rights.vm.clone(),
            host,
        });
    }
    let epoch = rights.last_epoch.next();
    Ok(change(rights, |after| {
        after.incoming = Some(Assignment {
            host,
            boot_id,
            epoch,
        });
        after.last_epoch = epoch;
    }))
}

/// Moves `incoming` into the assignment, after the source has handed over. Any other
/// proof of the source leads to a cold start: the source may have run on after
/// switch-over, and old memory over newer disks destroys data.
///
/// # Errors
/// When there is no incoming, or the proof is of another kind or copy.
pub fn promote(rights: &Rights, source: StopProof) -> Result<RightsChange, AssignmentError> {
    check_epochs(rights)?;
    let from = current(rights)?;
    let incoming = incoming(rights)?.clone();
    if source.kind() != StopProofKind::HandedOver {
        return Err(AssignmentError::WrongKind {
            vm: rights.vm.clone(),
            kind: source.kind(),
        });
    }
    covers(rights, &source, from)?;
    Ok(change(rights, |after| {
        after.assignment = Some(incoming);
        after.incoming = None;
        keep(after, vec![source.record()]);
    }))
}

/// Moves `incoming` into the assignment when the source is proven stopped by something
/// else than its own report, and the target runs: a target resumes only on the hand-over
/// that it pulled from the source itself, so the source had handed over before it died.
///
/// # Errors
/// When there is no incoming, the target does not run under it, or the proof covers
/// another copy.
pub fn promote_resumed(
    rights: &Rights,
    source: StopProof,
    target: &CopyReport,
) -> Result<RightsChange, AssignmentError> {
    check_epochs(rights)?;
    let from = current(rights)?;
    let incoming = incoming(rights)?.clone();
    if target.assignment != incoming || target.phase != CopyPhase::Running {
        return Err(AssignmentError::WrongKind {
            vm: rights.vm.clone(),
            kind: source.kind(),
        });
    }
    covers(rights, &source, from)?;
    Ok(change(rights, |after| {
        after.assignment = Some(incoming);
        after.incoming = None;
        keep(after, vec![source.record()]);
    }))
}

/// Removes `incoming` after a failed or cancelled move; its epoch stays burned. The VM
/// stays assigned to the source.
///
/// # Errors
/// When there is no incoming, or the proof covers another copy.
pub fn drop_incoming(rights: &Rights, target: StopProof) -> Result<RightsChange, AssignmentError> {
    check_epochs(rights)?;
    let incoming = incoming(rights)?;
    covers(rights, &target, incoming)?;
    Ok(change(rights, |after| {
        after.incoming = None;
        keep(after, vec![target.record()]);
    }))
}

/// The rights after a restored etcd: the copy that runs, if one does, and the one that arrived
/// beside it. Where none runs, what stands stays, for the ordinary proofs. No proof of the
/// replaced copies is needed: every host was heard or is off, and agents close every other
/// epoch before they act again.
pub fn adopt(
    rights: &Rights,
    running: Option<Assignment>,
    arrived: Option<Assignment>,
    floor: Epoch,
    _every: &EveryHostHeard,
) -> RightsChange {
    change(rights, |after| {
        if running.is_some() {
            (after.assignment, after.incoming) = (running, arrived);
        }
        after.last_epoch = after.last_epoch.max(floor);
    })
}

fn change(rights: &Rights, edit: impl FnOnce(&mut Rights)) -> RightsChange {
    let mut after = rights.clone();
    edit(&mut after);
    RightsChange {
        before: rights.clone(),
        after,
    }
}

fn keep(after: &mut Rights, records: Vec<StopProofRecord>) {
    after.proofs.extend(records);
    let surplus = after.proofs.len().saturating_sub(PROOFS_KEPT);
    after.proofs.drain(..surplus);
}

fn current(rights: &Rights) -> Result<&Assignment, AssignmentError> {
    rights
        .assignment
        .as_ref()
        .ok_or_else(|| AssignmentError::NotAssigned {
            vm: rights.vm.clone(),
        })
}

fn incoming(rights: &Rights) -> Result<&Assignment, AssignmentError> {
    rights
        .incoming
        .as_ref()
        .ok_or_else(|| AssignmentError::NotMoving {
            vm: rights.vm.clone(),
        })
}

/// A restored etcd may hold a counter below what was issued: then nothing is issued.
fn check_epochs(rights: &Rights) -> Result<(), AssignmentError> {
    for standing in rights.assignment.iter().chain(&rights.incoming) {
        if standing.epoch > rights.last_epoch {
            return Err(AssignmentError::EpochsWentBack {
                vm: rights.vm.clone(),
                last: rights.last_epoch,
                seen: standing.epoch,
            });
        }
    }
    Ok(())
}

fn covers(rights: &Rights, proof: &StopProof, needed: &Assignment) -> Result<(), AssignmentError> {
    if proof.vm() != &rights.vm || proof.assignment() != needed {
        return Err(AssignmentError::WrongProof {
            vm: rights.vm.clone(),
            proven: proof.assignment().epoch,
            needed: needed.epoch,
        });
    }
    Ok(())
}

fn consume(
    rights: &Rights,
    stopped: CopiesStopped,
) -> Result<Vec<StopProofRecord>, AssignmentError> {
    check_epochs(rights)?;
    covers(rights, &stopped.current, current(rights)?)?;
    let mut records = vec![stopped.current.record()];
    match (&rights.incoming, stopped.incoming) {
        (None, None) => {}
        (Some(needed), Some(proof)) => {
            covers(rights, &proof, needed)?;
            records.push(proof.record());
        }
        (Some(needed), None) => {
            return Err(AssignmentError::IncomingUnproven {
                vm: rights.vm.clone(),
                host: needed.host.clone(),
                epoch: needed.epoch,
            });
        }
        (None, Some(proof)) => {
            return Err(AssignmentError::WrongProof {
                vm: rights.vm.clone(),
                proven: proof.assignment().epoch,
                needed: Epoch(0),
            });
        }
    }
    Ok(records)
}

#[cfg(test)]
#[path = "assignment_tests.rs"]
mod tests;
