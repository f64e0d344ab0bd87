//! Carries out what was decided for one VM. One piece of work per VM at a time; nothing here
//! holds up another VM.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api::{CloseReason, RunStrategy, Runtime, RuntimePhase, VirtualMachine};
use failover::copy::CopyPhase;
use hypervisor::{DomainSpec, DomainState};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use model::{Assignment, Epoch};
use serde_json::json;
use uuid::Uuid;

use super::closing::{self, CloseStuck};
use super::decide::{Action, close_reason, runtime_phase};
use super::forgotten;
use super::gathering::{pool, prepare, read_volumes};
use super::last_words::LastWord;
use super::preparing;
use super::reporting;
use super::spec::ClaimKind;
use super::starting;
use crate::agent::Context;
use crate::clock;
use crate::network;
use crate::storage::folder::PoolFolder;
use crate::storage::pools::PoolProbes;

/// How long a guest may take to shut itself down before it is destroyed.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);

/// Identity of a VM, enough to find it in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmRef {
    /// Its uid: also the domain's UUID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl VmRef {
    /// The domain's UUID.
    ///
    /// # Errors
    /// The uid is none.
    pub fn uuid(&self) -> Result<Uuid> {
        Uuid::parse_str(&self.uid)
            .with_context(|| format!("uid {:?} of VM {}/{}", self.uid, self.namespace, self.name))
    }
}

/// What there is for the loop after a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Something changed here: it goes round at once.
    Changed,
    /// Nothing did, or only the API, which tells it by itself. Decided again at the next tick: at once it would be the same.
    Waits,
}

/// Does it.
///
/// # Errors
/// What is tried again at the next tick.
pub async fn carry_out(context: &Arc<Context>, vm: &VmRef, action: Action) -> Result<Done> {
    match action {
        Action::Nothing => return Ok(Done::Waits),
        Action::Start(assignment) => return start(context, vm, &assignment).await,
        Action::Shutdown(assignment) => shutdown(context, vm, &assignment).await?,
        Action::Close(assignment, cause) => {
            close(context, vm, &assignment, close_reason(cause)).await?;
        }
        Action::Resume(assignment) => {
            resume(context, vm, &assignment).await?;
            return Ok(Done::Waits);
        }
        Action::CheckSuperseded(assignment) => {
            return check_superseded(context, vm, &assignment).await;
        }
        Action::Report(assignment, phase, cause) => {
            let word = context.last_words.of(&vm.uid, assignment.epoch);
            let (reason, message) = match word.filter(|_| phase == CopyPhase::Closed) {
                Some(word) => (Some(word.reason), word.message),
                None => (cause.map(close_reason), None),
            };
            let phase = runtime_phase(phase);
            report(context, vm, &assignment, phase, reason, message).await?;
            return Ok(Done::Waits);
        }
        Action::Forgotten(assignment, said) => {
            forgotten::give_up(context, vm, &assignment, said).await?;
        }
    }
    Ok(Done::Changed)
}

fn machines(context: &Context, namespace: &str) -> Api<VirtualMachine> {
    Api::namespaced(context.client.clone(), namespace)
}

/// A quorum read of the VM; none when it is gone or another one bears its name.
///
/// # Errors
/// The API can not be reached, or this host is frozen.
pub async fn read_fresh(context: &Context, vm: &VmRef) -> Result<Option<VirtualMachine>> {
    let api = machines(context, &vm.namespace);
    let fresh = context.freezer.read(&api, &vm.name).await?;
    Ok(fresh.filter(|fresh| fresh.metadata.uid.as_deref() == Some(&vm.uid)))
}

/// Starts a VM: fresh read, claims, everything that can fail before the epoch is used, then
/// the ledger, then libvirt.
async fn start(context: &Arc<Context>, vm: &VmRef, assignment: &Assignment) -> Result<Done> {
    let Some(fresh) = read_fresh(context, vm).await? else {
        return Ok(Done::Waits);
    };
    let status = fresh.status.clone().unwrap_or_default();
    let halt = fresh.metadata.deletion_timestamp.is_some()
        || fresh.spec.run_strategy == RunStrategy::Halted;
    if status.assignment.as_ref() != Some(assignment) || halt {
        return Ok(Done::Waits);
    }
    if forgotten::shows(context, &fresh, assignment)? {
        // The cache shows it in a moment too, and the alarm is raised then.
        return Ok(Done::Waits);
    }
    if let Some(why) = context.starts_forbidden() {
        return waiting(context, vm, assignment, status.runtime.as_ref(), &why).await;
    }
    let begin = tokio::time::Instant::now();
    let bound = context
        .preparing
        .try_within(&vm.uid, assignment.epoch.0, Instant::now());
    let spec = match prepare(context, vm, &fresh, assignment, ClaimKind::Current, bound).await {
        Ok(spec) => spec,
        Err(error) => {
            let (told, why) = (status.runtime.as_ref(), format!("{error:#}"));
            return waiting(context, vm, assignment, told, &why).await;
        }
    };
    if !context.freezer.acts() || context.starts_forbidden().is_some() {
        context.preparing.ends(&vm.uid);
        return Ok(Done::Waits);
    }
    context
        .ledger
        .take(&vm.uid, assignment.epoch.0, context.guard_firings)?;
    context.preparing.ends(&vm.uid);
    let prepared = begin.elapsed();
    let hypervisor = context.hypervisor.as_ref();
    let started = starting::start(hypervisor, &context.ledger, &spec, starting::DEADLINE).await;
    if let Err(message) = started {
        tracing::error!(vm = vm.name, message, "start failed");
        let reason = start_failure(&message);
        close_and_report(context, vm, assignment, reason, Some(message)).await?;
        return Ok(Done::Changed);
    }
    attach_taps(&spec).await;
    tracing::info!(
        vm = vm.name,
        epoch = assignment.epoch.0,
        ?prepared,
        after = ?begin.elapsed(),
        "started"
    );
    report(context, vm, assignment, RuntimePhase::Running, None, None).await?;
    Ok(Done::Changed)
}

/// A disk that another process has open for writing is refused by QEMU's image lock: the last line of
/// defence, and named, as somebody must look who that is.
fn start_failure(message: &str) -> CloseReason {
    if hypervisor::tells_of_image_lock(message) {
        CloseReason::ImageLocked
    } else {
        CloseReason::StartFailed
    }
}

/// Shows what a start waits for, when that is not `told` yet: each report wakes whoever watches the VM, this host
/// too. The next tick tries again, until it has waited for too long.
async fn waiting(
    context: &Arc<Context>,
    vm: &VmRef,
    assignment: &Assignment,
    told: Option<&Runtime>,
    why: &str,
) -> Result<Done> {
    let (uid, epoch) = (vm.uid.as_str(), assignment.epoch.0);
    if context.preparing.is_overdue(uid, epoch, Instant::now()) {
        tracing::error!(vm = vm.name, why, "not started in time, declined");
        let told = Some(preparing::declined(why));
        close_and_report(context, vm, assignment, CloseReason::Declined, told).await?;
        context.preparing.ends(uid);
        return Ok(Done::Changed);
    }
    if preparing::is_told(told, assignment, why) {
        return Ok(Done::Waits);
    }
    tracing::warn!(vm = vm.name, why, "not started yet");
    let (phase, message) = (RuntimePhase::Preparing, Some(why.to_owned()));
    report(context, vm, assignment, phase, None, message).await?;
    Ok(Done::Waits)
}

/// Static delivery to the taps of a domain that is there.
pub async fn attach_taps(spec: &DomainSpec) {
    for nic in &spec.nics {
        if let Err(error) = network::attach(&nic.device, &nic.mac_address).await {
            // Frames still arrive by flooding; the next look at the networks repairs it.
            tracing::warn!(%error, tap = nic.device, "static delivery was not set");
        }
    }
}

async fn shutdown(context: &Arc<Context>, vm: &VmRef, assignment: &Assignment) -> Result<()> {
    // A restored API may want halted what its user has started since.
    read_fresh(context, vm).await?;
    report(context, vm, assignment, RuntimePhase::Stopping, None, None).await?;
    let uuid = vm.uuid()?;
    if let Err(error) = context.hypervisor.shutdown(uuid).await {
        tracing::warn!(vm = vm.name, %error, "the guest was not asked to shut down");
    }
    let gone = closing::wait_gone(context.hypervisor.as_ref(), uuid, SHUTDOWN_PATIENCE).await;
    tracing::info!(vm = vm.name, gone, "shut down on request");
    close(context, vm, assignment, CloseReason::Requested).await
}

/// Lets a guest run on that QEMU stopped because a disk failed: only here, where it is assigned, only
/// once all its storage answers, and only while that is why it stands still.
async fn resume(context: &Arc<Context>, vm: &VmRef, assignment: &Assignment) -> Result<()> {
    let uuid = vm.uuid()?;
    if !context.resumes.is_due(uuid, Instant::now()) {
        return Ok(());
    }
    context.resumes.looked(uuid, Instant::now());
    let Some(fresh) = read_fresh(context, vm).await? else {
        return Ok(());
    };
    let status = fresh.status.clone().unwrap_or_default();
    if status.assignment.as_ref() != Some(assignment) || status.incoming.is_some() {
        return Ok(());
    }
    let probes = PoolProbes::shared();
    for volume in read_volumes(context, &fresh).await? {
        let name = &volume.spec.pool;
        let folder = PoolFolder::of(&*pool(context, name)?);
        if probes.look(name, &folder, Instant::now()).state != "Ready" {
            return Ok(());
        }
    }
    let domains = context.hypervisor.list().await?;
    let stalled = domains.iter().any(|domain| {
        let own = domain.owner.as_ref().is_some_and(|owner| {
            owner.boot_id == assignment.boot_id && owner.epoch == assignment.epoch
        });
        domain.uuid == uuid && own && domain.state == DomainState::Stalled
    });
    if !stalled || !context.freezer.acts() {
        return Ok(());
    }
    context.resumes.begun(uuid, Instant::now());
    tracing::warn!(vm = vm.name, "its storage answers again; the guest runs on");
    context.hypervisor.resume(uuid).await?;
    Ok(())
}

/// Closes an epoch: the ledger first, then the domain until libvirt shows none, then the report.
///
/// # Errors
/// What is tried again at the next turn.
pub async fn close(
    context: &Arc<Context>,
    vm: &VmRef,
    assignment: &Assignment,
    reason: CloseReason,
) -> Result<()> {
    close_and_report(context, vm, assignment, reason, None).await
}

/// Closes an epoch, then says so, with more than the reason. Why is kept until it was told: a report that fails is made
/// again by another turn.
///
/// # Errors
/// What is tried again at the next turn.
pub(super) async fn close_and_report(
    context: &Arc<Context>,
    vm: &VmRef,
    assignment: &Assignment,
    reason: CloseReason,
    message: Option<String>,
) -> Result<()> {
    if assignment.boot_id != context.boot_id {
        // Another boot's copy has nothing to report: its boot id is retired.
        return close_copy(context, vm, assignment, "runtime").await;
    }
    // The ledger first: what it does not close goes on, and ends for another reason.
    context.ledger.close(&vm.uid, assignment.epoch.0)?;
    let word = LastWord { reason, message };
    let word = context.last_words.keep(&vm.uid, assignment.epoch, word);
    close_copy(context, vm, assignment, "runtime").await?;
    let (reason, message) = (Some(word.reason), word.message);
    let phase = RuntimePhase::Closed;
    report(context, vm, assignment, phase, reason, message).await
}

/// Closes an epoch here; a close that is stuck is told in `field` of the VM's status.
///
/// # Errors
/// As [`close_locally`].
pub async fn close_copy(
    context: &Context,
    vm: &VmRef,
    assignment: &Assignment,
    field: &str,
) -> Result<()> {
    let closed = close_locally(context, vm, assignment.epoch).await;
    if let Err(error) = &closed
        && error.is::<CloseStuck>()
        && assignment.boot_id == context.boot_id
    {
        say_stuck(context, vm, assignment, field, error.to_string()).await;
    }
    closed
}

/// Says once that a close is stuck.
async fn say_stuck(
    context: &Context,
    vm: &VmRef,
    assignment: &Assignment,
    field: &str,
    why: String,
) {
    let Ok(uuid) = vm.uuid() else { return };
    if context.closes.is_told(uuid) {
        return;
    }
    tracing::error!(vm = vm.name, why, "a copy can not be ended");
    let runtime = runtime_of(
        context,
        vm,
        assignment,
        RuntimePhase::CloseStuck,
        None,
        Some(why),
    );
    match patch_status(context, vm, &json!({field: runtime})).await {
        Ok(()) => context.closes.set_told(uuid),
        Err(error) => tracing::warn!(
            vm = vm.name,
            error = format!("{error:#}"),
            "that a copy can not be ended is told again"
        ),
    }
}

/// Closes an epoch here, without a report.
///
/// # Errors
/// The ledger refuses, or libvirt does not let go of the domain ([`CloseStuck`] past the bound).
pub async fn close_locally(context: &Context, vm: &VmRef, epoch: Epoch) -> Result<()> {
    context.ledger.close(&vm.uid, epoch.0)?;
    let patience = closing::patience();
    closing::end(
        context.hypervisor.as_ref(),
        &context.closes,
        vm.uuid()?,
        patience,
    )
    .await
    .with_context(|| format!("copy of VM {}/{}", vm.namespace, vm.name))
}

/// A copy whose right is in doubt: only a fresh read decides, and without one it is kept.
async fn check_superseded(
    context: &Arc<Context>,
    vm: &VmRef,
    running: &Assignment,
) -> Result<Done> {
    let Some(fresh) = read_fresh(context, vm).await? else {
        tracing::error!(
            vm = vm.name,
            "the VM of a running domain is gone from the API; the domain is kept"
        );
        return Ok(Done::Waits);
    };
    let status = fresh.status.unwrap_or_default();
    context
        .freezer
        .see_epoch(&vm.uid, running.epoch, status.last_epoch)?;
    if status.assignment.as_ref() == Some(running) || status.incoming.as_ref() == Some(running) {
        return Ok(Done::Waits);
    }
    let higher_elsewhere = status
        .assignment
        .as_ref()
        .is_some_and(|other| other.epoch > running.epoch);
    if !higher_elsewhere {
        return Ok(Done::Waits);
    }
    tracing::error!(
        vm = vm.name,
        epoch = running.epoch.0,
        "a higher epoch stands elsewhere; this copy is closed"
    );
    close_locally(context, vm, running.epoch).await?;
    Ok(Done::Changed)
}

/// A report of a copy here, made now.
pub fn runtime_of(
    context: &Context,
    vm: &VmRef,
    assignment: &Assignment,
    phase: RuntimePhase,
    reason: Option<CloseReason>,
    message: Option<String>,
) -> Runtime {
    let reference = ObjectRef::<VirtualMachine>::new(&vm.name).within(&vm.namespace);
    let (assigned, incoming) = (&context.view.assigned, &context.view.incoming);
    let known = assigned
        .get(&reference)
        .or_else(|| incoming.get(&reference));
    // Another one that bears its name may have had the same epoch here.
    let known = known.filter(|known| known.metadata.uid.as_deref() == Some(vm.uid.as_str()));
    let status = known.as_ref().and_then(|known| known.status.as_ref());
    reporting::runtime(status, assignment, phase, reason, message, clock::now())
}

/// Writes `status.runtime`, or `status.incomingRuntime` for an arrival.
///
/// # Errors
/// The API can not be reached or refuses; the next turn tries again.
pub async fn report(
    context: &Context,
    vm: &VmRef,
    assignment: &Assignment,
    phase: RuntimePhase,
    reason: Option<CloseReason>,
    message: Option<String>,
) -> Result<()> {
    let runtime = runtime_of(context, vm, assignment, phase, reason, message);
    let mut status = json!({"runtime": runtime});
    if phase == RuntimePhase::Running {
        // What was reported while this copy was arriving is over.
        status["incomingRuntime"] = serde_json::Value::Null;
    }
    patch_status(context, vm, &status).await
}

/// Merges into the VM's status.
///
/// # Errors
/// The API can not be reached or refuses.
pub async fn patch_status(context: &Context, vm: &VmRef, status: &serde_json::Value) -> Result<()> {
    merge(
        context,
        (&vm.namespace, &vm.name),
        &json!({ "status": status }),
    )
    .await
}

/// Merges a document, with what it names beside the status, into that of the VM of this namespace and name.
pub(super) async fn merge(
    context: &Context,
    (namespace, name): (&str, &str),
    patch: &serde_json::Value,
) -> Result<()> {
    machines(context, namespace)
        .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .context("status of the VM")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_image_lock_has_a_name_of_its_own() {
        let refused = "internal error: process exited while connecting to monitor: qemu-system-x86_64: -device virtio-blk: Failed to get \"write\" lock\nIs another process using the image [/srv/x.qcow2]?";
        assert_eq!(start_failure(refused), CloseReason::ImageLocked);
        assert_eq!(
            start_failure("Cannot allocate memory"),
            CloseReason::StartFailed
        );
    }
}
