//! Gathers what `SelfFenced` rests on: what other hosts tell of a silent host's heartbeat, after
//! what they looked, and a quorum read of its Lease at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::names::{LEASE_TOKEN, SYSTEM_NAMESPACE, lease_name};
use failover::host::machine::HostMachine;
use failover::proof::HostStopProof;
use failover::proof::self_fence::{LastLook, SelfFenceError, self_fenced};
use failover::{Moment, Policy};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use model::HostName;
use serde_json::json;

use super::{HostWatch, in_task, lock};
use crate::runtime::Context;
use crate::store::Renewals;

/// How long an observer is given to see a token before it is given another, milliseconds.
const ASK_AGAIN: u64 = 3_000;

/// What is remembered of silent hosts between turns.
#[derive(Default)]
pub struct SelfFencing {
    /// When each (VM, epoch) was first seen assigned.
    assigned: BTreeMap<(String, i64), Moment>,
    /// When an observer was last given a token.
    asked: BTreeMap<HostName, Moment>,
    /// Since when everything but the last read of the Lease is there.
    ready: BTreeMap<HostName, Moment>,
    /// The last read of a Lease: when it was begun, and the renewal that it showed.
    reads: BTreeMap<HostName, (Moment, Option<jiff::Timestamp>)>,
    /// Reads under way.
    reading: BTreeMap<HostName, Moment>,
}

/// What the shell has to do.
pub enum Ask {
    /// Write a token into an observer's Lease.
    Token(HostName, String),
    /// Read a host's Lease afresh.
    Lease(HostName, Moment),
}

/// When each assignment to each host was first seen by this operator: the youngest.
pub fn note_assignments(
    context: &Context,
    watch: &mut HostWatch,
    now: Moment,
) -> BTreeMap<HostName, Moment> {
    let mut youngest: BTreeMap<HostName, Moment> = BTreeMap::new();
    let mut standing = BTreeMap::new();
    for vm in context.stores.vms.state() {
        let Some(status) = &vm.status else { continue };
        let uid = vm.uid().unwrap_or_default();
        for right in status.rights() {
            let key = (uid.clone(), right.epoch.0);
            let first = watch
                .self_fencing
                .assigned
                .get(&key)
                .copied()
                .unwrap_or(now);
            standing.insert(key, first);
            let known = youngest.entry(right.host.clone()).or_default();
            *known = (*known).max(first);
        }
    }
    watch.self_fencing.assigned = standing;
    youngest
}

/// Whether a host must have fenced itself, and what has to be asked while that is not certain.
pub fn judge(
    context: &Context,
    watch: &mut HostWatch,
    (name, renewals): (&HostName, &Renewals),
    assigned_at: Moment,
    policy: &Policy,
    now: Moment,
) -> (Option<HostStopProof>, Vec<Ask>) {
    let silent = watch
        .machines
        .machine(name)
        .is_some_and(HostMachine::is_silent);
    let facts = watch.facts.get(name);
    let identity = facts.and_then(|facts| facts.identity.clone());
    let (true, true, Some(identity)) = (silent, renewals.guard.armed, identity) else {
        watch.self_fencing.ready.remove(name);
        return (None, Vec::new());
    };
    if renewals.boot_id.as_ref() != Some(&identity.boot_id) {
        return (None, Vec::new());
    }
    let heartbeats = context.stores.heartbeats();
    let mut look = LastLook {
        lease_changed_at: renewals.sign.changed_at,
        lease_confirmed_unchanged: false,
        assigned_at,
        probe_answered_at: context.probes.of_host(name.as_str()).answered,
        at: now,
    };
    let incarnation = (name, &identity.boot_id);
    let memory = &mut watch.self_fencing;
    let first = self_fenced(incarnation, &renewals.guard, &heartbeats, &look, policy);
    if !matches!(first, Err(SelfFenceError::LeaseUnconfirmed)) {
        memory.ready.remove(name);
        let asks = heartbeats
            .observers(name, policy, now)
            .into_iter()
            .filter(|observer| !heartbeats.has_answered_since(observer, look.floor()))
            .collect::<Vec<_>>();
        drop(heartbeats);
        return (None, tokens(context, memory, asks, now));
    }
    let ready = *memory.ready.entry(name.clone()).or_insert(now);
    look.lease_confirmed_unchanged = memory
        .reads
        .get(name)
        .is_some_and(|(begun, renewed)| *begun >= ready && *renewed == renewals.renewed);
    match self_fenced(incarnation, &renewals.guard, &heartbeats, &look, policy) {
        Ok(proof) => (Some(proof), Vec::new()),
        Err(_) if memory.reading.contains_key(name) => (None, Vec::new()),
        Err(_) => {
            memory.reading.insert(name.clone(), now);
            (None, vec![Ask::Lease(name.clone(), now)])
        }
    }
}

fn tokens(
    context: &Context,
    memory: &mut SelfFencing,
    observers: Vec<HostName>,
    now: Moment,
) -> Vec<Ask> {
    let mut asks = Vec::new();
    for observer in observers {
        let asked = memory.asked.get(&observer);
        if asked.is_some_and(|at| now.since(*at) < ASK_AGAIN) || !context.writer.leads() {
            continue;
        }
        memory.asked.insert(observer.clone(), now);
        let token = context
            .stores
            .heartbeats()
            .token(context.writer.identity(), now);
        asks.push(Ask::Token(observer, token));
    }
    asks
}

/// Carries out what has to be asked, beside the loop.
pub fn ask(context: &Arc<Context>, ask: Ask) {
    let of_task = context.clone();
    match ask {
        Ask::Token(observer, token) => {
            tokio::spawn(async move { write_token(&of_task, &observer, &token).await });
        }
        Ask::Lease(host, begun) => {
            let release = |watch: &mut HostWatch, host: &HostName| {
                watch.self_fencing.reading.remove(host);
            };
            let named = host.clone();
            in_task(context, "Lease reading", &named, release, async move {
                read_lease(&of_task, host, begun).await;
            });
        }
    }
}

fn leases(context: &Context) -> Api<Lease> {
    Api::namespaced(context.writer.client(), SYSTEM_NAMESPACE)
}

async fn write_token(context: &Context, observer: &HostName, token: &str) {
    let body = json!({"metadata": {"annotations": {LEASE_TOKEN: token}}});
    let (leases, name) = (leases(context), lease_name(observer.as_str()));
    let (patch, params) = (Patch::Merge(&body), PatchParams::default());
    let write = leases.patch(&name, &params, &patch);
    if let Err(error) = context.writer.send(write).await {
        tracing::warn!(host = %observer, %error, "the token was not written");
    }
}

async fn read_lease(context: &Context, host: HostName, begun: Moment) {
    // Without a version in the request the API server reads from a quorum.
    let read = leases(context).get(&lease_name(host.as_str())).await;
    let mut watch = lock(context);
    watch.self_fencing.reading.remove(&host);
    match read {
        Ok(lease) => {
            let renewed = lease.spec.and_then(|spec| spec.renew_time);
            let renewed = renewed.map(|time| time.0);
            watch.self_fencing.reads.insert(host, (begun, renewed));
        }
        Err(error) => {
            tracing::warn!(%host, %error, "the Lease could not be confirmed unchanged");
        }
    }
}
