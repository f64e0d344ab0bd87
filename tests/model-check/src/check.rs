//! Walks a model to its end and tells what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// What a walk found.
#[derive(Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Violated properties, each with the shortest way there.
    pub violations: BTreeMap<&'static str, Vec<String>>,
    /// Guards (`sometimes`) for which no example exists.
    pub missing: BTreeSet<&'static str>,
}

impl Found {
    /// All is well.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.missing.is_empty()
    }

    /// The violations as stories.
    pub fn story(&self) -> String {
        let mut text = format!("{} states, missing {:?}\n", self.states, self.missing);
        for (property, steps) in &self.violations {
            text.push_str(&format!("{property}:\n"));
            for step in steps {
                text.push_str(&format!("  {step}\n"));
            }
        }
        text
    }
}

/// Walks every state of a model, breadth first on one thread, so that counts repeat.
pub fn walk<M>(model: M) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Hash + PartialEq + Debug + Send + Sync,
    M::Action: Clone + PartialEq + Debug,
{
    found(model.checker().spawn_bfs().join())
}

/// Walks until this property is seen to break, or to the end.
pub fn hunt<M>(model: M, property: &'static str) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Hash + PartialEq + Debug + Send + Sync,
    M::Action: Clone + PartialEq + Debug,
{
    let broken = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    found(model.checker().finish_when(broken).spawn_bfs().join())
}

fn found<M, C>(checker: C) -> Found
where
    M: Model,
    C: Checker<M>,
    M::State: Clone + Hash + PartialEq + Debug,
    M::Action: Clone + PartialEq + Debug,
{
    let examples: BTreeMap<&'static str, _> = checker.discoveries().into_iter().collect();
    let mut violations = BTreeMap::new();
    let mut missing = BTreeSet::new();
    for property in checker.model().properties() {
        let example = examples.get(property.name);
        match (property.expectation, example) {
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                let steps = path.clone().into_actions();
                let steps = steps.iter().map(|step| format!("{step:?}")).collect();
                violations.insert(property.name, steps);
            }
            (Expectation::Sometimes, None) => {
                missing.insert(property.name);
            }
            _ => {}
        }
    }
    Found {
        states: checker.unique_state_count(),
        violations,
        missing,
    }
}
