//! The fault ledger in the shell: feeds `failover::incident` with what happened to hosts and
//! hardware, measures downtime from probes, and keeps one `Incident` per root cause in the API.
//! A new leader goes on from what is stored: nothing is lost or told twice.

mod affected;
mod closing;
mod evacuated;
#[cfg(test)]
mod in_memory;
#[cfg(test)]
mod leader_dies_tests;
mod locked;
mod openings;
mod recall;
mod retention;
mod stalls;
mod stored;
mod storms;
mod waiting;
mod words;
#[cfg(test)]
mod world_in_memory;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Host, Incident};
use failover::host::machine::{EventKind, HostEvent};
use failover::incident::rules::fault_cause;
use failover::incident::{Entry, IncidentState, Ledger, WallTime};
use jiff::Timestamp;
use kube::ResourceExt;
use model::HostName;

use crate::runtime::Context;
use crate::writer::logged;
use affected::Baseline;
use storms::{Storm, Storms};
pub use waiting::Observer;
use waiting::Waiting;

/// What the ledger of this operator holds.
#[derive(Default)]
pub struct Incidents(Mutex<State>);

#[derive(Default)]
struct State {
    /// None until this operator leads: it is then restored from the API.
    ledger: Option<Ledger>,
    /// Events that wait for this operator to lead.
    waiting: Waiting,
    /// Events that the ledger has taken, and that the API may not hold yet.
    taken: Waiting,
    storms: Storms,
    /// Downtime that was measured before this operator led, by cause.
    baselines: BTreeMap<String, Baseline>,
    /// Since when downtime is measured, by cause.
    begins: BTreeMap<String, Timestamp>,
    /// Crashes of guests that are not told yet.
    crashes: openings::Crashes,
    /// Stalls of storage of late.
    stalls: stalls::Stalls,
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
    pub fn note(&self, observer: &Observer, events: Vec<HostEvent>, storm: Option<(u32, u32)>) {
        let (mut state, at) = (self.lock(), now());
        if !observer.leads {
            state.step_down(observer.followed);
        }
        state.waiting.note(events, at, observer);
        state.storms.note(storm, at, observer);
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
                // First what was seen: what is read back has no time of its own.
                state.take_events();
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
        state.forget_closed(&stored);
        let words = closing::words(&stored);
        // Before a person's word counts: what is closed is measured to its end.
        affected::follow(context, &words, &mut state);
        state.take_words_that_close(&words, &|incident| closing::may_close(context, incident));
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
    context.incidents.lock().settle_written();
    retention::forget(context, &stored).await;
}

impl State {
    /// This operator does not lead, or no longer. What it had taken and not written would be told by nobody if it leads
    /// again: a host says each thing once. It waits once more, and what is stored already adds nothing.
    fn step_down(&mut self, followed: Duration) {
        if self.ledger.take().is_none() {
            return;
        }
        let taken = std::mem::take(&mut self.taken);
        self.waiting.again(taken, followed);
        self.storms.again(followed);
    }

    /// Once the API holds all that the ledger told, nothing of it is to be told again.
    fn settle_written(&mut self) {
        if self.dirty.is_empty() {
            self.taken.written(now());
            self.storms.written();
        }
    }

    /// Goes on from what is stored; a storm or an event that was noted meanwhile is told by the next
    /// turn. An older Incident of the same cause takes over what a doubled one told, which is closed.
    fn restore(&mut self, stored: &[Incident]) {
        let open: Vec<_> = stored
            .iter()
            .filter(|incident| !incident.is_closed())
            .collect();
        self.begins.clear();
        self.crashes.clear();
        self.stalls.clear();
        self.baselines = open
            .iter()
            .filter_map(|incident| Some((incident.spec.cause.clone(), Baseline::of(incident)?)))
            .collect();
        let read: Vec<_> = open.into_iter().map(stored::read).collect();
        recall::forget_told(&mut self.waiting.0, stored);
        self.storms.forget_told(stored);
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
        if let Some(Storm {
            silent, of, since, ..
        }) = self.storms.take()
        {
            ledger.storm(silent, of, since);
        }
        for noted in self.waiting.0.drain(..) {
            ledger.host_event(&noted.event, noted.at);
            self.taken.keep(noted);
        }
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
                if fault.severity < closing::FAULT_OF_AN_INCIDENT {
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
            ledger,
            crashes,
            stalls,
            ..
        } = self;
        let Some(ledger) = ledger else {
            return;
        };
        openings::look(context, crashes, ledger, stored);
        stalls::look(context, stalls, ledger);
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

/// Whether its systems have not all answered again yet.
fn is_open(incident: &failover::incident::Incident) -> bool {
    incident.state == IncidentState::Open
}

#[cfg(test)]
mod tests {
    use failover::incident::CauseClass;
    use serde_json::json;

    use super::*;

    fn silence() -> HostEvent {
        HostEvent {
            host: "h1".into(),
            boot_id: "b1".into(),
            kind: EventKind::Seen,
            reason: failover::Reason::Unreachable {
                silent_milliseconds: 8_000,
            },
        }
    }

    /// Writes may fail for long, though nobody else leads.
    #[test]
    fn what_was_taken_is_kept_until_all_is_written() {
        for (is_written, kept) in [(false, 1), (true, 0)] {
            let mut state = State {
                ledger: Some(Ledger::default()),
                ..State::default()
            };
            let an_hour_ago = WallTime(now().0 - 3_600_000_000);
            state
                .waiting
                .note(vec![silence()], an_hour_ago, &Observer::that_followed(0));
            state.take_events();
            state.collect();
            if is_written {
                state.dirty.clear();
            }
            state.settle_written();
            state.step_down(Duration::ZERO);
            assert_eq!(state.waiting.0.len(), kept, "{is_written}");
        }
    }

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
            let mut state = State {
                ledger: Some(Ledger::default()),
                ..State::default()
            };
            state
                .waiting
                .note(vec![silence()], now(), &Observer::that_followed(0));
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
}
