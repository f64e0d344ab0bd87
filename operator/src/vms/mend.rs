//! Mends what a leader that died between two writes, or one that was paused and wrote late, left
//! behind: `incoming` that no move accounts for, and claims that do not follow the rights.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use api::{
    MigrationReason, VirtualMachine, VirtualMachineMigration, VirtualMachineMigrationSpec, Volume,
};
use failover::Rights;
use failover::claims::mended;
use failover::migration::may_take_up;
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, ResourceExt};
use model::{Assignment, ClaimHolder, HostName};
use serde_json::{Value, json};

use super::claims::{has_no_right, held_by, release_one};
use super::judge::volumes_of;
use crate::door;
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
                .any(|migration| accounts_for(migration, vm, incoming))
        {
            match is_accounted_for(context, vm, incoming).await {
                Ok(true) => {}
                Ok(false) => take_back(context, vm, incoming).await,
                Err(error) => tracing::warn!(
                    vm = vm.name_any(),
                    %error,
                    "whether a move accounts for incoming is asked again at the next turn"
                ),
            }
        }
        if status.assignment.is_some() {
            reclaim(context, vm, &migrations).await;
        }
    }
    let volumes = context.stores.volumes.state();
    release_orphaned(context, orphaned(vms, &volumes)).await;
    for (vm, volume) in left_behind(vms, &volumes) {
        if context.writer.settled(vm.as_ref())
            && context.writer.settled(volume.as_ref())
            && has_no_right(context, vm).await
        {
            release_one(context, volume).await;
        }
    }
}

/// Volumes that VMs hold which the cache does not know.
fn orphaned<'a>(
    vms: &[Arc<VirtualMachine>],
    volumes: &'a [Arc<Volume>],
) -> Vec<(&'a str, &'a Arc<Volume>)> {
    let known: HashSet<&str> = vms
        .iter()
        .filter_map(|vm| vm.metadata.uid.as_deref())
        .collect();
    let of = |volume: &'a Arc<Volume>| {
        let status = volume.status.as_ref()?;
        let mut claims = status.claim.iter().chain(&status.incoming_claim);
        let claim = claims.find(|claim| {
            claim.holder == ClaimHolder::VirtualMachine && !known.contains(claim.uid.as_str())
        })?;
        Some((claim.uid.as_str(), volume))
    };
    volumes.iter().filter_map(of).collect()
}

/// Claims of VMs that are gone: a claim was on its way, or not shown yet, when its VM was let go, which none is
/// that may run.
async fn release_orphaned(context: &Context, mut orphaned: Vec<(&str, &Arc<Volume>)>) {
    orphaned.retain(|(_, volume)| context.writer.settled(volume.as_ref()));
    if orphaned.is_empty() || !context.keeper.is_alone(Instant::now()) {
        return;
    }
    let fresh = match context.writer.list::<VirtualMachine>().await {
        Ok(fresh) => fresh,
        Err(error) => return logged("claim", "(all)", Err(error)),
    };
    let stands = |uid: &str| {
        fresh
            .iter()
            .any(|vm| vm.metadata.uid.as_deref() == Some(uid))
    };
    for (uid, volume) in orphaned {
        if !stands(uid) {
            tracing::warn!(
                volume = volume.name_any(),
                uid,
                "claimed by a VM that is gone; released"
            );
            release_one(context, volume).await;
        }
    }
}

/// Volumes that a VM without any right holds and does not name any more: its disks were changed while it was halted.
fn left_behind<'a>(
    vms: &'a [Arc<VirtualMachine>],
    volumes: &'a [Arc<Volume>],
) -> Vec<(&'a Arc<VirtualMachine>, &'a Arc<Volume>)> {
    let idle = vms.iter().filter(|vm| {
        let status = vm.status.as_ref();
        status.is_none_or(|status| status.rights().next().is_none())
    });
    let idle: HashMap<&str, &Arc<VirtualMachine>> = idle
        .filter_map(|vm| Some((vm.metadata.uid.as_deref()?, vm)))
        .collect();
    if idle.is_empty() {
        return Vec::new();
    }
    let left = |volume: &'a Arc<Volume>| {
        let status = volume.status.as_ref()?;
        let mut claims = status.claim.iter().chain(&status.incoming_claim);
        let vm = *claims.find_map(|claim| idle.get(claim.uid.as_str()))?;
        let mut disks = vm.spec.disks.iter();
        let named = disks.any(|disk| disk.volume == volume.name_any());
        (held_by(vm, volume) && !named).then_some((vm, volume))
    };
    volumes.iter().filter_map(left).collect()
}

/// A move that is not over and concerns this VM.
fn concerns(migration: &VirtualMachineMigration, vm: &VirtualMachine) -> bool {
    migration.spec.virtual_machine == vm.name_any()
        && migration.namespace() == vm.namespace()
        && !ended(migration)
}

/// A move of this VM that ends `incoming`: one that has begun, or one that may go there and so takes it up.
/// One that waits to go elsewhere does not.
fn accounts_for(
    migration: &VirtualMachineMigration,
    vm: &VirtualMachine,
    incoming: &Assignment,
) -> bool {
    let status = migration.status.as_ref();
    let begun = status.is_some_and(|status| status.target_assignment.is_some());
    let wanted = migration.spec.target_host.as_deref().map(HostName::from);
    concerns(migration, vm) && (begun || may_take_up(wanted.as_ref(), incoming))
}

/// Whether a move ends `incoming` by what the API server holds now. The watches of VMs and of moves differ in age, those
/// of an operator that has just begun to lead above all: from them alone a healthy move would be taken back.
async fn is_accounted_for(
    context: &Context,
    vm: &VirtualMachine,
    incoming: &Assignment,
) -> Result<bool, kube::Error> {
    let namespace = vm.namespace().unwrap_or_default();
    let moves: Api<VirtualMachineMigration> = Api::namespaced(context.writer.client(), &namespace);
    let moves = moves.list(&ListParams::default()).await?;
    Ok(moves
        .iter()
        .any(|migration| accounts_for(migration, vm, incoming)))
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

/// What is to be written into a volume's status so that its claims follow the rights of its VM
/// (`moving`: a move of it is not over); none where they do.
pub fn claims_patch(fleet: &str, rights: &Rights, moving: bool, volume: &Volume) -> Option<Value> {
    let status = volume.status.as_ref();
    let claim = status.and_then(|status| status.claim.as_ref());
    let incoming = status.and_then(|status| status.incoming_claim.as_ref());
    let claims = mended(fleet, rights, moving, claim, incoming)?;
    Some(json!({"claim": claims.claim, "incomingClaim": claims.incoming}))
}

fn busy(volume: &Volume) -> bool {
    volume
        .status
        .as_ref()
        .is_none_or(|status| status.job.is_some() || status.phase.as_deref() != Some("Ready"))
}

async fn reclaim(
    context: &Context,
    vm: &VirtualMachine,
    migrations: &[Arc<VirtualMachineMigration>],
) {
    let rights = door::rights(vm);
    let mut volumes = volumes_of(context, vm).unwrap_or_default();
    volumes.sort_by_key(|volume| volume.metadata.uid.clone());
    for volume in volumes {
        if busy(&volume) || !context.writer.settled(volume.as_ref()) {
            continue;
        }
        // Few volumes have an incoming claim: moves are searched for those alone.
        let status = volume.status.as_ref();
        let moving = status.is_some_and(|status| status.incoming_claim.is_some())
            && migrations.iter().any(|migration| concerns(migration, vm));
        let Some(patch) = claims_patch(&context.fleet, &rights, moving, &volume) else {
            continue;
        };
        let write = context.writer.swap_status(volume.as_ref(), patch).await;
        logged("claim", &volume.name_any(), write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::CloudPolicySpec;
    use axum::http::Method;
    use model::Epoch;

    use crate::context_in_memory::{BOOT, Site, migration, vm};

    fn right(epoch: i64) -> Assignment {
        Assignment {
            host: "h1".into(),
            boot_id: "b".into(),
            epoch: Epoch(epoch),
        }
    }

    fn volume(status: Value) -> Volume {
        serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume", "metadata": {"name": "v"},
            "spec": {"pool": "p", "size": "1Gi", "reclaimPolicy": "Delete"}, "status": status,
        }))
        .expect("a volume")
    }

    #[test]
    fn a_volume_that_a_halted_vm_does_not_name_any_more_is_given_back() {
        let vm = |disk: &str, assignment: Value| {
            let vm = serde_json::from_value(json!({
                "metadata": {"name": "vm", "namespace": "n", "uid": "u"},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "networks": [],
                    "disks": [{"name": "data", "volume": disk}]},
                "status": {"assignment": assignment}}));
            [Arc::new(vm.expect("a VM"))]
        };
        let claim = |holder: &str| json!({"fleet": "f", "holder": holder, "uid": "u", "host": "h1", "bootId": "b", "epoch": 1});
        let mine = [Arc::new(volume(json!({"claim": claim("VirtualMachine")})))];
        let right = json!({"host": "h1", "bootId": "b", "epoch": 1});
        let left = |disk: &str, assignment: Value, volumes: &[Arc<Volume>]| {
            left_behind(&vm(disk, assignment), volumes).len()
        };
        assert_eq!(left("other", Value::Null, &mine), 1);
        assert_eq!(left("v", Value::Null, &mine), 0, "it names it");
        assert_eq!(left("other", right, &mine), 0, "a copy may run");
        let job = [Arc::new(volume(json!({"claim": claim("Job")})))];
        assert_eq!(left("other", Value::Null, &job), 0);
    }

    /// The leader died when it had promoted the arrival and not yet the claims, or when it had dropped it.
    #[test]
    fn one_write_ends_what_a_dead_leader_left_of_a_move() {
        let claim = |epoch: i64| json!({"fleet": "f", "holder": "VirtualMachine", "uid": "v", "host": "h1", "bootId": "b", "epoch": epoch});
        let rights = |epoch| Rights {
            assignment: Some(right(epoch)),
            last_epoch: Epoch(2),
            ..Rights::none("v".into())
        };
        let left = volume(json!({"claim": claim(1), "incomingClaim": claim(2)}));
        for moving in [true, false] {
            let promoted = claims_patch("f", &rights(2), moving, &left);
            let expected = json!({"claim": claim(2), "incomingClaim": null});
            assert_eq!(promoted, Some(expected));
            let dropped = claims_patch("f", &rights(1), moving, &left);
            let expected = json!({"claim": claim(1), "incomingClaim": null});
            assert_eq!(dropped, Some(expected));
        }
        let good = volume(json!({"claim": claim(2)}));
        assert_eq!(claims_patch("f", &rights(2), false, &good), None);
        let bare = volume(json!({}));
        let expected = json!({"claim": claim(2), "incomingClaim": null});
        assert_eq!(claims_patch("f", &rights(2), false, &bare), Some(expected));
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
        assert!(one.spec.cancel && accounts_for(&one, &vm, &right(7)));
        assert_ne!(one.name_any(), cancelled_move(&vm, &right(8)).name_any());
        // A move that waits to go elsewhere does not take it up; one that may go anywhere does.
        let mut other = one.clone();
        other.spec.target_host = Some("h2".to_owned());
        assert!(!accounts_for(&other, &vm, &right(7)) && concerns(&other, &vm));
        other.spec.target_host = None;
        assert!(accounts_for(&other, &vm, &right(7)));
    }

    /// Moves that were made to take `incoming` of a VM back, where the cache holds no move of it and the API server
    /// answers a list so.
    async fn taken_back(moves: Option<Value>) -> usize {
        let incoming =
            json!({"incoming": {"host": "h2", "bootId": BOOT, "epoch": 2}, "lastEpoch": 2});
        let vms = vec![vm("web", "Normal", "h1", incoming)];
        let site = Site::new(CloudPolicySpec::default(), vec![], vms.clone(), vec![]).await;
        if let Some(moves) = moves {
            let list = json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachineMigrationList",
                "metadata": {"resourceVersion": "9"}, "items": moves
            });
            site.holds("namespaces/oa/virtualmachinemigrations", "", list);
        }
        turn(&site.context, &vms).await;
        site.written(&Method::POST, "/virtualmachinemigrations")
            .len()
    }

    /// Another operator leads: its watch of VMs is fresh, that of moves is not.
    #[tokio::test]
    async fn what_a_move_accounts_for_is_not_taken_back_by_who_has_not_seen_it_yet() {
        let side = |host: &str, epoch: i64| json!({"host": host, "bootId": BOOT, "epoch": epoch});
        let of = |phase: &str| {
            let status = json!({"phase": phase, "vmUid": "web",
                "sourceAssignment": side("h1", 1), "targetAssignment": side("h2", 2)});
            json!(*migration("web-1", "web", json!({}), json!({}), status))
        };
        assert_eq!(taken_back(Some(json!([of("Running")]))).await, 0);
        assert_eq!(taken_back(Some(json!([of("Cancelled")]))).await, 1);
        assert_eq!(taken_back(Some(json!([]))).await, 1);
        assert_eq!(taken_back(None).await, 0, "nobody knows: asked again");
    }
}
