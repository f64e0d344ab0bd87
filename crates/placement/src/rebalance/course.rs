//! Which of the wanted moves are made, in which order: each must gain enough where it is made, be legal while all
//! that were chosen before are under way, and leave N+1 as it was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, Priority, VmUid};

use super::Gain;
use super::shares::Shares;
use super::target::{Refused, Wanted};
use crate::engine::Engine;
use crate::evacuation::Step;
use crate::fleet::Free;

/// How often rules and N+1 are asked about moves: bounds the time of a pool in which hardly any may be made.
const ASKED_MAX: usize = 1_000;

/// The moves that were chosen, and the pool with them.
pub(super) struct Course {
    pub(super) shares: Shares,
    /// Every chosen move has begun and none has ended.
    pub(super) begun: Engine,
    /// All have ended.
    ended: Engine,
    pool: String,
    /// Hosts whose failure was not survived before. All others must be survived after.
    broken: BTreeSet<HostName>,
    pub(super) steps: Vec<Step>,
    pub(super) gains: Vec<Gain>,
    /// Moves that a rule or N+1 forbids.
    pub(super) refused: Refused,
    /// A move that gains enough would have broken N+1.
    pub(super) promise_forbids: bool,
    asked: usize,
}

/// When to stop.
#[derive(Clone, Copy)]
pub(super) struct Until {
    /// At most that many moves.
    pub(super) moves_max: usize,
    /// Imbalance, per mille, that is left alone.
    pub(super) calm: u64,
    /// Share of the squared distance of its two hosts that a move must take away, per cent.
    pub(super) least: i64,
}

impl Course {
    pub(super) fn new(engine: Engine, pool: &str) -> Self {
        let (begun, mut ended) = (engine.clone(), engine);
        Self {
            shares: Shares::of(&begun, pool),
            broken: ended.not_survived(pool),
            begun,
            ended,
            pool: pool.to_owned(),
            steps: Vec::new(),
            gains: Vec::new(),
            refused: Refused::new(),
            promise_forbids: false,
            asked: 0,
        }
    }

    /// Whether there is anything left to gain and to spend.
    pub(super) fn goes_on(&self, until: Until) -> bool {
        self.steps.len() < until.moves_max && self.shares.imbalance() > until.calm
    }

    /// Makes what gains the most, again and again: single moves, and where none of them gains enough,
    /// exchanges of two VMs.
    pub(super) fn follow(&mut self, mut wanted: Vec<Wanted>, until: Until) {
        while self.goes_on(until) {
            let taken = self
                .best_move(&wanted, until)
                .or_else(|| self.best_exchange(&wanted, until));
            let Some(taken) = taken else { return };
            self.tell(&taken);
            wanted.retain(|other| !taken.contains(other));
        }
    }

    fn size(&self, vm: &VmUid) -> Option<Free> {
        Some(self.begun.vm(self.begun.vm_number(vm)?).size)
    }

    /// The move that gains the most, ties by the least memory, then by uid and host.
    fn best_move(&mut self, wanted: &[Wanted], until: Until) -> Option<Vec<Wanted>> {
        let mut ranked: Vec<(i64, Reverse<(u64, &Wanted)>)> = Vec::new();
        for one in wanted {
            let (Some(size), Some(pair)) = (self.size(&one.vm), self.shares.both(one)) else {
                continue;
            };
            let gain = self.shares.gain(size, pair.0, pair.1);
            if gain > 0 && gain * 100 >= self.shares.pair(&one.from, &one.to) * until.least {
                ranked.push((gain, Reverse((size.memory_bytes, one))));
            }
        }
        ranked.sort_unstable();
        let mut ranked = ranked.into_iter().rev().map(|(_, Reverse((_, one)))| one);
        let best = ranked.find(|one| self.make(std::slice::from_ref(*one)));
        best.map(|one| vec![one.clone()])
    }

    /// Two moves between the same hosts that gain together, each at least what one must.
    fn best_exchange(&mut self, wanted: &[Wanted], until: Until) -> Option<Vec<Wanted>> {
        if self.steps.len() + 2 > until.moves_max {
            return None;
        }
        let mut between: BTreeMap<(&HostName, &HostName), Vec<&Wanted>> = BTreeMap::new();
        for one in wanted {
            between.entry((&one.from, &one.to)).or_default().push(one);
        }
        let mut ranked = Vec::new();
        for ((from, to), there) in &between {
            let back = between.get(&(*to, *from)).filter(|_| from < to);
            let least = self.shares.pair(from, to) * until.least * 2;
            for one in there {
                for other in back.into_iter().flatten() {
                    let Some(gain) = self.gain_of_both(one, other) else {
                        continue;
                    };
                    if gain > 0 && gain * 100 >= least {
                        ranked.push((gain, Reverse((*one, *other))));
                    }
                }
            }
        }
        ranked.sort_unstable();
        let mut ranked = ranked.into_iter().rev().map(|(_, Reverse(both))| both);
        ranked.find_map(|(one, other)| {
            let both = vec![one.clone(), other.clone()];
            self.make(&both).then_some(both)
        })
    }

    fn gain_of_both(&self, one: &Wanted, other: &Wanted) -> Option<i64> {
        let (from, to) = self.shares.both(one)?;
        let sizes = (self.size(&one.vm)?, self.size(&other.vm)?);
        Some(self.shares.gain_of_exchange(sizes, from, to))
    }

    /// Makes all of the moves or none: one after the other, each with those before it under way, with N+1
    /// kept after each. What may not be made is refused from now on.
    fn make(&mut self, moves: &[Wanted]) -> bool {
        let known = |one: &Wanted| self.refused.contains(&(one.vm.clone(), one.to.clone()));
        if moves.iter().any(known) || self.asked >= ASKED_MAX {
            return false;
        }
        self.asked += 1;
        let made = moves.iter().take_while(|one| self.try_one(one)).count();
        if made == moves.len() {
            return true;
        }
        for one in moves.iter().take(made).rev() {
            self.ended.assign(&one.vm, &one.from);
            self.begun.end_move(&one.vm, false);
        }
        // Of an exchange the second may be allowed after another move.
        if let Some(one) = moves.first().filter(|_| made == 0) {
            self.refused.insert((one.vm.clone(), one.to.clone()));
        }
        false
    }

    /// Makes a move when that is legal and keeps N+1.
    fn try_one(&mut self, one: &Wanted) -> bool {
        let from = self.begun.number(&one.from);
        if !from.is_some_and(|from| self.begun.may_move(&one.vm, from, &one.to)) {
            return false;
        }
        self.ended.assign(&one.vm, &one.to);
        if !self.ended.survives_but(&self.pool, &self.broken) {
            self.ended.assign(&one.vm, &one.from);
            self.promise_forbids = true;
            return false;
        }
        self.begun.begin_move(&one.vm, &one.to);
        true
    }

    /// Tells of moves that were made, and counts them in.
    fn tell(&mut self, moves: &[Wanted]) {
        let before = self.shares.imbalance();
        for one in moves {
            if let Some(size) = self.size(&one.vm) {
                self.shares.shift(size, &one.from, &one.to);
            }
        }
        let after = self.shares.imbalance();
        for one in moves {
            let falls = format!("imbalance of the pool falls from {before} to {after} per mille");
            let other = moves.iter().find(|other| *other != one);
            let reason = match other.and_then(|other| self.begun.machine(&other.vm)) {
                None => falls,
                Some(other) => format!("in exchange for {}: {falls}", other.name),
            };
            self.steps.push(Step {
                vm: one.vm.clone(),
                from: one.from.clone(),
                to: one.to.clone(),
                after: Vec::new(),
                reason,
                priority: Priority::default(),
            });
            self.gains.push(Gain {
                vm: one.vm.clone(),
                before_permille: before,
                after_permille: after,
            });
        }
    }
}
