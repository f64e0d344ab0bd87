//! The moves' loop: `failover::migration` decides, `placement` chooses targets; hosts that are
//! to be emptied get a move for each of their VMs.

use std::collections::BTreeSet;

use failover::Moment;
use failover::assignment;
use failover::migration::{MigrationFacts, MigrationOutcome, MigrationStep, decide, may_take_up};
use failover::vm::{HostSight, VmPhase};
use model::{Assignment, VmUid};
use placement::{Fleet, place};

use super::vms::{MOVE, VM};
use super::{MoveEdit, Work};
use crate::api::MoveObject;
use crate::mutant::Mutant;
use crate::world::World;

/// Moves that one host sends or receives at once.
const PER_HOST: usize = 2;

impl World {
    /// One turn over all moves; returns whether one is under way.
    pub(super) fn moves_turn(
        &mut self,
        operator: usize,
        fleet: &mut Option<Fleet>,
        now: Moment,
    ) -> bool {
        self.evacuate(operator);
        let moves = self.operators[operator].cache.moves.clone();
        let mut trouble = false;
        // VMs that move, and those of which a move may have begun with a write that is not seen yet.
        let (mut begun, mut unseen) = (BTreeSet::new(), BTreeSet::new());
        for (index, object) in moves.iter().enumerate() {
            if object.outcome.is_none() && object.sides.is_some() {
                begun.insert(object.uid.clone());
            }
            if object.outcome.is_none() && !self.settled(operator, MOVE, index, object.version) {
                unseen.insert(object.uid.clone());
            }
        }
        for (index, object) in moves.iter().enumerate() {
            if object.outcome.is_some() {
                continue;
            }
            trouble = true;
            let waits = match object.sides {
                None => unseen.contains(&object.uid),
                Some(_) => !self.settled(operator, MOVE, index, object.version),
            };
            let forgets = self.mutant == Mutant::ForgetsMoves && object.sides.is_some();
            let vm = self.operators[operator].cache.vms[object.vm].clone();
            if forgets || waits || !self.settled(operator, VM, object.vm, vm.version) {
                continue;
            }
            if !vm.exists || vm.uid.as_str() != object.uid {
                let finish = MoveEdit::Finish(MigrationOutcome::Failed, "Gone".to_owned());
                self.write(operator, Work::Move(index, object.version, finish));
                continue;
            }
            self.one_move(operator, fleet, (index, object), &mut begun, now);
        }
        trouble
    }

    fn one_move(
        &mut self,
        operator: usize,
        fleet: &mut Option<Fleet>,
        (index, object): (usize, &MoveObject),
        begun: &mut BTreeSet<String>,
        now: Moment,
    ) {
        let vm = self.operators[operator].cache.vms[object.vm].clone();
        let wanted = object.target_host.map(|host| self.names[host].clone());
        let sight = |side: Option<&Assignment>| {
            side.map_or_else(HostSight::default, |side| self.sight(operator, side))
        };
        let (source_host, target_host) = (
            sight(vm.rights.assignment.as_ref()),
            sight(vm.rights.incoming.as_ref()),
        );
        let begun_at = object.sides.is_some().then(|| {
            *self.operators[operator]
                .moves_begun
                .entry(index)
                .or_insert(now)
        });
        let sides = object.sides.as_ref();
        let said = sides.map(|(from, _)| from).zip(object.source);
        let hand_overs = &mut self.operators[operator].hand_overs;
        let handed_over_at = hand_overs.hear(&vm.rights, vm.runtime.as_ref(), said, now);
        let verdict = decide(
            &MigrationFacts {
                rights: &vm.rights,
                wanted_running: vm.wanted.runs(),
                cancel: object.cancel,
                wanted_target: wanted.as_ref(),
                other_move: object.sides.is_none() && begun.contains(&object.uid),
                sides: object.sides.clone(),
                begun_at,
                handed_over_at,
                source: object.source,
                target: object.target,
                report: vm.runtime.as_ref(),
                incoming_report: vm.incoming_runtime.as_ref(),
                source_host,
                target_host,
                pools: [crate::hardware::POOL.to_owned()].into(),
                abort_requested: object.abort_requested,
                refuse_requested: object.refuse_requested,
            },
            &self.policy,
            now,
        );
        let message = verdict.reason.key();
        let edit = |edit| Work::Move(index, object.version, edit);
        let rights = |change: Result<failover::RightsChange, _>| {
            change.ok().map(|change: failover::RightsChange| {
                Work::Swap(object.vm, vm.version, Box::new(change.after().clone()))
            })
        };
        let work = match verdict.step {
            MigrationStep::Wait => {
                (object.message != message).then(|| edit(MoveEdit::Message(message)))
            }
            MigrationStep::Begin => return self.begin_move(operator, fleet, index, object, now),
            MigrationStep::Record { source, target } => {
                begun.insert(object.uid.clone());
                Some(edit(MoveEdit::Record(source, target)))
            }
            MigrationStep::RequestAbort => Some(edit(MoveEdit::Abort(message))),
            MigrationStep::RequestRefuse => Some(edit(MoveEdit::Refuse(message))),
            MigrationStep::Promote(proof) => rights(assignment::promote(&vm.rights, proof)),
            MigrationStep::PromoteResumed(proof, report) => {
                rights(assignment::promote_resumed(&vm.rights, proof, &report))
            }
            MigrationStep::DropIncoming(proof) => {
                rights(assignment::drop_incoming(&vm.rights, proof))
            }
            MigrationStep::Finish(outcome) => {
                self.operators[operator].moves_begun.remove(&index);
                Some(edit(MoveEdit::Finish(outcome, message)))
            }
        };
        if let Some(work) = work {
            self.write(operator, work);
        }
    }

    /// A move of this VM that has begun, or that may go there and so takes `incoming` up.
    pub(super) fn ends_incoming(
        &self,
        object: &MoveObject,
        vm: &VmUid,
        incoming: &Assignment,
    ) -> bool {
        let wanted = object.target_host.map(|host| &self.names[host]);
        object.outcome.is_none()
            && object.uid == vm.as_str()
            && (object.sides.is_some() || may_take_up(wanted, incoming))
    }

    fn load(&self, operator: usize, host: &model::HostName) -> usize {
        let cache = &self.operators[operator].cache;
        let of = |object: &&std::rc::Rc<MoveObject>| {
            object.outcome.is_none()
                && object
                    .sides
                    .iter()
                    .any(|(from, to)| from.host == *host || to.host == *host)
        };
        cache.moves.iter().filter(of).count()
    }

    fn begin_move(
        &mut self,
        operator: usize,
        fleet: &mut Option<Fleet>,
        index: usize,
        object: &MoveObject,
        now: Moment,
    ) {
        let vm = self.operators[operator].cache.vms[object.vm].clone();
        let Some(source) = vm.rights.assignment.clone() else {
            return;
        };
        let say = |world: &mut World, text: String| {
            if object.message != text {
                let edit = MoveEdit::Message(text);
                world.write(operator, Work::Move(index, object.version, edit));
            }
        };
        if self.load(operator, &source.host) >= PER_HOST {
            return say(self, "waits for its turn".to_owned());
        }
        let fleet = fleet.get_or_insert_with(|| self.fleet(operator, now));
        let mut open = fleet.clone();
        for (host, fleet_host) in &mut open.hosts {
            let named = object.target_host.and_then(|wanted| self.names.get(wanted));
            if *host == source.host {
                fleet_host.closed = Some("it runs there".to_owned());
            } else if named.is_some_and(|named| named != host) {
                fleet_host.closed = Some("not the host that the move names".to_owned());
            } else if self.load(operator, host) >= PER_HOST {
                fleet_host.closed = Some("receives enough already".to_owned());
            }
        }
        if let Some(fleet_vm) = open.vms.get_mut(&vm.uid) {
            fleet_vm.incoming = None;
        }
        let choice = match place(&open, &vm.uid, &BTreeSet::new()) {
            Ok(choice) => choice,
            Err(refusal) => return say(self, refusal.sentence()),
        };
        let Ok(boot_id) = self.placeable(operator, &choice.host, now) else {
            return;
        };
        if let Ok(change) = assignment::begin_migration(&vm.rights, choice.host.clone(), boot_id) {
            if let Some(fleet_vm) = fleet.vms.get_mut(&vm.uid) {
                fleet_vm.incoming = Some(choice.host);
            }
            let after = Box::new(change.after().clone());
            let volume = self.operators[operator].cache.volumes[vm.volume].version;
            let versions = (object.version, vm.version, volume);
            self.write(operator, Work::Begin(index, object.vm, versions, after));
        }
    }

    /// Hosts to be emptied: a move for each running VM that has none; orphans of ended moves.
    fn evacuate(&mut self, operator: usize) {
        let cache = &self.operators[operator].cache;
        let mut wanted = Vec::new();
        // An `incoming` whose move has ended, or is gone: a cancelled move takes it back.
        for (vm, machine) in cache.vms.iter().enumerate() {
            let Some(incoming) = &machine.rights.incoming else {
                continue;
            };
            let ends = |object: &std::rc::Rc<MoveObject>| {
                self.ends_incoming(object, &machine.uid, incoming)
            };
            if !cache.moves.iter().any(ends) {
                wanted.push((vm, machine.uid.clone(), true));
            }
        }
        for (host, object) in cache.hosts.iter().enumerate() {
            if !object.drain && object.faults == 0 {
                continue;
            }
            for (vm, machine) in cache.vms.iter().enumerate() {
                let here = machine
                    .rights
                    .assignment
                    .as_ref()
                    .is_some_and(|right| right.host == self.names[host]);
                let moving = cache
                    .moves
                    .iter()
                    .any(|object| object.outcome.is_none() && object.uid == machine.uid.as_str());
                let runs = machine.exists && machine.phase == VmPhase::Running;
                if here && runs && !moving && self.plan.vms[vm].pinned.is_none() {
                    wanted.push((vm, machine.uid.clone(), false));
                }
            }
        }
        for (vm, uid, cancel) in wanted {
            self.write(operator, Work::CreateMove(vm, uid, cancel));
        }
    }
}
