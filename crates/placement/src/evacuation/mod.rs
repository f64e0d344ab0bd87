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
use crate::fleet::{Fleet, Vm};
use crate::plan::{Limits, Plan};

pub(crate) use schedule::timed;
pub(crate) use targets::Step;

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
pub fn plan_evacuation_on(engine: &Engine, request: &EvacuationRequest) -> Plan {
    let chosen = targets::choose(engine, request);
    let mut plan = timed(engine.fleet(), request, chosen.steps);
    plan.stuck = chosen.stuck;
    plan.leaving = chosen.leaving;
    plan.idle = chosen.idle;
    plan
}
