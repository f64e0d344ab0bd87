//! `PoweredOff`: a witness over the readings of a host's BMC.
//!
//! The return code of a power command proves nothing; a reading does, under these rules:
//! the BMC reports the system UUID that the host registered; the first Off reading opens a
//! window; for the longest interval of any of the host's signals no sign of life changes;
//! a reading sent after the window is Off again. Anything else starts over.
//!
//! A sign that comes within the window may only have been late, and silence settles it. Those that go on coming later were
//! given by a host that lived while its BMC read Off: such a BMC proves nothing until it has read On, however silent the
//! host falls. Which one of several BMCs lied is not known: then all of them must have read On together. Where one reads Off
//! of a host that lives and another reads On, the first is known not to speak for the host: Off counts from all together.

use std::collections::BTreeSet;

use model::{BootId, HostName, StopProofKind};
use serde::{Deserialize, Serialize};

use super::HostStopProof;
use super::evidence::POWERED_OFF;
use crate::policy::Policy;
use crate::signs::LifeSigns;
use crate::time::{Moment, seconds};

/// What a BMC answered, before anyone judged whose BMC it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerAnswer {
    /// The system is on.
    On,
    /// The system is off.
    Off,
    /// No usable answer: time-out, refused, login wrong, malformed.
    NoAnswer,
}

/// One reading of a BMC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerReading {
    /// The answer.
    pub answer: PowerAnswer,
    /// System UUID that came with it.
    #[serde(default)]
    pub system_uuid: Option<String>,
    /// Every BMC that the host declares gave this answer about this machine. Where one of several did not answer, or
    /// answered something else, what another one reads says nothing of it.
    #[serde(default)]
    pub unanimous: bool,
    /// While the host lived one of its own BMCs read Off and this one On: from then on Off counts from all of them together
    /// only, until all have read On.
    #[serde(default)]
    pub contradicted: bool,
    /// When the request was sent, on the observer's clock.
    pub sent_at: Moment,
    /// When the answer had arrived.
    pub received_at: Moment,
}

/// A reading judged against the registered machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PowerState {
    /// The host's own BMC says On.
    On,
    /// The host's own BMC says Off.
    Off,
    /// No usable answer.
    NoAnswer,
    /// The BMC belongs to another machine, or does not say to which.
    OtherMachine,
}

impl PowerReading {
    /// Judges whose power state this is.
    pub fn judge(&self, registered_uuid: &str) -> PowerState {
        let same = self
            .system_uuid
            .as_deref()
            .is_some_and(|uuid| same_machine(uuid, registered_uuid));
        match (&self.answer, same) {
            (PowerAnswer::NoAnswer, _) => PowerState::NoAnswer,
            (_, false) => PowerState::OtherMachine,
            (PowerAnswer::On, true) => PowerState::On,
            (PowerAnswer::Off, true) => PowerState::Off,
        }
    }
}

/// What the readings of a host's BMCs say together, so many as it declares; none where none answered. Its own machine's
/// counts before another's, and of those On, as a machine that one of its BMCs reads On is not off.
pub fn together(
    readings: Vec<PowerReading>,
    declared: usize,
    registered_uuid: &str,
) -> Option<PowerReading> {
    let state = |reading: &PowerReading| reading.judge(registered_uuid);
    let states: BTreeSet<PowerState> = readings.iter().map(state).collect();
    let unanimous = readings.len() == declared && states.len() == 1;
    let best = readings
        .into_iter()
        .max_by_key(|reading| weight(state(reading)))?;
    Some(PowerReading { unanimous, ..best })
}

/// Which of two states about one host counts.
fn weight(state: PowerState) -> u8 {
    match state {
        PowerState::On => 3,
        PowerState::Off => 2,
        PowerState::OtherMachine => 1,
        PowerState::NoAnswer => 0,
    }
}

/// Whether two system UUIDs name one machine. SMBIOS stores the first three groups
/// little-endian, IPMI sends all 16 bytes in reverse, and controllers mix the two (OpenIPMI's
/// simulator read by ipmitool returns the reverse), so each of these orders counts.
pub fn same_machine(one: &str, other: &str) -> bool {
    const PLAIN: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const SMBIOS: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    const REVERSE: [usize; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    const BOTH: [usize; 16] = [12, 13, 14, 15, 10, 11, 8, 9, 7, 6, 5, 4, 3, 2, 1, 0];
    let (Some(one), Some(other)) = (bytes(one), bytes(other)) else {
        return false;
    };
    [PLAIN, SMBIOS, REVERSE, BOTH]
        .iter()
        .any(|order| order.map(|index| one[index]) == other)
}

/// The 16 bytes of a UUID as written, with or without hyphens.
fn bytes(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    if digits.len() == 32 {
        bytes.try_into().ok()
    } else {
        None
    }
}

/// The open window of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    first_off: Moment,
    signs: LifeSigns,
    last_off_sent: Moment,
    last_off_received: Moment,
}

/// The first Off reading since On was read, whatever windows were closed meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FirstOff {
    at: Moment,
    signs: LifeSigns,
    /// Nobody read the host's heartbeat for a while since: that it has changed says nothing of when.
    unobserved: bool,
    /// The first sign that came too late to have been on its way when the power went. One alone may come of an
    /// observer that saw nothing for a while.
    late: Option<(Moment, LifeSigns)>,
}

impl FirstOff {
    fn new(at: Moment, signs: &LifeSigns) -> Self {
        Self {
            at,
            signs: *signs,
            unobserved: false,
            late: None,
        }
    }

    /// Whether the host gave signs, an interval apart, that came too late to have been on their way when the power went.
    fn outlived(&mut self, signs: &LifeSigns, policy: &Policy) -> bool {
        self.unobserved |= signs.heartbeat_unobserved;
        let observed = LifeSigns {
            heartbeat: signs.heartbeat.filter(|_| !self.unobserved),
            ..*signs
        };
        let interval = signs.longest_interval_milliseconds(policy);
        let on_its_way = interval + policy.grace_milliseconds;
        match &self.late {
            None => {
                let life = observed.life_after(&self.signs, self.at);
                let late = life.filter(|at| *at > self.at.plus(on_its_way));
                self.late = late.map(|at| (at, observed));
                false
            }
            Some((first, before)) => observed
                .life_after(before, *first)
                .is_some_and(|again| again >= first.plus(interval)),
        }
    }
}

/// What speaks against the Off that a BMC reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Nothing,
    /// A sign of life that may only have been late.
    Late,
    /// The host lived while its BMC read Off.
    Lies,
}

/// Watches the BMC of one incarnation until it proves power-off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerWitness {
    host: HostName,
    boot_id: BootId,
    registered_uuid: String,
    window: Option<Window>,
    first_off: Option<FirstOff>,
    doubt: Doubt,
    /// Two BMCs of the host contradicted each other while it lived.
    contradicted: bool,
}

impl PowerWitness {
    /// A witness for one incarnation of one machine.
    pub fn new(host: HostName, boot_id: BootId, registered_uuid: String) -> Self {
        Self {
            host,
            boot_id,
            registered_uuid,
            window: None,
            first_off: None,
            doubt: Doubt::Nothing,
            contradicted: false,
        }
    }

    /// Takes one reading, with the signs of life at the moment it is looked at.
    pub fn observe(&mut self, reading: &PowerReading, signs: &LifeSigns) -> PowerState {
        let state = match reading.judge(&self.registered_uuid) {
            // It may be the one that reads Off of a host that lives.
            PowerState::Off if self.contradicted && !reading.unanimous => PowerState::NoAnswer,
            other => other,
        };
        if state == PowerState::On {
            self.contradicted = reading.contradicted || (self.contradicted && !reading.unanimous);
        }
        match (state, &mut self.window) {
            (PowerState::Off, None) => {
                self.window = Some(Window {
                    first_off: reading.received_at,
                    signs: *signs,
                    last_off_sent: reading.sent_at,
                    last_off_received: reading.received_at,
                });
                self.first_off
                    .get_or_insert_with(|| FirstOff::new(reading.received_at, signs));
            }
            (PowerState::Off, Some(window)) if reading.sent_at > window.last_off_sent => {
                window.last_off_sent = reading.sent_at;
                window.last_off_received = reading.received_at;
            }
            (PowerState::Off, Some(_)) => {}
            (PowerState::On, _) => {
                // It is on: whatever contradicted Off is explained, but for the lie of a BMC that did not read On.
                (self.window, self.first_off) = (None, None);
                if reading.unanimous || self.doubt != Doubt::Lies {
                    self.doubt = Doubt::Nothing;
                }
            }
            (PowerState::NoAnswer | PowerState::OtherMachine, _) => self.window = None,
        }
        state
    }

    /// Looks at the signs of life; one that changed after the first Off reading contradicts
    /// the BMC and closes the window. Returns whether the BMC stands contradicted.
    pub fn watch(&mut self, signs: &LifeSigns, policy: &Policy) -> bool {
        let lives = |window: &mut Window| signs.show_life_after(&window.signs, window.first_off);
        if self.window.take_if(lives).is_some() && self.doubt == Doubt::Nothing {
            self.doubt = Doubt::Late;
        }
        let first = self.first_off.as_mut();
        if first.is_some_and(|first| first.outlived(signs, policy)) {
            (self.window, self.doubt) = (None, Doubt::Lies);
        }
        self.doubt != Doubt::Nothing
    }

    /// Forgets a sign that may have been late: the host has been seen fully silent since, so Off may be
    /// true by now. A new window is needed all the same. What a lying BMC reads stays no proof.
    pub fn settle(&mut self) {
        if self.doubt == Doubt::Late {
            self.doubt = Doubt::Nothing;
        }
    }

    /// Whether it read Off of a host that lived, and not every BMC of the host has read On together since.
    pub fn lies(&self) -> bool {
        self.doubt == Doubt::Lies
    }

    /// The host was seen alive: a proof needs a new window.
    pub fn close(&mut self) {
        self.window = None;
        self.settle();
    }

    /// Starts over, as after a pause of the observer: signs that come now may be old. That the BMC lied stays known.
    pub fn restart(&mut self) {
        self.close();
        self.first_off = None;
    }

    /// Signs that are seen from now on say nothing of when the host gave them: what they prove of the BMC is forgotten.
    pub fn signs_are_old(&mut self) {
        self.first_off = None;
        if self.doubt == Doubt::Lies {
            self.doubt = Doubt::Late;
        }
    }

    /// When the reading that may complete the proof should be sent.
    pub fn closing_reading_due(&self, policy: &Policy) -> Option<Moment> {
        let window = self.window.as_ref()?;
        Some(
            window
                .first_off
                .plus(window.signs.longest_interval_milliseconds(policy)),
        )
    }

    /// The proof, once the rules are met.
    pub fn conclude(
        &self,
        signs: &LifeSigns,
        policy: &Policy,
        now: Moment,
    ) -> Option<HostStopProof> {
        let window = self.window.as_ref()?;
        let interval = signs
            .longest_interval_milliseconds(policy)
            .max(window.signs.longest_interval_milliseconds(policy));
        let closed = window.last_off_sent >= window.first_off.plus(interval);
        let current = now.since(window.last_off_received) <= policy.power_valid_milliseconds;
        let lifeless = !signs.show_life_after(&window.signs, window.first_off)
            && signs.all_silent(policy, now);
        (closed && current && lifeless && self.doubt == Doubt::Nothing).then(|| HostStopProof {
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            kind: StopProofKind::PoweredOff,
            evidence: POWERED_OFF.told(&[
                &self.registered_uuid,
                &seconds(window.last_off_sent.since(window.first_off)),
            ]),
        })
    }
}

#[cfg(test)]
#[path = "power_tests.rs"]
mod tests;
