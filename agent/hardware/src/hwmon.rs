//! Temperatures and fans from hwmon (`class/hwmon`).
//!
//! Voltages, intrusion and power limits are not judged: boards wire them arbitrarily and their
//! alarms cry wolf. A sensor's own limits are only believed when they are plausible.

use std::collections::BTreeSet;
use std::path::Path;

use model::{FaultKind, Severity};

use crate::finding::{Finding, Findings, Quantity, id_part, span};
use crate::source::{self, ReadError};
use crate::thresholds::Thresholds;

/// One temperature sensor, degrees Celsius.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemperatureSensor {
    /// Component id, such as `temperature/coretemp-0/Package-id-0`.
    pub component: String,
    /// Value now.
    pub celsius: Option<f64>,
    /// The sensor's warning.
    pub warning_celsius: Option<f64>,
    /// Where the hardware takes harm or switches off.
    pub critical_celsius: Option<f64>,
    /// The chip says that the warning is exceeded.
    pub warning_alarm: bool,
    /// The chip says that the critical limit is exceeded.
    pub critical_alarm: bool,
}

/// One fan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FanSensor {
    /// Component id, such as `fan/nct6779-3/fan2`.
    pub component: String,
    /// Revolutions per minute.
    pub rpm: Option<f64>,
    /// Least healthy speed, where the board sets one.
    pub minimum_rpm: Option<f64>,
    /// The chip raises an alarm or reports the sensor faulty.
    pub alarm: bool,
}

/// Reads all sensors. A host without hwmon has none, which is no error.
pub fn read(sysfs: &Path, findings: &mut Findings) -> (Vec<TemperatureSensor>, Vec<FanSensor>) {
    let root = sysfs.join("class/hwmon");
    let mut temperatures = Vec::new();
    let mut fans = Vec::new();
    let chips = match source::names(&root) {
        Ok(chips) => chips,
        Err(error) => {
            findings.fail(None, error.sentence());
            return (temperatures, fans);
        }
    };
    let mut used = BTreeSet::new();
    for chip in chips {
        let folder = root.join(&chip);
        if let Err(error) = read_chip(
            &folder,
            &chip,
            &mut used,
            &mut temperatures,
            &mut fans,
            findings,
        ) {
            findings.fail(None, error.sentence());
        }
    }
    (temperatures, fans)
}

fn read_chip(
    folder: &Path,
    chip: &str,
    used: &mut BTreeSet<String>,
    temperatures: &mut Vec<TemperatureSensor>,
    fans: &mut Vec<FanSensor>,
    findings: &mut Findings,
) -> Result<(), ReadError> {
    // Old drivers keep their files one level lower.
    let inner = folder.join("device");
    let mut folder = folder.to_owned();
    let mut files: BTreeSet<String> = source::names(&folder)?.into_iter().collect();
    if !files.iter().any(|file| file.ends_with("_input")) {
        let below: BTreeSet<String> = source::names(&inner)?.into_iter().collect();
        if below.iter().any(|file| file.ends_with("_input")) {
            (folder, files) = (inner, below);
        }
    }
    // The number of a chip changes between boots, its name does not; twins are told apart by
    // their order.
    let name = source::attribute(&folder.join("name"))?.unwrap_or_else(|| chip.to_owned());
    let name = (0..)
        .map(|twin| format!("{}-{twin}", id_part(&name)))
        .find(|name| used.insert(name.clone()))
        .unwrap_or_default();
    for file in &files {
        let Some(sensor) = file
            .strip_suffix("_input")
            .or_else(|| file.strip_suffix("_fault"))
        else {
            continue;
        };
        if file.ends_with("_fault") && files.contains(&format!("{sensor}_input")) {
            continue;
        }
        let at = |part: &str| folder.join(format!("{sensor}_{part}"));
        let label = source::attribute(&at("label"))?;
        if is_sensor(sensor, "temp") {
            let mut component = format!(
                "temperature/{name}/{}",
                id_part(label.as_deref().unwrap_or(sensor))
            );
            if temperatures
                .iter()
                .any(|known| known.component == component)
            {
                component = format!("{component}-{sensor}");
            }
            match read_temperature(&at, component.clone()) {
                Ok(read) => temperatures.push(read),
                Err(error) => findings.fail(Some(component), error.sentence()),
            }
        } else if is_sensor(sensor, "fan") {
            let component = format!("fan/{name}/{}", id_part(label.as_deref().unwrap_or(sensor)));
            match read_fan(&at, component.clone()) {
                Ok(read) => fans.push(read),
                Err(error) => findings.fail(Some(component), error.sentence()),
            }
        }
    }
    Ok(())
}

fn is_sensor(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Limits outside are placeholders of the chip (NVMe drives say 65261 °C for "none").
const PLAUSIBLE_LIMIT_CELSIUS: std::ops::RangeInclusive<f64> = 20.0..=150.0;
/// Values outside come from an unconnected sensor.
const PLAUSIBLE_CELSIUS: std::ops::RangeInclusive<f64> = -50.0..=200.0;

fn read_temperature(
    at: &impl Fn(&str) -> std::path::PathBuf,
    component: String,
) -> Result<TemperatureSensor, ReadError> {
    let degrees = |part: &str| -> Result<Option<f64>, ReadError> {
        Ok(source::number(&at(part))?.map(|milli| milli as f64 / 1000.0))
    };
    let limit = |part: &str| -> Result<Option<f64>, ReadError> {
        Ok(degrees(part)?.filter(|limit| PLAUSIBLE_LIMIT_CELSIUS.contains(limit)))
    };
    let is_set =
        |part: &str| -> Result<bool, ReadError> { Ok(source::number(&at(part))? == Some(1)) };
    // A faulty sensor's value says nothing.
    let celsius = if is_set("fault")? {
        None
    } else {
        degrees("input")?.filter(|value| PLAUSIBLE_CELSIUS.contains(value))
    };
    let critical_celsius = limit("crit")?;
    // A warning above the critical limit is a default that nobody set.
    let warning_celsius = limit("max")?
        .filter(|warning| critical_celsius.is_none_or(|critical| *warning <= critical));
    Ok(TemperatureSensor {
        component,
        celsius,
        warning_celsius,
        critical_celsius,
        warning_alarm: is_set("max_alarm")? || is_set("alarm")?,
        critical_alarm: is_set("crit_alarm")? || is_set("emergency_alarm")?,
    })
}

fn read_fan(
    at: &impl Fn(&str) -> std::path::PathBuf,
    component: String,
) -> Result<FanSensor, ReadError> {
    let rpm = |part: &str| -> Result<Option<f64>, ReadError> {
        Ok(source::number(&at(part))?.map(|rpm| rpm as f64))
    };
    let is_set =
        |part: &str| -> Result<bool, ReadError> { Ok(source::number(&at(part))? == Some(1)) };
    Ok(FanSensor {
        component,
        rpm: rpm("input")?,
        minimum_rpm: rpm("min")?.filter(|minimum| *minimum > 0.0),
        alarm: is_set("alarm")? || is_set("min_alarm")? || is_set("fault")?,
    })
}

/// Judges sensors by their own limits.
pub fn judge(
    temperatures: &[TemperatureSensor],
    fans: &[FanSensor],
    thresholds: &Thresholds,
) -> Findings {
    let mut findings = Findings::default();
    for sensor in temperatures {
        if let Some(celsius) = sensor.celsius {
            findings.read(&sensor.component, Quantity::Temperature, celsius);
        }
        if let Some(finding) = judge_temperature(sensor, thresholds) {
            findings.add(finding);
        }
    }
    for fan in fans {
        if let Some(rpm) = fan.rpm {
            findings.read(&fan.component, Quantity::FanSpeed, rpm);
        }
        let slow =
            matches!((fan.rpm, fan.minimum_rpm), (Some(rpm), Some(minimum)) if rpm < minimum);
        if slow || fan.alarm {
            let speed = fan
                .rpm
                .map_or("no speed".to_owned(), |rpm| format!("{rpm} rpm"));
            let minimum = fan
                .minimum_rpm
                .map_or("none set".to_owned(), |rpm| format!("{rpm} rpm"));
            let alarm = if fan.alarm {
                ", its alarm is raised"
            } else {
                ""
            };
            let evidence = format!("fan turns at {speed} (least {minimum}){alarm}");
            findings.add(Finding::new(
                &fan.component,
                FaultKind::Fan,
                Severity::Degraded,
                evidence,
            ));
        }
    }
    findings
}

fn judge_temperature(sensor: &TemperatureSensor, thresholds: &Thresholds) -> Option<Finding> {
    let shown = sensor
        .celsius
        .map_or("unknown temperature".to_owned(), |celsius| {
            format!("{celsius:.1} °C")
        });
    let above = |limit: Option<f64>| matches!((sensor.celsius, limit), (Some(value), Some(limit)) if value >= limit);
    let degraded = |evidence: String| {
        Finding::new(
            &sensor.component,
            FaultKind::Temperature,
            Severity::Degraded,
            evidence,
        )
    };
    if above(sensor.critical_celsius) || sensor.critical_alarm {
        let limit = sensor
            .critical_celsius
            .map_or("its alarm".to_owned(), |limit| format!("{limit:.1} °C"));
        return Some(degraded(format!(
            "{shown}, at or above the critical limit ({limit})"
        )));
    }
    if above(sensor.warning_celsius) || sensor.warning_alarm {
        let limit = sensor
            .warning_celsius
            .map_or("its alarm".to_owned(), |limit| format!("{limit:.1} °C"));
        let hold = thresholds.temperature_hold_seconds;
        return Some(
            degraded(format!(
                "{shown}, at or above the warning ({limit}) for {}",
                span(hold)
            ))
            .held(hold),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor(celsius: f64) -> TemperatureSensor {
        TemperatureSensor {
            component: "temperature/x".into(),
            celsius: Some(celsius),
            warning_celsius: Some(80.0),
            critical_celsius: Some(100.0),
            ..TemperatureSensor::default()
        }
    }

    #[test]
    fn warning_waits_and_critical_does_not() {
        let limits = Thresholds::default();
        let hold = |celsius| {
            judge(&[sensor(celsius)], &[], &limits)
                .findings
                .first()
                .map(|f| f.hold_seconds)
        };
        assert_eq!(hold(79.9), None);
        assert_eq!(hold(80.0), Some(600));
        assert_eq!(hold(99.9), Some(600));
        assert_eq!(hold(100.0), Some(0));
        let alarm = TemperatureSensor {
            critical_alarm: true,
            ..sensor(50.0)
        };
        assert_eq!(judge(&[alarm], &[], &limits).findings[0].hold_seconds, 0);
        let mute = TemperatureSensor {
            celsius: None,
            ..sensor(0.0)
        };
        assert!(judge(&[mute], &[], &limits).findings.is_empty());
    }

    #[test]
    fn a_fan_below_its_minimum_or_in_alarm_fails_and_one_without_minimum_may_stand() {
        let fan = |rpm, minimum_rpm, alarm| FanSensor {
            component: "fan/x".into(),
            rpm: Some(rpm),
            minimum_rpm,
            alarm,
        };
        let is_faulty = |fan| {
            !judge(&[], &[fan], &Thresholds::default())
                .findings
                .is_empty()
        };
        assert!(is_faulty(fan(499.0, Some(500.0), false)));
        assert!(!is_faulty(fan(500.0, Some(500.0), false)));
        assert!(is_faulty(fan(5000.0, None, true)));
        assert!(!is_faulty(fan(0.0, None, false)));
    }

    #[test]
    fn implausible_limits_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let chip = folder.path().join("class/hwmon/hwmon0");
        std::fs::create_dir_all(&chip).unwrap();
        for (file, text) in [
            ("name", "nvme"),
            ("temp1_input", "43850"),
            ("temp1_max", "65261850"),
            ("temp1_crit", "94850"),
            ("temp2_input", "50000"),
            ("temp2_max", "120000"),
            ("temp2_crit", "110000"),
            ("temp3_input", "-273150"),
            ("temp4_input", "90000"),
            ("temp4_fault", "1"),
            ("temp4_max", "80000"),
        ] {
            std::fs::write(chip.join(file), text).unwrap();
        }
        let mut findings = Findings::default();
        let (temperatures, _) = read(folder.path(), &mut findings);
        assert!(findings.errors.is_empty(), "{findings:?}");
        assert_eq!(temperatures.len(), 4);
        assert_eq!(temperatures[0].warning_celsius, None);
        assert_eq!(temperatures[0].critical_celsius, Some(94.85));
        assert_eq!(temperatures[1].warning_celsius, None);
        assert_eq!(temperatures[2].celsius, None);
        assert!(
            judge(&temperatures, &[], &Thresholds::default())
                .findings
                .is_empty()
        );
    }
}
