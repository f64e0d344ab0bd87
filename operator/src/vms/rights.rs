//! Carries out: claims and assignments by compare-and-swap, seeds, releases, finalizers.

use std::sync::Arc;
use std::time::Instant;

use api::names::{FINALIZER, host_namespace, seed_secret_name};
use api::{Nic, VirtualMachine, Volume};
use failover::RightsChange;
use failover::vm::VmPhase;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};
use model::Assignment;
use serde_json::{Value, json};

use super::Work;
use super::claims::{Claimed, claim, held_by, release, release_one};
use crate::conditions::{Judged, conditions};
use crate::runtime::Context;
use crate::writer::{WriteError, logged};
use crate::{merge, reconcile, seed};

pub(super) async fn carry_out(context: &Arc<Context>, work: Work) {
    match work {
        Work::Show(vm, phase, message, placement) => {
            show(context, &vm, phase, &message, placement).await
        }
        Work::Assign(vm, change, phase, message, beside) => {
            let result = assign(context, &vm, &change, phase, &message, beside).await;
            if let Err(error @ (WriteError::Api(_) | WriteError::Gone)) = &result {
                // Told where people look: it is tried again each turn, perhaps for ever. Nothing else: a write that was
                // answered with an error may have arrived, and what it claims is not free then.
                let why = format!("can not be assigned: {error}");
                show_only(context, &vm, VmPhase::Pending, &why, None).await;
            }
            logged("assignment", &vm.name_any(), result);
        }
        Work::Note(vm, status) => logged(
            "failures",
            &vm.name_any(),
            context.writer.swap_status(vm.as_ref(), status).await,
        ),
        Work::Clear(vm, change) => {
            let mut status = rights_patch(&change);
            status["phase"] = json!("Stopped");
            status["message"] = json!("shut down");
            logged(
                "assignment",
                &vm.name_any(),
                context.writer.swap_status(vm.as_ref(), status).await,
            );
        }
        Work::Finalize(vm) => finalize(context, &vm).await,
    }
}

/// The rights as a merge patch: what is gone is cleared.
pub fn rights_patch(change: &RightsChange) -> Value {
    let after = change.after();
    json!({"assignment": after.assignment, "incoming": after.incoming, "lastEpoch": after.last_epoch, "proofs": after.proofs})
}

/// Phase and message, when they changed; claims of a VM that has no right are released.
pub(super) async fn show(
    context: &Context,
    vm: &VirtualMachine,
    phase: VmPhase,
    message: &str,
    placement: Option<Value>,
) {
    show_only(context, vm, phase, message, placement).await;
    let status = vm.status.as_ref();
    if status.is_none_or(|status| status.rights().next().is_none()) {
        release(context, vm).await;
    }
}

/// Phase and message, when they changed, and nothing else.
pub(super) async fn show_only(
    context: &Context,
    vm: &VirtualMachine,
    phase: VmPhase,
    message: &str,
    placement: Option<Value>,
) {
    let status = vm.status.clone().unwrap_or_default();
    let mut changes = serde_json::Map::new();
    let mut judged = judged(phase, status.assignment.as_ref(), message).to_vec();
    judged.extend(context.rules.of(vm));
    let conditions = conditions(&status.conditions, &judged, vm.metadata.generation);
    let refused = placement.is_some();
    let phase = format!("{phase:?}");
    if json!(status.phase) != json!(phase) {
        changes.insert("phase".to_owned(), json!(phase));
    }
    if status.conditions != conditions {
        changes.insert("conditions".to_owned(), json!(conditions));
    }
    if status.message.as_deref() != Some(message) {
        changes.insert("message".to_owned(), json!(message));
    }
    if let Some(placement) = placement.filter(|placement| {
        status
            .placement
            .as_ref()
            .is_none_or(|known| json!(known.message) != placement["message"])
    }) {
        changes.insert("placement".to_owned(), placement);
    }
    let news = changes.contains_key("phase") || changes.contains_key("placement");
    if !changes.is_empty() {
        let result = context.writer.swap_status(vm, Value::Object(changes)).await;
        if news && result.is_ok() {
            let bad =
                refused || matches!(phase.as_str(), "Unknown" | "Failed" | "Pinned" | "Stalled");
            let kind = if bad {
                EventType::Warning
            } else {
                EventType::Normal
            };
            let reason = if refused { "NotPlaced" } else { &phase };
            context.writer.tell(vm, kind, reason, message).await;
        }
        logged("VM", &vm.name_any(), result);
    }
}

/// What `kubectl wait` and alerts ask of a VM.
fn judged(phase: VmPhase, assignment: Option<&Assignment>, message: &str) -> [Judged; 2] {
    let placed = assignment.map_or_else(
        || message.to_owned(),
        |right| format!("assigned to {}", right.host),
    );
    let runs = matches!(phase, VmPhase::Running | VmPhase::Migrating);
    [
        Judged::new(
            "Scheduled",
            assignment.is_some(),
            if assignment.is_some() {
                "Assigned"
            } else {
                "NotPlaced"
            },
            placed,
        ),
        Judged::new("Ready", runs, format!("{phase:?}"), message),
    ]
}

/// Releases all that it holds, whether it still names it or not, and lets it go when it holds nothing by what the API
/// server holds now: a claim that the cache does not show yet would be nobody's for ever.
pub(super) async fn finalize(context: &Context, vm: &VirtualMachine) {
    if !context.keeper.is_alone(Instant::now()) {
        return;
    }
    let cached = context.stores.volumes.state();
    let held: Vec<_> = cached.iter().filter(|one| held_by(vm, one)).collect();
    if !held.is_empty() {
        for volume in held {
            release_one(context, volume).await;
        }
        return;
    }
    let volumes: Api<Volume> =
        Api::namespaced(context.writer.client(), &vm.namespace().unwrap_or_default());
    let every = ListParams::default();
    // As few at once as writes: a department may go with hundreds of VMs.
    let volumes = match context.writer.send(volumes.list(&every)).await {
        Ok(volumes) => volumes.items,
        Err(error) => return logged("finalizer", &vm.name_any(), Err(error)),
    };
    let held: Vec<_> = volumes.iter().filter(|one| held_by(vm, one)).collect();
    for volume in &held {
        release_one(context, volume).await;
    }
    let finalizers: Vec<&String> = vm
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .collect();
    if held.is_empty() && finalizers.len() != vm.finalizers().len() {
        logged(
            "finalizer",
            &vm.name_any(),
            context
                .writer
                .metadata(vm, json!({"finalizers": finalizers}))
                .await,
        );
    }
}

/// Addresses, seed, claims in order of uid, then the assignment with the fields `beside` it.
pub(super) async fn assign(
    context: &Arc<Context>,
    vm: &VirtualMachine,
    change: &RightsChange,
    phase: VmPhase,
    message: &str,
    beside: Value,
) -> Result<(), WriteError> {
    let Some(right) = change.after().assignment.clone() else {
        return Ok(());
    };
    if !vm.finalizers().iter().any(|name| name == FINALIZER) {
        let mut finalizers = vm.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        return context
            .writer
            .metadata(vm, json!({"finalizers": finalizers}))
            .await;
    }
    let nics = match reconcile::addresses::of(context, vm).await {
        Ok(nics) => nics,
        Err(why) => {
            show(context, vm, VmPhase::Pending, &why, None).await;
            return Ok(());
        }
    };
    if let Seeded::Lacks(why) = write_seed(context, vm, &nics, &right).await? {
        show(context, vm, VmPhase::Pending, &why, None).await;
        return Ok(());
    }
    match claim(context, vm, &right, "claim").await? {
        Claimed::All => {}
        Claimed::NotYet => return Ok(()),
        Claimed::Taken(why) => {
            show(context, vm, VmPhase::Pending, &why, None).await;
            return Ok(());
        }
    }
    let note = assigned(&right, message, &beside);
    let mut status = rights_patch(change);
    merge::add(&mut status, beside);
    status["nics"] = json!(nics);
    status["phase"] = json!(format!("{phase:?}"));
    status["message"] = json!(message);
    let known = vm.status.clone().unwrap_or_default().conditions;
    let mut judged = judged(phase, Some(&right), message).to_vec();
    judged.extend(context.rules.of(vm));
    status["conditions"] = json!(conditions(&known, &judged, vm.metadata.generation));
    let Some(host) = reconcile::hosts::hold_for_vm(context, &right.host).await? else {
        return Ok(());
    };
    host.write(context.writer.swap_status(vm, status)).await?;
    context
        .writer
        .tell(vm, EventType::Normal, "Assigned", &note)
        .await;
    tracing::info!(vm = vm.name_any(), host = %right.host, epoch = right.epoch.0, "assigned");
    Ok(())
}

/// The event of an assignment: what happened, and why there.
fn assigned(right: &Assignment, message: &str, beside: &Value) -> String {
    let reasons = beside["placement"]["reasons"].as_array();
    let reasons = reasons.into_iter().flatten().filter_map(Value::as_str);
    let told = std::iter::once(message).chain(reasons);
    let told = told.filter(|text| !text.is_empty()).collect::<Vec<_>>();
    format!(
        "epoch {} on {}: {}",
        right.epoch,
        right.host,
        told.join("; ")
    )
}

/// What came of a VM's seed.
#[derive(Debug, PartialEq, Eq)]
pub enum Seeded {
    /// It lies where the host's agent reads it.
    Written,
    /// What the guest is to be told is not there; what to do about it.
    Lacks(String),
}

/// Copies the VM's seed to the namespace that only the host's agent reads.
///
/// # Errors
/// It can not be read or written.
pub async fn write_seed(
    context: &Context,
    vm: &VirtualMachine,
    nics: &[Nic],
    right: &Assignment,
) -> Result<Seeded, WriteError> {
    let user_data = match (&vm.spec.cloud_init, vm.namespace()) {
        (Some(reference), Some(namespace)) => {
            match user_data(context, vm, &reference.name, &namespace).await? {
                Some(user_data) => user_data,
                None => {
                    return Ok(Seeded::Lacks(format!(
                        "spec.cloudInit.name: Secret {} does not exist in {namespace}; make it (kubectl create secret generic {} -n {namespace} --from-file=user-data=FILE), or name another",
                        reference.name, reference.name
                    )));
                }
            }
        }
        _ => b"#cloud-config\n".to_vec(),
    };
    let networks: Vec<_> = context
        .stores
        .networks
        .state()
        .iter()
        .map(|network| network.as_ref().clone())
        .collect();
    context
        .writer
        .apply(&seed::secret(
            vm,
            nics,
            &networks,
            user_data,
            right.host.as_str(),
        ))
        .await?;
    Ok(Seeded::Written)
}

/// A department's user-data. A guest reads it at its first boot, and whoever made it may clear it away then: the host that
/// has the VM still keeps what it was told.
async fn user_data(
    context: &Context,
    vm: &VirtualMachine,
    name: &str,
    namespace: &str,
) -> Result<Option<Vec<u8>>, WriteError> {
    let assigned = vm.status.as_ref();
    let assigned = assigned.and_then(|status| status.assignment.as_ref());
    let kept = assigned.map(|right| {
        let uid = vm.metadata.uid.as_deref().unwrap_or_default();
        (host_namespace(right.host.as_str()), seed_secret_name(uid))
    });
    let own = (namespace.to_owned(), name.to_owned());
    for (namespace, name) in std::iter::once(own).chain(kept) {
        let secrets: Api<Secret> = Api::namespaced(context.writer.client(), &namespace);
        if let Some(secret) = secrets.get_opt(&name).await? {
            let mut data = secret.data.unwrap_or_default();
            let user_data = data.remove("user-data").map(|data| data.0);
            return Ok(Some(user_data.unwrap_or_default()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::CloudPolicySpec;
    use axum::http::Method;

    use crate::context_in_memory::{BOOT, Site, host, typed};

    #[test]
    fn the_event_of_an_assignment_says_why_there() {
        let right: Assignment = serde_json::from_value(json!({
            "host": "h1", "bootId": "b", "epoch": 3
        }))
        .expect("an assignment");
        let beside = json!({"placement": {"reasons": ["one wish is met there", "most room"]}});
        assert_eq!(
            assigned(&right, "starts anew", &beside),
            "epoch 3 on h1: starts anew; one wish is met there; most room"
        );
        let bare = assigned(&right, "starts anew", &json!({}));
        assert_eq!(bare, "epoch 3 on h1: starts anew");
    }

    /// The assignment may be there, and its host's agent start the VM: what it claims is not free.
    #[tokio::test]
    async fn a_write_that_may_have_arrived_takes_no_claim_away() {
        let vm: VirtualMachine = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "oa", "uid": "web", "resourceVersion": "1",
                "finalizers": [FINALIZER]},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "networks": [],
                "disks": [{"name": "system", "volume": "v"}]}}))
        .expect("a VM");
        let claim = json!({"fleet": "fleet", "holder": "VirtualMachine", "uid": "web",
            "host": "h1", "bootId": BOOT, "epoch": 1});
        let volume = json!({
            "metadata": {"name": "v", "namespace": "oa", "uid": "v", "resourceVersion": "1"},
            "spec": {"pool": "p", "size": "1Gi"}, "status": {"phase": "Ready", "claim": claim}});
        let objects = fleet::Objects {
            hosts: vec![host("h1", Value::Null, Value::Null)],
            vms: vec![Arc::new(vm.clone())],
            volumes: vec![typed(volume)],
            ..fleet::Objects::default()
        };
        let mut site = Site::of(CloudPolicySpec::default(), objects, vec![]).await;
        let status = "/virtualmachines/web/status";
        site.refuse(&Method::PATCH, status, (504, "too late"));
        let rights = crate::door::rights(&vm);
        let change = failover::assignment::first(&rights, "h1".into(), BOOT.into());
        let change = Box::new(change.expect("a right"));
        let work = Work::Assign(
            Arc::new(vm),
            change,
            VmPhase::Starting,
            String::new(),
            json!({}),
        );
        carry_out(&site.context, work).await;
        let told = site.written(&Method::PATCH, status);
        let told = told.last().expect("what was wrong is told").to_string();
        assert!(told.contains("can not be assigned"), "{told}");
        let released = site.written(&Method::PATCH, "/volumes/v/status");
        assert!(released.is_empty(), "{released:?}");
    }
}
