//! Whether a condition of a drill holds: what was before and what is now in, the answer out.

use std::collections::BTreeMap;

use api::{Host, RuntimePhase, VirtualMachine, VirtualMachinePhase};
use kube::ResourceExt;

use super::definition::Condition;
use crate::client::{Site, full_name_of};

/// Where VMs stood: host and epoch, by namespace and name.
type Standing = BTreeMap<String, (String, i64)>;

/// The site when the drill began.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The host of the drill.
    pub host: String,
    /// All VMs.
    pub standing: Standing,
    /// When it began; Incidents opened from then on count.
    pub at: jiff::Timestamp,
}

impl Before {
    /// Takes note of a site.
    pub fn of(site: &Site, host: &str, at: jiff::Timestamp) -> Self {
        Self {
            host: host.to_owned(),
            standing: standing(site),
            at,
        }
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
    let since = site
        .incidents
        .iter()
        // The API keeps whole seconds.
        .filter(|incident| incident.spec.opened_at.0.as_second() >= before.at.as_second());
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
        Condition::NoIncident => !since
            .into_iter()
            .any(|incident| incident.spec.host.as_deref() == Some(&before.host)),
        Condition::IncidentsClosed => since.into_iter().all(|incident| {
            incident
                .status
                .as_ref()
                .is_some_and(|status| status.state == "Closed")
        }),
        Condition::SystemsReady => systems_ready(site),
        Condition::SystemsDisturbed => !systems_ready(site),
        Condition::AllWell => all_well(site),
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
