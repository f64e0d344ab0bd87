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
use super::{storage, test_read};
use crate::door;
use crate::reconcile::hosts::is_kept;
use crate::runtime::Context;
use crate::store::Renewals;

/// Retired boot ids that are kept; a host does not reboot more often while one of its VMs waits.
const RETIRED_MAX: usize = 64;

fn identity(incarnation: &Incarnation) -> Identity {
    Identity {
        boot_id: incarnation.boot_id.as_str().into(),
        system_uuid: incarnation.system_uuid.clone(),
        mac_addresses: incarnation.nic_addresses.iter().cloned().collect(),
    }
}

/// What is looked up once a turn, not anew for each host.
struct Turn {
    vms: Vec<Arc<VirtualMachine>>,
    /// The youngest assignment to each host.
    assigned: BTreeMap<HostName, Moment>,
    stuck: BTreeMap<(HostName, BootId), u32>,
    unsettled: BTreeMap<HostName, u32>,
    machines: Machines,
    policy: Policy,
    now: Moment,
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
    let turn = Turn {
        assigned: self_fence::note_assignments(context, watch, now),
        stuck: close_stuck(&vms),
        unsettled: unsettled(hosts, &vms),
        machines: Machines::of(hosts),
        vms,
        policy: policy.clone(),
        now,
    };
    let mut names = BTreeSet::new();
    let mut asks = Vec::new();
    for host in hosts {
        let name = HostName(host.name_any());
        observe_faults(watch, host, &name, policy, now);
        let (facts, wanted) = facts(context, watch, host, &name, &turn);
        asks.extend(wanted);
        watch.facts.insert(name.clone(), facts);
        names.insert(name);
    }
    forget_others(context, watch, &names);
    asks
}

/// The facts about one host, and what has to be asked of others.
fn facts(
    context: &Context,
    watch: &mut HostWatch,
    host: &Host,
    name: &HostName,
    turn: &Turn,
) -> (HostFacts, Vec<Ask>) {
    let (policy, now) = (&turn.policy, turn.now);
    let status = host.status.clone().unwrap_or_default();
    let renewals = context.stores.renewals(name.as_str());
    let accepted = status.accepted.as_ref().map(identity);
    let problem = match judge(context, host, &turn.machines) {
        Some(Registration::Refuse(problem)) => Some(problem.to_string()),
        _ => None,
    };
    let (self_fenced, asks) = match &renewals {
        Some(renewals) => {
            let youngest = turn.assigned.get(name).copied().unwrap_or_default();
            self_fence::judge(context, watch, (name, renewals), youngest, policy, now)
        }
        None => (None, Vec::new()),
    };
    let incarnation = accepted
        .as_ref()
        .map(|accepted| (name.clone(), accepted.boot_id.clone()));
    let close_stuck = incarnation
        .and_then(|incarnation| turn.stuck.get(&incarnation).copied())
        .unwrap_or(0);
    let facts = HostFacts {
        identity: accepted,
        retired: retired(&status.retired_boot_ids),
        identity_problem: problem,
        lease_boot_id: renewals
            .as_ref()
            .and_then(|renewals| renewals.boot_id.clone()),
        signs: signs(context, name, renewals.as_ref(), policy, now),
        loop_age_milliseconds: renewals.and_then(|renewals| renewals.loop_age),
        storage_lost: storage_lost(context, host, &turn.vms),
        bmcs: u32::try_from(host.spec.bmcs.len()).unwrap_or(0),
        reading: watch.readings.get(name).cloned(),
        bmc_told_lying: test_read::is_told_lying(&status.conditions),
        command: watch.commands.get(name).copied(),
        forcing: watch.forcing.contains(name),
        intent: intent(context, watch, host, name, now),
        confirmation: confirmation(watch, host, name, now),
        void_confirmation: status
            .void_confirmation
            .as_ref()
            .map(|word| word_of(name, word)),
        self_fenced,
        storage: storage::facts(context, watch, host, name),
        maintenance: host.spec.maintenance.is_some(),
        deleted: host.metadata.deletion_timestamp.is_some(),
        unkept: !is_kept(host),
        faults: watch.quarantining(name),
        close_stuck,
        unsettled: turn.unsettled.get(name).copied().unwrap_or(0),
    };
    (facts, asks)
}

/// What shows that a host lives, each with the moment when it was seen.
fn signs(
    context: &Context,
    name: &HostName,
    renewals: Option<&Renewals>,
    policy: &Policy,
    now: Moment,
) -> LifeSigns {
    let probes = context.probes.of_host(name.as_str());
    let heartbeats = context.stores.heartbeats();
    LifeSigns {
        lease: renewals.map(|renewals| renewals.sign),
        heartbeat: heartbeats.sign(name),
        heartbeat_unobserved: heartbeats.observers(name, policy, now).is_empty(),
        answered_probe_sent_at: probes.answered,
        probe_sent_at: probes.sent,
    }
}

/// Forgets hosts that are gone: one that is made anew under the same name has met nothing of this.
fn forget_others(context: &Context, watch: &mut HostWatch, names: &BTreeSet<HostName>) {
    watch.facts.retain(|name, _| names.contains(name));
    watch.books.retain(|name, _| names.contains(name));
    watch.confirmations.retain(|name, _| names.contains(name));
    watch.readings.retain(|name, _| names.contains(name));
    watch.commands.retain(|name, _| names.contains(name));
    watch.intents.retain(|name, _| names.contains(name));
    context
        .stores
        .heartbeats()
        .retain(|name| names.contains(name));
}

fn retired(boot_ids: &[String]) -> BTreeSet<BootId> {
    boot_ids.iter().map(|id| BootId::new(id.as_str())).collect()
}

/// VMs that are assigned to another boot of their host than the accepted one, by host.
fn unsettled(hosts: &[Arc<Host>], vms: &[Arc<VirtualMachine>]) -> BTreeMap<HostName, u32> {
    let accepted: BTreeMap<String, BootId> = hosts
        .iter()
        .filter_map(|host| {
            let accepted = host.status.as_ref()?.accepted.as_ref()?;
            Some((host.name_any(), accepted.boot_id.as_str().into()))
        })
        .collect();
    let mut unsettled = BTreeMap::new();
    let assignments = vms
        .iter()
        .filter_map(|vm| vm.status.as_ref()?.assignment.as_ref());
    for right in assignments {
        let boot = accepted.get(right.host.as_str());
        if boot.is_some_and(|boot| *boot != right.boot_id) {
            *unsettled.entry(right.host.clone()).or_default() += 1;
        }
    }
    unsettled
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

/// Accepted machines, system UUID and host, found by what all orders of a UUID's bytes have in common.
#[derive(Default)]
struct Machines(BTreeMap<Vec<u8>, Vec<(String, String)>>);

impl Machines {
    fn of(hosts: &[Arc<Host>]) -> Self {
        let mut machines = Self::default();
        for host in hosts {
            let status = host.status.as_ref();
            if let Some(accepted) = status.and_then(|status| status.accepted.as_ref()) {
                let uuid = &accepted.system_uuid;
                let alike = machines.0.entry(Self::digits(uuid)).or_default();
                alike.push((uuid.clone(), host.name_any()));
            }
        }
        machines
    }

    /// Sorted: firmware and BMCs write the bytes of one UUID in several orders, of which `failover` judges.
    fn digits(uuid: &str) -> Vec<u8> {
        let digits = uuid.bytes().filter(|byte| *byte != b'-');
        let mut digits: Vec<u8> = digits.map(|byte| byte.to_ascii_lowercase()).collect();
        digits.sort_unstable();
        digits
    }

    /// Machines of other hosts that may be this one.
    fn like(&self, uuid: &str, host: &str) -> Vec<(String, String)> {
        let alike = self.0.get(&Self::digits(uuid)).into_iter().flatten();
        alike.filter(|(_, other)| other != host).cloned().collect()
    }
}

fn judge(context: &Context, host: &Host, machines: &Machines) -> Option<Registration> {
    let status = host.status.as_ref()?;
    let reported = identity(&status.reported.as_ref()?.incarnation);
    let accepted = status.accepted.as_ref().map(identity);
    let name = host.name_any();
    let lease = context
        .stores
        .renewals(&name)
        .and_then(|renewals| renewals.boot_id);
    Some(register(
        accepted.as_ref(),
        &retired(&status.retired_boot_ids),
        &reported,
        lease.as_ref(),
        &machines.like(&reported.system_uuid, &name),
    ))
}

/// What a new registration changes in the host's status; none when nothing.
pub fn registration(context: &Context, host: &Host) -> Option<(Value, Value)> {
    // Nearly always nothing is to be changed, whoever else there is.
    if !changes(&judge(context, host, &Machines::default())?) {
        return None;
    }
    // Not those of the turn's begin: a host that was accepted since may be the same machine.
    let machines = Machines::of(&context.stores.hosts.state());
    let status = host.status.clone().unwrap_or_default();
    let mut retired = status.retired_boot_ids.clone();
    match judge(context, host, &machines)? {
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

fn changes(registration: &Registration) -> bool {
    matches!(registration, Registration::Accept | Registration::Retire(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, boot: &str, uuid: &str) -> Arc<Host> {
        let host = json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": name},
            "spec": {"pool": "p", "managementAddress": "10.0.0.1"},
            "status": {"accepted": {"bootId": boot, "systemUuid": uuid}},
        });
        Arc::new(serde_json::from_value(host).expect("a host"))
    }

    #[test]
    fn a_machine_is_found_in_each_order_of_its_bytes_and_not_as_its_own_double() {
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let machines = Machines::of(&[host("h1", "b1", uuid)]);
        for order in [
            uuid,
            "33221100-5544-7766-8899-AABBCCDDEEFF",
            "ffeeddcc-bbaa-9988-7766-554433221100",
        ] {
            assert!(failover::proof::power::same_machine(uuid, order));
            let found = [(uuid.to_owned(), "h1".to_owned())];
            assert_eq!(machines.like(order, "h2"), found, "{order}");
            assert_eq!(machines.like(order, "h1"), [], "{order}");
        }
        let other = "10112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(machines.like(other, "h2"), []);
    }

    #[test]
    fn vms_of_another_boot_are_counted_for_their_own_host_only() {
        let vm = |host: &str, boot: &str| -> Arc<VirtualMachine> {
            let vm = json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine",
                "metadata": {"name": "v", "namespace": "n"},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
                "status": {"assignment": {"host": host, "bootId": boot, "epoch": 1}},
            });
            Arc::new(serde_json::from_value(vm).expect("a VM"))
        };
        let hosts = [host("h1", "b1", "u1"), host("h2", "b2", "u2")];
        let vms = [
            vm("h1", "b0"),
            vm("h1", "b9"),
            vm("h1", "b1"),
            vm("h2", "b2"),
            vm("gone", "b0"),
        ];
        let counted: Vec<_> = unsettled(&hosts, &vms).into_iter().collect();
        assert_eq!(counted, [("h1".into(), 2)]);
    }

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
