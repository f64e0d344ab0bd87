//! Judges a plan as somebody carries it out who looks at `after` and at no clock: what a move does not wait
//! for may be under way, or over, when it begins.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use super::plan::{PlanFault, PlanViolation};
use super::{concerns, overloaded};
use crate::fleet::{Fleet, Vm};
use crate::plan::{Move, Plan};
use crate::rules::Domain;
use crate::storage::StorageRoom;

/// A plan without its clock.
struct Order<'a> {
    fleet: &'a Fleet,
    moves: &'a [Move],
    /// Who is on a host before the plan begins.
    there: BTreeMap<&'a HostName, BTreeSet<&'a VmUid>>,
    /// Moves by where they go.
    arriving: BTreeMap<&'a HostName, Vec<usize>>,
    /// For each move those that are over before it begins.
    before: Vec<BTreeSet<usize>>,
}

/// What could break if moves began as soon as all that they wait for is over.
pub(super) fn unordered(fleet: &Fleet, plan: &Plan) -> Vec<PlanViolation> {
    let order = Order::of(fleet, &plan.moves);
    let mut violations = Vec::new();
    for (index, step) in plan.moves.iter().enumerate() {
        let faults = order.awaited(step).chain(order.judge(index, step));
        violations.extend(faults.map(|fault| PlanViolation {
            at_ms: step.start_ms,
            vm: step.vm.clone(),
            fault,
        }));
    }
    violations
}

impl<'a> Order<'a> {
    fn of(fleet: &'a Fleet, moves: &'a [Move]) -> Self {
        let mut there: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (uid, vm) in &fleet.vms {
            for name in vm.host.iter().chain(&vm.incoming) {
                there.entry(name).or_default().insert(uid);
            }
        }
        let mut arriving: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut by_vm: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, step) in moves.iter().enumerate() {
            arriving.entry(&step.to).or_default().push(index);
            by_vm.entry(&step.vm).or_default().push(index);
        }
        let before = moves.iter().map(|step| {
            let (mut found, mut open) = (BTreeSet::new(), vec![step]);
            while let Some(step) = open.pop() {
                let awaited = step.after.iter().filter_map(|uid| by_vm.get(uid));
                for index in awaited.flatten() {
                    if found.insert(*index) {
                        open.extend(moves.get(*index));
                    }
                }
            }
            found
        });
        Self {
            before: before.collect(),
            fleet,
            moves,
            there,
            arriving,
        }
    }

    /// Whom it waits for that does not move before it.
    fn awaited<'b>(&'b self, step: &'b Move) -> impl Iterator<Item = PlanFault> + 'b {
        let moves = |uid: &VmUid| {
            let mut others = self.moves.iter();
            others.any(|other| &other.vm == uid && other.end_ms <= step.start_ms)
        };
        let awaited = step.after.iter().filter(move |uid| !moves(uid));
        awaited.map(|uid| PlanFault::Awaits(uid.clone()))
    }

    /// Everybody who may be on a host when a move begins.
    fn residents(&self, name: &HostName, index: usize) -> BTreeSet<&'a VmUid> {
        let (before, own) = (&self.before[index], &self.moves[index].vm);
        let left = |uid: &VmUid| {
            let mut over = before.iter().map(|other| &self.moves[*other]);
            over.any(|other| &other.vm == uid && &other.from == name)
        };
        let there = self.there.get(name).into_iter().flatten().copied();
        let there = there.filter(|uid| !left(uid));
        let arriving = self.arriving.get(name).into_iter().flatten();
        let arriving = arriving.filter(|other| !self.before[**other].contains(&index));
        let arriving = arriving.map(|other| &self.moves[*other].vm);
        there.chain(arriving).filter(|uid| *uid != own).collect()
    }

    fn judge(&self, index: usize, step: &Move) -> Vec<PlanFault> {
        let vm = self.fleet.vms.get(&step.vm);
        let host = self.fleet.hosts.get(&step.to);
        let (Some(vm), Some(host)) = (vm, host) else {
            return Vec::new();
        };
        let others: Vec<&Vm> = self.machines(&step.to, index).collect();
        let sum = |size: fn(&Vm) -> u64| {
            let vms = others.iter().copied().chain([vm.as_ref()]);
            vms.map(|vm| u128::from(size(vm))).sum::<u128>()
        };
        let pool = self.fleet.pools.get(&host.pool);
        let full = overloaded(host, pool, sum(|vm| vm.cpu), sum(|vm| vm.memory_bytes));
        let broken = [
            (full, "room"),
            (self.storage_overfull(step, vm, &others), "storage"),
            (self.meets(index, step, vm), "apart"),
        ];
        let broken = broken.into_iter().filter(|(broken, _)| *broken);
        broken.map(|(_, rule)| PlanFault::Unordered(rule)).collect()
    }

    fn machines(&self, name: &HostName, index: usize) -> impl Iterator<Item = &'a Vm> {
        let residents = self.residents(name, index).into_iter();
        residents.filter_map(|uid| self.fleet.vms.get(uid).map(AsRef::as_ref))
    }

    fn storage_overfull(&self, step: &Move, vm: &Vm, others: &[&Vm]) -> bool {
        vm.new_volumes.iter().any(|(pool, bytes)| {
            let Some(StorageRoom::PerHost(rooms)) = self.fleet.storage.get(pool) else {
                return false;
            };
            let others = others.iter().filter_map(|vm| vm.new_volumes.get(pool));
            let sum: u128 = others.chain([bytes]).map(|bytes| u128::from(*bytes)).sum();
            let room = rooms.get(&step.to);
            room.is_some_and(|room| sum > u128::from(*room))
        })
    }

    /// A VM that it must be apart from may be on its target, or in the rack.
    fn meets(&self, index: usize, step: &Move, vm: &Vm) -> bool {
        vm.rules.apart.iter().any(|mine| {
            let near: Vec<&HostName> = match (mine.over, self.fleet.racks.get(&step.to)) {
                (Domain::Host, _) => vec![&step.to],
                (Domain::Rack, None) => Vec::new(),
                (Domain::Rack, Some(rack)) => {
                    let racks = self.fleet.racks.iter();
                    let same = racks.filter(|(_, other)| *other == rack);
                    same.map(|(name, _)| name).collect()
                }
            };
            let mut others = near
                .into_iter()
                .flat_map(|name| self.machines(name, index).flat_map(|vm| &vm.rules.apart));
            others.any(|their| {
                (&mine.rule, mine.over) == (&their.rule, their.over)
                    && concerns(mine.side, their.side)
            })
        })
    }
}
