//! Pure of writes: what a business system names that is not there or does not fit.

use api::BusinessSystem;
use fleet::system::spread_of;
use kube::ResourceExt;

use crate::runtime::Context;

/// Everything that the system names and that is not there or does not fit: field, value, remedy.
pub(super) fn validate(context: &Context, system: &BusinessSystem) -> Vec<String> {
    let mut problems = Vec::new();
    let networks = context.stores.networks.state();
    let pools = context.stores.storage_pools.state();
    let host_pools = context.stores.host_pools.state();
    for tier in &system.spec.tiers {
        let at = |field: &str| format!("spec.tiers[{}].{field}", tier.name);
        let missing = |field: &str, kind: &str, name: &str| {
            format!(
                "{}: {kind} {name} does not exist; correct the name or create it",
                at(field)
            )
        };
        if !context
            .stores
            .flavors
            .state()
            .iter()
            .any(|flavor| flavor.name_any() == tier.flavor)
        {
            problems.push(missing("flavor", "Flavor", &tier.flavor));
        }
        let image = context
            .stores
            .images
            .state()
            .into_iter()
            .find(|image| image.name_any() == tier.image);
        if image.is_none() {
            problems.push(missing("image", "Image", &tier.image));
        }
        let used = std::iter::once(&tier.storage_pool).chain(
            tier.data_disks
                .iter()
                .filter_map(|disk| disk.storage_pool.as_ref()),
        );
        for pool in used {
            if !pools.iter().any(|known| known.name_any() == *pool) {
                problems.push(missing("storagePool", "StoragePool", pool));
            }
        }
        let mut zones = Vec::new();
        for name in &tier.networks {
            match networks.iter().find(|network| network.name_any() == *name) {
                Some(network) => zones.push(network.spec.zone),
                None => problems.push(missing("networks", "Network", name)),
            }
        }
        let serving = host_pools
            .iter()
            .filter(|pool| zones.iter().all(|zone| pool.spec.zones.contains(zone)))
            .collect::<Vec<_>>();
        if serving.is_empty() && !zones.is_empty() {
            let names: Vec<String> = zones
                .iter()
                .map(|zone| format!("{zone} ({})", zone.chinese()))
                .collect();
            problems.push(format!(
                "{}: no host pool serves {}; choose networks of one zone, or let a pool serve it",
                at("networks"),
                names.join(" and ")
            ));
        } else if !serving
            .iter()
            .any(|pool| pool.spec.mlps_grade >= system.spec.mlps_grade)
        {
            problems.push(format!("spec.mlpsGrade: {} is above the grade of every host pool of that zone; lower it or raise a pool's mlpsGrade", system.spec.mlps_grade));
        } else if let Some(image) = &image
            && !serving
                .iter()
                .any(|pool| pool.spec.architecture == image.spec.architecture)
        {
            problems.push(format!(
                "{}: image {} is for {}, and no host pool of that zone is; choose another image",
                at("image"),
                tier.image,
                image.spec.architecture
            ));
        }
        let spread = tier.replicas > 1 && spread_of(tier).is_some_and(|spread| spread.required);
        let hosts = context
            .stores
            .hosts
            .state()
            .iter()
            .filter(|host| serving.iter().any(|pool| pool.name_any() == host.spec.pool))
            .count();
        if spread && usize::try_from(tier.replicas).unwrap_or(0) > hosts {
            problems.push(format!("{}: {} replicas must be on different hosts and the pool has {hosts}; lower replicas, add hosts, or set spread.required to false", at("replicas"), tier.replicas));
        }
    }
    problems
}
