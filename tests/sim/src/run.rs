//! Runs schedules: one, many, and a failing one again with ever fewer faults until its story is
//! short enough to read.

use crate::check::Violation;
use crate::mutant::Mutant;
use crate::plan::Plan;
use crate::story::{Told, lines};
use crate::world::World;

/// The end of one run.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The rule that was broken, if any.
    pub violation: Option<Violation>,
    /// Virtual milliseconds.
    pub lasted: u64,
    /// The story, when it was asked for.
    pub story: Vec<Told>,
    /// Writes that operators sent to the API server.
    pub writes: u64,
}

/// Runs a plan.
pub fn run(plan: Plan, mutant: Mutant, heard: bool) -> Ended {
    let mut world = World::new(plan, mutant, heard);
    world.run();
    Ended {
        violation: world.checker.violation,
        lasted: world.now,
        story: world.story.lines,
        writes: world.writes,
    }
}

/// A failing plan with fewer faults that breaks the same rule.
pub fn shrink(plan: &Plan, mutant: Mutant, rule: &str) -> Plan {
    let mut least = plan.clone();
    let mut index = 0;
    while index < least.faults.len() {
        let mut fewer = least.clone();
        fewer.faults.remove(index);
        let ended = run(fewer.clone(), mutant, false);
        if ended
            .violation
            .is_some_and(|violation| violation.rule == rule)
        {
            least = fewer;
        } else {
            index += 1;
        }
    }
    least
}

/// A failure as people read it: the rule, the shortest plan found, and its story up to the end.
pub fn explain(plan: &Plan, mutant: Mutant, violation: &Violation) -> String {
    let least = shrink(plan, mutant, violation.rule);
    let ended = run(least.clone(), mutant, true);
    let mut text = format!(
        "seed {}: rule {} broken at {}.{:03} s: {}\n{} of {} faults are enough:\n",
        plan.seed,
        violation.rule,
        violation.at / 1000,
        violation.at % 1000,
        violation.text,
        least.faults.len(),
        plan.faults.len(),
    );
    for line in lines(&ended.story) {
        text.push_str(&format!("{line}\n"));
    }
    if let Some(violation) = ended.violation {
        text.push_str(&format!("broken: {}: {}\n", violation.rule, violation.text));
    }
    text.push_str(&format!(
        "replay: cargo run --release -p sim -- --seed {}\n",
        plan.seed
    ));
    text
}

/// Runs schedules one after the other; stops at the first that breaks a rule.
///
/// # Errors
/// The plan that broke a rule, and which.
pub fn many(from: u64, count: u64, mutant: Mutant) -> Result<u64, Box<(Plan, Violation)>> {
    let mut virtual_milliseconds = 0;
    for seed in from..from + count {
        let plan = Plan::random(seed);
        let ended = run(plan.clone(), mutant, false);
        virtual_milliseconds += ended.lasted;
        if let Some(violation) = ended.violation {
            return Err(Box::new((plan, violation)));
        }
    }
    Ok(virtual_milliseconds)
}
