//! What storage pools may still promise, from their capacity and the volumes that lie on them.

use std::collections::BTreeMap;

use api::{StoragePool, Volume};
use kube::ResourceExt;
use model::{Bytes, HostName};
use placement::StorageRoom;

use crate::Objects;

/// Room of every pool whose capacity a host reports.
pub fn rooms(objects: &Objects) -> BTreeMap<String, StorageRoom> {
    let rooms = objects.storage_pools.iter().filter_map(|pool| {
        let name = pool.name_any();
        let room = match pool.spec.shared {
            true => shared(objects, pool)?,
            false => per_host(objects, pool),
        };
        Some((name, room))
    });
    rooms.collect()
}

/// A volume takes its size from the moment on which a host is told to make it.
pub fn is_promised(volume: &Volume) -> bool {
    volume.status.as_ref().is_some_and(|status| {
        status.job.is_some() || status.reported.is_some() || status.pinned_host.is_some()
    })
}

/// Size of a volume; what can not be read fits nowhere, and the API server's pattern keeps it out.
pub fn size(volume: &Volume) -> u64 {
    Bytes::parse(&volume.spec.size).map_or(u64::MAX / 4, |bytes| bytes.0)
}

/// What a pool has promised to a volume: what it was made or grown to, or is being; a size that was
/// only asked for is not promised yet.
pub fn promised_to(volume: &Volume) -> u64 {
    let status = volume.status.as_ref();
    let job = status.and_then(|status| Some(status.job.as_ref()?.size_bytes));
    let made = status.and_then(|status| status.reported.as_ref()?.size_bytes);
    let bytes = job.into_iter().chain(made).max();
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .filter(|bytes| *bytes > 0)
        .unwrap_or_else(|| size(volume))
}

/// Bytes that may be promised of a capacity, overcommit included.
fn promised(pool: &StoragePool, capacity_bytes: u64) -> u64 {
    let percent = u128::try_from(pool.spec.overcommit_percent).unwrap_or(100);
    let bytes = u128::from(capacity_bytes) * percent / 100;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Capacities that hosts report of a pool; a host that does not know it reports none.
fn capacities<'a>(
    objects: &'a Objects,
    pool: &StoragePool,
) -> impl Iterator<Item = (HostName, u64)> + use<'a> {
    let name = pool.name_any();
    objects.hosts.iter().filter_map(move |host| {
        let reported = host.reported()?;
        let mut pools = reported.storage_pools.iter();
        let report = pools.find(|report| report.name == name)?;
        let capacity = u64::try_from(report.capacity_bytes).ok()?;
        (capacity > 0).then(|| (HostName(host.name_any()), capacity))
    })
}

fn volumes<'a>(
    objects: &'a Objects,
    pool: &StoragePool,
) -> impl Iterator<Item = &'a Volume> + use<'a> {
    let name = pool.name_any();
    let volumes = objects.volumes.iter().map(AsRef::as_ref);
    volumes.filter(move |volume: &&Volume| volume.spec.pool == name && is_promised(volume))
}

/// All hosts see the same files: none sees more than there is.
fn shared(objects: &Objects, pool: &StoragePool) -> Option<StorageRoom> {
    let capacity = capacities(objects, pool).map(|(_, bytes)| bytes).max()?;
    let taken: u64 =
        volumes(objects, pool).fold(0, |sum, one| sum.saturating_add(promised_to(one)));
    let room = promised(pool, capacity).saturating_sub(taken);
    Some(StorageRoom::Shared(room))
}

fn per_host(objects: &Objects, pool: &StoragePool) -> StorageRoom {
    let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
    for volume in volumes(objects, pool) {
        let status = volume.status.as_ref();
        if let Some(host) = status.and_then(|status| status.pinned_host.as_deref()) {
            let sum = taken.entry(host).or_default();
            *sum = sum.saturating_add(promised_to(volume));
        }
    }
    let rooms = capacities(objects, pool).map(|(host, capacity)| {
        let taken = taken.get(host.as_str()).copied().unwrap_or(0);
        let room = promised(pool, capacity).saturating_sub(taken);
        (host, room)
    });
    StorageRoom::PerHost(rooms.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn pool(name: &str, shared: bool, percent: i32) -> Arc<StoragePool> {
        let value = json!({"metadata": {"name": name}, "spec": {"kind": "Directory", "path": "/srv/x",
            "shared": shared, "overcommitPercent": percent}});
        Arc::new(serde_json::from_value(value).expect("a pool"))
    }

    fn host(name: &str, pools: &[(&str, u64)]) -> Arc<api::Host> {
        let pools: Vec<Value> = pools
            .iter()
            .map(|(name, size)| {
                json!({"name": name, "state": "Ready",
            "capacityBytes": size * GIB, "availableBytes": 0})
            })
            .collect();
        let value = json!({"metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "a"},
            "status": {"reported": {"incarnation": {"bootId": "b", "systemUuid": "s"}, "domainType": "kvm",
                "capacity": {"cpu": 4, "memory": "8Gi"}, "architecture": "x86_64", "storagePools": pools}}});
        Arc::new(serde_json::from_value(value).expect("a host"))
    }

    fn volume(name: &str, pool: &str, size: &str, status: Value) -> Arc<Volume> {
        let value = json!({"metadata": {"name": name, "namespace": "oa"},
            "spec": {"pool": pool, "size": size}, "status": status});
        Arc::new(serde_json::from_value(value).expect("a volume"))
    }

    #[test]
    fn a_growth_is_promised_when_its_job_is_given() {
        let right = json!({"host": "h1", "bootId": "b", "epoch": 1});
        let made = json!({"assignment": right, "phase": "Done", "sizeBytes": 10 * GIB});
        let bytes = |status: Value| promised_to(&volume("a", "all", "30Gi", status)) / GIB;
        assert_eq!(bytes(json!({"lastJob": 1, "reported": made})), 10, "asked");
        let mut job = json!({"operation": "Resize", "sizeBytes": 30 * GIB});
        for (name, value) in right.as_object().expect("fields") {
            job[name] = value.clone();
        }
        let given = json!({"lastJob": 2, "reported": made, "job": job});
        assert_eq!(bytes(given), 30, "given");
        assert_eq!(
            bytes(json!({"lastJob": 1, "pinnedHost": "h1"})),
            30,
            "not told"
        );
    }

    #[test]
    fn what_is_promised_is_taken_off_and_overcommit_is_put_on() {
        let made = json!({"lastJob": 1, "reported": {"assignment": {"host": "h1", "bootId": "b", "epoch": 1}, "phase": "Done"}});
        let objects = Objects {
            storage_pools: vec![
                pool("all", true, 150),
                pool("own", false, 100),
                pool("new", true, 100),
            ],
            hosts: vec![
                host("h1", &[("all", 100), ("own", 50)]),
                host("h2", &[("all", 100), ("own", 60)]),
            ],
            volumes: vec![
                volume("a", "all", "30Gi", made),
                volume("b", "all", "40Gi", json!({"lastJob": 0})),
                volume(
                    "c",
                    "own",
                    "20Gi",
                    json!({"lastJob": 1, "pinnedHost": "h1"}),
                ),
            ],
            ..Objects::default()
        };
        let rooms = rooms(&objects);
        assert_eq!(rooms["all"], StorageRoom::Shared(120 * GIB));
        let own = [("h1".into(), 30 * GIB), ("h2".into(), 60 * GIB)];
        assert_eq!(rooms["own"], StorageRoom::PerHost(own.into()));
        assert!(!rooms.contains_key("new"), "nobody tells its capacity");
    }
}
