//! One VM, one host: the one that is left with the most memory, ties by name. This is the
//! definition, in one pass over a snapshot; [`crate::Engine`] gives the same answer from indexes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::filter::{Filter, There, judge};
use crate::fleet::{Fleet, Host, Vm};
use crate::rules::{Bundle, Domain, Relation, Side};
use crate::storage::{self, StorageRoom};

/// A host that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The host.
    pub host: HostName,
    /// Why, the weightiest first.
    pub reasons: Vec<String>,
}

impl Choice {
    /// Says what decided, in the order in which it did; `vm` is who chooses, with those that choose with it.
    pub(crate) fn of(host: HostName, vm: &Vm, weighed: &Weighed) -> Self {
        let mut reasons = Vec::new();
        if vm.pinned_to.is_some() {
            reasons.push("it is bound to this host".to_owned());
        }
        if weighed.anchored {
            reasons.push("VMs that must share its host are there".to_owned());
        }
        let hosts = match (weighed.failed, weighed.others_break) {
            (Some(false), false) => "the hosts that fit and on which no start of it failed",
            (Some(true) | None, false) => "the hosts that fit",
            (_, true) => "the hosts that fit, without those on which N+1 would break",
        };
        if weighed.failed == Some(true) {
            reasons.push("starts of it failed on every host that fits".to_owned());
        }
        let (wishes, unmet) = (vm.rules.wishes(), weighed.unmet);
        reasons.extend(match (wishes.saturating_sub(unmet), unmet) {
            (0, 0) => None,
            (1, 0) => Some("its wish about other VMs is met there".to_owned()),
            (met, 0) => Some(format!("its {met} wishes about other VMs are met there")),
            (0, _) => Some(format!(
                "no wish of it about other VMs is met on any of {hosts}"
            )),
            (met, _) => Some(format!(
                "{met} of its {wishes} wishes about other VMs are met there, more on none of {hosts}"
            )),
        });
        let free = weighed.free_bytes >> 20;
        reasons.push(match wishes {
            0 => format!("most free memory of {hosts} ({free} MiB)"),
            _ => format!("most free memory where as many wishes are met ({free} MiB)"),
        });
        Self { host, reasons }
    }
}

/// What a chosen host was weighed by, the weightiest first.
pub(crate) struct Weighed {
    /// Only hosts of VMs that must share it were left.
    pub anchored: bool,
    /// Starts failed on it; none when no start failed anywhere.
    pub failed: Option<bool>,
    /// Wishes about other VMs that stay unmet.
    pub unmet: u32,
    /// Free memory.
    pub free_bytes: u64,
    /// Hosts were left out because N+1 would break with it there.
    pub others_break: bool,
}

/// Why no host was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// How many hosts each rule removed.
    pub removed: BTreeMap<Filter, u32>,
}

impl Refusal {
    /// `3 hosts: not enough memory`, one line a rule.
    pub fn lines(&self) -> Vec<String> {
        let line = |(filter, count): (&Filter, &u32)| {
            let noun = if *count == 1 { "host" } else { "hosts" };
            format!("{count} {noun}: {}", filter.english())
        };
        self.removed.iter().map(line).collect()
    }

    /// All of it in one sentence.
    pub fn sentence(&self) -> String {
        if self.removed.is_empty() {
            "no host is registered".to_owned()
        } else {
            format!("no host fits ({})", self.lines().join("; "))
        }
    }

    pub(crate) fn count(&mut self, filter: Filter, hosts: u32) {
        if hosts > 0 {
            *self.removed.entry(filter).or_insert(0) += hosts;
        }
    }
}

/// Chooses a host for a VM of the fleet; `avoid` are hosts on which starts failed, used only
/// when nothing else is left. Of the hosts that fit, the one on which the fewest wishes about
/// other VMs stay unmet, then the one with the most free memory.
///
/// # Errors
/// How many hosts each rule removed.
pub fn place(fleet: &Fleet, uid: &VmUid, avoid: &BTreeSet<HostName>) -> Result<Choice, Refusal> {
    let mut refusal = Refusal::default();
    let Some(vm) = fleet.vms.get(uid) else {
        return Err(refusal);
    };
    let scene = Scene::of(fleet, uid, vm);
    let mut best: Option<(Rank, &HostName)> = None;
    for (name, host) in &fleet.hosts {
        let there = scene.there(fleet, name, host);
        let pool = fleet.pools.get(&host.pool);
        if let Some(filter) = judge(pool, &scene.bundle.vm, name, host, there) {
            refusal.count(filter, 1);
            continue;
        }
        let unmet = scene.unmet(fleet, vm, name);
        let rank = (
            !avoid.contains(name),
            Reverse(unmet),
            there.free.memory_bytes,
        );
        if best.is_none_or(|(best, _)| rank > best) {
            best = Some((rank, name));
        }
    }
    match best {
        Some(((wanted, Reverse(unmet), free_bytes), host)) => {
            let weighed = Weighed {
                anchored: !scene.bundle.anchors.is_empty(),
                failed: (!avoid.is_empty()).then_some(!wanted),
                unmet,
                free_bytes,
                others_break: false,
            };
            Ok(Choice::of(host.clone(), &scene.bundle.vm, &weighed))
        }
        None => Err(refusal),
    }
}

/// Not avoided, wishes unmet, free memory.
type Rank = (bool, Reverse<u32>, u64);

/// Bytes of new volumes by pool.
type Room = BTreeMap<String, u64>;
/// Hosts and racks.
type Places<'a> = (BTreeSet<&'a HostName>, BTreeSet<&'a String>);

/// Everything around a VM that chooses, read in one pass over the fleet.
struct Scene<'a> {
    bundle: Bundle,
    used: BTreeMap<&'a HostName, (u64, u64)>,
    /// New volumes of others: on pools that all share, and by host.
    promised: (Room, BTreeMap<&'a HostName, Room>),
    /// Hosts and racks of VMs that it must be apart from.
    apart: Places<'a>,
    /// For each wish to be together (`true`) or apart, hosts and racks of the VMs that it speaks of.
    wished: BTreeMap<(bool, &'a Relation), Places<'a>>,
}

impl<'a> Scene<'a> {
    fn of(fleet: &'a Fleet, uid: &'a VmUid, vm: &'a Vm) -> Self {
        let vms = fleet.vms.iter().map(|(uid, vm)| (uid, vm.as_ref()));
        let mates = vms.filter(|(_, other)| {
            vm.rules.together.is_some() && vm.rules.together == other.rules.together
        });
        let mut scene = Self {
            bundle: Bundle::of(fleet, uid, vm, mates),
            used: BTreeMap::new(),
            promised: Default::default(),
            apart: Default::default(),
            wished: BTreeMap::new(),
        };
        for (other_uid, other) in fleet.vms.iter().filter(|(other, _)| *other != uid) {
            let rules = &other.rules;
            let chooses = scene.bundle.rest.contains(other_uid);
            if !chooses && other.places().next().is_some() {
                storage::add(&mut scene.promised.0, &other.new_volumes);
            }
            for name in other.places() {
                let rack = fleet.racks.get(name);
                for (together, mine, theirs) in [
                    (false, &vm.rules.rather_apart, &rules.rather_apart),
                    (true, &vm.rules.rather_together, &rules.rather_together),
                ] {
                    for wish in mine.iter().filter(|wish| met(wish, theirs)) {
                        let (hosts, racks) = scene.wished.entry((together, wish)).or_default();
                        hosts.insert(name);
                        racks.extend(rack);
                    }
                }
                if chooses {
                    continue;
                }
                if !other.new_volumes.is_empty() {
                    let there = scene.promised.1.entry(name).or_default();
                    storage::add(there, &other.new_volumes);
                }
                let used = scene.used.entry(name).or_default();
                used.0 = used.0.saturating_add(other.cpu);
                used.1 = used.1.saturating_add(other.memory_bytes);
                let mut mine = scene.bundle.vm.rules.apart.iter();
                for relation in mine.by_ref().filter(|mine| met(mine, &rules.apart)) {
                    match relation.over {
                        Domain::Host => drop(scene.apart.0.insert(name)),
                        Domain::Rack => scene.apart.1.extend(rack),
                    }
                }
            }
        }
        scene
    }

    fn there(&self, fleet: &Fleet, name: &HostName, host: &Host) -> There {
        let mut free = fleet.capacity(host);
        let used = self.used.get(name).copied().unwrap_or_default();
        free.cpu = free.cpu.saturating_sub(used.0);
        free.memory_bytes = free.memory_bytes.saturating_sub(used.1);
        let rack = fleet.racks.get(name);
        let anchors = &self.bundle.anchors;
        There {
            free,
            apart: self.apart.0.contains(name)
                || rack.is_some_and(|rack| self.apart.1.contains(rack)),
            elsewhere: !anchors.is_empty() && !anchors.contains(name),
            racked: rack.is_some(),
            storage_full: self.lacks_storage(fleet, name),
        }
    }

    fn lacks_storage(&self, fleet: &Fleet, name: &HostName) -> bool {
        let (shared, by_host) = &self.promised;
        let mut wanted = self.bundle.vm.new_volumes.iter();
        wanted.any(|(pool, bytes)| {
            let promised = match fleet.storage.get(pool) {
                Some(StorageRoom::Shared(_)) => shared.get(pool),
                _ => by_host.get(name).and_then(|there| there.get(pool)),
            };
            let sum = promised.copied().unwrap_or(0).saturating_add(*bytes);
            let room = fleet.storage.get(pool).and_then(|pool| pool.on(name));
            room.is_some_and(|room| sum > room)
        })
    }

    /// How many of its wishes stay unmet on a host.
    fn unmet(&self, fleet: &Fleet, vm: &'a Vm, name: &HostName) -> u32 {
        let there = |together: bool, wish: &'a Relation| {
            let (hosts, racks) = self.wished.get(&(together, wish))?;
            Some(match wish.over {
                Domain::Host => hosts.contains(name),
                Domain::Rack => fleet
                    .racks
                    .get(name)
                    .is_some_and(|rack| racks.contains(rack)),
            })
        };
        let is_there = |together, wish: &&'a Relation| there(together, wish) == Some(true);
        let apart = vm.rules.rather_apart.iter();
        let apart = apart.filter(|wish| is_there(false, wish)).count();
        let asked = vm.rules.rather_together.iter();
        let asked = asked.filter(|wish| wish.side != Side::Named);
        let together = asked.filter(|wish| !is_there(true, wish)).count();
        u32::try_from(apart + together).unwrap_or(u32::MAX)
    }
}

fn met(relation: &Relation, others: &BTreeSet<Relation>) -> bool {
    others.iter().any(|other| relation.meets(other))
}
