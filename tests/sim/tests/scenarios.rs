//! Plays every directory of `tests/scenarios`; `SCENARIO=16` plays only those that begin so.

use std::path::Path;

use sim::mutant::Mutant;

#[test]
fn every_scenario_goes_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .expect("tests/scenarios")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&only)
        })
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "no scenario begins with {only:?}");
    let mut failures = Vec::new();
    for folder in &folders {
        if let Err(problem) = sim::scenario::play(folder) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            failures.push(format!("== {name}: {problem}"));
        }
    }
    let (count, all) = (failures.len(), folders.len());
    assert!(
        failures.is_empty(),
        "{count} of {all} differ\n{}",
        failures.join("\n\n")
    );
}

fn broken(scenario: &str, mutant: Mutant) -> Option<&'static str> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let plan = sim::scenario::plan_of(&folder.join(scenario), 1).expect("a scenario");
    let violation = sim::run::run(plan, mutant, false).violation;
    violation.map(|violation| violation.rule)
}

/// Random schedules seldom cut a host off from everything for as long as the contract takes.
#[test]
fn a_guard_that_sleeps_is_caught_where_a_host_loses_everything() {
    let scenario = "53-heartbeat-dead-for-a-minute-then-the-lease-drops";
    assert_eq!(broken(scenario, Mutant::None), None);
    assert_eq!(broken(scenario, Mutant::GuardSleeps), Some("one-writer"));
}

/// Random schedules seldom let a start hang across a restore and a rebase.
#[test]
fn a_start_that_outlives_a_rebase_is_caught() {
    let scenario = "48i-restored-while-a-start-hangs";
    assert_eq!(broken(scenario, Mutant::None), None);
    let rule = broken(scenario, Mutant::RebaseKeepsStarts);
    assert_eq!(rule, Some("one-writer"));
}

/// No random schedule loses a ledger: it lies in memory, as the guests do.
#[test]
fn a_host_that_starts_on_without_its_ledger_is_caught() {
    let scenario = "07d-the-ledger-is-lost-while-vms-run";
    assert_eq!(broken(scenario, Mutant::None), None);
    assert_eq!(broken(scenario, Mutant::KeepsStarting), Some("epoch-once"));
}
