//! A target for every VM that leaves.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, Priority, VmUid};

use super::EvacuationRequest;
use crate::engine::{Engine, VmSlot};
use crate::fleet::{Fleet, Free, Vm};
use crate::headroom::pack_elsewhere;
use crate::place::Choice;
use crate::plan::Stuck;

/// How many VMs may be tried as the one that makes room: for one VM that is stuck, and for all
/// together. Bounds the time of a hopeless case, a fleet that is full.
const WAYS_MAX: usize = 2_000;
const WAYS_ALL_MAX: usize = 20_000;

/// A move whose time is not yet known.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub vm: VmUid,
    pub from: HostName,
    pub to: HostName,
    /// Moves that must end before, by their place in the list; all are earlier.
    pub after: Vec<usize>,
    pub reason: String,
    pub priority: Priority,
}

/// Moves in the order of choice, and what stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub steps: Vec<Step>,
    pub stuck: Vec<Stuck>,
    pub leaving: Vec<VmUid>,
    pub idle: Vec<VmUid>,
}

/// An attempt: the engine as it would be with all its moves begun.
struct Attempt<'a> {
    request: &'a EvacuationRequest,
    engine: Engine,
    /// Numbers of hosts that are used only where nothing else is left: their links are slow.
    slow: BTreeSet<u32>,
    steps: Vec<Step>,
    /// Moves that made room, by the host that they leave: who arrives later waits for them.
    vacated: BTreeMap<HostName, Vec<usize>>,
    refused: Vec<(Priority, VmUid, String)>,
    /// Classes and sizes of VMs that could step aside nowhere. Found once for each, since room
    /// becomes scarcer with every move; that a step aside makes a little again is ignored.
    nowhere: BTreeSet<(u32, Free)>,
    /// Numbers of the VMs that have a step.
    settled: BTreeSet<u32>,
}

/// A VM that could step aside, and where it is.
struct Neighbour {
    size: Free,
    class: u32,
    grouped: bool,
    vm: u32,
    host: u32,
}

pub(super) fn choose(
    engine: &Engine,
    request: &EvacuationRequest,
    slow: &BTreeSet<HostName>,
) -> Chosen {
    let fleet = engine.fleet();
    let mut chosen = Chosen::default();
    let mut waiting = Vec::new();
    for name in &request.hosts {
        for uid in engine.on(name) {
            let Some(vm) = fleet.vms.get(uid) else {
                continue;
            };
            match stays(uid, vm, name, request) {
                None => waiting.push((request.priority(uid), uid.clone())),
                Some(Stays::Leaving) => chosen.leaving.push(uid.clone()),
                Some(Stays::Idle) => chosen.idle.push(uid.clone()),
                Some(Stays::Stuck(why)) => chosen.stuck.push(Stuck {
                    vm: uid.clone(),
                    host: name.clone(),
                    why,
                }),
            }
        }
    }
    let attempt = best_attempt(engine, request, slow, &waiting);
    for (_, vm, why) in attempt.refused {
        let host = fleet.vms.get(&vm).and_then(|vm| vm.host.clone());
        if let Some(host) = host {
            chosen.stuck.push(Stuck { vm, host, why });
        }
    }
    chosen.steps = attempt.steps;
    chosen.stuck.sort_by(|one, two| one.vm.cmp(&two.vm));
    chosen.leaving.sort();
    chosen.leaving.dedup();
    chosen.idle.sort();
    chosen
}

enum Stays {
    Leaving,
    Idle,
    Stuck(String),
}

/// Why a VM on an emptied host is not planned at all.
fn stays(uid: &VmUid, vm: &Vm, host: &HostName, request: &EvacuationRequest) -> Option<Stays> {
    match (&vm.host, &vm.incoming) {
        (Some(at), Some(to)) if request.hosts.contains(to) => Some(Stays::Stuck(format!(
            "it is moving from {at} to {to}: wait for that move to end, or cancel it"
        ))),
        (_, Some(to)) if to != host => Some(Stays::Leaving),
        (_, Some(_)) => Some(Stays::Stuck(format!(
            "it is being received by {host}: wait for that move to end, or cancel it"
        ))),
        (_, None) if request.idle.contains(uid) => Some(Stays::Idle),
        (_, None) if vm.pinned_to.is_some() => Some(Stays::Stuck(format!(
            "its data lies only on {host}: move its volumes to a shared pool, or stop it"
        ))),
        (_, None) => request.fixed.get(uid).cloned().map(Stays::Stuck),
    }
}

fn largest_first(fleet: &Fleet, uid: &VmUid) -> std::cmp::Reverse<(u64, u64)> {
    let size = fleet.vms.get(uid).map(|vm| (vm.memory_bytes, vm.cpu));
    std::cmp::Reverse(size.unwrap_or_default())
}

/// The rule of `place` in order of priority; when that leaves a VM over, any packing that is
/// found by search; then other VMs make room, after the rule of `place` or after the tightest
/// fit of the largest first, which packs better. Fewest of the highest priority stuck wins.
fn best_attempt<'a>(
    engine: &Engine,
    request: &'a EvacuationRequest,
    slow: &BTreeSet<HostName>,
    waiting: &[(Priority, VmUid)],
) -> Attempt<'a> {
    let fleet = engine.fleet();
    let mut order = waiting.to_vec();
    order.sort_by_cached_key(|(priority, uid)| (*priority, largest_first(fleet, uid), uid.clone()));
    let mut wide = Attempt::new(engine, request);
    wide.slow = slow.iter().filter_map(|name| engine.number(name)).collect();
    for (_, uid) in &order {
        wide.roomiest(uid);
    }
    // Room is made once, with every host: where a choice among fast links finds none, it is no better.
    if wide.refused.is_empty() || !wide.slow.is_empty() {
        return wide;
    }
    if let Some(packed) = packed(engine, request, &order) {
        return packed;
    }
    let neighbours = neighbours(engine, request);
    wide.make_room(&neighbours);
    if wide.refused.is_empty() {
        return wide;
    }
    order.sort_by_cached_key(|(_, uid)| (largest_first(fleet, uid), uid.clone()));
    let mut tight = Attempt::new(engine, request);
    for (_, uid) in &order {
        tight.tightest(uid);
    }
    tight.make_room(&neighbours);
    if tight.cost() < wide.cost() {
        tight
    } else {
        wide
    }
}

/// All of them, with nobody else moved, where a search finds how.
fn packed<'a>(
    engine: &Engine,
    request: &'a EvacuationRequest,
    order: &[(Priority, VmUid)],
) -> Option<Attempt<'a>> {
    let mut attempt = Attempt::new(engine, request);
    let numbers: Vec<u32> = order
        .iter()
        .filter_map(|(_, uid)| attempt.engine.vm_number(uid))
        .collect();
    let bound = numbers.iter().any(|vm| attempt.engine.is_bound(*vm));
    if bound || attempt.engine.any_new_volumes(&numbers) {
        // One of them goes nowhere, so not all of them do; and a packing knows no storage.
        return None;
    }
    let found = pack_elsewhere(&attempt.engine, &BTreeSet::new(), &numbers)?;
    let hosts: BTreeMap<u32, u32> = found.into_iter().collect();
    for (number, (_, uid)) in numbers.iter().zip(order) {
        let host = attempt.engine.host(*hosts.get(number)?).name.clone();
        let reason = "so that all find a place without moving others".to_owned();
        if attempt.is_settled(uid) {
            continue;
        }
        // A packing knows where all are in the end, not who is still in a rack on the way.
        if !attempt.engine.may_run(uid, &host) || attempt.go(uid, host, reason).is_err() {
            return None;
        }
    }
    Some(attempt)
}

impl<'a> Attempt<'a> {
    fn new(engine: &Engine, request: &'a EvacuationRequest) -> Self {
        let mut engine = engine.clone();
        for name in &request.hosts {
            if let Some(mut host) = engine.fleet().hosts.get(name).cloned() {
                host.closed = Some("is being emptied".to_owned());
                host.stands = false;
                engine.upsert_host(name.clone(), host);
            }
        }
        Self {
            request,
            engine,
            slow: BTreeSet::new(),
            steps: Vec::new(),
            vacated: BTreeMap::new(),
            refused: Vec::new(),
            nowhere: BTreeSet::new(),
            settled: BTreeSet::new(),
        }
    }

    /// How many stay, of the highest priority first.
    fn cost(&self) -> Vec<usize> {
        let of = |priority| {
            let same = |(other, _, _): &&(Priority, VmUid, String)| *other == priority;
            self.refused.iter().filter(same).count()
        };
        let all = [
            Priority::Critical,
            Priority::High,
            Priority::Normal,
            Priority::Low,
        ];
        all.into_iter().map(of).collect()
    }

    fn name(&self, uid: &VmUid) -> String {
        self.engine.fleet().name_of(uid)
    }

    fn is_settled(&self, uid: &VmUid) -> bool {
        let number = self.engine.vm_number(uid);
        number.is_some_and(|number| self.settled.contains(&number))
    }

    fn roomiest(&mut self, uid: &VmUid) {
        if self.is_settled(uid) {
            return;
        }
        let any = BTreeSet::new();
        if !self.slow.is_empty()
            && let Ok(mut choice) = self.engine.place_except(uid, &any, &self.slow)
        {
            choice
                .reasons
                .push("its link is faster than others'".to_owned());
            return self.go_or_stay(uid, choice);
        }
        match self.engine.place(uid, &any) {
            Ok(choice) => self.go_or_stay(uid, choice),
            Err(refusal) => self.refuse(uid, refusal.sentence()),
        }
    }

    fn go_or_stay(&mut self, uid: &VmUid, choice: Choice) {
        if let Err(why) = self.go(uid, choice.host, choice.reasons.join("; ")) {
            self.refuse(uid, why);
        }
    }

    fn tightest(&mut self, uid: &VmUid) {
        if self.is_settled(uid) {
            return;
        }
        match self.engine.place_tightest(uid) {
            Ok(choice) => self.go_or_stay(uid, choice),
            Err(refusal) => self.refuse(uid, refusal.sentence()),
        }
    }

    fn refuse(&mut self, uid: &VmUid, why: String) {
        let priority = self.request.priority(uid);
        self.refused.push((priority, uid.clone(), why));
    }

    /// Moves a VM, and with it all that must share its host and leave too: all of them, or none and why.
    fn go(&mut self, uid: &VmUid, to: HostName, reason: String) -> Result<(), String> {
        let mates = self.mates(uid);
        if let Some(mate) = self.remains(uid, &mates) {
            return Err(format!(
                "{mate}, which must share its host, can not leave it"
            ));
        }
        let before = self.steps.len();
        self.leave(uid, &to, reason);
        for mate in mates {
            if !self.engine.may_run(&mate, &to) {
                self.take_back(before);
                return Err(format!(
                    "{}, which must share its host, finds no place with it on {to}",
                    self.name(&mate)
                ));
            }
            let reason = format!("shares its host with {}", self.name(uid));
            self.leave(&mate, &to, reason);
        }
        Ok(())
    }

    fn leave(&mut self, uid: &VmUid, to: &HostName, reason: String) {
        let from = self.engine.machine(uid).and_then(|vm| vm.host.clone());
        if let Some(from) = from {
            self.step(uid, from, to.clone(), reason);
        }
    }

    /// The steps from one on are not taken after all.
    fn take_back(&mut self, from: usize) {
        for step in self.steps.drain(from..) {
            self.engine.end_move(&step.vm, false);
            if let Some(number) = self.engine.vm_number(&step.vm) {
                self.settled.remove(&number);
            }
        }
    }

    /// VMs that must share its host, leave too and have no step yet.
    fn mates(&self, uid: &VmUid) -> Vec<VmUid> {
        let group = self.engine.group(uid);
        let leaves = |mate: &&VmUid| {
            let vm = self.engine.machine(mate);
            vm.is_some_and(|vm| {
                let host = vm.host.as_ref();
                let emptied = host.is_some_and(|host| self.request.hosts.contains(host));
                emptied && self.request.may_move(mate, vm)
            })
        };
        let mates = group.into_iter().filter(|mate| mate != uid);
        mates
            .filter(|mate| leaves(&mate) && !self.is_settled(mate))
            .collect()
    }

    /// Name of a VM that must share its host, is there and does not leave with it. Others of the group may be
    /// elsewhere, on their way, and draw it away; one that does not run keeps nobody on a host that is emptied.
    fn remains(&self, uid: &VmUid, leave: &[VmUid]) -> Option<String> {
        let host = self.engine.machine(uid)?.host.as_ref()?;
        let group = self.engine.group(uid);
        let mut others = group
            .iter()
            .filter(|mate| *mate != uid && !leave.contains(mate));
        others.find_map(|mate| {
            let vm = self.engine.machine(mate)?;
            let idle = self.request.hosts.contains(host) && self.request.idle.contains(mate);
            let stays = vm.host.as_ref() == Some(host) && vm.incoming.is_none() && !idle;
            stays.then(|| vm.name.to_string())
        })
    }

    fn step(&mut self, uid: &VmUid, from: HostName, to: HostName, reason: String) {
        self.engine.begin_move(uid, &to);
        self.settled.extend(self.engine.vm_number(uid));
        self.steps.push(Step {
            vm: uid.clone(),
            from,
            after: self.vacated.get(&to).cloned().unwrap_or_default(),
            to,
            reason,
            priority: self.request.priority(uid),
        });
    }

    /// Moves one VM out of the way of each that found no place.
    fn make_room(&mut self, neighbours: &[Neighbour]) {
        let mut allowance = WAYS_ALL_MAX;
        // Sizes for which nobody could make room: a larger one of the class need not be tried.
        let mut hopeless: Vec<(u32, Free)> = Vec::new();
        for (priority, uid, why) in std::mem::take(&mut self.refused) {
            if self.is_settled(&uid) {
                continue;
            }
            let Some(slot) = self
                .engine
                .vm_number(&uid)
                .map(|vm| self.engine.vm(vm).clone())
            else {
                continue;
            };
            let tried = hopeless.iter().any(|(class, size)| {
                *class == slot.class
                    && size.cpu <= slot.size.cpu
                    && size.memory_bytes <= slot.size.memory_bytes
            });
            if !tried && self.make_room_for(&slot, priority, neighbours, &mut allowance) {
                continue;
            }
            if !tried && slot.is_alone() {
                hopeless.push((slot.class, slot.size));
            }
            self.refused.push((priority, uid, why));
        }
        // Who stepped aside may have left room for more than one.
        let mut left = usize::MAX;
        while !self.steps.is_empty() && self.refused.len() < left {
            left = self.refused.len();
            for (_, uid, _) in std::mem::take(&mut self.refused) {
                self.roomiest(&uid);
            }
        }
    }

    fn make_room_for(
        &mut self,
        slot: &VmSlot,
        priority: Priority,
        neighbours: &[Neighbour],
        allowance: &mut usize,
    ) -> bool {
        let mut tried = 0;
        for way in neighbours {
            if !self.in_the_way(slot, way) {
                continue;
            }
            tried += 1;
            if tried > WAYS_MAX {
                return false;
            }
            let Some(left) = allowance.checked_sub(1) else {
                return false;
            };
            *allowance = left;
            let other = self.engine.vm(way.vm).uid.clone();
            let host = self.engine.host(way.host).name.clone();
            let Ok(elsewhere) = self.engine.place_away(&other) else {
                if !way.grouped {
                    self.nowhere.insert((way.class, way.size));
                }
                continue;
            };
            // Try it: the other one gone, does the stuck one fit where it was?
            let before = self.engine.machine(&other).cloned();
            self.engine.begin_move(&other, &elsewhere);
            self.engine.end_move(&other, true);
            let fits = self.engine.may_run(&slot.uid, &host);
            if let Some(before) = before {
                self.engine.upsert_vm(other.clone(), before);
            }
            if !fits {
                continue;
            }
            let index = self.steps.len();
            let reason = format!("makes room on {host} for {}", self.name(&slot.uid));
            let before = self.engine.machine(&other).cloned();
            if self.go(&other, elsewhere, reason).is_err() {
                continue;
            }
            if let Some(step) = self.steps.get_mut(index) {
                // It is as urgent as the VM that waits for it.
                step.priority = step.priority.min(priority);
            }
            self.engine.end_move(&other, true);
            self.vacated.entry(host.clone()).or_default().push(index);
            let reason = format!("fits once {} has left", self.name(&other));
            if self.go(&slot.uid, host.clone(), reason).is_err() {
                self.vacated.entry(host).or_default().pop();
                self.take_back(index);
                if let Some(before) = before {
                    self.engine.upsert_vm(other, before);
                }
                continue;
            }
            return true;
        }
        false
    }

    /// With that neighbour gone the VM may fit, and the neighbour may have somewhere to go.
    /// Nobody moves twice.
    fn in_the_way(&self, slot: &VmSlot, other: &Neighbour) -> bool {
        let there = self.engine.host(other.host);
        let free = there.free();
        free.memory_bytes.saturating_add(other.size.memory_bytes) >= slot.size.memory_bytes
            && free.cpu.saturating_add(other.size.cpu) >= slot.size.cpu
            && there
                .kind
                .is_some_and(|kind| self.engine.class_allows(slot.class, kind))
            && !self.nowhere.contains(&(other.class, other.size))
            && !self.settled.contains(&other.vm)
    }
}

/// VMs on other open hosts that may move: the smallest first, since it moves fastest, ties by
/// uid.
fn neighbours(engine: &Engine, request: &EvacuationRequest) -> Vec<Neighbour> {
    let mut found = Vec::new();
    for (name, host) in &engine.fleet().hosts {
        let number = engine.number(name).filter(|_| host.closed.is_none());
        let Some(number) = number.filter(|_| !request.hosts.contains(name)) else {
            continue;
        };
        for vm in &engine.host(number).vms {
            let slot = engine.vm(*vm);
            let free = engine
                .machine(&slot.uid)
                .is_some_and(|vm| request.may_move(&slot.uid, vm));
            if free {
                found.push(Neighbour {
                    size: slot.size,
                    class: slot.class,
                    grouped: !slot.is_alone(),
                    vm: *vm,
                    host: number,
                });
            }
        }
    }
    found.sort_by(|one, two| {
        let uid = |neighbour: &Neighbour| &engine.vm(neighbour.vm).uid;
        let memory = one.size.memory_bytes.cmp(&two.size.memory_bytes);
        memory.then_with(|| uid(one).cmp(uid(two)))
    });
    found
}
