//! What breaking a limit costs while the search may do so.
//!
//! A large item can only enter a full host when something else leaves it, and a group that needs
//! another can only enter a new neighbourhood when that one is there. A search that may never pass
//! through what lies between hardly moves such items at all. So limits are priced: a price rises
//! at looks that find its limit broken somewhere, and falls otherwise, so that limits are broken
//! at a wanted share of looks: nearly always while hot, when what matters is where large items
//! go; rarely in the end, when legal placements must be met often.

use crate::core::{Model, State};

/// Share of looks at which each limit may be found broken, at the start and at the end of a
/// phase. Measured on the public benchmark: with 0.1 throughout, prices rise until limits are as
/// good as hard, and large items stay where they are (a2_2 ends 4 to 5 points dearer); 0.98 and 0.9
/// at the start differ by a point either way; 0.3 at the end is worse by one to two points.
const BROKEN_SHARE: (f64, f64) = (0.97, 0.1);
/// Growth of a price at a look that finds its limit broken.
const RISE: f64 = 1.02;
/// Bounds of a price, times its unit.
const LEVELS: (f64, f64) = (1e-3, 1e6);
/// The unit of the price of a rule broken once, as part of the cost of a mean host's whole load.
const RULE_UNIT: f64 = 0.01;
/// The largest price of a unit.
const PRICE_MAX: f64 = 1e9;

/// Prices of rules between items, while they may be broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RulePrices {
    /// Of a zone missing to a spread.
    zone: f64,
    /// Of an unmet dependency.
    dependency: f64,
}

impl RulePrices {
    /// The same price for both.
    pub(super) fn flat(price: f64) -> RulePrices {
        RulePrices {
            zone: price,
            dependency: price,
        }
    }

    /// Price of so many missing zones and unmet dependencies.
    pub(super) fn of(self, (zones, dependencies): (i64, i64)) -> f64 {
        zones as f64 * self.zone + dependencies as f64 * self.dependency
    }
}

/// One price per resource, and those of the rules.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    unit: Vec<f64>,
    level: Vec<f64>,
    rules: RulePrices,
    rule_unit: f64,
    over: Vec<i64>,
    now: Vec<i64>,
}

impl Prices {
    /// At first a whole mean host's overflow costs as much in every resource: the largest cost
    /// that a mean host's whole load can have.
    pub(super) fn new(model: &Model) -> Prices {
        let top = host_scale(model);
        let unit: Vec<f64> = model
            .scales()
            .iter()
            .map(|&(_, cap)| top / cap.max(1) as f64)
            .collect();
        Prices {
            level: vec![1.0; unit.len()],
            unit,
            rules: RulePrices::flat(top * RULE_UNIT),
            rule_unit: top * RULE_UNIT,
            over: Vec::new(),
            now: Vec::new(),
        }
    }

    /// The present prices of rules.
    pub(super) fn rules(&self) -> RulePrices {
        self.rules
    }

    /// Sets the present prices of overflow in the state.
    pub(super) fn apply(&mut self, state: &mut State<'_>) {
        self.now.clear();
        self.now.extend(
            self.unit
                .iter()
                .zip(&self.level)
                .map(|(u, l)| (u * l).min(PRICE_MAX) as i64 + 1),
        );
        state.price_overflow(&self.now);
    }

    /// Looks at the state, and changes prices; `done` says how far the phase is, from 0 to 1.
    pub(super) fn adapt(&mut self, state: &mut State<'_>, done: f64) {
        let (first, last) = BROKEN_SHARE;
        let share = first + (last - first) * done.clamp(0.0, 1.0);
        // Rises and falls cancel when that share of looks finds the limit broken.
        let fall = RISE.powf(-share / (1.0 - share));
        let changed = |level: f64, broken: i64| {
            let by = if broken > 0 { RISE } else { fall };
            (level * by).clamp(LEVELS.0, LEVELS.1)
        };
        state.overflow(&mut self.over);
        for (level, &over) in self.level.iter_mut().zip(&self.over) {
            *level = changed(*level, over);
        }
        let (short, broken) = state.broken_parts();
        let rule = |price: f64, broken| changed(price / self.rule_unit, broken) * self.rule_unit;
        self.rules = RulePrices {
            zone: rule(self.rules.zone, short),
            dependency: rule(self.rules.dependency, broken),
        };
        self.apply(state);
    }
}

/// Prices at which a thousandth of a mean host over its limit costs as much as `heat`: passed
/// through while that hot, and left behind as the heat falls.
pub(super) fn flat_prices(model: &Model, heat: f64) -> Vec<i64> {
    let price = |(_, cap): (i64, i64)| (1e3 * heat / cap.max(1) as f64).min(PRICE_MAX) as i64 + 1;
    model.scales().into_iter().map(price).collect()
}

/// The largest cost that the whole capacity of a mean host can have: the scale of heat.
pub(super) fn host_scale(model: &Model) -> f64 {
    model
        .scales()
        .iter()
        .map(|&(w, cap)| w as f64 * cap as f64)
        .fold(1.0, f64::max)
}
