//! From a business system to what is made of it: a VM as `fleet` builds it, and the cloud-init Secret; and what an existing VM follows its system in.

use std::collections::BTreeMap;

use api::{
    BusinessSystem, BusinessSystemSpec, Flavor, SecretReference, Tier, VirtualMachine,
    VirtualMachineSpec,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::merge;

pub(super) fn build_vm(
    flavor: &Flavor,
    system: &BusinessSystem,
    tier: &Tier,
    replica: i32,
) -> (VirtualMachine, Option<Secret>) {
    let mut vm = fleet::system::vm(Some(flavor), system, tier, replica);
    let secret_name = format!("{}-cloud-init", vm.name_any());
    let inline = tier
        .cloud_init
        .as_ref()
        .and_then(|config| config.user_data.clone());
    let owner = system.controller_owner_ref(&());
    let secret = inline.map(|text| Secret {
        metadata: ObjectMeta {
            name: Some(secret_name.clone()),
            namespace: system.namespace(),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            "user-data".to_owned(),
            ByteString(text.into_bytes()),
        )])),
        ..Secret::default()
    });
    let given = tier
        .cloud_init
        .as_ref()
        .and_then(|config| config.secret.clone());
    let made = secret.is_some();
    vm.spec.cloud_init = given.or_else(|| made.then_some(SecretReference { name: secret_name }));
    (vm, secret)
}

/// What a VM's spec lacks of what its system declares now, as a merge patch; none when it has all of
/// it. Only what rules the VM's future may change under it; what it is made of may not.
pub(super) fn changes(
    present: &VirtualMachineSpec,
    system: &BusinessSystemSpec,
    tier: &Tier,
) -> Option<Value> {
    let mut declared = present.clone();
    fleet::system::follow(&mut declared, system, tier);
    (declared != *present).then(|| merge::patch(&json!(present), &json!(declared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_follows_its_system_in_what_may_change_and_in_nothing_else() {
        let system: BusinessSystem = serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem",
            "metadata": {"name": "oa", "namespace": "oa-office"},
            "spec": {"displayName": "oa", "tiers": [{
                "name": "web", "replicas": 2, "flavor": "small", "image": "linux",
                "networks": ["common"], "storagePool": "shared"}]}
        }))
        .expect("a system");
        let tier = &system.spec.tiers[0];
        let vm = fleet::system::vm(None, &system, tier, 0);
        assert_eq!(
            changes(&vm.spec, &system.spec, tier),
            None,
            "as it was made"
        );

        let mut user = vm.spec.clone();
        user.run_strategy = api::RunStrategy::Halted;
        assert_eq!(changes(&user, &system.spec, tier), None, "its user's own");

        let mut after = system.spec.clone();
        after.priority = serde_json::from_value(json!("Critical")).expect("a priority");
        after.mlps_grade = 3;
        let tier = &mut after.tiers[0];
        (
            tier.replicas,
            tier.restart_order,
            tier.start_timeout_seconds,
        ) = (1, 4, 30);
        tier.high_availability = api::HighAvailability::None;
        tier.image = "other".to_owned();
        assert_eq!(
            changes(&vm.spec, &after, &after.tiers[0]),
            Some(json!({
                "highAvailability": "None", "priority": "Critical", "restartOrder": 4,
                "startTimeoutSeconds": 30, "mlpsGrade": 3, "spread": null}))
        );
        after.tiers[0].spread = Some(api::Spread {
            over: api::SpreadOver::Rack,
            required: true,
        });
        let patch = changes(&vm.spec, &after, &after.tiers[0]).expect("changes");
        assert_eq!(
            patch["spread"],
            json!({"over": "Rack"}),
            "only what differs"
        );
    }
}
