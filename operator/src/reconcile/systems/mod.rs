//! Business systems: makes their VMs, volumes and cloud-init Secrets, and says how they are.

mod build;
mod made;
mod status;
mod validate;

use std::sync::Arc;

use api::names::{LABEL_REPLICA, LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, Flavor, Image, Tier, VirtualMachine, Volume};
use kube::{Api, ResourceExt};

use crate::runtime::Context;
use crate::writer::logged;
use build::build_vm;

/// What systems are made of, as it was when they were found valid: what goes meanwhile is not missed half-way.
struct Parts {
    flavors: Vec<Arc<Flavor>>,
    images: Vec<Arc<Image>>,
}

impl Parts {
    fn flavor(&self, tier: &Tier) -> Option<&Flavor> {
        let mut flavors = self.flavors.iter().map(Arc::as_ref);
        flavors.find(|flavor: &&Flavor| flavor.name_any() == tier.flavor)
    }

    fn image(&self, tier: &Tier) -> Option<&Image> {
        let mut images = self.images.iter().map(Arc::as_ref);
        images.find(|image: &&Image| image.name_any() == tier.image)
    }
}

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    for system in context.stores.systems.state() {
        // Nothing is awaited between here and what is made of them.
        let (vms, volumes) = (context.stores.vms.state(), context.stores.volumes.state());
        let parts = Parts {
            flavors: context.stores.flavors.state(),
            images: context.stores.images.state(),
        };
        let made = made::made(&system, &vms, &volumes);
        let problems = validate::validate(context, &system, (&vms, &volumes), &parts, &made);
        let refused = !problems.is_empty() || system.metadata.deletion_timestamp.is_some();
        if !refused {
            apply(context, &system, &vms, &volumes, &parts).await;
        }
        let claimed = made::claimed(&system, &made, refused);
        status::update_status(context, &system, &problems, claimed).await;
    }
}

async fn apply(
    context: &Context,
    system: &BusinessSystem,
    vms: &[Arc<VirtualMachine>],
    volumes: &[Arc<Volume>],
    parts: &Parts,
) {
    let namespace = system.namespace().unwrap_or_default();
    for tier in &system.spec.tiers {
        for replica in 0..tier.replicas {
            let name = fleet::system::vm_name(system, tier, replica);
            let stands = vms.iter().find(|vm| {
                vm.name_any() == name && vm.namespace().as_deref() == Some(namespace.as_str())
            });
            if let Some(vm) = stands {
                follow(context, system, tier, vm).await;
                continue;
            }
            if !made::told(system, tier) {
                continue;
            }
            for volume in fleet::system::volumes(parts.image(tier), system, tier, replica) {
                if !volumes.iter().any(|known| {
                    known.name_any() == volume.name_any() && known.namespace() == volume.namespace()
                }) && let Err(error) = context.writer.create(&volume).await
                {
                    return logged("volume", &volume.name_any(), Err(error));
                }
            }
            let Some(flavor) = parts.flavor(tier) else {
                continue;
            };
            let (vm, secret) = build_vm(flavor, system, tier, replica);
            if let Some(secret) = secret
                && let Err(error) = context.writer.apply(&secret).await
            {
                return logged("cloud-init Secret", &name, Err(error));
            }
            logged("VM", &name, context.writer.create(&vm).await);
        }
    }
    remove_surplus(context, system, vms).await;
}

/// Writes into a VM what its system declares now.
async fn follow(context: &Context, system: &BusinessSystem, tier: &Tier, vm: &VirtualMachine) {
    if vm.metadata.deletion_timestamp.is_none()
        && context.writer.settled(vm)
        && let Some(patch) = build::changes(&vm.spec, &system.spec, tier)
    {
        logged("VM", &vm.name_any(), context.writer.spec(vm, patch).await);
    }
}

/// VMs of tiers or replicas that are no longer declared, as the API server holds the declaration now: by one that a
/// cache still shows, VMs that were declared since would be taken away while they run.
async fn remove_surplus(context: &Context, system: &BusinessSystem, vms: &[Arc<VirtualMachine>]) {
    let surplus = surplus(system, vms);
    if surplus.is_empty() {
        return;
    }
    let namespace = system.namespace().unwrap_or_default();
    let systems: Api<BusinessSystem> = Api::namespaced(context.writer.client(), &namespace);
    let fresh = match systems.get_opt(&system.name_any()).await {
        Ok(fresh) => fresh.filter(|fresh| {
            let meta = &fresh.metadata;
            meta.uid == system.metadata.uid && meta.generation == system.metadata.generation
        }),
        Err(error) => return logged("surplus VM", &system.name_any(), Err(error.into())),
    };
    if fresh.is_none() {
        return;
    }
    for vm in surplus {
        let result = context.writer.delete(vm.as_ref()).await;
        logged("surplus VM", &vm.name_any(), result);
    }
}

fn surplus<'a>(
    system: &BusinessSystem,
    vms: &'a [Arc<VirtualMachine>],
) -> Vec<&'a Arc<VirtualMachine>> {
    let name = system.name_any();
    let own = vms.iter().filter(|vm| {
        vm.namespace() == system.namespace() && vm.labels().get(LABEL_SYSTEM) == Some(&name)
    });
    own.filter(|vm| {
        let replica = vm
            .labels()
            .get(LABEL_REPLICA)
            .and_then(|text| text.parse::<i32>().ok())
            .unwrap_or(0);
        let declared =
            system.spec.tiers.iter().any(|tier| {
                vm.labels().get(LABEL_TIER) == Some(&tier.name) && replica < tier.replicas
            });
        !declared && vm.metadata.deletion_timestamp.is_none()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use api::CloudPolicySpec;
    use axum::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::context_in_memory::{Site, typed};

    /// Another leader made the second replica; this one's watch of systems lags.
    #[tokio::test]
    async fn a_replica_that_was_declared_since_is_not_taken_away() {
        let system = |replicas: i32, generation: i64| -> Value {
            json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem",
                "metadata": {"name": "oa", "namespace": "oa", "uid": "oa", "generation": generation},
                "spec": {"displayName": "oa", "tiers": [{"name": "web", "replicas": replicas,
                    "flavor": "small", "image": "linux", "networks": [], "storagePool": "shared"}]}})
        };
        let cached: Arc<BusinessSystem> = typed(system(1, 1));
        let vms: Vec<Arc<VirtualMachine>> = (0..2)
            .map(|replica| {
                let tier = &cached.spec.tiers[0];
                let mut vm = fleet::system::vm(None, &cached, tier, replica);
                vm.metadata.uid = Some(format!("web-{replica}"));
                vm.metadata.resource_version = Some("1".to_owned());
                Arc::new(vm)
            })
            .collect();
        for (held, taken) in [(system(2, 2), 0), (system(1, 1), 1)] {
            let objects = fleet::Objects::default();
            let site = Site::of(CloudPolicySpec::default(), objects, vec![]).await;
            site.holds("namespaces/oa/businesssystems", "oa", held);
            remove_surplus(&site.context, &cached, &vms).await;
            let deleted = site.written(&Method::DELETE, &vms[1].name_any());
            assert_eq!(deleted.len(), taken);
        }
    }
}
