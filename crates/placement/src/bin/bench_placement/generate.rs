//! Synthetic fleets, the same for the same seed.

use std::collections::{BTreeMap, BTreeSet};

use model::{Architecture, HostName, NamespacedName, VmUid, Zone};
use placement::{Engine, Fleet, Host, Names, Pool, Rules, Vm};

pub const GIB: u64 = 1 << 30;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
}

pub fn host_name(index: usize) -> HostName {
    HostName(format!("host-{index:05}"))
}

/// What every host offers.
const CPU_MODEL: &str = "Cascadelake-Server";

pub fn uid(index: usize) -> VmUid {
    VmUid(format!("5f0c4a52-7d1e-4f6b-9a35-{index:012}"))
}

/// Hosts in pools of the same size: three kinds of machines, two architectures, racks of 20.
pub fn hosts(count: usize, pools: usize) -> Fleet {
    let mut fleet = Fleet::default();
    for index in 0..pools {
        let arm = index % 4 == 3;
        let zones = [Zone::Common, Zone::InternetAccess];
        fleet.pools.insert(
            format!("pool-{index:02}"),
            Pool {
                zones: zones.into_iter().take(1 + index % 2).collect(),
                architecture: if arm {
                    Architecture::aarch64
                } else {
                    Architecture::x86_64
                },
                cpu_model: (!arm).then(|| CPU_MODEL.to_owned()),
                cpu_overcommit_percent: 400,
                memory_overcommit_percent: 100,
                failures_to_tolerate: 1,
                mlps_grade: if index % 3 == 0 { 3 } else { 2 },
            },
        );
    }
    for index in 0..count {
        let (cpu, memory) = [(64, 256), (96, 512), (128, 768)][index % 3];
        let storage = ["fast", "bulk"].into_iter().take(1 + (index / 3) % 2);
        fleet
            .racks
            .insert(host_name(index), format!("rack-{:03}", index / 20));
        fleet.hosts.insert(
            host_name(index),
            Host {
                pool: format!("pool-{:02}", index % pools),
                closed: None,
                stands: true,
                may_fail: true,
                cpu,
                memory_bytes: memory * GIB,
                storage_pools: storage.map(str::to_owned).collect(),
                has_tunnels: true,
                unready_networks: BTreeSet::new(),
                cpu_models: Some(BTreeSet::from([CPU_MODEL.to_owned()])),
            },
        );
    }
    fleet
}

/// A VM of common sizes; `groups` of up to eight that must be apart.
pub fn vm(random: &mut Random, index: usize, pools: usize, groups: usize) -> Vm {
    let memory = [2, 4, 4, 8, 8, 16, 16, 32, 64][random.below(9)];
    let cpu = [1, 2, 2, 4, 4, 8, 8, 16][random.below(8)];
    let group = index / 8;
    let arm = pools > 3 && random.below(4) == 3;
    Vm {
        name: NamespacedName::new(
            format!("department-{:02}", index % 40),
            format!("vm-{index:06}"),
        ),
        cpu,
        memory_bytes: memory * GIB,
        zones: BTreeSet::from([Zone::Common]),
        networks: Names::default(),
        needs_tunnels: true,
        architecture: if arm {
            Architecture::aarch64
        } else {
            Architecture::x86_64
        },
        runs_with: Names::default(),
        storage_pools: if random.below(3) == 0 {
            BTreeSet::from(["bulk".to_owned()]).into()
        } else {
            BTreeSet::from(["fast".to_owned()]).into()
        },
        new_volumes: BTreeMap::new(),
        pinned_to: None,
        mlps_grade: if random.below(5) == 0 { 3 } else { 2 },
        rules: if group < groups {
            Rules::kept_apart(format!("group-{group:05}"))
        } else {
            Rules::default()
        },
        restarts_elsewhere: true,
        host: None,
        incoming: None,
    }
}

/// A fleet filled by `place`, VM after VM, until so many are in or the pool is that full.
pub fn filled(seed: u64, hosts_count: usize, pools: usize, vms: usize, groups: usize) -> Engine {
    let mut random = Random(seed);
    let mut engine = Engine::new(hosts(hosts_count, pools));
    let nothing = BTreeSet::new();
    for index in 0..vms {
        let new = vm(&mut random, index, pools, groups);
        engine.upsert_vm(uid(index), new);
        match engine.place(&uid(index), &nothing) {
            Ok(choice) => engine.assign(&uid(index), &choice.host),
            Err(_) => engine.remove_vm(&uid(index)),
        }
    }
    engine
}

/// Priorities and dirty rates for an evacuation.
pub fn dirty(fleet: &Fleet, seed: u64) -> BTreeMap<VmUid, u64> {
    let mut random = Random(seed);
    let mut rate = || (random.below(200) as u64) << 20;
    fleet.vms.keys().map(|uid| (uid.clone(), rate())).collect()
}
