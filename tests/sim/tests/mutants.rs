//! Planted errors that random schedules seldom meet: the scenario that is about them differs.

use std::path::Path;

use sim::mutant::Mutant;
use sim::scenario::play_with;

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
