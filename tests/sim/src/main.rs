//! `sim --seed N` replays one schedule as a readable log; `sim --schedules N --from SEED` runs
//! many on two threads; `--with FAULT` only those in which that fault happens (`Restore`, `Twin`, as
//! `faults::Fault` calls it); `--mutant NAME` plants an error.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use sim::check::Violation;
use sim::mutant::Mutant;
use sim::plan::Plan;
use sim::run::{explain, many, run};
use sim::story::lines;

/// Threads of a long run.
const THREADS: u64 = 2;
/// Failures of a thread whose story is told; of others the seed is printed.
const EXPLAINED: usize = 3;

struct Options {
    seed: Option<u64>,
    schedules: u64,
    from: u64,
    with: String,
    mutant: Mutant,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seed: None,
        schedules: 10_000,
        from: 1,
        with: String::new(),
        mutant: Mutant::None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{word} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|error| format!("{word} {value}: {error}"))
        };
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--schedules" => options.schedules = number()?,
            "--from" => options.from = number()?,
            "--with" => options.with = value,
            "--mutant" => {
                options.mutant =
                    Mutant::named(&value).ok_or_else(|| format!("no mutant {value}"))?;
            }
            _ => {
                return Err(format!(
                    "{word} is not known; use --seed, --schedules, --from, --with, --mutant"
                ));
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("sim: {error}");
            return ExitCode::from(2);
        }
    };
    match options.seed {
        Some(seed) => replay(seed, options.mutant),
        None => run_many(&options),
    }
}

fn replay(seed: u64, mutant: Mutant) -> ExitCode {
    let plan = Plan::random(seed);
    println!("{plan:#?}");
    let ended = run(plan, mutant, true);
    for line in lines(&ended.story) {
        println!("{line}");
    }
    match ended.violation {
        None => {
            println!("all rules held; {} s of virtual time", ended.lasted / 1000);
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("broken: {}: {}", violation.rule, violation.text);
            ExitCode::FAILURE
        }
    }
}

/// What became of a range of schedules.
#[derive(Default)]
struct Ended {
    /// How many were run.
    schedules: u64,
    /// Virtual milliseconds of all that held.
    lasted: u64,
    failures: Vec<(Plan, Violation)>,
}

/// Runs every schedule of a range in which a fault happens; an empty word: all.
fn all(from: u64, count: u64, with: &str, mutant: Mutant) -> Ended {
    let mut ended = Ended::default();
    for seed in from..from + count {
        if !with.is_empty() && !format!("{:?}", Plan::random(seed).faults).contains(with) {
            continue;
        }
        ended.schedules += 1;
        match many(seed, 1, mutant) {
            Ok(milliseconds) => ended.lasted += milliseconds,
            Err(failure) => ended.failures.push(*failure),
        }
    }
    ended
}

fn run_many(options: &Options) -> ExitCode {
    let begin = Instant::now();
    let share = options.schedules.div_ceil(THREADS);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (from, mutant) = (options.from + thread * share, options.mutant);
            let with = options.with.clone();
            thread::spawn(move || all(from, share, &with, mutant))
        })
        .collect();
    let (mut schedules, mut virtual_milliseconds, mut violations) = (0, 0, 0);
    let mut panicked = false;
    for thread in threads {
        if let Ok(ended) = thread.join() {
            schedules += ended.schedules;
            virtual_milliseconds += ended.lasted;
            violations += ended.failures.len();
            for (plan, violation) in ended.failures.iter().take(EXPLAINED) {
                println!("{}", explain(plan, options.mutant, violation));
            }
            for (plan, violation) in ended.failures.iter().skip(EXPLAINED) {
                println!(
                    "seed {}: rule {} broken: {}",
                    plan.seed, violation.rule, violation.text
                );
            }
        } else {
            panicked = true;
            eprintln!("a thread panicked");
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{schedules} schedules from seed {} in {seconds:.1} s, {} hours of virtual time, {violations} violations",
        options.from,
        virtual_milliseconds / 3_600_000,
    );
    if panicked || violations > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
