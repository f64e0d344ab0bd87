//! Annealing of a few hosts at a time. In a cold fleet a large item sits where it froze; here only
//! the hosts around it melt, everything between them is tried in a few thousand proposals, and the
//! result stays only when it is legal and not dearer.

use crate::core::State;

use super::anneal::{Annealer, REARRANGE};
use super::price::{RulePrices, flat_prices, host_scale};
use super::propose::{Change, swap};
use super::rearrange::{dear_host, one_that_left, rearrange, wasteful_host};
use super::rng::Rng;

/// Least and most hosts of a region.
const HOSTS: (usize, usize) = (2, 8);
/// Bounds of the heat a region starts from, and the heat it ends with, as parts of a host's scale.
const HOT: (f64, f64) = (1e-4, 3e-2);
const COLD: f64 = 2e-6;
/// Proposals per item of a region of few hosts; more hosts get more.
const STEPS: usize = 30;
/// The part of its steps that a region is then looked at as cold as the finish ends: one in so many.
const QUENCH: usize = 4;
/// Price of a broken rule, in units of the heat a region starts from.
const RULE: f64 = 5.0;
/// Proposals between two changes of the heat.
const BLOCK: usize = 64;

/// The hosts that melt together, what is on them, and where it was.
struct Region {
    hosts: Vec<u32>,
    items: Vec<u32>,
    was: Vec<u32>,
}

/// Picks a first host, and with it hosts by chance, or hosts that its items come from or that
/// items of the same groups are on.
fn pick(state: &State<'_>, rng: &mut Rng) -> Region {
    let model = state.model();
    let size = (HOSTS.0 + rng.below(HOSTS.1 + 1 - HOSTS.0)).min(model.host_count());
    let first = if rng.below(2) == 0 {
        dear_host(state, rng)
    } else {
        wasteful_host(state, rng)
    };
    let mut hosts = vec![first];
    let related = rng.below(2) == 0;
    // Relations may lead to nothing new, so the tries are bounded.
    for _ in 0..size * 8 {
        if hosts.len() >= size {
            break;
        }
        let from = hosts[rng.below(hosts.len())];
        let on = state.items_on(from);
        let next = if related
            && rng.below(3) == 0
            && let Some(left) = one_that_left(state, from, rng)
        {
            state.host_of(left)
        } else if related && !on.is_empty() {
            let item = on[rng.below(on.len())];
            let members = model.members(model.group(item));
            if model.home(item) != from && rng.below(4) > 0 {
                model.home(item)
            } else {
                state.host_of(members[rng.below(members.len())])
            }
        } else {
            rng.below(model.host_count()) as u32
        };
        if !hosts.contains(&next) {
            hosts.push(next);
        }
    }
    let items: Vec<u32> = hosts
        .iter()
        .flat_map(|&h| state.items_on(h).iter().copied())
        .collect();
    let was = items.iter().map(|&i| state.host_of(i)).collect();
    Region { hosts, items, was }
}

/// Draws a change inside the region.
fn propose(region: &Region, state: &State<'_>, rng: &mut Rng) -> Option<Change> {
    let item = region.items[rng.below(region.items.len())];
    let here = state.host_of(item);
    if rng.below(5) < 2 {
        let home = state.model().home(item);
        let to = if rng.below(2) == 0 && region.hosts.contains(&home) {
            home
        } else {
            region.hosts[rng.below(region.hosts.len())]
        };
        let may = to != here && state.model().may_reach(item, to);
        return may.then_some(Change::Move(item, to));
    }
    let other = region.items[rng.below(region.items.len())];
    swap(state, item, other)
}

/// Melts region after region until `until`. `outer` is the heat at which a whole region's result
/// is judged, as a function of progress.
pub(super) fn melt(
    one: &mut Annealer<'_>,
    outer: &dyn Fn(f64) -> f64,
    until: f64,
    progress: &dyn Fn(u64) -> f64,
) {
    let model = one.state.model();
    if model.item_count() == 0 || model.host_count() < 2 || !one.state.is_legal() {
        return;
    }
    let scale = host_scale(model);
    // Moves that rearranging may still judge, for what regions have taken.
    let mut credit = 0_u64;
    loop {
        let done = progress(one.proposals);
        if done >= until {
            return;
        }
        while credit > 0 {
            let before = one.proposals;
            rearrange(one, outer(done));
            credit = credit.saturating_sub(one.proposals - before);
        }
        let region = pick(&one.state, &mut one.rng);
        // An empty region costs a step too, or a fleet of empty hosts would never end.
        one.proposals += 1;
        if region.items.is_empty() {
            continue;
        }
        let before = one.state.cost().total();
        let hot = scale * HOT.0 * (HOT.1 / HOT.0).powf(one.rng.unit());
        one.state
            .price_overflow_on(&flat_prices(model, hot), &region.hosts);
        one.rules = Some(RulePrices::flat(RULE * hot));
        let blocks = (region.items.len() * STEPS * (4 + region.hosts.len()) / (4 * BLOCK)).max(1);
        // In the end single units of cost count, as they do in what the result is compared with.
        let quench = blocks.div_ceil(QUENCH);
        for block in 0..blocks + quench {
            let heat = if block < blocks {
                hot * (scale * COLD / hot).powf(block as f64 / blocks as f64)
            } else {
                super::COLD
            };
            for _ in 0..BLOCK {
                if let Some(change) = propose(&region, &one.state, &mut one.rng) {
                    let limit = one.limit(heat);
                    one.consider(change, limit);
                }
            }
        }
        let made = ((blocks + quench) * BLOCK) as u64;
        one.proposals += made;
        credit += made / REARRANGE;
        one.state.price_overflow_on(&[], &region.hosts);
        one.rules = None;
        let limit = one.limit(outer(done));
        if !one.state.is_legal() || (one.state.cost().total() - before) as f64 > limit {
            for (&item, &host) in region.items.iter().zip(&region.was) {
                if one.state.host_of(item) != host {
                    one.state.apply_move(item, host);
                    one.best.touch(item);
                }
            }
        }
    }
}
