//! Moves that failed: how long until the next try, and when a person is asked instead.
//!
//! Tries of one VM count from the latest of: the evacuation began, a person asked (again), another host began to
//! take VMs, the VM was given a new epoch. After `startAttempts` of them the VM counts as one that can not move.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Host, MigrationPhase, VirtualMachine, VirtualMachineMigration};
use failover::Policy;
use failover::failures::back_off_milliseconds;
use jiff::Timestamp;
use kube::ResourceExt;
use model::{HostName, VmUid};

use super::empties;
use super::permit::{standing, under_way};
use crate::door;

/// From when on failed moves of an evacuation count; none where it has not begun.
pub(super) fn counts_from(host: &Host, hosts: &[Arc<Host>]) -> Option<Timestamp> {
    let began = standing(host)
        .filter(|_| under_way(host))?
        .started_at
        .as_ref()?;
    let maintenance = host.spec.maintenance.as_ref();
    let asked = maintenance.and_then(|maintenance| maintenance.asked_at.as_ref());
    let opened = hosts
        .iter()
        .filter(|other| other.name_any() != host.name_any())
        .filter_map(|other| opened(other));
    let latest = asked.map(|at| at.0).into_iter().chain(opened);
    Some(latest.fold(began.0, Timestamp::max))
}

/// Since when a host takes VMs, if it does.
fn opened(host: &Host) -> Option<Timestamp> {
    let conditions = &host.status.as_ref()?.conditions;
    let schedulable = conditions
        .iter()
        .find(|condition| condition.type_ == "Schedulable" && condition.status == "True")?;
    Some(schedulable.last_transition_time.0)
}

/// The operator's moves of a VM away from its present epoch are named so: another operator makes the same one.
pub(super) fn prefix(vm: &VirtualMachine) -> Option<String> {
    let assignment = vm.status.as_ref()?.assignment.as_ref()?;
    Some(format!("{}-e{}-", vm.name_any(), assignment.epoch.0))
}

/// It came to nothing by itself: it failed, or its target did not do any more when its turn came.
fn came_to_nothing(migration: &VirtualMachineMigration) -> bool {
    match migration.status.as_ref().map(|status| status.phase) {
        Some(MigrationPhase::Failed) => true,
        Some(MigrationPhase::Cancelled) => !migration.spec.cancel,
        _ => false,
    }
}

fn finished(migration: &VirtualMachineMigration) -> Option<Timestamp> {
    let finished = migration.status.as_ref()?.finished_at.as_ref()?;
    Some(finished.0)
}

/// Moves that came to nothing: how many, when the last did and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tries {
    count: u32,
    last: Timestamp,
    said: String,
}

fn tries<'a>(
    migrations: impl Iterator<Item = &'a Arc<VirtualMachineMigration>>,
    from: Option<Timestamp>,
) -> Option<Tries> {
    let nothing = migrations.filter(|migration| came_to_nothing(migration));
    let dated = nothing.filter_map(|migration| Some((finished(migration)?, migration)));
    let all: Vec<_> = dated
        .filter(|(at, _)| from.is_none_or(|from| *at >= from))
        .collect();
    let (last, migration) = all.iter().max_by_key(|(at, _)| *at)?;
    let said = migration
        .status
        .as_ref()
        .and_then(|status| status.message.clone());
    Some(Tries {
        count: u32::try_from(all.len()).unwrap_or(u32::MAX),
        last: *last,
        said: said.unwrap_or_default(),
    })
}

/// Why a VM whose moves (`former`) came to nothing is not moved at once.
pub(super) fn pause(
    former: &[&Arc<VirtualMachineMigration>],
    from: Option<Timestamp>,
    policy: &Policy,
    now: Timestamp,
) -> Option<String> {
    let Tries { count, last, said } = tries(former.iter().copied(), from)?;
    let wait = i128::from(back_off_milliseconds(count, policy));
    (now.duration_since(last).as_millis() < wait)
        .then(|| format!("its move failed {count} times and is tried again: {said}"))
}

/// VMs whose moves failed as often as they are tried in one evacuation, and why they stay. `from` tells for every
/// host that is emptied from when on tries count.
pub(super) fn exhausted(
    vms: &[Arc<VirtualMachine>],
    migrations: &[Arc<VirtualMachineMigration>],
    from: &BTreeMap<HostName, Timestamp>,
    policy: &Policy,
) -> BTreeMap<VmUid, String> {
    let mut by_vm: BTreeMap<(Option<String>, &str), Vec<&Arc<VirtualMachineMigration>>> =
        BTreeMap::new();
    for migration in migrations {
        let counts = empties(migration)
            .and_then(|host| from.get(&HostName::from(host)))
            .zip(finished(migration))
            .is_some_and(|(from, at)| at >= *from);
        if counts {
            let vm = migration.spec.virtual_machine.as_str();
            let key = (migration.namespace(), vm);
            by_vm.entry(key).or_default().push(migration);
        }
    }
    let mut exhausted = BTreeMap::new();
    for vm in vms {
        let name = vm.metadata.name.as_deref().unwrap_or_default();
        let Some((failed, prefix)) = by_vm.get(&(vm.namespace(), name)).zip(prefix(vm)) else {
            continue;
        };
        let failed = failed.iter().copied();
        let of_epoch = failed.filter(|migration| migration.name_any().starts_with(&prefix));
        let Some(Tries { count, said, .. }) = tries(of_epoch, None) else {
            continue;
        };
        if count >= policy.start_attempts {
            let why = format!(
                "its move failed {count} times and is not tried again by itself: {said}; it is tried anew when another host begins to take VMs, or with zyctl drain"
            );
            exhausted.insert(door::uid(vm), why);
        }
    }
    exhausted
}

#[cfg(test)]
#[path = "tries_tests.rs"]
mod tests;
