//! `sim --seed N` replays one schedule as a readable log; `sim --schedules N --from SEED` runs
//! many on two threads; `--mutant NAME` plants an error.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use sim::mutant::Mutant;
use sim::plan::Plan;
use sim::run::{explain, many, run};
use sim::story::lines;

/// Threads of a long run.
const THREADS: u64 = 2;

struct Options {
    seed: Option<u64>,
    schedules: u64,
    from: u64,
    mutant: Mutant,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seed: None,
        schedules: 10_000,
        from: 1,
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
            "--mutant" => {
                options.mutant =
                    Mutant::named(&value).ok_or_else(|| format!("no mutant {value}"))?;
            }
            _ => {
                return Err(format!(
                    "{word} is not known; use --seed, --schedules, --from, --mutant"
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

fn run_many(options: &Options) -> ExitCode {
    let begin = Instant::now();
    let share = options.schedules.div_ceil(THREADS);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (from, mutant) = (options.from + thread * share, options.mutant);
            thread::spawn(move || many(from, share, mutant))
        })
        .collect();
    let mut virtual_seconds = 0;
    let mut failed = false;
    for thread in threads {
        match thread.join() {
            Ok(Ok(milliseconds)) => virtual_seconds += milliseconds / 1000,
            Ok(Err(failure)) => {
                failed = true;
                println!("{}", explain(&failure.0, options.mutant, &failure.1));
            }
            Err(_) => {
                failed = true;
                eprintln!("a thread panicked");
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} schedules from seed {} in {seconds:.1} s, {} hours of virtual time",
        share * THREADS,
        options.from,
        virtual_seconds / 3600,
    );
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
