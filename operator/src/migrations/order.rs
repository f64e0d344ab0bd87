//! Which move begins first, and how many may be under way at once: on a host and in the site.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{MigrationPolicy, VirtualMachine, VirtualMachineMigration};
use kube::ResourceExt;
use model::{HostName, Priority};
use placement::Fleet;

use super::ended;
use crate::door;
use crate::evacuation::Evacuations;

/// Namespace and name of a VM.
pub(super) type VmKey = (Option<String>, String);

/// VMs by namespace and name.
pub(super) type Vms<'a> = BTreeMap<VmKey, &'a Arc<VirtualMachine>>;

/// The VM that a move concerns.
pub(super) fn vm_of(migration: &VirtualMachineMigration) -> VmKey {
    let vm = migration.spec.virtual_machine.clone();
    (migration.namespace(), vm)
}

/// Source and target of a move that has begun.
pub(super) fn sides(migration: &VirtualMachineMigration) -> Option<[&HostName; 2]> {
    let status = migration.status.as_ref()?;
    let (source, target) = (&status.source_assignment, &status.target_assignment);
    Some([&source.as_ref()?.host, &target.as_ref()?.host])
}

/// The moves that are not over with their VMs, in the order in which they begin where not all can at once: the
/// most urgent first, then as the plan of an evacuation has them, then the oldest.
pub(super) fn in_order<'a>(
    migrations: &'a [Arc<VirtualMachineMigration>],
    vms: &Vms<'a>,
    evacuations: &Evacuations,
) -> Vec<(
    &'a Arc<VirtualMachineMigration>,
    Option<&'a Arc<VirtualMachine>>,
)> {
    let open = migrations.iter().filter(|migration| !ended(migration));
    let mut open: Vec<_> = open
        .map(|migration| {
            let vm = vms.get(&vm_of(migration)).copied();
            (migration, vm)
        })
        .collect();
    open.sort_by_cached_key(|(migration, vm)| {
        let planned = vm.and_then(|vm| evacuations.turn_of(&door::uid(vm)));
        let own = vm.map_or(Priority::Low, |vm| vm.spec.priority);
        let (urgency, place) = planned.unwrap_or((own, usize::MAX));
        let made = migration.metadata.creation_timestamp.as_ref();
        let made = made.map_or(jiff::Timestamp::MAX, |at| at.0);
        (
            urgency,
            place,
            made,
            migration.namespace(),
            migration.name_any(),
        )
    });
    open
}

/// Moves that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Sent or received, by host.
    hosts: BTreeMap<HostName, i32>,
    vms: BTreeSet<VmKey>,
    /// VMs that were sent on their way and whose moves the caches do not show begun yet.
    sent: BTreeSet<VmKey>,
    site: i32,
}

impl Load {
    /// Those that have begun and are not over.
    pub(super) fn of(migrations: &[Arc<VirtualMachineMigration>]) -> Self {
        let mut load = Self::default();
        for migration in migrations.iter().filter(|migration| !ended(migration)) {
            if let Some(hosts) = sides(migration) {
                load.begin(migration, hosts);
            }
        }
        load
    }

    /// VMs that arrive somewhere by the fleet in memory, which knows what was written a moment ago.
    pub(super) fn send(&mut self, vms: &Vms, fleet: &Fleet) {
        for (key, vm) in vms {
            let known = fleet.vms.get(&door::uid(vm));
            let sides = known.and_then(|vm| vm.host.as_ref().zip(vm.incoming.as_ref()));
            if let Some((source, target)) = sides.filter(|_| !self.vms.contains(key)) {
                self.sent.insert(key.clone());
                self.count([source, target]);
            }
        }
    }

    /// One more between these hosts.
    pub(super) fn begin(&mut self, migration: &VirtualMachineMigration, hosts: [&HostName; 2]) {
        let vm = vm_of(migration);
        if !self.sent.remove(&vm) {
            self.count(hosts);
        }
        self.vms.insert(vm);
    }

    fn count(&mut self, hosts: [&HostName; 2]) {
        for host in hosts {
            *self.hosts.entry(host.clone()).or_insert(0) += 1;
        }
        self.site += 1;
    }

    /// Whether a move of this one's VM has begun and is not over.
    pub(super) fn moves(&self, migration: &VirtualMachineMigration) -> bool {
        self.vms.contains(&vm_of(migration))
    }

    /// Why no more may begin on a host.
    pub(super) fn host_full(&self, limits: &MigrationPolicy, host: &HostName) -> Option<String> {
        let limit = limits.per_host;
        let full = self.hosts.get(host).is_some_and(|moves| *moves >= limit);
        full.then(|| format!("host {host} sends and receives {limit} VMs already"))
    }

    /// Why none may begin between these hosts now; `target`: the one that is named, if one is.
    pub(super) fn full(
        &self,
        limits: &MigrationPolicy,
        source: &HostName,
        target: Option<&str>,
    ) -> Option<String> {
        let limit = limits.per_site;
        if self.site >= limit {
            return Some(format!("{limit} VMs of the site move already"));
        }
        let target = target.map(HostName::from);
        [Some(source), target.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|host| self.host_full(limits, host))
    }
}
