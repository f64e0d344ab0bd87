//! Which VMs can be moved now, and what keeps the others: their phase, their deletion, a move of theirs
//! that somebody else asked for, or somebody else's claim on a volume of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::names::LABEL_EVACUATES;
use api::{
    MigrationPhase, MigrationReason, VirtualMachine, VirtualMachineMigration, VirtualMachinePhase,
};
use kube::ResourceExt;
use model::{Claim, ClaimHolder, NamespacedName, VmUid};

use crate::{Objects, VolumesByName, by_name, uid};

/// Whether a VM can be moved now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It runs, and nothing else is done with it.
    Movable,
    /// It does not run and keeps its seat on a host: there is nothing to move.
    Idle,
    /// Not now.
    Fixed {
        /// Why, one sentence without the VM's name.
        why: String,
        /// It ends by itself as a rule: who empties the host waits for it.
        passes: bool,
    },
}

fn fixed(why: impl Into<String>, passes: bool) -> Readiness {
    Readiness::Fixed {
        why: why.into(),
        passes,
    }
}

/// Whether a move is over, however it ended.
pub fn ended(migration: &VirtualMachineMigration) -> bool {
    let status = migration.status.as_ref();
    matches!(
        status.map(|status| status.phase).unwrap_or_default(),
        MigrationPhase::Succeeded | MigrationPhase::Failed | MigrationPhase::Cancelled
    )
}

/// Whether the operator made this move to even out a pool.
pub fn evens_out(migration: &VirtualMachineMigration) -> bool {
    migration.spec.reason == MigrationReason::Rebalance && migration.spec.target_host.is_some()
}

/// What others do with VMs: open moves, and the claims on volumes.
pub struct Others<'a> {
    /// By the VM that they concern.
    moves: BTreeMap<(Option<String>, &'a str), &'a VirtualMachineMigration>,
    volumes: VolumesByName<'a>,
    vms: &'a [Arc<VirtualMachine>],
}

impl<'a> Others<'a> {
    /// For who empties hosts: its own moves are not others'.
    pub fn of(objects: &'a Objects, migrations: &'a [Arc<VirtualMachineMigration>]) -> Self {
        let own =
            |migration: &VirtualMachineMigration| migration.labels().contains_key(LABEL_EVACUATES);
        Self::but(own, objects, migrations)
    }

    fn but(
        own: impl Fn(&VirtualMachineMigration) -> bool,
        objects: &'a Objects,
        migrations: &'a [Arc<VirtualMachineMigration>],
    ) -> Self {
        let others = migrations
            .iter()
            .filter(|migration| !ended(migration) && !own(migration));
        let by_vm = others.map(|migration| {
            let vm = migration.spec.virtual_machine.as_str();
            ((migration.namespace(), vm), migration.as_ref())
        });
        Self {
            moves: by_vm.collect(),
            volumes: by_name(&objects.volumes),
            vms: &objects.vms,
        }
    }

    /// VMs of a site that who evens out load leaves where they are: those that can not be moved now.
    pub(crate) fn fixed(
        objects: &'a Objects,
        migrations: &'a [Arc<VirtualMachineMigration>],
    ) -> BTreeSet<VmUid> {
        let others = Self::but(evens_out, objects, migrations);
        let all = objects.vms.iter();
        all.filter(|vm| others.readiness(vm) != Readiness::Movable)
            .map(|vm| uid(vm))
            .collect()
    }

    /// Whether this VM can be moved now.
    pub fn readiness(&self, vm: &VirtualMachine) -> Readiness {
        let name = vm.metadata.name.as_deref().unwrap_or_default();
        let other = self.moves.get(&(vm.namespace(), name));
        let status = vm.status.as_ref();
        let said = status.and_then(|status| status.message.as_deref());
        let because = |what: &str| match said {
            Some(said) if !said.is_empty() => format!("{what} ({said})"),
            _ => what.to_owned(),
        };
        match status.and_then(|status| status.phase) {
            Some(VirtualMachinePhase::Stopped) => Readiness::Idle,
            Some(VirtualMachinePhase::Running) if vm.metadata.deletion_timestamp.is_some() => {
                fixed("it is being deleted", true)
            }
            Some(VirtualMachinePhase::Running) => {
                let hindered = other.map(|other| asked_for(other));
                let hindered = hindered.or_else(|| self.claimed(vm));
                hindered.unwrap_or(Readiness::Movable)
            }
            Some(VirtualMachinePhase::Migrating) => fixed("it is being moved", true),
            Some(VirtualMachinePhase::Starting) => fixed(because("it is being started"), true),
            Some(VirtualMachinePhase::Stopping) => fixed(because("it is being shut down"), true),
            Some(VirtualMachinePhase::Recovering) => {
                fixed(because("it is being started anew"), true)
            }
            Some(VirtualMachinePhase::Pending) | None => {
                fixed(because("it is not started yet"), true)
            }
            Some(VirtualMachinePhase::Stalled) => fixed(
                "it stands still since a disk failed: it can be moved when its storage answers again, or stop it",
                false,
            ),
            // A leader that has just begun knows nothing of anybody for a moment.
            Some(VirtualMachinePhase::Unknown) => fixed(
                because("nobody knows whether it runs: it can be moved when its host answers"),
                true,
            ),
            Some(VirtualMachinePhase::Pinned) => {
                fixed(because("its only data is on its failed host"), false)
            }
            Some(VirtualMachinePhase::Failed) => fixed(
                because(
                    "it can not be started, and is tried again elsewhere: look at it, or stop it",
                ),
                false,
            ),
        }
    }

    /// A move claims every volume of its VM for the target; what another VM or a job holds is never touched, and the
    /// move would wait for ever.
    fn claimed(&self, vm: &VirtualMachine) -> Option<Readiness> {
        let own = |claim: &&Claim| {
            claim.holder == ClaimHolder::VirtualMachine
                && Some(&claim.uid) == vm.metadata.uid.as_ref()
        };
        let namespace = vm.metadata.namespace.as_deref().unwrap_or_default();
        vm.spec.disks.iter().find_map(|disk| {
            let key = (namespace, disk.volume.as_str());
            let status = self.volumes.get(&key)?.status.as_ref()?;
            let mut claims = status.claim.iter().chain(&status.incoming_claim);
            let other = claims.find(|claim| !own(claim))?;
            Some(self.held(&disk.volume, other))
        })
    }

    fn held(&self, volume: &str, claim: &Claim) -> Readiness {
        let (uid, host) = (&claim.uid, &claim.assignment.host);
        match claim.holder {
            ClaimHolder::Job => fixed(
                format!(
                    "its volume {volume} is claimed by a job on host {host}: it can be moved when that is over"
                ),
                true,
            ),
            ClaimHolder::VirtualMachine => {
                let named = (self.vms.iter()).find(|vm| vm.metadata.uid.as_ref() == Some(uid));
                let holder = named.map_or_else(
                    || uid.clone(),
                    |vm| {
                        let namespace = vm.namespace().unwrap_or_default();
                        NamespacedName::new(namespace, vm.name_any()).to_string()
                    },
                );
                fixed(
                    format!(
                        "its volume {volume} is claimed by VM {holder}: detach it from one of the two"
                    ),
                    false,
                )
            }
        }
    }
}

/// A VM has one move at a time.
fn asked_for(migration: &VirtualMachineMigration) -> Readiness {
    let name = migration.name_any();
    let said = migration.status.as_ref();
    let said = said.and_then(|status| status.message.clone());
    let said = said.map_or_else(String::new, |said| format!(" ({said})"));
    fixed(
        format!(
            "its move {name}, which was asked for before, is not over{said}: wait for it, or cancel it (spec.cancel of {name})"
        ),
        true,
    )
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
