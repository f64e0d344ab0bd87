//! Runs every instance of a data directory for the same time and prints a table: initial cost,
//! cost, best known cost, and the benchmark's score, 100 * (cost - best known) / initial.
//!
//! A directory holds `model_NAME.txt` and `assignment_NAME.txt`. Best known costs are those of set
//! A; an instance without one is shown without a score and left out of the sum.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use placement::roadef::{Effort, Options, solve_files};

const USAGE: &str = "usage: bench_roadef -d DIRECTORY -t SECONDS [-s SEED] [--threads N] \
[--iterations N] [--only NAME,NAME]";

/// The best that anybody reached on set A: an exact solver's hour for a1_2, a1_3 and a1_4, 300 s
/// entries elsewhere.
const BEST: [(&str, i64); 10] = [
    ("a1_1", 44_306_501),
    ("a1_2", 777_531_842),
    ("a1_3", 583_005_719),
    ("a1_4", 262_086_758),
    ("a1_5", 727_578_310),
    ("a2_1", 329),
    ("a2_2", 746_097_632),
    ("a2_3", 1_210_644_572),
    ("a2_4", 1_680_615_349),
    ("a2_5", 318_358_949),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_roadef: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Names of the instances of a directory, sorted.
fn names(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = file
            .strip_prefix("model_")
            .and_then(|f| f.strip_suffix(".txt"))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn run() -> Result<(), Box<dyn Error>> {
    let known = ["-d", "-t", "-s", "--threads", "--iterations", "--only"];
    let options =
        Options::new(std::env::args().skip(1), &known).map_err(|e| format!("{e}\n{USAGE}"))?;
    let directory = PathBuf::from(options.required("-d")?);
    let seconds = options.number("-t", 10)?.clamp(1, 86_400);
    let iterations = match options.text("--iterations") {
        Some(_) => Some(options.number("--iterations", 0)?),
        None => None,
    };
    let only: Option<Vec<&str>> = options.text("--only").map(|o| o.split(',').collect());
    println!(
        "{:8} {:>14} {:>14} {:>14} {:>10} {:>8}",
        "instance", "initial", "cost", "best known", "score", "M/s"
    );
    let mut sum = 0.0;
    for name in names(&directory)? {
        if only
            .as_ref()
            .is_some_and(|only| !only.contains(&name.as_str()))
        {
            continue;
        }
        let began = Instant::now();
        let effort = Effort {
            began,
            time: Duration::from_secs(seconds),
            iterations,
            seed: options.number("-s", 1)?,
            threads: options.number("--threads", 2)?.clamp(1, 64) as usize,
        };
        let answer = solve_files(
            &directory.join(format!("model_{name}.txt")),
            &directory.join(format!("assignment_{name}.txt")),
            effort,
        )?;
        let (initial, cost) = (answer.initial.total(), answer.cost.total());
        let speed = answer.proposals as f64 / began.elapsed().as_secs_f64() / 1e6;
        match BEST.iter().find(|(n, _)| *n == name) {
            Some((_, best)) => {
                let score = 100.0 * (cost - i128::from(*best)) as f64 / initial as f64;
                sum += score;
                println!("{name:8} {initial:>14} {cost:>14} {best:>14} {score:>10.4} {speed:>8.1}");
            }
            None => println!(
                "{name:8} {initial:>14} {cost:>14} {:>14} {:>10} {speed:>8.1}",
                "-", "-"
            ),
        }
    }
    println!("{:8} {:>14} {:>14} {:>14} {sum:>10.4}", "sum", "", "", "");
    Ok(())
}
