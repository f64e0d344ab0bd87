//! Memory errors from EDAC (`devices/system/edac/mc`): corrected ones by their rate, an
//! uncorrected one by its mere existence.

use std::collections::BTreeMap;
use std::path::Path;

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings, Moment, Quantity, id_part, span};
use crate::source::{self, ReadError};
use crate::thresholds::Thresholds;
use crate::window::{CountedEvents, FirstValue};

/// Counters of one controller or of a row or module in it, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCounts {
    /// Component id: `memory/mc0` or `memory/mc0/csrow1`, `memory/mc0/dimm3`.
    pub component: String,
    /// Label on the board, where known.
    pub label: Option<String>,
    /// Corrected errors since the driver began.
    pub corrected: u64,
    /// Uncorrected errors since the driver began.
    pub uncorrected: u64,
}

/// History of all counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryHistory {
    corrected: BTreeMap<String, CountedEvents>,
    uncorrected: BTreeMap<String, CountedEvents>,
}

impl MemoryHistory {
    /// Forgets errors that a person has dealt with.
    pub fn clear_until(&mut self, unix_seconds: i64) {
        for events in self
            .corrected
            .values_mut()
            .chain(self.uncorrected.values_mut())
        {
            events.window.clear_until(unix_seconds);
        }
    }
}

/// Reads all controllers. A host without ECC memory has none, which is no error.
pub fn read(sysfs: &Path, findings: &mut Findings) -> Vec<ErrorCounts> {
    let root = sysfs.join("devices/system/edac/mc");
    let controllers = match source::names(&root) {
        Ok(names) => names,
        Err(error) => {
            findings.fail(None, error.sentence());
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    for controller in controllers.iter().filter(|name| is_numbered(name, "mc")) {
        let folder = root.join(controller);
        let component = format!("memory/{controller}");
        note(
            &mut all,
            findings,
            &component,
            counts(&folder, &component, "ce_count", "ue_count"),
        );
        let parts = match source::names(&folder) {
            Ok(parts) => parts,
            Err(error) => {
                findings.fail(Some(component.clone()), error.sentence());
                continue;
            }
        };
        for part in parts {
            let inner = format!("{component}/{}", id_part(&part));
            let read = if is_numbered(&part, "dimm") || is_numbered(&part, "rank") {
                counts(
                    &folder.join(&part),
                    &inner,
                    "dimm_ce_count",
                    "dimm_ue_count",
                )
            } else if is_numbered(&part, "csrow") {
                counts(&folder.join(&part), &inner, "ce_count", "ue_count")
            } else {
                continue;
            };
            note(&mut all, findings, &inner, read);
        }
    }
    all
}

fn note(
    all: &mut Vec<ErrorCounts>,
    findings: &mut Findings,
    component: &str,
    read: Result<Option<ErrorCounts>, ReadError>,
) {
    match read {
        Ok(Some(counts)) => all.push(counts),
        Ok(None) => {}
        Err(error) => findings.fail(Some(component.to_owned()), error.sentence()),
    }
}

fn counts(
    folder: &Path,
    component: &str,
    corrected: &str,
    uncorrected: &str,
) -> Result<Option<ErrorCounts>, ReadError> {
    let corrected = source::counter(&folder.join(corrected))?;
    let uncorrected = source::counter(&folder.join(uncorrected))?;
    if corrected.is_none() && uncorrected.is_none() {
        return Ok(None);
    }
    Ok(Some(ErrorCounts {
        component: component.to_owned(),
        label: source::attribute(&folder.join("dimm_label"))?,
        corrected: corrected.unwrap_or(0),
        uncorrected: uncorrected.unwrap_or(0),
    }))
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Judges counters against their history.
///
/// The same error is counted by a module, its row and its controller. The most exact component
/// at the threshold is named; the controller only when none of its parts is.
pub fn judge(
    counts: &[ErrorCounts],
    history: &mut MemoryHistory,
    now: Moment,
    thresholds: &Thresholds,
) -> Findings {
    let mut findings = Findings::default();
    for count in counts {
        findings.read(
            &count.component,
            Quantity::MemoryCorrectedErrors,
            count.corrected as f64,
        );
        findings.read(
            &count.component,
            Quantity::MemoryUncorrectedErrors,
            count.uncorrected as f64,
        );
        // The age of corrected errors from before the first look is unknown; an uncorrected one
        // happened in this boot, and one is enough.
        history
            .corrected
            .entry(count.component.clone())
            .or_default()
            .observe(now, count.corrected, FirstValue::IsBaseline);
        history
            .uncorrected
            .entry(count.component.clone())
            .or_default()
            .observe(now, count.uncorrected, FirstValue::Counts);
    }
    let mut found: Vec<Finding> = Vec::new();
    // Parts first, controllers last, so that a controller can see whether a part explains it.
    let mut ordered: Vec<&ErrorCounts> = counts.iter().collect();
    ordered.sort_by_key(|count| {
        (
            std::cmp::Reverse(specificity(&count.component)),
            count.component.clone(),
        )
    });
    for count in ordered {
        for finding in [
            corrected(count, history, now, thresholds),
            uncorrected(count, history, now, thresholds),
        ]
        .into_iter()
        .flatten()
        {
            let explained = found.iter().any(|known| {
                known.kind == finding.kind && explains(&known.component, &finding.component)
            });
            if !explained {
                found.push(finding);
            }
        }
    }
    for finding in found {
        findings.add(finding);
    }
    findings
}

/// Modules before rows before controllers.
fn specificity(component: &str) -> u8 {
    match component.rsplit_once('/') {
        Some((_, part)) if part.starts_with("dimm") || part.starts_with("rank") => 2,
        Some((_, part)) if part.starts_with("csrow") => 1,
        _ => 0,
    }
}

/// Whether a known finding says the same about a less exact component of the same controller.
fn explains(known: &str, component: &str) -> bool {
    let controller = |id: &str| id.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
    controller(known) == controller(component) && specificity(known) > specificity(component)
}

fn corrected(
    count: &ErrorCounts,
    history: &mut MemoryHistory,
    now: Moment,
    thresholds: &Thresholds,
) -> Option<Finding> {
    let events = history.corrected.get_mut(&count.component)?;
    let errors = events.window.count(now, thresholds.memory_window_seconds);
    (errors >= thresholds.corrected_memory_errors).then(|| {
        let evidence = format!(
            "{errors} corrected memory errors in {} on {} (limit {}, {} since boot)",
            span(thresholds.memory_window_seconds),
            name(count),
            thresholds.corrected_memory_errors,
            count.corrected
        );
        Finding::new(
            &count.component,
            FaultKind::MemoryCorrectedErrors,
            Severity::Degraded,
            evidence,
        )
        .counted(errors)
        .at(events.window.last())
    })
}

fn uncorrected(
    count: &ErrorCounts,
    history: &mut MemoryHistory,
    now: Moment,
    thresholds: &Thresholds,
) -> Option<Finding> {
    let events = history.uncorrected.get_mut(&count.component)?;
    let errors = events
        .window
        .count(now, thresholds.uncorrected_memory_window_seconds);
    (errors > 0).then(|| {
        let evidence = format!(
            "{errors} uncorrected memory errors on {} that the host survived",
            name(count)
        );
        Finding::new(
            &count.component,
            FaultKind::MemoryUncorrectedError,
            Severity::Critical,
            evidence,
        )
        .counted(errors)
        .at(events.window.last())
    })
}

fn name(count: &ErrorCounts) -> String {
    let short = count.component.trim_start_matches("memory/");
    match &count.label {
        Some(label) => format!("{short} ({})", crate::finding::quote(label, 40)),
        None => short.to_owned(),
    }
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

    fn count(component: &str, corrected: u64, uncorrected: u64) -> ErrorCounts {
        ErrorCounts {
            component: component.to_owned(),
            label: None,
            corrected,
            uncorrected,
        }
    }

    fn kinds(findings: &Findings) -> Vec<(String, FaultKind)> {
        findings
            .findings
            .iter()
            .map(|f| (f.component.clone(), f.kind))
            .collect()
    }

    #[test]
    fn fifty_corrected_errors_in_a_day_are_a_fault_and_forty_nine_are_not() {
        let limits = Thresholds::default();
        for (errors, faulty) in [(49, false), (50, true)] {
            let mut history = MemoryHistory::default();
            judge(
                &[count("memory/mc0", 1000, 0)],
                &mut history,
                at(0),
                &limits,
            );
            let found = judge(
                &[count("memory/mc0", 1000 + errors, 0)],
                &mut history,
                at(2),
                &limits,
            );
            assert_eq!(!found.findings.is_empty(), faulty, "{errors}");
        }
    }

    #[test]
    fn errors_older_than_a_day_do_not_count() {
        let limits = Thresholds::default();
        let mut history = MemoryHistory::default();
        judge(&[count("memory/mc0", 0, 0)], &mut history, at(0), &limits);
        judge(&[count("memory/mc0", 30, 0)], &mut history, at(10), &limits);
        let day = 24 * 3600;
        assert!(
            judge(
                &[count("memory/mc0", 60, 0)],
                &mut history,
                at(day + 100),
                &limits
            )
            .findings
            .is_empty()
        );
        let mut burst = MemoryHistory::default();
        judge(&[count("memory/mc0", 0, 0)], &mut burst, at(0), &limits);
        judge(&[count("memory/mc0", 60, 0)], &mut burst, at(10), &limits);
        assert!(
            !judge(&[count("memory/mc0", 60, 0)], &mut burst, at(day), &limits)
                .findings
                .is_empty()
        );
        assert!(
            judge(
                &[count("memory/mc0", 60, 0)],
                &mut burst,
                at(day + 11),
                &limits
            )
            .findings
            .is_empty()
        );
    }

    #[test]
    fn the_most_exact_component_is_named_once() {
        let limits = Thresholds::default();
        let mut history = MemoryHistory::default();
        let before = [
            count("memory/mc0", 0, 0),
            count("memory/mc0/csrow0", 0, 0),
            count("memory/mc0/csrow1", 0, 0),
        ];
        judge(&before, &mut history, at(0), &limits);
        let after = [
            count("memory/mc0", 60, 0),
            count("memory/mc0/csrow0", 60, 0),
            count("memory/mc0/csrow1", 0, 0),
        ];
        assert_eq!(
            kinds(&judge(&after, &mut history, at(2), &limits)),
            [(
                "memory/mc0/csrow0".to_owned(),
                FaultKind::MemoryCorrectedErrors
            )]
        );
        let mut spread = MemoryHistory::default();
        judge(&before, &mut spread, at(0), &limits);
        let after = [
            count("memory/mc0", 60, 0),
            count("memory/mc0/csrow0", 30, 0),
            count("memory/mc0/csrow1", 30, 0),
        ];
        assert_eq!(
            kinds(&judge(&after, &mut spread, at(2), &limits)),
            [("memory/mc0".to_owned(), FaultKind::MemoryCorrectedErrors)]
        );
    }

    #[test]
    fn one_uncorrected_error_is_critical_even_at_the_first_look_until_a_person_clears_it() {
        let limits = Thresholds::default();
        let mut history = MemoryHistory::default();
        let found = judge(&[count("memory/mc0", 0, 1)], &mut history, at(5), &limits);
        assert_eq!(found.findings[0].severity, Severity::Critical);
        assert_eq!(found.findings[0].event, Some(at(5)));
        history.clear_until(at(6).unix_seconds);
        assert!(
            judge(&[count("memory/mc0", 0, 1)], &mut history, at(7), &limits)
                .findings
                .is_empty()
        );
        assert!(
            !judge(&[count("memory/mc0", 0, 2)], &mut history, at(8), &limits)
                .findings
                .is_empty()
        );
    }

    #[test]
    fn another_limit_and_window_of_corrected_errors_leave_uncorrected_ones_alone() {
        let limits = Thresholds {
            corrected_memory_errors: 10,
            memory_window_seconds: 5400,
            ..Thresholds::default()
        };
        let mut history = MemoryHistory::default();
        judge(&[count("memory/mc0", 0, 0)], &mut history, at(0), &limits);
        let after = [count("memory/mc0", 10, 1)];
        let found = judge(&after, &mut history, at(2), &limits);
        assert_eq!(
            found.findings[0].evidence,
            "10 corrected memory errors in 90 min on mc0 (limit 10, 10 since boot)"
        );
        assert_eq!(found.findings.len(), 2);
        let later = judge(&after, &mut history, at(5403), &limits);
        assert_eq!(
            kinds(&later),
            [("memory/mc0".to_owned(), FaultKind::MemoryUncorrectedError)]
        );
    }

    #[test]
    fn no_errors_no_finding() {
        let mut history = MemoryHistory::default();
        let found = judge(
            &[count("memory/mc0", 5, 0)],
            &mut history,
            at(0),
            &Thresholds::default(),
        );
        assert!(found.findings.is_empty());
        assert_eq!(found.readings.len(), 2);
    }
}
