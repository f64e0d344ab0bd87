//! A department's quota: a VM that would exceed it waits. What runs is never stopped for it, and
//! recovery is not asked.

use std::collections::BTreeSet;

use api::VirtualMachine;
use kube::ResourceExt;
use model::Bytes;
use placement::Fleet;

use crate::door;
use crate::runtime::Context;

/// Why a VM may not start: field, value, limit and remedy; none when its department's quota holds
/// with it. `fleet` tells which VMs hold a place, those of this turn included.
pub fn exceeded(context: &Context, fleet: &Fleet, vm: &VirtualMachine) -> Option<String> {
    let namespace = vm.namespace()?;
    let department = context
        .stores
        .departments
        .state()
        .into_iter()
        .find(|department| department.name_any() == namespace)?;
    let quota = department.spec.quota.clone()?;
    let used = used(context, fleet, vm, &namespace);
    let limit = Use {
        cpu: u64::try_from(quota.cpu).unwrap_or(0),
        memory: Bytes::parse(&quota.memory).map_or(u64::MAX, |bytes| bytes.0),
        storage: Bytes::parse(&quota.storage).map_or(u64::MAX, |bytes| bytes.0),
    };
    sentence(&department.name_any(), used, limit)
}

/// What a department uses, or may use: processors, bytes of memory, bytes of volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    cpu: u64,
    memory: u64,
    storage: u64,
}

fn sentence(department: &str, used: Use, limit: Use) -> Option<String> {
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let (field, needed, allowed) = if used.cpu > limit.cpu {
        ("cpu", used.cpu.to_string(), limit.cpu.to_string())
    } else if used.memory > limit.memory {
        ("memory", gibibytes(used.memory), gibibytes(limit.memory))
    } else if used.storage > limit.storage {
        ("storage", gibibytes(used.storage), gibibytes(limit.storage))
    } else {
        return None;
    };
    Some(format!(
        "spec.quota.{field} of department {department}: {needed} would be used of {allowed}; release something or raise the quota"
    ))
}

/// Everything of the namespace that holds a place, this VM, and volumes that no VM names.
fn used(context: &Context, fleet: &Fleet, vm: &VirtualMachine, namespace: &str) -> Use {
    let mut sum = Use::default();
    let mut waiting = BTreeSet::new();
    for other in context
        .stores
        .vms
        .state()
        .iter()
        .filter(|other| other.namespace().as_deref() == Some(namespace))
    {
        let placed = fleet
            .vms
            .get(&door::uid(other))
            .is_some_and(|known| known.host.is_some());
        if placed || door::uid(other) == door::uid(vm) {
            sum.cpu += u64::try_from(other.spec.cpu).unwrap_or(0);
            sum.memory += Bytes::parse(&other.spec.memory).map_or(0, |bytes| bytes.0);
        } else {
            waiting.extend(other.spec.disks.iter().map(|disk| disk.volume.clone()));
        }
    }
    sum.storage = context
        .stores
        .volumes
        .state()
        .iter()
        .filter(|volume| volume.namespace().as_deref() == Some(namespace))
        .filter(|volume| !waiting.contains(&volume.name_any()))
        .filter_map(|volume| Bytes::parse(&volume.spec.size).ok())
        .map(|bytes| bytes.0)
        .sum();
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_exceeded_limit_is_named_with_its_remedy() {
        let limit = Use {
            cpu: 8,
            memory: 16 << 30,
            storage: 100 << 30,
        };
        assert_eq!(
            sentence("tourism", limit, limit),
            None,
            "all of it may be used"
        );
        let over = Use { cpu: 9, ..limit };
        assert_eq!(
            sentence("tourism", over, limit).expect("exceeded"),
            "spec.quota.cpu of department tourism: 9 would be used of 8; release something or raise the quota"
        );
        let over = Use {
            memory: limit.memory + (1 << 30),
            ..limit
        };
        assert!(
            sentence("tourism", over, limit)
                .expect("exceeded")
                .contains("17.0 GiB would be used of 16.0 GiB")
        );
    }
}
