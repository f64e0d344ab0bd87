//! What a caller states about a fleet, before it is checked and laid out for speed.

/// One resource, the same on every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Used on both hosts while an item is away from home.
    pub transient: bool,
    /// Cost of one unit above a host's safety load.
    pub weight: i64,
}

/// One host. The vectors have one entry per resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where dependencies between groups are met.
    pub neighbourhood: u32,
    /// What a group is spread over.
    pub zone: u32,
    /// Hard limits.
    pub capacity: Vec<i64>,
    /// Loads above which each unit costs the resource's weight.
    pub safety: Vec<i64>,
}

/// A set of items with rules between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// No two items of the group on one host.
    pub exclusive: bool,
    /// The least number of zones its items are in; 0 and 1 ask for nothing.
    pub spread_min: u32,
    /// Groups that need an item in every neighbourhood where this one has an item.
    pub depends_on: Vec<u32>,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Index of its group.
    pub group: u32,
    /// Use of each resource.
    pub need: Vec<i64>,
    /// Cost of being away from home, already weighted.
    pub move_cost: i64,
    /// Index into [`Spec::classes`]: the hosts it may move to. It may always stay at home.
    pub class: u32,
    /// The host it is on today.
    pub home: u32,
}

/// `weight * max(0, target * free(first) - free(second))`, summed over hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The resource whose free amount sets the wish.
    pub first: usize,
    /// The resource that should be free in proportion.
    pub second: usize,
    /// Units of the second wished for per free unit of the first.
    pub target: i64,
    /// Cost of one missing unit.
    pub weight: i64,
}

/// Cost of a move that depends on where from and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairCost {
    /// The same between any two hosts.
    Uniform(i64),
    /// `weight * of[from * hosts + to]`. Four bytes an entry: 5,000 hosts take 100 MB.
    Matrix {
        /// Multiplies every entry.
        weight: i64,
        /// Row by row, from then to.
        of: Vec<u32>,
    },
}

/// A whole problem, as the caller states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The resources, in the order every vector follows.
    pub resources: Vec<Resource>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The groups.
    pub groups: Vec<Group>,
    /// The items.
    pub items: Vec<Item>,
    /// The balance wishes.
    pub balances: Vec<Balance>,
    /// Cost of a pair of hosts.
    pub pair_cost: PairCost,
    /// Cost per moved item of the group with most moved items.
    pub group_move_weight: i64,
    /// Sets of hosts, one flag per host; an item names one. An empty set stands for all hosts.
    pub classes: Vec<Vec<bool>>,
}
