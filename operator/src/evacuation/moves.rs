//! The moves that there are, by VM and by name: who begins many reads them once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{VirtualMachine, VirtualMachineMigration};
use fleet::readiness::ended;

/// The moves of a site.
pub struct Moves<'a> {
    by_vm: BTreeMap<(&'a str, &'a str), Vec<&'a Arc<VirtualMachineMigration>>>,
    /// With their namespaces.
    names: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Moves<'a> {
    /// Of these objects.
    pub fn of(migrations: &'a [Arc<VirtualMachineMigration>]) -> Self {
        let mut by_vm: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for migration in migrations {
            let namespace = migration.metadata.namespace.as_deref().unwrap_or_default();
            let vm = migration.spec.virtual_machine.as_str();
            by_vm.entry((namespace, vm)).or_default().push(migration);
            names.extend(
                migration
                    .metadata
                    .name
                    .as_deref()
                    .map(|name| (namespace, name)),
            );
        }
        Self { by_vm, names }
    }

    /// Of one VM.
    pub(super) fn of_vm<'b>(
        &'b self,
        vm: &'b VirtualMachine,
    ) -> &'b [&'b Arc<VirtualMachineMigration>] {
        let metadata = &vm.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        self.by_vm
            .get(&(namespace, name))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether one of a VM's is not over.
    pub fn moves(&self, vm: &VirtualMachine) -> bool {
        self.of_vm(vm).iter().any(|migration| !ended(migration))
    }

    /// The number after the highest that a move of this name has: some may have been deleted, whoever they are of.
    pub(super) fn next(&self, vm: &VirtualMachine, prefix: &str) -> u64 {
        let namespace = vm.metadata.namespace.as_deref().unwrap_or_default();
        let from = self.names.range((namespace, prefix)..);
        let numbers = from
            .map_while(|(of, name)| name.strip_prefix(prefix).filter(|_| *of == namespace))
            .filter_map(|number| number.parse::<u32>().ok());
        numbers.max().map_or(0, |highest| u64::from(highest) + 1)
    }
}
