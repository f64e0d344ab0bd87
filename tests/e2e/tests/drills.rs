//! Drills on a real lab, played by `zyctl drill run`, as ops would: the fast ones with every change,
//! all of them with `DRILLS=all`, some with `DRILLS=NAME,…`. The drills of every site come with zyctl;
//! those that only a lab can play are the files in `drills/`. Lateness is told and fails nothing, as
//! machines may be loaded; what does not come about, or changes that must not, fails. In the end the
//! prober and the disk ledger, which share no code with the product, judge the whole.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use api::Host;
use e2e::command::{within, zyctl_command};
use e2e::standing::nothing_was_lost;
use e2e::story::check_programs;
use e2e::watch::{busiest, busy_host, is_ready};
use lab::{Lab, LabOptions, declarations, judges, rest};
use serde_json::Value;

/// Drills of every site that are played with every change; the others are long.
const FAST: [&str; 1] = ["host-power-loss"];
/// All drills of every site.
const OF_EVERY_SITE: [&str; 6] = [
    "host-power-loss",
    "host-hang",
    "management-cut",
    "agent-restart",
    "operator-restart",
    "bmc-dead",
];

/// Names or files of the drills that are asked for.
fn chosen() -> Result<Vec<String>> {
    let asked = std::env::var("DRILLS").unwrap_or_default();
    let mut drills: Vec<String> = OF_EVERY_SITE
        .iter()
        .filter(|name| asked == "all" || (asked.is_empty() && FAST.contains(name)))
        .map(|name| (*name).to_owned())
        .collect();
    if !asked.is_empty() && asked != "all" {
        drills = asked.split(',').map(str::to_owned).collect();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("drills");
    let entries = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let fast = text.lines().any(|line| line == "tag: fast");
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let path = file.display().to_string();
        if let Some(named) = drills.iter_mut().find(|name| **name == stem) {
            *named = path;
        } else if asked == "all" || (asked.is_empty() && fast) {
            drills.push(path);
        }
    }
    Ok(drills)
}

#[tokio::test(flavor = "multi_thread")]
async fn drills_are_passed() -> Result<()> {
    check_programs()?;
    let drills = chosen()?;
    ensure!(!drills.is_empty(), "no drill is named so");
    let lab = Lab::up(LabOptions {
        name: "drills".to_owned(),
        // One leads; where it stands still or dies, the other one takes over.
        operators: 2,
        ..LabOptions::default()
    })
    .await?;
    let systems = ["tourism".to_owned(), "trade-union".to_owned()];
    declarations::deploy(&lab, &systems).await?;
    rest::settle(&lab).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    let mut failed = Vec::new();
    for drill in &drills {
        if let Err(error) = play(&lab, drill).await {
            failed.push(format!("{drill}: {error:#}"));
        }
        rest::settle(&lab)
            .await
            .with_context(|| format!("after {drill}"))?;
    }
    nothing_was_lost(&lab).await?;
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    lab.down()
}

/// The host that carries most VMs. With every change a BMC that lies is the only one of its host, read and
/// commanded over IPMI: a person is asked after three tries. Asked for by name or by `all`, the drill takes
/// whichever host carries most, and with two BMCs both are tried.
async fn host_for(lab: &Lab, drill: &str) -> Result<String> {
    let is_asked_for = std::env::var("DRILLS").is_ok_and(|asked| !asked.is_empty());
    let lies = Path::new(drill)
        .file_stem()
        .is_some_and(|stem| stem == "bmc-lying");
    if lies && !is_asked_for {
        let alone = |host: &Host| is_ready(host) && host.spec.bmcs.len() == 1;
        // Where such a host carries nothing, another will do.
        if let Ok(host) = busiest(&lab.client, alone).await {
            return Ok(host);
        }
    }
    busy_host(&lab.client).await
}

/// Plays one drill, and tells what was measured.
async fn play(lab: &Lab, drill: &str) -> Result<()> {
    let on = host_for(lab, drill).await?;
    let mut command = within(300, &zyctl_command(lab)?);
    command.args(["drill", "run", drill, "--on", &on, "--confirm", &on]);
    command.args(["--lab", &lab.files.name, "-o", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{drill} on {on}:\n{told}");
    ensure!(output.status.success(), "on {on}:\n{told}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        report["outcomes"]
            .as_array()
            .is_some_and(|all| !all.is_empty()),
        "it checked nothing: {report}"
    );
    Ok(())
}
