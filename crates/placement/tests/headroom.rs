//! The proof of N+1 judged by brute force on small fleets, both ways; kept certificates against
//! proofs from nothing; and room left against what a stream of new VMs meets.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{GIB, any_fleet, any_vm, host, name, pool, uid, vm};
use model::{Architecture, HostName, VmUid, Zone};
use placement::{
    Admission, Engine, Failure, Fleet, Headroom, Survival, Vm, headroom_report, lint, place,
    prove_headroom, room_left,
};
use proptest::prelude::*;

const HOSTS: usize = 6;
const VMS: usize = 10;

/// Places what it can and takes the rest away; some VMs are on the move, some do not restart.
fn settled(mut fleet: Fleet, moving: &[bool], restarts: &[bool]) -> Fleet {
    for uid in fleet.vms.keys().cloned().collect::<Vec<_>>() {
        if let Ok(choice) = place(&fleet, &uid, &BTreeSet::new()) {
            fleet.vms.get_mut(&uid).unwrap().host = Some(choice.host);
        }
    }
    fleet.vms.retain(|_, vm| vm.host.is_some());
    for (index, uid) in fleet
        .vms
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
    {
        fleet.vms.get_mut(&uid).unwrap().restarts_elsewhere = restarts[index % restarts.len()];
        let mut open = fleet.clone();
        let here = fleet.vms[&uid].host.clone().unwrap();
        open.hosts.get_mut(&here).unwrap().closed = Some("source".into());
        if moving[index % moving.len()]
            && let Ok(choice) = place(&open, &uid, &BTreeSet::new())
        {
            fleet.vms.get_mut(&uid).unwrap().incoming = Some(choice.host);
        }
    }
    fleet
}

/// Whether all of these VMs can be placed, by trying everything.
fn possible(fleet: &Fleet, waiting: &[VmUid], usable: &dyn Fn(&HostName) -> bool) -> bool {
    let Some((first, rest)) = waiting.split_first() else {
        return true;
    };
    fleet.hosts.keys().filter(|name| usable(name)).any(|name| {
        let mut tried = fleet.clone();
        tried.vms.get_mut(first).unwrap().host = Some(name.clone());
        lint(&tried).is_empty() && possible(&tried, rest, usable)
    })
}

fn survives(fleet: &Fleet, failed: &BTreeSet<HostName>) -> bool {
    let mut after = fleet.clone();
    let mut lost = Vec::new();
    for (uid, vm) in &mut after.vms {
        let here = vm.host.as_ref().is_some_and(|host| failed.contains(host));
        if here && vm.restarts_elsewhere && vm.pinned_to.is_none() {
            (vm.host, vm.incoming) = (None, None);
            // It starts anew.
            vm.runs_with.clear();
            lost.push(uid.clone());
        }
    }
    possible(&after, &lost, &|name| {
        let host = &fleet.hosts[name];
        let open = host.stands && host.closed.is_none();
        !failed.contains(name) && open && host.pool == "main"
    })
}

/// Whether a host's failure counts.
fn fails(fleet: &Fleet, name: &HostName) -> bool {
    let host = &fleet.hosts[name];
    let carries = || fleet.vms.values().any(|vm| vm.host.as_ref() == Some(name));
    host.pool == "main" && host.may_fail && (host.stands || carries())
}

fn truth(fleet: &Fleet) -> BTreeMap<HostName, bool> {
    let failing = fleet.hosts.keys().filter(|name| fails(fleet, name));
    failing
        .map(|name| {
            let failed = BTreeSet::from([name.clone()]);
            (name.clone(), survives(fleet, &failed))
        })
        .collect()
}

/// On fleets this small nothing may stay unknown.
fn judge(fleet: &Fleet, answer: &Headroom) -> Result<(), TestCaseError> {
    let truth = truth(fleet);
    match answer {
        Headroom::Proven => prop_assert!(truth.values().all(|survives| *survives)),
        Headroom::Broken { failure, vm } => {
            prop_assert!(!truth[failure], "it survives {failure}");
            prop_assert_eq!(fleet.vms[vm].host.as_ref(), Some(failure));
        }
        Headroom::Unknown { failure } => prop_assert!(false, "{failure} is unknown"),
        Headroom::NotPromised => prop_assert!(false, "it is promised"),
    }
    Ok(())
}

fn fleets() -> impl Strategy<Value = Fleet> {
    (
        any_fleet(HOSTS, VMS),
        proptest::collection::vec(proptest::bool::weighted(0.1), VMS),
        proptest::collection::vec(proptest::bool::weighted(0.9), VMS),
    )
        .prop_map(|(fleet, moving, restarts)| settled(fleet, &moving, &restarts))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_proof_is_true_both_ways(fleet in fleets()) {
        judge(&fleet, &prove_headroom(&fleet, "main"))?;
    }

    #[test]
    fn every_failure_of_hosts_and_racks_is_told_truly(fleet in fleets(), racks in proptest::collection::vec(proptest::option::of(0..3_u8), HOSTS)) {
        let mut fleet = fleet;
        for (index, rack) in racks.into_iter().enumerate() {
            if let Some(rack) = rack {
                fleet.racks.insert(name(index), format!("r{rack}"));
            }
        }
        let report = headroom_report(&fleet, "main").unwrap();
        let truth = truth(&fleet);
        prop_assert_eq!(report.hosts.len(), truth.len());
        prop_assert_eq!(report.unknown(), 0);
        for told in report.hosts.iter().chain(&report.racks) {
            let failed: BTreeSet<HostName> = match &told.failure {
                Failure::Host(name) => BTreeSet::from([name.clone()]),
                Failure::Rack(rack) => fleet.racks.iter()
                    .filter(|(name, of)| *of == rack && fleet.hosts.contains_key(*name) && fails(&fleet, name))
                    .map(|(name, _)| name.clone()).collect(),
            };
            prop_assert_eq!(told.survival == Survival::Proven, survives(&fleet, &failed), "{}", told.failure);
            // What does not fit in sum is never proven.
            prop_assert!(told.survival != Survival::Proven || told.fills_permille <= 1_000);
        }
        if let Some(worst) = report.most_dangerous() {
            let all = || report.hosts.iter().chain(&report.racks);
            let broken = all().any(|told| told.survival != Survival::Proven);
            prop_assert_eq!(worst.survival != Survival::Proven, broken);
            let same = all().filter(|told| told.survival == worst.survival);
            prop_assert_eq!(same.map(|told| told.fills_permille).max(), Some(worst.fills_permille));
        }
    }

    /// An engine that keeps its certificates through a history of changes tells the truth too.
    #[test]
    fn kept_certificates_stay_true(
        fleet in fleets(),
        changes in proptest::collection::vec((0..VMS, 0..HOSTS, 0..6_u8, any_vm(HOSTS, 5)), 1..10),
    ) {
        let mut engine = Engine::new(fleet);
        engine.prove_headroom("main");
        for (vm, host, kind, new) in changes {
            match kind {
                0 => engine.unassign(&uid(vm)),
                1 => engine.remove_vm(&uid(vm)),
                2 => {
                    if let Some(mut changed) = engine.fleet().hosts.get(&name(host)).cloned() {
                        changed.closed = changed.closed.is_none().then(|| "maintenance".to_owned());
                        changed.stands = changed.closed.is_none();
                        changed.may_fail |= changed.stands;
                        engine.upsert_host(name(host), changed);
                    }
                }
                3 => {
                    // A closed host is lost, or is back.
                    let known = engine.fleet().hosts.get(&name(host)).cloned();
                    if let Some(mut changed) = known.filter(|host| host.closed.is_some()) {
                        changed.may_fail = !changed.may_fail;
                        engine.upsert_host(name(host), changed);
                    }
                }
                _ => {
                    let mut new = Vm { pinned_to: None, ..new };
                    new.name.name = format!("v{vm}");
                    engine.upsert_vm(uid(vm), new);
                    if let Ok(choice) = engine.place(&uid(vm), &BTreeSet::new()) {
                        engine.assign(&uid(vm), &choice.host);
                    }
                }
            }
            let mut legal = engine.fleet().clone();
            legal.vms.retain(|_, vm| vm.host.is_some());
            let kept = engine.prove_headroom("main");
            judge(&legal, &kept)?;
            let failure = |answer: &Headroom| match answer {
                Headroom::Broken { failure, .. } => Some(failure.clone()),
                _ => None,
            };
            let fresh = prove_headroom(engine.fleet(), "main");
            prop_assert_eq!(failure(&kept), failure(&fresh), "{:?} {:?}", kept, fresh);
        }
    }

    #[test]
    fn room_left_is_what_new_vms_meet(fleet in fleets(), cpu in 1..3_u64, memory in 1..4_u64) {
        let left = room_left(&fleet, "main", &[("size".into(), cpu, memory * GIB)]);
        // One after the other, as they would come, each asked of an engine that knows nothing of the others.
        let mut fleet = fleet;
        fleet.hosts.retain(|_, host| host.pool == "main");
        let mut more = 0;
        if prove_headroom(&fleet, "main") == Headroom::Proven {
            loop {
                let new = VmUid(format!("new{more}"));
                let mut wanted = vm("new", cpu, memory);
                wanted.storage_pools.clear();
                wanted.needs_tunnels = false;
                fleet.vms.insert(new.clone(), wanted.into());
                let mut engine = Engine::new(fleet);
                let answer = engine.admit(&new, &BTreeSet::new());
                fleet = engine.into_fleet();
                let Admission::Placed(_) = answer else { break };
                more += 1;
            }
        }
        prop_assert_eq!(left[0].more, more);
    }
}

fn plain(hosts: usize, memory: u64) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.pools.insert(
        "main".into(),
        pool(Architecture::x86_64, &[Zone::Common], 3),
    );
    for index in 0..hosts {
        fleet.hosts.insert(name(index), host("main", 64, memory));
    }
    fleet
}

#[test]
fn the_most_dangerous_host_is_the_one_that_leaves_the_least() {
    let mut fleet = plain(3, 32);
    for (index, memory) in [(0, 4), (1, 20), (2, 8)] {
        let mut new = vm("v", 1, memory);
        new.host = Some(name(index));
        fleet.vms.insert(uid(index), new.into());
    }
    let report = headroom_report(&fleet, "main").unwrap();
    let worst = report.most_dangerous().unwrap();
    assert_eq!(worst.failure, Failure::Host(name(1)));
    // 20 lost, 28 + 24 free elsewhere.
    assert_eq!(worst.fills_permille, 385);
    assert_eq!((worst.lost_vms, report.headroom), (1, Headroom::Proven));
}

#[test]
fn room_is_what_one_host_less_can_hold() {
    // Four hosts of 32 GiB keep one free in sum: 3 · 8 of 4 GiB.
    let left = room_left(
        &plain(4, 32),
        "main",
        &[("small".into(), 1, 4 * GIB), ("large".into(), 1, 20 * GIB)],
    );
    assert_eq!(
        left.iter().map(|left| left.more).collect::<Vec<_>>(),
        [24, 3]
    );
}

#[test]
fn an_unknown_pool_promises_nothing() {
    assert_eq!(prove_headroom(&plain(2, 8), "none"), Headroom::NotPromised);
    assert_eq!(headroom_report(&plain(2, 8), "none"), None);
    assert_eq!(room_left(&plain(2, 8), "none", &[]), vec![]);
}

/// Even sizes in odd holes: one byte of each hole is lost, which only trying everything could
/// tell, and that takes too long. It is said, not guessed, and counted.
#[test]
fn what_is_neither_proven_nor_refuted_is_unknown() {
    let mut fleet = plain(13, 0);
    for (index, host) in (0..).zip(fleet.hosts.values_mut()) {
        (host.cpu, host.memory_bytes) = (1_000, if index == 0 { 1_000 } else { 121 });
    }
    let sizes = [22, 26, 28, 32, 34, 38, 44, 46];
    let mut rest = 12 * 120 + 2;
    for index in 0.. {
        let mut size = sizes[index % sizes.len()];
        if rest < 100 {
            size = rest.min(50);
        }
        let mut new = vm("v", 1, 0);
        (new.memory_bytes, new.host) = (size, Some(name(0)));
        fleet.vms.insert(uid(index), new.into());
        rest -= size;
        if rest == 0 {
            break;
        }
    }
    let unknown = Headroom::Unknown { failure: name(0) };
    assert_eq!(prove_headroom(&fleet, "main"), unknown);
    let report = headroom_report(&fleet, "main").unwrap();
    assert_eq!((report.unknown(), report.headroom.clone()), (1, unknown));
    assert_eq!(report.most_dangerous().unwrap().survival, Survival::Unknown);
}

/// It has the room, and can not carry their network: whoever counts on it counts on nothing.
#[test]
fn a_host_that_can_not_carry_a_network_is_no_spare_for_its_vms() {
    let mut fleet = plain(2, 32);
    let mut new = vm("v", 1, 4);
    new.host = Some(name(0));
    new.networks = BTreeSet::from(["legacy".to_owned()]).into();
    fleet.vms.insert(uid(0), new.into());
    assert_eq!(prove_headroom(&fleet, "main"), Headroom::Proven);
    let broken = Headroom::Broken {
        failure: name(0),
        vm: uid(0),
    };
    let spare = fleet.hosts.get_mut(&name(1)).unwrap();
    spare.unready_networks.insert("legacy".to_owned());
    assert_eq!(prove_headroom(&fleet, "main"), broken);
    let on_other = BTreeSet::from(["other".to_owned()]).into();
    fleet.vms.get_mut(&uid(0)).unwrap().networks = on_other;
    assert_eq!(prove_headroom(&fleet, "main"), Headroom::Proven);
    fleet.hosts.get_mut(&name(1)).unwrap().has_tunnels = false;
    assert_eq!(prove_headroom(&fleet, "main"), broken);
    fleet.vms.get_mut(&uid(0)).unwrap().needs_tunnels = false;
    assert_eq!(prove_headroom(&fleet, "main"), Headroom::Proven);
}
