//! From objects and caches to `failover`'s facts about hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{ConfirmedOff, Host, Incarnation, RuntimePhase, VirtualMachine};
use failover::host::incarnation::{Identity, Registration, register};
use failover::host::machine::{HostFacts, Intent};
use failover::proof::confirmation::Confirmation;
use failover::signs::LifeSigns;
use failover::{Moment, Policy};
use kube::ResourceExt;
use model::{BootId, HostName};
use serde_json::{Value, json};

use super::HostWatch;
use super::self_fence::{self, Ask};
use super::storage;
use crate::door;
use crate::reconcile::hosts::is_kept;
use crate::runtime::Context;

/// Retired boot ids that are kept; a host does not reboot more often while one of its VMs waits.
const RETIRED_MAX: usize = 64;

fn identity(incarnation: &Incarnation) -> Identity {
    Identity {
        boot_id: incarnation.boot_id.as_str().into(),
        system_uuid: incarnation.system_uuid.clone(),
        mac_addresses: incarnation.nic_addresses.iter().cloned().collect(),
    }
}

/// Brings the facts about every host up to date; returns what has to be asked of others.
pub fn update(
    context: &Context,
    watch: &mut HostWatch,
    hosts: &[Arc<Host>],
    policy: &Policy,
    now: Moment,
) -> Vec<Ask> {
    let vms = context.stores.vms.state();
    let mut names = BTreeSet::new();
    let assigned = self_fence::note_assignments(context, watch, now);
    let stuck = close_stuck(&vms);
    let mut asks = Vec::new();
    for host in hosts {
        let name = HostName(host.name_any());
        let status = host.status.clone().unwrap_or_default();
        let renewals = context.stores.renewals(name.as_str());
        let probes = context.probes.of_host(name.as_str());
        let accepted = status.accepted.as_ref().map(identity);
        let unsettled = vms
            .iter()
            .filter_map(|vm| vm.status.as_ref()?.assignment.as_ref())
            .filter(|assignment| {
                assignment.host == name
                    && accepted
                        .as_ref()
                        .is_some_and(|accepted| accepted.boot_id != assignment.boot_id)
            })
            .count();
        let problem = match judge(context, host) {
            Some(Registration::Refuse(problem)) => Some(problem.to_string()),
            _ => None,
        };
        observe_faults(watch, host, &name, policy, now);
        let self_fenced = renewals.as_ref().and_then(|renewals| {
            let youngest = assigned.get(&name).copied().unwrap_or_default();
            let (proof, wanted) =
                self_fence::judge(context, watch, (&name, renewals), youngest, policy, now);
            asks.extend(wanted);
            proof
        });
        let (heartbeat, heartbeat_unobserved) = {
            let heartbeats = context.stores.heartbeats();
            let observers = heartbeats.observers(&name, policy, now);
            (heartbeats.sign(&name), observers.is_empty())
        };
        let incarnation = accepted
            .as_ref()
            .map(|accepted| (name.clone(), accepted.boot_id.clone()));
        let close_stuck = incarnation
            .and_then(|incarnation| stuck.get(&incarnation).copied())
            .unwrap_or(0);
        let facts = HostFacts {
            identity: accepted,
            retired: status
                .retired_boot_ids
                .iter()
                .map(|id| BootId::new(id.as_str()))
                .collect(),
            identity_problem: problem,
            lease_boot_id: renewals
                .as_ref()
                .and_then(|renewals| renewals.boot_id.clone()),
            signs: LifeSigns {
                lease: renewals.as_ref().map(|renewals| renewals.sign),
                heartbeat,
                heartbeat_unobserved,
                answered_probe_sent_at: probes.answered,
                probe_sent_at: probes.sent,
            },
            loop_age_milliseconds: renewals.and_then(|renewals| renewals.loop_age),
            storage_lost: storage_lost(context, host, &vms),
            bmcs: u32::try_from(host.spec.bmcs.len()).unwrap_or(0),
            reading: watch.readings.get(&name).cloned(),
            command: watch.commands.get(&name).copied(),
            forcing: watch.forcing.contains(&name),
            intent: intent(context, watch, host, &name, now),
            confirmation: confirmation(watch, host, &name, now),
            void_confirmation: status
                .void_confirmation
                .as_ref()
                .map(|word| word_of(&name, word)),
            self_fenced,
            storage: storage::facts(context, watch, host, &name),
            maintenance: host.spec.maintenance.is_some(),
            deleted: host.metadata.deletion_timestamp.is_some(),
            unkept: !is_kept(host),
            faults: watch.quarantining(&name),
            close_stuck,
            unsettled: u32::try_from(unsettled).unwrap_or(u32::MAX),
        };
        watch.facts.insert(name.clone(), facts);
        names.insert(name);
    }
    watch.facts.retain(|name, _| names.contains(name));
    watch.books.retain(|name, _| names.contains(name));
    watch.confirmations.retain(|name, _| names.contains(name));
    // A host that is made anew under the same name has met none of these.
    watch.readings.retain(|name, _| names.contains(name));
    watch.commands.retain(|name, _| names.contains(name));
    watch.intents.retain(|name, _| names.contains(name));
    context
        .stores
        .heartbeats()
        .retain(|name| names.contains(name));
    asks
}

/// VMs with a copy that its agent says it can not end, assigned or arrived, by incarnation.
fn close_stuck(vms: &[Arc<VirtualMachine>]) -> BTreeMap<(HostName, BootId), u32> {
    let mut stuck = BTreeMap::new();
    for status in vms.iter().filter_map(|vm| vm.status.as_ref()) {
        let sides = [
            (&status.assignment, &status.runtime),
            (&status.incoming, &status.incoming_runtime),
        ];
        let told: BTreeSet<_> = sides
            .into_iter()
            .filter_map(|(right, said)| right.as_ref().zip(said.as_ref()))
            .filter(|(right, said)| {
                said.phase == RuntimePhase::CloseStuck && said.assignment == **right
            })
            .map(|(right, _)| (right.host.clone(), right.boot_id.clone()))
            .collect();
        for incarnation in told {
            *stuck.entry(incarnation).or_default() += 1;
        }
    }
    stuck
}

/// Whether a pool that holds a disk of one of the host's VMs is lost, as its agent says.
fn storage_lost(context: &Context, host: &Host, vms: &[Arc<VirtualMachine>]) -> bool {
    let name = host.name_any();
    let reported = host.reported();
    let lost: BTreeSet<&str> = reported
        .into_iter()
        .flat_map(|reported| &reported.storage_pools)
        .filter(|pool| pool.state == "Lost")
        .map(|pool| pool.name.as_str())
        .collect();
    let here = |vm: &&Arc<VirtualMachine>| {
        let status = vm.status.as_ref();
        status
            .and_then(|status| status.assignment.as_ref())
            .is_some_and(|right| right.host.as_str() == name)
    };
    !lost.is_empty()
        && vms.iter().filter(here).any(|vm| {
            let volumes = crate::vms::volumes_of(context, vm).unwrap_or_default();
            volumes
                .iter()
                .any(|volume| lost.contains(volume.spec.pool.as_str()))
        })
}

/// Takes what the host reports into its book. Faults of a boot that is gone stand on until they
/// have been absent long enough, or a person clears them.
fn observe_faults(
    watch: &mut HostWatch,
    host: &Host,
    name: &HostName,
    policy: &Policy,
    now: Moment,
) {
    let reported = host.reported();
    let Some(reported) = reported else { return };
    let boot_id = BootId::new(reported.incarnation.boot_id.as_str());
    let cleared = host
        .spec
        .fault_clearance
        .as_ref()
        .map(|clearance| clearance.at.0.as_second());
    let book = watch.books.entry(name.clone()).or_default();
    let changes = book.observe(&boot_id, &door::faults(host), cleared, policy, now);
    for (component, kind) in changes.raised {
        tracing::warn!(host = %name, component, ?kind, "a hardware fault stands");
    }
    for (component, kind) in changes.cleared {
        tracing::info!(host = %name, component, ?kind, "a hardware fault does not stand any more");
    }
}

fn intent(
    context: &Context,
    watch: &mut HostWatch,
    host: &Host,
    name: &HostName,
    now: Moment,
) -> Intent {
    let Some(intent) = host
        .status
        .as_ref()
        .and_then(|status| status.fencing.clone())
    else {
        watch.intents.remove(name);
        return Intent::None;
    };
    let mark = format!("{}/{}/{}", intent.by, intent.boot_id, intent.started_at.0);
    let first = match watch.intents.get(name) {
        Some((known, first)) if *known == mark => *first,
        _ => {
            watch.intents.insert(name.clone(), (mark, now));
            now
        }
    };
    let until = first.plus(u64::try_from(intent.expires_after_seconds).unwrap_or(0) * 1000);
    if intent.by == context.writer.identity() {
        Intent::Ours {
            boot_id: intent.boot_id.into(),
            expires_at: until,
        }
    } else {
        let policy = door::policy(&context.stores.policy());
        Intent::Foreign {
            until: until.plus(policy.fence_send_milliseconds),
        }
    }
}

fn confirmation(
    watch: &mut HostWatch,
    host: &Host,
    name: &HostName,
    now: Moment,
) -> Option<(Confirmation, Moment)> {
    let Some(confirmed) = &host.spec.confirmed_off else {
        watch.confirmations.remove(name);
        return None;
    };
    let word = word_of(name, confirmed);
    let first = match watch.confirmations.get(name) {
        Some((known, first)) if *known == word => *first,
        _ => now,
    };
    watch
        .confirmations
        .insert(name.clone(), (word.clone(), first));
    Some((word, first))
}

fn word_of(host: &HostName, confirmed: &ConfirmedOff) -> Confirmation {
    Confirmation {
        host: host.clone(),
        boot_id: confirmed.boot_id.as_str().into(),
        by: confirmed.by.clone(),
        reason: confirmed.reason.clone(),
        given_at: confirmed.at.0.to_string(),
    }
}

fn judge(context: &Context, host: &Host) -> Option<Registration> {
    let status = host.status.as_ref()?;
    let reported = identity(&status.reported.as_ref()?.incarnation);
    let accepted = status.accepted.as_ref().map(identity);
    let retired = status
        .retired_boot_ids
        .iter()
        .map(|id| BootId::new(id.as_str()))
        .collect();
    let name = host.name_any();
    let others: Vec<(String, String)> = context
        .stores
        .hosts
        .state()
        .iter()
        .filter(|other| other.name_any() != name)
        .filter_map(|other| {
            Some((
                other
                    .status
                    .as_ref()?
                    .accepted
                    .as_ref()?
                    .system_uuid
                    .clone(),
                other.name_any(),
            ))
        })
        .collect();
    let lease = context
        .stores
        .renewals(&name)
        .and_then(|renewals| renewals.boot_id);
    Some(register(
        accepted.as_ref(),
        &retired,
        &reported,
        lease.as_ref(),
        &others,
    ))
}

/// What a new registration changes in the host's status; none when nothing.
pub fn registration(context: &Context, host: &Host) -> Option<(Value, Value)> {
    let status = host.status.clone().unwrap_or_default();
    let mut retired = status.retired_boot_ids.clone();
    match judge(context, host)? {
        Registration::Accept => {}
        Registration::Retire(boot_id) => {
            retired.push(boot_id.to_string());
            let excess = retired.len().saturating_sub(RETIRED_MAX);
            retired.drain(..excess);
        }
        Registration::Same | Registration::Wait | Registration::Refuse(_) => return None,
    }
    Some((
        json!(status.reported.map(|reported| reported.incarnation)),
        json!(retired),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_close_counts_for_the_incarnation_that_it_was_said_of() {
        let right = |host: &str, boot: &str, epoch: i64| json!({"host": host, "bootId": boot, "epoch": epoch});
        let said = |right: &Value, phase: &str| json!({"assignment": right, "phase": phase, "since": "2026-01-01T00:00:00Z"});
        let vm = |status: Value| -> Arc<VirtualMachine> {
            let vm = json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine",
                "metadata": {"name": "v", "namespace": "n", "uid": "u"},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
                "status": status,
            });
            Arc::new(serde_json::from_value(vm).expect("a VM"))
        };
        let accepted: Incarnation =
            serde_json::from_value(json!({"bootId": "b1", "systemUuid": "s", "macAddresses": []}))
                .expect("an incarnation");
        let count = |status: Value| {
            let stuck = close_stuck(&[vm(status)]);
            let own = ("h1".into(), identity(&accepted).boot_id);
            stuck.get(&own).copied().unwrap_or(0)
        };
        let own = right("h1", "b1", 3);
        let elsewhere = right("h2", "b2", 2);
        let stuck = said(&own, "CloseStuck");
        for (status, expected) in [
            (json!({"assignment": own, "runtime": stuck}), 1),
            (
                json!({"assignment": elsewhere, "incoming": own, "incomingRuntime": stuck}),
                1,
            ),
            (
                json!({"assignment": own, "runtime": said(&own, "Closed")}),
                0,
            ),
            (
                json!({"assignment": own, "runtime": said(&right("h1", "b1", 2), "CloseStuck")}),
                0,
            ),
            (
                json!({"assignment": right("h1", "b0", 3), "runtime": said(&right("h1", "b0", 3), "CloseStuck")}),
                0,
            ),
            (
                json!({"assignment": elsewhere, "runtime": said(&elsewhere, "CloseStuck")}),
                0,
            ),
            (json!({"assignment": own}), 0),
        ] {
            assert_eq!(count(status.clone()), expected, "{status}");
        }
    }
}
