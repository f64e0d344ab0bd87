//! What would happen: the same placement and the same proof as for the real fleet, asked about a
//! fleet that is not there yet. Nothing is a rule of its own here.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::engine::Engine;
use crate::fleet::{Fleet, Host};
use crate::headroom::HeadroomReport;
use crate::place::{Choice, Refusal};

/// What becomes of the VMs of a host that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDown {
    /// VMs that start elsewhere, in the order in which they choose, with where or why nowhere.
    pub restarts: Vec<(VmUid, Result<Choice, Refusal>)>,
    /// VMs that wait for the host: their data lies only there.
    pub pinned: Vec<VmUid>,
    /// VMs that wait for the host because their owners want it so.
    pub wait: Vec<VmUid>,
    /// VMs that were shut down inside: their proof that they stopped outlives the host, and they stay as they are.
    pub shut_down: Vec<VmUid>,
    /// The pool's head-room afterwards, without the host.
    pub after: Option<HeadroomReport>,
}

/// The failure of a host; its VMs are given room by their `turns`, the least first, and those that are `idle` and only keep
/// their seat start nowhere. None when there is no such host.
pub fn host_down<Turn: Ord + Clone + Default>(
    fleet: &Fleet,
    host: &HostName,
    turns: &BTreeMap<VmUid, Turn>,
    idle: &BTreeSet<VmUid>,
) -> Option<HostDown> {
    let pool = fleet.hosts.get(host)?.pool.clone();
    let mut engine = Engine::new(fleet.clone());
    if let Some(mut down) = fleet.hosts.get(host).cloned() {
        down.closed = Some("it failed".to_owned());
        (down.stands, down.may_fail) = (false, false);
        engine.upsert_host(host.clone(), down);
    }
    let mut pending = Vec::new();
    let (mut pinned, mut wait, mut shut_down) = (Vec::new(), Vec::new(), Vec::new());
    let here: Vec<VmUid> = engine.on(host).into_iter().cloned().collect();
    for uid in here {
        let Some(vm) = engine.machine(&uid).cloned() else {
            continue;
        };
        if vm.host.as_ref() != Some(host) {
            // It was to arrive there and stays where it is.
            engine.end_move(&uid, false);
        } else if idle.contains(&uid) {
            shut_down.push(uid);
        } else if vm.pinned_to.is_some() {
            pinned.push(uid);
        } else if vm.restarts_elsewhere {
            let turn = turns.get(&uid).cloned().unwrap_or_default();
            engine.unassign(&uid);
            pending.push((turn, uid));
        } else {
            wait.push(uid);
        }
    }
    pending.sort();
    let restarts = engine.place_in_order(pending.into_iter().map(|(_, uid)| uid).collect());
    Some(HostDown {
        restarts,
        pinned,
        wait,
        shut_down,
        after: engine.headroom_report(&pool),
    })
}

/// The fleet with more hosts like one, named after it. None when a name is taken.
pub fn with_hosts(fleet: &Fleet, new: &[(HostName, Host)]) -> Option<Fleet> {
    let mut more = fleet.clone();
    for (name, host) in new {
        if more.hosts.insert(name.clone(), host.clone()).is_some() {
            return None;
        }
    }
    Some(more)
}
