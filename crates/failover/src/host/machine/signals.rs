//! From facts to the signals of the table: what counts as fresh, and whose power was read.

use super::{HostFacts, HostMachine};
use crate::host::table::{Freshness, ProbeSignal, Signals, power_signal};
use crate::policy::Policy;
use crate::proof::power::{PowerState, PowerWitness};
use crate::signs::{LifeSigns, Sign};
use crate::time::Moment;

impl HostMachine {
    pub(super) fn floored(&self, signs: &LifeSigns) -> LifeSigns {
        let floor = |sign: Sign| Sign {
            changed_at: sign.changed_at.max(self.floor),
            ..sign
        };
        LifeSigns {
            // A registered host without a Lease counts from when this observer began.
            lease: Some(signs.lease.map_or(
                Sign {
                    changes: 0,
                    changed_at: self.floor,
                },
                floor,
            )),
            heartbeat: signs.heartbeat.map(floor),
            ..*signs
        }
    }

    pub(super) fn take_reading(&mut self, facts: &HostFacts, signs: &LifeSigns, policy: &Policy) {
        let Some(identity) = self.incarnation.clone() else {
            return;
        };
        if let Some(reading) = &facts.reading
            && self.read_at.is_none_or(|read| reading.sent_at > read)
            && reading.sent_at >= self.floor
        {
            self.read_at = Some(reading.sent_at);
            let witness = self.witness.get_or_insert_with(|| {
                PowerWitness::new(self.host.clone(), identity.boot_id, identity.system_uuid)
            });
            let state = witness.observe(reading, signs);
            if state == PowerState::On && reading.unanimous {
                self.told_lie.end();
            }
            self.power = Some((state, reading.sent_at));
        }
        if let Some(witness) = &mut self.witness {
            witness.watch(signs, policy);
        }
    }

    pub(super) fn signals(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        policy: &Policy,
        now: Moment,
    ) -> Signals {
        let freshness = |sign: Option<Sign>, interval| match sign {
            None => Freshness::Unknown,
            Some(sign) if sign.is_fresh(interval, policy, now) => Freshness::Fresh,
            Some(_) => Freshness::Stale,
        };
        let same_boot = facts
            .identity
            .as_ref()
            .is_none_or(|identity| facts.lease_is_of(identity));
        let lease = if same_boot {
            freshness(signs.lease, policy.lease_interval_milliseconds)
        } else {
            Freshness::Stale
        };
        let probes = match (signs.probe_sent_at, signs.answered_probe_sent_at) {
            (None, _) => ProbeSignal::Unknown,
            (_, Some(sent)) if now.since(sent) <= policy.probe_valid_milliseconds => {
                ProbeSignal::Answer
            }
            _ => ProbeSignal::Silent,
        };
        let silent = signs.all_silent(policy, now) && probes != ProbeSignal::Answer;
        let contradicted = self.witness.as_mut().is_some_and(|witness| {
            if silent {
                witness.settle();
            }
            witness.watch(signs, policy)
        });
        let lies = self.bmc_lies();
        // The BMC of a host that showed life beside its Off is, once the host is silent, one that does not answer.
        let state = (self.current_power(policy, now)).map(|state| match state {
            PowerState::Off if lies && silent => PowerState::NoAnswer,
            other => other,
        });
        Signals {
            lease,
            heartbeat: match freshness(signs.heartbeat, policy.heartbeat_seen_milliseconds()) {
                Freshness::Stale if signs.heartbeat_unobserved => Freshness::Unknown,
                seen => seen,
            },
            power: power_signal(state, contradicted || lies, facts.bmcs > 0),
            probes,
            storage_lost: facts.storage_lost,
        }
    }

    pub(super) fn current_power(&self, policy: &Policy, now: Moment) -> Option<PowerState> {
        self.power_that_counts(policy, now).map(|(state, _)| state)
    }

    /// The last reading, with the moment at which it was asked for, while it says something about now.
    pub(super) fn power_that_counts(
        &self,
        policy: &Policy,
        now: Moment,
    ) -> Option<(PowerState, Moment)> {
        self.power
            .filter(|(_, sent)| now.since(*sent) <= policy.power_valid_milliseconds)
    }
}
