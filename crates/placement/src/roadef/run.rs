//! One instance from its files to a judged answer: what the two binaries share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{ParseError, Parts, Violation, cost, parse_assignment, parse_model, violations};
use crate::core::{Model, ModelError};
use crate::search::{Budget, improve};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file could not be read or written.
    #[error("{path}", path = .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// A file is not what it should be.
    #[error("{path}", path = .0.display())]
    Parse(PathBuf, #[source] ParseError),
    /// The numbers do not make a problem.
    #[error("the model cannot be searched")]
    Model(#[from] ModelError),
    /// The assignment to start from, or the one found, breaks a hard constraint.
    #[error("the {what} breaks {count} hard constraints; the first: {first}")]
    Illegal {
        /// Which assignment.
        what: &'static str,
        /// How many constraints it breaks.
        count: usize,
        /// One of them.
        first: Violation,
    },
}

/// How to run.
#[derive(Clone, Copy)]
pub struct Effort<'a> {
    /// Time used since the run began, on the caller's clock; reading the files counts.
    pub used: &'a (dyn Fn() -> Duration + Sync),
    /// Time for everything but writing the answer.
    pub time: Duration,
    /// So many proposals on each thread instead of a time.
    pub iterations: Option<u64>,
    /// Seed of the search.
    pub seed: u64,
    /// Threads of the search.
    pub threads: usize,
}

/// A judged answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Machine of every process.
    pub assignment: Vec<u32>,
    /// Objective of the start.
    pub initial: Parts,
    /// Objective of the answer.
    pub cost: Parts,
    /// Changes the search looked at.
    pub proposals: u64,
}

fn read(path: &Path) -> Result<Vec<u8>, RunError> {
    fs::read(path).map_err(|e| RunError::File(path.to_owned(), e))
}

/// Time that is kept for the judge and for writing the answer: a two-hundredth of all, within these bounds, and more
/// where reading took long.
const SPARE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// Reads an instance, searches, and lets the independent judge check what was found. `started` is given the
/// assignment to start from once that was found legal: an answer for whoever is stopped before the end.
///
/// # Errors
/// What is wrong with the files, or with what was found.
pub fn solve_files(
    model: &Path,
    start: &Path,
    effort: Effort<'_>,
    started: impl FnOnce(&[u32]) -> Result<(), RunError>,
) -> Result<Answer, RunError> {
    let text = read(model)?;
    let instance = parse_model(&text).map_err(|e| RunError::Parse(model.to_owned(), e))?;
    drop(text);
    let homes = parse_assignment(&read(start)?, &instance)
        .map_err(|e| RunError::Parse(start.to_owned(), e))?;
    legal("start", violations(&instance, &homes, &homes))?;
    started(&homes)?;
    let problem = Model::new(instance.to_spec(&homes))?;
    // The judge and the last batch need a little of the time: more on larger instances.
    let [least, most] = SPARE;
    let spare = (effort.used)()
        .mul_f64(0.5)
        .max((effort.time / 200).clamp(least, most));
    let limit = effort.time.saturating_sub(spare).as_secs_f64().max(1e-3);
    let clock = || (effort.used)().as_secs_f64() / limit;
    let budget = match effort.iterations {
        Some(n) => Budget::Proposals(n),
        None => Budget::Clock(&clock),
    };
    let found = improve(&problem, effort.seed, effort.threads, budget);
    legal("answer", violations(&instance, &homes, &found.placement))?;
    Ok(Answer {
        initial: cost(&instance, &homes, &homes),
        cost: cost(&instance, &homes, &found.placement),
        assignment: found.placement,
        proposals: found.proposals,
    })
}

fn legal(what: &'static str, broken: Vec<Violation>) -> Result<(), RunError> {
    let count = broken.len();
    match broken.into_iter().next() {
        Some(first) => Err(RunError::Illegal { what, count, first }),
        None => Ok(()),
    }
}

/// A command line of `-x VALUE` and `--name VALUE` pairs, each option at most once.
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Splits the arguments; `known` lists every option with its dashes.
    pub fn new(args: impl Iterator<Item = String>, known: &[&str]) -> Result<Options, String> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut args = args;
        while let Some(name) = args.next() {
            if !known.contains(&name.as_str()) {
                return Err(format!("{name} is not an option"));
            }
            if found.iter().any(|(n, _)| *n == name) {
                return Err(format!("{name} is given twice"));
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            found.push((name, value));
        }
        Ok(Options(found))
    }

    /// The value of an option, if given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The value of an option that must be given.
    pub fn required(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("{name} is missing"))
    }

    /// A whole number, or `or` when the option is not given.
    pub fn number(&self, name: &str, or: u64) -> Result<u64, String> {
        match self.text(name) {
            None => Ok(or),
            Some(v) => v
                .parse()
                .map_err(|_| format!("{name} is {v:?}, not a whole number")),
        }
    }
}
