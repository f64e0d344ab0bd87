//! Signs of life of one host, as one observer saw them on its own clock.

use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::time::Moment;

/// A signal that changes when its host is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sign {
    /// How often the observer saw it change.
    pub changes: u64,
    /// When the observer last saw it change. The first observation counts as a change, so
    /// that an observer which restarts begins its windows anew.
    pub changed_at: Moment,
}

impl Sign {
    /// Whether it changed within its interval and the grace.
    pub fn is_fresh(&self, interval_milliseconds: u64, policy: &Policy, now: Moment) -> bool {
        now.since(self.changed_at) <= interval_milliseconds + policy.grace_milliseconds
    }
}

/// What came back of a probe of an address that one VM alone owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// Nothing from that address.
    Nothing,
    /// The guest refused the connection, took it and said no more, or answered with an error.
    Guest,
    /// Its service answered.
    Service,
}

impl ProbeAnswer {
    /// Whether the guest runs, whatever its service does: such a probe was answered, and vetoes proofs that the
    /// guest's host is dead.
    pub fn is_life(self) -> bool {
        self != ProbeAnswer::Nothing
    }

    /// Whether the endpoint is up for its users.
    pub fn is_up(self) -> bool {
        self == ProbeAnswer::Service
    }
}

/// All signs of life of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LifeSigns {
    /// Renewals of the host's Lease.
    pub lease: Option<Sign>,
    /// Its storage heartbeat as other hosts read it; none where no pool carries one.
    pub heartbeat: Option<Sign>,
    /// Nobody who proves that he can reads its heartbeat just now: that it does not change says
    /// nothing.
    pub heartbeat_unobserved: bool,
    /// When the latest probe was sent that an address owned by one VM on this host alone
    /// answered ([`ProbeAnswer::is_life`]).
    pub answered_probe_sent_at: Option<Moment>,
    /// When the latest such probe was sent, answered or not; none where there is nothing to
    /// probe.
    pub probe_sent_at: Option<Moment>,
}

impl LifeSigns {
    /// The longest interval of any signal that this host has.
    pub fn longest_interval_milliseconds(&self, policy: &Policy) -> u64 {
        let heartbeat = self
            .heartbeat
            .map_or(0, |_| policy.heartbeat_interval_milliseconds);
        policy.lease_interval_milliseconds.max(heartbeat)
    }

    /// Whether every periodic signal has been silent for more than its interval and grace.
    pub fn all_silent(&self, policy: &Policy, now: Moment) -> bool {
        let silent = |sign: Option<Sign>, interval| {
            sign.is_none_or(|sign| !sign.is_fresh(interval, policy, now))
        };
        silent(self.lease, policy.lease_interval_milliseconds)
            && silent(self.heartbeat, policy.heartbeat_interval_milliseconds)
    }

    /// Whether anything in `self` shows life that came after `before` was taken at `since`.
    /// An answered probe counts when it was sent after that moment: an answer on its way
    /// when the power went says nothing.
    pub fn show_life_after(&self, before: &LifeSigns, since: Moment) -> bool {
        self.life_after(before, since).is_some()
    }

    /// When the latest of what [`LifeSigns::show_life_after`] tells was seen.
    pub fn life_after(&self, before: &LifeSigns, since: Moment) -> Option<Moment> {
        let changed = |old: Option<Sign>, new: Option<Sign>| {
            new.filter(|new| old.is_none_or(|old| new.changes != old.changes))
                .map(|new| new.changed_at)
        };
        [
            changed(before.lease, self.lease),
            changed(before.heartbeat, self.heartbeat),
            self.answered_probe_sent_at.filter(|sent| *sent > since),
        ]
        .into_iter()
        .flatten()
        .max()
    }
}
