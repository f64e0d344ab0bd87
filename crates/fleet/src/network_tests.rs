//! Which hosts carry the networks of a VM, as agents report and networks are declared.

use placement::{Filter, Headroom, place, plan_evacuation, prove_headroom};
use serde_json::{Value, json};

use super::*;

/// A host with so much memory and these fields of its report.
fn host(name: &str, memory: &str, reports: Value) -> Arc<Host> {
    let mut value = json!({"metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
        "status": {"reported": {"incarnation": {"bootId": "b", "systemUuid": name}, "domainType": "kvm",
            "capacity": {"cpu": 16, "memory": memory}, "architecture": "x86_64"}}});
    for (field, report) in reports.as_object().expect("fields") {
        value["status"]["reported"][field.as_str()] = report.clone();
    }
    Arc::new(serde_json::from_value(value).expect("a host"))
}

/// A VM on these networks, which runs on a host or waits.
fn vm(name: &str, networks: &[&str], on: Option<&str>) -> Arc<VirtualMachine> {
    let status = on.map_or(
        json!({"phase": "Pending"}),
        |host| json!({"phase": "Running", "assignment": {"host": host, "bootId": "b", "epoch": 1}}),
    );
    let value = json!({"metadata": {"name": name, "namespace": "oa", "uid": name},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "linux", "disks": [], "networks": networks},
        "status": status});
    Arc::new(serde_json::from_value(value).expect("a VM"))
}

/// `legacy` is a VLAN, `wide` a VXLAN.
fn objects(hosts: Vec<Arc<Host>>, vms: Vec<Arc<VirtualMachine>>) -> Objects {
    let pool = json!({"metadata": {"name": "main"}, "spec": {"zones": ["Common"], "architecture": "x86_64"}});
    let network = |name: &str, isolation: Value| {
        let mut value =
            json!({"metadata": {"name": name}, "spec": {"zone": "Common", "subnets": []}});
        for (field, by) in isolation.as_object().expect("a field") {
            value["spec"][field.as_str()] = by.clone();
        }
        Arc::new(serde_json::from_value(value).expect("a network"))
    };
    Objects {
        host_pools: vec![Arc::new(serde_json::from_value(pool).expect("a pool"))],
        networks: vec![
            network("legacy", json!({"vlan": {"id": 5}})),
            network("wide", json!({"vxlan": {"vni": 7}})),
        ],
        hosts,
        vms,
        ..Objects::default()
    }
}

/// h2 has the most memory. What it reports of `legacy` decides; that it reports nothing of it decides nothing.
#[test]
fn a_host_that_says_its_network_is_not_ready_is_no_place_no_spare_and_no_target() {
    let site = |reported: Value| {
        objects(
            vec![
                host("h1", "8Gi", json!({"vtepAddress": "10.1.0.1"})),
                host(
                    "h2",
                    "64Gi",
                    json!({"vtepAddress": "10.1.0.2", "networks": reported}),
                ),
            ],
            vec![
                vm("runs", &["legacy"], Some("h1")),
                vm("new", &["legacy"], None),
            ],
        )
    };
    let chosen = |reported: Value| {
        let fleet = site(reported).fleet(|_| None);
        let choice = place(&fleet, &"new".into(), &BTreeSet::new()).expect("a host");
        (choice.host.to_string(), prove_headroom(&fleet, "main"))
    };
    let ready = json!([{"name": "legacy", "ready": true}, {"name": "wide", "ready": false}]);
    for carries in [json!([]), ready] {
        assert_eq!(chosen(carries), ("h2".to_owned(), Headroom::Proven));
    }
    let unready = json!([{"name": "legacy", "ready": false, "message": "no uplink"}]);
    let broken = Headroom::Broken {
        failure: "h1".into(),
        vm: "runs".into(),
    };
    assert_eq!(chosen(unready.clone()), ("h1".to_owned(), broken));
    let objects = site(unready);
    let hosts = BTreeSet::from(["h1".into()]);
    let request = objects.evacuation(&CloudPolicySpec::default(), hosts, &[]);
    let plan = plan_evacuation(&objects.fleet(|_| None), &request);
    assert!(plan.moves.is_empty(), "{plan:?}");
    assert_eq!(plan.stuck.len(), 1, "{plan:?}");
}

/// A VLAN leaves by the business NIC; only a VXLAN needs an end point.
#[test]
fn a_host_without_a_tunnel_end_point_carries_vlans_and_no_vxlans() {
    let vms = vec![
        vm("vlan", &["legacy"], None),
        vm("vxlan", &["wide"], None),
        vm("both", &["legacy", "wide"], None),
    ];
    let fleet = objects(vec![host("h3", "8Gi", json!({}))], vms).fleet(|_| None);
    let asked = |name: &str| place(&fleet, &name.into(), &BTreeSet::new());
    let choice = asked("vlan").expect("a host");
    assert_eq!(choice.host.as_str(), "h3");
    for name in ["vxlan", "both"] {
        let refusal = asked(name).expect_err("no end point");
        assert_eq!(
            refusal.removed,
            BTreeMap::from([(Filter::Network, 1)]),
            "{name}"
        );
    }
}
