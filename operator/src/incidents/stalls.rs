//! Storage that does not answer a host for a moment, while a business system there does not answer either: an incident, though
//! the moment may be over before the host's probes call the storage lost (decisions 0003 and 0017).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{BusinessSystem, Host, VirtualMachine};
use failover::incident::causes::Interrupted;
use failover::incident::rules::fault_cause;
use failover::incident::{Ledger, WallTime};
use fleet::system::system_of;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use model::{FaultKind, HostName, NamespacedName};

use super::affected::assignment;
use super::openings::{self, INTERRUPTED, down_endpoints, running};
use crate::probes::replicas;
use crate::runtime::Context;

/// A stall is noted at most so long after it began. A host tells of it after some seconds: its look at the pool is late after two.
/// Until another one leads, nobody notes it.
const NOTED_AFTER: SignedDuration = SignedDuration::from_secs(20);
/// A guest may stop answering so long after its storage did: until then it answers from its memory.
const FELT_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// What has not answered for longer is called lost by the host's probes, and has an incident for that.
const LONGEST: SignedDuration = SignedDuration::from_secs(15);
/// A stall is remembered for so long: what it interrupted is told once it has lasted.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(30);

/// When the storage of a host did not answer, by this operator's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    first: Timestamp,
    last: Timestamp,
}

/// Stalls of late, by host and component.
pub(super) type Stalls = BTreeMap<(HostName, String), Stall>;

/// Components of a host that it reports as slow or lost.
fn stalled(host: &Host) -> impl Iterator<Item = String> {
    let reported = host.reported().into_iter();
    let pools = reported.flat_map(|reported| &reported.storage_pools);
    let pools = pools.filter(|pool| pool.state != "Ready");
    pools.map(|pool| format!("storage-pool/{}", pool.name))
}

/// Whether a host's storage does not answer it, as the incident of that cause says.
pub(super) fn stands(cause: &str, host: &Host) -> bool {
    let name = HostName(host.name_any());
    let is_own =
        |component: String| fault_cause(&name, &component, FaultKind::StorageLost) == cause;
    stalled(host).any(is_own)
}

/// One turn over hosts and systems.
pub(super) fn look(context: &Context, stalls: &mut Stalls, ledger: &mut Ledger) {
    let is_silent = |host: &HostName| openings::is_silent(context, host);
    note(
        stalls,
        super::wall(),
        &context.stores.hosts.state(),
        &is_silent,
    );
    if !stalls.is_empty() {
        let (systems, vms) = (context.stores.systems.state(), context.stores.vms.state());
        tell_all(ledger, stalls, (&systems, &vms), &is_silent);
    }
}

/// A system with a VM on a host that is silent may be down because of that; its incident may not be open yet.
fn tell_all(
    ledger: &mut Ledger,
    stalls: &Stalls,
    (systems, vms): (&[Arc<BusinessSystem>], &[Arc<VirtualMachine>]),
    is_silent: &dyn Fn(&HostName) -> bool,
) {
    let on_silent_host =
        |vm: &&Arc<VirtualMachine>| assignment(vm).is_some_and(|right| is_silent(&right.host));
    let silent: BTreeSet<NamespacedName> = vms
        .iter()
        .filter(on_silent_host)
        .filter_map(|vm| system_of(vm))
        .collect();
    for ((host, component), stall) in stalls {
        for system in systems {
            let namespace = system.namespace().unwrap_or_default();
            let name = NamespacedName::new(namespace, system.name_any());
            if !silent.contains(&name) {
                tell(ledger, (host, component, *stall), (&name, system), vms);
            }
        }
    }
}

/// What a host that is silent has said last is not so now.
fn note(
    stalls: &mut Stalls,
    now: Timestamp,
    hosts: &[Arc<Host>],
    is_silent: &dyn Fn(&HostName) -> bool,
) {
    for host in hosts {
        let name = HostName(host.name_any());
        for component in stalled(host).filter(|_| !is_silent(&name)) {
            let stall = stalls.entry((name.clone(), component));
            let stall = stall.or_insert(Stall {
                first: now,
                last: now,
            });
            if now.duration_since(stall.last) > FELT_AFTER {
                stall.first = now;
            }
            stall.last = now;
        }
    }
    stalls.retain(|_, stall| now.duration_since(stall.last) < REMEMBERED);
}

/// Tells of a system that has been interrupted for long enough, by an endpoint with a replica there.
fn tell(
    ledger: &mut Ledger,
    (host, component, stall): (&HostName, &str, Stall),
    (name, system): (&NamespacedName, &BusinessSystem),
    vms: &[Arc<VirtualMachine>],
) {
    let Some((since, vm)) = felt(host, stall, system, vms) else {
        return;
    };
    if super::wall().duration_since(since) < INTERRUPTED {
        return;
    }
    let interrupted = Interrupted {
        name,
        display_name: &system.spec.display_name,
        vm: &vm,
        since: WallTime(since.as_microsecond()),
    };
    ledger.storage_stalled(host, component, &interrupted);
}

/// Since when an endpoint does not answer that stopped when the storage of a host of one of its replicas did.
fn felt(
    host: &HostName,
    stall: Stall,
    system: &BusinessSystem,
    vms: &[Arc<VirtualMachine>],
) -> Option<(Timestamp, String)> {
    let window = stall.first - NOTED_AFTER..=stall.last.min(stall.first + LONGEST) + FELT_AFTER;
    let felt = down_endpoints(system).filter_map(|(seen, since)| {
        let mut declared = system.spec.endpoints.iter();
        let endpoint = declared.find(|endpoint| endpoint.name == seen.name)?;
        let replicas = replicas(system, &endpoint.tier, vms);
        let vm = replicas.iter().find(|vm| ran_on(host, vm, since))?;
        window.contains(&since).then(|| (since, vm.name_any()))
    });
    felt.min()
}

/// Whether a guest runs on a host and did so then: one that is being started does not answer for that reason.
fn ran_on(host: &HostName, vm: &VirtualMachine, then: Timestamp) -> bool {
    running(vm).is_some_and(|runtime| {
        let started = runtime.started_at.as_ref();
        runtime.assignment.host == *host && started.is_some_and(|started| started.0 <= then)
    })
}

#[cfg(test)]
#[path = "stalls_tests.rs"]
mod tests;
