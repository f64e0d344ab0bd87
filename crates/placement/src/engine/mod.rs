//! A fleet with indexes that are kept between questions: a question about one VM never reads
//! the whole fleet.
//!
//! Open hosts that every rule about places treats alike (same pool, storage pools, networks that are not
//! ready) form a *kind*; VMs that ask alike (same zones, architecture, grade, storage pools, networks) form
//! a *class*. Whether a class may run on a kind is worked out once. Within a kind, hosts lie on a
//! [`shelf`] by free memory. What remains per VM are its rules about other VMs ([`groups`]) and
//! where its data lies.
//!
//! `numbers` are private to the engine and depend on its history, so they never break a tie:
//! hosts are compared by `rank`, which follows their names.

mod deltas;
mod groups;
mod kinds;
mod place;
mod shelf;
mod storage;

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::fleet::{Fleet, Free, Vm};
use crate::headroom::Proofs;

use groups::{Groups, Wish};
pub(crate) use groups::{Member, SIDES};
use kinds::Kinds;
use shelf::Entry;
use storage::Promised;

/// What the engine knows of a host.
#[derive(Clone, Debug)]
pub(crate) struct HostSlot {
    pub name: HostName,
    /// Follows the order of names.
    pub rank: u64,
    /// Number of its rack; none when it declares none.
    pub rack: Option<u32>,
    /// Its kind; none while it is closed, or named by a VM only.
    pub kind: Option<u32>,
    pub capacity: Free,
    /// Sums of what is on it. Wide, because a VM of unreadable size counts as enormous.
    used_cpu: u128,
    used_memory: u128,
    /// Numbers of the VMs that take room on it, ascending.
    pub vms: Vec<u32>,
    /// The engine's clock when anything of it last changed.
    pub changed: u64,
    /// The engine's clock when it last offered more than before, or other VMs.
    pub relieved: u64,
}

impl HostSlot {
    pub(crate) fn free(&self) -> Free {
        let rest = |capacity: u64, used: u128| {
            u64::try_from(u128::from(capacity).saturating_sub(used)).unwrap_or(0)
        };
        Free {
            cpu: rest(self.capacity.cpu, self.used_cpu),
            memory_bytes: rest(self.capacity.memory_bytes, self.used_memory),
        }
    }

    /// What is on it, also where that is more than it has.
    pub(crate) fn used(&self) -> Free {
        Free {
            cpu: u64::try_from(self.used_cpu).unwrap_or(u64::MAX),
            memory_bytes: u64::try_from(self.used_memory).unwrap_or(u64::MAX),
        }
    }

    /// What it would offer if that much more (or, with `freed`, less) were on it.
    pub(crate) fn free_without(&self, freed: Free) -> Free {
        let mut other = Self {
            name: HostName(String::new()),
            vms: Vec::new(),
            ..*self
        };
        other.used_cpu = other.used_cpu.saturating_sub(u128::from(freed.cpu));
        other.used_memory = other
            .used_memory
            .saturating_sub(u128::from(freed.memory_bytes));
        other.free()
    }
}

/// What the engine knows of a VM.
#[derive(Clone, Debug)]
pub(crate) struct VmSlot {
    pub uid: VmUid,
    pub class: u32,
    /// Its class when it starts anew, and no running copy asks for a processor model.
    pub start_class: u32,
    pub size: Free,
    /// Rules that keep it apart from others.
    pub apart: Box<[Member]>,
    /// Rules that hold where there is a choice.
    wishes: Box<[Wish]>,
    /// Number of the group whose VMs share a host.
    pub bundle: Option<u32>,
}

impl VmSlot {
    /// No rule ties it to other VMs or keeps it from them.
    pub(crate) fn is_alone(&self) -> bool {
        self.apart.is_empty() && self.bundle.is_none()
    }
}

/// A fleet with indexes; see the module's header.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    fleet: Fleet,
    hosts: Vec<HostSlot>,
    host_numbers: BTreeMap<HostName, u32>,
    vms: Vec<VmSlot>,
    vm_numbers: BTreeMap<VmUid, u32>,
    /// Numbers of removed VMs, to be used again.
    unused: Vec<u32>,
    kinds: Kinds,
    groups: Groups,
    /// How many rules there were when everything was last indexed anew.
    groups_then: usize,
    rack_numbers: BTreeMap<String, u32>,
    /// By rack: its hosts.
    rack_hosts: Vec<BTreeSet<u32>>,
    /// What new volumes take.
    promised: Promised,
    /// Closed hosts, by reason.
    closed: BTreeMap<String, u32>,
    /// Hosts of each pool, by name.
    pools: BTreeMap<String, BTreeMap<HostName, u32>>,
    /// Steps with every change.
    clock: u64,
    /// The clock when a host last went away.
    relieved: u64,
    /// What is known of the failures of hosts.
    pub(crate) proofs: Proofs,
}

impl Engine {
    /// Indexes a fleet.
    pub fn new(fleet: Fleet) -> Self {
        let mut engine = Self {
            fleet: Fleet {
                pools: fleet.pools,
                racks: fleet.racks,
                storage: fleet.storage,
                ..Fleet::default()
            },
            // Nothing is forgotten, and so nothing indexed anew, before everything is there.
            groups_then: usize::MAX / 4,
            ..Self::default()
        };
        for (name, host) in fleet.hosts {
            engine.upsert_host(name, host);
        }
        for (uid, vm) in fleet.vms {
            engine.upsert_vm(uid, vm);
        }
        engine.groups_then = engine.groups.len();
        engine
    }

    /// The fleet as it is now.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The fleet, without the indexes.
    pub fn into_fleet(self) -> Fleet {
        self.fleet
    }

    pub(crate) fn number(&self, name: &HostName) -> Option<u32> {
        self.host_numbers.get(name).copied()
    }

    pub(crate) fn host(&self, number: u32) -> &HostSlot {
        &self.hosts[number as usize]
    }

    pub(crate) fn vm(&self, number: u32) -> &VmSlot {
        &self.vms[number as usize]
    }

    pub(crate) fn vm_number(&self, uid: &VmUid) -> Option<u32> {
        self.vm_numbers.get(uid).copied()
    }

    /// VMs that take room on a host, by uid.
    pub fn on(&self, name: &HostName) -> Vec<&VmUid> {
        let slot = self.number(name).map(|number| self.host(number));
        let mut uids: Vec<&VmUid> = slot
            .into_iter()
            .flat_map(|slot| &slot.vms)
            .map(|vm| &self.vm(*vm).uid)
            .collect();
        uids.sort();
        uids
    }

    /// What VMs take on a host, also where that is more than it has, as after its pool promises less than before;
    /// none when it is not of the fleet.
    pub fn used(&self, name: &HostName) -> Option<Free> {
        self.fleet.hosts.get(name)?;
        Some(self.host(self.number(name)?).used())
    }

    /// Steps with every change.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The clock when a host of any pool last went away.
    pub(crate) fn relieved(&self) -> u64 {
        self.relieved
    }

    /// Whether the rules that look only at the kind of host allow a class there.
    pub(crate) fn class_allows(&self, class: u32, kind: u32) -> bool {
        self.kinds.removes(class, kind).is_none()
    }

    /// The same for all classes that are allowed the same kinds, as long as there is no new kind.
    pub(crate) fn class_reach(&self, class: u32) -> u32 {
        self.kinds.reach(class)
    }

    /// Hosts of a pool with their numbers, by name.
    pub(crate) fn pool_hosts(&self, pool: &str) -> impl Iterator<Item = (&HostName, u32)> {
        let hosts = self.pools.get(pool);
        hosts
            .into_iter()
            .flatten()
            .map(|(name, number)| (name, *number))
    }

    /// Those of a pool of which N+1 must survive the failure: a closed one too, as long as a VM is assigned there. It is
    /// no spare for others, and the likeliest to fail.
    pub(crate) fn failing_hosts(&self, pool: &str) -> impl Iterator<Item = (&HostName, u32)> {
        let carries = |name: &HostName, number: u32| {
            let mut on = self.host(number).vms.iter();
            on.any(|vm| {
                let machine = self.machine(&self.vm(*vm).uid);
                machine.is_some_and(|machine| machine.host.as_ref() == Some(name))
            })
        };
        self.pool_hosts(pool).filter(move |(name, number)| {
            let host = self.fleet.hosts.get(*name);
            host.is_some_and(|host| host.may_fail && (host.stands || carries(name, *number)))
        })
    }

    /// Those of a pool that stand: VMs that are lost elsewhere may come here.
    pub(crate) fn standing_hosts(&self, pool: &str) -> impl Iterator<Item = (&HostName, u32)> {
        let stands = |name: &HostName| {
            let host = self.fleet.hosts.get(name);
            host.is_some_and(|host| host.stands)
        };
        self.pool_hosts(pool).filter(move |(name, _)| stands(name))
    }

    /// VMs of a set that are on a host.
    fn among<'a>(&'a self, host: u32, vms: &'a BTreeSet<u32>) -> impl Iterator<Item = &'a VmSlot> {
        let there = &self.host(host).vms;
        vms.iter()
            .filter(|vm| there.binary_search(vm).is_ok())
            .map(|vm| self.vm(*vm))
    }

    /// What VMs of a set take on a host.
    pub(crate) fn sum_on(&self, host: u32, vms: &BTreeSet<u32>) -> Free {
        self.among(host, vms)
            .fold(Free::default(), |sum, slot| Free {
                cpu: sum.cpu.saturating_add(slot.size.cpu),
                memory_bytes: sum.memory_bytes.saturating_add(slot.size.memory_bytes),
            })
    }

    /// Hosts on which a VM takes room, other than these.
    pub(crate) fn other_places(&self, vm: u32, but: &BTreeSet<u32>) -> Vec<u32> {
        let machine = self.machine(&self.vm(vm).uid);
        let places = machine.into_iter().flat_map(Vm::places);
        places
            .filter_map(|name| self.number(name))
            .filter(|host| !but.contains(host))
            .collect()
    }

    fn entry(&self, number: u32) -> Entry {
        let slot = self.host(number);
        Entry {
            free: slot.free(),
            rank: slot.rank,
            host: number,
        }
    }

    /// Changes a host while it is off its shelf.
    fn with_host(&mut self, number: u32, change: impl FnOnce(&mut HostSlot)) {
        let kind = self.host(number).kind;
        if let Some(kind) = kind {
            let entry = self.entry(number);
            self.kinds.shelf(kind).remove(&entry);
        }
        self.clock += 1;
        let slot = &mut self.hosts[number as usize];
        slot.changed = self.clock;
        change(slot);
        if let Some(kind) = self.host(number).kind {
            let entry = self.entry(number);
            self.kinds.shelf(kind).insert(entry);
        }
    }

    /// The VM itself takes room on a host from now on, or (`false`) no more.
    fn occupy(&mut self, vm: u32, host: u32, there: bool) {
        let size = self.vms[vm as usize].size;
        self.with_host(host, |slot| {
            let (cpu, memory) = (u128::from(size.cpu), u128::from(size.memory_bytes));
            match (slot.vms.binary_search(&vm), there) {
                (Err(at), true) => {
                    slot.vms.insert(at, vm);
                    slot.used_cpu += cpu;
                    slot.used_memory += memory;
                }
                (Ok(at), false) => {
                    slot.relieved = slot.changed;
                    slot.vms.remove(at);
                    slot.used_cpu -= cpu;
                    slot.used_memory -= memory;
                }
                _ => {}
            }
        });
        self.count(vm, host, there);
    }

    /// A VM of the fleet.
    pub(crate) fn machine(&self, uid: &VmUid) -> Option<&Vm> {
        self.fleet.vms.get(uid).map(AsRef::as_ref)
    }
}
