//! A site whose etcd was restored: notices it, keeps everything still, and carries out the rebase
//! that a person asks for. What a rebase does is decided by `failover::rebase`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{CloudPolicy, Host, Rebased, SiteFreeze, VirtualMachine, Volume};
use failover::Moment;
use failover::agent::freeze::went_back;
use failover::rebase::{HostSaid, HostWord, Obstacle, RebasePlan, SeenCopy, rebase};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::{Epoch, HostName};
use serde_json::{Value, json};

use crate::runtime::Context;
use crate::vms::{claim_of, rights_patch};
use crate::writer::{WriteError, logged};
use crate::{clock, door};

/// What may be done with VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// What is right.
    Act,
    /// Nothing yet: this operator has just begun and has not heard from every host.
    Listen,
    /// Nothing before a rebase.
    Frozen,
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Freeze(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What the rebase waits for, while the site is frozen.
    message: Option<String>,
    /// When this operator first looked.
    began: Option<Moment>,
    /// Every host was heard since, or is silent.
    heard: bool,
    /// This operator saw the API go back, and began its watches anew.
    went_back: bool,
    /// The last rebase that this operator knows of.
    rebase: String,
    /// The roll-call that this operator made: what hosts say counts as an answer to it alone. What a
    /// restored API holds of a former freeze answers another.
    roll_call: String,
}

impl Freeze {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this operator holds the site for frozen.
    fn stands(&self) -> bool {
        self.state().message.is_some()
    }

    /// What a rebase waits for, while this operator holds the site for frozen.
    fn message(&self) -> Option<String> {
        self.state().message.clone()
    }

    /// Another operator leads: what this one held grows old.
    pub fn forget(&self) {
        self.set(None);
    }

    /// Takes the name of the last rebase; whether it is a later one than was known: versions from
    /// before it mean nothing, to an operator that did not lead then too.
    fn learns_of(&self, last: &str) -> bool {
        let mut state = self.state();
        let later = last > state.rebase.as_str();
        if later {
            last.clone_into(&mut state.rebase);
            state.roll_call.clear();
        }
        later
    }

    /// This operator froze the site, and knows of no rebase since.
    fn awaits_rebase(&self) -> bool {
        !self.state().roll_call.is_empty()
    }

    fn has_called(&self, roll_call: &str) -> bool {
        !roll_call.is_empty() && self.state().roll_call == roll_call
    }

    /// Whether it is news that this operator saw the API go back.
    fn learns_that_it_went_back(&self, went_back: bool) -> bool {
        let known = std::mem::replace(&mut self.state().went_back, went_back);
        went_back && !known
    }

    fn set(&self, message: Option<String>) {
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
    if frozen.is_none() && context.freeze.learns_of(&last_rebase(policy)) {
        context.writer.forget_written();
        forget_seen(context);
    }
}

/// One turn, before anything is decided about VMs.
pub async fn turn(context: &Arc<Context>) -> Word {
    let Some(policy) = context.stores.policies.state().first().cloned() else {
        // A site without a policy can not be frozen for all to see; hosts that remember more start
        // nothing by themselves.
        return Word::Act;
    };
    let status = policy.status.clone().unwrap_or_default();
    if let Some(frozen) = &status.frozen {
        if !context.freeze.stands() {
            // Versions are used anew: what was written from them means nothing any more.
            context.writer.forget_written();
            context.freeze.set(Some(frozen.cause.clone()));
        }
        let again = went_back_here(context);
        if again {
            context.writer.forget_written();
        }
        if context.writer.settled(policy.as_ref()) {
            if context.freeze.has_called(&frozen.roll_call) && !again {
                go_on(context, &policy, frozen).await;
            } else {
                // Etcd went back once more: a rebase that was asked for before is none of this freeze.
                let anew = json!({"since": clock::wall()});
                call_the_roll(context, &policy, if again { anew } else { json!({}) }).await;
            }
        }
        return Word::Frozen;
    }
    if let Some(cause) = noticed(context, &last_rebase(&policy)) {
        if !context.freeze.stands() || went_back_here(context) {
            tracing::error!(cause, "the site is frozen");
            context.writer.forget_written();
            context.freeze.set(Some(cause.clone()));
        }
        if context.writer.settled(policy.as_ref()) {
            let frozen = json!({"since": clock::wall(), "cause": cause});
            if call_the_roll(context, &policy, frozen).await {
                let note = format!(
                    "{cause}; nothing is started, stopped, moved or forced off before: zyctl failover rebase"
                );
                let kind = EventType::Warning;
                context
                    .writer
                    .tell(policy.as_ref(), kind, "Frozen", &note)
                    .await;
            }
        }
        return Word::Frozen;
    }
    context.freeze.set(None);
    if everybody_heard(context) {
        Word::Act
    } else {
        Word::Listen
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
        context.freeze.state().roll_call = roll_call;
        forget_seen(context);
    }
    logged("freeze", &policy.name_any(), result);
    written
}

fn last_rebase(policy: &CloudPolicy) -> String {
    let last = policy
        .status
        .as_ref()
        .and_then(|status| status.last_rebase.clone());
    last.map(|last| last.id).unwrap_or_default()
}

/// By the leader's Lease, or by an object that a watch showed older than it was.
fn went_back_here(context: &Context) -> bool {
    context.writer.saw_it_go_back() || context.stores.saw_it_go_back()
}

/// Who noticed that the API went back, and what.
fn noticed(context: &Context, last_rebase: &str) -> Option<String> {
    if went_back_here(context) {
        return Some("the operator saw the API server hold less than before".to_owned());
    }
    if context.freeze.awaits_rebase() {
        return Some("the API server has forgotten that the site is frozen".to_owned());
    }
    for host in context.stores.hosts.state() {
        let name = host.name_any();
        if let Some(report) = frozen_report(&host, last_rebase) {
            return Some(format!("host {name}: {}", report.cause));
        }
        let seen = context
            .stores
            .renewals(&name)
            .and_then(|renewals| renewals.api_seen);
        if let Some((word, version)) = seen
            && went_back(&word, version, last_rebase)
        {
            return Some(format!(
                "host {name} remembers version {word} of the API server, which is at {version}"
            ));
        }
    }
    None
}

/// What a frozen host says, if it says it about this freeze.
fn frozen_report<'a>(host: &'a Host, last_rebase: &str) -> Option<&'a api::FrozenReport> {
    let reported = host.reported()?;
    let report = reported.frozen.as_ref()?;
    (report.rebase == last_rebase).then_some(report)
}

/// An operator that has just begun knows no more than the API does: it listens until every host
/// has renewed its Lease once more, or has been silent for as long as makes it unreachable.
fn everybody_heard(context: &Context) -> bool {
    let now = clock::now();
    let mut state = context.freeze.state();
    let began = *state.began.get_or_insert(now);
    if !state.heard {
        let policy = door::policy(&context.stores.policy());
        let late = now.since(began) >= policy.unreachable_after_milliseconds;
        state.heard = late
            || context.stores.hosts.state().iter().all(|host| {
                let accepted = host.status.as_ref().is_some_and(|s| s.accepted.is_some());
                let renewals = context.stores.renewals(&host.name_any());
                !accepted || renewals.is_some_and(|renewals| renewals.sign.changes > 1)
            });
    }
    state.heard
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
    context
        .freeze
        .set(Some(format!("{}; {waits}", frozen.cause)));
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
            let said = said(context, host, &last, &frozen.roll_call);
            (HostName(host.name_any()), said)
        })
        .collect();
    let rights: Vec<_> = vms.iter().map(door::rights).collect();
    let decided = frozen.epoch_floor.map(Epoch);
    rebase(&rights, &said, decided, clock::wall().0.as_millisecond())
}

/// A host's word counts for the incarnation that renews its Lease, as an answer to the roll-call.
fn said(context: &Context, host: &Host, last_rebase: &str, roll_call: &str) -> HostSaid {
    let name = HostName(host.name_any());
    let reported = host.reported();
    let boot_id = reported.map(|reported| reported.incarnation.boot_id.as_str());
    let renews = context
        .stores
        .renewals(name.as_str())
        .and_then(|renewals| renewals.boot_id);
    if let (Some(report), Some(boot_id), Some(renews)) =
        (frozen_report(host, last_rebase), boot_id, renews)
        && renews.as_str() == boot_id
        && report.roll_call == roll_call
    {
        let copies = report.copies.iter().map(|copy| SeenCopy {
            vm: copy.vm.as_str().into(),
            name: copy.name.clone(),
            epoch: Epoch(copy.epoch),
            runs: copy.runs,
        });
        return HostSaid::Heard(HostWord {
            boot_id: boot_id.into(),
            copies: copies.collect(),
            highest: Epoch(report.highest_epoch),
        });
    }
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    watch.off(&name).map_or(HostSaid::Silent, HostSaid::Off)
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
    // Later rebases have later words, whatever the clock does, and whatever etcd has forgotten.
    let last = last_rebase(policy).max(context.freeze.state().rebase.clone());
    let id = at.0.to_string().max(format!("{last}+"));
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
    // What answered it is used up: a backup that holds the freeze holds those answers too.
    context.freeze.state().roll_call.clear();
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
