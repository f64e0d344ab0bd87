//! What is impossible for certain. Each test is a necessary condition: when it fails, no
//! packing exists.

use super::instance::{Instance, Item, fits};
use crate::fleet::Free;

/// Sizes tried as thresholds, per resource. Bounds the time of a failure with many sizes.
const THRESHOLDS_MAX: usize = 64;

/// An item that proves it when it fits nowhere alone; else any of those that cannot all fit
/// (`first`, the one for which a greedy packing failed).
pub(super) fn impossible(instance: &Instance<'_>, first: usize) -> Option<usize> {
    let nowhere = |item: &Item| {
        let mut bins = 0..instance.bins.len();
        !bins.any(|bin| instance.fits_alone(item, bin))
    };
    if let Some(alone) = instance.items.iter().position(nowhere) {
        return Some(alone);
    }
    let refuted = too_large(instance, |size| size.memory_bytes)
        || too_large(instance, |size| size.cpu)
        || crowded(instance);
    refuted.then_some(first)
}

/// Volume and Martello–Toth's L2 for one resource, for bins of different sizes.
fn too_large(instance: &Instance<'_>, of: fn(Free) -> u64) -> bool {
    let sizes: Vec<u64> = instance.items.iter().map(|item| of(item.size)).collect();
    let useful = |bin: &usize| {
        let mut items = instance.items.iter();
        items.any(|item| instance.fits_alone(item, *bin))
    };
    let bins: Vec<u64> = (0..instance.bins.len())
        .filter(useful)
        .map(|bin| of(instance.bins[bin].free))
        .collect();
    let largest = bins.iter().copied().max().unwrap_or(0);
    sampled(thresholds(&sizes, largest))
        .into_iter()
        .any(|small| l2_exceeds(&sizes, &bins, largest, small) || too_many(&sizes, &bins, small))
}

/// Thresholds at which an answer can change: every size, and from where on each large one fills a bin.
fn thresholds(sizes: &[u64], largest: u64) -> Vec<u64> {
    let fills = sizes
        .iter()
        .map(|size| largest.saturating_sub(*size).saturating_add(1))
        .filter(|small| *small <= largest / 2);
    let mut thresholds: Vec<u64> = sizes.iter().copied().chain(fills).chain([0]).collect();
    thresholds.sort_unstable();
    thresholds.dedup();
    thresholds
}

/// As many as are tried, evenly from the least to the greatest: large ones refute as often as small ones.
fn sampled(thresholds: Vec<u64>) -> Vec<u64> {
    let last = thresholds.len().saturating_sub(1);
    if last < THRESHOLDS_MAX {
        return thresholds;
    }
    let places = (0..THRESHOLDS_MAX).map(|place| place * last / (THRESHOLDS_MAX - 1));
    places.map(|place| thresholds[place]).collect()
}

/// L2 (Martello & Toth 1990) with threshold `small` ≤ half the largest bin C: items above
/// C − small fill a bin of C, items below `small` count nothing. A bin that could hold a large
/// item counts as C, since it may hold one and nothing else that counts.
fn l2_exceeds(sizes: &[u64], bins: &[u64], largest: u64, small: u64) -> bool {
    if small > largest / 2 {
        return false;
    }
    let count = |value: u64| {
        u128::from(if value > largest - small {
            largest
        } else if value >= small {
            value
        } else {
            0
        })
    };
    let sum = |values: &[u64]| values.iter().copied().map(count).sum::<u128>();
    sum(sizes) > sum(bins)
}

/// Items of at least this size are more than the bins hold of them.
fn too_many(sizes: &[u64], bins: &[u64], size: u64) -> bool {
    if size == 0 {
        return false;
    }
    let items = sizes.iter().filter(|other| **other >= size).count() as u128;
    items > bins.iter().map(|bin| u128::from(bin / size)).sum::<u128>()
}

/// Items of which no two fit together in any bin need a bin each: a clique, found greedily
/// from the largest on, and a matching of its items with bins.
fn crowded(instance: &Instance<'_>) -> bool {
    let free = instance.bins.iter().filter(|bin| !bin.down);
    let most = free.fold(Free::default(), |most, bin| Free {
        cpu: most.cpu.max(bin.free.cpu),
        memory_bytes: most.memory_bytes.max(bin.free.memory_bytes),
    });
    let apart = |one: &Item, two: &Item| {
        let both = Free {
            cpu: one.size.cpu.saturating_add(two.size.cpu),
            memory_bytes: one.size.memory_bytes.saturating_add(two.size.memory_bytes),
        };
        one.meets(two) || !fits(both, most)
    };
    // The largest item, and one of each group.
    let mut groups: Vec<u32> = Vec::new();
    instance.items.iter().enumerate().any(|(index, item)| {
        let mut own = item.apart.iter().map(|member| member.group);
        let new = own.any(|group| !groups.contains(&group));
        groups.extend(item.apart.iter().map(|member| member.group));
        (index == 0 || new) && !matched(instance, &clique(instance, item, &apart))
    })
}

/// Items of which no two can be together, grown from one of them.
fn clique<'a>(
    instance: &'a Instance<'_>,
    seed: &'a Item,
    apart: &dyn Fn(&Item, &Item) -> bool,
) -> Vec<&'a Item> {
    let mut clique = vec![seed];
    for item in instance.items.iter().filter(|item| item.vms != seed.vms) {
        if clique.iter().all(|other| apart(item, other)) {
            clique.push(item);
        }
    }
    clique
}

/// Whether each item finds a bin of its own (augmenting paths).
fn matched(instance: &Instance<'_>, items: &[&Item]) -> bool {
    let mut owner: Vec<Option<usize>> = vec![None; instance.bins.len()];
    (0..items.len()).all(|item| {
        let mut seen = vec![false; instance.bins.len()];
        augment(instance, items, item, &mut owner, &mut seen)
    })
}

fn augment(
    instance: &Instance<'_>,
    items: &[&Item],
    item: usize,
    owner: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for bin in 0..owner.len() {
        if seen[bin] || !instance.fits_alone(items[item], bin) {
            continue;
        }
        seen[bin] = true;
        let moves = match owner[bin] {
            None => true,
            Some(other) => augment(instance, items, other, owner, seen),
        };
        if moves {
            owner[bin] = Some(item);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l2_refutes_what_volume_does_not() {
        // Three items of 6 in three bins of 10 leave 4 each: another 5 fits nowhere, though 23 < 30.
        let (sizes, bins) = ([6, 6, 6, 5], [10, 10, 10]);
        assert!(!l2_exceeds(&sizes, &bins, 10, 0));
        assert!(l2_exceeds(&sizes, &bins, 10, 5));
    }

    #[test]
    fn counting_refutes_what_volume_does_not() {
        assert!(too_many(&[4, 4, 4, 4, 4], &[7, 7, 7, 7], 4));
        assert!(!too_many(&[4, 4, 4, 4], &[7, 7, 7, 7], 4));
    }

    /// Three bins of 100 hold two items of 34 each; with the small ones there are more sizes than are tried.
    #[test]
    fn large_sizes_are_tried_however_many_small_ones_there_are() {
        let small = 1..=200;
        let unit = 1 << 30;
        let mut sizes: Vec<u64> = small.collect();
        sizes.extend([34 * unit; 7]);
        let bins = [100 * unit; 3];
        let tried = sampled(thresholds(&sizes, 100 * unit));
        assert_eq!(tried.len(), THRESHOLDS_MAX);
        assert_eq!(tried.first(), Some(&0));
        assert!(tried.iter().any(|size| too_many(&sizes, &bins, *size)));
        let few = thresholds(&sizes[190..], 100 * unit);
        assert_eq!(sampled(few.clone()), few);
    }

    #[test]
    fn nothing_in_a_bin_without_end_is_no_panic() {
        assert_eq!(thresholds(&[0, u64::MAX], u64::MAX), [0, 1, u64::MAX]);
    }
}
