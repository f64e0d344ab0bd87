//! Hardware faults: which of those that an agent reports stand, how severe each is here,
//! and whether an evacuation may begin.
//!
//! The agent's probes hold a fault for two polls before they report it and for 30 clean
//! minutes before they drop it (both are the site's to set). That memory dies with a reboot,
//! so a fault that vanishes with a new boot is held here until it has been absent for the
//! same time.

use std::collections::{BTreeMap, BTreeSet};

use model::{BootId, FaultKind, HostName, Severity};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::Moment;

/// What makes a fault the same fault.
pub type FaultKey = (String, FaultKind);

/// One fault as reported. Wall-clock times are compared only with a person's clearance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedFault {
    /// The component.
    pub component: String,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// Rating by the probe.
    pub severity: Severity,
    /// What was seen.
    pub evidence: String,
    /// When it was last seen, seconds of the wall clock.
    pub last_seen_seconds: i64,
}

/// A fault that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandingFault {
    /// Severity under the site's policy.
    pub severity: Severity,
    /// What was seen last.
    pub evidence: String,
    /// Since when it stands, on this operator's clock.
    pub since: Moment,
    /// When the probe saw it last, seconds of the wall clock.
    pub last_seen_seconds: i64,
    /// When it was last reported, on this operator's clock.
    pub reported_at: Moment,
    /// Boot that reported it last.
    pub boot_id: BootId,
}

/// The faults of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultBook {
    standing: BTreeMap<FaultKey, StandingFault>,
}

/// What changed with one report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct FaultChanges {
    /// Faults that stand from now on.
    pub raised: Vec<FaultKey>,
    /// Faults that do not stand any more.
    pub cleared: Vec<FaultKey>,
}

impl FaultBook {
    /// Takes the present report. `cleared_until_seconds`: a person declared all faults last
    /// seen up to this wall-clock second as dealt with.
    pub fn observe(
        &mut self,
        boot_id: &BootId,
        reported: &[ReportedFault],
        cleared_until_seconds: Option<i64>,
        policy: &Policy,
        now: Moment,
    ) -> FaultChanges {
        let mut changes = FaultChanges::default();
        let mut cleared_by_person = BTreeSet::new();
        let mut present = BTreeSet::new();
        for fault in reported {
            let key = (fault.component.clone(), fault.kind);
            if cleared_until_seconds.is_some_and(|until| fault.last_seen_seconds <= until) {
                cleared_by_person.insert(key);
                continue;
            }
            present.insert(key.clone());
            let severity = policy
                .severities
                .get(&fault.kind)
                .copied()
                .unwrap_or(fault.severity);
            let since = self
                .standing
                .get(&key)
                .map_or(now, |standing| standing.since);
            let standing = StandingFault {
                severity,
                evidence: fault.evidence.clone(),
                since,
                last_seen_seconds: fault.last_seen_seconds,
                reported_at: now,
                boot_id: boot_id.clone(),
            };
            if self.standing.insert(key.clone(), standing).is_none() {
                changes.raised.push(key);
            }
        }
        self.standing.retain(|key, fault| {
            let same_boot = fault.boot_id == *boot_id;
            let absent_long = now.since(fault.reported_at) >= policy.fault_clear_milliseconds;
            let cleared =
                cleared_until_seconds.is_some_and(|until| fault.last_seen_seconds <= until);
            let keep = present.contains(key)
                || !(cleared || cleared_by_person.contains(key) || same_boot || absent_long);
            if !keep {
                changes.cleared.push(key.clone());
            }
            keep
        });
        changes
    }

    /// The faults that stand.
    pub fn standing(&self) -> &BTreeMap<FaultKey, StandingFault> {
        &self.standing
    }

    /// How many stand that quarantine the host (Degraded or Critical).
    pub fn quarantining(&self) -> u32 {
        let count = self
            .standing
            .values()
            .filter(|fault| fault.severity >= Severity::Degraded)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The worst severity that stands.
    pub fn worst(&self) -> Option<Severity> {
        self.standing.values().map(|fault| fault.severity).max()
    }
}

/// Which evacuations because of faults were begun, to bound them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvacuationLedger {
    begun: BTreeMap<HostName, Moment>,
}

impl EvacuationLedger {
    /// Whether a new evacuation of this host may begin, given the hosts being emptied now.
    /// Retries of one that runs or is blocked are no new ones and need no permit.
    ///
    /// # Errors
    /// Why it must wait.
    pub fn permit(
        &self,
        host: &HostName,
        running: &BTreeSet<HostName>,
        policy: &Policy,
        now: Moment,
    ) -> Result<(), Reason> {
        if running.contains(host) {
            return Ok(());
        }
        if let Some(begun) = self.begun.get(host) {
            let left = policy
                .evacuation_interval_milliseconds
                .saturating_sub(now.since(*begun));
            if left > 0 {
                return Err(Reason::EvacuatedRecently {
                    left_milliseconds: left,
                });
            }
        }
        let at_once = u32::try_from(running.len()).unwrap_or(u32::MAX);
        if at_once >= policy.hosts_evacuated_at_once {
            return Err(Reason::TooManyEvacuations { at_once });
        }
        Ok(())
    }

    /// Notes that an evacuation began.
    pub fn begin(&mut self, host: HostName, now: Moment) {
        self.begun.insert(host, now);
    }

    /// Takes over when an evacuation began that this ledger has not seen begin.
    pub fn recall(&mut self, host: HostName, begun: Moment) {
        self.begun.entry(host).or_insert(begun);
    }

    /// A person cleared the host: the next fault is a new story.
    pub fn forget(&mut self, host: &HostName) {
        self.begun.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, severity: Severity, seen: i64) -> ReportedFault {
        ReportedFault {
            component: "memory/mc0".to_owned(),
            kind,
            severity,
            evidence: "61 in 24 h".to_owned(),
            last_seen_seconds: seen,
        }
    }

    #[test]
    fn a_reported_fault_stands_until_its_probe_drops_it() {
        let policy = Policy::default();
        let mut book = FaultBook::default();
        let memory = fault(FaultKind::MemoryCorrectedErrors, Severity::Degraded, 100);
        let boot = BootId::from("b1");
        assert_eq!(
            book.observe(
                &boot,
                std::slice::from_ref(&memory),
                None,
                &policy,
                Moment(0)
            )
            .raised
            .len(),
            1
        );
        assert_eq!(
            book.observe(
                &boot,
                std::slice::from_ref(&memory),
                None,
                &policy,
                Moment(1)
            ),
            FaultChanges::default()
        );
        assert_eq!(
            (book.quarantining(), book.worst()),
            (1, Some(Severity::Degraded))
        );
        assert_eq!(
            book.observe(&boot, &[], None, &policy, Moment(2))
                .cleared
                .len(),
            1
        );
        assert_eq!(book.quarantining(), 0);
    }

    #[test]
    fn a_reboot_does_not_heal_before_the_clean_time() {
        let policy = Policy::default();
        let mut book = FaultBook::default();
        let _ = book.observe(
            &"b1".into(),
            &[fault(FaultKind::DiskFailing, Severity::Degraded, 1)],
            None,
            &policy,
            Moment(0),
        );
        let _ = book.observe(&"b2".into(), &[], None, &policy, Moment(1_799_999));
        assert_eq!(book.quarantining(), 1);
        let _ = book.observe(&"b2".into(), &[], None, &policy, Moment(1_800_000));
        assert_eq!(book.quarantining(), 0);
    }

    #[test]
    fn a_person_clears_what_a_former_boot_reported() {
        let policy = Policy::default();
        let mut book = FaultBook::default();
        let seen = fault(FaultKind::MemoryCorrectedErrors, Severity::Degraded, 100);
        let _ = book.observe(&"b1".into(), &[seen], None, &policy, Moment(0));
        let _ = book.observe(&"b2".into(), &[], Some(99), &policy, Moment(1));
        assert_eq!(book.quarantining(), 1, "cleared before it was seen last");
        let changes = book.observe(&"b2".into(), &[], Some(100), &policy, Moment(2));
        assert_eq!(changes.cleared.len(), 1, "the module was replaced");
        assert_eq!(book.quarantining(), 0);
    }

    #[test]
    fn a_person_clears_what_was_seen_and_nothing_newer() {
        let policy = Policy::default();
        let mut book = FaultBook::default();
        let old = fault(FaultKind::MemoryCorrectedErrors, Severity::Degraded, 100);
        let _ = book.observe(
            &"b".into(),
            std::slice::from_ref(&old),
            None,
            &policy,
            Moment(0),
        );
        assert_eq!(
            book.observe(&"b".into(), &[old], Some(100), &policy, Moment(1))
                .cleared
                .len(),
            1
        );
        let newer = fault(FaultKind::MemoryCorrectedErrors, Severity::Degraded, 101);
        assert_eq!(
            book.observe(&"b".into(), &[newer], Some(100), &policy, Moment(2))
                .raised
                .len(),
            1
        );
    }

    #[test]
    fn the_site_rates_differently() {
        let mut policy = Policy::default();
        policy.severities.insert(FaultKind::Fan, Severity::Info);
        let mut book = FaultBook::default();
        let _ = book.observe(
            &"b".into(),
            &[fault(FaultKind::Fan, Severity::Degraded, 1)],
            None,
            &policy,
            Moment(0),
        );
        assert_eq!(
            (book.quarantining(), book.worst()),
            (0, Some(Severity::Info))
        );
    }

    #[test]
    fn evacuations_are_bounded_per_host_and_at_once() {
        let policy = Policy::default();
        let mut ledger = EvacuationLedger::default();
        let running = |names: &[&str]| {
            names
                .iter()
                .map(|name| HostName::from(*name))
                .collect::<BTreeSet<_>>()
        };
        let host = HostName::from("h1");
        assert!(
            ledger
                .permit(&host, &running(&[]), &policy, Moment(0))
                .is_ok()
        );
        ledger.begin(host.clone(), Moment(0));
        assert!(
            ledger
                .permit(&host, &running(&["h1"]), &policy, Moment(60_000))
                .is_ok(),
            "its own retry"
        );
        assert_eq!(
            ledger.permit(&host, &running(&[]), &policy, Moment(60_000)),
            Err(Reason::EvacuatedRecently {
                left_milliseconds: 1_740_000
            })
        );
        assert!(
            ledger
                .permit(&host, &running(&[]), &policy, Moment(1_800_000))
                .is_ok()
        );
        assert_eq!(
            ledger.permit(&"h4".into(), &running(&["h2", "h3"]), &policy, Moment(0)),
            Err(Reason::TooManyEvacuations { at_once: 2 })
        );
        ledger.forget(&host);
        assert!(
            ledger
                .permit(&host, &running(&[]), &policy, Moment(1))
                .is_ok()
        );
    }
}
