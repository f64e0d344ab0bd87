//! The state of the model: a few small numbers and production's machine.

use std::hash::{DefaultHasher, Hash, Hasher};

use failover::Moment;
use failover::host::machine::HostMachine;

use super::at;

/// Production's machine; two are one when everything in them is.
#[derive(Clone, Debug)]
pub(super) struct Machine(pub(super) HostMachine);

impl Machine {
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.0).hash(&mut hasher);
        hasher.finish()
    }
}

/// Everything at the end of one second.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) second: u8,
    pub(super) on: bool,
    pub(super) hung: bool,
    pub(super) boot: u8,
    pub(super) dark_since: Option<u8>,
    pub(super) registered: u8,
    pub(super) renewals: (u8, u8),
    pub(super) late_renewal: bool,
    pub(super) asked: Option<u8>,
    pub(super) late_reading: Option<(bool, u8)>,
    pub(super) reading: Option<(bool, u8, u8)>,
    pub(super) intent_until: Option<u64>,
    pub(super) force: Option<u32>,
    pub(super) command: Option<(u32, u8)>,
    pub(super) left: [u8; 6],
    pub(super) forced_fresh: bool,
    pub(super) claimed: bool,
    pub(super) digest: u64,
    pub(super) machine: Machine,
}

impl State {
    fn key(&self) -> impl Hash + PartialEq + use<> {
        (
            (self.second, self.on, self.hung, self.boot, self.dark_since),
            (
                self.registered,
                self.renewals,
                self.late_renewal,
                self.asked,
            ),
            (
                self.late_reading,
                self.reading,
                self.intent_until,
                self.force,
            ),
            (self.command, self.left, self.forced_fresh, self.claimed),
            self.digest,
        )
    }

    pub(super) fn now(&self) -> Moment {
        at(self.second)
    }

    pub(super) fn renews(&self) -> bool {
        self.on && !self.hung
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
