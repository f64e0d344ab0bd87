//! Search for a cheaper placement over `crate::core`: simulated annealing that passes through
//! placements over their limits at a price, then a cold finish that keeps every limit.
//!
//! Knows no clock: the caller's [`Budget`] says how far the run is. With a number of proposals the
//! answer depends on nothing but the model, the seed and the number of threads.

mod anneal;
mod best;
mod price;
mod propose;
mod rng;

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

/// Heat at the start and at the end of annealing, as parts of the cost of a mean host's whole load,
/// and the heat, in units of cost, that the finish ends with.
const HOT: f64 = 0.05;
const WARM: f64 = 5e-5;
const COLD: f64 = 1.0;
/// Part of the run after which every limit is kept.
const FINISH: f64 = 0.9;

/// Searches from every item at home.
pub fn improve(model: &Model, seed: u64, threads: usize, budget: Budget<'_>) -> Found {
    let scale = host_scale(model);
    let (hot, warm) = ((scale * HOT).max(COLD), (scale * WARM).max(COLD));
    let anneal = |done: f64| hot * (warm / hot).powf(done / FINISH);
    let finish = |done: f64| warm * (COLD / warm).powf((done - FINISH) / (1.0 - FINISH));
    let mut team: Vec<Annealer<'_>> = (0..threads.max(1))
        .map(|t| Annealer::new(State::at_home(model), Rng::new(seed, t as u64)))
        .collect();

    each(&mut team, &|one| {
        let phase = Phase {
            heat: &anneal,
            prices: Some(Prices::new(model)),
            until: FINISH,
        };
        one.run(phase, &|n| budget.progress(n));
    });
    share_best(&mut team);
    each(&mut team, &|one| {
        one.run(
            Phase {
                heat: &finish,
                prices: None,
                until: 1.0,
            },
            &|n| budget.progress(n),
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
