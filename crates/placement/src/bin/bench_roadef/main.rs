//! Runs every instance of a directory for each of the times asked for, and prints one table: the
//! costs and scores beside the anchors, and the sum of the scores for each time. The score is
//! the benchmark's own: 100 * (cost - best known) / initial.
//!
//! A directory holds `model_NAME.txt` and `assignment_NAME.txt`. Anchors are those of set A; an
//! instance without them is shown without a score and left out of the sums. Every answer is
//! judged by `placement::roadef::violations`, which knows nothing of the search.

#![forbid(unsafe_code)]

mod generate;
mod rows;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use placement::roadef::{Answer, Clock, Effort, Options, solve_files};

const USAGE: &str = "usage: bench_roadef -d DIRECTORY [-t SECONDS,SECONDS] [-s SEED] [--threads N]
[--iterations N] [--only NAME,NAME] [--clock wall|cpu] [--rows FILE]
       bench_roadef --generate DIRECTORY [--only NAME,NAME]

  -t SECONDS,…    each instance is solved once for each (default 10,60,300)
  --clock cpu     seconds of processor time on each thread instead of wall time
  --rows FILE     also add rows for `bench_placement --and FILE`
  --generate DIR  write synthetic instances of the sizes of the challenge's second set";

/// The best that anybody reached on set A (an exact solver's hour for a1_2, a1_3 and a1_4, 300 s
/// entries elsewhere), and the best 300 s entry.
const ANCHORS: [(&str, i64, i64); 10] = [
    ("a1_1", 44_306_501, 44_306_501),
    ("a1_2", 777_531_842, 777_912_030),
    ("a1_3", 583_005_719, 583_006_422),
    ("a1_4", 262_086_758, 262_125_116),
    ("a1_5", 727_578_310, 727_578_310),
    ("a2_1", 329, 329),
    ("a2_2", 746_097_632, 746_097_632),
    ("a2_3", 1_210_644_572, 1_210_644_572),
    ("a2_4", 1_680_615_349, 1_680_615_349),
    ("a2_5", 318_358_949, 318_358_949),
];

/// One answer.
struct Solved {
    name: String,
    seconds: u64,
    threads: u32,
    cost: i128,
    /// The best that anybody reached, and the best 300 s entry.
    anchor: Option<(i64, i64)>,
    score: Option<f64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("bench_roadef: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                eprint!(": {next}");
                cause = next.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

/// Names of the instances of a directory, sorted.
fn names(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let entries =
        std::fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
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

/// How every instance is run.
struct Plan {
    directory: PathBuf,
    clock: Clock,
    iterations: Option<u64>,
    seed: u64,
    threads: u32,
}

impl Plan {
    fn solve(&self, name: &str, seconds: u64) -> Result<Answer, Box<dyn Error>> {
        // The processor time of earlier runs is not this one's.
        let (began, before) = (
            Instant::now(),
            self.clock.used(Instant::now(), self.threads),
        );
        let used = || self.clock.used(began, self.threads).saturating_sub(before);
        let effort = Effort {
            used: &used,
            time: Duration::from_secs(seconds),
            iterations: self.iterations,
            seed: self.seed,
            threads: self.threads as usize,
        };
        Ok(solve_files(
            &self.directory.join(format!("model_{name}.txt")),
            &self.directory.join(format!("assignment_{name}.txt")),
            effort,
            |_| Ok(()),
        )?)
    }
}

fn times(text: &str) -> Result<Vec<u64>, String> {
    let time = |t: &str| match t.parse() {
        Ok(seconds @ 1..=86_400) => Ok(seconds),
        _ => Err(format!("-t has {t:?}, not whole seconds from 1 to 86400")),
    };
    text.split(',').map(time).collect()
}

fn run() -> Result<(), Box<dyn Error>> {
    let known = [
        "-d",
        "-t",
        "-s",
        "--threads",
        "--iterations",
        "--only",
        "--clock",
        "--rows",
        "--generate",
    ];
    let options =
        Options::new(std::env::args().skip(1), &known).map_err(|e| format!("{e}\n{USAGE}"))?;
    let only: Option<Vec<&str>> = options.text("--only").map(|o| o.split(',').collect());
    if let Some(directory) = options.text("--generate") {
        generate::write_all(Path::new(directory), only.as_deref())
            .map_err(|e| format!("{directory}: {e}"))?;
        return Ok(());
    }
    let plan = Plan {
        directory: PathBuf::from(options.required("-d")?),
        clock: Clock::named(options.text("--clock"))?,
        iterations: match options.text("--iterations") {
            Some(_) => Some(options.number("--iterations", 0)?),
            None => None,
        },
        seed: options.number("-s", 1)?,
        threads: options.number("--threads", 2)?.clamp(1, 64) as u32,
    };
    let times = times(options.text("-t").unwrap_or("10,60,300"))?;
    let solved = table(&plan, &times, only)?;
    if let Some(file) = options.text("--rows") {
        rows::append(file, &solved).map_err(|e| format!("--rows {file}: {e}"))?;
    }
    Ok(())
}

/// One line for each instance, one pair of columns for each time.
fn table(
    plan: &Plan,
    times: &[u64],
    only: Option<Vec<&str>>,
) -> Result<Vec<Solved>, Box<dyn Error>> {
    print!(
        "{:8} {:>14} {:>14} {:>14}",
        "instance", "initial", "300 s entry", "to beat"
    );
    for seconds in times {
        print!(
            " {:>14} {:>9} {:>5}",
            format!("{seconds} s"),
            "score",
            "M/s"
        );
    }
    println!();
    let mut sums = vec![0.0; times.len()];
    let mut all = Vec::new();
    for name in names(&plan.directory)? {
        if only.as_ref().is_some_and(|o| !o.contains(&name.as_str())) {
            continue;
        }
        let anchor = ANCHORS.iter().find(|(n, ..)| *n == name);
        for (k, (&seconds, sum)) in times.iter().zip(&mut sums).enumerate() {
            let began = Instant::now();
            let answer = plan.solve(&name, seconds)?;
            let (initial, cost) = (answer.initial.total(), answer.cost.total());
            if k == 0 {
                match anchor {
                    Some((_, best, entry)) => {
                        print!("{name:8} {initial:>14} {entry:>14} {best:>14}")
                    }
                    None => print!("{name:8} {initial:>14} {:>14} {:>14}", "-", "-"),
                }
            }
            let score = anchor.map(|(_, best, _)| {
                100.0 * (cost - i128::from(*best)) as f64 / initial.max(1) as f64
            });
            all.push(Solved {
                name: name.clone(),
                seconds,
                threads: plan.threads,
                cost,
                anchor: anchor.map(|&(_, best, entry)| (best, entry)),
                score,
            });
            *sum += score.unwrap_or(0.0);
            let score = score.map_or("-".to_owned(), |score| format!("{score:.4}"));
            let speed = answer.proposals as f64 / began.elapsed().as_secs_f64() / 1e6;
            print!(" {cost:>14} {score:>9} {speed:>5.1}");
            std::io::stdout().flush()?;
        }
        println!();
    }
    print!("{:8} {:>14} {:>14} {:>14}", "sum", "", "", "");
    for sum in sums {
        print!(" {:>14} {sum:>9.4} {:>5}", "", "");
    }
    println!();
    Ok(all)
}
