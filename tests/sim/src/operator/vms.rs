//! The VMs' loop: `failover::vm` decides, `recovery` orders, `placement` chooses, and
//! `assignment` makes the new rights.

use std::collections::BTreeSet;

use failover::assignment;
use failover::failures::Failures;
use failover::recovery::{Candidate, TierFact, Tiers, slot};
use failover::vm::{HostSight, VmDecision, VmFacts, VmPhase, VmVerdict, Volumes, decide};
use failover::{Moment, RightsChange};
use model::{HostName, NamespacedName, VmUid};

use super::seats::{Turn, ask};
use super::{Work, name};
use crate::api::VmObject;
use crate::mutant::Mutant;
use crate::world::World;

/// Kinds of objects in the memory of writes.
pub(super) const VM: u8 = 0;
pub(super) const MOVE: u8 = 1;
pub(super) const HOST: u8 = 2;
pub(super) const VOLUME: u8 = 3;

impl World {
    /// One turn over all VMs and moves; returns whether anything is not at rest.
    pub(super) fn vm_turn(&mut self, operator: usize) -> bool {
        let now = self.moment(operator);
        let mut verdicts = Vec::new();
        let vms = self.operators[operator].cache.vms.clone();
        let mut trouble = false;
        for (index, vm) in vms.iter().enumerate() {
            trouble |= vm.exists && !matches!(vm.phase, VmPhase::Running | VmPhase::Stopped);
            if vm.exists && self.settled(operator, VM, index, vm.version) {
                let failures = self.count_failures(operator, vm, now);
                let hand_overs = &mut self.operators[operator].hand_overs;
                let handed_over_at = hand_overs.hear(&vm.rights, vm.runtime.as_ref(), None, now);
                let past = (failures, handed_over_at);
                let verdict = self.judge_vm(operator, index, vm, past, now);
                verdicts.push((index, vm.clone(), verdict));
            }
        }
        let candidates = self.candidates(&verdicts);
        let tiers = self.tiers(&vms);
        let turns = self.operators[operator]
            .recovery
            .turns(&candidates, &tiers, now);
        if self.mutant != Mutant::PlansAsListed {
            turns.sort(&mut verdicts, |(_, vm, _)| vm.uid.clone());
        }
        let mut turn = self.begin_turn(operator, &vms, now);
        for (index, vm, verdict) in verdicts {
            if turns.wait.contains_key(&vm.uid) {
                self.reserve(operator, &mut turn, &vm.uid, &verdict);
                self.show(operator, index, &vm, verdict.phase);
                continue;
            }
            self.plan_vm(operator, &mut turn, index, &vm, verdict);
        }
        self.release_orphaned(operator);
        trouble |= self.moves_turn(operator, &mut turn.fleet, now);
        self.remember_seats(operator, &turn);
        trouble
    }

    /// Whether the cache has moved on since an object was last written.
    pub(super) fn settled(&self, operator: usize, kind: u8, index: usize, version: u64) -> bool {
        let written = self.operators[operator].written.get(&(kind, index));
        written.is_none_or(|(from, at)| *from != version || self.now - at >= super::MOVES_ON_WITHIN)
    }

    fn count_failures(&mut self, operator: usize, vm: &VmObject, now: Moment) -> Failures {
        let all = &mut self.operators[operator].failures;
        let failures = all.entry(vm.uid.clone()).or_default();
        if let Some(report) = &vm.runtime {
            failures.note(report, &self.policy, now);
        }
        failures.clone()
    }

    fn judge_vm(
        &self,
        operator: usize,
        index: usize,
        vm: &VmObject,
        (failures, handed_over_at): (Failures, Option<Moment>),
        now: Moment,
    ) -> VmVerdict {
        let sight = |right: &Option<model::Assignment>| {
            right
                .as_ref()
                .map_or_else(HostSight::default, |right| self.sight(operator, right))
        };
        let mut host = sight(&vm.rights.assignment);
        if self.mutant == Mutant::ShowsStale && host.stop_proof.is_none() {
            (host.silent, host.lost) = (false, false);
        }
        decide(
            &VmFacts {
                rights: &vm.rights,
                wanted: vm.wanted,
                report: vm.runtime.as_ref(),
                incoming_report: vm.incoming_runtime.as_ref(),
                host,
                incoming_host: sight(&vm.rights.incoming),
                volumes: Volumes::Ready,
                pools: [crate::hardware::POOL.to_owned()].into(),
                pinned_to: self.pinned(index),
                restart_elsewhere: !self.plan.vms[index].stays,
                handed_over_at,
                failures,
            },
            &self.policy,
            now,
        )
    }

    /// The host whose local pool holds a VM's only data.
    pub(super) fn pinned(&self, vm: usize) -> Option<HostName> {
        let host = self.plan.vms[vm].pinned?;
        self.names.get(host).cloned()
    }

    fn candidates(&self, verdicts: &[(usize, std::rc::Rc<VmObject>, VmVerdict)]) -> Vec<Candidate> {
        let starts = |verdict: &VmVerdict| {
            matches!(
                verdict.decision,
                VmDecision::Place { .. } | VmDecision::Restart { .. }
            )
        };
        verdicts
            .iter()
            .filter(|(_, _, verdict)| starts(verdict))
            .map(|(index, vm, _)| Candidate {
                vm: vm.uid.clone(),
                system: self.plan.vms[*index].tier.map(|_| system()),
                priority: self.plan.vms[*index].priority,
                order: self.plan.vms[*index].tier.unwrap_or(0),
            })
            .collect()
    }

    fn tiers(&self, vms: &[std::rc::Rc<VmObject>]) -> Tiers {
        let mut tiers = Tiers::new();
        for (spec, vm) in self.plan.vms.iter().zip(vms) {
            if let Some(order) = spec.tier {
                let fact = tiers.entry((system(), order)).or_insert(TierFact {
                    answers: None,
                    runs: true,
                    timeout_milliseconds: 20_000,
                });
                fact.runs &= vm.phase == VmPhase::Running;
            }
        }
        tiers
    }

    /// Shows a phase when it changed, and releases the claims of a VM without any right.
    pub(super) fn show(&mut self, operator: usize, index: usize, vm: &VmObject, phase: VmPhase) {
        if vm.phase != phase {
            self.write(operator, Work::Show(index, vm.version, phase));
        }
        if vm.rights.assignment.is_none() && vm.rights.incoming.is_none() {
            self.release_claims(operator, index, vm);
        } else if let Some(work) = self.mend(operator, vm) {
            self.write(operator, work);
        }
    }

    /// The rights are the truth: claims that do not follow them (a leader died between the two, or a
    /// late write won over the one that the claim was made for) are written again, or the VM would wait
    /// for ever.
    pub(super) fn mend(&self, operator: usize, vm: &VmObject) -> Option<Work> {
        let cache = &self.operators[operator].cache;
        let volume = cache.volumes.get(vm.volume)?;
        let moving = cache
            .moves
            .iter()
            .any(|object| object.outcome.is_none() && object.uid == vm.uid.as_str());
        let claims = volume.mended(&vm.rights, moving)?;
        self.settled(operator, VOLUME, vm.volume, volume.version)
            .then(|| Work::Mend(vm.volume, volume.version, claims))
    }

    /// Releases what a VM without rights holds, where the API server itself says that it has none; returns whether
    /// it holds anything by what the API server says.
    fn release_claims(&mut self, operator: usize, index: usize, vm: &VmObject) -> bool {
        let objects = &self.api.objects;
        let volume = &objects.volumes[vm.volume];
        let mut claims = volume.claim.iter().chain(&volume.incoming_claim);
        let held = claims.any(|(uid, _)| *uid == vm.uid);
        let rights = &objects.vms[index].rights;
        let idle = rights.assignment.is_none() && rights.incoming.is_none();
        let version = volume.version;
        if held && idle {
            self.write(operator, Work::Release(vm.volume, version));
        }
        held
    }

    /// Releases claims of VMs that are gone: a claim was on its way when its VM was let go.
    fn release_orphaned(&mut self, operator: usize) {
        let objects = &self.api.objects;
        let stands = |uid: &VmUid| objects.vms.iter().any(|vm| vm.exists && vm.uid == *uid);
        let orphaned = objects.volumes.iter().enumerate().filter(|(_, volume)| {
            let mut claims = volume.claim.iter().chain(&volume.incoming_claim);
            claims.any(|(uid, _)| !stands(uid))
        });
        let orphaned: Vec<_> = orphaned
            .map(|(index, volume)| Work::Release(index, volume.version))
            .collect();
        for work in orphaned {
            self.write(operator, work);
        }
    }

    fn plan_vm(
        &mut self,
        operator: usize,
        turn: &mut Turn,
        index: usize,
        vm: &VmObject,
        verdict: VmVerdict,
    ) {
        let now = turn.now;
        let phase = verdict.phase;
        let (only, avoid, stopped) = match verdict.decision {
            VmDecision::Wait => return self.show(operator, index, vm, phase),
            VmDecision::Finalize => {
                if !self.release_claims(operator, index, vm) {
                    self.write(operator, Work::Finalize(index, vm.version));
                }
                return;
            }
            VmDecision::Clear { stopped } => {
                if let Ok(change) = assignment::clear(&vm.rights, stopped) {
                    let after = Box::new(change.after().clone());
                    self.write(
                        operator,
                        Work::Rights(index, vm.version, after, VmPhase::Stopped),
                    );
                }
                return;
            }
            VmDecision::Place { only } => (only, BTreeSet::new(), None),
            VmDecision::Restart { .. }
                if self.mutant == Mutant::Dawdles && self.now % 120_000 > 3_000 =>
            {
                return self.show(operator, index, vm, phase);
            }
            VmDecision::Restart {
                stopped,
                only,
                avoid,
                ..
            } => (only, avoid, Some(stopped)),
        };
        let fleet = turn.fleet.get_or_insert_with(|| self.fleet(operator, now));
        let choice = match ask(fleet, &vm.uid, only, &avoid) {
            Ok(choice) => choice,
            Err(refusal) => {
                if vm.phase != phase {
                    let text = format!("\"{}\"", refusal.sentence());
                    self.tell_as(
                        name(operator),
                        "noHost",
                        &[("vm", &vm.uid), ("text", &text)],
                    );
                }
                return self.show(operator, index, vm, phase);
            }
        };
        let taken = turn.starting.get(&choice.host).copied().unwrap_or(0);
        if slot(&choice.host, taken, &self.policy).is_err() {
            // It starts next time; until then its room is kept.
            return self.show(operator, index, vm, phase);
        }
        let Ok(boot_id) = self.placeable(operator, &choice.host, now) else {
            return self.show(operator, index, vm, phase);
        };
        let shown = if stopped.is_some() {
            VmPhase::Recovering
        } else {
            VmPhase::Starting
        };
        let change: Result<RightsChange, _> = match stopped {
            Some(stopped) => assignment::restart(&vm.rights, stopped, choice.host.clone(), boot_id),
            None => assignment::first(&vm.rights, choice.host.clone(), boot_id),
        };
        if let Ok(change) = change {
            turn.assign(&vm.uid, choice.host);
            let after = Box::new(change.after().clone());
            let volume = self.operators[operator].cache.volumes[vm.volume].version;
            self.write(
                operator,
                Work::Assign(index, vm.version, after, shown, volume),
            );
        }
    }
}

fn system() -> NamespacedName {
    NamespacedName::new("site", "system")
}
