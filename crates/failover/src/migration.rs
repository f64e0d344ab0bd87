//! What is to be done about one live migration now.
//!
//! ```text
//! Pending ─target chosen─► Preparing ─Prepared─► Running ─HandedOver─► Completing ─Resumed─► Succeeded
//!    │                        │                     │
//!    └─cancel─► Cancelled     └──── abort: ask the source ───► StillRunning ─► ask the target ─► Refused
//!                                                                             ─► drop incoming ─► Failed | Cancelled
//! ```
//!
//! The source is asked first: before it has said that it runs, or is proven stopped, the
//! target refuses nothing. Both sides proven stopped drops `incoming` and leads to a cold
//! start, which `vm` decides. A failed move never stops a VM. A target that could not let run
//! what was handed over to it is asked to refuse as well, after a bound: the VM is down, and starts
//! from its disks. Choosing targets, limits and writing are the caller's work.

use std::collections::BTreeSet;

use model::{Assignment, HostName, StopProofKind};
use serde::{Deserialize, Serialize};

use crate::assignment::Rights;
use crate::copy::{CopyPhase, CopyReport};
use crate::policy::Policy;
use crate::proof::StopProof;
use crate::proof::storage::storage_fenced;
use crate::reason::Reason;
use crate::time::Moment;
use crate::vm::HostSight;

/// State of the source's side, as its agent reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourcePhase {
    /// Copies memory.
    Migrating,
    /// Handed over: never ran after switch-over and never will.
    HandedOver,
    /// Failed or aborted: the guest runs here.
    StillRunning,
    /// The epoch is closed, the guest is gone here.
    Closed,
}

/// State of the target's side, as its agent reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TargetPhase {
    /// The source may begin.
    Prepared,
    /// The copy is here, was handed over, and could not be let run.
    Arrived,
    /// Resumed on the source's hand-over: the copy has run here.
    Resumed,
    /// Refused: the epoch is closed, the copy destroyed.
    Refused,
}

/// Everything that the decision about one migration rests on. Reports of the two sides
/// are given only when they name the recorded assignments.
#[derive(Clone, Debug)]
pub struct MigrationFacts<'a> {
    /// Who may run the VM.
    pub rights: &'a Rights,
    /// Its user wants a copy to run.
    pub wanted_running: bool,
    /// Someone cancelled the move.
    pub cancel: bool,
    /// The only host that it may go to; none: any.
    pub wanted_target: Option<&'a HostName>,
    /// Another move of the VM has begun and is not over.
    pub other_move: bool,
    /// Source and target as recorded in the migration, once begun.
    pub sides: Option<(Assignment, Assignment)>,
    /// When this operator saw it begin.
    pub begun_at: Option<Moment>,
    /// When this operator heard that the source handed over; none: nobody has said so.
    pub handed_over_at: Option<Moment>,
    /// The source's side.
    pub source: Option<SourcePhase>,
    /// The target's side.
    pub target: Option<TargetPhase>,
    /// The VM's report by the assigned host.
    pub report: Option<&'a CopyReport>,
    /// The VM's report by the incoming host.
    pub incoming_report: Option<&'a CopyReport>,
    /// The source's host.
    pub source_host: HostSight,
    /// The target's host.
    pub target_host: HostSight,
    /// Pools of the VM's volumes; none where a volume is unknown.
    pub pools: BTreeSet<String>,
    /// The source was asked to abort.
    pub abort_requested: bool,
    /// The target was asked to refuse.
    pub refuse_requested: bool,
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MigrationOutcome {
    /// The VM runs on the target.
    Succeeded,
    /// The VM stayed, or was started anew.
    Failed,
    /// Cancelled; the VM stayed, or was started anew.
    Cancelled,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum MigrationStep {
    /// Nothing; the reason says what is waited for.
    Wait,
    /// Choose a target and begin (`assignment::begin_migration`).
    Begin,
    /// Record the sides of an `incoming` that was written before the writer died.
    Record {
        /// The source.
        source: Assignment,
        /// The target.
        target: Assignment,
    },
    /// Ask the source to abort and say whether it runs.
    RequestAbort,
    /// Ask the target to give up its copy.
    RequestRefuse,
    /// Move `incoming` into the assignment (`assignment::promote`).
    Promote(StopProof),
    /// The source died after it had handed over (`assignment::promote_resumed`).
    PromoteResumed(StopProof, CopyReport),
    /// Remove `incoming` (`assignment::drop_incoming`).
    DropIncoming(StopProof),
    /// It is over.
    Finish(MigrationOutcome),
}

/// A step with its reason.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct MigrationVerdict {
    /// What to do.
    pub step: MigrationStep,
    /// Why.
    pub reason: Reason,
}

fn verdict(step: MigrationStep, reason: Reason) -> MigrationVerdict {
    MigrationVerdict { step, reason }
}

/// It is over without a move: cancelled, or failed because of this.
fn without_success(facts: &MigrationFacts<'_>, reason: Reason) -> MigrationVerdict {
    let (outcome, reason) = if facts.cancel {
        (MigrationOutcome::Cancelled, Reason::CancelRequested)
    } else {
        (MigrationOutcome::Failed, reason)
    };
    verdict(MigrationStep::Finish(outcome), reason)
}

/// Decides about one migration.
pub fn decide(facts: &MigrationFacts<'_>, policy: &Policy, now: Moment) -> MigrationVerdict {
    match &facts.sides {
        None => decide_pending(facts),
        Some((source, target)) => decide_begun(facts, source, target, policy, now),
    }
}

/// Whether a move that has not begun may take up an `incoming` that nobody recorded: it has no other target in mind.
pub fn may_take_up(wanted_target: Option<&HostName>, incoming: &Assignment) -> bool {
    wanted_target.is_none_or(|wanted| *wanted == incoming.host)
}

fn decide_pending(facts: &MigrationFacts<'_>) -> MigrationVerdict {
    let Some(current) = &facts.rights.assignment else {
        return without_success(facts, Reason::NotRunning);
    };
    // Where nobody has recorded it, its writer died: the move that it may be takes it up, and no other.
    let own = facts
        .rights
        .incoming
        .as_ref()
        .filter(|incoming| !facts.other_move && may_take_up(facts.wanted_target, incoming));
    if let Some(incoming) = own {
        let step = MigrationStep::Record {
            source: current.clone(),
            target: incoming.clone(),
        };
        return verdict(step, Reason::TargetPrepares);
    }
    if facts.cancel {
        return verdict(
            MigrationStep::Finish(MigrationOutcome::Cancelled),
            Reason::CancelRequested,
        );
    }
    if !facts.wanted_running {
        return verdict(
            MigrationStep::Finish(MigrationOutcome::Failed),
            Reason::NoLongerWanted,
        );
    }
    // One at a time: the other one's end decides where this one begins.
    if facts.other_move || facts.rights.incoming.is_some() {
        return verdict(MigrationStep::Wait, Reason::WaitsForOtherMove);
    }
    if is_unheard(facts) {
        return verdict(
            MigrationStep::Wait,
            Reason::SourceLost {
                host: current.host.clone(),
            },
        );
    }
    let runs = facts
        .report
        .is_some_and(|report| report.assignment == *current && report.phase == CopyPhase::Running);
    if !runs {
        verdict(MigrationStep::Wait, Reason::NotRunning)
    } else if facts.wanted_target == Some(&current.host) {
        let host = current.host.clone();
        let there = MigrationStep::Finish(MigrationOutcome::Succeeded);
        verdict(there, Reason::RunsThere { host })
    } else {
        verdict(MigrationStep::Begin, Reason::NeedsTarget)
    }
}

fn decide_begun(
    facts: &MigrationFacts<'_>,
    source: &Assignment,
    target: &Assignment,
    policy: &Policy,
    now: Moment,
) -> MigrationVerdict {
    if facts.rights.assignment.as_ref() == Some(target) {
        return verdict(
            MigrationStep::Finish(MigrationOutcome::Succeeded),
            Reason::Moved,
        );
    }
    let standing = facts.rights.assignment.as_ref();
    if standing != Some(source) {
        let host = standing.map(|standing| standing.host.clone());
        let reason = host.map_or(Reason::NotRunning, |host| Reason::RestartedElsewhere {
            host,
        });
        return verdict(MigrationStep::Finish(MigrationOutcome::Failed), reason);
    }
    if facts.rights.incoming.as_ref() != Some(target) {
        return taken_back(facts, source);
    }
    match (source_proof(facts, source), target_proof(facts, target)) {
        // What proves the target stopped may stand in the migration alone: without `incoming`
        // the VM's own decision needs the source's proof only, and starts it anew.
        (Some(_), Some(proof)) => verdict(MigrationStep::DropIncoming(proof), Reason::ColdStart),
        (Some(proof), None) => source_stopped(facts, proof, target, policy, now),
        (None, Some(proof)) => target_stopped(facts, proof, source),
        (None, None) => both_alive(facts, source, target, policy, now),
    }
}

/// Nobody knows what runs on the source's host.
fn is_unheard(facts: &MigrationFacts<'_>) -> bool {
    facts.source_host.silent || facts.source_host.lost
}

/// What is known of a copy that stayed on its source and is not proven stopped.
fn runs_on(facts: &MigrationFacts<'_>, source: &Assignment) -> Reason {
    if is_unheard(facts) {
        let host = source.host.clone();
        Reason::HostSilent { host }
    } else {
        Reason::SourceRunsOn
    }
}

/// It is over and the VM is still assigned to its source: what became of it there.
fn taken_back(facts: &MigrationFacts<'_>, source: &Assignment) -> MigrationVerdict {
    let host = source.host.clone();
    let reason = match source_proof(facts, source).map(|proof| proof.kind()) {
        _ if !facts.wanted_running => Reason::NoLongerWanted,
        // Its copy on the target was proven stopped, or `incoming` would stand.
        Some(StopProofKind::HandedOver) => Reason::ColdStart,
        Some(kind) => Reason::SourceProvenStopped { host, kind },
        None if is_unheard(facts) => Reason::HostSilent { host },
        None => return without_success(facts, Reason::SourceRunsOn),
    };
    // A cancel explains none of these.
    let outcome = if facts.cancel {
        MigrationOutcome::Cancelled
    } else {
        MigrationOutcome::Failed
    };
    verdict(MigrationStep::Finish(outcome), reason)
}

/// The source is proven stopped and the target is not.
fn source_stopped(
    facts: &MigrationFacts<'_>,
    proof: StopProof,
    target: &Assignment,
    policy: &Policy,
    now: Moment,
) -> MigrationVerdict {
    let resumed = facts
        .incoming_report
        .filter(|report| report.assignment == *target && report.phase == CopyPhase::Running)
        .cloned()
        .or_else(|| {
            (facts.target == Some(TargetPhase::Resumed))
                .then(|| CopyReport::new(target.clone(), CopyPhase::Running))
        });
    match (proof.kind(), resumed) {
        (StopProofKind::HandedOver, Some(_)) => {
            verdict(MigrationStep::Promote(proof), Reason::Moved)
        }
        (StopProofKind::HandedOver, None) if target_learns(facts) && !facts.refuse_requested => {
            target_resumes(facts, target, policy, now)
        }
        // It resumes only on a hand-over that it pulled from the source, so the source had
        // handed over before it died; to stop the target now would be needless harm.
        (_, Some(report)) => verdict(MigrationStep::PromoteResumed(proof, report), Reason::Moved),
        (_, None) if facts.refuse_requested => {
            verdict(MigrationStep::Wait, Reason::WaitsForRefusal)
        }
        (_, None) => verdict(MigrationStep::RequestRefuse, Reason::SourceStopped),
    }
}

/// The source handed over, and the target does not run yet. One that can not let its copy run tries on until the bound:
/// then, or soon where nobody wants the VM there any more, it is asked to give the copy up. It does so only where the
/// copy never ran, and what follows rests on its answer alone: a copy that runs meanwhile is promoted. A target that
/// can not know of the hand-over yet, as the move does not tell it, would give up what it could let run: it is not asked.
fn target_resumes(
    facts: &MigrationFacts<'_>,
    target: &Assignment,
    policy: &Policy,
    now: Moment,
) -> MigrationVerdict {
    let since = facts.handed_over_at.map_or(0, |at| now.since(at));
    if since < policy.resume_late_milliseconds {
        return verdict(MigrationStep::Wait, Reason::TargetResumes);
    }
    let told = facts.source == Some(SourcePhase::HandedOver);
    let gives_up = if since >= policy.migration_prepare_milliseconds {
        Some(Reason::ResumedTooLate)
    } else if facts.cancel {
        Some(Reason::CancelRequested)
    } else if !facts.wanted_running {
        Some(Reason::NoLongerWanted)
    } else {
        None
    };
    match gives_up {
        Some(reason) if told => verdict(MigrationStep::RequestRefuse, reason),
        _ => {
            let host = target.host.clone();
            verdict(MigrationStep::Wait, Reason::NotResumed { host })
        }
    }
}

/// The target learns of the hand-over from the source's word in the migration, or from the
/// source itself. A source that reported it to the VM's status alone and is lost leaves it
/// waiting for ever, so that the VM has to start from its disks.
fn target_learns(facts: &MigrationFacts<'_>) -> bool {
    let source_lost = facts.source_host.lost || facts.source_host.stop_proof.is_some();
    facts.source == Some(SourcePhase::HandedOver) || !source_lost
}

/// The target is proven stopped and the source is not.
fn target_stopped(
    facts: &MigrationFacts<'_>,
    proof: StopProof,
    source: &Assignment,
) -> MigrationVerdict {
    if facts.source == Some(SourcePhase::StillRunning) {
        let reason = runs_on(facts, source);
        return verdict(MigrationStep::DropIncoming(proof), reason);
    }
    if facts.source_host.lost {
        return verdict(
            MigrationStep::Wait,
            Reason::SourceLost {
                host: source.host.clone(),
            },
        );
    }
    if facts.abort_requested {
        return verdict(MigrationStep::Wait, Reason::WaitsForSource);
    }
    verdict(MigrationStep::RequestAbort, Reason::TargetRefused)
}

/// Neither side is proven stopped.
fn both_alive(
    facts: &MigrationFacts<'_>,
    source: &Assignment,
    target: &Assignment,
    policy: &Policy,
    now: Moment,
) -> MigrationVerdict {
    if facts.source == Some(SourcePhase::StillRunning) {
        return if facts.refuse_requested {
            verdict(MigrationStep::Wait, Reason::WaitsForRefusal)
        } else {
            verdict(MigrationStep::RequestRefuse, runs_on(facts, source))
        };
    }
    if facts.abort_requested {
        return verdict(MigrationStep::Wait, Reason::WaitsForSource);
    }
    if let Some(reason) = reason_to_abort(facts, target, policy, now) {
        return verdict(MigrationStep::RequestAbort, reason);
    }
    if facts.source_host.silent {
        return verdict(
            MigrationStep::Wait,
            Reason::SourceLost {
                host: source.host.clone(),
            },
        );
    }
    let reason = if facts.target.is_none() {
        Reason::TargetPrepares
    } else {
        Reason::MemoryCopied
    };
    verdict(MigrationStep::Wait, reason)
}

fn reason_to_abort(
    facts: &MigrationFacts<'_>,
    target: &Assignment,
    policy: &Policy,
    now: Moment,
) -> Option<Reason> {
    let age = facts.begun_at.map_or(0, |begun| now.since(begun));
    if facts.cancel {
        Some(Reason::CancelRequested)
    } else if !facts.wanted_running {
        Some(Reason::NoLongerWanted)
    } else if facts.target_host.lost {
        Some(Reason::TargetLost {
            host: target.host.clone(),
        })
    } else if facts.target.is_none() && age >= policy.migration_prepare_milliseconds {
        Some(Reason::PreparedTooLate)
    } else if age >= policy.migration_milliseconds {
        Some(Reason::TookTooLong)
    } else {
        None
    }
}

fn source_proof(facts: &MigrationFacts<'_>, source: &Assignment) -> Option<StopProof> {
    let vm = &facts.rights.vm;
    let said = facts.source.and_then(|phase| match phase {
        SourcePhase::HandedOver => Some(CopyReport::new(source.clone(), CopyPhase::HandedOver)),
        SourcePhase::Closed => Some(CopyReport::new(source.clone(), CopyPhase::Closed)),
        SourcePhase::Migrating | SourcePhase::StillRunning => None,
    });
    // HandedOver in either report wins over everything else that is known.
    let reports: Vec<&CopyReport> = said.iter().chain(facts.report).collect();
    let handed = reports
        .iter()
        .find_map(|report| StopProof::handed_over(vm, source, report).ok());
    let closed = || {
        reports
            .iter()
            .find_map(|report| StopProof::closed(vm, source, report).ok())
    };
    handed
        .or_else(closed)
        .or_else(|| host_proof(facts, source, &facts.source_host))
}

/// What the host's side proves: its incarnation is dead, or every pool of the VM has cut it off.
fn host_proof(
    facts: &MigrationFacts<'_>,
    copy: &Assignment,
    host: &HostSight,
) -> Option<StopProof> {
    let vm = &facts.rights.vm;
    host.stop_proof
        .as_ref()
        .and_then(|proof| proof.for_copy(vm, copy).ok())
        .or_else(|| storage_fenced(vm, copy, &facts.pools, &host.cuts).ok())
}

fn target_proof(facts: &MigrationFacts<'_>, target: &Assignment) -> Option<StopProof> {
    let vm = &facts.rights.vm;
    let refused = (facts.target == Some(TargetPhase::Refused))
        .then(|| CopyReport::new(target.clone(), CopyPhase::Closed));
    refused
        .iter()
        .chain(facts.incoming_report)
        .find_map(|report| StopProof::closed(vm, target, report).ok())
        .or_else(|| host_proof(facts, target, &facts.target_host))
}

#[cfg(test)]
#[path = "migration_tests.rs"]
mod tests;
