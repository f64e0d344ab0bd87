//! What a VM that comes to a host breaks beside those that are there.

use model::HostName;

use super::{concerns, overloaded};
use crate::fleet::{Fleet, Host, Vm};
use crate::rules::Domain;
use crate::storage::StorageRoom;

/// A VM that comes to a host.
pub(super) struct Arrival<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) vm: &'a Vm,
    pub(super) to: &'a HostName,
}

impl<'a> Arrival<'a> {
    /// The host has too little room for it and these.
    pub(super) fn overloads(&self, host: &Host, others: &[&Vm]) -> bool {
        let sum = |size: fn(&Vm) -> u64| {
            let vms = others.iter().copied().chain([self.vm]);
            vms.map(|vm| u128::from(size(vm))).sum::<u128>()
        };
        let pool = self.fleet.pools.get(&host.pool);
        overloaded(host, pool, sum(|vm| vm.cpu), sum(|vm| vm.memory_bytes))
    }

    /// Storage pools that have too little room there for new volumes of it and these. On one that all share a move takes
    /// nothing more.
    pub(super) fn overfills<'b>(&'b self, others: &'b [&Vm]) -> impl Iterator<Item = &'a String> {
        let new = self.vm.new_volumes.iter();
        let overfull = new.filter(move |(pool, bytes)| {
            let Some(StorageRoom::PerHost(rooms)) = self.fleet.storage.get(*pool) else {
                return false;
            };
            let others = others.iter().filter_map(|vm| vm.new_volumes.get(*pool));
            let sum: u128 = others.chain([*bytes]).map(|bytes| u128::from(*bytes)).sum();
            rooms
                .get(self.to)
                .is_some_and(|room| sum > u128::from(*room))
        });
        overfull.map(|(pool, _)| pool)
    }

    /// A host is the same one, or stands in its rack.
    pub(super) fn is_near(&self, name: &HostName) -> bool {
        let rack = self.fleet.racks.get(self.to);
        name == self.to || rack.is_some() && self.fleet.racks.get(name) == rack
    }

    /// It must be apart from a VM that is on a host near by.
    pub(super) fn meets(&self, other: &Vm, on: &HostName) -> bool {
        self.vm.rules.apart.iter().any(|mine| {
            let near = mine.over == Domain::Rack || on == self.to;
            near && other.rules.apart.iter().any(|their| {
                (&mine.rule, mine.over) == (&their.rule, their.over)
                    && concerns(mine.side, their.side)
            })
        })
    }
}
