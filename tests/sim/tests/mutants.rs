//! Planted errors that random schedules seldom meet: the scenario that is about them differs.

use std::path::Path;

use sim::mutant::Mutant;
use sim::plan::Plan;
use sim::run::run;
use sim::scenario::{plan_of, play_with};

/// What differs when a scenario is played with a planted error.
fn differs(scenario: &str, mutant: Mutant) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    play_with(&folder.join(scenario), mutant).expect_err("the error was not noticed")
}

#[test]
fn forcing_off_while_disarmed_is_caught() {
    for scenario in [
        "16d-network-work-while-disarmed",
        "16e-a-host-hangs-while-disarmed",
        "16f-armed-again-before-the-time-is-over",
    ] {
        let text = differs(scenario, Mutant::IgnoresDisarm);
        assert!(text.contains("Disarmed"), "{scenario}: {text}");
    }
}

/// The rule that a planted error breaks in random schedules.
fn caught(mutant: Mutant) -> &'static str {
    let ended = sim::run::many(1, 1_000, mutant);
    let failure = ended.expect_err("not noticed in 1,000 schedules");
    failure.1.rule
}

#[test]
fn an_agent_that_stops_what_runs_is_caught_on_the_spot() {
    assert_eq!(caught(Mutant::AgentStopsVms), "healthy-runs");
}

/// The judge knows from the API server who renews, not from what the operator makes of it: that messages are
/// lost, or a watch stands still, excuses nobody.
#[test]
fn an_operator_that_forces_off_hosts_that_renew_is_caught() {
    for mutant in [Mutant::Hasty, Mutant::DeafToOne] {
        let caught = (1..=1_000).any(|seed| {
            let violation = run(Plan::random(seed), mutant, false).violation;
            violation.is_some_and(|violation| {
                violation.rule == "healthy-runs" && violation.text.contains("Lease was renewed")
            })
        });
        assert!(caught, "{mutant:?} was not noticed in 1,000 schedules");
    }
}

#[test]
fn an_operator_that_dawdles_is_caught_by_the_bound() {
    assert_eq!(caught(Mutant::Dawdles), "in-time");
}

/// One observer that lies is enough to start a VM twice, if nobody else is heard.
#[test]
fn believing_one_observer_alone_is_caught() {
    let scenario = "41c-an-observer-lies-about-a-host-that-beats";
    let text = differs(scenario, Mutant::BelievesOne);
    assert!(text.contains("one-writer"), "{text}");
}

/// Another machine with a host's name and UUID is taken for its next boot, unless its NICs are looked at.
#[test]
fn knowing_machines_by_their_uuid_alone_is_caught() {
    let scenario = "33e-a-second-machine-with-the-same-name-and-uuid";
    let text = differs(scenario, Mutant::UuidAlone);
    // The proof that the platform must not give: h1 runs on.
    assert!(text.contains("proof=Rebooted"), "{text}");
}

/// The API server is away, the guard is started again, and storage is fine.
#[test]
fn a_guard_that_forgets_its_pools_is_caught() {
    let scenario = "11d-guard-restarts-while-the-api-server-is-down";
    let text = differs(scenario, Mutant::GuardForgetsPools);
    assert!(text.contains("guardFired"), "{text}");
}

/// A start that hung goes on after its epoch was closed: only the hook stands in its way.
#[test]
fn a_hook_that_lets_a_closed_epoch_start_is_caught() {
    let text = differs("42b-a-start-hangs-past-its-deadline", Mutant::HookPasses);
    assert!(text.contains("one-writer"), "{text}");
}

/// Of two VMs that wait for one room the more urgent one gets it, though the other one was declared first.
#[test]
fn giving_the_last_room_to_who_is_listed_first_is_caught() {
    let scenario = "01e-the-last-room-goes-to-the-most-urgent";
    let text = differs(scenario, Mutant::PlansAsListed);
    assert!(text.contains("did not happen"), "{text}");
}

/// The application waits for its database, and another VM would take its room meanwhile.
#[test]
fn giving_away_the_room_of_a_tier_that_waits_is_caught() {
    let scenario = "01f-a-tier-that-waits-keeps-its-room";
    let text = differs(scenario, Mutant::KeepsNoRoom);
    assert!(text.contains("did not happen"), "{text}");
}

/// The second VM must be placed while the watch does not show where the first one went and other hosts still
/// count as alive: in which seeds is up to the guards' phases.
#[test]
fn forgetting_where_a_vm_was_just_placed_is_caught() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let folder = folder.join("23c-two-that-must-be-apart-lose-their-hosts-at-once");
    let broken = |seed: u64, mutant| {
        let plan = plan_of(&folder, seed).expect("a scenario");
        run(plan, mutant, true).violation.map(|it| it.rule)
    };
    let seeds = 1..=40;
    let right: Vec<_> = seeds.clone().map(|it| broken(it, Mutant::None)).collect();
    assert!(right.iter().all(Option::is_none), "{right:?}");
    let mut forgetful = seeds.map(|it| broken(it, Mutant::ForgetsSeats));
    assert!(forgetful.any(|rule| rule == Some("apart")));
}
