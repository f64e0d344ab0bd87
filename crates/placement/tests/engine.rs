//! The indexed engine against the definition of `place`, through random histories.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{any_fleet, any_host, any_rules, any_vm, name, uid};
use model::{HostName, Priority, VmUid};
use placement::{
    Choice, Domain, Engine, Fleet, Relation, Rules, Side, Vm, lint, lint_change, place,
};
use proptest::prelude::*;

const HOSTS: usize = 7;
const VMS: usize = 12;

#[derive(Clone, Debug)]
enum Change {
    Host(usize, placement::Host),
    NoHost(usize),
    Rack(usize, Option<u8>),
    Vm(usize, placement::Vm),
    NoVm(usize),
    Assign(usize, usize),
    Unassign(usize),
    Begin(usize, usize),
    End(usize, bool),
    Place(usize),
}

/// Half of the VMs have rules of every kind.
fn ruled_vm() -> impl Strategy<Value = placement::Vm> {
    (any_vm(HOSTS, 5), proptest::option::of(any_rules())).prop_map(|(vm, rules)| placement::Vm {
        rules: rules.unwrap_or_else(|| vm.rules.clone()),
        ..vm
    })
}

fn change() -> impl Strategy<Value = Change> {
    let (host, vm) = (0..HOSTS, 0..VMS);
    prop_oneof![
        (host.clone(), any_host(9)).prop_map(|(index, host)| Change::Host(index, host)),
        host.clone().prop_map(Change::NoHost),
        (host.clone(), proptest::option::of(0..3_u8))
            .prop_map(|(host, rack)| Change::Rack(host, rack)),
        (vm.clone(), ruled_vm()).prop_map(|(index, vm)| Change::Vm(index, vm)),
        vm.clone().prop_map(Change::NoVm),
        (vm.clone(), host.clone()).prop_map(|(vm, host)| Change::Assign(vm, host)),
        vm.clone().prop_map(Change::Unassign),
        (vm.clone(), host).prop_map(|(vm, host)| Change::Begin(vm, host)),
        (vm.clone(), any::<bool>()).prop_map(|(vm, arrived)| Change::End(vm, arrived)),
        vm.prop_map(Change::Place),
    ]
}

/// The same change on a plain fleet.
fn apply(fleet: &mut Fleet, engine: &mut Engine, change: Change) {
    match change {
        Change::Host(index, host) => {
            fleet.hosts.insert(name(index), host.clone());
            engine.upsert_host(name(index), host);
        }
        Change::NoHost(index) => {
            fleet.hosts.remove(&name(index));
            fleet.racks.remove(&name(index));
            engine.remove_host(&name(index));
        }
        Change::Rack(index, rack) => {
            let rack = rack.map(|rack| format!("rack{rack}"));
            match &rack {
                Some(rack) => fleet.racks.insert(name(index), rack.clone()),
                None => fleet.racks.remove(&name(index)),
            };
            engine.set_rack(&name(index), rack);
        }
        Change::Vm(index, vm) => {
            fleet.vms.insert(uid(index), vm.clone().into());
            engine.upsert_vm(uid(index), vm);
        }
        Change::NoVm(index) => {
            fleet.vms.remove(&uid(index));
            engine.remove_vm(&uid(index));
        }
        Change::Assign(vm, host) => {
            if let Some(vm) = fleet.vms.get_mut(&uid(vm)) {
                (vm.host, vm.incoming) = (Some(name(host)), None);
            }
            engine.assign(&uid(vm), &name(host));
        }
        Change::Unassign(vm) => {
            if let Some(vm) = fleet.vms.get_mut(&uid(vm)) {
                (vm.host, vm.incoming) = (None, None);
                vm.runs_with.clear();
            }
            engine.unassign(&uid(vm));
        }
        Change::Begin(vm, host) => {
            if let Some(vm) = fleet.vms.get_mut(&uid(vm)) {
                vm.incoming = Some(name(host));
            }
            engine.begin_move(&uid(vm), &name(host));
        }
        Change::End(vm, arrived) => {
            if let Some(vm) = fleet.vms.get_mut(&uid(vm)) {
                let to = vm.incoming.take();
                if arrived && to.is_some() {
                    vm.host = to;
                }
            }
            engine.end_move(&uid(vm), arrived);
        }
        Change::Place(vm) => {
            if let Ok(choice) = engine.place(&uid(vm), &BTreeSet::new()) {
                apply(
                    fleet,
                    engine,
                    Change::Assign(vm, choice.host.0[1..].parse().unwrap()),
                );
            }
        }
    }
}

/// How many of its wishes a host would leave unmet, counted VM by VM.
fn unmet(fleet: &Fleet, uid: &VmUid, host: &HostName) -> usize {
    let near = |wish: &Relation, of: fn(&Vm) -> &BTreeSet<Relation>| {
        fleet
            .vms
            .iter()
            .filter(|(other, _)| *other != uid)
            .any(|(_, other)| {
                let there = other
                    .host
                    .iter()
                    .chain(&other.incoming)
                    .any(|place| match wish.over {
                        Domain::Host => place == host,
                        Domain::Rack => {
                            let rack = fleet.racks.get(host);
                            rack.is_some() && fleet.racks.get(place) == rack
                        }
                    });
                there && of(other).iter().any(|theirs| wish.meets(theirs))
            })
    };
    let rules = &fleet.vms[uid].rules;
    let apart = rules
        .rather_apart
        .iter()
        .filter(|wish| near(wish, |vm| &vm.rules.rather_apart));
    let asked = rules
        .rather_together
        .iter()
        .filter(|wish| wish.side != Side::Named);
    let together = asked.filter(|wish| !near(wish, |vm| &vm.rules.rather_together));
    apart.count() + together.count()
}

/// What is left on a host without the VM, MiB.
fn free(fleet: &Fleet, uid: &VmUid, host: &HostName) -> u64 {
    let others = fleet.vms.iter().filter(|(other, _)| *other != uid);
    let there = others.filter(|(_, vm)| {
        vm.host
            .iter()
            .chain(&vm.incoming)
            .any(|place| place == host)
    });
    let used: u64 = there.map(|(_, vm)| vm.memory_bytes).sum();
    fleet
        .capacity(&fleet.hosts[host])
        .memory_bytes
        .saturating_sub(used)
        >> 20
}

/// Every sentence against all hosts that fit.
fn is_true(fleet: &Fleet, uid: &VmUid, avoid: &BTreeSet<HostName>, choice: &Choice) {
    let alone = |host: &HostName| {
        let mut only = fleet.clone();
        for (_, other) in only.hosts.iter_mut().filter(|(name, _)| *name != host) {
            other.closed = Some("not asked about".to_owned());
        }
        place(&only, uid, &BTreeSet::new()).is_ok()
    };
    let fit: Vec<&HostName> = fleet.hosts.keys().filter(|name| alone(name)).collect();
    let wanted: Vec<&HostName> = fit
        .iter()
        .copied()
        .filter(|name| !avoid.contains(*name))
        .collect();
    let most = |hosts: &[&HostName]| {
        hosts
            .iter()
            .map(|name| free(fleet, uid, name))
            .max()
            .unwrap()
    };
    let best = if wanted.is_empty() { &fit } else { &wanted };
    let (here, rules) = (unmet(fleet, uid, &choice.host), &fleet.vms[uid].rules);
    let named = rules
        .rather_together
        .iter()
        .filter(|wish| wish.side == Side::Named);
    let wishes = rules.rather_apart.len() + rules.rather_together.len() - named.count();
    let text = choice.reasons.join("; ");
    let says = |part: &str| text.contains(part);
    assert!(
        says(&format!("({} MiB)", free(fleet, uid, &choice.host))),
        "{text}"
    );
    assert_eq!(
        says("failed on every host"),
        !avoid.is_empty() && wanted.is_empty(),
        "{text}"
    );
    assert_eq!(
        says("bound to this host"),
        fleet.vms[uid].pinned_to.is_some(),
        "{text}"
    );
    let mine = free(fleet, uid, &choice.host);
    if says("most free memory of the hosts that fit (") {
        assert_eq!(mine, most(&fit), "{text}");
    } else if says("most free memory of the hosts that fit and on which no start of it failed (") {
        assert_eq!(mine, most(&wanted), "{text}");
    } else {
        assert!(
            says("most free memory where as many wishes are met ("),
            "{text}"
        );
        let as_good: Vec<&HostName> = best
            .iter()
            .copied()
            .filter(|name| unmet(fleet, uid, name) == here)
            .collect();
        assert_eq!(mine, most(&as_good), "{text}");
    }
    let fewest = best
        .iter()
        .map(|name| unmet(fleet, uid, name))
        .min()
        .unwrap();
    assert_eq!(here, fewest, "{text}");
    let expected = match (wishes, wishes - here) {
        (0, _) => return assert!(!says("wish"), "{text}"),
        (1, 1) => "its wish about other VMs is met there".to_owned(),
        (all, met) if all == met => format!("its {all} wishes about other VMs are met there"),
        (_, 0) => "no wish of it about other VMs is met on any of the hosts that fit".to_owned(),
        (all, met) => {
            format!("{met} of its {all} wishes about other VMs are met there, more on none of")
        }
    };
    assert!(says(&expected), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Why a host was chosen is true, whatever decided: room, wishes, a failed start, data.
    #[test]
    fn reasons_are_true(
        fleet in any_fleet(HOSTS, VMS),
        rules in proptest::collection::vec(any_rules(), VMS),
        places in proptest::collection::vec(proptest::option::of(0..HOSTS), VMS),
        racks in proptest::collection::vec(proptest::option::of(0..3_u8), HOSTS),
        avoid in proptest::collection::btree_set(0..HOSTS, 0..3),
    ) {
        let (mut fleet, avoid) = (fleet, avoid.into_iter().map(name).collect());
        let hosts = fleet.hosts.keys().cloned().zip(racks);
        fleet.racks = hosts.filter_map(|(name, rack)| Some((name, format!("rack{}", rack?)))).collect();
        for ((vm, rules), host) in fleet.vms.values_mut().zip(rules).zip(places) {
            (vm.rules, vm.host) = (Rules { together: None, ..rules }, host.map(name));
        }
        for uid in fleet.vms.keys() {
            if let Ok(choice) = place(&fleet, uid, &avoid) {
                is_true(&fleet, uid, &avoid, &choice);
            }
        }
    }

    /// Choice, reasons and every count of every refusal are those of the definition.
    #[test]
    fn the_engine_answers_like_the_definition(
        fleet in any_fleet(HOSTS, VMS),
        changes in proptest::collection::vec(change(), 0..40),
        avoid in proptest::collection::btree_set(0..HOSTS, 0..3),
    ) {
        let avoid: BTreeSet<HostName> = avoid.into_iter().map(name).collect();
        let (mut plain, mut engine) = (fleet.clone(), Engine::new(fleet));
        for change in changes {
            apply(&mut plain, &mut engine, change);
            prop_assert_eq!(engine.fleet(), &plain);
            for uid in plain.vms.keys() {
                prop_assert_eq!(engine.place(uid, &avoid), place(&plain, uid, &avoid), "{}", uid);
            }
        }
    }

    /// A batch is legal, and serves the higher priority first.
    #[test]
    fn a_batch_is_legal_and_keeps_the_order_of_priorities(
        fleet in any_fleet(HOSTS, VMS),
        critical in proptest::collection::vec(any::<bool>(), VMS),
    ) {
        let before = fleet.clone();
        let mut engine = Engine::new(fleet);
        let pending: Vec<_> = engine.fleet().vms.keys().cloned().zip(&critical)
            .map(|(uid, critical)| (if *critical { Priority::Critical } else { Priority::Low }, uid))
            .collect();
        let answers = engine.place_batch(&pending);
        prop_assert_eq!(answers.len(), pending.len());
        prop_assert_eq!(lint(engine.fleet()), vec![]);
        prop_assert_eq!(lint_change(&before, engine.fleet()), vec![]);
        // Who was served before a refused VM was not of a lower priority.
        let priority = |uid: &model::VmUid| pending.iter().find(|(_, other)| other == uid).unwrap().0;
        for pair in answers.windows(2) {
            prop_assert!(priority(&pair[0].0) <= priority(&pair[1].0));
        }
        for (uid, answer) in &answers {
            prop_assert_eq!(answer.is_err(), engine.fleet().vms[uid].host.is_none());
        }
    }
}

/// Rules that nobody has any more are forgotten now and then; a fleet that begins with many has none of these.
#[test]
fn a_fleet_may_begin_with_any_number_of_rules() {
    let mut fleet = Fleet::default();
    for index in 0..45_000 {
        let mut vm = common::vm(&format!("v{index}"), 1, 1);
        vm.rules = Rules::kept_apart(format!("r{index}"));
        fleet.vms.insert(uid(index), vm.into());
    }
    let mut engine = Engine::new(fleet.clone());
    assert_eq!(engine.fleet(), &fleet);
    // The same by deltas, from nothing.
    engine.sync(Fleet::default());
    engine.sync(fleet.clone());
    assert_eq!(engine.fleet(), &fleet);
}
