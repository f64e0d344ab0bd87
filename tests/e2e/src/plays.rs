//! Stories of failover that are long: several of them are played one after the other on one lab, each from a
//! site at rest. `make drills` plays all; `STORIES=18b,19` plays some. What fails is told in the end, with the
//! word of the prober and of the disk ledger, which share no code with the product, on the whole.

use anyhow::{Context as _, Result, ensure};
use judge::report::{Availability, Window};
use kube::ResourceExt;
use lab::{
    Fault, Lab, LabOptions, clock, controlplane, declarations, fault, judges, loss, machine, rest,
    root_disk,
};

use crate::standing::{nothing_was_lost, processes_of};
use crate::story::check_programs;
use crate::watch::{full_name, runs, until, vms};

/// A guest answers that has done so within the last so many nanoseconds: several times its probes' interval.
const ANSWERED_SINCE: u64 = 2_000_000_000;

/// The systems of such a lab: four VMs, two of them with a data disk.
pub const SYSTEMS: [&str; 2] = ["tourism", "trade-union"];

/// What `tests/moves.rs` plays, in this order.
pub const MOVES: [&str; 13] = [
    "18b", "18c", "18d", "18e", "18f", "18g", "19", "22", "36", "39", "40", "51", "59",
];
/// What `tests/people.rs` plays, in this order.
pub const PEOPLE: [&str; 9] = ["20", "23", "24", "25", "31", "34", "37", "46", "49"];
/// What `tests/whole_site.rs` plays, in this order; the guards are armed for the last two.
pub const WHOLE_SITE: [&str; 8] = ["14", "16", "17", "30", "50", "60", "41", "53"];
/// What `tests/identity.rs` plays, in this order.
pub const IDENTITY: [&str; 5] = ["15", "33", "44", "45", "56"];
/// What `tests/starts.rs` plays, in this order; the guards are armed for the last one.
pub const STARTS: [&str; 5] = ["26", "42", "52", "55", "54"];
/// What `tests/losses.rs` plays, in this order; the guards are armed for the last one.
pub const LOSSES: [&str; 4] = ["35", "58", "9", "29"];
/// Every such program and what it plays.
pub const PROGRAMS: [(&str, &[&str]); 6] = [
    ("moves", &MOVES),
    ("people", &PEOPLE),
    ("whole_site", &WHOLE_SITE),
    ("identity", &IDENTITY),
    ("starts", &STARTS),
    ("losses", &LOSSES),
];

/// Those of a program's stories that `STORIES` names, or all, in the order in which they are played.
///
/// # Errors
/// One is named that no program plays.
pub fn chosen(stories: &[&'static str]) -> Result<Vec<&'static str>> {
    let Ok(asked) = std::env::var("STORIES") else {
        return Ok(stories.to_vec());
    };
    let all = PROGRAMS.iter().flat_map(|(_, played)| *played);
    let known: Vec<&str> = all.copied().collect();
    for name in asked.split(',') {
        ensure!(
            known.contains(&name),
            "STORIES={asked}: {name:?} is none of {}",
            known.join(", ")
        );
    }
    let is_asked = |story: &&&str| asked.split(',').any(|name| name == **story);
    Ok(stories.iter().filter(is_asked).copied().collect())
}

/// Brings a lab up with both systems, at rest and probed.
///
/// # Errors
/// What did not come up.
async fn site(options: LabOptions) -> Result<Lab> {
    check_programs()?;
    let lab = Lab::up(options).await?;
    declarations::deploy(&lab, &SYSTEMS.map(str::to_owned)).await?;
    rest::settle(&lab).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    all_answer(&lab).await?;
    Ok(lab)
}

/// Plays a program's stories, or those that are asked for, on one lab, each from rest. One that fails does not end
/// the others; a site that finds no rest, once what a story left broken is mended, does.
///
/// # Errors
/// What failed, story by story, or what was lost or doubled in all of them.
pub async fn play_each(
    options: LabOptions,
    stories: &[&'static str],
    mut play: impl AsyncFnMut(&Lab, &str) -> Result<()>,
) -> Result<()> {
    let stories = chosen(stories)?;
    if stories.is_empty() {
        return Ok(());
    }
    let lab = site(options).await?;
    let mut failed = Vec::new();
    for story in stories {
        println!("story {story}");
        if let Err(error) = play(&lab, story).await {
            println!("story {story} failed: {error:#}");
            failed.push(format!("story {story}: {error:#}"));
        }
        mend(&lab)?;
        rest::settle(&lab)
            .await
            .with_context(|| format!("after story {story}; failed: {failed:?}"))?;
        all_answer(&lab).await?;
        if let Err(error) = each_runs_once(&lab).await {
            failed.push(format!("after story {story}: {error:#}"));
        }
    }
    nothing_was_lost(&lab).await?;
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    lab.down()
}

/// Waits until every guest that is probed answers, not one of each tier only: a host whose guests still boot shows
/// no life beside its Lease.
///
/// # Errors
/// One does not, or what was probed can not be read.
pub async fn all_answer(lab: &Lab) -> Result<()> {
    until(&lab.client, "every guest to answer", async || {
        let to = judges::now();
        let from = to.saturating_sub(ANSWERED_SINCE);
        let report = judges::judge_probes(&lab.files, Window { from, to })?;
        let answers = |replica: &Availability| replica.probes > replica.failures;
        Ok(!report.replicas.is_empty() && report.replicas.values().all(answers))
    })
    .await
    .map(drop)
}

/// Ends what a story, above all one that failed, has left cut, frozen or stopped. Hosts that are off are switched
/// on, and quarantined ones cleared, when the site is settled.
fn mend(lab: &Lab) -> Result<()> {
    lab.heal(None, Fault::OperatorPause)?;
    for host in lab.hosts()? {
        lab.heal(Some(&host), Fault::ManagementCut)?;
        if lab::host::is_on(&lab.files, &host) {
            lab.heal(Some(&host), Fault::KernelHang)?;
        }
        if !lab::host::processes(&lab.files, &host, "bindfs")?.is_empty() {
            lab.heal(Some(&host), Fault::StorageHang)?;
            lab.heal(Some(&host), Fault::StorageCut)?;
        }
        if lab.files.host(&host).join("stopped/agent").exists() {
            lab.heal(Some(&host), Fault::AgentStop)?;
        }
        mend_inside(lab, &host)?;
    }
    controlplane::fill(&lab.files, false)?;
    for clone in machine::clones(&lab.files)? {
        machine::remove_clone(&lab.files, &clone)?;
    }
    Ok(())
}

/// What is no fault by name: a clock, lost words, a root disk, a libvirtd that stays away.
fn mend_inside(lab: &Lab, host: &str) -> Result<()> {
    let files = &lab.files;
    if clock::file(files, host).exists() {
        clock::set(files, host, 0)?;
    }
    loss::end(files, host)?;
    if lab::host::is_on(files, host) {
        root_disk::set_read_only(files, host, false)?;
    }
    fault::let_service_run(files, host, "libvirtd")
}

/// Every VM that runs has one process, on whatever host.
async fn each_runs_once(lab: &Lab) -> Result<()> {
    for vm in vms(&lab.client).await?.iter().filter(|vm| runs(vm)) {
        let processes = processes_of(lab, &vm.uid().unwrap_or_default())?;
        ensure!(
            processes.len() == 1,
            "{} has the processes {processes:?}",
            full_name(vm)
        );
    }
    Ok(())
}
