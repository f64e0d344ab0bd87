//! Networks: publishes the tunnel end points and counts addresses.

use std::sync::Arc;

use api::Vtep;
use kube::ResourceExt;
use serde_json::json;

use crate::conditions::condition;
use crate::runtime::Context;
use crate::writer::logged;

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    let hosts = context.stores.hosts.state();
    let mut vteps: Vec<Vtep> = hosts
        .iter()
        .filter_map(|host| {
            Some(Vtep {
                host: host.name_any(),
                address: host
                    .status
                    .as_ref()?
                    .reported
                    .as_ref()?
                    .vtep_address
                    .clone()?,
            })
        })
        .collect();
    vteps.sort();
    let vms = context.stores.vms.state();
    for network in context.stores.networks.state() {
        let name = network.name_any();
        let status = network.status.clone().unwrap_or_default();
        let mut wanted = vteps.clone();
        wanted.extend(network.spec.edge.as_ref().map(|edge| Vtep {
            host: "edge".to_owned(),
            address: edge.address.clone(),
        }));
        let used = vms
            .iter()
            .flat_map(|vm| vm.status.clone().unwrap_or_default().nics)
            .filter(|nic| nic.network == name)
            .count();
        let conditions = condition(
            &status.conditions,
            "Ready",
            true,
            "Published",
            "tunnel end points are published",
            network.metadata.generation,
        );
        let patch = json!({"vteps": wanted, "addressesUsed": used, "conditions": conditions});
        let same = status.vteps == wanted
            && usize::try_from(status.addresses_used).ok() == Some(used)
            && json!(status.conditions) == patch["conditions"];
        if !same && context.writer.settled(network.as_ref()) {
            logged(
                "network",
                &name,
                context.writer.swap_status(network.as_ref(), patch).await,
            );
        }
    }
}
