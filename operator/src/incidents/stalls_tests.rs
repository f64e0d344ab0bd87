//! When a stall of a host's storage explains that a system does not answer.

use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000 + second).expect("a time")
}

fn host(name: &str, pool: &str) -> Arc<Host> {
    let mut host = json!(*crate::context_in_memory::host(
        name,
        Value::Null,
        Value::Null
    ));
    host["status"]["reported"]["storagePools"] =
        json!([{"name": "shared", "state": pool, "capacityBytes": 2, "availableBytes": 1}]);
    Arc::new(serde_json::from_value(host).expect("a Host"))
}

/// A VM that runs since a moment.
fn vm(name: &str, tier: &str, host: &str, started: Timestamp) -> Arc<VirtualMachine> {
    let right = json!({"host": host, "bootId": "b", "epoch": 1});
    let vm = json!({
        "metadata": {"name": name, "namespace": "oa",
                     "labels": {api::names::LABEL_SYSTEM: "oa", api::names::LABEL_TIER: tier}},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
        "status": {"assignment": right,
                   "runtime": {"assignment": right, "phase": "Running", "since": started.to_string(),
                               "startedAt": started.to_string()}}
    });
    Arc::new(serde_json::from_value(vm).expect("a VM"))
}

/// A system of a portal and a database; what is seen of the latter, and since when.
fn system(database: &str, since: Timestamp) -> BusinessSystem {
    let seen = |name: &str, state: &str| json!({"name": name, "state": state, "since": since.to_string(), "replicasUp": 0, "replicas": 1});
    let endpoint =
        |name: &str, tier: &str| json!({"name": name, "tier": tier, "port": 80, "path": "/"});
    serde_json::from_value(json!({
        "metadata": {"name": "oa", "namespace": "oa"},
        "spec": {"displayName": "OA", "tiers": [],
                 "endpoints": [endpoint("portal", "web"), endpoint("database", "db")]},
        "status": {"state": "Down", "endpoints": [seen("portal", "Up"), seen("database", database)]}
    }))
    .expect("a system")
}

#[test]
fn an_outage_is_felt_of_a_stall_where_a_replica_is_and_when_it_began_then() {
    let vms = [
        vm("oa-web-0", "web", "h1", at(-60)),
        vm("oa-db-0", "db", "h2", at(-60)),
    ];
    let stall = Stall {
        first: at(0),
        last: at(6),
    };
    let long = Stall {
        first: at(0),
        last: at(3_600),
    };
    for (host, stall, database, since, felt) in [
        ("h2", stall, "Down", 1, true),
        ("h2", stall, "Up", 1, false),
        ("h2", stall, "Unobserved", 1, false),
        // Its portal is there, and answers.
        ("h1", stall, "Down", 1, false),
        ("h3", stall, "Down", 1, false),
        ("h2", stall, "Down", -20, true),
        ("h2", stall, "Down", -21, false),
        ("h2", stall, "Down", 11, true),
        ("h2", stall, "Down", 12, false),
        // That one is a fault of its own by then.
        ("h2", long, "Down", 20, true),
        ("h2", long, "Down", 21, false),
    ] {
        let system = system(database, at(since));
        let found = super::felt(&host.into(), stall, &system, &vms);
        let expected = felt.then(|| (at(since), "oa-db-0".to_owned()));
        assert_eq!(found, expected, "{host} {stall:?} {database} {since}");
    }
    // It has never answered.
    let mut new = system("Down", at(1));
    new.status.as_mut().expect("a status").state = "Progressing".to_owned();
    assert_eq!(super::felt(&"h2".into(), stall, &new, &vms), None);
    // A guest that comes up then.
    let late = [vm("oa-db-0", "db", "h2", at(2))];
    for (since, felt) in [(1, false), (2, true)] {
        let found = super::felt(&"h2".into(), stall, &system("Down", at(since)), &late);
        assert_eq!(found.is_some(), felt, "{since}");
    }
}

#[test]
fn a_stall_is_noted_while_a_host_that_is_heard_reports_it() {
    let (mut stalls, silent) = (Stalls::default(), HostName::from("h2"));
    let mut pass = |second, pools: [&str; 2]| {
        let hosts = [host("h1", pools[0]), host("h2", pools[1])];
        note(&mut stalls, at(second), &hosts, &|host| *host == silent);
        let seen = |stall: &Stall| (stall.first, stall.last);
        let noted = stalls
            .iter()
            .map(|((host, _), stall)| (host.to_string(), seen(stall)));
        noted.collect::<Vec<_>>()
    };
    let noted = |first, last| vec![("h1".to_owned(), (at(first), at(last)))];
    assert_eq!(
        pass(0, ["Ready", "Slow"]),
        [],
        "what was said before a silence"
    );
    assert_eq!(pass(1, ["Slow", "Ready"]), noted(1, 1));
    assert_eq!(pass(5, ["Lost", "Ready"]), noted(1, 5));
    assert_eq!(pass(8, ["Ready", "Ready"]), noted(1, 5));
    assert_eq!(pass(11, ["Slow", "Ready"]), noted(11, 11), "another one");
    assert_eq!(pass(40, ["Ready", "Ready"]), noted(11, 11));
    assert_eq!(pass(41, ["Ready", "Ready"]), [], "forgotten");
}

/// A host whose storage was slow to answer loses its power, and its silence is no incident yet.
#[test]
fn a_silence_of_any_host_of_a_system_explains_that_it_is_down() {
    let now = crate::incidents::wall();
    let (since, started) = (now - INTERRUPTED, now - INTERRUPTED * 2);
    let vms = [
        vm("oa-web-0", "web", "h1", started),
        vm("oa-db-0", "db", "h2", started),
    ];
    let systems = [Arc::new(system("Down", since))];
    let stall = Stall {
        first: since,
        last: now,
    };
    let key = (HostName::from("h2"), "storage-pool/shared".to_owned());
    let stalls = Stalls::from([(key, stall)]);
    for (silent, told) in [("h1", 0), ("h2", 0), ("h3", 1)] {
        let mut ledger = Ledger::default();
        let is_silent = |host: &HostName| host.as_str() == silent;
        tell_all(&mut ledger, &stalls, (&systems, &vms), &is_silent);
        assert_eq!(ledger.open().len(), told, "{silent} is silent");
    }
}

#[test]
fn the_incident_of_storage_stands_while_its_host_reports_it() {
    let cause = fault_cause(&"h1".into(), "storage-pool/shared", FaultKind::StorageLost);
    for (pool, expected) in [("Slow", true), ("Lost", true), ("Ready", false)] {
        assert_eq!(stands(&cause, &host("h1", pool)), expected, "{pool}");
        assert!(!stands(&cause, &host("h2", pool)));
        assert!(!stands("hardware/h1/fan/1/Fan", &host("h1", pool)));
    }
}
