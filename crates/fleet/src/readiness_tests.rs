//! What keeps a VM where it is, phase by phase.

use serde_json::{Value, json};

use super::*;

fn vm(phase: Value) -> VirtualMachine {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "oa"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
        "status": {"phase": phase, "message": "says why", "assignment": {"host": "h", "bootId": "b", "epoch": 1}}
    }))
    .expect("a VM")
}

fn migration(labels: Value, phase: &str) -> Arc<VirtualMachineMigration> {
    let migration = serde_json::from_value(json!({
        "metadata": {"name": "m", "namespace": "oa", "labels": labels},
        "spec": {"virtualMachine": "web-1", "targetHost": "h2"},
        "status": {"phase": phase, "message": "no host fits"}
    }));
    Arc::new(migration.expect("a migration"))
}

#[test]
fn every_phase_says_whether_the_vm_moves_is_waited_for_or_stands() {
    let objects = Objects::default();
    let none = Others::of(&objects, &[]);
    let kind = |phase: Value| match none.readiness(&vm(phase)) {
        Readiness::Movable => "movable",
        Readiness::Idle => "idle",
        Readiness::Fixed { why, passes } => {
            assert!(!why.is_empty());
            if passes { "waits" } else { "stands" }
        }
    };
    for (phase, wanted) in [
        ("Running", "movable"),
        ("Stopped", "idle"),
        ("Starting", "waits"),
        ("Migrating", "waits"),
        ("Stopping", "waits"),
        ("Recovering", "waits"),
        ("Pending", "waits"),
        ("Stalled", "stands"),
        ("Unknown", "waits"),
        ("Pinned", "stands"),
        ("Failed", "stands"),
    ] {
        assert_eq!(kind(json!(phase)), wanted, "{phase}");
    }
    assert_eq!(kind(Value::Null), "waits");
    let started = none.readiness(&vm(json!("Starting")));
    let why = "it is being started (says why)".to_owned();
    assert_eq!(started, Readiness::Fixed { why, passes: true });
}

#[test]
fn a_move_that_somebody_asked_for_keeps_the_vm_until_it_is_over() {
    let running = vm(json!("Running"));
    let objects = Objects::default();
    let one = |migration: Arc<VirtualMachineMigration>| {
        Others::of(&objects, &[migration]).readiness(&running)
    };
    let Readiness::Fixed { why, passes } = one(migration(json!({}), "Pending")) else {
        panic!("it is the VM's one move");
    };
    assert!(
        passes && why.contains("move m") && why.contains("no host fits"),
        "{why}"
    );
    assert_eq!(one(migration(json!({}), "Failed")), Readiness::Movable);
    let own = migration(json!({LABEL_EVACUATES: "h"}), "Pending");
    assert_eq!(one(own), Readiness::Movable, "the move of an evacuation");
}

#[test]
fn what_empties_a_host_is_told_who_can_not_move() {
    let mut stalled = vm(json!("Stalled"));
    stalled.metadata.uid = Some("stalled".into());
    let mut idle = vm(json!("Stopped"));
    idle.metadata.uid = Some("idle".into());
    let objects = Objects {
        vms: vec![Arc::new(stalled), Arc::new(idle)],
        ..Objects::default()
    };
    let policy = api::CloudPolicySpec::default();
    let request = objects.evacuation(&policy, Default::default(), &[]);
    assert!(request.fixed[&model::VmUid("stalled".into())].contains("stands still"));
    assert_eq!(request.fixed.len(), 1);
    assert_eq!(request.idle, [model::VmUid("idle".into())].into());
    assert_eq!(request.limits.moves_per_site, 16);
}

#[test]
fn a_volume_that_somebody_else_claims_keeps_the_vm_and_says_who() {
    let claim = |holder: &str, uid: &str| json!({"fleet": "f", "holder": holder, "uid": uid, "host": "h9", "bootId": "b", "epoch": 1});
    let readiness = |status: Value| {
        let mut web = vm(json!("Running"));
        web.metadata.uid = Some("web".into());
        let disk = json!({"name": "data", "volume": "web-1-data"});
        web.spec.disks = vec![serde_json::from_value(disk).expect("a disk")];
        let mut other = vm(json!("Running"));
        (other.metadata.name, other.metadata.uid) = (Some("other".into()), Some("w".into()));
        let volume = json!({"metadata": {"name": "web-1-data", "namespace": "oa"},
            "spec": {"pool": "p", "size": "1Gi"}, "status": status});
        let objects = Objects {
            vms: vec![Arc::new(web.clone()), Arc::new(other)],
            volumes: vec![Arc::new(serde_json::from_value(volume).expect("a volume"))],
            ..Objects::default()
        };
        Others::of(&objects, &[]).readiness(&web)
    };
    let own = claim("VirtualMachine", "web");
    for movable in [
        Value::Null,
        json!({"claim": own}),
        json!({"claim": own, "incomingClaim": own}),
    ] {
        assert_eq!(readiness(movable), Readiness::Movable);
    }
    for (status, holder, waits) in [
        (
            json!({"claim": own, "incomingClaim": claim("VirtualMachine", "w")}),
            "claimed by VM oa/other:",
            false,
        ),
        (
            json!({"claim": claim("VirtualMachine", "gone")}),
            "claimed by VM gone:",
            false,
        ),
        (
            json!({"claim": claim("Job", "web")}),
            "claimed by a job on host h9:",
            true,
        ),
    ] {
        let Readiness::Fixed { why, passes } = readiness(status) else {
            panic!("{holder}");
        };
        let named = why.contains("its volume web-1-data is") && why.contains(holder);
        assert!(named && passes == waits, "{why}");
    }
}

/// Who evens out load moves nobody whose move would wait for what somebody else does.
#[test]
fn load_is_evened_out_by_vms_that_can_move_now() {
    let claimed = json!({"claim": {"fleet": "f", "holder": "Job", "uid": "j", "host": "h9", "bootId": "b", "epoch": 1}});
    let fixed = |migration: Option<(Value, &str)>, claim: &Value, phase: &str| {
        let mut web = vm(json!(phase));
        web.metadata.uid = Some("web".into());
        let disk = json!({"name": "data", "volume": "web-1-data"});
        web.spec.disks = vec![serde_json::from_value(disk).expect("a disk")];
        let volume = json!({"metadata": {"name": "web-1-data", "namespace": "oa"},
            "spec": {"pool": "p", "size": "1Gi"}, "status": claim});
        let objects = Objects {
            vms: vec![Arc::new(web)],
            volumes: vec![Arc::new(serde_json::from_value(volume).expect("a volume"))],
            ..Objects::default()
        };
        let moves = migration.map(|(labels, reason)| {
            let mut open = (*self::migration(labels, "Pending")).clone();
            open.spec.reason = serde_json::from_value(json!(reason)).expect("a reason");
            Arc::new(open)
        });
        let moves: Vec<_> = moves.into_iter().collect();
        !objects.fixed(&moves).is_empty()
    };
    let none = Value::Null;
    assert!(!fixed(None, &none, "Running"));
    assert!(fixed(None, &none, "Stopped"));
    assert!(
        fixed(None, &claimed, "Running"),
        "it would wait for the job"
    );
    assert!(fixed(Some((json!({}), "User")), &none, "Running"));
    let empties = json!({LABEL_EVACUATES: "h"});
    assert!(fixed(Some((empties, "Maintenance")), &none, "Running"));
    let own = Some((json!({}), "Rebalance"));
    assert!(!fixed(own, &none, "Running"), "its place is planned anew");
}
