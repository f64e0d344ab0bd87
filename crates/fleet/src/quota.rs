//! A department's quota: a VM that would exceed it waits. What runs is never stopped for it, and
//! recovery is not asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Department, VirtualMachine, Volume};
use kube::ResourceExt;
use model::Bytes;
use placement::Fleet;

use crate::uid;

/// The objects that a quota speaks of.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'a> {
    /// All departments.
    pub departments: &'a [Arc<Department>],
    /// VMs of all departments.
    pub vms: &'a [Arc<VirtualMachine>],
    /// Volumes of all departments.
    pub volumes: &'a [Arc<Volume>],
}

/// A quota that would be exceeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The department.
    pub department: String,
    /// The first field of `spec.quota` that is exceeded.
    pub field: String,
    /// What would be used, with its unit.
    pub needed: String,
    /// What is allowed, with its unit.
    pub allowed: String,
}

impl Exceeded {
    /// Field, value, limit and remedy.
    pub fn english(&self) -> String {
        format!(
            "spec.quota.{} of department {}: {} would be used of {}; release something or raise the quota",
            self.field, self.department, self.needed, self.allowed
        )
    }

    /// The same in Chinese (zh-CN).
    pub fn chinese(&self) -> String {
        format!(
            "委办局 {1} 的配额 spec.quota.{0}:将使用 {2},上限 {3};请释放资源或提高配额",
            self.field, self.department, self.needed, self.allowed
        )
    }
}

impl Ledger<'_> {
    /// The quota that keeps a VM from starting; none when its department's quota holds with it.
    /// `fleet` tells which VMs hold a place, those of this turn included.
    pub fn exceeded(&self, fleet: &Fleet, vm: &VirtualMachine) -> Option<Exceeded> {
        let namespace = vm.namespace()?;
        let mut departments = self.departments.iter();
        let department = departments.find(|department| department.name_any() == namespace)?;
        let quota = department.spec.quota.as_ref()?;
        let used = self.used(fleet, vm, &namespace);
        let limit = Use {
            cpu: u64::try_from(quota.cpu).unwrap_or(0),
            memory: Bytes::parse(&quota.memory).map_or(u64::MAX, |bytes| bytes.0),
            storage: Bytes::parse(&quota.storage).map_or(u64::MAX, |bytes| bytes.0),
        };
        first_exceeded(&namespace, used, limit)
    }

    /// Everything of the namespace that holds a place, this VM, and volumes that no VM names.
    fn used(&self, fleet: &Fleet, vm: &VirtualMachine, namespace: &str) -> Use {
        let mut sum = Use::default();
        let mut waiting = BTreeSet::new();
        let asked = uid(vm);
        let own = |other: &&Arc<VirtualMachine>| other.namespace().as_deref() == Some(namespace);
        for other in self.vms.iter().filter(own) {
            let other_uid = uid(other);
            let placed = fleet.vms.get(&other_uid);
            let placed = placed.is_some_and(|known| known.host.is_some());
            if placed || other_uid == asked {
                let memory = Bytes::parse(&other.spec.memory).map_or(0, |bytes| bytes.0);
                let cpu = u64::try_from(other.spec.cpu).unwrap_or(0);
                sum.cpu = sum.cpu.saturating_add(cpu);
                sum.memory = sum.memory.saturating_add(memory);
            } else {
                waiting.extend(other.spec.disks.iter().map(|disk| disk.volume.clone()));
            }
        }
        let volumes = self.volumes.iter();
        sum.storage = volumes
            .filter(|volume| volume.namespace().as_deref() == Some(namespace))
            .filter(|volume| !waiting.contains(&volume.name_any()))
            .filter_map(|volume| Bytes::parse(&volume.spec.size).ok())
            .fold(0_u64, |all, bytes| all.saturating_add(bytes.0));
        sum
    }
}

/// What a department uses, or may use: processors, bytes of memory, bytes of volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    cpu: u64,
    memory: u64,
    storage: u64,
}

fn first_exceeded(department: &str, used: Use, limit: Use) -> Option<Exceeded> {
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
    Some(Exceeded {
        department: department.to_owned(),
        field: field.to_owned(),
        needed,
        allowed,
    })
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn typed<T: DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).expect("an object"))
    }

    #[test]
    fn the_first_exceeded_limit_is_named_with_its_remedy() {
        let limit = Use {
            cpu: 8,
            memory: 16 * GIB,
            storage: 100 * GIB,
        };
        let told = |used| first_exceeded("tourism", used, limit);
        assert_eq!(told(limit), None, "all of it may be used");
        let over = told(Use { cpu: 9, ..limit }).expect("exceeded");
        assert_eq!(
            over.english(),
            "spec.quota.cpu of department tourism: 9 would be used of 8; release something or raise the quota"
        );
        assert_eq!(
            over.chinese(),
            "委办局 tourism 的配额 spec.quota.cpu:将使用 9,上限 8;请释放资源或提高配额"
        );
        let memory = limit.memory + GIB;
        let over = told(Use { memory, ..limit }).expect("exceeded").english();
        assert!(
            over.contains("17.0 GiB would be used of 16.0 GiB"),
            "{over}"
        );
        let storage = limit.storage + GIB;
        let over = told(Use { storage, ..limit }).expect("exceeded");
        assert_eq!(over.field, "storage");
    }

    /// Another department's VMs, and the volumes of those that hold no place, do not count.
    #[test]
    fn what_holds_a_place_counts_and_what_waits_does_not() {
        let vm = |name: &str, namespace: &str, host: Value| -> Arc<VirtualMachine> {
            typed(
                json!({"metadata": {"name": name, "namespace": namespace, "uid": name},
                "spec": {"cpu": 2, "memory": "4Gi", "image": "i", "networks": [],
                    "disks": [{"name": "system", "volume": format!("{name}-system")}]},
                "status": {"assignment": host}}),
            )
        };
        let placed = || json!({"host": "h1", "bootId": "b", "epoch": 1});
        let vms = [
            vm("runs", "tourism", placed()),
            vm("waits", "tourism", Value::Null),
            vm("new", "tourism", Value::Null),
            vm("other", "finance", placed()),
        ];
        let volume = |of: &str| -> Arc<Volume> {
            typed(
                json!({"metadata": {"name": format!("{of}-system"), "namespace": "tourism"},
                "spec": {"pool": "shared", "size": "10Gi"}}),
            )
        };
        let volumes = ["runs", "waits", "new"].map(volume);
        let objects = crate::Objects {
            vms: vms.to_vec(),
            volumes: volumes.to_vec(),
            ..crate::Objects::default()
        };
        let fleet = objects.fleet(|_| None);
        let field = |cpu: i32, storage: &str| {
            let department: Arc<Department> = typed(json!({"metadata": {"name": "tourism"},
                "spec": {"displayName": "d", "quota": {"cpu": cpu, "memory": "64Gi", "storage": storage}}}));
            let ledger = Ledger {
                departments: &[department],
                vms: &vms,
                volumes: &volumes,
            };
            let exceeded = ledger.exceeded(&fleet, &vms[2]);
            exceeded.map(|exceeded| (exceeded.field, exceeded.needed))
        };
        assert_eq!(field(4, "20Gi"), None);
        assert_eq!(field(3, "20Gi"), Some(("cpu".to_owned(), "4".to_owned())));
        let storage = ("storage".to_owned(), "20.0 GiB".to_owned());
        assert_eq!(field(4, "19Gi"), Some(storage));
    }
}
