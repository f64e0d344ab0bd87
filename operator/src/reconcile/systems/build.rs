//! From a business system to its VMs, volumes and cloud-init Secrets.

use std::collections::BTreeMap;

use api::names::{FINALIZER, LABEL_REPLICA, LABEL_SYSTEM, LABEL_TIER};
use api::{
    BusinessSystem, DataDisk, Disk, RunStrategy, SecretReference, Spread, SpreadOver, Tier,
    VirtualMachine, VirtualMachineSpec, Volume, VolumeSpec,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::runtime::Context;

/// Replicas are kept apart on hosts unless told otherwise.
pub(super) fn spread_of(tier: &Tier) -> Option<Spread> {
    tier.spread.clone().or_else(|| {
        (tier.replicas > 1).then_some(Spread {
            over: SpreadOver::Host,
            required: true,
        })
    })
}

fn labels(system: &BusinessSystem, tier: &Tier, replica: i32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_SYSTEM.to_owned(), system.name_any()),
        (LABEL_TIER.to_owned(), tier.name.clone()),
        (LABEL_REPLICA.to_owned(), replica.to_string()),
    ])
}

pub(super) fn build_volumes(
    context: &Context,
    system: &BusinessSystem,
    tier: &Tier,
    vm: &str,
    replica: i32,
) -> Vec<Volume> {
    let image = context
        .stores
        .images
        .state()
        .into_iter()
        .find(|image| image.name_any() == tier.image);
    let format = image
        .as_ref()
        .map(|image| image.spec.format)
        .unwrap_or_default();
    let size = tier
        .system_disk_size
        .clone()
        .or_else(|| image.map(|image| image.spec.minimum_size.clone()))
        .unwrap_or_default();
    let make = |disk: &str, spec: VolumeSpec| Volume {
        metadata: ObjectMeta {
            name: Some(format!("{vm}-{disk}")),
            namespace: system.namespace(),
            labels: Some(labels(system, tier, replica)),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let system_disk = VolumeSpec {
        pool: tier.storage_pool.clone(),
        size,
        format,
        image: Some(tier.image.clone()),
        reclaim_policy: Default::default(),
    };
    let data = |disk: &DataDisk| VolumeSpec {
        pool: disk
            .storage_pool
            .clone()
            .unwrap_or_else(|| tier.storage_pool.clone()),
        size: disk.size.clone(),
        format: disk.format,
        image: None,
        reclaim_policy: Default::default(),
    };
    std::iter::once(make("system", system_disk))
        .chain(
            tier.data_disks
                .iter()
                .map(|disk| make(&disk.name, data(disk))),
        )
        .collect()
}

pub(super) fn build_vm(
    context: &Context,
    system: &BusinessSystem,
    tier: &Tier,
    name: &str,
    replica: i32,
) -> (VirtualMachine, Option<Secret>) {
    let flavor = context
        .stores
        .flavors
        .state()
        .into_iter()
        .find(|flavor| flavor.name_any() == tier.flavor);
    let (cpu, memory) = flavor
        .map(|flavor| (flavor.spec.cpu, flavor.spec.memory.clone()))
        .unwrap_or((1, "1Gi".to_owned()));
    let owner = system.controller_owner_ref(&());
    let disk = |disk: &str| Disk {
        name: disk.to_owned(),
        volume: format!("{name}-{disk}"),
    };
    let secret_name = format!("{name}-cloud-init");
    let inline = tier
        .cloud_init
        .as_ref()
        .and_then(|config| config.user_data.clone());
    let secret = inline.map(|text| Secret {
        metadata: ObjectMeta {
            name: Some(secret_name.clone()),
            namespace: system.namespace(),
            owner_references: owner.clone().map(|owner| vec![owner]),
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
    let vm = VirtualMachine {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: system.namespace(),
            labels: Some(labels(system, tier, replica)),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: VirtualMachineSpec {
            cpu,
            memory,
            image: tier.image.clone(),
            disks: std::iter::once(disk("system"))
                .chain(tier.data_disks.iter().map(|data| disk(&data.name)))
                .collect(),
            networks: tier.networks.clone(),
            run_strategy: RunStrategy::Always,
            high_availability: tier.high_availability,
            priority: system.spec.priority,
            restart_order: tier.restart_order,
            start_timeout_seconds: tier.start_timeout_seconds,
            mlps_grade: system.spec.mlps_grade,
            spread: spread_of(tier),
            affinity: Vec::new(),
            cloud_init: given.or_else(|| {
                secret
                    .is_some()
                    .then_some(SecretReference { name: secret_name })
            }),
        },
        status: None,
    };
    (vm, secret)
}
