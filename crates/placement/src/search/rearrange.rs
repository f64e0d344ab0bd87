//! Room for a large item: it enters a host whatever is there, and others leave that host, one by
//! one, each to where it costs least, as long as that pays.
//!
//! What is large fits nowhere until much else has gone, and every step on the way there costs more
//! than a cool fleet bears. Here only the end is judged. (The winners of the public challenge,
//! Gavranović, Buljubašić and Demirović, call a like neighbourhood "big process rearrangement".)

use crate::core::{Model, State};

use super::anneal::{Annealer, GAIN};
use super::propose::draw_host;
use super::rng::Rng;

/// Hosts that each item that might leave is offered, besides its home and the host that the
/// large item came from.
const OFFERS: usize = 10;
/// The most items that are looked at for the next to leave.
const LEAVERS: usize = 32;
/// The most items that are looked at for one to come where one is missed, and the most that come.
const COMERS: usize = 400;
const LINKS: usize = 4;

/// A host by its share of the cost, or as often any: the last dear host of a large fleet is found.
pub(super) fn dear_host(state: &State<'_>, rng: &mut Rng) -> u32 {
    by_share(state, rng, state.quick_hosts(), State::quick_host_cost)
}

/// A host by its share of what could be avoided, or as often any: the last one below a limit that
/// others are over is found.
pub(super) fn wasteful_host(state: &State<'_>, rng: &mut Rng) -> u32 {
    by_share(state, rng, state.quick_wastes(), State::quick_waste)
}

fn by_share<'m>(
    state: &State<'m>,
    rng: &mut Rng,
    all: f64,
    of: impl Fn(&State<'m>, u32) -> f64,
) -> u32 {
    let hosts = state.model().host_count() as u32;
    let any = rng.below(hosts as usize) as u32;
    let mut left = rng.unit() * all;
    if left <= 0.0 || rng.below(2) == 0 {
        return any;
    }
    for host in 0..hosts {
        left -= of(state, host);
        if left < 0.0 {
            return host;
        }
    }
    any
}

/// The larger of two items drawn from these.
fn pick_item(model: &Model, from: &[u32], rng: &mut Rng) -> Option<u32> {
    if from.is_empty() {
        return None;
    }
    let (a, b) = (from[rng.below(from.len())], from[rng.below(from.len())]);
    Some(if model.size(a) < model.size(b) { b } else { a })
}

/// An item that left its home: it made way for others, or it is what is missing there.
pub(super) fn one_that_left(state: &State<'_>, home: u32, rng: &mut Rng) -> Option<u32> {
    rng.around(state.model().homed(home))
        .find(|&&item| state.host_of(item) != home)
        .copied()
}

/// An item, and the host it is to enter: from a dear host, or to a wasteful one, to which those
/// that left it come back as often as any do.
fn pick(state: &State<'_>, rng: &mut Rng, hard: bool) -> Option<(u32, u32)> {
    let model = state.model();
    if !hard || rng.below(2) == 0 {
        let item = pick_item(model, state.items_on(dear_host(state, rng)), rng)?;
        return Some((item, draw_host(model, item, rng)?));
    }
    let host = wasteful_host(state, rng);
    let item = if rng.below(2) == 0 {
        one_that_left(state, host, rng)?
    } else {
        let any = rng.below(model.host_count()) as u32;
        pick_item(model, state.items_on(any), rng)?
    };
    model.may_reach(item, host).then_some((item, host))
}

/// Makes one attempt; it stays when all of it together costs at most what `heat` allows. While
/// limits are not priced, only the host that is entered may be over them, and not in the end.
pub(super) fn rearrange(one: &mut Annealer<'_>, heat: f64) {
    one.proposals += 1;
    let hard = one.rules.is_none();
    let Some((item, host)) = pick(&one.state, &mut one.rng, hard) else {
        return;
    };
    let from = one.state.host_of(item);
    if host == from
        || !one.state.may_enter(item, host)
        || hard && !(one.state.is_legal() && one.state.rules_let_move(item, host))
    {
        return;
    }
    let (before, missed) = (one.total(), one.state.quick_waste(from));
    if hard {
        one.state.price_overflow_on(&one.steep, &[host]);
    }
    one.state.apply_move(item, host);
    one.undo.clear();
    one.undo.push((item, from));
    while let Some((leaving, to)) = cheapest_leaver(one, host, item, from) {
        one.state.apply_move(leaving, to);
        one.undo.push((leaving, host));
    }
    if hard && one.state.quick_waste(from) > missed {
        refill(one, item, from);
    }
    let limit = one.limit(heat);
    let stays = !(hard && one.state.hosts_over() > 0) && one.total() - before <= limit;
    if !stays {
        for k in (0..one.undo.len()).rev() {
            let (item, host) = one.undo[k];
            one.state.apply_move(item, host);
        }
    }
    if hard {
        one.state.price_overflow_on(&[], &[host]);
    }
    if stays {
        for &(item, _) in &one.undo {
            one.best.touch(item);
        }
        one.best.offer(&mut one.state);
    }
}

/// Others come to where `gone` is missed, and then to where they came from, as long as that pays.
fn refill(one: &mut Annealer<'_>, gone: u32, from: u32) {
    let mut host = from;
    for _ in 0..LINKS {
        let Some(comes) = cheapest_comer(one, host, gone) else {
            return;
        };
        let was = one.state.apply_move(comes, host);
        one.undo.push((comes, was));
        if one.state.quick_waste(was) > one.state.quick_waste(host) {
            host = was;
        }
    }
}

/// The item that gains most by a move to `host`, if any gains but the one that just left.
fn cheapest_comer(one: &mut Annealer<'_>, host: u32, gone: u32) -> Option<u32> {
    let model = one.state.model();
    let mut best = (GAIN, None);
    let items = model.item_count() as u32;
    let first = one.rng.below(items as usize) as u32;
    let mut left = COMERS;
    for item in (first..items).chain(0..first) {
        if item == gone || one.state.host_of(item) == host || !model.may_reach(item, host) {
            continue;
        }
        one.proposals += 1;
        if let Some(cost) = one.cost_of_move(item, host, best.0) {
            best = (cost, Some(item));
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    best.1
}

/// The move off `host` that gains most, if any gains: of any item but the one that just came.
fn cheapest_leaver(one: &mut Annealer<'_>, host: u32, stays: u32, from: u32) -> Option<(u32, u32)> {
    let model = one.state.model();
    let mut best = (GAIN, None);
    let count = one.state.items_on(host).len();
    let first = one.rng.below(count);
    for k in 0..count.min(LEAVERS) {
        let item = one.state.items_on(host)[(first + k) % count];
        if item == stays {
            continue;
        }
        for offer in 0..OFFERS + 2 {
            let to = match offer {
                0 => from,
                1 => model.home(item),
                _ => match draw_host(model, item, &mut one.rng) {
                    Some(to) => to,
                    None => continue,
                },
            };
            if to == host || offer == 0 && !model.may_reach(item, to) {
                continue;
            }
            one.proposals += 1;
            if let Some(cost) = one.cost_of_move(item, to, best.0) {
                best = (cost, Some((item, to)));
            }
        }
    }
    best.1
}
