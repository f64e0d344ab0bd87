//! Which hosts are emptied: why, whether their turn has come, and what is known of it from before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use api::{Evacuation, Host, MigrationReason};
use failover::{Moment, Policy};
use kube::ResourceExt;
use model::{HostName, Severity};

use super::Evacuations;
use crate::runtime::Context;

/// Why a host is to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Maintenance,
    Fault(Severity),
}

pub(super) fn why(context: &Context, host: &Host) -> Option<Why> {
    let maintained = host
        .spec
        .maintenance
        .as_ref()
        .is_some_and(|maintenance| maintenance.evacuate);
    if maintained {
        return Some(Why::Maintenance);
    }
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    watch.worst(&HostName(host.name_any())).map(Why::Fault)
}

impl Why {
    pub(super) fn reason(self) -> MigrationReason {
        match self {
            Why::Maintenance => MigrationReason::Maintenance,
            Why::Fault(_) => MigrationReason::HardwareFault,
        }
    }
}

pub(super) fn standing(host: &Host) -> Option<&Evacuation> {
    host.status.as_ref()?.evacuation.as_ref()
}

/// It was permitted and has not ended. One that waits for its turn is not under way: it would give itself
/// its permit.
pub(super) fn under_way(host: &Host) -> bool {
    standing(host)
        .is_some_and(|evacuation| evacuation.phase == "Running" || evacuation.phase == "Blocked")
}

/// When a host was last begun to be emptied because of a fault.
fn begun(host: &Host) -> Option<jiff::Timestamp> {
    let evacuation = standing(host)?;
    let of_fault = evacuation.reason == Some(MigrationReason::HardwareFault);
    Some(evacuation.started_at.as_ref().filter(|_| of_fault)?.0)
}

/// Whether a person declared the faults of a host as dealt with since it was last begun to be emptied:
/// the next fault is a new story. A fault that only went away by itself is none.
pub(super) fn is_cleared(host: &Host) -> bool {
    let clearance = host.spec.fault_clearance.as_ref();
    begun(host).is_none_or(|begun| clearance.is_some_and(|clearance| clearance.at.0 > begun))
}

/// Takes from the API what this operator has not seen begin, so that a new leader keeps to the bound
/// too. `startedAt` is a leader's wall clock; one that runs ahead of this one's bounds as if just begun.
pub(super) fn recall(
    memory: &mut Evacuations,
    wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
    now: Moment,
    wall: jiff::Timestamp,
) {
    for (name, (host, _)) in wanted {
        let Some(begun) = begun(host).filter(|_| !is_cleared(host)) else {
            continue;
        };
        let since = wall.duration_since(begun).as_millis();
        let since = u64::try_from(since.max(0)).unwrap_or(u64::MAX);
        let begun = Moment(now.0.saturating_sub(since));
        memory.ledger.recall(name.clone(), begun);
    }
}

/// Which hosts are emptied now, and why others wait. A person's drain always goes; of faulty hosts
/// only so many at once.
pub(super) fn permit(
    memory: &mut Evacuations,
    wanted: &BTreeMap<HostName, (Arc<Host>, Why)>,
    policy: &Policy,
    now: Moment,
) -> (BTreeSet<HostName>, BTreeMap<HostName, String>) {
    // One that is blocked or held moves nobody, and holds up no other.
    let moves = |name: &HostName, host: &Host| match standing(host).map(|known| &*known.phase) {
        Some("Running") => true,
        Some("Blocked" | "Done") => false,
        _ => memory.begun.contains(name),
    };
    let mut running: BTreeSet<HostName> = wanted
        .iter()
        .filter(|(name, (host, _))| moves(name, host))
        .map(|(name, _)| name.clone())
        .collect();
    let (mut permitted, mut waiting) = (BTreeSet::new(), BTreeMap::new());
    // The worst first.
    let mut order: Vec<_> = wanted.iter().collect();
    order.sort_by_key(|(name, (_, why))| {
        let rank = match why {
            Why::Fault(Severity::Critical) => 0,
            Why::Maintenance => 1,
            Why::Fault(_) => 2,
        };
        (rank, (*name).clone())
    });
    for (name, (host, why)) in order {
        let done = standing(host).is_some_and(|evacuation| evacuation.phase == "Done");
        let goes_on = under_way(host) || memory.begun.contains(name);
        let answer = match why {
            Why::Maintenance => Ok(()),
            // What is empty stays so: a VM that came back would be no new evacuation.
            Why::Fault(_) if done || goes_on => Ok(()),
            Why::Fault(_) => memory.ledger.permit(name, &running, policy, now),
        };
        match answer {
            Ok(()) => {
                if !goes_on && !done {
                    memory.begun.insert(name.clone());
                    if *why != Why::Maintenance {
                        memory.ledger.begin(name.clone(), now);
                    }
                    running.insert(name.clone());
                }
                permitted.insert(name.clone());
            }
            Err(reason) => drop(waiting.insert(name.clone(), reason.english())),
        }
    }
    (permitted, waiting)
}

#[cfg(test)]
#[path = "permit_tests.rs"]
mod tests;
