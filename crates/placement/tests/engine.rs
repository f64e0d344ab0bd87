//! The indexed engine against the definition of `place`, through random histories.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{any_fleet, any_host, any_rules, any_vm, name, uid};
use model::{HostName, Priority};
use placement::{Engine, Fleet, lint, place};
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

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
        let mut engine = Engine::new(fleet);
        let pending: Vec<_> = engine.fleet().vms.keys().cloned().zip(&critical)
            .map(|(uid, critical)| (if *critical { Priority::Critical } else { Priority::Low }, uid))
            .collect();
        let answers = engine.place_batch(&pending);
        prop_assert_eq!(answers.len(), pending.len());
        prop_assert_eq!(lint(engine.fleet()), vec![]);
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
