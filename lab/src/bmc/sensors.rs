//! Sensors of a host's IPMI BMC: what `ipmi_sim` is told to have (the records that tell a sensor's name,
//! unit and limits, IPMI 2.0, chapter 43), and the files from which it reads their values every second.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::files::write_at_once;

/// As the Redfish BMC has them.
const FANS: u8 = 4;
const SUPPLIES: u8 = 2;
/// Temperature of a healthy processor, degrees C.
const TEMPERATURE: u64 = 41;
/// Degrees C from which a processor is too warm, and from which it is critical.
const WARM: u8 = 80;
const HOT: u8 = 95;
/// Revolutions per minute that one step of a fan's value stands for.
const FAN_STEP: u8 = 50;
/// A turning fan: 5000 per minute.
const FAN_TURNS: u64 = 100;
/// A fan that is slower than this is critical: 500 per minute.
const FAN_LEAST: u8 = 10;
/// State bits of a power supply: it is there, and it has failed.
const PRESENT: u64 = 1;
const FAILED: u64 = 1 << 1;

/// Entities, types and units of the specification (tables 43-13, 42-3 and 43-15).
const PROCESSOR: u8 = 3;
const POWER_SUPPLY: u8 = 10;
const FAN: u8 = 29;
const TYPE_TEMPERATURE: u8 = 1;
const TYPE_FAN: u8 = 4;
const TYPE_POWER_SUPPLY: u8 = 8;
const DEGREES_C: u8 = 1;
const REVOLUTIONS: u8 = 18;

/// One sensor.
struct Sensor {
    /// Its number on the BMC, and what it belongs to.
    number: u8,
    entity: u8,
    instance: u8,
    kind: u8,
    name: String,
    /// File with its value, and what it is measured in; none of a sensor that has states.
    file: String,
    measure: Option<Measure>,
}

/// What a value means.
struct Measure {
    unit: u8,
    step: u8,
    limits: Limits,
}

/// Where a value is bad, in steps.
enum Limits {
    Above { warning: u8, critical: u8 },
    Below { critical: u8 },
}

fn sensors() -> Vec<Sensor> {
    let mut sensors = vec![Sensor {
        number: 1,
        entity: PROCESSOR,
        instance: 1,
        kind: TYPE_TEMPERATURE,
        name: "CPU Temp".to_owned(),
        file: "temperature".to_owned(),
        measure: Some(Measure {
            unit: DEGREES_C,
            step: 1,
            limits: Limits::Above {
                warning: WARM,
                critical: HOT,
            },
        }),
    }];
    sensors.extend((1..=FANS).map(|fan| Sensor {
        number: 1 + fan,
        entity: FAN,
        instance: fan,
        kind: TYPE_FAN,
        name: format!("Fan {fan}"),
        file: format!("fan{fan}"),
        measure: Some(Measure {
            unit: REVOLUTIONS,
            step: FAN_STEP,
            limits: Limits::Below {
                critical: FAN_LEAST,
            },
        }),
    }));
    sensors.extend((1..=SUPPLIES).map(|supply| Sensor {
        number: 1 + FANS + supply,
        entity: POWER_SUPPLY,
        instance: supply,
        kind: TYPE_POWER_SUPPLY,
        name: format!("PS{supply} Status"),
        file: format!("psu{supply}"),
        measure: None,
    }));
    sensors
}

/// Commands by which `ipmi_sim` has the sensors; their values are read from files in this folder.
pub fn commands(folder: &Path) -> String {
    sensors()
        .iter()
        .map(|sensor| sensor.commands(folder))
        .collect()
}

impl Sensor {
    fn commands(&self, folder: &Path) -> String {
        let number = self.number;
        let file = folder.join(&self.file);
        let (reading, limits, states) = match &self.measure {
            None => (0x6f, String::new(), "000000000001111"),
            Some(measure) => {
                let (in_force, values, states) = measure.limits.words();
                let limits =
                    format!("sensor_set_threshold 0x20 0 {number} readable {in_force} {values}\n");
                (0x01, limits, states)
            }
        };
        let record: Vec<String> = self
            .record()
            .iter()
            .map(|byte| format!("{byte:#04x}"))
            .collect();
        format!(
            "sensor_add 0x20 0 {number} {kind} {reading} poll 1000 file \"{file}\"\n{limits}sensor_set_event_support 0x20 0 {number} enable scanning per-state {states} {states} {states} {states}\nmain_sdr_add 0x20 {record}\n",
            kind = self.kind,
            file = file.display(),
            record = record.join(" "),
        )
    }

    /// The record by which a reader knows the sensor. Its number in the repository is the BMC's to give.
    fn record(&self) -> Vec<u8> {
        let (version, owner) = (0x51, 0x20);
        let mut body = vec![owner, 0, self.number, self.entity, self.instance];
        let kind = match &self.measure {
            Some(measure) => {
                // Reads and keeps limits, looks again by itself.
                body.extend([0x7f, 0x68, self.kind, 0x01]);
                body.extend(measure.record());
                0x01
            }
            None => {
                // The four states that a supply may have, readable, and nothing shared.
                body.extend([0x67, 0x40, self.kind, 0x6f]);
                body.extend([0x0f, 0, 0x0f, 0, 0x0f, 0, 0xc0, 0, 0]);
                body.extend([0; 8]);
                0x02
            }
        };
        // ASCII, and how many letters.
        body.push(0xc0 | self.name.len() as u8);
        body.extend(self.name.bytes());
        let mut record = vec![0, 0, version, kind, body.len() as u8];
        record.extend(body);
        record
    }
}

impl Measure {
    /// The part of the record from the masks to the bytes before the name.
    fn record(&self) -> Vec<u8> {
        let (masks, readable) = match self.limits {
            Limits::Above { .. } => ([0x80, 0x0a, 0x80, 0x7a], 0x18),
            Limits::Below { .. } => ([0x04, 0x20, 0x04, 0x20], 0x02),
        };
        let (warning_above, critical_above, critical_below) = match self.limits {
            Limits::Above { warning, critical } => (warning, critical, 0),
            Limits::Below { critical } => (0, 0, critical),
        };
        let mut part = masks.to_vec();
        part.extend([readable, readable]);
        // Unit, linear; value = step * reading.
        part.extend([0, self.unit, 0, 0, self.step, 0, 0, 0, 0, 0]);
        // No nominal figures; a reading is 0 to 255.
        part.extend([0, 0, 0, 0, 0xff, 0]);
        part.extend([0xff, critical_above, warning_above, 0, critical_below, 0]);
        // One step of hysteresis each way; reserved; for the maker.
        part.extend([1, 1, 0, 0, 0]);
        part
    }
}

impl Limits {
    /// Which limits are in force (upper ones first), all limits, and the states that they make.
    fn words(&self) -> (&'static str, String, &'static str) {
        match self {
            Limits::Above { warning, critical } => (
                "011000",
                format!("0 {critical} {warning} 0 0 0"),
                "000111111000000",
            ),
            Limits::Below { critical } => {
                ("000010", format!("0 0 0 0 {critical} 0"), "000000000001111")
            }
        }
    }
}

/// Writes the values for a host's BMC: what the faults have made of its sensors (`sensors.json`).
///
/// # Errors
/// The folder can not be written, or the file is damaged.
pub fn write_values(folder: &Path, sensors: &Value) -> Result<()> {
    fs::create_dir_all(folder)?;
    let put = |file: String, value: u64| {
        write_at_once(&folder.join(file), format!("{value}\n").as_bytes())
    };
    let temperature = match &sensors["temperature"] {
        Value::Null => TEMPERATURE,
        value => value
            .as_u64()
            .with_context(|| format!("temperature {value}: not a number"))?,
    };
    put("temperature".to_owned(), temperature)?;
    for fan in 1..=FANS {
        let stands = sensors["fan_failed"] == fan;
        put(format!("fan{fan}"), if stands { 0 } else { FAN_TURNS })?;
    }
    for supply in 1..=SUPPLIES {
        let failed = sensors["psu_failed"] == supply;
        let states = if failed { PRESENT | FAILED } else { PRESENT };
        put(format!("psu{supply}"), states)?;
    }
    Ok(())
}
