//! VMs: asks `failover` what is to be done about each, `placement` where, and writes claims and
//! assignments by compare-and-swap. The only writer of assignments.
//!
//! `judge` gathers the facts of each VM and asks `failover`; `order` tells who starts first; `plan`
//! asks `placement` and turns verdicts into work; `rights` carries the work out, `claims` first.

mod claims;
mod judge;
mod mend;
mod order;
mod plan;
mod rights;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::VirtualMachine;
use failover::failures::Failures;
use failover::hand_over::HandOvers;
use failover::recovery::RecoveryClock;
use failover::vm::VmPhase;
use failover::{Moment, RightsChange};
use fleet::quota::Ledger;
use model::{HostName, VmUid};
use placement::Fleet;
use serde_json::Value;

use crate::evacuation::Evacuations;
use crate::runtime::Context;
use crate::{clock, door, migrations};

pub use claims::{Claimed, claim, claim_of};
use judge::Past;
pub use judge::volumes_of;
pub use mend::claims_patch;
pub use rights::{Seeded, rights_patch, write_seed};
pub use rules::RuleNotes;

/// What the loop remembers between turns.
#[derive(Default)]
pub struct Memory {
    recovery: RecoveryClock,
    failures: BTreeMap<VmUid, Failures>,
    /// Moves under way, by migration uid: when this operator saw them begin.
    pub moves: BTreeMap<String, Moment>,
    /// Since when VMs are handed over.
    pub hand_overs: HandOvers,
    /// Hosts that are being emptied.
    pub evacuations: Evacuations,
    /// Hosts that VMs were assigned to, as long as the cache may not show it.
    assigned: BTreeMap<VmUid, HostName>,
}

impl Memory {
    /// Another operator leads: what it counts and begins is in the API.
    pub fn forget(&mut self) {
        self.failures.clear();
        self.evacuations.forget();
        self.assigned.clear();
    }
}

/// One turn over all VMs and moves.
pub async fn turn(context: &Arc<Context>, memory: &mut Memory) {
    let policy = door::policy(&context.stores.policy());
    let rules = fleet::affinity::read(&context.stores.vms.state());
    context.rules.note(rules);
    let vms = context.stores.vms.state();
    let now = clock::now();
    forget_gone(memory, &vms);
    let (mut verdicts, mut work) = (Vec::new(), Vec::new());
    for vm in vms.iter().filter(|vm| context.writer.settled(vm.as_ref())) {
        let failures = judge::count_failures(memory, vm, &policy, now);
        if let Some(news) = judge::news_of_failures(vm, &failures) {
            // What else is written of it in this turn meets a newer version, and comes with the next.
            work.push(Work::Note(vm.clone(), news));
        }
        let past = Past {
            failures,
            handed_over_at: judge::handed_over_at(memory, vm, now),
        };
        verdicts.push((vm.clone(), judge::judge(context, vm, past, &policy, now)));
    }
    let candidates = order::candidates(&verdicts);
    let tiers = order::tiers(context, &vms, &candidates);
    let turns = memory.recovery.turns(&candidates, &tiers, now);
    turns.sort(&mut verdicts, |(vm, _)| door::uid(vm));
    let older = vms
        .iter()
        .filter(|vm| context.writer.may_be_older(vm.as_ref()));
    let older: BTreeSet<VmUid> = older.map(|vm| door::uid(vm)).collect();
    memory.assigned.retain(|vm, _| older.contains(vm));
    let mut starting = order::starting(&vms, &memory.assigned);
    // Held while it is computed where VMs go, and not while that is written.
    let mut engine = context.planner.own().await;
    let mut fleet = door::fleet(context, &policy);
    keep_seats(&mut fleet, engine.fleet(), &older);
    engine.sync(fleet);
    let ledger = Ledger {
        departments: &context.stores.departments.state(),
        vms: &vms,
        volumes: &context.stores.volumes.state(),
    };
    for (vm, verdict) in verdicts {
        if let Some(reason) = turns.wait.get(&door::uid(&vm)) {
            plan::reserve(&mut engine, &vm, &verdict);
            work.push(Work::Show(vm, verdict.phase, reason.english(), None));
            continue;
        }
        plan::plan(
            (context.as_ref(), ledger),
            &mut engine,
            (&mut starting, &memory.assigned),
            vm,
            verdict,
            &policy,
            &mut work,
        );
    }
    drop(engine);
    for work in &work {
        if let Work::Assign(vm, change, ..) = work
            && let Some(right) = &change.after().assignment
        {
            memory.assigned.insert(door::uid(vm), right.host.clone());
        }
    }
    futures::future::join_all(
        work.into_iter()
            .map(|work| rights::carry_out(context, work)),
    )
    .await;
    mend::turn(context, &vms).await;
    migrations::turn(context, memory, &policy).await;
}

/// VMs that were written and that the cache does not show so yet keep the seats that they were given. A turn begins as soon as
/// anything changes: without them the next VM would be placed as if they were nowhere, or where they are dead, beside one
/// that it must be apart from, or in room that is taken.
fn keep_seats(fleet: &mut Fleet, decided: &Fleet, older: &BTreeSet<VmUid>) {
    for uid in older {
        let Some((cached, decided)) = fleet.vms.get_mut(uid).zip(decided.vms.get(uid)) else {
            continue;
        };
        if decided.host.is_some() {
            cached.host.clone_from(&decided.host);
            cached.incoming.clone_from(&decided.incoming);
        }
    }
}

/// Nothing is remembered of VMs that are gone.
fn forget_gone(memory: &mut Memory, vms: &[Arc<VirtualMachine>]) {
    if memory.failures.len() > vms.len() {
        let known: BTreeSet<VmUid> = vms.iter().map(|vm| door::uid(vm)).collect();
        memory.failures.retain(|uid, _| known.contains(uid));
        memory.hand_overs.keep(&known);
    }
}

/// While the site is frozen nobody knows what runs: every VM is shown so, and nothing is done.
pub async fn show_frozen(context: &Arc<Context>) {
    let verdict = failover::vm::frozen();
    let message = verdict.reasons.iter().map(failover::Reason::english);
    let message = message.collect::<Vec<_>>().join("; ");
    for vm in context.stores.vms.state() {
        if context.writer.settled(vm.as_ref()) {
            rights::show_only(context, &vm, verdict.phase, &message, None).await;
        }
    }
}

/// Something to write about one VM.
enum Work {
    /// A phase, message and, where one was decided, the placement's report.
    Show(Arc<VirtualMachine>, VmPhase, String, Option<Value>),
    /// Something that is kept of it for whoever leads next.
    Note(Arc<VirtualMachine>, Value),
    /// New rights, with volumes to claim first, and what else of the status goes with them.
    Assign(
        Arc<VirtualMachine>,
        Box<RightsChange>,
        VmPhase,
        String,
        Value,
    ),
    /// Rights taken away.
    Clear(Arc<VirtualMachine>, Box<RightsChange>),
    /// Claims released, finalizer removed.
    Finalize(Arc<VirtualMachine>),
}

#[cfg(test)]
mod tests {
    use api::CloudPolicySpec;
    use api::names::FINALIZER;
    use axum::http::Method;
    use model::HostName;
    use serde_json::json;

    use super::*;
    use crate::context_in_memory::{Site, host, typed};
    use crate::fleet_in_memory;

    /// Their hosts died one after the other: the cache still shows the first where it is dead.
    #[test]
    fn who_was_restarted_elsewhere_has_the_new_seat_and_not_the_dead_one() {
        let fleet = |host: &str, incoming: Option<&str>| {
            let mut vm = fleet_in_memory::vm("web-0", host, 1, 1 << 30);
            vm.incoming = incoming.map(HostName::from);
            let mut fleet = Fleet::default();
            fleet.vms.insert("web-0".into(), Box::new(vm));
            fleet
        };
        let older = BTreeSet::from([VmUid::from("web-0")]);
        let mut cached = fleet("dead", Some("dead too"));
        keep_seats(&mut cached, &fleet("h3", None), &older);
        assert_eq!(cached, fleet("h3", None));
        let mut refused = Fleet::default();
        let mut nowhere = fleet("x", None)
            .vms
            .remove(&VmUid::from("web-0"))
            .expect("a VM");
        nowhere.host = None;
        refused.vms.insert("web-0".into(), nowhere);
        let mut cached = fleet("dead", None);
        keep_seats(&mut cached, &refused, &older);
        assert_eq!(cached, fleet("dead", None), "none was found");
        keep_seats(&mut cached, &fleet("h3", None), &BTreeSet::new());
        assert_eq!(cached, fleet("dead", None), "the cache is as new");
    }

    /// It is planned anew, and takes no slot from itself.
    #[tokio::test]
    async fn an_assignment_that_may_have_arrived_is_tried_again_where_one_vm_starts_at_once() {
        let web: Arc<VirtualMachine> = typed(json!({
            "metadata": {"name": "web", "namespace": "oa", "uid": "web", "resourceVersion": "1",
                "finalizers": [FINALIZER]},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "networks": [], "disks": []}}));
        let image = typed(
            json!({"metadata": {"name": "i"}, "spec": {"architecture": "x86_64",
            "minimumSize": "1Gi", "disk": {"url": "http://images/i", "sha256": "0"}}}),
        );
        let objects = fleet::Objects {
            hosts: ["h1", "h2"]
                .map(|name| host(name, Value::Null, Value::Null))
                .into(),
            vms: vec![web],
            images: vec![image],
            ..fleet::Objects::default()
        };
        let mut policy = CloudPolicySpec::default();
        policy.recovery.starts_per_host = 1;
        let mut site = Site::of(policy, objects, vec![]).await;
        let status = "/virtualmachines/web/status";
        site.refuse(&Method::PATCH, status, (504, "Timeout"));
        let mut memory = Memory::default();
        for tries in 1..=3 {
            super::turn(&site.context, &mut memory).await;
            let written = site.written(&Method::PATCH, status);
            let assigned = written
                .iter()
                .filter(|write| write["status"]["assignment"].is_object());
            assert_eq!(assigned.count(), tries, "{written:?}");
        }
    }

    /// Two replicas that must be apart: the API server takes both assignments, and the watch shows none of them yet.
    #[tokio::test]
    async fn who_was_given_a_host_keeps_its_seat_until_the_cache_shows_it() {
        let replica = |name: &str| -> Arc<VirtualMachine> {
            typed(json!({
                "metadata": {"name": name, "namespace": "oa", "uid": name, "resourceVersion": "1",
                    "labels": {"zhengyun.io/system": "oa", "zhengyun.io/tier": "web"},
                    "finalizers": [FINALIZER]},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "networks": [], "disks": [],
                    "spread": {"over": "Host", "required": true}}}))
        };
        let image = typed(
            json!({"metadata": {"name": "i"}, "spec": {"architecture": "x86_64",
            "minimumSize": "1Gi", "disk": {"url": "http://images/i", "sha256": "0"}}}),
        );
        let objects = fleet::Objects {
            hosts: ["h1", "h2", "h3"]
                .map(|name| host(name, Value::Null, Value::Null))
                .into(),
            vms: ["web-0", "web-1"].map(replica).into(),
            images: vec![image],
            ..fleet::Objects::default()
        };
        let site = Site::of(CloudPolicySpec::default(), objects, vec![]).await;
        let mut memory = Memory::default();
        let mut seats = Vec::new();
        for _ in 0..2 {
            super::turn(&site.context, &mut memory).await;
            let engine = site.context.planner.own().await;
            let vms = engine.fleet().vms.values();
            let hosts: Vec<Option<HostName>> = vms.map(|vm| vm.host.clone()).collect();
            seats.push(hosts);
        }
        for vm in ["web-0", "web-1"] {
            let status = format!("/virtualmachines/{vm}/status");
            let written = site.written(&Method::PATCH, &status);
            let assigned = |write: &Value| write["status"]["assignment"].is_object();
            assert!(written.iter().any(assigned), "{vm}: {written:?}");
        }
        let apart = |hosts: &[Option<HostName>]| !hosts.contains(&None) && hosts[0] != hosts[1];
        assert!(apart(&seats[0]), "{seats:?}");
        assert_eq!(seats[0], seats[1]);
    }
}
