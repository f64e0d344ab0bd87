//! Pure of writes: what a business system names that is not there or does not fit.

use std::collections::BTreeSet;

use api::{BusinessSystem, Host, SpreadOver, Tier};
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
        let of_pools = context.stores.hosts.state();
        let hosts = of_pools
            .iter()
            .filter(|host| serving.iter().any(|pool| pool.name_any() == host.spec.pool));
        problems.extend(
            too_many(tier, hosts.map(AsRef::as_ref))
                .map(|why| format!("{}: {why}", at("replicas"))),
        );
    }
    problems
}

/// Replicas that must be on different hosts or racks and are more than those.
fn too_many<'a>(tier: &Tier, hosts: impl Iterator<Item = &'a Host>) -> Option<String> {
    let spread = spread_of(tier).filter(|spread| spread.required && tier.replicas > 1)?;
    let rack = |host: &Host| fleet::rack_of(host).cloned();
    let (what, there) = match spread.over {
        SpreadOver::Host => ("hosts", hosts.count()),
        SpreadOver::Rack => (
            "racks",
            hosts.filter_map(rack).collect::<BTreeSet<_>>().len(),
        ),
    };
    let many = usize::try_from(tier.replicas).unwrap_or(0) > there;
    many.then(|| {
        format!(
            "{} replicas must be on different {what} and the pool has {there}; lower replicas, add {what}{}, or set spread.required to false",
            tier.replicas,
            match spread.over {
                SpreadOver::Host => "",
                SpreadOver::Rack => " (spec.rack of the hosts)",
            }
        )
    })
}
