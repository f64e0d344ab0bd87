//! An independent judge of a fleet: every rule written anew against the objects, sharing no code
//! with the filters.

use std::collections::BTreeMap;

use model::{HostName, VmUid};

use crate::fleet::Fleet;

/// A rule that a fleet breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A host carries more than it has.
    Overloaded(HostName),
    /// Two VMs that must be apart are together.
    Together(VmUid, VmUid),
    /// A VM is where a rule forbids it.
    Misplaced(VmUid, &'static str),
}

/// Judges every VM and host.
pub fn lint(fleet: &Fleet) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut load: BTreeMap<&HostName, (u64, u64)> = BTreeMap::new();
    for (uid, vm) in &fleet.vms {
        for name in vm.host.iter().chain(&vm.incoming) {
            let sum = load.entry(name).or_default();
            *sum = (sum.0 + vm.cpu, sum.1 + vm.memory_bytes);
            let Some(host) = fleet.hosts.get(name) else {
                continue;
            };
            let Some(pool) = fleet.pools.get(&host.pool) else {
                violations.push(Violation::Misplaced(uid.clone(), "pool"));
                continue;
            };
            for (broken, rule) in [
                (
                    vm.zones.iter().any(|zone| !pool.zones.contains(zone)),
                    "zone",
                ),
                (vm.architecture != pool.architecture, "architecture"),
                (vm.mlps_grade > pool.mlps_grade, "grade"),
                (
                    vm.storage_pools
                        .iter()
                        .any(|pool| !host.storage_pools.contains(pool)),
                    "storage",
                ),
                (
                    vm.pinned_to.as_ref().is_some_and(|pinned| pinned != name),
                    "pinned",
                ),
            ] {
                if broken {
                    violations.push(Violation::Misplaced(uid.clone(), rule));
                }
            }
        }
        for (other, there) in fleet.vms.range(uid.clone()..).skip(1) {
            let places = |vm: &crate::Vm| {
                vm.host
                    .iter()
                    .chain(&vm.incoming)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let shared = places(vm).iter().any(|place| places(there).contains(place));
            if vm.apart.is_some() && vm.apart == there.apart && shared {
                violations.push(Violation::Together(uid.clone(), other.clone()));
            }
        }
    }
    for (name, (cpu, memory)) in load {
        let Some((host, pool)) = fleet
            .hosts
            .get(name)
            .and_then(|host| Some((host, fleet.pools.get(&host.pool)?)))
        else {
            continue;
        };
        if cpu * 100 > host.cpu * pool.cpu_overcommit_percent
            || memory > host.memory_bytes / 100 * pool.memory_overcommit_percent
        {
            violations.push(Violation::Overloaded(name.clone()));
        }
    }
    violations
}
