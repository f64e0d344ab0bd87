//! Finds what the operator gave to this host to do on storage, does it, and reports.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use api::{Image, ImageReport, Volume, VolumeJob, VolumeOperation, VolumeReport};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::volumes::VolumeFile;
use super::{claims, format_name, image_file, images, volumes};
use crate::agent::{Context, in_task};

/// Wait before a failed fetch is tried again.
const FETCH_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Begins all work that is due.
pub fn turn(context: &Arc<Context>, busy: &Arc<Mutex<BTreeSet<String>>>) {
    for volume in context.view.volumes.state() {
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
    for image in context.view.images.state() {
        let status = image.status.clone().unwrap_or_default();
        for placement in status
            .pools
            .iter()
            .filter(|placement| placement.host == context.host.as_str())
        {
            let ready = status.reports.iter().any(|report| {
                report.host == placement.host
                    && report.pool == placement.pool
                    && report.phase == "Ready"
            });
            if !ready {
                let (context, image, pool) =
                    (context.clone(), image.clone(), placement.pool.clone());
                let key = format!(
                    "image/{}/{pool}",
                    image.metadata.name.clone().unwrap_or_default()
                );
                in_task(
                    busy,
                    key,
                    async move { fetch(&context, &image, &pool).await },
                );
            }
        }
    }
}

async fn work(context: &Arc<Context>, volume: &Volume, job: &VolumeJob) {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let mut report = VolumeReport {
        assignment: job.assignment.clone(),
        phase: "Done".to_owned(),
        file: None,
        size_bytes: None,
        image_digest: None,
        message: None,
    };
    match carry_out(context, volume, job).await {
        Ok((file, digest)) => {
            report.size_bytes = file
                .as_ref()
                .and_then(|file| i64::try_from(file.size_bytes).ok());
            report.file = file.map(|file| relative(&file.path));
            report.image_digest = digest;
        }
        Err(error) => {
            tracing::error!(volume = name, error = format!("{error:#}"), "job failed");
            report.phase = "Failed".to_owned();
            report.message = Some(format!("{error:#}"));
        }
    }
    let namespace = volume.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Volume> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({"status": {"reported": report}});
    if let Err(error) = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        tracing::warn!(volume = name, %error, "the job's report is tried again");
    }
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
) -> Result<(Option<VolumeFile>, Option<String>)> {
    let pool = context
        .view
        .pool(&volume.spec.pool)
        .with_context(|| format!("spec.pool: StoragePool {} does not exist", volume.spec.pool))?;
    let folder = Path::new(&pool.spec.path);
    let uid = volume.metadata.uid.as_deref().unwrap_or_default();
    let (format, size) = (
        volume.spec.format,
        u64::try_from(job.size_bytes).unwrap_or(0),
    );
    let claim = volume
        .status
        .as_ref()
        .and_then(|status| status.claim.clone());
    if let Some(claim) = claim {
        let (folder, uid) = (folder.to_owned(), uid.to_owned());
        let deletes = job.operation == VolumeOperation::Delete;
        tokio::task::spawn_blocking(move || {
            if deletes {
                claims::remove(&folder, &uid, &claim.fleet)
            } else {
                claims::write(&folder, &uid, &claim)
            }
        })
        .await??;
    }
    match job.operation {
        VolumeOperation::Delete => {
            volumes::delete(folder, uid, format)?;
            Ok((None, None))
        }
        VolumeOperation::Resize => Ok((
            Some(volumes::resize(folder, uid, format, size).await?),
            None,
        )),
        VolumeOperation::Create => match &volume.spec.image {
            None => Ok((
                Some(volumes::create(folder, uid, format, size, None).await?),
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
                    Some(volumes::create(folder, uid, format, size, from).await?),
                    Some(digest),
                ))
            }
        },
    }
}

async fn fetch(context: &Arc<Context>, image: &Image, pool_name: &str) {
    let name = image.metadata.name.clone().unwrap_or_default();
    let result = async {
        let pool = context
            .view
            .pool(pool_name)
            .with_context(|| format!("StoragePool {pool_name} does not exist"))?;
        let client = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(10))
            .build()?;
        for file in images::files(&image.spec) {
            images::fetch(&client, Path::new(&pool.spec.path), file).await?;
        }
        anyhow::Ok(())
    };
    let (phase, message) = match result.await {
        Ok(()) => ("Ready", String::new()),
        Err(error) => ("Failed", format!("{error:#}")),
    };
    if phase == "Failed" {
        tracing::error!(image = name, message, "not fetched");
    }
    if let Err(error) = report(context, &name, pool_name, phase, message).await {
        tracing::warn!(
            image = name,
            error = format!("{error:#}"),
            "the image's report is tried again"
        );
    }
    if phase == "Failed" {
        // The key stays taken, so that a server that fails is not asked twice a second.
        tokio::time::sleep(FETCH_AGAIN).await;
    }
}

/// Replaces this host's entry and leaves the others as they are, by compare-and-swap.
async fn report(
    context: &Context,
    image: &str,
    pool: &str,
    phase: &str,
    message: String,
) -> Result<()> {
    let api: Api<Image> = Api::all(context.client.clone());
    let fresh = api.get(image).await?;
    let mut reports = fresh.status.unwrap_or_default().reports;
    let own = ImageReport {
        pool: pool.to_owned(),
        host: context.host.to_string(),
        phase: phase.to_owned(),
        message,
    };
    if reports.contains(&own) {
        return Ok(());
    }
    reports.retain(|report| report.host != own.host || report.pool != own.pool);
    reports.push(own);
    let patch = json!({"metadata": {"resourceVersion": fresh.metadata.resource_version}, "status": {"reports": reports}});
    api.patch_status(image, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}
