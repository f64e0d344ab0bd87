//! A guard that fences its own host, against an observer on another host that may hang: may
//! `SelfFenceWitness` ever conclude while something on the host still runs?
//!
//! One step is two seconds: the interval of the Lease and of the storage heartbeat. The guard
//! counts from *sending* the last renewal that was acknowledged; acknowledgements come late.
//! When the contract has passed without Lease and without heartbeat it counts a firing, kills,
//! and feeds the watchdog no more until all is gone; a kill may hang. A guard that hangs
//! itself feeds nothing, and the watchdog resets the host. It may be restarted, and keeps its
//! memory. The observer's reports may come late. Guard, observer and conclusion are production.

mod properties;

use std::collections::BTreeSet;

use failover::guard::GuardMemory;
use failover::guard::heartbeats::{HeartbeatReport, Heartbeats};
use failover::guard::observer::{PoolWatch, Round};
use failover::proof::self_fence::{GuardRegistration, LastLook, SelfFenceError, self_fenced};
use failover::{Moment, Policy};
use model::{BootId, HostName};
use stateright::{Model, Property};

use crate::words::{boot_id, host_name};

/// Seconds of one step.
const STEP: u64 = 2;
/// Contract, watchdog and margin, in steps. Short, so that the horizon is; without a margin,
/// which is for what takes less than a step.
const CONTRACT: u8 = 3;
const WATCHDOG: u8 = 2;
const MARGIN: u8 = 0;
/// How far the observer's clock is ahead of the operator's, milliseconds.
const OBSERVER_CLOCK: u64 = 86_400_000;

/// A rule that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The guard counts from the arrival of an acknowledgement.
    CountsFromArrival,
    /// The guard begins anew when it is restarted.
    ForgetsOnRestart,
    /// The watchdog is fed by a timer, whatever the guard does.
    FedByTimer,
    /// The watchdog is fed although something is left after the kill.
    FedWhileKilling,
    /// The guard kills on the loss of the Lease alone.
    KillsWithHeartbeat,
    /// An observer that can not write its own heartbeat counts.
    ObserverUnproven,
    /// The window does not begin at the last change of the Lease.
    LeaseOverlooked,
    /// The Lease is not read again at the end.
    LastReadOverlooked,
    /// An answer to a probe is no veto.
    AnswerOverlooked,
    /// The watchdog's time is left out of the window.
    WatchdogOverlooked,
    /// A report counts up to its arrival, not up to the observer's last look.
    CountsToArrival,
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Fence {
    /// Steps that are walked.
    pub steps: u8,
    /// What may go wrong.
    pub faults: Faults,
    /// A VM on the host answers probes as long as it runs.
    pub probes: bool,
    /// Rules that are removed.
    pub removed: &'static [Removed],
}

/// What may go wrong, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Changes of the way to the API server: cut, or back.
    pub network: u8,
    /// Changes of the way to the heartbeat's pool.
    pub storage: u8,
    /// Acknowledgements that come two steps late.
    pub late: u8,
    /// The guard hangs.
    pub guard_hangs: u8,
    /// The guard is restarted.
    pub guard_restarts: u8,
    /// The kill hangs.
    pub kill_hangs: u8,
    /// Steps in which the observer's storage hangs: it reads what it read before.
    pub observer_hangs: u8,
    /// The operator's watch of the Lease stalls.
    pub watch_stalls: u8,
    /// Steps whose report comes with a later one.
    pub late_reports: u8,
}

/// What happens in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing out of the ordinary.
    None,
    /// The way to the API server is cut, or back.
    Network,
    /// The way to the pool is cut, or back.
    Storage,
    /// The acknowledgement of this step's renewal comes two steps later.
    Late,
    /// The guard hangs.
    GuardHangs,
    /// The guard is restarted.
    GuardRestarts,
    /// The kill that is due hangs.
    KillHangs,
    /// The observer's storage hangs.
    ObserverHangs,
    /// The operator's watch of the Lease stalls.
    WatchStalls,
    /// The observer's report of this step comes with a later one.
    ReportLate,
}

const EVENTS: [Event; 10] = [
    Event::None,
    Event::Network,
    Event::Storage,
    Event::Late,
    Event::GuardHangs,
    Event::GuardRestarts,
    Event::KillHangs,
    Event::ObserverHangs,
    Event::WatchStalls,
    Event::ReportLate,
];

/// One look of the observer: step, heartbeat seen, own heartbeat written.
type Look = (u8, u8, bool);

/// Everything at the end of one step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    step: u8,
    network: bool,
    storage: bool,
    alive: bool,
    runs: bool,
    hung: bool,
    killing: bool,
    fired: bool,
    /// Step of sending the last renewal that was acknowledged; of the last heartbeat.
    acknowledged: u8,
    beaten: u8,
    late: Option<u8>,
    fed: u8,
    beat: u8,
    lease: (u8, u8),
    lease_seen: (u8, u8),
    watch: bool,
    feeds: bool,
    looks: Vec<Look>,
    /// The looks that the operator was told of.
    reported: Vec<Look>,
    answered: Option<u8>,
    left: Faults,
    needless: bool,
}

impl Fence {
    fn lacks(&self, rule: Removed) -> bool {
        self.removed.contains(&rule)
    }

    fn pass(&self, before: &State, event: Event) -> Option<State> {
        let mut next = before.clone();
        next.step += 1;
        let left = &mut next.left;
        let budget = match event {
            Event::None => None,
            Event::Network => Some(&mut left.network),
            Event::Storage => Some(&mut left.storage),
            Event::Late => Some(&mut left.late),
            Event::GuardHangs => Some(&mut left.guard_hangs),
            Event::GuardRestarts => Some(&mut left.guard_restarts),
            Event::KillHangs => Some(&mut left.kill_hangs),
            Event::ObserverHangs => Some(&mut left.observer_hangs),
            Event::WatchStalls => Some(&mut left.watch_stalls),
            Event::ReportLate => Some(&mut left.late_reports),
        };
        if let Some(budget) = budget {
            *budget = budget.checked_sub(1)?;
        }
        match event {
            Event::Network => next.network = !next.network,
            Event::Storage => next.storage = !next.storage,
            Event::GuardHangs => next.hung = true,
            Event::WatchStalls => next.watch = false,
            Event::GuardRestarts if self.lacks(Removed::ForgetsOnRestart) => {
                (next.acknowledged, next.beaten) = (next.step, next.step);
            }
            _ => {}
        }
        if next.alive {
            self.guard(&mut next, event);
            self.watchdog(&mut next);
        }
        // Probes take the VM's own network.
        if next.alive && next.runs && self.probes {
            next.answered = Some(next.step);
        }
        if next.watch {
            next.lease_seen = next.lease;
        }
        self.observe(&mut next, event);
        if event != Event::ReportLate {
            next.reported.clone_from(&next.looks);
        }
        Some(next)
    }

    fn guard(&self, next: &mut State, event: Event) {
        if let Some(sent) = next.late.filter(|sent| next.step >= *sent + 2)
            && !next.hung
        {
            next.late = None;
            let counted = if self.lacks(Removed::CountsFromArrival) {
                next.step
            } else {
                sent
            };
            next.acknowledged = next.acknowledged.max(counted);
        }
        if next.hung {
            return;
        }
        if next.network {
            next.lease = (next.lease.0 + 1, next.step);
            if event == Event::Late {
                next.late = Some(next.step);
            } else {
                next.acknowledged = next.step;
            }
        }
        if next.storage {
            (next.beat, next.beaten) = (next.beat + 1, next.step);
        }
        let mut memory = self.memory(next);
        let step = memory.step(at(next.step));
        let lease_lost = next.step - next.acknowledged >= CONTRACT;
        let kills = step.kill || (lease_lost && self.lacks(Removed::KillsWithHeartbeat));
        if kills && next.runs {
            next.fired = true;
            next.needless |= next.step - next.beaten < CONTRACT;
            next.killing = event == Event::KillHangs || next.killing;
            memory.killed(next.killing);
            next.runs = next.killing;
        }
        next.feeds = memory.may_feed();
    }

    /// Production's memory of the guard, as the state has it.
    fn memory(&self, state: &State) -> GuardMemory {
        let mut memory = GuardMemory::default();
        memory.acknowledged(at(state.acknowledged), &registration(WATCHDOG));
        memory.beaten("pool", at(state.beaten));
        (memory.killing, memory.lapsed) = (state.killing, state.fired);
        memory
    }

    fn watchdog(&self, next: &mut State) {
        let feeds = next.feeds || self.lacks(Removed::FedWhileKilling);
        if (feeds && !next.hung) || self.lacks(Removed::FedByTimer) {
            next.fed = next.step;
        }
        if next.step - next.fed >= WATCHDOG {
            (next.alive, next.runs) = (false, false);
        }
    }

    fn observe(&self, next: &mut State, event: Event) {
        let looks = &mut next.looks;
        let seen = looks.last().map_or(0, |(_, beat, _)| *beat);
        match event {
            Event::ObserverHangs => {
                let wrote = self.lacks(Removed::ObserverUnproven);
                looks.push((next.step, seen, wrote));
            }
            _ => looks.push((next.step, next.beat, true)),
        }
        // Looks before the last change say no more than that change does.
        let now = looks.last().map_or(0, |(_, beat, _)| *beat);
        let anew = looks
            .iter()
            .rposition(|(_, beat, wrote)| *beat != now || !wrote);
        if let Some(anew) = anew {
            looks.drain(..anew);
        }
    }

    /// Production's verdict on what was seen.
    fn verdict(&self, state: &State) -> Result<(), SelfFenceError> {
        let policy = Policy {
            self_fence_margin_milliseconds: u64::from(MARGIN) * STEP * 1000,
            ..Policy::default()
        };
        let watchdog = if self.lacks(Removed::WatchdogOverlooked) {
            0
        } else {
            WATCHDOG
        };
        let (mut heartbeats, mut watch) = (Heartbeats::default(), PoolWatch::default());
        let (observer, boot) = (HostName::from("observer"), BootId::from("o"));
        let mut looks = state.reported.clone();
        if self.lacks(Removed::CountsToArrival)
            && let Some(last) = looks.last().copied()
        {
            looks.extend((last.0 + 1..=state.step).map(|step| (step, last.1, last.2)));
        }
        for (step, beat, own) in looks {
            // The observer's clock has nothing to do with the operator's.
            let moment = at(step).plus(OBSERVER_CLOCK);
            let round = Round {
                own,
                began: moment,
                ended: moment,
                seen: [(host_name(0), u64::from(beat))].into(),
            };
            watch.take(&round, &policy);
            let token = heartbeats.token("operator", at(step));
            let report = HeartbeatReport::of(Some((token, moment)), [("pool", &watch)]);
            heartbeats.take(&observer, &boot, report, at(step));
        }
        let (seen, seen_at) = state.lease_seen;
        let overlooked = self.lacks(Removed::LeaseOverlooked);
        let look = LastLook {
            lease_changed_at: at(if overlooked { 0 } else { seen_at }),
            // The quorum read at the end.
            lease_confirmed_unchanged: self.lacks(Removed::LastReadOverlooked)
                || seen == state.lease.0,
            assigned_at: at(0),
            probe_answered_at: state
                .answered
                .filter(|_| !self.lacks(Removed::AnswerOverlooked))
                .map(at),
            at: at(state.step),
        };
        let incarnation = (&host_name(0), &boot_id(0, 0));
        self_fenced(
            incarnation,
            &registration(watchdog),
            &heartbeats,
            &look,
            &policy,
        )
        .map(|_| ())
    }
}

fn at(step: u8) -> Moment {
    Moment((100 + u64::from(step)) * STEP * 1000)
}

fn registration(watchdog: u8) -> GuardRegistration {
    GuardRegistration {
        armed: true,
        contract_milliseconds: u64::from(CONTRACT) * STEP * 1000,
        watchdog_milliseconds: u64::from(watchdog) * STEP * 1000,
        pools: BTreeSet::from(["pool".to_owned()]),
    }
}

impl Model for Fence {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            step: 0,
            network: true,
            storage: true,
            alive: true,
            runs: true,
            hung: false,
            killing: false,
            fired: false,
            acknowledged: 0,
            beaten: 0,
            late: None,
            fed: 0,
            beat: 1,
            lease: (1, 0),
            lease_seen: (1, 0),
            watch: true,
            feeds: true,
            looks: vec![(0, 1, true)],
            reported: vec![(0, 1, true)],
            answered: None,
            left: self.faults,
            needless: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Event>) {
        if state.step < self.steps {
            actions.extend(EVENTS);
        }
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        self.pass(state, event)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
