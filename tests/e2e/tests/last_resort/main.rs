//! The last resorts, on a real lab: an etcd that is restored from a backup while VMs run, a host that only
//! a person can vouch for, one that its watchdog resets, and one that fences itself. `LAST_RESORT=restore,…`
//! plays some, `LAST_RESORT=all` all of them. In the end the prober and the disk ledger, which share no code
//! with the product, judge the whole.

mod restored;
mod unreachable;

use anyhow::{Result, ensure};
use api::VirtualMachine;
use e2e::standing::nothing_was_lost;
use e2e::story::check_programs;
use e2e::watch::until_well;
use lab::guards::shorten_timers;
use lab::{Lab, LabOptions, declarations, judges, rest};
use model::StopProofKind;

/// Systems of this lab.
const SYSTEMS: [&str; 2] = ["tourism", "trade-union"];
/// Stories, in the order in which they are played.
const STORIES: [&str; 4] = ["restore", "person", "watchdog", "guard"];
/// Those that are played with every change. The watchdog's bite has a unit test in `lab/src/watchdog.rs`.
const FAST: [&str; 3] = ["restore", "person", "guard"];

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
        if stories.contains(&"person") {
            unreachable::a_person_vouches(&lab, &unarmed).await?;
        }
        if stories.contains(&"watchdog") {
            unreachable::a_watchdog_bites(&lab).await?;
        }
        if stories.contains(&"guard") {
            unreachable::a_guard_fires(&lab).await?;
        }
    }
    rest::settle(&lab).await?;
    nothing_was_lost(&lab).await?;
    lab.down()
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
