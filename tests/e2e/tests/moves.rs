//! Long: what happens to a VM while it moves. Source, target or both die in the copy, are cut off, hang; the
//! operator is killed, the agent at the hand-over; the move is cancelled; its last reply is lost; another host wants
//! the VM too; a host that is being emptied dies. Whatever it is, the VM runs once, on memory that was handed over or from its disks.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use api::{HostState, MigrationPhase, MigrationSourcePhase, VirtualMachineMigration};
use e2e::command::zyctl;
use e2e::declared::{LIKE, find, right};
use e2e::moving::{Move, SLOW, copy_at_most, targets};
use e2e::plays::{MOVES, play_each};
use e2e::watch::{
    busy_host, host_state, migrations, names_on, on_host, runs, until, until_ready, vms,
};
use kube::ResourceExt;
use lab::loss::Half;
use lab::{Fault, Lab, LabOptions, inside, loss};

/// How fast memory is copied in a story, MiB/s: slowly where there must be time to strike, else as fast as it goes. What
/// is to end while libvirt waits for an answer, 20 s, takes some seconds: a guest writes to 1 MiB without end, which
/// must be copied within the pause that it is allowed.
fn speed(story: &str) -> Option<i32> {
    match story {
        "18f" | "36" | "40" => None,
        "39" | "51" => Some(8 * SLOW),
        _ => Some(SLOW),
    }
}

/// The port on which libvirt hears of moves.
const LIBVIRT: u16 = 16514;
/// A move that is cancelled is over within that time.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make drills plays it"]
async fn a_vm_that_moves_runs_once_whatever_happens() -> Result<()> {
    let options = LabOptions {
        name: "moves".to_owned(),
        ..LabOptions::default()
    };
    play_each(options, &MOVES, async |lab, story| {
        copy_at_most(lab, speed(story)).await?;
        match story {
            "18b" => the_source_dies(lab).await,
            "18c" => the_target_dies(lab).await,
            "18d" => both_die(lab).await,
            "18e" => the_target_is_cut_off(lab).await,
            "18f" => the_operator_is_killed(lab).await,
            "18g" => a_person_cancels(lab).await,
            "19" => the_source_hangs_and_is_forced_off(lab).await,
            "22" => a_host_that_is_emptied_dies(lab).await,
            "36" => the_agent_is_killed_at_the_hand_over(lab).await,
            "39" => the_last_reply_is_lost(lab).await,
            "51" => the_source_runs_on_and_dies(lab).await,
            "40" => a_third_host_wants_the_vm(lab).await,
            "59" => the_target_dies_before_anything_was_sent(lab).await,
            _ => bail!("story {story} is not played here"),
        }
    })
    .await
}

/// A move to the host that has most VMs. It has only been asked for.
async fn asked_for(lab: &Lab) -> Result<Move> {
    let vm = find(lab, LIKE).await?;
    let source = right(&vm)?.host;
    let targets = targets(lab, source.as_str()).await?;
    Move::begin(lab, &vm, &targets[0]).await
}

/// A move whose memory is being copied.
async fn under_way(lab: &Lab) -> Result<Move> {
    let begun = asked_for(lab).await?;
    let copies = MigrationSourcePhase::Migrating;
    begun.until_source_says(lab, copies).await?;
    Ok(begun)
}

/// 18b: nothing was handed over, so what arrived is given up, and the VM starts from its disks elsewhere.
async fn the_source_dies(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    lab.fault(Some(begun.source()), Fault::PowerLoss)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    let host = begun.started_anew(lab).await?;
    ensure!(host != begun.source(), "{LIKE} runs on a host that is off");
    Ok(())
}

/// 18c: the source runs on as if nothing had been.
async fn the_target_dies(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    lab.fault(Some(&begun.target), Fault::PowerLoss)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    begun.changed_nothing(lab).await
}

/// 18d: both are proven off, and the VM starts on a third.
async fn both_die(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    lab.fault(Some(begun.source()), Fault::PowerLoss)?;
    lab.fault(Some(&begun.target), Fault::PowerLoss)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    let host = begun.started_anew(lab).await?;
    ensure!(
        host != begun.source() && host != begun.target,
        "{LIKE} runs on {host}, which is off"
    );
    Ok(())
}

/// 18e: the target can not be reached: the source breaks off and runs on; the copy goes once the target is back,
/// which nobody forced off, as its own VMs answer.
async fn the_target_is_cut_off(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    ensure!(
        !names_on(&lab.client, &begun.target).await?.is_empty(),
        "no VM of {} answers while it is cut off",
        begun.target
    );
    lab.fault(Some(&begun.target), Fault::ManagementCut)?;
    let runs_on = MigrationSourcePhase::StillRunning;
    begun.until_source_says(lab, runs_on).await?;
    ensure!(
        lab::host::is_on(&lab.files, &begun.target),
        "{} was forced off",
        begun.target
    );
    lab.heal(Some(&begun.target), Fault::ManagementCut)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    begun.changed_nothing(lab).await
}

/// 18f: the next operator finishes what the first began.
async fn the_operator_is_killed(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    lab.fault(None, Fault::OperatorKill)?;
    begun.succeeded(lab).await
}

/// 18g: the source says that it runs, the target gives up, at once.
async fn a_person_cancels(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    let asked = Instant::now();
    begun.cancel().await?;
    begun.ends(lab, MigrationPhase::Cancelled).await?;
    let took = asked.elapsed();
    ensure!(
        took <= CANCELLED_WITHIN,
        "a cancelled move took {took:?} to end"
    );
    begun.changed_nothing(lab).await
}

/// 19: the source is forced off in the copy; what arrived never runs, the VM starts from its disks.
async fn the_source_hangs_and_is_forced_off(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    lab.fault(Some(begun.source()), Fault::KernelHang)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    ensure!(
        !lab::host::is_on(&lab.files, begun.source()),
        "{} was not forced off",
        begun.source()
    );
    let host = begun.started_anew(lab).await?;
    ensure!(host != begun.source(), "{LIKE} runs on a host that is off");
    Ok(())
}

fn has_ended(migration: &VirtualMachineMigration) -> bool {
    let status = migration.status.as_ref();
    status.is_some_and(|status| status.finished_at.is_some())
}

fn copies(migration: &VirtualMachineMigration) -> bool {
    let status = migration.status.as_ref();
    status.is_some_and(|status| status.phase == MigrationPhase::Running)
}

/// 22: its VMs recover, and no move stays open.
async fn a_host_that_is_emptied_dies(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let lost = names_on(&lab.client, &host).await?;
    zyctl(lab, &["drain", &host, "--no-wait"])?;
    until(&lab.client, "a copy to be under way", async || {
        Ok(migrations(&lab.client).await?.iter().any(copies))
    })
    .await?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let what = format!("{lost:?} to run elsewhere and every move to end");
    until(&lab.client, &what, async || {
        let all = vms(&lab.client).await?;
        let moves = migrations(&lab.client).await?;
        Ok(on_host(&lab.client, &host).await?.is_empty()
            && all.iter().all(runs)
            && moves.iter().all(has_ended))
    })
    .await?;
    zyctl(lab, &["drain", &host, "--undo"])?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    until_ready(&lab.client, &host).await
}

/// 36: the source has handed over and its agent is killed before the assignment has moved: its ledger tells, and
/// the move completes. Meanwhile the operator stands still, so that it can not be quicker.
async fn the_agent_is_killed_at_the_hand_over(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    lab.fault(None, Fault::OperatorPause)?;
    let gone = MigrationSourcePhase::HandedOver;
    begun.until_source_says(lab, gone).await?;
    lab.fault(Some(begun.source()), Fault::AgentKill)?;
    let status = begun.vm().await?.status.unwrap_or_default();
    ensure!(
        status.assignment.as_ref() == Some(&begun.before),
        "the assignment had moved before the agent was killed"
    );
    lab.heal(None, Fault::OperatorPause)?;
    begun.succeeded(lab).await
}

/// A move of which the target's libvirt is not heard any more, since the memory is being copied: it ends the move, and
/// the source never hears that.
async fn unheard(lab: &Lab) -> Result<Move> {
    let begun = asked_for(lab).await?;
    // Memory is copied only once the target's libvirt has answered that it is ready.
    until(&lab.client, "memory to be copied", async || {
        let source = begun.status().await?.source;
        let progress = source.and_then(|source| source.progress_percent);
        Ok(progress.is_some_and(|percent| percent > 0))
    })
    .await?;
    let number = lab::host::number(&begun.target)?;
    let target = SocketAddrV4::new(lab.addresses.management(number), LIBVIRT);
    loss::lose(&lab.files, begun.source(), target, Half::Replies)?;
    Ok(begun)
}

/// What the source says of a move in the end, of which the target has had the whole copy before.
async fn last_word(lab: &Lab, begun: &Move) -> Result<MigrationSourcePhase> {
    let (mut said, mut complete) = (None, false);
    until(&lab.client, "the source's last word", async || {
        // While it arrives, libvirt tells nothing of it.
        complete |= arrived(lab, begun).unwrap_or(false);
        said = begun.status().await?.source.map(|source| source.phase);
        Ok(said.is_some_and(|said| said != MigrationSourcePhase::Migrating))
    })
    .await?;
    println!("  the source says {said:?}");
    ensure!(complete, "the move broke off before it was complete");
    said.context("it said something")
}

/// 39: the last reply of a move is lost. libvirt lets the source run on, or leaves it paused; what arrived is
/// complete, stands still and never runs.
async fn the_last_reply_is_lost(lab: &Lab) -> Result<()> {
    let begun = unheard(lab).await?;
    let said = last_word(lab, &begun).await;
    loss::end(&lab.files, begun.source())?;
    let said = said?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    never_resumed(&begun).await?;
    match said {
        MigrationSourcePhase::StillRunning => begun.changed_nothing(lab).await,
        MigrationSourcePhase::Closed => begun.started_anew(lab).await.map(drop),
        other => bail!("the source says {other:?} of a move whose end it did not hear"),
    }
}

/// 51: the source runs on after a lost reply, and dies, while what arrived waits paused: it holds old memory, and is
/// given up; the VM starts from its disks. The operator stands still meanwhile, so that it can not be quicker.
async fn the_source_runs_on_and_dies(lab: &Lab) -> Result<()> {
    let begun = unheard(lab).await?;
    lab.fault(None, Fault::OperatorPause)?;
    let said = last_word(lab, &begun).await?;
    ensure!(
        said == MigrationSourcePhase::StillRunning && arrived(lab, &begun)?,
        "the source did not run on beside a copy that waits: it says {said:?}"
    );
    lab.fault(Some(begun.source()), Fault::PowerLoss)?;
    loss::end(&lab.files, begun.source())?;
    lab.heal(None, Fault::OperatorPause)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    never_resumed(&begun).await?;
    let host = begun.started_anew(lab).await?;
    ensure!(host != begun.source(), "{LIKE} runs on a host that is off");
    Ok(())
}

/// Whether the target has the whole copy, which stands still, and no job any more.
fn arrived(lab: &Lab, begun: &Move) -> Result<bool> {
    let state = virsh(lab, begun, "domstate --reason")?;
    let job = virsh(lab, begun, "domjobinfo")?;
    Ok(state.trim().starts_with("paused") && job.contains("None"))
}

/// What virsh says of the copy on the target.
fn virsh(lab: &Lab, begun: &Move, command: &str) -> Result<String> {
    let mut words = vec!["virsh"];
    words.extend(command.split(' '));
    words.push(&begun.uid);
    inside::run(&lab.files, &begun.target, &words)
}

async fn never_resumed(begun: &Move) -> Result<()> {
    let target = begun.status().await?.target;
    ensure!(
        target
            .as_ref()
            .is_none_or(|target| target.resumed_at.is_none()),
        "what arrived was let run: {target:?}"
    );
    Ok(())
}

/// 40: a VM that moves is asked to a third host: as long as the first move stands it has no other target. Then the
/// second one takes it there.
async fn a_third_host_wants_the_vm(lab: &Lab) -> Result<()> {
    let begun = under_way(lab).await?;
    let targets = targets(lab, begun.source()).await?;
    let third = targets.iter().find(|host| **host != begun.target);
    let third = third.context("a third host")?;
    let vm = begun.vm().await?;
    let other = VirtualMachineMigration::new(
        &format!("{LIKE}-third"),
        serde_json::from_value(serde_json::json!({"virtualMachine": LIKE, "targetHost": third}))?,
    );
    let api: kube::Api<VirtualMachineMigration> =
        kube::Api::namespaced(lab.client.clone(), &vm.namespace().unwrap_or_default());
    api.create(&Default::default(), &other).await?;
    let mut second = false;
    until(&lab.client, "the first move to end", async || {
        let incoming = begun.vm().await?.status.unwrap_or_default().incoming;
        let ended = begun.status().await?.finished_at.is_some();
        second |= !ended && incoming.is_some_and(|incoming| incoming.host.as_str() == third);
        Ok(ended || second)
    })
    .await?;
    ensure!(!second, "{third} was to receive it while another host was");
    begun.ends(lab, MigrationPhase::Succeeded).await?;
    until(&lab.client, "the second move to end", async || {
        Ok(has_ended(&api.get(&other.name_any()).await?))
    })
    .await?;
    let said = api.get(&other.name_any()).await?.status.unwrap_or_default();
    let host = right(&begun.vm().await?)?.host;
    ensure!(
        said.phase == MigrationPhase::Succeeded && host.as_str() == third,
        "the second move ended as {:?} ({:?}), and {LIKE} is on {host}",
        said.phase,
        said.message
    );
    Ok(())
}

/// 59: the target is ready and dies; the source's agent, which is stopped meanwhile, has sent nothing. The VM
/// runs on, and nothing of the move stands.
async fn the_target_dies_before_anything_was_sent(lab: &Lab) -> Result<()> {
    let vm = find(lab, LIKE).await?;
    let source = vm.status.unwrap_or_default().assignment;
    let source = source.context("the VM has a host")?.host.to_string();
    lab.fault(Some(&source), Fault::AgentStop)?;
    let begun = asked_for(lab).await?;
    begun.until_prepared(lab).await?;
    lab.fault(Some(&begun.target), Fault::PowerLoss)?;
    until(&lab.client, "the target to be proven off", async || {
        Ok(host_state(&lab.client, &begun.target).await? == Some(HostState::Fenced))
    })
    .await?;
    lab.heal(Some(&source), Fault::AgentStop)?;
    begun.ends(lab, MigrationPhase::Failed).await?;
    begun.changed_nothing(lab).await
}
