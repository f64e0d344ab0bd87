//! The packing problem that a failure poses.

use std::collections::{BTreeMap, BTreeSet};

use model::HostName;

use crate::engine::Engine;
use crate::fleet::Free;

/// A VM that is lost and must start elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub vm: u32,
    pub size: Free,
    pub class: u32,
    pub group: Option<u32>,
    /// Bins on which a VM of its group remains, ascending.
    pub blocked: Vec<usize>,
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
        let stands = |name: &HostName| {
            let host = engine.fleet().hosts.get(name);
            host.is_some_and(|host| host.stands)
        };
        let hosts = engine.pool_hosts(pool);
        Self::among(engine, hosts.filter(|(name, _)| stands(name)))
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

/// Numbers of the VMs that a failure of these hosts loses and that restart elsewhere.
pub(super) fn lost(engine: &Engine, failed: &BTreeSet<u32>) -> Vec<u32> {
    let mut lost = Vec::new();
    for host in failed {
        let slot = engine.host(*host);
        lost.extend(slot.vms.iter().copied().filter(|number| {
            engine.machine(&engine.vm(*number).uid).is_some_and(|vm| {
                vm.host.as_ref() == Some(&slot.name)
                    && vm.restarts_elsewhere
                    && vm.pinned_to.is_none()
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
        let mut items: Vec<Item> = lost
            .iter()
            .map(|number| {
                let slot = engine.vm(*number);
                let blocked = slot.group.map_or_else(Vec::new, |group| {
                    let remain = |host: &u32| {
                        engine.group_on(group, *host)
                            > engine.group_among(group, *host, &among_lost)
                    };
                    let hosts = engine.group_hosts(group).filter(remain);
                    let mut places: Vec<usize> = hosts
                        .filter_map(|host| bins.places.get(&host).copied())
                        .collect();
                    places.sort_unstable();
                    places
                });
                Item {
                    vm: *number,
                    size: slot.size,
                    class: slot.class,
                    group: slot.group,
                    blocked,
                }
            })
            .collect();
        items.sort_by(|one, two| {
            let size = |item: &Item| (item.size.memory_bytes, item.size.cpu);
            let uid = |item: &Item| &engine.vm(item.vm).uid;
            size(two)
                .cmp(&size(one))
                .then_with(|| uid(one).cmp(uid(two)))
        });
        Self {
            engine,
            bins: left,
            items,
        }
    }

    /// Whether the rules about places allow an item in a bin, whatever the room.
    pub(super) fn allowed(&self, item: &Item, bin: usize) -> bool {
        let there = &self.bins[bin];
        !there.down
            && self.engine.class_allows(item.class, there.kind)
            && item.blocked.binary_search(&bin).is_err()
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
