//! What is to be done about one VM now: nothing, a first host, a new start, the end.
//!
//! ```text
//!            no assignment ──volumes ready──► Place ──► assigned ──agent──► Running
//!                 ▲                                        │
//!                 │ Clear (halted, deleted)                │ stop proof (Closed, host dead, …)
//!                 └────────────────────────────────────────┴──► Restart (new epoch)
//! ```
//!
//! Happy path: Place, start, run. Failure paths: a copy that closed (crash, failed start)
//! backs off and restarts; a silent host makes the VM Unknown and waits for a proof; a
//! proof makes it restart; while a move is under way everything but a double proof is left
//! to `migration`. This module places nothing and writes nothing.

use std::collections::BTreeSet;

use model::{Assignment, HostName, StopProofKind};
use serde::{Deserialize, Serialize};

use crate::assignment::{CopiesStopped, Rights};
use crate::copy::{CloseCause, CopyPhase, CopyReport};
use crate::failures::Failures;
use crate::policy::Policy;
use crate::proof::storage::{StorageCut, storage_fenced};
use crate::proof::{HostStopProof, StopProof};
use crate::reason::Reason;
use crate::time::Moment;

/// Whether a VM should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Runs; started again whenever it stops.
    Running,
    /// Runs; not started again when it was shut down from inside.
    RunningUntilShutDown,
    /// Shut down, kept.
    Halted,
    /// Being deleted.
    Deleted,
}

impl Wanted {
    /// Whether a copy should exist.
    pub fn runs(self) -> bool {
        matches!(self, Wanted::Running | Wanted::RunningUntilShutDown)
    }
}

/// What the host side knows about the host of an assignment, for that very boot id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSight {
    /// Proof that this incarnation is dead.
    pub stop_proof: Option<HostStopProof>,
    /// It misses renewals: nobody knows what runs there.
    pub silent: bool,
    /// It is silent past the time-out.
    pub lost: bool,
    /// Pools whose servers have cut it off, as they were read back.
    pub cuts: Vec<StorageCut>,
}

/// Whether the volumes of a VM are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Volumes {
    /// All ready.
    Ready,
    /// At least one is not; what is waited for.
    NotReady(String),
}

/// Everything that the decision about one VM rests on.
#[derive(Clone, Debug)]
pub struct VmFacts<'a> {
    /// Who may run it.
    pub rights: &'a Rights,
    /// Whether it should run.
    pub wanted: Wanted,
    /// Report of the assigned host's agent.
    pub report: Option<&'a CopyReport>,
    /// Report of the incoming host's agent.
    pub incoming_report: Option<&'a CopyReport>,
    /// The assigned host.
    pub host: HostSight,
    /// The incoming host.
    pub incoming_host: HostSight,
    /// Its volumes.
    pub volumes: Volumes,
    /// Pools of its volumes; none where a volume is unknown.
    pub pools: BTreeSet<String>,
    /// The host whose local pool holds its only data.
    pub pinned_to: Option<HostName>,
    /// It may be restarted on another host.
    pub restart_elsewhere: bool,
    /// When this operator heard that the assigned copy was handed over; none: nobody has said so.
    pub handed_over_at: Option<Moment>,
    /// Its failures in a row.
    pub failures: Failures,
}

/// State of a VM in one word, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "documented at the API's VirtualMachinePhase, which they equal"
)]
pub enum VmPhase {
    Pending,
    Starting,
    Running,
    Migrating,
    Stopping,
    Stopped,
    Recovering,
    Unknown,
    Pinned,
    Failed,
    Stalled,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum VmDecision {
    /// Nothing; the reasons say what is waited for.
    Wait,
    /// Find a host and make a first assignment (`assignment::first`).
    Place {
        /// The only host that will do.
        only: Option<HostName>,
    },
    /// Find a host and start anew (`assignment::restart`).
    Restart {
        /// Proofs for every copy that may exist.
        stopped: CopiesStopped,
        /// The only host that will do.
        only: Option<HostName>,
        /// Hosts to avoid where others are free: starts failed there.
        avoid: BTreeSet<HostName>,
        /// The start follows a host's failure: exempt from the N+1 refusal.
        recovery: bool,
    },
    /// Take the assignment away (`assignment::clear`).
    Clear {
        /// Proofs for every copy that may exist.
        stopped: CopiesStopped,
    },
    /// Nothing can run any more: release claims and remove the finalizer.
    Finalize,
}

/// A decision with the phase to show and the reasons.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct VmVerdict {
    /// What to do.
    pub decision: VmDecision,
    /// What people see.
    pub phase: VmPhase,
    /// Why; the first is the message.
    pub reasons: Vec<Reason>,
}

fn verdict(decision: VmDecision, phase: VmPhase, reason: Reason) -> VmVerdict {
    VmVerdict {
        decision,
        phase,
        reasons: vec![reason],
    }
}

fn wait(phase: VmPhase, reason: Reason) -> VmVerdict {
    verdict(VmDecision::Wait, phase, reason)
}

/// The verdict about every VM while the site is frozen: nobody knows what runs, nothing is done.
pub fn frozen() -> VmVerdict {
    wait(VmPhase::Unknown, Reason::Frozen)
}

/// Decides about one VM.
pub fn decide(facts: &VmFacts<'_>, policy: &Policy, now: Moment) -> VmVerdict {
    let rights = facts.rights;
    if rights
        .assignment
        .iter()
        .chain(&rights.incoming)
        .any(|standing| standing.epoch > rights.last_epoch)
    {
        return wait(VmPhase::Unknown, Reason::EpochsWentBack);
    }
    match &rights.assignment {
        None => decide_unassigned(facts),
        Some(current) => match proof_of(facts, current, facts.report, &facts.host) {
            None => show_unproven(facts, current),
            Some(proof) => decide_stopped(facts, current, proof, policy, now),
        },
    }
}

/// The best stop proof at hand for one copy. `HandedOver` and `Closed` come first: they
/// say more than a dead host does.
fn proof_of(
    facts: &VmFacts<'_>,
    copy: &Assignment,
    report: Option<&CopyReport>,
    host: &HostSight,
) -> Option<StopProof> {
    let vm = &facts.rights.vm;
    report
        .and_then(|report| {
            StopProof::handed_over(vm, copy, report)
                .or_else(|_| StopProof::closed(vm, copy, report))
                .ok()
        })
        .or_else(|| {
            host.stop_proof
                .as_ref()
                .and_then(|proof| proof.for_copy(vm, copy).ok())
        })
        .or_else(|| storage_fenced(vm, copy, &facts.pools, &host.cuts).ok())
}

fn decide_unassigned(facts: &VmFacts<'_>) -> VmVerdict {
    if let Some(incoming) = &facts.rights.incoming {
        return wait(
            VmPhase::Unknown,
            Reason::IncomingLeft {
                host: incoming.host.clone(),
            },
        );
    }
    match (facts.wanted, &facts.volumes) {
        (Wanted::Deleted, _) => verdict(VmDecision::Finalize, VmPhase::Stopped, Reason::Stopped),
        (Wanted::Halted, _) => wait(VmPhase::Stopped, Reason::Stopped),
        (_, Volumes::NotReady(detail)) => wait(
            VmPhase::Pending,
            Reason::WaitsForVolumes {
                detail: detail.clone(),
            },
        ),
        (_, Volumes::Ready) => verdict(
            VmDecision::Place {
                only: facts.pinned_to.clone(),
            },
            VmPhase::Pending,
            Reason::NeedsHost,
        ),
    }
}

/// The current copy may exist: only show what is known about it.
fn show_unproven(facts: &VmFacts<'_>, current: &Assignment) -> VmVerdict {
    if let Some(shown) = show_silent(&facts.host, current) {
        return shown;
    }
    let report = facts.report.filter(|report| report.assignment == *current);
    match report.map(|report| report.phase) {
        Some(CopyPhase::CloseStuck) => wait(
            VmPhase::Stopping,
            Reason::CloseStuck {
                host: current.host.clone(),
            },
        ),
        _ if !facts.wanted.runs() => wait(VmPhase::Stopping, Reason::Stops),
        Some(CopyPhase::Stopping) => wait(VmPhase::Stopping, Reason::Stops),
        Some(CopyPhase::Stalled) => wait(
            VmPhase::Stalled,
            Reason::Stalled {
                host: current.host.clone(),
            },
        ),
        Some(CopyPhase::Running | CopyPhase::Arrived) if facts.rights.incoming.is_some() => {
            wait(VmPhase::Migrating, Reason::Moves)
        }
        Some(CopyPhase::Running) => wait(VmPhase::Running, Reason::Runs),
        _ => wait(VmPhase::Starting, Reason::Starts),
    }
}

/// A copy on a host that nobody hears: nobody knows whether it runs.
fn show_silent(host: &HostSight, copy: &Assignment) -> Option<VmVerdict> {
    if !(host.silent || host.lost) {
        return None;
    }
    let name = copy.host.clone();
    let mut shown = wait(VmPhase::Unknown, Reason::HostSilent { host: name.clone() });
    if host.lost {
        shown.reasons.push(Reason::WaitsForProof { host: name });
    }
    Some(shown)
}

/// The current copy is proven stopped and the arriving one is not: what is known of that one. The move goes on: it
/// promotes, or makes the target refuse. Until the copy runs the VM is down; only the moment that a hand-over takes is
/// shown as part of its move.
fn show_arriving(
    facts: &VmFacts<'_>,
    incoming: &Assignment,
    source: StopProofKind,
    policy: &Policy,
    now: Moment,
) -> VmVerdict {
    if let Some(shown) = show_silent(&facts.incoming_host, incoming) {
        return shown;
    }
    let host = incoming.host.clone();
    let report = facts
        .incoming_report
        .filter(|report| report.assignment == *incoming);
    let runs = report.is_some_and(|report| report.phase == CopyPhase::Running);
    let since = facts.handed_over_at.map_or(0, |at| now.since(at));
    let late = since >= policy.resume_late_milliseconds;
    match (runs, source) {
        (true, _) => wait(VmPhase::Migrating, Reason::Moves),
        (false, StopProofKind::HandedOver) if !late => wait(VmPhase::Migrating, Reason::Moves),
        _ if !facts.wanted.runs() => wait(VmPhase::Stopping, Reason::Stops),
        (false, StopProofKind::HandedOver) => {
            wait(VmPhase::Recovering, Reason::NotResumed { host })
        }
        (false, _) => wait(VmPhase::Recovering, Reason::IncomingLeft { host }),
    }
}

fn decide_stopped(
    facts: &VmFacts<'_>,
    current: &Assignment,
    proof: StopProof,
    policy: &Policy,
    now: Moment,
) -> VmVerdict {
    let kind = proof.kind();
    let incoming = match &facts.rights.incoming {
        None => None,
        Some(incoming) => {
            match proof_of(facts, incoming, facts.incoming_report, &facts.incoming_host) {
                Some(proof) => Some(proof),
                None => return show_arriving(facts, incoming, kind, policy, now),
            }
        }
    };
    let stopped = CopiesStopped {
        current: proof,
        incoming,
    };
    let cause = facts
        .report
        .filter(|report| report.assignment == *current)
        .and_then(|report| report.cause);
    if !facts.wanted.runs() {
        return verdict(
            VmDecision::Clear { stopped },
            VmPhase::Stopped,
            Reason::Stopped,
        );
    }
    let closed = kind == StopProofKind::Closed;
    if closed
        && facts.wanted == Wanted::RunningUntilShutDown
        && cause == Some(CloseCause::GuestShutdown)
    {
        return wait(VmPhase::Stopped, Reason::ShutDownInside);
    }
    if let Volumes::NotReady(detail) = &facts.volumes {
        return wait(
            VmPhase::Recovering,
            Reason::WaitsForVolumes {
                detail: detail.clone(),
            },
        );
    }
    restart(
        facts,
        current,
        stopped,
        cause.filter(|_| closed),
        policy,
        now,
    )
}

fn restart(
    facts: &VmFacts<'_>,
    current: &Assignment,
    stopped: CopiesStopped,
    cause: Option<CloseCause>,
    policy: &Policy,
    now: Moment,
) -> VmVerdict {
    let kind = stopped.current.kind();
    let failed = cause.is_some_and(CloseCause::is_failure);
    let keeps_failing = facts.failures.in_a_row >= policy.start_attempts;
    if failed && let Some(left) = facts.failures.back_off_left(policy, now) {
        let failures = facts.failures.in_a_row;
        let (phase, reason) = if keeps_failing {
            (VmPhase::Failed, Reason::KeepsFailing { failures })
        } else {
            (
                VmPhase::Starting,
                Reason::BacksOff {
                    left_milliseconds: left,
                    failures,
                },
            )
        };
        return wait(phase, reason);
    }
    let host_died = cause.is_none() && kind != StopProofKind::HandedOver;
    let only = match (&facts.pinned_to, facts.restart_elsewhere) {
        (Some(host), _) => Some(host.clone()),
        (None, false) if host_died => Some(current.host.clone()),
        (None, _) => None,
    };
    // Where this operator does not remember the last failed start, the report tells it.
    let mut avoid = facts.failures.hosts.clone();
    if cause.is_some_and(CloseCause::is_failed_start) {
        avoid.insert(current.host.clone());
    }
    // A pinned VM whose host is not back yet waits in `Place`'s filters, named as such.
    let (phase, first) = match (&facts.pinned_to, &only) {
        (Some(host), _) if facts.host.lost => {
            (VmPhase::Pinned, Reason::PinnedTo { host: host.clone() })
        }
        (None, Some(host)) if facts.host.lost => (
            VmPhase::Recovering,
            Reason::WaitsForItsHost { host: host.clone() },
        ),
        _ => (VmPhase::Recovering, Reason::Restarts { kind }),
    };
    verdict(
        VmDecision::Restart {
            stopped,
            only,
            avoid,
            recovery: host_died,
        },
        phase,
        first,
    )
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;
