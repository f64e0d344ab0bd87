//! The snapshot that every question is answered from.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Names;
use crate::rules::Rules;
use crate::storage::StorageRoom;
use model::{Architecture, HostName, NamespacedName, VmUid, Zone};

/// Hosts that can stand in for one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Zones served.
    pub zones: BTreeSet<Zone>,
    /// Architecture.
    pub architecture: Architecture,
    /// Processor model that every VM is started with; none: the host's own.
    pub cpu_model: Option<String>,
    /// Virtual processors per hundred logical ones.
    pub cpu_overcommit_percent: u64,
    /// Memory promised per hundred bytes.
    pub memory_overcommit_percent: u64,
    /// Host failures that every VM must survive.
    pub failures_to_tolerate: u32,
    /// Highest MLPS grade.
    pub mlps_grade: i32,
}

impl Pool {
    /// What an empty host of the pool offers, overcommit included.
    pub fn capacity(&self, host: &Host) -> Free {
        let percent = |value: u64, percent: u64| {
            let promised = u128::from(value) * u128::from(percent) / 100;
            u64::try_from(promised).unwrap_or(u64::MAX)
        };
        Free {
            cpu: percent(host.cpu, self.cpu_overcommit_percent),
            memory_bytes: percent(host.memory_bytes, self.memory_overcommit_percent),
        }
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its pool.
    pub pool: String,
    /// Why nothing new may be placed here; none when it may.
    pub closed: Option<String>,
    /// VMs on it have a place: who must share their host follows them, which is no use where nothing new may be placed.
    pub stands: bool,
    /// Its failure is yet to come, whether it is open or closed. Not so of one that is lost, of which the VMs are being
    /// recovered, nor of one that is asked about as already gone.
    pub may_fail: bool,
    /// Logical processors.
    pub cpu: u64,
    /// Memory for VMs, bytes.
    pub memory_bytes: u64,
    /// Storage pools that it reports ready.
    pub storage_pools: BTreeSet<String>,
    /// It has a tunnel end point: VXLAN networks reach it.
    pub has_tunnels: bool,
    /// Networks that it says it can not carry now. Of those that it does not name nothing is known: a host
    /// tells only of networks that somebody needed there.
    pub unready_networks: BTreeSet<String>,
    /// Processor models that it can give guests, of those that pools or VMs name; none: it does not
    /// tell, and is not judged.
    pub cpu_models: Option<BTreeSet<String>>,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: NamespacedName,
    /// Virtual processors.
    pub cpu: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Zones of its networks; all must be served.
    pub zones: BTreeSet<Zone>,
    /// Its networks; none may be unready on its host.
    pub networks: Names,
    /// One of its networks is a VXLAN, which only a host with a tunnel end point carries.
    pub needs_tunnels: bool,
    /// Architecture of its image.
    pub architecture: Architecture,
    /// Processor models that its running copy sees: it moves only to hosts that offer them. Empty when
    /// it does not run; a copy that starts anew is given its pool's.
    pub runs_with: Names,
    /// Storage pools of its volumes.
    pub storage_pools: Names,
    /// Bytes of its volumes that are not made yet, by storage pool; the others are where they are.
    pub new_volumes: BTreeMap<String, u64>,
    /// The only host that has its data.
    pub pinned_to: Option<HostName>,
    /// MLPS grade of its system.
    pub mlps_grade: i32,
    /// Its part in rules about other VMs.
    pub rules: Rules,
    /// It restarts elsewhere when its host fails.
    pub restarts_elsewhere: bool,
    /// Where it is assigned.
    pub host: Option<HostName>,
    /// Where it is moving to: it counts on both.
    pub incoming: Option<HostName>,
}

impl Vm {
    /// Hosts on which it takes room: where it is, and where it is moving to.
    pub fn places(&self) -> impl Iterator<Item = &HostName> {
        let incoming = self
            .incoming
            .as_ref()
            .filter(|to| self.host.as_ref() != Some(to));
        self.host.iter().chain(incoming)
    }
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Hosts by name.
    pub hosts: BTreeMap<HostName, Host>,
    /// VMs by uid. Boxed: the nodes of a map that grew in order are half empty.
    pub vms: BTreeMap<VmUid, Box<Vm>>,
    /// The rack of each host that declares one: a rack fails as a whole.
    pub racks: BTreeMap<HostName, String>,
    /// What storage pools may still promise to new volumes; one that is not named is not judged.
    pub storage: BTreeMap<String, StorageRoom>,
}

/// What a host still offers, overcommit included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Free {
    /// Virtual processors.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Fleet {
    /// The VM's name for people, with its namespace: names are unique in one only. Its uid if it is unknown.
    pub fn name_of(&self, uid: &VmUid) -> String {
        let vm = self.vms.get(uid);
        vm.map_or_else(|| uid.to_string(), |vm| vm.name.to_string())
    }

    /// VMs that take room on a host: assigned, or on their way.
    pub fn on<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = (&'a VmUid, &'a Vm)> {
        let vms = self.vms.iter().map(|(uid, vm)| (uid, vm.as_ref()));
        vms.filter(move |(_, vm)| {
            vm.host.as_ref() == Some(host) || vm.incoming.as_ref() == Some(host)
        })
    }

    /// What an empty host of that kind offers.
    pub fn capacity(&self, host: &Host) -> Free {
        self.pools
            .get(&host.pool)
            .map_or_else(Free::default, |pool| pool.capacity(host))
    }

    /// What a host still offers.
    pub fn free(&self, name: &HostName, host: &Host) -> Free {
        let mut free = self.capacity(host);
        for (_, vm) in self.on(name) {
            free.cpu = free.cpu.saturating_sub(vm.cpu);
            free.memory_bytes = free.memory_bytes.saturating_sub(vm.memory_bytes);
        }
        free
    }
}
