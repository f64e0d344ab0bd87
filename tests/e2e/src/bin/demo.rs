//! `make demo`: brings up a data centre in a box, plays the main job on it, leaves it running.

use clap::Parser;
use e2e::story::{Play, check_programs, play};
use lab::runtime::{exit_code, interruptible};
use lab::{Lab, LabOptions};

/// Plays the main job on a data centre in a box, and leaves it running.
#[derive(Parser)]
#[command(version)]
struct Options {}

fn main() -> std::process::ExitCode {
    let Options {} = Options::parse();
    let name = LabOptions::default().name;
    exit_code("demo", &interruptible(&name, tell()))
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
    play(
        &lab,
        Play {
            talk: true,
            kill_operator: false,
        },
    )
    .await?;
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
