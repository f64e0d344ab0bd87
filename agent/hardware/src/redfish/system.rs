//! Health of a system's processors, memory, storage controllers and drives.

use model::{FaultKind, Severity};
use serde_json::Value;

use super::Walk;
use super::status::{Health, array, health, id, is_absent, name, number, phrase, rollup};
use crate::finding::{Finding, Quantity};

/// Array members looked at.
const MEMBERS_MAX: usize = 128;

impl Walk<'_> {
    pub(super) fn system(&mut self, system: &Value) {
        let before = self.findings.findings.len();
        let system_id = id(system, 0);
        for property in ["Processors", "Memory"] {
            for (index, part) in self.members_at(system, property).iter().enumerate() {
                let component = format!(
                    "{}/{system_id}-{}",
                    if property == "Memory" {
                        "dimm"
                    } else {
                        "processor"
                    },
                    id(part, index)
                );
                self.part(part, component);
            }
        }
        for (index, storage) in self.members_at(system, "Storage").iter().enumerate() {
            self.storage(storage, &format!("{system_id}-{}", id(storage, index)));
        }
        for (index, storage) in self.members_at(system, "SimpleStorage").iter().enumerate() {
            let storage_id = format!("{system_id}-{}", id(storage, index));
            self.part(storage, format!("storage-controller/{storage_id}"));
            for (number, device) in array(storage, "Devices")
                .iter()
                .enumerate()
                .take(MEMBERS_MAX)
            {
                self.drive(device, format!("disk/bmc-{storage_id}-{number}"));
            }
        }
        self.summaries(system, &system_id);
        if rollup(system) == Health::Critical && self.findings.findings.len() == before {
            let evidence = format!(
                "BMC: system {} as a whole is Critical ({})",
                name(system),
                phrase(system)
            );
            self.findings.add(Finding::new(
                format!("system/{system_id}"),
                FaultKind::ComponentCritical,
                Severity::Degraded,
                evidence,
            ));
        }
    }

    /// A processor, memory module or storage controller: Critical means evacuate now.
    fn part(&mut self, part: &Value, component: String) {
        if is_absent(part) || health(part) == Health::Ok {
            return;
        }
        let severity = if health(part) == Health::Critical {
            Severity::Critical
        } else {
            Severity::Degraded
        };
        let evidence = format!("BMC: {} has {}", name(part), phrase(part));
        self.findings.add(Finding::new(
            component,
            FaultKind::ComponentCritical,
            severity,
            evidence,
        ));
    }

    /// BMCs without collections still summarise processors and memory.
    fn summaries(&mut self, system: &Value, system_id: &str) {
        for (property, room) in [("ProcessorSummary", "processor"), ("MemorySummary", "dimm")] {
            let Some(summary) = system.get(property) else {
                continue;
            };
            let prefix = format!("{room}/{system_id}-");
            let explained = self
                .findings
                .findings
                .iter()
                .any(|finding| finding.component.starts_with(&prefix));
            if rollup(summary) == Health::Critical && !explained {
                let evidence = format!("BMC: {property} of {} is Critical", name(system));
                self.findings.add(Finding::new(
                    format!("{prefix}all"),
                    FaultKind::ComponentCritical,
                    Severity::Critical,
                    evidence,
                ));
            }
        }
    }

    fn storage(&mut self, storage: &Value, storage_id: &str) {
        let embedded = array(storage, "StorageControllers")
            .iter()
            .take(MEMBERS_MAX)
            .cloned()
            .collect::<Vec<_>>();
        let controllers = if embedded.is_empty() {
            self.members_at(storage, "Controllers")
        } else {
            embedded
        };
        for (index, controller) in controllers.iter().enumerate() {
            self.part(
                controller,
                format!("storage-controller/{storage_id}-{}", id(controller, index)),
            );
        }
        for (index, drive) in array(storage, "Drives")
            .iter()
            .enumerate()
            .take(MEMBERS_MAX)
        {
            let path = drive
                .get("@odata.id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            let Some(drive) = self.get(&path) else {
                continue;
            };
            self.drive(
                &drive,
                format!("disk/bmc-{storage_id}-{}", id(&drive, index)),
            );
        }
    }

    fn drive(&mut self, drive: &Value, component: String) {
        if is_absent(drive) {
            return;
        }
        if let Some(left) = number(drive, "/PredictedMediaLifeLeftPercent") {
            let used = 100.0 - left;
            self.findings.read(&component, Quantity::DiskWear, used);
            if used >= self.thresholds.disk_wear_percent {
                let evidence = format!(
                    "BMC: {} has used {used} % of its rated endurance",
                    name(drive)
                );
                self.findings.add(Finding::new(
                    &component,
                    FaultKind::DiskWear,
                    Severity::Info,
                    evidence,
                ));
            }
        }
        let predicted = drive
            .get("FailurePredicted")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let evidence = format!(
            "BMC: drive {} has {}{}",
            name(drive),
            phrase(drive),
            if predicted { ", failure predicted" } else { "" }
        );
        if predicted || health(drive) == Health::Critical {
            self.findings.add(Finding::new(
                component,
                FaultKind::DiskFailing,
                Severity::Degraded,
                evidence,
            ));
        } else if health(drive) == Health::Warning {
            self.findings.add(Finding::new(
                component,
                FaultKind::DiskErrors,
                Severity::Info,
                evidence,
            ));
        }
    }
}
