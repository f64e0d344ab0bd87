//! How a story is written: `fleet.yaml` of a scenario. Memory in GiB; whatever is left out has
//! the usual value.

use std::collections::{BTreeMap, BTreeSet};

use model::{Architecture, HostName, NamespacedName, Priority, VmUid, Zone};
use placement::{Domain, Fleet, Host, Limits, Pool, Relation, Rules, Side, StorageRoom, Vm};
use serde::Deserialize;

pub const GIB: u64 = 1 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(default)]
    pub pools: BTreeMap<String, PoolText>,
    pub hosts: BTreeMap<String, HostText>,
    pub vms: BTreeMap<String, VmText>,
    /// Room of storage pools for new volumes, GiB.
    #[serde(default)]
    pub storage: BTreeMap<String, StorageText>,
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    pub ask: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum StorageText {
    Shared(u64),
    PerHost(BTreeMap<String, u64>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolText {
    pub zones: BTreeSet<Zone>,
    pub architecture: Architecture,
    pub cpu_percent: u64,
    /// Processor model that every VM is started with.
    pub model: Option<String>,
    pub failures: u32,
    pub grade: i32,
}

impl Default for PoolText {
    fn default() -> Self {
        Self {
            zones: BTreeSet::from([Zone::Common]),
            architecture: Architecture::x86_64,
            cpu_percent: 400,
            model: None,
            failures: 1,
            grade: 3,
        }
    }
}

/// Memory in GiB.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostText {
    pub pool: String,
    pub cpu: u64,
    pub memory: u64,
    pub closed: Option<String>,
    /// It has failed, and its VMs are being recovered.
    pub lost: bool,
    pub storage: BTreeSet<String>,
    /// It has a tunnel end point.
    pub tunnels: bool,
    /// Networks that it says it can not carry.
    pub unready: BTreeSet<String>,
    /// Processor models that it offers.
    pub models: Option<BTreeSet<String>>,
    pub rack: Option<String>,
    /// GiB per second.
    pub link: u64,
}

impl Default for HostText {
    fn default() -> Self {
        Self {
            pool: "main".into(),
            cpu: 16,
            memory: 32,
            closed: None,
            lost: false,
            storage: BTreeSet::from(["shared".into()]),
            tunnels: true,
            unready: BTreeSet::new(),
            models: None,
            rack: None,
            link: 1,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmText {
    pub cpu: u64,
    pub memory: u64,
    pub on: Option<String>,
    pub to: Option<String>,
    pub zones: BTreeSet<Zone>,
    pub networks: BTreeSet<String>,
    /// One of its networks is a VXLAN.
    pub tunnels: bool,
    pub architecture: Architecture,
    /// Processor model that its running copy sees.
    pub runs_with: Option<String>,
    pub storage: BTreeSet<String>,
    /// Volumes that are not made yet, GiB by storage pool.
    pub new_volumes: BTreeMap<String, u64>,
    pub pinned: Option<String>,
    pub grade: i32,
    pub apart: Option<String>,
    /// Apart over racks.
    pub racks: Option<String>,
    /// Asks to be apart from who is named by that.
    pub avoids: Option<String>,
    pub named: Option<String>,
    pub together: Option<String>,
    pub rather_apart: Option<String>,
    pub rather_together: Option<String>,
    pub contradiction: Option<String>,
    pub restarts: bool,
    pub priority: Priority,
    /// MiB written per second.
    pub dirty: u64,
    pub moved_minutes_ago: Option<u64>,
    /// Why it can not move now.
    pub fixed: Option<String>,
    /// It does not run and keeps its seat.
    pub idle: bool,
}

impl Default for VmText {
    fn default() -> Self {
        Self {
            cpu: 2,
            memory: 8,
            on: None,
            to: None,
            zones: BTreeSet::from([Zone::Common]),
            networks: BTreeSet::new(),
            tunnels: true,
            architecture: Architecture::x86_64,
            runs_with: None,
            storage: BTreeSet::from(["shared".into()]),
            new_volumes: BTreeMap::new(),
            pinned: None,
            grade: 2,
            apart: None,
            racks: None,
            avoids: None,
            named: None,
            together: None,
            rather_apart: None,
            rather_together: None,
            contradiction: None,
            restarts: true,
            priority: Priority::Normal,
            dirty: 0,
            moved_minutes_ago: None,
            fixed: None,
            idle: false,
        }
    }
}

impl VmText {
    fn rules(&self) -> Rules {
        let relation = |name: &Option<String>, over, side| {
            let name = name.clone();
            name.map(|rule| Relation { rule, over, side })
        };
        let parts = [
            relation(&self.apart, Domain::Host, Side::Every),
            relation(&self.racks, Domain::Rack, Side::Every),
            relation(&self.avoids, Domain::Host, Side::Asks),
            relation(&self.named, Domain::Host, Side::Named),
        ];
        let wish = |name| {
            relation(name, Domain::Host, Side::Every)
                .into_iter()
                .collect()
        };
        Rules {
            apart: parts.into_iter().flatten().collect(),
            together: self.together.clone(),
            rather_apart: wish(&self.rather_apart),
            rather_together: wish(&self.rather_together),
            contradiction: self.contradiction.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Place(String),
    /// A new VM, which must leave N+1 proven.
    Admit(String),
    Batch(Vec<String>),
    Headroom(String),
    RoomLeft(Vec<(String, u64, u64)>),
    Evacuate(BTreeSet<String>),
    Balance(String),
    Consolidate(String),
}

impl Scenario {
    pub fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::default();
        let standard = PoolText::default();
        let pools = self.pools.iter().map(|(name, pool)| (name.as_str(), pool));
        for (name, pool) in [("main", &standard)].into_iter().chain(pools) {
            fleet.pools.insert(
                name.into(),
                Pool {
                    zones: pool.zones.clone(),
                    architecture: pool.architecture,
                    cpu_model: pool.model.clone(),
                    cpu_overcommit_percent: pool.cpu_percent,
                    memory_overcommit_percent: 100,
                    failures_to_tolerate: pool.failures,
                    mlps_grade: pool.grade,
                },
            );
        }
        for (name, host) in &self.hosts {
            let rack = host.rack.iter().cloned();
            fleet
                .racks
                .extend(rack.map(|rack| (HostName(name.clone()), rack)));
            fleet.hosts.insert(
                HostName(name.clone()),
                Host {
                    pool: host.pool.clone(),
                    closed: host.closed.clone(),
                    stands: host.closed.is_none(),
                    may_fail: !host.lost,
                    cpu: host.cpu,
                    memory_bytes: host.memory * GIB,
                    storage_pools: host.storage.clone(),
                    has_tunnels: host.tunnels,
                    unready_networks: host.unready.clone(),
                    cpu_models: host.models.clone(),
                },
            );
        }
        for (name, room) in &self.storage {
            let room = match room {
                StorageText::Shared(size) => StorageRoom::Shared(size * GIB),
                StorageText::PerHost(hosts) => {
                    let hosts = hosts.iter();
                    let hosts = hosts.map(|(host, size)| (HostName(host.clone()), size * GIB));
                    StorageRoom::PerHost(hosts.collect())
                }
            };
            fleet.storage.insert(name.clone(), room);
        }
        for (name, vm) in &self.vms {
            fleet.vms.insert(
                VmUid(name.clone()),
                Box::new(Vm {
                    name: NamespacedName::new("story", name),
                    cpu: vm.cpu,
                    memory_bytes: vm.memory * GIB,
                    zones: vm.zones.clone(),
                    networks: vm.networks.clone().into(),
                    needs_tunnels: vm.tunnels,
                    architecture: vm.architecture,
                    runs_with: vm.runs_with.iter().cloned().collect(),
                    storage_pools: vm.storage.clone().into(),
                    new_volumes: vm
                        .new_volumes
                        .iter()
                        .map(|(pool, size)| (pool.clone(), size * GIB))
                        .collect(),
                    pinned_to: vm.pinned.clone().map(HostName),
                    mlps_grade: vm.grade,
                    rules: vm.rules(),
                    restarts_elsewhere: vm.restarts,
                    host: vm.on.clone().map(HostName),
                    incoming: vm.to.clone().map(HostName),
                }),
            );
        }
        fleet
    }

    pub fn limits(&self) -> Limits {
        Limits {
            links: self
                .hosts
                .iter()
                .map(|(name, host)| (HostName(name.clone()), host.link * GIB))
                .collect(),
            ..Limits::default()
        }
    }

    pub fn dirty(&self) -> BTreeMap<VmUid, u64> {
        self.vms
            .iter()
            .map(|(name, vm)| (VmUid(name.clone()), vm.dirty << 20))
            .collect()
    }
}
