//! Between the ledger's incidents and the objects that hold them.

use std::sync::Arc;

use api::{
    AffectedSystem, CauseClass, EndpointDowntime, Incident, IncidentSpec, IncidentStatus,
    TimelineEntry, TimelineKind,
};
use failover::host::machine::EventKind;
use failover::incident::causes::GUEST_CAUSES;
use failover::incident::{self, Downtime, Entry, IncidentState, WallTime};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use model::{HostName, NamespacedName};
use serde_json::json;

use crate::runtime::Context;
use crate::writer::{WriteError, logged};

/// Longest part of an object's name that tells the cause.
const NAME_MAX: usize = 48;

/// A name that tells the cause and is new each time that it comes back.
pub(super) fn object_name(incident: &incident::Incident) -> String {
    if incident.cause.starts_with(GUEST_CAUSES) {
        // Guests crash together, and their names begin alike: nothing is cut off.
        let whole = incident.cause.replace('/', ".");
        return format!("{whole}-{}", incident.opened_at.0 / 1_000_000);
    }
    let mut slug = String::new();
    for letter in incident.cause.chars().take(NAME_MAX) {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter.to_ascii_lowercase());
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    format!(
        "{}-{}",
        slug.trim_matches('-'),
        incident.opened_at.0 / 1_000_000
    )
}

fn micro(at: WallTime) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn wall(at: &MicroTime) -> WallTime {
    WallTime(at.0.as_microsecond())
}

fn seconds(milliseconds: u64) -> f64 {
    // Tenths: a write for each millisecond would be one too many.
    (milliseconds as f64 / 100.0).round() / 10.0
}

fn milliseconds(seconds: f64) -> u64 {
    // Bounded by the API's own numbers; negative ones never stand.
    (seconds.max(0.0) * 1000.0).round() as u64
}

/// The ledger's incident as an object's status.
pub(super) fn status(incident: &incident::Incident) -> IncidentStatus {
    let timeline = incident.timeline.iter().map(|entry| TimelineEntry {
        at: micro(entry.at),
        kind: match entry.kind {
            EventKind::Seen => TimelineKind::Seen,
            EventKind::Decided => TimelineKind::Decided,
            EventKind::Done => TimelineKind::Done,
            EventKind::NotDone => TimelineKind::NotDone,
        },
        step: entry.step.clone(),
        text: entry.english.clone(),
        chinese: entry.chinese.clone(),
    });
    let systems = incident
        .systems
        .iter()
        .map(|(name, system)| AffectedSystem {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            display_name: system.display_name.clone(),
            virtual_machines: system.virtual_machines.iter().cloned().collect(),
            downtime_seconds: seconds(system.down_milliseconds),
            unobserved_seconds: seconds(system.unobserved_milliseconds),
            not_measured: system.unmeasured,
            endpoints: system
                .endpoints
                .iter()
                .map(|(name, downtime)| EndpointDowntime {
                    name: name.clone(),
                    downtime_seconds: seconds(downtime.down_milliseconds),
                    unobserved_seconds: seconds(downtime.unobserved_milliseconds),
                    down_at: downtime.down_at.map(micro),
                    up_at: downtime.up_at.map(micro),
                })
                .collect(),
        });
    IncidentStatus {
        state: format!("{:?}", incident.state),
        timeline: timeline.collect(),
        timeline_dropped: i32::try_from(incident.dropped).unwrap_or(i32::MAX),
        systems: systems.collect(),
        systems_affected: i32::try_from(incident.systems.len()).unwrap_or(i32::MAX),
        longest_downtime_seconds: seconds(incident.longest_down_milliseconds()),
        measured_until: None,
        recovered_at: incident.recovered_at.map(micro),
        closed_at: incident.closed_at.map(micro),
    }
}

/// An object as the ledger's incident.
pub(super) fn read(object: &Incident) -> incident::Incident {
    let status = object.status.clone().unwrap_or_default();
    let entry = |entry: TimelineEntry| Entry {
        at: wall(&entry.at),
        kind: match entry.kind {
            TimelineKind::Seen => EventKind::Seen,
            TimelineKind::Decided => EventKind::Decided,
            TimelineKind::Done => EventKind::Done,
            TimelineKind::NotDone => EventKind::NotDone,
        },
        step: entry.step,
        english: entry.text,
        chinese: entry.chinese,
    };
    let system = |system: AffectedSystem| {
        let name = NamespacedName::new(system.namespace.clone(), system.name.clone());
        let recovered = status.recovered_at.is_some();
        (name, read_system(system, recovered))
    };
    incident::Incident {
        cause: object.spec.cause.clone(),
        class: class(object.spec.cause_class),
        title: object.spec.title.clone(),
        title_chinese: object.spec.title_chinese.clone(),
        host: object.spec.host.clone().map(HostName),
        opened_at: wall(&object.spec.opened_at),
        state: match status.state.as_str() {
            "Closed" => IncidentState::Closed,
            "Recovered" => IncidentState::Recovered,
            _ => IncidentState::Open,
        },
        timeline: status.timeline.clone().into_iter().map(entry).collect(),
        dropped: u32::try_from(status.timeline_dropped).unwrap_or(0),
        systems: status.systems.clone().into_iter().map(system).collect(),
        recovered_at: status.recovered_at.as_ref().map(wall),
        closed_at: status.closed_at.as_ref().map(wall),
    }
}

pub(super) fn read_system(system: AffectedSystem, answers: bool) -> incident::AffectedSystem {
    let endpoint = |endpoint: EndpointDowntime| {
        let downtime = Downtime {
            down_milliseconds: milliseconds(endpoint.downtime_seconds),
            unobserved_milliseconds: milliseconds(endpoint.unobserved_seconds),
            down_at: endpoint.down_at.as_ref().map(wall),
            up_at: endpoint.up_at.as_ref().map(wall),
        };
        (endpoint.name, downtime)
    };
    incident::AffectedSystem {
        display_name: system.display_name,
        virtual_machines: system.virtual_machines.into_iter().collect(),
        down_milliseconds: milliseconds(system.downtime_seconds),
        unobserved_milliseconds: milliseconds(system.unobserved_seconds),
        unmeasured: system.not_measured,
        endpoints: system.endpoints.into_iter().map(endpoint).collect(),
        answers,
    }
}

pub(super) fn class(class: CauseClass) -> incident::CauseClass {
    match class {
        CauseClass::Hardware => incident::CauseClass::Hardware,
        CauseClass::Software => incident::CauseClass::Software,
        CauseClass::Network => incident::CauseClass::Network,
        CauseClass::Planned => incident::CauseClass::Planned,
        CauseClass::Unknown => incident::CauseClass::Unknown,
    }
}

fn cause_class(class: incident::CauseClass) -> CauseClass {
    match class {
        incident::CauseClass::Hardware => CauseClass::Hardware,
        incident::CauseClass::Software => CauseClass::Software,
        incident::CauseClass::Network => CauseClass::Network,
        incident::CauseClass::Planned => CauseClass::Planned,
        incident::CauseClass::Unknown => CauseClass::Unknown,
    }
}

fn object(incident: &incident::Incident) -> Incident {
    Incident {
        metadata: ObjectMeta {
            name: Some(object_name(incident)),
            ..ObjectMeta::default()
        },
        spec: IncidentSpec {
            cause: incident.cause.clone(),
            cause_class: cause_class(incident.class),
            title: incident.title.clone(),
            title_chinese: incident.title_chinese.clone(),
            host: incident.host.as_ref().map(ToString::to_string),
            opened_at: micro(incident.opened_at),
            closure: None,
        },
        status: None,
    }
}

/// What stands under the name of an incident's object.
#[derive(Debug, PartialEq)]
enum Standing<'a> {
    Missing,
    Closed,
    Open(&'a Arc<Incident>),
}

fn standing<'a>(stored: &'a [Arc<Incident>], name: &str) -> Standing<'a> {
    match stored.iter().find(|known| known.name_any() == name) {
        None => Standing::Missing,
        Some(known) if known.is_closed() => Standing::Closed,
        Some(known) => Standing::Open(known),
    }
}

/// Whether an incident that this ledger holds open was closed by another leader.
pub(super) fn closed_elsewhere(stored: &[Arc<Incident>], incident: &incident::Incident) -> bool {
    standing(stored, &object_name(incident)) == Standing::Closed
}

/// Writes an incident; true when the API holds all of it.
pub(super) async fn write(
    context: &Context,
    stored: &[Arc<Incident>],
    incident: &incident::Incident,
) -> bool {
    let name = object_name(incident);
    let known = match standing(stored, &name) {
        Standing::Open(known) => known,
        // Another leader has closed it, or this one just did: what it tells is final.
        Standing::Closed => return true,
        Standing::Missing => {
            let made = object(incident);
            logged(
                "incident",
                &made.name_any(),
                context.writer.create(&made).await,
            );
            // Its status follows once the cache holds it.
            return false;
        }
    };
    if !context.writer.settled(known.as_ref()) {
        return false;
    }
    let (class, title) = (cause_class(incident.class), &incident.title);
    if known.spec.cause_class != class || known.spec.title != *title {
        let spec =
            json!({"causeClass": class, "title": title, "titleChinese": incident.title_chinese});
        let result = context.writer.spec(known.as_ref(), spec).await;
        logged("incident", &known.name_any(), result);
        return false;
    }
    let mut after = status(incident);
    let before = known.status.clone().unwrap_or_default();
    after.measured_until = before.measured_until.clone();
    if after == before {
        return true;
    }
    after.measured_until = Some(micro(super::now()));
    let result = context
        .writer
        .replace_status(known.as_ref(), &before, &after)
        .await;
    let written = matches!(result, Ok(()) | Err(WriteError::Gone));
    logged("incident", &known.name_any(), result);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_fan_stands_still(component: &str, at: WallTime) -> (incident::Ledger, incident::Incident) {
        let mut ledger = incident::Ledger::default();
        let host = HostName("h1".to_owned());
        let (kind, severity) = (model::FaultKind::Fan, model::Severity::Degraded);
        let cause = incident::rules::fault_cause(&host, component, kind);
        ledger.fault(&host, component, kind, severity, "0 rpm", at);
        let open = ledger.get(&cause).expect("open").clone();
        (ledger, open)
    }

    #[test]
    fn an_incident_that_another_leader_closed_is_not_made_again() {
        let (_, ours) = a_fan_stands_still("fan/1", WallTime(5_000_000));
        let name = object_name(&ours);
        let stored = |state: &str| {
            let mut object = object(&ours);
            object.status = Some(IncidentStatus {
                state: state.to_owned(),
                ..status(&ours)
            });
            [Arc::new(object)]
        };
        assert_eq!(standing(&[], &name), Standing::Missing);
        let open = stored("Open");
        assert_eq!(standing(&open, &name), Standing::Open(&open[0]));
        // Made again, it would be refused with 409 for ever and never leave the list of what is to
        // be written.
        assert_eq!(standing(&stored("Closed"), &name), Standing::Closed);
        assert!(closed_elsewhere(&stored("Closed"), &ours));
    }

    #[test]
    fn what_a_closed_incident_measured_is_not_counted_again_by_the_next_of_its_cause() {
        let (_, ours) = a_fan_stands_still("fan/1", WallTime(5_000_000));
        let cause = ours.cause.clone();
        let mut open = object(&ours);
        open.status = Some(IncidentStatus {
            measured_until: Some(micro(WallTime(6_000_000))),
            ..status(&ours)
        });
        let mut by_a_person = open.clone();
        by_a_person.spec.closure = Some(api::IncidentClosure {
            by: "ops".to_owned(),
            reason: "fan replaced".to_owned(),
            cause_class: None,
        });
        let mut elsewhere = open.clone();
        elsewhere.status.as_mut().expect("status").state = "Closed".to_owned();
        // The class that the person found becomes the record's.
        let mut state = super::super::State::default();
        state.restore(std::slice::from_ref(&open));
        let mut planned = by_a_person.clone();
        if let Some(closure) = &mut planned.spec.closure {
            closure.cause_class = Some(CauseClass::Planned);
        }
        let words = super::super::closing::words(&[Arc::new(planned)]);
        state.take_words_that_close(&words, &|_| true);
        let class = |state: &super::super::State| state.dirty[&object_name(&ours)].class;
        assert_eq!(class(&state), incident::CauseClass::Planned);
        for closed in [by_a_person, elsewhere] {
            let mut state = super::super::State::default();
            state.restore(std::slice::from_ref(&open));
            assert!(state.baselines.contains_key(&cause));
            let stored = [Arc::new(closed)];
            state.forget_closed(&stored);
            let words = super::super::closing::words(&stored);
            state.take_words_that_close(&words, &|_| true);
            assert!(!state.baselines.contains_key(&cause));
            assert!(state.ledger.expect("restored").get(&cause).is_none());
        }
    }

    #[test]
    fn guests_whose_names_begin_alike_have_incidents_of_their_own() {
        let (_, known) = a_fan_stands_still("fan/1", WallTime(5_000_000));
        let name = |vm: &str| {
            let mut of_guest = known.clone();
            of_guest.cause = format!("guest/one-stop-service/{vm}/3");
            object_name(&of_guest)
        };
        let (first, second) = (
            name("government-service-application-0"),
            name("government-service-application-1"),
        );
        assert_eq!(
            first,
            "guest.one-stop-service.government-service-application-0.3-5"
        );
        assert_ne!(first, second);
    }

    #[test]
    fn what_is_stored_is_read_back_the_same() {
        let (mut ledger, incident) =
            a_fan_stands_still("memory/mc0", WallTime(1_700_000_000_123_456));
        let cause = incident.cause;
        let system = NamespacedName::new("egov-center", "oa");
        ledger.affect(&cause, system.clone(), "OA", "oa-web-0");
        let measured = incident::AffectedSystem {
            down_milliseconds: 2_300,
            endpoints: [(
                "portal".to_owned(),
                Downtime {
                    down_milliseconds: 2_300,
                    down_at: Some(WallTime(1_700_000_000_500_000)),
                    ..Downtime::default()
                },
            )]
            .into(),
            ..incident::AffectedSystem::default()
        };
        ledger.measure(&cause, &system, &measured);
        let unseen = NamespacedName::new("egov-center", "mail");
        ledger.affect(&cause, unseen.clone(), "Mail", "mail-0");
        let measured = incident::AffectedSystem {
            unobserved_milliseconds: 12_300,
            unmeasured: true,
            ..incident::AffectedSystem::default()
        };
        ledger.measure(&cause, &unseen, &measured);
        let open = ledger.get(&cause).expect("open").clone();
        let mut closed = open.clone();
        closed.state = IncidentState::Closed;
        closed.recovered_at = Some(WallTime(1_700_000_010_654_321));
        closed.closed_at = Some(WallTime(1_700_000_020_000_001));
        for system in closed.systems.values_mut() {
            system.answers = true;
        }
        // To the microsecond: a status that reads back otherwise would be written for ever.
        for before in [open, closed] {
            let mut made = object(&before);
            made.status = Some(status(&before));
            let text = serde_json::to_string(&made).expect("JSON");
            let stored: Incident = serde_json::from_str(&text).expect("an Incident");
            assert_eq!(read(&stored), before);
            assert_eq!(stored.status, Some(status(&before)));
            assert_eq!(
                object_name(&before),
                "hardware-h1-memory-mc0-fan-1700000000"
            );
        }
    }
}
