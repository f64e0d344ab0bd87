//! Writes that must be refused: each fact has one writer.

use serde_json::{Value, json};

use super::standing::{assignment, report, runtime};
use crate::server::{
    AGENT_H1, AGENT_H2, CLUSTER_ADMINISTRATOR, DEPARTMENT_USER, Identity, OPERATOR,
    SYSTEM_ADMINISTRATOR, Target, Write,
};

/// What refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// The admission policy of this name (without the group's suffix).
    Policy(&'static str),
    /// A role that the identity lacks.
    Roles,
}

/// One write that must be refused.
#[derive(Clone, Debug)]
pub struct Forbidden {
    /// What is tried, for the test's output.
    pub what: String,
    /// Who tries.
    pub identity: Identity,
    /// On what.
    pub target: Target,
    /// What is written.
    pub write: Write,
    /// What refuses it.
    pub by: RefusedBy,
    /// Part of the sentence that the writer reads.
    pub sentence: &'static str,
}

const VM: Target = Target {
    kind: "VirtualMachine",
    namespace: "oa-office",
    name: "vm1",
};
const VOLUME: Target = Target {
    kind: "Volume",
    namespace: "oa-office",
    name: "vm1-system",
};
const MOVE: Target = Target {
    kind: "VirtualMachineMigration",
    namespace: "oa-office",
    name: "move1",
};
const SYSTEM: Target = Target {
    kind: "BusinessSystem",
    namespace: "oa-office",
    name: "oa",
};
const IMAGE: Target = Target {
    kind: "Image",
    namespace: "",
    name: "linux",
};
const H1: Target = Target {
    kind: "Host",
    namespace: "",
    name: "h1",
};

struct Cases(Vec<Forbidden>);

impl Cases {
    fn refuse(
        &mut self,
        by: RefusedBy,
        identity: Identity,
        target: Target,
        write: Write,
        sentence: &'static str,
    ) {
        let what = format!(
            "{} writes {} {}: {write:?}",
            identity.user, target.kind, target.name
        );
        self.0.push(Forbidden {
            what,
            identity,
            target,
            write,
            by,
            sentence,
        });
    }

    fn status(
        &mut self,
        policy: &'static str,
        identity: Identity,
        target: Target,
        status: Value,
        sentence: &'static str,
    ) {
        let write = Write::PatchStatus(json!({"status": status}));
        self.refuse(RefusedBy::Policy(policy), identity, target, write, sentence);
    }
}

/// Every forbidden write.
pub fn forbidden() -> Vec<Forbidden> {
    let mut cases = Cases(Vec::new());
    agents_on_hosts(&mut cases);
    agents_on_machines(&mut cases);
    agents_on_the_rest(&mut cases);
    operator(&mut cases);
    people(&mut cases);
    deletions(&mut cases);
    cases.0
}

fn agents_on_hosts(cases: &mut Cases) {
    let policy = "agent-host-status";
    for (field, value) in [
        ("state", json!("Ready")),
        ("stateReason", json!("x")),
        ("stateSince", json!("2026-01-01T00:00:00Z")),
        ("lastSeen", json!("2026-01-01T00:00:00Z")),
        ("power", json!("On")),
        ("virtualMachines", json!(7)),
        ("faultCount", json!(7)),
        ("retiredBootIds", json!([])),
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
            "attempts": 1, "reason": "r", "by": "x"}),
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

fn agents_on_machines(cases: &mut Cases) {
    let policy = "agent-vm-status";
    for status in [
        json!({"incoming": null}),
        json!({"proofs": [{"kind": "Closed", "host": "h1", "bootId": "b", "epoch": 1, "evidence": "x"}]}),
        json!({"nics": [{"network": "common", "macAddress": "x", "addresses": []}]}),
        json!({"phase": "Running"}),
        json!({"message": "x"}),
        json!({"placement": {"message": "x"}}),
        json!({"restarts": 3}),
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

fn agents_on_the_rest(cases: &mut Cases) {
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

    let lease = Target {
        kind: "Lease",
        namespace: "zhengyun-system",
        name: "host-h1",
    };
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
}

fn operator(cases: &mut Cases) {
    let policy = "operator-status";
    cases.status(
        policy,
        OPERATOR,
        H1,
        json!({"reported": report("boot-x", "uuid-h1")}),
        "belongs to the host's agent",
    );
    cases.status(
        policy,
        OPERATOR,
        VM,
        json!({"runtime": null}),
        "belong to the agents",
    );
    cases.status(
        policy,
        OPERATOR,
        VM,
        json!({"incomingRuntime": runtime("h2", 5)}),
        "belong to the agents",
    );
    cases.status(
        policy,
        OPERATOR,
        VOLUME,
        json!({"reported": {"assignment": assignment("h1", 3), "phase": "Done"}}),
        "belongs to the agent of the job's host",
    );
    cases.status(
        policy,
        OPERATOR,
        IMAGE,
        json!({"reports": []}),
        "belong to the agents",
    );
    cases.status(
        policy,
        OPERATOR,
        MOVE,
        json!({"source": {"assignment": assignment("h1", 4), "phase": "HandedOver"}}),
        "belong to the agents of the two hosts",
    );

    let epochs = "epochs-grow";
    cases.status(
        epochs,
        OPERATOR,
        VM,
        json!({"lastEpoch": 4, "incoming": null}),
        "epochs only grow",
    );
    cases.status(
        epochs,
        OPERATOR,
        VM,
        json!({"assignment": assignment("h1", 9)}),
        "above status.lastEpoch",
    );
    cases.status(
        epochs,
        OPERATOR,
        VM,
        json!({"assignment": assignment("h2", 4)}),
        "needs a new epoch",
    );
    cases.status(
        epochs,
        OPERATOR,
        VOLUME,
        json!({"lastJob": 2}),
        "job numbers only grow",
    );

    let spec = Write::Patch(json!({"spec": {"displayName": "x"}}));
    cases.refuse(
        RefusedBy::Policy("operator-keeps-specs"),
        OPERATOR,
        SYSTEM,
        spec,
        "belongs to its user",
    );
    let rack = Write::Patch(json!({"spec": {"rack": "r9"}}));
    cases.refuse(
        RefusedBy::Policy("operator-keeps-specs"),
        OPERATOR,
        H1,
        rack,
        "belongs to its user",
    );

    let binding = Target {
        kind: "RoleBinding",
        namespace: "kube-system",
        name: "grab",
    };
    let body = Write::Create(json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "zhengyun-secrets"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "zhengyun:operator"}]}));
    cases.refuse(
        RefusedBy::Policy("operator-bindings"),
        OPERATOR,
        binding,
        body,
        "grants no roles in kube-system",
    );
    let namespace = Target {
        kind: "Namespace",
        namespace: "",
        name: "elsewhere",
    };
    cases.refuse(
        RefusedBy::Policy("operator-namespaces"),
        OPERATOR,
        namespace,
        Write::Delete,
        "does not touch namespace elsewhere",
    );
    let label = Write::Patch(json!({"metadata": {"labels": {"zhengyun.io/department": "x"}}}));
    cases.refuse(
        RefusedBy::Policy("operator-namespaces"),
        OPERATOR,
        namespace,
        label,
        "does not touch namespace elsewhere",
    );
    let department = Target {
        kind: "Namespace",
        namespace: "",
        name: "oa-office",
    };
    cases.refuse(
        RefusedBy::Policy("operator-namespaces"),
        OPERATOR,
        department,
        Write::Delete,
        "does not touch namespace oa-office",
    );
}

fn people(cases: &mut Cases) {
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

fn deletions(cases: &mut Cases) {
    for (kind, namespace, name, sentence) in [
        (
            "Host",
            "",
            "h1",
            "host h1 is in use by 1 VMs; drain it first",
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
            "Volume",
            "oa-office",
            "vm1-system",
            "is claimed by a VM on host h1",
        ),
    ] {
        let target = Target {
            kind,
            namespace,
            name,
        };
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
