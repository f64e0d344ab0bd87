//! Seats: where a turn placed VMs, for those that are planned after them and, until the watch shows what was written,
//! for the next turns (operator/src/vms/mod.rs, order.rs and plan.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use failover::Moment;
use failover::copy::CopyPhase;
use failover::vm::{VmDecision, VmVerdict};
use model::{HostName, VmUid};
use placement::{Choice, Fleet, Refusal, place};

use super::vms::VM;
use crate::api::VmObject;
use crate::mutant::Mutant;
use crate::world::World;

/// Where a VM was placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seat {
    host: Option<HostName>,
    incoming: Option<HostName>,
    /// It was assigned to the host, and starts there.
    starts: bool,
}

/// What a turn over VMs and moves has done so far.
pub(super) struct Turn {
    pub(super) now: Moment,
    /// The fleet with all that was placed in this turn; made when it is first asked for.
    pub(super) fleet: Option<Fleet>,
    /// How many VMs each host is starting.
    pub(super) starting: BTreeMap<HostName, u32>,
    assigned: BTreeSet<VmUid>,
}

impl Turn {
    /// A VM was assigned to a host, and starts there.
    pub(super) fn assign(&mut self, vm: &VmUid, host: HostName) {
        *self.starting.entry(host).or_insert(0) += 1;
        self.assigned.insert(vm.clone());
    }
}

impl World {
    /// A turn in which nothing was placed yet.
    pub(super) fn begin_turn(&self, operator: usize, vms: &[Rc<VmObject>], now: Moment) -> Turn {
        let seats: BTreeMap<&VmUid, &Seat> = self.kept_seats(operator).collect();
        Turn {
            now,
            fleet: None,
            starting: starting(vms, &seats),
            assigned: BTreeSet::new(),
        }
    }

    /// Seats of VMs that were written and that the cache does not show so yet.
    pub(super) fn kept_seats(&self, operator: usize) -> impl Iterator<Item = (&VmUid, &Seat)> {
        let this = &self.operators[operator];
        let forgets = self.mutant == Mutant::ForgetsSeats;
        let vms = this.cache.vms.iter().enumerate();
        let unsettled = vms.filter(move |(index, vm)| {
            vm.exists && !forgets && !self.settled(operator, VM, *index, vm.version)
        });
        unsettled.filter_map(move |(_, vm)| this.seats.get_key_value(&vm.uid))
    }

    /// Remembers where a turn leaves VMs; who is settled and was placed nowhere is where the cache shows it.
    pub(super) fn remember_seats(&mut self, operator: usize, turn: &Turn) {
        let this = &self.operators[operator];
        if turn.fleet.is_none() && this.seats.is_empty() {
            return;
        }
        let kept: BTreeMap<&VmUid, &Seat> = self.kept_seats(operator).collect();
        let seats: BTreeMap<VmUid, Seat> = match &turn.fleet {
            None => kept
                .into_iter()
                .map(|(uid, seat)| (uid.clone(), seat.clone()))
                .collect(),
            Some(fleet) => fleet
                .vms
                .iter()
                .map(|(uid, vm)| {
                    let seat = Seat {
                        host: vm.host.clone(),
                        incoming: vm.incoming.clone(),
                        starts: turn.assigned.contains(uid)
                            || kept.get(uid).is_some_and(|seat| seat.starts),
                    };
                    (uid.clone(), seat)
                })
                .collect(),
        };
        self.operators[operator].seats = seats;
    }

    /// Keeps the room of a VM of a dead host that waits for another tier from those that are planned after it.
    /// What it is told when there is none it hears when its turn comes.
    pub(super) fn reserve(
        &self,
        operator: usize,
        turn: &mut Turn,
        vm: &VmUid,
        verdict: &VmVerdict,
    ) {
        if let VmDecision::Restart {
            only,
            avoid,
            recovery: true,
            ..
        } = &verdict.decision
            && self.mutant != Mutant::KeepsNoRoom
        {
            let now = turn.now;
            let fleet = turn.fleet.get_or_insert_with(|| self.fleet(operator, now));
            let _ = ask(fleet, vm, only.clone(), avoid);
        }
    }
}

/// A host for a VM, of which no copy runs; the fleet counts it there from now on. `only` one host will do, if one is
/// named.
pub(super) fn ask(
    fleet: &mut Fleet,
    uid: &VmUid,
    only: Option<HostName>,
    avoid: &BTreeSet<HostName>,
) -> Result<Choice, Refusal> {
    let pinned = fleet.vms.get(uid).and_then(|vm| vm.pinned_to.clone());
    if let Some(vm) = fleet.vms.get_mut(uid) {
        (vm.host, vm.incoming) = (None, None);
        vm.pinned_to = only.or_else(|| pinned.clone());
    }
    let choice = place(fleet, uid, avoid);
    if let Some(vm) = fleet.vms.get_mut(uid) {
        vm.host = choice.as_ref().ok().map(|choice| choice.host.clone());
        vm.pinned_to = pinned;
    }
    choice
}

/// Seats in a fleet that was read from a cache. Who was given a host is not where the cache still shows it: that copy is
/// proven dead.
pub(super) fn keep_seats<'a>(
    fleet: &mut Fleet,
    seats: impl Iterator<Item = (&'a VmUid, &'a Seat)>,
) {
    for (uid, seat) in seats {
        let Some(vm) = fleet.vms.get_mut(uid) else {
            continue;
        };
        if seat.host.is_some() {
            vm.host.clone_from(&seat.host);
        }
        if vm.incoming.is_none() {
            vm.incoming.clone_from(&seat.incoming);
        }
    }
}

/// How many VMs each host is starting, with those whose assignment the cache does not show yet.
fn starting(vms: &[Rc<VmObject>], seats: &BTreeMap<&VmUid, &Seat>) -> BTreeMap<HostName, u32> {
    let mut count = BTreeMap::new();
    for vm in vms.iter().filter(|vm| vm.exists) {
        let given = seats.get(&vm.uid).filter(|seat| seat.starts);
        let host = match given {
            Some(seat) => seat.host.as_ref(),
            None => starts_on(vm),
        };
        if let Some(host) = host {
            *count.entry(host.clone()).or_insert(0) += 1;
        }
    }
    count
}

/// The host that a VM is assigned to and does not run on yet.
fn starts_on(vm: &VmObject) -> Option<&HostName> {
    let right = vm.rights.assignment.as_ref()?;
    let runs = vm.runtime.as_ref().is_some_and(|report| {
        report.assignment == *right
            && report.phase != CopyPhase::Starting
            && report.phase != CopyPhase::Preparing
    });
    (!runs).then_some(&right.host)
}

#[cfg(test)]
mod tests {
    use failover::copy::CopyReport;
    use model::{Assignment, Epoch};

    use super::*;
    use crate::plan::{Plan, VmSpec};

    /// A site of four hosts that are open, and two VMs that must be apart: `vm1` on h1 and `vm2` on h2.
    fn site() -> (World, Fleet) {
        let mut plan = Plan::random(1);
        (plan.hosts, plan.room) = (4, 8);
        plan.vms = (0..2)
            .map(|index| VmSpec {
                home: Some(index),
                volume: index,
                apart: true,
                ..VmSpec::default()
            })
            .collect();
        let mut world = World::new(plan, Mutant::None, false);
        world.operators[0].cache = world.api.objects.clone();
        let mut fleet = world.fleet(0, Moment(0));
        fleet.hosts.values_mut().for_each(|host| host.closed = None);
        (world, fleet)
    }

    fn dead(fleet: &mut Fleet, host: &str) {
        if let Some(host) = fleet.hosts.get_mut(&HostName::from(host)) {
            host.closed = Some("proven dead".to_owned());
        }
    }

    /// Both hosts died; the first VM was given another one, and the watch still shows it on its dead host.
    #[test]
    fn who_was_given_a_host_keeps_its_seat_until_the_watch_shows_it() {
        let (mut world, mut fleet) = site();
        dead(&mut fleet, "h1");
        dead(&mut fleet, "h2");
        let seen = fleet.clone();
        let uids = ["vm1-1", "vm2-1"].map(VmUid::from);
        let anywhere = BTreeSet::new();
        let given = ask(&mut fleet, &uids[0], None, &anywhere)
            .expect("a host")
            .host;
        let mut turn = world.begin_turn(0, &[], Moment(0));
        turn.assign(&uids[0], given.clone());
        turn.fleet = Some(fleet);
        world.remember_seats(0, &turn);
        // Written from the version that the cache still has.
        let version = world.operators[0].cache.vms[0].version;
        world.operators[0].written.insert((VM, 0), (version, 0));
        let place_second = |world: &World| {
            let mut fleet = seen.clone();
            keep_seats(&mut fleet, world.kept_seats(0));
            ask(&mut fleet, &uids[1], None, &anywhere)
                .expect("a host")
                .host
        };
        assert_ne!(place_second(&world), given);
        let vms = world.operators[0].cache.vms.clone();
        let starts = world.begin_turn(0, &vms, Moment(0)).starting;
        assert_eq!(starts.get(&given), Some(&1));
        // In a turn that places nobody it is not forgotten.
        let idle = world.begin_turn(0, &vms, Moment(0));
        world.remember_seats(0, &idle);
        assert_ne!(place_second(&world), given);
        // Once the cache has moved on, it tells.
        world.operators[0].written.clear();
        assert_eq!(world.kept_seats(0).count(), 0);
    }

    #[test]
    fn a_vm_that_waits_for_a_slot_or_a_tier_has_its_room_and_is_no_start() {
        let (world, mut fleet) = site();
        dead(&mut fleet, "h1");
        let uid = VmUid::from("vm1-1");
        let only = Some(HostName::from("h3"));
        let host = ask(&mut fleet, &uid, only, &BTreeSet::new()).map(|choice| choice.host);
        assert_eq!(host.ok(), Some("h3".into()));
        let vm = &fleet.vms[&uid];
        assert_eq!(vm.host, Some("h3".into()));
        assert_eq!(vm.pinned_to, None, "the question was narrowed, not the VM");
        let vms = &world.operators[0].cache.vms;
        assert!(world.begin_turn(0, vms, Moment(0)).starting.is_empty());
    }

    #[test]
    fn a_copy_that_is_reported_to_start_counts_and_one_that_runs_does_not() {
        let (world, _) = site();
        let mut vm = VmObject::clone(&world.api.objects.vms[0]);
        let right = Assignment {
            host: "h1".into(),
            boot_id: "boot".into(),
            epoch: Epoch(7),
        };
        vm.rights.assignment = Some(right.clone());
        for (phase, starts) in [
            (CopyPhase::Preparing, true),
            (CopyPhase::Starting, true),
            (CopyPhase::Running, false),
        ] {
            vm.runtime = Some(CopyReport::new(right.clone(), phase));
            assert_eq!(starts_on(&vm).is_some(), starts, "{phase:?}");
        }
    }
}
