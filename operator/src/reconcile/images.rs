//! Images: names a host that fetches each one for each pool that needs it.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::ImagePlacement;
use kube::ResourceExt;
use serde_json::json;

use crate::conditions::condition;
use crate::runtime::Context;
use crate::writer::logged;

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    let (volumes, vms, pools) = (
        context.stores.volumes.state(),
        context.stores.vms.state(),
        context.stores.storage_pools.state(),
    );
    for image in context.stores.images.state() {
        let name = image.name_any();
        let status = image.status.clone().unwrap_or_default();
        let mut needed: BTreeSet<String> = volumes
            .iter()
            .filter(|volume| volume.spec.image.as_deref() == Some(name.as_str()))
            .map(|volume| volume.spec.pool.clone())
            .collect();
        let in_use = needed.len().max(
            volumes
                .iter()
                .filter(|volume| volume.spec.image.as_deref() == Some(name.as_str()))
                .count()
                + vms.iter().filter(|vm| vm.spec.image == name).count(),
        );
        needed.retain(|pool| pools.iter().any(|known| known.name_any() == *pool));
        let mut placements = Vec::new();
        for pool in &pools {
            if !needed.contains(&pool.name_any()) {
                continue;
            }
            let able = able_hosts(context, &pool.name_any());
            if pool.spec.shared {
                let standing = status.pools.iter().find(|placement| {
                    placement.pool == pool.name_any()
                        && (able.contains(&placement.host) || fetched(&status, placement))
                });
                let chosen = standing.cloned().or_else(|| {
                    Some(ImagePlacement {
                        pool: pool.name_any(),
                        host: able.first()?.clone(),
                    })
                });
                placements.extend(chosen);
            } else {
                placements.extend(able.into_iter().map(|host| ImagePlacement {
                    pool: pool.name_any(),
                    host,
                }));
            }
        }
        placements.sort();
        let failed = status
            .reports
            .iter()
            .find(|report| report.phase == "Failed");
        let ready = !placements.is_empty()
            && placements
                .iter()
                .all(|placement| fetched(&status, placement));
        let message = match (failed, ready) {
            (Some(report), _) => format!(
                "pool {}, host {}: {}",
                report.pool, report.host, report.message
            ),
            (None, true) => "fetched and checked".to_owned(),
            (None, false) => "not fetched yet".to_owned(),
        };
        let conditions = condition(
            &status.conditions,
            "Ready",
            ready && failed.is_none(),
            if ready { "Fetched" } else { "Fetching" },
            &message,
            image.metadata.generation,
        );
        let same = status.pools == placements
            && usize::try_from(status.in_use_by).ok() == Some(in_use)
            && json!(status.conditions) == json!(conditions);
        if !same && context.writer.settled(image.as_ref()) {
            let patch = json!({"pools": placements, "inUseBy": in_use, "conditions": conditions});
            logged(
                "image",
                &name,
                context.writer.swap_status(image.as_ref(), patch).await,
            );
        }
    }
}

fn fetched(status: &api::ImageStatus, placement: &ImagePlacement) -> bool {
    status.reports.iter().any(|report| {
        report.pool == placement.pool && report.host == placement.host && report.phase == "Ready"
    })
}

/// Hosts that report a pool ready and take work, by name.
pub fn able_hosts(context: &Context, pool: &str) -> Vec<String> {
    let mut hosts: Vec<String> = context
        .stores
        .hosts
        .state()
        .iter()
        .filter(|host| {
            let status = host.status.clone().unwrap_or_default();
            let reaches = status.reported.is_some_and(|reported| {
                // A host that starts nothing does no job either.
                reported.starts_forbidden.is_none()
                    && reported
                        .storage_pools
                        .iter()
                        .any(|known| known.name == pool && known.state == "Ready")
            });
            reaches && status.state == Some(api::HostState::Ready)
        })
        .map(|host| host.name_any())
        .collect();
    hosts.sort();
    hosts
}
