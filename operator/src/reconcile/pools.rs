//! Aggregates of host pools, and the N+1 proof; of storage pools see [`storage`].

pub mod measure;
mod storage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Headroom, Host, HostPool, HostPoolStatus, HostState};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::{Bytes, VmUid};
use placement::{Engine, Fleet, Free, HeadroomReport, RoomLeft, Survival, room_left};

use super::rebalance;
use crate::conditions::{Judged, conditions};
use crate::runtime::Context;
use crate::writer::logged;

/// What was last told of each pool, of which fleet and in which sizes: as long as neither changes,
/// nothing is asked again.
#[derive(Default)]
pub struct Told(Mutex<Arc<Site>>);

/// Pools as they stand in one moment.
#[derive(Default)]
struct Site {
    fleet: Fleet,
    flavors: Vec<Size>,
    pools: BTreeMap<String, Shown>,
}

/// A flavor: name, virtual processors, bytes of memory.
type Size = (String, u64, u64);

/// What the hosts of a pool offer, overcommit included, what is promised, which may be more, and N+1.
struct Shown {
    all: Free,
    used: Free,
    headroom: Headroom,
}

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    // Nothing is told before the VM loop has read the fleet.
    if let Some(site) = look(context).await {
        for pool in context.stores.host_pools.state() {
            // A pool that the VM loop has not seen yet is told next time.
            if let Some(shown) = site.pools.get(&pool.name_any()) {
                show(context, &site.fleet, &pool, shown).await;
            }
        }
    }
    storage::turn(context).await;
}

/// The pools of the fleet on which the VM loop decides, what it decided a moment ago included.
async fn look(context: &Context) -> Option<Arc<Site>> {
    let flavors = flavors(context);
    let (fleet, reports) = {
        let mut engine = context.planner.read().await?;
        let known = lock(context).clone();
        if known.flavors == flavors && known.fleet == *engine.fleet() {
            return Some(known);
        }
        let fleet = engine.fleet().clone();
        let reports: Vec<_> = fleet
            .pools
            .keys()
            .filter_map(|name| {
                let (all, used) = sums(&engine, name);
                Some((name.clone(), all, used, engine.headroom_report(name)?))
            })
            .collect();
        (fleet, reports)
    };
    let mut pools = BTreeMap::new();
    for (name, all, used, report) in reports {
        let headroom = headroom(&fleet, &name, &report, &flavors);
        let shown = Shown {
            all,
            used,
            headroom,
        };
        pools.insert(name, shown);
    }
    let site = Arc::new(Site {
        fleet,
        flavors,
        pools,
    });
    let former = std::mem::replace(&mut *lock(context), site.clone());
    for gone in former
        .pools
        .keys()
        .filter(|name| !site.pools.contains_key(*name))
    {
        measure::remove(gone);
    }
    Some(site)
}

fn lock(context: &Context) -> MutexGuard<'_, Arc<Site>> {
    let told = &context.told.0;
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flavors(context: &Context) -> Vec<Size> {
    let flavors = context.stores.flavors.state();
    let sizes = flavors.iter().filter_map(|flavor| {
        let memory = Bytes::parse(&flavor.spec.memory).ok()?.0;
        let cpu = u64::try_from(flavor.spec.cpu).ok()?;
        Some((flavor.name_any(), cpu, memory))
    });
    let mut sizes: Vec<Size> = sizes.collect();
    sizes.sort();
    sizes
}

/// What the hosts of a pool offer, and what VMs take there: not what is left of each, since a host that is promised
/// more than it has, after `cpuOvercommitPercent` was lowered, has no less than nothing left.
fn sums(engine: &Engine, pool: &str) -> (Free, Free) {
    let (mut all, mut used) = (Free::default(), Free::default());
    let add = |sum: &mut Free, more: Free| {
        sum.cpu = sum.cpu.saturating_add(more.cpu);
        sum.memory_bytes = sum.memory_bytes.saturating_add(more.memory_bytes);
    };
    let fleet = engine.fleet();
    for (name, host) in fleet.hosts.iter().filter(|(_, host)| host.pool == pool) {
        add(&mut all, fleet.capacity(host));
        add(&mut used, engine.used(name).unwrap_or_default());
    }
    (all, used)
}

async fn show(context: &Context, fleet: &Fleet, pool: &HostPool, shown: &Shown) {
    let name = pool.name_any();
    let status = pool.status.clone().unwrap_or_default();
    let all = context.stores.hosts.state();
    let hosts = || all.iter().filter(|host| host.spec.pool == name);
    let ready = hosts().filter(|host| {
        host.status.as_ref().and_then(|status| status.state) == Some(HostState::Ready)
    });
    let Shown {
        all: offered,
        used,
        headroom,
    } = shown;
    measure::set(&name, headroom);
    let proven = measure::is_redundant(headroom);
    let rebalancing = rebalance::turn(context, fleet, pool).await;
    let calm = rebalancing.moves.is_empty() || rebalancing.state == "Off";
    let (offered_by_all, told) = models(pool, hosts());
    let model = if offered_by_all {
        "Offered"
    } else {
        "NotOffered"
    };
    let judged = [
        Judged::new("ModelOffered", offered_by_all, model, told),
        Judged::new("Redundant", proven, &headroom.state, &headroom.message),
        Judged::new("Balanced", calm, &rebalancing.state, &rebalancing.message),
    ];
    let count = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
    let mebibytes = |bytes: u64| i64::try_from(bytes >> 20).unwrap_or(i64::MAX);
    let after = HostPoolStatus {
        hosts: i32::try_from(hosts().count()).unwrap_or(i32::MAX),
        hosts_ready: i32::try_from(ready.count()).unwrap_or(i32::MAX),
        cpu_capacity: count(offered.cpu),
        cpu_allocated: count(used.cpu),
        memory_capacity_mebibytes: mebibytes(offered.memory_bytes),
        memory_allocated_mebibytes: mebibytes(used.memory_bytes),
        conditions: conditions(&status.conditions, &judged, pool.metadata.generation),
        headroom: Some(headroom.clone()),
        rebalancing: Some(rebalancing),
    };
    if after != status && context.writer.settled(pool) {
        tell(context, pool, headroom).await;
        logged(
            "host pool",
            &name,
            context.writer.replace_status(pool, &status, &after).await,
        );
    }
}

/// Whether every host of a pool offers the processor model that its VMs are given, and what to do about
/// those that do not.
fn models<'a>(pool: &HostPool, hosts: impl Iterator<Item = &'a Arc<Host>>) -> (bool, String) {
    let Some(model) = &pool.spec.cpu_model else {
        let told = "spec.cpuModel is not set: VMs see the model of the host that starts them";
        return (true, told.to_owned());
    };
    let lacks = |host: &&Arc<Host>| {
        let offered = host
            .reported()
            .and_then(|reported| reported.cpu_models.as_ref());
        offered.is_some_and(|offered| !offered.contains(model))
    };
    let mut lacking: Vec<String> = hosts.filter(lacks).map(|host| host.name_any()).collect();
    lacking.sort();
    if lacking.is_empty() {
        return (true, format!("every host offers {model}"));
    }
    (
        false,
        format!(
            "spec.cpuModel: {model} is not offered by {}; nothing new is placed there; name a model that status.reported.cpuModels of every host has, or give these hosts a pool of their own",
            lacking.join(", ")
        ),
    )
}

/// A turn of N+1 is told as an event of the pool.
async fn tell(context: &Context, pool: &HostPool, after: &Headroom) {
    let known = pool
        .status
        .as_ref()
        .and_then(|status| status.headroom.as_ref());
    if known.is_none_or(|known| known.state == after.state) {
        return;
    }
    let (kind, reason) = match after.state.as_str() {
        "Broken" => (EventType::Warning, "RedundancyLost"),
        "Unknown" => (EventType::Warning, "RedundancyUnknown"),
        _ => (EventType::Normal, "Redundant"),
    };
    context
        .writer
        .tell(pool, kind, reason, &after.message)
        .await;
}

/// How many more fit of each size, the most first. Of a size that does not fit nothing is said beside those that do; when
/// none fits it is said of each.
fn told_room(mut room: Vec<RoomLeft>) -> Vec<String> {
    room.sort_by(|one, two| {
        two.more
            .cmp(&one.more)
            .then_with(|| one.name.cmp(&two.name))
    });
    if room.iter().all(|room| room.more == 0) {
        let none = room.iter().map(|room| format!("0 more {} fit", room.name));
        return none.collect();
    }
    let some = room.iter().filter(|room| room.more > 0);
    some.map(|room| format!("{} more {}", room.more, room.name))
        .collect()
}

/// The report in words, with the room left in sizes that people know.
fn headroom(fleet: &Fleet, pool: &str, report: &HeadroomReport, flavors: &[Size]) -> Headroom {
    let name = |uid: &VmUid| fleet.name_of(uid);
    let (state, message) = match &report.headroom {
        placement::Headroom::Proven => (
            "Proven",
            "any one host may fail and every VM finds a place".to_owned(),
        ),
        placement::Headroom::NotPromised => {
            ("NotPromised", "spec.failuresToTolerate is 0".to_owned())
        }
        placement::Headroom::Broken { failure, vm } => (
            "Broken",
            format!(
                "if host {failure} failed, {} would find no place; add a host or remove a VM",
                name(vm)
            ),
        ),
        placement::Headroom::Unknown { failure } => (
            "Unknown",
            format!("not proven for the failure of host {failure}; add a host or remove a VM"),
        ),
    };
    let racks = report.racks.iter().map(|rack| {
        let told = match &rack.survival {
            Survival::Proven => "survived".to_owned(),
            Survival::Unknown => "not proven".to_owned(),
            Survival::Broken(vm) => format!("{} would find no place", name(vm)),
        };
        format!("{}: {told}", rack.failure)
    });
    Headroom {
        state: state.to_owned(),
        unknown_failures: i32::try_from(report.unknown()).unwrap_or(i32::MAX),
        racks: racks.collect(),
        worst_failure: report
            .most_dangerous()
            .map(|failure| failure.failure.to_string()),
        message,
        room_left: told_room(room_left(fleet, pool, flavors)),
        pinned: report.outside.iter().map(name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet_in_memory::{host, pool, vm};

    /// `cpuOvercommitPercent` was lowered while three times as much as there is had been promised.
    #[test]
    fn what_is_promised_above_the_capacity_is_told() {
        let host = host("main", 4, 8 << 30);
        let vm = vm("web", "h1", 12, 2 << 30);
        let engine = Engine::new(Fleet {
            pools: BTreeMap::from([("main".to_owned(), pool())]),
            hosts: BTreeMap::from([("h1".into(), host.clone()), ("h2".into(), host)]),
            vms: BTreeMap::from([("web".into(), Box::new(vm))]),
            ..Fleet::default()
        });
        let (all, used) = sums(&engine, "main");
        assert_eq!((all.cpu, used.cpu), (8, 12));
        assert_eq!((all.memory_bytes, used.memory_bytes), (16 << 30, 2 << 30));
    }

    #[test]
    fn room_is_told_of_what_fits_and_else_that_nothing_does() {
        let told = |counts: [u64; 3]| {
            let names = ["1C2G", "4C8G", "8C16G"];
            let room = names.iter().zip(counts);
            told_room(
                room.map(|(name, more)| RoomLeft {
                    name: (*name).to_owned(),
                    more,
                })
                .collect(),
            )
        };
        assert_eq!(told([1, 3, 0]), ["3 more 4C8G", "1 more 1C2G"]);
        assert_eq!(
            told([0, 0, 0]),
            ["0 more 1C2G fit", "0 more 4C8G fit", "0 more 8C16G fit"]
        );
        assert_eq!(told_room(Vec::new()), Vec::<String>::new());
    }
}
