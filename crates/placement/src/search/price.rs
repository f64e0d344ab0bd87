//! What going over a hard limit costs while the search may do so.
//!
//! A large item can only enter a full host when something else leaves it. Between the two steps
//! the host is over its limits; a search that may never pass there hardly moves large items at
//! all. So limits are priced: each resource's price rises while some host is over it and falls
//! otherwise, and legal placements stay frequent whatever the heat.

use crate::core::{Model, State};

/// Share of looks at which a resource may be found over its limit somewhere.
const OVER_SHARE: f64 = 0.1;
/// Growth of a price at a look that finds its resource over.
const RISE: f64 = 1.02;
/// Bounds of a price, times its unit.
const LEVELS: (f64, f64) = (1e-3, 1e6);

/// The largest price of a unit.
const PRICE_MAX: f64 = 1e9;

/// One price per resource.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    unit: Vec<f64>,
    level: Vec<f64>,
    fall: f64,
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
        let level = vec![1.0; unit.len()];
        // Rises and falls cancel when the share of looks that find overflow is OVER_SHARE.
        let fall = RISE.powf(-OVER_SHARE / (1.0 - OVER_SHARE));
        Prices {
            unit,
            level,
            fall,
            over: Vec::new(),
            now: Vec::new(),
        }
    }

    /// Sets the present prices in the state.
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

    /// Looks at the state, and changes its prices.
    pub(super) fn adapt(&mut self, state: &mut State<'_>) {
        state.overflow(&mut self.over);
        for (level, &over) in self.level.iter_mut().zip(&self.over) {
            let by = if over > 0 { RISE } else { self.fall };
            *level = (*level * by).clamp(LEVELS.0, LEVELS.1);
        }
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
