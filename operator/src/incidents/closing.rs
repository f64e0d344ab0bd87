//! When an incident is over: by itself, once its cause is gone and all that it affected answers, or on a
//! person's word, once its cause is gone. Closed sooner, what follows of its cause would be an incident of
//! its own, or be told by none, and the downtime that is left would be nobody's.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use api::names::INCIDENT_STEP_NOT_CLOSED;
use api::{Host, HostState, Incident as Object, IncidentClosure};
use failover::host::machine::EventKind;
use failover::incident::rules::{SILENT_CAUSES, STORM_CAUSE, fault_cause};
use failover::incident::{Entry, Incident};
use kube::ResourceExt;
use model::HostName;

use super::{State, now, openings, stored};
use crate::hosts::HostWatch;
use crate::runtime::Context;

/// Whether the root cause of an incident is gone, so that it closes by itself.
pub(super) fn cause_is_gone(incident: &Incident, hosts: &[Arc<Host>], watch: &HostWatch) -> bool {
    let ready = |host: &Host| state(host) == Some(HostState::Ready);
    if incident.cause == STORM_CAUSE {
        let silent = |host: &Host| watch.is_silent(&HostName(host.name_any()));
        return hosts.iter().all(|host| ready(host) && !silent(host));
    }
    // A host that was deleted can not fail any more.
    let Some(host) = own(incident, hosts) else {
        return true;
    };
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

/// Whether a person's word may close an incident: a host that was silent need not be in service again, and of
/// a storm one host may stay away, with an incident of its own.
fn may_close(context: &Context, incident: &Incident) -> bool {
    let vms = context.stores.vms.state();
    if let Some(gone) = openings::is_gone(context, incident, &vms) {
        return gone;
    }
    let hosts = context.stores.hosts.state();
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    let away = |host: &Host| is_away(host) || watch.is_silent(&HostName(host.name_any()));
    if incident.cause == STORM_CAUSE {
        return hosts.iter().filter(|host| away(host)).count() <= 1;
    }
    if incident.cause.starts_with(SILENT_CAUSES) {
        let stuck = |host: &Host| watch.is_stuck(&HostName(host.name_any()));
        return own(incident, &hosts).is_none_or(|host| !away(host) && !stuck(host));
    }
    cause_is_gone(incident, &hosts, &watch)
}

fn state(host: &Host) -> Option<HostState> {
    host.status.as_ref().and_then(|status| status.state)
}

/// Whether the API shows a host as silent or as dead.
fn is_away(host: &Host) -> bool {
    use HostState::{Fenced, Fencing, Suspect, Unreachable};
    matches!(state(host), Some(Suspect | Unreachable | Fencing | Fenced))
}

fn own<'a>(incident: &Incident, hosts: &'a [Arc<Host>]) -> Option<&'a Arc<Host>> {
    let name = incident.host.as_ref()?;
    hosts.iter().find(|host| host.name_any() == name.as_str())
}

/// A person's word that is taken, as an entry.
fn closed(closure: &IncidentClosure) -> Entry {
    let IncidentClosure { by, reason, .. } = closure;
    Entry {
        at: now(),
        kind: EventKind::Done,
        step: "closed".to_owned(),
        english: format!("closed by {by}: {reason}"),
        chinese: format!("{by} 关闭:{reason}"),
    }
}

/// The same while the cause stands.
fn not_closed(closure: &IncidentClosure) -> Entry {
    let IncidentClosure { by, reason, .. } = closure;
    Entry {
        at: now(),
        kind: EventKind::NotDone,
        step: INCIDENT_STEP_NOT_CLOSED.to_owned(),
        english: format!("is not closed before its cause is gone, though {by} said: {reason}"),
        chinese: format!("原因消除前不关闭;{by} 的关闭说明:{reason}"),
    }
}

impl State {
    /// Incidents that are over elsewhere, and what people said of those that stand.
    pub(super) fn take_closures(&mut self, context: &Context, stored: &[Arc<Object>]) {
        self.forget_closed(stored);
        self.take_words_that_close(stored, &|incident| may_close(context, incident));
    }

    /// One that another leader closed is over here too; its object is final.
    pub(super) fn forget_closed(&mut self, stored: &[Arc<Object>]) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let open = ledger.open().values();
        let over: Vec<String> = open
            .filter(|incident| stored::closed_elsewhere(stored, incident))
            .map(|incident| incident.cause.clone())
            .collect();
        for cause in over {
            ledger.forget(&cause);
            self.baselines.remove(&cause);
            self.begins.remove(&cause);
        }
    }

    pub(super) fn take_words_that_close(
        &mut self,
        stored: &[Arc<Object>],
        may_close: &dyn Fn(&Incident) -> bool,
    ) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let words: BTreeMap<String, &IncidentClosure> = stored
            .iter()
            .filter(|object| !stored::is_closed(object))
            .filter_map(|object| Some((object.name_any(), object.spec.closure.as_ref()?)))
            .collect();
        // A word is about its object: the cause may have come back since, with an incident of its own.
        let meant: Vec<_> = ledger
            .open()
            .values()
            .filter_map(|own| {
                let word = *words.get(&stored::object_name(own))?;
                Some((own.cause.clone(), word, may_close(own)))
            })
            .collect();
        let mut over = Vec::new();
        for (cause, word, may_close) in meant {
            if !may_close {
                ledger.tell(&cause, not_closed(word));
            } else if let Some(mut incident) = ledger.close(&cause, closed(word)) {
                incident.class = word.cause_class.map_or(incident.class, stored::class);
                self.baselines.remove(&cause);
                self.begins.remove(&cause);
                over.push(incident);
            }
        }
        over.into_iter().for_each(|incident| self.store(incident));
    }
}

#[cfg(test)]
mod tests {
    use failover::incident::{CauseClass, Ledger, WallTime};
    use serde_json::json;

    use super::*;

    fn fan(second: i64) -> State {
        let mut ledger = Ledger::default();
        let opening = failover::incident::Opening {
            cause: "hardware/h1/fan/1/Fan".to_owned(),
            class: CauseClass::Hardware,
            host: None,
            title: failover::Sentence {
                english: "h1: fan".to_owned(),
                chinese: "h1:风扇".to_owned(),
            },
        };
        ledger.open_incident(opening, WallTime(second * 1_000_000));
        State {
            ledger: Some(ledger),
            ..State::default()
        }
    }

    fn word() -> Arc<Object> {
        let word = serde_json::from_value(json!({
            "metadata": {"name": "hardware-h1-fan-1-fan-5"},
            "spec": {"cause": "hardware/h1/fan/1/Fan", "causeClass": "Hardware", "title": "t", "titleChinese": "t",
                "openedAt": "1970-01-01T00:00:05Z", "closure": {"by": "w", "reason": "r", "causeClass": "Planned"}}
        }));
        Arc::new(word.expect("an Incident"))
    }

    /// The cause came back after a person had closed its incident, and the cache shows that one as open still.
    #[test]
    fn a_persons_word_closes_the_incident_that_it_is_about_and_no_later_one_of_its_cause() {
        for (second, closes) in [(5, true), (65, false)] {
            let mut state = fan(second);
            state.take_words_that_close(&[word()], &|_| true);
            let ledger = state.ledger.expect("a ledger");
            assert_eq!(ledger.open().is_empty(), closes, "{second}");
        }
    }

    #[test]
    fn a_word_waits_until_the_cause_is_gone_and_its_class_counts_then() {
        let mut state = fan(5);
        for _ in 0..2 {
            state.take_words_that_close(&[word()], &|_| false);
        }
        let ledger = state.ledger.as_ref().expect("a ledger");
        let open = ledger.get("hardware/h1/fan/1/Fan").expect("open");
        let [told] = open.timeline.as_slice() else {
            panic!("{:?}", open.timeline);
        };
        assert_eq!(
            (told.kind, told.step.as_str()),
            (EventKind::NotDone, INCIDENT_STEP_NOT_CLOSED)
        );
        state.take_words_that_close(&[word()], &|_| true);
        assert!(state.ledger.as_ref().expect("a ledger").open().is_empty());
        let closed = &state.dirty["hardware-h1-fan-1-fan-5"];
        assert_eq!(closed.class, CauseClass::Planned);
        assert_eq!(closed.timeline.len(), 2);
    }
}
