//! Scenarios as directories: `README.md` tells the story, `scenario.yaml` the site and what
//! happens, `expected.yaml` which events must come in which order, and which never.

use std::collections::BTreeMap;
use std::path::Path;

use model::Priority;
use serde::Deserialize;

use crate::faults::{Fault, HostIndex, VmIndex};
use crate::mutant::Mutant;
use crate::plan::{Plan, Timed, Trigger, VmSpec};
use crate::run::run;
use crate::story::{Pattern, Told, lines};

/// Properties in a file; numbers and words alike.
type Fields = BTreeMap<String, serde_yaml::Value>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VmFile {
    #[serde(default)]
    home: Option<HostIndex>,
    #[serde(default)]
    volume: Option<VmIndex>,
    #[serde(default)]
    pinned: Option<HostIndex>,
    #[serde(default)]
    stays: bool,
    #[serde(default)]
    apart: bool,
    #[serde(default)]
    tier: Option<i32>,
    #[serde(default)]
    priority: Priority,
}

#[derive(Debug, Deserialize)]
struct EventFile {
    #[serde(default)]
    at: Option<f64>,
    #[serde(default)]
    on: Option<Fields>,
    #[serde(default)]
    after: f64,
    #[serde(flatten)]
    fault: Fault,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    hosts: usize,
    #[serde(default = "ample")]
    room: u64,
    #[serde(default)]
    cuts: bool,
    #[serde(default)]
    heartbeat: bool,
    #[serde(default = "yes")]
    watchdog: bool,
    #[serde(default = "one")]
    bmcs: u32,
    #[serde(default = "yes", rename = "fenceIsolated")]
    fence_isolated: bool,
    #[serde(default)]
    probes: bool,
    vms: Vec<VmFile>,
    events: Vec<EventFile>,
    until: f64,
}

fn ample() -> u64 {
    8
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFile {
    /// In this order, others may come between.
    events: Vec<Fields>,
    /// Nowhere in the story.
    #[serde(default)]
    never: Vec<Fields>,
}

/// Seeds that each scenario is played with: delays differ, the story must not.
pub const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

/// Plays one scenario.
///
/// # Errors
/// What differs from the expectation, with the story that was played.
pub fn play(folder: &Path) -> Result<(), String> {
    play_with(folder, Mutant::None)
}

/// Plays one scenario with a planted error.
///
/// # Errors
/// As [`play`].
pub fn play_with(folder: &Path, mutant: Mutant) -> Result<(), String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    if read("README.md")?.trim().is_empty() {
        return Err("README.md is empty".to_owned());
    }
    let scenario: ScenarioFile = serde_yaml::from_str(&read("scenario.yaml")?)
        .map_err(|error| format!("scenario.yaml: {error}"))?;
    let expected: ExpectedFile = serde_yaml::from_str(&read("expected.yaml")?)
        .map_err(|error| format!("expected.yaml: {error}"))?;
    for seed in SEEDS {
        let ended = run(plan(&scenario, seed)?, mutant, true);
        let broken = ended
            .violation
            .map(|violation| format!("rule {} broken: {}", violation.rule, violation.text));
        if let Some(problem) = broken.or(compare(&expected, &ended.story)?) {
            let story = lines(&ended.story).join("\n");
            return Err(format!("seed {seed}: {problem}\n{story}"));
        }
    }
    Ok(())
}

/// The plan of a scenario, for other tests than its own.
///
/// # Errors
/// The file can not be read, or is none.
pub fn plan_of(folder: &Path, seed: u64) -> Result<Plan, String> {
    let path = folder.join("scenario.yaml");
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file: ScenarioFile =
        serde_yaml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    plan(&file, seed)
}

fn plan(file: &ScenarioFile, seed: u64) -> Result<Plan, String> {
    let vms = file
        .vms
        .iter()
        .enumerate()
        .map(|(index, vm)| VmSpec {
            home: vm.home.map(|host| host.0),
            volume: vm.volume.map_or(index, |vm| vm.0),
            pinned: vm.pinned.map(|host| host.0),
            stays: vm.stays,
            apart: vm.apart,
            tier: vm.tier,
            priority: vm.priority,
        })
        .collect();
    let (mut faults, mut triggers) = (Vec::new(), Vec::new());
    for event in &file.events {
        let fault = event.fault.clone();
        match (event.at, &event.on) {
            (Some(at), None) => faults.push(Timed {
                at: milliseconds(at),
                fault,
            }),
            (None, Some(on)) => triggers.push(Trigger {
                on: pattern(on)?.0,
                after: milliseconds(event.after),
                fault,
            }),
            _ => return Err(format!("give either `at` or `on`: {event:?}")),
        }
    }
    faults.sort_by_key(|timed| timed.at);
    Ok(Plan {
        seed,
        hosts: file.hosts,
        room: file.room,
        vms,
        cuts: file.cuts,
        heartbeat: file.heartbeat,
        watchdog: file.watchdog,
        bmcs: file.bmcs,
        fence_isolated: file.fence_isolated,
        probes: file.probes,
        leave_one_off: true,
        faults,
        triggers,
        heals: false,
        dies: None,
        heal_at: milliseconds(file.until),
        settle_bound: 0,
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a scenario; negative ones become zero"
)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 1e6) * 1000.0).round() as u64
}

/// A pattern with its bounds in time: after, before.
fn pattern(fields: &Fields) -> Result<(Pattern, u64, u64), String> {
    let mut pattern = Pattern {
        what: String::new(),
        fields: Vec::new(),
    };
    let (mut after, mut before) = (0, u64::MAX);
    for (key, value) in fields {
        let text = match value {
            serde_yaml::Value::String(text) => text.clone(),
            serde_yaml::Value::Number(number) => number.to_string(),
            serde_yaml::Value::Bool(flag) => flag.to_string(),
            other => return Err(format!("{key}: {other:?} is no word and no number")),
        };
        let bound = || {
            value
                .as_f64()
                .map(milliseconds)
                .ok_or(format!("{key} is no number"))
        };
        match key.as_str() {
            "what" => pattern.what = text,
            "after" => after = bound()?,
            "before" => before = bound()?,
            _ => pattern.fields.push((key.clone(), text)),
        }
    }
    if pattern.what.is_empty() {
        return Err(format!("`what` is missing in {fields:?}"));
    }
    Ok((pattern, after, before))
}

fn compare(expected: &ExpectedFile, story: &[Told]) -> Result<Option<String>, String> {
    let mut from = 0;
    for fields in &expected.events {
        let (pattern, after, before) = pattern(fields)?;
        let found = story[from..]
            .iter()
            .position(|told| pattern.matches(told) && told.at >= after && told.at <= before);
        match found {
            Some(index) => from += index + 1,
            None => {
                return Ok(Some(format!(
                    "did not happen (after line {from}): {fields:?}"
                )));
            }
        }
    }
    for fields in &expected.never {
        let (pattern, after, before) = pattern(fields)?;
        let found = story
            .iter()
            .find(|told| pattern.matches(told) && told.at >= after && told.at <= before);
        if let Some(told) = found {
            return Ok(Some(format!("must never happen: {told}")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: u64, what: &'static str, vm: &str) -> Told {
        Told {
            at,
            who: "world".to_owned(),
            what,
            fields: vec![("vm", vm.to_owned())],
        }
    }

    fn judged(expected: &str) -> Option<String> {
        let story = [
            told(1_000, "assigned", "vm1-1"),
            told(2_000, "vmRuns", "vm1-1"),
        ];
        let expected: ExpectedFile = serde_yaml::from_str(expected).unwrap();
        compare(&expected, &story).unwrap()
    }

    #[test]
    fn order_bounds_and_absence_are_judged() {
        let good = "events: [{what: assigned, vm: vm1}, {what: vmRuns, before: 2}]";
        assert_eq!(judged(good), None);
        for bad in [
            "events: [{what: vmRuns}, {what: assigned}]",
            "events: [{what: vmRuns, before: 1.9}]",
            "events: [{what: assigned, vm: vm11}]",
            "events: [{what: assigned, after: 1.5}]",
            "{events: [], never: [{what: vmRuns}]}",
        ] {
            assert!(judged(bad).is_some(), "{bad}");
        }
    }
}
