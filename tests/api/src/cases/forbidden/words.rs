//! What people may not say in another's name, and what they may not take out of the record.

use super::*;

/// Every word of a person that carries a name: where it stands, and the word itself.
fn words(by: &str) -> [(Target, Value, &'static str); 6] {
    let at = "2026-01-01T00:00:00Z";
    let failover = |word: Value| json!({"failover": word});
    [
        (
            H1,
            json!({"confirmedOff": {"bootId": "boot-h1", "at": at, "by": by, "reason": "cord pulled"}}),
            "spec.confirmedOff.by: is",
        ),
        (
            H1,
            json!({"faultClearance": clearance(by)}),
            "spec.faultClearance.by: is",
        ),
        (
            INCIDENT,
            json!({"closure": {"by": by, "reason": "fan replaced"}}),
            "spec.closure.by: is",
        ),
        (
            POLICY,
            failover(json!({"disarmed": disarmed(by)})),
            "spec.failover.disarmed.by: is",
        ),
        (
            POLICY,
            failover(json!({"armed": {"at": at, "by": by}})),
            "spec.failover.armed.by: is",
        ),
        (
            POLICY,
            failover(
                json!({"rebase": {"frozenSince": at, "at": at, "by": by, "reason": "disk full"}}),
            ),
            "spec.failover.rebase.by: is",
        ),
    ]
}

/// Nobody speaks in another's name, not even who may do everything else.
pub(super) fn names(cases: &mut Cases) {
    let policy = RefusedBy::Policy("people-sign");
    for identity in [SYSTEM_ADMINISTRATOR, CLUSTER_ADMINISTRATOR] {
        for (target, spec, sentence) in words("wang") {
            let write = Write::Patch(json!({"spec": spec}));
            cases.refuse(policy, identity, target, write, sentence);
        }
    }
    // All but the rebase are words of whoever is on call too.
    for (target, spec, sentence) in words("wang").into_iter().take(5) {
        let write = Write::Patch(json!({"spec": spec}));
        cases.refuse(policy, ON_CALL, target, write, sentence);
    }
    // What li said stands under li's name: nobody else changes what it says.
    let reason = Write::Patch(json!({"spec": {"faultClearance": {"reason": "memory replaced"}}}));
    let sentence = "is li, and the API server knows you as ops";
    cases.refuse(policy, SYSTEM_ADMINISTRATOR, H2, reason, sentence);
    let until = json!({"failover": {"disarmed": {"until": "2026-01-01T03:00:00Z"}}});
    let until = Write::Patch(json!({"spec": until}));
    cases.refuse(policy, SYSTEM_ADMINISTRATOR, POLICY, until, sentence);
    // Nor is a word smuggled in with a new object.
    let own = Target::of_site("Host", "h9");
    let spec = json!({"pool": "main", "managementAddress": "10.0.0.9", "faultClearance": clearance("wang")});
    let made = Write::Create(json!({"spec": spec}));
    let sentence = "spec.faultClearance.by: is";
    cases.refuse(policy, SYSTEM_ADMINISTRATOR, own, made, sentence);
}

/// An Incident stays what it was, for as long as it must be kept.
pub(super) fn records(cases: &mut Cases) {
    let policy = RefusedBy::Policy("incident-record");
    let sentence = "kept for at least 180 days";
    for target in [INCIDENT, CLOSED] {
        cases.refuse(
            policy,
            CLUSTER_ADMINISTRATOR,
            target,
            Write::Delete,
            sentence,
        );
        for identity in [SYSTEM_ADMINISTRATOR, ON_CALL] {
            cases.refuse(
                RefusedBy::Roles,
                identity,
                target,
                Write::Delete,
                "cannot delete",
            );
        }
    }
    cases.refuse(policy, OPERATOR, INCIDENT, Write::Delete, sentence);
    let sentence = "people write spec.closure only";
    for spec in [
        json!({"title": "nothing happened"}),
        json!({"titleChinese": "无事发生"}),
        json!({"causeClass": "Planned"}),
        json!({"openedAt": "2026-01-02T00:00:00.000000Z"}),
        json!({"host": "h2"}),
        json!({"title": "x", "closure": {"by": "li", "reason": "x"}}),
    ] {
        let write = Write::Patch(json!({"spec": spec}));
        cases.refuse(policy, ON_CALL, INCIDENT, write, sentence);
    }
    let write = Write::Patch(json!({"spec": {"causeClass": "Planned"}}));
    for identity in [SYSTEM_ADMINISTRATOR, CLUSTER_ADMINISTRATOR] {
        cases.refuse(policy, identity, CLOSED, write.clone(), sentence);
    }
    let spec = json!({"cause": "storm", "causeClass": "Network", "title": "x", "openedAt": "2026-01-01T00:00:00.000000Z"});
    let invented = Target::of_site("Incident", "invented");
    cases.refuse(
        RefusedBy::Roles,
        SYSTEM_ADMINISTRATOR,
        invented,
        Write::Create(json!({"spec": spec})),
        "cannot create",
    );
}
