//! Random fleets for the property tests.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use model::{Architecture, HostName, NamespacedName, VmUid, Zone};
use placement::{Domain, Fleet, Host, Names, Pool, Relation, Rules, Side, StorageRoom, Vm};
use proptest::prelude::*;

pub const GIB: u64 = 1 << 30;

pub fn pool(architecture: Architecture, zones: &[Zone], grade: i32) -> Pool {
    Pool {
        zones: zones.iter().copied().collect(),
        architecture,
        cpu_model: None,
        cpu_overcommit_percent: 100,
        memory_overcommit_percent: 100,
        failures_to_tolerate: 1,
        mlps_grade: grade,
    }
}

pub fn host(pool: &str, cpu: u64, memory: u64) -> Host {
    Host {
        pool: pool.to_owned(),
        closed: None,
        stands: true,
        may_fail: true,
        cpu,
        memory_bytes: memory * GIB,
        storage_pools: BTreeSet::from(["s".to_owned()]),
        has_tunnels: true,
        unready_networks: BTreeSet::new(),
        cpu_models: None,
    }
}

pub fn vm(name: &str, cpu: u64, memory: u64) -> Vm {
    Vm {
        name: NamespacedName::new("n", name),
        cpu,
        memory_bytes: memory * GIB,
        zones: BTreeSet::from([Zone::Common]),
        networks: Names::default(),
        needs_tunnels: true,
        architecture: Architecture::x86_64,
        runs_with: Names::default(),
        storage_pools: BTreeSet::from(["s".to_owned()]).into(),
        new_volumes: BTreeMap::new(),
        pinned_to: None,
        mlps_grade: 2,
        rules: Rules::default(),
        restarts_elsewhere: true,
        host: None,
        incoming: None,
    }
}

pub fn name(index: usize) -> HostName {
    HostName(format!("h{index}"))
}

pub fn uid(index: usize) -> VmUid {
    VmUid(format!("u{index}"))
}

/// Processor models that a host offers; some hosts do not tell.
fn any_models() -> impl Strategy<Value = Option<BTreeSet<String>>> {
    let models = |many: usize| {
        let models = ["old", "new"].into_iter().take(many);
        Some(models.map(str::to_owned).collect())
    };
    prop_oneof![2 => Just(None), 2 => Just(models(1)), 6 => Just(models(2)), 1 => Just(models(0))]
}

/// Now and then a processor model.
pub fn any_model() -> impl Strategy<Value = Option<String>> {
    let model = prop_oneof![Just("old".to_owned()), Just("new".to_owned())];
    proptest::option::weighted(0.3, model)
}

/// Some of two networks, each with that chance.
fn any_networks(chance: f64) -> impl Strategy<Value = BTreeSet<String>> {
    let network = || proptest::bool::weighted(chance);
    (network(), network()).prop_map(|(first, second)| {
        let networks = [(first, "m"), (second, "n")].into_iter();
        let named = networks.filter(|(there, _)| *there);
        named
            .map(|(_, network)| network.to_owned())
            .collect::<BTreeSet<String>>()
    })
}

/// A host with everything that rules look at.
pub fn any_host(memory_max: u64) -> impl Strategy<Value = Host> {
    let pool = prop_oneof![8 => Just("main"), 2 => Just("other"), 1 => Just("gone")];
    let rest = (
        proptest::bool::weighted(0.15),
        // A host that is lost is closed.
        (proptest::bool::weighted(0.9), proptest::bool::weighted(0.3)),
        proptest::bool::weighted(0.5),
        (proptest::bool::weighted(0.9), any_networks(0.1)),
        any_models(),
    );
    (pool, 2..8_u64, 2..memory_max, rest).prop_map(
        |(pool, cpu, memory, (closed, (stands, lost), second, networks, cpu_models))| Host {
            closed: closed.then(|| "maintenance".to_owned()),
            stands: stands && !closed,
            may_fail: !(closed && lost),
            has_tunnels: networks.0,
            unready_networks: networks.1,
            cpu_models,
            storage_pools: if second {
                BTreeSet::from(["s".to_owned(), "t".to_owned()])
            } else {
                BTreeSet::from(["s".to_owned()])
            },
            ..host(pool, cpu, memory)
        },
    )
}

/// A VM with everything that rules look at, not yet placed.
pub fn any_vm(hosts: usize, memory_max: u64) -> impl Strategy<Value = Vm> {
    let rest = (
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.5, 0..3_u8),
        proptest::option::weighted(0.1, 0..hosts.max(1)),
        proptest::bool::weighted(0.1),
        any_model(),
        (proptest::bool::weighted(0.7), any_networks(0.4)),
    );
    (1..4_u64, 1..memory_max, rest).prop_map(
        |(cpu, memory, (arm, second, apart, pinned, grade, model, networks))| Vm {
            needs_tunnels: networks.0,
            networks: networks.1.into(),
            runs_with: model.into_iter().collect(),
            architecture: if arm {
                Architecture::aarch64
            } else {
                Architecture::x86_64
            },
            storage_pools: BTreeSet::from([if second { "t" } else { "s" }.to_owned()]).into(),
            rules: apart.map_or_else(Rules::default, |group| {
                Rules::kept_apart(format!("g{group}"))
            }),
            pinned_to: pinned.map(name),
            mlps_grade: if grade { 4 } else { 2 },
            ..vm("v", cpu, memory)
        },
    )
}

/// A fleet whose VMs are not placed.
pub fn any_fleet(hosts_max: usize, vms_max: usize) -> impl Strategy<Value = Fleet> {
    let hosts = proptest::collection::vec(any_host(9), 1..=hosts_max);
    let vms = proptest::collection::vec(any_vm(hosts_max, 5), 1..=vms_max);
    (hosts, vms, any_model()).prop_map(|(hosts, vms, cpu_model)| Fleet {
        pools: BTreeMap::from([
            (
                "main".to_owned(),
                Pool {
                    cpu_model,
                    ..pool(Architecture::x86_64, &[Zone::Common], 3)
                },
            ),
            (
                "other".to_owned(),
                pool(Architecture::aarch64, &[Zone::Common], 4),
            ),
        ]),
        hosts: hosts
            .into_iter()
            .enumerate()
            .map(|(index, host)| (name(index), host))
            .collect(),
        vms: vms
            .into_iter()
            .enumerate()
            .map(|(index, mut vm)| {
                vm.name.name = format!("v{index}");
                (uid(index), Box::new(vm))
            })
            .collect(),
        racks: BTreeMap::new(),
        storage: BTreeMap::new(),
    })
}

/// A part in one of a few rules.
fn any_relation(racks: bool) -> impl Strategy<Value = Relation> {
    let side = prop_oneof![Just(Side::Every), Just(Side::Asks), Just(Side::Named)];
    (0..2_u8, side, any::<bool>()).prop_map(move |(rule, side, rack)| Relation {
        // One rule is over one kind of domain.
        rule: format!("r{rule}{}", if rack && racks { "-racks" } else { "" }),
        over: if rack && racks {
            Domain::Rack
        } else {
            Domain::Host
        },
        side,
    })
}

/// Parts in every kind of rule; no VM stands on two sides of one.
pub fn any_rules() -> impl Strategy<Value = Rules> {
    let apart = proptest::collection::btree_set(any_relation(true), 0..2);
    let wish = || proptest::collection::btree_set(any_relation(true), 0..2);
    let together = proptest::option::weighted(0.2, (0..2_u8).prop_map(|group| format!("t{group}")));
    (apart, together, wish(), wish()).prop_map(
        |(apart, together, rather_apart, rather_together)| Rules {
            apart: if together.is_some() {
                BTreeSet::new()
            } else {
                apart
            },
            together,
            rather_apart,
            rather_together,
            contradiction: None,
        },
    )
}

/// Room on the two storage pools, one that all share and one that each host has, and new volumes for
/// some VMs.
pub fn any_storage(fleet: Fleet) -> impl Strategy<Value = Fleet> {
    let rooms = proptest::collection::vec(proptest::option::weighted(0.8, 0..12_u64), 8);
    let shared = proptest::option::of(0..30_u64);
    let new = proptest::collection::vec(proptest::option::weighted(0.4, 0..6_u64), fleet.vms.len());
    (rooms, shared, new).prop_map(move |(rooms, shared, new)| {
        let mut fleet = fleet.clone();
        if let Some(shared) = shared {
            let room = StorageRoom::Shared(shared * GIB);
            fleet.storage.insert("s".to_owned(), room);
        }
        let hosts = rooms.into_iter().enumerate();
        let hosts = hosts.filter_map(|(index, room)| Some((name(index), room? * GIB)));
        let room = StorageRoom::PerHost(hosts.collect());
        fleet.storage.insert("t".to_owned(), room);
        for (vm, new) in fleet.vms.values_mut().zip(new) {
            let pools = vm.storage_pools.iter().cloned();
            vm.new_volumes = new.map_or_else(BTreeMap::new, |new| {
                pools.map(|pool| (pool, new * GIB)).collect()
            });
        }
        fleet
    })
}
