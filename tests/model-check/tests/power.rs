//! One host and its BMC. State counts are pinned.

use model_check::check::{hunt, walk};
use model_check::power::{Bmc, Power, Removed};

/// Power losses, returns, hangs, lost renewals, late renewals, late readings.
const DARK: Power = Power::new(Bmc::Honest, 18, [2, 1, 0, 1, 1, 1]);
const HUNG: Power = Power::new(Bmc::Honest, 24, [0, 1, 1, 1, 0, 1]);
const LIES: Power = Power::new(Bmc::Lies, 14, [1, 1, 0, 1, 1, 1]);
const OTHER: Power = Power::new(Bmc::OtherMachine, 16, [1, 1, 1, 1, 0, 1]);
const MUTE: Power = Power::new(Bmc::Mute, 18, [1, 1, 1, 1, 1, 0]);
const STAYS_ON: Power = Power::new(Bmc::StaysOn, 26, [0, 0, 1, 1, 0, 1]);

fn pinned(model: Power, states: usize) {
    let found = walk(model);
    assert!(found.is_clean(), "{}", found.story());
    assert_eq!(found.states, states);
}

#[test]
fn an_honest_bmc() {
    pinned(DARK, 60_957);
    pinned(HUNG, 7008);
}

#[test]
fn a_bmc_that_lies() {
    pinned(LIES, 5518);
}

#[test]
fn a_bmc_of_another_machine() {
    pinned(OTHER, 8025);
}

#[test]
fn a_bmc_that_is_mute() {
    pinned(MUTE, 16_655);
}

#[test]
fn a_bmc_that_accepts_and_does_nothing() {
    pinned(STAYS_ON, 1473);
}

#[test]
fn no_rule_of_the_proof_can_be_spared() {
    for (rule, model) in [
        (Removed::AnyMachine, OTHER),
        (Removed::NoWindow, LIES),
        (Removed::SignsIgnored, LIES),
        (Removed::CommandIsProof, STAYS_ON),
    ] {
        let mutant = Power {
            removed: Some(rule),
            ..model
        };
        let property = "a boot that is proven dead is dead";
        let found = hunt(mutant, property);
        assert!(
            found.violations.contains_key(property),
            "{rule:?}: {}",
            found.story()
        );
    }
}
