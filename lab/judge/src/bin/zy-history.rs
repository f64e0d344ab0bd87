//! `zy-history`: judges a history of faults against what was probed and told meanwhile.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use judge::results::Results;
use judge::{chaos, history};

/// Judges what `zylab chaos` wrote: that every data disk is whole, that guests booted and hosts were
/// forced off for a reason, that the fault ledger tells each death once, nothing else, and the
/// downtime that was seen. Ends with 1 when something is wrong, with 2 when nothing can be judged.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The history.
    history: PathBuf,
    /// Results of zy-prober of the same time.
    #[arg(long)]
    probes: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("zy-history: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let history = history::read(&arguments.history)?;
    let verdict = chaos::judge(&history, &Results::read(&arguments.probes)?);
    println!(
        "{} faults, {} hosts died, {} Incidents, {} probes, {} stamped writes, rest after {:.0} s at the longest",
        verdict.faults,
        verdict.deaths,
        verdict.incidents,
        verdict.probes,
        verdict.writes,
        verdict.longest_rest_seconds
    );
    for finding in &verdict.findings {
        println!("{finding}");
    }
    Ok(verdict.is_clean())
}
