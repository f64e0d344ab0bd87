//! `PoweredOff`: a witness over the readings of a host's BMC.
//!
//! The return code of a power command proves nothing; a reading does, under these rules:
//! the BMC reports the system UUID that the host registered; the first Off reading opens a
//! window; for the longest interval of any of the host's signals no sign of life changes;
//! a reading sent after the window is Off again. Anything else starts over.

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

/// Watches the BMC of one incarnation until it proves power-off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerWitness {
    host: HostName,
    boot_id: BootId,
    registered_uuid: String,
    window: Option<Window>,
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
            contradicted: false,
        }
    }

    /// Takes one reading, with the signs of life at the moment it is looked at.
    pub fn observe(&mut self, reading: &PowerReading, signs: &LifeSigns) -> PowerState {
        let state = reading.judge(&self.registered_uuid);
        match (state, &mut self.window) {
            (PowerState::Off, None) => {
                self.window = Some(Window {
                    first_off: reading.received_at,
                    signs: *signs,
                    last_off_sent: reading.sent_at,
                    last_off_received: reading.received_at,
                });
            }
            (PowerState::Off, Some(window)) if reading.sent_at > window.last_off_sent => {
                window.last_off_sent = reading.sent_at;
                window.last_off_received = reading.received_at;
            }
            (PowerState::Off, Some(_)) => {}
            (PowerState::On, _) => {
                // It is on: whatever contradicted Off is explained.
                self.window = None;
                self.contradicted = false;
            }
            (PowerState::NoAnswer | PowerState::OtherMachine, _) => self.window = None,
        }
        state
    }

    /// Looks at the signs of life; one that changed after the first Off reading contradicts
    /// the BMC and closes the window. Returns whether the BMC stands contradicted.
    pub fn watch(&mut self, signs: &LifeSigns) -> bool {
        if let Some(window) = &self.window
            && signs.show_life_after(&window.signs, window.first_off)
        {
            self.window = None;
            self.contradicted = true;
        }
        self.contradicted
    }

    /// Forgets a contradiction: the host has been seen fully silent since, so Off may be
    /// true by now. A new window is needed all the same.
    pub fn settle(&mut self) {
        self.contradicted = false;
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
        (closed && current && lifeless && !self.contradicted).then(|| HostStopProof {
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
mod tests {
    use super::*;
    use crate::signs::Sign;

    const UUID: &str = "11111111-2222-3333-4444-555555555555";

    fn reading(answer: PowerAnswer, at: u64) -> PowerReading {
        PowerReading {
            answer,
            system_uuid: Some(UUID.to_owned()),
            sent_at: Moment(at),
            received_at: Moment(at),
        }
    }

    fn signs(changes: u64, changed_at: u64) -> LifeSigns {
        LifeSigns {
            lease: Some(Sign {
                changes,
                changed_at: Moment(changed_at),
            }),
            ..LifeSigns::default()
        }
    }

    fn witness() -> PowerWitness {
        PowerWitness::new("h1".into(), "b1".into(), UUID.to_owned())
    }

    #[test]
    fn two_off_readings_around_a_silent_window_prove() {
        let policy = Policy::default();
        let mut witness = witness();
        witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
        assert_eq!(witness.conclude(&signs(1, 0), &policy, Moment(4_100)), None);
        witness.observe(&reading(PowerAnswer::Off, 5_900), &signs(1, 0));
        assert_eq!(
            witness.conclude(&signs(1, 0), &policy, Moment(6_500)),
            None,
            "the window is 2 s"
        );
        witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(1, 0));
        let proof = witness
            .conclude(&signs(1, 0), &policy, Moment(6_100))
            .unwrap();
        assert_eq!(proof.kind(), StopProofKind::PoweredOff);
    }

    #[test]
    fn a_sign_of_life_contradicts_and_starts_over() {
        let policy = Policy::default();
        let mut witness = witness();
        witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
        assert!(witness.watch(&signs(2, 5_000)));
        witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(2, 5_000));
        witness.observe(&reading(PowerAnswer::Off, 8_000), &signs(2, 5_000));
        assert_eq!(
            witness.conclude(&signs(2, 5_000), &policy, Moment(9_000)),
            None,
            "stands contradicted"
        );
        witness.settle();
        assert!(
            witness
                .conclude(&signs(2, 5_000), &policy, Moment(9_000))
                .is_some()
        );
    }

    #[test]
    fn a_probe_answer_counts_only_when_sent_after_the_first_off() {
        let mut witness = witness();
        witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
        let before = LifeSigns {
            answered_probe_sent_at: Some(Moment(3_999)),
            ..signs(1, 0)
        };
        assert!(!witness.watch(&before));
        let after = LifeSigns {
            answered_probe_sent_at: Some(Moment(4_001)),
            ..signs(1, 0)
        };
        assert!(witness.watch(&after));
    }

    #[test]
    fn on_no_answer_and_another_machine_close_the_window() {
        let policy = Policy::default();
        for (answer, uuid) in [
            (PowerAnswer::On, Some(UUID)),
            (PowerAnswer::NoAnswer, None),
            (
                PowerAnswer::Off,
                Some("99999999-2222-3333-4444-555555555555"),
            ),
            (PowerAnswer::Off, None),
        ] {
            let mut witness = witness();
            witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
            let other = PowerReading {
                system_uuid: uuid.map(str::to_owned),
                ..reading(answer, 5_000)
            };
            witness.observe(&other, &signs(1, 0));
            witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(1, 0));
            assert_eq!(witness.conclude(&signs(1, 0), &policy, Moment(6_100)), None);
        }
    }

    #[test]
    fn an_old_reading_and_a_beating_heart_prove_nothing() {
        let policy = Policy::default();
        let mut witness = witness();
        let beating = LifeSigns {
            heartbeat: Some(Sign {
                changes: 9,
                changed_at: Moment(4_000),
            }),
            ..signs(1, 0)
        };
        witness.observe(&reading(PowerAnswer::Off, 4_100), &beating);
        witness.observe(&reading(PowerAnswer::Off, 6_200), &beating);
        assert_eq!(
            witness.conclude(&beating, &policy, Moment(6_300)),
            None,
            "heartbeat may only be late"
        );
        assert!(witness.conclude(&beating, &policy, Moment(7_100)).is_some());
        assert_eq!(
            witness.conclude(&beating, &policy, Moment(11_300)),
            None,
            "the last reading is too old"
        );
    }

    #[test]
    fn every_usual_byte_order_names_the_machine() {
        assert!(same_machine(
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "33221100-5544-7766-8899-aabbccddeeff"
        ));
        assert!(same_machine(
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "ffeeddcc-bbaa-9988-7766-554433221100"
        ));
        assert!(same_machine(UUID, &UUID.to_uppercase()));
        assert!(!same_machine("Not Settable", "Not Settable"));
        assert!(!same_machine(UUID, "11111111-2222-3333-4444-555555555556"));
        assert!(!same_machine("", ""));
    }
}
