//! Long: what is lost on the way, or on a disk. Words to the API and its answers are lost; a host that is emptied loses
//! its root disk; the API server has no room left and takes no writes. Nobody is forced off for it, and nothing is done twice.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use api::names::SYSTEM_NAMESPACE;
use api::{Host, Incident, MigrationSourcePhase, VirtualMachineMigration};
use e2e::calm::{Calm, STILL};
use e2e::command::zyctl;
use e2e::declared::{Declared, LIKE, find, holds, remove, right};
use e2e::isolation::until_answers;
use e2e::ledger::incidents;
use e2e::moving::{SLOW, copy_at_most};
use e2e::plays::{LOSSES, play_each};
use e2e::power::fences;
use e2e::standing::{Guests, guests, processes_of, standing};
use e2e::watch::{
    busy_host, full_name, migrations, names_on, on_host, runs, says_storage, until, until_ready,
    vms,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use lab::guards::{arm, firings};
use lab::loss::{self, Half};
use lab::process::run;
use lab::{Fault, Lab, LabOptions, controlplane, inside, root_disk};
use model::StopProofKind;
use serde_json::json;

/// How often both halves of what a host and the API say are lost.
const OFTEN: usize = 2;
/// How long the API server takes no writes: longer than every time-out of a single host.
const FULL: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make drills plays it"]
async fn what_is_lost_is_told_again() -> Result<()> {
    let options = LabOptions {
        name: "losses".to_owned(),
        ..LabOptions::default()
    };
    play_each(options, &LOSSES, async |lab, story| match story {
        "35" => words_to_the_api_are_lost(lab).await,
        "58" => the_root_disk_turns_read_only_while_a_host_is_emptied(lab).await,
        "9" => storage_stalls_and_a_system_with_it(lab).await,
        "29" => the_api_server_takes_no_writes(lab).await,
        _ => bail!("story {story} is not played here"),
    })
    .await
}

/// 35: a host's words to the API are lost, or the API's answers, until a renewal has failed, and again: nobody is forced off. Its VM
/// crashes each time, and what its agent reports of that is lost and told again: it is started once for each crash.
async fn words_to_the_api_are_lost(lab: &Lab) -> Result<()> {
    let vm = Declared::new("lost").started(lab).await?;
    let uid = vm.uid().unwrap_or_default();
    let (api, forced) = (loss::api_server(&lab.files)?, fences(lab)?.len());
    let mut before = right(&vm)?;
    for half in [Half::Replies, Half::Requests].repeat(OFTEN) {
        let host = before.host.to_string();
        let lost_before = renewals_lost(lab, &host)?;
        loss::lose(&lab.files, &host, api, half)?;
        for pid in processes_of(lab, &uid)? {
            run("kill", ["-9", &pid.to_string()])?;
        }
        let was_lost = until(&lab.client, "a renewal to be lost", async || {
            Ok(renewals_lost(lab, &host)? > lost_before)
        })
        .await;
        loss::end(&lab.files, &host)?;
        was_lost?;
        until(&lab.client, "it to run anew", async || {
            let vm = find(lab, "lost").await?;
            Ok(runs(&vm) && right(&vm)?.epoch > before.epoch)
        })
        .await?;
        until_ready(&lab.client, &host).await?;
        let now = right(&find(lab, "lost").await?)?;
        println!(
            "  {half:?} of {host} were lost: epoch {:?}, then {:?}",
            before.epoch, now.epoch
        );
        ensure!(
            now.epoch.0 == before.epoch.0 + 1,
            "it was started more than once: {before:?}, then {now:?}"
        );
        let processes = processes_of(lab, &uid)?;
        ensure!(processes.len() == 1, "it has the processes {processes:?}");
        before = now;
    }
    ensure!(fences(lab)?.len() == forced, "a host was forced off");
    remove(lab, &vm).await
}

/// How often a guard has not heard that its renewal arrived.
fn renewals_lost(lab: &Lab, host: &str) -> Result<usize> {
    let log = lab.files.logs().join(format!("{host}-guard.log"));
    let text = std::fs::read_to_string(log)?;
    Ok(text.matches("the Lease was not renewed").count())
}

async fn says_fault(lab: &Lab, host: &str, component: &str) -> Result<bool> {
    let api: Api<Host> = Api::all(lab.client.clone());
    let host = api.get(host).await?;
    let faults = host.reported().map(|report| &report.faults);
    let mut all = faults.into_iter().flatten();
    Ok(all.any(|fault| fault.component.starts_with(component)))
}

/// 58: a host that is emptied loses its root disk to the kernel's read-only, and its agent is restarted: the alarm is
/// raised, the evacuation goes on and ends, and no guest stops.
async fn the_root_disk_turns_read_only_while_a_host_is_emptied(lab: &Lab) -> Result<()> {
    let names = ["leaving-0", "leaving-1"];
    let first = Declared::new(names[0]).started(lab).await?;
    let host = right(&first)?.host.to_string();
    let second = Declared::new(names[1]).started(lab).await?;
    if right(&second)?.host.as_str() != host {
        zyctl(lab, &["migrate", &full_name(&second), "--to", &host])?;
    }
    for name in names {
        until_answers(lab, name).await?;
    }
    copy_at_most(lab, Some(SLOW)).await?;
    let (leaving, before) = (names_on(&lab.client, &host).await?, standing(lab).await?);
    let forced = fences(lab)?.len();
    zyctl(lab, &["drain", &host, "--no-wait"])?;
    until_copied(lab).await?;
    root_disk::set_read_only(&lab.files, &host, true)?;
    let touched = inside::run(&lab.files, &host, &["touch", "/var/lib/libvirt/touched"]);
    ensure!(touched.is_err(), "its root disk can be written");
    until(&lab.client, "it to tell of its disk", async || {
        says_fault(lab, &host, "filesystem/root").await
    })
    .await?;
    // What is copied slowly meanwhile is broken off; from here on it is done at once.
    until_copied(lab).await?;
    copy_at_most(lab, None).await?;
    lab.fault(Some(&host), Fault::AgentKill)?;
    until(&lab.client, "it to be empty", async || {
        Ok(on_host(&lab.client, &host).await?.is_empty())
    })
    .await?;
    let all = vms(&lab.client).await?;
    for vm in all.iter().filter(|vm| leaving.contains(&vm.name_any())) {
        let proofs = vm.status.iter().flat_map(|status| &status.proofs);
        let last = proofs.last().map(|proof| proof.kind);
        ensure!(
            last == Some(StopProofKind::HandedOver),
            "{} left on {last:?}; it ran under {:?}",
            vm.name_any(),
            before.get(&vm.name_any())
        );
    }
    ensure!(fences(lab)?.len() == forced, "a host was forced off");
    root_disk::set_read_only(&lab.files, &host, false)?;
    zyctl(lab, &["drain", &host, "--undo"])?;
    for name in names {
        remove(lab, &find(lab, name).await?).await?;
    }
    Ok(())
}

/// Waits until memory is copied somewhere.
async fn until_copied(lab: &Lab) -> Result<()> {
    until(&lab.client, "a copy to be under way", async || {
        let moves = migrations(&lab.client).await?;
        let copies = |migration: &VirtualMachineMigration| {
            let source = migration
                .status
                .as_ref()
                .and_then(|status| status.source.as_ref());
            source.is_some_and(|source| source.phase == MigrationSourcePhase::Migrating)
                && migration
                    .status
                    .as_ref()
                    .is_some_and(|status| status.finished_at.is_none())
        };
        Ok(moves.iter().any(copies))
    })
    .await
    .map(drop)
}

/// Whether the API server refuses writes because its storage is full.
async fn takes_no_writes(lab: &Lab) -> Result<bool> {
    let api: Api<ConfigMap> = Api::namespaced(lab.client.clone(), SYSTEM_NAMESPACE);
    let word: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "written"}}))?;
    let written = api.create(&Default::default(), &word).await;
    match written {
        Err(kube::Error::Api(status)) => Ok(status.message.contains("space exceeded")),
        Err(error) => Err(error.into()),
        Ok(_) => {
            api.delete("written", &Default::default()).await?;
            Ok(false)
        }
    }
}

/// 9, for a moment: a host's storage hangs, and a system whose only replica is there does not answer: the guest stands still with
/// it, as the lab's own answer for 10 s without a disk, and then it is a fault. Whether or not this play is so slow that it
/// becomes one, a single Incident tells of it, and nothing is done to any VM but what that fault asks for.
async fn storage_stalls_and_a_system_with_it(lab: &Lab) -> Result<()> {
    let vm = find(lab, LIKE).await?;
    let host = right(&vm)?.host.to_string();
    let processes = processes_of(lab, &vm.uid().unwrap_or_default())?;
    let cause = format!("hardware/{host}/storage-pool/shared/StorageLost");
    let (known, before) = (incidents(lab).await?.len(), standing(lab).await?);
    let signal_all = |signal: &str| {
        let mut pids = processes.iter().map(i32::to_string);
        pids.try_for_each(|pid| run("kill", [signal, pid.as_str()]).map(drop))
    };
    lab.fault(Some(&host), Fault::StorageHang)?;
    signal_all("-STOP")?;
    let told = until(&lab.client, "an Incident of the stall", async || {
        let all = incidents(lab).await?;
        Ok(all.iter().any(|incident| tells_of_stall(incident, &cause)))
    })
    .await;
    lab.heal(Some(&host), Fault::StorageHang)?;
    signal_all("-CONT")?;
    told?;
    until(
        &lab.client,
        "its Incident to be closed, or a fault",
        async || {
            let all = incidents(lab).await?;
            let is_over = all.iter().skip(known).all(Incident::is_closed);
            Ok(is_over || says_storage(&lab.client, &host).await?)
        },
    )
    .await?;
    let is_fault = says_storage(&lab.client, &host).await?;
    println!("its probes call it a fault: {is_fault}");
    if !is_fault {
        ensure!(
            standing(lab).await? == before,
            "a VM was moved or restarted"
        );
    }
    let new = incidents(lab).await?.len() - known;
    ensure!(new == 1, "{new} Incidents of one cause");
    Ok(())
}

/// Whether an Incident of that cause says that a system does not answer because storage stalls.
fn tells_of_stall(incident: &Incident, cause: &str) -> bool {
    let timeline = incident.status.iter().flat_map(|status| &status.timeline);
    let mut steps = timeline.map(|entry| entry.step.as_str());
    incident.spec.cause == cause && steps.any(|step| step.starts_with("stalled/"))
}

/// 29 and 29b: the API server's storage is full: reads are answered, no write is taken, no Lease renewed. Guards are
/// armed and beat on: nobody fences himself or is forced off. A host dies meanwhile: its VMs are started when writes
/// are taken again, and once.
async fn the_api_server_takes_no_writes(lab: &Lab) -> Result<()> {
    arm(lab).await?;
    let fired = firings(lab)?;
    let calm = Calm::now(lab).await?;
    controlplane::fill(&lab.files, true)?;
    ensure!(takes_no_writes(lab).await?, "the API server takes writes");
    calm.lasts(FULL).await?;
    let host = busy_host(&lab.client).await?;
    let lost = names_on(&lab.client, &host).await?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let others = |all: Guests| {
        all.into_iter()
            .filter(|(name, _)| *name != host)
            .collect::<Vec<_>>()
    };
    let running = others(guests(lab)?);
    holds("nothing is assigned anew or started", STILL, async || {
        Ok(standing(lab).await? == calm.standing && others(guests(lab)?) == running)
    })
    .await?;
    ensure!(takes_no_writes(lab).await?, "the API server takes writes");
    controlplane::fill(&lab.files, false)?;
    until(&lab.client, "its VMs to run elsewhere", async || {
        let all = vms(&lab.client).await?.iter().all(runs);
        Ok(all && on_host(&lab.client, &host).await?.is_empty())
    })
    .await?;
    let now = standing(lab).await?;
    for name in &lost {
        let epochs = [&calm.standing, &now].map(|all| all.get(name).map(|(epoch, _)| *epoch));
        ensure!(
            epochs[0].map(|epoch| epoch + 1) == epochs[1],
            "{name} was not started once: {epochs:?}"
        );
    }
    ensure!(firings(lab)? == fired, "a guard fired");
    lab.heal(Some(&host), Fault::PowerLoss)?;
    until_ready(&lab.client, &host).await
}
