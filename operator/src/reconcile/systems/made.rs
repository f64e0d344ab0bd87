//! Which tiers of a system are made. Pure. What a tier is made of can be corrected while the system's
//! status leaves the tier out; so the operator first writes the tier there, by compare-and-swap with the
//! version that it judged, and makes something only of a version that has it there: between that word
//! and the making, the API server lets nobody change what the tier is made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, Tier, VirtualMachine, Volume};
use kube::ResourceExt;
use kube::api::ObjectMeta;

/// Declared tiers of which something was made: told before, or something of them stands.
pub(super) fn made(
    system: &BusinessSystem,
    vms: &[Arc<VirtualMachine>],
    volumes: &[Arc<Volume>],
) -> BTreeSet<String> {
    let own = system.name_any();
    let of_tier = |metadata: &ObjectMeta, tier: &Tier| {
        let has = |label: &str, value: &String| {
            let labels = metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(label)) == Some(value)
        };
        metadata.namespace == system.metadata.namespace
            && has(LABEL_SYSTEM, &own)
            && has(LABEL_TIER, &tier.name)
    };
    let tiers = system.spec.tiers.iter().filter(|tier| {
        told(system, tier)
            || vms.iter().any(|vm| of_tier(&vm.metadata, tier))
            || volumes.iter().any(|volume| of_tier(&volume.metadata, tier))
    });
    tiers.map(|tier| tier.name.clone()).collect()
}

/// What the status is to tell: what is made, and what will be from the next turn on when nothing of the
/// system is refused.
pub(super) fn claimed(
    system: &BusinessSystem,
    made: &BTreeSet<String>,
    refused: bool,
) -> Vec<String> {
    let tiers = system.spec.tiers.iter().filter(|tier| {
        let to_be_made = !refused && tier.replicas > 0;
        to_be_made || made.contains(&tier.name)
    });
    tiers.map(|tier| tier.name.clone()).collect()
}

/// Whether the status of this version of the system has the tier: only then is something made of it.
pub(super) fn told(system: &BusinessSystem, tier: &Tier) -> bool {
    let status = system.status.as_ref();
    status
        .and_then(|status| status.made_tiers.as_ref())
        .is_some_and(|tiers| tiers.contains(&tier.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn system(status: Value) -> BusinessSystem {
        let tier = |name: &str, replicas: i32| {
            json!({
                "name": name, "replicas": replicas, "flavor": "small", "image": "linux",
                "networks": ["common"], "storagePool": "shared",
                "dataDisks": [{"name": "data", "size": "1Gi"}]})
        };
        serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem",
            "metadata": {"name": "oa", "namespace": "oa-office"},
            "spec": {"displayName": "oa", "tiers": [tier("web", 2), tier("database", 1), tier("spare", 0)]},
            "status": status
        }))
        .expect("a system")
    }

    fn names(tiers: &BTreeSet<String>) -> Vec<&str> {
        tiers.iter().map(String::as_str).collect()
    }

    #[test]
    fn nothing_is_made_of_a_tier_before_the_status_has_it() {
        let web = |system: &BusinessSystem| told(system, &system.spec.tiers[0]);
        assert!(!web(&system(Value::Null)));
        assert!(!web(&system(json!({}))));
        assert!(!web(&system(json!({"madeTiers": []}))));
        assert!(!web(&system(json!({"madeTiers": ["database"]}))));
        assert!(web(&system(json!({"madeTiers": ["database", "web"]}))));
    }

    #[test]
    fn what_is_refused_is_not_claimed_and_what_was_claimed_stays() {
        let fresh = system(Value::Null);
        let none = made(&fresh, &[], &[]);
        assert_eq!(names(&none), [""; 0]);
        assert_eq!(claimed(&fresh, &none, true), [""; 0]);
        // A tier without replicas has nothing to make.
        assert_eq!(claimed(&fresh, &none, false), ["web", "database"]);

        // Refused later, and nothing stands yet: the VMs may be on their way.
        let told = system(json!({"madeTiers": ["web", "removed"]}));
        let kept = made(&told, &[], &[]);
        assert_eq!(names(&kept), ["web"], "what is declared no longer goes");
        assert_eq!(claimed(&told, &kept, true), ["web"]);
    }

    #[test]
    fn what_stands_is_made_whatever_the_status_says() {
        let own = system(json!({"madeTiers": []}));
        let (web, database) = (&own.spec.tiers[0], &own.spec.tiers[1]);
        let vm = Arc::new(fleet::system::vm(None, &own, web, 1));
        let kept = fleet::system::volumes(None, &own, database, 0);
        let volumes: Vec<Arc<Volume>> = kept.into_iter().skip(1).map(Arc::new).collect();
        let vms = [vm];
        assert_eq!(names(&made(&own, &vms, &[])), ["web"]);
        assert_eq!(names(&made(&own, &[], &volumes)), ["database"]);
        let mut elsewhere = own.clone();
        elsewhere.metadata.namespace = Some("archives".to_owned());
        assert_eq!(names(&made(&elsewhere, &vms, &volumes)), [""; 0]);
        let mut other = own.clone();
        other.metadata.name = Some("archive".to_owned());
        assert_eq!(names(&made(&other, &vms, &volumes)), [""; 0]);
    }
}
