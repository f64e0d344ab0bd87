//! Judges a plan as somebody carries it out who looks at `after` and at no clock: what a move does not wait
//! for may be under way, or over, when it begins.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use super::arrival::Arrival;
use super::plan::{PlanFault, PlanViolation};
use crate::fleet::{Fleet, Vm};
use crate::plan::{Move, Plan};

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

    /// Others that may have come to a host, or be on their way, when a move begins.
    fn free(&self, name: &HostName, index: usize) -> Vec<usize> {
        let arriving = self.arriving.get(name).into_iter().flatten().copied();
        arriving
            .filter(|other| *other != index && !self.before[index].contains(other))
            .filter(|other| !self.before[*other].contains(&index))
            .collect()
    }

    /// Everybody who may be on a host when a move begins, each for itself: not all at once, for who arrives may have waited
    /// for another to leave.
    fn residents(&self, name: &HostName, index: usize) -> BTreeSet<&'a VmUid> {
        let own = &self.moves[index].vm;
        let free = self.free(name, index).into_iter();
        let free = free.map(|other| &self.moves[other].vm);
        let mut all = self.together(name, index, &[]);
        all.extend(free.filter(|uid| *uid != own));
        all
    }

    /// Who may be there together: for some of the others that arrive, all that these and the move itself wait for is over.
    /// Every choice of few, else none, each and all of them.
    fn states(&self, name: &HostName, index: usize) -> Vec<BTreeSet<&'a VmUid>> {
        let free = self.free(name, index);
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
        let arrival = Arrival {
            fleet: self.fleet,
            vm,
            to: &step.to,
        };
        let (mut full, mut storage) = (false, false);
        for state in self.states(&step.to, index) {
            let others: Vec<&Vm> = self.machines(state).collect();
            full |= arrival.overloads(host, &others);
            storage |= arrival.overfills(&others).next().is_some();
        }
        let broken = [
            (full, "room"),
            (storage, "storage"),
            (self.meets(index, &arrival), "apart"),
        ];
        let broken = broken.into_iter().filter(|(broken, _)| *broken);
        broken.map(|(_, rule)| PlanFault::Unordered(rule)).collect()
    }

    fn machines(&self, uids: BTreeSet<&'a VmUid>) -> impl Iterator<Item = &'a Vm> {
        let uids = uids.into_iter();
        uids.filter_map(|uid| self.fleet.vms.get(uid).map(AsRef::as_ref))
    }

    /// A VM that it must be apart from may be on its target, or in the rack.
    fn meets(&self, index: usize, arrival: &Arrival<'_>) -> bool {
        // Without a rule there is nothing to look for on all these hosts.
        if arrival.vm.rules.apart.is_empty() {
            return false;
        }
        let mut near = self.fleet.hosts.keys().filter(|name| arrival.is_near(name));
        near.any(|name| {
            let mut others = self.machines(self.residents(name, index));
            others.any(|other| arrival.meets(other, name))
        })
    }
}
