//! Search for a cheaper placement over `crate::core`: simulated annealing that passes through
//! placements over their limits at a price, then annealing of a few hosts at a time, then a cold
//! finish and polishing that keep every limit.
//!
//! 1. *Descent*, all limits hard: something good soon, and a measure of how much the time allows.
//! 2. *Annealing*, all limits but exclusion and classes priced (see `price`): capacity, transient
//!    use, spreads, dependencies. Hosts that should be empty hold large items that fit nowhere
//!    until others have made room.
//! 3. *Melting* of regions: two to eight related hosts are heated and cooled on their own, and the
//!    result is kept when it is legal and not dearer.
//! 4. *Finish*, all limits hard, down to single units of cost.
//! 5. *Polishing* (see `polish`): exact descents, and between them short annealing from the best.
//!
//! When the first descent leaves little that hosts could still save, much of the time is the
//! finish's and polishing's, and there moves count the more the hotter it is: else
//! what is hot enough to exchange items between hosts is so hot that nearly all leave home, and
//! they find back only part of the way.
//!
//! Between these small changes, in all phases, hosts are *rearranged* around a large item that
//! enters. Only hosts that an item may ever be on are looked at (`crate::core`'s reach).
//!
//! Threads anneal on their own; at set times those that do worst continue from those that do
//! best, and after a phase all from the best that any of them found. What a change
//! would cost is judged in floating point (`crate::core`'s quick judgements); what is made is
//! counted in integers, and only placements that are legal by those counts are remembered.
//!
//! Knows no clock: the caller's [`Budget`] says how far the run is. With a number of proposals the
//! answer depends on nothing but the model, the seed and the number of threads.

mod anneal;
mod best;
mod polish;
mod price;
mod propose;
mod rearrange;
mod region;
pub(crate) mod rng;
mod schedule;
#[cfg(test)]
mod tests;

use crate::core::{Model, State};

use anneal::{Annealer, Phase};
use price::{Prices, host_scale};
pub use rng::Rng;
use schedule::{
    COLD, COOL, DESCENT, LITTLE, LOADS, MOVES, ROUNDS, Shares, WARM, cool, start, start_heat,
    thrift, thrift_heat,
};

/// How long to search.
#[derive(Clone, Copy)]
pub enum Budget<'a> {
    /// So many proposals on each thread.
    Proposals(u64),
    /// Until this returns 1; it says how much of the time is used, from 0.
    Clock(&'a (dyn Fn() -> f64 + Sync)),
}

impl Budget<'_> {
    fn progress(&self, proposals: u64) -> f64 {
        match self {
            Budget::Proposals(0) => 1.0,
            Budget::Proposals(all) => proposals as f64 / *all as f64,
            Budget::Clock(clock) => clock(),
        }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Host of every item: the cheapest legal placement met, or all homes when none was legal.
    pub placement: Vec<u32>,
    /// Its cost; `None` when no legal placement was met.
    pub cost: Option<i64>,
    /// Changes looked at, over all threads.
    pub proposals: u64,
}

/// The heat at which the result of a melted region is judged.
const OUTER: f64 = 1e-6;

/// Anneals on all threads, limits priced, from a heat that is a part `hot` of the scale.
fn anneal(
    team: &mut [Annealer<'_>],
    (hot, scale): (f64, f64),
    end: f64,
    progress: &(dyn Fn(u64) -> f64 + Sync),
) {
    for one in team.iter_mut() {
        one.prices = Some(Prices::new(one.state.model()));
    }
    let heat = |done: f64| (scale * cool(hot, WARM, DESCENT, end, done)).max(COLD);
    let coolness = |done: f64| (done - DESCENT) / (end - DESCENT);
    for round in 1..=ROUNDS {
        let until = DESCENT + (end - DESCENT) * f64::from(round) / f64::from(ROUNDS);
        each(team, &|one| {
            one.run(
                Phase {
                    heat: &heat,
                    coolness: &coolness,
                    thrift: None,
                    until,
                },
                progress,
            );
        });
        if round < ROUNDS {
            follow_the_leader(team);
        }
    }
    for one in team {
        one.prices = None;
    }
}

/// Searches from every item at home.
pub fn improve(model: &Model, seed: u64, threads: usize, budget: Budget<'_>) -> Found {
    let scale = host_scale(model);
    let mut team: Vec<Annealer<'_>> = (0..threads.max(1))
        .map(|t| Annealer::new(State::at_home(model), Rng::new(seed, t as u64)))
        .collect();
    let progress = |n: u64| budget.progress(n);
    let waste = team.first().map_or(0.0, |one| one.state.quick_wastes());

    // Something good soon, and a measure of how much can be done in the time.
    each(&mut team, &|one| {
        let heat = |_: f64| (scale * COOL).max(COLD);
        one.run(
            Phase {
                heat: &heat,
                coolness: &|_| 1.0,
                thrift: None,
                until: DESCENT,
            },
            &progress,
        );
    });
    // How much each thread can do differs a little, so the first speaks for all.
    let proposals = team.first().map_or(0, |one| one.proposals);
    let per_progress = proposals as f64 / progress(proposals).max(DESCENT);
    let start = start(per_progress, model.item_count());
    let shares = if team.iter().all(|one| is_little_left(one, waste)) {
        MOVES
    } else {
        LOADS
    };
    anneal(
        &mut team,
        (start_heat(start), scale),
        shares.anneal,
        &progress,
    );
    share_best(&mut team);
    each(&mut team, &|one| {
        let part = |done: f64| (shares.melt - done) / (shares.melt - shares.anneal);
        let outer = |done: f64| scale * OUTER * part(done);
        region::melt(one, &outer, shares.melt, &progress);
    });
    share_best(&mut team);
    finish(&mut team, scale, start, shares, &progress);
    share_best(&mut team);

    let proposals = team.iter().map(|one| one.proposals).sum();
    match team.first() {
        Some(one) => Found {
            placement: one.best.placement().to_vec(),
            cost: one.best.cost(),
            proposals,
        },
        None => Found {
            placement: model.homes().to_vec(),
            cost: None,
            proposals,
        },
    }
}

/// Whether the first descent has left hosts little of the `waste` there was.
fn is_little_left(one: &Annealer<'_>, waste: f64) -> bool {
    one.state.is_legal() && one.state.quick_wastes() <= waste * LITTLE
}

/// Cools down to single units of cost, and polishes.
fn finish(
    team: &mut [Annealer<'_>],
    scale: f64,
    start: f64,
    shares: Shares,
    progress: &(dyn Fn(u64) -> f64 + Sync),
) {
    let top = thrift_heat(scale, start);
    let hot = if shares.thrifty {
        top
    } else {
        (scale * COOL).max(COLD)
    };
    each(team, &|one| {
        let unit = one.state.model().move_unit() as f64;
        let thrift = |heat: f64| thrift(heat, unit);
        one.run(
            Phase {
                heat: &|done| cool(hot, COLD, shares.melt, shares.finish, done),
                coolness: &|_| 1.0,
                thrift: if shares.thrifty { Some(&thrift) } else { None },
                until: shares.finish,
            },
            progress,
        );
    });
    share_best(team);
    each(team, &|one| polish::polish(one, top, progress));
}

/// Runs `work` for every member, each on its own thread.
fn each<'m>(team: &mut [Annealer<'m>], work: &(dyn Fn(&mut Annealer<'m>) + Sync)) {
    if let [one] = team {
        return work(one);
    }
    std::thread::scope(|scope| {
        for one in team {
            scope.spawn(move || work(one));
        }
    });
}

/// The half of the team that does worst continues from where the other half is. What froze at
/// a heat decides most of what can be reached below it, so to choose at every level gains more
/// than to choose once, at the end.
fn follow_the_leader(team: &mut [Annealer<'_>]) {
    let mut order: Vec<usize> = (0..team.len()).collect();
    order.sort_by(|&a, &b| team[a].level.total_cmp(&team[b].level));
    for k in 0..team.len() / 2 {
        let (leader, last) = (order[k], order[team.len() - 1 - k]);
        let placement = team[leader].state.placement().to_vec();
        let prices = team[leader].prices.clone();
        team[last].continue_from(&placement, prices);
    }
}

/// Everybody continues from the best that anybody found.
fn share_best(team: &mut [Annealer<'_>]) {
    let Some(best) = team
        .iter()
        .map(|one| &one.best)
        .min_by_key(|best| best.cost().unwrap_or(i64::MAX))
        .cloned()
    else {
        return;
    };
    for one in team {
        one.state.become_like(best.placement());
        one.best = best.clone();
    }
}
