//! N+1: when any one host of a pool fails, does every VM of it find another place?
//!
//! A host that takes nothing new (quarantined, in maintenance, its agent down, silent for a moment) is no place for
//! others. Its own failure counts for as long as it lives and carries VMs, for it is the likeliest to fail.
//!
//! For each failure there is a small packing problem ([`instance`]): what is lost, and what is
//! free elsewhere. A packing found by first or best fit ([`pack`]) is a certificate that all is
//! well and is kept; after a change of the fleet only certificates that it touches are looked
//! at again ([`proofs`]). Where no packing is found at once, [`bounds`] tell what is impossible
//! for certain, and a bounded search settles most of what lies between; the rest is *unknown*,
//! which is said and counted.
//!
//! Deliberately outside: a second host that fails at once (the API allows no pool to ask for it), and VMs that no other host could take over whatever its room: those
//! pinned to a host, and those whose rules contradict each other. They are listed.

mod bounds;
mod instance;
mod pack;
mod proofs;
mod room_left;

use std::collections::BTreeSet;
use std::fmt;

use model::{HostName, VmUid};

use crate::engine::Engine;
use crate::fleet::Fleet;

pub(crate) use proofs::Proofs;
pub use room_left::{RoomLeft, room_left};

/// Answer of the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headroom {
    /// A place for every VM after every single failure of a host.
    Proven,
    /// The failure, and the first VM that would find no place.
    Broken {
        /// The host whose failure breaks it.
        failure: HostName,
        /// The VM.
        vm: VmUid,
    },
    /// Neither proven nor refuted.
    Unknown {
        /// The host whose failure is in question.
        failure: HostName,
    },
    /// The pool promises nothing.
    NotPromised,
}

/// What fails at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// One host.
    Host(HostName),
    /// All hosts of a rack.
    Rack(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Host(name) => write!(formatter, "host {name}"),
            Failure::Rack(name) => write!(formatter, "rack {name}"),
        }
    }
}

/// What is known of one failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survival {
    /// A VM would find no place.
    Broken(VmUid),
    /// Neither proven nor refuted.
    Unknown,
    /// Every VM finds a place.
    Proven,
}

/// One failure and how close it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReport {
    /// What fails.
    pub failure: Failure,
    /// What is known of it.
    pub survival: Survival,
    /// VMs that would have to start elsewhere.
    pub lost_vms: u32,
    /// Their memory, bytes.
    pub lost_memory_bytes: u64,
    /// How much of the free room of the hosts that remain the lost VMs fill, per mille, memory
    /// or CPU, whichever is more; above 1,000 they cannot all fit.
    pub fills_permille: u64,
}

/// Everything that is known of a pool's head-room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadroomReport {
    /// The promise: single hosts only.
    pub headroom: Headroom,
    /// Single hosts that may fail, by name: those that stand, and closed ones that carry VMs.
    pub hosts: Vec<FailureReport>,
    /// Racks that are declared, by name. Told, not promised.
    pub racks: Vec<FailureReport>,
    /// VMs whose data is on one host only, or whose rules contradict each other: they stand outside.
    pub outside: Vec<VmUid>,
}

impl HeadroomReport {
    /// Failures, racks included, that are neither proven nor refuted.
    pub fn unknown(&self) -> usize {
        let all = self.hosts.iter().chain(&self.racks);
        all.filter(|report| report.survival == Survival::Unknown)
            .count()
    }

    /// The host or declared rack whose failure leaves the least slack: broken before unknown before proven,
    /// then the one whose VMs fill the most of what the others have free; ties by name, hosts before racks. A rack
    /// of one host is that host.
    pub fn most_dangerous(&self) -> Option<&FailureReport> {
        let rank = |survival: &Survival| match survival {
            Survival::Broken(_) => 0,
            Survival::Unknown => 1,
            Survival::Proven => 2,
        };
        self.hosts.iter().chain(&self.racks).min_by_key(|report| {
            (
                rank(&report.survival),
                std::cmp::Reverse(report.fills_permille),
                &report.failure,
            )
        })
    }
}

/// Proves or refutes for one pool. VMs that no host could take over stand outside.
pub fn prove_headroom(fleet: &Fleet, pool: &str) -> Headroom {
    Engine::new(of_pool(fleet, pool)).prove_headroom(pool)
}

/// A place for each of these VMs on open hosts other than some, all else as it is; none when
/// none was found.
pub(crate) fn pack_elsewhere(
    engine: &Engine,
    but: &BTreeSet<u32>,
    vms: &[u32],
) -> Option<Vec<(u32, u32)>> {
    let mut allowance = proofs::LOOKS_MAX;
    let bins = instance::Bins::open(engine);
    let instance = instance::Instance::new(engine, &bins, but, vms);
    let packing = match pack::greedy(&instance, 0) {
        Ok(packing) => packing,
        Err(_) if vms.len() > proofs::SEARCHED_MAX => return None,
        Err(first) if bounds::impossible(&instance, first).is_some() => return None,
        Err(_) => match pack::search(&instance, &mut allowance) {
            pack::Searched::Found(packing) => packing,
            pack::Searched::Impossible | pack::Searched::GaveUp => return None,
        },
    };
    let placed = instance.items.iter().zip(packing);
    Some(
        placed
            .flat_map(|(item, bin)| {
                let host = bins.list[bin].host;
                item.vms.iter().map(move |vm| (*vm, host))
            })
            .collect(),
    )
}

/// Everything about one pool's head-room, every failure looked at; none for an unknown pool.
pub fn headroom_report(fleet: &Fleet, pool: &str) -> Option<HeadroomReport> {
    Engine::new(of_pool(fleet, pool)).headroom_report(pool)
}

/// What concerns one pool: its hosts, and the VMs that are on them.
fn of_pool(fleet: &Fleet, pool: &str) -> Fleet {
    let hosts: std::collections::BTreeMap<_, _> = fleet
        .hosts
        .iter()
        .filter(|(_, host)| host.pool == pool)
        .map(|(name, host)| (name.clone(), host.clone()))
        .collect();
    let concerned = |vm: &crate::Vm| vm.places().any(|place| hosts.contains_key(place));
    Fleet {
        pools: fleet.pools.clone(),
        vms: fleet
            .vms
            .iter()
            .filter(|(_, vm)| concerned(vm))
            .map(|(uid, vm)| (uid.clone(), vm.clone()))
            .collect(),
        racks: fleet.racks.clone(),
        storage: fleet.storage.clone(),
        hosts,
    }
}
