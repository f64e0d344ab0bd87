//! When an incident is over: by itself, once its cause is gone and all that it affected answers, or on a
//! person's word, once its cause is gone. Closed sooner, what follows of its cause would be an incident of
//! its own, or be told by none, and the downtime that is left would be nobody's.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use api::names::INCIDENT_STEP_NOT_CLOSED;
use api::{Host, HostState, Incident as Object, IncidentClosure, VirtualMachine};
use failover::host::machine::EventKind;
use failover::incident::causes::PLANNED_CAUSES;
use failover::incident::rules::{SILENT_CAUSES, STORM_CAUSE, fault_cause, silent_cause};
use failover::incident::{Entry, Incident};
use failover::severity::{FaultKey, StandingFault};
use kube::ResourceExt;
use model::{HostName, Severity};

use super::{State, now, openings, stalls, stored};
use crate::hosts::HostWatch;
use crate::runtime::Context;

/// A standing fault of this severity or a higher one is an incident.
pub(super) const FAULT_OF_AN_INCIDENT: Severity = Severity::Degraded;

/// What people said, by the names of the objects.
pub(super) type Words = BTreeMap<String, IncidentClosure>;

/// Whether the root cause of an incident is gone, so that it closes by itself.
pub(super) fn cause_is_gone(incident: &Incident, hosts: &[Arc<Host>], watch: &HostWatch) -> bool {
    // What the API shows may be older than what this operator sees.
    let is_well = |host: &&Arc<Host>| {
        state(host) == Some(HostState::Ready) && !watch.is_silent(&name_of(host))
    };
    if incident.cause == STORM_CAUSE {
        // As long as one is told it would be opened again.
        return watch.told_storm().is_none()
            && in_storm(incident, hosts).all(|host| is_well(&host));
    }
    // A host that was deleted can not fail any more.
    let Some(host) = own(incident, hosts) else {
        return true;
    };
    if incident.cause.starts_with(SILENT_CAUSES) {
        return is_well(&host) && !watch.is_stuck(&name_of(host));
    }
    let counts = |fault: &StandingFault| fault.severity >= FAULT_OF_AN_INCIDENT;
    let own_cause = |((component, kind), _): &(FaultKey, StandingFault)| {
        fault_cause(&name_of(host), component, *kind) == incident.cause
    };
    let faults = watch.faults(&name_of(host));
    !faults.iter().any(|one| counts(&one.1) && own_cause(one))
        && !stalls::stands(&incident.cause, host)
}

/// Whether a person's word may close an incident: by now, nothing that follows of its cause is to be told. A host that was
/// silent lives, though it need not be in service, and no VM waits to be started anew.
pub(super) fn may_close(context: &Context, incident: &Incident) -> bool {
    let (hosts, vms) = (context.stores.hosts.state(), context.stores.vms.state());
    let of_guests = openings::is_gone(context, incident, &vms);
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    let lives = |host: &Arc<Host>| {
        let name = name_of(host);
        !is_away(host) && !watch.is_silent(&name) && !watch.is_stuck(&name)
    };
    let cause = incident.cause.as_str();
    if cause.starts_with(PLANNED_CAUSES) {
        // It is opened as long as a system does not answer while people work.
        let works = |host: &Arc<Host>| host.spec.maintenance.is_some();
        return !own(incident, &hosts).is_some_and(works);
    }
    if let Some(gone) = of_guests {
        return gone;
    }
    if cause == STORM_CAUSE {
        return watch.told_storm().is_none() && in_storm(incident, &hosts).all(lives);
    }
    if cause.starts_with(SILENT_CAUSES) {
        let over = |host: &Arc<Host>| lives(host) && !vms.iter().any(|vm| is_left(vm, host, cause));
        return own(incident, &hosts).is_none_or(over);
    }
    cause_is_gone(incident, &hosts, &watch)
}

/// Whether a VM has a right to run under the boot that was silent, which is over: it is started anew.
fn is_left(vm: &VirtualMachine, host: &Host, cause: &str) -> bool {
    let status = host.status.as_ref();
    let present = status.and_then(|status| {
        let reported = status.reported.as_ref().map(|report| &report.incarnation);
        status.accepted.as_ref().or(reported)
    });
    let right = vm
        .status
        .as_ref()
        .and_then(|status| status.assignment.as_ref());
    right.is_some_and(|right| {
        silent_cause(&right.host, &right.boot_id) == cause
            && present.is_none_or(|present| *present.boot_id != *right.boot_id.0)
    })
}

fn name_of(host: &Host) -> HostName {
    HostName(host.name_any())
}

fn state(host: &Host) -> Option<HostState> {
    host.status.as_ref().and_then(|status| status.state)
}

/// Whether the API shows a host as silent, as dead, or as on its way back.
fn is_away(host: &Host) -> bool {
    use HostState::{Fenced, Fencing, Recovering, Suspect, Unreachable};
    matches!(
        state(host),
        Some(Suspect | Unreachable | Fencing | Fenced | Recovering)
    )
}

fn own<'a>(incident: &Incident, hosts: &'a [Arc<Host>]) -> Option<&'a Arc<Host>> {
    let name = incident.host.as_ref()?;
    hosts.iter().find(|host| host.name_any() == name.as_str())
}

/// Hosts that a storm tells of. All, where some of its steps were left out or none is named.
fn in_storm<'a>(
    storm: &'a Incident,
    hosts: &'a [Arc<Host>],
) -> impl Iterator<Item = &'a Arc<Host>> {
    let is_named = |host: &Arc<Host>| storm.tells_of(&name_of(host));
    let all = storm.dropped > 0 || !hosts.iter().any(is_named);
    hosts.iter().filter(move |host| all || is_named(host))
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

/// What people said of incidents that stand, by the names of their objects: the cause may have come back since, with an
/// incident of its own.
pub(super) fn words(stored: &[Arc<Object>]) -> Words {
    stored
        .iter()
        .filter(|object| !object.is_closed())
        .filter_map(|object| Some((object.name_any(), object.spec.closure.clone()?)))
        .collect()
}

/// An incident closes by itself of which a person has spoken.
pub(super) fn close_with_word(incident: &mut Incident, words: &Words) {
    if let Some(word) = words.get(&stored::object_name(incident)) {
        incident.add(closed(word));
        take_class(incident, word);
    }
}

/// The class that a person found, if they named one, becomes the record's.
fn take_class(incident: &mut Incident, word: &IncidentClosure) {
    incident.class = word.cause_class.map_or(incident.class, stored::class);
}

impl State {
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

    /// Closes what people spoke of, where it may be closed.
    pub(super) fn take_words_that_close(
        &mut self,
        words: &Words,
        may_close: &dyn Fn(&Incident) -> bool,
    ) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let open = ledger.open().values();
        let meant: Vec<(Incident, &IncidentClosure)> = open
            .filter_map(|own| Some((own.clone(), words.get(&stored::object_name(own))?)))
            .collect();
        let mut over = Vec::new();
        for (own, word) in meant {
            let cause = &own.cause;
            if may_close(&own) {
                let mut ended = ledger.close(cause, closed(word));
                ended.iter_mut().for_each(|ended| take_class(ended, word));
                over.extend(ended);
                self.baselines.remove(cause);
                self.begins.remove(cause);
            } else if own.dropped == 0 {
                // Of a full timeline each try would count as an entry that was left out.
                ledger.tell(cause, not_closed(word));
            }
        }
        over.into_iter().for_each(|incident| self.store(incident));
    }
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod tests;
