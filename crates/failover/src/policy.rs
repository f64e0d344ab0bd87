//! Every tunable of failover with its default, and the check that refuses values which
//! are absurd alone or contradict each other. Reads no configuration itself.

mod ranges;
mod refusal;

use std::collections::BTreeMap;

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

pub use refusal::{Bounds, PolicyError};

/// All tunables. Durations are milliseconds. The defaults are the design's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    /// How often a host renews its Lease.
    pub lease_interval_milliseconds: u64,
    /// How much later than one interval a signal may be before it counts as stale.
    pub grace_milliseconds: u64,
    /// How often a host renews its storage heartbeat, where a pool carries one.
    pub heartbeat_interval_milliseconds: u64,
    /// How often the BMC of a silent host is read.
    pub power_interval_milliseconds: u64,
    /// A power reading older than this says nothing about now.
    pub power_valid_milliseconds: u64,
    /// A probe answer older than this says nothing about now.
    pub probe_valid_milliseconds: u64,
    /// Silence after which a host that reads On, or whose BMC is silent, is unreachable.
    pub unreachable_after_milliseconds: u64,
    /// Whether hosts that run but are isolated are fenced at all.
    pub fence_isolated: bool,
    /// Silence after which a host that runs but is isolated is fenced.
    pub fence_isolated_after_milliseconds: u64,
    /// Share of hosts whose silence within the window stops all forcing off, percent.
    pub storm_percent: u32,
    /// Fewest hosts that make a storm.
    pub storm_minimum_hosts: u32,
    /// Window in which silences are counted together.
    pub storm_window_milliseconds: u64,
    /// Calm (no new silence) after which a storm releases one fence at a time.
    pub storm_release_milliseconds: u64,
    /// Attempts per BMC before the next one is tried.
    pub fence_attempts: u32,
    /// After this a fencing intent is void: nobody sends a command past it.
    pub fence_expiry_milliseconds: u64,
    /// Longest time that sending one command may take.
    pub fence_send_milliseconds: u64,
    /// How long the power may take to read Off after a force-off was sent.
    pub fence_read_back_milliseconds: u64,
    /// A gap between two steps of the observer above which it starts its windows anew: it
    /// was paused, and silence that it slept through is no silence of the hosts.
    pub observer_gap_milliseconds: u64,
    /// Age of an agent's converge loop above which the agent counts as down.
    pub agent_down_after_milliseconds: u64,
    /// How long an identity problem stands after it was seen last: two machines of one name report in turn.
    pub identity_problem_milliseconds: u64,
    /// The guard's contract: silence on Lease and heartbeat after which it kills.
    pub contract_milliseconds: u64,
    /// The hardware watchdog's time-out.
    pub watchdog_milliseconds: u64,
    /// Margin on top of contract and watchdog.
    pub self_fence_margin_milliseconds: u64,
    /// A close that takes longer is stuck, and a reason to fence its host.
    pub close_stuck_milliseconds: u64,
    /// Whether a host that can not end a copy is fenced.
    pub fence_close_stuck: bool,
    /// First wait after a crash; doubles with each crash in a row.
    pub back_off_milliseconds: u64,
    /// Longest wait after crashes in a row.
    pub back_off_maximum_milliseconds: u64,
    /// A copy that ran this long ends the row of crashes.
    pub back_off_reset_milliseconds: u64,
    /// Starts in a row that may fail before the VM is left in error.
    pub start_attempts: u32,
    /// VMs that one host starts at once.
    pub starts_per_host: u32,
    /// Time after which a fault that vanished with a reboot counts as gone.
    pub fault_clear_milliseconds: u64,
    /// At most one new evacuation per host in this time.
    pub evacuation_interval_milliseconds: u64,
    /// Hosts that are emptied at once because of faults.
    pub hosts_evacuated_at_once: u32,
    /// A migration's target must be prepared within this, and let run within this what was handed over to it.
    pub migration_prepare_milliseconds: u64,
    /// A migration that takes longer is aborted.
    pub migration_milliseconds: u64,
    /// A copy that was handed over and does not run after so long is an outage of its VM, and no pause any more.
    pub resume_late_milliseconds: u64,
    /// Ratings of hardware faults that differ from the probes' own.
    pub severities: BTreeMap<FaultKind, Severity>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease_interval_milliseconds: 2_000,
            grace_milliseconds: 1_000,
            heartbeat_interval_milliseconds: 2_000,
            power_interval_milliseconds: 1_000,
            power_valid_milliseconds: 5_000,
            probe_valid_milliseconds: 2_000,
            unreachable_after_milliseconds: 8_000,
            fence_isolated: true,
            fence_isolated_after_milliseconds: 30_000,
            storm_percent: 30,
            storm_minimum_hosts: 2,
            storm_window_milliseconds: 60_000,
            storm_release_milliseconds: 60_000,
            fence_attempts: 3,
            fence_expiry_milliseconds: 60_000,
            fence_send_milliseconds: 5_000,
            fence_read_back_milliseconds: 5_000,
            observer_gap_milliseconds: 1_500,
            agent_down_after_milliseconds: 15_000,
            identity_problem_milliseconds: 60_000,
            contract_milliseconds: 20_000,
            watchdog_milliseconds: 20_000,
            self_fence_margin_milliseconds: 10_000,
            close_stuck_milliseconds: 60_000,
            fence_close_stuck: false,
            back_off_milliseconds: 5_000,
            back_off_maximum_milliseconds: 300_000,
            back_off_reset_milliseconds: 600_000,
            start_attempts: 5,
            starts_per_host: 4,
            fault_clear_milliseconds: 1_800_000,
            evacuation_interval_milliseconds: 1_800_000,
            hosts_evacuated_at_once: 2,
            migration_prepare_milliseconds: 60_000,
            migration_milliseconds: 600_000,
            resume_late_milliseconds: 5_000,
            severities: BTreeMap::new(),
        }
    }
}

/// Upper bound of contract, watchdog and margin together, milliseconds (design: 50 s).
const SELF_FENCE_BOUND_MILLISECONDS: u64 = 50_000;

impl Policy {
    /// Silence after which a host is Suspect.
    pub fn suspect_after_milliseconds(&self) -> u64 {
        self.lease_interval_milliseconds + self.grace_milliseconds
    }

    /// How often a beating heart is seen to change: other hosts read it and tell of it with
    /// their renewals, so that it comes up to a grace later than it was written.
    pub fn heartbeat_seen_milliseconds(&self) -> u64 {
        self.heartbeat_interval_milliseconds + self.grace_milliseconds
    }

    /// How long an observer must watch a host that should have fenced itself.
    pub fn self_fence_window_milliseconds(&self) -> u64 {
        self.contract_milliseconds
            + self.watchdog_milliseconds
            + self.self_fence_margin_milliseconds
    }

    /// Refuses values that are absurd or contradict each other.
    ///
    /// # Errors
    /// Every refused value with field, value, reason and safe range, in a fixed order.
    pub fn check(&self) -> Result<(), Vec<PolicyError>> {
        let mut errors = ranges::refused(self);
        errors.extend(self.check_relations());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn check_relations(&self) -> Vec<PolicyError> {
        let mut errors = Vec::new();
        let mut refuse = |bad: bool, field, value, because, safe| {
            if bad {
                errors.push(PolicyError {
                    field,
                    value,
                    because,
                    safe,
                });
            }
        };
        let suspect = self.suspect_after_milliseconds();
        refuse(
            self.unreachable_after_milliseconds <= suspect,
            "unreachableAfterMilliseconds",
            self.unreachable_after_milliseconds,
            "a host must be Suspect, and its BMC read, before it is unreachable",
            Bounds::MoreThan {
                bound: suspect,
                how: "the sum of ",
                of: &["leaseIntervalMilliseconds", "graceMilliseconds"],
            },
        );
        refuse(
            self.fence_isolated_after_milliseconds < self.unreachable_after_milliseconds,
            "fenceIsolatedAfterMilliseconds",
            self.fence_isolated_after_milliseconds,
            "a host that still runs must not be fenced sooner than one that shows no life",
            Bounds::AtLeast {
                bound: self.unreachable_after_milliseconds,
                how: "",
                of: &["unreachableAfterMilliseconds"],
            },
        );
        refuse(
            self.power_valid_milliseconds < 2 * self.power_interval_milliseconds,
            "powerValidMilliseconds",
            self.power_valid_milliseconds,
            "every reading would be void before the next one comes",
            Bounds::AtLeast {
                bound: 2 * self.power_interval_milliseconds,
                how: "twice ",
                of: &["powerIntervalMilliseconds"],
            },
        );
        let window = self.self_fence_window_milliseconds();
        refuse(
            window > SELF_FENCE_BOUND_MILLISECONDS,
            "contractMilliseconds",
            self.contract_milliseconds,
            "contract, watchdog and margin together would keep VMs down for too long",
            Bounds::Together {
                of: &[
                    "contractMilliseconds",
                    "watchdogMilliseconds",
                    "selfFenceMarginMilliseconds",
                ],
                most: SELF_FENCE_BOUND_MILLISECONDS,
                now: window,
            },
        );
        let longest = self
            .lease_interval_milliseconds
            .max(self.heartbeat_interval_milliseconds);
        refuse(
            self.contract_milliseconds < 3 * longest,
            "contractMilliseconds",
            self.contract_milliseconds,
            "two missed renewals would kill every VM of a healthy host",
            Bounds::AtLeast {
                bound: 3 * longest,
                how: "three times the longer of ",
                of: &["leaseIntervalMilliseconds", "heartbeatIntervalMilliseconds"],
            },
        );
        refuse(
            self.back_off_maximum_milliseconds < self.back_off_milliseconds,
            "backOffMaximumMilliseconds",
            self.back_off_maximum_milliseconds,
            "the longest wait would be shorter than the first",
            Bounds::AtLeast {
                bound: self.back_off_milliseconds,
                how: "",
                of: &["backOffMilliseconds"],
            },
        );
        let one_method = u64::from(self.fence_attempts)
            * (self.fence_send_milliseconds + self.fence_read_back_milliseconds);
        refuse(
            self.fence_expiry_milliseconds < one_method,
            "fenceExpiryMilliseconds",
            self.fence_expiry_milliseconds,
            "the intent would be void before one BMC has been tried",
            Bounds::AtLeast {
                bound: one_method,
                how: "one BMC takes so long, by ",
                of: &[
                    "fenceAttempts",
                    "fenceSendMilliseconds",
                    "fenceReadBackMilliseconds",
                ],
            },
        );
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_safe() {
        assert_eq!(Policy::default().check(), Ok(()));
    }

    fn refused(change: impl FnOnce(&mut Policy)) -> Vec<&'static str> {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
            .check()
            .err()
            .unwrap_or_default()
            .iter()
            .map(|e| e.field)
            .collect()
    }

    #[test]
    fn contradictions_are_refused_by_field() {
        assert_eq!(
            refused(|p| p.unreachable_after_milliseconds = 3_000),
            ["unreachableAfterMilliseconds"]
        );
        assert_eq!(
            refused(|p| p.contract_milliseconds = 30_000),
            ["contractMilliseconds"]
        );
        assert_eq!(
            refused(|p| p.contract_milliseconds = 5_000),
            ["contractMilliseconds"]
        );
        assert_eq!(
            refused(|p| p.power_valid_milliseconds = 1_000),
            ["powerValidMilliseconds"]
        );
        assert_eq!(
            refused(|p| p.fence_expiry_milliseconds = 1_000),
            ["fenceExpiryMilliseconds"]
        );
        assert_eq!(
            refused(|p| p.back_off_maximum_milliseconds = 1_000),
            ["backOffMaximumMilliseconds"]
        );
        assert_eq!(
            refused(|p| {
                p.unreachable_after_milliseconds = 40_000;
            }),
            ["fenceIsolatedAfterMilliseconds"]
        );
    }

    #[test]
    fn absurd_values_name_their_safe_range() {
        let policy = Policy {
            storm_percent: 0,
            ..Policy::default()
        };
        let errors = policy.check().unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "stormPercent: 0 is refused, because the guard would always or never stand; safe: 10 to 100"
        );
    }
}
