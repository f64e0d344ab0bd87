//! Judges the host's clock by the state that the kernel reports (`adjtimex`, read by the
//! caller). Never worse than `Info`: failover compares no wall clocks. Pure.

use model::{FaultKind, Severity};

use crate::finding::{Finding, Findings, Quantity};
use crate::thresholds::Thresholds;

/// What the kernel says about its clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockState {
    /// A time service disciplines it (`STA_UNSYNC` is not set).
    pub synchronised: bool,
    /// Estimated offset, seconds; may be negative.
    pub offset_seconds: f64,
}

/// Judges the clock.
pub fn judge_clock(state: ClockState, thresholds: &Thresholds) -> Findings {
    let mut findings = Findings::default();
    findings.read(
        "clock",
        Quantity::ClockSynchronised,
        f64::from(u8::from(state.synchronised)),
    );
    findings.read("clock", Quantity::ClockOffset, state.offset_seconds);
    let evidence = if !state.synchronised {
        "no time service disciplines the clock; start chrony or systemd-timesyncd".to_owned()
    } else if state.offset_seconds.abs() >= thresholds.clock_offset_seconds {
        format!(
            "the clock is off by {:.3} s (limit {} s)",
            state.offset_seconds, thresholds.clock_offset_seconds
        )
    } else {
        return findings;
    };
    findings.add(
        Finding::new(
            "clock",
            FaultKind::ClockUnsynchronised,
            Severity::Info,
            evidence,
        )
        .held(thresholds.clock_hold_seconds),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_by_a_second_or_unsynchronised_is_shown() {
        let is_faulty = |synchronised, offset_seconds| {
            !judge_clock(
                ClockState {
                    synchronised,
                    offset_seconds,
                },
                &Thresholds::default(),
            )
            .findings
            .is_empty()
        };
        assert!(!is_faulty(true, 0.999));
        assert!(is_faulty(true, 1.0));
        assert!(is_faulty(true, -1.0));
        assert!(is_faulty(false, 0.0));
        assert!(!is_faulty(true, f64::NAN));
    }
}
