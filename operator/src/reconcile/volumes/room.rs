//! Where a volume is made, and whether its pool still has room: a pool that hosts do not share ties the
//! VM to the host of its volumes, so `placement` chooses that host for the VM as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{StoragePool, VirtualMachine, Volume};
use fleet::storage::{is_promised, promised_to, size};
use kube::ResourceExt;
use model::HostName;
use placement::{Engine, StorageRoom};

use crate::door;
use crate::runtime::Context;

/// What pools may still promise in this turn, and the fleet as it will be with what was chosen.
pub(super) struct Rooms {
    rooms: BTreeMap<String, StorageRoom>,
    /// Made only when a VM's local volumes are to be made.
    engine: Option<Engine>,
    /// Volumes whose last write is not seen yet, or may have been made.
    unsettled: BTreeSet<(String, String)>,
}

fn key(volume: &Volume) -> (String, String) {
    (volume.namespace().unwrap_or_default(), volume.name_any())
}

/// Why a volume is not made now.
pub(super) enum Wait {
    /// Told to its owner.
    Told(String),
    /// A write of a moment ago is not seen yet.
    Unsettled,
}

impl Rooms {
    pub(super) async fn of(context: &Context) -> Self {
        let objects = door::objects(context);
        let mut rooms = Self {
            rooms: fleet::storage::rooms(&objects),
            engine: None,
            unsettled: BTreeSet::new(),
        };
        let local = |pool: &String| matches!(rooms.rooms.get(pool), Some(StorageRoom::PerHost(_)));
        let waits = |volume: &Arc<Volume>| !is_promised(volume) && local(&volume.spec.pool);
        let needed = objects.volumes.iter().any(waits);
        for volume in &objects.volumes {
            if context.writer.may_be_older(volume.as_ref()) {
                rooms.unsettled.insert(key(volume));
            }
            if !context.writer.settled(volume.as_ref()) {
                // Its size may have been promised a moment ago.
                let known = if is_promised(volume) {
                    promised_to(volume)
                } else {
                    0
                };
                let more = size(volume).saturating_sub(known);
                rooms.take(&volume.spec.pool, None, more);
            }
        }
        if needed && let Some(engine) = context.planner.read().await {
            rooms.engine = Some(reserved(&engine));
        }
        rooms
    }

    /// A host that makes a volume; what it takes is taken off for those that follow.
    pub(super) fn choose(
        &mut self,
        context: &Context,
        volume: &Volume,
        pool: &StoragePool,
        able: &[String],
    ) -> Result<String, Wait> {
        let none = || Wait::Told(super::no_host(&volume.spec.pool));
        let pinned = volume
            .status
            .as_ref()
            .and_then(|status| status.pinned_host.clone());
        if let Some(pinned) = pinned {
            // It was promised there; the host that had the job died.
            return able
                .iter()
                .find(|host| **host == pinned)
                .cloned()
                .ok_or_else(none);
        }
        let host = match pool.spec.shared {
            true => super::spread(able, volume).ok_or_else(none)?,
            false => self.local(context, volume, able)?.ok_or_else(none)?,
        };
        if is_promised(volume) {
            // Its room was taken off when it was; the host that had the job died.
            return Ok(host);
        }
        let (name, bytes) = (pool.name_any(), size(volume));
        let room = self.rooms.get(&name);
        let room = room.and_then(|room| room.on(&HostName(host.clone())));
        if let Some(room) = room.filter(|room| bytes > *room) {
            return Err(Wait::Told(full(volume, pool, &host, room)));
        }
        self.take(&name, Some(&host), bytes);
        Ok(host)
    }

    /// Takes what a volume grows by off its pool, on the host that has its data or on whichever it may be.
    pub(super) fn grow(&mut self, volume: &Volume, pool: &StoragePool) -> Result<(), Wait> {
        let status = volume.status.as_ref();
        let host = status.and_then(|status| status.pinned_host.clone());
        let (name, more) = (
            pool.name_any(),
            size(volume).saturating_sub(promised_to(volume)),
        );
        let place = HostName(host.clone().unwrap_or_default());
        let room = self.rooms.get(&name).and_then(|room| room.on(&place));
        if let Some(room) = room.filter(|room| more > *room) {
            let has = promised_to(volume);
            return Err(Wait::Told(no_growth(
                volume,
                pool,
                host.as_deref(),
                (has, room),
            )));
        }
        self.take(&name, host.as_deref(), more);
        Ok(())
    }

    /// The host of a VM's local volumes: where others of it lie, else where the VM fits best.
    fn local(
        &mut self,
        context: &Context,
        volume: &Volume,
        able: &[String],
    ) -> Result<Option<String>, Wait> {
        let Some(vm) = owner(context, volume) else {
            return Ok(self.roomiest(volume, able));
        };
        let volumes = crate::vms::volumes_of(context, &vm).unwrap_or_default();
        let own = key(volume);
        let mut others = volumes.iter().map(|other| key(other));
        if others.any(|other| self.comes_first(&other, &own)) {
            return Err(Wait::Unsettled);
        }
        let beside = volumes.iter().find_map(|other| {
            let status = other.status.as_ref()?;
            status.pinned_host.clone()
        });
        if let Some(beside) = beside {
            return Ok(able.iter().find(|host| **host == beside).cloned());
        }
        let uid = door::uid(&vm);
        let Some(engine) = self.engine.as_mut() else {
            return Err(Wait::Unsettled);
        };
        let chosen = engine.fleet().vms.get(&uid).and_then(|vm| vm.host.clone());
        let host = match chosen {
            Some(host) => host,
            None => {
                let choice = engine.place(&uid, &BTreeSet::new());
                let choice = choice.map_err(|refusal| Wait::Told(refusal.sentence()))?;
                engine.assign(&uid, &choice.host);
                choice.host
            }
        };
        Ok(able.iter().find(|able| **able == host.as_str()).cloned())
    }

    /// Whether a host is chosen for a volume only when another one's last write is seen. Of two whose writes may have been
    /// made one goes on: its next write tells.
    fn comes_first(&self, other: &(String, String), volume: &(String, String)) -> bool {
        let goes_on = self.unsettled.contains(volume) && volume < other;
        other != volume && self.unsettled.contains(other) && !goes_on
    }

    /// The host with the most room, ties by name: for a volume that no VM names.
    fn roomiest(&self, volume: &Volume, able: &[String]) -> Option<String> {
        let room = self.rooms.get(&volume.spec.pool);
        let left = |host: &String| room.and_then(|room| room.on(&HostName(host.clone())));
        let mut hosts = able.iter().collect::<Vec<_>>();
        hosts.sort_by_key(|host| (std::cmp::Reverse(left(host)), (*host).clone()));
        hosts.first().map(|host| (*host).clone())
    }

    /// Takes bytes off a pool, on one host or on whichever it may be.
    fn take(&mut self, pool: &str, host: Option<&str>, bytes: u64) {
        match self.rooms.get_mut(pool) {
            Some(StorageRoom::Shared(room)) => *room = room.saturating_sub(bytes),
            Some(StorageRoom::PerHost(rooms)) => {
                let there = rooms
                    .iter_mut()
                    .filter(|(name, _)| host.is_none_or(|host| name.as_str() == host));
                there.for_each(|(_, room)| *room = room.saturating_sub(bytes));
            }
            None => {}
        }
    }
}

/// The fleet with every VM that waits for its only host counted there: its room is not given away.
fn reserved(engine: &Engine) -> Engine {
    let mut engine = engine.clone();
    let waiting: Vec<_> = engine
        .fleet()
        .vms
        .iter()
        .filter(|(_, vm)| vm.host.is_none())
        .filter_map(|(uid, vm)| Some((uid.clone(), vm.pinned_to.clone()?)))
        .collect();
    for (uid, host) in waiting {
        engine.assign(&uid, &host);
    }
    engine
}

fn owner(context: &Context, volume: &Volume) -> Option<Arc<VirtualMachine>> {
    let vms = context.stores.vms.state();
    vms.into_iter().find(|vm| {
        let mut disks = vm.spec.disks.iter();
        vm.namespace() == volume.namespace() && disks.any(|disk| disk.volume == volume.name_any())
    })
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn full(volume: &Volume, pool: &StoragePool, host: &str, room: u64) -> String {
    let (name, percent) = (pool.name_any(), pool.spec.overcommit_percent);
    let place = match pool.spec.shared {
        true => String::new(),
        false => format!(" on host {host}"),
    };
    format!(
        "spec.size: {} is more than the {:.1} GiB that pool {name} may still promise{place}; add storage to the pool, remove volumes, or raise its spec.overcommitPercent ({percent})",
        volume.spec.size,
        gibibytes(room)
    )
}

/// Why a volume does not grow, which has and keeps so many bytes.
fn no_growth(
    volume: &Volume,
    pool: &StoragePool,
    host: Option<&str>,
    (has, room): (u64, u64),
) -> String {
    let (name, percent) = (pool.name_any(), pool.spec.overcommit_percent);
    let place = host.map_or_else(String::new, |host| format!(" on host {host}"));
    format!(
        "spec.size: {} is {:.1} GiB more than the volume has, and pool {name} may still promise {:.1} GiB{place}; the volume stays as it is: add storage to the pool, remove volumes, raise its spec.overcommitPercent ({percent}), or set spec.size back",
        volume.spec.size,
        gibibytes(size(volume).saturating_sub(has)),
        gibibytes(room)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GIB: u64 = 1 << 30;

    fn rooms(room: StorageRoom) -> Rooms {
        Rooms {
            rooms: BTreeMap::from([("bulk".to_owned(), room)]),
            engine: None,
            unsettled: BTreeSet::new(),
        }
    }

    /// A volume of 10 GiB that is to have `size`.
    fn volume(size: &str, pinned: Option<&str>) -> Volume {
        let right = json!({"host": "h1", "bootId": "b", "epoch": 1});
        let value = json!({"metadata": {"name": "v", "namespace": "oa"}, "spec": {"pool": "bulk", "size": size},
            "status": {"lastJob": 1, "phase": "Ready", "pinnedHost": pinned,
                "reported": {"assignment": right, "phase": "Done", "sizeBytes": 10 * GIB}}});
        serde_json::from_value(value).expect("a volume")
    }

    fn pool(shared: bool) -> StoragePool {
        let value = json!({"metadata": {"name": "bulk"}, "spec": {"kind": "Directory", "path": "/srv/x",
            "shared": shared, "overcommitPercent": 120}});
        serde_json::from_value(value).expect("a pool")
    }

    fn told(answer: Result<(), Wait>) -> String {
        match answer {
            Err(Wait::Told(why)) => why,
            Err(Wait::Unsettled) => "unsettled".to_owned(),
            Ok(()) => String::new(),
        }
    }

    #[test]
    fn a_growth_takes_what_is_more_and_is_refused_when_the_pool_has_not_that_much() {
        let mut rooms = rooms(StorageRoom::Shared(30 * GIB));
        let mut grow = |size| told(rooms.grow(&volume(size, None), &pool(true)));
        assert_eq!(grow("30Gi"), "");
        assert_eq!(
            grow("21Gi"),
            "spec.size: 21Gi is 11.0 GiB more than the volume has, and pool bulk may still promise 10.0 GiB; the volume stays as it is: add storage to the pool, remove volumes, raise its spec.overcommitPercent (120), or set spec.size back"
        );
        assert_eq!(grow("20Gi"), "");
        assert!(grow("11Gi").contains("may still promise 0.0 GiB"));
    }

    #[test]
    fn a_local_volume_grows_on_its_own_host_only() {
        let hosts = [("h1".into(), 5 * GIB), ("h2".into(), 500 * GIB)];
        let mut rooms = rooms(StorageRoom::PerHost(hosts.into()));
        let mut grow = |size, host| told(rooms.grow(&volume(size, Some(host)), &pool(false)));
        assert!(grow("16Gi", "h1").contains("5.0 GiB on host h1;"));
        assert_eq!(grow("15Gi", "h1"), "");
        assert_eq!(grow("500Gi", "h2"), "");
        assert_eq!(grow("500Gi", "h3"), "", "nobody tells its capacity");
    }
}
