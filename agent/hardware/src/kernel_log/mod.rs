//! The kernel's log: read incrementally, matched against a table of hardware messages, counted
//! in a window. Reading knows two sources: the device `/dev/kmsg` (one record a read, numbered)
//! and a plain file of lines (a log written by journald or syslog, or a test's file).

mod patterns;
mod reader;

use std::collections::BTreeMap;

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings, Moment, Quantity, quote};
use crate::thresholds::Thresholds;
use crate::window::EventWindow;

pub use patterns::{Rating, recognise};
pub use reader::{LogPosition, LogReader, LogRecord, parse_record};

/// What the log has said so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogHistory {
    /// How far it was read.
    pub position: LogPosition,
    events: BTreeMap<String, LoggedEvents>,
    total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LoggedEvents {
    component: String,
    kind: FaultKind,
    rating: Rating,
    window: EventWindow,
    /// The last line, shortened.
    line: String,
}

/// Distinct (component, kind) pairs kept.
const EVENTS_MAX: usize = 256;

impl LogHistory {
    /// Notes the hardware events among new records. `root_device` is the device of the root file
    /// system, if known: losing it is worse than losing another.
    pub fn observe(&mut self, records: &[LogRecord], root_device: Option<&str>, now: Moment) {
        for record in records.iter().filter(|record| record.from_kernel) {
            let Some(event) = recognise(&record.message, root_device) else {
                continue;
            };
            self.total += 1;
            let key = format!("{}|{:?}|{:?}", event.component, event.kind, event.rating);
            if !self.events.contains_key(&key) && self.events.len() >= EVENTS_MAX {
                continue;
            }
            let known = self.events.entry(key).or_insert_with(|| LoggedEvents {
                component: event.component.clone(),
                kind: event.kind,
                rating: event.rating,
                window: EventWindow::default(),
                line: String::new(),
            });
            known.window.add(now, 1);
            known.line = quote(&record.message, 160);
        }
    }

    /// Forgets events that a person has dealt with.
    pub fn clear_until(&mut self, unix_seconds: i64) {
        for events in self.events.values_mut() {
            events.window.clear_until(unix_seconds);
        }
    }

    /// What stands within the window.
    pub fn judge(&mut self, now: Moment, thresholds: &Thresholds) -> Findings {
        let mut findings = Findings::default();
        findings.read("kernel-log", Quantity::KernelLogErrors, self.total as f64);
        let seconds = thresholds.kernel_log_window_seconds;
        self.events
            .retain(|_, events| events.window.count(now, seconds) > 0);
        for events in self.events.values_mut() {
            let count = events.window.count(now, seconds);
            let severity = severity(events.rating, count, thresholds);
            let evidence = format!(
                "kernel log, {count} times in {} min: {}",
                seconds / 60,
                events.line
            );
            findings.add(
                Finding::new(&events.component, events.kind, severity, evidence)
                    .counted(count)
                    .at(events.window.last()),
            );
        }
        findings
    }
}

fn severity(rating: Rating, count: u64, thresholds: &Thresholds) -> Severity {
    let from = |limit| {
        if count >= limit {
            Severity::Degraded
        } else {
            Severity::Info
        }
    };
    match rating {
        Rating::Always(severity) => severity,
        Rating::DiskErrors => from(thresholds.kernel_disk_errors),
        Rating::HungTasks => from(thresholds.kernel_hung_tasks),
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

    fn records(line: &str, times: usize) -> Vec<LogRecord> {
        vec![
            LogRecord {
                sequence: None,
                from_kernel: true,
                message: line.to_owned()
            };
            times
        ]
    }

    #[test]
    fn five_input_output_errors_in_an_hour_degrade_and_four_are_shown() {
        let limits = Thresholds::default();
        for (times, severity) in [(4, Severity::Info), (5, Severity::Degraded)] {
            let mut history = LogHistory::default();
            history.observe(
                &records(
                    "I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0",
                    times,
                ),
                None,
                at(0),
            );
            let found = history.judge(at(1), &limits);
            assert_eq!(found.findings.len(), 1);
            assert_eq!(found.findings[0].component, "disk/sda");
            assert_eq!(found.findings[0].severity, severity);
            assert!(history.judge(at(3700), &limits).findings.is_empty());
        }
    }

    #[test]
    fn lines_of_user_programs_count_for_nothing() {
        let mut history = LogHistory::default();
        let mut lines = records("{1}[Hardware Error]: event severity: fatal", 1);
        lines[0].from_kernel = false;
        history.observe(&lines, None, at(0));
        assert!(
            history
                .judge(at(1), &Thresholds::default())
                .findings
                .is_empty()
        );
        lines[0].from_kernel = true;
        history.observe(&lines, None, at(0));
        assert_eq!(
            history.judge(at(1), &Thresholds::default()).findings[0].severity,
            Severity::Critical
        );
    }

    #[test]
    fn a_flood_of_names_stays_bounded() {
        let mut history = LogHistory::default();
        for number in 0..10_000 {
            history.observe(
                &records(&format!("I/O error, dev sdx{number}, sector 1"), 1),
                None,
                at(0),
            );
        }
        assert!(history.events.len() <= EVENTS_MAX);
    }
}
