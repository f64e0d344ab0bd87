//! Where a volume is made, and whether its pool still has room: a pool that hosts do not share ties the
//! VM to the host of its volumes, so `placement` chooses that host for the VM as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{StoragePool, VirtualMachine, Volume};
use fleet::storage::{is_promised, size};
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
    /// Volumes whose last write is not seen yet.
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
            if !context.writer.settled(volume.as_ref()) {
                rooms.unsettled.insert(key(volume));
                if !is_promised(volume) {
                    // It may have been promised a moment ago.
                    rooms.take(&volume.spec.pool, None, size(volume));
                }
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
        let none = || Wait::Told(format!("no Ready host reaches pool {}", volume.spec.pool));
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
        if volumes
            .iter()
            .any(|other| self.unsettled.contains(&key(other)))
        {
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

fn full(volume: &Volume, pool: &StoragePool, host: &str, room: u64) -> String {
    let (name, percent) = (pool.name_any(), pool.spec.overcommit_percent);
    let place = match pool.spec.shared {
        true => String::new(),
        false => format!(" on host {host}"),
    };
    format!(
        "spec.size: {} is more than the {:.1} GiB that pool {name} may still promise{place}; add storage to the pool, remove volumes, or raise its spec.overcommitPercent ({percent})",
        volume.spec.size,
        room as f64 / f64::from(1 << 30)
    )
}
