//! From a business system to its VMs and volumes: for the operator, which makes them, and for
//! the command line, which asks where they would go.

use std::collections::BTreeMap;

use api::names::{FINALIZER, LABEL_REPLICA, LABEL_SYSTEM, LABEL_TIER};
use api::{
    BusinessSystem, BusinessSystemSpec, DataDisk, Disk, Flavor, Image, RunStrategy, Spread,
    SpreadOver, Tier, VirtualMachine, VirtualMachineSpec, Volume, VolumeSpec,
};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use model::NamespacedName;

/// Replicas are kept apart on hosts unless told otherwise.
pub fn spread_of(tier: &Tier) -> Option<Spread> {
    tier.spread.clone().or_else(|| {
        (tier.replicas > 1).then_some(Spread {
            over: SpreadOver::Host,
            required: true,
        })
    })
}

/// The business system that a VM belongs to; none of a VM that stands alone.
pub fn system_of(vm: &VirtualMachine) -> Option<NamespacedName> {
    let system = vm.labels().get(LABEL_SYSTEM)?.clone();
    Some(NamespacedName::new(vm.namespace()?, system))
}

/// Name of a tier's VM.
pub fn vm_name(system: &BusinessSystem, tier: &Tier, replica: i32) -> String {
    format!("{}-{}-{replica}", system.name_any(), tier.name)
}

/// Name of the volume of a VM's disk.
pub fn volume_name(vm: &str, disk: &str) -> String {
    format!("{vm}-{disk}")
}

/// Names of the disks of a tier's VMs, the system disk first.
pub fn disk_names(tier: &Tier) -> impl Iterator<Item = &str> {
    let data = tier.data_disks.iter().map(|disk| disk.name.as_str());
    std::iter::once("system").chain(data)
}

fn labels(system: &BusinessSystem, tier: &Tier, replica: i32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_SYSTEM.to_owned(), system.name_any()),
        (LABEL_TIER.to_owned(), tier.name.clone()),
        (LABEL_REPLICA.to_owned(), replica.to_string()),
    ])
}

/// Volumes of one VM, the system disk first. Without its image a system disk has no size.
pub fn volumes(
    image: Option<&Image>,
    system: &BusinessSystem,
    tier: &Tier,
    replica: i32,
) -> Vec<Volume> {
    let vm = vm_name(system, tier, replica);
    let format = image.map(|image| image.spec.format).unwrap_or_default();
    let size = tier
        .system_disk_size
        .clone()
        .or_else(|| image.map(|image| image.spec.minimum_size.clone()))
        .unwrap_or_default();
    let make = |disk: &str, spec: VolumeSpec| Volume {
        metadata: ObjectMeta {
            name: Some(volume_name(&vm, disk)),
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
    let disks = tier.data_disks.iter();
    std::iter::once(make("system", system_disk))
        .chain(disks.map(|disk| make(&disk.name, data(disk))))
        .collect()
}

/// What a VM follows its system in, whenever that changes: what rules the VM's future, not what it is made of.
pub fn follow(spec: &mut VirtualMachineSpec, system: &BusinessSystemSpec, tier: &Tier) {
    spec.high_availability = tier.high_availability;
    spec.priority = system.priority;
    spec.restart_order = tier.restart_order;
    spec.start_timeout_seconds = tier.start_timeout_seconds;
    spec.mlps_grade = system.mlps_grade;
    spec.spread = spread_of(tier);
}

/// One VM of a tier, without cloud-init. Without its flavor it has the smallest size.
pub fn vm(
    flavor: Option<&Flavor>,
    system: &BusinessSystem,
    tier: &Tier,
    replica: i32,
) -> VirtualMachine {
    let name = vm_name(system, tier, replica);
    let (cpu, memory) = flavor
        .map(|flavor| (flavor.spec.cpu, flavor.spec.memory.clone()))
        .unwrap_or((1, "1Gi".to_owned()));
    let owner = system.controller_owner_ref(&());
    let disk = |disk: &str| Disk {
        name: disk.to_owned(),
        volume: volume_name(&name, disk),
    };
    VirtualMachine {
        metadata: ObjectMeta {
            name: Some(name.clone()),
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
            disks: disk_names(tier).map(disk).collect(),
            networks: tier.networks.clone(),
            run_strategy: RunStrategy::Always,
            high_availability: tier.high_availability,
            priority: system.spec.priority,
            restart_order: tier.restart_order,
            start_timeout_seconds: tier.start_timeout_seconds,
            mlps_grade: system.spec.mlps_grade,
            spread: spread_of(tier),
            affinity: Vec::new(),
            cloud_init: None,
        },
        status: None,
    }
}
