//! `zy-diskledger`: reads data disks of the lab's guests and judges their stamped logs.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use judge::ledger::Verdict;
use judge::results::Results;
use serde::Serialize;

/// Reads data disks (raw or qcow2, also of running VMs) and judges their stamped logs: every write
/// exactly once, one writer at a time, nothing acknowledged missing. Prints JSON; ends with 1 when
/// something is wrong, with 2 when a disk can not be judged.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Disk files.
    #[arg(required = true)]
    disks: Vec<PathBuf>,
    /// Results of zy-prober: writes that a guest has told about must be on its disk.
    #[arg(long)]
    acknowledged: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Judged {
    disk: PathBuf,
    clean: bool,
    #[serde(flatten)]
    verdict: Verdict,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("zy-diskledger: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let mut heard = Results::default();
    for file in &arguments.acknowledged {
        heard.samples.extend(Results::read(file)?.samples);
    }
    let mut judged = Vec::new();
    for disk in &arguments.disks {
        let verdict = judge::judge_disk(disk, &heard.samples)?;
        judged.push(Judged {
            disk: disk.clone(),
            clean: verdict.is_clean(),
            verdict,
        });
    }
    serde_json::to_writer_pretty(io::stdout().lock(), &judged)?;
    println!();
    Ok(judged.iter().all(|judged| judged.clean))
}
