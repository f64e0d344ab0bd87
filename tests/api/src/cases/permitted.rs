//! Writes that must pass: policies that refuse everything would pass the other test.

use serde_json::json;

use super::standing::{assignment, clearance, disarmed, report, runtime};
use crate::server::{
    AGENT_H1, AGENT_H2, CLUSTER_ADMINISTRATOR, DEPARTMENT_USER, Identity, ON_CALL, OPERATOR,
    SYSTEM_ADMINISTRATOR, Target, Write,
};

/// Every permitted write: who, on what, which.
pub fn permitted() -> Vec<(Identity, Target, Write)> {
    let host = |name| Target::of_site("Host", name);
    let vm = Target::of("VirtualMachine", "oa-office", "vm1");
    let volume = Target::of("Volume", "oa-office", "vm1-system");
    let migration = Target::of("VirtualMachineMigration", "oa-office", "move1");
    let image = Target::of_site("Image", "linux");
    let lease = Target::of("Lease", "zhengyun-system", "host-h1");
    let status = |status| Write::PatchStatus(json!({ "status": status }));
    vec![
        (
            AGENT_H1,
            host("h1"),
            status(json!({"reported": report("boot-new", "uuid-h1")})),
        ),
        (AGENT_H1, vm, status(json!({"runtime": runtime("h1", 4)}))),
        (
            AGENT_H1,
            vm,
            status(json!({"runtime": {"dirtyMebibytesPerSecond": 40}})),
        ),
        (
            AGENT_H2,
            vm,
            status(json!({"incomingRuntime": runtime("h2", 5)})),
        ),
        (AGENT_H1, vm, status(json!({"incomingRuntime": null}))),
        (
            AGENT_H1,
            volume,
            status(json!({"reported": {"assignment": assignment("h1", 3), "phase": "Done"}})),
        ),
        (
            AGENT_H1,
            image,
            status(json!({"reports": [
            {"pool": "other", "host": "h2", "phase": "Ready", "message": ""},
            {"pool": "shared", "host": "h1", "phase": "Fetching", "message": "10 %"}]})),
        ),
        (
            AGENT_H1,
            migration,
            status(json!({"source": {"assignment": assignment("h1", 4), "phase": "Migrating"}})),
        ),
        (
            AGENT_H2,
            migration,
            status(json!({"target": {"assignment": assignment("h2", 5), "phase": "Prepared"}})),
        ),
        (
            AGENT_H1,
            lease,
            Write::Create(json!({"spec": {"holderIdentity": "h1"}})),
        ),
        (OPERATOR, host("h1"), status(json!({"state": "Suspect"}))),
        (
            OPERATOR,
            migration,
            Write::Patch(json!({"metadata": {"labels": {"zhengyun.io/evacuates": "h1"}}})),
        ),
        (
            ON_CALL,
            Target::of_site("CloudPolicy", "default"),
            Write::Patch(json!({"spec": {"failover": {"disarmed": disarmed("li")}}})),
        ),
        // Promotion of the incoming copy keeps its epoch.
        (
            OPERATOR,
            vm,
            status(json!({"assignment": assignment("h2", 5), "incoming": null})),
        ),
        (
            OPERATOR,
            vm,
            status(json!({"assignment": assignment("h3", 6), "incoming": null, "lastEpoch": 6})),
        ),
        (
            OPERATOR,
            vm,
            status(json!({"assignment": null, "incoming": null})),
        ),
        // A rebase takes back what agents reported before etcd was restored.
        (
            OPERATOR,
            vm,
            status(json!({"runtime": null, "incomingRuntime": null, "lastEpoch": 1_000_000})),
        ),
        (
            OPERATOR,
            host("h2"),
            Write::Patch(json!({"metadata": {"finalizers": ["zhengyun.io/stop-proof"]}})),
        ),
        (
            OPERATOR,
            host("h1"),
            Write::Patch(json!({"metadata": {"finalizers": null}})),
        ),
        (
            OPERATOR,
            vm,
            Write::Patch(json!({"metadata": {"finalizers": null}})),
        ),
        // A VM follows its business system.
        (
            OPERATOR,
            vm,
            Write::Patch(json!({"spec": {"priority": "High", "mlpsGrade": 3, "spread": null}})),
        ),
        (
            DEPARTMENT_USER,
            vm,
            Write::Patch(json!({"spec": {"runStrategy": "Halted"}})),
        ),
        (DEPARTMENT_USER, vm, Write::Delete),
        (
            SYSTEM_ADMINISTRATOR,
            host("h2"),
            Write::Patch(json!({"spec": {"maintenance": {"reason": "new fan"}}})),
        ),
        (SYSTEM_ADMINISTRATOR, host("h2"), Write::Delete),
    ]
    .into_iter()
    .chain(words())
    .collect()
}

/// What people say in their own name, and what may be done about words that stand.
fn words() -> Vec<(Identity, Target, Write)> {
    let host = |name| Target::of_site("Host", name);
    let policy = Target::of_site("CloudPolicy", "default");
    let incident = |name| Target::of_site("Incident", name);
    let spec = |spec| Write::Patch(json!({ "spec": spec }));
    let at = "2026-01-01T01:00:00Z";
    let off = |by| {
        spec(
            json!({"confirmedOff": {"bootId": "boot-h1", "at": at, "by": by, "reason": "cord pulled"}}),
        )
    };
    let closure = |by| spec(json!({"closure": {"by": by, "reason": "fan replaced"}}));
    let rebase = json!({"frozenSince": at, "at": at, "by": "ops", "reason": "disk full"});
    vec![
        // Armed before the time is over, and armed when nothing was disarmed.
        (
            ON_CALL,
            policy,
            spec(json!({"failover": {"disarmed": null, "armed": {"at": at, "by": "li"}}})),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(json!({"failover": {"armed": {"at": at, "by": "ops"}}})),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(json!({"failover": {"rebase": rebase}})),
        ),
        (ON_CALL, host("h1"), off("li")),
        (CLUSTER_ADMINISTRATOR, host("h1"), off("admin")),
        (
            ON_CALL,
            host("h1"),
            spec(json!({"faultClearance": clearance("li")})),
        ),
        (
            ON_CALL,
            host("h1"),
            spec(json!({"maintenance": {"reason": "new fan", "evacuate": true}})),
        ),
        (ON_CALL, incident("incident1"), closure("li")),
        (SYSTEM_ADMINISTRATOR, incident("incident1"), closure("ops")),
        (
            OPERATOR,
            incident("incident1"),
            spec(json!({"causeClass": "Unknown", "title": "host h1 hung"})),
        ),
        (OPERATOR, incident("incident2"), Write::Delete),
        // Bounds of ranges, with what they ask of the others.
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(
                json!({"failover": {"leaseIntervalSeconds": 14, "heartbeatIntervalSeconds": 14, "contractSeconds": 42,
                "watchdogSeconds": 2, "selfFenceMarginSeconds": 5, "unreachableAfterSeconds": 16}}),
            ),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(
                json!({"failover": {"contractSeconds": 43, "watchdogSeconds": 2, "selfFenceMarginSeconds": 5}}),
            ),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(
                json!({"failover": {"contractSeconds": 6, "watchdogSeconds": 39, "selfFenceMarginSeconds": 5}}),
            ),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(
                json!({"failover": {"contractSeconds": 10, "watchdogSeconds": 10, "selfFenceMarginSeconds": 30}}),
            ),
        ),
        // Li's words stand on h2 and in the policy: others change what is beside them, repeat them, or take
        // them back.
        (
            SYSTEM_ADMINISTRATOR,
            host("h2"),
            spec(json!({"rack": "r9", "faultClearance": clearance("li")})),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            host("h2"),
            spec(json!({"faultClearance": null})),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            policy,
            spec(json!({"failover": {"stormPercent": 40}})),
        ),
    ]
}
