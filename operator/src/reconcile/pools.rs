//! Aggregates of host pools and storage pools, and the N+1 proof.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use api::{Headroom, HostPool, HostPoolStatus, HostState, StoragePoolStatus};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::{Bytes, VmUid};
use placement::{Engine, Fleet, Free, Survival, room_left};
use prometheus::{IntGaugeVec, register_int_gauge_vec};
use serde_json::json;

use super::rebalance;
use crate::conditions::{Judged, condition, conditions};
use crate::runtime::Context;
use crate::writer::logged;
use crate::{door, merge};

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    let policy = door::policy(&context.stores.policy());
    let fleet = door::fleet(context, &policy);
    lock(context).engine.sync(fleet.clone());
    for pool in context.stores.host_pools.state() {
        let name = pool.name_any();
        let status = pool.status.clone().unwrap_or_default();
        let hosts: Vec<_> = context
            .stores
            .hosts
            .state()
            .into_iter()
            .filter(|host| host.spec.pool == name)
            .collect();
        let ready = hosts
            .iter()
            .filter(|host| {
                host.status.as_ref().and_then(|status| status.state) == Some(HostState::Ready)
            })
            .count();
        let (all, free) = sums(context, &fleet, &name);
        let headroom = headroom(context, &name);
        let proven = headroom.state == "Proven" || headroom.state == "NotPromised";
        let rebalancing = rebalance::turn(context, &fleet, &pool).await;
        let calm = rebalancing.moves.is_empty() || rebalancing.state == "Off";
        let judged = [
            Judged::new("Redundant", proven, &headroom.state, &headroom.message),
            Judged::new("Balanced", calm, &rebalancing.state, &rebalancing.message),
        ];
        let count = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let mebibytes = |bytes: u64| i64::try_from(bytes >> 20).unwrap_or(i64::MAX);
        let after = HostPoolStatus {
            hosts: i32::try_from(hosts.len()).unwrap_or(i32::MAX),
            hosts_ready: i32::try_from(ready).unwrap_or(i32::MAX),
            cpu_capacity: count(all.cpu),
            cpu_allocated: count(all.cpu.saturating_sub(free.cpu)),
            memory_capacity_mebibytes: mebibytes(all.memory_bytes),
            memory_allocated_mebibytes: mebibytes(
                all.memory_bytes.saturating_sub(free.memory_bytes),
            ),
            conditions: conditions(&status.conditions, &judged, pool.metadata.generation),
            headroom: Some(headroom),
            rebalancing: Some(rebalancing),
        };
        if after != status && context.writer.settled(pool.as_ref()) {
            if let Some(headroom) = &after.headroom {
                tell(context, &pool, headroom).await;
            }
            logged(
                "host pool",
                &name,
                context
                    .writer
                    .swap_status(pool.as_ref(), merge::patch(&json!(status), &json!(after)))
                    .await,
            );
        }
    }
    storage(context).await;
}

/// What was proven, and of which fleet: a proof is looked at again only where the fleet changed.
#[derive(Default)]
pub struct Proofs(Mutex<Proven>);

#[derive(Default)]
struct Proven {
    engine: Engine,
    /// The engine's clock when the pools were last told.
    told_at: u64,
    pools: BTreeMap<String, Headroom>,
}

fn lock(context: &Context) -> MutexGuard<'_, Proven> {
    let proofs = &context.proofs.0;
    proofs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the hosts of a pool offer, overcommit included, and what of it is free.
fn sums(context: &Context, fleet: &Fleet, pool: &str) -> (Free, Free) {
    let proven = lock(context);
    let (mut all, mut free) = (Free::default(), Free::default());
    let add = |sum: &mut Free, more: Free| {
        sum.cpu = sum.cpu.saturating_add(more.cpu);
        sum.memory_bytes = sum.memory_bytes.saturating_add(more.memory_bytes);
    };
    for (name, host) in fleet.hosts.iter().filter(|(_, host)| host.pool == pool) {
        add(&mut all, fleet.capacity(host));
        add(&mut free, proven.engine.free(name).unwrap_or_default());
    }
    (all, free)
}

fn headroom(context: &Context, pool: &str) -> Headroom {
    let mut proven = lock(context);
    let Proven {
        engine,
        told_at,
        pools,
    } = &mut *proven;
    if *told_at != engine.clock() {
        *told_at = engine.clock();
        pools.clear();
    }
    pools
        .entry(pool.to_owned())
        .or_insert_with(|| prove(context, engine, pool))
        .clone()
}

/// Failures that are neither proven nor refuted, by pool: the alarm of whoever watches the site.
static UNKNOWN: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "zhengyun_host_pool_unknown_failures",
        "Failures of hosts and racks of a pool of which nothing could be proven in time",
        &["pool"]
    )
    .ok()
});

/// 1 while any one host of a pool may fail and every VM finds a place, else 0.
static REDUNDANT: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "zhengyun_host_pool_redundant",
        "1 while N+1 of the pool is proven or not promised, else 0",
        &["pool"]
    )
    .ok()
});

fn measure(pool: &str, unknown: usize, redundant: bool) {
    if let Some(gauge) = UNKNOWN.as_ref() {
        let unknown = i64::try_from(unknown).unwrap_or(i64::MAX);
        gauge.with_label_values(&[pool]).set(unknown);
    }
    if let Some(gauge) = REDUNDANT.as_ref() {
        gauge.with_label_values(&[pool]).set(redundant.into());
    }
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

fn prove(context: &Context, engine: &mut Engine, pool: &str) -> Headroom {
    let report = engine.headroom_report(pool);
    let fleet = engine.fleet();
    let name = |uid: &VmUid| {
        fleet
            .vms
            .get(uid)
            .map_or_else(|| uid.to_string(), |vm| vm.name.to_string())
    };
    // The fleet is made of the same objects: the pool is in it.
    let Some(report) = report else {
        return Headroom::default();
    };
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
    let flavors: Vec<(String, u64, u64)> = context
        .stores
        .flavors
        .state()
        .iter()
        .filter_map(|flavor| {
            let memory = Bytes::parse(&flavor.spec.memory).ok()?.0;
            Some((
                flavor.name_any(),
                u64::try_from(flavor.spec.cpu).ok()?,
                memory,
            ))
        })
        .collect();
    let mut room: Vec<_> = room_left(fleet, pool, &flavors)
        .into_iter()
        .filter(|room| room.more > 0)
        .collect();
    room.sort_by(|one, two| {
        two.more
            .cmp(&one.more)
            .then_with(|| one.name.cmp(&two.name))
    });
    measure(
        pool,
        report.unknown(),
        state == "Proven" || state == "NotPromised",
    );
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
        room_left: room
            .into_iter()
            .map(|room| format!("{} more {}", room.more, room.name))
            .collect(),
        pinned: report.outside.iter().map(name).collect(),
    }
}

async fn storage(context: &Arc<Context>) {
    let (hosts, volumes) = (context.stores.hosts.state(), context.stores.volumes.state());
    for pool in context.stores.storage_pools.state() {
        let name = pool.name_any();
        let status = pool.status.clone().unwrap_or_default();
        let reports: Vec<_> = hosts
            .iter()
            .filter_map(|host| host.status.as_ref()?.reported.as_ref())
            .filter_map(|reported| {
                reported
                    .storage_pools
                    .iter()
                    .find(|report| report.name == name)
            })
            .collect();
        let ready: Vec<_> = reports
            .iter()
            .filter(|report| report.state == "Ready")
            .collect();
        let fold = |sizes: Vec<i64>| {
            if pool.spec.shared {
                sizes.into_iter().max().unwrap_or(0)
            } else {
                sizes.into_iter().sum()
            }
        };
        let capacity = fold(ready.iter().map(|report| report.capacity_bytes).collect());
        let available = fold(ready.iter().map(|report| report.available_bytes).collect());
        let own: Vec<_> = volumes
            .iter()
            .filter(|volume| volume.spec.pool == name)
            .collect();
        let allocated: u64 = own
            .iter()
            .filter_map(|volume| Bytes::parse(&volume.spec.size).ok())
            .map(|bytes| bytes.0)
            .sum();
        let human = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let all = !reports.is_empty() && ready.len() == reports.len();
        let message = reports
            .iter()
            .find_map(|report| report.message.clone())
            .unwrap_or_default();
        let after = StoragePoolStatus {
            hosts_ready: format!("{}/{}", ready.len(), reports.len()),
            capacity: human(u64::try_from(capacity).unwrap_or(0)),
            allocated: human(allocated),
            capacity_bytes: capacity,
            available_bytes: available,
            allocated_bytes: i64::try_from(allocated).unwrap_or(i64::MAX),
            volumes: i32::try_from(own.len()).unwrap_or(i32::MAX),
            conditions: condition(
                &status.conditions,
                "Ready",
                all,
                if all { "Ready" } else { "HostsAffected" },
                &message,
                pool.metadata.generation,
            ),
        };
        if after != status && context.writer.settled(pool.as_ref()) {
            logged(
                "storage pool",
                &name,
                context
                    .writer
                    .swap_status(pool.as_ref(), json!(after))
                    .await,
            );
        }
    }
}
