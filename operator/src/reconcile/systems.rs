//! Business systems: makes their VMs, volumes and cloud-init Secrets, and says how they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::names::{FINALIZER, LABEL_REPLICA, LABEL_SYSTEM, LABEL_TIER};
use api::{
    BusinessSystem, DataDisk, Disk, EndpointStatus, RunStrategy, SecretReference, Spread,
    SpreadOver, Tier, VirtualMachine, VirtualMachinePhase, VirtualMachineSpec, Volume, VolumeSpec,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::condition;
use crate::probes::{Seen, endpoint_key};
use crate::runtime::Context;
use crate::writer::logged;

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    for system in context.stores.systems.state() {
        let problems = validate(context, &system);
        if problems.is_empty() && system.metadata.deletion_timestamp.is_none() {
            apply(context, &system).await;
        }
        update_status(context, &system, &problems).await;
    }
}

/// Everything that the system names and that is not there or does not fit: field, value, remedy.
fn validate(context: &Context, system: &BusinessSystem) -> Vec<String> {
    let mut problems = Vec::new();
    let networks = context.stores.networks.state();
    let pools = context.stores.storage_pools.state();
    let host_pools = context.stores.host_pools.state();
    for tier in &system.spec.tiers {
        let at = |field: &str| format!("spec.tiers[{}].{field}", tier.name);
        let missing = |field: &str, kind: &str, name: &str| {
            format!(
                "{}: {kind} {name} does not exist; correct the name or create it",
                at(field)
            )
        };
        if !context
            .stores
            .flavors
            .state()
            .iter()
            .any(|flavor| flavor.name_any() == tier.flavor)
        {
            problems.push(missing("flavor", "Flavor", &tier.flavor));
        }
        let image = context
            .stores
            .images
            .state()
            .into_iter()
            .find(|image| image.name_any() == tier.image);
        if image.is_none() {
            problems.push(missing("image", "Image", &tier.image));
        }
        let used = std::iter::once(&tier.storage_pool).chain(
            tier.data_disks
                .iter()
                .filter_map(|disk| disk.storage_pool.as_ref()),
        );
        for pool in used {
            if !pools.iter().any(|known| known.name_any() == *pool) {
                problems.push(missing("storagePool", "StoragePool", pool));
            }
        }
        let mut zones = Vec::new();
        for name in &tier.networks {
            match networks.iter().find(|network| network.name_any() == *name) {
                Some(network) => zones.push(network.spec.zone),
                None => problems.push(missing("networks", "Network", name)),
            }
        }
        let serving = host_pools
            .iter()
            .filter(|pool| zones.iter().all(|zone| pool.spec.zones.contains(zone)))
            .collect::<Vec<_>>();
        if serving.is_empty() && !zones.is_empty() {
            let names: Vec<String> = zones
                .iter()
                .map(|zone| format!("{zone} ({})", zone.chinese()))
                .collect();
            problems.push(format!(
                "{}: no host pool serves {}; choose networks of one zone, or let a pool serve it",
                at("networks"),
                names.join(" and ")
            ));
        } else if !serving
            .iter()
            .any(|pool| pool.spec.mlps_grade >= system.spec.mlps_grade)
        {
            problems.push(format!("spec.mlpsGrade: {} is above the grade of every host pool of that zone; lower it or raise a pool's mlpsGrade", system.spec.mlps_grade));
        } else if let Some(image) = &image
            && !serving
                .iter()
                .any(|pool| pool.spec.architecture == image.spec.architecture)
        {
            problems.push(format!(
                "{}: image {} is for {}, and no host pool of that zone is; choose another image",
                at("image"),
                tier.image,
                image.spec.architecture
            ));
        }
        let spread = tier.replicas > 1 && spread_of(tier).is_some_and(|spread| spread.required);
        let hosts = context
            .stores
            .hosts
            .state()
            .iter()
            .filter(|host| serving.iter().any(|pool| pool.name_any() == host.spec.pool))
            .count();
        if spread && usize::try_from(tier.replicas).unwrap_or(0) > hosts {
            problems.push(format!("{}: {} replicas must be on different hosts and the pool has {hosts}; lower replicas, add hosts, or set spread.required to false", at("replicas"), tier.replicas));
        }
    }
    problems
}

/// Replicas are kept apart on hosts unless told otherwise.
fn spread_of(tier: &Tier) -> Option<Spread> {
    tier.spread.clone().or_else(|| {
        (tier.replicas > 1).then_some(Spread {
            over: SpreadOver::Host,
            required: true,
        })
    })
}

async fn apply(context: &Context, system: &BusinessSystem) {
    let namespace = system.namespace().unwrap_or_default();
    let (vms, volumes) = (context.stores.vms.state(), context.stores.volumes.state());
    for tier in &system.spec.tiers {
        for replica in 0..tier.replicas {
            let name = format!("{}-{}-{replica}", system.name_any(), tier.name);
            if vms.iter().any(|vm| {
                vm.name_any() == name && vm.namespace().as_deref() == Some(namespace.as_str())
            }) {
                continue;
            }
            for volume in build_volumes(context, system, tier, &name, replica) {
                if !volumes.iter().any(|known| {
                    known.name_any() == volume.name_any() && known.namespace() == volume.namespace()
                }) && let Err(error) = context.writer.create(&volume).await
                {
                    return logged("volume", &volume.name_any(), Err(error));
                }
            }
            let (vm, secret) = build_vm(context, system, tier, &name, replica);
            if let Some(secret) = secret
                && let Err(error) = context.writer.apply(&secret).await
            {
                return logged("cloud-init Secret", &name, Err(error));
            }
            logged("VM", &name, context.writer.create(&vm).await);
        }
    }
    remove_surplus(context, system, &vms).await;
}

/// VMs of tiers or replicas that are no longer declared.
async fn remove_surplus(context: &Context, system: &BusinessSystem, vms: &[Arc<VirtualMachine>]) {
    let name = system.name_any();
    for vm in vms.iter().filter(|vm| {
        vm.namespace() == system.namespace() && vm.labels().get(LABEL_SYSTEM) == Some(&name)
    }) {
        let replica = vm
            .labels()
            .get(LABEL_REPLICA)
            .and_then(|text| text.parse::<i32>().ok())
            .unwrap_or(0);
        let declared =
            system.spec.tiers.iter().any(|tier| {
                vm.labels().get(LABEL_TIER) == Some(&tier.name) && replica < tier.replicas
            });
        if !declared && vm.metadata.deletion_timestamp.is_none() {
            logged(
                "surplus VM",
                &vm.name_any(),
                context.writer.delete(vm.as_ref()).await,
            );
        }
    }
}

fn labels(system: &BusinessSystem, tier: &Tier, replica: i32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_SYSTEM.to_owned(), system.name_any()),
        (LABEL_TIER.to_owned(), tier.name.clone()),
        (LABEL_REPLICA.to_owned(), replica.to_string()),
    ])
}

fn build_volumes(
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

fn build_vm(
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

async fn update_status(context: &Context, system: &BusinessSystem, problems: &[String]) {
    let status = system.status.clone().unwrap_or_default();
    let name = system.name_any();
    let vms: Vec<_> = context
        .stores
        .vms
        .state()
        .into_iter()
        .filter(|vm| {
            vm.namespace() == system.namespace() && vm.labels().get(LABEL_SYSTEM) == Some(&name)
        })
        .collect();
    let alive = |vm: &&Arc<VirtualMachine>| {
        matches!(
            vm.status.as_ref().and_then(|status| status.phase),
            Some(VirtualMachinePhase::Running | VirtualMachinePhase::Migrating)
        )
    };
    let wanted: usize = system
        .spec
        .tiers
        .iter()
        .map(|tier| usize::try_from(tier.replicas).unwrap_or(0))
        .sum();
    let running = vms.iter().filter(alive).count();
    let mut endpoints = Vec::new();
    for endpoint in &system.spec.endpoints {
        let (seen, since, up, replicas) = context.probes.endpoint(&endpoint_key(system, endpoint));
        let state = format!("{seen:?}");
        let known = status
            .endpoints
            .iter()
            .find(|known| known.name == endpoint.name && known.state == state);
        let since = known.map_or_else(|| since.map(api::Time), |known| known.since.clone());
        endpoints.push(EndpointStatus {
            name: endpoint.name.clone(),
            state,
            since,
            replicas_up: up,
            replicas,
        });
    }
    let up = endpoints
        .iter()
        .filter(|endpoint| endpoint.state == "Up")
        .count();
    let down: Vec<&str> = endpoints
        .iter()
        .filter(|endpoint| endpoint.state == format!("{:?}", Seen::Down))
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    let was_up = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready"
            && (condition.status == "True"
                || condition.reason == "Down"
                || condition.reason == "Degraded")
    });
    let waiting = vms.iter().find(|vm| !alive(vm)).map(|vm| {
        format!(
            "VM {}: {}",
            vm.name_any(),
            vm.status
                .as_ref()
                .and_then(|status| status.message.clone())
                .unwrap_or_else(|| "waits".to_owned())
        )
    });
    let (state, message) = if !problems.is_empty() {
        ("Invalid", problems.join("; "))
    } else if !down.is_empty() && was_up {
        ("Down", format!("no replica answers: {}", down.join(", ")))
    } else if running == wanted && up == endpoints.len() {
        ("Ready", String::new())
    } else if was_up {
        ("Degraded", waiting.unwrap_or_default())
    } else {
        (
            "Progressing",
            waiting.unwrap_or_else(|| "waits for its endpoints to answer".to_owned()),
        )
    };
    let conditions = condition(
        &status.conditions,
        "Ready",
        state == "Ready",
        state,
        &message,
        system.metadata.generation,
    );
    let mut after = status.clone();
    after.state = state.to_owned();
    after.message = message;
    after.endpoints_up = format!("{up}/{}", endpoints.len());
    after.virtual_machines_running = format!("{running}/{wanted}");
    after.endpoints = endpoints;
    after.observed_generation = system.metadata.generation.unwrap_or_default();
    after.conditions = conditions;
    if after != status && context.writer.settled(system) {
        logged(
            "business system",
            &name,
            context.writer.swap_status(system, json!(after)).await,
        );
    }
}
