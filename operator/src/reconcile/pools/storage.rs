//! Aggregates of storage pools, from what their hosts report.

use std::sync::Arc;

use api::{HostStoragePool, StoragePool, StoragePoolStatus, Volume};
use kube::ResourceExt;
use model::Bytes;

use crate::conditions::{Judged, conditions};
use crate::runtime::Context;
use crate::writer::logged;

/// One turn.
pub(super) async fn turn(context: &Arc<Context>) {
    let (hosts, volumes) = (context.stores.hosts.state(), context.stores.volumes.state());
    for pool in context.stores.storage_pools.state() {
        let name = pool.name_any();
        let reports: Vec<(String, &HostStoragePool)> = hosts
            .iter()
            .filter_map(|host| {
                let mut reports = host.reported()?.storage_pools.iter();
                Some((host.name_any(), reports.find(|report| report.name == name)?))
            })
            .collect();
        let status = pool.status.clone().unwrap_or_default();
        let after = status_of(&pool, &reports, &volumes);
        if after != status && context.writer.settled(pool.as_ref()) {
            let written = context
                .writer
                .replace_status(pool.as_ref(), &status, &after);
            logged("storage pool", &name, written.await);
        }
    }
}

fn status_of(
    pool: &StoragePool,
    reports: &[(String, &HostStoragePool)],
    volumes: &[Arc<Volume>],
) -> StoragePoolStatus {
    let name = pool.name_any();
    let known = pool.status.iter().flat_map(|status| &status.conditions);
    let known: Vec<_> = known.cloned().collect();
    let reported = || reports.iter().map(|(_, report)| *report);
    let ready: Vec<_> = reported()
        .filter(|report| report.state == "Ready")
        .collect();
    let fold = |sizes: Vec<i64>| {
        if pool.spec.shared {
            sizes.into_iter().max().unwrap_or(0)
        } else {
            sizes.into_iter().fold(0, i64::saturating_add)
        }
    };
    let capacity = fold(ready.iter().map(|report| report.capacity_bytes).collect());
    let available = fold(ready.iter().map(|report| report.available_bytes).collect());
    let own: Vec<_> = volumes
        .iter()
        .filter(|volume| volume.spec.pool == name)
        .collect();
    let allocated: Bytes = own
        .iter()
        .filter_map(|volume| Bytes::parse(&volume.spec.size).ok())
        .sum();
    let human = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let all = !reports.is_empty() && ready.len() == reports.len();
    let message = reported().find_map(|report| report.message.clone());
    let reason = if all { "Ready" } else { "HostsAffected" };
    let mut judged = vec![Judged::new(
        "Ready",
        all,
        reason,
        message.unwrap_or_default(),
    )];
    judged.extend(image_locks(reports));
    StoragePoolStatus {
        hosts_ready: format!("{}/{}", ready.len(), reports.len()),
        capacity: human(u64::try_from(capacity).unwrap_or(0)),
        allocated: human(allocated.0),
        capacity_bytes: capacity,
        available_bytes: available,
        allocated_bytes: i64::try_from(allocated.0).unwrap_or(i64::MAX),
        volumes: i32::try_from(own.len()).unwrap_or(i32::MAX),
        conditions: conditions(&known, &judged, pool.metadata.generation),
    }
}

/// Whether QEMU's image locks work on every host that could tell; none as long as no host could.
fn image_locks(reports: &[(String, &HostStoragePool)]) -> Option<Judged> {
    let known = || {
        reports
            .iter()
            .filter_map(|(host, report)| Some((host, report.image_locks?)))
    };
    known().next()?;
    let mut without: Vec<_> = known()
        .filter(|(_, locks)| !locks)
        .map(|(host, _)| host.as_str())
        .collect();
    without.sort_unstable();
    if without.is_empty() {
        let told = "on every host that answers, what one process locks another one is told of";
        return Some(Judged::new("ImageLocks", true, "Work", told));
    }
    let told = format!(
        "on {} a lock of one process is not seen by another: QEMU would not be refused a disk that another QEMU writes; mount spec.path with locks (NFS: without nolock and local_lock)",
        without.join(", ")
    );
    Some(Judged::new("ImageLocks", false, "DoNotWork", told))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool() -> StoragePool {
        serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "StoragePool", "metadata": {"name": "shared"},
            "spec": {"kind": "Directory", "path": "/srv/shared", "shared": true},
        }))
        .expect("a pool")
    }

    fn report(state: &str, locks: Option<bool>) -> HostStoragePool {
        serde_json::from_value(json!({
            "name": "shared", "state": state, "capacityBytes": 4, "availableBytes": 2, "imageLocks": locks,
        }))
        .expect("a report")
    }

    /// Status and message of the condition `ImageLocks`, if there is one.
    fn told(locks: &[Option<bool>]) -> Option<(String, String)> {
        let reports: Vec<_> = locks.iter().map(|locks| report("Ready", *locks)).collect();
        let named = (1..).map(|number| format!("h{number}"));
        let reports: Vec<_> = named.zip(&reports).collect();
        let status = status_of(&pool(), &reports, &[]);
        assert_eq!(status.hosts_ready, format!("{0}/{0}", locks.len()));
        let mut conditions = status.conditions.into_iter();
        let found = conditions.find(|condition| condition.type_ == "ImageLocks")?;
        Some((found.status, found.message))
    }

    #[test]
    fn a_pool_without_image_locks_names_the_hosts() {
        let (status, message) = told(&[Some(true), Some(false), None, Some(false)]).expect("told");
        assert_eq!(status, "False");
        assert!(message.starts_with("on h2, h4 a lock"), "{message}");
    }

    #[test]
    fn a_pool_has_image_locks_when_every_host_that_could_tell_says_so() {
        let (status, _) = told(&[Some(true), None]).expect("told");
        assert_eq!(status, "True");
        assert_eq!(told(&[None, None]), None, "nothing is known");
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn a_lost_pool_is_not_ready_and_its_size_is_that_of_who_reaches_it() {
        let (good, mut lost) = (report("Ready", Some(true)), report("Lost", None));
        lost.message = Some("the storage hangs".to_owned());
        let reports = [("h1".to_owned(), &good), ("h2".to_owned(), &lost)];
        let status = status_of(&pool(), &reports, &[]);
        assert_eq!(status.hosts_ready, "1/2");
        assert_eq!((status.capacity_bytes, status.available_bytes), (4, 2));
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready");
        let ready = ready.expect("told");
        assert_eq!(
            (ready.status.as_str(), ready.message.as_str()),
            ("False", "the storage hangs")
        );
    }

    #[test]
    fn sizes_that_no_number_holds_together_count_as_the_largest() {
        let volume = || -> Arc<Volume> {
            let value = json!({"metadata": {"name": "a", "namespace": "oa"},
                "spec": {"pool": "shared", "size": "4194304Ti"}});
            Arc::new(serde_json::from_value(value).expect("a volume"))
        };
        let volumes: Vec<_> = (0..4).map(|_| volume()).collect();
        let status = status_of(&pool(), &[], &volumes);
        assert_eq!(
            (status.allocated_bytes, status.volumes),
            (i64::MAX, 4),
            "{}",
            status.allocated
        );
    }
}
