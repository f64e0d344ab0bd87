//! Where the VMs of a pool would better be: the pool stated as a problem of [`crate::core`], and what the
//! one search ([`crate::search`]) finds for it.
//!
//! Moves that are found are only wishes. Room, kinds of hosts and "each on a host of its own" are stated to the
//! search; rules that it has no words for are told it host by host as they are now; and whoever makes a move asks
//! the engine.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use super::RebalanceRequest;
use super::shares::Shares;
use crate::core::{Group, Host, Item, Model, ModelError, PairCost, Resource, Spec};
use crate::engine::Engine;
use crate::fleet::{Free, Vm};
use crate::rules::{Domain, Relation, Side};
use crate::search::{Budget, improve};

/// Units into which a mean host's memory is cut, and its CPU.
const UNITS: i64 = 1 << 20;

/// More than any host that means something to the others has: for VMs and hosts of unreadable size.
const UNITS_MAX: i64 = 64 * UNITS;

/// How far above the pool's share a unit more begins to cost as much again. The sum grows nearly as the square of
/// the distance does, which is what imbalance means.
const BENDS: [i64; 3] = [0, UNITS / 16, UNITS / 8];

/// What any move costs, whatever the size of the VM: a thousandth of a host.
const MOVE_COST: i64 = UNITS / 1_000;

/// Changes that each thread looks at: so many per VM, within bounds that keep a small pool's answer good and a
/// large one's below a second.
const LOOKS_PER_VM: u64 = 100;
const LOOKS: (u64, u64) = (10_000, 1_000_000);

/// As many as the product may use for planning.
const THREADS: usize = 2;

/// A move that the search would make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub vm: VmUid,
    pub from: HostName,
    pub to: HostName,
}

/// Moves of VMs that the engine refused, by VM and host.
pub(super) type Refused = BTreeSet<(VmUid, HostName)>;

/// Looks for a better place for all VMs of a pool at once; `least` is what a move must gain, per cent of the VM.
///
/// # Errors
/// The pool's numbers are too large to be added up.
pub(super) fn wanted(
    engine: &Engine,
    shares: &Shares,
    request: &RebalanceRequest,
    least: i64,
    refused: &Refused,
) -> Result<Vec<Wanted>, ModelError> {
    let mut pool = Pool::new(engine, shares, request, refused);
    pool.fill(least);
    let model = Model::new(pool.spec)?;
    let looks = (model.item_count() as u64 * LOOKS_PER_VM).clamp(LOOKS.0, LOOKS.1);
    let mut found = improve(&model, request.seed, THREADS, Budget::Proposals(looks));
    for ((home, ..), items) in &pool.alike {
        // Whom nothing tells apart: who comes first by name moves, to the hosts in their order.
        let mut targets: Vec<u32> = items.iter().map(|item| found.placement[*item]).collect();
        targets.sort_unstable_by_key(|to| (to == home, *to));
        for (item, to) in items.iter().zip(targets) {
            found.placement[*item] = to;
        }
    }
    let homes = model.homes().iter().zip(&found.placement);
    let moves = homes.zip(pool.vms).filter(|((home, to), _)| home != to);
    let name = |host: u32| pool.hosts[host as usize].0.clone();
    let wanted = moves.map(|((home, to), vm)| Wanted {
        vm,
        from: name(*home),
        to: name(*to),
    });
    Ok(wanted.collect())
}

/// A pool on its way to a problem.
struct Pool<'a> {
    engine: &'a Engine,
    shares: &'a Shares,
    request: &'a RebalanceRequest,
    refused: &'a Refused,
    /// Names and numbers, in the order of the problem.
    hosts: Vec<(HostName, u32)>,
    /// Uids, in the order of the problem.
    vms: Vec<VmUid>,
    /// What a mean host has.
    mean: Free,
    /// Sets of hosts by what makes VMs alike.
    classes: BTreeMap<Open, u32>,
    /// Items that nothing tells apart, by host, size and class.
    alike: BTreeMap<(u32, Free, u32), Vec<usize>>,
    /// Groups by rule.
    groups: BTreeMap<&'a str, u32>,
    spec: Spec,
}

/// What VMs take on a host, memory and CPU.
#[derive(Default)]
struct Taken {
    /// Those of which the search says where they go.
    free: [i64; 2],
    /// Those on their way, from or to it.
    moving: [i64; 2],
    /// Those on their way to it.
    arriving: [i64; 2],
}

fn add(sum: [i64; 2], more: [i64; 2]) -> [i64; 2] {
    [sum[0] + more[0], sum[1] + more[1]]
}

/// The hosts to which a VM may move.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    /// None.
    Nowhere,
    /// Those whose kind its class allows.
    Class(u32),
    /// These, as things are now.
    Told(Vec<bool>),
}

impl<'a> Pool<'a> {
    fn new(
        engine: &'a Engine,
        shares: &'a Shares,
        request: &'a RebalanceRequest,
        refused: &'a Refused,
    ) -> Self {
        let hosts: Vec<(HostName, u32)> = engine
            .pool_hosts(&request.pool)
            .filter(|(name, _)| shares.hosts.contains_key(*name))
            .map(|(name, number)| (name.clone(), number))
            .collect();
        let sum = |of: fn(Free) -> u64| {
            let all = shares.hosts.values().map(|(capacity, _)| of(*capacity));
            let sum: u128 = all.map(u128::from).sum();
            u64::try_from(sum / hosts.len().max(1) as u128).unwrap_or(u64::MAX)
        };
        let transient = |bend: &i64| Resource {
            transient: *bend == 0,
            weight: 1,
        };
        let resources: Vec<Resource> = BENDS.iter().map(transient).collect();
        Self {
            mean: Free {
                cpu: sum(|free| free.cpu).max(1),
                memory_bytes: sum(|free| free.memory_bytes).max(1),
            },
            engine,
            shares,
            request,
            refused,
            hosts,
            vms: Vec::new(),
            classes: BTreeMap::new(),
            alike: BTreeMap::new(),
            groups: BTreeMap::new(),
            spec: Spec {
                resources: [resources.clone(), resources].concat(),
                hosts: Vec::new(),
                // Whom no rule keeps apart.
                groups: vec![Group::default()],
                items: Vec::new(),
                balances: Vec::new(),
                pair_cost: PairCost::Uniform(MOVE_COST),
                group_move_weight: 0,
                classes: Vec::new(),
            },
        }
    }

    /// Memory and CPU in parts of a mean host's.
    fn units(&self, size: Free) -> [i64; 2] {
        let units = |value: u64, mean: u64| {
            let units = u128::from(value) * UNITS as u128 / u128::from(mean);
            i64::try_from(units).unwrap_or(UNITS_MAX).min(UNITS_MAX)
        };
        [
            units(size.memory_bytes, self.mean.memory_bytes),
            units(size.cpu, self.mean.cpu),
        ]
    }

    fn fill(&mut self, least: i64) {
        for home in 0..self.hosts.len() {
            let (name, number) = self.hosts[home].clone();
            let mut taken = Taken::default();
            for uid in self.engine.on(&name) {
                let Some(vm) = self.engine.machine(uid) else {
                    continue;
                };
                let Some(vm_number) = self.engine.vm_number(uid) else {
                    continue;
                };
                let needs = self.needs(vm_number);
                match &vm.incoming {
                    None => {
                        taken.free = add(taken.free, needs);
                        let item = self.item((uid, vm, vm_number), needs, home, least);
                        self.spec.items.push(item);
                        self.vms.push(uid.clone());
                    }
                    Some(to) => {
                        taken.moving = add(taken.moving, needs);
                        if *to == name {
                            taken.arriving = add(taken.arriving, needs);
                        }
                    }
                }
            }
            let host = self.host(number, &taken);
            self.spec.hosts.push(host);
        }
    }

    fn host(&self, number: u32, taken: &Taken) -> Host {
        let whole = self.units(self.engine.host(number).capacity);
        let (mut capacity, mut safety) = (Vec::new(), Vec::new());
        for resource in [0, 1] {
            let share = whole[resource] * self.shares.mean[resource].clamp(0, 1_000) / 1_000;
            // A host that is overfull already keeps what it has.
            let room = (whole[resource] - taken.moving[resource]).max(taken.free[resource]);
            for bend in BENDS {
                capacity.push(room);
                safety.push((share + bend - taken.arriving[resource]).max(0));
            }
        }
        Host {
            neighbourhood: 0,
            zone: 0,
            capacity,
            safety,
        }
    }

    /// What a VM takes, rounded up: what fits here fits there.
    fn needs(&self, number: u32) -> [i64; 2] {
        self.units(self.engine.vm(number).size)
            .map(|units| units + 1)
    }

    fn item(
        &mut self,
        (uid, vm, number): (&VmUid, &'a Vm, u32),
        needs: [i64; 2],
        home: usize,
        least: i64,
    ) -> Item {
        let open = self.open(uid, vm, number, home);
        let as_its_class = matches!(open, Open::Class(_));
        let (group, class) = (self.group(vm), self.class(open));
        let home = u32::try_from(home).unwrap_or(u32::MAX);
        if as_its_class && group == 0 {
            let key = (home, self.engine.vm(number).size, class);
            self.alike.entry(key).or_default().push(self.vms.len());
        }
        Item {
            group,
            need: needs.iter().flat_map(|need| BENDS.map(|_| *need)).collect(),
            move_cost: needs.iter().sum::<i64>() * least.clamp(0, 100) / 100,
            class,
            home,
        }
    }

    /// To which hosts a VM may move.
    fn open(&self, uid: &VmUid, vm: &Vm, number: u32, home: usize) -> Open {
        // One move would part it from who must share its host.
        let tied = vm.pinned_to.is_some() || vm.rules.together.is_some();
        if tied || self.request.rests(uid) {
            return Open::Nowhere;
        }
        let rules = &vm.rules;
        let plain = rules.apart.len() <= 1
            && rules.apart.iter().all(own_host)
            && rules.wishes() == 0
            && rules.contradiction.is_none()
            && vm.new_volumes.is_empty();
        let mut refused = self.refused.range((uid.clone(), HostName(String::new()))..);
        if plain && refused.next().is_none_or(|(other, _)| other != uid) {
            return Open::Class(self.engine.vm(number).class);
        }
        let from = self.hosts.get(home).map(|(_, from)| *from);
        let may = self.hosts.iter().map(|(name, to)| {
            Some(*to) != from
                && !self.refused.contains(&(uid.clone(), name.clone()))
                && from.is_some_and(|from| self.engine.may_move(uid, from, name))
        });
        Open::Told(may.collect())
    }

    fn class(&mut self, open: Open) -> u32 {
        if let Some(known) = self.classes.get(&open) {
            return *known;
        }
        let kinds = self
            .hosts
            .iter()
            .map(|(_, number)| self.engine.host(*number).kind);
        let flags = match &open {
            Open::Nowhere => vec![false; self.hosts.len()],
            Open::Class(class) => kinds
                .map(|kind| kind.is_some_and(|kind| self.engine.class_allows(*class, kind)))
                .collect(),
            Open::Told(flags) => flags.clone(),
        };
        let number = u32::try_from(self.spec.classes.len()).unwrap_or(u32::MAX);
        self.spec.classes.push(flags);
        self.classes.insert(open, number);
        number
    }

    /// VMs that must each have a host of their own are a group.
    fn group(&mut self, vm: &'a Vm) -> u32 {
        let mut apart = vm.rules.apart.iter();
        let Some(rule) = apart.find(|relation| own_host(relation)) else {
            return 0;
        };
        if let Some(known) = self.groups.get(rule.rule.as_str()) {
            return *known;
        }
        let number = u32::try_from(self.spec.groups.len()).unwrap_or(u32::MAX);
        self.spec.groups.push(Group {
            exclusive: true,
            ..Group::default()
        });
        self.groups.insert(&rule.rule, number);
        number
    }
}

/// Whether it demands a host of one's own.
fn own_host(relation: &Relation) -> bool {
    relation.over == Domain::Host && relation.side == Side::Every
}
