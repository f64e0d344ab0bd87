//! Whether a condition of a drill holds: what was before and what is now in, the answer out.

use std::collections::{BTreeMap, BTreeSet};

use api::{Host, Incident, RuntimePhase, VirtualMachine, VirtualMachinePhase};
use kube::ResourceExt;

use super::definition::Condition;
use crate::client::{Site, full_name_of, name_of};

/// Where VMs stood: host and epoch, by namespace and name.
type Standing = BTreeMap<String, (String, i64)>;

/// The site when the drill began.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The host of the drill.
    pub host: String,
    /// All VMs.
    pub standing: Standing,
    /// Incidents that stood already, by name: the operator's clock, which they are dated by, may be another than
    /// this machine's.
    incidents: BTreeSet<String>,
}

impl Before {
    /// Takes note of a site.
    pub fn of(site: &Site, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            standing: standing(site),
            incidents: site.incidents.iter().map(name_of).collect(),
        }
    }

    /// Incidents that were opened since.
    pub fn opened<'a>(&'a self, site: &'a Site) -> impl Iterator<Item = &'a Incident> {
        let incidents = site.incidents.iter();
        incidents.filter(|incident| !self.incidents.contains(&name_of(*incident)))
    }

    /// VMs that stood on the host.
    fn own<'a>(&'a self, site: &'a Site) -> impl Iterator<Item = &'a VirtualMachine> {
        site.vms.iter().filter(|vm| {
            self.standing
                .get(&full_name_of(*vm))
                .is_some_and(|(host, _)| *host == self.host)
        })
    }

    fn is_new(&self, vm: &VirtualMachine) -> bool {
        let before = self
            .standing
            .get(&full_name_of(vm))
            .map_or(0, |(_, epoch)| *epoch);
        epoch(vm) > before
    }
}

fn epoch(vm: &VirtualMachine) -> i64 {
    let status = vm.status.as_ref();
    status
        .and_then(|status| status.assignment.as_ref())
        .map_or(0, |right| right.epoch.0)
}

fn standing(site: &Site) -> Standing {
    site.vms
        .iter()
        .filter_map(|vm| {
            let right = vm.status.as_ref()?.assignment.as_ref()?;
            Some((full_name_of(vm), (right.host.to_string(), right.epoch.0)))
        })
        .collect()
}

fn runs_anew(vm: &VirtualMachine) -> bool {
    vm.status.as_ref().is_some_and(|status| {
        status.runtime.as_ref().is_some_and(|runtime| {
            runtime.phase == RuntimePhase::Running
                && Some(&runtime.assignment) == status.assignment.as_ref()
        })
    })
}

fn state(host: &Host) -> String {
    let state = host.status.as_ref().and_then(|status| status.state);
    state.map(|state| format!("{state:?}")).unwrap_or_default()
}

fn phase(vm: &VirtualMachine) -> Option<VirtualMachinePhase> {
    vm.status.as_ref().and_then(|status| status.phase)
}

fn all_well(site: &Site) -> bool {
    site.hosts.iter().all(|host| state(host) == "Ready")
        && site
            .vms
            .iter()
            .all(|vm| phase(vm) == Some(VirtualMachinePhase::Running))
        && systems_ready(site)
}

fn systems_ready(site: &Site) -> bool {
    site.systems.iter().all(|system| {
        system
            .status
            .as_ref()
            .is_some_and(|status| status.state == "Ready")
    })
}

/// Whether it is so.
pub fn holds(condition: &Condition, before: &Before, site: &Site) -> bool {
    let Some(host) = site
        .hosts
        .iter()
        .find(|host| host.name_any() == before.host)
    else {
        return false;
    };
    let status = host.status.clone().unwrap_or_default();
    let mut since = before.opened(site);
    match condition {
        Condition::HostState { states } => states.contains(&state(host)),
        Condition::HostStateNot { states } => !states.contains(&state(host)),
        Condition::ReasonSays { text } => status
            .state_reason
            .is_some_and(|reason| reason.contains(text)),
        Condition::HostSays {
            name,
            status: wanted,
        } => status
            .conditions
            .iter()
            .any(|known| known.type_ == *name && known.status == *wanted),
        Condition::FaultReported { component } => status.reported.is_some_and(|reported| {
            reported
                .faults
                .iter()
                .any(|fault| fault.component.starts_with(component))
        }),
        Condition::AssignedAnew => before.own(site).any(|vm| before.is_new(vm)),
        Condition::StartedAnew => before
            .own(site)
            .any(|vm| before.is_new(vm) && runs_anew(vm)),
        Condition::Empty => before.own(site).all(|vm| {
            let right = vm
                .status
                .as_ref()
                .and_then(|status| status.assignment.as_ref());
            right.is_some_and(|right| right.host.as_str() != before.host)
        }),
        Condition::NothingMoves => before.own(site).all(|vm| {
            vm.status
                .as_ref()
                .is_some_and(|status| status.incoming.is_none())
        }),
        Condition::Unchanged => standing(site) == before.standing,
        Condition::Phase { phase: wanted } => before
            .own(site)
            .all(|vm| phase(vm).is_some_and(|phase| format!("{phase:?}") == *wanted)),
        Condition::Incident { cause } => since
            .filter(|incident| incident.spec.cause.starts_with(cause.as_str()))
            .any(|incident| incident.spec.host.as_deref() == Some(&before.host)),
        Condition::NoIncident => {
            !since.any(|incident| incident.spec.host.as_deref() == Some(&before.host))
        }
        Condition::IncidentsClosed => since.all(Incident::is_closed),
        Condition::SystemsReady => systems_ready(site),
        Condition::SystemsDisturbed => !systems_ready(site),
        Condition::AllWell => all_well(site),
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
