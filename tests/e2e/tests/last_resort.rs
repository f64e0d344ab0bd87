//! The two last resorts, on a real lab: an etcd that is restored from a backup while VMs run, and
//! a host that can be reached by nobody and fences itself. In the end the prober and the disk
//! ledger judge the whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::names::POLICY_NAME;
use api::{CloudPolicy, Host, StoragePool, VirtualMachine};
use e2e::standing::{guests, standing, zyctl};
use e2e::story::check_programs;
use e2e::watch::{busy_host, hosts, on_host, until, vms};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::{Lab, LabOptions, controlplane, declarations, judges, rest};
use model::StopProofKind;
use serde_json::{Value, json};

/// How long it is watched that a frozen site keeps still: longer than any time-out of a silent host.
const STILL: Duration = Duration::from_secs(12);
/// Epochs after a rebase begin here.
const LEAP: i64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_site_survives_a_restored_etcd_and_a_host_that_nobody_reaches() -> Result<()> {
    check_programs()?;
    let lab = Lab::up(LabOptions {
        name: "resort".to_owned(),
        ..LabOptions::default()
    })
    .await?;
    declarations::deploy(&lab, &["tourism".to_owned(), "trade-union".to_owned()]).await?;
    rest::settle(&lab).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    etcd_is_restored(&lab).await?;
    a_guard_fires(&lab).await?;
    judges::stop_prober(&lab.files)?;
    let report = judges::judge_probes(&lab.files, judge::report::Window::ALL)?;
    for (guest, witness) in &report.guests {
        let problems = &witness.problems;
        ensure!(problems.is_empty(), "{guest}: {problems:?}");
    }
    for (volume, verdict) in judges::judge_disks(&lab.files, &lab.client).await? {
        ensure!(verdict.is_clean(), "{volume}: {:?}", verdict.problems);
    }
    lab.down()
}

async fn policy(lab: &Lab) -> Result<CloudPolicy> {
    Ok(Api::all(lab.client.clone()).get(POLICY_NAME).await?)
}

/// A VM has moved since the backup: what the restored API says of it is wrong, and nothing that
/// runs is touched before a person says so, nor by what follows.
async fn etcd_is_restored(lab: &Lab) -> Result<()> {
    controlplane::back_up(&lab.files, lab.addresses).await?;
    rest::settle(lab).await?;
    let before = standing(lab).await?;
    let host = busy_host(&lab.client).await?;
    let moved = on_host(&lab.client, &host).await?;
    let moved = moved.first().context("a VM on the busiest host")?;
    let full = format!(
        "{}/{}",
        moved.namespace().unwrap_or_default(),
        moved.name_any()
    );
    zyctl(lab, &["migrate", &full])?;
    rest::settle(lab).await?;
    let (running, after_move) = (guests(lab)?, standing(lab).await?);
    ensure!(after_move != before, "{full} did not move");

    let begin = Instant::now();
    controlplane::restore(&lab.files, lab.addresses).await?;
    until(&lab.client, "the site to freeze", async || {
        Ok(policy(lab)
            .await?
            .status
            .is_some_and(|status| status.frozen.is_some()))
    })
    .await?;
    println!(
        "frozen {:.1} s after the restore began",
        begin.elapsed().as_secs_f64()
    );
    let still = Instant::now();
    while still.elapsed() < STILL {
        ensure!(
            guests(lab)? == running,
            "QEMU processes changed while the site was frozen"
        );
        ensure!(
            standing(lab).await? == before,
            "a frozen site assigned a VM"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let asked = Instant::now();
    let reason = "last night's backup, for this drill";
    zyctl(
        lab,
        &[
            "failover",
            "rebase",
            "--reason",
            reason,
            "--confirm",
            "rebase",
        ],
    )?;
    println!(
        "rebased {:.1} s after it was asked for",
        asked.elapsed().as_secs_f64()
    );
    let rebased = standing(lab).await?;
    let where_ = |all: &BTreeMap<String, (i64, String)>| -> BTreeMap<String, String> {
        all.iter()
            .map(|(vm, (_, host))| (vm.clone(), host.clone()))
            .collect()
    };
    ensure!(
        where_(&rebased) == where_(&after_move),
        "assigned {rebased:?}, ran {after_move:?}"
    );
    rest::settle(lab).await?;
    ensure!(guests(lab)? == running, "QEMU processes changed");
    println!(
        "at rest {:.1} s after it was asked for",
        asked.elapsed().as_secs_f64()
    );

    // The site goes on: a move gets an epoch above all that was ever seen.
    zyctl(lab, &["migrate", &full])?;
    rest::settle(lab).await?;
    let (epoch, _) = standing(lab)
        .await?
        .remove(&moved.name_any())
        .unwrap_or_default();
    ensure!(epoch > LEAP, "{full} moved to epoch {epoch}");
    Ok(())
}

/// Guards of every host are armed, with timers as short as the policy allows in safety.
async fn arm(lab: &Lab) -> Result<()> {
    let merge = |patch: Value| Patch::Merge(patch);
    let parameters = PatchParams::default();
    let timers = json!({"contractSeconds": 10, "watchdogSeconds": 10, "selfFenceMarginSeconds": 5});
    let policies: Api<CloudPolicy> = Api::all(lab.client.clone());
    let patch = merge(json!({"spec": {"failover": timers}}));
    policies.patch(POLICY_NAME, &parameters, &patch).await?;
    let pools: Api<StoragePool> = Api::all(lab.client.clone());
    let patch = merge(json!({"spec": {"heartbeat": true}}));
    pools.patch("shared", &parameters, &patch).await?;
    let all: Api<Host> = Api::all(lab.client.clone());
    for host in lab.hosts()? {
        let patch = merge(json!({"spec": {"selfFencing": true}}));
        all.patch(&host, &parameters, &patch).await?;
    }
    until(&lab.client, "every guard to be armed", async || {
        let armed = |host: &Host| {
            let status = host.status.clone().unwrap_or_default();
            let mut conditions = status.conditions.iter();
            conditions.any(|one| one.type_ == "SelfFencing" && one.status == "True")
        };
        Ok(hosts(&lab.client).await?.iter().all(armed))
    })
    .await
    .map(|took| println!("every guard armed after {:.1} s", took.as_secs_f64()))
}

/// The drill, and what only the lab can see: the guard killed the VMs itself, and it counted.
async fn a_guard_fires(lab: &Lab) -> Result<()> {
    arm(lab).await?;
    let host = busy_host(&lab.client).await?;
    let carried = on_host(&lab.client, &host).await?.len();
    let boot = lab::host::boot_id(&lab.files, &host)?;
    let drill = Path::new(env!("CARGO_MANIFEST_DIR")).join("armed/guard-fires.yaml");
    let drill = drill.display().to_string();
    let name = &lab.files.name;
    let arguments = [
        "drill",
        "run",
        &drill,
        "--on",
        &host,
        "--confirm",
        &host,
        "--lab",
        name,
    ];
    println!("{carried} VMs on {host}\n{}", zyctl(lab, &arguments)?);
    ensure!(
        lab::host::boot_id(&lab.files, &host)? == boot,
        "{host} was reset: its guard did not kill in time"
    );
    let log = std::fs::read_to_string(lab.files.logs().join(format!("{host}-guard.log")))?;
    ensure!(
        log.contains("every VM of this host is killed"),
        "the guard of {host} did not fire"
    );
    let anew = vms(&lab.client).await?;
    let rests = |vm: &&VirtualMachine| {
        let mut proofs = vm.status.iter().flat_map(|status| &status.proofs);
        proofs.any(|proof| proof.kind == StopProofKind::SelfFenced)
    };
    let fenced = anew.iter().filter(rests).count();
    ensure!(
        fenced == carried,
        "{fenced} of {carried} VMs rest on SelfFenced"
    );
    Ok(())
}
