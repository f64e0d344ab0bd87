//! Each condition is shown to hold and not to hold.

use serde_json::{Value, json};

use super::*;

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn host(state: &str, reason: &str) -> Host {
    object(json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"},
        "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
        "status": {"state": state, "stateReason": reason, "conditions": [
            {"type": "AgentReady", "status": "False", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ]},
    }))
}

fn vm(on: &str, epoch: i64, phase: &str) -> VirtualMachine {
    let right = json!({"host": on, "bootId": "b", "epoch": epoch});
    object(json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": "db", "namespace": "oa"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": ["n"]},
        "status": {"assignment": right, "lastEpoch": epoch, "phase": phase,
            "runtime": {"assignment": right, "phase": "Running", "since": "2026-01-01T00:00:00Z"}},
    }))
}

fn site(host: Host, vm: VirtualMachine) -> Site {
    Site {
        systems: Vec::new(),
        hosts: vec![host],
        host_pools: Vec::new(),
        storage_pools: Vec::new(),
        vms: vec![vm],
        migrations: Vec::new(),
        incidents: Vec::new(),
    }
}

fn before() -> Before {
    let well = site(host("Ready", ""), vm("h1", 1, "Running"));
    Before::of(&well, "h1")
}

#[test]
fn what_happened_to_the_host_is_seen() {
    let now = site(host("Fenced", "needs confirm-dead"), vm("h1", 1, "Unknown"));
    let states = |word: &str| vec![word.to_owned()];
    let fenced = Condition::HostState {
        states: states("Fenced"),
    };
    let not_fenced = Condition::HostStateNot {
        states: states("Fenced"),
    };
    assert!(holds(&fenced, &before(), &now));
    assert!(!holds(&not_fenced, &before(), &now));
    let says = |text: &str| Condition::ReasonSays {
        text: text.to_owned(),
    };
    assert!(holds(&says("confirm-dead"), &before(), &now));
    assert!(!holds(&says("all is well"), &before(), &now));
    let condition = |status: &str| Condition::HostSays {
        name: "AgentReady".to_owned(),
        status: status.to_owned(),
    };
    assert!(holds(&condition("False"), &before(), &now));
    assert!(!holds(&condition("True"), &before(), &now));
    let phase = |phase: &str| Condition::Phase {
        phase: phase.to_owned(),
    };
    assert!(holds(&phase("Unknown"), &before(), &now));
    assert!(!holds(&phase("Running"), &before(), &now));
    assert!(!holds(&Condition::AllWell, &before(), &now));
}

#[test]
fn a_vm_that_stands_where_it_stood_has_not_changed() {
    let same = site(host("Ready", ""), vm("h1", 1, "Running"));
    assert!(holds(&Condition::Unchanged, &before(), &same));
    assert!(holds(&Condition::NothingMoves, &before(), &same));
    assert!(holds(&Condition::AllWell, &before(), &same));
    assert!(holds(&Condition::NoIncident, &before(), &same));
    for gone in [
        Condition::AssignedAnew,
        Condition::StartedAnew,
        Condition::Empty,
    ] {
        assert!(!holds(&gone, &before(), &same), "{gone:?}");
    }
}

#[test]
fn a_vm_that_runs_elsewhere_has_changed() {
    let moved = site(host("Fenced", ""), vm("h2", 2, "Running"));
    for come in [
        Condition::AssignedAnew,
        Condition::StartedAnew,
        Condition::Empty,
    ] {
        assert!(holds(&come, &before(), &moved), "{come:?}");
    }
    assert!(!holds(&Condition::Unchanged, &before(), &moved));
    // The same host at a new epoch is a new start, too.
    let again = site(host("Ready", ""), vm("h1", 2, "Running"));
    assert!(holds(&Condition::StartedAnew, &before(), &again));
    assert!(!holds(&Condition::Unchanged, &before(), &again));
}

#[test]
fn incidents_that_stood_already_do_not_count_whatever_the_clocks_say() {
    let incident = |name: &str, opened_at: &str, state: &str| -> Incident {
        object(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Incident", "metadata": {"name": name},
            "spec": {"cause": "host-silent/h1", "host": "h1", "title": "t", "openedAt": opened_at,
                "causeClass": "Hardware"},
            "status": {"state": state},
        }))
    };
    let silent = Condition::Incident {
        cause: "host-silent/".to_owned(),
    };
    let mut site = site(host("Ready", ""), vm("h1", 1, "Running"));
    // The operator's clock is an hour ahead of this machine's, or behind.
    site.incidents = vec![incident("old", "2126-01-01T00:00:00Z", "Open")];
    let before = Before::of(&site, "h1");
    assert!(holds(&Condition::NoIncident, &before, &site));
    assert!(holds(&Condition::IncidentsClosed, &before, &site));
    assert!(!holds(&silent, &before, &site));
    for opened_at in ["1926-01-01T00:00:00Z", "2126-01-01T00:00:00Z"] {
        site.incidents = vec![
            incident("old", "2126-01-01T00:00:00Z", "Open"),
            incident("new", opened_at, "Open"),
        ];
        assert!(holds(&silent, &before, &site));
        assert!(!holds(&Condition::NoIncident, &before, &site));
        assert!(!holds(&Condition::IncidentsClosed, &before, &site));
    }
}
