//! Answers of the engine judged on both sides by brute force on small fleets: a choice is legal
//! by the independent lint, a refusal is truly impossible, a proof of N+1 has a witness, and a
//! refutation has none.

use std::collections::{BTreeMap, BTreeSet};

use model::{Architecture, HostName, NamespacedName, VmUid, Zone};
use placement::{Fleet, Headroom, Host, Pool, Rules, Vm, lint, place, prove_headroom};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn fleet(hosts: Vec<(u64, u64, bool)>, vms: Vec<(u64, u64, Option<u8>, usize)>) -> Fleet {
    let pool = Pool {
        zones: BTreeSet::from([Zone::Common]),
        architecture: Architecture::x86_64,
        cpu_overcommit_percent: 100,
        memory_overcommit_percent: 100,
        failures_to_tolerate: 1,
        mlps_grade: 3,
    };
    let hosts: BTreeMap<HostName, Host> = hosts
        .into_iter()
        .enumerate()
        .map(|(index, (cpu, memory, closed))| {
            let host = Host {
                pool: "main".into(),
                closed: closed.then(|| "maintenance".to_owned()),
                stands: !closed,
                cpu,
                memory_bytes: memory * GIB,
                storage_pools: BTreeSet::from(["s".to_owned()]),
                has_network: true,
            };
            (HostName(format!("h{index}")), host)
        })
        .collect();
    let mut fleet = Fleet {
        pools: BTreeMap::from([("main".to_owned(), pool)]),
        hosts,
        vms: BTreeMap::new(),
        racks: BTreeMap::new(),
    };
    for (index, (cpu, memory, apart, _)) in vms.iter().enumerate() {
        let vm = Vm {
            name: NamespacedName::new("n", format!("v{index}")),
            cpu: *cpu,
            memory_bytes: memory * GIB,
            zones: BTreeSet::from([Zone::Common]),
            architecture: Architecture::x86_64,
            storage_pools: BTreeSet::from(["s".to_owned()]),
            pinned_to: None,
            mlps_grade: 2,
            rules: apart.map_or_else(Rules::default, |group| {
                Rules::kept_apart(format!("g{group}"))
            }),
            restarts_elsewhere: true,
            host: None,
            incoming: None,
        };
        fleet.vms.insert(VmUid(format!("u{index}")), vm);
    }
    fleet
}

/// Whether all of these VMs can be placed on hosts that stand, by trying everything.
fn possible(fleet: &Fleet, waiting: &[VmUid], usable: &dyn Fn(&HostName) -> bool) -> bool {
    let Some((first, rest)) = waiting.split_first() else {
        return true;
    };
    fleet.hosts.keys().filter(|name| usable(name)).any(|name| {
        let mut tried = fleet.clone();
        tried.vms.get_mut(first).expect("it is there").host = Some(name.clone());
        lint(&tried).is_empty() && possible(&tried, rest, usable)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn choices_are_legal_and_refusals_and_proofs_are_true(
        hosts in proptest::collection::vec((2..6_u64, 2..6_u64, proptest::bool::weighted(0.2)), 1..5),
        vms in proptest::collection::vec((1..3_u64, 1..4_u64, proptest::option::weighted(0.5, 0..2_u8), 0..1_usize), 1..7),
    ) {
        let mut fleet = fleet(hosts, vms);
        for uid in fleet.vms.keys().cloned().collect::<Vec<_>>() {
            match place(&fleet, &uid, &BTreeSet::new()) {
                Ok(choice) => {
                    prop_assert!(fleet.hosts[&choice.host].closed.is_none());
                    let free = |name: &HostName| fleet.free(name, &fleet.hosts[name]).memory_bytes;
                    for other in fleet.hosts.keys().filter(|name| fleet.hosts[*name].closed.is_none()) {
                        let legal = possible(&fleet, std::slice::from_ref(&uid), &|name| name == other);
                        prop_assert!(!legal || free(other) <= free(&choice.host), "{other} has more memory");
                    }
                    fleet.vms.get_mut(&uid).expect("it is there").host = Some(choice.host);
                    prop_assert_eq!(lint(&fleet), vec![]);
                }
                Err(refusal) => {
                    prop_assert_eq!(refusal.removed.values().sum::<u32>() as usize, fleet.hosts.len());
                    let open = |name: &HostName| fleet.hosts[name].closed.is_none();
                    prop_assert!(!possible(&fleet, std::slice::from_ref(&uid), &open), "a host would do");
                }
            }
        }
        fleet.vms.retain(|_, vm| vm.host.is_some());
        let survives = |failure: &HostName| {
            let mut after = fleet.clone();
            let lost: Vec<VmUid> = fleet.vms.iter().filter(|(_, vm)| vm.host.as_ref() == Some(failure)).map(|(uid, _)| uid.clone()).collect();
            for uid in &lost {
                after.vms.get_mut(uid).expect("it is there").host = None;
            }
            possible(&after, &lost, &|name| name != failure && fleet.hosts[name].stands)
        };
        let standing: Vec<&HostName> = fleet.hosts.iter().filter(|(_, host)| host.stands).map(|(name, _)| name).collect();
        match prove_headroom(&fleet, "main") {
            Headroom::Proven => prop_assert!(standing.iter().all(|failure| survives(failure))),
            Headroom::Broken { failure, .. } => prop_assert!(!survives(&failure), "it survives {failure}"),
            Headroom::Unknown { .. } | Headroom::NotPromised => {}
        }
    }
}
