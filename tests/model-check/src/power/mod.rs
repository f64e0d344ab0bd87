//! One host against its BMC, second by second: may `HostMachine` ever prove a boot dead that
//! runs? Renewals are lost or late, readings are late, the BMC lies, is mute, is another
//! machine's or does not obey; power goes and returns.
//!
//! One step is one second. The machine's durations are production's, but for a host that reads
//! On being unreachable after 6 s, which keeps the horizon short. With one renewal lost a lying
//! BMC is found out; two lost renewals in a row beside a BMC that lies are more than one fault
//! at a time, and not modelled.

mod properties;
mod state;

use failover::host::fencing::CommandEnd;
use failover::host::incarnation::Identity;
use failover::host::machine::{FencePermit, HostAction, HostFacts, HostMachine, Intent};
use failover::proof::power::{PowerAnswer, PowerReading};
use failover::signs::{LifeSigns, Sign};
use failover::{Moment, Policy};
use model::{BootId, StopProofKind};
use stateright::{Model, Property};

use crate::words::{boot_id, host_name};
pub use state::State;

use state::Machine;

const UUID: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_UUID: &str = "99999999-2222-3333-4444-555555555555";
/// The observer began this long before the first second.
const BEGUN: u64 = 100;
/// A host without power must be proven dead this many seconds later.
const PROVEN_WITHIN: u8 = 9;

/// How the BMC behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bmc {
    /// Tells the truth and obeys.
    Honest,
    /// Never answers.
    Mute,
    /// Reads Off whatever the host does.
    Lies,
    /// Belongs to another machine, which is off.
    OtherMachine,
    /// Accepts every command and leaves the power on.
    StaysOn,
}

/// A rule of the proof that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The UUID that came with a reading is not compared.
    AnyMachine,
    /// One Off reading is enough.
    NoWindow,
    /// A command that was accepted is enough.
    CommandIsProof,
    /// Signs of life within the window do not count.
    SignsIgnored,
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// The BMC.
    pub bmc: Bmc,
    /// Seconds that are walked.
    pub seconds: u8,
    /// What may go wrong: power losses, returns, hangs, lost renewals, late ones, late readings.
    pub faults: [u8; 6],
    /// The rule that is removed.
    pub removed: Option<Removed>,
}

/// What happens in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    event: Event,
    renewal: Delivery,
    reading: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    None,
    Loss,
    Return,
    Hang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    InTime,
    Late,
    Lost,
}

fn at(second: u8) -> Moment {
    Moment((BEGUN + u64::from(second)) * 1000)
}

fn policy() -> Policy {
    Policy {
        unreachable_after_milliseconds: 6_000,
        ..Policy::default()
    }
}

impl Power {
    /// A configuration without faults.
    pub const fn new(bmc: Bmc, seconds: u8, faults: [u8; 6]) -> Self {
        Self {
            bmc,
            seconds,
            faults,
            removed: None,
        }
    }

    fn lacks(&self, rule: Removed) -> bool {
        self.removed == Some(rule)
    }

    fn facts(&self, state: &State) -> HostFacts {
        let identity = Identity {
            boot_id: boot_id(0, state.registered),
            system_uuid: UUID.to_owned(),
            mac_addresses: std::collections::BTreeSet::new(),
        };
        let theirs = self.bmc == Bmc::OtherMachine && !self.lacks(Removed::AnyMachine);
        let reading = state.reading.map(|(on, sent, received)| PowerReading {
            answer: if on {
                PowerAnswer::On
            } else {
                PowerAnswer::Off
            },
            system_uuid: Some(if theirs { OTHER_UUID } else { UUID }.to_owned()),
            unanimous: true,
            contradicted: false,
            sent_at: at(sent),
            received_at: at(received),
        });
        let (changes, changed_at) = if self.lacks(Removed::SignsIgnored) && state.reading.is_some()
        {
            (1, 0)
        } else {
            state.renewals
        };
        HostFacts {
            lease_boot_id: Some(identity.boot_id.clone()),
            retired: (0..state.registered).map(|boot| boot_id(0, boot)).collect(),
            signs: LifeSigns {
                lease: Some(Sign {
                    changes: u64::from(changes),
                    changed_at: at(changed_at),
                }),
                ..LifeSigns::default()
            },
            bmcs: 1,
            reading,
            command: state.command.map(|(attempt, ended)| CommandEnd {
                attempt,
                at: at(ended),
            }),
            intent: state
                .intent_until
                .map_or(Intent::None, |until| Intent::Ours {
                    boot_id: identity.boot_id.clone(),
                    expires_at: Moment(until),
                }),
            identity: Some(identity),
            ..HostFacts::default()
        }
    }

    /// What the world does, then what the operator makes of it.
    fn pass(&self, before: &State, second: Second) -> Option<State> {
        let mut state = before.clone();
        state.second += 1;
        let [losses, returns, hangs, lost, late, late_readings] = &mut state.left;
        let spend = |left: &mut u8| -> Option<()> {
            *left = left.checked_sub(1)?;
            Some(())
        };
        match second.event {
            Event::None => {}
            Event::Loss if before.on => spend(losses)?,
            Event::Return if !before.on => spend(returns)?,
            Event::Hang if before.renews() => spend(hangs)?,
            _ => return None,
        }
        let due = state.second.is_multiple_of(2);
        match second.renewal {
            Delivery::InTime => {}
            _ if !due || !before.renews() || second.event != Event::None => return None,
            Delivery::Late => spend(late)?,
            Delivery::Lost => spend(lost)?,
        }
        match second.reading {
            Delivery::InTime => {}
            Delivery::Late if before.asked.is_some() => spend(late_readings)?,
            _ => return None,
        }
        self.happens(&mut state, second.event);
        if state.late_renewal {
            state.late_renewal = false;
            self.renewal_arrives(&mut state);
        }
        if due && state.renews() {
            match second.renewal {
                Delivery::InTime => self.renewal_arrives(&mut state),
                Delivery::Late => state.late_renewal = true,
                Delivery::Lost => {}
            }
        }
        self.bmc_answers(&mut state, second.reading);
        self.operator_steps(&mut state);
        Some(state)
    }

    fn happens(&self, state: &mut State, event: Event) {
        match event {
            Event::None => {}
            Event::Loss => self.goes_dark(state),
            Event::Return => {
                (state.on, state.hung, state.dark_since) = (true, false, None);
                state.boot += 1;
            }
            Event::Hang => state.hung = true,
        }
    }

    fn goes_dark(&self, state: &mut State) {
        (state.on, state.late_renewal) = (false, false);
        state.dark_since = Some(state.second);
    }

    /// The first renewal of a new boot also registers it.
    fn renewal_arrives(&self, state: &mut State) {
        state.registered = state.boot;
        state.renewals = (state.renewals.0 + 1, state.second);
    }

    fn bmc_answers(&self, state: &mut State, delivery: Delivery) {
        if let Some(attempt) = state.force.take() {
            state.command = Some((attempt, state.second));
            let obeys = matches!(self.bmc, Bmc::Honest);
            if obeys && state.on {
                self.goes_dark(state);
            }
            state.claimed |= self.lacks(Removed::CommandIsProof);
        }
        if let Some((on, sent)) = state.late_reading.take() {
            state.reading = Some((on, sent, state.second));
        }
        let Some(sent) = state.asked.take() else {
            return;
        };
        let on = match self.bmc {
            Bmc::Mute => return,
            Bmc::Lies | Bmc::OtherMachine => false,
            Bmc::Honest | Bmc::StaysOn => state.on,
        };
        if delivery == Delivery::Late {
            state.late_reading = Some((on, sent));
        } else {
            state.reading = Some((on, sent, state.second));
        }
        state.claimed |= self.lacks(Removed::NoWindow) && !on;
    }

    fn operator_steps(&self, state: &mut State) {
        let facts = self.facts(state);
        let step = state
            .machine
            .0
            .step(&facts, &FencePermit::Granted, &policy(), state.now());
        for action in step.actions {
            match action {
                HostAction::ReadPower => state.asked = Some(state.second),
                HostAction::WriteIntent {
                    expires_after_milliseconds,
                    ..
                } => {
                    let until = state.now().plus(expires_after_milliseconds);
                    state.intent_until = Some(until.0);
                }
                HostAction::ForceOff { attempt, .. } => {
                    let silent = state.now().since(at(state.renewals.1));
                    state.forced_fresh |= silent < policy().unreachable_after_milliseconds;
                    state.force = Some(attempt);
                }
                HostAction::ClearIntent => state.intent_until = None,
                // No pool here can cut a host off.
                HostAction::CutStorage { .. } | HostAction::LiftCut => {}
            }
        }
        state.digest = state.machine.digest();
    }

    fn proves(&self, state: &State, boot: u8) -> Option<StopProofKind> {
        let boot: BootId = boot_id(0, boot);
        let proof = state.machine.0.stop_proof(&boot, &self.facts(state));
        proof.map(|proof| proof.kind())
    }
}

impl Model for Power {
    type State = State;
    type Action = Second;

    fn init_states(&self) -> Vec<State> {
        let machine = Machine(HostMachine::new(host_name(0), Moment(0)));
        let mut state = State {
            second: 0,
            on: true,
            hung: false,
            boot: 0,
            dark_since: None,
            registered: 0,
            renewals: (1, 0),
            late_renewal: false,
            asked: None,
            late_reading: None,
            reading: None,
            intent_until: None,
            force: None,
            command: None,
            left: self.faults,
            forced_fresh: false,
            claimed: false,
            digest: 0,
            machine,
        };
        self.operator_steps(&mut state);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Second>) {
        if state.second >= self.seconds {
            return;
        }
        for event in [Event::None, Event::Loss, Event::Return, Event::Hang] {
            for renewal in [Delivery::InTime, Delivery::Late, Delivery::Lost] {
                for reading in [Delivery::InTime, Delivery::Late] {
                    actions.push(Second {
                        event,
                        renewal,
                        reading,
                    });
                }
            }
        }
    }

    fn next_state(&self, state: &State, second: Second) -> Option<State> {
        self.pass(state, second)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
