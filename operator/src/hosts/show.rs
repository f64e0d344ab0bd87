//! What people see of a host: state, reasons, conditions, registration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Host, VirtualMachine, Volume};
use failover::host::machine::{HostState, HostView};
use failover::{Policy, Reason};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::HostName;
use serde_json::{Value, json};

use super::{certificates, gather, lock, test_read, words};
use crate::clock;
use crate::conditions::{Judged, conditions};
use crate::reconcile::volumes::unfinished;
use crate::runtime::Context;
use crate::writer::logged;

/// Writes what people see, when it changed.
pub(super) async fn show(
    context: &Context,
    host: &Host,
    view: &failover::host::machine::HostView,
    policy: &Policy,
    load: Load,
) {
    let status = host.status.clone().unwrap_or_default();
    let state = format!("{:?}", view.state);
    let (reason, chinese) = reasons(&view.reasons);
    let name = host.name_any();
    let faults = lock(context).quarantining(&HostName(name.clone()));
    let power = view.power.map(|power| format!("{power:?}"));
    let mut changes = serde_json::Map::new();
    let mut set = |field: &str, old: Value, new: Value| {
        if old != new {
            changes.insert(field.to_owned(), new);
        }
    };
    set("state", json!(status.state), json!(state));
    set("stateReason", json!(status.state_reason), json!(reason));
    let known = &status.state_reason_chinese;
    set("stateReasonChinese", json!(known), json!(chinese));
    set("power", json!(status.power), json!(power));
    set(
        "virtualMachines",
        json!(status.virtual_machines),
        json!(load.vms),
    );
    set(
        "volumeJobs",
        json!(status.volume_jobs),
        json!(load.volume_jobs),
    );
    set("faultCount", json!(status.fault_count), json!(faults));
    let void = view
        .void_confirmation
        .is_some()
        .then(|| host.spec.confirmed_off.clone());
    if let Some(void) = void.filter(|void| void.is_some() && *void != status.void_confirmation) {
        set(
            "voidConfirmation",
            json!(status.void_confirmation),
            json!(void),
        );
    }
    let mut judged = judged(context, host, view, policy, faults).to_vec();
    judged.extend(words::judged(host, view.refused_word.as_ref()));
    let conditions = conditions(&status.conditions, &judged, host.metadata.generation);
    set("conditions", json!(status.conditions), json!(conditions));
    if changes.contains_key("state") {
        changes.insert("stateSince".to_owned(), json!(clock::wall()));
    }
    // The registration: accepted incarnation and retired boot ids.
    if let Some((accepted, retired)) = gather::registration(context, host) {
        changes.insert("accepted".to_owned(), accepted);
        changes.insert("retiredBootIds".to_owned(), retired);
    }
    if changes.is_empty() || !context.writer.settled(host) {
        return;
    }
    let turned = changes.contains_key("state");
    let result = context
        .writer
        .swap_status(host, Value::Object(changes))
        .await;
    if turned && result.is_ok() {
        let kind = if state == "Ready" {
            EventType::Normal
        } else {
            EventType::Warning
        };
        context.writer.tell(host, kind, &state, &reason).await;
    }
    if result.is_ok() {
        for (kind, word) in words::news(&status.conditions, &conditions) {
            context
                .writer
                .tell(host, kind, &word.type_, &word.message)
                .await;
        }
    }
    logged("host", &name, result);
}

/// How much is assigned to a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// VMs that may run or arrive there.
    vms: usize,
    /// Volume jobs that have not ended.
    volume_jobs: usize,
}

/// How much is assigned to each host, none where nothing is: counted once for all of them.
pub(super) fn loads(
    vms: &[Arc<VirtualMachine>],
    volumes: &[Arc<Volume>],
) -> BTreeMap<HostName, Load> {
    let mut loads: BTreeMap<HostName, Load> = BTreeMap::new();
    for status in vms.iter().filter_map(|vm| vm.status.as_ref()) {
        let hosts: BTreeSet<&HostName> = status.rights().map(|right| &right.host).collect();
        for host in hosts {
            loads.entry(host.clone()).or_default().vms += 1;
        }
    }
    for job in volumes.iter().filter_map(|volume| unfinished(volume)) {
        let host = job.assignment.host.clone();
        loads.entry(host).or_default().volume_jobs += 1;
    }
    loads
}

/// Reasons in English and in Chinese.
fn reasons(reasons: &[Reason]) -> (String, String) {
    let all = |say: fn(&Reason) -> String| reasons.iter().map(say).collect::<Vec<_>>();
    (
        all(Reason::english).join("; "),
        all(Reason::chinese).join(";"),
    )
}

/// What `kubectl wait` and alerts ask of a host.
fn judged(
    context: &Context,
    host: &Host,
    view: &HostView,
    policy: &Policy,
    faults: u32,
) -> [Judged; 10] {
    let state = format!("{:?}", view.state);
    let stuck = agent_is_stuck(context, &host.name_any(), policy);
    let seen = |good: bool, yes: &str, no: &str| if good { yes } else { no }.to_owned();
    let closed = view.not_placeable.as_ref().map(Reason::english);
    let bmc = test_read::judged(&lock(context), host, policy);
    let (fencing, why) = self_fencing(context, host);
    let reported = host.reported();
    let expiring = reported.map_or(&[][..], |report| report.certificates.as_slice());
    [
        Judged::new(
            "Ready",
            view.state == HostState::Ready,
            &state,
            reasons(&view.reasons).0,
        ),
        Judged::new(
            "AgentReady",
            !view.silent && !stuck,
            seen(!view.silent && !stuck, "Converging", "AgentDown"),
            if stuck {
                "the guard lives and the agent's loop stands still: nothing new is placed here; look at the agent's log, then restart it (no VM stops)"
            } else {
                ""
            },
        ),
        bmc,
        Judged::new(
            "SelfFencing",
            fencing,
            seen(fencing, "Armed", "NotArmed"),
            why,
        ),
        certificates::judge(expiring, clock::wall().0),
        Judged::new(
            "HardwareHealthy",
            faults == 0,
            seen(faults == 0, "NoFault", "Faults"),
            if faults == 0 {
                String::new()
            } else {
                format!(
                    "{faults} standing faults, see status.reported.faults; after repair: zyctl host clear {} --reason ...",
                    host.name_any()
                )
            },
        ),
        Judged::new(
            "Schedulable",
            closed.is_none(),
            seen(closed.is_none(), "Open", "Closed"),
            closed.unwrap_or_default(),
        ),
        starts_permitted(host),
        copies_end(host),
        no_strays(host),
    ]
}

/// Whether the host starts what is assigned to it, as its agent says.
fn starts_permitted(host: &Host) -> Judged {
    let reported = host.reported();
    let why = reported.and_then(|reported| reported.starts_forbidden.clone());
    Judged::new(
        "StartsPermitted",
        why.is_none(),
        if why.is_none() { "Starts" } else { "Forbidden" },
        why.unwrap_or_default(),
    )
}

/// Domains that a message names; the others are counted.
const NAMED: usize = 3;

fn named(domains: &[String]) -> String {
    let first = domains.iter().take(NAMED).map(String::as_str);
    let more = (domains.len() > NAMED).then_some("…");
    first.chain(more).collect::<Vec<_>>().join(", ")
}

/// Whether libvirt has ended every copy that was to end there, whichever right it ran under.
fn copies_end(host: &Host) -> Judged {
    let reported = host.reported();
    let stuck = reported.map_or(&[][..], |reported| &reported.closes_stuck);
    if stuck.is_empty() {
        return Judged::new("CopiesEnd", true, "AllEnded", "");
    }
    let message = format!(
        "status.reported.closesStuck: libvirt still shows {} domains that should be gone ({}), and they may write to their disks: end their processes by hand, or empty this host and power it off",
        stuck.len(),
        named(stuck)
    );
    Judged::new("CopiesEnd", false, "CloseStuck", message)
}

/// Whether every domain of the host is the platform's.
fn no_strays(host: &Host) -> Judged {
    let reported = host.reported();
    let strays = reported.map_or(&[][..], |reported| &reported.strays);
    let message = format!(
        "status.reported.strays: {} domains that this platform did not make ({}) take memory and processors that it counts on; it never touches them: find whose they are, and end them with virsh",
        strays.len(),
        named(strays)
    );
    Judged::new(
        "NoStrays",
        strays.is_empty(),
        if strays.is_empty() { "None" } else { "Strays" },
        if strays.is_empty() {
            String::new()
        } else {
            message
        },
    )
}

/// Whether the host's guard is armed, and under what contract, or why not.
fn self_fencing(context: &Context, host: &Host) -> (bool, String) {
    let Some(renewals) = context.stores.renewals(&host.name_any()) else {
        return (false, "its guard was never heard of".to_owned());
    };
    let guard = renewals.guard;
    if guard.armed {
        let pools: Vec<&str> = guard.pools.iter().map(String::as_str).collect();
        let text = format!(
            "kills after {} s without Lease and without heartbeat on {}; watchdog {} s",
            guard.contract_milliseconds / 1000,
            pools.join(", "),
            guard.watchdog_milliseconds / 1000
        );
        return (true, text);
    }
    // A guard of a later version may have a reason that is not known here.
    let why = renewals.not_armed.map_or_else(
        || "its guard tells no reason that is known here".to_owned(),
        |why| why.sentence().english,
    );
    let text = format!("{why}: a dead host whose BMC is silent waits for a person");
    (false, text)
}

/// Past the policy's age of its loop an agent does not converge any more, though its guard renews the Lease.
fn agent_is_stuck(context: &Context, host: &str, policy: &Policy) -> bool {
    context
        .stores
        .renewals(host)
        .and_then(|renewals| renewals.loop_age)
        .is_some_and(|age| age > policy.agent_down_after_milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_both_languages() {
        assert_eq!(
            reasons(&[Reason::Alive, Reason::InMaintenance]),
            (
                "renews its Lease; planned work".to_owned(),
                "租约正常续期;计划维护中".to_owned()
            )
        );
        assert_eq!(reasons(&[]), (String::new(), String::new()));
    }

    /// A host with two fields of its report.
    fn host(forbidden: Option<&str>, strays: &[&str]) -> Host {
        let host = json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"},
            "spec": {"pool": "p", "managementAddress": "10.0.0.1"},
            "status": {"reported": {
                "incarnation": {"bootId": "b1", "systemUuid": "s"},
                "capacity": {"cpu": 1, "memory": "1Gi"},
                "architecture": "x86_64", "cpuModel": "m", "domainType": "kvm",
                "versions": {"agent": "1", "libvirt": "1", "qemu": "1"},
                "hookVerified": true, "startsForbidden": forbidden, "strays": strays,
            }},
        });
        serde_json::from_value(host).expect("a host")
    }

    #[test]
    fn strays_and_forbidden_starts_are_conditions() {
        let good = host(None, &[]);
        assert!(starts_permitted(&good).good && no_strays(&good).good);
        let bad = host(
            Some("the ledger was lost"),
            &["u1 a", "u2 b", "u3 c", "u4 d"],
        );
        let (starts, strays) = (starts_permitted(&bad), no_strays(&bad));
        assert!(!starts.good && !strays.good);
        assert_eq!(starts.message, "the ledger was lost");
        assert!(strays.message.contains("4 domains"), "{}", strays.message);
        assert!(strays.message.contains("u1 a, u2 b, u3 c, …"));
        assert!(!strays.message.contains("u4"), "{}", strays.message);
    }

    #[test]
    fn vms_and_jobs_that_have_not_ended_are_counted_by_host() {
        let volume = |host: &str, phase: &str| -> Arc<Volume> {
            let right = json!({"host": host, "bootId": "b", "epoch": 2});
            let mut job = json!({"operation": "Create", "sizeBytes": 1});
            crate::merge::add(&mut job, right.clone());
            let volume = json!({
                "metadata": {"name": "v"}, "spec": {"pool": "p", "size": "1Gi"},
                "status": {"job": job, "reported": {"assignment": right, "phase": phase}},
            });
            Arc::new(serde_json::from_value(volume).expect("a volume"))
        };
        let vm = |hosts: [Option<&str>; 2]| -> Arc<VirtualMachine> {
            let right = |host: &str| json!({"host": host, "bootId": "b", "epoch": 1});
            let [runs, arrives] = hosts.map(|host| host.map(right));
            let vm = json!({
                "metadata": {"name": "v"},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
                "status": {"assignment": runs, "incoming": arrives},
            });
            Arc::new(serde_json::from_value(vm).expect("a VM"))
        };
        let counted = loads(
            &[
                vm([Some("h1"), None]),
                vm([Some("h1"), Some("h4")]),
                vm([Some("h4"), Some("h4")]),
                vm([None, None]),
            ],
            &[
                volume("h1", "Working"),
                volume("h1", "Working"),
                volume("h1", "Failed"),
                volume("h2", "Done"),
                volume("h3", "Working"),
            ],
        );
        let expected = [("h1", 2, 2), ("h3", 0, 1), ("h4", 2, 0)];
        let expected = expected
            .map(|(host, vms, volume_jobs)| (HostName::from(host), Load { vms, volume_jobs }));
        assert_eq!(counted, BTreeMap::from(expected));
    }

    /// Also one that no VM's status tells of, as its VM is assigned elsewhere.
    #[test]
    fn a_copy_that_does_not_end_is_a_condition() {
        let mut host = host(None, &[]);
        assert!(copies_end(&host).good);
        let status = host.status.as_mut();
        let reported = status.and_then(|status| status.reported.as_mut());
        reported.expect("a report").closes_stuck = vec!["u1 oa.web-0-u1".to_owned()];
        let judged = copies_end(&host);
        assert!(!judged.good);
        let message = judged.message;
        assert!(
            message.contains("1 domains") && message.contains("(u1 oa.web-0-u1)"),
            "{message}"
        );
    }
}
