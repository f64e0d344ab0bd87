//! Judging a change quickly: the rows of hosts and items once more, as floating point numbers four
//! abreast, so that the compiler may use the processor's vectors.
//!
//! A search throws away nearly every change it looks at, and needs to know only about how much
//! each would cost. The figures here are exact up to 2^53 and good to one part in 10^15 beyond;
//! what is made is always counted in integers by `State`.

use super::model::Model;
use super::state::State;

/// Four columns of a row.
pub(super) type Lane = [f64; 4];

/// The columns of a row: one per resource, then one per balance, which is an amount that must not
/// fall below the (negated) shortage, as a load must not rise above its safety.
pub(super) fn lanes(values: impl Iterator<Item = f64>) -> Vec<Lane> {
    let values: Vec<f64> = values.collect();
    let full = |chunk: &[f64]| {
        let mut lane = [0.0; 4];
        lane[..chunk.len()].copy_from_slice(chunk);
        lane
    };
    values.chunks(4).map(full).collect()
}

/// The part of a model that quick judgements read.
#[derive(Clone, Debug, Default)]
pub(super) struct Quick {
    /// Lanes of a row, and how many of them hold resources.
    pub(super) width: usize,
    pub(super) narrow: usize,
    /// Costs of a unit over a column's limit.
    weight: Vec<Lane>,
    /// What each item adds to each column.
    need: Vec<Lane>,
    /// The weights of the columns that all hosts together are over, else 0.
    bound: Vec<Lane>,
    /// The least that all hosts together must cost: their sums over the limits of those columns.
    least: f64,
    /// Whether no row can come near 2^53, so that sums of floating point numbers are exact.
    exact: bool,
    /// 0 for what an item away from home still claims there, else 1.
    lasting: Vec<Lane>,
}

impl Quick {
    /// Lays out a model whose other fields are filled.
    pub(super) fn new(model: &Model) -> Quick {
        let r = model.resources;
        let weight = lanes(
            (model.weight.iter().map(|&w| w as f64))
                .chain(model.balances.iter().map(|b| b.weight as f64)),
        );
        let mut need = Vec::with_capacity(model.items * weight.len());
        for row in model.need.chunks_exact(r.max(1)) {
            let balance =
                |b: &super::Balance| row[b.second] as f64 - b.target as f64 * row[b.first] as f64;
            need.extend(lanes(
                (row.iter().map(|&n| n as f64)).chain(model.balances.iter().map(balance)),
            ));
        }
        let (bound, least) = bound(model);
        Quick {
            exact: exact(model),
            bound,
            least,
            width: weight.len(),
            narrow: r.div_ceil(4),
            weight,
            need,
            lasting: lanes((0..r).map(|k| if k < model.transients { 0.0 } else { 1.0 })),
        }
    }

    fn need(&self, item: u32) -> &[Lane] {
        &self.need[item as usize * self.width..][..self.width]
    }
}

/// The weights of the columns whose loads are above their limits in sum, and what that costs
/// wherever the items are: the sum of what hosts are over is no less than what the sum is over.
fn bound(model: &Model) -> (Vec<Lane>, f64) {
    let r = model.resources;
    let sum = |values: &[i64], k: usize| -> f64 {
        values.iter().skip(k).step_by(r).map(|&v| v as f64).sum()
    };
    let free = |k: usize| sum(&model.capacity, k) - sum(&model.need, k);
    let loads = (0..r).map(|k| (model.weight[k], sum(&model.need, k) - sum(&model.safety, k)));
    let balances = (model.balances.iter())
        .map(|b| (b.weight, b.target as f64 * free(b.first) - free(b.second)));
    let columns: Vec<(f64, f64)> = loads
        .chain(balances)
        .map(|(weight, over)| (if over > 0.0 { weight as f64 } else { 0.0 }, over))
        .collect();
    let least = columns.iter().map(|(weight, over)| weight * over).sum();
    (lanes(columns.iter().map(|&(weight, _)| weight)), least)
}

/// Whether all needs and capacities together, times the largest target, stay well below 2^53.
fn exact(model: &Model) -> bool {
    let sum = |values: &[i64]| values.iter().map(|&v| v as f64).sum::<f64>();
    let all = sum(&model.need) + sum(&model.capacity) + sum(&model.safety);
    let target = model.balances.iter().map(|b| b.target).max().unwrap_or(0);
    all * (1.0 + target as f64) < 2f64.powi(51)
}

/// Sum of `price * max(0, extra - row)` over all columns.
#[inline(always)]
fn above(row: &[Lane], price: &[Lane], extra: impl Fn(usize) -> Lane) -> f64 {
    let mut sum = [0.0; 4];
    for (k, (row, price)) in row.iter().zip(price).enumerate() {
        let extra = extra(k);
        for l in 0..4 {
            let over = extra[l] - row[l];
            // Not `max`, which must also mind numbers that are none.
            sum[l] += price[l] * if over > 0.0 { over } else { 0.0 };
        }
    }
    (sum[0] + sum[1]) + (sum[2] + sum[3])
}

fn times(a: Lane, b: Lane) -> Lane {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]]
}

fn minus(a: Lane, b: Lane) -> Lane {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
}

impl State<'_> {
    /// Brings the quick row of a host up to date with its exact one.
    pub(super) fn refresh_quick(&mut self, h: usize) {
        let (model, quick) = (self.model, &self.model.quick);
        let r = model.resources;
        let size = quick.width + quick.narrow;
        let (room, slack) = self.rows[h * r * 2..(h + 1) * r * 2].split_at(r);
        let (wide, narrow) = self.quick[h * size..(h + 1) * size].split_at_mut(quick.width);
        for (k, value) in slack.iter().enumerate() {
            wide[k / 4][k % 4] = *value as f64;
        }
        for (k, b) in model.balances.iter().enumerate() {
            let free =
                |k: usize| (model.capacity[h * r + k] - model.safety[h * r + k] + slack[k]) as f64;
            wide[(r + k) / 4][(r + k) % 4] = free(b.second) - b.target as f64 * free(b.first);
        }
        for (k, value) in room.iter().enumerate() {
            narrow[k / 4][k % 4] = *value as f64;
        }
    }

    /// Adds an item to (or, with -1, takes it from) the quick row of a host whose exact one has
    /// changed already.
    pub(super) fn load_quick(&mut self, item: u32, h: usize, sign: f64, at_home: bool) {
        let quick = &self.model.quick;
        if !quick.exact {
            return self.refresh_quick(h);
        }
        let need = quick.need(item);
        let size = quick.width + quick.narrow;
        let (wide, narrow) = self.quick[h * size..(h + 1) * size].split_at_mut(quick.width);
        for (row, need) in wide.iter_mut().zip(need) {
            *row = minus(*row, times([sign; 4], *need));
        }
        for (k, row) in narrow.iter_mut().enumerate() {
            let claim = if at_home { quick.lasting[k] } else { [1.0; 4] };
            *row = minus(*row, times([sign; 4], times(need[k], claim)));
        }
    }

    /// Brings the quick cost of a host up to date with its quick row.
    pub(super) fn price_quick(&mut self, h: usize) {
        let cost = self.quick_row(h, |_| [0.0; 4], |_| [0.0; 4]);
        self.quick_hosts += cost - self.quick_cost[h];
        self.quick_cost[h] = cost;
    }

    /// Cost of a host with `extra` added to its load and `claims` taken from its room.
    #[inline(always)]
    fn quick_row(
        &self,
        h: usize,
        extra: impl Fn(usize) -> Lane,
        claims: impl Fn(usize) -> Lane,
    ) -> f64 {
        let quick = &self.model.quick;
        let size = quick.width + quick.narrow;
        let (wide, narrow) = self.quick[h * size..(h + 1) * size].split_at(quick.width);
        above(wide, &quick.weight, extra) + above(narrow, &self.quick_price, claims)
    }

    /// Cost of a host now, as the quick rows have it.
    #[inline]
    pub fn quick_host_cost(&self, host: u32) -> f64 {
        self.quick_cost[host as usize]
    }

    /// The sum of the quick costs of all hosts.
    #[inline]
    pub fn quick_hosts(&self) -> f64 {
        self.quick_hosts
    }

    /// The part of a host's cost that could be avoided for all that sums of loads and limits say.
    /// Where all hosts together are over a limit, a unit over it costs the same anywhere, and the
    /// host to look at is one below it, whose room others pay for.
    #[inline]
    pub fn quick_waste(&self, host: u32) -> f64 {
        let quick = &self.model.quick;
        let h = host as usize;
        let row = &self.quick[h * (quick.width + quick.narrow)..][..quick.width];
        let mut sum = [0.0; 4];
        for (row, weight) in row.iter().zip(&quick.bound) {
            for (sum, part) in sum.iter_mut().zip(times(*row, *weight)) {
                *sum += part;
            }
        }
        self.quick_cost[h] + ((sum[0] + sum[1]) + (sum[2] + sum[3]))
    }

    /// The sum of the waste of all hosts.
    #[inline]
    pub fn quick_wastes(&self) -> f64 {
        self.quick_hosts - self.model.quick.least
    }

    /// Load, balance and overflow cost that an item adds to a host it is not on.
    #[inline]
    pub fn quick_added(&self, item: u32, host: u32) -> f64 {
        let quick = &self.model.quick;
        let need = quick.need(item);
        let h = host as usize;
        let with = if self.model.home[item as usize] == host {
            self.quick_row(h, |k| need[k], |k| times(need[k], quick.lasting[k]))
        } else {
            self.quick_row(h, |k| need[k], |k| need[k])
        };
        with - self.quick_cost[h]
    }

    /// The cost that goes from a host when a placed item leaves it.
    #[inline]
    pub fn quick_freed(&self, item: u32) -> f64 {
        let quick = &self.model.quick;
        let need = quick.need(item);
        let host = self.at[item as usize];
        let h = host as usize;
        let none = [0.0; 4];
        let without = if self.model.home[item as usize] == host {
            self.quick_row(
                h,
                |k| minus(none, need[k]),
                |k| minus(none, times(need[k], quick.lasting[k])),
            )
        } else {
            self.quick_row(h, |k| minus(none, need[k]), |k| minus(none, need[k]))
        };
        self.quick_cost[h] - without
    }

    /// Change of the cost of a host when `comes` takes the place of `goes`.
    #[inline]
    pub fn quick_exchanged(&self, host: u32, goes: u32, comes: u32) -> f64 {
        let (model, quick) = (self.model, &self.model.quick);
        let (out, into) = (quick.need(goes), quick.need(comes));
        let h = host as usize;
        let extra = |k: usize| minus(into[k], out[k]);
        let home = |item: u32| model.home[item as usize] == host;
        let after = match (home(goes), home(comes)) {
            (false, false) => self.quick_row(h, extra, extra),
            (leaves, enters) => {
                let part = |need: &[Lane], home: bool, k: usize| {
                    if home {
                        times(need[k], quick.lasting[k])
                    } else {
                        need[k]
                    }
                };
                self.quick_row(h, extra, |k| {
                    minus(part(into, enters, k), part(out, leaves, k))
                })
            }
        };
        after - self.quick_cost[h]
    }
}
