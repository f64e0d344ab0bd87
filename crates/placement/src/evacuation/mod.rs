//! Empties hosts: who goes where, in which order, when each move ends, and what cannot move.
//!
//! First [`targets`] chooses a target for every VM by the rules of `place`, against an engine
//! in which every chosen move already counts on both hosts: whatever the order in which moves
//! then run, no host is ever overfull. Only where a VM finds no place is one other VM moved out
//! of its way, and then the plan says which move waits for which. Then [`schedule`] orders the
//! moves in time.

mod estimate;
mod exchange;
mod schedule;
mod sharing;
mod targets;

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, Priority, VmUid};

use crate::engine::Engine;
use crate::fleet::{Fleet, Host, Vm};
use crate::plan::{Limits, Plan};

pub(crate) use schedule::timed;
pub(crate) use targets::Step;

/// Part of the time of the balanced choice within which a choice among faster links must end, per cent: hosts
/// are filled less evenly for it.
const SOONER_PERCENT: u64 = 90;

/// How many speeds of links are tried, the fastest first.
const SPEEDS: usize = 3;

/// What to empty, and what is known of the VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvacuationRequest {
    /// Hosts to be emptied. None of them receives anything.
    pub hosts: BTreeSet<HostName>,
    /// What the network and the hosts bear.
    pub limits: Limits,
    /// Bytes per second that a VM writes to its memory; a VM that is not named writes nothing.
    pub dirty_bytes_per_second: BTreeMap<VmUid, u64>,
    /// Who leaves first; a VM that is not named is normal.
    pub priorities: BTreeMap<VmUid, Priority>,
    /// VMs that can not move now, on whatever host, each with the reason in one sentence.
    pub fixed: BTreeMap<VmUid, String>,
    /// VMs that do not run and only keep their seat: there is nothing to move, and they hold nobody up.
    pub idle: BTreeSet<VmUid>,
    /// A VM that writes faster than its copy proceeds is slowed down until it sends at most
    /// this many per cent of its memory.
    pub sent_percent_max: u64,
}

impl Default for EvacuationRequest {
    fn default() -> Self {
        Self {
            hosts: BTreeSet::new(),
            limits: Limits::default(),
            dirty_bytes_per_second: BTreeMap::new(),
            priorities: BTreeMap::new(),
            fixed: BTreeMap::new(),
            idle: BTreeSet::new(),
            sent_percent_max: 300,
        }
    }
}

impl EvacuationRequest {
    fn priority(&self, vm: &VmUid) -> Priority {
        self.priorities.get(vm).copied().unwrap_or_default()
    }

    /// Whether nothing that is known of the VM itself keeps it from moving now.
    fn may_move(&self, uid: &VmUid, vm: &Vm) -> bool {
        vm.incoming.is_none()
            && vm.pinned_to.is_none()
            && !self.fixed.contains_key(uid)
            && !self.idle.contains(uid)
    }
}

/// Plans the evacuation of hosts. Same fleet and request, same plan.
pub fn plan_evacuation(fleet: &Fleet, request: &EvacuationRequest) -> Plan {
    plan_evacuation_on(&Engine::new(fleet.clone()), request)
}

/// The same for a fleet that is indexed already.
///
/// Targets are chosen as `place` would, whatever their links; where links differ, a choice among the hosts with
/// faster links is taken instead when it ends a good deal sooner and nobody need make room for it.
pub fn plan_evacuation_on(engine: &Engine, request: &EvacuationRequest) -> Plan {
    let mut plan = planned(engine, request, &BTreeSet::new());
    for slow in slower_links(engine.fleet(), request) {
        let quick = planned(engine, request, &slow);
        let share = |end_ms: u64, percent: u64| u128::from(end_ms) * u128::from(percent);
        let sooner = share(quick.end_ms, 100) <= share(plan.end_ms, SOONER_PERCENT);
        if sooner && quick.stuck == plan.stuck {
            plan = quick;
        }
    }
    plan
}

/// Hosts with links slower than the fastest, than the second fastest, and so on; none where all are alike.
fn slower_links(fleet: &Fleet, request: &EvacuationRequest) -> Vec<BTreeSet<HostName>> {
    let open =
        |(name, host): &(&HostName, &Host)| host.closed.is_none() && !request.hosts.contains(*name);
    let link = |name: &HostName| request.limits.link(name);
    let targets: Vec<&HostName> = fleet
        .hosts
        .iter()
        .filter(open)
        .map(|(name, _)| name)
        .collect();
    let speeds: BTreeSet<u64> = targets.iter().map(|name| link(name)).collect();
    let slower = |speed: u64| {
        let slow = targets.iter().filter(|name| link(name) < speed);
        slow.map(|name| (*name).clone()).collect()
    };
    speeds
        .into_iter()
        .skip(1)
        .rev()
        .take(SPEEDS)
        .map(slower)
        .collect()
}

/// A plan that uses hosts with slow links only where nothing else is left.
fn planned(engine: &Engine, request: &EvacuationRequest, slow: &BTreeSet<HostName>) -> Plan {
    let chosen = targets::choose(engine, request, slow);
    let mut plan = timed(engine.fleet(), request, chosen.steps);
    plan.stuck = chosen.stuck;
    plan.leaving = chosen.leaving;
    plan.idle = chosen.idle;
    plan
}
