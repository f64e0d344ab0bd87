//! Questions about a fleet that is not there yet: new VMs, a host that fails, more hosts.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{GIB, host, name, pool, uid, vm};
use model::{Architecture, HostName, VmUid, Zone};
use placement::{Admission, Engine, Fleet, Headroom, Vm, host_down, prove_headroom, with_hosts};

/// Hosts of one pool with that much memory each.
fn fleet(memory: impl IntoIterator<Item = u64>) -> Fleet {
    let mut fleet = Fleet::default();
    let main = pool(Architecture::x86_64, &[Zone::Common], 3);
    fleet.pools.insert("main".into(), main);
    for (index, memory) in memory.into_iter().enumerate() {
        fleet.hosts.insert(name(index), host("main", 1_000, memory));
    }
    fleet
}

fn on(fleet: &mut Fleet, index: usize, (cpu, memory): (u64, u64), at: usize) {
    let mut new = vm(&format!("v{index}"), cpu, memory);
    new.host = Some(name(at));
    fleet.vms.insert(uid(index), new.into());
}

fn new(engine: &mut Engine, memory: u64) -> VmUid {
    let uid = VmUid("new".into());
    engine.upsert_vm(uid.clone(), vm("new", 1, memory));
    uid
}

/// One host whose many VMs each need the whole room of one of the others, and one more with too little
/// for any of them. On the others differ only the processors that are in use, if anything does.
fn many_are_needed(others: usize, differ: bool) -> Fleet {
    let large = others as u64 * 20;
    let mut fleet = fleet([large].into_iter().chain(vec![32; others]).chain([20]));
    for other in 1..=others {
        on(&mut fleet, other, (1, 20), 0);
        let cpu = if differ { other as u64 } else { 1 };
        on(&mut fleet, others + other, (cpu, 12), other);
    }
    on(&mut fleet, 0, (1, 12), others + 1);
    fleet
}

#[test]
fn hosts_that_are_alike_are_asked_once() {
    // More of them than may be asked; with one more VM on any, one of the many finds no place.
    let fleet = many_are_needed(100, false);
    assert_eq!(prove_headroom(&fleet, "main"), Headroom::Proven);
    let mut engine = Engine::new(fleet);
    let uid = new(&mut engine, 1);
    let Admission::Placed(choice) = engine.admit(&uid, &BTreeSet::new()) else {
        panic!("the last host would do");
    };
    assert_eq!(choice.host, name(101));
    assert_eq!(
        choice.reasons,
        [
            "most free memory of the hosts that fit, without those on which N+1 would break (8192 MiB)"
        ]
    );
    assert_eq!(engine.prove_headroom("main"), Headroom::Proven);
}

#[test]
fn who_is_refused_before_all_were_asked_is_told_so() {
    let fleet = many_are_needed(100, true);
    assert_eq!(prove_headroom(&fleet, "main"), Headroom::Proven);
    let mut engine = Engine::new(fleet);
    let uid = new(&mut engine, 1);
    let before = engine.fleet().clone();
    let Admission::Breaks { pool, tried, .. } = engine.admit(&uid, &BTreeSet::new()) else {
        panic!("it is not found");
    };
    assert_eq!((pool.as_str(), tried.asked, tried.all), ("main", 64, false));
    assert_eq!(
        tried.sentence(),
        "none of 64 hosts tried in pool main would keep N+1; others were not tried"
    );
    assert_eq!(engine.fleet(), &before);
}

#[test]
fn a_pool_that_is_full_is_asked_once() {
    let mut fleet = fleet([32, 32, 32, 32]);
    for index in 0..4 {
        on(&mut fleet, index, (1, 24 - index as u64), index);
    }
    let mut engine = Engine::new(fleet);
    let uid = new(&mut engine, 8);
    let Admission::Breaks { tried, .. } = engine.admit(&uid, &BTreeSet::new()) else {
        panic!("it is full");
    };
    assert_eq!((tried.asked, tried.all), (1, true));
    assert_eq!(
        tried.sentence(),
        "no host of pool main that fits would keep N+1"
    );
}

#[test]
fn new_vms_are_asked_about_one_by_one_and_the_refused_take_no_room() {
    // One host is kept free in sum: room for 64 GiB on the other two.
    let mut engine = Engine::new(fleet([32, 32, 32]));
    let wanted = [
        ("urgent", 16),
        ("giant", 40),
        ("large", 30),
        ("third", 29),
        ("small", 8),
    ];
    for (label, memory) in wanted {
        engine.upsert_vm(VmUid(label.into()), vm(label, 1, memory));
    }
    let answers = wanted.map(|(label, _)| {
        let answer = engine.admit(&VmUid(label.into()), &BTreeSet::new());
        (label, answer)
    });
    let kind = |answer: &Admission| match answer {
        Admission::Placed(_) => "placed",
        Admission::Refused(_) => "fits nowhere",
        Admission::Breaks { .. } => "breaks N+1",
    };
    let kinds: Vec<&str> = answers.iter().map(|(_, answer)| kind(answer)).collect();
    assert_eq!(
        kinds,
        ["placed", "fits nowhere", "placed", "breaks N+1", "placed"]
    );
    assert_eq!(engine.prove_headroom("main"), Headroom::Proven);
    let placed = |uid: &str| engine.fleet().vms[&VmUid(uid.into())].host.is_some();
    assert!(!placed("giant") && !placed("third") && placed("small"));
}

#[test]
fn of_a_failed_host_each_vm_is_told_where_it_goes_or_why_it_waits() {
    let mut fleet = fleet([32, 32, 16]);
    for (index, memory) in [(0, 20), (1, 4), (2, 2), (3, 2), (5, 2)] {
        on(&mut fleet, index, (1, memory), 0);
    }
    on(&mut fleet, 4, (1, 10), 1);
    let change = |fleet: &mut Fleet, index, change: &dyn Fn(&mut Vm)| {
        change(fleet.vms.get_mut(&uid(index)).unwrap());
    };
    change(&mut fleet, 2, &|vm| vm.pinned_to = Some(name(0)));
    change(&mut fleet, 3, &|vm| vm.restarts_elsewhere = false);
    // On its way to the host that fails: it stays where it is.
    change(&mut fleet, 4, &|vm| vm.incoming = Some(name(0)));
    let idle = BTreeSet::from([uid(5)]);
    // The small one chooses first, and takes the host that the large one would need.
    let turns = BTreeMap::from([(uid(0), 2), (uid(1), 1)]);
    let answer = host_down(&fleet, &name(0), &turns, &idle).unwrap();
    let restarts: Vec<(&VmUid, Option<&HostName>)> = answer
        .restarts
        .iter()
        .map(|(uid, answer)| (uid, answer.as_ref().ok().map(|choice| &choice.host)))
        .collect();
    assert_eq!(
        restarts,
        [(&uid(1), Some(&name(1))), (&uid(0), None)],
        "4 GiB go beside 10, then 20 fit nowhere"
    );
    assert_eq!((answer.pinned, answer.wait), (vec![uid(2)], vec![uid(3)]));
    assert_eq!(answer.shut_down, [uid(5)], "it starts nowhere");
    let after = answer.after.unwrap();
    assert!(
        after
            .hosts
            .iter()
            .all(|host| host.failure.to_string() != "host h0")
    );
    // The other way round both find a place.
    let turns = BTreeMap::from([(uid(0), 1), (uid(1), 2)]);
    let answer = host_down(&fleet, &name(0), &turns, &idle).unwrap();
    assert!(answer.restarts.iter().all(|(_, answer)| answer.is_ok()));
    assert_eq!(host_down(&fleet, &name(9), &turns, &idle), None);
}

#[test]
fn more_hosts_are_counted_in_and_never_replace_one() {
    let mut fleet = fleet([32]);
    on(&mut fleet, 0, (1, 8), 0);
    assert_ne!(prove_headroom(&fleet, "main"), Headroom::Proven);
    let more = with_hosts(&fleet, &[(name(1), host("main", 8, 8))]).unwrap();
    assert_eq!(prove_headroom(&more, "main"), Headroom::Proven);
    let mut other = host("main", 8, 8);
    other.memory_bytes = GIB;
    assert_eq!(with_hosts(&fleet, &[(name(0), other)]), None);
}
