//! The hard rules, never relaxed, in the order in which they are told.

use model::{HostName, VmUid};

use crate::fleet::{Fleet, Free, Host, Vm};

/// A rule that removed a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Nothing new may be placed there, and why.
    Closed(String),
    /// Its data lies elsewhere.
    Pinned,
    /// The host's pool does not exist.
    NoPool,
    /// The pool does not serve a zone of its networks.
    Zone,
    /// Another architecture.
    Architecture,
    /// Its system's grade is above the pool's.
    Grade,
    /// A storage pool is not ready there.
    Storage,
    /// Not attached to the business network.
    Network,
    /// A VM that must be apart is there.
    Apart,
    /// Not enough virtual processors.
    Cpu,
    /// Not enough memory.
    Memory,
    /// Starts failed there.
    Avoided,
}

impl Filter {
    /// Why, in few words.
    pub fn english(&self) -> String {
        match self {
            Filter::Closed(why) => why.clone(),
            Filter::Pinned => "its data lies on another host".to_owned(),
            Filter::NoPool => "the host's pool does not exist".to_owned(),
            Filter::Zone => "the pool does not serve the zone of its network".to_owned(),
            Filter::Architecture => "another architecture than its image".to_owned(),
            Filter::Grade => "the pool's MLPS grade is lower than its system's".to_owned(),
            Filter::Storage => "a storage pool of its volumes is not ready there".to_owned(),
            Filter::Network => "not attached to the business network".to_owned(),
            Filter::Apart => "a VM that must be apart is there".to_owned(),
            Filter::Cpu => "not enough CPU".to_owned(),
            Filter::Memory => "not enough memory".to_owned(),
            Filter::Avoided => "a start failed there".to_owned(),
        }
    }
}

/// The first rule that removes a host for a VM; none when it may run there. What the VM
/// itself takes on a host is not counted against it.
pub fn removes(
    fleet: &Fleet,
    uid: &VmUid,
    vm: &Vm,
    name: &HostName,
    host: &Host,
) -> Option<Filter> {
    if let Some(why) = &host.closed {
        return Some(Filter::Closed(why.clone()));
    }
    fits_place(fleet, uid, vm, name, host).or_else(|| fits_size(vm, room(fleet, uid, name, host)))
}

/// Free room with the VM itself left out.
fn room(fleet: &Fleet, uid: &VmUid, name: &HostName, host: &Host) -> Free {
    let mut free = fleet.capacity(host);
    for (_, other) in fleet.on(name).filter(|(other, _)| *other != uid) {
        free.cpu = free.cpu.saturating_sub(other.cpu);
        free.memory_bytes = free.memory_bytes.saturating_sub(other.memory_bytes);
    }
    free
}

/// Rules about where, whatever the room.
pub(crate) fn fits_place(
    fleet: &Fleet,
    uid: &VmUid,
    vm: &Vm,
    name: &HostName,
    host: &Host,
) -> Option<Filter> {
    let Some(pool) = fleet.pools.get(&host.pool) else {
        return Some(Filter::NoPool);
    };
    if vm.pinned_to.as_ref().is_some_and(|pinned| pinned != name) {
        Some(Filter::Pinned)
    } else if !vm.zones.is_subset(&pool.zones) {
        Some(Filter::Zone)
    } else if vm.architecture != pool.architecture {
        Some(Filter::Architecture)
    } else if vm.mlps_grade > pool.mlps_grade {
        Some(Filter::Grade)
    } else if !vm.storage_pools.is_subset(&host.storage_pools) {
        Some(Filter::Storage)
    } else if !host.has_network {
        Some(Filter::Network)
    } else if vm.apart.is_some()
        && fleet
            .on(name)
            .any(|(other, there)| other != uid && there.apart == vm.apart)
    {
        Some(Filter::Apart)
    } else {
        None
    }
}

/// Rules about room.
pub(crate) fn fits_size(vm: &Vm, free: Free) -> Option<Filter> {
    if vm.memory_bytes > free.memory_bytes {
        Some(Filter::Memory)
    } else if vm.cpu > free.cpu {
        Some(Filter::Cpu)
    } else {
        None
    }
}
