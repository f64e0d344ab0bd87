//! Hosts that can be emptied: one after the other, the least loaded first, or several at once by the search.
//!
//! The first way takes what it can, and a host that it empties may have used up what two others needed. So the search
//! is asked for one host more than that: for some sets of the least loaded hosts, all of whose VMs could move, whatever is
//! on them is made dear, and others may fill up and give way ([`super::target`]). What it finds is carried
//! out move by move on the engine, and N+1 is proven on what remains, or it is dropped.

use std::collections::BTreeSet;

use model::{HostName, Priority, VmUid};

use super::shares::Shares;
use super::target::{Aim, Refused, Wanted, settled, wanted as search};
use super::{Mode, Rebalance, RebalanceRequest};
use crate::engine::Engine;
use crate::evacuation::{Step, plan_evacuation_on, timed};
use crate::fleet::Free;
use crate::plan::Plan;

/// Sets of hosts that the search is asked to empty, in all: bounds the time. A set that is too large in sum is not
/// searched and not counted.
const SEARCHES_MAX: usize = 8;

/// Hosts that are empty with a plan.
#[derive(Default)]
struct Emptied {
    hosts: BTreeSet<HostName>,
    plan: Plan,
}

/// A pool that is to be consolidated.
struct Consolidation<'a> {
    engine: Engine,
    request: &'a RebalanceRequest,
    shares: Shares,
    /// Hosts whose failure was not survived before. All others must be survived after.
    broken: BTreeSet<HostName>,
    /// Hosts that may be emptied, the least loaded first.
    order: Vec<HostName>,
}

pub(super) fn consolidate(
    mut engine: Engine,
    request: &RebalanceRequest,
    wanted: &BTreeSet<HostName>,
) -> Rebalance {
    let shares = Shares::of(&engine, &request.pool);
    let mut order: Vec<(u64, &HostName)> = shares
        .hosts
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.contains(*name))
        .map(|(name, (_, used))| (used.memory_bytes, name))
        .collect();
    order.sort();
    let order = order.into_iter().filter(|_| request.mode != Mode::Off);
    let pool = Consolidation {
        order: order.map(|(_, name)| name.clone()).collect(),
        broken: engine.not_survived(&request.pool),
        engine,
        request,
        shares,
    };
    let (one_by_one, mut stay) = pool.one_by_one();
    let found = pool.more_at_once(one_by_one.hosts.len());
    stay.retain(|(name, _)| {
        found
            .as_ref()
            .is_none_or(|at_once| !at_once.hosts.contains(name))
    });
    if let Some(at_once) = &found {
        let spared = one_by_one.hosts.difference(&at_once.hosts);
        stay.extend(spared.map(|name| (name.clone(), "so more hosts can be emptied".to_owned())));
    }
    let emptied = found.unwrap_or(one_by_one);
    let strangers = wanted
        .iter()
        .filter(|name| !pool.shares.hosts.contains_key(*name));
    stay.extend(strangers.map(|name| {
        let why = format!("it is not an open host of pool {}", request.pool);
        (name.clone(), why)
    }));
    let why = match emptied.hosts.len() {
        0 if request.mode == Mode::Off => "rebalancing is off".to_owned(),
        0 => "no host can be emptied".to_owned(),
        1 => "1 host can be emptied".to_owned(),
        hosts => format!("{hosts} hosts can be emptied"),
    };
    let named = stay.iter().filter(|(name, _)| wanted.contains(name));
    let named = named.map(|(name, why)| format!("{name} stays: {why}"));
    let why: Vec<String> = std::iter::once(why).chain(named).collect();
    let after = without(&pool.engine, &emptied);
    Rebalance {
        gains: Vec::new(),
        before_permille: pool.shares.imbalance(),
        after_permille: Shares::of(&after, &request.pool).imbalance(),
        plan: emptied.plan,
        emptied: emptied.hosts,
        why: why.join("; "),
    }
}

impl Consolidation<'_> {
    /// Each host that can be emptied beside those before it, and why the others can not.
    fn one_by_one(&self) -> (Emptied, Vec<(HostName, String)>) {
        let (mut emptied, mut stay) = (Emptied::default(), Vec::new());
        for name in &self.order {
            let mut hosts = emptied.hosts.clone();
            hosts.insert(name.clone());
            let evacuation = self.request.evacuation(hosts.clone());
            let plan = plan_evacuation_on(&self.engine, &evacuation);
            let tried = Emptied { hosts, plan };
            match self.hinders(&tried) {
                None => emptied = tried,
                Some(why) => stay.push((name.clone(), why)),
            }
        }
        (emptied, stay)
    }

    /// More hosts than some, by the search; none when it finds no more.
    fn more_at_once(&self, than: usize) -> Option<Emptied> {
        // Nothing there is bound, on its way or at rest.
        let leaves = |name: &&HostName| {
            let on = self.engine.on(name);
            on.iter().all(|uid| {
                let vm = self.engine.machine(uid);
                vm.is_some_and(|vm| vm.incoming.is_none() && !settled(self.request, uid, vm))
            })
        };
        let order: Vec<&HostName> = self.order.iter().filter(leaves).collect();
        let mut tried = BTreeSet::new();
        let mut try_once = |hosts: BTreeSet<HostName>| {
            let new = tried.len() < SEARCHES_MAX && self.fits_in_sum(&hosts);
            (new && tried.insert(hosts.clone()))
                .then(|| self.at_once(hosts))
                .flatten()
        };
        let mut best = None;
        for count in than + 1..=order.len() {
            match sets(&order, count).find_map(&mut try_once) {
                Some(more) => best = Some(more),
                None => break,
            }
        }
        // As many with fewer moves, in the time that is left.
        let best: Emptied = best?;
        let as_many = sets(&order, best.hosts.len()).filter_map(&mut try_once);
        let all = as_many.chain([best]);
        all.min_by_key(|emptied| emptied.plan.moves.len())
    }

    /// Whether the others have as much room as these hosts carry.
    fn fits_in_sum(&self, hosts: &BTreeSet<HostName>) -> bool {
        let fits = |of: fn(Free) -> u64| {
            let (mut carried, mut free) = (0_u128, 0_u128);
            for (name, (capacity, used)) in &self.shares.hosts {
                if hosts.contains(name) {
                    carried += u128::from(of(*used));
                } else {
                    free += u128::from(of(*capacity).saturating_sub(of(*used)));
                }
            }
            carried <= free
        };
        fits(|size| size.memory_bytes) && fits(|size| size.cpu)
    }

    /// What the search finds for these hosts, if it empties all of them.
    fn at_once(&self, hosts: BTreeSet<HostName>) -> Option<Emptied> {
        let aim = Aim::Empty(&hosts);
        let nothing = Refused::new();
        let moves = search(&self.engine, &self.shares, self.request, aim, &nothing).ok()?;
        let leave: BTreeSet<&VmUid> = hosts.iter().flat_map(|name| self.engine.on(name)).collect();
        let moved: BTreeSet<&VmUid> = moves.iter().map(|one| &one.vm).collect();
        if !leave.is_subset(&moved) || moves.len() > self.request.moves_max {
            return None;
        }
        let steps = carried_out(&self.engine, moves, &hosts)?;
        let evacuation = self.request.evacuation(hosts.clone());
        let plan = timed(self.engine.fleet(), &evacuation, steps);
        let emptied = Emptied { hosts, plan };
        self.hinders(&emptied).is_none().then_some(emptied)
    }

    /// Why hosts can not be emptied by that plan.
    fn hinders(&self, tried: &Emptied) -> Option<String> {
        let plan = &tried.plan;
        let label = |uid: &VmUid| self.engine.fleet().name_of(uid);
        if let Some(stuck) = plan.stuck.first() {
            return Some(format!("{} can not leave: {}", label(&stuck.vm), stuck.why));
        }
        if let Some(uid) = plan.leaving.first() {
            return Some(format!("{} is moving already", label(uid)));
        }
        if plan.moves.len() > self.request.moves_max {
            return Some(format!(
                "{} moves would be needed and {} are allowed",
                plan.moves.len(),
                self.request.moves_max
            ));
        }
        if let Some(step) = plan.moves.iter().find(|step| self.request.rests(&step.vm)) {
            return Some(format!(
                "{} moved a short while ago or can not move now",
                label(&step.vm)
            ));
        }
        let mut after = without(&self.engine, tried);
        let kept = after.survives_but(&self.request.pool, &self.broken);
        (!kept).then(|| "N+1 of the pool would not be proven without it".to_owned())
    }
}

/// The least loaded hosts, so many; and so many of one more, each of these left out in turn.
fn sets<'a>(
    order: &'a [&'a HostName],
    count: usize,
) -> impl Iterator<Item = BTreeSet<HostName>> + 'a {
    let first = order
        .get(..(count + 1).min(order.len()))
        .unwrap_or_default();
    // Without the last: the least loaded. Then without the heaviest of them, and so on.
    let left_out = (0..=count).rev();
    let set = move |out: usize| {
        let rest = first.iter().enumerate().filter(|(index, _)| *index != out);
        rest.map(|(_, name)| (*name).clone())
            .collect::<BTreeSet<_>>()
    };
    left_out.map(set).filter(move |set| set.len() == count)
}

/// The moves in an order in which each is legal; none when there is no such order. As many as possible are under way
/// together; where none may begin any more, the rest waits for all that did.
fn carried_out(
    engine: &Engine,
    mut moves: Vec<Wanted>,
    hosts: &BTreeSet<HostName>,
) -> Option<Vec<Step>> {
    let mut engine = engine.clone();
    let (mut steps, mut ended): (Vec<Step>, Vec<usize>) = (Vec::new(), Vec::new());
    while !moves.is_empty() {
        let before = steps.len();
        moves.retain(|one| {
            let from = engine.number(&one.from);
            if !from.is_some_and(|from| engine.may_move(&one.vm, from, &one.to)) {
                return true;
            }
            engine.begin_move(&one.vm, &one.to);
            let reason = match hosts.contains(&one.from) {
                true => "so that more hosts are empty",
                false => "makes room, so that more hosts are empty",
            };
            steps.push(Step {
                vm: one.vm.clone(),
                from: one.from.clone(),
                to: one.to.clone(),
                after: ended.clone(),
                reason: reason.to_owned(),
                priority: Priority::default(),
            });
            false
        });
        if steps.len() == before {
            return None;
        }
        if !moves.is_empty() {
            for step in &steps[before..] {
                engine.end_move(&step.vm, true);
            }
            // Those before have ended when these begin.
            ended = (before..steps.len()).collect();
        }
    }
    Some(steps)
}

/// The pool as it would be with the plan carried out and the hosts switched off.
fn without(engine: &Engine, emptied: &Emptied) -> Engine {
    let mut engine = engine.clone();
    for step in &emptied.plan.moves {
        engine.assign(&step.vm, &step.to);
    }
    for name in &emptied.hosts {
        engine.remove_host(name);
    }
    engine
}
