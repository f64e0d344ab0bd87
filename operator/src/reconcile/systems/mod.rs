//! Business systems: makes their VMs, volumes and cloud-init Secrets, and says how they are.

mod build;
mod made;
mod status;
mod validate;

use std::sync::Arc;

use api::names::{LABEL_REPLICA, LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, Tier, VirtualMachine, Volume};
use kube::ResourceExt;

use crate::runtime::Context;
use crate::writer::logged;
use build::{build_vm, build_volumes};

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    for system in context.stores.systems.state() {
        // Nothing is awaited between here and what is made of them.
        let (vms, volumes) = (context.stores.vms.state(), context.stores.volumes.state());
        let made = made::made(&system, &vms, &volumes);
        let problems = validate::validate(context, &system, (&vms, &volumes), &made);
        let refused = !problems.is_empty() || system.metadata.deletion_timestamp.is_some();
        if !refused {
            apply(context, &system, &vms, &volumes).await;
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
            for volume in build_volumes(context, system, tier, replica) {
                if !volumes.iter().any(|known| {
                    known.name_any() == volume.name_any() && known.namespace() == volume.namespace()
                }) && let Err(error) = context.writer.create(&volume).await
                {
                    return logged("volume", &volume.name_any(), Err(error));
                }
            }
            let (vm, secret) = build_vm(context, system, tier, replica);
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
