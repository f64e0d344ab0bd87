//! How a host's report of its copy of a VM is made: a report is merged whole, so each says anew what stays true of
//! the copy for as long as it is the same one.

use api::{CloseReason, Runtime, RuntimePhase, Time, VirtualMachineStatus};
use model::Assignment;

/// A report of the copy of an assignment, made now. `status` is the VM's as this host knows it; when the copy was
/// started, and what its guest writes to its memory while it is there, is taken from there. A copy that runs and was never
/// said to was started now.
pub fn runtime(
    status: Option<&VirtualMachineStatus>,
    assignment: &Assignment,
    phase: RuntimePhase,
    reason: Option<CloseReason>,
    message: Option<String>,
    now: Time,
) -> Runtime {
    let started =
        status.and_then(|status| told(status, assignment, |told| told.started_at.clone()));
    let writes =
        status.and_then(|status| told(status, assignment, |told| told.dirty_mebibytes_per_second));
    let guest_is_there = matches!(phase, RuntimePhase::Running | RuntimePhase::Stalled);
    Runtime {
        assignment: assignment.clone(),
        phase,
        since: now.clone(),
        close_reason: reason,
        message,
        started_at: started.or((phase == RuntimePhase::Running).then_some(now)),
        dirty_mebibytes_per_second: writes.filter(|_| guest_is_there),
    }
}

/// What this host's last report of the copy says; an arrival's was told as such.
fn told<T>(
    status: &VirtualMachineStatus,
    assignment: &Assignment,
    what: impl Fn(&Runtime) -> Option<T>,
) -> Option<T> {
    [&status.runtime, &status.incoming_runtime]
        .into_iter()
        .flatten()
        .filter(|told| told.assignment == *assignment)
        .find_map(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Epoch;

    fn right(epoch: i64) -> Assignment {
        Assignment {
            host: "h1".into(),
            boot_id: "b1".into(),
            epoch: Epoch(epoch),
        }
    }

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).expect("a time"))
    }

    fn report(
        status: Option<&VirtualMachineStatus>,
        epoch: i64,
        phase: RuntimePhase,
        now: i64,
    ) -> Runtime {
        runtime(status, &right(epoch), phase, None, None, at(now))
    }

    /// A leader that is new takes a VM without a start for one that is just being started.
    #[test]
    fn when_a_copy_was_started_is_said_in_every_report_of_it_and_of_no_other() {
        let mut status = VirtualMachineStatus::default();
        for (phase, now) in [
            (RuntimePhase::Running, 10),
            (RuntimePhase::Stalled, 20),
            (RuntimePhase::Running, 30),
            (RuntimePhase::Stopping, 40),
            (RuntimePhase::CloseStuck, 50),
            (RuntimePhase::Closed, 60),
        ] {
            let report = report(Some(&status), 3, phase, now);
            assert_eq!(report.started_at, Some(at(10)), "{phase:?}");
            assert_eq!(report.since, at(now));
            status.runtime = Some(report);
        }
        let next = |phase, now| report(Some(&status), 4, phase, now).started_at;
        assert_eq!(next(RuntimePhase::Preparing, 70), None, "not started yet");
        assert_eq!(next(RuntimePhase::Closed, 70), None, "it never ran");
        assert_eq!(next(RuntimePhase::Running, 80), Some(at(80)));
        assert_eq!(report(None, 4, RuntimePhase::Closed, 70).started_at, None);
    }

    #[test]
    fn what_a_guest_writes_is_said_while_it_is_there_and_of_no_other() {
        let mut status = VirtualMachineStatus::default();
        let mut running = report(None, 3, RuntimePhase::Running, 10);
        assert_eq!(running.dirty_mebibytes_per_second, None);
        running.dirty_mebibytes_per_second = Some(40);
        status.runtime = Some(running);
        for (epoch, phase, writes) in [
            (3, RuntimePhase::Running, Some(40)),
            (3, RuntimePhase::Stalled, Some(40)),
            (3, RuntimePhase::Closed, None),
            (3, RuntimePhase::HandedOver, None),
            (4, RuntimePhase::Running, None),
        ] {
            let report = report(Some(&status), epoch, phase, 20);
            assert_eq!(report.dirty_mebibytes_per_second, writes, "{phase:?}");
        }
    }

    #[test]
    fn an_arrival_has_run_here_since_it_was_told_as_one() {
        let mut status = VirtualMachineStatus {
            runtime: Some(report(None, 3, RuntimePhase::Running, 10)),
            ..VirtualMachineStatus::default()
        };
        status.incoming_runtime = Some(report(Some(&status), 4, RuntimePhase::Running, 20));
        let here = report(Some(&status), 4, RuntimePhase::Running, 30);
        assert_eq!(here.started_at, Some(at(20)));
    }
}
