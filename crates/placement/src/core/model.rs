//! A checked problem, laid out flat so that one judgement touches few cache lines.
//!
//! Resources are reordered with the transient ones first, so the hot loops are two plain loops
//! instead of one with a branch in it. Callers never see that order.

use std::collections::BTreeMap;

use super::check::check;
use super::error::ModelError;
use super::lanes::Quick;
use super::reach::Reach;
use super::spec::{Balance, PairCost, Spec};

/// Groups with more items than this keep a count per host; smaller ones look at each other item.
const SCAN_MAX: usize = 8;

/// A table row that is not kept.
pub(super) const NO_ROW: u32 = u32::MAX;

/// An immutable, checked problem. Shared by all threads of a search.
#[derive(Clone, Debug)]
pub struct Model {
    pub(super) resources: usize,
    pub(super) transients: usize,
    pub(super) weight: Vec<i64>,
    pub(super) hosts: usize,
    pub(super) capacity: Vec<i64>,
    pub(super) safety: Vec<i64>,
    pub(super) zone: Vec<u32>,
    pub(super) zones: usize,
    pub(super) hood: Vec<u32>,
    pub(super) hoods: usize,
    pub(super) items: usize,
    pub(super) need: Vec<i64>,
    pub(super) group_of: Vec<u32>,
    pub(super) home: Vec<u32>,
    pub(super) class_of: Vec<u32>,
    pub(super) item_cost: Vec<i64>,
    pub(super) classes: Vec<Vec<bool>>,
    /// No class forbids any host.
    open_to_all: bool,
    pub(super) groups: usize,
    pub(super) exclusive: Vec<bool>,
    pub(super) members: Vec<Vec<u32>>,
    pub(super) homed: Vec<Vec<u32>>,
    pub(super) spread_min: Vec<u32>,
    pub(super) needs: Vec<Vec<u32>>,
    pub(super) needed_by: Vec<Vec<u32>>,
    /// Rows of the per-group tables a state keeps; `NO_ROW` where the rule does not apply.
    pub(super) zone_row: Vec<u32>,
    pub(super) hood_row: Vec<u32>,
    pub(super) host_row: Vec<u32>,
    pub(super) zone_rows: usize,
    pub(super) hood_rows: usize,
    pub(super) host_rows: usize,
    pub(super) balances: Vec<Balance>,
    pair: PairCost,
    pub(super) group_move_weight: i64,
    pub(super) quick: Quick,
    pub(super) reach: Reach,
}

impl Model {
    /// Checks a stated problem and lays it out.
    pub fn new(spec: Spec) -> Result<Model, ModelError> {
        check(&spec)?;
        let hosts = spec.hosts.len();
        let groups = spec.groups.len();
        let mut order: Vec<usize> = (0..spec.resources.len()).collect();
        order.sort_by_key(|&r| (!spec.resources[r].transient, r));
        let place: Vec<usize> = {
            let mut place = vec![0; order.len()];
            for (to, &from) in order.iter().enumerate() {
                place[from] = to;
            }
            place
        };
        let flat = |row: &[i64], into: &mut Vec<i64>| into.extend(order.iter().map(|&r| row[r]));

        let mut capacity = Vec::with_capacity(hosts * order.len());
        let mut safety = Vec::with_capacity(hosts * order.len());
        for host in &spec.hosts {
            flat(&host.capacity, &mut capacity);
            flat(&host.safety, &mut safety);
        }
        let (zone, zones) = compress(spec.hosts.iter().map(|h| h.zone));
        let (hood, hoods) = compress(spec.hosts.iter().map(|h| h.neighbourhood));

        let mut need = Vec::with_capacity(spec.items.len() * order.len());
        let mut members = vec![Vec::new(); groups];
        let mut homed = vec![Vec::new(); hosts];
        for (i, item) in spec.items.iter().enumerate() {
            flat(&item.need, &mut need);
            members[item.group as usize].push(i as u32);
            homed[item.home as usize].push(i as u32);
        }

        // An empty group can never satisfy anybody; a group that needs itself asks for nothing.
        let mut needs = vec![Vec::new(); groups];
        let mut needed_by = vec![Vec::new(); groups];
        for (g, group) in spec.groups.iter().enumerate() {
            let mut named = group.depends_on.clone();
            named.sort_unstable();
            named.dedup();
            named.retain(|&t| t as usize != g);
            for &t in &named {
                needed_by[t as usize].push(g as u32);
            }
            needs[g] = named;
        }
        let rows = |wanted: &dyn Fn(usize) -> bool| {
            let mut next = 0u32;
            let of: Vec<u32> = (0..groups)
                .map(|g| {
                    if wanted(g) {
                        next += 1;
                        next - 1
                    } else {
                        NO_ROW
                    }
                })
                .collect();
            (of, next as usize)
        };
        // One zone is met by any item; a group without items still misses it.
        let (zone_row, zone_rows) =
            rows(&|g| spec.groups[g].spread_min > u32::from(!members[g].is_empty()));
        let (hood_row, hood_rows) = rows(&|g| !needs[g].is_empty() || !needed_by[g].is_empty());
        let (host_row, host_rows) =
            rows(&|g| spec.groups[g].exclusive && members[g].len() > SCAN_MAX);

        let mut model = Model {
            resources: order.len(),
            transients: spec.resources.iter().filter(|r| r.transient).count(),
            weight: order.iter().map(|&r| spec.resources[r].weight).collect(),
            hosts,
            capacity,
            safety,
            zone,
            zones,
            hood,
            hoods,
            items: spec.items.len(),
            need,
            group_of: spec.items.iter().map(|i| i.group).collect(),
            home: spec.items.iter().map(|i| i.home).collect(),
            class_of: spec.items.iter().map(|i| i.class).collect(),
            item_cost: spec.items.iter().map(|i| i.move_cost).collect(),
            open_to_all: spec.classes.iter().all(Vec::is_empty),
            classes: spec.classes,
            groups,
            exclusive: spec.groups.iter().map(|g| g.exclusive).collect(),
            members,
            homed,
            spread_min: spec.groups.iter().map(|g| g.spread_min).collect(),
            needs,
            needed_by,
            zone_row,
            hood_row,
            host_row,
            zone_rows,
            hood_rows,
            host_rows,
            balances: spec
                .balances
                .iter()
                .map(|b| Balance {
                    first: place[b.first],
                    second: place[b.second],
                    ..b.clone()
                })
                .collect(),
            pair: spec.pair_cost,
            group_move_weight: spec.group_move_weight,
            quick: Quick::default(),
            reach: Reach::default(),
        };
        model.quick = Quick::new(&model);
        model.reach = Reach::new(&model);
        Ok(model)
    }

    /// Number of hosts.
    pub fn host_count(&self) -> usize {
        self.hosts
    }

    /// Number of items.
    pub fn item_count(&self) -> usize {
        self.items
    }

    /// The host an item runs on today.
    pub fn home(&self, item: u32) -> u32 {
        self.home[item as usize]
    }

    /// Today's host of every item.
    pub fn homes(&self) -> &[u32] {
        &self.home
    }

    /// The group of an item.
    pub fn group(&self, item: u32) -> u32 {
        self.group_of[item as usize]
    }

    /// The items of a group, by index.
    pub fn members(&self, group: u32) -> &[u32] {
        &self.members[group as usize]
    }

    /// The items whose home a host is, by index.
    pub fn homed(&self, host: u32) -> &[u32] {
        &self.homed[host as usize]
    }

    /// Need of an item, in the model's own order of resources.
    pub fn need(&self, item: u32) -> &[i64] {
        let at = item as usize * self.resources;
        &self.need[at..at + self.resources]
    }

    /// Number of resources.
    pub fn resource_count(&self) -> usize {
        self.resources
    }

    /// Weights of the resources and their mean capacities, in the model's own order.
    pub fn scales(&self) -> Vec<(i64, i64)> {
        let hosts = self.hosts.max(1) as i64;
        (0..self.resources)
            .map(|k| {
                let sum: i64 = (0..self.hosts)
                    .map(|h| self.capacity[h * self.resources + k])
                    .sum();
                (self.weight[k], sum / hosts)
            })
            .collect()
    }

    /// How large an item is to a search that must order items: the sum of its needs.
    pub fn size(&self, item: u32) -> i64 {
        self.need(item).iter().sum()
    }

    /// Cost of `item` being on `host`: nothing at home, else its own cost and the pair's.
    pub fn move_cost(&self, item: u32, host: u32) -> i64 {
        let home = self.home[item as usize];
        if home == host {
            return 0;
        }
        let pair = match &self.pair {
            PairCost::Uniform(cost) => *cost,
            PairCost::Matrix { weight, of } => {
                weight * i64::from(of[home as usize * self.hosts + host as usize])
            }
        };
        self.item_cost[item as usize] + pair
    }

    /// Cost per moved item of the group with most moved items.
    #[inline]
    pub fn group_move_weight(&self) -> i64 {
        self.group_move_weight
    }

    /// What a mean item costs by being away from home, where that depends on the pair of hosts
    /// without the pair's; at least 1.
    pub fn move_unit(&self) -> i64 {
        let items = self.items.max(1) as i64;
        let pair = match &self.pair {
            PairCost::Uniform(cost) => *cost,
            PairCost::Matrix { .. } => 0,
        };
        (self.item_cost.iter().sum::<i64>() / items + pair).max(1)
    }

    /// Whether the class of an item lets it be on a host. Home always is.
    #[inline]
    pub fn class_allows(&self, item: u32, host: u32) -> bool {
        self.open_to_all || self.class_flags(item, host)
    }

    fn class_flags(&self, item: u32, host: u32) -> bool {
        let class = &self.classes[self.class_of[item as usize] as usize];
        class.is_empty() || class[host as usize] || self.home[item as usize] == host
    }
}

/// Maps labels to 0.. in the order of the labels.
fn compress(labels: impl Iterator<Item = u32> + Clone) -> (Vec<u32>, usize) {
    let mut known: BTreeMap<u32, u32> = labels.clone().map(|l| (l, 0)).collect();
    for (index, value) in known.values_mut().enumerate() {
        *value = index as u32;
    }
    (labels.map(|l| known[&l]).collect(), known.len())
}
