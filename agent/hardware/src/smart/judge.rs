//! The verdict on one disk, from smartctl's JSON for ATA, SAS and NVMe. Pure.
//!
//! Vendors number their attributes as they like, so an attribute is believed by its name. What a
//! disk does not report is unknown, not healthy.

use model::{FaultKind, Severity};
use serde_json::Value;

use crate::finding::{Finding, Findings, Quantity, quote};
use crate::thresholds::Thresholds;

/// Bits of smartctl's exit status (its manual, "EXIT STATUS").
mod exit {
    pub const COMMAND_LINE: u64 = 1 << 0;
    pub const NOT_OPENED: u64 = 1 << 1;
    pub const FAILING: u64 = 1 << 3;
    pub const PREFAIL_NOW: u64 = 1 << 4;
    pub const PREFAIL_PAST: u64 = 1 << 5;
    pub const ERROR_LOG: u64 = 1 << 6;
    pub const SELF_TEST: u64 = 1 << 7;
}

/// Meaning of the bits of NVMe's critical warning (NVMe base specification, SMART log).
const NVME_WARNINGS: &[&str] = &[
    "spare blocks below their threshold",
    "temperature beyond a threshold",
    "reliability degraded",
    "medium is read-only",
    "backup of volatile memory failed",
    "persistent memory region unreliable",
];
/// The bit of a critical warning that is about heat, not about the disk.
const NVME_TEMPERATURE: u64 = 1 << 1;

/// Names of ATA attributes whose normalised value counts down from 100 as the disk wears.
const WEAR_ATTRIBUTES: &[&str] = &[
    "Media_Wearout_Indicator",
    "Wear_Leveling_Count",
    "SSD_Life_Left",
    "Percent_Lifetime_Remain",
    "Remaining_Lifetime_Perc",
    "Percent_Life_Remaining",
];

/// Judges the answer of one disk; `component` is its id, such as `disk/sda`.
pub fn judge_disk(component: &str, answer: &Value, thresholds: &Thresholds) -> Findings {
    let mut disk = Disk {
        component,
        answer,
        thresholds,
        findings: Findings::default(),
    };
    let status = disk.number(&["smartctl", "exit_status"]).unwrap_or(0);
    if status & (exit::COMMAND_LINE | exit::NOT_OPENED) != 0 {
        disk.unreadable();
        return disk.findings;
    }
    disk.judge_health(status);
    disk.judge_nvme();
    disk.judge_attributes();
    disk.judge_scsi();
    disk.judge_wear();
    disk.judge_temperature();
    disk.findings
}

struct Disk<'a> {
    component: &'a str,
    answer: &'a Value,
    thresholds: &'a Thresholds,
    findings: Findings,
}

impl<'a> Disk<'a> {
    fn value(&self, path: &[&str]) -> Option<&'a Value> {
        path.iter()
            .try_fold(self.answer, |value, key| value.get(key))
    }

    fn number(&self, path: &[&str]) -> Option<u64> {
        self.value(path)?.as_u64()
    }

    fn float(&self, path: &[&str]) -> Option<f64> {
        self.value(path)?.as_f64()
    }

    fn add(&mut self, kind: FaultKind, severity: Severity, count: u64, evidence: String) {
        let model = ["model_name", "scsi_model_name"]
            .iter()
            .find_map(|key| self.answer.get(key)?.as_str());
        let evidence = match model {
            Some(model) => format!("{} ({}): {evidence}", self.component, quote(model, 48)),
            None => format!("{}: {evidence}", self.component),
        };
        self.findings
            .add(Finding::new(self.component, kind, severity, evidence).counted(count));
    }

    fn read(&mut self, quantity: Quantity, value: f64) {
        self.findings.read(self.component, quantity, value);
    }

    fn unreadable(&mut self) {
        self.read(Quantity::DiskHealthKnown, 0.0);
        let messages: Vec<&str> = self
            .value(&["smartctl", "messages"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|message| message.get("string")?.as_str())
            .collect();
        let text = quote(&messages.join("; "), 200);
        // A sleeping disk is left asleep; that is what was asked for.
        if !text.to_ascii_lowercase().contains("standby mode") {
            self.findings.fail(
                Some(self.component.to_owned()),
                format!("smartctl could not ask {}: {text}", self.component),
            );
        }
    }

    fn judge_health(&mut self, status: u64) {
        let passed = self
            .value(&["smart_status", "passed"])
            .and_then(Value::as_bool);
        let known = passed.or((status & exit::FAILING != 0).then_some(false));
        self.read(
            Quantity::DiskHealthKnown,
            f64::from(u8::from(known.is_some())),
        );
        if let Some(passed) = known {
            let healthy = passed && status & exit::FAILING == 0;
            self.read(Quantity::DiskHealthy, f64::from(u8::from(healthy)));
            // NVMe's assessment is its critical warning, which is judged with its reasons.
            if !healthy
                && self
                    .number(&["nvme_smart_health_information_log", "critical_warning"])
                    .unwrap_or(0)
                    == 0
            {
                self.add(
                    FaultKind::DiskFailing,
                    Severity::Degraded,
                    0,
                    "its self-assessment failed".to_owned(),
                );
            }
        }
        if status & exit::PREFAIL_NOW != 0 {
            self.add(
                FaultKind::DiskFailing,
                Severity::Degraded,
                0,
                "a pre-failure attribute is at its threshold".to_owned(),
            );
        }
        if status & exit::PREFAIL_PAST != 0 {
            self.add(
                FaultKind::DiskErrors,
                Severity::Info,
                0,
                "an attribute was at its threshold in the past".to_owned(),
            );
        }
        if status & exit::SELF_TEST != 0 {
            self.add(
                FaultKind::DiskFailing,
                Severity::Degraded,
                0,
                "its last self-tests failed".to_owned(),
            );
        }
        let logged = self
            .number(&["ata_smart_error_log", "summary", "count"])
            .or(self.number(&["ata_smart_error_log", "extended", "count"]));
        if let Some(logged) = logged {
            self.read(Quantity::DiskLoggedErrors, logged as f64);
        }
        if status & exit::ERROR_LOG != 0 {
            let logged = logged.unwrap_or(1);
            self.add(
                FaultKind::DiskErrors,
                Severity::Info,
                logged,
                format!("{logged} errors in its own log"),
            );
        }
        if let Some(hours) = self.float(&["power_on_time", "hours"]) {
            self.read(Quantity::DiskPowerOnHours, hours);
        }
    }

    fn judge_nvme(&mut self) {
        const LOG: &str = "nvme_smart_health_information_log";
        let warning = self.number(&[LOG, "critical_warning"]).unwrap_or(0);
        let reasons = |bits: u64| -> String {
            let named = NVME_WARNINGS
                .iter()
                .enumerate()
                .filter(|(bit, _)| bits & (1 << bit) != 0)
                .map(|(_, text)| *text);
            let named: Vec<&str> = named.collect();
            if named.is_empty() {
                "unknown reason".to_owned()
            } else {
                named.join(", ")
            }
        };
        if warning & !NVME_TEMPERATURE != 0 {
            let evidence = format!("NVMe critical warning {warning:#04x}: {}", reasons(warning));
            self.add(FaultKind::DiskFailing, Severity::Degraded, 0, evidence);
        } else if warning != 0 {
            self.add(
                FaultKind::Temperature,
                Severity::Degraded,
                0,
                format!("NVMe critical warning {warning:#04x}: {}", reasons(warning)),
            );
        }
        let spare = self.float(&[LOG, "available_spare"]);
        if let Some(spare) = spare {
            self.read(Quantity::DiskSpare, spare);
        }
        if let (Some(spare), Some(least)) = (spare, self.float(&[LOG, "available_spare_threshold"]))
            && spare < least
        {
            self.add(
                FaultKind::DiskFailing,
                Severity::Degraded,
                0,
                format!("{spare} % spare blocks left (threshold {least} %)"),
            );
        }
        if let Some(errors) = self.number(&[LOG, "media_errors"]) {
            self.read(Quantity::DiskMediaErrors, errors as f64);
            if errors > 0 {
                self.add(
                    FaultKind::DiskErrors,
                    Severity::Info,
                    errors,
                    format!("{errors} media errors in its life"),
                );
            }
        }
    }

    fn judge_attributes(&mut self) {
        let table = self
            .value(&["ata_smart_attributes", "table"])
            .and_then(Value::as_array);
        for attribute in table.into_iter().flatten() {
            let name = attribute
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let lower = name.to_ascii_lowercase();
            // The upper half of some raw values holds other figures of the vendor.
            let raw = attribute
                .pointer("/raw/value")
                .and_then(Value::as_u64)
                .unwrap_or(0)
                & 0xffff_ffff;
            self.judge_attribute_threshold(attribute, name);
            if lower.contains("pending") {
                self.read(Quantity::DiskPendingSectors, raw as f64);
                self.judge_bad_sectors(raw, "sectors wait for reallocation");
            } else if lower.contains("offline_uncorrect") || lower.contains("uncorrectable_sector")
            {
                self.judge_bad_sectors(raw, "sectors could not be corrected");
            } else if lower.starts_with("reported_uncorrect") && raw > 0 {
                self.add(
                    FaultKind::DiskErrors,
                    Severity::Info,
                    raw,
                    format!("{raw} uncorrectable errors reported in its life"),
                );
            } else if lower.starts_with("reallocated_sector")
                || lower.starts_with("reallocate_nand")
            {
                self.read(Quantity::DiskReallocatedSectors, raw as f64);
                if raw >= self.thresholds.reallocated_sectors {
                    self.add(
                        FaultKind::DiskErrors,
                        Severity::Info,
                        raw,
                        format!("{raw} sectors reallocated in its life"),
                    );
                }
            }
        }
    }

    fn judge_bad_sectors(&mut self, sectors: u64, text: &str) {
        if sectors >= self.thresholds.bad_sectors {
            self.add(
                FaultKind::DiskFailing,
                Severity::Degraded,
                sectors,
                format!("{sectors} {text}"),
            );
        }
    }

    fn judge_attribute_threshold(&mut self, attribute: &Value, name: &str) {
        let when = attribute
            .get("when_failed")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_ascii_lowercase();
        if when != "now" && when != "failing_now" {
            return;
        }
        let name = quote(name, 48);
        let predicts_failure = attribute
            .pointer("/flags/prefailure")
            .and_then(Value::as_bool)
            .unwrap_or(true);
        if predicts_failure {
            self.add(
                FaultKind::DiskFailing,
                Severity::Degraded,
                0,
                format!("attribute {name} is at its threshold"),
            );
        } else {
            self.add(
                FaultKind::DiskWear,
                Severity::Info,
                0,
                format!("attribute {name} is at its threshold of age"),
            );
        }
    }

    fn judge_scsi(&mut self) {
        let operations = ["read", "write", "verify"];
        let errors = operations.iter().filter_map(|operation| {
            self.number(&[
                "scsi_error_counter_log",
                operation,
                "total_uncorrected_errors",
            ])
        });
        let errors = errors.fold(0_u64, u64::saturating_add);
        if errors >= self.thresholds.scsi_uncorrected_errors {
            self.add(
                FaultKind::DiskFailing,
                Severity::Degraded,
                errors,
                format!("{errors} uncorrected errors in its life"),
            );
        } else if errors > 0 {
            self.add(
                FaultKind::DiskErrors,
                Severity::Info,
                errors,
                format!("{errors} uncorrected errors in its life"),
            );
        }
        if self.answer.get("scsi_error_counter_log").is_some() {
            self.read(Quantity::DiskMediaErrors, errors as f64);
        }
        if let Some(defects) = self.number(&["scsi_grown_defect_list"]) {
            self.read(Quantity::DiskReallocatedSectors, defects as f64);
            if defects >= self.thresholds.reallocated_sectors {
                self.add(
                    FaultKind::DiskErrors,
                    Severity::Info,
                    defects,
                    format!("{defects} grown defects in its life"),
                );
            }
        }
    }

    fn judge_wear(&mut self) {
        let direct = [
            &["nvme_smart_health_information_log", "percentage_used"][..],
            &["endurance_used", "current_percent"],
            &["scsi_percentage_used_endurance_indicator"],
        ];
        let used = direct
            .iter()
            .find_map(|path| self.float(path))
            .or_else(|| self.statistics_wear())
            .or_else(|| self.attribute_wear());
        let Some(used) = used else { return };
        self.read(Quantity::DiskWear, used);
        if used >= self.thresholds.disk_wear_percent {
            self.add(
                FaultKind::DiskWear,
                Severity::Info,
                0,
                format!("{used:.0} % of its rated endurance is used"),
            );
        }
    }

    /// ATA device statistics, page "Solid State Device Statistics".
    fn statistics_wear(&self) -> Option<f64> {
        let pages = self
            .value(&["ata_device_statistics", "pages"])?
            .as_array()?;
        let entries = pages
            .iter()
            .filter_map(|page| page.get("table")?.as_array())
            .flatten();
        entries
            .filter(|entry| {
                entry.get("name").and_then(Value::as_str)
                    == Some("Percentage Used Endurance Indicator")
            })
            .filter(|entry| {
                entry
                    .pointer("/flags/valid")
                    .and_then(Value::as_bool)
                    .unwrap_or(true)
            })
            .find_map(|entry| entry.get("value")?.as_f64())
    }

    fn attribute_wear(&self) -> Option<f64> {
        let table = self.value(&["ata_smart_attributes", "table"])?.as_array()?;
        let left = table
            .iter()
            .filter(|attribute| {
                attribute
                    .get("name")
                    .and_then(Value::as_str)
                    .is_some_and(|name| WEAR_ATTRIBUTES.contains(&name))
            })
            .filter_map(|attribute| attribute.get("value")?.as_f64())
            .filter(|left| (1.0..=100.0).contains(left))
            .fold(None, |least: Option<f64>, left| {
                Some(least.map_or(left, |least| least.min(left)))
            });
        left.map(|left| 100.0 - left)
    }

    fn judge_temperature(&mut self) {
        let Some(celsius) = self.float(&["temperature", "current"]) else {
            return;
        };
        self.read(Quantity::Temperature, celsius);
        // 0 means that the disk sets no limit.
        let limit = |keys: &[&str]| {
            keys.iter()
                .find_map(|key| self.float(&["temperature", key]))
                .filter(|limit| *limit > 0.0)
        };
        let trip = limit(&["drive_trip", "limit_max"]);
        let warning = limit(&["op_limit_max"]);
        let trip = trip.or(self
            .float(&["nvme_composite_temperature_threshold", "critical"])
            .filter(|limit| *limit > 0.0));
        let warning = warning.or(self
            .float(&["nvme_composite_temperature_threshold", "warning"])
            .filter(|limit| *limit > 0.0));
        let finding = |evidence: String| {
            Finding::new(
                self.component,
                FaultKind::Temperature,
                Severity::Degraded,
                evidence,
            )
        };
        let hold = self.thresholds.temperature_hold_seconds;
        let found = match (trip, warning) {
            (Some(trip), _) if celsius >= trip => Some(finding(format!(
                "{}: {celsius} °C, at or above its critical limit ({trip} °C)",
                self.component
            ))),
            (_, Some(warning)) if celsius >= warning => Some(
                finding(format!(
                    "{}: {celsius} °C, at or above its warning ({warning} °C)",
                    self.component
                ))
                .held(hold),
            ),
            _ => None,
        };
        if let Some(found) = found {
            self.findings.add(found);
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
