//! The last resorts, on a real lab: an etcd that is restored from a backup while VMs run, a host that only
//! a person can vouch for, one that its watchdog resets, and one that fences itself; and hosts that are cut off while
//! their storage heartbeat beats. `LAST_RESORT=restore,…` plays some, `LAST_RESORT=all` all of them, as `make drills`
//! does. In the end the prober and the disk ledger, which share no code with the product, judge the whole.

mod cut_off;
mod restored;
mod unreachable;

use std::path::Path;

use anyhow::{Result, ensure};
use api::VirtualMachine;
use e2e::command::zyctl_within;
use e2e::standing::nothing_was_lost;
use e2e::story::check_programs;
use e2e::watch::until_well;
use lab::guards::shorten_timers;
use lab::{Lab, LabOptions, declarations, judges, rest};
use model::StopProofKind;

/// Systems of this lab.
const SYSTEMS: [&str; 2] = ["tourism", "trade-union"];
/// Stories, in the order in which they are played.
const STORIES: [&str; 7] = [
    "restore", "person", "watchdog", "guard", "cut", "switch", "isolated",
];
/// Those that are played with every change. The watchdog's bite has a unit test in `lab/src/watchdog.rs`; of the hosts that
/// are cut off and left alone `switch` hangs least on how soon a guest answers.
const FAST: [&str; 4] = ["restore", "person", "guard", "switch"];
/// No drill takes longer, seconds.
const DRILL_SECONDS: u32 = 300;

/// The stories that are asked for.
fn chosen() -> Result<Vec<&'static str>> {
    let asked = match std::env::var("LAST_RESORT") {
        Ok(text) if text == "all" => return Ok(STORIES.to_vec()),
        Ok(text) => text,
        Err(_) => FAST.join(","),
    };
    for name in asked.split(',') {
        ensure!(
            STORIES.contains(&name),
            "LAST_RESORT={asked}: {name:?} is none of {}, nor all",
            STORIES.join(", ")
        );
    }
    let mut stories = STORIES.to_vec();
    stories.retain(|story| asked.split(',').any(|name| name == *story));
    Ok(stories)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_survives_a_restored_etcd_and_hosts_that_nobody_reaches() -> Result<()> {
    check_programs()?;
    let stories = chosen()?;
    let lab = Lab::up(LabOptions {
        name: "resort".to_owned(),
        ..LabOptions::default()
    })
    .await?;
    declarations::deploy(&lab, &SYSTEMS.map(str::to_owned)).await?;
    rest::settle(&lab).await?;
    shorten_timers(&lab).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    if stories.contains(&"restore") {
        restored::etcd_is_restored(&lab).await?;
    }
    if stories.iter().any(|story| *story != "restore") {
        // The guards of all hosts but one are armed from here on.
        let unarmed = unreachable::arm(&lab).await?;
        for story in stories {
            play(&lab, story, &unarmed).await?;
        }
    }
    rest::settle(&lab).await?;
    nothing_was_lost(&lab).await?;
    lab.down()
}

/// Plays one story of a host that is not what it seems, where all but one are armed.
async fn play(lab: &Lab, story: &str, unarmed: &str) -> Result<()> {
    match story {
        "person" => unreachable::a_person_vouches(lab, unarmed).await,
        "watchdog" => unreachable::a_watchdog_bites(lab).await,
        "guard" => unreachable::a_guard_fires(lab).await,
        "cut" => cut_off::management_is_cut(lab).await,
        "switch" => cut_off::a_switch_is_dead(lab).await,
        "isolated" => cut_off::an_isolated_host_is_fenced(lab).await,
        _ => Ok(()),
    }
}

/// Plays the drill of this name that lies here, and tells what was measured.
fn drill(lab: &Lab, name: &str, on: &str) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/last_resort");
    let file = here.join(format!("{name}.yaml")).display().to_string();
    let on_lab = ["--lab", lab.files.name.as_str()];
    let arguments = ["drill", "run", &file, "--on", on, "--confirm", on];
    let arguments = [&arguments[..], &on_lab].concat();
    let told = zyctl_within(DRILL_SECONDS, lab, &arguments)?;
    println!("{name} on {on}\n{told}");
    Ok(())
}

/// Waits until every host is Ready, every VM runs and every system answers. Incidents may stand open yet.
async fn well(lab: &Lab) -> Result<()> {
    until_well(&lab.client, SYSTEMS.len()).await
}

/// Whether a VM's assignment rests on a proof of this kind.
fn rests_on(vm: &VirtualMachine, kind: StopProofKind) -> bool {
    let mut proofs = vm.status.iter().flat_map(|status| &status.proofs);
    proofs.any(|proof| proof.kind == kind)
}
