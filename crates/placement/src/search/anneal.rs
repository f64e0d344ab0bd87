//! Simulated annealing over moves of one item and exchanges of two.

use crate::core::State;

use super::best::Best;
use super::price::{Prices, RulePrices, flat_prices, host_scale};
use super::propose::{Change, propose};
use super::rearrange::rearrange;
use super::rng::Rng;

/// Proposals between two looks at the clock.
pub(super) const BATCH: u64 = 256;
/// What a change must cost at most to be a gain, in a cost of whole numbers.
pub(super) const GAIN: f64 = -0.5;
/// Proposals between two attempts to rearrange a host, for each move that the last one judged; and
/// the least.
pub(super) const REARRANGE: u64 = 4;
const REARRANGE_PAUSE: u64 = 2_048;
/// Proposals between two looks who is away from home: the items, by this.
const AWAY: u64 = 4;
/// The cost of a thousandth of a mean host over its limits, as part of the cost of a whole one,
/// while that is not to last.
const STEEP: f64 = 0.01;
/// Entries of the table of logarithms, a power of two.
const LOGS: usize = 1024;

/// How hot it is at each point of the run, and whether limits are only priced.
pub(super) struct Phase<'a> {
    /// Heat, in units of cost, as a function of progress.
    pub(super) heat: &'a dyn Fn(f64) -> f64,
    /// How far it is on the way from hot to warm, as a function of progress: what limits cost.
    pub(super) coolness: &'a dyn Fn(f64) -> f64,
    /// How many times their cost moves count, as a function of heat; then items away from home are
    /// also looked at more often.
    pub(super) thrift: Option<&'a dyn Fn(f64) -> f64>,
    /// Progress at which the phase ends.
    pub(super) until: f64,
}

/// One thread's search.
pub(super) struct Annealer<'m> {
    pub(super) state: State<'m>,
    pub(super) best: Best,
    pub(super) rng: Rng,
    pub(super) proposals: u64,
    /// Prices of overflow, while annealing may pass through it.
    pub(super) prices: Option<Prices>,
    /// Mean cost over the second half of the last phase.
    pub(super) level: f64,
    /// Prices of spread and dependencies; `None` while they and capacity are hard.
    pub(super) rules: Option<RulePrices>,
    /// Prices at which nothing stays over a limit while one host may be.
    pub(super) steep: Vec<i64>,
    /// How many times their cost moves count, less one.
    pub(super) thrift: f64,
    /// Items that were away from home when last looked at.
    away: Vec<u32>,
    /// What an attempt to rearrange has moved, and from where.
    pub(super) undo: Vec<(u32, u32)>,
    logs: Vec<f32>,
}

impl<'m> Annealer<'m> {
    pub(super) fn new(state: State<'m>, rng: Rng) -> Annealer<'m> {
        // -ln of the middle of each of so many equal parts of (0, 1): a proposal is accepted when
        // it costs at most heat times a random one of these.
        let part = |k: usize| -((k as f64 + 0.5) / LOGS as f64).ln() as f32;
        let best = Best::new(&state);
        let model = state.model();
        Annealer {
            steep: flat_prices(model, STEEP * host_scale(model)),
            undo: Vec::new(),
            thrift: 0.0,
            away: Vec::new(),
            state,
            best,
            rng,
            proposals: 0,
            prices: None,
            level: f64::INFINITY,
            rules: None,
            logs: (0..LOGS).map(part).collect(),
        }
    }

    /// Runs a phase; `progress` maps the number of proposals to 0..1 of the whole run.
    pub(super) fn run(&mut self, phase: Phase<'_>, progress: &dyn Fn(u64) -> f64) {
        let model = self.state.model();
        if model.item_count() == 0 || model.host_count() < 2 {
            return;
        }
        if let Some(prices) = &mut self.prices {
            prices.apply(&mut self.state);
            self.rules = Some(prices.rules());
        }
        let half = (progress(self.proposals) + phase.until) / 2.0;
        let (mut sum, mut looks) = (0.0, 0.0);
        // A look at the prices costs a pass over all hosts: a few percent of the work between.
        let period = (model.host_count() as u64 * 10).max(8_000);
        let (mut since, mut due, mut look) = (0, 0, 0);
        loop {
            let done = progress(self.proposals);
            if done >= phase.until {
                break;
            }
            let heat = (phase.heat)(done);
            if let Some(thrift) = phase.thrift {
                self.thrift = thrift(heat) - 1.0;
                if self.proposals >= look {
                    look = self.proposals + model.item_count() as u64 / AWAY;
                    self.look_who_is_away();
                }
            }
            for _ in 0..BATCH {
                let Some(change) = propose(&self.state, &mut self.rng, &self.away) else {
                    continue;
                };
                let limit = self.limit(heat);
                self.consider(change, limit);
            }
            self.proposals += BATCH;
            since += BATCH;
            if self.proposals >= due {
                let before = self.proposals;
                rearrange(self, heat);
                due = self.proposals + REARRANGE_PAUSE.max(REARRANGE * (self.proposals - before));
            }
            if done > half {
                sum += self.state.quick_total();
                looks += 1.0;
            }
            if let Some(prices) = &mut self.prices
                && since >= period
            {
                since = 0;
                prices.adapt(&mut self.state, (phase.coolness)(done));
                self.rules = Some(prices.rules());
            }
        }
        // Who was never looked at leads nobody.
        self.level = if looks > 0.0 {
            sum / looks
        } else {
            f64::INFINITY
        };
        self.state.price_overflow(&[]);
        self.rules = None;
        self.thrift = 0.0;
        self.away.clear();
    }

    fn look_who_is_away(&mut self) {
        let (state, homes) = (&self.state, self.state.model().homes());
        let items = homes.iter().zip(state.placement()).zip(0..);
        let away = items.filter(|((home, host), _)| home != host);
        self.away.clear();
        self.away.extend(away.map(|(_, item)| item));
    }

    /// Goes on from another's placement and prices; the best met so far stays.
    pub(super) fn continue_from(&mut self, placement: &[u32], prices: Option<Prices>) {
        for (item, &host) in placement.iter().enumerate() {
            if self.state.host_of(item as u32) != host {
                self.state.apply_move(item as u32, host);
                self.best.touch(item as u32);
            }
        }
        self.prices = prices;
    }

    /// Goes on from the best legal placement met, if there is one, unless the present is as good.
    pub(super) fn back_to_best(&mut self) {
        self.state.settle();
        let worse = |best: i64| !self.state.is_legal() || self.state.cost().total() > best;
        if self.best.cost().is_some_and(worse) {
            self.state.become_like(self.best.placement());
        }
    }

    /// The most that the next change may cost at a heat.
    pub(super) fn limit(&mut self, heat: f64) -> f64 {
        heat * f64::from(self.logs[self.rng.bits() as usize % LOGS])
    }

    /// Makes a change when the rules allow it and it costs at most `limit`; says whether it did.
    pub(super) fn consider(&mut self, change: Change, limit: f64) -> bool {
        let limit = limit - self.counts_more(change);
        match change {
            Change::Move(item, to) => {
                if !self.move_is_worth(item, to, limit) {
                    return false;
                }
                self.state.apply_move(item, to);
                self.best.touch(item);
            }
            Change::Swap(a, b) => {
                if !self.swap_is_worth(a, b, limit) {
                    return false;
                }
                self.state.apply_swap(a, b);
                self.best.touch(a);
                self.best.touch(b);
            }
        }
        self.best.offer(&mut self.state);
        true
    }

    /// What a change costs more than it does because moves count more than once.
    fn counts_more(&self, change: Change) -> f64 {
        if self.thrift == 0.0 {
            return 0.0;
        }
        let once = match change {
            Change::Move(item, to) => self.state.delta_away(item, to),
            Change::Swap(a, b) => self.state.delta_away_swap(a, b),
        };
        self.thrift * once as f64
    }

    /// The whole cost, with the prices of limits and rules while there are any, and with moves as
    /// often as they count.
    pub(super) fn total(&self) -> f64 {
        let moves = self.thrift * self.state.moves_cost() as f64;
        self.state.quick_total() + self.rebate() + moves
    }

    /// What a move costs, when it is allowed and that is less than `most`.
    pub(super) fn cost_of_move(&self, item: u32, to: u32, most: f64) -> Option<f64> {
        let state = &self.state;
        if self.rules.is_none() && !state.fits(item, to) || !state.may_enter(item, to) {
            return None;
        }
        let mut cost = state.quick_added(item, to) - state.quick_freed(item)
            + (1.0 + self.thrift) * state.delta_away(item, to) as f64;
        match self.rules {
            None if !state.rules_let_move(item, to) => return None,
            None => {}
            Some(prices) => cost += prices.of(state.rules_change_move(item, to)),
        }
        (cost < most).then_some(cost)
    }

    /// The most that one change can gain by keeping more rules: what all broken ones cost.
    fn rebate(&self) -> f64 {
        match self.rules {
            Some(prices) if self.state.broken_rules() > 0 => prices.of(self.state.broken_parts()),
            _ => 0.0,
        }
    }

    /// The cheapest question that most often says no comes first; the pair of hosts is looked up
    /// last, for in a large fleet that is a look at far memory.
    fn move_is_worth(&self, item: u32, to: u32, limit: f64) -> bool {
        let state = &self.state;
        if self.rules.is_none() && !state.fits(item, to) || !state.may_enter(item, to) {
            return false;
        }
        let most = limit + self.rebate();
        // The most that moves may cost less: going home, and the worst group by one item.
        let away = (state.away_cost(item) + state.model().group_move_weight()) as f64;
        let mut cost = state.quick_added(item, to) - away;
        if cost - state.quick_host_cost(state.host_of(item)) > most {
            return false;
        }
        cost -= state.quick_freed(item);
        if cost > most {
            return false;
        }
        cost += away + state.delta_away(item, to) as f64;
        match self.rules {
            None => cost <= limit && state.rules_let_move(item, to),
            Some(prices) => {
                cost <= most && cost + prices.of(state.rules_change_move(item, to)) <= limit
            }
        }
    }

    fn swap_is_worth(&self, a: u32, b: u32, limit: f64) -> bool {
        let state = &self.state;
        let (host_a, host_b) = (state.host_of(a), state.host_of(b));
        let fits = self.rules.is_some()
            || state.fits_instead(b, host_a, a) && state.fits_instead(a, host_b, b);
        if !fits || !state.may_exchange(a, b) {
            return false;
        }
        let most = limit + self.rebate();
        let worst = 2 * state.model().group_move_weight();
        let away = (state.away_cost(a) + state.away_cost(b) + worst) as f64;
        let mut cost = state.quick_exchanged(host_a, a, b) - away;
        if cost - state.quick_host_cost(host_b) > most {
            return false;
        }
        cost += state.quick_exchanged(host_b, b, a);
        if cost > most {
            return false;
        }
        cost += away + state.delta_away_swap(a, b) as f64;
        match self.rules {
            None => cost <= limit && state.rules_let_swap(a, b),
            Some(prices) => {
                cost <= most && cost + prices.of(state.rules_change_swap(a, b)) <= limit
            }
        }
    }
}
