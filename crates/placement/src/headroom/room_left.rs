//! How many more VMs of a size a pool takes with N+1 kept.

use std::collections::{BTreeMap, BTreeSet};

use model::{NamespacedName, VmUid};

use super::{Headroom, of_pool};
use crate::admit::{ASKED_MAX, spends};
use crate::engine::Engine;
use crate::fleet::{Fleet, Pool, Vm};
use crate::names::Names;
use crate::rules::Rules;

/// More VMs of a size than anybody counts; a size of nothing would fit for ever.
const COUNTED_MAX: u64 = 100_000;

/// How many more of a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomLeft {
    /// Name of the size.
    pub name: String,
    /// How many more start, one after the other, before the first is refused.
    pub more: u64,
}

/// For each size (name, virtual processors, bytes of memory): how many more VMs of it, and of
/// nothing else, are admitted before a place or the proof of N+1 is lacking on every host. They ask for
/// nothing but room, restart elsewhere, and need not be apart. Just what a stream of new VMs
/// would meet, since it uses the same placement and the same proof.
pub fn room_left(fleet: &Fleet, pool: &str, sizes: &[(String, u64, u64)]) -> Vec<RoomLeft> {
    let Some(declared) = fleet.pools.get(pool) else {
        return Vec::new();
    };
    let mut engine = Engine::new(of_pool(fleet, pool));
    let full = !kept(&mut engine, pool);
    sizes
        .iter()
        .map(|(name, cpu, memory_bytes)| {
            let size = sample(declared, name, *cpu, *memory_bytes);
            let more = if full {
                0
            } else {
                count(&mut engine, pool, &size)
            };
            RoomLeft {
                name: name.clone(),
                more,
            }
        })
        .collect()
}

fn sample(pool: &Pool, name: &str, cpu: u64, memory_bytes: u64) -> Vm {
    Vm {
        name: NamespacedName::new("room-left", name),
        cpu,
        memory_bytes,
        zones: BTreeSet::new(),
        networks: Names::default(),
        needs_tunnels: false,
        architecture: pool.architecture,
        runs_with: Names::default(),
        storage_pools: Names::default(),
        new_volumes: BTreeMap::new(),
        pinned_to: None,
        mlps_grade: pool.mlps_grade,
        rules: Rules::default(),
        restarts_elsewhere: true,
        host: None,
        incoming: None,
    }
}

/// Adds VMs while N+1 holds, and takes all back. Where one breaks it, that host, and those of which the same follows,
/// are left out from then on, as [`Engine::admit`] does: more VMs never help N+1.
fn count(engine: &mut Engine, pool: &str, size: &Vm) -> u64 {
    let (mut more, mut except, mut spent) = (0, BTreeSet::new(), 0);
    while spent < ASKED_MAX {
        more += stream(engine, pool, size, (more, &except));
        if more >= COUNTED_MAX {
            break;
        }
        // What the next one meets.
        let next = number(more);
        engine.upsert_vm(next.clone(), size.clone());
        let choice = engine.place_except(&next, &BTreeSet::new(), &except).ok();
        let breaks = choice.and_then(|choice| {
            let headroom = engine.put(&next, &choice.host, pool)?;
            spent += spends(&headroom);
            let broken = (pool, &headroom);
            Some(engine.refused_with(&next, &choice.host, broken, &mut BTreeSet::new()))
        });
        engine.remove_vm(&next);
        match breaks {
            Some(hosts) => except.extend(hosts),
            None => break,
        }
    }
    remove(engine, 0, more);
    more
}

/// Adds VMs in growing steps while N+1 holds, then in shrinking ones; how many. Placement looks only at the state, so
/// the first n VMs go to the same hosts whatever the steps.
fn stream(
    engine: &mut Engine,
    pool: &str,
    size: &Vm,
    (from, except): (u64, &BTreeSet<u32>),
) -> u64 {
    let (mut more, mut step, mut growing) = (0, 1, true);
    while step > 0 && from + more < COUNTED_MAX {
        let added = add(engine, size, (from + more, step), except);
        if added == step && kept(engine, pool) {
            more += added;
            step = if growing { step * 2 } else { step / 2 };
        } else {
            remove(engine, from + more, added);
            growing = false;
            step /= 2;
        }
    }
    more
}

fn kept(engine: &mut Engine, pool: &str) -> bool {
    let answer = engine.prove_headroom(pool);
    matches!(answer, Headroom::Proven | Headroom::NotPromised)
}

fn number(index: u64) -> VmUid {
    VmUid(format!("room-left/{index}"))
}

/// Places up to `step` further VMs; how many found a place.
fn add(engine: &mut Engine, size: &Vm, (from, step): (u64, u64), except: &BTreeSet<u32>) -> u64 {
    for index in from..from + step {
        let uid = number(index);
        engine.upsert_vm(uid.clone(), size.clone());
        match engine.place_except(&uid, &BTreeSet::new(), except) {
            Ok(choice) => engine.assign(&uid, &choice.host),
            Err(_) => {
                engine.remove_vm(&uid);
                return index - from;
            }
        }
    }
    step
}

fn remove(engine: &mut Engine, from: u64, count: u64) {
    for index in from..from + count {
        engine.remove_vm(&number(index));
    }
}
