//! The operator is killed at every write of a recovery, just before it arrives and just after, for a
//! short while and for good: the end is the same as if nobody had died. `STORY=01` tries one story.

use std::path::Path;

use sim::mutant::Mutant;
use sim::plan::{Death, Plan};
use sim::run::{Ended, run};
use sim::scenario::plan_of;

/// Stories with a recovery, a fence, a confirmation, a move, a drain, a deletion, a halt, a storage cut.
const STORIES: [&str; 11] = [
    "01-host-power-loss",
    "01d-tiers-return-in-order",
    "02-host-and-bmc-power-loss",
    "02d-storage-cut-off-instead-of-a-person",
    "10-both-networks-cut",
    "18a-migration",
    "24b-vm-deleted-before-its-host-is-proven",
    "25-user-stop-during-recovery",
    "27-host-returns-after-its-vms-moved",
    "38-guest-crashes",
    "60-whole-site-loses-power",
];
/// Back before the other one has taken over, and never.
const AWAY: [u64; 2] = [2_000, 10_000_000];
/// What a dead leader costs: the other one waits for its Lease, and observes anew.
const LONGER: u64 = 60_000;

/// How each VM and each move ended, with the claims on its volume and the highest epoch.
fn end(ended: &Ended) -> Vec<String> {
    let ends = ended
        .story
        .iter()
        .filter(|told| matches!(told.what, "end" | "endOfMove"));
    ends.map(|told| {
        // Where a VM runs may differ: by then another host may be the better one.
        let place = match told.field("host") {
            None | Some("nowhere") => "nowhere",
            Some(_) => "somewhere",
        };
        let word = |name| told.field(name).unwrap_or_default();
        format!(
            "{} {} {place} {} {} claims {} epoch {}",
            told.what,
            word("vm"),
            word("phase"),
            word("outcome"),
            word("claims"),
            word("lastEpoch"),
        )
    })
    .collect()
}

fn story(name: &str) -> Plan {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut plan = plan_of(&root.join(name), 1).expect("a scenario");
    plan.heal_at += LONGER;
    plan
}

#[test]
fn an_operator_that_dies_at_any_write_changes_no_end() {
    let only = std::env::var("STORY").unwrap_or_default();
    let (mut tried, mut failures) = (0, Vec::new());
    for name in STORIES.iter().filter(|name| name.starts_with(&only)) {
        let plan = story(name);
        let undisturbed = run(plan.clone(), Mutant::None, true);
        assert!(undisturbed.violation.is_none(), "{name}");
        let expected = end(&undisturbed);
        assert!(undisturbed.writes >= 3 && !expected.is_empty(), "{name}");
        for write in 0..undisturbed.writes {
            for (arrived, span) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
                let mut dies = plan.clone();
                let span = AWAY[span];
                dies.dies = Some(Death {
                    write,
                    arrived,
                    span,
                });
                let ended = run(dies, Mutant::None, true);
                tried += 1;
                let found = end(&ended);
                if ended.violation.is_some() || found != expected {
                    failures.push(format!(
                        "{name}, write {write}, arrived {arrived}, away {span} ms: {:?}\n  {found:?}\n  instead of {expected:?}",
                        ended.violation
                    ));
                }
            }
        }
    }
    println!("{tried} deaths tried");
    assert!(
        failures.is_empty(),
        "{} of {tried} deaths:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn the_death_that_is_asked_for_happens() {
    let mut plan = story("01-host-power-loss");
    plan.dies = Some(Death {
        write: 1,
        arrived: false,
        span: AWAY[1],
    });
    let ended = run(plan, Mutant::None, true);
    let died = |text: &str| text.contains("OperatorCrash");
    let deaths = ended
        .story
        .iter()
        .filter(|told| told.what == "fault" && died(&told.to_string()));
    assert_eq!(deaths.count(), 1, "the operator did not die");
}
