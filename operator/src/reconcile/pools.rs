//! Aggregates of host pools and storage pools, and the N+1 proof.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{Headroom, HostPoolStatus, HostState, StoragePoolStatus};
use kube::ResourceExt;
use model::{Bytes, VmUid};
use placement::{Fleet, headroom_report, room_left};
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
        let own = fleet.hosts.iter().filter(|(_, host)| host.pool == name);
        let (mut cpu, mut memory, mut free_cpu, mut free_memory) = (0, 0, 0, 0);
        for (host_name, host) in own {
            let (capacity, free) = (fleet.capacity(host), fleet.free(host_name, host));
            cpu += capacity.cpu;
            memory += capacity.memory_bytes;
            free_cpu += free.cpu;
            free_memory += free.memory_bytes;
        }
        let headroom = headroom(context, &fleet, &name);
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
            cpu_capacity: count(cpu),
            cpu_allocated: count(cpu - free_cpu),
            memory_capacity_mebibytes: mebibytes(memory),
            memory_allocated_mebibytes: mebibytes(memory - free_memory),
            conditions: conditions(&status.conditions, &judged, pool.metadata.generation),
            headroom: Some(headroom),
            rebalancing: Some(rebalancing),
        };
        if after != status && context.writer.settled(pool.as_ref()) {
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

/// What was proven, and of which fleet: the proof is made anew only when the fleet changed.
#[derive(Default)]
pub struct Proofs(Mutex<Proven>);

#[derive(Default)]
struct Proven {
    fleet: Fleet,
    pools: BTreeMap<String, Headroom>,
}

fn headroom(context: &Context, fleet: &Fleet, pool: &str) -> Headroom {
    let mut proven = context
        .proofs
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if proven.fleet != *fleet {
        *proven = Proven {
            fleet: fleet.clone(),
            pools: BTreeMap::new(),
        };
    }
    proven
        .pools
        .entry(pool.to_owned())
        .or_insert_with(|| prove(context, fleet, pool))
        .clone()
}

fn prove(context: &Context, fleet: &Fleet, pool: &str) -> Headroom {
    let name = |uid: &VmUid| {
        fleet
            .vms
            .get(uid)
            .map_or_else(|| uid.to_string(), |vm| vm.name.to_string())
    };
    // The fleet is made of the same objects: the pool is in it.
    let Some(report) = headroom_report(fleet, pool) else {
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
    Headroom {
        state: state.to_owned(),
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
