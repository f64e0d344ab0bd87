//! `place` from the indexes: the same answer as [`crate::place()`], which defines it.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use model::{HostName, Priority, VmUid};

use super::{Engine, Member, VmSlot, kinds};
use crate::filter::{Filter, There, judge};
use crate::fleet::{Free, Vm};
use crate::place::{Choice, Refusal, Weighed};
use crate::rules::Bundle;

/// A host that fits: not avoided, wishes unmet, free memory, and its rank for ties.
type Candidate = (bool, Reverse<u32>, u64, Reverse<u64>, u32);

impl Engine {
    /// Chooses a host for a VM of the fleet; `avoid` are hosts on which starts failed, used
    /// only when nothing else is left.
    ///
    /// # Errors
    /// How many hosts each rule removed.
    pub fn place(&self, uid: &VmUid, avoid: &BTreeSet<HostName>) -> Result<Choice, Refusal> {
        self.place_except(uid, avoid, &BTreeSet::new())
    }

    /// The same without some hosts, by number, on which N+1 would break.
    ///
    /// # Errors
    /// How many hosts each rule removed; these by N+1, where no other rule does.
    pub(crate) fn place_except(
        &self,
        uid: &VmUid,
        avoid: &BTreeSet<HostName>,
        except: &BTreeSet<u32>,
    ) -> Result<Choice, Refusal> {
        let (Some(vm), Some(number)) = (self.machine(uid), self.vm_number(uid)) else {
            return Err(Refusal::default());
        };
        let slot = self.vm(number);
        if let Some(bundle) = self.bundle(uid, vm, slot) {
            return self.place_bundle(number, &bundle, (avoid, except));
        }
        if let Some(why) = &vm.rules.contradiction {
            let mut refusal = Refusal::default();
            let hosts = self.fleet.hosts.len();
            refusal.count(Filter::Contradiction(why.clone()), kinds::number(hosts));
            return Err(refusal);
        }
        let own: Vec<u32> = vm.places().filter_map(|name| self.number(name)).collect();
        let judged = |host: &u32, own| {
            let judged = self.judged(vm, number, *host, own, avoid);
            judged.filter(|_| !except.contains(host))
        };
        // The hosts on which it is now are judged one by one: what it takes itself does not count.
        let mut best = own.iter().filter_map(|host| judged(host, true)).max();
        match &vm.pinned_to {
            Some(pinned) => {
                let there = self.number(pinned).filter(|there| !own.contains(there));
                best = best.max(there.and_then(|host| judged(&host, false)));
            }
            None => {
                let set = BTreeSet::from([number]);
                let (wished, unmet) = self.wished(slot);
                let others = wished.iter().filter(|host| !own.contains(host));
                best = best.max(others.filter_map(|host| judged(host, false)).max());
                for (_, shelf) in self.kinds.allowed(slot.class) {
                    let fitting = shelf.fitting(slot.size).filter(|entry| {
                        !own.contains(&entry.host)
                            && !wished.contains(&entry.host)
                            && !except.contains(&entry.host)
                            && !self.mates(&slot.apart, entry.host, &set)
                    });
                    // The first that is not avoided is the best; the first of all is what is
                    // left when each is avoided.
                    for entry in fitting {
                        let wanted =
                            avoid.is_empty() || !avoid.contains(&self.host(entry.host).name);
                        let free = entry.free.memory_bytes;
                        let rank = Reverse(entry.rank);
                        best = best.max(Some((wanted, Reverse(unmet), free, rank, entry.host)));
                        if wanted {
                            break;
                        }
                    }
                }
            }
        }
        self.chosen(best, vm, (false, avoid, except))
            .ok_or_else(|| self.refusal(vm, number, &own, except))
    }

    fn chosen(
        &self,
        best: Option<Candidate>,
        vm: &Vm,
        (anchored, avoid, except): (bool, &BTreeSet<HostName>, &BTreeSet<u32>),
    ) -> Option<Choice> {
        let (wanted, Reverse(unmet), free_bytes, _, host) = best?;
        let weighed = Weighed {
            anchored,
            failed: (!avoid.is_empty()).then_some(!wanted),
            unmet,
            free_bytes,
            others_break: !except.is_empty(),
        };
        let name = self.host(host).name.clone();
        Some(Choice::of(name, vm, &weighed))
    }

    /// VMs that share a host choose for all of them that have none yet. Such groups are few, so
    /// each host is looked at.
    fn place_bundle(
        &self,
        number: u32,
        bundle: &Bundle,
        (avoid, except): (&BTreeSet<HostName>, &BTreeSet<u32>),
    ) -> Result<Choice, Refusal> {
        let (mut refusal, mut best) = (Refusal::default(), None);
        let parts = self.parts(bundle);
        let hosts = self.fleet.hosts.keys();
        for (name, host) in hosts.filter_map(|name| Some((name, self.number(name)?))) {
            match self.removes_bundle(bundle, &parts, host) {
                Ok(_) if except.contains(&host) => refusal.count(Filter::Headroom, 1),
                Ok(free) => {
                    let wanted = !avoid.contains(name);
                    let (unmet, rank) = (self.unmet(number, host), self.host(host).rank);
                    let new = (wanted, Reverse(unmet), free, Reverse(rank), host);
                    best = best.max(Some(new));
                }
                Err(filter) => refusal.count(filter, 1),
            }
        }
        let anchored = !bundle.anchors.is_empty();
        self.chosen(best, &bundle.vm, (anchored, avoid, except))
            .ok_or(refusal)
    }

    /// Free memory of a host with none of the bundle there; else the rule that removes it.
    fn removes_bundle(
        &self,
        bundle: &Bundle,
        (numbers, apart): &(BTreeSet<u32>, Vec<Member>),
        host: u32,
    ) -> Result<u64, Filter> {
        let slot = self.host(host);
        let description = self.fleet.hosts.get(&slot.name).ok_or(Filter::NoPool)?;
        let pool = self.fleet.pools.get(&description.pool);
        let anchors = &bundle.anchors;
        let there = There {
            free: slot.free_without(self.sum_on(host, numbers)),
            apart: self.mates(apart, host, numbers),
            elsewhere: !anchors.is_empty() && !anchors.contains(&slot.name),
            racked: slot.rack.is_some(),
            storage_full: self.lacks_storage(&bundle.vm.new_volumes, host, numbers),
        };
        match judge(pool, &bundle.vm, &slot.name, description, there) {
            Some(filter) => Err(filter),
            None => Ok(there.free.memory_bytes),
        }
    }

    /// The fullest open host on which a VM fits, other than where it is: packs instead of
    /// spreading.
    ///
    /// # Errors
    /// How many hosts each rule removed.
    pub fn place_tightest(&self, uid: &VmUid) -> Result<Choice, Refusal> {
        let (Some(vm), Some(number)) = (self.machine(uid), self.vm_number(uid)) else {
            return Err(Refusal::default());
        };
        let slot = self.vm(number);
        let rules = &vm.rules;
        let told_host_by_host = vm.pinned_to.is_some() || !vm.new_volumes.is_empty();
        if told_host_by_host || slot.bundle.is_some() || rules.contradiction.is_some() {
            return self.place(uid, &BTreeSet::new());
        }
        let own: Vec<u32> = vm.places().filter_map(|name| self.number(name)).collect();
        let set = BTreeSet::from([number]);
        let fits = |host: u32| !own.contains(&host) && !self.mates(&slot.apart, host, &set);
        let tightest = self.kinds.allowed(slot.class).filter_map(|(_, shelf)| {
            let entry = shelf.tightest(slot.size).find(|entry| fits(entry.host))?;
            Some((entry.free.memory_bytes, entry.rank, entry.host))
        });
        match tightest.min() {
            Some((free, _, host)) => Ok(Choice {
                host: self.host(host).name.clone(),
                reasons: vec![format!("fullest host that has room ({} MiB)", free >> 20)],
            }),
            None => Err(self.refusal(vm, number, &own, &BTreeSet::new())),
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

    /// Whether every rule allows a VM on a host; with those that must share it, all of them.
    pub(crate) fn may_run(&self, uid: &VmUid, host: &HostName) -> bool {
        let (Some(vm), Some(number)) = (self.machine(uid), self.vm_number(uid)) else {
            return false;
        };
        let Some(host) = self.number(host) else {
            return false;
        };
        match self.bundle(uid, vm, self.vm(number)) {
            Some(bundle) => self
                .removes_bundle(&bundle, &self.parts(&bundle), host)
                .is_ok(),
            None => self.removes(vm, number, host).is_none(),
        }
    }

    /// Whether a VM may leave a host for another: every rule allows it, and no wish about other VMs that is
    /// met becomes unmet.
    pub(crate) fn may_move(&self, uid: &VmUid, from: u32, to: &HostName) -> bool {
        let (vm, host) = (self.vm_number(uid), self.number(to));
        let keeps_wishes = vm
            .zip(host)
            .is_some_and(|(vm, host)| self.unmet(vm, host) <= self.unmet(vm, from));
        keeps_wishes && self.may_run(uid, to)
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
        let order: Vec<VmUid> = order.into_iter().map(|(_, _, uid)| uid.clone()).collect();
        self.place_in_order(order)
    }

    /// Places VMs one after the other; each counts where it was placed for those that follow.
    pub(crate) fn place_in_order(
        &mut self,
        order: Vec<VmUid>,
    ) -> Vec<(VmUid, Result<Choice, Refusal>)> {
        let nothing = BTreeSet::new();
        let one = |uid: VmUid| {
            let answer = self.place(&uid, &nothing);
            if let Ok(choice) = &answer {
                self.assign(&uid, &choice.host);
            }
            (uid, answer)
        };
        order.into_iter().map(one).collect()
    }

    /// Why a VM that chooses alone may not be on one host, with what it takes there itself left
    /// out.
    fn removes(&self, vm: &Vm, number: u32, host: u32) -> Option<Filter> {
        let name = &self.host(host).name;
        let Some(description) = self.fleet.hosts.get(name) else {
            return Some(Filter::NoPool);
        };
        let own = vm.places().any(|place| place == name);
        let pool = self.fleet.pools.get(&description.pool);
        judge(pool, vm, name, description, self.there(number, host, own))
    }

    fn there(&self, number: u32, host: u32, own: bool) -> There {
        let slot = self.vm(number);
        let freed = if own { slot.size } else { Free::default() };
        There {
            free: self.host(host).free_without(freed),
            apart: self.mates(&slot.apart, host, &BTreeSet::from([number])),
            elsewhere: false,
            racked: self.host(host).rack.is_some(),
            // Who has new volumes chooses as a bundle.
            storage_full: false,
        }
    }

    fn judged(
        &self,
        vm: &Vm,
        number: u32,
        host: u32,
        own: bool,
        avoid: &BTreeSet<HostName>,
    ) -> Option<Candidate> {
        let there = self.host(host);
        self.fleet.hosts.get(&there.name)?;
        if self.removes(vm, number, host).is_some() {
            return None;
        }
        let wanted = !avoid.contains(&there.name);
        let free = self.there(number, host, own).free.memory_bytes;
        let unmet = Reverse(self.unmet(number, host));
        Some((wanted, unmet, free, Reverse(there.rank), host))
    }

    /// Counts hosts by rule, kind by kind; those left out (`except`) by N+1, where no other rule removes them.
    fn refusal(&self, vm: &Vm, number: u32, own: &[u32], except: &BTreeSet<u32>) -> Refusal {
        let slot = self.vm(number);
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
            let left_out = except.contains(host).then_some(Filter::Headroom);
            if let Some(filter) = self.removes(vm, number, *host).or(left_out) {
                refusal.count(filter, 1);
            }
        }
        for (kind, hosts) in self.kinds.sizes() {
            let alone = single
                .iter()
                .filter(|host| self.host(**host).kind == Some(kind));
            let rest = hosts - kinds::number(alone.count());
            if vm.pinned_to.is_some() {
                refusal.count(Filter::Pinned, rest);
            } else if let Some(filter) = self.kinds.removes(slot.class, kind) {
                refusal.count(filter.clone(), rest);
            }
        }
        if vm.pinned_to.is_none() {
            let mates = self.mates_hosts(&slot.apart, &BTreeSet::from([number]));
            for (kind, shelf) in self.kinds.allowed(slot.class) {
                self.count_room(slot, kind, shelf, (&single, &mates, except), &mut refusal);
            }
        }
        refusal
    }

    /// Hosts of an allowed kind lack room, have a VM that must be apart, or are left out.
    fn count_room(
        &self,
        slot: &VmSlot,
        kind: u32,
        shelf: &super::shelf::Shelf,
        (single, mates, except): (&[u32], &BTreeSet<u32>, &BTreeSet<u32>),
        refusal: &mut Refusal,
    ) {
        let with_mates: Vec<u32> = mates
            .iter()
            .copied()
            .filter(|host| self.host(*host).kind == Some(kind) && !single.contains(host))
            .collect();
        let little_memory =
            |host: &&u32| self.host(**host).free().memory_bytes < slot.size.memory_bytes;
        let of_kind = |host: &&u32| self.host(**host).kind == Some(kind);
        let told: Vec<&u32> = with_mates
            .iter()
            .chain(single.iter().filter(of_kind))
            .collect();
        let fits = |host: &&u32| {
            let free = self.host(**host).free();
            slot.size.memory_bytes <= free.memory_bytes && slot.size.cpu <= free.cpu
        };
        let left_out = except.iter().filter(of_kind).filter(fits);
        let left_out = left_out.filter(|host| !told.contains(host)).count();
        let (mut little, mut counted) = (0, 0);
        for host in &told {
            counted += 1;
            little += usize::from(little_memory(host));
        }
        let memory = shelf.with_less_memory(slot.size.memory_bytes) - little;
        refusal.count(Filter::Apart, kinds::number(with_mates.len()));
        refusal.count(Filter::Memory, kinds::number(memory));
        refusal.count(Filter::Headroom, kinds::number(left_out));
        // What else has memory and no mate and was not chosen has too little CPU.
        let rest = shelf.len() - counted - memory - left_out;
        refusal.count(Filter::Cpu, kinds::number(rest));
    }
}
