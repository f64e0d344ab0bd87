//! `zy-prober`: probes endpoints from outside and judges how they answered.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use judge::probe;
use judge::report::{self, Availability, Report, Window};
use judge::results::{Config, Results};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Probes endpoints over HTTP from outside, and judges how they answered.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Probes until SIGTERM or SIGINT, and appends a JSON line for each probe to a file.
    Run {
        /// JSON: {"interval_milliseconds", "timeout_milliseconds", "targets": [{"id", "system", "address",
        /// "path", "host_header", "replica_of", "interval_milliseconds", "hold_path"}]}
        #[arg(long)]
        config: PathBuf,
        /// File that results are appended to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Judges a results file. Ends with 1 when a probe failed, a held connection broke, or guests'
    /// answers contradict one another.
    Report {
        /// File that `run` wrote.
        file: PathBuf,
        /// Judge from this moment on, seconds since 1970.
        #[arg(long)]
        from: Option<f64>,
        /// Judge up to this moment, seconds since 1970.
        #[arg(long)]
        to: Option<f64>,
        /// The whole report as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run { config, out } => run(&config, &out),
        Command::Report {
            file,
            from,
            to,
            json,
        } => {
            let edge = |seconds: Option<f64>, default| {
                seconds.map_or(default, |seconds| (seconds * 1e9) as u64)
            };
            let window = Window {
                from: edge(from, Window::ALL.from),
                to: edge(to, Window::ALL.to),
            };
            let results = Results::read(&file)?;
            ensure!(
                !results.samples.is_empty(),
                "{}: no probe is on record; nothing can be judged",
                file.display()
            );
            let report = report::judge(&results, window);
            if json {
                serde_json::to_writer_pretty(io::stdout().lock(), &report)?;
                println!();
            } else {
                print(&report);
            }
            std::process::exit(i32::from(!report.is_clean()));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: &PathBuf, out: &PathBuf) -> Result<()> {
    let file =
        File::open(config).with_context(|| format!("{} can not be read", config.display()))?;
    let parsed: Config = serde_json::from_reader(io::BufReader::new(file))
        .with_context(|| format!("{} is no configuration", config.display()))?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(out)
        .with_context(|| format!("{} can not be written", out.display()))?;
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = probe::run(&parsed, file, stopped);
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            _ = terminate.recv() => stop.send_replace(true),
            _ = interrupt.recv() => stop.send_replace(true),
        };
    }
}

fn print(report: &Report) {
    println!(
        "{:<44} {:>7} {:>7} {:>9} {:>10} {:>8}",
        "ENDPOINT", "PROBES", "FAILED", "DOWN (s)", "UNSEEN (s)", "GAP (s)"
    );
    for (name, availability) in &report.endpoints {
        print_one(name, availability);
    }
    for (name, hold) in &report.holds {
        let broken = if hold.broken.is_empty() {
            "unbroken".to_owned()
        } else {
            hold.broken.join("; ")
        };
        println!(
            "held {name}: {} lines, longest gap {:.2} s, {broken}",
            hold.lines, hold.longest_gap_seconds
        );
    }
    for (name, guest) in &report.guests {
        for problem in &guest.problems {
            println!("guest {name}: {problem}");
        }
    }
}

fn print_one(name: &str, availability: &Availability) {
    println!(
        "{name:<44} {:>7} {:>7} {:>9.2} {:>10.2} {:>8.2}",
        availability.probes,
        availability.failures,
        availability.downtime_seconds,
        availability.unobserved_seconds,
        availability.longest_gap_seconds
    );
    for (error, count) in &availability.errors {
        println!("    {count} × {error}");
    }
}
