//! `place` from the indexes: the same answer as [`crate::place()`], which defines it.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, Priority, VmUid};

use super::kinds::number;
use super::{Engine, VmSlot};
use crate::filter::{Filter, There, judge};
use crate::fleet::{Free, Vm};
use crate::place::{Choice, Refusal};

/// A host that fits: not avoided, free memory, and its rank for ties.
type Candidate = (bool, u64, std::cmp::Reverse<u64>, u32);

impl Engine {
    /// Chooses a host for a VM of the fleet; `avoid` are hosts on which starts failed, used
    /// only when nothing else is left.
    ///
    /// # Errors
    /// How many hosts each rule removed.
    pub fn place(&self, uid: &VmUid, avoid: &BTreeSet<HostName>) -> Result<Choice, Refusal> {
        let (Some(vm), Some(slot)) = (self.machine(uid), self.vm_number(uid)) else {
            return Err(Refusal::default());
        };
        let slot = self.vm(slot);
        let own: Vec<u32> = vm.places().filter_map(|name| self.number(name)).collect();
        let mut best = self.own_hosts(vm, slot, &own, avoid);
        match &vm.pinned_to {
            Some(pinned) => {
                let there = self.number(pinned).filter(|there| !own.contains(there));
                best = best.max(there.and_then(|host| self.judged(vm, slot, host, false, avoid)));
            }
            None => {
                for (_, shelf) in self.kinds.allowed(slot.class) {
                    let free_of_mates = |host: u32| {
                        !own.contains(&host)
                            && slot
                                .group
                                .is_none_or(|group| self.group_on(group, host) == 0)
                    };
                    let fitting = shelf
                        .fitting(slot.size)
                        .filter(|entry| free_of_mates(entry.host));
                    // The first that is not avoided is the best; the first of all is what is
                    // left when each is avoided.
                    for entry in fitting {
                        let wanted =
                            avoid.is_empty() || !avoid.contains(&self.host(entry.host).name);
                        let rank = std::cmp::Reverse(entry.rank);
                        best = best.max(Some((wanted, entry.free.memory_bytes, rank, entry.host)));
                        if wanted {
                            break;
                        }
                    }
                }
            }
        }
        match best {
            Some((_, free, _, host)) => Ok(Choice::roomiest(self.host(host).name.clone(), free)),
            None => Err(self.refusal(vm, slot, &own)),
        }
    }

    /// The fullest open host on which a VM fits, other than where it is: packs instead of
    /// spreading.
    ///
    /// # Errors
    /// How many hosts each rule removed.
    pub fn place_tightest(&self, uid: &VmUid) -> Result<Choice, Refusal> {
        let (Some(vm), Some(slot)) = (self.machine(uid), self.vm_number(uid)) else {
            return Err(Refusal::default());
        };
        let slot = self.vm(slot);
        if vm.pinned_to.is_some() {
            return self.place(uid, &BTreeSet::new());
        }
        let own: Vec<u32> = vm.places().filter_map(|name| self.number(name)).collect();
        let fits = |host: u32| {
            !own.contains(&host)
                && slot
                    .group
                    .is_none_or(|group| self.group_on(group, host) == 0)
        };
        let tightest = self.kinds.allowed(slot.class).filter_map(|(_, shelf)| {
            let entry = shelf.tightest(slot.size).find(|entry| fits(entry.host))?;
            Some((entry.free.memory_bytes, entry.rank, entry.host))
        });
        match tightest.min() {
            Some((free, _, host)) => Ok(Choice {
                host: self.host(host).name.clone(),
                reasons: vec![format!("fullest host that has room ({} MiB)", free >> 20)],
            }),
            None => Err(self.refusal(vm, slot, &own)),
        }
    }

    /// Where a VM would go if it had to leave its host.
    pub(crate) fn place_away(&self, uid: &VmUid) -> Result<HostName, Refusal> {
        let own = self.machine(uid).and_then(|vm| vm.host.clone());
        let choice = self.place(uid, &own.iter().cloned().collect())?;
        if Some(&choice.host) == own.as_ref() {
            return Err(Refusal::default());
        }
        Ok(choice.host)
    }

    /// Whether every rule allows a VM on a host.
    pub(crate) fn may_run(&self, uid: &VmUid, host: &HostName) -> bool {
        let found = self.machine(uid).zip(self.vm_number(uid));
        let place = found.zip(self.number(host));
        place.is_some_and(|((vm, slot), host)| self.removes(vm, self.vm(slot), host).is_none())
    }

    /// Places pending VMs and assigns each: by priority, then the largest first (which packs
    /// better), then by uid.
    pub fn place_batch(
        &mut self,
        pending: &[(Priority, VmUid)],
    ) -> Vec<(VmUid, Result<Choice, Refusal>)> {
        let size = |uid: &VmUid| self.machine(uid).map_or(0, |vm| vm.memory_bytes);
        let mut order: Vec<_> = pending
            .iter()
            .map(|(priority, uid)| (*priority, std::cmp::Reverse(size(uid)), uid))
            .collect();
        order.sort();
        let nothing = BTreeSet::new();
        let mut answers = Vec::with_capacity(order.len());
        for (_, _, uid) in order {
            let answer = self.place(uid, &nothing);
            if let Ok(choice) = &answer {
                self.assign(uid, &choice.host);
            }
            answers.push((uid.clone(), answer));
        }
        answers
    }

    /// Why a VM may not be on one host, with what it takes there itself left out.
    pub(crate) fn removes(&self, vm: &Vm, slot: &VmSlot, host: u32) -> Option<Filter> {
        let name = &self.host(host).name;
        let Some(description) = self.fleet.hosts.get(name) else {
            return Some(Filter::NoPool);
        };
        let own = vm.places().any(|place| place == name);
        let pool = self.fleet.pools.get(&description.pool);
        judge(pool, vm, name, description, self.there(slot, host, own))
    }

    fn there(&self, slot: &VmSlot, host: u32, own: bool) -> There {
        let freed = if own { slot.size } else { Free::default() };
        let mates = slot.group.map_or(0, |group| self.group_on(group, host));
        There {
            free: self.host(host).free_without(freed),
            apart: mates > u32::from(own),
        }
    }

    fn judged(
        &self,
        vm: &Vm,
        slot: &VmSlot,
        host: u32,
        own: bool,
        avoid: &BTreeSet<HostName>,
    ) -> Option<Candidate> {
        let there = self.host(host);
        self.fleet.hosts.get(&there.name)?;
        if self.removes(vm, slot, host).is_some() {
            return None;
        }
        let wanted = !avoid.contains(&there.name);
        let free = self.there(slot, host, own).free.memory_bytes;
        Some((wanted, free, std::cmp::Reverse(there.rank), host))
    }

    /// The hosts on which it is now are judged one by one: what it takes itself does not count.
    fn own_hosts(
        &self,
        vm: &Vm,
        slot: &VmSlot,
        own: &[u32],
        avoid: &BTreeSet<HostName>,
    ) -> Option<Candidate> {
        let judged = |host: &u32| self.judged(vm, slot, *host, true, avoid);
        own.iter().filter_map(judged).max()
    }

    /// Counts hosts by rule, kind by kind.
    fn refusal(&self, vm: &Vm, slot: &VmSlot, own: &[u32]) -> Refusal {
        let mut refusal = Refusal::default();
        for (why, hosts) in &self.closed {
            refusal.count(Filter::Closed(why.clone()), *hosts);
        }
        // Open hosts that are judged one by one: its own, and the one that has its data.
        let pinned = vm.pinned_to.as_ref().and_then(|name| self.number(name));
        let mut single: Vec<u32> = own.iter().copied().chain(pinned).collect();
        single.sort_unstable();
        single.dedup();
        single.retain(|host| self.host(*host).kind.is_some());
        for host in &single {
            if let Some(filter) = self.removes(vm, slot, *host) {
                refusal.count(filter, 1);
            }
        }
        for (kind, hosts) in self.kinds.sizes() {
            let alone = single
                .iter()
                .filter(|host| self.host(**host).kind == Some(kind));
            let rest = hosts - number(alone.count());
            if vm.pinned_to.is_some() {
                refusal.count(Filter::Pinned, rest);
            } else if let Some(filter) = self.kinds.removes(slot.class, kind) {
                refusal.count(filter.clone(), rest);
            }
        }
        if vm.pinned_to.is_none() {
            for (kind, shelf) in self.kinds.allowed(slot.class) {
                self.count_room(slot, kind, shelf, &single, &mut refusal);
            }
        }
        refusal
    }

    /// Hosts of an allowed kind lack room or have a VM that must be apart.
    fn count_room(
        &self,
        slot: &VmSlot,
        kind: u32,
        shelf: &super::shelf::Shelf,
        single: &[u32],
        refusal: &mut Refusal,
    ) {
        let counts = slot.group.and_then(|group| self.groups.get(group as usize));
        let with_mates: Vec<u32> = counts
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .filter(|host| self.host(*host).kind == Some(kind) && !single.contains(host))
            .collect();
        let little_memory =
            |host: &&u32| self.host(**host).free().memory_bytes < slot.size.memory_bytes;
        let told = with_mates.iter().chain(
            single
                .iter()
                .filter(|host| self.host(**host).kind == Some(kind)),
        );
        let (mut little, mut counted) = (0, 0);
        for host in told {
            counted += 1;
            little += usize::from(little_memory(&host));
        }
        let memory = shelf.with_less_memory(slot.size.memory_bytes) - little;
        refusal.count(Filter::Apart, number(with_mates.len()));
        refusal.count(Filter::Memory, number(memory));
        // What has memory and no mate and was not chosen has too little CPU.
        refusal.count(Filter::Cpu, number(shelf.len() - counted - memory));
    }
}
