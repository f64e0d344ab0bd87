//! Hosts that nobody reaches: BMC dead, and hung or cut off from every network. Without an armed guard a person
//! must vouch for one; with it the watchdog resets it, or it fences itself and others see that it must have.

use anyhow::{Context as _, Result, ensure};
use api::{Host, HostState};
use e2e::command::zyctl;
use e2e::standing::{guests, standing};
use e2e::watch::{all_well, busiest, busy_host, names_on, until, vms};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::guards::{arm_hosts, fired_on, is_armed};
use lab::{Fault, Lab};
use model::StopProofKind;
use serde_json::{Value, json};

use crate::{SYSTEMS, drill, rests_on, well};

async fn patch_host(lab: &Lab, host: &str, patch: &Value) -> Result<()> {
    let all: Api<Host> = Api::all(lab.client.clone());
    all.patch(host, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// Hosts beat on the shared pool, and the guards of all but the busiest are armed. Returns that one.
pub async fn arm(lab: &Lab) -> Result<String> {
    let unarmed = busy_host(&lab.client).await?;
    let mut others = lab.hosts()?;
    others.retain(|host| *host != unarmed);
    let took = arm_hosts(lab, &others).await?;
    println!(
        "every guard but that of {unarmed} armed after {:.1} s",
        took.as_secs_f64()
    );
    Ok(unarmed)
}

/// The armed host that carries most VMs.
pub async fn armed_host(lab: &Lab) -> Result<String> {
    let armed = busiest(&lab.client, is_armed).await;
    armed.context("of the armed hosts")
}

/// Every VM of a host runs again, and rests on a proof of this kind.
async fn run_anew_on(lab: &Lab, host: &str, names: &[String], kind: StopProofKind) -> Result<f64> {
    let what = format!("VMs of {host} to run anew on {kind:?}");
    let took = until(&lab.client, &what, async || {
        let all = vms(&lab.client).await?;
        let mut own = all.iter().filter(|vm| names.contains(&vm.name_any()));
        Ok(own.all(|vm| rests_on(vm, kind)) && all_well(&lab.client, SYSTEMS.len()).await?)
    })
    .await?;
    Ok(took.as_secs_f64())
}

/// A host hangs, its BMC is dead, its guard promised nothing: nothing of it runs elsewhere, although its
/// heartbeat is seen to stand still, before a person has switched it off and vouched for that.
pub async fn a_person_vouches(lab: &Lab, host: &str) -> Result<()> {
    let names = names_on(&lab.client, host).await?;
    let before = standing(lab).await?;
    lab.fault(Some(host), Fault::BmcDead)?;
    lab.fault(Some(host), Fault::KernelHang)?;
    let all: Api<Host> = Api::all(lab.client.clone());
    until(&lab.client, "a person to be asked", async || {
        let status = all.get(host).await?.status.unwrap_or_default();
        Ok(status.state == Some(HostState::Unreachable)
            && status
                .state_reason
                .is_some_and(|reason| reason.contains("confirm-dead")))
    })
    .await?;
    // A person goes to the rack; the hung host would go on were it only paused.
    lab.fault(Some(host), Fault::PowerLoss)?;
    ensure!(
        standing(lab).await? == before,
        "VMs were assigned anew without a proof"
    );
    let reason = "hung, power cord pulled";
    zyctl(
        lab,
        &[
            "host",
            "confirm-dead",
            host,
            "--reason",
            reason,
            "--confirm",
            host,
        ],
    )?;
    let took = run_anew_on(lab, host, &names, StopProofKind::Confirmed).await?;
    println!(
        "{} VMs of {host} ran elsewhere {took:.1} s after a person's word",
        names.len()
    );
    lab.heal(Some(host), Fault::PowerLoss)?;
    lab.heal(Some(host), Fault::BmcDead)?;
    patch_host(lab, host, &json!({"spec": {"confirmedOff": null}})).await?;
    well(lab).await
}

/// An armed host hangs and its BMC is dead: its watchdog resets it, and the new boot is the proof.
pub async fn a_watchdog_bites(lab: &Lab) -> Result<()> {
    let host = armed_host(lab).await?;
    let names = names_on(&lab.client, &host).await?;
    let boot = lab::host::boot_id(&lab.files, &host)?;
    lab.fault(Some(&host), Fault::BmcDead)?;
    lab.fault(Some(&host), Fault::KernelHang)?;
    let reset = until(&lab.client, "the watchdog to bite", async || {
        Ok(lab::host::boot_id(&lab.files, &host)? != boot)
    })
    .await?;
    let took = run_anew_on(lab, &host, &names, StopProofKind::Rebooted).await?;
    println!(
        "{host} was reset {:.1} s after it hung; {} VMs ran anew {took:.1} s later",
        reset.as_secs_f64(),
        names.len()
    );
    lab.heal(Some(&host), Fault::BmcDead)?;
    well(lab).await
}

/// The drill, and what only the lab can see: the guard killed the VMs itself, and no reset was needed.
pub async fn a_guard_fires(lab: &Lab) -> Result<()> {
    let host = armed_host(lab).await?;
    let names = names_on(&lab.client, &host).await?;
    let own = guests(lab)?.remove(&host).unwrap_or_default();
    let boot = lab::host::boot_id(&lab.files, &host)?;
    drill(lab, "guard-fires", &host)?;
    ensure!(
        lab::host::boot_id(&lab.files, &host)? == boot,
        "{host} was reset: its guard did not kill in time"
    );
    ensure!(
        !fired_on(lab, &host)?.is_empty(),
        "the guard of {host} did not fire"
    );
    let left = guests(lab)?.remove(&host).unwrap_or_default();
    ensure!(
        left.iter().all(|pid| !own.contains(pid)),
        "of {own:?} on {host} there are still {left:?}"
    );
    rest_on(lab, &names, StopProofKind::SelfFenced).await
}

/// Whether the assignment of each of these VMs rests on a proof of this kind.
pub async fn rest_on(lab: &Lab, names: &[String], kind: StopProofKind) -> Result<()> {
    let all = vms(&lab.client).await?;
    for vm in all.iter().filter(|vm| names.contains(&vm.name_any())) {
        ensure!(
            rests_on(vm, kind),
            "{} rests on {:?}",
            vm.name_any(),
            vm.status.as_ref().map(|status| &status.proofs)
        );
    }
    Ok(())
}
