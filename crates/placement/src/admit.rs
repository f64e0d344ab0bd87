//! Whether a new VM may start: a host that fits, and N+1 still proven with the VM on it.
//!
//! The best host comes first, as for `place`. When the proof breaks with the VM there, the next best is asked, in
//! whatever pool it is. Two things keep that short, and both are certain. A failure that loses the
//! VM *beside* what is lost anyway, and finds no place for all of them, is not survived wherever in the pool
//! the VM is: on a host that stays it would be one of those places. And hosts of one kind, rack and room, with
//! VMs of the same sizes that no rule ties, can be told apart by no proof.

use std::collections::BTreeSet;

use model::{HostName, VmUid};

use crate::engine::Engine;
use crate::filter::Filter;
use crate::fleet::Free;
use crate::headroom::Headroom;
use crate::place::{Choice, Refusal};

/// Hosts on which one question has N+1 proven. A proof after one change takes about a millisecond for five hundred
/// hosts; whoever is refused so often waits, and is told that others were not tried. An answer that is not known counts more.
pub(crate) const ASKED_MAX: u32 = 64;

/// What one question may spend of [`ASKED_MAX`] on an answer: nothing was proven only after a search of some
/// milliseconds, so it counts for many.
pub(crate) fn spends(headroom: &Headroom) -> u32 {
    match headroom {
        Headroom::Unknown { .. } => ASKED_MAX / 8,
        Headroom::Broken { .. } | Headroom::Proven | Headroom::NotPromised => 1,
    }
}

/// Whether a new VM may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has a host, and N+1 holds with it.
    Placed(Choice),
    /// No host fits.
    Refused(Refusal),
    /// Hosts fit, but with the VM on any of them its pool's N+1 would not be proven.
    Breaks {
        /// The pool of the host that it would have been given.
        pool: String,
        /// What the proof found with the VM there.
        headroom: Headroom,
        /// Where else it was tried.
        tried: Tried,
        /// How many hosts each rule removed, N+1 among them; of those that were asked, where not all were.
        refusal: Refusal,
    },
}

/// Where a VM was tried before it was refused for the sake of N+1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Pools with hosts that fit.
    pub pools: BTreeSet<String>,
    /// Hosts on which N+1 was asked for; the others follow from these.
    pub asked: u32,
    /// No host that fits is left. Otherwise there were too many to ask for.
    pub all: bool,
}

impl Tried {
    /// What was tried, in a sentence.
    pub fn sentence(&self) -> String {
        let names: Vec<&str> = self.pools.iter().map(String::as_str).collect();
        let noun = if names.len() == 1 { "pool" } else { "pools" };
        let pools = format!("{noun} {}", names.join(", "));
        match self.all {
            true => format!("no host of {pools} that fits would keep N+1"),
            false => format!(
                "none of {} hosts tried in {pools} would keep N+1; others were not tried",
                self.asked
            ),
        }
    }
}

/// What proofs of N+1 can see of a host: kind, rack, room, and of each VM that it would lose the size and which kinds of hosts
/// it may run on.
type Likeness = (Option<u32>, Option<u32>, Free, Vec<(Free, u32)>);

impl Engine {
    /// The rule for new VMs: the best place with which N+1 is still proven. Assigned when placed, as
    /// before when not. A VM that is pinned, or that stays down with its host, takes part in no other
    /// failure than by the room that it takes.
    pub fn admit(&mut self, uid: &VmUid, avoid: &BTreeSet<HostName>) -> Admission {
        let mut tried = Tried {
            pools: BTreeSet::new(),
            asked: 0,
            all: true,
        };
        let (mut except, mut searched) = (BTreeSet::new(), BTreeSet::new());
        let (mut first, mut spent) = (None, 0);
        let refusal = loop {
            let choice = match self.place_except(uid, avoid, &except) {
                Ok(choice) => choice,
                Err(refusal) => break refusal,
            };
            let host = self.fleet().hosts.get(&choice.host);
            let Some(pool) = host.map(|host| host.pool.clone()) else {
                return Admission::Refused(Refusal::default());
            };
            if spent >= ASKED_MAX {
                tried.all = false;
                let mut refusal = Refusal::default();
                refusal.count(Filter::Headroom, tried.asked);
                break refusal;
            }
            tried.asked += 1;
            let Some(headroom) = self.put(uid, &choice.host, &pool) else {
                return Admission::Placed(choice);
            };
            except.extend(self.refused_with(uid, &choice.host, (&pool, &headroom), &mut searched));
            tried.pools.insert(pool.clone());
            spent += spends(&headroom);
            first = first.or(Some((pool, headroom)));
        };
        match first {
            Some((pool, headroom)) => Admission::Breaks {
                pool,
                headroom,
                tried,
                refusal,
            },
            None => Admission::Refused(refusal),
        }
    }

    /// Puts a VM on a host if N+1 of its pool is proven then; else what the proof found, and all is as before.
    pub(crate) fn put(&mut self, uid: &VmUid, host: &HostName, pool: &str) -> Option<Headroom> {
        let before = self.machine(uid).cloned();
        self.assign(uid, host);
        match self.prove_headroom(pool) {
            Headroom::Proven | Headroom::NotPromised => None,
            headroom => {
                if let Some(before) = before {
                    self.upsert_vm(uid.clone(), before);
                }
                Some(headroom)
            }
        }
    }

    /// Numbers of the hosts on which a VM would break N+1 too, when it does on one: that host, and those of which it
    /// follows. More VMs never help, so it stays true while VMs are only added. `searched` are failures that were looked at
    /// while nothing else changed: looking again would find the same.
    pub(crate) fn refused_with(
        &self,
        uid: &VmUid,
        host: &HostName,
        (pool, headroom): (&str, &Headroom),
        searched: &mut BTreeSet<(String, HostName)>,
    ) -> BTreeSet<u32> {
        let mut refused: BTreeSet<u32> = self.number(host).into_iter().collect();
        let (Headroom::Broken { failure, .. }, Some(number)) = (headroom, self.vm_number(uid))
        else {
            return refused;
        };
        let standing = || self.standing_hosts(pool);
        let (slot, machine) = (self.vm(number), self.machine(uid));
        let new = machine.is_some_and(|vm| vm.places().next().is_none());
        if !new || slot.bundle.is_some() || slot.class != slot.start_class {
            return refused;
        }
        if searched.insert((pool.to_owned(), failure.clone()))
            && self.never_survived_with(number, pool, failure)
        {
            // If it stays down with its host, it is not lost beside the others there.
            let lost = machine.is_some_and(|vm| vm.restarts_elsewhere) && !self.is_bound(number);
            let hosts = standing().filter(|(name, _)| lost || *name != failure);
            refused.extend(hosts.map(|(_, number)| number));
        }
        let plain = slot.is_alone() && machine.is_some_and(|vm| vm.new_volumes.is_empty());
        let own = self.number(host).filter(|_| plain);
        if let Some(likeness) = own.and_then(|host| self.likeness(host)) {
            let alike = |number: &u32| self.likeness(*number).as_ref() == Some(&likeness);
            let others = standing().map(|(_, number)| number);
            let others: Vec<u32> = others.filter(|number| !refused.contains(number)).collect();
            refused.extend(others.into_iter().filter(alike));
        }
        refused
    }

    /// None for a host that a rule about other VMs, or a move, can tell from others.
    fn likeness(&self, host: u32) -> Option<Likeness> {
        let slot = self.host(host);
        let mut lost = Vec::new();
        for number in &slot.vms {
            let vm = self.vm(*number);
            let machine = self.machine(&vm.uid)?;
            let here = machine.host.as_ref() == Some(&slot.name) && machine.incoming.is_none();
            if !here || !vm.is_alone() {
                return None;
            }
            if machine.restarts_elsewhere && !self.is_bound(*number) {
                lost.push((vm.size, self.class_reach(vm.start_class)));
            }
        }
        lost.sort_unstable();
        Some((slot.kind, slot.rack, slot.free(), lost))
    }
}
