//! From a business system to what is made of it: VM and volumes as `fleet` builds them, and the
//! cloud-init Secret.

use std::collections::BTreeMap;

use api::{BusinessSystem, SecretReference, Tier, VirtualMachine, Volume};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::runtime::Context;

pub(super) fn build_volumes(
    context: &Context,
    system: &BusinessSystem,
    tier: &Tier,
    replica: i32,
) -> Vec<Volume> {
    let images = context.stores.images.state();
    let image = images.iter().find(|image| image.name_any() == tier.image);
    fleet::system::volumes(image.map(AsRef::as_ref), system, tier, replica)
}

pub(super) fn build_vm(
    context: &Context,
    system: &BusinessSystem,
    tier: &Tier,
    replica: i32,
) -> (VirtualMachine, Option<Secret>) {
    let flavors = context.stores.flavors.state();
    let flavor = flavors
        .iter()
        .find(|flavor| flavor.name_any() == tier.flavor);
    let mut vm = fleet::system::vm(flavor.map(AsRef::as_ref), system, tier, replica);
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
