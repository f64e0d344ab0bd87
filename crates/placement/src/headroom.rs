//! N+1: when any one host of a pool fails, does every VM of it find another place? First-fit
//! decreasing is the certificate; where it fails, sums tell what is impossible, and what lies
//! between is said to be unknown.

use std::collections::BTreeMap;

use model::{HostName, VmUid};

use crate::filter::{fits_place, fits_size};
use crate::fleet::{Fleet, Free, Vm};

/// Answer of the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headroom {
    /// A place for every VM after every single failure; how many more of the pool's largest VM fit
    /// on no host being down.
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

/// Proves or refutes for one pool. VMs pinned to a host stand outside.
pub fn prove_headroom(fleet: &Fleet, pool: &str) -> Headroom {
    let Some(declared) = fleet.pools.get(pool) else {
        return Headroom::NotPromised;
    };
    if declared.failures_to_tolerate == 0 {
        return Headroom::NotPromised;
    }
    let mut unknown = None;
    for (failure, host) in fleet
        .hosts
        .iter()
        .filter(|(_, host)| host.pool == pool && host.stands)
    {
        let _ = host;
        match survives(fleet, pool, failure) {
            Headroom::Proven => {}
            Headroom::Unknown { failure } => unknown = Some(failure),
            broken => return broken,
        }
    }
    unknown.map_or(Headroom::Proven, |failure| Headroom::Unknown { failure })
}

fn survives(fleet: &Fleet, pool: &str, failure: &HostName) -> Headroom {
    let mut after = fleet.clone();
    after
        .hosts
        .retain(|name, host| name != failure && host.pool == pool && host.stands);
    let mut lost: Vec<(VmUid, Vm)> = fleet
        .vms
        .iter()
        .filter(|(_, vm)| {
            vm.host.as_ref() == Some(failure) && vm.restarts_elsewhere && vm.pinned_to.is_none()
        })
        .map(|(uid, vm)| (uid.clone(), vm.clone()))
        .collect();
    lost.sort_by(|one, two| {
        two.1
            .memory_bytes
            .cmp(&one.1.memory_bytes)
            .then_with(|| one.0.cmp(&two.0))
    });
    for (uid, _) in &lost {
        if let Some(vm) = after.vms.get_mut(uid) {
            (vm.host, vm.incoming) = (None, None);
        }
    }
    let mut free: BTreeMap<HostName, Free> = after
        .hosts
        .iter()
        .map(|(name, host)| (name.clone(), after.free(name, host)))
        .collect();
    for (uid, vm) in &lost {
        let fits = |name: &HostName, room: &Free| {
            after
                .hosts
                .get(name)
                .is_some_and(|host| fits_place(&after, uid, vm, name, host).is_none())
                && fits_size(vm, *room).is_none()
        };
        // The fullest host that still fits: best fit keeps room together.
        let chosen = free
            .iter()
            .filter(|(name, room)| fits(name, room))
            .min_by_key(|(_, room)| room.memory_bytes)
            .map(|(name, _)| name.clone());
        let Some(name) = chosen else {
            return refuted(&after, &lost, uid, failure);
        };
        if let Some(room) = free.get_mut(&name) {
            room.cpu -= vm.cpu;
            room.memory_bytes -= vm.memory_bytes;
        }
        if let Some(placed) = after.vms.get_mut(uid) {
            placed.host = Some(name);
        }
    }
    Headroom::Proven
}

/// After first-fit failed: impossible for certain when the lost VMs together are larger than all
/// that is left, or when one alone fits nowhere; else unknown.
fn refuted(after: &Fleet, lost: &[(VmUid, Vm)], first: &VmUid, failure: &HostName) -> Headroom {
    let mut empty = after.clone();
    for (uid, _) in lost {
        if let Some(vm) = empty.vms.get_mut(uid) {
            vm.host = None;
        }
    }
    let room = empty
        .hosts
        .iter()
        .map(|(name, host)| empty.free(name, host))
        .fold(Free::default(), |sum, free| Free {
            cpu: sum.cpu + free.cpu,
            memory_bytes: sum.memory_bytes + free.memory_bytes,
        });
    let (cpu, memory) = lost.iter().fold((0, 0), |(cpu, memory), (_, vm)| {
        (cpu + vm.cpu, memory + vm.memory_bytes)
    });
    let alone = lost.iter().find(|(uid, vm)| {
        empty.hosts.iter().all(|(name, host)| {
            fits_place(&empty, uid, vm, name, host).is_some()
                || fits_size(vm, empty.free(name, host)).is_some()
        })
    });
    match alone {
        Some((uid, _)) => Headroom::Broken {
            failure: failure.clone(),
            vm: uid.clone(),
        },
        None if cpu > room.cpu || memory > room.memory_bytes => Headroom::Broken {
            failure: failure.clone(),
            vm: first.clone(),
        },
        None => Headroom::Unknown {
            failure: failure.clone(),
        },
    }
}
