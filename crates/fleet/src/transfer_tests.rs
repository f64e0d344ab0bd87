//! What agents report changes the times that plans tell.

use placement::plan_evacuation;
use serde_json::{Value, json};

use super::*;

const GIB: u64 = 1 << 30;

fn host(name: &str, megabits: Option<i64>) -> Arc<Host> {
    let link = megabits.map(|megabits| json!({"interface": "bond0", "speedMegabits": megabits}));
    let value = json!({"metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
        "status": {"reported": {"incarnation": {"bootId": "b", "systemUuid": name}, "domainType": "kvm",
            "capacity": {"cpu": 64, "memory": "256Gi"}, "architecture": "x86_64", "vtepAddress": "10.1.0.1",
            "migrationLink": link}}});
    Arc::new(serde_json::from_value(value).expect("a host"))
}

/// A VM of 8 GiB on h1, of which an agent said under this epoch that it writes so much.
fn vm(name: &str, dirty: Value, epoch: i64) -> Arc<VirtualMachine> {
    let right = |epoch: i64| json!({"host": "h1", "bootId": "b", "epoch": epoch});
    let value = json!({"metadata": {"name": name, "namespace": "oa", "uid": name},
        "spec": {"cpu": 1, "memory": "8Gi", "image": "i", "disks": [], "networks": []},
        "status": {"phase": "Running", "assignment": right(2), "runtime": {"assignment": right(epoch),
            "phase": "Running", "since": "2026-01-01T00:00:00Z", "dirtyMebibytesPerSecond": dirty}}});
    Arc::new(serde_json::from_value(value).expect("a VM"))
}

fn site(links: [Option<i64>; 2], dirty: Value) -> Objects {
    let pool = json!({"metadata": {"name": "main"}, "spec": {"zones": ["Common"], "architecture": "x86_64"}});
    Objects {
        host_pools: vec![Arc::new(serde_json::from_value(pool).expect("a pool"))],
        hosts: vec![host("h1", links[0]), host("h2", links[1])],
        vms: vec![vm("web", dirty, 2)],
        ..Objects::default()
    }
}

fn policy(bandwidth: Option<i32>, per_host: i32) -> CloudPolicySpec {
    let mut policy = CloudPolicySpec::default();
    policy.migration.bandwidth_mebibytes_per_second = bandwidth;
    policy.migration.per_host = per_host;
    policy
}

/// When h1 is empty, milliseconds.
fn end(site: &Objects, policy: &CloudPolicySpec) -> u64 {
    let request = site.evacuation(policy, ["h1".into()].into(), &[]);
    let plan = plan_evacuation(&site.fleet(|_| None), &request);
    assert_eq!((plan.moves.len(), plan.stuck.len()), (1, 0), "{plan:?}");
    plan.end_ms
}

#[test]
fn links_and_dirty_rates_change_the_planned_end() {
    let open = policy(None, 2);
    let seconds = |links, dirty: Value| {
        let end = end(&site(links, dirty), &open);
        (end - MOVE_OVERHEAD_MILLISECONDS) as f64 / 1000.0
    };
    let copying = |megabits: f64| (8 * GIB) as f64 * 8.0 / (megabits * 1e6);
    let about = |seconds: f64, wanted: f64| {
        assert!(
            (seconds - wanted).abs() < 0.01 * wanted,
            "{seconds} {wanted}"
        );
    };
    about(seconds([None, None], Value::Null), copying(10_000.0));
    about(
        seconds([Some(25_000), Some(25_000)], Value::Null),
        copying(25_000.0),
    );
    // The slower end decides, and one that reports nothing counts as before.
    about(
        seconds([Some(1_000), Some(25_000)], Value::Null),
        copying(1_000.0),
    );
    about(
        seconds([Some(25_000), Some(1_000)], Value::Null),
        copying(1_000.0),
    );
    about(
        seconds([None, Some(25_000)], Value::Null),
        copying(10_000.0),
    );
    // Half of what the link carries is written anew meanwhile: it takes twice as long.
    let half = json!(625_000_000 >> 20);
    about(seconds([None, None], half), 2.0 * copying(10_000.0));
    // It is slowed down before it takes for ever.
    about(
        seconds([None, None], json!(100_000)),
        3.0 * copying(10_000.0),
    );
}

#[test]
fn the_policys_bandwidth_caps_links_and_stands_in_for_those_not_reported() {
    let of = |policy: &CloudPolicySpec| {
        let hosts = [
            host("fast", Some(25_000)),
            host("slow", Some(1_000)),
            host("old", None),
            host("odd", Some(0)),
        ];
        let limits = limits(policy, &hosts);
        ["fast", "slow", "old", "odd"].map(|name| limits.link(&name.into()))
    };
    let ten = 1_250_000_000;
    assert_eq!(of(&policy(None, 2)), [3_125_000_000, 125_000_000, ten, ten]);
    let bound = 2 * (300 << 20);
    assert_eq!(
        of(&policy(Some(300), 2)),
        [bound, 125_000_000, bound, bound]
    );
    // A bandwidth above what the links have makes none of them faster.
    let high = 2 * (2_000 << 20);
    assert_eq!(
        of(&policy(Some(2_000), 2)),
        [3_125_000_000, 125_000_000, high, high]
    );
}

#[test]
fn a_lone_move_gets_what_the_policy_gives_one_move_and_no_more() {
    let links = [Some(25_000), Some(25_000)];
    let end = end(&site(links, Value::Null), &policy(Some(512), 4));
    assert_eq!(end, 16_000 + MOVE_OVERHEAD_MILLISECONDS);
}

#[test]
fn only_what_is_said_of_the_present_copy_counts() {
    let objects = Objects {
        vms: vec![
            vm("now", json!(40), 2),
            vm("before", json!(40), 1),
            vm("new", Value::Null, 2),
        ],
        ..Objects::default()
    };
    let told = objects.transfer(&policy(None, 2)).dirty_bytes_per_second;
    assert_eq!(told, BTreeMap::from([(VmUid("now".to_owned()), 40 << 20)]));
}
