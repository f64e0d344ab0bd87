//! Improves an assignment of the ROADEF/EURO 2012 machine reassignment benchmark, with the search
//! that rebalancing uses. An answer is written only after an independent judge found it legal; until there is a better
//! one the start is the answer, so that whoever stops the program early has one.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use placement::roadef::{Clock, Effort, Options, RunError, solve_files, write_assignment};

const USAGE: &str = "usage: reassign -t SECONDS -p MODEL -i START -o ANSWER [-s SEED] \
[--threads N] [--iterations N] [--clock wall|cpu]

  -t SECONDS      wall time, reading included (1 to 86400)
  --threads N     threads (default 2, at most 64)
  --iterations N  proposals on each thread instead of a time: the same answer every time
  --clock cpu     seconds of processor time on each thread instead of wall time: comparable
                  figures on a machine that others use too";

fn main() -> ExitCode {
    let began = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "-h" || a == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(args, began) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint!("reassign: {error}");
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

/// Writes an answer so that the file is never half one.
fn replace(path: &Path, assignment: &[u32]) -> Result<(), RunError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, write_assignment(assignment))
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| RunError::File(path.to_owned(), error))
}

fn run(args: Vec<String>, began: Instant) -> Result<String, Box<dyn Error>> {
    let known = [
        "-t",
        "-p",
        "-i",
        "-o",
        "-s",
        "--threads",
        "--iterations",
        "--clock",
    ];
    let options = Options::new(args.into_iter(), &known).map_err(|e| format!("{e}\n{USAGE}"))?;
    let iterations = match options.text("--iterations") {
        Some(_) => Some(options.number("--iterations", 0)?),
        None => None,
    };
    // A number of iterations stands for a time.
    if iterations.is_none() {
        options.required("-t")?;
    }
    let threads = options.number("--threads", 2)?.clamp(1, 64);
    let clock = Clock::named(options.text("--clock"))?;
    let used = || clock.used(began, threads as u32);
    let effort = Effort {
        used: &used,
        time: Duration::from_secs(options.number("-t", 1)?.clamp(1, 86_400)),
        iterations,
        seed: options.number("-s", 1)?,
        threads: threads as usize,
    };
    let model = Path::new(options.required("-p")?);
    let start = Path::new(options.required("-i")?);
    let answer_path = options.required("-o")?;
    let write = |assignment: &[u32]| replace(Path::new(answer_path), assignment);
    let answer = solve_files(model, start, effort, write)?;
    write(&answer.assignment)?;
    Ok(format!(
        "{} from {}; load {}, balance {}, process moves {}, service moves {}, machine moves {}; \
         {} proposals, {:.1} s, {:.1} s of processor time on each thread",
        answer.cost.total(),
        answer.initial.total(),
        answer.cost.load,
        answer.cost.balance,
        answer.cost.process_moves,
        answer.cost.service_moves,
        answer.cost.machine_moves,
        answer.proposals,
        began.elapsed().as_secs_f64(),
        Clock::Cpu.used(began, threads as u32).as_secs_f64()
    ))
}
