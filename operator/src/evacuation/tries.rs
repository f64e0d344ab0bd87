//! Moves that failed: how long until the next try, and when a person is asked instead.
//!
//! Tries of one VM count from the latest of: the evacuation began, a person asked (again), another host began to
//! take VMs, the VM was given a new epoch. After `startAttempts` of them the VM counts as one that can not move. A move
//! that the API server does not take is a try as well; of those nothing is in the API, and another leader begins anew.

use std::collections::{BTreeMap, BTreeSet};
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

/// Moves that the API server did not take, of one VM.
struct Refused {
    /// Of its epoch.
    prefix: String,
    /// The host that was to be emptied.
    host: HostName,
    tries: Tries,
}

/// Moves that the API server did not take, by VM.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<VmUid, Refused>);

impl Refusals {
    /// Counts one that was to empty a host, and says so. `from` as in [`pause`].
    pub(super) fn note(
        &mut self,
        vm: &VirtualMachine,
        (host, from): (&HostName, Option<Timestamp>),
        said: &str,
        now: Timestamp,
    ) -> Option<String> {
        let prefix = prefix(vm)?;
        let known = self
            .of(vm, &prefix, host, from)
            .map_or(0, |tries| tries.count);
        let tries = Tries {
            count: known.saturating_add(1),
            last: now,
            said: format!("the API server does not take it ({said})"),
        };
        let told = again(&tries);
        let host = host.clone();
        let refused = Refused {
            prefix,
            host,
            tries,
        };
        self.0.insert(door::uid(vm), refused);
        Some(told)
    }

    /// Of a VM's present epoch, for the host that is emptied.
    pub(super) fn of(
        &self,
        vm: &VirtualMachine,
        prefix: &str,
        host: &HostName,
        from: Option<Timestamp>,
    ) -> Option<&Tries> {
        let refused = self.0.get(&door::uid(vm))?;
        let counts = refused.prefix == prefix
            && refused.host == *host
            && from.is_none_or(|from| refused.tries.last >= from);
        counts.then_some(&refused.tries)
    }

    /// Forgets VMs that are gone.
    pub(super) fn retain(&mut self, vms: &[Arc<VirtualMachine>]) {
        if !self.0.is_empty() {
            let uids: BTreeSet<VmUid> = vms.iter().map(|vm| door::uid(vm)).collect();
            self.0.retain(|uid, _| uids.contains(uid));
        }
    }
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
pub(crate) struct Tries {
    count: u32,
    last: Timestamp,
    said: String,
}

/// Both together, with what was said last.
fn sum(moves: Option<Tries>, refused: Option<&Tries>) -> Option<Tries> {
    let (one, two) = match (moves, refused) {
        (Some(one), Some(two)) => (one, two),
        (one, two) => return one.or_else(|| two.cloned()),
    };
    let count = one.count.saturating_add(two.count);
    let last = if two.last > one.last {
        two.clone()
    } else {
        one
    };
    Some(Tries { count, ..last })
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

fn again(tries: &Tries) -> String {
    let Tries { count, said, .. } = tries;
    format!("its move failed {count} times and is tried again: {said}")
}

/// Why a VM whose moves (`former`, and what was refused) came to nothing is not moved at once.
pub(super) fn pause(
    former: &[&Arc<VirtualMachineMigration>],
    refused: Option<&Tries>,
    from: Option<Timestamp>,
    policy: &Policy,
    now: Timestamp,
) -> Option<String> {
    let tries = sum(tries(former.iter().copied(), from), refused)?;
    let wait = i128::from(back_off_milliseconds(tries.count, policy));
    (now.duration_since(tries.last).as_millis() < wait).then(|| again(&tries))
}

/// VMs whose moves failed as often as they are tried in one evacuation, and why they stay. `from` tells for every
/// host that is emptied from when on tries count.
pub(super) fn exhausted(
    vms: &[Arc<VirtualMachine>],
    (migrations, refusals): (&[Arc<VirtualMachineMigration>], &Refusals),
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
        let failed = by_vm.get(&(vm.namespace(), name));
        let refused = refusals.0.get(&door::uid(vm));
        if failed.is_none() && refused.is_none() {
            continue;
        }
        let Some(prefix) = prefix(vm) else { continue };
        let failed = failed.into_iter().flatten().copied();
        let of_epoch = failed.filter(|migration| migration.name_any().starts_with(&prefix));
        let refused = refused.and_then(|refused| {
            let from = from.get(&refused.host)?;
            refusals.of(vm, &prefix, &refused.host, Some(*from))
        });
        let Some(Tries { count, said, .. }) = sum(tries(of_epoch, None), refused) else {
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
