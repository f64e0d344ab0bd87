//! Long: what people do while hosts fail. They drain without room, delete and stop VMs that are being restarted,
//! declare a VM twice, make one again whose host is cut off, confirm the wrong host; alarms leave room for one.

use anyhow::{Context as _, Result, bail, ensure};
use api::{Evacuation, Host, HostState, VirtualMachine, VirtualMachinePhase};
use e2e::calm::STILL;
use e2e::command::zyctl;
use e2e::declared::{Declared, LIKE, delete, find, holds, right, set, until_gone, until_runs};
use e2e::moving::targets;
use e2e::plays::{PEOPLE, play_each};
use e2e::standing::{processes_of, standing};
use e2e::watch::{full_name, host_state, names_on, on_host, runs, until, until_ready, vms};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::{Fault, Lab, LabOptions};
use model::StopProofKind;
use serde_json::json;

/// Of this size only one fits on a host.
const LARGE: &str = "1Gi";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make drills plays it"]
async fn people_work_while_hosts_fail() -> Result<()> {
    let options = LabOptions {
        name: "people".to_owned(),
        ..LabOptions::default()
    };
    play_each(options, &PEOPLE, async |lab, story| match story {
        "20" => a_drain_finds_no_room(lab).await,
        "23" => no_host_obeys_the_rule(lab).await,
        "24" => a_vm_is_deleted_while_it_is_restarted(lab).await,
        "25" => its_user_stops_a_vm_while_it_is_recovered(lab).await,
        "31" => two_alarms_and_room_for_one(lab).await,
        "34" => a_vm_is_declared_twice(lab).await,
        "37" => power_returns_while_a_vm_waits_for_the_database(lab).await,
        "46" => a_vm_is_made_again_while_its_host_is_cut_off(lab).await,
        "49" => a_person_confirms_the_wrong_host(lab).await,
        _ => bail!("story {story} is not played here"),
    })
    .await
}

async fn evacuation(lab: &Lab, host: &str) -> Result<Evacuation> {
    let api: Api<Host> = Api::all(lab.client.clone());
    let status = api.get(host).await?.status.unwrap_or_default();
    Ok(status.evacuation.unwrap_or_default())
}

/// Waits until a host can not be emptied, and the reason names this VM.
async fn until_blocked(lab: &Lab, host: &str, vm: &VirtualMachine) -> Result<()> {
    let name = full_name(vm);
    let what = format!("the emptying of {host} to be blocked by {name}");
    until(&lab.client, &what, async || {
        let told = evacuation(lab, host).await?;
        let names_it = |reason: &String| reason.contains(&name);
        Ok(told.phase == "Blocked" && told.blocked.iter().any(names_it))
    })
    .await?;
    println!("  {host}: {:?}", evacuation(lab, host).await?.blocked);
    Ok(())
}

async fn until_empty(lab: &Lab, host: &str) -> Result<()> {
    until(&lab.client, &format!("{host} to be empty"), async || {
        Ok(on_host(&lab.client, host).await?.is_empty())
    })
    .await
    .map(drop)
}

/// Two VMs of which a host takes one, and the hosts that carry none of them.
async fn two_large(lab: &Lab) -> Result<([VirtualMachine; 2], [String; 2])> {
    for name in ["large-0", "large-1"] {
        let declared = Declared {
            memory: LARGE.to_owned(),
            ..Declared::new(name)
        };
        declared.started(lab).await?;
    }
    let large = [find(lab, "large-0").await?, find(lab, "large-1").await?];
    let (first, second) = (right(&large[0])?.host, right(&large[1])?.host);
    ensure!(first != second, "{first} carries both large VMs");
    let mut free = lab.hosts()?;
    free.retain(|host| *host != first.as_str() && *host != second.as_str());
    let free = <[String; 2]>::try_from(free);
    let free = free.map_err(|hosts| anyhow::anyhow!("{hosts:?} carry no large VM"))?;
    Ok((large, free))
}

async fn remove_all(lab: &Lab, machines: &[VirtualMachine]) -> Result<()> {
    for vm in machines {
        delete(lab, vm).await?;
    }
    for vm in machines {
        until_gone(lab, vm).await?;
    }
    Ok(())
}

/// It moved by live migration and never stopped: its last start rests on a hand-over.
async fn moved_alive(lab: &Lab, before: &VirtualMachine, to: &str) -> Result<()> {
    let vm = find(lab, &before.name_any()).await?;
    let (was, is) = (right(before)?, right(&vm)?);
    let handed_over = vm.status.iter().flat_map(|status| &status.proofs);
    let kinds: Vec<StopProofKind> = handed_over.map(|proof| proof.kind).collect();
    ensure!(
        is.host.as_str() == to && kinds.contains(&StopProofKind::HandedOver),
        "{} ran under {was:?}; now {is:?}, on {kinds:?}",
        vm.name_any()
    );
    Ok(())
}

/// 20: the drain waits with the reason and stops nothing; when room comes, it goes on by itself.
async fn a_drain_finds_no_room(lab: &Lab) -> Result<()> {
    let (large, closed) = two_large(lab).await?;
    for host in &closed {
        zyctl(lab, &["drain", host])?;
    }
    let host = right(&large[0])?.host.to_string();
    zyctl(lab, &["drain", &host, "--no-wait"])?;
    until_blocked(lab, &host, &large[0]).await?;
    let still = find(lab, &large[0].name_any()).await?;
    ensure!(
        right(&still)? == right(&large[0])? && runs(&still),
        "it was touched: {:?}",
        still.status
    );
    zyctl(lab, &["drain", &closed[0], "--undo"])?;
    until_empty(lab, &host).await?;
    moved_alive(lab, &large[0], &closed[0]).await?;
    for host in [&host, &closed[1]] {
        zyctl(lab, &["drain", host, "--undo"])?;
    }
    remove_all(lab, &large).await
}

/// 23: three VMs are never to share a host, one of theirs dies and the only other is closed: the third waits with
/// the reason, and starts when that host is back in service.
async fn no_host_obeys_the_rule(lab: &Lab) -> Result<()> {
    let mut apart = Vec::new();
    for name in ["apart-0", "apart-1", "apart-2"] {
        let declared = Declared {
            apart: Some("yes".to_owned()),
            ..Declared::new(name)
        };
        apart.push(declared.started(lab).await?);
    }
    let taken = apart.iter().map(|vm| Ok(right(vm)?.host.to_string()));
    let taken = taken.collect::<Result<Vec<String>>>()?;
    let free = lab.hosts()?.into_iter().find(|host| !taken.contains(host));
    let free = free.context("a host without one of them")?;
    zyctl(lab, &["drain", &free])?;
    lab.fault(Some(&taken[0]), Fault::PowerLoss)?;
    let before = right(&apart[0])?;
    let waits = async || {
        let status = find(lab, "apart-0").await?.status.unwrap_or_default();
        let told = status.placement.unwrap_or_default();
        let recovers = status.phase == Some(VirtualMachinePhase::Recovering);
        let still = status.assignment.as_ref() == Some(&before);
        anyhow::Ok(recovers && still && !told.removed.is_empty())
    };
    until(&lab.client, "it to wait and say why", &waits).await?;
    let others = async || {
        let all = vms(&lab.client).await?;
        let mut others = all.iter().filter(|vm| vm.name_any() != "apart-0");
        Ok(others.all(runs))
    };
    until(&lab.client, "all others to run", others).await?;
    ensure!(waits().await?, "it was put beside another");
    zyctl(lab, &["drain", &free, "--undo"])?;
    let vm = until_runs(lab, "apart-0").await?;
    let host = right(&vm)?.host;
    ensure!(host.as_str() == free, "it runs on {host}, not on {free}");
    lab.heal(Some(&taken[0]), Fault::PowerLoss)?;
    until_ready(&lab.client, &taken[0]).await?;
    remove_all(lab, &apart).await
}

/// 24: its host dies, it is assigned anew, and in that moment deleted: it ends deleted, its disks free.
async fn a_vm_is_deleted_while_it_is_restarted(lab: &Lab) -> Result<()> {
    let vm = Declared::new("deleted").started(lab).await?;
    let before = right(&vm)?;
    lab.fault(Some(before.host.as_str()), Fault::PowerLoss)?;
    until(&lab.client, "it to be assigned anew", async || {
        Ok(right(&find(lab, "deleted").await?)?.epoch > before.epoch)
    })
    .await?;
    delete(lab, &vm).await?;
    until_gone(lab, &vm).await
}

/// 25: its user halts it while its host is dead: it is not restarted, and starts when its user wants.
async fn its_user_stops_a_vm_while_it_is_recovered(lab: &Lab) -> Result<()> {
    let vm = Declared::new("stopped").started(lab).await?;
    let before = right(&vm)?;
    lab.fault(Some(before.host.as_str()), Fault::PowerLoss)?;
    set(lab, &vm, json!({"runStrategy": "Halted"})).await?;
    until(&lab.client, "it to be stopped", async || {
        let status = find(lab, "stopped").await?.status.unwrap_or_default();
        Ok(status.phase == Some(VirtualMachinePhase::Stopped) && status.assignment.is_none())
    })
    .await?;
    let status = find(lab, "stopped").await?.status.unwrap_or_default();
    ensure!(
        status.last_epoch == before.epoch.0,
        "it was started in between: epoch {}",
        status.last_epoch
    );
    set(lab, &vm, json!({"runStrategy": "Always"})).await?;
    let again = until_runs(lab, "stopped").await?;
    ensure!(
        right(&again)?.host != before.host,
        "it runs on a host that is off"
    );
    remove_all(lab, &[again]).await
}

/// 31: two hosts raise alarms and one other can take one large VM: one moves, the other waits with the reason,
/// none stops; it moves when a second host comes back into service.
async fn two_alarms_and_room_for_one(lab: &Lab) -> Result<()> {
    let (large, free) = two_large(lab).await?;
    let [closed, open] = &free;
    zyctl(lab, &["drain", closed])?;
    let hosts = [&large[0], &large[1]].map(right);
    let hosts = hosts.into_iter().collect::<Result<Vec<_>>>()?;
    for right in &hosts {
        lab.fault(Some(right.host.as_str()), Fault::MemoryUncorrected)?;
    }
    let moved = async |vm: &VirtualMachine, to: &str| {
        let host = right(&find(lab, &vm.name_any()).await?)?.host;
        anyhow::Ok(host.as_str() == to)
    };
    until(&lab.client, "one of them to move", async || {
        Ok(moved(&large[0], open).await? || moved(&large[1], open).await?)
    })
    .await?;
    let [first, second] = &large;
    let (goes, waits) = if moved(first, open).await? {
        (first, second)
    } else {
        (second, first)
    };
    let host = right(waits)?.host.to_string();
    until_blocked(lab, &host, waits).await?;
    moved_alive(lab, goes, open).await?;
    let still = find(lab, &waits.name_any()).await?;
    ensure!(
        right(&still)? == right(waits)? && runs(&still),
        "it was touched: {:?}",
        still.status
    );
    zyctl(lab, &["drain", closed, "--undo"])?;
    until_empty(lab, &host).await?;
    moved_alive(lab, waits, closed).await?;
    remove_all(lab, &large).await
}

/// 34: the second waits for the disks; the first is deleted, and only when it is gone the second starts.
async fn a_vm_is_declared_twice(lab: &Lab) -> Result<()> {
    let first = Declared::new("twice").started(lab).await?;
    let second = Declared {
        disks: "twice".to_owned(),
        ..Declared::new("twice-again")
    };
    second.apply(lab).await?;
    until(&lab.client, "the second to wait for the disk", async || {
        let status = find(lab, "twice-again").await?.status.unwrap_or_default();
        let message = status.message.unwrap_or_default();
        Ok(status.assignment.is_none() && message.contains("is claimed by"))
    })
    .await?;
    delete(lab, &first).await?;
    let (mut both, uid) = (false, first.uid().unwrap_or_default());
    until(&lab.client, "the second to run", async || {
        let second = find(lab, "twice-again").await?;
        let own = processes_of(lab, &second.uid().unwrap_or_default())?;
        both |= !own.is_empty() && !processes_of(lab, &uid)?.is_empty();
        Ok(runs(&second))
    })
    .await?;
    ensure!(!both, "both ran at once");
    until_gone(lab, &first).await?;
    remove_all(lab, &[find(lab, "twice-again").await?]).await
}

/// 37: a host dies with the database and a web server that waits for it, and boots again meanwhile: nothing of
/// its old boot starts, and each starts once, the web server after the database.
async fn power_returns_while_a_vm_waits_for_the_database(lab: &Lab) -> Result<()> {
    let database = "tourism-database-0";
    let host = right(&find(lab, database).await?)?.host.to_string();
    let beside = names_on(&lab.client, &host).await?;
    let there = beside.into_iter().find(|vm| vm.starts_with("tourism-web-"));
    let web = match there {
        Some(web) => web,
        None => {
            let vm = find(lab, "tourism-web-0").await?;
            zyctl(lab, &["migrate", &full_name(&vm), "--to", &host])?;
            vm.name_any()
        }
    };
    let before = standing(lab).await?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    until(
        &lab.client,
        "the database to be assigned anew",
        async || Ok(standing(lab).await?.get(database) > before.get(database)),
    )
    .await?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    let waited = standing(lab).await?.get(&web) <= before.get(&web);
    ensure!(waited, "the web server did not wait for the database");
    for name in [database, &web] {
        let now = right(&until_runs(lab, name).await?)?;
        let was = before.get(name).map(|(epoch, _)| *epoch);
        ensure!(
            was.map(|epoch| epoch + 1) == Some(now.epoch.0),
            "{name} ran at epoch {was:?}; now at {now:?}"
        );
    }
    until_ready(&lab.client, &host).await
}

/// 46: its host is cut off, where it runs on, and it is deleted: it stays, and what is made again over its disks waits,
/// until the host is off.
async fn a_vm_is_made_again_while_its_host_is_cut_off(lab: &Lab) -> Result<()> {
    let declared = Declared::new("again");
    let vm = declared.started(lab).await?;
    let host = right(&vm)?.host.to_string();
    lab.fault(Some(&host), Fault::ManagementCut)?;
    until(&lab.client, "the silence to be noticed", async || {
        Ok(host_state(&lab.client, &host).await? != Some(HostState::Ready))
    })
    .await?;
    delete(lab, &vm).await?;
    let twin = Declared {
        disks: declared.disks.clone(),
        ..Declared::new("again-twin")
    };
    twin.apply(lab).await?;
    holds("its disks are kept for its old copy", STILL, async || {
        let made = find(lab, &twin.name).await?;
        let old = find(lab, &vm.name_any()).await?;
        Ok(right(&made).is_err() && old.metadata.deletion_timestamp.is_some())
    })
    .await?;
    ensure!(
        !processes_of(lab, &vm.uid().unwrap_or_default())?.is_empty(),
        "its old copy does not run any more: nothing was shown"
    );
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let made = until_runs(lab, &twin.name).await?;
    ensure!(right(&made)?.host.as_str() != host, "{host} is off");
    until_gone(lab, &vm).await?;
    lab.heal(Some(&host), Fault::ManagementCut)?;
    remove_all(lab, &[made]).await
}

/// The word of whoever works here that a host is off, as `zyctl` would write it.
async fn confirm(lab: &Lab, host: &str) -> Result<()> {
    let client = lab.client.clone();
    let by = api::signer(client.clone()).await?.context("a name")?;
    let boot_id = lab::host::boot_id(&lab.files, host)?;
    let word = json!({"bootId": boot_id, "at": jiff::Timestamp::now().to_string(),
        "by": by, "reason": "cord pulled, of the wrong host"});
    let patch = Patch::Merge(json!({"spec": {"confirmedOff": word}}));
    let api: Api<Host> = Api::all(client);
    api.patch(host, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// 49: a person vouches for a host that lives: `zyctl` refuses, and where the word is written all the same, it
/// counts neither then nor when the host falls silent later, out of reach of its BMC.
async fn a_person_confirms_the_wrong_host(lab: &Lab) -> Result<()> {
    let host = right(&find(lab, LIKE).await?)?.host.to_string();
    ensure!(!targets(lab, &host).await?.is_empty(), "no other host");
    let before = standing(lab).await?;
    let words = [
        "host",
        "confirm-dead",
        &host,
        "--reason",
        "cord pulled",
        "--confirm",
        &host,
    ];
    let refused = zyctl(lab, &words).err().context("zyctl took the word")?;
    ensure!(
        format!("{refused:#}").contains("shows life"),
        "zyctl: {refused:#}"
    );
    lab.fault(Some(&host), Fault::BmcDead)?;
    confirm(lab, &host).await?;
    lab.fault(Some(&host), Fault::ManagementCut)?;
    until(&lab.client, "it to be unreachable", async || {
        Ok(host_state(&lab.client, &host).await? == Some(HostState::Unreachable))
    })
    .await?;
    let kept = holds("nothing is assigned anew", STILL, async || {
        Ok(standing(lab).await? == before && lab::host::is_on(&lab.files, &host))
    })
    .await;
    lab.heal(Some(&host), Fault::ManagementCut)?;
    lab.heal(Some(&host), Fault::BmcDead)?;
    let api: Api<Host> = Api::all(lab.client.clone());
    let taken_back = Patch::Merge(json!({"spec": {"confirmedOff": null}}));
    api.patch(&host, &PatchParams::default(), &taken_back)
        .await?;
    kept?;
    until_ready(&lab.client, &host).await?;
    ensure!(
        standing(lab).await? == before,
        "VMs were assigned anew when it was back"
    );
    Ok(())
}
