//! The fault ledger: one Incident per silence of one incarnation of a host, or per standing
//! hardware fault; with what was seen, decided, done and deliberately not done, and each affected
//! system's downtime from the probes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use api::names::LABEL_SYSTEM;
use api::{
    AffectedSystem, CauseClass, EndpointDowntime, Host, Incident, IncidentSpec, IncidentStatus,
    TimelineEntry, TimelineKind,
};
use failover::Reason;
use failover::host::machine::{EventKind, HostEvent};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::json;

use crate::probes::endpoint_key;
use crate::runtime::Context;
use crate::writer::logged;
use crate::{clock, door};

/// Events that are not written yet, by incident name.
static PENDING: Mutex<BTreeMap<String, (String, Vec<TimelineEntry>)>> = Mutex::new(BTreeMap::new());

fn incident_name(host: &str, boot_id: &str) -> String {
    let mark: String = boot_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(8)
        .collect();
    format!("host-silent-{host}-{}", mark.to_lowercase())
}

/// Takes note of what happened to hosts; written by the next turn.
pub fn note(context: &Context, events: &[HostEvent]) {
    if !context.writer.leads() {
        return;
    }
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    for event in events {
        let entry = TimelineEntry {
            at: MicroTime(micros(Timestamp::now())),
            kind: match event.kind {
                EventKind::Seen => TimelineKind::Seen,
                EventKind::Decided => TimelineKind::Decided,
                EventKind::Done => TimelineKind::Done,
                EventKind::NotDone => TimelineKind::NotDone,
            },
            step: event.reason.key(),
            text: event.reason.english(),
            chinese: event.reason.chinese(),
        };
        // A registration or a return by itself opens no incident; it ends one that stands.
        let opens = !matches!(
            event.reason,
            Reason::Alive | Reason::NotRegistered | Reason::Returned | Reason::Reconciling { .. }
        );
        let name = incident_name(event.host.as_str(), event.boot_id.as_str());
        let known = pending.contains_key(&name)
            || context
                .stores
                .incidents
                .state()
                .iter()
                .any(|incident| incident.name_any() == name);
        if opens || known {
            pending
                .entry(name)
                .or_insert_with(|| (event.host.to_string(), Vec::new()))
                .1
                .push(entry);
        }
    }
}

/// One turn: opens incidents, appends what happened, measures downtime, says when all is well.
pub async fn turn(context: &Arc<Context>) {
    let pending = std::mem::take(&mut *PENDING.lock().unwrap_or_else(PoisonError::into_inner));
    for (name, (host, entries)) in pending {
        if !context
            .stores
            .incidents
            .state()
            .iter()
            .any(|incident| incident.name_any() == name)
        {
            open(
                context,
                &name,
                &host,
                entries
                    .first()
                    .map_or_else(Timestamp::now, |entry| entry.at.0),
                CauseClass::Unknown,
                &format!("host {host} fell silent"),
                &format!("宿主机 {host} 失联"),
            )
            .await;
        }
        keep(&name, &host, entries);
    }
    for host in context.stores.hosts.state() {
        hardware(context, &host).await;
    }
    for incident in context.stores.incidents.state() {
        if context.writer.settled(incident.as_ref())
            && incident
                .status
                .as_ref()
                .is_none_or(|status| status.state != "Closed")
        {
            update(context, &incident).await;
        }
    }
}

/// Entries that wait for their incident to be in the cache.
static WAITING: Mutex<BTreeMap<String, Vec<TimelineEntry>>> = Mutex::new(BTreeMap::new());

fn keep(name: &str, _host: &str, entries: Vec<TimelineEntry>) {
    WAITING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(name.to_owned())
        .or_default()
        .extend(entries);
}

async fn open(
    context: &Context,
    name: &str,
    host: &str,
    at: Timestamp,
    class: CauseClass,
    title: &str,
    chinese: &str,
) {
    let incident = Incident {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: IncidentSpec {
            cause: name.to_owned(),
            cause_class: class,
            title: title.to_owned(),
            title_chinese: chinese.to_owned(),
            host: Some(host.to_owned()),
            opened_at: api::Time(at),
            closure: None,
        },
        status: None,
    };
    logged("incident", name, context.writer.create(&incident).await);
}

/// A host with standing hardware faults has an incident.
async fn hardware(context: &Context, host: &Host) {
    let policy = context.stores.policy();
    if door::standing_faults(host, &policy) == 0 {
        return;
    }
    let faults = host
        .status
        .as_ref()
        .and_then(|status| status.reported.as_ref())
        .map(|reported| reported.faults.clone())
        .unwrap_or_default();
    let Some(fault) = faults.iter().max_by_key(|fault| fault.severity) else {
        return;
    };
    let first = fault
        .first_seen
        .parse::<Timestamp>()
        .unwrap_or_else(|_| Timestamp::now());
    let name = format!("hardware-{}-{}", host.name_any(), first.as_second());
    if context
        .stores
        .incidents
        .state()
        .iter()
        .any(|incident| incident.name_any() == name)
    {
        return;
    }
    open(
        context,
        &name,
        &host.name_any(),
        first,
        CauseClass::Hardware,
        &format!("host {}: {}", host.name_any(), fault.evidence),
        &format!("宿主机 {} 硬件故障:{}", host.name_any(), fault.component),
    )
    .await;
    let entry = |kind, step: &str, text: String, chinese: String| TimelineEntry {
        at: MicroTime(micros(Timestamp::now())),
        kind,
        step: step.to_owned(),
        text,
        chinese,
    };
    keep(
        &name,
        &host.name_any(),
        vec![
            entry(
                TimelineKind::Seen,
                "fault",
                fault.evidence.clone(),
                String::new(),
            ),
            entry(
                TimelineKind::Decided,
                "quarantine",
                format!(
                    "host {} takes no new VMs and is emptied by live migration",
                    host.name_any()
                ),
                format!("宿主机 {} 停止接收虚拟机,并热迁移疏散", host.name_any()),
            ),
        ],
    );
}

async fn update(context: &Context, incident: &Incident) {
    let (name, before) = (
        incident.name_any(),
        incident.status.clone().unwrap_or_default(),
    );
    let mut after = before.clone();
    let waiting = WAITING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&name)
        .unwrap_or_default();
    for entry in waiting {
        if !after
            .timeline
            .iter()
            .any(|known| known.step == entry.step && known.kind == entry.kind)
        {
            after.timeline.push(entry);
        }
    }
    if before.recovered_at.is_none() {
        affected(context, incident, &mut after);
    }
    follow_vms(context, incident, &mut after);
    settle(context, incident, &mut after);
    if after != before {
        logged(
            "incident",
            &name,
            context.writer.swap_status(incident, json!(after)).await,
        );
    }
}

/// Systems with VMs on the host when it began, and their downtime from then on.
fn affected(context: &Context, incident: &Incident, after: &mut IncidentStatus) {
    let host = incident.spec.host.clone().unwrap_or_default();
    let mut on_host: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for vm in context.stores.vms.state() {
        let status = vm.status.clone().unwrap_or_default();
        let there = status
            .assignment
            .as_ref()
            .is_some_and(|right| right.host.as_str() == host)
            || status.proofs.iter().any(|proof| {
                proof.assignment.host.as_str() == host
                    && incident.spec.cause.starts_with("host-silent")
            });
        if let (true, Some(system), Some(namespace)) =
            (there, vm.labels().get(LABEL_SYSTEM), vm.namespace())
        {
            on_host
                .entry((namespace, system.clone()))
                .or_default()
                .insert(vm.name_any());
        }
    }
    for known in &after.systems {
        on_host
            .entry((known.namespace.clone(), known.name.clone()))
            .or_default()
            .extend(known.virtual_machines.iter().cloned());
    }
    let (from, to) = (
        incident.spec.opened_at.0 - jiff::SignedDuration::from_secs(10),
        Timestamp::now(),
    );
    after.systems.clear();
    for system in context.stores.systems.state() {
        let key = (system.namespace().unwrap_or_default(), system.name_any());
        let Some(vms) = on_host.get(&key) else {
            continue;
        };
        let mut endpoints = Vec::new();
        for endpoint in &system.spec.endpoints {
            let downtime = context
                .probes
                .downtime(&endpoint_key(&system, endpoint), from, to);
            if downtime.down_seconds > 0.0 || downtime.unobserved_seconds > 0.0 {
                endpoints.push(EndpointDowntime {
                    name: endpoint.name.clone(),
                    downtime_seconds: round(downtime.down_seconds),
                    unobserved_seconds: round(downtime.unobserved_seconds),
                    down_at: downtime.down_at.map(|at| MicroTime(micros(at))),
                    up_at: downtime.up_at.map(|at| MicroTime(micros(at))),
                });
            }
        }
        let longest =
            |field: fn(&EndpointDowntime) -> f64| endpoints.iter().map(field).fold(0.0, f64::max);
        after.systems.push(AffectedSystem {
            namespace: key.0,
            name: key.1,
            display_name: system.spec.display_name.clone(),
            virtual_machines: vms.iter().cloned().collect(),
            downtime_seconds: longest(|endpoint| endpoint.downtime_seconds),
            unobserved_seconds: longest(|endpoint| endpoint.unobserved_seconds),
            endpoints,
        });
    }
    after.systems_affected = i32::try_from(after.systems.len()).unwrap_or(i32::MAX);
    after.longest_downtime_seconds = after
        .systems
        .iter()
        .map(|system| system.downtime_seconds)
        .fold(0.0, f64::max);
}

/// As the API keeps times: else every look would seem a change.
fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// Restarts and moves of the affected VMs, once each.
fn follow_vms(context: &Context, incident: &Incident, after: &mut IncidentStatus) {
    let host = incident.spec.host.clone().unwrap_or_default();
    for vm in context.stores.vms.state() {
        let status = vm.status.clone().unwrap_or_default();
        let affected = after.systems.iter().any(|system| {
            Some(&system.namespace) == vm.namespace().as_ref()
                && system.virtual_machines.contains(&vm.name_any())
        });
        let Some(right) = status
            .assignment
            .filter(|right| affected && right.host.as_str() != host)
        else {
            continue;
        };
        let moved = status
            .proofs
            .last()
            .is_some_and(|proof| proof.kind == model::StopProofKind::HandedOver);
        let runs = status.runtime.is_some_and(|runtime| {
            runtime.assignment == right && runtime.phase == api::RuntimePhase::Running
        });
        let step = format!(
            "{}/{}/{}",
            if moved { "moved" } else { "restarted" },
            vm.name_any(),
            right.epoch
        );
        if runs
            && after.recovered_at.is_none()
            && !after.timeline.iter().any(|known| known.step == step)
        {
            let (text, chinese) = if moved {
                (
                    format!(
                        "VM {} moved to {} without a stop",
                        vm.name_any(),
                        right.host
                    ),
                    format!("虚拟机 {} 已热迁移至 {}", vm.name_any(), right.host),
                )
            } else {
                (
                    format!("VM {} restarted on {}", vm.name_any(), right.host),
                    format!("虚拟机 {} 已在 {} 重启", vm.name_any(), right.host),
                )
            };
            after.timeline.push(TimelineEntry {
                at: MicroTime(micros(Timestamp::now())),
                kind: TimelineKind::Done,
                step,
                text,
                chinese,
            });
        }
    }
}

/// Open while something is under way; Recovered once every affected system is well; Closed when a
/// person says so.
fn settle(context: &Context, incident: &Incident, after: &mut IncidentStatus) {
    if incident.spec.closure.is_some() {
        after.state = "Closed".to_owned();
        after.closed_at = after.closed_at.clone().or_else(|| Some(clock::wall()));
        return;
    }
    let well = after.systems.iter().all(|affected| {
        context.stores.systems.state().iter().any(|system| {
            system.name_any() == affected.name
                && system.namespace().as_deref() == Some(affected.namespace.as_str())
                && system
                    .status
                    .as_ref()
                    .is_some_and(|status| status.state == "Ready")
        })
    });
    let host = incident.spec.host.clone().unwrap_or_default();
    // A host that came back carries VMs again: of a silence only the former incarnation counts.
    let silence = incident.spec.cause.starts_with("host-silent");
    let concerns = |right: &model::Assignment| {
        right.host.as_str() == host
            && (!silence || incident_name(&host, right.boot_id.as_str()) == incident.name_any())
    };
    let left = context
        .stores
        .vms
        .state()
        .iter()
        .filter(|vm| {
            vm.status
                .as_ref()
                .and_then(|status| status.assignment.as_ref())
                .is_some_and(concerns)
        })
        .count();
    let decided = after
        .timeline
        .iter()
        .any(|entry| entry.kind != TimelineKind::Seen);
    if well && left == 0 && decided && after.recovered_at.is_none() {
        after.recovered_at = Some(clock::wall());
    }
    after.state = if after.recovered_at.is_some() {
        "Recovered"
    } else {
        "Open"
    }
    .to_owned();
}
