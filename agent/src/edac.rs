//! Memory errors as the kernel counts them (EDAC): how many since this agent began to look, per
//! memory controller. 50 corrected ones in 24 h, or one uncorrected, are a fault.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use model::{Fault, FaultKind, Severity};

/// Corrected errors within [`WINDOW`] that are a fault.
const CORRECTED_MAX: u64 = 50;
/// Window of corrected errors.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Corrected and uncorrected errors of each controller.
pub type Counts = BTreeMap<String, (u64, u64)>;

/// Reads every controller's counters.
///
/// # Errors
/// A counter is there and can not be read; a host without EDAC has none, which is no error.
pub fn read(sysfs: &Path) -> io::Result<Counts> {
    let folder = sysfs.join("devices/system/edac/mc");
    let mut counts = Counts::new();
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(counts),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = |file: &str| -> io::Result<u64> {
            std::fs::read_to_string(entry.path().join(file))?.trim().parse().map_err(io::Error::other)
        };
        if name.starts_with("mc") {
            counts.insert(name, (number("ce_count")?, number("ue_count")?));
        }
    }
    Ok(counts)
}

/// What was counted when.
#[derive(Debug, Default)]
pub struct Memory {
    samples: Vec<(Timestamp, Counts)>,
    first_seen: BTreeMap<(String, bool), Timestamp>,
}

impl Memory {
    /// Judges the counters; errors counted before a clearance no longer count.
    pub fn judge(&mut self, counts: &Counts, cleared: Option<Timestamp>, now: Timestamp) -> Vec<Fault> {
        self.samples.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        if self.samples.last().is_none_or(|(_, last)| last != counts) {
            self.samples.push((now, counts.clone()));
        }
        // The newest sample from before the clearance is what later ones are compared with.
        if let Some(keep) = cleared.and_then(|cleared| self.samples.iter().rposition(|(at, _)| *at <= cleared)) {
            self.samples.drain(..keep);
            self.first_seen.retain(|_, at| cleared.is_some_and(|cleared| *at > cleared));
        }
        let base = self.samples.first().map(|(_, counts)| counts.clone()).unwrap_or_default();
        let mut faults = Vec::new();
        for (controller, (corrected, uncorrected)) in counts {
            let (corrected_before, uncorrected_before) = base.get(controller).copied().unwrap_or_default();
            let corrected = corrected.saturating_sub(corrected_before);
            let uncorrected = uncorrected.saturating_sub(uncorrected_before);
            if corrected >= CORRECTED_MAX {
                faults.push(self.fault(controller, false, corrected, now));
            }
            if uncorrected > 0 {
                faults.push(self.fault(controller, true, uncorrected, now));
            }
        }
        faults
    }

    fn fault(&mut self, controller: &str, uncorrected: bool, count: u64, now: Timestamp) -> Fault {
        let first = *self.first_seen.entry((controller.to_owned(), uncorrected)).or_insert(now);
        let (kind, severity, word) = if uncorrected {
            (FaultKind::MemoryUncorrectedError, Severity::Critical, "uncorrected")
        } else {
            (FaultKind::MemoryCorrectedErrors, Severity::Degraded, "corrected")
        };
        Fault {
            component: format!("memory/{controller}"),
            kind,
            severity,
            evidence: format!("{count} {word} memory errors on {controller} within 24 h"),
            count: i64::try_from(count).unwrap_or(i64::MAX),
            first_seen: first.to_string(),
            // Counters only grow: seen once, it stands until it is cleared.
            last_seen: first.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(corrected: u64, uncorrected: u64) -> Counts {
        Counts::from([("mc0".to_owned(), (corrected, uncorrected))])
    }

    #[test]
    fn fifty_corrected_errors_are_a_fault_and_forty_nine_are_none() {
        let (mut memory, now) = (Memory::default(), Timestamp::UNIX_EPOCH);
        assert!(memory.judge(&counts(1000, 0), None, now).is_empty(), "what was counted before is no news");
        assert!(memory.judge(&counts(1049, 0), None, now).is_empty());
        let faults = memory.judge(&counts(1050, 0), None, now);
        assert_eq!((faults[0].kind, faults[0].severity), (FaultKind::MemoryCorrectedErrors, Severity::Degraded));
        assert_eq!(memory.judge(&counts(1050, 1), None, now).len(), 2, "an uncorrected one is another fault");
    }

    #[test]
    fn a_clearance_forgets_what_was_counted_before_it() {
        let (mut memory, at) = (Memory::default(), |seconds| Timestamp::from_second(seconds).expect("a time"));
        memory.judge(&counts(0, 0), None, at(0));
        assert_eq!(memory.judge(&counts(60, 0), None, at(10)).len(), 1);
        assert!(memory.judge(&counts(60, 0), Some(at(20)), at(30)).is_empty());
        assert_eq!(memory.judge(&counts(120, 0), Some(at(20)), at(40)).len(), 1, "new ones count again");
    }
}
