//! Parsers and judges meet arbitrary, cut and huge input: they never panic, and what they say
//! stays bounded.

use hardware::{
    RedfishError, RedfishSource, Thresholds, judge_arrays, judge_disk, judge_ipmi, parse_mdstat,
    parse_mountinfo, parse_mounts, parse_record, parse_sensors, probe_redfish,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Words that the parsers look for, so that random text reaches deep.
const WORDS: &[&str] = &[
    "md0",
    " : ",
    "active",
    "inactive",
    "raid5",
    "sda[0](F)",
    "[4/3]",
    "[U_",
    "recovery",
    "=",
    "8.5%",
    "super external:",
    "\n",
    "      ",
    " ",
    ",",
    "|",
    "ok",
    "cr",
    "41h",
    "7.1",
    "degrees C",
    "RPM",
    "- ",
    "ext4",
    "ro",
    "/",
    "\\040",
    "\\",
    "6,1,2,-;",
    "<3>",
    "[1.0]",
    " kernel: ",
    "é",
    "9999999999999999999999",
];

fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(WORDS).prop_map(str::to_owned),
        ".{0,8}"
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

/// Keys that the judges look for.
const KEYS: &[&str] = &[
    "smart_status",
    "passed",
    "smartctl",
    "exit_status",
    "messages",
    "string",
    "ata_smart_attributes",
    "table",
    "name",
    "value",
    "raw",
    "when_failed",
    "flags",
    "nvme_smart_health_information_log",
    "critical_warning",
    "available_spare",
    "percentage_used",
    "temperature",
    "current",
    "drive_trip",
    "Chassis",
    "Systems",
    "@odata.id",
    "Members",
    "Members@odata.nextLink",
    "Power",
    "PowerSupplies",
    "Thermal",
    "Fans",
    "Temperatures",
    "Sensors",
    "Status",
    "Health",
    "State",
    "Reading",
    "ReadingCelsius",
    "Storage",
    "Drives",
    "Id",
    "Name",
    "scsi_error_counter_log",
    "write",
    "total_uncorrected_errors",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(
            &[
                "Critical",
                "Warning",
                "Enabled",
                "/redfish/v1/Chassis",
                "/redfish/v1/x#/y",
                "Current_Pending_Sector",
                "now"
            ][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS), inner), 0..8).prop_map(|pairs| {
                Value::Object(
                    pairs
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

/// Answers everything with the same resource.
struct Same(Value);

impl RedfishSource for Same {
    fn get(&self, _path: &str) -> Result<Value, RedfishError> {
        Ok(self.0.clone())
    }
}

proptest! {
    #[test]
    fn text_parsers_take_anything(text in text()) {
        let arrays = parse_mdstat(&text);
        let found = judge_arrays(&arrays);
        prop_assert!(found.findings.len() <= arrays.len());
        let sensors = parse_sensors(&text);
        prop_assert!(judge_ipmi(&sensors, &Thresholds::default()).readings.len() <= sensors.len());
        parse_mounts(&text);
        parse_mountinfo(&text);
        for line in text.lines() {
            if let Some(record) = parse_record(line) {
                prop_assert!(record.message.len() <= line.len());
            }
        }
    }

    #[test]
    fn disk_judge_takes_any_json(answer in value()) {
        let found = judge_disk("disk/x", &answer, &Thresholds::default());
        prop_assert!(found.readings.iter().all(|reading| reading.value.is_finite()));
        prop_assert!(found.findings.iter().all(|finding| finding.evidence.len() < 2000));
    }

    #[test]
    fn redfish_walk_takes_any_bmc(resource in value()) {
        let found = probe_redfish(&Same(resource), &Thresholds::default());
        prop_assert!(found.findings.len() <= 2048);
    }
}

#[test]
fn huge_inputs_give_bounded_answers() {
    let many = (0..50_000)
        .map(|number| format!("md{number} : active raid1 sda[0](F)\n      1 blocks [2/1] [U_]\n"))
        .collect::<String>();
    assert!(judge_arrays(&parse_mdstat(&many)).findings.len() <= 2048);
    let sensors = "Fan,0,RPM,cr\n".repeat(100_000);
    assert!(parse_sensors(&sensors).len() <= 2048);
    let attributes: Vec<Value> = (0..100_000)
        .map(|_| json!({"name": "Current_Pending_Sector", "raw": {"value": u64::MAX}}))
        .collect();
    let found = judge_disk(
        "disk/x",
        &json!({"ata_smart_attributes": {"table": attributes}}),
        &Thresholds::default(),
    );
    assert_eq!(found.findings.len(), 1);
    assert!(found.readings.len() <= 2048);
}
