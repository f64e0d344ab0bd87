//! Writes that must pass: policies that refuse everything would pass the other test.

use serde_json::json;

use super::standing::{assignment, report, runtime};
use crate::server::{
    AGENT_H1, AGENT_H2, DEPARTMENT_USER, Identity, ON_CALL, OPERATOR, SYSTEM_ADMINISTRATOR, Target,
    Write,
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
            Write::Patch(json!({"spec": {"failover": {"disarmed": {
                "until": "2026-01-01T00:00:00Z", "reason": "switch work", "by": "li"}}}})),
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
        (
            OPERATOR,
            host("h2"),
            Write::Patch(json!({"metadata": {"finalizers": ["zhengyun.io/stop-proof"]}})),
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
}
