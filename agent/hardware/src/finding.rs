//! What a probe says: findings (something is wrong), readings (figures for metrics) and errors
//! (it could not be read). Types only; nothing here reads or judges.

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

/// A point in time, passed in by the caller.
///
/// Durations are only computed from `boot_seconds`; the wall clock is for people, since it may
/// jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the host booted (`CLOCK_BOOTTIME`).
    pub boot_seconds: i64,
    /// Seconds since 1970-01-01 UTC by the host's wall clock, for display.
    pub unix_seconds: i64,
}

impl Moment {
    /// The wall clock as RFC 3339; times that no calendar holds become the epoch.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_second(self.unix_seconds)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_string()
    }

    /// Seconds from an earlier moment to this one; never negative.
    pub fn seconds_since(self, earlier: Moment) -> i64 {
        self.boot_seconds
            .saturating_sub(earlier.boot_seconds)
            .max(0)
    }
}

/// Something wrong with one component, as one poll saw it (before hysteresis).
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Stable id, such as `memory/mc0/csrow0`, `disk/nvme0`, `nic/eth1`, `psu/1`.
    pub component: String,
    /// What is wrong.
    pub kind: FaultKind,
    /// Default rating; the site's policy can change it.
    pub severity: Severity,
    /// One sentence with the values that were seen.
    pub evidence: String,
    /// How many errors, flaps or sectors, where that is meaningful; else 0.
    pub count: i64,
    /// How long it must last without a break before it is raised, seconds.
    pub hold_seconds: i64,
    /// For counted events: when the last one happened. A state (a fan stands still) has none and
    /// is seen anew at each poll. The difference decides what a person's clearance means: an old
    /// event stays cleared, a lasting state comes back.
    pub event: Option<Moment>,
}

impl Finding {
    /// A lasting state, raised after the usual number of polls.
    pub fn new(
        component: impl Into<String>,
        kind: FaultKind,
        severity: Severity,
        evidence: impl Into<String>,
    ) -> Self {
        Finding {
            component: component.into(),
            kind,
            severity,
            evidence: evidence.into(),
            count: 0,
            hold_seconds: 0,
            event: None,
        }
    }

    /// With a count.
    pub fn counted(mut self, count: u64) -> Self {
        self.count = i64::try_from(count).unwrap_or(i64::MAX);
        self
    }

    /// Raised only after it has lasted this long.
    pub fn held(mut self, seconds: i64) -> Self {
        self.hold_seconds = seconds;
        self
    }

    /// Happened at a moment, rather than lasting.
    pub fn at(mut self, event: Option<Moment>) -> Self {
        self.event = event;
        self
    }
}

/// A span of time in the largest unit that tells it exactly.
pub fn span(seconds: i64) -> String {
    if seconds % 3600 == 0 {
        format!("{} h", seconds / 3600)
    } else if seconds % 60 == 0 {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

/// What a reading measures; each is one metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantity {
    /// Degrees Celsius.
    Temperature,
    /// Revolutions per minute.
    FanSpeed,
    /// Fan speed as a share of its greatest, percent.
    FanDuty,
    /// Watts drawn or delivered.
    Power,
    /// Corrected memory errors since the counter began.
    MemoryCorrectedErrors,
    /// Uncorrected memory errors since the counter began.
    MemoryUncorrectedErrors,
    /// 1 when the disk's self-assessment passed, 0 when it failed; absent when it says nothing.
    DiskHealthy,
    /// 1 when the disk reports its health at all, else 0.
    DiskHealthKnown,
    /// Share of the rated endurance used, percent; may exceed 100.
    DiskWear,
    /// Spare blocks left, percent.
    DiskSpare,
    /// Errors of the medium over the disk's life.
    DiskMediaErrors,
    /// Sectors waiting for reallocation.
    DiskPendingSectors,
    /// Sectors reallocated over the disk's life.
    DiskReallocatedSectors,
    /// Hours powered on.
    DiskPowerOnHours,
    /// Errors in the disk's own log.
    DiskLoggedErrors,
    /// 1 when the link has carrier, else 0.
    LinkCarrier,
    /// Carrier changes since the device appeared.
    LinkCarrierChanges,
    /// Receive errors since the device appeared.
    LinkReceiveErrors,
    /// Transmit errors since the device appeared.
    LinkTransmitErrors,
    /// Members that an md array lacks.
    ArrayMissingMembers,
    /// Progress of an md array's rebuild, resync or check, percent.
    ArraySyncProgress,
    /// 1 when a real file system is mounted read-only, else 0.
    FileSystemReadOnly,
    /// Seconds that a storage pool took to answer, or has been silent.
    PoolLatency,
    /// Seconds by which the host's clock is off, as the kernel knows it.
    ClockOffset,
    /// 1 when the kernel's clock is synchronised, else 0.
    ClockSynchronised,
    /// Lines of the kernel log that named a hardware error.
    KernelLogErrors,
}

impl Quantity {
    /// Name of the metric family by Prometheus conventions (base units, unit last).
    pub fn metric_name(self) -> &'static str {
        match self {
            Quantity::Temperature => "zhengyun_hardware_temperature_celsius",
            Quantity::FanSpeed => "zhengyun_hardware_fan_rpm",
            Quantity::FanDuty => "zhengyun_hardware_fan_duty_percent",
            Quantity::Power => "zhengyun_hardware_power_watts",
            Quantity::MemoryCorrectedErrors => "zhengyun_hardware_memory_corrected_errors_total",
            Quantity::MemoryUncorrectedErrors => {
                "zhengyun_hardware_memory_uncorrected_errors_total"
            }
            Quantity::DiskHealthy => "zhengyun_hardware_disk_healthy",
            Quantity::DiskHealthKnown => "zhengyun_hardware_disk_health_known",
            Quantity::DiskWear => "zhengyun_hardware_disk_wear_percent",
            Quantity::DiskSpare => "zhengyun_hardware_disk_spare_percent",
            Quantity::DiskMediaErrors => "zhengyun_hardware_disk_media_errors_total",
            Quantity::DiskPendingSectors => "zhengyun_hardware_disk_pending_sectors",
            Quantity::DiskReallocatedSectors => "zhengyun_hardware_disk_reallocated_sectors_total",
            Quantity::DiskPowerOnHours => "zhengyun_hardware_disk_power_on_hours",
            Quantity::DiskLoggedErrors => "zhengyun_hardware_disk_logged_errors_total",
            Quantity::LinkCarrier => "zhengyun_hardware_link_carrier",
            Quantity::LinkCarrierChanges => "zhengyun_hardware_link_carrier_changes_total",
            Quantity::LinkReceiveErrors => "zhengyun_hardware_link_receive_errors_total",
            Quantity::LinkTransmitErrors => "zhengyun_hardware_link_transmit_errors_total",
            Quantity::ArrayMissingMembers => "zhengyun_hardware_array_missing_members",
            Quantity::ArraySyncProgress => "zhengyun_hardware_array_sync_progress_percent",
            Quantity::FileSystemReadOnly => "zhengyun_hardware_file_system_read_only",
            Quantity::PoolLatency => "zhengyun_storage_pool_latency_seconds",
            Quantity::ClockOffset => "zhengyun_clock_offset_seconds",
            Quantity::ClockSynchronised => "zhengyun_clock_synchronised",
            Quantity::KernelLogErrors => "zhengyun_hardware_kernel_log_errors_total",
        }
    }
}

/// One figure of one component.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The component, as in [`Finding::component`].
    pub component: String,
    /// What is measured, and in which unit.
    pub quantity: Quantity,
    /// The value; always finite.
    pub value: f64,
}

/// Something that could not be read. Says nothing about health, in either direction.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeError {
    /// The component concerned; absent when the whole probe failed.
    pub component: Option<String>,
    /// What failed and what to do, one sentence.
    pub message: String,
}

/// All that one probe said in one poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Figures.
    pub readings: Vec<Reading>,
    /// What could not be read.
    pub errors: Vec<ProbeError>,
}

/// Most findings, readings or errors that one probe may produce in one poll, each: a broken or
/// hostile source must not fill the host's status or the metrics.
pub const ENTRIES_MAX: usize = 2048;

impl Findings {
    /// Notes a fault; a second one of the same component and kind is merged into the first, with
    /// the greater severity.
    pub fn add(&mut self, finding: Finding) {
        let has_room = self.findings.len() < ENTRIES_MAX;
        let same = self
            .findings
            .iter_mut()
            .find(|known| known.component == finding.component && known.kind == finding.kind);
        match same {
            Some(known) => merge(known, finding),
            None if has_room => self.findings.push(finding),
            None => {}
        }
    }

    /// Notes a figure; values that are no number are dropped, since a metric can not hold them.
    pub fn read(&mut self, component: impl Into<String>, quantity: Quantity, value: f64) {
        if value.is_finite() && self.readings.len() < ENTRIES_MAX {
            self.readings.push(Reading {
                component: component.into(),
                quantity,
                value,
            });
        }
    }

    /// Notes what could not be read.
    pub fn fail(&mut self, component: Option<String>, message: impl Into<String>) {
        if self.errors.len() < ENTRIES_MAX {
            self.errors.push(ProbeError {
                component,
                message: message.into(),
            });
        }
    }

    /// Takes over all that another said.
    pub fn extend(&mut self, other: Findings) {
        for finding in other.findings {
            self.add(finding);
        }
        let room = ENTRIES_MAX.saturating_sub(self.readings.len());
        self.readings.extend(other.readings.into_iter().take(room));
        let room = ENTRIES_MAX.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.into_iter().take(room));
    }
}

/// Bytes of evidence kept per fault.
const EVIDENCE_BYTES_MAX: usize = 600;

fn merge(known: &mut Finding, other: Finding) {
    if !known.evidence.contains(&other.evidence)
        && known.evidence.len() + other.evidence.len() < EVIDENCE_BYTES_MAX
    {
        known.evidence.push_str("; ");
        known.evidence.push_str(&other.evidence);
    }
    known.severity = known.severity.max(other.severity);
    known.hold_seconds = known.hold_seconds.min(other.hold_seconds);
    known.count = known.count.max(other.count);
    // A lasting state is stronger than an event: it can not be cleared by saying "seen".
    known.event = match (known.event, other.event) {
        (Some(one), Some(two)) => Some(one.max(two)),
        _ => None,
    };
}

/// A name from outside as part of a component id: bounded, printable, no separators.
pub fn id_part(name: &str) -> String {
    let clean: String = name
        .trim()
        .chars()
        .take(64)
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':') {
                c
            } else {
                '-'
            }
        })
        .collect();
    if clean.is_empty() {
        "unnamed".to_owned()
    } else {
        clean
    }
}

/// Text from outside as part of evidence: bounded, one line, printable.
pub fn quote(text: &str, characters_max: usize) -> String {
    let mut quoted: String = text
        .trim()
        .chars()
        .take(characters_max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.trim().chars().count() > characters_max {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_exactly() {
        let told = [86_400, 5400, 600, 90].map(span);
        assert_eq!(told, ["24 h", "90 min", "10 min", "90 s"]);
    }

    #[test]
    fn same_component_and_kind_are_one_finding_with_the_worse_rating() {
        let mut all = Findings::default();
        all.add(Finding::new(
            "disk/sda",
            FaultKind::DiskFailing,
            Severity::Info,
            "one",
        ));
        all.add(Finding::new(
            "disk/sda",
            FaultKind::DiskFailing,
            Severity::Degraded,
            "two",
        ));
        all.add(Finding::new(
            "disk/sdb",
            FaultKind::DiskFailing,
            Severity::Info,
            "three",
        ));
        assert_eq!(all.findings.len(), 2);
        assert_eq!(all.findings[0].severity, Severity::Degraded);
        assert_eq!(all.findings[0].evidence, "one; two");
    }

    #[test]
    fn foreign_names_are_tamed() {
        assert_eq!(id_part("Fan 1/a\n"), "Fan-1-a");
        assert_eq!(id_part("  "), "unnamed");
        assert_eq!(quote("a\nb", 10), "a b");
        assert_eq!(quote("abcdef", 3), "abc…");
    }

    #[test]
    fn moments_are_shown_by_wall_clock_and_measured_by_boot_clock() {
        let early = Moment {
            boot_seconds: 10,
            unix_seconds: 1_000_000_000,
        };
        let late = Moment {
            boot_seconds: 40,
            unix_seconds: 999_996_400,
        };
        assert_eq!(late.seconds_since(early), 30);
        assert_eq!(early.seconds_since(late), 0);
        assert_eq!(early.to_rfc3339(), "2001-09-09T01:46:40Z");
        let beyond = Moment {
            boot_seconds: 0,
            unix_seconds: i64::MAX,
        };
        assert_eq!(beyond.to_rfc3339(), "1970-01-01T00:00:00Z");
    }
}
