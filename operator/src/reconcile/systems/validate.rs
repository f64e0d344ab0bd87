//! Pure of writes: what a business system names that is not there or does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, Host, HostPool, SpreadOver, Tier, VirtualMachine, Volume};
use fleet::system::{disk_names, spread_of, vm_name, volume_name};
use kube::ResourceExt;

use super::Parts;
use crate::reconcile::networks::collision;
use crate::runtime::Context;

/// Everything that the system names and that is not there or does not fit: field, value, remedy. `made`:
/// tiers that can not be corrected any more.
pub(super) fn validate(
    context: &Context,
    system: &BusinessSystem,
    (vms, volumes): (&[Arc<VirtualMachine>], &[Arc<Volume>]),
    parts: &Parts,
    made: &BTreeSet<String>,
) -> Vec<String> {
    let mut problems = taken(system, vms, volumes);
    let networks = context.stores.networks.state();
    let pools = context.stores.storage_pools.state();
    let host_pools = context.stores.host_pools.state();
    problems.extend(below_grade(
        system,
        vms,
        &context.stores.hosts.state(),
        &host_pools,
    ));
    for tier in &system.spec.tiers {
        let at = |field: &str| format!("spec.tiers[{}].{field}", tier.name);
        let missing = |field: &str, kind: &str, name: &str| {
            format!(
                "{}: {kind} {name} does not exist; create it, or {}",
                at(field),
                remedy(made, tier, "that names another", "name another")
            )
        };
        if parts.flavor(tier).is_none() {
            problems.push(missing("flavor", "Flavor", &tier.flavor));
        }
        let image = parts.image(tier);
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
                Some(network) => {
                    zones.push(network.spec.zone);
                    problems.extend(collision(network, &networks).map(|why| {
                        format!("{}: Network {name} is not ready: {why}", at("networks"))
                    }));
                }
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
                "{}: no host pool serves {}; let a pool serve it, or {}",
                at("networks"),
                names.join(" and "),
                remedy(
                    made,
                    tier,
                    "with networks of one zone",
                    "name networks of one zone"
                )
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
                "{}: image {} is for {}, and no host pool of that zone is; {}",
                at("image"),
                tier.image,
                image.spec.architecture,
                remedy(made, tier, "with another image", "name another image")
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

/// What a person can do about a tier that names the wrong thing: one that is made can only be replaced.
fn remedy(made: &BTreeSet<String>, tier: &Tier, new_one: &str, here: &str) -> String {
    if made.contains(&tier.name) {
        format!("replace this tier by a new one {new_one}")
    } else {
        format!("{here} here: nothing of this tier is made yet")
    }
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

/// Names of the system's VMs and volumes that others have: as they are SYSTEM-TIER-REPLICA and `-` may
/// stand in each part, two systems of a namespace can come to the same one.
fn taken(
    system: &BusinessSystem,
    vms: &[Arc<VirtualMachine>],
    volumes: &[Arc<Volume>],
) -> Vec<String> {
    let (namespace, own) = (&system.metadata.namespace, system.name_any());
    let (mut wanted_vms, mut wanted_volumes) = (BTreeMap::new(), BTreeMap::new());
    for tier in &system.spec.tiers {
        for replica in 0..tier.replicas {
            let vm = vm_name(system, tier, replica);
            for disk in disk_names(tier) {
                wanted_volumes.insert(volume_name(&vm, disk), &tier.name);
            }
            wanted_vms.insert(vm, &tier.name);
        }
    }
    let sentence = |kind: &str, name: &str, tier: &str, labels: &BTreeMap<String, String>| {
        let owner = labels.get(LABEL_SYSTEM).map_or_else(
            || "no business system".to_owned(),
            |other| format!("business system {other}"),
        );
        format!(
            "spec.tiers[{tier}].name: {kind} {name} of this tier exists already and belongs to {owner}; names are SYSTEM-TIER-REPLICA, give the tier another name"
        )
    };
    let mut problems = Vec::new();
    for vm in vms.iter().filter(|vm| vm.metadata.namespace == *namespace) {
        let (name, labels) = (vm.name_any(), vm.labels());
        if let Some(tier) = wanted_vms.get(&name)
            && labels.get(LABEL_SYSTEM) != Some(&own)
        {
            problems.push(sentence("VM", &name, tier, labels));
        }
    }
    for volume in volumes
        .iter()
        .filter(|volume| volume.metadata.namespace == *namespace)
    {
        let (name, labels) = (volume.name_any(), volume.labels());
        // One without labels was prepared by hand for this VM.
        let fits = |label: &str, value: &String| labels.get(label).is_none_or(|has| has == value);
        if let Some(tier) = wanted_volumes.get(&name)
            && !(fits(LABEL_SYSTEM, &own) && fits(LABEL_TIER, tier))
        {
            problems.push(sentence("Volume", &name, tier, labels));
        }
    }
    problems
}

/// A VM of the system that stands in a host pool below the system's grade: it would stay there, and its
/// pool would not take it again.
fn below_grade(
    system: &BusinessSystem,
    vms: &[Arc<VirtualMachine>],
    hosts: &[Arc<Host>],
    pools: &[Arc<HostPool>],
) -> Option<String> {
    let (namespace, own, grade) = (
        &system.metadata.namespace,
        system.name_any(),
        system.spec.mlps_grade,
    );
    let low: BTreeMap<String, i32> = pools
        .iter()
        .filter(|pool| pool.spec.mlps_grade < grade)
        .map(|pool| (pool.name_any(), pool.spec.mlps_grade))
        .collect();
    if low.is_empty() {
        return None;
    }
    vms.iter()
        .filter(|vm| {
            vm.metadata.namespace == *namespace && vm.labels().get(LABEL_SYSTEM) == Some(&own)
        })
        .find_map(|vm| {
            let right = vm.status.as_ref()?.assignment.as_ref()?;
            let host = hosts
                .iter()
                .find(|host| host.name_any() == right.host.as_str())?;
            let (pool, lower) = low.get_key_value(&host.spec.pool)?;
            Some(format!(
                "spec.mlpsGrade: {grade} is above grade {lower} of host pool {pool}, where VM {} stands; lower it or raise the pool's mlpsGrade",
                vm.name_any()
            ))
        })
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn object<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object of the API")
    }

    fn system(name: &str, tier: &str, grade: i32) -> BusinessSystem {
        object(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem",
            "metadata": {"name": name, "namespace": "oa-office"},
            "spec": {"displayName": name, "mlpsGrade": grade, "tiers": [{
                "name": tier, "flavor": "small", "image": "linux", "networks": ["common"],
                "storagePool": "shared", "dataDisks": [{"name": "data", "size": "1Gi"}]}]}
        }))
    }

    /// The VM and the volumes that are made of a system with one replica.
    fn made(system: &BusinessSystem) -> (Vec<Arc<VirtualMachine>>, Vec<Arc<Volume>>) {
        let tier = &system.spec.tiers[0];
        let volumes = fleet::system::volumes(None, system, tier, 0);
        let vm = fleet::system::vm(None, system, tier, 0);
        (
            vec![Arc::new(vm)],
            volumes.into_iter().map(Arc::new).collect(),
        )
    }

    #[test]
    fn a_wrong_tier_is_corrected_in_place_until_it_is_made() {
        let own = system("a", "web", 2);
        let tier = &own.spec.tiers[0];
        let tell = |made: &[&str]| {
            let made = made.iter().map(|name| (*name).to_owned()).collect();
            remedy(&made, tier, "that names another", "name another")
        };
        let open = "name another here: nothing of this tier is made yet";
        assert_eq!(tell(&[]), open);
        assert_eq!(tell(&["database"]), open);
        assert_eq!(
            tell(&["database", "web"]),
            "replace this tier by a new one that names another"
        );
    }

    #[test]
    fn a_name_that_another_system_has_is_told_with_its_owner() {
        let (first, second) = (system("a-b", "c", 2), system("a", "b-c", 2));
        let (vms, volumes) = made(&first);
        assert_eq!(taken(&first, &vms, &volumes), [""; 0], "its own ones");
        assert_eq!(
            taken(&second, &vms, &volumes),
            ["VM a-b-c-0", "Volume a-b-c-0-system", "Volume a-b-c-0-data"].map(|what| format!(
                "spec.tiers[b-c].name: {what} of this tier exists already and belongs to business system a-b; names are SYSTEM-TIER-REPLICA, give the tier another name"
            ))
        );
        let mut elsewhere = second.clone();
        elsewhere.metadata.namespace = Some("tourism".to_owned());
        assert_eq!(taken(&elsewhere, &vms, &volumes), [""; 0]);
    }

    #[test]
    fn a_vm_of_nobody_is_told_and_a_volume_of_nobody_is_taken_over() {
        let own = system("a", "b", 2);
        let (mut vms, mut volumes) = made(&own);
        Arc::make_mut(&mut vms[0]).metadata.labels = None;
        Arc::make_mut(&mut volumes[0]).metadata.labels = None;
        let problems = taken(&own, &vms, &volumes);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0]
                .contains("VM a-b-0 of this tier exists already and belongs to no business system")
        );
    }

    #[test]
    fn a_grade_rises_no_higher_than_the_pool_that_vms_stand_in() {
        let own = system("a", "b", 3);
        let (mut vms, _) = made(&own);
        let host = Arc::new(object::<Host>(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"},
            "spec": {"pool": "main", "managementAddress": "10.0.0.1"}})));
        let pool = |grade: i32| {
            Arc::new(object::<HostPool>(json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "HostPool", "metadata": {"name": "main"},
                "spec": {"zones": ["Common"], "architecture": "x86_64", "mlpsGrade": grade}})))
        };
        let judge = |vms: &[Arc<VirtualMachine>], grade: i32| {
            below_grade(&own, vms, std::slice::from_ref(&host), &[pool(grade)])
        };
        assert_eq!(judge(&vms, 2), None, "nothing stands anywhere yet");
        Arc::make_mut(&mut vms[0]).status = Some(object(json!({
            "assignment": {"host": "h1", "bootId": "b", "epoch": 1}})));
        assert_eq!(judge(&vms, 3), None);
        assert_eq!(
            judge(&vms, 2).expect("a pool of a lower grade"),
            "spec.mlpsGrade: 3 is above grade 2 of host pool main, where VM a-b-0 stands; lower it or raise the pool's mlpsGrade"
        );
    }
}
