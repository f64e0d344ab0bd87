//! Where every item is now, and all sums that depend on it, kept up to date change by change.

use super::lanes::{Lane, lanes};
use super::model::{Model, NO_ROW};

/// The host of an item that has been lifted and not put down yet.
pub const NOWHERE: u32 = u32::MAX;

/// The parts of the cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Load above safety and missing balance, over all hosts.
    pub hosts: i64,
    /// Items away from home, with their pairs of hosts.
    pub moves: i64,
    /// The group with most items away from home.
    pub groups: i64,
}

impl Cost {
    /// The whole cost.
    pub fn total(&self) -> i64 {
        self.hosts + self.moves + self.groups
    }
}

/// One placement of all items, with everything needed to judge the next change quickly.
#[derive(Clone, Debug)]
pub struct State<'m> {
    pub(super) model: &'m Model,
    pub(super) at: Vec<u32>,
    /// Per host: room under the hard limits, then distance to the safety load (may be negative).
    pub(super) rows: Vec<i64>,
    /// Cost of each host when it was last counted, and the hosts that have changed since: a search
    /// makes many changes between two looks at the exact cost.
    counted: Vec<i64>,
    stale: Vec<u32>,
    is_stale: Vec<bool>,
    /// Price of a unit over a hard limit; empty while nothing may be over.
    pub(super) price: Vec<i64>,
    /// The rows, prices and costs of hosts as `lanes` has them.
    pub(super) quick: Vec<Lane>,
    pub(super) quick_price: Vec<Lane>,
    pub(super) quick_cost: Vec<f64>,
    /// The sum of `quick_cost`.
    pub(super) quick_hosts: f64,
    /// What each item costs by being where it is.
    pub(super) away_cost: Vec<i64>,
    over: usize,
    is_over: Vec<bool>,
    on: Vec<Vec<u32>>,
    slot: Vec<u32>,
    pub(super) zone_count: Vec<u32>,
    pub(super) zone_distinct: Vec<u32>,
    pub(super) hood_count: Vec<u32>,
    pub(super) host_count: Vec<u32>,
    pub(super) short: i64,
    pub(super) broken: i64,
    pub(super) moved: Vec<u32>,
    /// How many groups have so many moved items, and the largest such number.
    pub(super) moved_hist: Vec<u32>,
    pub(super) moved_max: u32,
    cost: Cost,
}

impl<'m> State<'m> {
    /// Every item at home.
    pub fn at_home(model: &'m Model) -> State<'m> {
        let r = model.resources;
        let mut rows = vec![0; model.hosts * r * 2];
        for h in 0..model.hosts {
            let row = &mut rows[h * r * 2..(h + 1) * r * 2];
            row[..r].copy_from_slice(&model.capacity[h * r..(h + 1) * r]);
            row[r..].copy_from_slice(&model.safety[h * r..(h + 1) * r]);
        }
        let largest = model.members.iter().map(Vec::len).max().unwrap_or(0);
        let mut moved_hist = vec![0; largest + 2];
        moved_hist[0] = model.groups as u32;
        let spread: i64 = (0..model.groups)
            .filter(|&g| model.zone_row[g] != NO_ROW)
            .map(|g| i64::from(model.spread_min[g]))
            .sum();
        let mut state = State {
            model,
            at: vec![NOWHERE; model.items],
            rows,
            counted: vec![0; model.hosts],
            stale: Vec::new(),
            is_stale: vec![false; model.hosts],
            price: Vec::new(),
            quick: vec![[0.0; 4]; model.hosts * (model.quick.width + model.quick.narrow)],
            quick_price: Vec::new(),
            quick_cost: vec![0.0; model.hosts],
            quick_hosts: 0.0,
            away_cost: vec![0; model.items],
            over: 0,
            is_over: vec![false; model.hosts],
            on: vec![Vec::new(); model.hosts],
            slot: vec![0; model.items],
            zone_count: vec![0; model.zone_rows * model.zones],
            zone_distinct: vec![0; model.zone_rows],
            hood_count: vec![0; model.hood_rows * model.hoods],
            host_count: vec![0; model.host_rows * model.hosts],
            short: spread,
            broken: 0,
            moved: vec![0; model.groups],
            moved_hist,
            moved_max: 0,
            cost: Cost::default(),
        };
        // What is transient stays claimed at home wherever the item goes: claimed here, once.
        for item in 0..model.items {
            let home = model.home[item] as usize;
            let need = &model.need[item * r..item * r + model.transients];
            for (room, n) in state.rows[home * r * 2..].iter_mut().zip(need) {
                *room -= n;
            }
        }
        for item in 0..model.items as u32 {
            state.link(item, model.home[item as usize]);
        }
        state.recount((0..model.hosts as u32).collect());
        state
    }

    /// The problem this places.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// The host of an item, or [`NOWHERE`].
    pub fn host_of(&self, item: u32) -> u32 {
        self.at[item as usize]
    }

    /// The host of every item.
    pub fn placement(&self) -> &[u32] {
        &self.at
    }

    /// The items on a host, in no useful order.
    pub fn items_on(&self, host: u32) -> &[u32] {
        &self.on[host as usize]
    }

    /// The parts of the cost. Lifted items count nowhere.
    pub fn cost(&self) -> Cost {
        let changed = |&h: &u32| self.host_cost_now(h as usize) - self.counted[h as usize];
        Cost {
            hosts: self.cost.hosts + self.stale.iter().map(changed).sum::<i64>(),
            ..self.cost
        }
    }

    /// The whole cost as quick judgements have it: exact up to 2^53.
    pub fn quick_total(&self) -> f64 {
        self.quick_hosts + self.moves_cost() as f64
    }

    /// What items away from home cost, with the group that has most of them.
    #[inline]
    pub fn moves_cost(&self) -> i64 {
        self.cost.moves + self.cost.groups
    }

    /// Counts the exact cost of all hosts that have changed, so that the next looks are cheap.
    pub fn settle(&mut self) {
        while let Some(h) = self.stale.pop() {
            let cost = self.host_cost_now(h as usize);
            self.cost.hosts += cost - self.counted[h as usize];
            self.counted[h as usize] = cost;
            self.is_stale[h as usize] = false;
        }
    }

    /// Load and balance cost of one host.
    pub fn host_cost(&self, host: u32) -> i64 {
        let h = host as usize;
        if self.is_stale[h] {
            self.host_cost_now(h)
        } else {
            self.counted[h]
        }
    }

    /// Room of a host under its hard limits, in the model's own order of resources.
    pub fn room(&self, host: u32) -> &[i64] {
        let r = self.model.resources;
        &self.rows[host as usize * r * 2..host as usize * r * 2 + r]
    }

    /// How far rules between items are broken: zones missing to spreads, and dependencies unmet.
    /// Zero in a legal placement. Capacity and exclusion are not counted: nothing can break them
    /// but an illegal start or a caller that puts without asking.
    pub fn broken_rules(&self) -> i64 {
        self.short + self.broken
    }

    /// Zones missing to spreads, and dependencies unmet: the parts of [`State::broken_rules`].
    pub fn broken_parts(&self) -> (i64, i64) {
        (self.short, self.broken)
    }

    /// Hosts over a hard limit. Zero in a legal placement.
    pub fn hosts_over(&self) -> usize {
        self.over
    }

    /// Whether every hard rule is kept, by every count the state keeps.
    pub fn is_legal(&self) -> bool {
        self.over == 0 && self.short == 0 && self.broken == 0
    }

    /// Lets a search pass through placements over hard limits, at so much a unit (one price per
    /// resource, in the model's own order); an empty list ends that. Prices are part of the cost
    /// of hosts, so the cost means what it says only while [`State::hosts_over`] is zero.
    pub fn price_overflow(&mut self, price: &[i64]) {
        self.price.clear();
        self.price.extend_from_slice(price);
        self.quick_price = lanes(price.iter().map(|&p| p as f64));
        self.recount((0..self.model.hosts as u32).collect());
    }

    /// [`State::price_overflow`] when only these hosts are and will be over a limit.
    pub fn price_overflow_on(&mut self, price: &[i64], hosts: &[u32]) {
        self.price.clear();
        self.price.extend_from_slice(price);
        self.quick_price = lanes(price.iter().map(|&p| p as f64));
        self.recount(hosts.to_vec());
    }

    /// Brings all that is kept about some hosts up to date with their rows of integers.
    fn recount(&mut self, hosts: Vec<u32>) {
        for &h in &hosts {
            self.refresh_quick(h as usize);
            self.refresh_host(h as usize);
        }
        self.settle();
        if hosts.len() == self.model.hosts {
            self.quick_hosts = self.quick_cost.iter().sum();
        }
    }

    /// How far each resource is over its hard limits, summed over hosts.
    pub fn overflow(&self, into: &mut Vec<i64>) {
        let r = self.model.resources;
        into.clear();
        into.resize(r, 0);
        for row in self.rows.chunks_exact((r * 2).max(1)) {
            for (sum, room) in into.iter_mut().zip(&row[..r]) {
                *sum += (-room).max(0);
            }
        }
    }

    /// Takes an item off its host. Does nothing when it is nowhere.
    pub fn lift(&mut self, item: u32) {
        let host = self.at[item as usize];
        if host != NOWHERE {
            self.unlink(item, host);
            self.refresh_host(host as usize);
        }
    }

    /// Puts a lifted item on a host. Whether it may is the caller's question.
    pub fn put(&mut self, item: u32, host: u32) {
        self.link(item, host);
        self.refresh_host(host as usize);
    }

    /// [`State::lift`], leaving the cost of the host to be counted again.
    fn unlink(&mut self, item: u32, host: u32) {
        let (i, h, model) = (item as usize, host as usize, self.model);
        let slot = self.slot[i] as usize;
        self.on[h].swap_remove(slot);
        if let Some(&other) = self.on[h].get(slot) {
            self.slot[other as usize] = slot as u32;
        }
        self.at[i] = NOWHERE;
        self.load(item, h, -1);
        self.leave_rules(model.group_of[i] as usize, h);
        if host != model.home[i] {
            self.cost.moves -= self.away_cost[i];
            self.away_cost[i] = 0;
            self.count_moved(model.group_of[i] as usize, -1);
        }
    }

    /// [`State::put`], leaving the cost of the host to be counted again.
    fn link(&mut self, item: u32, host: u32) {
        let (i, h, model) = (item as usize, host as usize, self.model);
        debug_assert_eq!(self.at[i], NOWHERE, "lift before put");
        self.slot[i] = self.on[h].len() as u32;
        self.on[h].push(item);
        self.at[i] = host;
        self.load(item, h, 1);
        self.enter_rules(model.group_of[i] as usize, h);
        if host != model.home[i] {
            self.away_cost[i] = model.move_cost(item, host);
            self.cost.moves += self.away_cost[i];
            self.count_moved(model.group_of[i] as usize, 1);
        }
    }

    /// Moves an item and returns the host it came from: moving it back is the undo.
    pub fn apply_move(&mut self, item: u32, to: u32) -> u32 {
        let from = self.at[item as usize];
        if from != to {
            self.lift(item);
            self.put(item, to);
        }
        from
    }

    /// Exchanges the hosts of two items; doing it again is the undo.
    pub fn apply_swap(&mut self, a: u32, b: u32) {
        let (host_a, host_b) = (self.at[a as usize], self.at[b as usize]);
        if host_a == NOWHERE || host_b == NOWHERE {
            return;
        }
        self.unlink(a, host_a);
        self.unlink(b, host_b);
        self.link(a, host_b);
        self.link(b, host_a);
        self.refresh_host(host_a as usize);
        self.refresh_host(host_b as usize);
    }

    /// Brings all items to where `placement` says, touching only what differs.
    pub fn become_like(&mut self, placement: &[u32]) {
        for (item, &to) in placement.iter().enumerate().take(self.at.len()) {
            if self.at[item] != to {
                self.apply_move(item as u32, to);
            }
        }
    }

    fn load(&mut self, item: u32, h: usize, sign: i64) {
        let model = self.model;
        let (r, t) = (model.resources, model.transients);
        let need = model.need(item);
        // At home the transient resources are claimed for good.
        let at_home = model.home[item as usize] as usize == h;
        let first = if at_home { t } else { 0 };
        let (room, slack) = self.rows[h * r * 2..(h + 1) * r * 2].split_at_mut(r);
        let pairs = room[first..].iter_mut().zip(&need[first..]);
        // Two loops without a product, which the processor's vectors lack for such numbers.
        if sign > 0 {
            pairs.for_each(|(room, n)| *room -= n);
            slack
                .iter_mut()
                .zip(need)
                .for_each(|(slack, n)| *slack -= n);
        } else {
            pairs.for_each(|(room, n)| *room += n);
            slack
                .iter_mut()
                .zip(need)
                .for_each(|(slack, n)| *slack += n);
        }
        self.load_quick(item, h, sign as f64, at_home);
    }

    fn refresh_host(&mut self, h: usize) {
        // The sign of all of them together: some number is negative.
        let is_over = self.room(h as u32).iter().fold(0, |all, x| all | x) < 0;
        self.over = self.over + usize::from(is_over) - usize::from(self.is_over[h]);
        self.is_over[h] = is_over;
        if !self.is_stale[h] {
            self.is_stale[h] = true;
            self.stale.push(h as u32);
        }
        self.price_quick(h);
    }

    fn count_moved(&mut self, g: usize, by: i64) {
        let old = self.moved[g];
        let new = (i64::from(old) + by) as u32;
        self.moved[g] = new;
        self.moved_hist[old as usize] -= 1;
        self.moved_hist[new as usize] += 1;
        if new > self.moved_max {
            self.moved_max = new;
        }
        while self.moved_max > 0 && self.moved_hist[self.moved_max as usize] == 0 {
            self.moved_max -= 1;
        }
        self.cost.groups = self.model.group_move_weight * i64::from(self.moved_max);
    }
}
