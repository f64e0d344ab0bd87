//! The claims of a VM on its volumes: written before its rights, released when it has none.

use std::sync::Arc;
use std::time::Instant;

use api::{VirtualMachine, Volume, VolumeStatus};
use kube::{Api, ResourceExt};
use model::{Assignment, Claim, ClaimHolder};
use serde_json::json;

use super::judge::{volume, volumes_of};
use crate::runtime::Context;
use crate::writer::{WriteError, logged};

/// What a VM's volumes carry while it may run under a right.
pub fn claim_of(context: &Context, vm: &VirtualMachine, right: &Assignment) -> Claim {
    Claim::of_vm(
        &context.fleet,
        vm.metadata.uid.as_deref().unwrap_or_default(),
        right,
    )
}

/// What came of claiming all volumes of a VM.
#[derive(Debug, PartialEq, Eq)]
pub enum Claimed {
    /// All are claimed for the right.
    All,
    /// The caches have not caught up yet: the next turn goes on.
    NotYet,
    /// One is another's; what to do about it.
    Taken(String),
}

/// What claiming one volume takes.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// It is claimed.
    Stands,
    /// It is to be written.
    Write,
    /// Its own claim follows its right in another turn.
    Waits,
    /// Another one's.
    Taken(&'a Claim),
}

fn step<'a>(status: &'a VolumeStatus, wanted: &Claim, arrives: bool) -> Step<'a> {
    let (claim, incoming) = (status.claim.as_ref(), status.incoming_claim.as_ref());
    let another = |claim: &&Claim| (claim.holder, &claim.uid) != (wanted.holder, &wanted.uid);
    let standing = if arrives { incoming } else { claim };
    match claim.into_iter().chain(incoming).find(another) {
        Some(other) => Step::Taken(other),
        None if arrives && claim.is_none() => Step::Waits,
        None if standing == Some(wanted) => Step::Stands,
        None => Step::Write,
    }
}

/// Claims all volumes for a right, in order of uid. To receive a volume is for who holds it: a claim for an arrival
/// alone would put a second writer on another VM's disk.
///
/// # Errors
/// A claim can not be written.
pub async fn claim(
    context: &Context,
    vm: &VirtualMachine,
    right: &Assignment,
    field: &str,
) -> Result<Claimed, WriteError> {
    let Some(mut volumes) = volumes_of(context, vm) else {
        return Ok(Claimed::NotYet);
    };
    volumes.sort_by_key(|volume| volume.metadata.uid.clone());
    let wanted = claim_of(context, vm, right);
    for volume in volumes {
        let status = volume.status.clone().unwrap_or_default();
        match step(&status, &wanted, field == "incomingClaim") {
            Step::Stands => continue,
            Step::Taken(other) => {
                let message = format!(
                    "volume {} is claimed by {:?} {}; detach it there first",
                    volume.name_any(),
                    other.holder,
                    other.uid
                );
                return Ok(Claimed::Taken(message));
            }
            Step::Waits => return Ok(Claimed::NotYet),
            Step::Write if !context.writer.settled(volume.as_ref()) => {
                return Ok(Claimed::NotYet);
            }
            Step::Write => {}
        }
        context
            .writer
            .swap_status(volume.as_ref(), json!({field: wanted}))
            .await?;
    }
    Ok(Claimed::All)
}

/// Releases every claim that this VM, which the cache shows without rights, holds on its disks.
pub(super) async fn release(context: &Context, vm: &VirtualMachine) {
    let disks = vm.spec.disks.iter();
    let held = disks.filter_map(|disk| volume(context, vm, &disk.volume));
    let held: Vec<Arc<Volume>> = held.filter(|volume| held_by(vm, volume)).collect();
    if held.is_empty() || !has_no_right(context, vm).await {
        return;
    }
    for volume in held {
        release_one(context, &volume).await;
    }
}

/// Whether the API server holds no right of a VM, and none that was written may arrive any more. A cache that lags behind
/// shows a VM without rights while its host's agent starts it: what it claims is not free.
pub(super) async fn has_no_right(context: &Context, vm: &VirtualMachine) -> bool {
    if !context.keeper.is_alone(Instant::now()) || context.writer.may_be_older(vm) {
        return false;
    }
    let namespace = vm.namespace().unwrap_or_default();
    let vms: Api<VirtualMachine> = Api::namespaced(context.writer.client(), &namespace);
    match vms.get_opt(&vm.name_any()).await {
        Ok(fresh) => fresh
            .filter(|fresh| fresh.metadata.uid == vm.metadata.uid)
            .and_then(|fresh| fresh.status)
            .is_none_or(|status| status.rights().next().is_none()),
        Err(error) => {
            let vm = vm.name_any();
            tracing::warn!(vm, %error, "whether its claims are free is asked again at the next turn");
            false
        }
    }
}

/// Takes a volume from whoever holds it.
pub(super) async fn release_one(context: &Context, volume: &Volume) {
    let nobody = json!({"claim": null, "incomingClaim": null});
    let result = context.writer.swap_status(volume, nobody).await;
    logged("claim", &volume.name_any(), result);
}

/// A VM holds a volume, or has begun to receive it.
pub(super) fn held_by(vm: &VirtualMachine, volume: &Volume) -> bool {
    let claims = volume.status.iter();
    let mut claims = claims.flat_map(|status| status.claim.iter().chain(&status.incoming_claim));
    claims.any(|claim| {
        claim.holder == ClaimHolder::VirtualMachine && Some(&claim.uid) == vm.metadata.uid.as_ref()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::CloudPolicySpec;
    use axum::http::Method;
    use serde_json::Value;

    use crate::context_in_memory::{BOOT, Site, host, typed};

    /// A site whose caches show a VM without rights that holds a volume, and whose API server holds this status of it.
    async fn site(status: Value) -> (Site, VirtualMachine) {
        let claim = json!({"fleet": "fleet", "holder": "VirtualMachine", "uid": "web",
            "host": "h1", "bootId": BOOT, "epoch": 1});
        site_with(status, claim).await
    }

    /// The same where the caches show this claim.
    async fn site_with(status: Value, claim: Value) -> (Site, VirtualMachine) {
        let vm = json!({
            "metadata": {"name": "web", "namespace": "oa", "uid": "web", "resourceVersion": "1"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "networks": [],
                "disks": [{"name": "system", "volume": "v"}]}});
        let volume = json!({
            "metadata": {"name": "v", "namespace": "oa", "uid": "v", "resourceVersion": "1"},
            "spec": {"pool": "p", "size": "1Gi"}, "status": {"phase": "Ready", "claim": claim}});
        let cached: Arc<VirtualMachine> = typed(vm.clone());
        let objects = fleet::Objects {
            hosts: vec![host("h1", Value::Null, Value::Null)],
            vms: vec![cached.clone()],
            volumes: vec![typed(volume)],
            ..fleet::Objects::default()
        };
        let site = Site::of(CloudPolicySpec::default(), objects, vec![]).await;
        let mut fresh = vm;
        fresh["status"] = status;
        site.holds("namespaces/oa/virtualmachines", "web", fresh);
        (site, VirtualMachine::clone(&cached))
    }

    fn released(site: &Site) -> bool {
        !site.written(&Method::PATCH, "/volumes/v/status").is_empty()
    }

    /// The leader before assigned it, or a write of this one that was answered with an error arrived.
    #[tokio::test]
    async fn what_the_cache_shows_without_rights_keeps_its_claims_while_it_may_have_some() {
        let right = json!({"host": "h1", "bootId": BOOT, "epoch": 1});
        for (status, free) in [
            (json!({}), true),
            (json!({"assignment": right}), false),
            (json!({"incoming": right}), false),
        ] {
            let (site, vm) = site(status.clone()).await;
            release(&site.context, &vm).await;
            assert_eq!(released(&site), free, "{status}");
        }
    }

    fn list(kind: &str, items: &[Value]) -> Value {
        json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": format!("{kind}List"), "metadata": {}, "items": items})
    }

    /// Its claim was written a moment before it was deleted.
    #[tokio::test]
    async fn a_deleted_vm_goes_when_it_holds_nothing_by_what_the_api_server_says() {
        let (shown, _) = site(json!({})).await;
        let volumes = shown.context.stores.volumes.state();
        let held: Vec<Value> = volumes.iter().map(|volume| json!(**volume)).collect();
        let (site, mut vm) = site_with(json!({}), Value::Null).await;
        vm.metadata.finalizers = Some(vec![api::names::FINALIZER.to_owned()]);
        let let_go = |site: &Site| {
            !site
                .written(&Method::PATCH, "/virtualmachines/web")
                .is_empty()
        };
        for (items, goes) in [(held, false), (vec![], true)] {
            site.holds("namespaces/oa/volumes", "", list("Volume", &items));
            crate::vms::rights::finalize(&site.context, &vm).await;
            assert_eq!(let_go(&site), goes);
            assert!(released(&site));
        }
    }

    #[tokio::test]
    async fn a_volume_that_a_vm_holds_which_is_gone_is_given_back() {
        for (stands, free) in [(true, false), (false, true)] {
            let (site, vm) = site(json!({})).await;
            let items: Vec<Value> = stands.then(|| json!(vm)).into_iter().collect();
            site.holds("virtualmachines", "", list("VirtualMachine", &items));
            crate::vms::mend::turn(&site.context, &[]).await;
            assert_eq!(released(&site), free);
        }
    }

    #[tokio::test]
    async fn claims_stay_while_a_right_may_still_arrive() {
        let (site, vm) = site(json!({})).await;
        site.context.keeper.forget();
        release(&site.context, &vm).await;
        assert!(!released(&site), "it has just begun to lead");

        for (answer, free) in [((504, "Timeout"), false), ((422, "Invalid"), true)] {
            let (mut site, vm) = self::site(json!({})).await;
            site.refuse(&Method::PATCH, "/virtualmachines/web/status", answer);
            let held = crate::reconcile::hosts::hold(&site.context, &"h1".into()).await;
            let held = held.expect("the host is read").expect("it stays");
            let write = site.context.writer.swap_status(&vm, json!({}));
            held.write(write).await.expect_err("not taken");
            release(&site.context, &vm).await;
            assert_eq!(released(&site), free, "{answer:?}");
        }
    }

    #[test]
    fn nobody_receives_a_volume_that_another_one_holds() {
        let claim = |uid: &str, epoch: i64| -> Claim {
            serde_json::from_value(json!({"fleet": "f", "holder": "VirtualMachine", "uid": uid, "host": "h1", "bootId": "b", "epoch": epoch}))
                .expect("a claim")
        };
        let (old, wanted, other) = (claim("u", 1), claim("u", 2), claim("w", 1));
        let step = |held: Option<&Claim>, incoming: Option<&Claim>, arrives| {
            let status = VolumeStatus {
                claim: held.cloned(),
                incoming_claim: incoming.cloned(),
                ..VolumeStatus::default()
            };
            format!("{:?}", super::step(&status, &wanted, arrives))
        };
        let taken = format!("{:?}", Step::Taken(&other));
        for arrives in [true, false] {
            assert_eq!(step(Some(&other), None, arrives), taken);
            assert_eq!(step(Some(&old), Some(&other), arrives), taken);
            assert_eq!(step(Some(&old), None, arrives), "Write");
        }
        assert_eq!(step(Some(&other), Some(&wanted), true), taken);
        assert_eq!(step(Some(&old), Some(&wanted), true), "Stands");
        assert_eq!(step(None, None, true), "Waits", "it is not its own yet");
        assert_eq!(step(None, None, false), "Write");
        assert_eq!(step(Some(&wanted), None, false), "Stands");
    }
}
