//! The door from API objects to the `Fleet` that `placement` reads: one translation for the
//! operator, which decides, and for the command line, which asks what would happen.
//!
//! May not live here: reading the API, decisions, clocks.

#![forbid(unsafe_code)]

pub mod affinity;
#[cfg(test)]
mod network_tests;
pub mod processor;
pub mod quota;
pub mod readiness;
pub mod snapshot;
pub mod storage;
pub mod system;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{
    CloudPolicySpec, HighAvailability, Host, HostPool, HostState, Image, Network, StoragePool,
    VirtualMachine, VirtualMachineMigration, Volume,
};
use kube::ResourceExt;
use model::{Architecture, Bytes, HostName, NamespacedName, VmUid};
use placement::{EvacuationRequest, Fleet, Names, Rules};

use readiness::{Others, Readiness};
use transfer::Transfer;

/// Label of a host that names its rack, where `spec.rack` does not; a rack is a failure domain.
pub const LABEL_RACK: &str = "topology.kubernetes.io/rack";

/// The size of a VM that can not be read: it fits nowhere. The API server's schema keeps it out.
const ENORMOUS: u64 = u64::MAX / 4;

/// The objects that a fleet is made of.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Host pools.
    pub host_pools: Vec<Arc<HostPool>>,
    /// Hosts.
    pub hosts: Vec<Arc<Host>>,
    /// VMs of all departments.
    pub vms: Vec<Arc<VirtualMachine>>,
    /// Volumes of all departments.
    pub volumes: Vec<Arc<Volume>>,
    /// Networks.
    pub networks: Vec<Arc<Network>>,
    /// Images.
    pub images: Vec<Arc<Image>>,
    /// Storage pools.
    pub storage_pools: Vec<Arc<StoragePool>>,
}

/// What keeps new VMs from a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why nothing may be placed there now.
    pub why: String,
    /// It is lost: what it carried is recovered elsewhere or waits for it, and its failure is no longer to be feared.
    pub lost: bool,
}

impl Objects {
    /// The fleet. `closed` says what keeps new VMs from a host now; none when nothing does.
    pub fn fleet(&self, closed: impl Fn(&Host) -> Option<Closed>) -> Fleet {
        let mut fleet = Fleet::default();
        for object in &self.host_pools {
            fleet.pools.insert(object.name_any(), pool(object));
        }
        let models = processor::Models::of(self);
        for object in &self.hosts {
            let name = HostName(object.name_any());
            if let Some(mut host) = host(object, closed(object)) {
                host.cpu_models = models.offered_by(object);
                fleet.hosts.insert(name.clone(), host);
            }
            if let Some(rack) = rack_of(object) {
                fleet.racks.insert(name, rack.clone());
            }
        }
        fleet.vms = self.virtual_machines(&models);
        fleet.storage = storage::rooms(self);
        fleet
    }

    /// The VMs, each with what its volumes, networks and image say of it, and its part in rules
    /// about others.
    fn virtual_machines(
        &self,
        models: &processor::Models<'_>,
    ) -> BTreeMap<VmUid, Box<placement::Vm>> {
        let index = Index::of(self);
        let mut rules = affinity::read(&self.vms).rules;
        let vms = self.vms.iter().map(|object| {
            let uid = uid(object);
            let rules = rules.remove(&uid).unwrap_or_default();
            let mut vm = index.vm(object, rules);
            vm.runs_with = models.running(object).into_iter().collect();
            (uid, Box::new(vm))
        });
        vms.collect()
    }

    /// VMs that can not be moved now for the sake of load: those that do not run, or that somebody else does something
    /// with, as for [`Self::evacuation`]. A move that was made to even out load keeps no VM from the next plan.
    pub fn fixed(&self, migrations: &[Arc<VirtualMachineMigration>]) -> BTreeSet<VmUid> {
        Others::fixed(self, migrations)
    }

    /// VMs that do not run and only keep their seat on a host, as for [`Self::evacuation`]: there is nothing to move, and
    /// where the host fails they stay shut down.
    pub fn idle(&self, migrations: &[Arc<VirtualMachineMigration>]) -> BTreeSet<VmUid> {
        let others = Others::of(self, migrations);
        let all = self.vms.iter();
        all.filter(|vm| others.readiness(vm) == Readiness::Idle)
            .map(|vm| uid(vm))
            .collect()
    }

    /// What emptying hosts has to respect: who leaves first, who can not move now and why, what the site's policy
    /// allows, and what moves are bounded by.
    pub fn evacuation(
        &self,
        policy: &CloudPolicySpec,
        hosts: BTreeSet<HostName>,
        migrations: &[Arc<VirtualMachineMigration>],
    ) -> EvacuationRequest {
        let others = Others::of(self, migrations);
        let (mut fixed, mut idle) = (BTreeMap::new(), BTreeSet::new());
        for vm in &self.vms {
            match others.readiness(vm) {
                Readiness::Movable => {}
                Readiness::Idle => {
                    idle.insert(uid(vm));
                }
                Readiness::Fixed { why, .. } => {
                    fixed.insert(uid(vm), why);
                }
            }
        }
        let Transfer {
            limits,
            dirty_bytes_per_second,
        } = self.transfer(policy);
        EvacuationRequest {
            hosts,
            limits,
            dirty_bytes_per_second,
            fixed,
            idle,
            priorities: self
                .vms
                .iter()
                .map(|vm| (uid(vm), vm.spec.priority))
                .collect(),
            ..EvacuationRequest::default()
        }
    }
}

/// Objects by name: each VM is looked up in constant time.
struct Index<'a> {
    volumes: VolumesByName<'a>,
    networks: BTreeMap<&'a str, &'a Network>,
    images: BTreeMap<&'a str, &'a Image>,
}

/// Volumes by namespace and name.
type VolumesByName<'a> = BTreeMap<(&'a str, &'a str), &'a Volume>;

fn by_name(volumes: &[Arc<Volume>]) -> VolumesByName<'_> {
    let named = volumes.iter().map(|volume| {
        let namespace = volume.metadata.namespace.as_deref().unwrap_or_default();
        ((namespace, name(volume.as_ref())), volume.as_ref())
    });
    named.collect()
}

/// Name of an object; every object from the API has one.
fn name<K: kube::Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

impl<'a> Index<'a> {
    fn of(objects: &'a Objects) -> Self {
        Self {
            volumes: by_name(&objects.volumes),
            networks: objects
                .networks
                .iter()
                .map(|network| (name(network.as_ref()), network.as_ref()))
                .collect(),
            images: objects
                .images
                .iter()
                .map(|image| (name(image.as_ref()), image.as_ref()))
                .collect(),
        }
    }

    fn vm(&self, object: &VirtualMachine, rules: Rules) -> placement::Vm {
        let namespace = object.namespace().unwrap_or_default();
        let status = object.status.as_ref();
        let networks = object.spec.networks.iter();
        let networks: Vec<&&Network> = networks
            .filter_map(|name| self.networks.get(name.as_str()))
            .collect();
        let image = self.images.get(object.spec.image.as_str());
        let disks = object.spec.disks.iter();
        let volumes: Vec<&&Volume> = disks
            .filter_map(|disk| {
                let key = (namespace.as_str(), disk.volume.as_str());
                self.volumes.get(&key)
            })
            .collect();
        placement::Vm {
            name: NamespacedName::new(namespace.as_str(), object.name_any()),
            cpu: u64::try_from(object.spec.cpu).unwrap_or(ENORMOUS),
            memory_bytes: Bytes::parse(&object.spec.memory).map_or(ENORMOUS, |bytes| bytes.0),
            zones: networks.iter().map(|network| network.spec.zone).collect(),
            networks: object.spec.networks.iter().cloned().collect(),
            // A VLAN needs only the business NIC.
            needs_tunnels: networks.iter().any(|network| network.spec.vxlan.is_some()),
            architecture: image.map_or(Architecture::x86_64, |image| image.spec.architecture),
            runs_with: Names::default(),
            storage_pools: volumes
                .iter()
                .map(|volume| volume.spec.pool.clone())
                .collect(),
            new_volumes: new_volumes(&volumes),
            pinned_to: volumes
                .iter()
                .find_map(|volume| volume.status.as_ref()?.pinned_host.clone())
                .map(HostName),
            mlps_grade: object.spec.mlps_grade,
            rules,
            restarts_elsewhere: object.spec.high_availability == HighAvailability::Restart,
            host: status
                .and_then(|status| status.assignment.as_ref())
                .map(|assignment| assignment.host.clone()),
            incoming: status
                .and_then(|status| status.incoming.as_ref())
                .map(|incoming| incoming.host.clone()),
        }
    }
}

/// Bytes of volumes that no host was told to make yet, by storage pool.
fn new_volumes(volumes: &[&&Volume]) -> BTreeMap<String, u64> {
    let mut new: BTreeMap<String, u64> = BTreeMap::new();
    for volume in volumes
        .iter()
        .filter(|volume| !storage::is_promised(volume))
    {
        let sum = new.entry(volume.spec.pool.clone()).or_default();
        *sum = sum.saturating_add(storage::size(volume));
    }
    new
}

/// When each VM last moved or failed to, seconds of the Unix epoch: a move that ended counts
/// however it ended, so that what does not work is not tried again at once.
pub fn moved_at(
    vms: &[Arc<VirtualMachine>],
    migrations: &[Arc<VirtualMachineMigration>],
) -> BTreeMap<VmUid, u64> {
    let key = |namespace: Option<String>, name: String| (namespace.unwrap_or_default(), name);
    let mut ended = BTreeMap::new();
    for migration in migrations {
        let status = migration.status.as_ref();
        let at = status.and_then(|status| status.finished_at.as_ref());
        if let Some(at) = at.and_then(|at| u64::try_from(at.0.as_second()).ok()) {
            let vm = key(
                migration.namespace(),
                migration.spec.virtual_machine.clone(),
            );
            let last = ended.entry(vm).or_insert(at);
            *last = at.max(*last);
        }
    }
    let moved = vms.iter().filter_map(|vm| {
        let at = ended.get(&key(vm.namespace(), vm.name_any()))?;
        Some((uid(vm), *at))
    });
    moved.collect()
}

/// A VM's uid.
pub fn uid(vm: &VirtualMachine) -> VmUid {
    VmUid(vm.metadata.uid.clone().unwrap_or_default())
}

fn pool(object: &HostPool) -> placement::Pool {
    let number = |value: i32| u64::try_from(value).unwrap_or(0);
    placement::Pool {
        zones: object.spec.zones.iter().copied().collect(),
        architecture: object.spec.architecture,
        cpu_model: object.spec.cpu_model.clone(),
        cpu_overcommit_percent: number(object.spec.cpu_overcommit_percent),
        memory_overcommit_percent: number(object.spec.memory_overcommit_percent),
        failures_to_tolerate: u32::try_from(object.spec.failures_to_tolerate).unwrap_or(0),
        mlps_grade: object.spec.mlps_grade,
    }
}

/// A host that has reported; one that never did offers nothing.
fn host(object: &Host, closed: Option<Closed>) -> Option<placement::Host> {
    let reported = object.reported()?;
    Some(placement::Host {
        pool: object.spec.pool.clone(),
        stands: closed.is_none(),
        may_fail: closed.as_ref().is_none_or(|closed| !closed.lost),
        closed: closed
            .map(|closed| closed.why)
            .or_else(|| reported.starts_forbidden.clone()),
        cpu: u64::try_from(reported.capacity.cpu).unwrap_or(0),
        memory_bytes: Bytes::parse(&reported.capacity.memory).map_or(0, |bytes| bytes.0),
        storage_pools: reported
            .storage_pools
            .iter()
            .filter(|pool| pool.state != "Lost")
            .map(|pool| pool.name.clone())
            .collect(),
        has_tunnels: reported.vtep_address.is_some(),
        // An agent reports only networks whose bridge stands: one that it does not name is built when it is needed.
        unready_networks: reported
            .networks
            .iter()
            .filter(|network| !network.ready)
            .map(|network| network.name.clone())
            .collect(),
        cpu_models: None,
    })
}

/// The rack that a host declares: `spec.rack`, else its label.
pub fn rack_of(host: &Host) -> Option<&String> {
    let declared = host.spec.rack.as_ref();
    declared.or_else(|| host.labels().get(LABEL_RACK))
}

/// What keeps new VMs from a host, as the operator's `Schedulable` condition and the host's state tell it.
pub fn closed_by_condition(host: &Host) -> Option<Closed> {
    let status = host.status.as_ref()?;
    let schedulable = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Schedulable")?;
    (schedulable.status != "True").then(|| Closed {
        why: schedulable.message.clone(),
        lost: matches!(
            status.state,
            Some(HostState::Unreachable | HostState::Fencing | HostState::Fenced)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_vm_whose_size_can_not_be_read_fits_nowhere() {
        let size = |cpu: i32, memory: &str| {
            let vm = json!({"metadata": {"name": "a", "namespace": "oa", "uid": "a"},
                "spec": {"cpu": cpu, "memory": memory, "image": "i", "disks": [], "networks": []}});
            let objects = Objects {
                vms: vec![Arc::new(serde_json::from_value(vm).expect("a VM"))],
                ..Objects::default()
            };
            let fleet = objects.fleet(|_| None);
            let vm = &fleet.vms[&VmUid("a".into())];
            (vm.cpu, vm.memory_bytes)
        };
        assert_eq!(size(2, "1Gi"), (2, 1 << 30));
        assert_eq!(size(-1, "much"), (ENORMOUS, ENORMOUS));
    }

    #[test]
    fn a_closed_host_may_fail_until_it_is_lost() {
        let host = |state: &str| -> Arc<Host> {
            let condition = json!({"type": "Schedulable", "status": "False", "reason": state, "message": "why",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let value = json!({
                "metadata": {"name": state},
                "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
                "status": {"state": state, "conditions": [condition], "reported": {
                    "incarnation": {"bootId": "b", "systemUuid": "u"}, "domainType": "kvm",
                    "capacity": {"cpu": 16, "memory": "64Gi"}, "cpuModel": "m", "architecture": "x86_64",
                    "storagePools": []}}
            });
            Arc::new(serde_json::from_value(value).expect("a host"))
        };
        let states = [
            ("Quarantined", true),
            ("Maintenance", true),
            ("Suspect", true),
            ("Unreachable", false),
            ("Fencing", false),
            ("Fenced", false),
        ];
        let objects = Objects {
            hosts: states.iter().map(|(state, _)| host(state)).collect(),
            ..Objects::default()
        };
        let fleet = objects.fleet(closed_by_condition);
        for (state, may_fail) in states {
            let host = &fleet.hosts[&HostName::from(state)];
            assert_eq!(host.closed.as_deref(), Some("why"), "{state}");
            assert_eq!((host.stands, host.may_fail), (false, may_fail), "{state}");
        }
    }
}
