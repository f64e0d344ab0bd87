//! The packing problem that a failure poses.

use std::collections::{BTreeMap, BTreeSet};

use model::HostName;

use crate::engine::{Engine, Member};
use crate::fleet::Free;

/// What is lost and must start elsewhere: a VM, or several that must share a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Their numbers, by uid.
    pub vms: Vec<u32>,
    pub size: Free,
    /// Their classes; each must be allowed.
    classes: Vec<u32>,
    /// Rules that keep it apart from other items.
    pub apart: Vec<Member>,
    /// Bins on which a VM remains that it must be apart from, ascending.
    pub blocked: Vec<usize>,
    /// The only bins on which VMs that must share its host remain, ascending.
    anchors: Option<Vec<usize>>,
}

impl Item {
    /// Items that nothing tells apart.
    pub(super) fn same(&self, other: &Item, engine: &Engine) -> bool {
        let free = |item: &Item| item.apart.is_empty() && item.anchors.is_none();
        let reach = |class: &u32| engine.class_reach(*class);
        let (mine, theirs) = (self.classes.iter(), other.classes.iter());
        self.size == other.size
            && free(self)
            && free(other)
            && mine.map(reach).eq(theirs.map(reach))
    }

    /// VMs that must share its host remain in a bin.
    pub(super) fn is_drawn_to(&self, bin: usize) -> bool {
        let anchors = self.anchors.as_ref();
        anchors.is_some_and(|anchors| anchors.binary_search(&bin).is_ok())
    }

    /// One rule stands between them: they are never in one domain.
    pub(super) fn meets(&self, other: &Item) -> bool {
        self.apart.iter().any(|mine| {
            let mut theirs = other.apart.iter();
            theirs.any(|their| mine.group == their.group && mine.side.meets(their.side))
        })
    }
}

/// A host that remains.
#[derive(Clone, Debug)]
pub(super) struct Bin {
    pub host: u32,
    pub kind: u32,
    pub free: Free,
    /// It is part of the failure.
    pub down: bool,
}

/// Hosts of a pool that can receive, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Bins {
    pub list: Vec<Bin>,
    /// Place in the list, by host.
    pub places: BTreeMap<u32, usize>,
}

impl Bins {
    /// Open hosts of the pool that stand: recovery goes by the rules of `place`, so a closed
    /// host receives nothing.
    pub(super) fn of(engine: &Engine, pool: &str) -> Self {
        Self::among(engine, engine.standing_hosts(pool))
    }

    /// Open hosts of every pool.
    pub(super) fn open(engine: &Engine) -> Self {
        let pools = engine.fleet().pools.keys();
        Self::among(engine, pools.flat_map(|pool| engine.pool_hosts(pool)))
    }

    fn among<'a>(engine: &Engine, hosts: impl Iterator<Item = (&'a HostName, u32)>) -> Self {
        let mut bins = Self::default();
        for (_, number) in hosts {
            let slot = engine.host(number);
            if let Some(kind) = slot.kind {
                bins.places.insert(number, bins.list.len());
                bins.list.push(Bin {
                    host: number,
                    kind,
                    free: slot.free(),
                    down: false,
                });
            }
        }
        bins
    }
}

/// What is lost and where it could go.
#[derive(Clone, Debug)]
pub(super) struct Instance<'a> {
    pub engine: &'a Engine,
    pub bins: Vec<Bin>,
    /// The largest memory first, ties by uid.
    pub items: Vec<Item>,
}

/// Numbers of the VMs that a failure of these hosts loses and that restart elsewhere. One that was shut down inside is
/// counted with them though it would stay so: it keeps its seat, its owner may start it again at any moment, and then N+1
/// must not turn out to be broken.
pub(super) fn lost(engine: &Engine, failed: &BTreeSet<u32>) -> Vec<u32> {
    let mut lost = Vec::new();
    for host in failed {
        let slot = engine.host(*host);
        lost.extend(slot.vms.iter().copied().filter(|number| {
            engine.machine(&engine.vm(*number).uid).is_some_and(|vm| {
                vm.host.as_ref() == Some(&slot.name)
                    && vm.restarts_elsewhere
                    && !engine.is_bound(*number)
            })
        }));
    }
    lost
}

impl<'a> Instance<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        bins: &Bins,
        failed: &BTreeSet<u32>,
        lost: &[u32],
    ) -> Self {
        let mut left = bins.list.clone();
        for host in failed {
            if let Some(place) = bins.places.get(host) {
                left[*place].down = true;
            }
        }
        // A lost VM that was on its way to another host takes no room there any more.
        let among_lost: BTreeSet<u32> = lost.iter().copied().collect();
        for vm in lost {
            for host in engine.other_places(*vm, failed) {
                if let Some(place) = bins.places.get(&host) {
                    left[*place].free = engine
                        .host(host)
                        .free_without(engine.sum_on(host, &among_lost));
                }
            }
        }
        let mut items = Self::items(engine, bins, (lost, &among_lost), failed);
        items.sort_by(|one, two| {
            let size = |item: &Item| (item.size.memory_bytes, item.size.cpu);
            let uid = |item: &Item| item.vms.first().map(|vm| &engine.vm(*vm).uid);
            size(two)
                .cmp(&size(one))
                .then_with(|| uid(one).cmp(&uid(two)))
        });
        Self {
            engine,
            bins: left,
            items,
        }
    }

    /// Lost VMs as items, those that must share a host as one: with room for those of them that are
    /// nowhere, as `place` asks for it.
    fn items(
        engine: &Engine,
        bins: &Bins,
        (lost, among_lost): (&[u32], &BTreeSet<u32>),
        failed: &BTreeSet<u32>,
    ) -> Vec<Item> {
        let mut bundles: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut parts: Vec<Vec<u32>> = Vec::new();
        for vm in lost {
            match engine.vm(*vm).bundle {
                Some(bundle) => bundles.entry(bundle).or_default().push(*vm),
                None => parts.push(vec![*vm]),
            }
        }
        parts.extend(bundles.into_values());
        let places = |hosts: BTreeSet<u32>| {
            let mut places: Vec<usize> = hosts
                .iter()
                .filter_map(|host| bins.places.get(host).copied())
                .collect();
            places.sort_unstable();
            places
        };
        let item = |mut vms: Vec<u32>| {
            vms.sort_by_key(|vm| &engine.vm(*vm).uid);
            let (anchors, nowhere) = engine.remaining(&vms, among_lost, failed);
            let mut with_nowhere = BTreeSet::new();
            let mut chosen_for = among_lost;
            if anchors.is_empty() && !nowhere.is_empty() {
                with_nowhere.extend(among_lost.iter().chain(&nowhere).copied());
                chosen_for = &with_nowhere;
                // The first of the lost stays the first: it is who is told.
                vms.extend(nowhere);
            }
            let slots = || vms.iter().map(|vm| engine.vm(*vm));
            let apart: Vec<Member> = slots()
                .flat_map(|slot| slot.apart.iter().copied())
                .collect();
            Item {
                size: slots().fold(Free::default(), |sum, slot| Free {
                    cpu: sum.cpu.saturating_add(slot.size.cpu),
                    memory_bytes: sum.memory_bytes.saturating_add(slot.size.memory_bytes),
                }),
                classes: slots().map(|slot| slot.start_class).collect(),
                blocked: places(engine.mates_hosts(&apart, chosen_for)),
                anchors: (!anchors.is_empty()).then(|| places(anchors)),
                apart,
                vms,
            }
        };
        parts.into_iter().map(item).collect()
    }

    /// Whether the rules about places allow an item in a bin, whatever the room.
    pub(super) fn allowed(&self, item: &Item, bin: usize) -> bool {
        let there = &self.bins[bin];
        !there.down
            && item
                .classes
                .iter()
                .all(|class| self.engine.class_allows(*class, there.kind))
            && item.blocked.binary_search(&bin).is_err()
            && item
                .anchors
                .as_ref()
                .is_none_or(|anchors| anchors.binary_search(&bin).is_ok())
    }

    /// Whether an item would fit in an otherwise unused bin.
    pub(super) fn fits_alone(&self, item: &Item, bin: usize) -> bool {
        fits(item.size, self.bins[bin].free) && self.allowed(item, bin)
    }
}

pub(super) fn fits(size: Free, free: Free) -> bool {
    size.memory_bytes <= free.memory_bytes && size.cpu <= free.cpu
}

pub(super) fn less(free: Free, size: Free) -> Free {
    Free {
        cpu: free.cpu.saturating_sub(size.cpu),
        memory_bytes: free.memory_bytes.saturating_sub(size.memory_bytes),
    }
}
