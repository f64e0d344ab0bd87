//! Rules between the items of groups: exclusion, spread over zones, dependencies in neighbourhoods.
//!
//! Capacity and exclusion are refused item by item. Spread and dependencies may be broken on the
//! way through a larger change, so they are also counted: `State::broken_rules` says when all is
//! well again.

use super::model::NO_ROW;
use super::state::State;

impl State<'_> {
    /// Whether another item of an exclusive group is on the host; `item` itself does not count.
    pub(super) fn excluded(&self, item: u32, host: u32) -> bool {
        let model = self.model;
        let g = model.group_of[item as usize] as usize;
        // Only exclusive groups have a row.
        let row = model.host_row[g];
        if row != NO_ROW {
            let count = self.host_count[row as usize * model.hosts + host as usize];
            return count > u32::from(self.at[item as usize] == host);
        }
        model.exclusive[g]
            && model.members[g]
                .iter()
                .any(|&m| m != item && self.at[m as usize] == host)
    }

    /// How many items of a group are in a neighbourhood. Only for groups with dependencies.
    fn in_hood(&self, g: usize, hood: usize) -> u32 {
        self.hood_count[self.model.hood_row[g] as usize * self.model.hoods + hood]
    }

    pub(super) fn enter_rules(&mut self, g: usize, h: usize) {
        let model = self.model;
        let row = model.zone_row[g];
        if row != NO_ROW {
            let cell = row as usize * model.zones + model.zone[h] as usize;
            self.zone_count[cell] += 1;
            if self.zone_count[cell] == 1 {
                self.zone_distinct[row as usize] += 1;
                if self.zone_distinct[row as usize] <= model.spread_min[g] {
                    self.short -= 1;
                }
            }
        }
        let row = model.hood_row[g];
        if row != NO_ROW {
            let hood = model.hood[h] as usize;
            let cell = row as usize * model.hoods + hood;
            self.hood_count[cell] += 1;
            if self.hood_count[cell] == 1 {
                self.broken += self.unmet(g, hood) - self.waiting(g, hood);
            }
        }
        let row = model.host_row[g];
        if row != NO_ROW {
            self.host_count[row as usize * model.hosts + h] += 1;
        }
    }

    pub(super) fn leave_rules(&mut self, g: usize, h: usize) {
        let model = self.model;
        let row = model.zone_row[g];
        if row != NO_ROW {
            let cell = row as usize * model.zones + model.zone[h] as usize;
            self.zone_count[cell] -= 1;
            if self.zone_count[cell] == 0 {
                self.zone_distinct[row as usize] -= 1;
                if self.zone_distinct[row as usize] < model.spread_min[g] {
                    self.short += 1;
                }
            }
        }
        let row = model.hood_row[g];
        if row != NO_ROW {
            let hood = model.hood[h] as usize;
            let cell = row as usize * model.hoods + hood;
            self.hood_count[cell] -= 1;
            if self.hood_count[cell] == 0 {
                self.broken += self.waiting(g, hood) - self.unmet(g, hood);
            }
        }
        let row = model.host_row[g];
        if row != NO_ROW {
            self.host_count[row as usize * model.hosts + h] -= 1;
        }
    }

    /// Groups that `g` depends on and that have nothing in the neighbourhood.
    fn unmet(&self, g: usize, hood: usize) -> i64 {
        self.model.needs[g]
            .iter()
            .filter(|&&t| self.in_hood(t as usize, hood) == 0)
            .count() as i64
    }

    /// Groups in the neighbourhood that depend on `g`.
    fn waiting(&self, g: usize, hood: usize) -> i64 {
        self.model.needed_by[g]
            .iter()
            .filter(|&&s| self.in_hood(s as usize, hood) > 0)
            .count() as i64
    }

    /// Whether one item of group `g` may go from host `from` to host `to` without breaking a spread
    /// or a dependency, when one item of group `other` goes the opposite way at the same time.
    pub(super) fn rules_allow(
        &self,
        g: usize,
        from: usize,
        to: usize,
        other: Option<usize>,
    ) -> bool {
        let model = self.model;
        let row = model.zone_row[g];
        let (za, zb) = (model.zone[from] as usize, model.zone[to] as usize);
        if row != NO_ROW && za != zb {
            let base = row as usize * model.zones;
            let loses = self.zone_count[base + za] == 1;
            let gains = self.zone_count[base + zb] == 0;
            if loses && !gains && self.zone_distinct[row as usize] <= model.spread_min[g] {
                return false;
            }
        }
        if model.hood_row[g] == NO_ROW {
            return true;
        }
        let (ha, hb) = (model.hood[from] as usize, model.hood[to] as usize);
        if ha == hb {
            return true;
        }
        // Counts after both moves; the opposite mover leaves `hb` and enters `ha`.
        let after_in_b = |t: usize| self.in_hood(t, hb) - u32::from(other == Some(t));
        let after_in_a = |s: usize| self.in_hood(s, ha) + u32::from(other == Some(s));
        if self.in_hood(g, hb) == 0 && model.needs[g].iter().any(|&t| after_in_b(t as usize) == 0) {
            return false;
        }
        self.in_hood(g, ha) > 1
            || model.needed_by[g]
                .iter()
                .all(|&s| after_in_a(s as usize) == 0)
    }

    /// How [`State::broken_rules`] changes when a placed item moves: zones missing to spreads, and
    /// dependencies unmet. The class and exclusion are not looked at.
    pub fn rules_change_move(&self, item: u32, to: u32) -> (i64, i64) {
        let g = self.model.group_of[item as usize] as usize;
        let from = self.at[item as usize] as usize;
        let to = to as usize;
        (
            self.short_change(g, from, to),
            self.broken_change(g, from, to, None),
        )
    }

    /// [`State::rules_change_move`] of two placed items that exchange their hosts.
    pub fn rules_change_swap(&self, a: u32, b: u32) -> (i64, i64) {
        let group = |item: u32| self.model.group_of[item as usize] as usize;
        let (ga, gb) = (group(a), group(b));
        if ga == gb {
            return (0, 0);
        }
        let (host_a, host_b) = (self.at[a as usize] as usize, self.at[b as usize] as usize);
        (
            self.short_change(ga, host_a, host_b) + self.short_change(gb, host_b, host_a),
            self.broken_change(ga, host_a, host_b, None)
                + self.broken_change(gb, host_b, host_a, Some(ga)),
        )
    }

    fn short_change(&self, g: usize, from: usize, to: usize) -> i64 {
        let model = self.model;
        let row = model.zone_row[g];
        let (za, zb) = (model.zone[from] as usize, model.zone[to] as usize);
        if row == NO_ROW || za == zb {
            return 0;
        }
        let base = row as usize * model.zones;
        let now = self.zone_distinct[row as usize];
        let gains = u32::from(self.zone_count[base + zb] == 0);
        let loses = u32::from(self.zone_count[base + za] == 1);
        let missing = |distinct: u32| i64::from(model.spread_min[g].saturating_sub(distinct));
        missing(now + gains - loses) - missing(now)
    }

    /// Change of unmet dependencies when one item of `g` moves, after one of group `before` has
    /// gone the opposite way.
    fn broken_change(&self, g: usize, from: usize, to: usize, before: Option<usize>) -> i64 {
        let model = self.model;
        let (ha, hb) = (model.hood[from] as usize, model.hood[to] as usize);
        if model.hood_row[g] == NO_ROW || ha == hb {
            return 0;
        }
        let in_a =
            |t: u32| self.in_hood(t as usize, ha) + u32::from(before == Some(t as usize)) > 0;
        let in_b = |t: u32| self.in_hood(t as usize, hb) > u32::from(before == Some(t as usize));
        let balance = |there: &dyn Fn(u32) -> bool| {
            let unmet = model.needs[g].iter().filter(|&&t| !there(t)).count();
            let waiting = model.needed_by[g].iter().filter(|&&s| there(s)).count();
            unmet as i64 - waiting as i64
        };
        let mut change = 0;
        if self.in_hood(g, hb) == 0 {
            change += balance(&in_b);
        }
        if self.in_hood(g, ha) == 1 {
            change -= balance(&in_a);
        }
        change
    }
}
