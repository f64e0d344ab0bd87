//! `make demo`: brings up a data centre in a box, plays the main job on it, leaves it running.

use e2e::story::{Play, check_programs, play};
use lab::{Lab, LabFiles, LabOptions};

fn main() -> std::process::ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    check_programs()?;
    let files = LabFiles::of("demo")?;
    tokio::select! {
        result = tell() => result,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("demo: interrupted; removing what was started");
            lab::lifecycle::remove(&files)
        }
    }
}

async fn tell() -> anyhow::Result<()> {
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
    lab.keep();
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
    println!("  kubectl get bs,vm,zh -A");
    println!("  {folder}/zylab fault power-loss h2   # and watch: {folder}/zyctl status --watch");
    println!("Stop it: make demo-down");
    Ok(())
}
