//! The target's side: prepares, receives the copy paused, and lets it run on the source's
//! hand-over and on nothing else. A copy that can not be let run is tried at each turn, and that is said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use api::{MigrationSourcePhase, MigrationTarget, MigrationTargetPhase, RuntimePhase};
pub use failover::agent::moving::TargetStep as Step;
use failover::agent::moving::{TargetFacts, target};
use hypervisor::{Domain, DomainState};
use model::Assignment;
use serde_json::{Value, json};

use super::{Move, handover};
use crate::agent::Context;
use crate::clock;
use crate::network;
use crate::vm::spec::ClaimKind;
use crate::vm::{gathering, worker};

/// Least time between two questions to the source.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long the source may hold its answer back; the API's word is looked at as often.
const ANSWER_HELD: Duration = Duration::from_millis(150);
/// How often taps are looked for while the copy arrives.
const TAPS_EVERY: Duration = Duration::from_millis(30);
/// How long until a failed delivery is tried again.
const DELIVER_AGAIN: Duration = Duration::from_millis(200);

/// Decides, from the migration's object, the ledger and the domains.
pub fn decide(context: &Context, moving: &Move, domains: &[Domain]) -> Option<Step> {
    let status = moving.object.status.as_ref()?;
    let ledger = context.ledger.entry(&moving.vm.uid).ok()?;
    let copy = domains.iter().find(|domain| {
        domain.owner.as_ref().is_some_and(|owner| {
            owner.vm.as_str() == moving.vm.uid && owner.epoch == moving.target.epoch
        })
    });
    target(TargetFacts {
        said: moving.target_said(),
        source: moving.source_said(),
        abort_requested: status.abort_requested,
        refuse_requested: status.refuse_requested,
        epoch: ledger.state(moving.target.epoch.0),
        copy: copy.is_some(),
        ran: copy.is_some_and(|copy| copy.state.has_run()),
    })
}

/// Does it.
pub async fn carry_out(context: &Arc<Context>, moving: &Move, step: Step) -> Result<()> {
    match step {
        Step::Prepare => prepare(context, moving).await,
        Step::Receive => receive(context, moving).await,
        Step::Refuse => {
            // A call that let it run and was not answered may have been carried out since: looked at afresh, as a copy
            // that has run is not given up.
            let domains = context.hypervisor.list().await?;
            if decide(context, moving, &domains) != Some(Step::Refuse) {
                return Ok(());
            }
            worker::close_copy(context, &moving.vm, &moving.target, "incomingRuntime").await?;
            say(context, moving, MigrationTargetPhase::Refused, None).await
        }
        Step::SayRefused => say(context, moving, MigrationTargetPhase::Refused, None).await,
    }
}

async fn say(
    context: &Context,
    moving: &Move,
    phase: MigrationTargetPhase,
    message: Option<String>,
) -> Result<()> {
    let target = MigrationTarget {
        assignment: moving.target.clone(),
        phase,
        message,
        resumed_at: (phase == MigrationTargetPhase::Resumed).then(clock::now),
    };
    let mut target = json!(target);
    if phase == MigrationTargetPhase::Resumed {
        // What went wrong before is over.
        target["message"] = Value::Null;
    }
    moving.patch(context, json!({ "target": target })).await
}

/// Says why a copy that was handed over does not run, when that is news: it is tried again at each turn.
async fn say_not_resumed(
    context: &Context,
    moving: &Move,
    told: Option<&MigrationTarget>,
    error: &hypervisor::Error,
) -> Result<()> {
    let why = format!("the copy can not be let run: {error}");
    if is_told(told, &moving.target, &why) {
        return Ok(());
    }
    say(context, moving, MigrationTargetPhase::Arrived, Some(why)).await
}

/// Whether the move tells that this copy does not run, and why.
fn is_told(told: Option<&MigrationTarget>, copy: &Assignment, why: &str) -> bool {
    told.is_some_and(|told| {
        told.assignment == *copy
            && told.phase == MigrationTargetPhase::Arrived
            && told.message.as_deref() == Some(why)
    })
}

async fn prepare(context: &Arc<Context>, moving: &Move) -> Result<()> {
    let Some(fresh) = worker::read_fresh(context, &moving.vm).await? else {
        return Ok(());
    };
    if fresh
        .status
        .as_ref()
        .and_then(|status| status.incoming.as_ref())
        != Some(&moving.target)
    {
        return Ok(());
    }
    context.must_start()?;
    gathering::prepare(
        context,
        &moving.vm,
        &fresh,
        &moving.target,
        ClaimKind::Incoming,
        gathering::MOVE_WITHIN,
    )
    .await?;
    if !context.freezer.acts() {
        return Ok(());
    }
    context.must_start()?;
    context
        .ledger
        .take(&moving.vm.uid, moving.target.epoch.0, context.guard_firings)?;
    say(context, moving, MigrationTargetPhase::Prepared, None).await
}

/// From the first sign of the copy until it runs, or is to be refused. The copy's taps are kept
/// from all frames until the switch-over is near; from then on both copies receive, so that none
/// is lost and few are answered twice.
async fn receive(context: &Arc<Context>, moving: &Move) -> Result<()> {
    let uuid = moving.vm.uuid()?;
    let taps = taps(context, moving).await?;
    let (mut isolated, mut seen) = (false, false);
    let mut delivered: Option<Instant> = None;
    let reference = kube::runtime::reflector::ObjectRef::from_obj(moving.object.as_ref());
    loop {
        if !isolated {
            isolated = isolate(&taps).await;
        }
        let Some(current) = context.view.arriving.get(&reference) else {
            return Ok(());
        };
        let status = current.status.clone().unwrap_or_default();
        let source_said = |phase: MigrationSourcePhase| {
            let source = status.source.as_ref();
            source.is_some_and(|it| it.assignment == moving.source && it.phase == phase)
        };
        let said_by_api = source_said(MigrationSourcePhase::HandedOver);
        let begun = status.source.is_some();
        let answer = if begun {
            let wait = if isolated { ANSWER_HELD } else { TAPS_EVERY };
            handover::ask(context, moving, delivered.is_some(), wait).await
        } else {
            handover::Answer {
                handed_over: false,
                near: false,
            }
        };
        // After the question, which may have taken its time.
        let state = context
            .hypervisor
            .list()
            .await?
            .into_iter()
            .find(|domain| domain.uuid == uuid)
            .map(|domain| domain.state);
        if !context.freezer.acts() {
            return Ok(());
        }
        if state.is_none() && seen {
            // The copy came and is gone: the next turn decides what is said of it.
            return Ok(());
        }
        seen |= state.is_some();
        let handed_over = said_by_api || answer.handed_over;
        // A copy that has run here is the VM itself, and one that was handed over is let run first.
        let kept = handed_over || state.is_some_and(DomainState::has_run);
        if status.refuse_requested && (!kept || source_said(MigrationSourcePhase::StillRunning)) {
            return Ok(());
        }
        if isolated && delivered.is_none() && (answer.near || said_by_api) {
            delivered = deliver(&taps).await.then(Instant::now);
        }
        match state {
            Some(state) if state.has_run() => {
                ensure_delivered(context, moving, taps, delivered.is_some()).await;
                return resumed(context, moving, delivered).await;
            }
            // One that is on its way out refuses, and that is said.
            Some(_) if handed_over => {
                if let Err(error) = context.hypervisor.resume(uuid).await {
                    say_not_resumed(context, moving, status.target.as_ref(), &error).await?;
                    return Err(error.into());
                }
                ensure_delivered(context, moving, taps, delivered.is_some()).await;
                return resumed(context, moving, delivered).await;
            }
            _ => {}
        }
        tokio::time::sleep(if begun { ASK_EVERY } else { TAPS_EVERY }).await;
    }
}

/// A copy that frames reached too late, or only when it ran, may have missed some.
async fn resumed(context: &Arc<Context>, moving: &Move, delivered: Option<Instant>) -> Result<()> {
    let reached = delivered.map(|at| at.elapsed());
    tracing::info!(vm = moving.vm.name, from = %moving.source.host, ?reached, "resumed here");
    say(context, moving, MigrationTargetPhase::Resumed, None).await?;
    let runtime = worker::runtime_of(
        context,
        &moving.vm,
        &moving.target,
        RuntimePhase::Running,
        None,
        None,
    );
    worker::patch_status(context, &moving.vm, &json!({"incomingRuntime": runtime})).await
}

/// Taps of the copy and the hardware addresses behind them.
async fn taps(context: &Arc<Context>, moving: &Move) -> Result<Vec<(String, String)>> {
    let Some(fresh) = worker::read_fresh(context, &moving.vm).await? else {
        return Ok(Vec::new());
    };
    let nics = fresh.status.unwrap_or_default().nics;
    Ok(nics
        .into_iter()
        .enumerate()
        .map(|(index, nic)| (network::tap_name(&moving.vm.uid, index), nic.mac_address))
        .collect())
}

async fn isolate(taps: &[(String, String)]) -> bool {
    for (tap, _) in taps {
        if !network::exists(tap) {
            return false;
        }
        if let Err(error) = network::isolate(tap).await {
            tracing::debug!(tap, %error, "the tap of an arriving copy is not ready yet");
            return false;
        }
    }
    true
}

async fn deliver(taps: &[(String, String)]) -> bool {
    for (tap, mac_address) in taps {
        if let Err(error) = network::deliver(tap, mac_address).await {
            tracing::warn!(tap, %error, "frames do not reach an arriving copy yet");
            return false;
        }
    }
    true
}

/// A guest that runs must be reached. When that fails now, it is tried until it succeeds or the
/// guest is gone: nobody else would.
async fn ensure_delivered(
    context: &Arc<Context>,
    moving: &Move,
    taps: Vec<(String, String)>,
    delivered: bool,
) {
    if delivered || deliver(&taps).await {
        return;
    }
    let (context, vm) = (context.clone(), moving.vm.clone());
    tokio::spawn(async move {
        while !deliver(&taps).await {
            tokio::time::sleep(DELIVER_AGAIN).await;
            let here = match (context.hypervisor.list().await, vm.uuid()) {
                (Ok(domains), Ok(uuid)) => domains.iter().any(|domain| domain.uuid == uuid),
                // Unknown is no reason to give up.
                _ => true,
            };
            if !here {
                return;
            }
        }
        tracing::info!(vm = vm.name, "frames reach the guest");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_copy_does_not_run_is_told_once() {
        let copy = |epoch: i64| -> Assignment {
            serde_json::from_value(json!({"host": "h2", "bootId": "b", "epoch": epoch}))
                .expect("an assignment")
        };
        let told = |epoch: i64, phase: MigrationTargetPhase, message: &str| MigrationTarget {
            assignment: copy(epoch),
            phase,
            message: Some(message.to_owned()),
            resumed_at: None,
        };
        let known = told(2, MigrationTargetPhase::Arrived, "no lock");
        assert!(is_told(Some(&known), &copy(2), "no lock"));
        for news in [
            None,
            Some(told(2, MigrationTargetPhase::Prepared, "no lock")),
            Some(told(1, MigrationTargetPhase::Arrived, "no lock")),
            Some(told(2, MigrationTargetPhase::Arrived, "an I/O error")),
        ] {
            assert!(!is_told(news.as_ref(), &copy(2), "no lock"), "{news:?}");
        }
    }
}
