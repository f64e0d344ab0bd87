//! A site whose etcd was restored: keeps everything still, and carries out the rebase that a person asks
//! for. When it is frozen is decided by `failover::freeze`, what a rebase does by `failover::rebase`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{CloudPolicy, Host, Rebased, SiteFreeze, VirtualMachine, Volume};
use failover::freeze::{Answer, Due, Facts, HostFacts, OperatorMemory, Turn, host_said};
use failover::rebase::{HostSaid, HostWord, Obstacle, RebasePlan, SeenCopy, rebase};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::{Epoch, HostName};
use serde_json::{Value, json};

use crate::runtime::Context;
use crate::vms::{claim_of, rights_patch};
use crate::writer::{WriteError, logged};
use crate::{clock, door};

/// What is remembered.
#[derive(Debug, Default)]
pub struct Freeze(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    memory: OperatorMemory,
    /// Why the site is frozen and what its rebase waits for, for people.
    message: String,
    /// This operator saw the API go back, and began its watches anew.
    went_back: bool,
}

impl Freeze {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the site is frozen, while this operator holds it for frozen.
    fn message(&self) -> Option<String> {
        let state = self.state();
        state.memory.stands().then(|| state.message.clone())
    }

    /// Another operator leads: what this one held grows old.
    pub fn forget(&self) {
        self.state().memory.forget();
    }

    /// Whether it is news that this operator saw the API go back.
    fn learns_that_it_went_back(&self, went_back: bool) -> bool {
        let known = std::mem::replace(&mut self.state().went_back, went_back);
        went_back && !known
    }

    fn tell(&self, message: String) {
        self.state().message = message;
    }
}

/// Why the site is frozen, if it is: by this operator's own word, or, before it has looked itself, by the API's.
pub fn message(context: &Context) -> Option<String> {
    context.freeze.message().or_else(|| {
        let policies = context.stores.policies.state();
        let frozen = policies.first()?.status.as_ref()?.frozen.as_ref()?;
        Some(frozen.cause.clone())
    })
}

/// What was seen of versions so far means nothing any more.
fn forget_seen(context: &Context) {
    context.freeze.state().went_back = false;
    context.writer.forget_seen();
    context.stores.forget_versions();
}

/// Follows restores and rebases, leading or not: an operator that takes over later must decide from what the
/// API holds now, and must not take an old rebase for new, and forget what it saw.
pub fn follow(context: &Context) {
    if context
        .freeze
        .learns_that_it_went_back(went_back_here(context))
    {
        tracing::warn!("the API server holds less than before: every watch begins anew");
        context.stores.begin_anew();
    }
    let policies = context.stores.policies.state();
    let Some(policy) = policies.first() else {
        return;
    };
    let frozen = policy.status.as_ref().and_then(|it| it.frozen.as_ref());
    if frozen.is_some() {
        return;
    }
    let later = context.freeze.state().memory.learns_of(last_rebase(policy));
    if later {
        context.writer.forget_written();
        forget_seen(context);
    }
}

/// One turn, before anything is decided about VMs.
pub async fn turn(context: &Arc<Context>) -> Turn {
    let Some(policy) = context.stores.policies.state().first().cloned() else {
        // A site without a policy can not be frozen for all to see; hosts that remember more start
        // nothing by themselves.
        return Turn::Act;
    };
    let turn = decide(context, &policy);
    let Turn::Frozen {
        forget_written,
        due,
    } = &turn
    else {
        return turn;
    };
    if *forget_written {
        context.writer.forget_written();
    }
    if context.writer.settled(policy.as_ref()) {
        carry_out(context, &policy, due).await;
    }
    turn
}

/// What is known of the site, and what follows from it.
fn decide(context: &Context, policy: &CloudPolicy) -> Turn {
    let status = policy.status.as_ref();
    let frozen = status.and_then(|status| status.frozen.as_ref());
    let hosts = context.stores.hosts.state();
    let facts = Facts {
        roll_call: frozen.map(|frozen| frozen.roll_call.as_str()),
        last_rebase: last_rebase(policy),
        went_back: went_back_here(context),
        hosts: hosts.iter().map(|host| host_facts(context, host)).collect(),
        unreachable_after_milliseconds: door::policy(&context.stores.policy())
            .unreachable_after_milliseconds,
    };
    let mut state = context.freeze.state();
    let stood = state.memory.stands();
    let turn = state.memory.turn(&facts, clock::now());
    if let Turn::Frozen {
        forget_written,
        due,
    } = &turn
    {
        let cause = match due {
            Due::Freeze(cause) => Some(cause.to_string()),
            _ => frozen.map(|frozen| frozen.cause.clone()),
        };
        let is_news = *forget_written && matches!(due, Due::Freeze(_));
        if is_news {
            tracing::error!(cause, "the site is frozen");
        }
        if is_news || !stood {
            state.message = cause.unwrap_or_default();
        }
    }
    turn
}

fn host_facts<'a>(context: &Context, host: &'a Host) -> HostFacts<'a> {
    let name = host.name_any();
    let renewals = context.stores.renewals(&name);
    let report = host
        .reported()
        .and_then(|reported| reported.frozen.as_ref());
    HostFacts {
        accepted: host.status.as_ref().is_some_and(|s| s.accepted.is_some()),
        renewals: renewals.as_ref().map_or(0, |known| known.sign.changes),
        remembers: renewals.and_then(|known| known.api_seen),
        frozen: report.map(|report| (report.rebase.as_str(), report.cause.as_str())),
        name: HostName(name),
    }
}

async fn carry_out(context: &Arc<Context>, policy: &CloudPolicy, due: &Due) {
    match due {
        Due::Freeze(cause) => {
            let cause = cause.to_string();
            let frozen = json!({"since": clock::wall(), "cause": cause});
            if call_the_roll(context, policy, frozen).await {
                let note = format!(
                    "{cause}; nothing is started, stopped, moved or forced off before: zyctl failover rebase"
                );
                let kind = EventType::Warning;
                context.writer.tell(policy, kind, "Frozen", &note).await;
            }
        }
        Due::CallTheRoll { again } => {
            let anew = json!({"since": clock::wall()});
            call_the_roll(context, policy, if *again { anew } else { json!({}) }).await;
        }
        Due::Rebase => {
            let status = policy.status.as_ref();
            if let Some(frozen) = status.and_then(|status| status.frozen.as_ref()) {
                go_on(context, policy, frozen).await;
            }
        }
    }
}

/// Asks every host what runs there, in `status.frozen` with what else is to be said of the freeze.
/// A floor of epochs from before is void: there may be higher ones by now. Whether it was written.
async fn call_the_roll(context: &Context, policy: &CloudPolicy, mut frozen: Value) -> bool {
    let roll_call = format!("{} {}", clock::wall().0, context.writer.identity());
    frozen["rollCall"] = json!(roll_call);
    frozen["epochFloor"] = Value::Null;
    let status = json!({"frozen": frozen});
    let result = context.writer.swap_status(policy, status).await;
    let written = result.is_ok();
    if written {
        context.freeze.state().memory.called(&roll_call);
        forget_seen(context);
    }
    logged("freeze", &policy.name_any(), result);
    written
}

fn last_rebase(policy: &CloudPolicy) -> &str {
    let status = policy.status.as_ref();
    let last = status.and_then(|status| status.last_rebase.as_ref());
    last.map_or("", |last| last.id.as_str())
}

/// By the leader's Lease, or by an object that a watch showed older than it was.
fn went_back_here(context: &Context) -> bool {
    context.writer.saw_it_go_back() || context.stores.saw_it_go_back()
}

/// Carries out the rebase that was asked for, and says what it waits for.
async fn go_on(context: &Arc<Context>, policy: &CloudPolicy, frozen: &SiteFreeze) {
    let (vms, hosts) = match (
        context.writer.list::<VirtualMachine>().await,
        context.writer.list::<Host>().await,
    ) {
        (Ok(vms), Ok(hosts)) => (vms, hosts),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "VMs and hosts were not read afresh");
            return;
        }
    };
    let plan = plan(context, policy, frozen, &vms, &hosts);
    let asked = policy.spec.failover.rebase.as_ref();
    let asked = asked.filter(|request| request.frozen_since == frozen.since);
    let waits = match (&plan, asked) {
        (Err(obstacles), _) => obstacles
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        (Ok(_), None) => "every host was heard or is off: zyctl failover rebase".to_owned(),
        (Ok(_), Some(_)) => "the rebase is being carried out".to_owned(),
    };
    context.freeze.tell(format!("{}; {waits}", frozen.cause));
    let (Ok(plan), Some(request)) = (plan, asked) else {
        return;
    };
    let result = if frozen.epoch_floor.is_none() {
        // Kept first: a rebase that is interrupted ends as it began.
        let floor = json!({"frozen": {"epochFloor": plan.floor}});
        context.writer.swap_status(policy, floor).await
    } else if plan.changes.is_empty() {
        match claim(context, &vms, &plan).await {
            Ok(true) => end(context, policy, frozen, request, vms.len()).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        }
    } else {
        write(context, &vms, &plan).await
    };
    logged("rebase", &policy.name_any(), result);
}

fn plan(
    context: &Context,
    policy: &CloudPolicy,
    frozen: &SiteFreeze,
    vms: &[VirtualMachine],
    hosts: &[Host],
) -> Result<RebasePlan, Vec<Obstacle>> {
    let last = last_rebase(policy);
    let said: BTreeMap<HostName, HostSaid> = hosts
        .iter()
        .map(|host| {
            let said = said(context, host, last, &frozen.roll_call);
            (HostName(host.name_any()), said)
        })
        .collect();
    let rights: Vec<_> = vms.iter().map(door::rights).collect();
    let decided = frozen.epoch_floor.map(Epoch);
    rebase(&rights, &said, decided, clock::wall().0.as_millisecond())
}

/// What a host says, or proof that it is off.
fn said(context: &Context, host: &Host, last_rebase: &str, roll_call: &str) -> HostSaid {
    let name = HostName(host.name_any());
    let answer = host.reported().and_then(|reported| {
        let report = reported.frozen.as_ref()?;
        let copies = report.copies.iter().map(|copy| SeenCopy {
            vm: copy.vm.as_str().into(),
            name: copy.name.clone(),
            epoch: Epoch(copy.epoch),
            runs: copy.runs,
        });
        let word = HostWord {
            boot_id: reported.incarnation.boot_id.as_str().into(),
            copies: copies.collect(),
            highest: Epoch(report.highest_epoch),
        };
        Some(Answer {
            rebase: &report.rebase,
            roll_call: &report.roll_call,
            word,
        })
    });
    let renews = context
        .stores
        .renewals(name.as_str())
        .and_then(|renewals| renewals.boot_id);
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    host_said(
        answer,
        renews.as_ref(),
        last_rebase,
        roll_call,
        watch.off(&name),
    )
}

async fn write(
    context: &Context,
    vms: &[VirtualMachine],
    plan: &RebasePlan,
) -> Result<(), WriteError> {
    let vms: BTreeMap<_, _> = vms.iter().map(|vm| (door::uid(vm), vm)).collect();
    for change in &plan.changes {
        if let Some(vm) = vms.get(&change.after().vm) {
            let mut status = rights_patch(change);
            // What agents reported before the restore is old: they report anew once they act.
            status["runtime"] = Value::Null;
            status["incomingRuntime"] = Value::Null;
            context.writer.swap_status(*vm, status).await?;
        }
    }
    Ok(())
}

/// Gives the volumes of what runs to what runs; whether all of them were so already. Read afresh, as
/// a claim of the backup may be another VM's.
async fn claim(
    context: &Context,
    vms: &[VirtualMachine],
    plan: &RebasePlan,
) -> Result<bool, WriteError> {
    let listed = context.writer.list::<Volume>().await?;
    let named = |volume: &Volume| (volume.namespace(), volume.name_any());
    let volumes: BTreeMap<_, _> = listed.iter().map(|it| (named(it), it)).collect();
    let mut settled = true;
    for vm in vms {
        let Some(right) = plan.running.get(&door::uid(vm)) else {
            continue;
        };
        let wanted = claim_of(context, vm, right);
        let disks = vm.spec.disks.iter();
        let carried = disks.filter_map(|disk| volumes.get(&(vm.namespace(), disk.volume.clone())));
        for volume in carried {
            let status = volume.status.clone().unwrap_or_default();
            if status.claim.as_ref() != Some(&wanted) {
                let claim = json!({"claim": wanted});
                context.writer.swap_status(*volume, claim).await?;
                settled = false;
            }
        }
    }
    Ok(settled)
}

/// The rights are what runs: hosts may act again.
async fn end(
    context: &Context,
    policy: &CloudPolicy,
    frozen: &SiteFreeze,
    request: &api::RebaseRequest,
    vms: usize,
) -> Result<(), WriteError> {
    let at = clock::wall();
    let id = context
        .freeze
        .state()
        .memory
        .name_rebase(last_rebase(policy), at.0.to_string());
    let last = Rebased {
        id,
        at,
        by: request.by.clone(),
        reason: request.reason.clone(),
        frozen_since: frozen.since.clone(),
        virtual_machines: i32::try_from(vms).unwrap_or(i32::MAX),
    };
    let status = json!({"frozen": null, "lastRebase": last});
    context.writer.swap_status(policy, status).await?;
    context.freeze.state().memory.rebased();
    let note = format!(
        "{} VMs follow what runs; by {}: {}",
        vms, request.by, request.reason
    );
    context
        .writer
        .tell(policy, EventType::Normal, "Rebased", &note)
        .await;
    tracing::warn!(
        by = request.by,
        reason = request.reason,
        "the site was rebased"
    );
    Ok(())
}
