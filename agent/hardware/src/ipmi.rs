//! Sensors of a BMC over IPMI, from the text of `ipmitool sdr elist` (with or without `-c`) and
//! `sdr list`. The caller runs the command. Pure.

use std::collections::BTreeMap;

use model::{FaultKind, Severity};

use crate::finding::{Finding, Findings, Quantity, id_part, quote};
use crate::thresholds::Thresholds;

/// One sensor's line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpmiSensor {
    /// Name, such as `CPU1 Temp`.
    pub name: String,
    /// Threshold state: `ok`, `ns` (no reading), `nc`, `cr`, `nr`, also with `l` or `u` before.
    pub status: String,
    /// Entity the sensor belongs to, such as `10` for power supplies, where the list tells.
    pub entity: Option<u32>,
    /// Value.
    pub value: Option<f64>,
    /// Unit, such as `degrees C`.
    pub unit: String,
    /// Asserted states of a discrete sensor.
    pub states: String,
}

/// A BMC has at most a few hundred sensors.
const SENSORS_MAX: usize = 2048;

/// Sensors in the text. Lines that are no sensors are skipped.
pub fn parse_sensors(text: &str) -> Vec<IpmiSensor> {
    text.lines()
        .filter_map(parse_line)
        .take(SENSORS_MAX)
        .collect()
}

fn parse_line(line: &str) -> Option<IpmiSensor> {
    let separator = if line.contains('|') { '|' } else { ',' };
    let fields: Vec<&str> = line.splitn(64, separator).map(str::trim).collect();
    let name = fields.first().filter(|name| !name.is_empty())?;
    let mut sensor = IpmiSensor {
        name: quote(name, 64),
        ..IpmiSensor::default()
    };
    match fields.as_slice() {
        // elist: name, number, status, entity, value or states
        [_, number, status, entity, rest @ ..] if is_sensor_number(number) => {
            sensor.status = status.to_ascii_lowercase();
            sensor.entity = entity
                .split('.')
                .next()
                .and_then(|entity| entity.parse().ok());
            set_value(&mut sensor, &rest.join(","));
        }
        // -c: name, value, unit, status
        [_, value, unit, status, ..] if separator == ',' => {
            sensor.status = status.to_ascii_lowercase();
            set_value(&mut sensor, &format!("{value} {unit}"));
        }
        // list: name, value or states, status
        [_, value, status] => {
            sensor.status = status.to_ascii_lowercase();
            set_value(&mut sensor, value);
        }
        _ => return None,
    }
    is_status(&sensor.status).then_some(sensor)
}

fn is_sensor_number(text: &str) -> bool {
    text.strip_suffix(['h', 'H'])
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_status(text: &str) -> bool {
    matches!(
        text,
        "ok" | "ns"
            | "nc"
            | "cr"
            | "nr"
            | "us"
            | "na"
            | "lnc"
            | "lcr"
            | "lnr"
            | "unc"
            | "ucr"
            | "unr"
    )
}

fn set_value(sensor: &mut IpmiSensor, text: &str) {
    let text = text.trim();
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => {
            sensor.value = Some(value);
            sensor.unit = quote(unit, 32);
        }
        _ => sensor.states = quote(text, 400),
    }
}

/// Entities of the IPMI specification, table 43-13.
mod entity {
    pub const POWER_SUPPLY: u32 = 10;
    pub const POWER_UNIT: u32 = 19;
    pub const FAN: u32 = 29;
    pub const COOLING_UNIT: u32 = 30;
}

/// States of discrete sensors that mean a fault (texts of ipmitool, tables 42-2 and 42-3). The
/// kind `PowerSupply` stands for "of whatever unit the sensor is" where redundancy is meant.
const STATES: &[(&str, FaultKind, Severity)] = &[
    (
        "uncorrectable ecc",
        FaultKind::MemoryUncorrectedError,
        Severity::Critical,
    ),
    (
        "correctable ecc logging limit",
        FaultKind::MemoryCorrectedErrors,
        Severity::Degraded,
    ),
    (
        "memory device disabled",
        FaultKind::ComponentCritical,
        Severity::Degraded,
    ),
    ("ierr", FaultKind::FatalHardwareError, Severity::Critical),
    (
        "uncorrectable machine check",
        FaultKind::FatalHardwareError,
        Severity::Critical,
    ),
    (
        "bus fatal error",
        FaultKind::FatalHardwareError,
        Severity::Critical,
    ),
    (
        "bus uncorrectable error",
        FaultKind::FatalHardwareError,
        Severity::Critical,
    ),
    ("thermal trip", FaultKind::Temperature, Severity::Critical),
    ("drive fault", FaultKind::DiskFailing, Severity::Degraded),
    (
        "in critical array",
        FaultKind::ArrayDegraded,
        Severity::Degraded,
    ),
    (
        "in failed array",
        FaultKind::ArrayDegraded,
        Severity::Critical,
    ),
];

/// States of power supplies, and of fans and their groups.
const UNIT_STATES: &[&str] = &[
    "failure detected",
    "power supply ac lost",
    "ac lost",
    "input lost",
    "input out-of-range",
    "config error",
    "redundancy lost",
    "redundancy degraded",
    "non-redundant",
    "power off/down",
    "soft power control failure",
    "predictive failure",
    "failure asserted",
    "transition to critical",
    "transition to non-recoverable",
    "device absent",
];

/// Judges sensors. Those without a reading (`ns`) say nothing.
pub fn judge_ipmi(sensors: &[IpmiSensor], thresholds: &Thresholds) -> Findings {
    let mut findings = Findings::default();
    // Names are not unique (many boards have several "Temp"); entity and order tell twins apart.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for sensor in sensors {
        let twin = seen.entry(sensor.name.clone()).or_default();
        *twin += 1;
        let id = if *twin == 1 {
            id_part(&sensor.name)
        } else {
            format!("{}-{twin}", id_part(&sensor.name))
        };
        match quantity(sensor) {
            Some(quantity) => judge_analog(sensor, quantity, &id, thresholds, &mut findings),
            None => judge_discrete(sensor, &id, &mut findings),
        }
    }
    findings
}

fn quantity(sensor: &IpmiSensor) -> Option<Quantity> {
    sensor.value?;
    let unit = sensor.unit.to_ascii_lowercase();
    if unit.starts_with("degrees") {
        Some(Quantity::Temperature)
    } else if unit == "rpm" {
        Some(Quantity::FanSpeed)
    } else if is_fan(sensor) && (unit.starts_with("percent") || unit.starts_with('%')) {
        Some(Quantity::FanDuty)
    } else if unit.starts_with("watts") {
        Some(Quantity::Power)
    } else {
        None
    }
}

fn judge_analog(
    sensor: &IpmiSensor,
    quantity: Quantity,
    id: &str,
    thresholds: &Thresholds,
    findings: &mut Findings,
) {
    let Some(mut value) = sensor
        .value
        .filter(|_| !matches!(sensor.status.as_str(), "ns" | "na"))
    else {
        return;
    };
    if quantity == Quantity::Temperature
        && sensor.unit.to_ascii_lowercase().starts_with("degrees f")
    {
        value = (value - 32.0) / 1.8;
    }
    let (room, kind) = match quantity {
        Quantity::Temperature => ("temperature", FaultKind::Temperature),
        Quantity::Power => ("power", FaultKind::PowerSupply),
        _ => ("fan", FaultKind::Fan),
    };
    let component = format!("{room}/{id}");
    findings.read(&component, quantity, value);
    let evidence = format!(
        "BMC: {} is {value:.1} {}, state {}",
        sensor.name, sensor.unit, sensor.status
    );
    let finding = Finding::new(component, kind, Severity::Degraded, evidence);
    match (sensor.status.as_str(), quantity) {
        // Power drawn above a board's own figure is no loss of a supply.
        (_, Quantity::Power) => {}
        ("nc" | "unc" | "lnc", Quantity::Temperature) => {
            findings.add(finding.held(thresholds.temperature_hold_seconds))
        }
        // A fan near its limit still turns.
        ("nc" | "unc" | "lnc", _) => findings.add(Finding {
            severity: Severity::Info,
            ..finding
        }),
        ("cr" | "ucr" | "lcr" | "nr" | "unr" | "lnr", _) => findings.add(finding),
        _ => {}
    }
}

fn judge_discrete(sensor: &IpmiSensor, id: &str, findings: &mut Findings) {
    if matches!(sensor.status.as_str(), "ns" | "na") {
        return;
    }
    let states: Vec<String> = sensor
        .states
        .split(',')
        .map(|state| state.trim().to_ascii_lowercase())
        .collect();
    let evidence = format!("BMC: {} says {}", sensor.name, sensor.states);
    for (text, kind, severity) in STATES {
        if states.iter().any(|state| state.starts_with(text)) {
            findings.add(Finding::new(
                format!("bmc/{id}"),
                *kind,
                *severity,
                &evidence,
            ));
        }
    }
    let unit = if is_power(sensor) {
        Some(("psu", FaultKind::PowerSupply))
    } else if is_fan(sensor) {
        Some(("fan", FaultKind::Fan))
    } else {
        None
    };
    if let Some((room, kind)) = unit {
        let is_bad = |state: &String| {
            UNIT_STATES.iter().any(|bad| state.starts_with(bad)) && !state.contains("deasserted")
        };
        // An empty bay is no fault; only a fan or supply that was expected says "absent" as a
        // failure through its group's redundancy.
        if states
            .iter()
            .any(|state| is_bad(state) && state != "device absent")
        {
            findings.add(Finding::new(
                format!("{room}/{id}"),
                kind,
                Severity::Degraded,
                evidence,
            ));
        }
    }
}

fn is_fan(sensor: &IpmiSensor) -> bool {
    matches!(sensor.entity, Some(entity::FAN | entity::COOLING_UNIT))
        || sensor.name.to_ascii_lowercase().contains("fan")
}

fn is_power(sensor: &IpmiSensor) -> bool {
    let name = sensor.name.to_ascii_lowercase();
    matches!(
        sensor.entity,
        Some(entity::POWER_SUPPLY | entity::POWER_UNIT)
    ) || ["ps", "pwr", "power"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, FaultKind, Severity, i64)> {
        judge_ipmi(&parse_sensors(text), &Thresholds::default())
            .findings
            .into_iter()
            .map(|f| (f.component, f.kind, f.severity, f.hold_seconds))
            .collect()
    }

    #[test]
    fn the_same_sensor_in_all_layouts() {
        for line in [
            "CPU1 Temp        | 30h | ok  |  3.1 | 40 degrees C",
            "CPU1 Temp,40,degrees C,ok",
            "CPU1 Temp        | 40 degrees C      | ok",
            "CPU1 Temp,30h,ok,3.1,40 degrees C",
        ] {
            let sensors = parse_sensors(line);
            assert_eq!(sensors.len(), 1, "{line}");
            assert_eq!(
                (
                    sensors[0].value,
                    sensors[0].unit.as_str(),
                    sensors[0].status.as_str()
                ),
                (Some(40.0), "degrees C", "ok"),
                "{line}"
            );
        }
    }

    #[test]
    fn thresholds_and_states_become_faults() {
        let degraded = Severity::Degraded;
        assert_eq!(
            found("Inlet,85,degrees C,nc"),
            [(
                "temperature/Inlet".into(),
                FaultKind::Temperature,
                degraded,
                600
            )]
        );
        assert_eq!(
            found("Inlet,95,degrees C,cr"),
            [(
                "temperature/Inlet".into(),
                FaultKind::Temperature,
                degraded,
                0
            )]
        );
        assert_eq!(found("Inlet,25,degrees C,ok"), []);
        assert_eq!(
            found("Fan1 | 41h | lcr | 7.1 | 0 RPM"),
            [("fan/Fan1".into(), FaultKind::Fan, degraded, 0)]
        );
        assert_eq!(
            found("PS1 Status | C8h | ok | 10.1 | Presence detected"),
            []
        );
        assert_eq!(
            found(
                "PS1 Status,C8h,ok,10.1,Presence detected, Failure detected, Power Supply AC lost"
            ),
            [("psu/PS1-Status".into(), FaultKind::PowerSupply, degraded, 0)]
        );
        assert_eq!(
            found("PS Redundancy | 77h | ok | 7.1 | Redundancy Lost"),
            [(
                "psu/PS-Redundancy".into(),
                FaultKind::PowerSupply,
                degraded,
                0
            )]
        );
        assert_eq!(
            found("Fan Redundancy | 75h | ok | 30.1 | Fully Redundant"),
            []
        );
        assert_eq!(
            found("DIMM A1 | 90h | ok | 32.1 | Uncorrectable ECC"),
            [(
                "bmc/DIMM-A1".into(),
                FaultKind::MemoryUncorrectedError,
                Severity::Critical,
                0
            )]
        );
        assert_eq!(found("Fan2 | 42h | ns | 7.2 | No Reading"), []);
        assert_eq!(found("PS2 Status | C9h | ok | 10.2 | Device Absent"), []);
    }

    #[test]
    fn twins_and_garbage() {
        let text = "Temp,95,degrees C,cr\nTemp,96,degrees C,cr\n\nnonsense\n,,,\n";
        assert_eq!(found(text).len(), 2);
    }
}
