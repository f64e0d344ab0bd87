//! What the operator may not write.

use super::*;

pub(super) fn operator(cases: &mut Cases) {
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
    // Not even with a new epoch, unless it is a rebase's; and a rebase only takes away.
    cases.status(
        policy,
        OPERATOR,
        VM,
        json!({"runtime": null, "lastEpoch": 999_999}),
        "belong to the agents",
    );
    cases.status(
        policy,
        OPERATOR,
        VM,
        json!({"incomingRuntime": runtime("h2", 5), "lastEpoch": 1_000_000}),
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

    let binding = Target::of("RoleBinding", "kube-system", "grab");
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
    let namespace = Target::of_site("Namespace", "elsewhere");
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
    let department = Target::of_site("Namespace", "oa-office");
    cases.refuse(
        RefusedBy::Policy("operator-namespaces"),
        OPERATOR,
        department,
        Write::Delete,
        "does not touch namespace oa-office",
    );
}
