//! A small fleet that changes at random, and the same change told to an engine.

use std::collections::{BTreeMap, BTreeSet};

use model::{Architecture, HostName, NamespacedName, VmUid, Zone};
use placement::{Domain, Engine, Fleet, Host, Pool, Relation, Rules, Side, StorageRoom, Vm};

const HOSTS: usize = 7;
const VMS: usize = 14;
const GIB: u64 = 1 << 30;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound.max(1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }
}

/// The fleet as it should be.
pub struct World {
    pub fleet: Fleet,
}

fn host_name(index: usize) -> HostName {
    HostName(format!("h{index}"))
}

fn uid(index: usize) -> VmUid {
    VmUid(format!("u{index:02}"))
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        let mut pool = |architecture, grade| Pool {
            zones: BTreeSet::from([Zone::Common]),
            architecture,
            cpu_model: random.one_in(2).then(|| "old".to_owned()),
            cpu_overcommit_percent: 200,
            memory_overcommit_percent: 100,
            failures_to_tolerate: 1,
            mlps_grade: grade,
        };
        let mut fleet = Fleet {
            pools: BTreeMap::from([
                ("main".to_owned(), pool(Architecture::x86_64, 3)),
                ("other".to_owned(), pool(Architecture::aarch64, 4)),
            ]),
            ..Fleet::default()
        };
        for index in 0..HOSTS {
            let name = host_name(index);
            if let Some(rack) = any_rack(random) {
                fleet.racks.insert(name.clone(), rack);
            }
            fleet.hosts.insert(name, any_host(random));
        }
        for index in 0..VMS {
            fleet.vms.insert(uid(index), any_vm(random, index).into());
        }
        Self { fleet }
    }

    pub fn some_vm(&self, random: &mut Random) -> Option<VmUid> {
        let at = random.index(self.fleet.vms.len());
        self.fleet.vms.keys().nth(at).cloned()
    }

    /// None or one, mostly none.
    pub fn some_hosts(&self, random: &mut Random) -> Option<HostName> {
        random.one_in(4).then(|| host_name(random.index(HOSTS)))
    }

    pub fn assign(&mut self, uid: &VmUid, host: &HostName) {
        if let Some(vm) = self.fleet.vms.get_mut(uid) {
            (vm.host, vm.incoming) = (Some(host.clone()), None);
        }
    }

    /// One change, to both; told in words.
    pub fn change(&mut self, random: &mut Random, engine: &mut Engine) -> String {
        let (name, uid) = (host_name(random.index(HOSTS)), uid(random.index(VMS)));
        match random.below(13) {
            0 => {
                let host = any_host(random);
                self.fleet.hosts.insert(name.clone(), host.clone());
                engine.upsert_host(name.clone(), host);
                format!("{name} changes")
            }
            1 if random.one_in(3) => {
                self.fleet.hosts.remove(&name);
                self.fleet.racks.remove(&name);
                engine.remove_host(&name);
                format!("{name} goes")
            }
            2 => {
                let rack = any_rack(random);
                match &rack {
                    Some(rack) => self.fleet.racks.insert(name.clone(), rack.clone()),
                    None => self.fleet.racks.remove(&name),
                };
                engine.set_rack(&name, rack.clone());
                format!("{name} is in {rack:?}")
            }
            3 if random.one_in(6) => self.pool(random, engine),
            4 | 5 => {
                let vm = any_vm(random, random.0 as usize % VMS);
                self.fleet.vms.insert(uid.clone(), vm.clone().into());
                engine.upsert_vm(uid.clone(), vm);
                format!("{uid} changes")
            }
            6 => {
                self.fleet.vms.remove(&uid);
                engine.remove_vm(&uid);
                format!("{uid} goes")
            }
            7 => {
                if let Some(vm) = self.fleet.vms.get_mut(&uid) {
                    (vm.host, vm.incoming) = (None, None);
                    vm.runs_with.clear();
                }
                engine.unassign(&uid);
                format!("{uid} is on no host")
            }
            8 => {
                if let Some(vm) = self.fleet.vms.get_mut(&uid) {
                    vm.incoming = Some(name.clone());
                }
                engine.begin_move(&uid, &name);
                format!("{uid} moves to {name}")
            }
            9 => {
                let arrived = random.one_in(2);
                if let Some(vm) = self.fleet.vms.get_mut(&uid) {
                    let to = vm.incoming.take();
                    if arrived && to.is_some() {
                        vm.host = to;
                    }
                }
                engine.end_move(&uid, arrived);
                format!("{uid} has moved: {arrived}")
            }
            10 => {
                let (pool, room) = any_storage(random);
                match &room {
                    Some(room) => self.fleet.storage.insert(pool.clone(), room.clone()),
                    None => self.fleet.storage.remove(&pool),
                };
                engine.set_storage(pool.clone(), room.clone());
                format!("storage pool {pool} has {room:?}")
            }
            _ => {
                self.assign(&uid, &name);
                engine.assign(&uid, &name);
                format!("{uid} is on {name}")
            }
        }
    }

    fn pool(&mut self, random: &mut Random, engine: &mut Engine) -> String {
        let Some(mut pool) = self.fleet.pools.get("main").cloned() else {
            return "no pool".to_owned();
        };
        pool.cpu_overcommit_percent = 100 + random.below(4) * 100;
        pool.cpu_model = match random.below(4) {
            0 => Some("old".to_owned()),
            1 => Some("new".to_owned()),
            _ => None,
        };
        pool.failures_to_tolerate = u32::from(!random.one_in(5));
        self.fleet.pools.insert("main".to_owned(), pool.clone());
        engine.upsert_pool("main".to_owned(), pool);
        "the pool changes".to_owned()
    }
}

fn any_rack(random: &mut Random) -> Option<String> {
    (!random.one_in(4)).then(|| format!("rack{}", random.below(3)))
}

/// A host; one in a while has nothing, or absurdly much.
fn any_host(random: &mut Random) -> Host {
    let closed = random.one_in(6);
    let (cpu, memory_bytes) = match random.below(20) {
        0 => (0, 0),
        1 => (u64::MAX, u64::MAX),
        _ => (2 + random.below(7), (4 + random.below(12)) * GIB),
    };
    Host {
        pool: if random.one_in(6) { "other" } else { "main" }.to_owned(),
        closed: closed.then(|| "maintenance".to_owned()),
        stands: !closed || random.one_in(5),
        may_fail: !closed || !random.one_in(3),
        cpu,
        memory_bytes,
        storage_pools: ["s", "t"]
            .into_iter()
            .take(1 + random.index(2))
            .map(str::to_owned)
            .collect(),
        has_tunnels: !random.one_in(10),
        unready_networks: any_networks(random, 8),
        cpu_models: any_models(random),
    }
}

/// Some of two networks, mostly none.
fn any_networks(random: &mut Random, many: u64) -> BTreeSet<String> {
    let mut networks = BTreeSet::new();
    for network in ["m", "n"] {
        if random.one_in(many) {
            networks.insert(network.to_owned());
        }
    }
    networks
}

/// Most hosts offer both processor models, some the old one only, some do not tell.
fn any_models(random: &mut Random) -> Option<BTreeSet<String>> {
    let many = match random.below(8) {
        0 => return None,
        1 => 1,
        _ => 2,
    };
    let models = ["old", "new"].into_iter().take(many);
    Some(models.map(str::to_owned).collect())
}

/// A pool that all hosts share, or one that each host has, or none is told.
fn any_storage(random: &mut Random) -> (String, Option<StorageRoom>) {
    let (pool, many) = (["s", "t"][random.index(2)].to_owned(), random.below(30));
    let room = match random.below(4) {
        0 => None,
        1 | 2 => Some(StorageRoom::Shared(many * GIB)),
        _ => {
            let hosts = (0..HOSTS).filter_map(|index| {
                let told = !random.one_in(4);
                told.then(|| (host_name(index), random.below(12) * GIB))
            });
            Some(StorageRoom::PerHost(hosts.collect()))
        }
    };
    (pool, room)
}

fn any_vm(random: &mut Random, index: usize) -> Vm {
    let pool = if random.one_in(4) { "t" } else { "s" }.to_owned();
    let new = random
        .one_in(4)
        .then(|| (pool.clone(), random.below(7) * GIB));
    Vm {
        name: NamespacedName::new("n", format!("v{index}")),
        cpu: 1 + random.below(4),
        memory_bytes: (1 + random.below(6)) * GIB,
        zones: BTreeSet::from([Zone::Common]),
        networks: any_networks(random, 2).into(),
        needs_tunnels: !random.one_in(3),
        architecture: if random.one_in(8) {
            Architecture::aarch64
        } else {
            Architecture::x86_64
        },
        runs_with: random
            .one_in(5)
            .then(|| ["old", "new"][random.index(2)].to_owned())
            .into_iter()
            .collect(),
        storage_pools: BTreeSet::from([pool]).into(),
        new_volumes: new.into_iter().collect(),
        pinned_to: random.one_in(10).then(|| host_name(random.index(HOSTS))),
        mlps_grade: if random.one_in(10) { 4 } else { 2 },
        rules: any_rules(random),
        restarts_elsewhere: !random.one_in(8),
        host: None,
        incoming: None,
    }
}

fn any_rules(random: &mut Random) -> Rules {
    let mut relations = |many: u64| -> BTreeSet<Relation> {
        if !random.one_in(many) {
            return BTreeSet::new();
        }
        let rack = random.one_in(3);
        let side = [Side::Every, Side::Asks, Side::Named][random.index(3)];
        BTreeSet::from([Relation {
            rule: format!("r{}{}", random.below(2), if rack { "r" } else { "" }),
            over: if rack { Domain::Rack } else { Domain::Host },
            side,
        }])
    };
    let (apart, rather_apart, rather_together) = (relations(2), relations(4), relations(4));
    let together = random.one_in(5).then(|| format!("t{}", random.below(2)));
    let both = together.is_some() && !apart.is_empty();
    Rules {
        // The door finds these contradictions before placement is asked.
        apart: if both { BTreeSet::new() } else { apart },
        together,
        rather_apart,
        rather_together,
        contradiction: random
            .one_in(30)
            .then(|| "two rules contradict each other".to_owned()),
    }
}
