//! Long: what hits more than one host, or those who watch them. The management switch reboots, half the hosts hang,
//! the whole site loses power; a second operator takes over from one that stands still; an alarm flaps, an
//! agent's loop is stuck; storage hangs for those who watch, and a host loses storage first and its Lease later.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use api::names::SYSTEM_NAMESPACE;
use api::{Host, HostState};
use e2e::calm::{Calm, STILL};
use e2e::declared::{Declared, LIKE, delete, find, holds, right, until_gone};
use e2e::plays::{SYSTEMS, WHOLE_SITE, play_each};
use e2e::power::fences;
use e2e::standing::standing;
use e2e::watch::{
    busy_host, host_state, hosts, is_ready, migrations, names_on, on_host, runs, says_storage,
    until, until_ready, until_well, vms,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use lab::guards::{TIMERS, arm, firings};
use lab::process::run;
use lab::{Fault, Lab, LabOptions};
use model::StopProofKind;

/// How long a management switch takes to boot.
const SWITCH_BOOTS: Duration = Duration::from_secs(90);
/// Longer than every time-out of a single host, and less than the storm guard's minute.
const HELD: Duration = Duration::from_secs(45);
/// How often an alarm comes and goes.
const FLAPS: usize = 3;
/// Longer than several polls of the hardware probes.
const POLLS: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make drills plays it"]
async fn what_hits_many_hosts_doubles_and_loses_nothing() -> Result<()> {
    let options = LabOptions {
        name: "wholesite".to_owned(),
        operators: 2,
        ..LabOptions::default()
    };
    play_each(options, &WHOLE_SITE, async |lab, story| match story {
        "14" => a_leader_wakes_after_another_took_over(lab).await,
        "16" => the_switch_reboots(lab).await,
        "17" => half_the_hosts_hang(lab).await,
        "30" => an_alarm_flaps(lab).await,
        "50" => an_agents_loop_is_stuck(lab).await,
        "60" => the_whole_site_loses_power(lab).await,
        "41" => storage_hangs_for_those_who_watch(lab).await,
        "53" => storage_first_and_the_lease_later(lab).await,
        _ => bail!("story {story} is not played here"),
    })
    .await
}

async fn until_none_ready(lab: &Lab) -> Result<()> {
    until(&lab.client, "every host to be noticed", async || {
        Ok(!hosts(&lab.client).await?.iter().any(is_ready))
    })
    .await
    .map(drop)
}

/// Who leads, by the operators' Lease.
async fn leader(lab: &Lab) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(lab.client.clone(), SYSTEM_NAMESPACE);
    let lease = leases.get("zhengyun-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    holder.context("nobody holds the operators' Lease")
}

/// 14, and 13 with a successor: the leader stands still past its lease, the other one recovers a host that died;
/// the first wakes with what it knew and does nothing to any of it.
async fn a_leader_wakes_after_another_took_over(lab: &Lab) -> Result<()> {
    let first = leader(lab).await?;
    let host = busy_host(&lab.client).await?;
    let (lost, before) = (names_on(&lab.client, &host).await?, standing(lab).await?);
    lab.fault(None, Fault::OperatorPause)?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let what = "another operator to lead and have all VMs run elsewhere";
    until(&lab.client, what, async || {
        let elsewhere = on_host(&lab.client, &host).await?.is_empty();
        let all = vms(&lab.client).await?.iter().all(runs);
        Ok(leader(lab).await? != first && elsewhere && all)
    })
    .await?;
    let calm = Calm::now(lab).await?;
    for name in &lost {
        let epochs = [&before, &calm.standing].map(|all| all.get(name).map(|(epoch, _)| *epoch));
        ensure!(
            epochs[0].map(|epoch| epoch + 1) == epochs[1],
            "{name} was started more than once: {epochs:?}"
        );
    }
    lab.heal(None, Fault::OperatorPause)?;
    calm.lasts(STILL).await?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    until_ready(&lab.client, &host).await
}

/// 16: every host is silent at once, for as long as a switch boots: one alert, and nothing else.
async fn the_switch_reboots(lab: &Lab) -> Result<()> {
    let calm = Calm::now(lab).await?;
    let cut = Instant::now();
    for host in lab.hosts()? {
        lab.fault(Some(&host), Fault::ManagementCut)?;
    }
    until_none_ready(lab).await?;
    calm.lasts(SWITCH_BOOTS.saturating_sub(cut.elapsed()))
        .await?;
    for host in lab.hosts()? {
        lab.heal(Some(&host), Fault::ManagementCut)?;
    }
    until_well(&lab.client, SYSTEMS.len()).await?;
    calm.stands().await?;
    let alerts = calm.new_incidents().await?;
    ensure!(alerts.len() == 1, "the alerts are {alerts:?}");
    Ok(())
}

/// 17: nobody is forced off before the storm guard's minute is over; then each is, and its VMs run elsewhere.
async fn half_the_hosts_hang(lab: &Lab) -> Result<()> {
    let names = lab.hosts()?;
    let half = &names[..names.len() / 2];
    let calm = Calm::now(lab).await?;
    for host in half {
        lab.fault(Some(host), Fault::KernelHang)?;
    }
    calm.lasts(HELD).await?;
    let alerts = calm.new_incidents().await?;
    ensure!(alerts.len() == 1, "the alerts are {alerts:?}");
    until(&lab.client, "all VMs to run elsewhere", async || {
        for host in half {
            if !on_host(&lab.client, host).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(vms(&lab.client).await?.iter().all(runs))
    })
    .await?;
    for host in half {
        ensure!(
            !lab::host::is_on(&lab.files, host) || calm.standing.values().all(|(_, on)| on != host),
            "{host} hung and was not forced off, yet its VMs run elsewhere"
        );
    }
    Ok(())
}

/// 30: the host is quarantined and emptied once, under one Incident, however often the alarm comes back.
async fn an_alarm_flaps(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let calm = Calm::now(lab).await?;
    let quarantined =
        async || Ok(host_state(&lab.client, &host).await? == Some(HostState::Quarantined));
    lab.fault(Some(&host), Fault::DiskSmart)?;
    until(&lab.client, "the host to be emptied", async || {
        Ok(quarantined().await? && on_host(&lab.client, &host).await?.is_empty())
    })
    .await?;
    let moves = migrations(&lab.client).await?.len();
    for _ in 0..FLAPS {
        lab.heal(Some(&host), Fault::DiskSmart)?;
        holds("the host stays quarantined", POLLS, quarantined).await?;
        lab.fault(Some(&host), Fault::DiskSmart)?;
        holds("the host stays quarantined", POLLS, quarantined).await?;
    }
    lab.heal(Some(&host), Fault::DiskSmart)?;
    ensure!(
        migrations(&lab.client).await?.len() == moves
            && names_on(&lab.client, &host).await?.is_empty(),
        "VMs moved again"
    );
    let alerts = calm.new_incidents().await?;
    ensure!(alerts.len() == 1, "the Incidents are {alerts:?}");
    ensure!(fences(lab)?.len() == calm.fences, "a host was forced off");
    Ok(())
}

/// 50: the agent's process lives and does nothing: nothing new is placed there, nobody is forced off, no VM
/// notices.
async fn an_agents_loop_is_stuck(lab: &Lab) -> Result<()> {
    let host = right(&find(lab, LIKE).await?)?.host.to_string();
    let agent_ready = async |wanted: &str| {
        let api: Api<Host> = Api::all(lab.client.clone());
        let status = api.get(&host).await?.status.unwrap_or_default();
        let mut all = status.conditions.iter();
        let told = all.find(|one| one.type_ == "AgentReady");
        anyhow::Ok(told.is_some_and(|told| told.status == wanted))
    };
    // Its disks are there already: what is shown is where a VM is placed.
    let first = Declared::new("placed").started(lab).await?;
    delete(lab, &first).await?;
    until_gone(lab, &first).await?;
    let again = Declared {
        disks: "placed".to_owned(),
        ..Declared::new("placed-again")
    };
    let calm = Calm::now(lab).await?;
    let stuck = lab::host::processes(&lab.files, &host, "zhengyun-agent")?;
    ensure!(!stuck.is_empty(), "no agent runs on {host}");
    for pid in &stuck {
        run("kill", ["-STOP", &pid.to_string()])?;
    }
    let told = until(&lab.client, "the agent to be told as down", async || {
        agent_ready("False").await
    })
    .await;
    let kept = calm.lasts(STILL).await;
    let placed = again.started(lab).await;
    for pid in &stuck {
        run("kill", ["-CONT", &pid.to_string()])?;
    }
    told?;
    kept?;
    let placed = placed?;
    let on = right(&placed)?.host;
    ensure!(on.as_str() != host, "a new VM was placed on {host}");
    until(&lab.client, "the agent to go on", async || {
        agent_ready("True").await
    })
    .await?;
    delete(lab, &placed).await?;
    until_gone(lab, &placed).await?;
    calm.stands().await?;
    Ok(())
}

/// 60: every host and its BMC lose power and come back: each new boot proves the old one dead, and every VM is
/// started once.
async fn the_whole_site_loses_power(lab: &Lab) -> Result<()> {
    let (before, forced) = (standing(lab).await?, fences(lab)?.len());
    for host in lab.hosts()? {
        lab.fault(Some(&host), Fault::BmcDead)?;
        lab.fault(Some(&host), Fault::PowerLoss)?;
    }
    until_none_ready(lab).await?;
    let untouched = holds("nothing is assigned anew", STILL, async || {
        Ok(standing(lab).await? == before)
    })
    .await;
    for host in lab.hosts()? {
        lab.heal(Some(&host), Fault::BmcDead)?;
        lab.heal(Some(&host), Fault::PowerLoss)?;
    }
    untouched?;
    until_well(&lab.client, SYSTEMS.len()).await?;
    for (name, (epoch, host)) in standing(lab).await? {
        let was = before.get(&name).map(|(epoch, _)| *epoch);
        ensure!(
            was.map(|was| was + 1) == Some(epoch),
            "{name} ran at epoch {was:?}; it runs on {host} at {epoch}"
        );
    }
    ensure!(fences(lab)?.len() == forced, "a host was forced off");
    Ok(())
}

/// 41: storage hangs for two hosts, which watch the others: what they could not look at is no silence, and nobody
/// is forced off, fences itself or loses a VM.
async fn storage_hangs_for_those_who_watch(lab: &Lab) -> Result<()> {
    arm(lab).await?;
    let watched = right(&find(lab, LIKE).await?)?.host.to_string();
    let (forced, fired) = (fences(lab)?.len(), firings(lab)?);
    let before = right(&find(lab, LIKE).await?)?;
    let mut watching = lab.hosts()?;
    watching.retain(|host| *host != watched);
    watching.truncate(2);
    for host in &watching {
        lab.fault(Some(host), Fault::StorageHang)?;
    }
    until(&lab.client, "both to tell of their storage", async || {
        Ok(says_storage(&lab.client, &watching[0]).await?
            && says_storage(&lab.client, &watching[1]).await?)
    })
    .await?;
    let long = Duration::from_secs(TIMERS.iter().sum::<u64>() + STILL.as_secs());
    let kept = holds("nobody is fenced in any way", long, async || {
        Ok(fences(lab)?.len() == forced
            && firings(lab)? == fired
            && right(&find(lab, LIKE).await?)? == before)
    })
    .await;
    for host in &watching {
        lab.heal(Some(host), Fault::StorageHang)?;
    }
    kept
}

/// 53: a host's storage is gone, its Lease fresh: no proof, however long its heartbeat stands still. Then its Lease
/// drops, its BMC is dead: the guard's whole time runs from then on before a VM starts elsewhere.
async fn storage_first_and_the_lease_later(lab: &Lab) -> Result<()> {
    arm(lab).await?;
    let before = right(&find(lab, LIKE).await?)?;
    let host = before.host.as_str();
    lab.fault(Some(host), Fault::BmcDead)?;
    lab.fault(Some(host), Fault::StorageCut)?;
    until(&lab.client, "it to tell of its storage", async || {
        says_storage(&lab.client, host).await
    })
    .await?;
    let whole = Duration::from_secs(TIMERS.iter().sum());
    let fired = firings(lab)?;
    let early = holds("a fresh Lease keeps its VM", whole, async || {
        Ok(right(&find(lab, LIKE).await?)? == before && firings(lab)? == fired)
    })
    .await;
    let cut = Instant::now();
    lab.fault(Some(host), Fault::ManagementCut)?;
    let anew = until(&lab.client, "its VM to be assigned anew", async || {
        Ok(right(&find(lab, LIKE).await?)?.epoch > before.epoch)
    })
    .await;
    let took = cut.elapsed();
    lab.heal(Some(host), Fault::ManagementCut)?;
    lab.heal(Some(host), Fault::StorageCut)?;
    lab.heal(Some(host), Fault::BmcDead)?;
    early?;
    anew?;
    ensure!(
        took >= whole,
        "its VM was given away {took:?} after the Lease dropped, before {whole:?}"
    );
    let vm = find(lab, LIKE).await?;
    let proofs = vm.status.iter().flat_map(|status| &status.proofs);
    let kinds: Vec<StopProofKind> = proofs.map(|proof| proof.kind).collect();
    ensure!(
        kinds.contains(&StopProofKind::SelfFenced),
        "it rests on {kinds:?}"
    );
    Ok(())
}
