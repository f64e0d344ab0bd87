//! A `Host` stays for as long as anything is assigned to it. What was started or written there can be proven stopped only
//! by what is known of the host, so one that vanished would leave its VMs and volume jobs waiting for ever.
//!
//! Every host gets the finalizer as soon as it is seen, and is closed to VMs and jobs before (`HostFacts::unkept`), as it is
//! once it is being deleted. Then the finalizer is taken away when nothing names the host any more. Three things see to
//! it that nothing is written meanwhile: whoever writes a right or a job holds the [`Keeper`] and reads the host afresh; the
//! hosts' finalizers are taken away by who holds it alone; and a former leader's last write, or one of which nobody knows
//! whether it arrives, is waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::names::FINALIZER;
use api::{Host, VirtualMachine, Volume};
use kube::{Api, ResourceExt};
use model::HostName;
use serde_json::json;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::volumes::unfinished;
use crate::freeze;
use crate::runtime::Context;
use crate::writer::{ARRIVES_WITHIN, WriteError, logged};

/// How long an operator leads before it lets a host go: what the former leader sent last has arrived, or never will.
const LEADS_FOR: Duration = Duration::from_secs(10);
/// How long rights and jobs wait for a host to be let go, at most.
const LETS_GO_WITHIN: Duration = Duration::from_secs(5);

/// Keeps hosts from going under what is assigned to them, and claims from being released under who runs.
#[derive(Default)]
pub struct Keeper {
    /// Held by many while they write what names a host, by one alone while a host is let go.
    gate: RwLock<()>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Since when this operator leads.
    leads_since: Option<Instant>,
    /// When a write that names a host ended so that it may still arrive.
    in_doubt_since: Option<Instant>,
}

/// A host that is not let go as long as this is held.
pub struct Held<'a> {
    keeper: &'a Keeper,
    _gate: RwLockReadGuard<'a, ()>,
}

impl Held<'_> {
    /// Makes the write that names the host.
    ///
    /// # Errors
    /// As the write.
    pub async fn write(
        self,
        write: impl Future<Output = Result<(), WriteError>>,
    ) -> Result<(), WriteError> {
        let written = write.await;
        if written.as_ref().is_err_and(WriteError::may_have_arrived) {
            self.keeper.known().in_doubt_since = Some(Instant::now());
        }
        written
    }
}

impl Keeper {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another operator leads, and writes.
    pub fn forget(&self) {
        self.known().leads_since = None;
    }

    #[cfg(test)]
    pub(crate) fn has_led_for_long(&self) {
        self.known().leads_since = Instant::now().checked_sub(LEADS_FOR);
    }

    /// This operator leads; whether nothing that names a host can be on its way any more but what is written here
    /// and now.
    fn is_calm(&self, now: Instant) -> bool {
        let doubt = self.known().in_doubt_since;
        self.is_alone(now)
            && doubt.is_none_or(|at| now.saturating_duration_since(at) >= ARRIVES_WITHIN)
    }

    /// This operator leads; whether nothing that the leader before it wrote can be on its way any more.
    pub(crate) fn is_alone(&self, now: Instant) -> bool {
        let since = *self.known().leads_since.get_or_insert(now);
        now.saturating_duration_since(since) >= LEADS_FOR
    }
}

/// Whether a host stays until the operator lets it go.
pub fn is_kept(host: &Host) -> bool {
    host.finalizers().iter().any(|name| name == FINALIZER)
}

/// Holds a host for a write that names it. None: it is being deleted, or nothing keeps it yet; the cache says so
/// in a moment, and another is chosen.
///
/// # Errors
/// The host could not be read.
pub async fn hold<'a>(
    context: &'a Context,
    host: &HostName,
) -> Result<Option<Held<'a>>, WriteError> {
    hold_if(context, host, |_| true).await
}

/// The same for a VM that is to start or arrive there: work on the host may have been asked for meanwhile, and whoever did
/// is told that it is empty.
///
/// # Errors
/// The host could not be read.
pub async fn hold_for_vm<'a>(
    context: &'a Context,
    host: &HostName,
) -> Result<Option<Held<'a>>, WriteError> {
    hold_if(context, host, |host| host.spec.maintenance.is_none()).await
}

async fn hold_if<'a>(
    context: &'a Context,
    host: &HostName,
    takes: impl Fn(&Host) -> bool,
) -> Result<Option<Held<'a>>, WriteError> {
    let keeper = &context.keeper;
    let gate = keeper.gate.read().await;
    let fresh = read(context, host.as_str()).await?;
    let stays = fresh.is_some_and(|host| {
        is_kept(&host) && host.metadata.deletion_timestamp.is_none() && takes(&host)
    });
    Ok(stays.then_some(Held {
        keeper,
        _gate: gate,
    }))
}

/// A host as the API server holds it now.
async fn read(context: &Context, name: &str) -> Result<Option<Host>, WriteError> {
    let hosts = Api::<Host>::all(context.writer.client());
    Ok(hosts.get_opt(name).await?)
}

/// One turn.
pub async fn turn(context: &Context) {
    let calm = context.keeper.is_calm(Instant::now());
    let hosts = context.stores.hosts.state();
    let work = hosts.into_iter().map(|host| async move {
        if !context.writer.settled(host.as_ref()) {
            return;
        }
        let result = match (host.metadata.deletion_timestamp.is_some(), is_kept(&host)) {
            (false, false) => keep(context, &host).await,
            (true, true) if calm && freeze::message(context).is_none() => {
                let within = tokio::time::timeout(LETS_GO_WITHIN, let_go(context, &host));
                within.await.unwrap_or_else(|_| {
                    tracing::warn!(host = host.name_any(), "not let go in time; tried again");
                    Ok(())
                })
            }
            _ => Ok(()),
        };
        logged("host's finalizer", &host.name_any(), result);
    });
    futures::future::join_all(work).await;
}

async fn keep(context: &Context, host: &Host) -> Result<(), WriteError> {
    let mut finalizers = host.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    context
        .writer
        .metadata(host, json!({"finalizers": finalizers}))
        .await
}

/// Takes the finalizer away where nothing names the host, by what the API server holds now.
async fn let_go(context: &Context, host: &Host) -> Result<(), WriteError> {
    let name = host.name_any();
    let (vms, volumes) = (context.stores.vms.state(), context.stores.volumes.state());
    // What the caches show needs no list.
    let cached = (vms.iter().map(Arc::as_ref), volumes.iter().map(Arc::as_ref));
    if is_named(&name, cached.0, cached.1) {
        return Ok(());
    }
    // Whoever writes goes first, and nobody waits behind this.
    let Ok(_alone) = context.keeper.gate.try_write() else {
        return Ok(());
    };
    if !context.keeper.is_calm(Instant::now()) {
        return Ok(());
    }
    let Some(fresh) = read(context, &name).await? else {
        return Ok(());
    };
    let same = fresh.metadata.uid == host.metadata.uid;
    if !same || fresh.metadata.deletion_timestamp.is_none() || is_cut_off(&fresh) {
        return Ok(());
    }
    let vms = context.writer.list::<VirtualMachine>().await?;
    let volumes = context.writer.list::<Volume>().await?;
    if is_named(&name, vms.iter(), volumes.iter()) {
        return Ok(());
    }
    let others = fresh.finalizers().iter().filter(|it| *it != FINALIZER);
    let others: Vec<&String> = others.collect();
    tracing::info!(
        host = name,
        "nothing is assigned there any more: it is let go"
    );
    context
        .writer
        .metadata(&fresh, json!({"finalizers": others}))
        .await
}

/// A cut that its pools' servers list is known by the host alone: nobody would ever lift it.
fn is_cut_off(host: &Host) -> bool {
    let status = host.status.as_ref();
    status.is_some_and(|status| status.storage_cut.is_some())
}

/// Whether a VM may run or arrive on a host, or a volume job that has not ended was given to it.
fn is_named<'a>(
    host: &str,
    mut vms: impl Iterator<Item = &'a VirtualMachine>,
    mut volumes: impl Iterator<Item = &'a Volume>,
) -> bool {
    let runs = |vm: &VirtualMachine| {
        let mut rights = vm.status.iter().flat_map(|status| status.rights());
        rights.any(|right| right.host.as_str() == host)
    };
    let works = |volume: &Volume| {
        unfinished(volume).is_some_and(|job| job.assignment.host.as_str() == host)
    };
    vms.any(runs) || volumes.any(works)
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
