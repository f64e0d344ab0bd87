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

/// Up to so many that arrive, every choice of them is judged.
const FEW: usize = 8;

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

    /// Everybody who may be on a host when a move begins, each for itself: not all at once, for who arrives may have waited
    /// for another to leave.
    fn residents(&self, name: &HostName, index: usize) -> BTreeSet<&'a VmUid> {
        let states = self.states(name, index);
        states.into_iter().flatten().collect()
    }

    /// Who may be there together: for some of the others that arrive, all that these and the move itself wait for is over.
    /// Every choice of few, else none, each and all of them.
    fn states(&self, name: &HostName, index: usize) -> Vec<BTreeSet<&'a VmUid>> {
        let arriving = self.arriving.get(name).into_iter().flatten().copied();
        let free = arriving
            .filter(|other| *other != index && !self.before[index].contains(other))
            .filter(|other| !self.before[*other].contains(&index));
        let free: Vec<usize> = free.collect();
        let chosen: Vec<Vec<usize>> = if free.len() <= FEW {
            let chosen = |mask: u32| {
                let all = free.iter().enumerate();
                let some = all.filter(|(place, _)| mask & (1 << place) != 0);
                some.map(|(_, other)| *other).collect()
            };
            (0..1 << free.len()).map(chosen).collect()
        } else {
            let each = free.iter().map(|other| vec![*other]);
            each.chain([Vec::new(), free.clone()]).collect()
        };
        let chosen = chosen.into_iter();
        chosen
            .map(|some| self.together(name, index, &some))
            .collect()
    }

    fn together(&self, name: &HostName, index: usize, some: &[usize]) -> BTreeSet<&'a VmUid> {
        let over = some.iter().flat_map(|other| &self.before[*other]);
        let over = over.chain(&self.before[index]).chain(some);
        let over: Vec<&'a Move> = over.map(|other| &self.moves[*other]).collect();
        let left = |uid: &VmUid| {
            let mut over = over.iter();
            over.any(|step| &step.vm == uid && &step.from == name)
        };
        let there = self.there.get(name).into_iter().flatten().copied();
        let there = there.filter(|uid| !left(uid));
        let came = over.iter().filter(|step| &step.to == name);
        let came = came.map(|step| &step.vm);
        let own = &self.moves[index].vm;
        there.chain(came).filter(|uid| *uid != own).collect()
    }

    fn judge(&self, index: usize, step: &Move) -> Vec<PlanFault> {
        let vm = self.fleet.vms.get(&step.vm);
        let host = self.fleet.hosts.get(&step.to);
        let (Some(vm), Some(host)) = (vm, host) else {
            return Vec::new();
        };
        let pool = self.fleet.pools.get(&host.pool);
        let (mut full, mut storage) = (false, false);
        for state in self.states(&step.to, index) {
            let others: Vec<&Vm> = self.machines(state).collect();
            let sum = |size: fn(&Vm) -> u64| {
                let vms = others.iter().copied().chain([vm.as_ref()]);
                vms.map(|vm| u128::from(size(vm))).sum::<u128>()
            };
            full |= overloaded(host, pool, sum(|vm| vm.cpu), sum(|vm| vm.memory_bytes));
            storage |= self.storage_overfull(step, vm, &others);
        }
        let broken = [
            (full, "room"),
            (storage, "storage"),
            (self.meets(index, step, vm), "apart"),
        ];
        let broken = broken.into_iter().filter(|(broken, _)| *broken);
        broken.map(|(_, rule)| PlanFault::Unordered(rule)).collect()
    }

    fn machines(&self, uids: BTreeSet<&'a VmUid>) -> impl Iterator<Item = &'a Vm> {
        let uids = uids.into_iter();
        uids.filter_map(|uid| self.fleet.vms.get(uid).map(AsRef::as_ref))
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
                .flat_map(|name| self.machines(self.residents(name, index)))
                .flat_map(|vm| &vm.rules.apart);
            others.any(|their| {
                (&mine.rule, mine.over) == (&their.rule, their.over)
                    && concerns(mine.side, their.side)
            })
        })
    }
}
