//! Long: starts and ends that break off halfway. A start fails everywhere, or hangs in its storage while its agent is
//! restarted, or while the guard fires; an agent dies between `closed` and the end of a copy, an operator between a claim
//! and its assignment. Each VM runs once all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use api::names::POLICY_NAME;
use api::{CloudPolicy, RuntimePhase, VirtualMachine, VirtualMachinePhase, Volume};
use e2e::calm::STILL;
use e2e::command::zyctl;
use e2e::declared::{Declared, find, holds, remove, right, set, until_runs};
use e2e::isolation::until_answers;
use e2e::plays::{STARTS, play_each};
use e2e::standing::{processes_of, standing};
use e2e::watch::{busy_host, full_name, names_on, on_host, runs, until, until_ready, vms};
use futures::TryStreamExt as _;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use lab::guards::{arm, firings};
use lab::process::run;
use lab::{Fault, Lab, LabOptions, fault, inside, namespace};
use model::{Claim, StopProofKind};
use serde_json::{Value, json};

/// How long a start hangs: longer than what a silent host is given up after.
const HANGS: Duration = Duration::from_secs(15);
/// How often a moment that lasts milliseconds is waited for before the play gives up.
const TRIES: usize = 6;
/// The first bytes of a qcow2 image.
const MAGIC: &[u8] = b"QFI\xfb";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make drills plays it"]
async fn what_breaks_off_halfway_is_done_once() -> Result<()> {
    let options = LabOptions {
        name: "starts".to_owned(),
        ..LabOptions::default()
    };
    play_each(options, &STARTS, async |lab, story| match story {
        "26" => a_start_fails_everywhere(lab).await,
        "42" => a_start_hangs_and_the_agent_restarts(lab).await,
        "52" => the_agent_dies_between_closed_and_destroy(lab).await,
        "55" => the_operator_dies_between_claim_and_assignment(lab).await,
        "54" => the_guard_fires_during_a_stalled_start(lab).await,
        _ => bail!("story {story} is not played here"),
    })
    .await
}

/// Waits until a VM is shut down and has no host.
async fn until_stopped(lab: &Lab, vm: &VirtualMachine) -> Result<()> {
    let name = vm.name_any();
    until(&lab.client, &format!("{name} to be stopped"), async || {
        let status = find(lab, &name).await?.status.unwrap_or_default();
        Ok(status.phase == Some(VirtualMachinePhase::Stopped) && status.assignment.is_none())
    })
    .await
    .map(drop)
}

/// Sets how long a VM waits after its first failure, seconds; none: as sites do.
async fn back_off(lab: &Lab, seconds: Option<i32>) -> Result<()> {
    let patch = json!({"spec": {"recovery": {"restartBackOffSeconds": seconds}}});
    let policies: Api<CloudPolicy> = Api::all(lab.client.clone());
    policies
        .patch(POLICY_NAME, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The file of a volume, as this machine sees it.
async fn file_of(lab: &Lab, vm: &VirtualMachine, volume: &str) -> Result<PathBuf> {
    let volumes: Api<Volume> =
        Api::namespaced(lab.client.clone(), &vm.namespace().unwrap_or_default());
    let status = volumes.get(volume).await?.status.unwrap_or_default();
    let file = status.reported.and_then(|reported| reported.file);
    let file = file.with_context(|| format!("volume {volume} has no file"))?;
    Ok(lab.files.shared().join(file.trim_start_matches('/')))
}

fn write_magic(file: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(file)?;
    Ok(file.write_all(bytes)?)
}

/// 26: the head of its system disk is damaged, and its QEMU dies: it can be started nowhere. It is tried on one host
/// after the other, ever more seldom, and is shown as failed, with the reason; mended, it starts by itself.
async fn a_start_fails_everywhere(lab: &Lab) -> Result<()> {
    let vm = Declared::new("damaged").started(lab).await?;
    let uid = vm.uid().unwrap_or_default();
    let file = file_of(lab, &vm, "damaged-system").await?;
    ensure!(
        std::fs::read(&file)?.starts_with(MAGIC),
        "{} is no qcow2 image",
        file.display()
    );
    back_off(lab, Some(1)).await?;
    write_magic(&file, &[0; MAGIC.len()])?;
    for pid in processes_of(lab, &uid)? {
        run("kill", ["-9", &pid.to_string()])?;
    }
    let before = right(&vm)?;
    let (mut tried, mut ran) = (BTreeMap::new(), false);
    until(&lab.client, "it to be shown as failed", async || {
        let vm = find(lab, "damaged").await?;
        let right = right(&vm)?;
        if right.epoch > before.epoch {
            ran |= runs(&vm);
            tried.insert(right.epoch, right.host);
        }
        let status = vm.status.unwrap_or_default();
        Ok(status.phase == Some(VirtualMachinePhase::Failed))
    })
    .await?;
    println!("  tried in vain: {tried:?}");
    ensure!(!ran, "it was shown as running");
    let hosts: BTreeSet<_> = tried.values().collect();
    let one_after_the_other = tried.values().zip(tried.values().skip(1));
    ensure!(
        hosts.len() >= 2 && one_after_the_other.clone().all(|(one, next)| one != next),
        "it was tried on {tried:?}"
    );
    let told = zyctl(lab, &["explain", "vm", &full_name(&vm)])?;
    println!("{told}");
    ensure!(
        told.contains("qcow2"),
        "zyctl explain vm does not tell why it can not be started: {told}"
    );
    write_magic(&file, MAGIC)?;
    let vm = until_runs(lab, "damaged").await?;
    let processes = processes_of(lab, &uid)?;
    ensure!(processes.len() == 1, "it has the processes {processes:?}");
    back_off(lab, None).await?;
    remove(lab, &vm).await
}

/// What the ledger of a host says of an epoch of a VM; none: nothing.
fn ledger_says(run_dir: &Path, uid: &str, epoch: i64) -> Option<String> {
    let text = std::fs::read(run_dir.join(format!("ledger/{uid}.json"))).ok()?;
    let entry: Value = serde_json::from_slice(&text).ok()?;
    let state = entry["epochs"][epoch.to_string()].as_str()?;
    Some(state.to_owned())
}

/// Waits until some host has taken an epoch of a VM for a start, and hangs that host's storage at once. Returns the
/// host. On a thread of its own: the moment is short.
async fn hang_the_start(lab: &Lab, uid: &str, epoch: i64) -> Result<String> {
    let files = lab.files.clone();
    let (uid, mut watched) = (uid.to_owned(), Vec::new());
    for host in lab.hosts()? {
        watched.push((inside::run_dir(&files, &host)?, host));
    }
    let waits = move || {
        let begin = Instant::now();
        loop {
            let taken =
                |(run_dir, _): &&(PathBuf, String)| ledger_says(run_dir, &uid, epoch).is_some();
            if let Some((_, host)) = watched.iter().find(taken) {
                fault::inject(&files, Some(host), Fault::StorageHang)?;
                return Ok(host.clone());
            }
            ensure!(
                begin.elapsed() < Duration::from_secs(60),
                "no host takes epoch {epoch} of {uid}"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    tokio::task::spawn_blocking(waits).await?
}

/// Has a VM that runs started anew, on whichever host, and hangs that host's storage while it is started. Returns the
/// host and the epoch.
async fn hang_a_new_start(lab: &Lab, vm: &VirtualMachine) -> Result<(String, i64)> {
    let name = vm.name_any();
    until_answers(lab, &name).await?;
    set(lab, vm, json!({"runStrategy": "Halted"})).await?;
    until_stopped(lab, vm).await?;
    let epoch = find(lab, &name)
        .await?
        .status
        .unwrap_or_default()
        .last_epoch
        + 1;
    set(lab, vm, json!({"runStrategy": "Always"})).await?;
    let host = hang_the_start(lab, &vm.uid().unwrap_or_default(), epoch).await?;
    Ok((host, epoch))
}

/// 42: a VM's start hangs in its storage, and its agent is restarted meanwhile. The VM is given to nobody else; when
/// the storage goes on, it runs once, whichever of both agents' words it rests on.
async fn a_start_hangs_and_the_agent_restarts(lab: &Lab) -> Result<()> {
    let vm = Declared::new("hanging").started(lab).await?;
    let uid = vm.uid().unwrap_or_default();
    for _ in 0..TRIES {
        let (host, epoch) = hang_a_new_start(lab, &vm).await?;
        let hangs = restart_the_agent_meanwhile(lab, &uid, &host, epoch).await;
        let ended = lab.heal(Some(&host), Fault::StorageHang);
        let hangs = hangs?;
        ended?;
        let mut twice = false;
        until(&lab.client, "it to run", async || {
            twice |= processes_of(lab, &uid)?.len() > 1;
            Ok(runs(&find(lab, "hanging").await?))
        })
        .await?;
        let vm = find(lab, "hanging").await?;
        ensure!(!twice, "it had two processes");
        if hangs {
            println!(
                "  epoch {epoch} hung on {host}; it runs under {:?}",
                right(&vm)?
            );
            return remove(lab, &vm).await;
        }
        println!("  {host} started it before its storage hung; once more");
    }
    bail!("no start was caught in {TRIES} tries")
}

/// Looks on while a start hangs, and restarts the agent. Whether it hung at all: it was never shown as running.
async fn restart_the_agent_meanwhile(lab: &Lab, uid: &str, host: &str, epoch: i64) -> Result<bool> {
    let agents = lab::host::processes(&lab.files, host, "zhengyun-agent")?;
    let hangs = async || {
        let vm = find(lab, "hanging").await?;
        let stands = right(&vm)?;
        ensure!(
            stands.epoch.0 == epoch && stands.host.as_str() == host,
            "it was given away while its start hung: {stands:?}"
        );
        let processes = processes_of(lab, uid)?;
        ensure!(processes.len() <= 1, "it has the processes {processes:?}");
        anyhow::Ok(!runs(&vm))
    };
    let begin = Instant::now();
    let hangs_until = async |moment: Duration| {
        let mut hung = true;
        until(&lab.client, "the start to hang on", async || {
            hung = hangs().await?;
            Ok(!hung || begin.elapsed() > moment)
        })
        .await?;
        anyhow::Ok(hung)
    };
    if !hangs_until(HANGS / 3).await? {
        return Ok(false);
    }
    lab.fault(Some(host), Fault::AgentKill)?;
    if !hangs_until(HANGS).await? {
        return Ok(false);
    }
    until(&lab.client, "another agent to run there", async || {
        let now = lab::host::processes(&lab.files, host, "zhengyun-agent")?;
        Ok(now.iter().any(|pid| !agents.contains(pid)))
    })
    .await?;
    hangs().await
}

/// 52: a VM that does not hear its power button is halted while libvirt is away: its epoch is closed and its copy runs
/// on, and then its agent dies. Nothing is said to be stopped; the next agent ends the copy first.
async fn the_agent_dies_between_closed_and_destroy(lab: &Lab) -> Result<()> {
    // Its guest boots yet, and hears no button.
    let vm = Declared::new("closing").started(lab).await?;
    let (uid, before) = (vm.uid().unwrap_or_default(), right(&vm)?);
    let host = before.host.as_str();
    set(lab, &vm, json!({"runStrategy": "Halted"})).await?;
    let runtime = async || {
        let status = find(lab, "closing").await?.status.unwrap_or_default();
        anyhow::Ok((
            status.runtime.map(|runtime| runtime.phase),
            status.assignment,
        ))
    };
    until(&lab.client, "it to be stopping", async || {
        Ok(runtime().await?.0 == Some(RuntimePhase::Stopping))
    })
    .await?;
    fault::stop_service(&lab.files, host, "libvirtd", "libvirtd")?;
    let run_dir = inside::run_dir(&lab.files, host)?;
    until(&lab.client, "its epoch to be closed", async || {
        let says = ledger_says(&run_dir, &uid, before.epoch.0);
        Ok(says.as_deref() == Some("closed"))
    })
    .await?;
    let left = processes_of(lab, &uid)?;
    ensure!(left.len() == 1, "closed, it has the processes {left:?}");
    lab.fault(Some(host), Fault::AgentKill)?;
    holds("nobody says that it is stopped", STILL, async || {
        let (phase, assignment) = runtime().await?;
        Ok(phase != Some(RuntimePhase::Closed)
            && assignment.as_ref() == Some(&before)
            && processes_of(lab, &uid)? == left)
    })
    .await?;
    fault::let_service_run(&lab.files, host, "libvirtd")?;
    let mut early = false;
    until(&lab.client, "it to be stopped", async || {
        // What the API says first: a process that is there afterwards was there then.
        let cleared = runtime().await?.1.is_none();
        early |= cleared && !processes_of(lab, &uid)?.is_empty();
        Ok(cleared)
    })
    .await?;
    ensure!(!early, "it was said to be stopped while its process ran");
    set(lab, &vm, json!({"runStrategy": "Always"})).await?;
    let again = until_runs(lab, "closing").await?;
    let processes = processes_of(lab, &uid)?;
    ensure!(processes.len() == 1, "it has the processes {processes:?}");
    remove(lab, &again).await
}

/// Volumes that are claimed for an epoch which their VM was never given, by the VM's name.
async fn claimed_only(lab: &Lab) -> Result<BTreeSet<String>> {
    // Claims first: an assignment that is read afterwards and is not there was not there then.
    let volumes: Api<Volume> = Api::all(lab.client.clone());
    let volumes = volumes.list(&Default::default()).await?.items;
    let mut found = BTreeSet::new();
    for vm in vms(&lab.client).await? {
        let status = vm.status.clone().unwrap_or_default();
        let own = |volume: &&Volume| {
            let claim = volume
                .status
                .as_ref()
                .and_then(|status| status.claim.as_ref());
            claim.is_some_and(|claim| {
                Some(claim.uid.as_str()) == vm.uid().as_deref()
                    && claim.assignment.epoch.0 > status.last_epoch
            })
        };
        if volumes.iter().any(|volume| own(&volume)) {
            found.insert(vm.name_any());
        }
    }
    Ok(found)
}

/// 55: a host dies, and the operator when it has claimed a volume and not written the assignment. The next one claims
/// anew, and every VM is started once.
async fn the_operator_dies_between_claim_and_assignment(lab: &Lab) -> Result<()> {
    let names = ["claimed-0", "claimed-1", "claimed-2"];
    for name in names {
        Declared::new(name).started(lab).await?;
    }
    for _ in 0..TRIES {
        let host = busy_host(&lab.client).await?;
        let (lost, before) = (names_on(&lab.client, &host).await?, standing(lab).await?);
        kill_the_operator_at_a_claim(lab, &host).await?;
        let caught = claimed_only(lab).await?;
        lab.heal(None, Fault::OperatorStop)?;
        println!("  claimed and not assigned: {caught:?}");
        until(&lab.client, "all VMs to run elsewhere", async || {
            let all = vms(&lab.client).await?.iter().all(runs);
            Ok(all && on_host(&lab.client, &host).await?.is_empty())
        })
        .await?;
        let now = standing(lab).await?;
        for name in &lost {
            let was = before.get(name).map_or(0, |(epoch, _)| *epoch);
            let is = now.get(name).map_or(0, |(epoch, _)| *epoch);
            // A claim whose epoch was burned costs one more.
            ensure!(
                is == was + 1 || (caught.contains(name) && is == was + 2),
                "{name} ran under {was}; it runs under {is}"
            );
        }
        claims_follow_rights(lab).await?;
        lab.heal(Some(&host), Fault::PowerLoss)?;
        until_ready(&lab.client, &host).await?;
        if !caught.is_empty() {
            for name in names {
                remove(lab, &find(lab, name).await?).await?;
            }
            return Ok(());
        }
    }
    bail!("in {TRIES} tries the operator never died between a claim and its assignment")
}

/// A host dies, and the operator as soon as it has claimed a volume for a new epoch. The moment lasts milliseconds: the
/// whole control node stands still while the operator is killed.
async fn kill_the_operator_at_a_claim(lab: &Lab, host: &str) -> Result<()> {
    let epochs: BTreeMap<String, i64> = vms(&lab.client)
        .await?
        .iter()
        .filter_map(|vm| Some((vm.uid()?, vm.status.as_ref()?.last_epoch)))
        .collect();
    let volumes: Api<Volume> = Api::all(lab.client.clone());
    let from = volumes.list(&Default::default()).await?.metadata;
    let from = from.resource_version.context("a list has a version")?;
    let params = WatchParams::default().timeout(120);
    let events = volumes.watch(&params, &from).await?;
    let mut events = std::pin::pin!(events);
    let control = namespace::cgroup(&lab.files.name, "control")?;
    lab.fault(Some(host), Fault::PowerLoss)?;
    while let Some(event) = events.try_next().await? {
        let claimed = match event {
            WatchEvent::Modified(volume) => volume.status.and_then(|status| status.claim),
            _ => None,
        };
        let is_new = |claim: &Claim| {
            let last = epochs.get(&claim.uid);
            last.is_some_and(|last| claim.assignment.epoch.0 > *last)
        };
        if claimed.as_ref().is_some_and(is_new) {
            namespace::freeze(&control, true)?;
            let killed = lab.fault(None, Fault::OperatorStop);
            namespace::freeze(&control, false)?;
            return killed;
        }
    }
    bail!("the operator claimed no volume of {host}'s VMs within two minutes")
}

/// Waits until every volume of a VM that runs is claimed for the right under which it runs.
async fn claims_follow_rights(lab: &Lab) -> Result<()> {
    until(&lab.client, "claims to follow rights", async || {
        let volumes: Api<Volume> = Api::all(lab.client.clone());
        let volumes = volumes.list(&Default::default()).await?.items;
        let all = vms(&lab.client).await?;
        let follows = |volume: &Volume| {
            let status = volume.status.as_ref();
            let Some(claim) = status.and_then(|status| status.claim.as_ref()) else {
                return true;
            };
            all.iter().any(|vm| {
                vm.uid().as_deref() == Some(claim.uid.as_str())
                    && right(vm).is_ok_and(|right| right == claim.assignment)
            })
        };
        Ok(volumes.iter().all(follows))
    })
    .await
    .map(drop)
}

/// 54: a start hangs in its storage, which carries the heartbeat too, and its host is cut off, out of reach of its BMC:
/// the guard fires. The VM starts elsewhere once the host must have fenced itself; what hung never comes to run.
async fn the_guard_fires_during_a_stalled_start(lab: &Lab) -> Result<()> {
    arm(lab).await?;
    let vm = Declared::new("stalled").started(lab).await?;
    let (uid, fired) = (vm.uid().unwrap_or_default(), firings(lab)?);
    let (host, epoch) = hang_a_new_start(lab, &vm).await?;
    for fault in [Fault::BmcDead, Fault::ManagementCut] {
        lab.fault(Some(&host), fault)?;
    }
    let hung = !runs(&find(lab, "stalled").await?);
    let mut twice = false;
    let mut once = async || {
        twice |= processes_of(lab, &uid)?.len() > 1;
        anyhow::Ok(())
    };
    let told = until(&lab.client, "its guard to fire", async || {
        once().await?;
        Ok(firings(lab)? > fired)
    })
    .await;
    let anew = until(&lab.client, "it to run elsewhere", async || {
        once().await?;
        let vm = find(lab, "stalled").await?;
        Ok(runs(&vm) && right(&vm)?.epoch.0 > epoch)
    })
    .await;
    for fault in [Fault::StorageHang, Fault::ManagementCut, Fault::BmcDead] {
        lab.heal(Some(&host), fault)?;
    }
    told?;
    anew?;
    ensure!(hung, "its start did not hang on {host}: nothing was shown");
    until_ready(&lab.client, &host).await?;
    once().await?;
    ensure!(!twice, "it had two processes");
    let vm = find(lab, "stalled").await?;
    let proofs = vm.status.iter().flat_map(|status| &status.proofs);
    let kinds: Vec<StopProofKind> = proofs.map(|proof| proof.kind).collect();
    ensure!(
        kinds.contains(&StopProofKind::SelfFenced),
        "it rests on {kinds:?}"
    );
    remove(lab, &vm).await
}
