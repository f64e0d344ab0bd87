//! The best legal placement met so far, copied change by change instead of whole.

use crate::core::State;

/// Remembers the best placement and which items have changed since.
#[derive(Clone, Debug)]
pub(super) struct Best {
    cost: Option<i64>,
    at: Vec<u32>,
    changed: Vec<u32>,
}

impl Best {
    /// Starts from a state, which need not be legal: then any legal one is better.
    pub(super) fn new(state: &State<'_>) -> Best {
        let cost = state.is_legal().then(|| state.cost().total());
        Best {
            cost,
            at: state.placement().to_vec(),
            changed: Vec::new(),
        }
    }

    /// Cost of the best legal placement, if one was met.
    pub(super) fn cost(&self) -> Option<i64> {
        self.cost
    }

    /// The best placement; the start while none was legal.
    pub(super) fn placement(&self) -> &[u32] {
        &self.at
    }

    /// To be told of every item that changed host.
    pub(super) fn touch(&mut self, item: u32) {
        // A list as long as the placement is worth no more than "all of them".
        if self.changed.len() <= self.at.len() {
            self.changed.push(item);
        }
    }

    /// Takes the state when it is legal and better.
    pub(super) fn offer(&mut self, state: &mut State<'_>) {
        let quick = state.quick_total();
        if self.cost.is_some_and(|best| quick >= best as f64) || !state.is_legal() {
            return;
        }
        state.settle();
        let cost = state.cost().total();
        if self.cost.is_some_and(|best| cost >= best) {
            return;
        }
        self.cost = Some(cost);
        if self.changed.len() > self.at.len() {
            self.at.copy_from_slice(state.placement());
        } else {
            for &item in &self.changed {
                self.at[item as usize] = state.host_of(item);
            }
        }
        self.changed.clear();
    }
}
