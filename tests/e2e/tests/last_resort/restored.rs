//! Etcd is restored while VMs run. Since the backup one VM has moved, one was started anew, one was created:
//! what the restored API says of them is wrong. Nothing that runs is touched before a person says so, nor by
//! what follows.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::names::POLICY_NAME;
use api::{CloudPolicy, VirtualMachine, VirtualMachinePhase, Volume};
use e2e::command::{Following, zyctl, zyctl_command};
use e2e::standing::{Guests, Standing, guests, processes_of, standing};
use e2e::watch::{busy_host, full_name, names_on, on_host, runs, until, vms};
use kube::{Api, ResourceExt};
use lab::process::run;
use lab::{Fault, Lab, controlplane, declarations};
use model::StopProofKind;
use serde_json::json;

use crate::{rests_on, well};

/// How long it is watched that a frozen site keeps still: longer than any time-out of a silent host.
const STILL: Duration = Duration::from_secs(10);
/// Epochs after a rebase begin here.
const LEAP: i64 = 1_000_000;
/// A rebase that nothing is in the way of ends within that time; machines may be heavily loaded.
const REBASED_WITHIN: Duration = Duration::from_secs(120);
/// The VM that the backup does not hold.
const LATE: &str = "late";

/// The whole story.
pub async fn etcd_is_restored(lab: &Lab) -> Result<()> {
    let before = standing(lab).await?;
    controlplane::back_up(&lab.files, lab.addresses).await?;
    well(lab).await?;
    ensure!(standing(lab).await? == before, "a backup moved VMs");
    let late = the_site_goes_on(lab).await?;
    let (mut running, mut expected) = (guests(lab)?, standing(lab).await?);

    let begin = Instant::now();
    controlplane::restore(&lab.files, lab.addresses).await?;
    until(&lab.client, "the site to freeze", async || {
        let status = policy(lab).await?.status.unwrap_or_default();
        Ok(status.frozen.is_some())
    })
    .await?;
    println!(
        "frozen {:.1} s after the restore began",
        begin.elapsed().as_secs_f64()
    );
    it_keeps_still(lab, &running, &before).await?;
    let stray = a_person_rebases(lab, &late).await?;

    // What ran is what is assigned, each at its own epoch; only the stray is gone, by a person's hand.
    expected.remove(LATE);
    for pids in running.values_mut() {
        pids.retain(|pid| *pid != stray);
    }
    let assigned = standing(lab).await?;
    ensure!(
        assigned == expected,
        "assigned are {assigned:?}, ran {expected:?}"
    );
    let asked = Instant::now();
    well(lab).await?;
    println!(
        "all well {:.1} s after the rebase",
        asked.elapsed().as_secs_f64()
    );
    ensure!(guests(lab)? == running, "QEMU processes changed");
    ensure!(
        standing(lab).await? == expected,
        "VMs were assigned anew after the rebase"
    );
    power_is_cut(lab).await
}

async fn policy(lab: &Lab) -> Result<CloudPolicy> {
    Ok(Api::all(lab.client.clone()).get(POLICY_NAME).await?)
}

/// A VM crashes and is started anew, one is created, one is moved. Returns the one that was created.
async fn the_site_goes_on(lab: &Lab) -> Result<VirtualMachine> {
    let host = busy_host(&lab.client).await?;
    let here = on_host(&lab.client, &host).await?;
    let moved = here.first().context("a VM on the busiest host")?;
    let all = vms(&lab.client).await?;
    let crashed = all.iter().find(|vm| vm.uid() != moved.uid());
    let crashed = crashed.context("a second VM")?;
    let before = standing(lab).await?;
    for pid in processes_of(lab, &crashed.uid().unwrap_or_default())? {
        run("kill", ["-9", &pid.to_string()])?;
    }
    create_like(lab, moved).await?;
    zyctl(lab, &["migrate", &full_name(moved)])?;
    until(&lab.client, "three VMs to run anew", async || {
        let now = standing(lab).await?;
        let anew = |vm: &VirtualMachine| now.get(&vm.name_any()) > before.get(&vm.name_any());
        let runs = vms(&lab.client).await?.iter().all(runs);
        Ok(runs && anew(moved) && anew(crashed) && now.contains_key(LATE))
    })
    .await?;
    well(lab).await?;
    let now = standing(lab).await?;
    let moved = moved.name_any();
    ensure!(
        now.get(&moved).map(|(_, host)| host) != before.get(&moved).map(|(_, host)| host),
        "{moved} did not move: {now:?}"
    );
    let mut all = vms(&lab.client).await?.into_iter();
    let late = all.find(|vm| vm.name_any() == LATE);
    late.context("the VM that was created")
}

/// A VM of the same image and network as another, with a system disk of its own.
async fn create_like(lab: &Lab, vm: &VirtualMachine) -> Result<()> {
    let namespace = vm.namespace().unwrap_or_default();
    let volumes: Api<Volume> = Api::namespaced(lab.client.clone(), &namespace);
    let system = vm.spec.disks.first().context("a VM has a disk")?;
    let disk = volumes.get(&system.volume).await?.spec;
    let metadata = json!({"name": LATE, "namespace": namespace});
    let volume = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume", "metadata": metadata, "spec": disk});
    let spec = json!({"cpu": 1, "memory": "128Mi", "image": vm.spec.image, "networks": vm.spec.networks,
        "disks": [{"name": "system", "volume": LATE}]});
    let late = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine", "metadata": metadata, "spec": spec});
    declarations::apply(&lab.client, &[volume, late]).await
}

/// No process starts or ends and nothing is assigned; people are told so.
async fn it_keeps_still(lab: &Lab, running: &Guests, before: &Standing) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < STILL {
        ensure!(
            guests(lab)? == *running,
            "QEMU processes changed while the site was frozen"
        );
        ensure!(
            standing(lab).await? == *before,
            "a frozen site assigned a VM"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    until(&lab.client, "VMs to be shown as unknown", async || {
        let unknown = |vm: &VirtualMachine| {
            let status = vm.status.as_ref();
            status.and_then(|status| status.phase) == Some(VirtualMachinePhase::Unknown)
        };
        Ok(vms(&lab.client).await?.iter().all(unknown))
    })
    .await
    .map(drop)
}

/// `zyctl failover status` tells that the site is frozen and names the copy that the API does not hold; the
/// rebase waits until a person has shut that copy down by hand. Returns its process.
async fn a_person_rebases(lab: &Lab, late: &VirtualMachine) -> Result<i32> {
    let name = full_name(late);
    until(
        &lab.client,
        "zyctl failover status to tell of the copy",
        async || {
            let told = zyctl(lab, &["failover", "status"])?;
            Ok(told.contains("FROZEN")
                && told.contains(&format!("runs VM {name} "))
                && told.contains("which the API does not hold"))
        },
    )
    .await?;
    let asked = Instant::now();
    let reason = "last night's backup, for this drill";
    let person = zyctl_command(lab)?
        .args(["failover", "rebase", "--reason", reason])
        .args(["--confirm", "rebase"])
        .stdout(Stdio::piped())
        .spawn()
        .context("zyctl")?;
    let mut person = Following(person);
    until(&lab.client, "a rebase to be asked for", async || {
        Ok(policy(lab).await?.spec.failover.rebase.is_some())
    })
    .await?;
    let pids = processes_of(lab, &late.uid().unwrap_or_default())?;
    ensure!(pids.len() == 1, "{name} has the processes {pids:?}");
    ensure!(
        person.0.try_wait()?.is_none(),
        "the rebase did not wait for {name}"
    );
    run("kill", ["-9", &pids[0].to_string()])?;
    let (succeeded, said) = person.ended("zyctl failover rebase to end", REBASED_WITHIN)?;
    ensure!(
        succeeded && said.contains("Rebased."),
        "zyctl failover rebase: {said}"
    );
    ensure!(
        policy(lab)
            .await?
            .status
            .unwrap_or_default()
            .frozen
            .is_none(),
        "the site is frozen after its rebase"
    );
    println!(
        "rebased {:.1} s after it was asked for",
        asked.elapsed().as_secs_f64()
    );
    Ok(pids[0])
}

/// The site recovers as ever, with epochs above all that were ever seen.
async fn power_is_cut(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let names = names_on(&lab.client, &host).await?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let took = until(&lab.client, "its VMs to run elsewhere", async || {
        let all = vms(&lab.client).await?;
        Ok(names_on(&lab.client, &host).await?.is_empty() && all.iter().all(runs))
    })
    .await?;
    println!(
        "{} VMs of {host} ran elsewhere {:.1} s after a power cut",
        names.len(),
        took.as_secs_f64()
    );
    let all = vms(&lab.client).await?;
    for vm in all.iter().filter(|vm| names.contains(&vm.name_any())) {
        let status = vm.status.clone().unwrap_or_default();
        let epoch = status.assignment.map_or(0, |right| right.epoch.0);
        ensure!(
            epoch > LEAP && rests_on(vm, StopProofKind::PoweredOff),
            "{} runs at epoch {epoch}, on {:?}",
            vm.name_any(),
            status.proofs
        );
    }
    lab.heal(Some(&host), Fault::PowerLoss)?;
    well(lab).await
}
