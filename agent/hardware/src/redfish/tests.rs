//! Judges of Redfish resources, on small trees made here.

use std::cell::Cell;
use std::collections::BTreeMap;

use model::{FaultKind, Severity};
use serde_json::{Value, json};

use super::*;

struct Tree {
    resources: BTreeMap<String, Value>,
    asked: Cell<usize>,
    broken: bool,
}

impl RedfishSource for Tree {
    fn get(&self, path: &str) -> Result<Value, RedfishError> {
        self.asked.set(self.asked.get() + 1);
        if self.broken {
            return Err(RedfishError::Failed {
                path: path.to_owned(),
                message: "time-out".to_owned(),
            });
        }
        self.resources
            .get(path)
            .cloned()
            .ok_or_else(|| RedfishError::NotFound {
                path: path.to_owned(),
            })
    }
}

fn link_to(path: &str) -> Value {
    json!({"@odata.id": format!("/redfish/v1/{path}")})
}

/// One chassis with old-style `Power` and `Thermal`.
fn legacy(power: Value, thermal: Value) -> Findings {
    let resources = [
        ("/redfish/v1/", json!({"Chassis": link_to("Chassis")})),
        (
            "/redfish/v1/Chassis",
            json!({"Members": [link_to("Chassis/1")]}),
        ),
        (
            "/redfish/v1/Chassis/1",
            json!({"Id": "1", "Power": link_to("Chassis/1/Power"), "Thermal": link_to("Chassis/1/Thermal")}),
        ),
        ("/redfish/v1/Chassis/1/Power", power),
        ("/redfish/v1/Chassis/1/Thermal", thermal),
    ];
    let resources = resources
        .into_iter()
        .map(|(path, value)| (path.to_owned(), value))
        .collect();
    walk(
        &Tree {
            resources,
            asked: Cell::new(0),
            broken: false,
        },
        &Thresholds::default(),
    )
}

fn kinds(findings: &Findings) -> Vec<(&str, FaultKind, Severity, i64)> {
    findings
        .findings
        .iter()
        .map(|f| (f.component.as_str(), f.kind, f.severity, f.hold_seconds))
        .collect()
}

const DEGRADED: Severity = Severity::Degraded;

#[test]
fn a_failed_power_supply_and_lost_redundancy() {
    let supply = |health: &str, state: &str| json!({"MemberId": "0", "Name": "PSU", "Status": {"Health": health, "State": state}});
    let psu = ("psu/1-0", FaultKind::PowerSupply, DEGRADED, 0);
    for (supply, expected) in [
        (supply("OK", "Enabled"), vec![]),
        (supply("Critical", "Enabled"), vec![psu]),
        (supply("Warning", "Enabled"), vec![psu]),
        (supply("OK", "UnavailableOffline"), vec![psu]),
        (supply("Critical", "Absent"), vec![]),
        (
            json!({"MemberId": "0", "LineInputStatus": "LossOfInput", "Status": {"Health": "OK"}}),
            vec![psu],
        ),
    ] {
        let found = legacy(json!({"PowerSupplies": [supply]}), json!({}));
        assert_eq!(kinds(&found), expected, "{supply}");
    }
    let lost = legacy(
        json!({"Redundancy": [{"Status": {"Health": "Warning", "State": "Enabled"}}]}),
        json!({}),
    );
    assert_eq!(
        kinds(&lost),
        [("psu/1-redundancy-0", FaultKind::PowerSupply, DEGRADED, 0)]
    );
}

#[test]
fn fans_and_temperatures_each_side_of_their_limits() {
    let fan = |reading: u64| {
        kinds(&legacy(json!({}), json!({"Fans": [{"MemberId": "0", "Reading": reading, "LowerThresholdFatal": 2000, "Status": {"Health": "OK"}}]}))).len()
    };
    assert_eq!((fan(2001), fan(2000), fan(0)), (0, 1, 1));
    let heat = |celsius: f64| {
        let sensor = json!({"MemberId": "0", "ReadingCelsius": celsius, "UpperThresholdNonCritical": 42, "UpperThresholdCritical": 45, "Status": {"Health": "OK"}});
        kinds(&legacy(json!({}), json!({"Temperatures": [sensor]})))
            .first()
            .map(|found| found.3)
    };
    assert_eq!(
        (heat(41.9), heat(42.0), heat(44.9), heat(45.0)),
        (None, Some(600), Some(600), Some(0))
    );
}

#[test]
fn processors_memory_and_drives() {
    let system = |part: Value, property: &str| {
        let resources = [
            ("/redfish/v1/", json!({"Systems": link_to("Systems")})),
            (
                "/redfish/v1/Systems",
                json!({"Members": [link_to("Systems/1")]}),
            ),
            (
                "/redfish/v1/Systems/1",
                json!({"Id": "1", "Storage": link_to("Systems/1/Storage"), property: link_to("Systems/1/Part")}),
            ),
            ("/redfish/v1/Systems/1/Part", json!({"Members": [part]})),
        ];
        let resources = resources
            .into_iter()
            .map(|(path, value)| (path.to_owned(), value))
            .collect();
        let found = walk(
            &Tree {
                resources,
                asked: Cell::new(0),
                broken: false,
            },
            &Thresholds::default(),
        );
        found
            .findings
            .into_iter()
            .map(|f| (f.component, f.kind, f.severity))
            .collect::<Vec<_>>()
    };
    let part = |health: &str| json!({"Id": "A", "Name": "A", "Status": {"Health": health, "State": "Enabled"}});
    assert_eq!(system(part("OK"), "Memory"), []);
    assert_eq!(
        system(part("Critical"), "Memory"),
        [(
            "dimm/1-A".to_owned(),
            FaultKind::ComponentCritical,
            Severity::Critical
        )]
    );
    assert_eq!(
        system(part("Warning"), "Processors"),
        [(
            "processor/1-A".to_owned(),
            FaultKind::ComponentCritical,
            DEGRADED
        )]
    );
    let storage = json!({"Id": "S", "Name": "S", "Devices": [{"Name": "d", "FailurePredicted": true, "Status": {"Health": "OK"}}]});
    assert_eq!(
        system(storage, "SimpleStorage"),
        [(
            "disk/bmc-1-S-0".to_owned(),
            FaultKind::DiskFailing,
            DEGRADED
        )]
    );
}

#[test]
fn a_dead_bmc_costs_few_requests_and_is_no_fault() {
    let tree = Tree {
        resources: BTreeMap::new(),
        asked: Cell::new(0),
        broken: true,
    };
    let found = walk(&tree, &Thresholds::default());
    assert!(found.findings.is_empty());
    assert!(!found.errors.is_empty());
    assert!(tree.asked.get() <= FAILURES_MAX);
}

#[test]
fn endless_and_circular_collections_end() {
    struct Endless(Cell<usize>);
    impl RedfishSource for Endless {
        fn get(&self, path: &str) -> Result<Value, RedfishError> {
            self.0.set(self.0.get() + 1);
            let number = self.0.get();
            let next = format!("/redfish/v1/{number}");
            let itself = json!({"@odata.id": path});
            Ok(
                json!({"Chassis": {"@odata.id": "/redfish/v1/c"}, "Systems": itself, "Members": [{"@odata.id": next}, itself],
                "Members@odata.nextLink": format!("/redfish/v1/page{number}"), "Power": itself, "Sensors": {"@odata.id": format!("/redfish/v1/s{number}")}}),
            )
        }
    }
    let endless = Endless(Cell::new(0));
    let found = walk(&endless, &Thresholds::default());
    assert!(endless.0.get() <= RESOURCES_MAX);
    assert!(!found.errors.is_empty());
}
