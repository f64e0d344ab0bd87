//! What new volumes of VMs take of storage pools.

use std::collections::{BTreeMap, BTreeSet};

use model::VmUid;

use super::Engine;
use super::kinds::number;
use crate::fleet::Vm;
use crate::storage::StorageRoom;

/// Bytes by pool, and by host where a pool is not shared. A VM on the way counts once on a shared pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Promised {
    shared: BTreeMap<String, u128>,
    by_host: BTreeMap<(u32, String), u128>,
}

fn count<K: Ord>(sums: &mut BTreeMap<K, u128>, key: K, bytes: u128, there: bool) {
    let sum = sums.entry(key).or_default();
    *sum = if there {
        *sum + bytes
    } else {
        sum.saturating_sub(bytes)
    };
}

impl Engine {
    /// Counts the new volumes of a VM where it is, or (`false`) no more.
    pub(super) fn promise(&mut self, uid: &VmUid, there: bool) {
        let Some(vm) = self
            .fleet
            .vms
            .get(uid)
            .filter(|vm| !vm.new_volumes.is_empty())
        else {
            return;
        };
        let hosts: Vec<u32> = vm.places().filter_map(|name| self.number(name)).collect();
        for (pool, bytes) in &vm.new_volumes {
            if !hosts.is_empty() {
                count(
                    &mut self.promised.shared,
                    pool.clone(),
                    (*bytes).into(),
                    there,
                );
            }
            for host in &hosts {
                let key = (*host, pool.clone());
                count(&mut self.promised.by_host, key, (*bytes).into(), there);
            }
        }
    }

    /// What VMs of a set are counted for, on one pool.
    fn own(&self, pool: &str, host: Option<u32>, set: &BTreeSet<u32>) -> u128 {
        let vms = set.iter().filter_map(|vm| self.machine(&self.vm(*vm).uid));
        let counted = vms.filter(|vm| {
            let mut places = vm.places().filter_map(|name| self.number(name));
            places.any(|place| host.is_none_or(|host| host == place))
        });
        let bytes = |vm: &Vm| vm.new_volumes.get(pool).copied().unwrap_or(0);
        counted.map(|vm| u128::from(bytes(vm))).sum()
    }

    /// Whether a pool has too little room on a host for these new volumes, with what VMs of a set
    /// take left out.
    pub(super) fn lacks_storage(
        &self,
        wanted: &BTreeMap<String, u64>,
        host: u32,
        but: &BTreeSet<u32>,
    ) -> bool {
        let name = &self.host(host).name;
        wanted.iter().any(|(pool, bytes)| {
            let Some(room) = self.fleet.storage.get(pool) else {
                return false;
            };
            let (promised, own) = match room {
                StorageRoom::Shared(_) => {
                    let promised = self.promised.shared.get(pool);
                    (promised, self.own(pool, None, but))
                }
                StorageRoom::PerHost(_) => {
                    let promised = self.promised.by_host.get(&(host, pool.clone()));
                    (promised, self.own(pool, Some(host), but))
                }
            };
            let others = promised.copied().unwrap_or(0).saturating_sub(own);
            room.on(name)
                .is_some_and(|room| others + u128::from(*bytes) > room.into())
        })
    }

    /// A volume of a VM is to be made on a pool that hosts do not share: it will lie on one host.
    pub(super) fn will_be_pinned(&self, vm: &Vm) -> bool {
        vm.new_volumes.keys().any(|pool| {
            let pool = self.fleet.storage.get(pool);
            matches!(pool, Some(StorageRoom::PerHost(_)))
        })
    }

    /// Whether one of these VMs has volumes that are not made yet.
    pub(crate) fn any_new_volumes(&self, vms: &[u32]) -> bool {
        let mut vms = vms.iter().filter_map(|vm| self.machine(&self.vm(*vm).uid));
        vms.any(|vm| !vm.new_volumes.is_empty())
    }

    /// Changes what a storage pool may still promise; none: it is not judged.
    pub fn set_storage(&mut self, pool: String, room: Option<StorageRoom>) {
        let known = self.fleet.storage.get(&pool);
        if known == room.as_ref() {
            return;
        }
        // Whether a VM will be pinned is looked at when N+1 is proven.
        let kind = |room: Option<&StorageRoom>| room.map(std::mem::discriminant);
        let same = kind(known) == kind(room.as_ref());
        match room {
            Some(room) => drop(self.fleet.storage.insert(pool, room)),
            None => drop(self.fleet.storage.remove(&pool)),
        }
        self.clock += 1;
        if !same {
            for host in 0..number(self.hosts.len()) {
                self.with_host(host, |slot| slot.relieved = slot.changed);
            }
        }
    }

    /// The same for all pools.
    pub(super) fn sync_storage(&mut self, storage: BTreeMap<String, StorageRoom>) {
        let known: Vec<String> = self.fleet.storage.keys().cloned().collect();
        for pool in known {
            if !storage.contains_key(&pool) {
                self.set_storage(pool, None);
            }
        }
        for (pool, room) in storage {
            self.set_storage(pool, Some(room));
        }
    }
}
