//! What people may not write or delete.

use super::*;

pub(super) fn people(cases: &mut Cases) {
    let writers = "status-writers";
    cases.status(
        writers,
        CLUSTER_ADMINISTRATOR,
        VM,
        json!({"phase": "Failed"}),
        "may change spec only",
    );
    cases.status(
        writers,
        CLUSTER_ADMINISTRATOR,
        H1,
        json!({"state": "Fenced"}),
        "may change spec only",
    );
    for identity in [DEPARTMENT_USER, SYSTEM_ADMINISTRATOR] {
        let write = Write::PatchStatus(json!({"status": {"message": "x"}}));
        cases.refuse(RefusedBy::Roles, identity, VM, write, "cannot patch");
    }
    for target in [VOLUME, MOVE, SYSTEM].into_iter().chain(OPERATORS_ALONE) {
        cases.no_role(DEPARTMENT_USER, target, json!({"message": "x"}));
    }
    let rack = Write::Patch(json!({"spec": {"rack": "r9"}}));
    cases.refuse(RefusedBy::Roles, DEPARTMENT_USER, H1, rack, "cannot patch");
    let release = || Write::Patch(json!({"metadata": {"finalizers": null}}));
    let policy = RefusedBy::Policy("stop-proof-finalizer");
    cases.refuse(
        policy,
        DEPARTMENT_USER,
        VM,
        release(),
        "removed by the operator once no copy can run",
    );
    cases.refuse(
        policy,
        DEPARTMENT_USER,
        VOLUME,
        release(),
        "removed by the operator once no copy can run",
    );
    cases.refuse(
        policy,
        CLUSTER_ADMINISTRATOR,
        H1,
        release(),
        "removed by the operator once no copy can run",
    );
}

/// Of the policy whoever is on call disarms and arms fencing.
pub(super) fn on_call(cases: &mut Cases) {
    let policy = RefusedBy::Policy("on-call-policy");
    let sentence = "changes spec.failover.disarmed and spec.failover.armed only";
    for spec in [
        json!({"failover": {"stormPercent": 90}}),
        json!({"recovery": {"startsPerHost": 9}}),
        json!({"failover": {"stormPercent": 90, "disarmed": disarmed("li")}}),
        json!({"failover": {"stormPercent": 90, "disarmed": null, "armed": {"at": "2026-01-01T00:00:00Z", "by": "li"}}}),
        json!({"failover": {"rebase": {"frozenSince": "2026-01-01T00:00:00Z", "at": "2026-01-01T00:00:00Z", "reason": "x", "by": "li"}}}),
    ] {
        let write = Write::Patch(json!({"spec": spec}));
        cases.refuse(policy, ON_CALL, POLICY, write, sentence);
    }
    let policy = RefusedBy::Policy("on-call-host");
    let sentence =
        "changes spec.maintenance, spec.faultClearance and spec.confirmedOff of a host only";
    let bmc = json!({"protocol": "Redfish", "address": "https://10.0.0.66", "credentials": {"name": "s"}});
    for spec in [
        json!({"bmcs": [bmc]}),
        json!({"selfFencing": true}),
        json!({"pool": "other"}),
        json!({"managementAddress": "10.0.0.66"}),
        json!({"maintenance": {"reason": "new fan"}, "rack": "r9"}),
    ] {
        let write = Write::Patch(json!({"spec": spec}));
        cases.refuse(policy, ON_CALL, H1, write, sentence);
    }
    let rack = Write::PatchStatus(json!({"status": {"message": "x"}}));
    cases.refuse(RefusedBy::Roles, ON_CALL, POLICY, rack, "cannot patch");
}

/// What the operator knows its own objects by.
pub(super) fn marks(cases: &mut Cases) {
    let labels = json!({"zhengyun.io/evacuates": "h1"});
    let policy = RefusedBy::Policy("evacuation-label");
    let sentence = "set by the operator on the moves that empty a host";
    for identity in [DEPARTMENT_USER, SYSTEM_ADMINISTRATOR] {
        let write = Write::Patch(json!({"metadata": {"labels": labels}}));
        cases.refuse(policy, identity, MOVE, write, sentence);
        let own = Target {
            name: "marked",
            ..MOVE
        };
        let metadata = json!({"name": "marked", "namespace": "oa-office", "labels": labels});
        let body = json!({"metadata": metadata, "spec": {"virtualMachine": "vm1"}});
        cases.refuse(policy, identity, own, Write::Create(body), sentence);
    }
}

pub(super) fn deletions(cases: &mut Cases) {
    for (kind, namespace, name, sentence) in [
        (
            "Host",
            "",
            "h1",
            "host h1 is in use by 1 VMs; drain it first",
        ),
        (
            "Host",
            "",
            "h3",
            "host h3 is in use by 2 volume jobs; wait until they have ended",
        ),
        (
            "HostPool",
            "",
            "main",
            "host pool main is in use by 2 hosts",
        ),
        (
            "StoragePool",
            "",
            "shared",
            "storage pool shared is in use by 1 volumes",
        ),
        (
            "Network",
            "",
            "common",
            "network common is in use by 1 VM addresses",
        ),
        (
            "Image",
            "",
            "linux",
            "image linux is in use by 1 volumes and VMs",
        ),
        (
            "Department",
            "",
            "oa-office",
            "department oa-office is in use by 1 VMs",
        ),
        (
            "Department",
            "",
            "archives",
            "department archives still has 2 volumes with data",
        ),
        (
            "Volume",
            "oa-office",
            "vm1-system",
            "is claimed by a VM on host h1",
        ),
    ] {
        let target = Target::of(kind, namespace, name);
        let identity = if kind == "Volume" {
            DEPARTMENT_USER
        } else {
            SYSTEM_ADMINISTRATOR
        };
        cases.refuse(
            RefusedBy::Policy("in-use-is-kept"),
            identity,
            target,
            Write::Delete,
            sentence,
        );
    }
}
