//! Random schedules hold every rule; planted errors are caught.

use std::thread;

use sim::mutant::Mutant;
use sim::plan::Plan;
use sim::run::{explain, many, run};

/// A tenth of what a long run takes (`cargo run --release -p sim -- --schedules 100000`).
const SCHEDULES: u64 = 10_000;
/// Where the schedules of tests begin.
const FROM: u64 = 1;
/// A planted error must show within so many schedules.
const MUTANT_WITHIN: u64 = 1_000;

#[test]
fn ten_thousand_schedules_hold_every_rule() {
    let half = SCHEDULES / 2;
    let threads: Vec<_> = [FROM, FROM + half]
        .into_iter()
        .map(|from| thread::spawn(move || many(from, half, Mutant::None)))
        .collect();
    for thread in threads {
        let ended = thread.join().expect("the simulation panicked");
        if let Err(failure) = ended {
            panic!("{}", explain(&failure.0, Mutant::None, &failure.1));
        }
    }
}

fn caught(mutant: Mutant) -> &'static str {
    match many(FROM, MUTANT_WITHIN, mutant) {
        Ok(_) => panic!("{mutant:?} was not noticed in {MUTANT_WITHIN} schedules"),
        Err(failure) => failure.1.rule,
    }
}

#[test]
fn every_planted_error_is_caught_by_the_judge_of_its_rule() {
    for (mutant, rules) in [
        (Mutant::TrustsCommand, &["one-writer"] as &[_]),
        (
            Mutant::NoCompareAndSwap,
            &["one-writer", "epochs-grow", "epoch-once"],
        ),
        (Mutant::TrustsAnyBmc, &["one-writer"]),
        (Mutant::LedgerForgets, &["epoch-once", "one-writer"]),
        (Mutant::ResumesEagerly, &["one-writer"]),
        (Mutant::HandsOverStopped, &["one-writer"]),
        (Mutant::LosesEpoch, &["epochs-grow"]),
        (Mutant::ShowsStale, &["shown"]),
        (Mutant::NeverFences, &["recovers"]),
        (Mutant::ForgetsMoves, &["drains-end", "recovers"]),
        (Mutant::LiftsEarly, &["one-writer"]),
        (
            Mutant::ForgetsVersions,
            &["one-writer", "epoch-once", "epochs-grow", "recovers"],
        ),
        (Mutant::RebaseUnheard, &["one-writer", "epoch-once"]),
    ] {
        let rule = caught(mutant);
        assert!(rules.contains(&rule), "{mutant:?} broke {rule}");
    }
}

#[test]
fn a_seed_replays_to_the_last_event() {
    for seed in FROM..FROM + 20 {
        let (one, two) = (
            run(Plan::random(seed), Mutant::None, true),
            run(Plan::random(seed), Mutant::None, true),
        );
        assert_eq!(one.story, two.story, "seed {seed}");
        let silent = run(Plan::random(seed), Mutant::None, false);
        assert_eq!(
            silent.lasted, one.lasted,
            "a listener changes nothing, seed {seed}"
        );
    }
}

#[test]
fn schedules_are_not_safe_by_doing_nothing() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in FROM..FROM + 300 {
        for told in run(Plan::random(seed), Mutant::None, true).story {
            seen.insert(
                match (told.what, told.field("proof"), told.field("reason")) {
                    ("assigned", Some(proof), _) => format!("assigned by {proof}"),
                    ("decided" | "notDone" | "seen", _, Some(reason)) => reason.to_owned(),
                    (what, ..) => what.to_owned(),
                },
            );
        }
    }
    for wanted in [
        "assigned by Closed",
        "assigned by PoweredOff",
        "assigned by Rebooted",
        "assigned by SelfFenced",
        "assigned by HandedOver",
        "forceOffSent",
        "storm",
        "Storm",
        "NeedsPerson",
        "guardFired",
        "watchdogBites",
        "finishLost",
        "sourceDead",
        "cleared",
        "vmResumes",
        "moveEnded",
        "deleted",
    ] {
        assert!(
            seen.contains(wanted),
            "never happened: {wanted}; happened: {seen:?}"
        );
    }
}
