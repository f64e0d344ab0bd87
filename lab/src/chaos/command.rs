//! `zylab chaos`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Options;
use crate::fault::Fault;
use crate::lifecycle::{Lab, LabOptions};

/// Rounds of a plan that are printed.
const ROUNDS_SHOWN: usize = 40;
/// Hosts of a lab of chaos.
const HOSTS: u8 = 4;
/// Operators: one leads and one waits.
const OPERATORS: u8 = 2;

/// What the command line takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Name of the lab.
    #[arg(long, default_value = "chaos")]
    name: String,
    /// No new round begins after so many minutes.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seed of the plan. Default: a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
    /// Only these business systems.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,
    /// Arm the guards of all hosts; one round in five then cuts a host off from the API server and its storage.
    #[arg(long)]
    guards: bool,
    /// Folder for the history and the probes. Default: chaos-SEED in the folder for temporary files.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the lab running when a judge finds something.
    #[arg(long)]
    keep: bool,
    /// Print the first rounds of the plan and do nothing.
    #[arg(long)]
    plan: bool,
}

impl Arguments {
    /// Whether a lab is brought up and has to be taken down again.
    pub fn holds_a_lab(&self) -> bool {
        !self.plan
    }
}

/// Carries it out.
///
/// # Errors
/// The lab does not come up, a fault can not be made, or a judge finds something.
pub fn run(arguments: Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(new_seed);
    let out = arguments.out.unwrap_or_else(|| folder_of(seed));
    let options = Options {
        seed,
        lasts: Duration::try_from_secs_f64(arguments.minutes * 60.0).context("--minutes")?,
        only: arguments.only,
        systems: arguments.systems,
        guards: arguments.guards,
        out,
    };
    if arguments.plan {
        print_plan(&options);
        return Ok(());
    }
    let work = throw(arguments.name.clone(), &options, arguments.keep);
    crate::runtime::interruptible(&arguments.name, work)
}

/// A seed that is not like the last one.
pub fn new_seed() -> u64 {
    crate::judges::now() / 1_000 % 1_000_000
}

/// Where the files of a seed lie unless told otherwise.
pub fn folder_of(seed: u64) -> PathBuf {
    std::env::temp_dir().join(format!("chaos-{seed}"))
}

fn print_plan(options: &Options) {
    let hosts = (1..=HOSTS).map(crate::host::name).collect();
    let plan = super::plan(options, hosts);
    for (number, blows) in plan.take(ROUNDS_SHOWN).enumerate() {
        let blows: Vec<String> = blows.iter().map(ToString::to_string).collect();
        println!("round {}: {}", number + 1, blows.join(" · "));
    }
}

/// Brings a lab up, throws, judges, and takes the lab down; `keep` leaves one that was found wanting.
///
/// # Errors
/// See [`run`].
pub async fn throw(name: String, options: &Options, keep: bool) -> Result<()> {
    let mut lab = Lab::up(LabOptions {
        name,
        hosts: HOSTS,
        operators: OPERATORS,
        talk: true,
        ..LabOptions::default()
    })
    .await?;
    let verdict = super::run(&lab, options).await;
    if keep && !verdict.as_ref().is_ok_and(|verdict| verdict.is_clean()) {
        lab.keep()?;
    }
    let verdict = verdict.with_context(|| format!("seed {}", options.seed))?;
    println!("{}", super::tell(&verdict, options));
    if !verdict.is_clean() {
        bail!("seed {}: the judges found what stands above", options.seed);
    }
    Ok(())
}
