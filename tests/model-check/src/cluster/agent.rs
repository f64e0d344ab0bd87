//! The agent's side of one VM: what `failover::agent::copy` decides, carried out in the steps
//! between which the agent can die.

use failover::agent::copy::{self, Action, ApiFacts, Facts};
use failover::agent::ledger::EpochState;
use failover::copy::CopyPhase;
use model::Epoch;

use super::{Cluster, Host, Report, State, Task};
use crate::mutation::Mutation;
use crate::words::{Slot, boot_id, host_name};

impl Cluster {
    pub(super) fn see(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let seen = Some((state.api.rights.assignment, state.api.rights.incoming));
        if !host.on || host.isolated || host.cache == seen {
            return None;
        }
        let mut next = *state;
        next.hosts[usize::from(index)].cache = seen;
        Some(next)
    }

    pub(super) fn agent(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        if !host.on {
            return None;
        }
        let mut next = *state;
        let me = &mut next.hosts[usize::from(index)];
        match host.task {
            Task::Idle => return self.converge(state, index),
            Task::Allowed(epoch, firings) => {
                let taken = me
                    .ledger
                    .change(|entry| entry.take(i64::from(epoch), u64::from(firings)));
                if taken || self.lacks(Mutation::ReuseEpoch) {
                    (me.pending, me.hung) = (Some((host.boot, epoch)), false);
                    me.task = Task::Starting(epoch);
                } else {
                    me.task = Task::Idle;
                }
            }
            Task::Starting(epoch) if host.pending == Some((host.boot, epoch)) => {
                if !host.hung || self.lacks(Mutation::NoStartDeadline) {
                    return None;
                }
                return Some(self.close(state, index, epoch));
            }
            Task::Starting(_) => me.task = Task::Idle,
            Task::Destroying(epoch) => {
                if host.domain.is_some_and(|domain| domain.epoch == epoch) {
                    me.domain = None;
                }
                me.task = Task::Idle;
                if self.lacks(Mutation::CloseWithoutLedger) {
                    self.report_closed(&mut next, index, epoch);
                }
            }
            Task::Sending | Task::Aborting | Task::Prepared | Task::Resumed => return None,
        }
        Some(next)
    }

    /// Writes `closed`; the domain is destroyed in the next step.
    pub(super) fn close(&self, state: &State, index: u8, epoch: u8) -> State {
        let mut next = *state;
        let me = &mut next.hosts[usize::from(index)];
        let closed = self.lacks(Mutation::CloseWithoutLedger)
            || me.ledger.change(|entry| entry.close(i64::from(epoch)));
        // What was handed over is not closed: the step is tried again and refused again.
        me.task = if closed {
            Task::Destroying(epoch)
        } else {
            Task::Idle
        };
        if self.lacks(Mutation::ReportBeforeDestroy) {
            self.report_closed(&mut next, index, epoch);
        }
        next
    }

    /// How often the guard has fired, as a start notes it and the hook compares it.
    pub(super) fn firings(&self, host: &Host) -> u8 {
        if self.lacks(Mutation::NoFiringCount) {
            0
        } else {
            host.firings
        }
    }

    fn report_closed(&self, next: &mut State, index: u8, epoch: u8) {
        let own = next.api.rights.assignment.filter(|own| {
            own.host == index && own.epoch == epoch && !next.hosts[usize::from(index)].isolated
        });
        if let Some(slot) = own {
            next.api.report = Some(Report {
                slot,
                phase: CopyPhase::Closed,
            });
        }
    }

    fn converge(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let mut next = *state;
        let acts = self.agent_acts(state, index);
        let me = &mut next.hosts[usize::from(index)];
        match self.decide_copy(state, index) {
            // No disk of the model fails, and no ledger is lost but by a mutation, which then asks nobody.
            Action::Nothing | Action::Resume(_) | Action::Forgotten(..) => return None,
            Action::Start(assignment) => {
                let slot = Slot::of(&assignment);
                let fresh = !host.isolated
                    && state.api.rights.assignment.is_some_and(|now| {
                        now == slot
                            || (self.lacks(Mutation::IgnoreBootId)
                                && (now.host, now.epoch) == (slot.host, slot.epoch))
                    });
                if !acts || !(fresh || self.lacks(Mutation::StartFromCache)) {
                    return None;
                }
                me.task = Task::Allowed(slot.epoch, self.firings(&host));
            }
            // Frozen: nothing that runs is stopped. What is gone may be closed.
            Action::Shutdown(_) | Action::CheckSuperseded(_) if !acts => return None,
            Action::Shutdown(assignment) | Action::Close(assignment, _) => {
                let slot = Slot::of(&assignment);
                if slot.boot != host.boot && self.lacks(Mutation::KeepOtherBoot) {
                    return None;
                }
                return Some(self.close(state, index, slot.epoch));
            }
            Action::CheckSuperseded(running) => {
                return self.check_superseded(state, index, Slot::of(&running));
            }
            Action::Report(assignment, phase, _) => {
                if host.isolated {
                    return None;
                }
                let slot = Slot::of(&assignment);
                next.api.report = Some(Report { slot, phase });
                if phase == CopyPhase::Running {
                    next.api.incoming_report = None;
                }
            }
        }
        Some(next)
    }

    /// Production's decision over what this agent knows.
    fn decide_copy(&self, state: &State, index: u8) -> Action {
        let host = state.hosts[usize::from(index)];
        let (name, boot) = (host_name(index), boot_id(index, host.boot));
        let mut ledger = host.ledger.entry();
        // Said to be closed, and then forgotten.
        let said = state
            .api
            .report
            .is_some_and(|report| report.slot.host == index && report.phase == CopyPhase::Closed);
        let forgets = self.lacks(Mutation::ReuseEpoch) || self.lacks(Mutation::CloseWithoutLedger);
        if said && self.lacks(Mutation::ReuseEpoch) {
            ledger
                .epochs
                .retain(|_, epoch| *epoch != EpochState::Closed);
        }
        let as_seen = |slot: Slot| {
            if slot.host == index && self.lacks(Mutation::IgnoreBootId) {
                Slot {
                    boot: host.boot,
                    ..slot
                }
            } else {
                slot
            }
        };
        // Its caches hold VMs that name this host.
        let concerned = |slot: Option<Slot>| slot.is_some_and(|slot| slot.host == index);
        let api = host
            .cache
            .filter(|(assignment, incoming)| concerned(*assignment) || concerned(*incoming))
            .map(|(assignment, incoming)| ApiFacts {
                assignment: assignment.map(|slot| as_seen(slot).assignment()),
                incoming: incoming
                    .filter(|_| !self.lacks(Mutation::StopIncoming))
                    .map(Slot::assignment),
                halt: state.api.halt && !host.isolated,
                reported: state
                    .api
                    .report
                    .filter(|report| (report.slot.host, report.slot.boot) == (index, host.boot))
                    // A mutation that forgets what it closed does not find it in what it said either.
                    .filter(|_| !(said && forgets))
                    .map(|report| (i64::from(report.slot.epoch), report.phase)),
                reported_incoming: None,
            });
        let domain = host.domain.filter(|domain| {
            !(self.lacks(Mutation::KeepClosedDomain)
                && host.ledger.state(domain.epoch) == Some(EpochState::Closed))
        });
        copy::decide(&Facts {
            host: &name,
            boot_id: &boot,
            api,
            ledger: &ledger,
            domain: domain.map(|domain| copy::Domain {
                boot_id: boot_id(index, domain.boot),
                epoch: Epoch(i64::from(domain.epoch)),
                ending: false,
                stalled: false,
            }),
            moving_out: false,
            shut_down_inside: false,
        })
    }

    /// A fresh read; without an answer everything is kept.
    fn check_superseded(&self, state: &State, index: u8, running: Slot) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let rights = state.api.rights;
        if host.isolated {
            return self
                .lacks(Mutation::UnreachableDestroys)
                .then(|| self.close(state, index, running.epoch));
        }
        let own = rights.assignment == Some(running) || rights.incoming == Some(running);
        let higher = rights
            .assignment
            .is_some_and(|other| other.epoch > running.epoch);
        let superseded = if self.lacks(Mutation::StopIncoming) {
            rights.assignment != Some(running)
        } else {
            !own && higher && !self.lacks(Mutation::KeepSuperseded)
        };
        superseded.then(|| self.close(state, index, running.epoch))
    }
}
