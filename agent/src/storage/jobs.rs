//! Finds what the operator gave to this host to do on volumes, does it, and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use api::{Volume, VolumeJob, VolumeOperation, VolumeReport};
use kube::Api;
use kube::api::{Patch, PatchParams};
use model::{Assignment, Claim, ClaimHolder};
use serde_json::json;

use super::folder::PoolFolder;
use super::volumes::VolumeFile;
use super::{claims, format_name, image_file, volumes};
use crate::agent::{Context, in_task};
use crate::guard::kill::kill_disk_tools;
use crate::ledger::{Entry, Ledger};

/// Begins all work that is due.
pub fn turn(context: &Arc<Context>, busy: &Arc<Mutex<BTreeSet<String>>>) {
    let volumes = context.view.volumes.state();
    let uids = volumes
        .iter()
        .filter_map(|volume| volume.metadata.uid.clone());
    context.jobs.forget(&uids.collect());
    for volume in volumes {
        let status = volume.status.clone().unwrap_or_default();
        let Some(job) = status.job else { continue };
        let done = status
            .reported
            .is_some_and(|report| report.assignment == job.assignment && report.phase != "Working");
        let mine = job.assignment.host == context.host && job.assignment.boot_id == context.boot_id;
        if mine && !done {
            let (context, key) = (
                context.clone(),
                volume.metadata.uid.clone().unwrap_or_default(),
            );
            in_task(
                busy,
                key,
                async move { work(&context, &volume, &job).await },
            );
        }
    }
}

/// What this incarnation did with each volume job: as for VMs, a job is begun once and never again.
#[derive(Debug)]
pub struct Jobs {
    ledger: Ledger,
    /// What became of jobs that ended in this run, by the volume's uid: told until the cache shows it.
    ended: Mutex<BTreeMap<String, VolumeReport>>,
}

impl Jobs {
    /// The jobs of this boot.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            ledger: Ledger::of_jobs(run_dir),
            ended: Mutex::default(),
        }
    }

    fn all_ended(&self) -> MutexGuard<'_, BTreeMap<String, VolumeReport>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of a job, if it ended in this run.
    fn ended(&self, uid: &str, job: &Assignment) -> Option<VolumeReport> {
        let ended = self.all_ended();
        let report = ended.get(uid).filter(|report| report.assignment == *job);
        report.cloned()
    }

    fn keep(&self, uid: &str, report: &VolumeReport) {
        self.all_ended().insert(uid.to_owned(), report.clone());
    }

    /// Forgets volumes that have no job here any more.
    fn forget(&self, jobs: &BTreeSet<String>) {
        self.all_ended().retain(|uid, _| jobs.contains(uid));
    }
}

async fn work(context: &Arc<Context>, volume: &Volume, job: &VolumeJob) {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let uid = volume.metadata.uid.clone().unwrap_or_default();
    let report = match context.jobs.ended(&uid, &job.assignment) {
        // It did not get through, or the cache does not show it yet.
        Some(report) => report,
        None => match once(context, volume, &uid, job).await {
            Ok(report) => {
                context.jobs.keep(&uid, &report);
                report
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    volume = name,
                    error,
                    "the job is neither begun nor over yet"
                );
                return;
            }
        },
    };
    let namespace = volume.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Volume> = Api::namespaced(context.client.clone(), &namespace);
    // Every field is named, also what is gone: a merge keeps what it does not name.
    let patch = json!({"status": {"reported": report}});
    let sent = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    if let Err(error) = sent {
        tracing::warn!(volume = name, %error, "the job's report is tried again");
    }
}

/// Whether a job of this number was begun here, or a later one was: its work is never done again,
/// as nobody knows how far it came, and what became of the file since.
fn was_begun(entry: &Entry, epoch: i64) -> bool {
    entry
        .epochs
        .last_key_value()
        .is_some_and(|(highest, _)| *highest >= epoch)
}

/// The report of a job that has changed nothing yet: what earlier jobs left of the file stands.
fn report_of(fresh: &Volume, job: &VolumeJob) -> VolumeReport {
    let before = fresh.status.as_ref();
    let before = before.and_then(|status| status.reported.clone());
    let (file, size_bytes, image_digest) = before.map_or((None, None, None), |before| {
        (before.file, before.size_bytes, before.image_digest)
    });
    VolumeReport {
        assignment: job.assignment.clone(),
        phase: "Done".to_owned(),
        file,
        size_bytes,
        image_digest,
        message: None,
    }
}

/// What a job that is done left of the file; none: nothing. One that grew stays made from its image.
fn done(report: &mut VolumeReport, file: Option<VolumeFile>, digest: Option<String>) {
    report.image_digest = file
        .as_ref()
        .and_then(|_| digest.or(report.image_digest.take()));
    report.size_bytes = file
        .as_ref()
        .and_then(|file| i64::try_from(file.size_bytes).ok());
    report.file = file.map(|file| relative(&file.path));
}

/// Does a job, if it was never begun, and says what became of it.
///
/// # Errors
/// It was not begun, or what was begun may not have ended: it is looked at again at the next turn.
async fn once(
    context: &Arc<Context>,
    volume: &Volume,
    uid: &str,
    job: &VolumeJob,
) -> Result<VolumeReport> {
    let epoch = job.assignment.epoch.0;
    let ledger = &context.jobs.ledger;
    let (fresh, claim) = permit(context, volume, uid, job).await?;
    let mut report = report_of(&fresh, job);
    if was_begun(&ledger.entry(uid)?, epoch) {
        end_disk_tools(uid).await?;
        ledger.close(uid, epoch)?;
        report.phase = "Closed".to_owned();
        report.message = Some("interrupted; its number is closed here".to_owned());
        return Ok(report);
    }
    context.must_start()?;
    ledger.take(uid, epoch, context.guard_firings)?;
    match carry_out(context, &fresh, job, claim).await {
        Ok((file, digest)) => done(&mut report, file, digest),
        Err(error) => {
            if context.is_over() {
                bail!("the guard has fired, so this incarnation of the host is over: {error:#}");
            }
            let name = fresh.metadata.name.unwrap_or_default();
            tracing::error!(volume = name, error = format!("{error:#}"), "job failed");
            // One that was given up for its time is killed, and not waited for.
            let ended = end_disk_tools(uid).await;
            ended.with_context(|| format!("the job failed: {error:#}"))?;
            report.phase = "Failed".to_owned();
            report.message = Some(format!("{error:#}"));
        }
    }
    ledger.close(uid, epoch)?;
    Ok(report)
}

/// How long a disk tool that was killed has to end its input and output.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(100);

/// Ends what is at work on a volume: a disk tool outlives an agent that is killed, and who hears that the job is over may give
/// the file to a VM.
///
/// # Errors
/// Something is left, or nobody knows.
async fn end_disk_tools(uid: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let uid = uid.to_owned();
        let left = tokio::task::spawn_blocking(move || kill_disk_tools(&uid, Path::new("/proc")));
        let left = left.await?.context("/proc: disk tools")?;
        if left.is_empty() {
            return Ok(());
        }
        // What was killed ends its input and output first.
        if begin.elapsed() >= ENDS_WITHIN {
            bail!("what was begun may still write: {}", left.join("; "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A quorum read that still shows the job, with its claim.
///
/// # Errors
/// The API can not be reached, this host is frozen, or the job may not be done.
async fn permit(
    context: &Context,
    volume: &Volume,
    uid: &str,
    job: &VolumeJob,
) -> Result<(Volume, Claim)> {
    let namespace = volume.metadata.namespace.clone().unwrap_or_default();
    let name = volume.metadata.name.clone().unwrap_or_default();
    let api: Api<Volume> = Api::namespaced(context.client.clone(), &namespace);
    let fresh = context.freezer.read(&api, &name).await?;
    let fresh = fresh.context("the volume is gone")?;
    let claim = claim_for(&fresh, uid, job)?;
    Ok((fresh, claim))
}

/// The claim of exactly this job on exactly this volume.
fn claim_for(fresh: &Volume, uid: &str, job: &VolumeJob) -> Result<Claim> {
    if fresh.metadata.uid.as_deref() != Some(uid) {
        bail!("another volume bears its name now");
    }
    let status = fresh.status.clone().unwrap_or_default();
    if status.job.as_ref() != Some(job) {
        bail!("status.job: the job was taken back");
    }
    let mut reported = status.reported.iter();
    if reported.any(|report| report.assignment == job.assignment && report.phase != "Working") {
        bail!("status.reported: the job is over; the cache does not show it yet");
    }
    let claim = status.claim.context("status.claim: the job has no claim")?;
    let own =
        claim.holder == ClaimHolder::Job && claim.uid == uid && claim.assignment == job.assignment;
    if !own {
        bail!(
            "status.claim: it is held by {:?} {} at epoch {}, not by job {}",
            claim.holder,
            claim.uid,
            claim.assignment.epoch.0,
            job.assignment.epoch.0
        );
    }
    Ok(claim)
}

/// A volume's file below its pool's folder, as every host sees it.
fn relative(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    format!("volumes/{name}")
}

async fn carry_out(
    context: &Arc<Context>,
    volume: &Volume,
    job: &VolumeJob,
    claim: Claim,
) -> Result<(Option<VolumeFile>, Option<String>)> {
    let pool = context
        .view
        .pool(&volume.spec.pool)
        .with_context(|| format!("spec.pool: StoragePool {} does not exist", volume.spec.pool))?;
    let beside = PoolFolder::of(&pool);
    let folder = Path::new(&pool.spec.path);
    let uid = volume.metadata.uid.as_deref().unwrap_or_default();
    let (format, size) = (
        volume.spec.format,
        u64::try_from(job.size_bytes).unwrap_or(0),
    );
    let epoch = job.assignment.epoch.0;
    let deletes = job.operation == VolumeOperation::Delete;
    let beside = (beside, uid.to_owned());
    tokio::task::spawn_blocking(move || {
        if deletes {
            claims::remove(&beside.0, &beside.1, &claim.fleet)
        } else {
            claims::write(&beside.0, &beside.1, &claim)
        }
    })
    .await??;
    // Refused if the guard has fired since: what it killed is not begun again under this number.
    context.jobs.ledger.start(uid, epoch)?;
    match job.operation {
        VolumeOperation::Delete => {
            volumes::delete(folder, uid, format).await?;
            Ok((None, None))
        }
        VolumeOperation::Resize => Ok((
            Some(volumes::resize(folder, uid, format, size).await?),
            None,
        )),
        VolumeOperation::Create => match &volume.spec.image {
            None => Ok((
                Some(volumes::create(folder, uid, format, size, None, epoch).await?),
                None,
            )),
            Some(name) => {
                let image = context
                    .view
                    .image(name)
                    .with_context(|| format!("spec.image: Image {name} does not exist"))?;
                let (file, digest) = (
                    image_file(folder, &image.spec.disk.sha256),
                    image.spec.disk.sha256.clone(),
                );
                let checking = (context.clone(), file.clone(), digest.clone());
                tokio::task::spawn_blocking(move || {
                    checking.0.checked.check(&checking.1, &checking.2)
                })
                .await??;
                let from = Some((file.as_path(), format_name(image.spec.format)));
                Ok((
                    Some(volumes::create(folder, uid, format, size, from, epoch).await?),
                    Some(digest),
                ))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::files::Firings;
    use failover::agent::ledger::EpochState;
    use model::Epoch;

    fn assignment(epoch: i64) -> Assignment {
        Assignment {
            host: "h1".into(),
            boot_id: "b1".into(),
            epoch: Epoch(epoch),
        }
    }

    fn job(epoch: i64) -> VolumeJob {
        VolumeJob {
            assignment: assignment(epoch),
            operation: VolumeOperation::Create,
            size_bytes: 1,
        }
    }

    fn claim(holder: ClaimHolder, uid: &str, epoch: i64) -> Claim {
        Claim {
            fleet: "f".to_owned(),
            holder,
            uid: uid.to_owned(),
            assignment: assignment(epoch),
        }
    }

    fn volume(uid: &str, job: Option<VolumeJob>, claim: Option<Claim>) -> Volume {
        let mut volume: Volume = serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume",
            "metadata": {"name": "v", "namespace": "n", "uid": uid},
            "spec": {"pool": "p", "size": "1Gi"},
        }))
        .expect("a volume");
        volume.status = Some(api::VolumeStatus {
            job,
            claim,
            ..Default::default()
        });
        volume
    }

    #[test]
    fn a_job_needs_exactly_its_own_claim() {
        let own = claim(ClaimHolder::Job, "u", 2);
        let good = volume("u", Some(job(2)), Some(own.clone()));
        assert_eq!(claim_for(&good, "u", &job(2)).expect("its own"), own);
        for (wrong, what) in [
            (volume("u", Some(job(2)), None), "absent"),
            (
                volume(
                    "u",
                    Some(job(2)),
                    Some(claim(ClaimHolder::VirtualMachine, "u", 2)),
                ),
                "a VM's",
            ),
            (
                volume("u", Some(job(2)), Some(claim(ClaimHolder::Job, "w", 2))),
                "another volume's",
            ),
            (
                volume("u", Some(job(2)), Some(claim(ClaimHolder::Job, "u", 1))),
                "a former job's",
            ),
            (volume("u", Some(job(3)), Some(own.clone())), "given anew"),
            (volume("u", None, Some(own.clone())), "taken back"),
            (volume("w", Some(job(2)), Some(own)), "made again"),
        ] {
            claim_for(&wrong, "u", &job(2)).expect_err(what);
        }
    }

    #[test]
    fn a_job_that_was_begun_is_not_begun_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = Jobs::new(folder.path());
        let begun = |epoch| was_begun(&jobs.ledger.entry("u").expect("entry"), epoch);
        assert!(!begun(2));
        jobs.ledger.take("u", 2, 0).expect("first");
        assert!(begun(2), "an agent that restarts finds it used");
        assert!(begun(1), "and an older one is void");
        jobs.ledger.close("u", 2).expect("over");
        assert!(begun(2));
        assert!(!begun(3), "given anew, it has a number of its own");
        let vms = Ledger::new(folder.path());
        assert_eq!(
            vms.entry("u").expect("entry").state(2),
            None::<EpochState>,
            "numbers of jobs are no epochs of VMs"
        );
    }

    #[test]
    fn a_job_does_not_outlive_a_firing_of_the_guard() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = Jobs::new(folder.path());
        jobs.ledger.take("u", 2, 0).expect("allowed");
        let fired = Firings {
            count: 1,
            killing: true,
        };
        fired.write(folder.path()).expect("firing");
        jobs.ledger.start("u", 2).expect_err("the guard has fired");
    }

    fn report(epoch: i64) -> VolumeReport {
        VolumeReport {
            assignment: assignment(epoch),
            phase: "Done".to_owned(),
            file: None,
            size_bytes: Some(1),
            image_digest: None,
            message: None,
        }
    }

    #[test]
    fn a_job_that_is_over_is_not_reported_as_interrupted_from_a_stale_cache() {
        let own = claim(ClaimHolder::Job, "u", 2);
        let mut over = volume("u", Some(job(2)), Some(own));
        over.status.as_mut().expect("status").reported = Some(report(2));
        claim_for(&over, "u", &job(2)).expect_err("it is over");
        over.status.as_mut().expect("status").reported = Some(report(1));
        claim_for(&over, "u", &job(2)).expect("a former job's report");
    }

    /// Where the growth failed or was cut short, the operator and the pool's room still count with the size that is there.
    #[test]
    fn a_report_says_what_stands_of_the_file_whichever_job_made_it() {
        let mut grows = volume("u", Some(job(2)), None);
        assert_eq!(report_of(&grows, &job(2)).size_bytes, None);
        let made = VolumeReport {
            file: Some("volumes/u.qcow2".to_owned()),
            image_digest: Some("d".to_owned()),
            message: Some("what an earlier job said".to_owned()),
            ..report(1)
        };
        grows.status.as_mut().expect("status").reported = Some(made.clone());
        let begun = report_of(&grows, &job(2));
        let stands = VolumeReport {
            assignment: assignment(2),
            message: None,
            ..made
        };
        assert_eq!(begun, stands);
        let mut grown = begun.clone();
        let file = VolumeFile {
            path: "/pool/volumes/u.qcow2".into(),
            size_bytes: 7,
        };
        done(&mut grown, Some(file), None);
        let larger = VolumeReport {
            size_bytes: Some(7),
            ..stands
        };
        assert_eq!(grown, larger);
        let mut deleted = begun;
        done(&mut deleted, None, None);
        let nothing = (deleted.file, deleted.size_bytes, deleted.image_digest);
        assert_eq!(nothing, (None, None, None));
    }

    #[test]
    fn what_became_of_a_job_is_told_again_for_this_job_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = Jobs::new(folder.path());
        jobs.keep("u", &report(2));
        assert_eq!(jobs.ended("u", &assignment(2)), Some(report(2)));
        assert_eq!(jobs.ended("u", &assignment(3)), None);
        jobs.forget(&BTreeSet::from(["u".to_owned()]));
        assert_eq!(jobs.ended("u", &assignment(2)), Some(report(2)));
        jobs.forget(&BTreeSet::new());
        assert_eq!(jobs.ended("u", &assignment(2)), None);
    }

    /// As an agent that was killed leaves it.
    #[tokio::test]
    async fn a_job_is_over_when_no_disk_tool_works_on_its_volume() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = folder.path().join("qemu-img");
        std::fs::copy("/bin/sh", &tool).expect("a program");
        let uid = format!("a-volume-of-{}", folder.path().display()).replace('/', "-");
        let file = format!("/pool/volumes/{uid}.making-2");
        let mut child = std::process::Command::new(&tool)
            .args(["-c", "read line; true", "convert", &file])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        let begin = std::time::Instant::now();
        while let Err(error) = end_disk_tools(&uid).await {
            assert!(begin.elapsed().as_secs() < 20, "{error:#}");
            tokio::task::yield_now().await;
        }
        // It is dead, and its parent has yet to hear of it.
        let ended = child.wait().expect("ended");
        assert_eq!(ended.code(), None, "killed by a signal");
    }
}
