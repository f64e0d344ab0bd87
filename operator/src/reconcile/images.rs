//! Images: names a host that fetches each one for each pool that needs it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use api::ImagePlacement;
use kube::ResourceExt;
use model::HostName;
use serde_json::json;

use crate::conditions::condition;
use crate::door;
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

/// Hosts that may be given work on a pool now, by name: those that report it ready, and on which VMs may be placed too.
pub fn able_hosts(context: &Context, pool: &str) -> Vec<String> {
    let policy = door::policy(&context.stores.policy());
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hosts: Vec<String> = context
        .stores
        .hosts
        .state()
        .iter()
        .filter(|host| {
            let reaches = host.reported().is_some_and(|reported| {
                // A host that starts nothing does no job either.
                reported.starts_forbidden.is_none()
                    && reported
                        .storage_pools
                        .iter()
                        .any(|known| known.name == pool && known.state == "Ready")
            });
            reaches && watch.placeable(&HostName(host.name_any()), &policy).is_ok()
        })
        .map(|host| host.name_any())
        .collect();
    hosts.sort();
    hosts
}

#[cfg(test)]
mod tests {
    use api::{CloudPolicySpec, Host};
    use serde_json::Value;

    use super::*;
    use crate::context_in_memory::{Site, host};

    /// A host that reports these pools, with their states.
    fn with_pools(name: &str, pools: &[(&str, &str)], forbidden: Option<&str>) -> Arc<Host> {
        let mut host = Host::clone(&host(name, Value::Null, Value::Null));
        let pools = pools.iter().map(|(name, state)| {
            json!({"name": name, "state": state, "capacityBytes": 1, "availableBytes": 1})
        });
        let pools: Vec<Value> = pools.collect();
        let status = host.status.as_mut().expect("a status");
        let reported = status.reported.as_mut().expect("a report");
        reported.storage_pools = serde_json::from_value(json!(pools)).expect("pools");
        reported.starts_forbidden = forbidden.map(str::to_owned);
        Arc::new(host)
    }

    #[tokio::test]
    async fn work_on_a_pool_goes_where_vms_may_go() {
        let shared = [("shared", "Ready")];
        let hosts = vec![
            with_pools("h1", &shared, None),
            with_pools("h2", &shared, None),
            with_pools("h3", &shared, Some("its ledger is lost")),
            with_pools("h4", &[("shared", "Lost")], None),
            with_pools("h5", &[("other", "Ready")], None),
        ];
        let site = Site::new(CloudPolicySpec::default(), hosts, vec![], vec![]).await;
        assert_eq!(able_hosts(&site.context, "shared"), ["h1", "h2"]);
        // Its guard renews, its agent's loop stands still: the host is Ready, and nothing new comes to it.
        let mut watch = site.context.hosts.lock().expect("hosts");
        watch.agent_stands_still("h1");
        drop(watch);
        assert_eq!(able_hosts(&site.context, "shared"), ["h2"]);
    }
}
