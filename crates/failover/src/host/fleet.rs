//! All hosts of a site in one step: each host's machine under the storm guard's permit,
//! with the observer's own pauses taken into account. This is what the operator runs.

use std::collections::{BTreeMap, BTreeSet};

use model::{BootId, HostName};

use super::machine::{FencePermit, HostAction, HostEvent, HostFacts, HostMachine, HostView, Life};
use crate::policy::Policy;
use crate::proof::HostStopProof;
use crate::reason::Reason;
use crate::storm::{StormFacts, StormGuard, StormState};
use crate::time::Moment;
use crate::vm::HostSight;

/// The observer's own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserverFacts {
    /// It can write to the API server.
    pub can_write: bool,
    /// The API server answered it lately: hosts whose Leases do not change may be silent. While it
    /// does not, nobody's Lease can change.
    pub hears: bool,
    /// A person disarmed failover.
    pub disarmed: bool,
    /// The API went back; nothing is forced off before a person has rebased the site.
    pub frozen: bool,
}

/// The state of all hosts.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    machines: BTreeMap<HostName, HostMachine>,
    guard: StormGuard,
    last_step: Option<Moment>,
    was_held: bool,
    could_write: bool,
}

/// The result of one step.
#[derive(Debug, Default)]
#[must_use]
pub struct FleetStep {
    /// What to do, host by host.
    pub actions: Vec<(HostName, HostAction)>,
    /// What to tell.
    pub events: Vec<HostEvent>,
    /// A storm began: one alert for all.
    pub storm_began: bool,
    /// The observer was paused for so many milliseconds and began its windows anew.
    pub paused_milliseconds: Option<u64>,
}

impl Hosts {
    /// One step over every host. Hosts without facts are forgotten.
    pub fn step(
        &mut self,
        facts: &BTreeMap<HostName, HostFacts>,
        observer: ObserverFacts,
        policy: &Policy,
        now: Moment,
    ) -> FleetStep {
        let mut out = FleetStep::default();
        self.machines.retain(|host, _| facts.contains_key(host));
        let gap = self.last_step.map_or(0, |last| now.since(last));
        if gap > policy.observer_gap_milliseconds {
            out.paused_milliseconds = Some(gap);
        }
        // An observer that heard nothing knows nothing: as after a pause of its own.
        let held = observer.disarmed || observer.frozen || !observer.hears;
        let rearmed = self.was_held && !held;
        if out.paused_milliseconds.is_some() || rearmed {
            self.machines
                .values_mut()
                .for_each(|machine| machine.restart_windows(now));
        }
        if observer.can_write && !self.could_write {
            // What was told while nobody listened may be lost.
            let machines = self.machines.values_mut();
            machines.for_each(HostMachine::tell_anew);
        }
        (self.last_step, self.was_held) = (Some(now), held);
        self.could_write = observer.can_write;
        // What a host that is proven dead last said does not count.
        let dead = |host: &HostName| {
            let machine = self.machines.get(host);
            machine.is_some_and(|machine| machine.life() == Life::Fenced)
        };
        let stuck = facts
            .iter()
            .filter(|(host, facts)| facts.close_stuck > 0 && !dead(host))
            .count();
        for (host, facts) in facts {
            let machine = self
                .machines
                .entry(host.clone())
                .or_insert_with(|| HostMachine::new(host.clone(), now));
            let before = machine.life();
            let mut permit = self.guard.permit(host);
            if facts.close_stuck > 0 && stuck > 1 && !machine.is_silent() {
                let hosts = u32::try_from(stuck).unwrap_or(u32::MAX);
                permit = FencePermit::Refused(Reason::StuckTogether { hosts });
            }
            machine.hear_of_lies(facts.bmc_told_lying, observer.can_write);
            let step = machine.step(facts, &permit, policy, now);
            out.actions.extend(
                step.actions
                    .into_iter()
                    .map(|action| (host.clone(), action)),
            );
            out.events.extend(step.events);
            // A first silence must be counted before anybody may be forced off because of it;
            // no host goes from Ready to forced off within one step, so the next step sees it.
            // One that can not end a copy is forced off without any silence.
            let by_silence = facts.close_stuck == 0;
            debug_assert!(!by_silence || before != Life::Ready || machine.life() != Life::Fencing);
        }
        // Signs that come after a time in which nobody was heard, or after the API went back, were given at any time.
        let heard =
            |machine: &HostMachine| matches!(machine.life(), Life::Ready | Life::Recovering);
        if observer.frozen || !self.machines.values().any(heard) {
            self.machines
                .values_mut()
                .for_each(HostMachine::signs_are_old);
        }
        out.storm_began = self.guard.observe(&self.storm_facts(observer), policy, now);
        out
    }

    fn storm_facts(&self, observer: ObserverFacts) -> StormFacts {
        let named = |wanted: &dyn Fn(&HostMachine) -> bool| -> BTreeSet<HostName> {
            self.machines
                .iter()
                .filter(|(_, machine)| wanted(machine))
                .map(|(host, _)| host.clone())
                .collect()
        };
        let counted = self
            .machines
            .values()
            .filter(|m| !matches!(m.life(), Life::Fenced | Life::NotRegistered))
            .count();
        StormFacts {
            silent: named(&HostMachine::is_silent),
            counted: u32::try_from(counted).unwrap_or(u32::MAX),
            known_down: named(&|machine| machine.life() == Life::Fenced),
            fencing: named(&|machine| machine.life() == Life::Fencing),
            wants: named(&HostMachine::wants_off),
            can_write: observer.can_write,
            disarmed: observer.disarmed,
            frozen: observer.frozen,
        }
    }

    /// State of the storm guard.
    pub fn storm(&self) -> &StormState {
        self.guard.state()
    }

    /// One host's machine.
    pub fn machine(&self, host: &HostName) -> Option<&HostMachine> {
        self.machines.get(host)
    }

    /// What others may know about one host.
    pub fn view(
        &self,
        host: &HostName,
        facts: &HostFacts,
        policy: &Policy,
        now: Moment,
    ) -> Option<HostView> {
        self.machines
            .get(host)
            .map(|machine| machine.view(facts, policy, now))
    }

    /// The proof that one incarnation of a host is dead, if there is one.
    pub fn stop_proof(
        &self,
        host: &HostName,
        boot_id: &BootId,
        facts: &HostFacts,
    ) -> Option<HostStopProof> {
        self.machines.get(host)?.stop_proof(boot_id, facts)
    }

    /// What the deciders of VMs and migrations need about the host of one assignment.
    pub fn sight(&self, host: &HostName, boot_id: &BootId, facts: Option<&HostFacts>) -> HostSight {
        let (Some(machine), Some(facts)) = (self.machines.get(host), facts) else {
            return HostSight {
                silent: true,
                lost: true,
                ..HostSight::default()
            };
        };
        let life = machine.life();
        let lost = machine.is_lost() || life == Life::NotRegistered;
        // An incarnation that is not the registered one can not run; until its proof stands,
        // nobody knows.
        let former = facts
            .identity
            .as_ref()
            .is_none_or(|identity| identity.boot_id != *boot_id);
        HostSight {
            stop_proof: machine.stop_proof(boot_id, facts),
            silent: lost || life == Life::Suspect || former,
            lost: lost || former,
            // A host that lives says itself what became of its copies.
            cuts: if lost {
                facts.storage.cuts.clone()
            } else {
                Vec::new()
            },
        }
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
