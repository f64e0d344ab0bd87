//! Power supplies, fans and temperatures of one chassis.

use model::{FaultKind, Severity};
use serde_json::Value;

use super::Walk;
use super::status::{Health, array, health, id, is_absent, is_unavailable, name, number, phrase};
use crate::finding::{Finding, Quantity, quote};

/// Array members looked at.
const MEMBERS_MAX: usize = 128;

/// A temperature and its limits, in either form.
struct Heat {
    celsius: Option<f64>,
    warning: Option<f64>,
    critical: Option<f64>,
}

impl Walk<'_> {
    pub(super) fn chassis(&mut self, chassis: &Value) {
        let before = self.findings.findings.len();
        let chassis_id = id(chassis, 0);
        self.power(chassis, &chassis_id);
        self.thermal(chassis, &chassis_id);
        // Only what nothing more exact explains.
        if health(chassis) == Health::Critical && self.findings.findings.len() == before {
            let evidence = format!("BMC: chassis {} has {}", name(chassis), phrase(chassis));
            self.findings.add(Finding::new(
                format!("chassis/{chassis_id}"),
                FaultKind::ComponentCritical,
                Severity::Degraded,
                evidence,
            ));
        }
    }

    /// The new form replaces the old where a BMC has both; judging both would say all twice.
    fn power(&mut self, chassis: &Value, chassis_id: &str) {
        if let Some(subsystem) = self.linked(chassis, "PowerSubsystem") {
            let supplies = self.members_at(&subsystem, "PowerSupplies");
            for (index, supply) in supplies.iter().enumerate() {
                self.supply(supply, chassis_id, index);
            }
            for (index, group) in array(&subsystem, "PowerSupplyRedundancy")
                .iter()
                .enumerate()
                .take(MEMBERS_MAX)
            {
                self.redundancy(group, "psu", FaultKind::PowerSupply, chassis_id, index);
            }
            if !supplies.is_empty() {
                return;
            }
        }
        let Some(power) = self.linked(chassis, "Power") else {
            return;
        };
        for (index, supply) in array(&power, "PowerSupplies")
            .iter()
            .enumerate()
            .take(MEMBERS_MAX)
        {
            self.supply(supply, chassis_id, index);
        }
        for (index, group) in array(&power, "Redundancy")
            .iter()
            .enumerate()
            .take(MEMBERS_MAX)
        {
            self.redundancy(group, "psu", FaultKind::PowerSupply, chassis_id, index);
        }
        for (index, control) in array(&power, "PowerControl")
            .iter()
            .enumerate()
            .take(MEMBERS_MAX)
        {
            if let Some(watts) = number(control, "/PowerConsumedWatts") {
                self.findings.read(
                    format!("power/{chassis_id}-{}", id(control, index)),
                    Quantity::Power,
                    watts,
                );
            }
        }
    }

    fn supply(&mut self, supply: &Value, chassis_id: &str, index: usize) {
        if is_absent(supply) {
            return;
        }
        let component = format!("psu/{chassis_id}-{}", id(supply, index));
        let watts = ["/PowerOutputWatts", "/LastPowerOutputWatts"]
            .iter()
            .find_map(|path| number(supply, path));
        if let Some(watts) = watts {
            self.findings.read(&component, Quantity::Power, watts);
        }
        let input = supply
            .get("LineInputStatus")
            .and_then(Value::as_str)
            .unwrap_or("Normal");
        let input_lost = matches!(input, "LossOfInput" | "OutOfRange");
        if health(supply) != Health::Ok || is_unavailable(supply) || input_lost {
            let evidence = format!(
                "BMC: power supply {} has {}, line input {}",
                name(supply),
                phrase(supply),
                quote(input, 24)
            );
            self.findings.add(Finding::new(
                component,
                FaultKind::PowerSupply,
                Severity::Degraded,
                evidence,
            ));
        }
    }

    fn redundancy(
        &mut self,
        group: &Value,
        room: &str,
        kind: FaultKind,
        chassis_id: &str,
        index: usize,
    ) {
        if is_absent(group) || (health(group) == Health::Ok && !is_unavailable(group)) {
            return;
        }
        let component = format!("{room}/{chassis_id}-redundancy-{index}");
        let evidence = format!(
            "BMC: redundancy of group {index} in chassis {chassis_id} is lost ({})",
            phrase(group)
        );
        self.findings
            .add(Finding::new(component, kind, Severity::Degraded, evidence));
    }

    fn thermal(&mut self, chassis: &Value, chassis_id: &str) {
        let mut fans_known = false;
        if let Some(subsystem) = self.linked(chassis, "ThermalSubsystem") {
            let fans = self.members_at(&subsystem, "Fans");
            fans_known = !fans.is_empty();
            for (index, fan) in fans.iter().enumerate() {
                self.fan(fan, chassis_id, index);
            }
            for (index, group) in array(&subsystem, "FanRedundancy")
                .iter()
                .enumerate()
                .take(MEMBERS_MAX)
            {
                self.redundancy(group, "fan", FaultKind::Fan, chassis_id, index);
            }
        }
        let temperatures_known = self.sensors(chassis, chassis_id);
        if fans_known && temperatures_known {
            return;
        }
        let Some(thermal) = self.linked(chassis, "Thermal") else {
            return;
        };
        if !fans_known {
            for (index, fan) in array(&thermal, "Fans").iter().enumerate().take(MEMBERS_MAX) {
                self.fan(fan, chassis_id, index);
            }
            for (index, group) in array(&thermal, "Redundancy")
                .iter()
                .enumerate()
                .take(MEMBERS_MAX)
            {
                self.redundancy(group, "fan", FaultKind::Fan, chassis_id, index);
            }
        }
        if !temperatures_known {
            for (index, sensor) in array(&thermal, "Temperatures")
                .iter()
                .enumerate()
                .take(MEMBERS_MAX)
            {
                let limit = |kind: &str| number(sensor, &format!("/UpperThreshold{kind}"));
                let heat = Heat {
                    celsius: number(sensor, "/ReadingCelsius"),
                    warning: limit("NonCritical"),
                    critical: limit("Critical").or_else(|| limit("Fatal")),
                };
                self.temperature(sensor, &heat, chassis_id, index);
            }
        }
    }

    /// Temperatures among the chassis' sensors; tells whether there were any. Speeds of fans are
    /// read too: a `Fan` may carry no reading of its own.
    fn sensors(&mut self, chassis: &Value, chassis_id: &str) -> bool {
        let mut temperatures = 0;
        for (index, sensor) in self.members_at(chassis, "Sensors").iter().enumerate() {
            let text = |key: &str| sensor.get(key).and_then(Value::as_str).unwrap_or_default();
            let limit = |kind: &str| number(sensor, &format!("/Thresholds/{kind}/Reading"));
            if text("ReadingUnits") == "Cel" || text("ReadingType") == "Temperature" {
                temperatures += 1;
                let heat = Heat {
                    celsius: number(sensor, "/Reading"),
                    warning: limit("UpperCaution"),
                    critical: limit("UpperCritical").or_else(|| limit("UpperFatal")),
                };
                self.temperature(sensor, &heat, chassis_id, index);
            }
        }
        temperatures > 0
    }

    fn temperature(&mut self, sensor: &Value, heat: &Heat, chassis_id: &str, index: usize) {
        if is_absent(sensor) {
            return;
        }
        let component = format!("temperature/{chassis_id}-{}", id(sensor, index));
        if let Some(celsius) = heat.celsius {
            self.findings
                .read(&component, Quantity::Temperature, celsius);
        }
        let above = |limit: Option<f64>| matches!((heat.celsius, limit), (Some(value), Some(limit)) if value >= limit);
        let shown = heat
            .celsius
            .map_or("no value".to_owned(), |celsius| format!("{celsius} °C"));
        let finding = |what: &str| {
            let evidence = format!(
                "BMC: temperature {} is {what}: {shown}, {}",
                name(sensor),
                phrase(sensor)
            );
            Finding::new(
                &component,
                FaultKind::Temperature,
                Severity::Degraded,
                evidence,
            )
        };
        if above(heat.critical) || health(sensor) == Health::Critical {
            self.findings.add(finding("critical"));
        } else if above(heat.warning) || health(sensor) == Health::Warning {
            self.findings
                .add(finding("above its warning").held(self.thresholds.temperature_hold_seconds));
        }
    }

    fn fan(&mut self, fan: &Value, chassis_id: &str, index: usize) {
        if is_absent(fan) {
            return;
        }
        let component = format!("fan/{chassis_id}-{}", id(fan, index));
        let speed = [
            "/Reading",
            "/SpeedPercent/SpeedRPM",
            "/SpeedPercent/Reading",
        ]
        .iter()
        .find_map(|path| number(fan, path));
        if let Some(speed) = speed {
            let is_share = fan
                .get("SpeedPercent")
                .is_some_and(|percent| percent.get("SpeedRPM").is_none())
                || fan.get("ReadingUnits").and_then(Value::as_str) == Some("Percent");
            self.findings.read(
                &component,
                if is_share {
                    Quantity::FanDuty
                } else {
                    Quantity::FanSpeed
                },
                speed,
            );
        }
        let least = ["/LowerThresholdCritical", "/LowerThresholdFatal"]
            .iter()
            .find_map(|path| number(fan, path))
            .unwrap_or(0.0);
        let stands = speed.is_some_and(|speed| speed <= least);
        if stands || health(fan) != Health::Ok || is_unavailable(fan) {
            let shown = speed.map_or("unknown speed".to_owned(), |speed| {
                format!("speed {speed} (least {least})")
            });
            let evidence = format!("BMC: fan {} has {}, {shown}", name(fan), phrase(fan));
            self.findings.add(Finding::new(
                component,
                FaultKind::Fan,
                Severity::Degraded,
                evidence,
            ));
        }
    }
}
