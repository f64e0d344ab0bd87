//! Simulated annealing over moves of one item and exchanges of two.

use crate::core::State;

use super::best::Best;
use super::price::Prices;
use super::propose::{Change, propose};
use super::rng::Rng;

/// Proposals between two looks at the clock.
const BATCH: u64 = 256;
/// Entries of the table of logarithms, a power of two.
const LOGS: usize = 4096;

/// How hot it is at each point of the run, and whether hard limits are only priced.
pub(super) struct Phase<'a> {
    /// Heat, in units of cost, as a function of progress.
    pub(super) heat: &'a dyn Fn(f64) -> f64,
    /// Prices of overflow, when the phase may pass through it.
    pub(super) prices: Option<Prices>,
    /// Progress at which the phase ends.
    pub(super) until: f64,
}

/// One thread's search.
pub(super) struct Annealer<'m> {
    pub(super) state: State<'m>,
    pub(super) best: Best,
    pub(super) rng: Rng,
    pub(super) proposals: u64,
    logs: Vec<f64>,
}

impl<'m> Annealer<'m> {
    pub(super) fn new(state: State<'m>, rng: Rng) -> Annealer<'m> {
        // -ln of the middle of each of so many equal parts of (0, 1): a proposal is accepted when
        // it costs at most heat times a random one of these.
        let part = |k: usize| -((k as f64 + 0.5) / LOGS as f64).ln();
        let best = Best::new(&state);
        Annealer {
            state,
            best,
            rng,
            proposals: 0,
            logs: (0..LOGS).map(part).collect(),
        }
    }

    /// Runs a phase; `progress` maps the number of proposals to 0..1 of the whole run.
    pub(super) fn run(&mut self, mut phase: Phase<'_>, progress: &dyn Fn(u64) -> f64) {
        let model = self.state.model();
        if model.item_count() == 0 || model.host_count() < 2 {
            return;
        }
        let soft = phase.prices.is_some();
        if let Some(prices) = &mut phase.prices {
            prices.apply(&mut self.state);
        }
        // A look at the prices costs a pass over all hosts: a few percent of the work between.
        let period = (model.host_count() as u64 * 10).max(8_000);
        let mut since = 0;
        loop {
            let done = progress(self.proposals);
            if done >= phase.until {
                break;
            }
            let heat = (phase.heat)(done);
            for _ in 0..BATCH {
                let Some(change) = propose(&self.state, &mut self.rng) else {
                    continue;
                };
                let limit = self.limit(heat);
                self.consider(change, limit, soft);
            }
            self.proposals += BATCH;
            since += BATCH;
            if let Some(prices) = &mut phase.prices
                && since >= period
            {
                since = 0;
                prices.adapt(&mut self.state);
            }
        }
        self.state.price_overflow(&[]);
    }

    /// The most that the next change may cost at a heat.
    pub(super) fn limit(&mut self, heat: f64) -> i64 {
        (heat * self.logs[self.rng.bits() as usize % LOGS]) as i64
    }

    /// Makes a change when the rules allow it and it costs at most `limit`. The cheapest question
    /// that most often says no comes first.
    pub(super) fn consider(&mut self, change: Change, limit: i64, soft: bool) {
        let state = &mut self.state;
        match change {
            Change::Move(item, to) => {
                if !soft && !state.fits(item, to)
                    || !state.move_costs_at_most(item, to, limit)
                    || !state.rules_let_move(item, to)
                {
                    return;
                }
                state.apply_move(item, to);
                self.best.touch(item);
            }
            Change::Swap(a, b) => {
                let (host_a, host_b) = (state.host_of(a), state.host_of(b));
                let fits =
                    soft || state.fits_instead(b, host_a, a) && state.fits_instead(a, host_b, b);
                if !fits || !state.swap_costs_at_most(a, b, limit) || !state.rules_let_swap(a, b) {
                    return;
                }
                state.apply_swap(a, b);
                self.best.touch(a);
                self.best.touch(b);
            }
        }
        self.best.offer(state);
    }
}
