//! Finds a place for every item: greedily in a few orders, then by a bounded search that tries
//! everything.

use std::collections::BTreeMap;

use super::instance::{Instance, Item, fits, less};
use crate::engine::{Member, SIDES};
use crate::fleet::Free;

/// By item of the instance: its bin.
pub(super) type Packing = Vec<usize>;

/// The answer of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Searched {
    Found(Packing),
    Impossible,
    /// The allowance is used up.
    GaveUp,
}

/// Bins with what has been put into them.
struct Table<'a> {
    instance: &'a Instance<'a>,
    free: Vec<Free>,
    /// By rule and domain: how many items of each side were put there.
    placed: BTreeMap<(u32, u32), [u32; 3]>,
}

impl<'a> Table<'a> {
    fn new(instance: &'a Instance<'a>) -> Self {
        Self {
            instance,
            free: instance.bins.iter().map(|bin| bin.free).collect(),
            placed: BTreeMap::new(),
        }
    }

    fn takes(&self, item: &Item, bin: usize) -> bool {
        fits(item.size, self.free[bin])
            && self.instance.allowed(item, bin)
            && !item.apart.iter().any(|member| {
                let there = self.domain(member, bin);
                let there = there.and_then(|key| self.placed.get(&key));
                there.is_some_and(|counts| {
                    SIDES
                        .into_iter()
                        .zip(counts)
                        .any(|(side, count)| *count > 0 && member.side.meets(side))
                })
            })
    }

    /// The rule, and the domain of a bin for it.
    fn domain(&self, member: &Member, bin: usize) -> Option<(u32, u32)> {
        let host = self.instance.bins[bin].host;
        let domain = self.instance.engine.domain_of(member.group, host)?;
        Some((member.group, domain))
    }

    fn put(&mut self, item: &Item, bin: usize) {
        self.free[bin] = less(self.free[bin], item.size);
        self.count(item, bin, true);
    }

    fn take_back(&mut self, item: &Item, bin: usize) {
        self.free[bin].cpu += item.size.cpu;
        self.free[bin].memory_bytes += item.size.memory_bytes;
        self.count(item, bin, false);
    }

    fn count(&mut self, item: &Item, bin: usize, there: bool) {
        for member in &item.apart {
            let Some(key) = self.domain(member, bin) else {
                continue;
            };
            let counts = self.placed.entry(key).or_default();
            for (side, count) in SIDES.into_iter().zip(counts) {
                if side == member.side && there {
                    *count += 1;
                } else if side == member.side {
                    *count = count.saturating_sub(1);
                }
            }
        }
    }
}

/// First fit of the largest first, beginning after a given bin: failures that begin in
/// different places use different hosts, so that one change of the fleet touches few of them.
/// Else the item that found no place.
pub(super) fn first_fit(instance: &Instance<'_>, start: usize) -> Result<Packing, usize> {
    let mut table = Table::new(instance);
    let (before, after) = (0..start, start..instance.bins.len());
    let mut packing = Vec::with_capacity(instance.items.len());
    for (index, item) in instance.items.iter().enumerate() {
        let mut bins = after.clone().chain(before.clone());
        let bin = bins.find(|bin| table.takes(item, *bin)).ok_or(index)?;
        table.put(item, bin);
        packing.push(bin);
    }
    Ok(packing)
}

/// Best fit in the order of a weighted size: what is left over is smallest by the same weights.
fn best_fit(instance: &Instance<'_>, cpu: u128, memory: u128) -> Option<Packing> {
    // Hosts of absurd size weigh as much as can be told.
    let weigh = |size: Free| {
        let cpu = u128::from(size.cpu).saturating_mul(cpu);
        cpu.saturating_add(u128::from(size.memory_bytes).saturating_mul(memory))
    };
    let mut order: Vec<usize> = (0..instance.items.len()).collect();
    order.sort_by_key(|index| {
        (
            std::cmp::Reverse(weigh(instance.items[*index].size)),
            *index,
        )
    });
    let mut table = Table::new(instance);
    let mut packing = vec![0; instance.items.len()];
    for index in order {
        let item = &instance.items[index];
        let bins = (0..instance.bins.len()).filter(|bin| table.takes(item, *bin));
        let bin = bins.min_by_key(|bin| weigh(table.free[*bin]))?;
        table.put(item, bin);
        packing[index] = bin;
    }
    Some(packing)
}

/// Several orders, one after the other; else the item that first fit could not place.
pub(super) fn greedy(instance: &Instance<'_>, start: usize) -> Result<Packing, usize> {
    let sum = |get: fn(Free) -> u64| -> u128 {
        let free = instance.bins.iter().filter(|bin| !bin.down);
        free.map(|bin| u128::from(get(bin.free)))
            .sum::<u128>()
            .max(1)
    };
    let failed = match first_fit(instance, start) {
        Ok(packing) => return Ok(packing),
        Err(failed) => failed,
    };
    // Weights by what is scarce: a per cent of the free CPU weighs as a per cent of the memory.
    let (cpu, memory) = (sum(|free| free.memory_bytes), sum(|free| free.cpu));
    [(0, 1), (cpu, memory), (1, 0)]
        .into_iter()
        .find_map(|(cpu, memory)| best_fit(instance, cpu, memory))
        .ok_or(failed)
}

/// Tries everything, with an allowance of looks at a bin.
pub(super) fn search(instance: &Instance<'_>, allowance: &mut u64) -> Searched {
    let mut order: Vec<usize> = (0..instance.items.len()).collect();
    // Who has the fewest bins chooses first.
    let choices = |index: &usize| {
        let bins = 0..instance.bins.len();
        bins.filter(|bin| instance.fits_alone(&instance.items[*index], *bin))
            .count()
    };
    order.sort_by_cached_key(|index| (choices(index), *index));
    let mut search = Search {
        table: Table::new(instance),
        alike: alike(instance),
        used: vec![0; instance.bins.len()],
        packing: vec![0; instance.items.len()],
        order,
        allowance,
    };
    match search.item(0) {
        Some(true) => Searched::Found(search.packing),
        Some(false) => Searched::Impossible,
        None => Searched::GaveUp,
    }
}

struct Search<'a> {
    table: Table<'a>,
    /// By bin: the first bin that is like it in everything.
    alike: Vec<usize>,
    /// By bin: items put there.
    used: Vec<u32>,
    packing: Packing,
    order: Vec<usize>,
    allowance: &'a mut u64,
}

impl Search<'_> {
    /// Places the items from a position on; none when the allowance is used up.
    ///
    /// Two symmetries are broken, both by the order of bins, so that a solution whose list of
    /// bins is smallest always remains: of unused bins that are alike only the first is tried,
    /// and of items that are alike the later never goes to an earlier bin.
    fn item(&mut self, position: usize) -> Option<bool> {
        let instance = self.table.instance;
        let Some(index) = self.order.get(position).copied() else {
            return Some(true);
        };
        let item = &instance.items[index];
        let bins = instance.bins.len();
        *self.allowance = self.allowance.checked_sub(bins as u64 + 1)?;
        let twin = position
            .checked_sub(1)
            .map(|before| self.order[before])
            .filter(|before| instance.items[*before].same(item, instance.engine));
        let from = twin.map_or(0, |before| self.packing[before]);
        let mut tried = Vec::new();
        let mut candidates = Vec::new();
        for bin in (from..bins).filter(|bin| self.table.takes(item, *bin)) {
            if self.used[bin] == 0 {
                if tried.contains(&self.alike[bin]) {
                    continue;
                }
                tried.push(self.alike[bin]);
            }
            candidates.push((less(self.table.free[bin], item.size).memory_bytes, bin));
        }
        candidates.sort_unstable();
        for (_, bin) in candidates {
            self.table.put(item, bin);
            self.used[bin] += 1;
            self.packing[index] = bin;
            let found = self.item(position + 1)?;
            if found {
                return Some(true);
            }
            self.used[bin] -= 1;
            self.table.take_back(item, bin);
        }
        Some(false)
    }
}

/// Bins that no item can tell apart.
fn alike(instance: &Instance<'_>) -> Vec<usize> {
    let mut blocked: Vec<Vec<usize>> = vec![Vec::new(); instance.bins.len()];
    for (index, item) in instance.items.iter().enumerate() {
        for bin in &item.blocked {
            blocked[*bin].push(index);
        }
    }
    let anchors: Vec<Vec<usize>> = (0..instance.bins.len())
        .map(|bin| {
            let items = instance.items.iter().enumerate();
            let drawn = items.filter(|(_, item)| item.is_drawn_to(bin));
            drawn.map(|(index, _)| index).collect()
        })
        .collect();
    // In a rack of its own a bin is like no other, where a rule is about racks.
    let racks = |bin: usize| -> Vec<Option<u32>> {
        let host = instance.bins[bin].host;
        let rules = instance.items.iter().flat_map(|item| &item.apart);
        let mut racks: Vec<Option<u32>> = rules
            .filter(|member| instance.engine.is_of_racks(member.group))
            .map(|member| instance.engine.domain_of(member.group, host))
            .collect();
        racks.dedup();
        racks
    };
    let mut first = BTreeMap::new();
    let bins = instance.bins.iter().zip(blocked).enumerate();
    bins.map(|(place, (bin, blocked))| {
        *first
            .entry((
                bin.down,
                bin.kind,
                bin.free,
                blocked,
                anchors[place].clone(),
                racks(place),
            ))
            .or_insert(place)
    })
    .collect()
}
