//! Mends what a leader that died between two writes, or one that was paused and wrote late, left
//! behind: `incoming` that no move accounts for, and claims that are older than the assignment.

use std::sync::Arc;

use api::{
    MigrationReason, VirtualMachine, VirtualMachineMigration, VirtualMachineMigrationSpec, Volume,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use model::{Assignment, Claim, ClaimHolder};
use serde_json::json;

use super::judge::volumes_of;
use crate::migrations::ended;
use crate::runtime::Context;
use crate::writer::logged;

/// Characters of a VM's name that go into the name of the move that takes its `incoming` back.
const NAME_MAX: usize = 40;

/// One turn over all VMs.
pub(super) async fn turn(context: &Arc<Context>, vms: &[Arc<VirtualMachine>]) {
    let migrations = context.stores.migrations.state();
    for vm in vms.iter().filter(|vm| context.writer.settled(vm.as_ref())) {
        let Some(status) = &vm.status else { continue };
        if let Some(incoming) = &status.incoming
            && !migrations
                .iter()
                .any(|migration| accounts_for(migration, vm))
        {
            take_back(context, vm, incoming).await;
        }
        if let Some(right) = &status.assignment {
            reclaim(context, vm, right).await;
        }
    }
}

/// A move that is not over and concerns this VM: it takes up whatever `incoming` says.
fn accounts_for(migration: &VirtualMachineMigration, vm: &VirtualMachine) -> bool {
    migration.spec.virtual_machine == vm.name_any()
        && migration.namespace() == vm.namespace()
        && !ended(migration)
}

/// A cancelled move: the usual way back, source first, then the target's refusal or a proof.
fn cancelled_move(vm: &VirtualMachine, incoming: &Assignment) -> VirtualMachineMigration {
    let name: String = vm.name_any().chars().take(NAME_MAX).collect();
    VirtualMachineMigration {
        metadata: ObjectMeta {
            name: Some(format!("{name}-back-{}", incoming.epoch.0)),
            namespace: vm.namespace(),
            ..ObjectMeta::default()
        },
        spec: VirtualMachineMigrationSpec {
            virtual_machine: vm.name_any(),
            target_host: Some(incoming.host.to_string()),
            reason: MigrationReason::Maintenance,
            cancel: true,
        },
        status: None,
    }
}

async fn take_back(context: &Context, vm: &VirtualMachine, incoming: &Assignment) {
    tracing::warn!(
        vm = vm.name_any(),
        host = %incoming.host,
        epoch = incoming.epoch.0,
        "incoming stands and no move accounts for it; it is taken back"
    );
    let migration = cancelled_move(vm, incoming);
    let result = context.writer.create(&migration).await;
    logged("migration", &migration.name_any(), result);
}

/// Whether a volume's claim is to be written anew for the VM's assignment: it is missing, or an
/// older one of the same VM. A higher one belongs to an assignment that is being written; another
/// holder's is never touched.
fn is_behind(claim: Option<&Claim>, uid: &str, right: &Assignment) -> bool {
    claim.is_none_or(|claim| {
        claim.holder == ClaimHolder::VirtualMachine
            && claim.uid == uid
            && claim.assignment.epoch < right.epoch
    })
}

fn busy(volume: &Volume) -> bool {
    volume
        .status
        .as_ref()
        .is_none_or(|status| status.job.is_some() || status.phase.as_deref() != Some("Ready"))
}

async fn reclaim(context: &Context, vm: &VirtualMachine, right: &Assignment) {
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    let mut volumes = volumes_of(context, vm).unwrap_or_default();
    volumes.sort_by_key(|volume| volume.metadata.uid.clone());
    for volume in volumes {
        let standing = volume
            .status
            .as_ref()
            .and_then(|status| status.claim.as_ref());
        let settled = context.writer.settled(volume.as_ref());
        if busy(&volume) || !settled || !is_behind(standing, &uid, right) {
            continue;
        }
        let claim = Claim {
            fleet: context.fleet.clone(),
            holder: ClaimHolder::VirtualMachine,
            uid: uid.clone(),
            assignment: right.clone(),
        };
        let write = context
            .writer
            .swap_status(volume.as_ref(), json!({"claim": claim}));
        logged("claim", &volume.name_any(), write.await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Epoch;

    fn right(epoch: i64) -> Assignment {
        Assignment {
            host: "h1".into(),
            boot_id: "b".into(),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn only_missing_claims_and_older_ones_of_the_same_vm_are_written_anew() {
        let claim = |holder, uid: &str, epoch| Claim {
            fleet: "f".to_owned(),
            holder,
            uid: uid.to_owned(),
            assignment: right(epoch),
        };
        let behind = |claim: &Claim| is_behind(Some(claim), "v", &right(4));
        assert!(is_behind(None, "v", &right(4)));
        assert!(behind(&claim(ClaimHolder::VirtualMachine, "v", 3)));
        assert!(!behind(&claim(ClaimHolder::VirtualMachine, "v", 4)));
        assert!(
            !behind(&claim(ClaimHolder::VirtualMachine, "v", 5)),
            "being assigned"
        );
        assert!(
            !behind(&claim(ClaimHolder::VirtualMachine, "w", 1)),
            "another VM's"
        );
        assert!(!behind(&claim(ClaimHolder::Job, "v", 1)), "a job's");
    }

    #[test]
    fn an_orphan_is_taken_back_once_by_a_move_that_is_cancelled_from_the_start() {
        let mut vm = VirtualMachine::new(
            "database",
            serde_json::from_value(json!({
                "cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []
            }))
            .expect("a spec"),
        );
        vm.metadata.namespace = Some("n".to_owned());
        let (one, two) = (
            cancelled_move(&vm, &right(7)),
            cancelled_move(&vm, &right(7)),
        );
        assert_eq!(
            one.name_any(),
            two.name_any(),
            "a second leader makes the same one"
        );
        assert!(one.spec.cancel && accounts_for(&one, &vm));
        assert_ne!(one.name_any(), cancelled_move(&vm, &right(8)).name_any());
    }
}
