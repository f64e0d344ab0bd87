//! Volumes: gives jobs to hosts and shows how they went.

mod room;

use std::sync::{Arc, Mutex, PoisonError};

use api::names::FINALIZER;
use api::{Host, ReclaimPolicy, Volume, VolumeJob, VolumeOperation, VolumeReport};
use kube::ResourceExt;
use model::{Assignment, Bytes, Claim, ClaimHolder, Epoch};
use serde_json::json;

use super::hosts;
use super::images::able_hosts;
use crate::runtime::Context;
use crate::writer::logged;
use crate::{door, merge};
use room::{Rooms, Wait};

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    let rooms = Mutex::new(Rooms::of(context).await);
    let rooms = &rooms;
    let volumes = context.stores.volumes.state();
    let work = volumes.into_iter().map(|volume| async move {
        if context.writer.settled(volume.as_ref()) {
            one(context, rooms, &volume).await;
        }
    });
    futures::future::join_all(work).await;
}

async fn one(context: &Context, rooms: &Mutex<Rooms>, volume: &Volume) {
    let name = volume.name_any();
    if volume.metadata.deletion_timestamp.is_some() {
        // Its file goes when no other job is at work on it any more.
        return if waits_for_job(volume) {
            follow(context, volume).await;
        } else {
            delete(context, rooms, volume).await;
        };
    }
    if !volume
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        let mut finalizers = volume.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        return logged(
            "finalizer",
            &name,
            context
                .writer
                .metadata(volume, json!({"finalizers": finalizers}))
                .await,
        );
    }
    let status = volume.status.clone().unwrap_or_default();
    let size = Bytes::parse(&volume.spec.size)
        .map_or(0, |bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX));
    match &status.job {
        Some(_) => follow(context, volume).await,
        None if status.phase.as_deref() == Some("Ready") => {
            let grown = status
                .reported
                .and_then(|report| report.size_bytes)
                .is_some_and(|present| present < size);
            if grown && status.claim.is_none() {
                give(context, rooms, volume, VolumeOperation::Resize, size).await;
            } else if !grown && status.message.is_some() {
                // A growth that could not be had was taken back.
                let patch = json!({"message": null});
                let result = context.writer.swap_status(volume, patch).await;
                logged("volume", &name, result);
            }
        }
        None => give(context, rooms, volume, VolumeOperation::Create, size).await,
    }
}

/// Gives a job to a host that reaches the pool, with the claim that goes with it.
async fn give(
    context: &Context,
    rooms: &Mutex<Rooms>,
    volume: &Volume,
    operation: VolumeOperation,
    size: i64,
) {
    let (name, status) = (volume.name_any(), volume.status.clone().unwrap_or_default());
    let pools = context.stores.storage_pools.state();
    let Some(pool) = pools
        .iter()
        .find(|pool| pool.name_any() == volume.spec.pool)
    else {
        return show(
            context,
            volume,
            waiting_phase(operation),
            &format!(
                "spec.pool: StoragePool {} does not exist; correct the name or create it",
                volume.spec.pool
            ),
        )
        .await;
    };
    if let Some(image) = &volume.spec.image {
        let images = context.stores.images.state();
        let Some(image_object) = images.iter().find(|known| known.name_any() == *image) else {
            return show(
                context,
                volume,
                waiting_phase(operation),
                &format!("spec.image: Image {image} does not exist; correct the name or create it"),
            )
            .await;
        };
        let there = image_object.status.as_ref().is_some_and(|status| {
            status
                .reports
                .iter()
                .any(|report| report.pool == volume.spec.pool && report.phase == "Ready")
        });
        if operation == VolumeOperation::Create && !there {
            return show(
                context,
                volume,
                waiting_phase(operation),
                &format!("waits for image {image} on pool {}", volume.spec.pool),
            )
            .await;
        }
    }
    let able = able_hosts(context, &volume.spec.pool);
    let host = match operation {
        VolumeOperation::Create => {
            let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.choose(context, volume, pool, &able)
        }
        VolumeOperation::Resize => {
            let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.grow(volume, pool).map(|()| holder(&able, volume))
        }
        VolumeOperation::Delete => Ok(holder(&able, volume)),
    };
    let host = match host {
        Ok(host) => host,
        Err(Wait::Unsettled) => return,
        Err(Wait::Told(why)) => return show(context, volume, waiting_phase(operation), &why).await,
    };
    let boot_id = {
        let policy = door::policy(&context.stores.policy());
        let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        watch.placeable(&host.as_str().into(), &policy)
    };
    let Ok(boot_id) = boot_id else {
        let why = no_host(&volume.spec.pool);
        return show(context, volume, waiting_phase(operation), &why).await;
    };
    let assignment = Assignment {
        host: host.as_str().into(),
        boot_id,
        epoch: Epoch(status.last_job + 1),
    };
    let claim = Claim {
        fleet: context.fleet.clone(),
        holder: ClaimHolder::Job,
        uid: volume.uid().unwrap_or_default(),
        assignment: assignment.clone(),
    };
    let mut job = json!({"operation": operation, "sizeBytes": size});
    merge::add(&mut job, json!(assignment));
    let mut patch = json!({"job": job, "lastJob": status.last_job + 1, "claim": claim, "phase": phase_of(operation), "message": format!("on host {host}")});
    if !pool.spec.shared {
        patch["pinnedHost"] = json!(host);
    }
    let given = match hosts::hold(context, &assignment.host).await {
        Ok(Some(host)) => host.write(context.writer.swap_status(volume, patch)).await,
        // It goes: another is chosen in a moment.
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    logged("volume job", &name, given);
}

/// Why nothing is done on a pool just now.
fn no_host(pool: &str) -> String {
    format!(
        "no host that takes new work reaches pool {pool}; why each does not is told by its condition Schedulable (zyctl status) and by status.reported.storagePools"
    )
}

fn phase_of(operation: VolumeOperation) -> &'static str {
    match operation {
        VolumeOperation::Create => "Creating",
        VolumeOperation::Resize => "Resizing",
        VolumeOperation::Delete => "Deleting",
    }
}

/// What a volume is while an operation on it waits: one that can not grow just now is as good as ever.
fn waiting_phase(operation: VolumeOperation) -> &'static str {
    match operation {
        VolumeOperation::Create => "Pending",
        VolumeOperation::Resize => "Ready",
        VolumeOperation::Delete => "Deleting",
    }
}

/// A host that can work on a volume that is there; empty when none can.
fn holder(able: &[String], volume: &Volume) -> String {
    let status = volume.status.as_ref();
    let host = match status.and_then(|status| status.pinned_host.as_ref()) {
        Some(pinned) => able.iter().find(|host| *host == pinned).cloned(),
        None => spread(able, volume),
    };
    host.unwrap_or_default()
}

/// Spreads jobs over hosts by the volume's uid, the same way every time.
fn spread(able: &[String], volume: &Volume) -> Option<String> {
    let digits: usize = volume
        .uid()
        .unwrap_or_default()
        .bytes()
        .map(usize::from)
        .sum();
    able.get(digits % able.len().max(1)).cloned()
}

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is under way.
    UnderWay,
    /// It is done.
    Done,
    /// It failed, and why.
    Failed(String),
    /// It ended and will never be begun again: it is given anew, under a new number.
    Over(&'static str),
}

/// From the report about this very job, and the proof that its host is dead.
fn outcome(job: &VolumeJob, report: Option<&VolumeReport>, host_died: bool) -> Outcome {
    let report = report.filter(|report| report.assignment == job.assignment);
    match report.map(|report| (report.phase.as_str(), report.message.as_deref())) {
        Some(("Done", _)) => Outcome::Done,
        Some(("Failed", message)) => Outcome::Failed(message.unwrap_or_default().to_owned()),
        Some(("Closed", _)) => Outcome::Over("its job was interrupted"),
        _ if host_died => Outcome::Over("the host of its job died"),
        _ => Outcome::UnderWay,
    }
}

/// The job of a volume that may be at work, as far as its host has said: one whose host died counts until that is
/// proven.
pub fn unfinished(volume: &Volume) -> Option<&VolumeJob> {
    let status = volume.status.as_ref()?;
    let job = status.job.as_ref()?;
    (outcome(job, status.reported.as_ref(), false) == Outcome::UnderWay).then_some(job)
}

/// What is told of a job under way: where it is, and why it may not be begun there. It is not taken back:
/// whether it was begun nobody else knows.
fn under_way(job: &VolumeJob, host: Option<&Host>) -> String {
    let Assignment {
        host: name,
        boot_id,
        ..
    } = &job.assignment;
    let reported = host.and_then(|host| host.reported());
    let forbidden = reported
        .filter(|reported| reported.incarnation.boot_id == boot_id.as_str())
        .and_then(|reported| reported.starts_forbidden.as_ref());
    match forbidden {
        Some(why) => format!(
            "on host {name}, which starts nothing (a job that it had not begun waits there): {why}"
        ),
        None => format!("on host {name}"),
    }
}

/// Follows the job: its claim goes with its end, or with the proof that its host is dead.
async fn follow(context: &Context, volume: &Volume) {
    let status = volume.status.clone().unwrap_or_default();
    let Some(job) = &status.job else { return };
    let host_died = {
        let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        watch.sight(&job.assignment).stop_proof.is_some()
    };
    let deleted = volume.metadata.deletion_timestamp.is_some();
    let patch = match outcome(job, status.reported.as_ref(), host_died) {
        Outcome::UnderWay => {
            let hosts = context.stores.hosts.state();
            let host = hosts
                .iter()
                .find(|host| host.name_any() == job.assignment.host.as_str());
            let message = under_way(job, host.map(Arc::as_ref));
            return show(context, volume, phase_of(job.operation), &message).await;
        }
        Outcome::Failed(message) if !deleted || job.operation == VolumeOperation::Delete => {
            return show(context, volume, "Failed", &message).await;
        }
        // What failed on a volume that goes is no matter any more.
        Outcome::Failed(_) | Outcome::Done => {
            json!({"phase": "Ready", "message": null, "job": null, "claim": null})
        }
        Outcome::Over(why) => {
            json!({"phase": waiting_phase(job.operation), "message": why, "job": null, "claim": null})
        }
    };
    logged(
        "volume",
        &volume.name_any(),
        context.writer.swap_status(volume, patch).await,
    );
}

/// Whether a volume that is to go has a job that must end first.
fn waits_for_job(volume: &Volume) -> bool {
    let status = volume.status.as_ref();
    let job = status.and_then(|status| status.job.as_ref());
    volume.spec.reclaim_policy != ReclaimPolicy::Retain
        && job.is_some_and(|job| !is_deleted(job, status.and_then(|it| it.reported.as_ref())))
}

/// Whether the agent says that this job has deleted the file.
fn is_deleted(job: &VolumeJob, report: Option<&VolumeReport>) -> bool {
    job.operation == VolumeOperation::Delete && outcome(job, report, false) == Outcome::Done
}

async fn delete(context: &Context, rooms: &Mutex<Rooms>, volume: &Volume) {
    let (name, status) = (volume.name_any(), volume.status.clone().unwrap_or_default());
    let users: Vec<String> = context
        .stores
        .vms
        .state()
        .iter()
        .filter(|vm| {
            vm.namespace() == volume.namespace()
                && vm.spec.disks.iter().any(|disk| disk.volume == name)
        })
        .map(|vm| vm.name_any())
        .collect();
    if let Some(user) = users.first() {
        return show(
            context,
            volume,
            "Deleting",
            &format!("VM {user} names it; delete that VM first"),
        )
        .await;
    }
    let done = status
        .job
        .as_ref()
        .is_some_and(|job| is_deleted(job, status.reported.as_ref()));
    let never_made = status.reported.is_none() && status.job.is_none();
    if volume.spec.reclaim_policy == ReclaimPolicy::Retain || done || never_made {
        let finalizers: Vec<&String> = volume
            .finalizers()
            .iter()
            .filter(|finalizer| *finalizer != FINALIZER)
            .collect();
        return logged(
            "finalizer",
            &name,
            context
                .writer
                .metadata(volume, json!({"finalizers": finalizers}))
                .await,
        );
    }
    if status.job.is_none() {
        give(context, rooms, volume, VolumeOperation::Delete, 0).await;
    }
}

async fn show(context: &Context, volume: &Volume, phase: &str, message: &str) {
    let status = volume.status.clone().unwrap_or_default();
    if status.phase.as_deref() != Some(phase) || status.message.as_deref() != Some(message) {
        logged(
            "volume",
            &volume.name_any(),
            context
                .writer
                .swap_status(volume, json!({"phase": phase, "message": message}))
                .await,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_goes_once_no_other_job_is_at_work_on_it() {
        let volume = |operation: &str, phase: &str, reclaim: &str| -> Volume {
            serde_json::from_value(json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume", "metadata": {"name": "v"},
                "spec": {"pool": "p", "size": "1Gi", "reclaimPolicy": reclaim},
                "status": {
                    "job": {"host": "h1", "bootId": "b1", "epoch": 2, "operation": operation, "sizeBytes": 1},
                    "reported": {"assignment": {"host": "h1", "bootId": "b1", "epoch": 2}, "phase": phase},
                },
            }))
            .expect("a volume")
        };
        for (operation, phase, waits) in [
            ("Create", "Working", true),
            ("Create", "Done", true),
            ("Resize", "Failed", true),
            ("Delete", "Working", true),
            // Interrupted: it is followed, and given anew.
            ("Delete", "Closed", true),
            ("Delete", "Done", false),
        ] {
            let told = format!("{operation} {phase}");
            let waits_now = waits_for_job(&volume(operation, phase, "Delete"));
            assert_eq!(waits_now, waits, "{told}");
            assert!(
                !waits_for_job(&volume(operation, phase, "Retain")),
                "{told}"
            );
        }
    }

    #[test]
    fn a_job_on_a_host_that_starts_nothing_says_so() {
        let job: VolumeJob = serde_json::from_value(json!({
            "host": "h1", "bootId": "b1", "epoch": 2, "operation": "Create", "sizeBytes": 1,
        }))
        .expect("a job");
        let host = |boot: &str, forbidden: Option<&str>| -> Host {
            serde_json::from_value(json!({
                "metadata": {"name": "h1"}, "spec": {"pool": "p", "managementAddress": "10.0.0.1"},
                "status": {"reported": {
                    "incarnation": {"bootId": boot, "systemUuid": "s"},
                    "capacity": {"cpu": 1, "memory": "1Gi"},
                    "architecture": "x86_64", "cpuModel": "m", "domainType": "kvm",
                    "versions": {"agent": "1", "libvirt": "1", "qemu": "1"},
                    "startsForbidden": forbidden,
                }},
            }))
            .expect("a host")
        };
        let told = under_way(&job, Some(&host("b1", Some("the ledger was lost"))));
        assert!(
            told.starts_with("on host h1, which starts nothing"),
            "{told}"
        );
        assert!(told.ends_with(": the ledger was lost"), "{told}");
        for other in [host("b1", None), host("b2", Some("the ledger was lost"))] {
            assert_eq!(under_way(&job, Some(&other)), "on host h1");
        }
        assert_eq!(under_way(&job, None), "on host h1");
    }

    #[test]
    fn an_interrupted_job_is_given_anew_and_a_failed_one_is_shown() {
        let job: VolumeJob = serde_json::from_value(json!({
            "host": "h1", "bootId": "b1", "epoch": 2, "operation": "Create", "sizeBytes": 1,
        }))
        .expect("a job");
        let report = |epoch: i64, phase: &str| -> VolumeReport {
            serde_json::from_value(json!({
                "assignment": {"host": "h1", "bootId": "b1", "epoch": epoch},
                "phase": phase, "message": "m",
            }))
            .expect("a report")
        };
        let of = |epoch, phase, died| outcome(&job, Some(&report(epoch, phase)), died);
        assert_eq!(outcome(&job, None, false), Outcome::UnderWay);
        assert_eq!(of(2, "Working", false), Outcome::UnderWay);
        assert_eq!(of(2, "Done", true), Outcome::Done);
        assert_eq!(of(2, "Failed", false), Outcome::Failed("m".to_owned()));
        assert!(matches!(of(2, "Closed", false), Outcome::Over(_)));
        assert!(matches!(outcome(&job, None, true), Outcome::Over(_)));
        for phase in ["Done", "Failed", "Closed"] {
            assert_eq!(of(1, phase, false), Outcome::UnderWay, "a former job's");
        }
    }
}
