//! Plays a plan on a copy of the fleet, second by second, and judges every state on the way.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use super::arrival::Arrival;
use super::misplaced;
use super::order::unordered;
use crate::fleet::{Fleet, Vm};
use crate::plan::{Limits, Move, Plan};

/// What is wrong with a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanFault {
    /// The VM is not where the move begins, or is moving already.
    NotThere,
    /// The plan itself says that this VM stays, moves already or has nothing to move.
    Stays,
    /// The target is not of the fleet, or nothing new may be placed there.
    Closed,
    /// A rule forbids the VM on the target.
    Forbidden(&'static str),
    /// A VM that must be apart is on the target at that time.
    Together(VmUid),
    /// In the end it is not where VMs are that must share its host.
    Separated,
    /// The target has too little room at that time.
    Overloaded,
    /// A storage pool has too little room on the target for volumes that are not made yet.
    StorageOverfull(String),
    /// More moves at once on this host than allowed.
    HostLimit(HostName),
    /// More moves at once than allowed.
    SiteLimit,
    /// The move ends sooner than its memory can cross the links and what else it takes is done, or before it starts.
    TooFast,
    /// It waits for a VM that does not move before it.
    Awaits(VmUid),
    /// It does not wait for all that must be over: whoever heeds no clock could break a rule about room, about
    /// storage or about VMs that must be apart.
    Unordered(&'static str),
    /// Together the moves carry more over this host's link than it can by the plan's end.
    LinkOverfull(HostName),
}

/// A step of a plan that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanViolation {
    /// When, milliseconds from the start of the plan.
    pub at_ms: u64,
    /// Which VM's move.
    pub vm: VmUid,
    /// What is wrong.
    pub fault: PlanFault,
}

/// The hosts while the plan runs.
struct Board<'a> {
    fleet: &'a Fleet,
    on: BTreeMap<&'a HostName, BTreeSet<&'a VmUid>>,
    at: BTreeMap<&'a VmUid, &'a HostName>,
    moving: BTreeMap<&'a VmUid, &'a Move>,
}

/// Judges every step of a plan against the fleet it starts from. What was wrong before the
/// plan began is held against it only where it makes it worse: on hosts that receive VMs.
pub fn lint_plan(fleet: &Fleet, limits: &Limits, plan: &Plan) -> Vec<PlanViolation> {
    let mut board = Board {
        fleet,
        on: BTreeMap::new(),
        at: BTreeMap::new(),
        moving: BTreeMap::new(),
    };
    for (uid, vm) in &fleet.vms {
        for name in vm.host.iter().chain(&vm.incoming) {
            board.on.entry(name).or_default().insert(uid);
        }
        if let (Some(host), None) = (&vm.host, &vm.incoming) {
            board.at.insert(uid, host);
        }
    }
    // At one moment, ends come before starts: a move may use the room another has just left.
    let mut events: Vec<(u64, bool, &Move)> = plan
        .moves
        .iter()
        .flat_map(|step| [(step.start_ms, true, step), (step.end_ms, false, step)])
        .collect();
    events.sort_by_key(|(at_ms, start, _)| (*at_ms, *start));
    let mut violations = contradicted(plan);
    for (at_ms, start, step) in events {
        let faults = if start {
            board.begin(limits, step)
        } else {
            board.end(step)
        };
        violations.extend(faults.into_iter().map(|fault| PlanViolation {
            at_ms,
            vm: step.vm.clone(),
            fault,
        }));
    }
    violations.extend(board.parted(plan));
    violations.extend(overfull(limits, plan));
    violations.extend(unordered(fleet, plan));
    violations
}

/// Moves of VMs of which the plan says otherwise.
fn contradicted(plan: &Plan) -> Vec<PlanViolation> {
    let stuck = plan.stuck.iter().map(|stuck| &stuck.vm);
    let others = plan.leaving.iter().chain(&plan.idle);
    let stay: BTreeSet<&VmUid> = stuck.chain(others).collect();
    let moves = plan.moves.iter().filter(|step| stay.contains(&step.vm));
    moves
        .map(|step| PlanViolation {
            at_ms: step.start_ms,
            vm: step.vm.clone(),
            fault: PlanFault::Stays,
        })
        .collect()
}

impl<'a> Board<'a> {
    fn end(&mut self, step: &'a Move) -> Vec<PlanFault> {
        if self.moving.remove(&step.vm).is_none() {
            return vec![PlanFault::TooFast];
        }
        if let Some(there) = self.on.get_mut(&step.from) {
            there.remove(&step.vm);
        }
        self.at.insert(&step.vm, &step.to);
        Vec::new()
    }

    fn begin(&mut self, limits: &Limits, step: &'a Move) -> Vec<PlanFault> {
        let here = self.at.get(&step.vm) == Some(&&step.from);
        let vm = self.fleet.vms.get(&step.vm).filter(|_| here);
        let Some(vm) = vm.filter(|_| !self.moving.contains_key(&step.vm)) else {
            return vec![PlanFault::NotThere];
        };
        let target = self.fleet.hosts.get(&step.to);
        let Some(host) = target.filter(|host| host.closed.is_none() && step.to != step.from) else {
            return vec![PlanFault::Closed];
        };
        let pool = self.fleet.pools.get(&host.pool);
        let mut faults: Vec<PlanFault> =
            misplaced(vm, &step.to, host, pool, self.fleet.racks.get(&step.to))
                .into_iter()
                .map(PlanFault::Forbidden)
                .collect();
        let there = self.on.entry(&step.to).or_default();
        let others: Vec<&Vm> = there
            .iter()
            .filter_map(|uid| self.fleet.vms.get(*uid).map(AsRef::as_ref))
            .collect();
        there.insert(&step.vm);
        let arrival = Arrival {
            fleet: self.fleet,
            vm,
            to: &step.to,
        };
        if arrival.overloads(host, &others) {
            faults.push(PlanFault::Overloaded);
        }
        let overfull = arrival.overfills(&others).cloned();
        faults.extend(overfull.map(PlanFault::StorageOverfull));
        faults.extend(self.mate(&arrival, &step.vm).map(PlanFault::Together));
        self.moving.insert(&step.vm, step);
        faults.extend(self.busy(limits, step));
        let links = limits.link(&step.from).min(limits.link(&step.to));
        let slower = links.min(limits.per_move.max(1));
        let milliseconds = u128::from(step.end_ms.saturating_sub(step.start_ms));
        let copying = (milliseconds + 1).saturating_sub(limits.overhead_ms.into());
        // One millisecond is lost where fractions are rounded.
        if copying * u128::from(slower) < u128::from(vm.memory_bytes) * 1_000 {
            faults.push(PlanFault::TooFast);
        }
        faults
    }

    /// VMs that shared a host as they must, and do not when all moves have ended. Who does not run is on none.
    fn parted(&self, plan: &Plan) -> Vec<PlanViolation> {
        let mut groups: BTreeMap<&str, Vec<(&VmUid, &HostName, &HostName)>> = BTreeMap::new();
        for (uid, vm) in &self.fleet.vms {
            if plan.idle.contains(uid) {
                continue;
            }
            let (Some(before), Some(after)) = (&vm.host, self.at.get(uid)) else {
                continue;
            };
            if let Some(group) = &vm.rules.together {
                let members = groups.entry(group.as_str()).or_default();
                members.push((uid, before, *after));
            }
        }
        let mut violations = Vec::new();
        for members in groups.values() {
            let Some(((_, before, after), others)) = members.split_first() else {
                continue;
            };
            let shared = others.iter().all(|(_, host, _)| host == before);
            let parted = others.iter().find(|(_, _, host)| host != after);
            if let (true, Some((uid, _, _))) = (shared, parted) {
                violations.push(PlanViolation {
                    at_ms: plan.end_ms,
                    vm: (*uid).clone(),
                    fault: PlanFault::Separated,
                });
            }
        }
        violations
    }

    /// A VM that must be apart, on the target or in its rack.
    fn mate(&self, arrival: &Arrival<'_>, own: &VmUid) -> Option<VmUid> {
        let near = self.on.iter().filter(|(name, _)| arrival.is_near(name));
        let mut others = near.flat_map(|(name, uids)| uids.iter().map(move |uid| (*name, *uid)));
        let met = others.find(|(name, uid)| {
            let other = self.fleet.vms.get(*uid).filter(|_| *uid != own);
            other.is_some_and(|other| arrival.meets(other, name))
        });
        met.map(|(_, uid)| uid.clone())
    }

    fn busy(&self, limits: &Limits, step: &Move) -> Vec<PlanFault> {
        let mut faults = Vec::new();
        for name in [&step.from, &step.to] {
            let here = |other: &&&Move| other.from == *name || other.to == *name;
            if self.moving.values().filter(here).count() > limits.moves_per_host.max(1) as usize {
                faults.push(PlanFault::HostLimit(name.clone()));
            }
        }
        if self.moving.len() > limits.moves_per_site.max(1) as usize {
            faults.push(PlanFault::SiteLimit);
        }
        faults
    }
}

/// Links that would have to carry more than they can, out and in counted apart.
fn overfull(limits: &Limits, plan: &Plan) -> Vec<PlanViolation> {
    let mut bytes: BTreeMap<(bool, &HostName), (u128, &VmUid)> = BTreeMap::new();
    for step in &plan.moves {
        for link in [(false, &step.from), (true, &step.to)] {
            let sum = bytes.entry(link).or_insert((0, &step.vm));
            sum.0 += u128::from(step.bytes);
        }
    }
    let end = plan.moves.iter().map(|step| step.end_ms).max().unwrap_or(0);
    let able = |name: &HostName| u128::from(limits.link(name)) * (u128::from(end) + 1);
    bytes
        .into_iter()
        .filter(|((_, name), (sum, _))| sum * 1_000 > able(name))
        .map(|((_, name), (_, vm))| PlanViolation {
            at_ms: end,
            vm: vm.clone(),
            fault: PlanFault::LinkOverfull(name.clone()),
        })
        .collect()
}
