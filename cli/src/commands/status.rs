//! `zyctl status`: the whole site on one screen, most pressing first.

mod view;

use anyhow::{Context as _, Result};
use futures::stream::{BoxStream, StreamExt, select_all};
use kube::CustomResourceExt;
use kube::api::{Api, DynamicObject, ListParams, WatchParams};
use kube::core::WatchEvent;
use serde_json::json;

use super::Context;
use crate::client::Site;
use crate::options::Output;

/// How long one watch lasts before it is begun anew; the API server allows less than 295 s.
const WATCH_SECONDS: u32 = 290;

/// Prints the site once, or again after every change.
pub async fn run(context: &Context, watch: bool) -> Result<()> {
    loop {
        // Watched from before the read, so that no change falls between the two.
        let changes = if watch {
            Some(changes(context).await?)
        } else {
            None
        };
        let site = Site::read(&context.client).await?;
        match context.output {
            Output::Json => context.print_json(&as_json(&site))?,
            Output::Table => {
                if watch {
                    // Home and clear below: redraws without flicker.
                    print!("\x1b[H\x1b[J");
                }
                print!(
                    "{}",
                    view::render(context.language, &site, jiff::Timestamp::now())
                );
            }
        }
        match changes {
            Some(changes) => first(changes).await?,
            None => return Ok(()),
        }
    }
}

fn as_json(site: &Site) -> serde_json::Value {
    json!({"businessSystems": site.systems, "hosts": site.hosts, "hostPools": site.host_pools,
        "storagePools": site.storage_pools, "virtualMachines": site.vms, "migrations": site.migrations,
        "incidents": site.incidents})
}

type Changes = BoxStream<'static, Result<WatchEvent<DynamicObject>, kube::Error>>;

/// Every change from now on of what the screen shows.
async fn changes(context: &Context) -> Result<Changes> {
    let resources = [
        api::BusinessSystem::api_resource(),
        api::Host::api_resource(),
        api::HostPool::api_resource(),
        api::VirtualMachine::api_resource(),
        api::VirtualMachineMigration::api_resource(),
        api::Incident::api_resource(),
    ];
    let mut streams = Vec::new();
    for resource in &resources {
        let api: Api<DynamicObject> = Api::all_with(context.client.clone(), resource);
        let now = api.list_metadata(&ListParams::default().limit(1)).await?;
        let version = now.metadata.resource_version.unwrap_or_default();
        let stream = api
            .watch(&WatchParams::default().timeout(WATCH_SECONDS), &version)
            .await?;
        streams.push(stream.boxed());
    }
    Ok(select_all(streams).boxed())
}

/// Waits for the first change; the end of the watch counts as one, the screen is then read anew.
async fn first(mut changes: Changes) -> Result<()> {
    while let Some(event) = changes.next().await {
        match event.context("the watch failed")? {
            WatchEvent::Added(_)
            | WatchEvent::Modified(_)
            | WatchEvent::Deleted(_)
            | WatchEvent::Error(_) => break,
            WatchEvent::Bookmark(_) => {}
        }
    }
    Ok(())
}
