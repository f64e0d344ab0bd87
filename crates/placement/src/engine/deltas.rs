//! Changes of the fleet, each in time that does not depend on its size.

use model::{HostName, VmUid};

use super::kinds::number;
use super::{Engine, HostSlot, VmSlot};
use crate::fleet::{Fleet, Free, Host, Pool, Vm};
use crate::names::Names;

/// Distance between ranks when hosts are numbered anew.
const STRIDE: u64 = 1 << 32;

/// Kinds without a host that are kept before the indexes are built anew.
const EMPTY_KINDS_MAX: usize = 1_000;

/// Rules that may come to be before the indexes are built anew, besides as many as there were.
const GROUPS_MORE: usize = 20_000;

impl Engine {
    /// Becomes that fleet by the deltas between the two: what did not change keeps its place in
    /// the indexes, and what was proven of it stays proven.
    pub fn sync(&mut self, fleet: Fleet) {
        if self.fleet.pools != fleet.pools {
            self.fleet.pools = fleet.pools;
            self.rebuild();
        }
        self.sync_storage(fleet.storage);
        let gone = |name: &&HostName| !fleet.hosts.contains_key(*name);
        let gone: Vec<HostName> = self.fleet.hosts.keys().filter(gone).cloned().collect();
        for name in gone {
            self.remove_host(&name);
        }
        let gone = |uid: &&VmUid| !fleet.vms.contains_key(*uid);
        let gone: Vec<VmUid> = self.fleet.vms.keys().filter(gone).cloned().collect();
        for uid in gone {
            self.remove_vm(&uid);
        }
        let mut racked: Vec<HostName> = self.fleet.racks.keys().cloned().collect();
        racked.retain(|name| !fleet.racks.contains_key(name));
        for name in racked {
            self.set_rack(&name, None);
        }
        for (name, rack) in fleet.racks {
            self.set_rack(&name, Some(rack));
        }
        for (name, host) in fleet.hosts {
            self.upsert_host(name, host);
        }
        for (uid, vm) in fleet.vms {
            self.upsert_vm(uid, vm);
        }
    }

    /// Adds or changes a pool. Rare, so everything is indexed anew.
    pub fn upsert_pool(&mut self, name: String, pool: Pool) {
        self.fleet.pools.insert(name, pool);
        self.rebuild();
    }

    fn rebuild(&mut self) {
        let clock = self.clock;
        *self = Self::new(std::mem::take(&mut self.fleet));
        // Older answers must not look current.
        self.clock += clock;
        for slot in &mut self.hosts {
            (slot.changed, slot.relieved) = (self.clock, self.clock);
        }
    }

    /// Adds or changes a host.
    pub fn upsert_host(&mut self, name: HostName, host: Host) {
        if self.fleet.hosts.get(&name) == Some(&host) {
            return;
        }
        let slot = self.slot(&name);
        self.index_host(slot, name, host);
    }

    fn index_host(&mut self, slot: u32, name: HostName, host: Host) {
        self.shelve(slot, false);
        let racked = self.host(slot).rack.is_some();
        let pool = self.fleet.pools.get(&host.pool);
        let capacity = pool.map_or_else(Free::default, |pool| pool.capacity(&host));
        let kind = match &host.closed {
            None => Some(self.kinds.kind(&host, pool, racked)),
            Some(_) => None,
        };
        if let Some(why) = &host.closed {
            *self.closed.entry(why.clone()).or_insert(0) += 1;
        }
        let of_pool = self.pools.entry(host.pool.clone()).or_default();
        of_pool.insert(name.clone(), slot);
        self.fleet.hosts.insert(name, host);
        self.with_host(slot, |slot| {
            slot.capacity = capacity;
            slot.kind = kind;
            slot.relieved = slot.changed;
        });
        let empty = self.kinds.empty();
        if empty > EMPTY_KINDS_MAX && empty * 2 > self.kinds.len() {
            self.rebuild();
        }
    }

    /// Takes a host away. VMs that are on it keep saying so.
    pub fn remove_host(&mut self, name: &HostName) {
        self.set_rack(name, None);
        if let Some(slot) = self.number(name) {
            self.shelve(slot, true);
        }
    }

    /// Takes a host off the indexes; the slot stays for the VMs that name it.
    fn shelve(&mut self, slot: u32, forget: bool) {
        let name = self.host(slot).name.clone();
        let old = self.fleet.hosts.get(&name);
        if let Some(why) = old.and_then(|host| host.closed.clone())
            && let Some(count) = self.closed.get_mut(&why)
        {
            *count -= 1;
            if *count == 0 {
                self.closed.remove(&why);
            }
        }
        if let Some(old) = old
            && let Some(of_pool) = self.pools.get_mut(&old.pool)
        {
            of_pool.remove(&name);
            if of_pool.is_empty() {
                self.pools.remove(&old.pool);
            }
        }
        self.with_host(slot, |_| {});
        self.relieved = self.clock;
        if let Some(kind) = self.host(slot).kind {
            let entry = self.entry(slot);
            self.kinds.shelf(kind).remove(&entry);
            self.hosts[slot as usize].kind = None;
        }
        if forget {
            self.fleet.hosts.remove(&name);
            self.hosts[slot as usize].capacity = Free::default();
        }
    }

    /// Declares the rack of a host, or (none) that it has none.
    pub fn set_rack(&mut self, name: &HostName, rack: Option<String>) {
        if self.fleet.racks.get(name) == rack.as_ref() {
            return;
        }
        match &rack {
            Some(rack) => self.fleet.racks.insert(name.clone(), rack.clone()),
            None => self.fleet.racks.remove(name),
        };
        let Some(slot) = self.number(name) else {
            return;
        };
        // Its VMs are counted in its rack, and its kind tells whether it has one.
        let here = self.host(slot).vms.clone();
        for vm in &here {
            self.count(*vm, slot, false);
        }
        let number = rack.as_ref().map(|rack| self.rack_number(rack));
        self.enter_rack(slot, number);
        for vm in &here {
            self.count(*vm, slot, true);
        }
        match self.fleet.hosts.get(name).cloned() {
            Some(host) => self.index_host(slot, name.clone(), host),
            None => self.with_host(slot, |slot| slot.relieved = slot.changed),
        }
    }

    fn rack_number(&mut self, rack: &str) -> u32 {
        let next = number(self.rack_hosts.len());
        let rack = *self.rack_numbers.entry(rack.to_owned()).or_insert(next);
        if rack == next {
            self.rack_hosts.push(Default::default());
        }
        rack
    }

    fn enter_rack(&mut self, slot: u32, rack: Option<u32>) {
        let old = std::mem::replace(&mut self.hosts[slot as usize].rack, rack);
        if let Some(hosts) = old.and_then(|old| self.rack_hosts.get_mut(old as usize)) {
            hosts.remove(&slot);
        }
        if let Some(hosts) = rack.and_then(|rack| self.rack_hosts.get_mut(rack as usize)) {
            hosts.insert(slot);
        }
    }

    /// Adds or changes a VM, its assignment included.
    pub fn upsert_vm(&mut self, uid: VmUid, vm: impl Into<Box<Vm>>) {
        let mut vm = vm.into();
        if self.fleet.vms.get(&uid) == Some(&vm) {
            return;
        }
        self.leave(&uid);
        let class = self.kinds.class(&vm);
        self.kinds.share(class, &mut vm);
        let bundle = vm.rules.together.as_ref();
        let start_class = match vm.runs_with.is_empty() {
            true => class,
            false => self.kinds.class(&Vm {
                runs_with: Names::default(),
                ..Vm::clone(&vm)
            }),
        };
        let slot = VmSlot {
            uid: uid.clone(),
            class,
            start_class,
            size: Free {
                cpu: vm.cpu,
                memory_bytes: vm.memory_bytes,
            },
            apart: self.groups.apart(&vm.rules),
            wishes: self.groups.wishes(&vm.rules),
            bundle: bundle.map(|name| self.groups.bundle(name)),
        };
        let bundle = slot.bundle;
        let vm_number = match self.vm_number(&uid).or_else(|| self.unused.pop()) {
            Some(number) => {
                self.groups.part(self.vm(number).bundle, number);
                self.vms[number as usize] = slot;
                number
            }
            None => {
                self.vms.push(slot);
                number(self.vms.len() - 1)
            }
        };
        self.vm_numbers.insert(uid.clone(), vm_number);
        self.groups.join(bundle, vm_number);
        self.clock += 1;
        self.fleet.vms.insert(uid.clone(), vm);
        self.enter(&uid);
        // Rules come and go for years; what nobody has any more is forgotten now and then.
        if self.groups.len() > 2 * self.groups_then + GROUPS_MORE {
            self.rebuild();
        }
    }

    /// Takes a VM away.
    pub fn remove_vm(&mut self, uid: &VmUid) {
        self.leave(uid);
        self.fleet.vms.remove(uid);
        if let Some(number) = self.vm_numbers.remove(uid) {
            self.clock += 1;
            self.groups.part(self.vm(number).bundle, number);
            self.vms[number as usize].bundle = None;
            self.unused.push(number);
        }
    }

    /// Assigns a VM to a host; it leaves every other.
    pub fn assign(&mut self, uid: &VmUid, host: &HostName) {
        self.relocate(uid, |vm| {
            (vm.host, vm.incoming) = (Some(host.clone()), None);
        });
    }

    /// The VM is on no host any more: no copy of it runs.
    pub fn unassign(&mut self, uid: &VmUid) {
        self.relocate(uid, |vm| {
            (vm.host, vm.incoming) = (None, None);
            vm.runs_with.clear();
        });
        if let Some(number) = self.vm_number(uid) {
            let slot = &mut self.vms[number as usize];
            slot.class = slot.start_class;
        }
    }

    /// The VM begins to move: it counts on both hosts.
    pub fn begin_move(&mut self, uid: &VmUid, to: &HostName) {
        self.relocate(uid, |vm| vm.incoming = Some(to.clone()));
    }

    /// The VM runs where it was moving to (`arrived`), or stays where it was.
    pub fn end_move(&mut self, uid: &VmUid, arrived: bool) {
        self.relocate(uid, |vm| {
            let to = vm.incoming.take();
            if arrived && to.is_some() {
                vm.host = to;
            }
        });
    }

    fn relocate(&mut self, uid: &VmUid, change: impl FnOnce(&mut Vm)) {
        self.leave(uid);
        if let Some(vm) = self.fleet.vms.get_mut(uid) {
            change(vm);
        }
        self.enter(uid);
    }

    /// Takes the VM off the indexes of its hosts.
    fn leave(&mut self, uid: &VmUid) {
        self.move_all(uid, false);
    }

    /// Puts the VM on the indexes of its hosts.
    fn enter(&mut self, uid: &VmUid) {
        self.move_all(uid, true);
    }

    fn move_all(&mut self, uid: &VmUid, there: bool) {
        let (Some(vm), Some(number)) = (self.fleet.vms.get(uid), self.vm_number(uid)) else {
            return;
        };
        let mut places = vm.places().cloned();
        let (first, second) = (places.next(), places.next());
        drop(places);
        // Taken off while its hosts are known, put on when they are.
        if !there {
            self.promise(uid, false);
        }
        for name in first.iter().chain(&second) {
            let slot = self.slot(name);
            self.occupy(number, slot, there);
        }
        if there {
            self.promise(uid, true);
        }
    }

    /// The slot of a host, made when the name is new.
    fn slot(&mut self, name: &HostName) -> u32 {
        if let Some(number) = self.number(name) {
            return number;
        }
        let number = number(self.hosts.len());
        self.hosts.push(HostSlot {
            name: name.clone(),
            rank: 0,
            rack: None,
            kind: None,
            capacity: Free::default(),
            used_cpu: 0,
            used_memory: 0,
            vms: Vec::new(),
            changed: self.clock,
            relieved: self.clock,
        });
        self.host_numbers.insert(name.clone(), number);
        if let Some(rack) = self.fleet.racks.get(name).cloned() {
            let rack = self.rack_number(&rack);
            self.enter_rack(number, Some(rack));
        }
        match self.rank(name) {
            Some(rank) => self.hosts[number as usize].rank = rank,
            None => self.rank_all(),
        }
        number
    }

    /// A rank between the neighbours'; none when there is no room between them.
    fn rank(&self, name: &HostName) -> Option<u64> {
        let rank = |number: &u32| self.host(*number).rank;
        let before = self.host_numbers.range(..name.clone()).next_back();
        let before = before.map(|(_, number)| rank(number));
        let mut from = self.host_numbers.range(name.clone()..);
        from.next();
        let after = from.next().map(|(_, number)| rank(number));
        match (before, after) {
            (None, None) => Some(STRIDE),
            (Some(before), None) => before.checked_add(STRIDE),
            (before, Some(after)) => {
                let before = before.unwrap_or(0);
                let middle = before + (after - before) / 2;
                (middle > before).then_some(middle)
            }
        }
    }

    fn rank_all(&mut self) {
        let numbers: Vec<u32> = self.host_numbers.values().copied().collect();
        let shelved: Vec<(u32, super::Entry)> = numbers
            .iter()
            .filter_map(|number| Some((self.host(*number).kind?, self.entry(*number))))
            .collect();
        for (kind, entry) in &shelved {
            self.kinds.shelf(*kind).remove(entry);
        }
        for (place, number) in (1..).zip(&numbers) {
            self.hosts[*number as usize].rank = place * STRIDE;
        }
        for (kind, entry) in &shelved {
            let entry = self.entry(entry.host);
            self.kinds.shelf(*kind).insert(entry);
        }
    }
}
