//! The fault ledger: one incident per root cause, with what was seen, decided, done and
//! deliberately not done, and whom it affected. `rules` turns events of hosts into entries, `causes`
//! what happens to guests, agents and by planned work.
//!
//! Pure: wall-clock times come with each entry and are only shown and sorted, never
//! compared with another machine's. The ledger is rebuilt from the stored incidents after a
//! restart; every entry has a stable step, so telling the same thing twice adds nothing.

pub mod causes;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, NamespacedName};
use serde::{Deserialize, Serialize};

use crate::host::machine::EventKind;
use crate::reason::Sentence;

/// Most entries of one timeline; the rest is counted.
pub const TIMELINE_MAXIMUM: usize = 500;

/// A moment of the wall clock, microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

/// Class of a root cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CauseClass {
    /// Hardware failed.
    Hardware,
    /// Software failed.
    Software,
    /// A network failed.
    Network,
    /// Planned work.
    Planned,
    /// Not known yet.
    Unknown,
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IncidentState {
    /// Something is still wrong or under way.
    Open,
    /// Services answer; the cause still stands.
    Recovered,
    /// Over.
    Closed,
}

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When.
    pub at: WallTime,
    /// What kind.
    pub kind: EventKind,
    /// Stable key of the step; an incident holds each once.
    pub step: String,
    /// The sentence in English.
    pub english: String,
    /// The sentence in Chinese.
    pub chinese: String,
}

/// Downtime of one endpoint. Time that nobody observed is a third state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Downtime {
    /// Milliseconds in which no replica answered.
    pub down_milliseconds: u64,
    /// Milliseconds that nobody observed.
    pub unobserved_milliseconds: u64,
    /// When it first failed.
    pub down_at: Option<WallTime>,
    /// When it answered again.
    pub up_at: Option<WallTime>,
}

/// A business system that an incident touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AffectedSystem {
    /// Its official name.
    pub display_name: String,
    /// VMs of it that stood on the failed part.
    pub virtual_machines: BTreeSet<String>,
    /// Milliseconds in which at least one endpoint had no replica that answered.
    pub down_milliseconds: u64,
    /// Milliseconds that nobody observed.
    pub unobserved_milliseconds: u64,
    /// It declares no endpoint: whether it was down was measured by nobody.
    pub unmeasured: bool,
    /// Each endpoint that was down or unobserved.
    pub endpoints: BTreeMap<String, Downtime>,
    /// All of its endpoints answer now.
    pub answers: bool,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// Stable key of the root cause.
    pub cause: String,
    /// Class of the cause.
    pub class: CauseClass,
    /// What happened, in English.
    pub title: String,
    /// The same in Chinese.
    pub title_chinese: String,
    /// Host where it began.
    pub host: Option<HostName>,
    /// When it was opened.
    pub opened_at: WallTime,
    /// Where it stands.
    pub state: IncidentState,
    /// What was seen, decided, done and not done, by time.
    pub timeline: Vec<Entry>,
    /// Entries left out because the timeline is full.
    pub dropped: u32,
    /// Systems affected.
    pub systems: BTreeMap<NamespacedName, AffectedSystem>,
    /// When all affected systems answered again.
    pub recovered_at: Option<WallTime>,
    /// When it was closed.
    pub closed_at: Option<WallTime>,
}

/// What opens an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Stable key of the root cause.
    pub cause: String,
    /// Class of the cause.
    pub class: CauseClass,
    /// What happened.
    pub title: Sentence,
    /// Host where it began.
    pub host: Option<HostName>,
}

/// What was seen of a host longer ago than this, microseconds, belongs to no incident that opens now: no policy lets a
/// host be silent for so long before it is unreachable.
const BEFORE_MICROSECONDS: i64 = 900_000_000;

/// The ledger: one open incident per cause; closed ones are kept by the API only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    open: BTreeMap<String, Incident>,
    /// What was seen of a host before there was an incident.
    before: BTreeMap<HostName, Vec<Entry>>,
    /// What a host showed then, as the cause of an incident to come.
    shown: BTreeMap<HostName, rules::Meaning>,
    /// Work that people have declared on hosts, with its reason.
    work: BTreeMap<HostName, String>,
    changed: BTreeSet<String>,
}

impl Ledger {
    /// Rebuilds the ledger from the stored incidents. Two stored for one cause are merged
    /// into the older one; an entry that both hold stands once.
    pub fn restore(stored: impl IntoIterator<Item = Incident>) -> Self {
        let mut ledger = Self::default();
        for incident in stored
            .into_iter()
            .filter(|incident| incident.state != IncidentState::Closed)
        {
            match ledger.open.get_mut(&incident.cause) {
                None => {
                    ledger.open.insert(incident.cause.clone(), incident);
                }
                Some(known) => {
                    known.opened_at = known.opened_at.min(incident.opened_at);
                    incident.timeline.into_iter().for_each(|entry| {
                        known.add(entry);
                    });
                    ledger.changed.insert(known.cause.clone());
                }
            }
        }
        ledger
    }

    /// Incidents that are not closed, by cause.
    pub fn open(&self) -> &BTreeMap<String, Incident> {
        &self.open
    }

    /// The open incident of a cause.
    pub fn get(&self, cause: &str) -> Option<&Incident> {
        self.open.get(cause)
    }

    /// Causes whose incidents changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// Opens an incident unless its cause has one.
    pub fn open_incident(&mut self, opening: Opening, at: WallTime) {
        let Opening {
            cause,
            class,
            title,
            host,
        } = opening;
        if self.open.contains_key(&cause) {
            return;
        }
        let mut incident = Incident {
            cause: cause.clone(),
            class,
            title: title.english,
            title_chinese: title.chinese,
            host: host.clone(),
            opened_at: at,
            state: IncidentState::Open,
            timeline: Vec::new(),
            dropped: 0,
            systems: BTreeMap::new(),
            recovered_at: None,
            closed_at: None,
        };
        if let Some(seen) = host.and_then(|host| self.before.remove(&host)) {
            let seen: Vec<Entry> = seen
                .into_iter()
                .filter(|entry| at.0 - entry.at.0 <= BEFORE_MICROSECONDS)
                .collect();
            incident.opened_at = seen.first().map_or(at, |entry| entry.at.min(at));
            seen.into_iter().for_each(|entry| {
                incident.add(entry);
            });
        }
        self.open.insert(cause.clone(), incident);
        self.changed.insert(cause);
    }

    /// Adds an entry; the same step of the same cause is told once. Returns whether it is new.
    pub fn tell(&mut self, cause: &str, entry: Entry) -> bool {
        let Some(incident) = self.open.get_mut(cause) else {
            return false;
        };
        let new = incident.add(entry);
        if new {
            self.changed.insert(cause.to_owned());
        }
        new
    }

    /// Sharpens the class and the title once more is known.
    pub fn reclassify(&mut self, cause: &str, class: CauseClass, title: Sentence) {
        if let Some(incident) = self.open.get_mut(cause)
            && (incident.class != class || incident.title != title.english)
        {
            (incident.class, incident.title, incident.title_chinese) =
                (class, title.english, title.chinese);
            self.changed.insert(cause.to_owned());
        }
    }

    /// Names a system (and one of its VMs) as affected.
    pub fn affect(&mut self, cause: &str, system: NamespacedName, display_name: &str, vm: &str) {
        let Some(incident) = self.open.get_mut(cause) else {
            return;
        };
        let affected = incident
            .systems
            .entry(system)
            .or_insert_with(|| AffectedSystem {
                display_name: display_name.to_owned(),
                ..AffectedSystem::default()
            });
        if affected.virtual_machines.insert(vm.to_owned()) {
            self.changed.insert(cause.to_owned());
        }
    }

    /// Takes the measured downtime of an affected system, from probes only.
    pub fn measure(&mut self, cause: &str, system: &NamespacedName, measured: &AffectedSystem) {
        let Some(affected) = self
            .open
            .get_mut(cause)
            .and_then(|incident| incident.systems.get_mut(system))
        else {
            return;
        };
        let taken = AffectedSystem {
            display_name: affected.display_name.clone(),
            virtual_machines: affected.virtual_machines.clone(),
            ..measured.clone()
        };
        if *affected != taken {
            *affected = taken;
            self.changed.insert(cause.to_owned());
        }
    }

    /// Moves an incident on: Recovered once every affected system answers, Closed once the
    /// cause is gone too. `cause_gone` is the caller's word on the cause. Returns the
    /// incident when it was closed; the ledger forgets it.
    pub fn settle(&mut self, cause: &str, cause_gone: bool, at: WallTime) -> Option<Incident> {
        let incident = self.open.get_mut(cause)?;
        let answers = incident.systems.values().all(|system| system.answers);
        match (incident.state, answers) {
            (IncidentState::Open, true) => {
                incident.state = IncidentState::Recovered;
                incident.recovered_at = Some(incident.last_answer().unwrap_or(at));
                self.changed.insert(cause.to_owned());
            }
            (IncidentState::Recovered, false) => self.reopen(cause),
            _ => {}
        }
        if !(cause_gone && answers) {
            return None;
        }
        self.changed.remove(cause);
        let mut closed = self.open.remove(cause)?;
        (closed.state, closed.closed_at) = (IncidentState::Closed, Some(at));
        Some(closed)
    }

    /// What had recovered does not answer again.
    fn reopen(&mut self, cause: &str) {
        if let Some(incident) = self.open.get_mut(cause)
            && incident.state == IncidentState::Recovered
        {
            (incident.state, incident.recovered_at) = (IncidentState::Open, None);
            self.changed.insert(cause.to_owned());
        }
    }

    /// Knows nothing more of an incident that somebody else closed: what comes next is a new one.
    pub fn forget(&mut self, cause: &str) {
        self.changed.remove(cause);
        self.open.remove(cause);
    }

    /// Closes an incident on a person's word.
    pub fn close(&mut self, cause: &str, entry: Entry) -> Option<Incident> {
        self.changed.remove(cause);
        let mut closed = self.open.remove(cause)?;
        (closed.state, closed.closed_at) = (IncidentState::Closed, Some(entry.at));
        closed.add(entry);
        Some(closed)
    }
}

impl Incident {
    /// Adds an entry, unless its step is told. Returns whether it is new.
    pub fn add(&mut self, entry: Entry) -> bool {
        if self.timeline.iter().any(|known| known.step == entry.step) {
            return false;
        }
        if self.timeline.len() >= TIMELINE_MAXIMUM {
            self.dropped += 1;
            return false;
        }
        let place = self.timeline.partition_point(|known| known.at <= entry.at);
        self.timeline.insert(place, entry);
        true
    }

    /// Whether something is told of a host here: such steps begin with its name.
    pub fn tells_of(&self, host: &HostName) -> bool {
        let prefix = format!("{host}/");
        let mut steps = self.timeline.iter().map(|entry| &entry.step);
        steps.any(|step| step.starts_with(&prefix))
    }

    fn last_answer(&self) -> Option<WallTime> {
        self.systems
            .values()
            .flat_map(|system| system.endpoints.values())
            .filter_map(|endpoint| endpoint.up_at)
            .max()
    }

    /// The longest downtime of any affected system, milliseconds.
    pub fn longest_down_milliseconds(&self) -> u64 {
        self.systems
            .values()
            .map(|system| system.down_milliseconds)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: &str, at: i64) -> Entry {
        Entry {
            at: WallTime(at),
            kind: EventKind::Seen,
            step: step.to_owned(),
            english: step.to_owned(),
            chinese: String::new(),
        }
    }

    fn opening() -> Opening {
        Opening {
            cause: "host-silent/h1/b1".to_owned(),
            class: CauseClass::Unknown,
            title: Sentence {
                english: "h1 is silent".to_owned(),
                chinese: "h1 静默".to_owned(),
            },
            host: Some("h1".into()),
        }
    }

    #[test]
    fn a_step_stands_once_and_in_order_of_time() {
        let mut ledger = Ledger::default();
        ledger.open_incident(opening(), WallTime(1));
        assert!(ledger.tell("host-silent/h1/b1", entry("b", 20)));
        assert!(ledger.tell("host-silent/h1/b1", entry("a", 10)));
        assert!(!ledger.tell("host-silent/h1/b1", entry("a", 30)));
        let steps: Vec<&str> = ledger
            .get("host-silent/h1/b1")
            .unwrap()
            .timeline
            .iter()
            .map(|e| e.step.as_str())
            .collect();
        assert_eq!(steps, ["a", "b"]);
        assert!(!ledger.tell("unknown", entry("a", 1)));
    }

    #[test]
    fn a_restart_of_the_operator_loses_and_doubles_nothing() {
        let mut ledger = Ledger::default();
        ledger.open_incident(opening(), WallTime(1));
        ledger.tell("host-silent/h1/b1", entry("a", 10));
        let stored: Vec<Incident> = ledger.open().values().cloned().collect();
        let twice = stored.iter().cloned().chain(stored.iter().cloned());
        let mut restored = Ledger::restore(twice);
        restored.open_incident(opening(), WallTime(99));
        restored.tell("host-silent/h1/b1", entry("a", 50));
        restored.tell("host-silent/h1/b1", entry("b", 60));
        let incident = restored.get("host-silent/h1/b1").unwrap();
        assert_eq!(
            (incident.opened_at, incident.timeline.len()),
            (WallTime(1), 2)
        );
    }

    #[test]
    fn a_full_timeline_counts_what_it_drops() {
        let mut ledger = Ledger::default();
        ledger.open_incident(opening(), WallTime(1));
        for n in 0..TIMELINE_MAXIMUM + 3 {
            ledger.tell("host-silent/h1/b1", entry(&format!("s{n}"), 1));
        }
        let incident = ledger.get("host-silent/h1/b1").unwrap();
        assert_eq!(
            (incident.timeline.len(), incident.dropped),
            (TIMELINE_MAXIMUM, 3)
        );
    }

    #[test]
    fn recovered_when_all_answer_closed_when_the_cause_is_gone() {
        let cause = "host-silent/h1/b1";
        let system = NamespacedName::new("oa", "oa");
        let mut ledger = Ledger::default();
        ledger.open_incident(opening(), WallTime(1));
        ledger.affect(cause, system.clone(), "OA", "oa-web-0");
        assert_eq!(ledger.settle(cause, false, WallTime(2)), None);
        assert_eq!(ledger.get(cause).unwrap().state, IncidentState::Open);
        let down = Downtime {
            down_milliseconds: 7_000,
            up_at: Some(WallTime(42)),
            ..Downtime::default()
        };
        let measured = AffectedSystem {
            down_milliseconds: 7_000,
            endpoints: BTreeMap::from([("portal".to_owned(), down)]),
            answers: true,
            ..AffectedSystem::default()
        };
        ledger.measure(cause, &system, &measured);
        assert_eq!(ledger.settle(cause, false, WallTime(50)), None);
        let incident = ledger.get(cause).unwrap();
        assert_eq!(
            (incident.state, incident.recovered_at),
            (IncidentState::Recovered, Some(WallTime(42)))
        );
        assert_eq!(incident.longest_down_milliseconds(), 7_000);
        assert_eq!(
            incident.systems[&system].display_name, "OA",
            "a measurement keeps the name"
        );
        let closed = ledger.settle(cause, true, WallTime(60)).unwrap();
        assert_eq!(
            (closed.state, closed.closed_at),
            (IncidentState::Closed, Some(WallTime(60)))
        );
        assert!(ledger.open().is_empty());
    }
}
