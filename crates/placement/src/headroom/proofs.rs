//! Certificates that are kept between questions.
//!
//! A packing stays valid as long as what it takes from each host is still free there: after a
//! change only the entries on changed hosts are looked at. A refutation stays valid as long as
//! nothing was freed. Neither depends on who asked before; only an *unknown* may, because a
//! certificate found earlier can outlive the point where a new search would give up.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use super::instance::{Bins, Instance, fits, lost};
use super::pack::{Searched, greedy, search};
use super::{Failure, FailureReport, Headroom, HeadroomReport, Survival, bounds};
use crate::engine::Engine;
use crate::fleet::Free;

/// Looks at a bin that the searches of one question may spend together: some milliseconds.
pub(super) const LOOKS_MAX: u64 = 1_500_000;

/// VMs above which nothing is searched: the search would only spend its allowance, and its depth
/// is theirs.
pub(super) const SEARCHED_MAX: usize = 400;

#[derive(Clone, Debug)]
enum Known {
    /// Each lost VM and its host.
    Proven(Vec<(u32, u32)>),
    Broken(VmUid),
    Unknown,
}

/// What is known of one failure, and since when.
#[derive(Clone, Debug)]
struct Entry {
    known: Known,
    /// A VM there is spread over racks, or must share its host: what happens to VMs on hosts that
    /// the packing does not name matters too, so nothing is kept across any change.
    fleeting: bool,
    /// The hosts that fail; a rack gains and loses some.
    failed: BTreeSet<u32>,
    /// The engine's clock when it was last found true.
    at: u64,
    lost_vms: u32,
    lost: Free,
    /// Room that lost VMs give back where they were moving to.
    returned: Free,
}

/// What is known of every failure that was asked about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proofs {
    pools: BTreeMap<String, BTreeMap<Failure, Entry>>,
}

/// One question.
struct Question<'a> {
    engine: &'a Engine,
    bins: Bins,
    /// When a host of the pool last offered more than before.
    relieved: u64,
    allowance: u64,
}

impl Engine {
    /// Proves or refutes for one pool; looks again only at what changed since it was last asked.
    pub fn prove_headroom(&mut self, pool: &str) -> Headroom {
        let promised = self.fleet().pools.get(pool);
        if promised.is_none_or(|pool| pool.failures_to_tolerate == 0) {
            return Headroom::NotPromised;
        }
        let mut proofs = std::mem::take(&mut self.proofs);
        let answer = proofs.prove(self, pool, |_| true);
        self.proofs = proofs;
        answer
    }

    /// Hosts of a pool whose failure is not certainly survived; none where nothing is promised.
    pub(crate) fn not_survived(&mut self, pool: &str) -> BTreeSet<HostName> {
        if matches!(
            self.prove_headroom(pool),
            Headroom::Proven | Headroom::NotPromised
        ) {
            return BTreeSet::new();
        }
        let mut proofs = std::mem::take(&mut self.proofs);
        let hosts = proofs.not_survived(self, pool);
        self.proofs = proofs;
        hosts
    }

    /// Whether every failure is certainly survived but those of these hosts; so it is where nothing is promised.
    pub(crate) fn survives_but(&mut self, pool: &str, but: &BTreeSet<HostName>) -> bool {
        let promised = self.fleet().pools.get(pool);
        if promised.is_none_or(|pool| pool.failures_to_tolerate == 0) {
            return true;
        }
        let mut proofs = std::mem::take(&mut self.proofs);
        let answer = proofs.prove(self, pool, |name| !but.contains(name));
        self.proofs = proofs;
        answer == Headroom::Proven
    }

    /// Everything about one pool's head-room; none for an unknown pool.
    pub fn headroom_report(&mut self, pool: &str) -> Option<HeadroomReport> {
        self.fleet().pools.get(pool)?;
        let headroom = self.prove_headroom(pool);
        let mut proofs = std::mem::take(&mut self.proofs);
        let report = proofs.report(self, pool, headroom);
        self.proofs = proofs;
        Some(report)
    }

    /// Whether it is certain that a VM, which is nowhere yet, and what a host's failure loses do not find places
    /// together in what remains of the pool.
    pub(crate) fn never_survived_with(&self, vm: u32, pool: &str, failure: &HostName) -> bool {
        let Some(failed) = self.number(failure) else {
            return false;
        };
        let failed = BTreeSet::from([failed]);
        let mut lost = lost(self, &failed);
        lost.push(vm);
        let bins = Bins::of(self, pool);
        let instance = Instance::new(self, &bins, &failed, &lost);
        let solved = solve(&instance, 0, lost.len(), &mut { LOOKS_MAX });
        matches!(solved, Solved::Lacks(_))
    }
}

/// What is known of an instance.
enum Solved {
    /// All find places: the bin of each item.
    Packed(Vec<usize>),
    /// It is certain that they do not; an item that is left over.
    Lacks(usize),
    /// Neither could be shown.
    Open,
}

/// By the quick way, the bounds, and a bounded search, for so many VMs that are lost.
fn solve(instance: &Instance, from: usize, lost: usize, allowance: &mut u64) -> Solved {
    let first = match greedy(instance, from) {
        Ok(packing) => return Solved::Packed(packing),
        Err(first) => first,
    };
    match bounds::impossible(instance, first) {
        Some(item) => Solved::Lacks(item),
        None if lost > SEARCHED_MAX => Solved::Open,
        None => match search(instance, allowance) {
            Searched::Found(packing) => Solved::Packed(packing),
            Searched::Impossible => Solved::Lacks(first),
            Searched::GaveUp => Solved::Open,
        },
    }
}

/// Single hosts of a pool that may fail, by name.
fn failing(engine: &Engine, pool: &str) -> Vec<(HostName, u32)> {
    let hosts = engine.failing_hosts(pool);
    hosts.map(|(name, number)| (name.clone(), number)).collect()
}

impl Proofs {
    /// For the failures of those hosts that are asked about.
    fn prove(
        &mut self,
        engine: &Engine,
        pool: &str,
        asked: impl Fn(&HostName) -> bool,
    ) -> Headroom {
        let (failing, entries) = self.failing(engine, pool);
        let mut question = Question::new(engine, pool);
        let mut unknown = None;
        for (name, number) in failing.into_iter().filter(|(name, _)| asked(name)) {
            let failed = BTreeSet::from([number]);
            match question.known(entries, Failure::Host(name.clone()), &failed) {
                Survival::Proven => {}
                Survival::Unknown => unknown = unknown.or(Some(name)),
                Survival::Broken(vm) => return Headroom::Broken { failure: name, vm },
            }
        }
        unknown.map_or(Headroom::Proven, |failure| Headroom::Unknown { failure })
    }

    /// Hosts that may fail, and what is known of their failures; what was known of others is forgotten.
    fn failing(
        &mut self,
        engine: &Engine,
        pool: &str,
    ) -> (Vec<(HostName, u32)>, &mut BTreeMap<Failure, Entry>) {
        let failing = failing(engine, pool);
        let entries = self.pools.entry(pool.to_owned()).or_default();
        entries.retain(|failure, _| match failure {
            Failure::Host(name) => failing
                .binary_search_by(|(other, _)| other.cmp(name))
                .is_ok(),
            Failure::Rack(_) => true,
        });
        (failing, entries)
    }

    fn not_survived(&mut self, engine: &Engine, pool: &str) -> BTreeSet<HostName> {
        let (failing, entries) = self.failing(engine, pool);
        let mut question = Question::new(engine, pool);
        let broken = failing.into_iter().filter(|(name, number)| {
            // An allowance for each: the failure of one that is unknown would not be kept survived.
            question.allowance = LOOKS_MAX;
            let failed = BTreeSet::from([*number]);
            question.known(entries, Failure::Host(name.clone()), &failed) != Survival::Proven
        });
        broken.map(|(name, _)| name).collect()
    }

    fn report(&mut self, engine: &Engine, pool: &str, headroom: Headroom) -> HeadroomReport {
        let failing = failing(engine, pool);
        let entries = self.pools.entry(pool.to_owned()).or_default();
        let mut question = Question::new(engine, pool);
        let mut racks: BTreeMap<&String, BTreeSet<u32>> = BTreeMap::new();
        for (name, number) in &failing {
            if let Some(rack) = engine.fleet().racks.get(name) {
                racks.entry(rack).or_default().insert(*number);
            }
        }
        entries.retain(|failure, _| match failure {
            Failure::Host(_) => true,
            Failure::Rack(rack) => racks.contains_key(rack),
        });
        let racks = racks
            .into_iter()
            .map(|(rack, failed)| question.report(entries, Failure::Rack(rack.clone()), &failed))
            .collect();
        let hosts = failing.iter().map(|(name, number)| {
            let failed = BTreeSet::from([*number]);
            question.report(entries, Failure::Host(name.clone()), &failed)
        });
        HeadroomReport {
            headroom,
            hosts: hosts.collect(),
            racks,
            outside: outside(engine, &failing),
        }
    }
}

/// VMs on these hosts that no other could take over.
fn outside(engine: &Engine, failing: &[(HostName, u32)]) -> Vec<VmUid> {
    let on = failing.iter().flat_map(|(name, _)| engine.on(name));
    let bound = |uid: &&VmUid| {
        let number = engine.vm_number(uid);
        number.is_some_and(|number| engine.is_bound(number))
    };
    let outside: BTreeSet<VmUid> = on.filter(bound).cloned().collect();
    outside.into_iter().collect()
}

impl<'a> Question<'a> {
    fn new(engine: &'a Engine, pool: &str) -> Self {
        let hosts = engine.pool_hosts(pool);
        Self {
            engine,
            bins: Bins::of(engine, pool),
            relieved: hosts
                .map(|(_, number)| engine.host(number).relieved)
                .max()
                .unwrap_or(0)
                .max(engine.relieved()),
            allowance: LOOKS_MAX,
        }
    }

    fn known(
        &mut self,
        entries: &mut BTreeMap<Failure, Entry>,
        failure: Failure,
        failed: &BTreeSet<u32>,
    ) -> Survival {
        let entry = match entries.get_mut(&failure) {
            Some(entry) if self.still(entry, failed) => {
                entry.at = self.engine.clock();
                entry
            }
            _ => {
                let new = self.settle(failed);
                entries.entry(failure).insert_entry(new).into_mut()
            }
        };
        match &entry.known {
            Known::Proven(_) => Survival::Proven,
            Known::Broken(vm) => Survival::Broken(vm.clone()),
            Known::Unknown => Survival::Unknown,
        }
    }

    /// Whether what was known is still true.
    fn still(&self, entry: &Entry, failed: &BTreeSet<u32>) -> bool {
        let since = |host: &u32| self.engine.host(*host).changed > entry.at;
        if entry.failed != *failed || failed.iter().any(since) {
            return false;
        }
        if entry.fleeting {
            return self.engine.clock() == entry.at;
        }
        match &entry.known {
            Known::Proven(witness) => {
                let touched: BTreeSet<u32> = witness
                    .iter()
                    .map(|(_, host)| *host)
                    .filter(since)
                    .collect();
                touched.iter().all(|host| self.holds(witness, *host))
            }
            Known::Broken(_) | Known::Unknown => self.relieved <= entry.at,
        }
    }

    /// Whether a host still takes what a packing puts there.
    fn holds(&self, witness: &[(u32, u32)], host: u32) -> bool {
        let Some(place) = self.bins.places.get(&host) else {
            return false;
        };
        let kind = self.bins.list[*place].kind;
        let there: BTreeSet<u32> = witness.iter().map(|(vm, _)| *vm).collect();
        let free = self
            .engine
            .host(host)
            .free_without(self.engine.sum_on(host, &there));
        let mut sum = Free::default();
        for (vm, _) in witness.iter().filter(|(_, to)| *to == host) {
            let slot = self.engine.vm(*vm);
            sum.cpu = sum.cpu.saturating_add(slot.size.cpu);
            sum.memory_bytes = sum.memory_bytes.saturating_add(slot.size.memory_bytes);
            if self.engine.mates(&slot.apart, host, &there)
                || !self.engine.class_allows(slot.start_class, kind)
            {
                return false;
            }
        }
        fits(sum, free)
    }

    /// Works it out anew.
    fn settle(&mut self, failed: &BTreeSet<u32>) -> Entry {
        let engine = self.engine;
        let lost = lost(engine, failed);
        let instance = Instance::new(engine, &self.bins, failed, &lost);
        let start = failed.first().and_then(|host| self.bins.places.get(host));
        let witness = |packing: Vec<usize>| {
            let placed = instance.items.iter().zip(packing);
            let host = |bin: usize| self.bins.list[bin].host;
            let each = placed.flat_map(|(item, bin)| {
                let host = host(bin);
                item.vms.iter().map(move |vm| (*vm, host))
            });
            Known::Proven(each.collect())
        };
        let broken = |item: usize| {
            let item = instance.items.get(item);
            let first = item.and_then(|item| item.vms.first());
            first.map_or(Known::Unknown, |vm| {
                Known::Broken(engine.vm(*vm).uid.clone())
            })
        };
        let from = start.map_or(0, |place| place + 1);
        let known = match solve(&instance, from, lost.len(), &mut self.allowance) {
            Solved::Packed(packing) => witness(packing),
            Solved::Lacks(item) => broken(item),
            Solved::Open => Known::Unknown,
        };
        let sizes = lost.iter().map(|vm| engine.vm(*vm).size);
        let returned = |of: fn(Free) -> u64| {
            let pairs = instance.bins.iter().zip(&self.bins.list);
            pairs
                .map(|(with, without)| of(with.free) - of(without.free))
                .fold(0, u64::saturating_add)
        };
        Entry {
            returned: Free {
                cpu: returned(|free| free.cpu),
                memory_bytes: returned(|free| free.memory_bytes),
            },
            fleeting: failed.iter().any(|host| {
                engine.host(*host).vms.iter().any(|vm| {
                    let slot = engine.vm(*vm);
                    let mut apart = slot.apart.iter();
                    slot.bundle.is_some() || apart.any(|member| engine.is_of_racks(member.group))
                })
            }),
            known,
            failed: failed.clone(),
            at: engine.clock(),
            lost_vms: u32::try_from(lost.len()).unwrap_or(u32::MAX),
            lost: sizes.fold(Free::default(), |sum, size| Free {
                cpu: sum.cpu.saturating_add(size.cpu),
                memory_bytes: sum.memory_bytes.saturating_add(size.memory_bytes),
            }),
        }
    }

    fn report(
        &mut self,
        entries: &mut BTreeMap<Failure, Entry>,
        failure: Failure,
        failed: &BTreeSet<u32>,
    ) -> FailureReport {
        let survival = self.known(entries, failure.clone(), failed);
        let told = entries.get(&failure);
        let (lost_vms, lost, returned) = told.map_or_else(Default::default, |entry| {
            (entry.lost_vms, entry.lost, entry.returned)
        });
        let filled = |of: fn(Free) -> u64| {
            let remain = self
                .bins
                .list
                .iter()
                .filter(|bin| !failed.contains(&bin.host));
            let free: u128 = remain.map(|bin| u128::from(of(bin.free))).sum();
            let free = free + u128::from(of(returned));
            let wanted = u128::from(of(lost)) * 1_000;
            match (wanted, free) {
                (0, _) => 0,
                (_, 0) => u64::MAX,
                _ => u64::try_from(wanted.div_ceil(free)).unwrap_or(u64::MAX),
            }
        };
        FailureReport {
            survival,
            lost_vms,
            lost_memory_bytes: lost.memory_bytes,
            fills_permille: filled(|size| size.memory_bytes).max(filled(|size| size.cpu)),
            failure,
        }
    }
}
