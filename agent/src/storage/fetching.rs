//! Finds which images the operator gave to this host to fetch, fetches them, and reports.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::{Image, ImageReport};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::folder::PoolFolder;
use super::images;
use crate::agent::{Context, in_task};

/// Wait before a failed fetch is tried again.
const FETCH_AGAIN: Duration = Duration::from_secs(10);

/// Begins every fetch that is due.
pub fn turn(context: &Arc<Context>, busy: &Arc<Mutex<BTreeSet<String>>>) {
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

async fn fetch(context: &Arc<Context>, image: &Image, pool_name: &str) {
    let name = image.metadata.name.clone().unwrap_or_default();
    let result = async {
        let pool = context
            .view
            .pool(pool_name)
            .with_context(|| format!("StoragePool {pool_name} does not exist"))?;
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .build()?;
        let folder = PoolFolder::of(&pool);
        tokio::task::spawn_blocking(move || folder.check()).await??;
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
