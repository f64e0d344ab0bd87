//! Judging a change without making it.

use super::model::Model;
use super::state::{NOWHERE, State};

impl State<'_> {
    /// Load, balance and (if priced) overflow cost of a host as its row is now.
    pub(super) fn host_cost_now(&self, h: usize) -> i64 {
        self.row_cost(h, |_| 0, |_| 0)
    }

    /// Cost of a host when `extra(resource)` is added to its load, and `claims(resource)` taken
    /// from its room. The two differ only for transient resources at an item's home.
    #[inline(always)]
    fn row_cost(
        &self,
        h: usize,
        extra: impl Fn(usize) -> i64,
        claims: impl Fn(usize) -> i64,
    ) -> i64 {
        let model = self.model;
        let r = model.resources;
        let (room, slack) = self.rows[h * r * 2..(h + 1) * r * 2].split_at(r);
        let mut cost = 0;
        for (k, (slack, weight)) in slack.iter().zip(&model.weight).enumerate() {
            cost += weight * (extra(k) - slack).max(0);
        }
        for (k, (room, price)) in room.iter().zip(&self.price).enumerate() {
            cost += price * (claims(k) - room).max(0);
        }
        for b in &model.balances {
            let free = |k: usize| {
                model.capacity[h * r + k] - model.safety[h * r + k] + slack[k] - extra(k)
            };
            cost += b.weight * (b.target * free(b.first) - free(b.second)).max(0);
        }
        cost
    }

    /// Whether a lifted or moving item fits the hard limits of a host it is not on.
    pub fn fits(&self, item: u32, host: u32) -> bool {
        let model = self.model;
        let first = claimed(model, item, host);
        self.room(host)[first..]
            .iter()
            .zip(&model.need(item)[first..])
            .all(|(room, n)| n <= room)
    }

    /// Load and balance cost that an item adds to a host it is not on.
    pub fn added(&self, item: u32, host: u32) -> i64 {
        let need = self.model.need(item);
        let first = claimed(self.model, item, host);
        let claims = |k: usize| if k < first { 0 } else { need[k] };
        self.row_cost(host as usize, |k| need[k], claims) - self.host_cost(host)
    }

    /// Load and balance cost that goes from a host when an item leaves it.
    pub fn freed(&self, item: u32) -> i64 {
        let host = self.at[item as usize];
        if host == NOWHERE {
            return 0;
        }
        let need = self.model.need(item);
        let first = claimed(self.model, item, host);
        let claims = |k: usize| if k < first { 0 } else { -need[k] };
        self.host_cost(host) - self.row_cost(host as usize, |k| -need[k], claims)
    }

    /// Whether a placed item may move to another host without breaking any hard rule further.
    pub fn can_move(&self, item: u32, to: u32) -> bool {
        let from = self.at[item as usize];
        from != to
            && from != NOWHERE
            && self.fits(item, to)
            && self.may_enter(item, to)
            && self.rules_let_move(item, to)
    }

    /// Whether the class of a placed item and exclusion let it move.
    pub fn may_enter(&self, item: u32, to: u32) -> bool {
        self.model.class_allows(item, to) && !self.excluded(item, to)
    }

    /// Whether classes and exclusion let two placed items on different hosts exchange them.
    pub fn may_exchange(&self, a: u32, b: u32) -> bool {
        let model = self.model;
        let (host_a, host_b) = (self.at[a as usize], self.at[b as usize]);
        model.class_allows(a, host_b)
            && model.class_allows(b, host_a)
            && (model.group_of[a as usize] == model.group_of[b as usize]
                || !self.excluded(a, host_b) && !self.excluded(b, host_a))
    }

    /// Whether a placed item may move for all that spreads and dependencies ask.
    pub fn rules_let_move(&self, item: u32, to: u32) -> bool {
        let (from, g) = (
            self.at[item as usize] as usize,
            self.model.group_of[item as usize],
        );
        self.rules_allow(g as usize, from, to as usize, None)
    }

    /// Change of the whole cost if a placed item moved to another host.
    pub fn delta_move(&self, item: u32, to: u32) -> i64 {
        self.added(item, to) - self.freed(item) + self.delta_away(item, to)
    }

    /// What an item costs by being where it is, instead of at home.
    #[inline]
    pub fn away_cost(&self, item: u32) -> i64 {
        self.away_cost[item as usize]
    }

    /// Change of the cost of moves (items, pairs, worst group) if a placed item moved.
    pub fn delta_away(&self, item: u32, to: u32) -> i64 {
        let model = self.model;
        let (from, home) = (self.at[item as usize], model.home[item as usize]);
        let pairs = model.move_cost(item, to) - self.away_cost[item as usize];
        let by = i32::from(to != home) - i32::from(from != home);
        if by == 0 {
            return pairs;
        }
        pairs + self.worst_after(model.group_of[item as usize] as usize, by, None)
    }

    /// Change of the worst group's cost when group counts change by the given amounts.
    fn worst_after(&self, g: usize, by: i32, other: Option<(usize, i32)>) -> i64 {
        let weight = self.model.group_move_weight;
        if weight == 0 {
            return 0;
        }
        let max = self.moved_max;
        let now = self.moved[g];
        let new = now.saturating_add_signed(by);
        let (mut top, mut leaving) = (new, u32::from(now == max && new < max));
        if let Some((g2, by2)) = other {
            let (now, new) = (self.moved[g2], self.moved[g2].saturating_add_signed(by2));
            top = top.max(new);
            leaving += u32::from(now == max && new < max);
        }
        let mut after = top.max(max);
        if leaving > 0 && self.moved_hist[max as usize] == leaving {
            // Nobody is left at the old maximum. The one group that was there now has `top`;
            // only when it fell by two can another group be above it.
            after = top;
            while after + 1 < max && self.moved_hist[after as usize + 1] > 0 {
                after += 1;
            }
        }
        weight * (i64::from(after) - i64::from(max))
    }

    /// Whether two placed items on different hosts may change places.
    pub fn can_swap(&self, a: u32, b: u32) -> bool {
        let (host_a, host_b) = (self.at[a as usize], self.at[b as usize]);
        host_a != host_b
            && host_a != NOWHERE
            && host_b != NOWHERE
            && self.fits_instead(b, host_a, a)
            && self.fits_instead(a, host_b, b)
            && self.may_exchange(a, b)
            && self.rules_let_swap(a, b)
    }

    /// Whether two placed items on different hosts may change places for all that spreads and
    /// dependencies ask.
    pub fn rules_let_swap(&self, a: u32, b: u32) -> bool {
        let model = self.model;
        let (host_a, host_b) = (self.at[a as usize] as usize, self.at[b as usize] as usize);
        let (ga, gb) = (
            model.group_of[a as usize] as usize,
            model.group_of[b as usize] as usize,
        );
        ga == gb
            || self.rules_allow(ga, host_a, host_b, Some(gb))
                && self.rules_allow(gb, host_b, host_a, Some(ga))
    }

    /// Whether `item` fits a host that `leaving` goes from at the same time.
    pub fn fits_instead(&self, item: u32, host: u32, leaving: u32) -> bool {
        let model = self.model;
        let (need, gone) = (model.need(item), model.need(leaving));
        let room = self.room(host);
        let t = model.transients;
        let comes = model.home[item as usize] != host;
        let frees = model.home[leaving as usize] != host;
        for k in 0..t {
            let wants = if comes { need[k] } else { 0 };
            let gives = if frees { gone[k] } else { 0 };
            if wants > room[k] + gives {
                return false;
            }
        }
        room[t..]
            .iter()
            .zip(&need[t..])
            .zip(&gone[t..])
            .all(|((room, n), g)| *n <= room + g)
    }

    /// Change of a host's cost when `comes` takes the place of `goes`.
    fn exchanged(&self, host: u32, goes: u32, comes: u32) -> i64 {
        let (out, into) = (self.model.need(goes), self.model.need(comes));
        let (out_first, in_first) = (
            claimed(self.model, goes, host),
            claimed(self.model, comes, host),
        );
        let claims = |k: usize| {
            (if k < in_first { 0 } else { into[k] }) - (if k < out_first { 0 } else { out[k] })
        };
        self.row_cost(host as usize, |k| into[k] - out[k], claims) - self.host_cost(host)
    }

    /// Change of the whole cost if two placed items on different hosts changed places.
    pub fn delta_swap(&self, a: u32, b: u32) -> i64 {
        let (host_a, host_b) = (self.at[a as usize], self.at[b as usize]);
        let hosts = self.exchanged(host_a, a, b) + self.exchanged(host_b, b, a);
        hosts + self.delta_away_swap(a, b)
    }

    /// Change of the cost of moves if two placed items changed places.
    pub fn delta_away_swap(&self, a: u32, b: u32) -> i64 {
        let model = self.model;
        let (host_a, host_b) = (self.at[a as usize], self.at[b as usize]);
        let (home_a, home_b) = (model.home[a as usize], model.home[b as usize]);
        let pairs = model.move_cost(a, host_b) - self.away_cost[a as usize]
            + model.move_cost(b, host_a)
            - self.away_cost[b as usize];
        let by_a = i32::from(host_b != home_a) - i32::from(host_a != home_a);
        let by_b = i32::from(host_a != home_b) - i32::from(host_b != home_b);
        let (ga, gb) = (
            model.group_of[a as usize] as usize,
            model.group_of[b as usize] as usize,
        );
        if ga == gb {
            return pairs + self.worst_after(ga, by_a + by_b, None);
        }
        if by_a == 0 && by_b == 0 {
            return pairs;
        }
        pairs + self.worst_after(ga, by_a, Some((gb, by_b)))
    }
}

/// The first resource a host has not already set aside for an item: the transient ones are
/// claimed at home for good.
fn claimed(model: &Model, item: u32, host: u32) -> usize {
    if model.home[item as usize] == host {
        model.transients
    } else {
        0
    }
}
