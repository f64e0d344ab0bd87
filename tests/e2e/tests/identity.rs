//! Long: who a host is, and what its word is worth. Its clock jumps; it comes back with another's system UUID, as
//! another machine, or with domains that libvirt is to start by itself; a clone of its disk boots elsewhere. None of
//! these proves anything about the machine that was registered.

use anyhow::{Context as _, Result, bail, ensure};
use api::names::{SYSTEM_NAMESPACE, lease_name};
use api::{Host, HostState, Network, Vtep};
use e2e::calm::{Calm, STILL};
use e2e::command::zyctl;
use e2e::declared::{LIKE, find, holds, right, until_runs};
use e2e::plays::{IDENTITY, play_each};
use e2e::standing::{Standing, guests, processes_of, standing};
use e2e::watch::{
    busy_host, full_name, host_state, hosts, is_ready, names_on, on_host, runs, until, until_ready,
    vms,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use lab::machine::{self, Board};
use lab::{Fault, Lab, LabOptions, clock, inside};
use model::StopProofKind;

/// What a person is told to do about a machine that bears a host's name.
const REMEDY: &str = "delete the Host and create it anew";
/// By how much a clock jumps, seconds.
const HOUR: i64 = 3600;
/// What a clock may be off by beside that, seconds: writing, waiting and reading of a Lease take their time.
const NEAR: i64 = 120;
/// A guest that is down for so long did stop answering: single answers come late on a busy machine.
const STOPPED_SECONDS: f64 = 3.0;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make drills plays it"]
async fn nobody_is_taken_for_another() -> Result<()> {
    let options = LabOptions {
        name: "identity".to_owned(),
        ..LabOptions::default()
    };
    play_each(options, &IDENTITY, async |lab, story| match story {
        "15" => a_clock_jumps(lab).await,
        "33" => a_machine_returns_with_the_uuid_of_another_host(lab).await,
        "44" => another_machine_stands_under_an_old_name(lab).await,
        "45" => libvirt_is_to_start_a_domain_while_the_api_is_down(lab).await,
        "56" => a_clone_of_a_hosts_disk_boots_elsewhere(lab).await,
        _ => bail!("story {story} is not played here"),
    })
    .await
}

async fn host_of(lab: &Lab, name: &str) -> Result<Host> {
    let api: Api<Host> = Api::all(lab.client.clone());
    Ok(api.get(name).await?)
}

/// Boot id of the incarnation that was accepted last.
async fn accepted(lab: &Lab, host: &str) -> Result<String> {
    let status = host_of(lab, host).await?.status.unwrap_or_default();
    let accepted = status.accepted.context("it was registered")?;
    Ok(accepted.boot_id)
}

/// Waits until a person is told this about a host, beside its state.
async fn until_told(lab: &Lab, host: &str, words: &str) -> Result<()> {
    let what = format!("{host} to be told of with {words:?}");
    until(&lab.client, &what, async || {
        let status = host_of(lab, host).await?.status.unwrap_or_default();
        Ok(status.state_reason.is_some_and(|told| told.contains(words)))
    })
    .await?;
    let status = host_of(lab, host).await?.status.unwrap_or_default();
    println!("  {host}: {:?}, {:?}", status.state, status.state_reason);
    Ok(())
}

/// Waits until these VMs run elsewhere, each started once since.
async fn until_started_once(
    lab: &Lab,
    names: &[String],
    from: &str,
    before: &Standing,
) -> Result<()> {
    until(&lab.client, "its VMs to run elsewhere", async || {
        let all = vms(&lab.client).await?.iter().all(runs);
        Ok(all && on_host(&lab.client, from).await?.is_empty())
    })
    .await?;
    started_once(lab, names, before).await
}

/// Every VM that is named was started once since.
async fn started_once(lab: &Lab, names: &[String], before: &Standing) -> Result<()> {
    let now = standing(lab).await?;
    for name in names {
        let epochs = [before, &now].map(|all| all.get(name).map(|(epoch, _)| *epoch));
        ensure!(
            epochs[0].map(|epoch| epoch + 1) == epochs[1],
            "{name} was not started once: {epochs:?}"
        );
    }
    Ok(())
}

/// By how many seconds the clock that a host's Lease was renewed by is ahead of this machine's.
async fn ahead(lab: &Lab, host: &str) -> Result<i64> {
    let leases: Api<Lease> = Api::namespaced(lab.client.clone(), SYSTEM_NAMESPACE);
    let spec = leases.get(&lease_name(host)).await?.spec;
    let told = spec.and_then(|spec| spec.renew_time);
    let told = told.context("a Lease tells its last renewal")?;
    Ok(told.0.as_second() - jiff::Timestamp::now().as_second())
}

/// Whether a program of a host has the clock of that host.
fn has_its_clock(lab: &Lab, host: &str, program: &str) -> Result<bool> {
    let pids = lab::host::processes(&lab.files, host, program)?;
    let has = |pid: &i32| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
        maps.is_ok_and(|maps| maps.contains("libfaketime"))
    };
    Ok(!pids.is_empty() && pids.iter().all(has))
}

/// 15 and 15b: a host's clock is an hour ahead, then an hour behind: nothing is seen of it. A host whose clock is
/// wrong dies as any other.
async fn a_clock_jumps(lab: &Lab) -> Result<()> {
    let host = right(&find(lab, LIKE).await?)?.host.to_string();
    clock::set(&lab.files, &host, 0)?;
    for fault in [Fault::AgentKill, Fault::GuardKill] {
        lab.fault(Some(&host), fault)?;
    }
    until(&lab.client, "its programs to have its clock", async || {
        Ok(has_its_clock(lab, &host, "zhengyun-agent")?
            && has_its_clock(lab, &host, "zhengyun-guard")?)
    })
    .await?;
    until_ready(&lab.client, &host).await?;
    let calm = Calm::now(lab).await?;
    for seconds in [HOUR, -HOUR] {
        clock::set(&lab.files, &host, seconds)?;
        until(&lab.client, "it to renew by that clock", async || {
            Ok((ahead(lab, &host).await? - seconds).abs() < NEAR)
        })
        .await?;
        let ready =
            async || anyhow::Ok(host_state(&lab.client, &host).await? == Some(HostState::Ready));
        let what = "its host is Ready and nothing changes";
        holds(what, STILL, async || {
            calm.stands().await?;
            ready().await
        })
        .await?;
        println!("  {} s ahead: nothing changed", ahead(lab, &host).await?);
    }
    let told = calm.new_incidents().await?;
    ensure!(told.is_empty(), "the Incidents are {told:?}");
    let lost = names_on(&lab.client, &host).await?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    until_started_once(lab, &lost, &host, &calm.standing).await?;
    std::fs::remove_file(clock::file(&lab.files, &host))?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    until_ready(&lab.client, &host).await
}

/// A host loses power, and with it its BMC. Waits until it is given up.
async fn dies_with_its_bmc(lab: &Lab, host: &str) -> Result<()> {
    lab.fault(Some(host), Fault::BmcDead)?;
    lab.fault(Some(host), Fault::PowerLoss)?;
    until(&lab.client, "it to be unreachable", async || {
        Ok(host_state(&lab.client, host).await? == Some(HostState::Unreachable))
    })
    .await
    .map(drop)
}

/// A machine boots under the name of a host that died. It is refused, a person is told so, and nothing is concluded from it.
async fn is_refused(lab: &Lab, host: &str, board: &Board) -> Result<()> {
    let (before, boot, forced) = (
        standing(lab).await?,
        accepted(lab, host).await?,
        e2e::power::fences(lab)?.len(),
    );
    machine::exchange(&lab.files, host, board)?;
    lab.heal(Some(host), Fault::PowerLoss)?;
    until_told(lab, host, REMEDY).await?;
    holds(
        "nothing is concluded from that machine",
        STILL,
        async || {
            Ok(standing(lab).await? == before
                && accepted(lab, host).await? == boot
                && guests(lab)?.get(host).is_none_or(Vec::is_empty)
                && e2e::power::fences(lab)?.len() == forced)
        },
    )
    .await
}

/// 33: a host returns with the UUID of another that lives: it is refused, and its VMs wait for a real proof, which it,
/// or its BMC, gives when its own board is back.
async fn a_machine_returns_with_the_uuid_of_another_host(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let (lost, before) = (names_on(&lab.client, &host).await?, standing(lab).await?);
    let ready = hosts(&lab.client).await?;
    let mut others = ready.iter().filter(|other| is_ready(other));
    let other = others.find(|other| other.name_any() != host);
    let other = other.context("another host")?.name_any();
    let own = machine::board(&lab.files, &host)?;
    let twin = Board {
        uuid: machine::board(&lab.files, &other)?.uuid,
        ..machine::new_board()
    };
    dies_with_its_bmc(lab, &host).await?;
    is_refused(lab, &host, &twin).await?;
    ensure!(
        host_state(&lab.client, &other).await? == Some(HostState::Ready),
        "{other}, whose UUID it is, is not left alone"
    );
    lab.fault(Some(&host), Fault::PowerLoss)?;
    machine::exchange(&lab.files, &host, &own)?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    for name in &lost {
        until_runs_anew(lab, name, &before).await?;
    }
    started_once(lab, &lost, &before).await?;
    // Its BMC answers before it shows life itself, and was believed first: forced off, it stays off until a person
    // switches it on.
    if !lab::host::is_on(&lab.files, &host) {
        lab::host::power_on(&lab.files, &host)?;
    }
    until_ready(&lab.client, &host).await
}

/// 44 and 44b: a dead machine is replaced under its old name: the new one is refused with the remedy, and the VMs wait.
/// It is switched off, a person vouches for the old one, the VMs run elsewhere; the Host is deleted and made anew, and
/// the new machine is in service.
async fn another_machine_stands_under_an_old_name(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let (lost, before) = (names_on(&lab.client, &host).await?, standing(lab).await?);
    let new = machine::new_board();
    dies_with_its_bmc(lab, &host).await?;
    is_refused(lab, &host, &new).await?;
    let kept = delete_host(lab, &host).await.err();
    let kept = kept.context("a Host with VMs was deleted")?;
    ensure!(
        format!("{kept:#}").contains("is in use by"),
        "the deletion of a Host with VMs: {kept:#}"
    );
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let reason = "the old machine went back to its vendor";
    let words = ["host", "confirm-dead", &host, "--reason", reason];
    zyctl(lab, &[&words[..], &["--confirm", &host]].concat())?;
    until_started_once(lab, &lost, &host, &before).await?;
    for vm in vms(&lab.client).await? {
        let proofs = vm.status.iter().flat_map(|status| &status.proofs);
        let kinds: Vec<StopProofKind> = proofs.map(|proof| proof.kind).collect();
        ensure!(
            !lost.contains(&vm.name_any()) || kinds.contains(&StopProofKind::Confirmed),
            "{} rests on {kinds:?}",
            vm.name_any()
        );
    }
    lab.heal(Some(&host), Fault::PowerLoss)?;
    until_told(lab, &host, REMEDY).await?;
    make_host_anew(lab, &host).await?;
    until_ready(&lab.client, &host).await?;
    let status = host_of(lab, &host).await?.status.unwrap_or_default();
    let registered = status.accepted.map(|accepted| accepted.system_uuid);
    ensure!(
        registered.as_ref() == Some(&new.uuid),
        "{host} is registered as {registered:?}, not as {new:?}"
    );
    let vm = find(lab, LIKE).await?;
    zyctl(lab, &["migrate", &full_name(&vm), "--to", &host])?;
    Ok(())
}

async fn delete_host(lab: &Lab, host: &str) -> Result<()> {
    let api: Api<Host> = Api::all(lab.client.clone());
    api.delete(host, &DeleteParams::default()).await?;
    Ok(())
}

/// Deletes a Host and declares it again, as ops would.
async fn make_host_anew(lab: &Lab, host: &str) -> Result<()> {
    let declared = host_of(lab, host).await?;
    let api: Api<Host> = Api::all(lab.client.clone());
    until(&lab.client, "the Host to be deleted", async || {
        if api.get_opt(host).await?.is_some() {
            // Refused until its VMs are counted elsewhere.
            delete_host(lab, host).await?;
        }
        Ok(api.get_opt(host).await?.is_none())
    })
    .await?;
    let mut spec = declared.spec;
    (spec.confirmed_off, spec.fault_clearance) = (None, None);
    api.create(&PostParams::default(), &Host::new(host, spec))
        .await?;
    Ok(())
}

/// 45: an administrator has libvirt start a domain by itself; the host boots while the API is down: libvirt tries, the
/// hook refuses, nothing runs. With the API the new boot is the proof, and the VM is started once.
async fn libvirt_is_to_start_a_domain_while_the_api_is_down(lab: &Lab) -> Result<()> {
    let (vm, before) = (find(lab, LIKE).await?, standing(lab).await?);
    let (host, uid) = (
        right(&vm)?.host.to_string(),
        vm.uid().context("a VM has a uid")?,
    );
    let lost = names_on(&lab.client, &host).await?;
    let virsh = |words: &str| {
        let script = words.replace("UID", &uid);
        inside::run(&lab.files, &host, &["sh", "-c", &script])
    };
    virsh("virsh dumpxml --inactive UID >/run/defined.xml && virsh define /run/defined.xml")?;
    virsh("virsh autostart UID")?;
    lab.fault(None, Fault::ApiDown)?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    let log = lab.files.logs().join(format!("{host}-libvirtd.log"));
    let refused = format!("zhengyun-qemu-hook: prepare: refused: VM {uid}");
    let tried = until(&lab.client, "libvirt to try and be refused", async || {
        Ok(std::fs::read_to_string(&log)?.contains(&refused))
    })
    .await;
    let kept = holds("nothing runs on that host", STILL, async || {
        Ok(guests(lab)?.get(&host).is_none_or(Vec::is_empty))
    })
    .await;
    let defined = virsh("virsh list --all --autostart --uuid");
    lab.heal(None, Fault::ApiDown)?;
    tried?;
    kept?;
    ensure!(
        defined?.contains(&uid),
        "libvirt was not to start the domain by itself any more: nothing was shown"
    );
    for name in &lost {
        until_runs_anew(lab, name, &before).await?;
    }
    started_once(lab, &lost, &before).await?;
    let processes = processes_of(lab, &uid)?;
    ensure!(
        processes.len() == 1,
        "{LIKE} has the processes {processes:?}"
    );
    virsh("virsh undefine UID")?;
    until_ready(&lab.client, &host).await
}

async fn until_runs_anew(lab: &Lab, name: &str, before: &Standing) -> Result<()> {
    let was = before.get(name).map_or(0, |(epoch, _)| *epoch);
    until(&lab.client, &format!("{name} to run anew"), async || {
        let vm = find(lab, name).await?;
        Ok(runs(&vm) && right(&vm)?.epoch.0 > was)
    })
    .await?;
    until_runs(lab, name).await.map(drop)
}

/// Whether a machine runs a guest. libvirt runs QEMU as well to ask it what it can do, without one.
fn runs_a_guest(lab: &Lab, machine: &str) -> Result<bool> {
    let pids = lab::host::processes(&lab.files, machine, "qemu-system-x86_64")?;
    let has_one = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains("guest=")
    };
    Ok(pids.iter().any(has_one))
}

/// Where frames for guests go, network by network.
async fn tunnel_ends(lab: &Lab) -> Result<Vec<Vec<Vtep>>> {
    let api: Api<Network> = Api::all(lab.client.clone());
    let networks = api.list(&Default::default()).await?.items;
    let ends = |network: Network| network.status.unwrap_or_default().vteps;
    Ok(networks.into_iter().map(ends).collect())
}

/// 56, 33b and 33e: a machine that is no host of the site boots a clone of a host's disk: two agents report and renew
/// under one name. It has a UUID of its own, then that of the host, as some vendors give one to many boards. It is
/// refused, proves nothing and runs nothing; the host, its guests and their network are left alone.
async fn a_clone_of_a_hosts_disk_boots_elsewhere(lab: &Lab) -> Result<()> {
    let host = right(&find(lab, LIKE).await?)?.host.to_string();
    let [own, same] = [machine::new_board(), machine::board(&lab.files, &host)?];
    for board in [own, same] {
        let (calm, boot) = (Calm::now(lab).await?, accepted(lab, &host).await?);
        let (since, ends) = (lab::judges::now(), tunnel_ends(lab).await?);
        let clone = machine::boot_clone(&lab.files, &host, &board.uuid)?;
        let told = until_told(lab, &host, REMEDY).await;
        let kept = holds("the clone changes nothing", 2 * STILL, async || {
            calm.stands().await?;
            Ok(accepted(lab, &host).await? == boot
                && tunnel_ends(lab).await? == ends
                && !runs_a_guest(lab, &clone)?)
        })
        .await;
        machine::remove_clone(&lab.files, &clone)?;
        told?;
        kept?;
        until_ready(&lab.client, &host).await?;
        let answers = lab::judges::judge_since(&lab.files, since)?;
        for (name, replica) in &answers.replicas {
            ensure!(
                replica.downtime_seconds < STOPPED_SECONDS,
                "{name} stopped answering for {:.1} s while a clone of {host} was there",
                replica.downtime_seconds
            );
        }
        calm.stands().await?;
    }
    Ok(())
}
