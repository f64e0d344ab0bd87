//! What happens around the main job: parts of the platform die and no VM notices; hosts are drained,
//! rehearsed first, and load is evened out; a fan that stands still is told over IPMI; a cut management
//! network fences nobody; a person's word replaces a dead BMC, and what was foretold of that failure comes true.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{Host, HostState, MigrationPhase, VirtualMachineMigration};
use e2e::balance::{foretold, load_is_evened_out};
use e2e::command::{Following, zyctl, zyctl_command};
use e2e::ledger::whole_ledger_agrees;
use e2e::standing::{guests, standing};
use e2e::story::{Teller, check_programs};
use e2e::watch::{
    all_well, busy_host, host_state, migrations, on_host, until, until_ready, until_well, vms,
};
use e2e::{disks, fan, figures, hands, isolation};
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::{Fault, Lab, LabOptions, declarations, guest, judges};
use serde_json::{Value, json};

/// A look at the site takes no longer, on the slowest machine.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Systems of this lab: two of the declared ones, seven VMs less.
const SYSTEMS: usize = 2;

/// A drain that is taken back ends within that time.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn parts_die_and_people_work_and_no_vm_notices() -> Result<()> {
    check_programs()?;
    let lab = Lab::up(LabOptions {
        name: "operations".to_owned(),
        ..LabOptions::default()
    })
    .await?;
    deploy(&lab).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    let from = judges::now();
    the_platform_dies_piece_by_piece(&lab).await?;
    a_host_is_drained(&lab).await?;
    // Where volumes and images lie evens out nothing: they come and go while it is looked whether all stays quiet.
    tokio::try_join!(load_is_evened_out(&lab), volumes_and_images(&lab))?;
    a_drain_is_taken_back(&lab).await?;
    hands::a_vm_is_moved_by_hand(&lab, "common", "internet-access").await?;
    isolation::networks_are_apart(&lab, "common", "internet-access").await?;
    fan::a_fan_stands_still_over_ipmi(&lab).await?;
    figures::metrics_are_told(&lab).await?;
    figures::what_plans_reckon_with_is_told(&lab).await?;
    management_is_cut(&lab).await?;
    let report = judges::judge_since(&lab.files, from)?;
    for (name, endpoint) in &report.endpoints {
        println!(
            "{name}: {} probes, {} failed, down {:.1} s",
            endpoint.probes,
            endpoint.failures,
            endpoint.downtime_seconds.max(0.0)
        );
    }
    ensure!(
        report
            .guests
            .values()
            .all(|witness| witness.boots.len() <= 1 && witness.uptime_went_back.is_none()),
        "a guest rebooted"
    );
    a_person_confirms(&lab).await?;
    whole_ledger_agrees(&lab, &Teller::new(true)).await?;
    judges::stop_prober(&lab.files)?;
    lab.down()
}

async fn deploy(lab: &Lab) -> Result<()> {
    let folder = guest::build()?;
    let values = guest::serve(&lab.files, &folder)?;
    let mut objects = declarations::for_lab(&declarations::folder(), &values)?;
    objects.retain(|object| {
        object["kind"] != "BusinessSystem"
            || ["tourism", "trade-union"]
                .contains(&object["metadata"]["name"].as_str().unwrap_or_default())
    });
    declarations::apply(&lab.client, &objects).await?;
    until(&lab.client, "both systems to be Ready", async || {
        all_well(&lab.client, SYSTEMS).await
    })
    .await
    .map(drop)
}

async fn volumes_and_images(lab: &Lab) -> Result<()> {
    disks::a_volume_grows_and_goes(lab).await?;
    disks::a_wrong_image_is_refused(lab).await
}

/// Agents, guards, libvirtd, the operator and the API server are killed; every QEMU process lives on
/// and nothing is assigned anew.
async fn the_platform_dies_piece_by_piece(lab: &Lab) -> Result<()> {
    let (assigned, running) = (standing(lab).await?, guests(lab)?);
    lab.fault(None, Fault::ApiDown)?;
    for host in lab.hosts()? {
        for fault in [Fault::AgentKill, Fault::GuardKill, Fault::LibvirtdKill] {
            lab.fault(Some(&host), fault)?;
        }
    }
    lab.fault(None, Fault::OperatorKill)?;
    // Longer than the time after which a silent host would be fenced, were the silence its own.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    ensure!(
        guests(lab)? == running,
        "QEMU processes changed while the API server was down"
    );
    lab.heal(None, Fault::ApiDown)?;
    until_well(&lab.client, SYSTEMS).await?;
    ensure!(guests(lab)? == running, "QEMU processes changed");
    ensure!(standing(lab).await? == assigned, "VMs were assigned anew");
    println!("API server, operator, agents, guards and libvirtd died: no VM noticed");
    Ok(())
}

/// `zyctl status | head -0` ends without a word, and not as if all were done.
fn a_reader_goes_away(lab: &Lab) -> Result<()> {
    let mut reader = zyctl_command(lab)?
        .arg("status")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("zyctl")?;
    drop(reader.stdout.take());
    let (succeeded, said) = Following(reader).ended("zyctl status to end", READ_WITHIN)?;
    ensure!(
        !succeeded && said.is_empty(),
        "zyctl without a reader: {said}"
    );
    Ok(())
}

/// The rehearsal changes nothing and says what the drain then does.
async fn a_host_is_drained(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let before = standing(lab).await?;
    a_reader_goes_away(lab)?;
    let text = zyctl(lab, &["drain", &host, "--dry-run", "-o", "json"])?;
    let plan: Value = serde_json::from_str(&text)?;
    ensure!(
        standing(lab).await? == before,
        "a rehearsal moved something"
    );
    let planned = plan["moves"].as_array().map_or(0, Vec::len);
    let here = on_host(&lab.client, &host).await?.len();
    ensure!(
        planned == here && plan["stuck"] == json!([]),
        "{here} VMs on {host}, the plan: {plan:#}"
    );
    zyctl(lab, &["drain", &host, "--reason", "new fans"])?;
    ensure!(
        on_host(&lab.client, &host).await?.is_empty(),
        "{host} is not empty"
    );
    ensure!(
        host_state(&lab.client, &host).await? == Some(HostState::Maintenance),
        "{host} is not in maintenance"
    );
    zyctl(lab, &["drain", &host, "--undo"])?;
    until_ready(&lab.client, &host).await?;
    println!("{host} was emptied of {here} VMs as rehearsed, and taken back");
    Ok(())
}

/// A drain that is taken back midway ends at once: whoever follows it is told, no move of it goes on, the
/// host is in service, and every VM runs, here or there.
async fn a_drain_is_taken_back(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let follower = zyctl_command(lab)?
        .args(["drain", &host])
        .stderr(Stdio::piped())
        .spawn()
        .context("zyctl")?;
    let follower = Following(follower);
    until(&lab.client, "a copy to be under way", async || {
        let moves = migrations(&lab.client).await?;
        let copies = |migration| phase(migration) == MigrationPhase::Running;
        Ok(moves.iter().any(copies))
    })
    .await?;
    zyctl(lab, &["drain", &host, "--undo"])?;
    let took = until(&lab.client, "the drain to end", async || {
        let api: Api<Host> = Api::all(lab.client.clone());
        let status = api.get(&host).await?.status.unwrap_or_default();
        let told = status.evacuation.map(|evacuation| evacuation.phase);
        let moves = migrations(&lab.client).await?;
        let ended = |migration: &VirtualMachineMigration| {
            let phases = [
                MigrationPhase::Succeeded,
                MigrationPhase::Cancelled,
                MigrationPhase::Failed,
            ];
            phases.contains(&phase(migration))
        };
        let moving = vms(&lab.client).await?.iter().any(|vm| {
            let status = vm.status.as_ref();
            status.is_some_and(|status| status.incoming.is_some())
        });
        Ok(told.as_deref() == Some("Cancelled") && moves.iter().all(ended) && !moving)
    })
    .await?;
    ensure!(took <= CANCELLED_WITHIN, "the drain took {took:?} to end");
    ensure!(
        host_state(&lab.client, &host).await? == Some(HostState::Ready),
        "{host} is not in service"
    );
    let follower = follower_ended(follower)?;
    ensure!(
        follower.contains("was taken back"),
        "zyctl drain: {follower}"
    );
    let cancelled = migrations(&lab.client).await?;
    let cancelled = cancelled
        .iter()
        .filter(|migration| phase(migration) == MigrationPhase::Cancelled);
    println!(
        "a drain was taken back midway: over within {:.1} s, {} moves cancelled",
        took.as_secs_f64(),
        cancelled.count()
    );
    until(&lab.client, "all to be well", async || {
        all_well(&lab.client, SYSTEMS).await
    })
    .await
    .map(drop)
}

fn phase(migration: &VirtualMachineMigration) -> MigrationPhase {
    let status = migration.status.as_ref();
    status.map(|status| status.phase).unwrap_or_default()
}

/// What a command that follows something said when it ended, which it must do by itself.
fn follower_ended(follower: Following) -> Result<String> {
    let what = "zyctl drain to end with a drain that was taken back";
    Ok(follower.ended(what, CANCELLED_WITHIN)?.1)
}

/// The host's Lease stops and its VMs answer: it is not fenced, and nothing is placed there.
async fn management_is_cut(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let before = standing(lab).await?;
    let screen = hands::Screen::watch(lab)?;
    screen.shows(lab, &host, &["Ready"]).await?;
    lab.fault(Some(&host), Fault::ManagementCut)?;
    until(&lab.client, "the silence to be noticed", async || {
        Ok(host_state(&lab.client, &host).await? != Some(HostState::Ready))
    })
    .await?;
    let silent = ["Suspect", "Unreachable"];
    screen.shows(lab, &host, &silent).await?;
    drop(screen);
    // Well past the time-out after which a dead host would be fenced.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    ensure!(
        lab::host::is_on(&lab.files, &host),
        "{host} was forced off though its VMs answer"
    );
    ensure!(standing(lab).await? == before, "VMs were assigned anew");
    lab.heal(Some(&host), Fault::ManagementCut)?;
    until_ready(&lab.client, &host).await?;
    ensure!(standing(lab).await? == before, "VMs were assigned anew");
    println!("the management network of {host} was cut and healed: nobody was fenced");
    Ok(())
}

/// Power and BMC die together: nothing restarts until a named person confirms.
async fn a_person_confirms(lab: &Lab) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let before = standing(lab).await?;
    let answer = zyctl(lab, &["what-if", "host-down", &host, "-o", "json"])?;
    let foretold = foretold(lab, &host, &answer).await?;
    lab.fault(Some(&host), Fault::BmcDead)?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    until(&lab.client, "a person to be asked", async || {
        let api: Api<Host> = Api::all(lab.client.clone());
        let status = api.get(&host).await?.status.unwrap_or_default();
        Ok(status.state != Some(HostState::Ready)
            && status
                .state_reason
                .is_some_and(|reason| reason.contains("confirm-dead")))
    })
    .await?;
    ensure!(
        standing(lab).await? == before,
        "VMs were assigned anew without a proof"
    );
    zyctl(
        lab,
        &[
            "host",
            "confirm-dead",
            &host,
            "--reason",
            "power cord pulled",
            "--confirm",
            &host,
        ],
    )?;
    until(&lab.client, "its VMs to run elsewhere", async || {
        Ok(on_host(&lab.client, &host).await?.is_empty() && all_well(&lab.client, SYSTEMS).await?)
    })
    .await?;
    foretold.came_true(lab).await?;
    let api: Api<Host> = Api::all(lab.client.clone());
    let clear = json!({"spec": {"confirmedOff": null}});
    api.patch(&host, &PatchParams::default(), &Patch::Merge(&clear))
        .await?;
    println!("{host} and its BMC died: its VMs waited for a person's word");
    Ok(())
}
