//! What smartctl says, and what is made of it.

use serde_json::json;

use super::*;

fn found(answer: Value) -> Vec<(FaultKind, Severity)> {
    judge_disk("disk/x", &answer, &Thresholds::default())
        .findings
        .into_iter()
        .map(|f| (f.kind, f.severity))
        .collect()
}

fn attribute(name: &str, value: u64, raw: u64) -> Value {
    json!({"ata_smart_attributes": {"table": [{"id": 1, "name": name, "value": value, "thresh": 0, "when_failed": "", "raw": {"value": raw}}]}})
}

const FAILING: (FaultKind, Severity) = (FaultKind::DiskFailing, Severity::Degraded);
const ERRORS: (FaultKind, Severity) = (FaultKind::DiskErrors, Severity::Info);
const WEAR: (FaultKind, Severity) = (FaultKind::DiskWear, Severity::Info);

#[test]
fn self_assessment_and_exit_status() {
    assert_eq!(found(json!({"smart_status": {"passed": true}})), []);
    assert_eq!(found(json!({"smart_status": {"passed": false}})), [FAILING]);
    assert_eq!(found(json!({"smartctl": {"exit_status": 8}})), [FAILING]);
    assert_eq!(found(json!({"smartctl": {"exit_status": 16}})), [FAILING]);
    assert_eq!(found(json!({"smartctl": {"exit_status": 32}})), [ERRORS]);
    assert_eq!(found(json!({"smartctl": {"exit_status": 64}})), [ERRORS]);
    assert_eq!(found(json!({"smartctl": {"exit_status": 128}})), [FAILING]);
    assert_eq!(found(json!({"smartctl": {"exit_status": 4}})), []);
}

#[test]
fn a_disk_that_says_nothing_is_unknown_and_one_that_can_not_be_asked_is_an_error() {
    let silent = judge_disk("disk/x", &json!({}), &Thresholds::default());
    assert!(silent.findings.is_empty() && silent.errors.is_empty());
    assert!(
        silent
            .readings
            .iter()
            .any(|r| r.quantity == Quantity::DiskHealthKnown && r.value == 0.0)
    );
    assert!(
        !silent
            .readings
            .iter()
            .any(|r| r.quantity == Quantity::DiskHealthy)
    );
    let closed =
        json!({"smartctl": {"exit_status": 2, "messages": [{"string": "No such device"}]}});
    assert_eq!(
        judge_disk("disk/x", &closed, &Thresholds::default())
            .errors
            .len(),
        1
    );
    let asleep = json!({"smartctl": {"exit_status": 2, "messages": [{"string": "Device is in STANDBY mode, exit(2)"}]}});
    assert!(
        judge_disk("disk/x", &asleep, &Thresholds::default())
            .errors
            .is_empty()
    );
}

#[test]
fn nvme_each_side_of_each_limit() {
    let log = |key: &str, value: u64| {
        let mut log =
            json!({"critical_warning": 0, "available_spare": 100, "available_spare_threshold": 10});
        log[key] = json!(value);
        found(json!({"smart_status": {"passed": true}, "nvme_smart_health_information_log": log}))
    };
    assert_eq!(log("percentage_used", 79), []);
    assert_eq!(log("percentage_used", 80), [WEAR]);
    assert_eq!(log("available_spare", 10), []);
    assert_eq!(log("available_spare", 9), [FAILING]);
    assert_eq!(log("media_errors", 1), [ERRORS]);
    for bit in [0, 2, 3, 4, 5, 6] {
        assert_eq!(log("critical_warning", 1 << bit), [FAILING], "bit {bit}");
    }
    assert_eq!(
        log("critical_warning", 2),
        [(FaultKind::Temperature, Severity::Degraded)]
    );
}

#[test]
fn ata_attributes_are_believed_by_name() {
    assert_eq!(found(attribute("Current_Pending_Sector", 100, 0)), []);
    assert_eq!(
        found(attribute("Current_Pending_Sector", 100, 1)),
        [FAILING]
    );
    assert_eq!(found(attribute("Offline_Uncorrectable", 100, 3)), [FAILING]);
    assert_eq!(found(attribute("Host_Reads_32MiB", 100, 900)), []);
    assert_eq!(found(attribute("Reallocated_Sector_Ct", 100, 49)), []);
    assert_eq!(found(attribute("Reallocated_Sector_Ct", 100, 50)), [ERRORS]);
    assert_eq!(found(attribute("Media_Wearout_Indicator", 21, 0)), []);
    assert_eq!(found(attribute("Media_Wearout_Indicator", 20, 0)), [WEAR]);
    let mut failing = attribute("Spin_Retry_Count", 1, 0);
    failing["ata_smart_attributes"]["table"][0]["when_failed"] = json!("now");
    assert_eq!(found(failing), [FAILING]);
}

#[test]
fn sas_each_side_of_each_limit() {
    let errors = |count: u64| {
        found(json!({"scsi_error_counter_log": {"write": {"total_uncorrected_errors": count}}}))
    };
    assert_eq!(errors(0), []);
    assert_eq!(errors(9), [ERRORS]);
    assert_eq!(errors(10), [FAILING]);
    let heat = |current: u64| found(json!({"temperature": {"current": current, "drive_trip": 65}}));
    assert_eq!(heat(64), []);
    assert_eq!(heat(65), [(FaultKind::Temperature, Severity::Degraded)]);
}
