//! `make demo`: brings up a data centre in a box, plays the main job on it, leaves it running.

use anyhow::Context as _;
use clap::Parser;
use e2e::story::{Play, check_programs, play};
use lab::runtime::{exit_code, interruptible};
use lab::{Lab, LabOptions};

/// Load per processor that the demo itself causes while guests boot (7.5 on two, measured).
const BUSY_PER_PROCESSOR: u32 = 4;

/// Plays the main job on a data centre in a box, and leaves it running.
#[derive(Parser)]
#[command(version)]
struct Options {}

fn main() -> std::process::ExitCode {
    let Options {} = Options::parse();
    let name = LabOptions::default().name;
    exit_code("demo", &interruptible(&name, tell()))
}

/// What to think of a failure when more wants to run than this machine has processors: guests are emulated by them, and
/// answer late when something else runs.
fn busy() -> Option<String> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = load.split(' ').next()?.parse().ok()?;
    let processors = std::thread::available_parallelism().ok()?.get();
    let bound = BUSY_PER_PROCESSOR * u32::try_from(processors).ok()?;
    (load > f64::from(bound)).then(|| {
        format!(
            "this machine's load is {load:.1} on {processors} processors, so its emulated guests answer late; end what else runs on it, or take a faster one, and play again"
        )
    })
}

async fn tell() -> anyhow::Result<()> {
    check_programs()?;
    println!(
        "A data centre in a box: four libvirt hosts, their BMCs, and a Kubernetes control plane"
    );
    let mut lab = Lab::up(LabOptions {
        talk: true,
        ..LabOptions::default()
    })
    .await?;
    let how = Play {
        talk: true,
        kill_operator: false,
    };
    let played = play(&lab, how).await;
    match busy() {
        Some(busy) => played.context(busy)?,
        None => played?,
    }
    lab.keep()?;
    let folder = lab::process::zylab()?
        .parent()
        .map(|folder| folder.display().to_string())
        .unwrap_or_default();
    println!();
    println!("The lab is left running. Look around:");
    println!(
        "  export KUBECONFIG={}",
        lab.files.kubeconfig("admin").display()
    );
    println!(
        "  {folder}/zyctl status            # the whole site on one screen (--language zh-CN for Chinese)"
    );
    let kubectl = e2e::command::kubectl_program().unwrap_or_else(|| "kubectl".into());
    println!("  {} get bs,vm,zh -A", kubectl.display());
    println!("  {folder}/zylab fault power-loss h2   # and watch: {folder}/zyctl status --watch");
    println!("Stop it: make demo-down");
    Ok(())
}
