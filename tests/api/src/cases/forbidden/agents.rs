//! What an agent may not write.

use super::*;

pub(super) fn agents_on_hosts(cases: &mut Cases) {
    let policy = "agent-host-status";
    for (field, value) in [
        ("state", json!("Ready")),
        ("stateReason", json!("x")),
        ("stateReasonChinese", json!("x")),
        ("stateSince", json!("2026-01-01T00:00:00Z")),
        ("lastSeen", json!("2026-01-01T00:00:00Z")),
        ("power", json!("On")),
        ("virtualMachines", json!(7)),
        ("volumeJobs", json!(7)),
        ("faultCount", json!(7)),
        ("retiredBootIds", json!([])),
        (
            "voidConfirmation",
            json!({"bootId": "boot-h1", "reason": "r", "by": "x", "at": "2026-01-01T00:00:00Z"}),
        ),
        (
            "accepted",
            json!({"bootId": "b", "systemUuid": "u", "macAddresses": []}),
        ),
        ("evacuation", json!({"phase": "Done"})),
        (
            "conditions",
            json!([{"type": "Ready", "status": "True", "reason": "X", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
        ),
        (
            "fencing",
            json!({"bootId": "b", "startedAt": "2026-01-01T00:00:00Z", "expiresAfterSeconds": 1,
            "reason": "r", "by": "x"}),
        ),
    ] {
        // State Ready stands already: another value, so that it is a change.
        let value = if field == "state" {
            json!("Fenced")
        } else {
            value
        };
        cases.status(
            policy,
            AGENT_H1,
            H1,
            json!({ field: value }),
            "belongs to the operator",
        );
    }
    cases.status(
        policy,
        AGENT_H2,
        H1,
        json!({"reported": report("boot-x", "uuid-h1")}),
        "may not report for host h1",
    );
    cases.status(
        policy,
        AGENT_H1,
        H1,
        json!({"reported": report("boot-old", "uuid-h1")}),
        "this boot id is retired",
    );
    cases.status(
        policy,
        AGENT_H1,
        H1,
        json!({"reported": report("boot-h1", "uuid-z")}),
        "another machine registered",
    );
}

pub(super) fn agents_on_machines(cases: &mut Cases) {
    let policy = "agent-vm-status";
    for status in [
        json!({"incoming": null}),
        json!({"proofs": [{"kind": "Closed", "host": "h1", "bootId": "b", "epoch": 1, "evidence": "x"}]}),
        json!({"nics": [{"network": "common", "macAddress": "x", "addresses": []}]}),
        json!({"cpuModel": "EPYC"}),
        json!({"phase": "Running"}),
        json!({"message": "x"}),
        json!({"placement": {"message": "x"}}),
        json!({"failures": {"inARow": 3, "epoch": 1}}),
        json!({"assignment": null}),
        json!({"lastEpoch": 9}),
        json!({"conditions": [{"type": "Ready", "status": "True", "reason": "X", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
    ] {
        cases.status(policy, AGENT_H1, VM, status, "belongs to the operator");
    }
    cases.status(
        policy,
        AGENT_H2,
        VM,
        json!({"runtime": runtime("h2", 5)}),
        "only the agent of the assigned host",
    );
    cases.status(
        policy,
        AGENT_H2,
        VM,
        json!({"runtime": {"dirtyMebibytesPerSecond": 40}}),
        "only the agent of the assigned host",
    );
    cases.status(
        policy,
        AGENT_H1,
        VM,
        json!({"runtime": runtime("h2", 4)}),
        "only the agent of the assigned host",
    );
    cases.status(
        policy,
        AGENT_H1,
        VM,
        json!({"incomingRuntime": runtime("h1", 5)}),
        "only the agent of the incoming host",
    );
    cases.status(
        policy,
        AGENT_H2,
        VM,
        json!({"incomingRuntime": runtime("h1", 5)}),
        "only the agent of the incoming host",
    );
}

pub(super) fn agents_on_the_rest(cases: &mut Cases) {
    let job_report = |host: &str| json!({"assignment": assignment(host, 3), "phase": "Done"});
    for status in [
        json!({"claim": null}),
        json!({"phase": "Ready"}),
        json!({"lastJob": 9}),
        json!({"job": null}),
        json!({"pinnedHost": "h1"}),
        json!({"message": "x"}),
    ] {
        cases.status(
            "agent-volume-status",
            AGENT_H1,
            VOLUME,
            status,
            "belongs to the operator",
        );
    }
    cases.status(
        "agent-volume-status",
        AGENT_H2,
        VOLUME,
        json!({"reported": job_report("h2")}),
        "only the agent of the job's host",
    );
    cases.status(
        "agent-volume-status",
        AGENT_H1,
        VOLUME,
        json!({"reported": job_report("h2")}),
        "only the agent of the job's host",
    );

    let images = "agent-image-status";
    cases.status(
        images,
        AGENT_H1,
        IMAGE,
        json!({"pools": []}),
        "belongs to the operator",
    );
    cases.status(
        images,
        AGENT_H1,
        IMAGE,
        json!({"inUseBy": 0}),
        "belongs to the operator",
    );
    cases.status(
        images,
        AGENT_H1,
        IMAGE,
        json!({"reports": []}),
        "only entries of its own host",
    );
    cases.status(
        images,
        AGENT_H1,
        IMAGE,
        json!({"reports": [
        {"pool": "other", "host": "h2", "phase": "Ready", "message": ""},
        {"pool": "other", "host": "h1", "phase": "Ready", "message": ""}]}),
        "did not name this host",
    );

    let migrations = "agent-migration-status";
    cases.status(
        migrations,
        AGENT_H1,
        MOVE,
        json!({"phase": "Succeeded"}),
        "belongs to the operator",
    );
    cases.status(
        migrations,
        AGENT_H1,
        MOVE,
        json!({"abortRequested": true}),
        "belongs to the operator",
    );
    cases.status(
        migrations,
        AGENT_H1,
        MOVE,
        json!({"placement": {"message": "nearer to me"}}),
        "belongs to the operator",
    );
    cases.status(
        migrations,
        AGENT_H2,
        MOVE,
        json!({"source": {"assignment": assignment("h1", 4), "phase": "HandedOver"}}),
        "only the agent of the source host",
    );
    cases.status(
        migrations,
        AGENT_H1,
        MOVE,
        json!({"target": {"assignment": assignment("h2", 5), "phase": "Resumed"}}),
        "only the agent of the target host",
    );
    cases.status(
        migrations,
        AGENT_H1,
        MOVE,
        json!({"source": {"assignment": assignment("h1", 3), "phase": "HandedOver"}}),
        "for the assignment that the VM leaves",
    );

    let lease = Target::of("Lease", "zhengyun-system", "host-h1");
    let body = Write::Create(json!({"spec": {"holderIdentity": "h2"}}));
    cases.refuse(
        RefusedBy::Policy("agent-lease"),
        AGENT_H2,
        lease,
        body,
        "may write only Lease zhengyun-system/host-h2",
    );
    for target in [H1, VM, VOLUME, MOVE] {
        let write = Write::Patch(json!({"metadata": {"labels": {"a": "b"}}}));
        cases.refuse(RefusedBy::Roles, AGENT_H1, target, write, "cannot patch");
    }
    for target in [SYSTEM].into_iter().chain(OPERATORS_ALONE) {
        cases.no_role(AGENT_H1, target, json!({"message": "x"}));
    }
}
