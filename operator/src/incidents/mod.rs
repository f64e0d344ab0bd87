//! The fault ledger in the shell: feeds `failover::incident` with what happened to hosts and
//! hardware, measures downtime from probes, and keeps one `Incident` per root cause in the API.
//! A new leader goes on from what is stored: nothing is lost or told twice.

mod affected;
mod evacuated;
#[cfg(test)]
mod in_memory;
#[cfg(test)]
mod leader_dies_tests;
mod locked;
mod openings;
mod recall;
mod retention;
mod stored;
mod words;
#[cfg(test)]
mod world_in_memory;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use api::{Host, HostState, Incident};
use failover::host::machine::{EventKind, HostEvent};
use failover::incident::rules::{SILENT_CAUSES, STORM_CAUSE, fault_cause};
use failover::incident::{Entry, IncidentState, Ledger, WallTime};
use jiff::Timestamp;
use kube::ResourceExt;
use model::{HostName, Severity};

use crate::hosts::HostWatch;
use crate::runtime::Context;
use crate::writer::logged;
use affected::Baseline;

/// Events that wait for this operator to lead; older ones are the former leader's.
const WAITING_MAX: usize = 256;
/// How long an event may wait, seconds.
const WAITING_SECONDS: i64 = 30;

/// What the ledger of this operator holds.
#[derive(Default)]
pub struct Incidents(Mutex<State>);

#[derive(Default)]
struct State {
    /// None until this operator leads: it is then restored from the API.
    ledger: Option<Ledger>,
    waiting: VecDeque<(HostEvent, WallTime)>,
    /// Events that the ledger has taken, and that the API may not hold yet.
    taken: VecDeque<(HostEvent, WallTime)>,
    storm: Option<(u32, u32, WallTime)>,
    /// A storm that the ledger has taken and that stands, as it began.
    storm_taken: Option<(u32, u32, WallTime)>,
    /// Downtime that was measured before this operator led, by cause.
    baselines: BTreeMap<String, Baseline>,
    /// Since when downtime is measured, by cause.
    begins: BTreeMap<String, Timestamp>,
    /// Crashes of guests that are not told yet.
    crashes: openings::Crashes,
    /// Incidents as they are to be written, by the names of their objects.
    dirty: BTreeMap<String, failover::incident::Incident>,
}

fn now() -> WallTime {
    WallTime(wall().as_microsecond())
}

/// The wall clock, but for tests in which time is given.
#[cfg(not(test))]
fn wall() -> Timestamp {
    Timestamp::now()
}
#[cfg(test)]
use world_in_memory::wall;

impl Incidents {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restored(&self) -> bool {
        self.lock().ledger.is_some()
    }

    /// Takes note of what happened to hosts; the next turn tells it. `storm` is told as long as it
    /// stands, with how many hosts are silent, of how many: a leader that has just begun must know.
    pub fn note(&self, leads: bool, events: Vec<HostEvent>, storm: Option<(u32, u32)>) {
        let (mut state, at) = (self.lock(), now());
        if !leads {
            state.step_down();
        }
        state
            .waiting
            .extend(events.into_iter().map(|event| (event, at)));
        let excess = state.waiting.len().saturating_sub(WAITING_MAX);
        state.waiting.drain(..excess);
        // Its Incident begins when it did, whoever leads by the time that it is told. One that is over is the former
        // leader's story: told by the next one, it would be an Incident of its own.
        let since = state.storm.map_or(at, |(.., since)| since);
        match storm {
            Some((silent, of)) => state.storm = Some((silent, of, since)),
            None => {
                state.storm_taken = None;
                state.storm.take_if(|_| !leads);
            }
        }
    }
}

/// One turn: takes events and faults, measures, settles, writes what changed.
pub async fn turn(context: &Arc<Context>) {
    if !context.incidents.restored() {
        // A cache may be older than what a former leader, or this one before, has written.
        match context.writer.list::<Incident>().await {
            Ok(stored) => {
                let mut state = context.incidents.lock();
                state.restore(&stored);
                state.take_work(&context.stores.hosts.state());
                state.recall(context, &stored);
            }
            Err(error) => return logged("incident", "(all)", Err(error)),
        }
    }
    let stored = context.stores.incidents.state();
    let dirty = {
        let mut state = context.incidents.lock();
        state.take_work(&context.stores.hosts.state());
        state.take_events();
        state.take_faults(context);
        state.take_words(context);
        state.take_openings(context, &stored);
        state.take_closures(&stored);
        affected::follow(context, &mut state);
        state.collect();
        state.dirty.clone()
    };
    for (name, incident) in dirty {
        if stored::write(context, &stored, &incident).await {
            let mut state = context.incidents.lock();
            // A newer version may wait already.
            if state.dirty.get(&name) == Some(&incident) {
                state.dirty.remove(&name);
            }
        }
    }
    retention::forget(context, &stored).await;
}

impl State {
    /// This operator does not lead, or no longer. What it had taken and not written would be told by nobody if it leads
    /// again: a host says each thing once. It waits once more, and what is stored already adds nothing.
    fn step_down(&mut self) {
        if self.ledger.take().is_none() {
            return;
        }
        let mut again = std::mem::take(&mut self.taken);
        again.append(&mut self.waiting);
        self.waiting = again;
        self.storm = self.storm_taken.take().or(self.storm);
    }

    /// Goes on from what is stored; a storm or an event that was noted meanwhile is told by the next
    /// turn. An older Incident of the same cause takes over what a doubled one told, which is closed.
    fn restore(&mut self, stored: &[Incident]) {
        let open: Vec<_> = stored
            .iter()
            .filter(|incident| !stored::is_closed(incident))
            .collect();
        self.begins.clear();
        self.crashes.clear();
        self.baselines = open
            .iter()
            .filter_map(|incident| Some((incident.spec.cause.clone(), Baseline::of(incident)?)))
            .collect();
        let read: Vec<_> = open.into_iter().map(stored::read).collect();
        recall::forget_told(&mut self.waiting, stored);
        let ledger = Ledger::restore(read.iter().cloned());
        self.dirty.clear();
        for mut doubled in read {
            let kept = ledger.get(&doubled.cause);
            if kept.is_some_and(|kept| kept.opened_at != doubled.opened_at) {
                (doubled.state, doubled.closed_at) = (IncidentState::Closed, Some(now()));
                self.store(doubled);
            }
        }
        self.ledger = Some(ledger);
    }

    /// An incident is to be written: by the name of its object, as one cause may come back while the
    /// end of its former incident still waits to be written.
    fn store(&mut self, incident: failover::incident::Incident) {
        self.dirty.insert(stored::object_name(&incident), incident);
    }

    /// A host that falls silent while people work on it does so because of them.
    fn take_work(&mut self, hosts: &[Arc<Host>]) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let declared = |host: &Arc<Host>| {
            let maintenance = host.spec.maintenance.as_ref()?;
            Some((HostName(host.name_any()), maintenance.reason.clone()))
        };
        ledger.work_declared(hosts.iter().filter_map(declared).collect());
    }

    fn take_events(&mut self) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        if let Some((silent, of, at)) = self.storm.take() {
            ledger.storm(silent, of, at);
            self.storm_taken.get_or_insert((silent, of, at));
        }
        let oldest = now().0 - WAITING_SECONDS * 1_000_000;
        self.taken.retain(|(_, at)| at.0 >= oldest);
        for (event, at) in self.waiting.drain(..).filter(|(_, at)| at.0 >= oldest) {
            ledger.host_event(&event, at);
            self.taken.push_back((event, at));
        }
        let excess = self.taken.len().saturating_sub(WAITING_MAX);
        self.taken.drain(..excess);
    }

    /// Every standing fault that quarantines its host is an incident.
    fn take_faults(&mut self, context: &Context) {
        let at = now();
        let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        for host in context.stores.hosts.state() {
            let name = HostName(host.name_any());
            for ((component, kind), fault) in watch.faults(&name) {
                if fault.severity < Severity::Degraded {
                    continue;
                }
                ledger.fault(&name, &component, kind, fault.severity, &fault.evidence, at);
                let cause = fault_cause(&name, &component, kind);
                ledger.tell(&cause, quarantine(&name, at));
                evacuated::tell(ledger, &cause, &host, at);
            }
        }
    }

    /// What people said, while it stands.
    fn take_words(&mut self, context: &Context) {
        if let Some(ledger) = &mut self.ledger {
            let hosts = context.stores.hosts.state();
            words::follow(ledger, &context.stores.policy(), &hosts, wall());
        }
    }

    /// What else is an incident, and what the API says of those that stand.
    fn take_openings(&mut self, context: &Context, stored: &[Arc<Incident>]) {
        let State {
            ledger, crashes, ..
        } = self;
        let Some(ledger) = ledger else {
            return;
        };
        openings::look(context, crashes, ledger, stored);
        let hosts = context.stores.hosts.state();
        let vms = context.stores.vms.state();
        recall::follow(ledger, &hosts, &vms);
        recall::deaths(ledger, stored, &vms, wall());
    }

    /// What a former leader did and had no time to tell.
    fn recall(&mut self, context: &Context, stored: &[Incident]) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let (vms, wall) = (context.stores.vms.state(), wall());
        recall::deaths(ledger, stored, &vms, wall);
        openings::recall_crashes(ledger, stored, &vms, wall);
    }

    /// A person's word closes.
    fn take_closures(&mut self, stored: &[Arc<Incident>]) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        // One that another leader closed is over here too; its object is final.
        let over: Vec<String> = ledger
            .open()
            .values()
            .filter(|incident| stored::closed_elsewhere(stored, incident))
            .map(|incident| incident.cause.clone())
            .collect();
        for cause in over {
            ledger.forget(&cause);
            self.baselines.remove(&cause);
            self.begins.remove(&cause);
        }
        let mut closed = Vec::new();
        for incident in stored
            .iter()
            .filter(|incident| !stored::is_closed(incident))
        {
            let Some(closure) = &incident.spec.closure else {
                continue;
            };
            let entry = Entry {
                at: now(),
                kind: EventKind::Done,
                step: "closed".to_owned(),
                english: format!("closed by {}: {}", closure.by, closure.reason),
                chinese: format!("{} 关闭:{}", closure.by, closure.reason),
            };
            // The word is about this object: the cause may have come back since, with an incident of its own.
            let cause = &incident.spec.cause;
            let own = ledger.get(cause).map(stored::object_name);
            if own != Some(incident.name_any()) {
                continue;
            }
            if let Some(mut incident) = ledger.close(cause, entry) {
                incident.class = closure.cause_class.map_or(incident.class, stored::class);
                self.baselines.remove(&incident.cause);
                self.begins.remove(&incident.cause);
                closed.push(incident);
            }
        }
        closed.into_iter().for_each(|incident| self.store(incident));
    }

    /// What changed is to be written.
    fn collect(&mut self) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let changed: Vec<_> = ledger
            .take_changed()
            .iter()
            .filter_map(|cause| ledger.get(cause).cloned())
            .collect();
        changed
            .into_iter()
            .for_each(|incident| self.store(incident));
    }
}

fn quarantine(host: &HostName, at: WallTime) -> Entry {
    Entry {
        at,
        kind: EventKind::Decided,
        step: "quarantine".to_owned(),
        english: format!("host {host} takes no new VMs"),
        chinese: format!("宿主机 {host} 停止接收虚拟机"),
    }
}

/// Whether the root cause of an incident is gone.
fn cause_is_gone(
    incident: &failover::incident::Incident,
    hosts: &[Arc<Host>],
    watch: &HostWatch,
) -> bool {
    let ready = |host: &Host| {
        host.status.as_ref().and_then(|status| status.state) == Some(HostState::Ready)
    };
    if incident.cause == STORM_CAUSE {
        let silent = |host: &Host| watch.is_silent(&HostName(host.name_any()));
        return hosts.iter().all(|host| ready(host) && !silent(host));
    }
    let own = hosts.iter().find(|host| {
        incident
            .host
            .as_ref()
            .is_some_and(|name| host.name_any() == name.as_str())
    });
    // A host that was deleted can not fail any more.
    let Some(host) = own else { return true };
    let name = HostName(host.name_any());
    if incident.cause.starts_with(SILENT_CAUSES) {
        // What the API shows may be older than what this operator sees.
        return ready(host) && !watch.is_silent(&name) && !watch.is_stuck(&name);
    }
    !watch
        .faults(&name)
        .iter()
        .any(|((component, kind), _)| fault_cause(&name, component, *kind) == incident.cause)
}

/// Whether its systems have not all answered again yet.
fn is_open(incident: &failover::incident::Incident) -> bool {
    incident.state == IncidentState::Open
}

#[cfg(test)]
mod tests {
    use failover::incident::CauseClass;
    use serde_json::json;

    use super::*;

    /// Of a host that ops have drained and switch off.
    #[test]
    fn a_silence_is_planned_where_its_host_is_in_maintenance() {
        for (maintenance, class) in [
            (json!(null), CauseClass::Unknown),
            (json!({"reason": "new memory"}), CauseClass::Planned),
            (
                json!({"reason": "new memory", "evacuate": false}),
                CauseClass::Planned,
            ),
        ] {
            let host: Host = serde_json::from_value(json!({
                "metadata": {"name": "h1"},
                "spec": {"pool": "general", "managementAddress": "10.0.0.1", "maintenance": maintenance}
            }))
            .expect("a Host");
            let silence = HostEvent {
                host: "h1".into(),
                boot_id: "b1".into(),
                kind: EventKind::Seen,
                reason: failover::Reason::Unreachable {
                    silent_milliseconds: 8_000,
                },
            };
            let mut state = State {
                ledger: Some(Ledger::default()),
                waiting: VecDeque::from([(silence, now())]),
                ..State::default()
            };
            state.take_work(&[Arc::new(host)]);
            state.take_events();
            let ledger = state.ledger.expect("a ledger");
            let incident = ledger.get("host-silent/h1/b1").expect("open");
            assert_eq!(incident.class, class, "{maintenance}");
            let why = |entry: &Entry| entry.english.ends_with("new memory");
            let is_planned = class == CauseClass::Planned;
            assert_eq!(incident.timeline.iter().any(why), is_planned);
        }
    }

    /// The cause came back after a person had closed its incident, and the cache shows that one as open still.
    #[test]
    fn a_persons_word_closes_the_incident_that_it_is_about_and_no_later_one_of_its_cause() {
        let cause = "hardware/h1/fan/1/Fan";
        let opened = || failover::incident::Opening {
            cause: cause.to_owned(),
            class: CauseClass::Hardware,
            host: None,
            title: failover::Sentence {
                english: "h1: fan".to_owned(),
                chinese: "h1:风扇".to_owned(),
            },
        };
        for (second, closes) in [(5, true), (65, false)] {
            let mut ledger = Ledger::default();
            ledger.open_incident(opened(), WallTime(second * 1_000_000));
            let mut state = State {
                ledger: Some(ledger),
                ..State::default()
            };
            let word: Incident = serde_json::from_value(json!({
                "metadata": {"name": "hardware-h1-fan-1-fan-5"},
                "spec": {"cause": cause, "causeClass": "Hardware", "title": "t", "titleChinese": "t",
                    "openedAt": "1970-01-01T00:00:05Z", "closure": {"by": "w", "reason": "r"}}
            }))
            .expect("an Incident");
            state.take_closures(&[Arc::new(word)]);
            let ledger = state.ledger.expect("a ledger");
            assert_eq!(ledger.open().is_empty(), closes, "{second}");
        }
    }
}
