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

/// VMs are rounded up by a unit each. Where hosts are to be filled to the brim, what exactly fits must fit here too: so
/// much is forgiven on a host, which is less than any VM has, and whoever makes the moves asks the engine.
const ROUNDED: i64 = UNITS / 4_096;

/// How far above the pool's share a unit more begins to cost as much again. The sum grows nearly as the square of
/// the distance does, which is what imbalance means.
const BENDS: [i64; 3] = [0, UNITS / 16, UNITS / 8];

/// What any move costs, whatever the size of the VM: a thousandth of a host.
const MOVE_COST: i64 = UNITS / 1_000;

/// What a unit costs on a host that is to be empty: so much that whatever can leave does, whatever the moves cost.
const EMPTY_WEIGHT: i64 = 1_000;

/// Changes that each thread looks at: so many per VM, within the bounds of [`Aim::looks`].
const LOOKS_PER_VM: u64 = 100;

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

/// What the pool is wanted to be.
#[derive(Clone, Copy)]
pub(super) enum Aim<'a> {
    /// Evenly loaded; a move must gain so many per cent of the VM.
    Even(i64),
    /// With nothing on these hosts. The others take what they can hold, and may give way to one another: moves are
    /// found as they are in the end, and whoever carries them out finds an order.
    Empty(&'a BTreeSet<HostName>),
}

impl Aim<'_> {
    /// Loads above which a unit more begins to cost as much again.
    fn bends(&self) -> &'static [i64] {
        match self {
            Aim::Even(_) => &BENDS,
            Aim::Empty(_) => &[0],
        }
    }

    /// Bounds that keep a small pool's answer good and a large one's below a second; a fraction of that for each of
    /// several sets of hosts that are to be emptied.
    fn looks(&self) -> (u64, u64) {
        match self {
            Aim::Even(_) => (10_000, 1_000_000),
            Aim::Empty(_) => (3_000, 125_000),
        }
    }

    fn empties(&self, host: &HostName) -> bool {
        matches!(self, Aim::Empty(hosts) if hosts.contains(host))
    }
}

/// A VM that stays where it is: bound to a host, tied to others, or at rest.
pub(super) fn settled(request: &RebalanceRequest, uid: &VmUid, vm: &Vm) -> bool {
    // One move would part it from who must share its host.
    vm.pinned_to.is_some() || vm.rules.together.is_some() || request.rests(uid)
}

/// Looks for a better place for all VMs of a pool at once.
///
/// # Errors
/// The pool's numbers are too large to be added up.
pub(super) fn wanted(
    engine: &Engine,
    shares: &Shares,
    request: &RebalanceRequest,
    aim: Aim<'_>,
    refused: &Refused,
) -> Result<Vec<Wanted>, ModelError> {
    let mut pool = Pool::new((engine, shares), request, aim, refused);
    pool.fill();
    let model = Model::new(pool.spec)?;
    let (least, most) = aim.looks();
    let looks = (model.item_count() as u64 * LOOKS_PER_VM).clamp(least, most);
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
    aim: Aim<'a>,
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
        (engine, shares): (&'a Engine, &'a Shares),
        request: &'a RebalanceRequest,
        aim: Aim<'a>,
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
        let (weight, pair_cost) = match aim {
            Aim::Even(_) => (1, MOVE_COST),
            Aim::Empty(_) => (EMPTY_WEIGHT, 1),
        };
        let resource = |bend: &i64| Resource {
            transient: *bend == 0 && matches!(aim, Aim::Even(_)),
            weight,
        };
        let resources: Vec<Resource> = aim.bends().iter().map(resource).collect();
        Self {
            mean: Free {
                cpu: sum(|free| free.cpu).max(1),
                memory_bytes: sum(|free| free.memory_bytes).max(1),
            },
            engine,
            shares,
            request,
            aim,
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
                pair_cost: PairCost::Uniform(pair_cost),
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

    fn fill(&mut self) {
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
                        let item = self.item((uid, vm, vm_number), needs, home);
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
            let host = self.host(&name, number, &taken);
            self.spec.hosts.push(host);
        }
    }

    fn host(&self, name: &HostName, number: u32, taken: &Taken) -> Host {
        let whole = self.units(self.engine.host(number).capacity);
        let (mut capacity, mut safety) = (Vec::new(), Vec::new());
        for resource in [0, 1] {
            let share = whole[resource] * self.shares.mean[resource].clamp(0, 1_000) / 1_000;
            // A host that is overfull already keeps what it has.
            let spare = match self.aim {
                Aim::Even(_) => 0,
                Aim::Empty(_) => ROUNDED,
            };
            let room = whole[resource] - taken.moving[resource] + spare;
            let room = room.max(taken.free[resource]);
            for bend in self.aim.bends() {
                capacity.push(room);
                safety.push(match self.aim {
                    Aim::Even(_) => (share + bend - taken.arriving[resource]).max(0),
                    Aim::Empty(_) if self.aim.empties(name) => 0,
                    Aim::Empty(_) => room,
                });
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
    ) -> Item {
        let bends = self.aim.bends();
        let move_percent = match self.aim {
            Aim::Even(least) => least.clamp(0, 100),
            Aim::Empty(_) => 1,
        };
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
            need: needs
                .iter()
                .flat_map(|need| bends.iter().map(|_| *need))
                .collect(),
            move_cost: needs.iter().sum::<i64>() * move_percent / 100,
            class,
            home,
        }
    }

    /// To which hosts a VM may move.
    fn open(&self, uid: &VmUid, vm: &Vm, number: u32, home: usize) -> Open {
        if settled(self.request, uid, vm) {
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
        let mut flags = match &open {
            Open::Nowhere => vec![false; self.hosts.len()],
            Open::Class(class) => kinds
                .map(|kind| kind.is_some_and(|kind| self.engine.class_allows(*class, kind)))
                .collect(),
            Open::Told(flags) => flags.clone(),
        };
        for (flag, (name, _)) in flags.iter_mut().zip(&self.hosts) {
            *flag &= !self.aim.empties(name);
        }
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
