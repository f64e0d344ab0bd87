//! Disks by `smartctl --json`: which there are, what each says of itself, and the verdict.

mod judge;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::command::Runner;
use crate::finding::{Findings, id_part, quote};
use crate::thresholds::Thresholds;

pub use judge::judge_disk;

/// One disk's answer is some ten kilobytes; long error logs some hundred.
const OUTPUT_BYTES_MAX: u64 = 8 << 20;
/// A disk that answers slower has a problem of its own.
const DISK_TIME_OUT: Duration = Duration::from_secs(20);
/// All disks together.
const ALL_TIME_OUT: Duration = Duration::from_secs(120);
/// Disks asked.
const DISKS_MAX: usize = 128;

/// Asks all disks that smartctl finds.
pub fn probe(smartctl: &Path, runner: &mut Runner, thresholds: &Thresholds) -> Findings {
    let mut findings = Findings::default();
    let scan = match ask(smartctl, runner, &["--json", "--scan"], DISK_TIME_OUT) {
        Ok(scan) => scan,
        Err(message) => {
            findings.fail(None, message);
            return findings;
        }
    };
    let deadline = Instant::now() + ALL_TIME_OUT;
    let mut seen = BTreeSet::new();
    for (name, kind) in devices(&scan) {
        let component = component(&name, &kind);
        if !seen.insert(component.clone()) {
            continue;
        }
        let left = deadline
            .saturating_duration_since(Instant::now())
            .min(DISK_TIME_OUT);
        if left.is_zero() {
            findings.fail(
                Some(component),
                format!(
                    "disks took more than {} s; the rest was not asked",
                    ALL_TIME_OUT.as_secs()
                ),
            );
            continue;
        }
        let device = format!("--device={kind}");
        match ask(
            smartctl,
            runner,
            &["--json", "--xall", "--nocheck=standby", &device, &name],
            left,
        ) {
            Ok(answer) => findings.extend(judge_disk(&component, &answer, thresholds)),
            Err(message) => findings.fail(Some(component), message),
        }
    }
    findings
}

fn ask(
    smartctl: &Path,
    runner: &mut Runner,
    arguments: &[&str],
    time_out: Duration,
) -> Result<Value, String> {
    let output = runner
        .run(smartctl, arguments, time_out, OUTPUT_BYTES_MAX)
        .map_err(|error| error.sentence())?;
    serde_json::from_slice(&output).map_err(|error| {
        let device = arguments.last().copied().unwrap_or_default();
        format!(
            "smartctl {} did not answer in JSON ({error}); smartmontools 7.0 or newer is needed",
            quote(device, 64)
        )
    })
}

/// `(device, type)` of a scan. Names come from smartctl and go back to it as arguments, so they
/// must look like devices and types, and not like options.
fn devices(scan: &Value) -> Vec<(String, String)> {
    let list = scan.get("devices").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|device| {
            let name = device.get("name")?.as_str()?;
            let kind = device.get("type")?.as_str()?;
            let is_sound = name.starts_with('/')
                && !kind.is_empty()
                && !kind.starts_with('-')
                && name.len() < 256
                && kind.len() < 64;
            is_sound.then(|| (name.to_owned(), kind.to_owned()))
        })
        .take(DISKS_MAX)
        .collect()
}

/// `disk/sda`; disks behind one RAID controller share a device and differ by type.
fn component(name: &str, kind: &str) -> String {
    let short = name.strip_prefix("/dev/").unwrap_or(name);
    match kind.split_once(',') {
        Some(_) => format!("disk/{}-{}", id_part(short), id_part(kind)),
        None => format!("disk/{}", id_part(short)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scanned_names_are_checked() {
        let scan = json!({"devices": [
            {"name": "/dev/sda", "type": "sat"}, {"name": "--help", "type": "sat"}, {"name": "/dev/sdb", "type": "-x"},
            {"name": "/dev/bus/0", "type": "megaraid,5"}, {"name": 5}]});
        let found: Vec<String> = devices(&scan)
            .iter()
            .map(|(name, kind)| component(name, kind))
            .collect();
        assert_eq!(found, ["disk/sda", "disk/bus-0-megaraid-5"]);
        assert!(devices(&json!([])).is_empty());
    }

    #[test]
    fn a_program_that_speaks_no_json_and_an_absent_one_are_errors_and_no_faults() {
        for program in ["/bin/echo", "/nonexistent/smartctl"] {
            let found = probe(
                Path::new(program),
                &mut Runner::default(),
                &Thresholds::default(),
            );
            assert!(found.findings.is_empty());
            assert_eq!(found.errors.len(), 1, "{program}");
        }
    }
}
