//! Hysteresis: a fault is raised after it was seen often enough, and cleared after enough clean
//! time or by a person. Pure; its state is serialisable, so that a restart of the agent forgets
//! nothing.
//!
//! ```text
//!            seen (polls, hold)            clean_seconds, or a person
//!  unknown ──────────────────▶ standing ──────────────────▶ gone
//!     └── not seen: forgotten     └── seen again: last_seen moves on
//! ```
//! A component that could not be read is neither seen nor clean: nothing changes.

use model::{Fault, FaultKind, Severity};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings, Moment, ProbeError};
use crate::probes::Probe;
use crate::thresholds::Thresholds;

/// One fault between first sight and clearance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingFault {
    probe: Probe,
    component: String,
    kind: FaultKind,
    severity: Severity,
    evidence: String,
    count: i64,
    first_seen: Moment,
    last_seen: Moment,
    /// Polls in a row that saw it.
    polls: u32,
    raised: bool,
    clean_since: Option<Moment>,
}

impl StandingFault {
    /// As the host reports it.
    pub fn to_fault(&self) -> Fault {
        Fault {
            component: self.component.clone(),
            kind: self.kind,
            severity: self.severity,
            evidence: self.evidence.clone(),
            count: self.count,
            first_seen: self.first_seen.to_rfc3339(),
            last_seen: self.last_seen.to_rfc3339(),
        }
    }
}

/// What an observation changed, for events and logs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A fault was raised.
    Raised(Fault),
    /// A standing fault got another severity.
    Rerated(Fault),
    /// A fault was cleared.
    Cleared(Fault),
}

/// Faults kept; more than a broken host can have.
const FAULTS_MAX: usize = 1024;

/// All faults of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultTracker {
    faults: Vec<StandingFault>,
}

impl FaultTracker {
    /// Takes in what one probe said now.
    pub fn observe(
        &mut self,
        now: Moment,
        probe: Probe,
        said: &Findings,
        thresholds: &Thresholds,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for finding in &said.findings {
            self.see(now, probe, finding, thresholds, &mut changes);
        }
        let mut kept = Vec::with_capacity(self.faults.len());
        for mut fault in std::mem::take(&mut self.faults) {
            let is_seen = said
                .findings
                .iter()
                .any(|finding| finding.component == fault.component && finding.kind == fault.kind);
            if fault.probe != probe || is_seen || is_unreadable(&fault.component, &said.errors) {
                kept.push(fault);
                continue;
            }
            let clean_since = *fault.clean_since.get_or_insert(now);
            fault.polls = 0;
            if fault.raised && now.seconds_since(clean_since) < thresholds.clear_seconds {
                kept.push(fault);
            } else if fault.raised {
                changes.push(Change::Cleared(fault.to_fault()));
            }
        }
        self.faults = kept;
        changes
    }

    fn see(
        &mut self,
        now: Moment,
        probe: Probe,
        finding: &Finding,
        thresholds: &Thresholds,
        changes: &mut Vec<Change>,
    ) {
        let seen_at = finding.event.unwrap_or(now);
        let has_room = self.faults.len() < FAULTS_MAX;
        let known = self.faults.iter_mut().find(|fault| {
            fault.probe == probe
                && fault.component == finding.component
                && fault.kind == finding.kind
        });
        let fault = match known {
            Some(fault) => fault,
            None if has_room => {
                self.faults.push(StandingFault {
                    probe,
                    component: finding.component.clone(),
                    kind: finding.kind,
                    severity: finding.severity,
                    evidence: String::new(),
                    count: 0,
                    first_seen: now,
                    last_seen: seen_at,
                    polls: 0,
                    raised: false,
                    clean_since: None,
                });
                let Some(fault) = self.faults.last_mut() else {
                    return;
                };
                fault
            }
            None => return,
        };
        let was = fault.severity;
        fault.polls = fault.polls.saturating_add(1);
        fault.clean_since = None;
        fault.last_seen = seen_at.max(fault.last_seen);
        fault.severity = finding.severity;
        fault.evidence.clone_from(&finding.evidence);
        fault.count = finding.count;
        if !fault.raised
            && fault.polls >= thresholds.raise_polls
            && now.seconds_since(fault.first_seen) >= finding.hold_seconds
        {
            fault.raised = true;
            changes.push(Change::Raised(fault.to_fault()));
        } else if fault.raised && was != fault.severity {
            changes.push(Change::Rerated(fault.to_fault()));
        }
    }

    /// Faults that stand, the worst first, then by component and kind.
    pub fn current(&self) -> Vec<Fault> {
        let mut standing: Vec<&StandingFault> =
            self.faults.iter().filter(|fault| fault.raised).collect();
        standing.sort_by(|one, two| {
            two.severity
                .cmp(&one.severity)
                .then_with(|| one.component.cmp(&two.component))
                .then(one.kind.cmp(&two.kind))
        });
        standing.into_iter().map(StandingFault::to_fault).collect()
    }

    /// Whether something was seen that the next poll may raise: it is worth an early one.
    pub fn is_unconfirmed(&self, thresholds: &Thresholds) -> bool {
        self.faults
            .iter()
            .any(|fault| !fault.raised && (1..thresholds.raise_polls).contains(&fault.polls))
    }

    /// A person has dealt with all that was last seen up to this moment. What still lasts is
    /// raised again by the next polls.
    pub fn clear_until(&mut self, unix_seconds: i64) -> Vec<Change> {
        let (cleared, kept) = std::mem::take(&mut self.faults)
            .into_iter()
            .partition(|fault: &StandingFault| fault.last_seen.unix_seconds <= unix_seconds);
        self.faults = kept;
        let cleared: Vec<StandingFault> = cleared;
        cleared
            .iter()
            .filter(|fault| fault.raised)
            .map(|fault| Change::Cleared(fault.to_fault()))
            .collect()
    }
}

fn is_unreadable(component: &str, errors: &[ProbeError]) -> bool {
    errors.iter().any(|error| match &error.component {
        None => true,
        Some(failed) => {
            component == failed
                || component
                    .strip_prefix(failed.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_seconds: i64) -> Moment {
        Moment {
            boot_seconds,
            unix_seconds: 1_700_000_000 + boot_seconds,
        }
    }

    fn said(hold: i64) -> Findings {
        let mut findings = Findings::default();
        findings
            .add(Finding::new("fan/1", FaultKind::Fan, Severity::Degraded, "stands").held(hold));
        findings
    }

    fn observe(tracker: &mut FaultTracker, second: i64, said: &Findings) -> Vec<Change> {
        tracker.observe(at(second), Probe::Bmc, said, &Thresholds::default())
    }

    #[test]
    fn two_polls_in_a_row_raise_and_one_does_not() {
        let mut tracker = FaultTracker::default();
        assert!(observe(&mut tracker, 0, &said(0)).is_empty());
        assert!(observe(&mut tracker, 2, &Findings::default()).is_empty());
        assert!(observe(&mut tracker, 4, &said(0)).is_empty());
        assert!(tracker.current().is_empty());
        assert!(matches!(
            observe(&mut tracker, 6, &said(0))[..],
            [Change::Raised(_)]
        ));
        assert!(observe(&mut tracker, 8, &said(0)).is_empty());
        let fault = &tracker.current()[0];
        assert_eq!(fault.first_seen, at(4).to_rfc3339());
        assert_eq!(fault.last_seen, at(8).to_rfc3339());
    }

    #[test]
    fn what_was_seen_once_wants_an_early_poll_and_what_is_held_does_not() {
        let (mut tracker, thresholds) = (FaultTracker::default(), Thresholds::default());
        assert!(!tracker.is_unconfirmed(&thresholds));
        observe(&mut tracker, 0, &said(600));
        assert!(tracker.is_unconfirmed(&thresholds));
        observe(&mut tracker, 2, &said(600));
        assert!(tracker.current().is_empty());
        assert!(!tracker.is_unconfirmed(&thresholds), "time alone raises it");
        observe(&mut tracker, 4, &Findings::default());
        assert!(!tracker.is_unconfirmed(&thresholds));
    }

    #[test]
    fn a_held_fault_waits_without_a_break() {
        let mut tracker = FaultTracker::default();
        for second in [0, 300, 599] {
            assert!(observe(&mut tracker, second, &said(600)).is_empty());
        }
        assert_eq!(observe(&mut tracker, 600, &said(600)).len(), 1);
        let mut broken = FaultTracker::default();
        observe(&mut broken, 0, &said(600));
        observe(&mut broken, 300, &Findings::default());
        observe(&mut broken, 302, &said(600));
        assert!(observe(&mut broken, 700, &said(600)).is_empty());
    }

    #[test]
    fn thirty_clean_minutes_clear_and_silence_does_not() {
        let mut tracker = FaultTracker::default();
        observe(&mut tracker, 0, &said(0));
        observe(&mut tracker, 2, &said(0));
        observe(&mut tracker, 10, &Findings::default());
        assert!(observe(&mut tracker, 1809, &Findings::default()).is_empty());
        assert!(matches!(
            observe(&mut tracker, 1810, &Findings::default())[..],
            [Change::Cleared(_)]
        ));
        let mut blind = FaultTracker::default();
        observe(&mut blind, 0, &said(0));
        observe(&mut blind, 2, &said(0));
        let mut unreadable = Findings::default();
        unreadable.fail(None, "BMC does not answer");
        observe(&mut blind, 10, &unreadable);
        observe(&mut blind, 9000, &unreadable);
        assert_eq!(blind.current().len(), 1);
        let mut other = Findings::default();
        other.fail(Some("fan/10".into()), "x");
        observe(&mut blind, 10_000, &other);
        assert_eq!(observe(&mut blind, 11_800, &other).len(), 1);
        assert!(
            FaultTracker::default()
                .observe(
                    at(0),
                    Probe::Memory,
                    &Findings::default(),
                    &Thresholds::default()
                )
                .is_empty()
        );
    }

    #[test]
    fn an_alarm_that_flaps_each_minute_stands_once() {
        let mut tracker = FaultTracker::default();
        let mut changes = 0;
        for poll in 0..600 {
            let second = poll * 2;
            let on = (second / 60) % 2 == 0;
            changes += observe(
                &mut tracker,
                second,
                &if on { said(0) } else { Findings::default() },
            )
            .len();
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn a_person_clears_what_is_over_and_not_what_lasts() {
        let mut tracker = FaultTracker::default();
        observe(&mut tracker, 0, &said(0));
        observe(&mut tracker, 2, &said(0));
        assert!(tracker.clear_until(at(1).unix_seconds).is_empty());
        assert_eq!(tracker.clear_until(at(2).unix_seconds).len(), 1);
        assert!(tracker.current().is_empty());
        observe(&mut tracker, 4, &said(0));
        observe(&mut tracker, 6, &said(0));
        assert_eq!(tracker.current().len(), 1);
    }

    #[test]
    fn another_probe_leaves_it_alone_and_state_survives_a_restart() {
        let mut tracker = FaultTracker::default();
        observe(&mut tracker, 0, &said(0));
        observe(&mut tracker, 2, &said(0));
        for second in [10, 5000] {
            tracker.observe(
                at(second),
                Probe::Memory,
                &Findings::default(),
                &Thresholds::default(),
            );
        }
        assert_eq!(tracker.current().len(), 1);
        let text = serde_json::to_string(&tracker).unwrap();
        assert_eq!(
            serde_json::from_str::<FaultTracker>(&text).unwrap(),
            tracker
        );
    }
}
