//! The source's side: sends the guest, and says what became of it. It says `HandedOver` only
//! when its QEMU is dead after the switch-over, or the job ended as migrated: the guest never runs here after it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::{
    MigrationPhase, MigrationSource, MigrationSourcePhase, RuntimePhase, VirtualMachineMigration,
};
use failover::agent::ledger::EpochState;
pub use failover::agent::moving::SourceStep as Step;
use failover::agent::moving::{SourceFacts, source};
use hypervisor::{Domain, DomainState, Migrated, MigrationTarget};
use model::Assignment;
use serde_json::json;

use super::Move;
use crate::agent::Context;
use crate::vm::gathering;
use crate::vm::spec::ClaimKind;
use crate::vm::worker::{self, report};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often the job is looked at, and an abort that was asked for looked for. Each look is a
/// question to the QEMU that is being moved.
const LOOK: Duration = Duration::from_millis(100);
/// Share of the memory after whose copy the switch-over counts as near, percent: from then on frames
/// reach both copies.
const NEAR_PERCENT: u8 = 30;
/// How long libvirt may clear up after a copy that is gone before the VM is decided about here again.
const CLEARED_WITHIN: Duration = Duration::from_secs(60);
/// How long after an aborted job a guest may stand still before its copy is closed.
const RUNS_ON_MAX: Duration = Duration::from_secs(10);

/// Decides, from the migration's object, the ledger and the domains.
pub fn decide(context: &Context, moving: &Move, domains: &[Domain]) -> Option<Step> {
    let status = moving.object.status.as_ref()?;
    let ledger = context.ledger.entry(&moving.vm.uid).ok()?;
    let shows = |is_so: fn(DomainState) -> bool| {
        domains.iter().any(|domain| {
            is_so(domain.state)
                && domain.owner.as_ref().is_some_and(|owner| {
                    owner.vm.as_str() == moving.vm.uid && owner.epoch == moving.source.epoch
                })
        })
    };
    source(SourceFacts {
        said: moving.source_said(),
        target: moving.target_said(),
        abort_requested: status.abort_requested,
        ended: matches!(
            status.phase,
            MigrationPhase::Succeeded | MigrationPhase::Failed | MigrationPhase::Cancelled
        ),
        sending: context.moves.is_moving(&moving.vm.uid),
        epoch: ledger.state(moving.source.epoch.0),
        // One whose disk failed, or that was suspended, is here as well; to send it is refused, and then it is said to be.
        running: shows(DomainState::has_not_left),
        paused: shows(|state| state == DomainState::Paused),
    })
}

/// Does it.
pub async fn carry_out(context: &Arc<Context>, moving: &Move, step: Step) -> Result<()> {
    match step {
        Step::Send => send(context, moving).await,
        Step::SayRunning => say_running(context, moving).await,
        Step::GiveUp => give_up(context, moving).await,
        Step::SayHandedOver => {
            say(
                context,
                moving,
                MigrationSourcePhase::HandedOver,
                &Migrated::default(),
                None,
            )
            .await
        }
        Step::SayClosed => {
            say(
                context,
                moving,
                MigrationSourcePhase::Closed,
                &Migrated::default(),
                None,
            )
            .await
        }
    }
}

/// A copy that an earlier run of this agent left paused at switch-over.
async fn give_up(context: &Arc<Context>, moving: &Move) -> Result<()> {
    let uuid = moving.vm.uuid()?;
    if context.hypervisor.job(uuid).await?.is_some() {
        // One of libvirt's or QEMU's waits may never end by itself. The copy that arrived runs only after this side's
        // word, so an abort is safe; what came of it is seen at the next turn.
        context.hypervisor.abort_job(uuid).await?;
        bail!("the job had not ended yet");
    }
    // Looked at afresh, now that no job is left: it may have ended while domains were listed, and libvirt lets the guest
    // run on then.
    let state = state_of(context, uuid).await?;
    let ledger = context.ledger.entry(&moving.vm.uid)?;
    if runs_on(ledger.state(moving.source.epoch.0), state) {
        return Ok(());
    }
    worker::close_copy(context, &moving.vm, &moving.source, "runtime").await?;
    say(
        context,
        moving,
        MigrationSourcePhase::Closed,
        &Migrated::default(),
        Some("left paused at switch-over; closed".to_owned()),
    )
    .await
}

/// Whether a guest that was to be given up is kept, as it runs here after its job's end: the next turn says so. Not one
/// whose epoch is closed, which is for ever.
fn runs_on(epoch: Option<EpochState>, state: Option<DomainState>) -> bool {
    epoch != Some(EpochState::Closed) && state.is_some_and(DomainState::has_run)
}

async fn state_of(context: &Context, uuid: uuid::Uuid) -> Result<Option<DomainState>> {
    let domains = context.hypervisor.list().await?;
    let own = domains.iter().find(|domain| domain.uuid == uuid);
    Ok(own.map(|domain| domain.state))
}

async fn say_running(context: &Arc<Context>, moving: &Move) -> Result<()> {
    let uuid = moving.vm.uuid()?;
    // A job that an earlier run of this agent began.
    context.hypervisor.abort_job(uuid).await?;
    if context.hypervisor.job(uuid).await?.is_some() {
        bail!("the job has not ended yet");
    }
    // `Migrating` is said before anything is begun, so a cache that lags is not believed: what stands still may have been
    // switched over since.
    let said = moving.source_said();
    let nothing_begun = said.is_none() && moving.afresh(context).await?.source_said().is_none();
    // libvirt lets the guest run on after an abort; that it does is seen, not assumed.
    let begin = tokio::time::Instant::now();
    let state = loop {
        match state_of(context, uuid).await? {
            Some(state) if is_here(state, nothing_begun) => break state,
            _ if begin.elapsed() > RUNS_ON_MAX => return give_up(context, moving).await,
            _ => tokio::time::sleep(LOOK).await,
        }
    };
    let message = if state == DomainState::Running {
        "aborted; the guest runs here"
    } else {
        "aborted; the guest is here and stands still"
    };
    say(
        context,
        moving,
        MigrationSourcePhase::StillRunning,
        &Migrated::default(),
        Some(message.to_owned()),
    )
    .await
}

/// Whether a domain that libvirt shows is the VM itself: where this move began nothing, whatever it stands still for.
fn is_here(state: DomainState, nothing_begun: bool) -> bool {
    state.has_not_left() || (nothing_begun && state == DomainState::Paused)
}

async fn say(
    context: &Context,
    moving: &Move,
    phase: MigrationSourcePhase,
    migrated: &Migrated,
    message: Option<String>,
) -> Result<()> {
    let source = MigrationSource {
        assignment: moving.source.clone(),
        phase,
        progress_percent: (phase == MigrationSourcePhase::HandedOver).then_some(100),
        pause_milliseconds: migrated
            .pause_milliseconds
            .and_then(|pause| i64::try_from(pause).ok()),
        sent_bytes: migrated
            .sent_bytes
            .and_then(|bytes| i64::try_from(bytes).ok()),
        message,
    };
    moving.patch(context, json!({ "source": source })).await
}

async fn send(context: &Arc<Context>, moving: &Move) -> Result<()> {
    let uid = &moving.vm.uid;
    if !context.moves.begin(uid) {
        return Ok(());
    }
    let result = send_registered(context, moving).await;
    context.moves.end(uid);
    result
}

async fn send_registered(context: &Arc<Context>, moving: &Move) -> Result<()> {
    let target = target(context, moving).await?;
    say(
        context,
        moving,
        MigrationSourcePhase::Migrating,
        &Migrated::default(),
        None,
    )
    .await?;
    let uuid = moving.vm.uuid()?;
    if !context.freezer.acts() {
        // It froze since the read that allowed the move.
        return Ok(());
    }
    tracing::info!(vm = moving.vm.name, to = %moving.target.host, "sending");
    let job = context.hypervisor.migrate(uuid, &target);
    let departed = context.hypervisor.departed(uuid);
    let watching = watch(context, moving);
    tokio::pin!(job, departed, watching);
    tokio::select! {
        result = &mut job => match result {
            Ok(migrated) => {
                hand_over(context, moving)?;
                handed_over(context, moving, &migrated).await
            }
            Err(error) => failed(context, moving, &error).await,
        },
        still = &mut departed => gone(context, moving, still, job).await,
        never = &mut watching => match never {},
    }
}

/// The guest can not run here again: the target's copy runs from here on. What is left of the job is clearing up, and
/// whatever libvirt says of it changes nothing.
async fn gone(
    context: &Arc<Context>,
    moving: &Move,
    still: Duration,
    rest: impl Future<Output = hypervisor::Result<Migrated>>,
) -> Result<()> {
    hand_over(context, moving)?;
    let seen = Migrated {
        pause_milliseconds: u64::try_from(still.as_millis()).ok(),
        sent_bytes: None,
    };
    let rest = tokio::time::timeout(CLEARED_WITHIN, rest);
    let (said, rest) = tokio::join!(handed_over(context, moving, &seen), rest);
    if let Ok(Ok(migrated)) = rest
        && let Some(bytes) = migrated.sent_bytes
    {
        // For people; it is lost when the move is gone by now.
        let _ = moving
            .patch(context, json!({"source": {"sentBytes": bytes}}))
            .await;
    }
    said
}

/// Whether this move is to end: the agent is told to stop, or its user, the operator or whoever deleted it wants that.
fn is_to_abort(stopping: bool, current: Option<&VirtualMachineMigration>) -> bool {
    let asked = |current: &VirtualMachineMigration| {
        let status = current.status.as_ref();
        current.spec.cancel || status.is_some_and(|status| status.abort_requested)
    };
    stopping || current.is_none_or(asked)
}

/// Tells progress, and aborts when it is to end, until it is dropped.
async fn watch(context: &Arc<Context>, moving: &Move) -> std::convert::Infallible {
    let Ok(uuid) = moving.vm.uuid() else {
        return std::future::pending().await;
    };
    let reference = kube::runtime::reflector::ObjectRef::from_obj(moving.object.as_ref());
    let mut told = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let current = context.view.leaving.get(&reference);
        let abort = is_to_abort(context.moves.is_stopping(), current.as_deref());
        if abort && let Err(error) = context.hypervisor.abort_job(uuid).await {
            tracing::warn!(%error, "abort is tried again");
        }
        let Ok(Some(job)) = context.hypervisor.job(uuid).await else {
            continue;
        };
        if job.total_bytes > 0 && (job.iterations > 1 || job.percent() >= NEAR_PERCENT) {
            context.moves.set_near(&moving.vm.uid);
        }
        if told.elapsed() > PROGRESS_EVERY {
            told = tokio::time::Instant::now();
            // Progress is for people; one that is lost is followed by the next.
            let _ = moving
                .patch(
                    context,
                    json!({"source": {"progressPercent": job.percent()}}),
                )
                .await;
        }
    }
}

async fn target(context: &Arc<Context>, moving: &Move) -> Result<MigrationTarget> {
    let fresh = worker::read_fresh(context, &moving.vm)
        .await?
        .context("the VM is gone")?;
    let status = fresh.status.clone().unwrap_or_default();
    let right = status.assignment.as_ref() == Some(&moving.source)
        && status.incoming.as_ref() == Some(&moving.target);
    if !right {
        bail!("the VM's assignment or incoming is not this migration's");
    }
    let spec = gathering::prepare(
        context,
        &moving.vm,
        &fresh,
        &moving.target,
        ClaimKind::Incoming,
        gathering::MOVE_WITHIN,
    )
    .await?;
    let policy = context.view.policy().migration;
    let host: &Assignment = &moving.target;
    Ok(MigrationTarget {
        uri: format!("qemu+tls://{}/system", host.host),
        stream_uri: format!("tcp://{}", host.host),
        tls_name: Some(host.host.to_string()),
        spec,
        bandwidth_mebibytes: policy
            .bandwidth_mebibytes_per_second
            .and_then(|bandwidth| u64::try_from(bandwidth).ok()),
        pause_milliseconds: u64::try_from(policy.maximum_pause_milliseconds).unwrap_or(300),
        // The operator moves only VMs whose pools both hosts share.
        storage_is_shared: true,
    })
}

/// The ledger first: from here on the target may learn it, from us or from the API.
fn hand_over(context: &Context, moving: &Move) -> Result<()> {
    context
        .ledger
        .hand_over(&moving.vm.uid, moving.source.epoch.0)?;
    context.moves.tell();
    Ok(())
}

/// Tells people and the operator of a hand-over.
async fn handed_over(context: &Arc<Context>, moving: &Move, migrated: &Migrated) -> Result<()> {
    tracing::info!(vm = moving.vm.name, to = %moving.target.host, pause = migrated.pause_milliseconds, "handed over");
    say(
        context,
        moving,
        MigrationSourcePhase::HandedOver,
        migrated,
        None,
    )
    .await?;
    report(
        context,
        &moving.vm,
        &moving.source,
        RuntimePhase::HandedOver,
        None,
        None,
    )
    .await
}

/// After an error only what the domain shows counts: it is here, or it is gone. One that stands still at switch-over, whose
/// end is not known, may not run on here beside a copy there: closed, the VM starts anew from its disks.
async fn failed(context: &Arc<Context>, moving: &Move, error: &hypervisor::Error) -> Result<()> {
    let uuid = moving.vm.uuid()?;
    let state = state_of(context, uuid).await?;
    tracing::warn!(vm = moving.vm.name, %error, ?state, "the migration failed");
    let nothing_begun = matches!(error, hypervisor::Error::Refused { .. });
    let phase = if state.is_some_and(|state| is_here(state, nothing_begun)) {
        if state == Some(DomainState::Suspended) && context.hypervisor.job(uuid).await?.is_some() {
            // The connection was lost, and the job was not; the next turn aborts it.
            bail!("the job has not ended yet");
        }
        MigrationSourcePhase::StillRunning
    } else {
        worker::close_copy(context, &moving.vm, &moving.source, "runtime").await?;
        MigrationSourcePhase::Closed
    };
    let message = Some(error.to_string());
    say(context, moving, phase, &Migrated::default(), message).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_was_let_run_again_is_not_given_up_for_the_pause_that_was_listed() {
        let runs = [DomainState::Running, DomainState::Stalled].map(Some);
        for state in runs {
            assert!(runs_on(Some(EpochState::Started), state), "{state:?}");
            assert!(!runs_on(Some(EpochState::Closed), state), "{state:?}");
        }
        for state in [Some(DomainState::Paused), Some(DomainState::Ending), None] {
            assert!(!runs_on(Some(EpochState::Started), state), "{state:?}");
        }
    }

    #[test]
    fn a_move_is_aborted_when_its_agent_stops_or_somebody_wants_it() {
        let current = |cancel: bool, requested: bool| -> VirtualMachineMigration {
            serde_json::from_value(json!({
                "metadata": {"name": "m"},
                "spec": {"virtualMachine": "v", "cancel": cancel},
                "status": {"abortRequested": requested},
            }))
            .expect("a migration")
        };
        let goes_on = current(false, false);
        assert!(!is_to_abort(false, Some(&goes_on)));
        assert!(
            is_to_abort(true, Some(&goes_on)),
            "nobody would see its end"
        );
        assert!(is_to_abort(false, Some(&current(true, false))));
        assert!(is_to_abort(false, Some(&current(false, true))));
        assert!(is_to_abort(false, None), "it was deleted");
    }
    #[test]
    fn a_guest_that_stands_still_for_no_switch_over_is_here() {
        let here = [
            DomainState::Running,
            DomainState::Stalled,
            DomainState::Suspended,
        ];
        for state in here {
            assert!(is_here(state, false) && is_here(state, true), "{state:?}");
        }
        let paused = DomainState::Paused;
        assert!(!is_here(paused, false), "it may have been switched over");
        assert!(is_here(paused, true), "nothing can have stopped it");
        assert!(!is_here(DomainState::Ending, true));
    }
}
