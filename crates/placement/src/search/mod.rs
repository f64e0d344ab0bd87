//! Search for a cheaper placement over `crate::core`: simulated annealing that passes through
//! placements over their limits at a price, then annealing of a few hosts at a time, then a cold
//! finish that keeps every limit.
//!
//! 1. *Descent*, all limits hard: something good soon, and a measure of how much the time allows.
//! 2. *Annealing*, all limits but exclusion and classes priced (see `price`): capacity, transient
//!    use, spreads, dependencies. Hosts that should be empty hold large items that fit nowhere
//!    until others have made room, one by one; only a search that may overfill on the way gets them out.
//! 3. *Melting* of regions: two to eight related hosts are heated and cooled on their own, and the
//!    result is kept when it is legal and not dearer.
//! 4. *Finish*, all limits hard, down to single units of cost.
//!
//! Threads anneal on their own and continue from the best that any of them found. What a change
//! would cost is judged in floating point (`crate::core`'s quick judgements); what is made is
//! counted in integers, and only placements that are legal by those counts are remembered.
//!
//! Knows no clock: the caller's [`Budget`] says how far the run is. With a number of proposals the
//! answer depends on nothing but the model, the seed and the number of threads.

mod anneal;
mod best;
mod price;
mod propose;
mod rearrange;
mod region;
pub(crate) mod rng;

use crate::core::{Model, State};

use anneal::{Annealer, Phase};
use price::{Prices, host_scale};
pub use rng::Rng;

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

/// Heat at the start and at the end of annealing, as parts of the cost of a mean host's whole load.
const HOT: f64 = 0.05;
const WARM: f64 = 1e-4;
/// The heat that the finish starts from, in the same unit, and the one it ends with, in cost.
const COOL: f64 = 1e-5;
const COLD: f64 = 0.1;
/// The heat at which the result of a melted region is judged.
const OUTER: f64 = 1e-6;

/// Progress at which the phases end: a first descent, annealing, melting of regions. The rest is
/// the finish.
const DESCENT: f64 = 0.03;
const ANNEAL: f64 = 0.85;
const MELT: f64 = 0.95;
/// Times that annealing threads compare what they have.
const ROUNDS: u32 = 12;

/// Proposals per item with which annealing may not start warmer than it ends, and with which it
/// may start as hot as it likes.
const PER_ITEM: (f64, f64) = (300.0, 30_000.0);

/// The heat to start annealing from: a large fleet in a short time is better improved than melted.
fn start_heat(proposals_in_all: f64, items: usize) -> f64 {
    let per_item = proposals_in_all / items.max(1) as f64;
    let part = (per_item / PER_ITEM.0).ln() / (PER_ITEM.1 / PER_ITEM.0).ln();
    WARM * (HOT / WARM).powf(part.clamp(0.0, 1.0))
}

/// From `a` at the start of a phase to `b` at its end, by equal factors.
fn cool(a: f64, b: f64, from: f64, to: f64, done: f64) -> f64 {
    a * (b / a).powf(((done - from) / (to - from)).clamp(0.0, 1.0))
}

/// Searches from every item at home.
pub fn improve(model: &Model, seed: u64, threads: usize, budget: Budget<'_>) -> Found {
    let scale = host_scale(model);
    let mut team: Vec<Annealer<'_>> = (0..threads.max(1))
        .map(|t| Annealer::new(State::at_home(model), Rng::new(seed, t as u64)))
        .collect();
    let progress = |n: u64| budget.progress(n);

    // Something good soon, and a measure of how much can be done in the time.
    each(&mut team, &|one| {
        let heat = |_: f64| (scale * COOL).max(COLD);
        one.run(
            Phase {
                heat: &heat,
                until: DESCENT,
            },
            &progress,
        );
    });
    // How much each thread can do differs a little, so the first says how hot to start.
    let proposals = team.first().map_or(0, |one| one.proposals);
    let per_progress = proposals as f64 / progress(proposals).max(DESCENT);
    let hot = start_heat(per_progress, model.item_count());
    for one in &mut team {
        one.prices = Some((Prices::new(model), ANNEAL));
    }
    for round in 1..=ROUNDS {
        each(&mut team, &|one| {
            let heat = |done: f64| (scale * cool(hot, WARM, DESCENT, ANNEAL, done)).max(COLD);
            let part = f64::from(round) / f64::from(ROUNDS);
            let until = DESCENT + (ANNEAL - DESCENT) * part;
            one.run(Phase { heat: &heat, until }, &progress);
        });
        if round < ROUNDS {
            follow_the_leader(&mut team);
        }
    }
    for one in &mut team {
        one.prices = None;
    }
    share_best(&mut team);
    each(&mut team, &|one| {
        let outer = |done: f64| scale * OUTER * (MELT - done) / (MELT - ANNEAL);
        region::melt(one, &outer, MELT, &progress);
    });
    share_best(&mut team);
    each(&mut team, &|one| {
        let heat = |done: f64| cool((scale * COOL).max(COLD), COLD, MELT, 1.0, done);
        one.run(
            Phase {
                heat: &heat,
                until: 1.0,
            },
            &progress,
        );
    });
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
