//! The operator: what `failover` decides, written by compare-and-swap.

use std::collections::BTreeSet;

use failover::failures::Failures;
use failover::migration::{self, MigrationFacts, MigrationStep};
use failover::proof::storage::{StorageCut, storage_fenced};
use failover::vm::{self, HostSight, VmDecision, VmFacts, Volumes, Wanted};
use failover::{CopiesStopped, Moment, Policy, Reason, RightsChange, assignment};

use super::{Cluster, Effect, Move, Report, State};
use crate::mutation::Mutation;
use crate::words::{self, Rights, Slot, boot_id, host_name, powered_off, rebooted, self_fenced};

impl Report {
    fn to_production(self) -> failover::copy::CopyReport {
        failover::copy::CopyReport::new(self.slot.assignment(), self.phase)
    }
}

impl Cluster {
    /// A host whose present boot is registered, which renews its Lease and is not cut off.
    fn placeable(&self, state: &State, index: u8) -> bool {
        let host = state.hosts[usize::from(index)];
        host.on
            && !host.isolated
            && host.cut.is_none()
            && state.api.registered[usize::from(index)] == host.boot
    }

    fn sight(&self, state: &State, slot: Option<Slot>) -> HostSight {
        let Some(slot) = slot else {
            return HostSight::default();
        };
        let index = usize::from(slot.host);
        let host = state.hosts[index];
        let any_boot = self.lacks(Mutation::ProofForAnyBoot) && state.proofs[index] > 0;
        let read = state.proofs[index] == slot.boot + 1 || any_boot;
        let gone = !host.on || host.isolated;
        let proof = if read {
            powered_off(slot.host, slot.boot)
        } else if host.fired {
            self_fenced(slot.host, slot.boot)
        } else {
            rebooted(slot.host, slot.boot, state.api.registered[index])
        };
        let timed_out = gone && self.lacks(Mutation::TimeOutIsProof);
        HostSight {
            stop_proof: proof.or_else(|| {
                timed_out
                    .then(|| powered_off(slot.host, slot.boot))
                    .flatten()
            }),
            silent: gone,
            lost: gone,
            cuts: Vec::new(),
        }
    }

    /// What the leader writes to the VM now, if it chooses this host.
    pub(super) fn decide_vm(&self, state: &State, target: u8) -> Option<Effect> {
        let inside = self.lacks(Mutation::ControlPlaneInside);
        let vm_runs = |host: &super::Host| host.domain.is_some_and(|domain| domain.runs);
        if inside && !state.hosts.iter().any(vm_runs) {
            return None;
        }
        if !self.leader_acts(state) {
            return None;
        }
        let before = state.api.rights;
        let mut shown = before;
        if self.lacks(Mutation::IncomingNeedsNoProof) {
            shown.incoming = None;
        }
        let rights = shown.to_production();
        let place = || {
            self.placeable(state, target)
                .then(|| boot_id(target, state.hosts[usize::from(target)].boot))
        };
        let change = match self.judge(state, &rights, shown) {
            VmDecision::Place { .. } => assignment::first(&rights, host_name(target), place()?),
            VmDecision::Restart { stopped, .. } => {
                assignment::restart(&rights, stopped, host_name(target), place()?)
            }
            VmDecision::Clear { stopped } if target == 0 => assignment::clear(&rights, stopped),
            VmDecision::Wait => {
                let current = self.cut_off(state, before)?;
                // Its own host too, where that is back: the new epoch makes it close the old one.
                let home = before.assignment.is_some_and(|slot| slot.host == target);
                let stopped = CopiesStopped {
                    current,
                    incoming: None,
                };
                let boot = place().or_else(|| {
                    let host = state.hosts[usize::from(target)];
                    (home && host.on && !host.isolated).then(|| boot_id(target, host.boot))
                })?;
                assignment::restart(&rights, stopped, host_name(target), boot)
            }
            VmDecision::Clear { .. } | VmDecision::Finalize => return None,
        };
        let mut after = Rights::of(change.ok()?.after());
        if self.lacks(Mutation::SameEpochAgain)
            && let Some(slot) = &mut after.assignment
        {
            (slot.epoch, after.last) = (before.last, before.last);
        }
        Some(Effect::Rights(before, after))
    }

    fn judge(&self, state: &State, rights: &failover::Rights, shown: Rights) -> VmDecision {
        let report = state.api.report.map(Report::to_production);
        let incoming_report = state.api.incoming_report.map(Report::to_production);
        let facts = VmFacts {
            rights,
            wanted: if state.api.halt {
                Wanted::Halted
            } else {
                Wanted::Running
            },
            report: report.as_ref(),
            incoming_report: incoming_report.as_ref(),
            host: self.sight(state, shown.assignment),
            incoming_host: self.sight(state, shown.incoming),
            volumes: Volumes::Ready,
            pools: std::collections::BTreeSet::new(),
            pinned_to: None,
            restart_elsewhere: true,
            handed_over_at: None,
            failures: Failures::default(),
        };
        vm::decide(&facts, &Policy::default(), Moment(0)).decision
    }

    /// The proof that storage has cut the assigned copy off.
    fn cut_off(&self, state: &State, rights: Rights) -> Option<failover::StopProof> {
        let slot = rights.assignment.filter(|_| rights.incoming.is_none())?;
        let cut = state.hosts[usize::from(slot.host)].cut;
        let read_back = (cut == Some((slot.boot, slot.epoch))).then(|| {
            let copy = slot.assignment();
            StorageCut::read_back("pool".to_owned(), copy.host, copy.boot_id, true)
        });
        let pools = BTreeSet::from(["pool".to_owned()]);
        storage_fenced(
            &words::vm(),
            &slot.assignment(),
            &pools,
            read_back.as_slice(),
        )
        .ok()
    }

    /// What the leader writes for the move now, if it chooses this host.
    pub(super) fn decide_move(&self, state: &State, target: u8) -> Option<Effect> {
        let moving = state.api.moving;
        if moving.ended.is_some() {
            return None;
        }
        let before = state.api.rights;
        let rights = before.to_production();
        let report = state.api.report.map(Report::to_production);
        let incoming_report = state.api.incoming_report.map(Report::to_production);
        let policy = Policy::default();
        let facts = MigrationFacts {
            rights: &rights,
            wanted_running: !state.api.halt,
            cancel: moving.cancel,
            wanted_target: None,
            other_move: false,
            sides: moving
                .sides
                .map(|(source, target)| (source.assignment(), target.assignment())),
            begun_at: Some(Moment(0)),
            handed_over_at: Some(Moment(0)),
            source: moving.source,
            target: moving.target,
            report: report.as_ref(),
            incoming_report: incoming_report.as_ref(),
            source_host: self.sight(state, before.assignment),
            target_host: self.sight(state, before.incoming),
            pools: BTreeSet::new(),
            abort_requested: moving.abort,
            refuse_requested: moving.refuse,
        };
        let now = Moment(u64::from(moving.late) * (policy.migration_milliseconds + 1));
        let verdict = migration::decide(&facts, &policy, now);
        if let MigrationStep::Begin = verdict.step {
            return self.begin(state, &rights, target);
        }
        // No choice of a host in what follows.
        if target != 0 {
            return None;
        }
        self.carry_out(state, &rights, verdict)
    }

    fn begin(&self, state: &State, rights: &failover::Rights, target: u8) -> Option<Effect> {
        let before = state.api.rights;
        let boot = state.hosts[usize::from(target)].boot;
        if !self.placeable(state, target) {
            return None;
        }
        let change =
            assignment::begin_migration(rights, host_name(target), boot_id(target, boot)).ok()?;
        let after = Rights::of(change.after());
        if self.lacks(Mutation::PrepareBeforeIncoming) {
            let sides = before.assignment.zip(after.incoming);
            return Some(patch(state, |moving| moving.sides = sides));
        }
        Some(Effect::Rights(before, after))
    }

    fn carry_out(
        &self,
        state: &State,
        rights: &failover::Rights,
        verdict: migration::MigrationVerdict,
    ) -> Option<Effect> {
        let before = state.api.rights;
        let write = |change: Result<RightsChange, _>| {
            let change = change.ok()?;
            Some(Effect::Rights(before, Rights::of(change.after())))
        };
        let source_stopped = verdict.reason == Reason::SourceStopped;
        match verdict.step {
            MigrationStep::Record { source, target } => {
                let sides = Some((Slot::of(&source), Slot::of(&target)));
                Some(patch(state, |moving| moving.sides = sides))
            }
            MigrationStep::RequestAbort if self.lacks(Mutation::RefuseFirst) => {
                (!state.api.moving.refuse).then(|| patch(state, |moving| moving.refuse = true))
            }
            MigrationStep::RequestAbort => Some(patch(state, |moving| moving.abort = true)),
            MigrationStep::RequestRefuse
                if source_stopped && self.lacks(Mutation::PromoteOnAnyProof) =>
            {
                let after = Rights {
                    assignment: before.incoming,
                    incoming: None,
                    ..before
                };
                Some(Effect::Rights(before, after))
            }
            MigrationStep::RequestRefuse if source_stopped && self.lacks(Mutation::NeverRefuse) => {
                None
            }
            MigrationStep::RequestRefuse
                if !source_stopped && self.lacks(Mutation::DropUnrefused) =>
            {
                let after = Rights {
                    incoming: None,
                    ..before
                };
                Some(Effect::Rights(before, after))
            }
            MigrationStep::RequestRefuse => Some(patch(state, |moving| moving.refuse = true)),
            MigrationStep::Promote(_) | MigrationStep::PromoteResumed(..)
                if self.lacks(Mutation::NeverPromote) =>
            {
                None
            }
            MigrationStep::Promote(proof) => write(assignment::promote(rights, proof)),
            MigrationStep::PromoteResumed(proof, report) => {
                write(assignment::promote_resumed(rights, proof, &report))
            }
            MigrationStep::DropIncoming(_) if self.lacks(Mutation::NeverDrop) => None,
            MigrationStep::DropIncoming(proof) => write(assignment::drop_incoming(rights, proof)),
            MigrationStep::Finish(outcome) => {
                Some(patch(state, |moving| moving.ended = Some(outcome)))
            }
            MigrationStep::Begin | MigrationStep::Wait => None,
        }
    }

    /// A write; none when what it was computed from has changed.
    pub(super) fn apply(&self, state: &State, effect: Effect) -> Option<State> {
        let blind = self.lacks(Mutation::WriteWithoutCompare);
        let mut next = *state;
        match effect {
            Effect::Rights(before, after) => {
                if state.api.rights != before && !blind {
                    return None;
                }
                next.api.rights = after;
                next.versions.now += u8::from(self.faults.restores > 0);
            }
            Effect::Move(before, after) => {
                if state.api.moving != before && !blind {
                    return None;
                }
                next.api.moving = after;
            }
        }
        (next != *state).then_some(next)
    }

    pub(super) fn pause(&self, state: &State, effect: Effect) -> Option<State> {
        if state.paused.is_some() {
            return None;
        }
        let mut next = *state;
        next.left.pauses = next.left.pauses.checked_sub(1)?;
        next.paused = Some(effect);
        Some(next)
    }

    pub(super) fn wake(&self, state: &State) -> Option<State> {
        let effect = state.paused?;
        let mut next = self.apply(state, effect).unwrap_or(*state);
        next.paused = None;
        Some(next)
    }

    pub(super) fn prove(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let commanded = host.isolated && self.lacks(Mutation::ReturnCodeIsProof);
        // What is proven is the incarnation that the operator knows: the registered one.
        let proven = state.api.registered[usize::from(index)] + 1;
        let known = state.proofs[usize::from(index)] == proven;
        if !self.bmc || (host.on && !commanded) || known {
            return None;
        }
        let mut next = *state;
        next.proofs[usize::from(index)] = proven;
        Some(next)
    }

    /// Forces an isolated host off. (`Mutation::FenceStuckAgent`: any whose agent is stuck.)
    pub(super) fn fence(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let stuck = self.lacks(Mutation::FenceStuckAgent) && host.on && !host.isolated;
        if !self.bmc || !(host.isolated || stuck) {
            return None;
        }
        let mut next = self.goes_dark(*state, index)?;
        next.forced_healthy |= !host.isolated;
        Some(next)
    }

    pub(super) fn cut(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let slot = state.api.rights.assignment?;
        let wanted = Some((slot.boot, slot.epoch));
        if !self.cuts || slot.host != index || !host.isolated || host.cut == wanted {
            return None;
        }
        let mut next = *state;
        next.hosts[usize::from(index)].cut = wanted;
        Some(next)
    }

    /// Lifts a cut when its host has given another proof: a new boot, or the epoch closed.
    pub(super) fn lift(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let (boot, epoch) = host.cut?;
        // The agent is asked to close the epoch, which it may never have seen, and says so once
        // no domain is left.
        let mut ledger = host.ledger;
        let closed = host.boot == boot
            && host.domain.is_none_or(|domain| {
                domain.epoch != epoch
                    && state.api.rights.assignment.map(|slot| slot.epoch) == Some(domain.epoch)
            })
            && ledger.change(|entry| entry.close(i64::from(epoch)));
        let rebooted = state.api.registered[usize::from(index)] > boot;
        let allowed = rebooted || closed || self.lacks(Mutation::LiftCutAtOnce);
        if !host.on || host.isolated || !allowed {
            return None;
        }
        let mut next = *state;
        let me = &mut next.hosts[usize::from(index)];
        me.cut = None;
        if closed {
            me.ledger = ledger;
        }
        Some(next)
    }
}

fn patch(state: &State, edit: impl FnOnce(&mut Move)) -> Effect {
    let before = state.api.moving;
    let mut after = before;
    edit(&mut after);
    Effect::Move(before, after)
}
