//! Answers judged on both sides by trying everything, on fleets of up to six hosts and ten VMs with
//! rules of every kind: a choice is legal by the independent lint and tied for the best of all hosts, a
//! refusal is truly impossible, for the sake of N+1 too, a proof of N+1 has a witness and a refutation none, and a plan never
//! passes through an illegal state. What makes a host the best is written anew here.
#![allow(clippy::unwrap_used)]

mod common;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use common::{GIB, any_fleet, any_model, any_rules, any_storage, name};
use model::{Architecture, HostName, VmUid};
use placement::{
    Admission, Domain, Engine, EvacuationRequest, Filter, Fleet, Goal, Headroom, Limits, Mode,
    Plan, RebalanceRequest, Relation, Side, StorageRoom, Violation, Vm, lint, lint_plan, place,
    plan_evacuation, plan_rebalance, prove_headroom,
};
use proptest::prelude::*;

const HOSTS: usize = 6;
const VMS: usize = 10;

/// A fleet whose VMs are not placed, two thirds of them with rules, most hosts in racks; some VMs have
/// volumes that are not made yet.
fn fleets() -> impl Strategy<Value = Fleet> {
    let rules = proptest::collection::vec(proptest::option::weighted(0.66, any_rules()), VMS);
    let racks = proptest::collection::vec(proptest::option::weighted(0.8, 0..3_u8), HOSTS);
    (any_fleet(HOSTS, VMS), rules, racks)
        .prop_map(|(mut fleet, rules, racks)| {
            for (vm, rules) in fleet.vms.values_mut().zip(rules) {
                vm.rules = rules.unwrap_or_default();
                // It does not run yet.
                vm.runs_with.clear();
            }
            for host in fleet.hosts.values_mut() {
                // A host that is open stands: it is read so.
                host.stands |= host.closed.is_none();
            }
            for (index, rack) in racks.into_iter().enumerate() {
                if let Some(rack) = rack {
                    fleet.racks.insert(name(index), format!("rack{rack}"));
                }
            }
            fleet
        })
        .prop_flat_map(any_storage)
}

/// What the judge finds with a fleet that it did not find before.
fn faults(before: &[Violation], fleet: &Fleet) -> Vec<Violation> {
    let mut faults = lint(fleet);
    faults.retain(|fault| !before.contains(fault));
    faults
}

fn stands(fleet: &Fleet, vm: &Vm) -> bool {
    let mut places = vm.places();
    places.any(|place| fleet.hosts.get(place).is_some_and(|host| host.stands))
}

/// A VM with all that must share its host and are nowhere yet.
fn choosing(fleet: &Fleet, uid: &VmUid) -> Vec<VmUid> {
    let group = &fleet.vms[uid].rules.together;
    let mates: Vec<(&VmUid, &Vm)> = fleet
        .vms
        .iter()
        .map(|(uid, vm)| (uid, vm.as_ref()))
        .filter(|(other, vm)| *other != uid && group.is_some() && vm.rules.together == *group)
        .collect();
    let mut all = vec![uid.clone()];
    if !mates.iter().any(|(_, vm)| stands(fleet, vm)) {
        all.extend(mates.into_iter().map(|(uid, _)| uid.clone()));
    }
    all
}

/// Whether a host takes a VM with those that choose with it.
fn takes(fleet: &Fleet, uid: &VmUid, host: &HostName) -> bool {
    let mut with = fleet.clone();
    for uid in choosing(fleet, uid) {
        let vm = with.vms.get_mut(&uid).unwrap();
        (vm.host, vm.incoming) = (Some(host.clone()), None);
    }
    fleet.hosts[host].closed.is_none() && faults(&lint(fleet), &with).is_empty()
}

/// One rule between two parts: who asks looks at who is named, and each at each.
fn concern(mine: &Relation, other: &Relation) -> bool {
    (&mine.rule, mine.over) == (&other.rule, other.over)
        && match (mine.side, other.side) {
            (Side::Asks, Side::Asks) | (Side::Named, Side::Named) => false,
            (Side::Every | Side::Asks | Side::Named, _) => true,
        }
}

/// How many wishes of a VM a host leaves unmet, and its free memory without who chooses.
fn worth(fleet: &Fleet, uid: &VmUid, host: &HostName) -> (u32, Reverse<u64>) {
    let near = |over: Domain, other: &HostName| match over {
        Domain::Host => other == host,
        Domain::Rack => {
            fleet.racks.contains_key(host) && fleet.racks.get(host) == fleet.racks.get(other)
        }
    };
    let met = |wish: &Relation, parts: fn(&Vm) -> &BTreeSet<Relation>| {
        let mut others = fleet.vms.iter().filter(|(other, _)| *other != uid);
        others.any(|(_, vm)| {
            parts(vm).iter().any(|part| concern(wish, part))
                && vm.places().any(|place| near(wish.over, place))
        })
    };
    let rules = &fleet.vms[uid].rules;
    let apart = rules.rather_apart.iter();
    let apart = apart.filter(|wish| met(wish, |vm| &vm.rules.rather_apart));
    let asked = rules.rather_together.iter();
    let asked = asked.filter(|wish| wish.side != Side::Named);
    let together = asked.filter(|wish| !met(wish, |vm| &vm.rules.rather_together));
    let mut without = fleet.clone();
    for uid in choosing(fleet, uid) {
        without.vms.remove(&uid);
    }
    let free = without.free(host, &fleet.hosts[host]).memory_bytes;
    let unmet = apart.count() + together.count();
    (u32::try_from(unmet).unwrap(), Reverse(free))
}

/// Places one after the other and judges each answer; who is refused is taken away.
fn settled(mut fleet: Fleet) -> Result<Fleet, TestCaseError> {
    for uid in fleet.vms.keys().cloned().collect::<Vec<_>>() {
        let fit: Vec<&HostName> = fleet
            .hosts
            .keys()
            .filter(|host| takes(&fleet, &uid, host))
            .collect();
        match place(&fleet, &uid, &BTreeSet::new()) {
            Ok(choice) => {
                prop_assert!(
                    fit.contains(&&choice.host),
                    "{} may not be on {}",
                    uid,
                    choice.host
                );
                let chosen = worth(&fleet, &uid, &choice.host);
                for other in fit {
                    prop_assert!(
                        chosen <= worth(&fleet, &uid, other),
                        "{uid}: {other} is better"
                    );
                }
                fleet.vms.get_mut(&uid).unwrap().host = Some(choice.host);
            }
            Err(refusal) => {
                let removed = refusal.removed.values().sum::<u32>() as usize;
                prop_assert_eq!(removed, fleet.hosts.len());
                prop_assert!(fit.is_empty(), "{} fits on {:?}", uid, fit);
            }
        }
    }
    fleet.vms.retain(|_, vm| vm.host.is_some());
    Ok(fleet)
}

/// Rules of some running VMs contradict each other from now on, and so for who must share their host.
fn torn(mut fleet: Fleet, torn: &[bool]) -> Fleet {
    let mut groups = BTreeSet::new();
    for (vm, torn) in fleet.vms.values_mut().zip(torn) {
        if *torn {
            vm.rules.contradiction = Some("two rules contradict each other".into());
            groups.extend(vm.rules.together.clone());
        }
    }
    for vm in fleet.vms.values_mut() {
        if vm
            .rules
            .together
            .as_ref()
            .is_some_and(|group| groups.contains(group))
        {
            vm.rules.contradiction = Some("two rules contradict each other".into());
        }
    }
    fleet
}

/// Some VMs run with a processor model that their host, or others, may have ceased to offer.
fn running(mut fleet: Fleet, models: &[Option<String>]) -> Fleet {
    for (vm, model) in fleet.vms.values_mut().zip(models) {
        vm.runs_with = model.iter().cloned().collect();
    }
    fleet
}

/// Whether all of these VMs can be placed, by trying everything.
fn possible(fleet: &Fleet, before: &[Violation], waiting: &[VmUid], usable: &[&HostName]) -> bool {
    let Some(first) = waiting.first() else {
        return true;
    };
    let together = choosing(fleet, first);
    let rest = waiting.iter().filter(|uid| !together.contains(uid));
    let rest: Vec<VmUid> = rest.cloned().collect();
    usable.iter().any(|host| {
        let mut tried = fleet.clone();
        for uid in &together {
            let vm = tried.vms.get_mut(uid).unwrap();
            (vm.host, vm.incoming) = (Some((*host).clone()), None);
        }
        faults(before, &tried).is_empty() && possible(&tried, before, &rest, usable)
    })
}

/// Nobody could take it over, nor who must share its host.
fn outside(fleet: &Fleet, vm: &Vm) -> bool {
    let local = |pool: &String| matches!(fleet.storage.get(pool), Some(StorageRoom::PerHost(_)));
    let bound = |vm: &Vm| {
        let mut new = vm.new_volumes.keys();
        vm.pinned_to.is_some() || vm.rules.contradiction.is_some() || new.any(local)
    };
    let group = &vm.rules.together;
    bound(vm)
        || group.is_some()
            && fleet
                .vms
                .values()
                .any(|other| other.rules.together == *group && bound(other))
}

fn survives(fleet: &Fleet, failed: &HostName) -> bool {
    let mut after = fleet.clone();
    after.hosts.get_mut(failed).unwrap().stands = false;
    let here = |vm: &Vm| vm.host.as_ref() == Some(failed) && vm.restarts_elsewhere;
    let lost = fleet.vms.iter();
    let lost = lost.filter(|(_, vm)| here(vm) && !outside(fleet, vm));
    let lost: Vec<VmUid> = lost.map(|(uid, _)| uid.clone()).collect();
    for uid in &lost {
        after.vms.get_mut(uid).unwrap().host = None;
    }
    // Who is nowhere starts anew.
    let nowhere = after.vms.iter().filter(|(_, vm)| !stands(&after, vm));
    let nowhere: Vec<VmUid> = nowhere.map(|(uid, _)| uid.clone()).collect();
    for uid in nowhere {
        after.vms.get_mut(&uid).unwrap().runs_with.clear();
    }
    let usable = fleet.hosts.iter().filter(|(name, host)| {
        let open = host.stands && host.closed.is_none();
        *name != failed && open && host.pool == fleet.hosts[failed].pool
    });
    let usable: Vec<&HostName> = usable.map(|(name, _)| name).collect();
    possible(&after, &lint(&after), &lost, &usable)
}

/// Hosts of a pool whose failure counts: whatever lives, if it is open or somebody is there.
fn failing<'a>(fleet: &'a Fleet, pool: &str) -> Vec<&'a HostName> {
    let carries = |name| fleet.vms.values().any(|vm| vm.host.as_ref() == Some(name));
    let hosts = fleet.hosts.iter().filter(|(name, host)| {
        host.pool == pool && host.may_fail && (host.closed.is_none() || carries(name))
    });
    hosts.map(|(name, _)| name).collect()
}

/// Whether every failure of one host of a pool is survived.
fn kept(fleet: &Fleet, pool: &str) -> bool {
    let mut failing = failing(fleet, pool).into_iter();
    failing.all(|failed| survives(fleet, failed))
}

/// An answer about a new VM against trying it on every host.
fn judge_admission(fleet: &Fleet, uid: &VmUid, answer: &Admission) -> Result<(), TestCaseError> {
    let hosts = fleet.hosts.keys();
    let fit: Vec<&HostName> = hosts.filter(|host| takes(fleet, uid, host)).collect();
    let keeps = |host: &HostName| {
        let mut with = fleet.clone();
        with.vms.get_mut(uid).unwrap().host = Some(host.clone());
        kept(&with, &fleet.hosts[host].pool)
    };
    match answer {
        Admission::Placed(choice) => {
            prop_assert!(fit.contains(&&choice.host), "{uid} does not fit");
            prop_assert!(keeps(&choice.host), "{uid} breaks N+1 on {}", choice.host);
            let chosen = worth(fleet, uid, &choice.host);
            for other in fit {
                let better = worth(fleet, uid, other) < chosen;
                prop_assert!(!better || !keeps(other), "{uid}: {other} is better");
            }
        }
        Admission::Refused(_) => prop_assert!(fit.is_empty(), "{uid} fits on {fit:?}"),
        Admission::Breaks { tried, refusal, .. } => {
            // Each host is counted once: what fits, by N+1.
            let all = refusal.removed.values().sum::<u32>() as usize;
            let headroom = refusal.removed.get(&Filter::Headroom).copied();
            prop_assert_eq!(all, fleet.hosts.len());
            prop_assert_eq!(headroom.unwrap_or(0) as usize, fit.len());
            prop_assert!(!fit.is_empty() && tried.all);
            let pools = fit.iter().map(|host| fleet.hosts[*host].pool.clone());
            prop_assert_eq!(&pools.collect::<BTreeSet<_>>(), &tried.pools);
            for host in fit {
                prop_assert!(!keeps(host), "{uid} could be on {host}");
            }
        }
    }
    Ok(())
}

/// Every state on the way is played and judged; who must share a host may be apart on the way.
fn never_illegal(fleet: &Fleet, limits: &Limits, plan: &Plan) -> Result<(), TestCaseError> {
    prop_assert_eq!(lint_plan(fleet, limits, plan), vec![]);
    let before = lint(fleet);
    let mut events: Vec<_> = (plan.moves.iter())
        .flat_map(|step| [(step.start_ms, true, step), (step.end_ms, false, step)])
        .collect();
    events.sort_by_key(|(at, start, _)| (*at, *start));
    let mut now = fleet.clone();
    for (at, start, step) in events {
        let vm = now.vms.get_mut(&step.vm).unwrap();
        if start {
            prop_assert_eq!((&vm.host, &vm.incoming), (&Some(step.from.clone()), &None));
            vm.incoming = Some(step.to.clone());
        } else {
            (vm.host, vm.incoming) = (vm.incoming.take(), None);
        }
        let mut faults = faults(&before, &now);
        faults.retain(|fault| !matches!(fault, Violation::Separated(..)));
        prop_assert_eq!(faults, vec![], "at {} ms", at);
    }
    prop_assert_eq!(faults(&before, &now), vec![], "at the end");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn choices_are_the_best_and_refusals_and_proofs_are_true(
        fleet in fleets(),
        contradict in proptest::collection::vec(proptest::bool::weighted(0.05), VMS),
        stay in proptest::collection::vec(proptest::bool::weighted(0.1), VMS),
        models in proptest::collection::vec(any_model(), VMS),
        shut in proptest::collection::vec(proptest::bool::weighted(0.2), HOSTS),
    ) {
        let mut fleet = running(torn(settled(fleet)?, &contradict), &models);
        for (vm, stays) in fleet.vms.values_mut().zip(stay) {
            vm.restarts_elsewhere = !stays;
        }
        for (name, shut) in fleet.hosts.keys().cloned().collect::<Vec<_>>().into_iter().zip(shut) {
            let host = fleet.hosts.get_mut(&name).unwrap();
            if shut && host.closed.is_none() {
                (host.closed, host.stands) = (Some("quarantined".to_owned()), false);
            }
        }
        let failing = failing(&fleet, "main");
        match prove_headroom(&fleet, "main") {
            Headroom::Proven => for failed in failing {
                prop_assert!(survives(&fleet, failed), "{failed} is not survived");
            },
            Headroom::Broken { failure, vm } => {
                prop_assert!(failing.contains(&&failure), "{failure} does not count");
                prop_assert!(!survives(&fleet, &failure), "{failure} is survived");
                prop_assert_eq!(fleet.vms[&vm].host.as_ref(), Some(&failure));
            }
            Headroom::Unknown { failure } => prop_assert!(false, "{failure} is unknown"),
            Headroom::NotPromised => prop_assert!(false, "it is promised"),
        }
    }

    #[test]
    fn a_new_vm_is_refused_only_if_n_plus_1_breaks_wherever_it_is(
        fleet in fleets(),
        begun in 0..4_usize,
        alike in any::<bool>(),
        shut in proptest::collection::vec(proptest::bool::weighted(0.2), HOSTS),
        stay in proptest::collection::vec(proptest::bool::weighted(0.15), VMS),
    ) {
        let mut fleet = fleet;
        if alike && let Some(other) = fleet.pools.get_mut("other") {
            other.architecture = Architecture::x86_64;
        }
        for (vm, stays) in fleet.vms.values_mut().zip(stay) {
            vm.restarts_elsewhere = !stays;
        }
        let uids: Vec<VmUid> = fleet.vms.keys().cloned().collect();
        let hosts: Vec<HostName> = fleet.hosts.keys().cloned().collect();
        let mut engine = Engine::new(fleet);
        for (index, uid) in uids.iter().enumerate() {
            let nothing = BTreeSet::new();
            if index == begun {
                // Some hosts that carry VMs take nothing new from now on.
                for (name, _) in hosts.iter().zip(&shut).filter(|(_, shut)| **shut) {
                    let mut host = engine.fleet().hosts[name].clone();
                    (host.closed, host.stands) = (Some("quarantined".to_owned()), false);
                    engine.upsert_host(name.clone(), host);
                }
            }
            if index < begun {
                // Who was there before; N+1 may be broken already.
                match engine.place(uid, &nothing) {
                    Ok(choice) => engine.assign(uid, &choice.host),
                    Err(_) => engine.remove_vm(uid),
                }
                continue;
            }
            let before = engine.fleet().clone();
            let answer = engine.admit(uid, &nothing);
            judge_admission(&before, uid, &answer)?;
            match answer {
                Admission::Placed(choice) => {
                    prop_assert_eq!(engine.fleet().vms[uid].host.as_ref(), Some(&choice.host));
                }
                _ => {
                    prop_assert_eq!(engine.fleet(), &before);
                    engine.remove_vm(uid);
                }
            }
        }
    }

    #[test]
    fn plans_never_pass_through_an_illegal_state(
        fleet in fleets(),
        contradict in proptest::collection::vec(proptest::bool::weighted(0.05), VMS),
        emptied in proptest::collection::btree_set(0..HOSTS, 1..3),
        (per_host, per_site) in (1..4_u32, 1..4_u32),
        dirty in proptest::collection::vec(0..2 * GIB, VMS),
        models in proptest::collection::vec(any_model(), VMS),
    ) {
        let fleet = running(torn(settled(fleet)?, &contradict), &models);
        let limits = Limits { moves_per_host: per_host, moves_per_site: per_site, ..Limits::default() };
        let hosts = emptied.into_iter().map(name).filter(|name| fleet.hosts.contains_key(name));
        let dirty: std::collections::BTreeMap<_, _> = fleet.vms.keys().cloned().zip(dirty).collect();
        let request = EvacuationRequest {
            hosts: hosts.collect(),
            limits: limits.clone(),
            dirty_bytes_per_second: dirty.clone(),
            ..EvacuationRequest::default()
        };
        let plan = plan_evacuation(&fleet, &request);
        never_illegal(&fleet, &limits, &plan)?;
        for step in &plan.moves {
            prop_assert!(fleet.vms[&step.vm].rules.contradiction.is_none(), "{} has no place", step.vm);
        }
        for goal in [Goal::Balance, Goal::Consolidate(BTreeSet::new())] {
            let request = RebalanceRequest {
                goal,
                mode: Mode::Eager,
                limits: limits.clone(),
                dirty_bytes_per_second: dirty.clone(),
                ..RebalanceRequest::new("main")
            };
            never_illegal(&fleet, &limits, &plan_rebalance(&fleet, &request).plan)?;
        }
    }
}
