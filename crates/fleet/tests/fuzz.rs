//! Saved fleets with seeded faults: every one is read or refused with what is wrong and the remedy, and whatever is read is
//! asked about (the failure of each host, a drain, new VMs), never a panic. A moment by default; for longer:
//! `FUZZ_SECONDS=3600 cargo test --release -p fleet --test fuzz`.

mod spoil;

use std::collections::{BTreeMap, BTreeSet};

use fleet::closed_by_condition;
use fleet::snapshot::Snapshot;
use model::{HostName, VmUid};
use placement::search::Rng;
use placement::{Admission, Engine, Headroom, Refusal, host_down, plan_evacuation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spoil::{play, scratch, spoil};

fn host(name: &str, rack: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1", "rack": rack},
        "status": {"state": "Ready",
            "conditions": [{"type": "Schedulable", "status": "True", "reason": "Open", "message": "",
                "lastTransitionTime": "2026-11-25T08:00:00Z"}],
            "reported": {"incarnation": {"bootId": "b", "systemUuid": name}, "domainType": "kvm",
                "capacity": {"cpu": 8, "memory": "16Gi"}, "cpuModel": "m", "cpuModels": ["m"],
                "architecture": "x86_64", "vtepAddress": "10.1.0.1",
                "migrationLink": {"interface": "bond0", "speedMegabits": 10_000},
                "networks": [{"name": "common", "ready": true}, {"name": "legacy", "ready": name != "c"}],
                "storagePools": [
                    {"name": "shared", "state": "Ready", "capacityBytes": 1_099_511_627_776_i64, "availableBytes": 1},
                    {"name": "local", "state": "Ready", "capacityBytes": 107_374_182_400_i64, "availableBytes": 1}]}}})
}

fn vm(name: &str, network: &str, on: Option<&str>) -> Value {
    let status = on.map_or(
        json!({"phase": "Pending"}),
        |host| json!({"phase": "Running", "assignment": {"host": host, "bootId": "b", "epoch": 1}}),
    );
    json!({"metadata": {"name": name, "namespace": "oa", "uid": format!("uid-{name}"),
            "labels": {"app": name, "zhengyun.io/system": "web", "zhengyun.io/tier": network}},
        "spec": {"cpu": 2, "memory": "4Gi", "image": "linux", "networks": [network],
            "disks": [{"name": "system", "volume": format!("{name}-system")}],
            "spread": {"over": "Host", "required": false}},
        "status": status})
}

fn volume(vm: &str, pool: &str, status: Value) -> Value {
    json!({"metadata": {"name": format!("{vm}-system"), "namespace": "oa"},
        "spec": {"pool": pool, "size": "40Gi", "image": "linux"}, "status": status})
}

/// A small site with something of everything that planning reads.
fn objects() -> Value {
    let made = |host: &str| {
        json!({"lastJob": 1, "reported": {"phase": "Done",
            "assignment": {"host": host, "bootId": "b", "epoch": 1}}})
    };
    let mut apart = vm("d", "legacy", Some("b"));
    apart["spec"]["affinity"] =
        json!([{"kind": "Apart", "matchLabels": {"app": "e"}, "required": true}]);
    let mut together = vm("f", "common", None);
    together["spec"]["affinity"] =
        json!([{"kind": "Together", "matchLabels": {"app": "g"}, "required": true}]);
    let mut pinned = made("c");
    pinned["pinnedHost"] = json!("c");
    let network = |name: &str, isolation: Value| {
        let mut network =
            json!({"metadata": {"name": name}, "spec": {"zone": "Common", "subnets": []}});
        for (field, by) in isolation.as_object().expect("a field") {
            network["spec"][field.as_str()] = by.clone();
        }
        network
    };
    json!({
        "hostPools": [{"metadata": {"name": "main"}, "spec": {"zones": ["Common"], "architecture": "x86_64",
            "cpuModel": "m", "cpuOvercommitPercent": 400, "memoryOvercommitPercent": 100,
            "failuresToTolerate": 1, "mlpsGrade": 3}}],
        "hosts": [host("a", "r1"), host("b", "r1"), host("c", "r2")],
        "virtualMachines": [apart, together, vm("e", "common", Some("a")), vm("g", "common", None),
            vm("h", "legacy", Some("a")), vm("i", "legacy", Some("c")), vm("j", "legacy", None)],
        "volumes": [volume("d", "shared", made("b")), volume("e", "shared", made("a")),
            volume("h", "shared", made("a")), volume("i", "local", pinned),
            volume("f", "shared", json!({"lastJob": 0})), volume("j", "local", json!({"lastJob": 0}))],
        "networks": [network("common", json!({"vxlan": {"vni": 7}})), network("legacy", json!({"vlan": {"id": 5}}))],
        "images": [{"metadata": {"name": "linux"}, "spec": {"architecture": "x86_64", "minimumSize": "40Gi",
            "disk": {"url": "http://images/linux", "sha256": "0"}}}],
        "storagePools": [
            {"metadata": {"name": "shared"}, "spec": {"kind": "Directory", "path": "/pools/shared", "shared": true}},
            {"metadata": {"name": "local"}, "spec": {"kind": "Directory", "path": "/pools/local", "shared": false}}],
        "flavors": [{"metadata": {"name": "2c4g"}, "spec": {"cpu": 2, "memory": "4Gi"}}],
        "cloudPolicies": [{"metadata": {"name": "default"},
            "spec": {"migration": {"bandwidthMebibytesPerSecond": 500, "perHost": 2, "perSite": 4}}}],
        "migrations": [{"metadata": {"name": "m", "namespace": "oa"},
            "spec": {"virtualMachine": "e", "targetHost": "b"}, "status": {"phase": "Pending", "message": "waits"}}],
        "departments": [{"metadata": {"name": "oa"}, "spec": {"displayName": "d",
            "quota": {"cpu": 100, "memory": "900Gi", "storage": "9Ti"}}}],
    })
}

/// A file of these objects. The digest is that of what a reader reads: a number may be another one once it was written.
fn file(objects: Value) -> Value {
    let text = objects.to_string();
    let read: Value = serde_json::from_str(&text).unwrap_or_default();
    let digest = format!("sha256:{:x}", Sha256::digest(read.to_string()));
    json!({"form": "zhengyun.io/fleet-snapshot", "version": 1, "savedAt": "2026-11-25T08:00:00Z",
        "digest": digest, "objects": objects})
}

fn faulty(rng: &mut Rng) -> String {
    let mut objects = objects();
    for _ in 0..rng.below(5) {
        spoil(&mut objects, rng);
    }
    let mut whole = file(objects);
    if rng.below(20) == 0 {
        spoil(&mut whole, rng);
    }
    let mut bytes = whole.to_string().into_bytes();
    if rng.below(10) == 0 {
        scratch(&mut bytes, rng);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn told(refusal: &Refusal) {
    assert!(!refusal.sentence().is_empty());
}

/// Each host fails; one is emptied.
fn lose(snapshot: &Snapshot, rng: &mut Rng) {
    let objects = &snapshot.objects;
    let fleet = objects.fleet(closed_by_condition);
    let idle = objects.idle(&snapshot.migrations);
    for name in fleet.hosts.keys() {
        let turns = BTreeMap::<VmUid, u8>::new();
        let down = host_down(&fleet, name, &turns, &idle).expect("it is there");
        for (_, restart) in down.restarts {
            match restart {
                Ok(choice) => {
                    assert!(choice.host != *name && fleet.hosts.contains_key(&choice.host))
                }
                Err(refusal) => told(&refusal),
            }
        }
    }
    let names: Vec<&HostName> = fleet.hosts.keys().collect();
    if names.is_empty() {
        return;
    }
    let drained = names[rng.below(names.len())].clone();
    let hosts = BTreeSet::from([drained.clone()]);
    let request = objects.evacuation(&snapshot.policy(), hosts, &snapshot.migrations);
    let plan = plan_evacuation(&fleet, &request);
    assert!(plan.moves.iter().all(|step| step.to != drained));
    assert!(plan.stuck.iter().all(|stuck| !stuck.why.is_empty()));
}

/// Who waits is asked about.
fn start(snapshot: &Snapshot) {
    let mut engine = Engine::new(snapshot.objects.fleet(closed_by_condition));
    let vms = engine.fleet().vms.iter();
    let waiting = vms.filter(|(_, vm)| vm.places().next().is_none());
    let waiting: Vec<VmUid> = waiting.map(|(uid, _)| uid.clone()).collect();
    for uid in waiting {
        if let Err(refusal) = engine.place(&uid, &BTreeSet::new()) {
            told(&refusal);
        }
        match engine.admit(&uid, &BTreeSet::new()) {
            Admission::Placed(choice) => assert!(!choice.reasons.is_empty()),
            Admission::Refused(refusal) => told(&refusal),
            Admission::Breaks {
                headroom, tried, ..
            } => {
                assert_ne!(headroom, Headroom::Proven);
                assert!(!tried.sentence().is_empty());
            }
        }
    }
    let pools: Vec<String> = engine.fleet().pools.keys().cloned().collect();
    for pool in pools {
        assert!(engine.headroom_report(&pool).is_some());
    }
}

/// How far one file came: refused, or answered.
fn one(seed: u64) -> usize {
    let mut rng = Rng::new(seed, 78);
    let text = faulty(&mut rng);
    let snapshot = match Snapshot::from_text(&text) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            for words in [error.to_string(), error.chinese()] {
                assert!(words.contains("zyctl fleet save"), "{words}");
            }
            return 0;
        }
    };
    lose(&snapshot, &mut rng);
    start(&snapshot);
    1
}

#[test]
fn faulty_fleets_are_refused_with_the_remedy_or_answered_never_a_panic() {
    let good = Snapshot::from_text(&file(objects()).to_string()).expect("a snapshot");
    let fleet = good.objects.fleet(closed_by_condition);
    assert_eq!((fleet.hosts.len(), fleet.vms.len()), (3, 7));
    let came: [u64; 2] = play(500, one);
    println!("{came:?}: refused, answered");
    assert!(came.iter().all(|&count| count > 50), "{came:?}");
}
