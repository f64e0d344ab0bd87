//! An instance in the benchmark's own terms, and its mapping to the core.

use crate::core::{Balance, Group, Host, Item, PairCost, Resource, Spec};

/// One machine; vectors have one entry per resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Where dependencies are met.
    pub neighbourhood: u32,
    /// What services are spread over.
    pub location: u32,
    /// Hard limits.
    pub capacity: Vec<i64>,
    /// Loads above which each unit costs.
    pub safety: Vec<i64>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Least number of locations its processes are in.
    pub spread_min: u32,
    /// Services it needs in each of its neighbourhoods.
    pub depends_on: Vec<u32>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Index of its service.
    pub service: u32,
    /// Requirement of each resource.
    pub need: Vec<i64>,
    /// Cost of moving it, unweighted.
    pub move_cost: i64,
}

/// One balance cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceRule {
    /// The two resources.
    pub resources: (usize, usize),
    /// Free units of the second wished for per free unit of the first.
    pub target: i64,
    /// Cost of one missing unit.
    pub weight: i64,
}

/// A whole model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Per resource: is it transient, and the weight of its load cost.
    pub resources: Vec<(bool, i64)>,
    /// The machines.
    pub machines: Vec<Machine>,
    /// Cost of a move from one machine to another, row by row, unweighted.
    pub machine_move_cost: Vec<u32>,
    /// The services.
    pub services: Vec<Service>,
    /// The processes.
    pub processes: Vec<Process>,
    /// The balance costs.
    pub balances: Vec<BalanceRule>,
    /// Weight of the cost of moved processes.
    pub process_move_weight: i64,
    /// Weight of the service with most moved processes.
    pub service_move_weight: i64,
    /// Weight of the cost between machines.
    pub machine_move_weight: i64,
}

impl Instance {
    /// The same problem for the core, with `start` as every process's home.
    ///
    /// Products are saturated: what saturates is refused by `Model::new` as too large.
    pub fn to_spec(&self, start: &[u32]) -> Spec {
        Spec {
            resources: self
                .resources
                .iter()
                .map(|&(transient, weight)| Resource { transient, weight })
                .collect(),
            hosts: self
                .machines
                .iter()
                .map(|m| Host {
                    neighbourhood: m.neighbourhood,
                    zone: m.location,
                    capacity: m.capacity.clone(),
                    safety: m.safety.clone(),
                })
                .collect(),
            groups: self
                .services
                .iter()
                .map(|s| Group {
                    exclusive: true,
                    spread_min: s.spread_min,
                    depends_on: s.depends_on.clone(),
                })
                .collect(),
            items: self
                .processes
                .iter()
                .zip(start)
                .map(|(p, &home)| Item {
                    group: p.service,
                    need: p.need.clone(),
                    move_cost: p.move_cost.saturating_mul(self.process_move_weight),
                    class: 0,
                    home,
                })
                .collect(),
            balances: self
                .balances
                .iter()
                .map(|b| Balance {
                    first: b.resources.0,
                    second: b.resources.1,
                    target: b.target,
                    weight: b.weight,
                })
                .collect(),
            pair_cost: PairCost::Matrix {
                weight: self.machine_move_weight,
                of: self.machine_move_cost.clone(),
            },
            group_move_weight: self.service_move_weight,
            classes: vec![Vec::new()],
        }
    }
}
