//! Failures in a row of one VM, counted from epoch to epoch: how long its next start waits, and which
//! hosts it had better not be started on.

use std::collections::BTreeSet;

use model::{Assignment, Epoch, HostName};
use serde::{Deserialize, Serialize};

use crate::copy::{CloseCause, CopyPhase, CopyReport};
use crate::policy::Policy;
use crate::time::Moment;

/// Failures in a row of one VM, as one operator saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failures {
    /// Crashes or failed starts since it last ran for long.
    pub in_a_row: u32,
    /// When the operator saw the last one.
    pub last_seen_at: Option<Moment>,
    /// Hosts that could not start it since it last ran. One that fails a second time was chosen because all
    /// others are here too: then every other host is worth a try again.
    pub hosts: BTreeSet<HostName>,
    /// The epoch that was counted last: each counts once.
    pub counted: Option<Epoch>,
}

impl CloseCause {
    /// The copy never ran: another host may do better.
    pub fn is_failed_start(self) -> bool {
        matches!(self, Self::StartFailed | Self::ImageLocked | Self::Declined)
    }

    /// Nobody wanted the copy to end.
    pub fn is_failure(self) -> bool {
        self == Self::Crashed || self.is_failed_start()
    }
}

impl Failures {
    /// What a former operator counted. When it saw the last one is its own affair: the wait begins anew.
    pub fn restored(in_a_row: u32, hosts: BTreeSet<HostName>, counted: Epoch, now: Moment) -> Self {
        Self {
            in_a_row,
            last_seen_at: (in_a_row > 0).then_some(now),
            hosts,
            counted: Some(counted),
        }
    }

    /// Takes what the agent of the assigned host reports about its copy.
    pub fn note(&mut self, report: &CopyReport, policy: &Policy, now: Moment) {
        if report.phase == CopyPhase::Running {
            self.hosts.clear();
        }
        let failure = report.cause.filter(|cause| cause.is_failure());
        let Assignment { host, epoch, .. } = &report.assignment;
        if let Some(cause) = failure.filter(|_| report.phase == CopyPhase::Closed)
            && self.counted != Some(*epoch)
        {
            self.in_a_row += 1;
            self.last_seen_at = Some(now);
            self.counted = Some(*epoch);
            let again = !cause.is_failed_start() || self.hosts.contains(host);
            if again {
                self.hosts.clear();
            }
            if cause.is_failed_start() {
                self.hosts.insert(host.clone());
            }
        }
        let long_ago = self
            .last_seen_at
            .is_some_and(|at| now.since(at) > policy.back_off_reset_milliseconds);
        if long_ago && report.phase == CopyPhase::Running {
            *self = Self::default();
        }
    }

    /// Milliseconds until the next start; none when it may start now.
    pub fn back_off_left(&self, policy: &Policy, now: Moment) -> Option<u64> {
        let last = self.last_seen_at?;
        let wait = back_off_milliseconds(self.in_a_row, policy);
        let left = wait.saturating_sub(now.since(last));
        (left > 0).then_some(left)
    }
}

/// The wait after so many failures in a row: doubles, up to the policy's maximum.
pub fn back_off_milliseconds(in_a_row: u32, policy: &Policy) -> u64 {
    if in_a_row == 0 {
        return 0;
    }
    let factor = 1_u64.checked_shl(in_a_row - 1).unwrap_or(u64::MAX);
    policy
        .back_off_milliseconds
        .saturating_mul(factor)
        .min(policy.back_off_maximum_milliseconds)
}

#[cfg(test)]
mod tests {
    use model::BootId;

    use super::*;

    fn copy(host: &str, epoch: i64) -> Assignment {
        Assignment {
            host: host.into(),
            boot_id: BootId("b".to_owned()),
            epoch: Epoch(epoch),
        }
    }

    fn closed(host: &str, epoch: i64, cause: CloseCause) -> CopyReport {
        CopyReport::closed(copy(host, epoch), cause)
    }

    fn hosts(failures: &Failures) -> Vec<&str> {
        failures.hosts.iter().map(HostName::as_str).collect()
    }

    #[test]
    fn every_host_that_could_not_start_it_is_avoided_until_all_were_tried() {
        let (mut failures, policy) = (Failures::default(), Policy::default());
        let mut fails = |host: &str, epoch| {
            let report = closed(host, epoch, CloseCause::StartFailed);
            failures.note(&report, &policy, Moment(0));
            failures.note(&report, &policy, Moment(1));
            hosts(&failures).join(" ")
        };
        assert_eq!(fails("h1", 1), "h1");
        assert_eq!(fails("h2", 2), "h1 h2");
        assert_eq!(fails("h3", 3), "h1 h2 h3");
        assert_eq!(
            fails("h1", 4),
            "h1",
            "nothing is left, so the others are tried anew"
        );
        assert_eq!(fails("h2", 5), "h1 h2");
        assert_eq!(failures.in_a_row, 5, "each epoch counts once");
    }

    #[test]
    fn a_copy_that_ran_clears_the_hosts_at_once_and_the_count_when_it_ran_for_long() {
        let (mut failures, policy) = (Failures::default(), Policy::default());
        failures.note(&closed("h1", 1, CloseCause::Declined), &policy, Moment(0));
        failures.note(&closed("h2", 2, CloseCause::Crashed), &policy, Moment(0));
        assert_eq!(
            (hosts(&failures), failures.in_a_row),
            (vec![], 2),
            "a crash shows that it ran"
        );
        failures.note(
            &closed("h1", 3, CloseCause::ImageLocked),
            &policy,
            Moment(0),
        );
        let runs = CopyReport::new(copy("h2", 4), CopyPhase::Running);
        failures.note(&runs, &policy, Moment(policy.back_off_reset_milliseconds));
        assert_eq!((hosts(&failures), failures.in_a_row), (vec![], 3));
        failures.note(
            &runs,
            &policy,
            Moment(policy.back_off_reset_milliseconds + 1),
        );
        assert_eq!(failures, Failures::default());
    }

    #[test]
    fn what_a_former_operator_counted_is_not_counted_again() {
        let policy = Policy::default();
        let hosts = BTreeSet::from(["h1".into(), "h2".into()]);
        let mut failures = Failures::restored(4, hosts.clone(), Epoch(7), Moment(9_000));
        failures.note(
            &closed("h2", 7, CloseCause::StartFailed),
            &policy,
            Moment(9_100),
        );
        assert_eq!((failures.in_a_row, &failures.hosts), (4, &hosts));
        assert_eq!(
            failures.back_off_left(&policy, Moment(10_000)),
            Some(39_000)
        );
        failures.note(
            &closed("h3", 8, CloseCause::StartFailed),
            &policy,
            Moment(60_000),
        );
        assert_eq!((failures.in_a_row, failures.hosts.len()), (5, 3));
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_failure() {
        let (mut failures, policy) = (Failures::default(), Policy::default());
        for cause in [
            CloseCause::Requested,
            CloseCause::GuestShutdown,
            CloseCause::Superseded,
        ] {
            failures.note(&closed("h1", 1, cause), &policy, Moment(0));
        }
        assert_eq!(failures, Failures::default());
    }

    #[test]
    fn the_wait_doubles_up_to_the_maximum() {
        let policy = Policy::default();
        assert_eq!(back_off_milliseconds(3, &policy), 20_000);
        assert_eq!(back_off_milliseconds(60, &policy), 300_000);
    }
}
