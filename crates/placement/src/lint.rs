//! An independent judge of a fleet and of plans: every rule written anew against the objects,
//! sharing no code with the filters.

mod arrival;
mod change;
mod order;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::fleet::{Fleet, Host, Pool, Vm};
use crate::rules::{Domain, Side};
use crate::storage::StorageRoom;

pub use change::lint_change;
pub use plan::{PlanFault, PlanViolation, lint_plan};

/// A rule that a fleet breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A host carries more than it has.
    Overloaded(HostName),
    /// Two VMs that must be apart are together, on a host or in a rack.
    Together(VmUid, VmUid),
    /// Two VMs that must share a host do not.
    Separated(VmUid, VmUid),
    /// New volumes of VMs on a host, or on all, take more of a storage pool than there is.
    StorageOverfull(String),
    /// A VM is where a rule forbids it.
    Misplaced(VmUid, &'static str),
}

/// Judges every VM and host.
pub fn lint(fleet: &Fleet) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut load: BTreeMap<&HostName, (u128, u128)> = BTreeMap::new();
    for (uid, vm) in &fleet.vms {
        let both = vm.host.iter().chain(&vm.incoming);
        for name in both.filter(|name| vm.incoming.as_ref() != Some(name) || vm.host != vm.incoming)
        {
            let sum = load.entry(name).or_default();
            *sum = (
                sum.0 + u128::from(vm.cpu),
                sum.1 + u128::from(vm.memory_bytes),
            );
            let Some(host) = fleet.hosts.get(name) else {
                continue;
            };
            let broken = misplaced(
                vm,
                name,
                host,
                fleet.pools.get(&host.pool),
                fleet.racks.get(name),
            );
            violations.extend(
                broken
                    .into_iter()
                    .map(|rule| Violation::Misplaced(uid.clone(), rule)),
            );
        }
    }
    violations.extend(crowding(fleet));
    violations.extend(separated(fleet));
    violations.extend(overfull_storage(fleet));
    for (name, (cpu, memory)) in load {
        let host = fleet.hosts.get(name);
        if host.is_some_and(|host| overloaded(host, fleet.pools.get(&host.pool), cpu, memory)) {
            violations.push(Violation::Overloaded(name.clone()));
        }
    }
    violations
}

/// Storage pools that new volumes of VMs with a host overfill, once for each host where hosts do not
/// share.
fn overfull_storage(fleet: &Fleet) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (pool, room) in &fleet.storage {
        let new = fleet.vms.values().filter_map(|vm| {
            let bytes = vm.new_volumes.get(pool)?;
            let hosts: BTreeSet<&HostName> = vm.host.iter().chain(&vm.incoming).collect();
            (!hosts.is_empty()).then_some((u128::from(*bytes), hosts))
        });
        let new: Vec<_> = new.collect();
        let on = |host: &HostName| {
            let there = new.iter().filter(|(_, hosts)| hosts.contains(host));
            there.map(|(bytes, _)| bytes).sum::<u128>()
        };
        let overfull = match room {
            StorageRoom::Shared(room) => {
                let all: u128 = new.iter().map(|(bytes, _)| bytes).sum();
                usize::from(all > u128::from(*room))
            }
            StorageRoom::PerHost(rooms) => {
                let over = rooms
                    .iter()
                    .filter(|(host, room)| on(host) > (**room).into());
                over.count()
            }
        };
        violations.extend(vec![Violation::StorageOverfull(pool.clone()); overfull]);
    }
    violations
}

/// Where a VM is, by the domain of a rule: its hosts, or their racks.
fn domains<'a>(fleet: &'a Fleet, vm: &'a Vm, over: Domain) -> BTreeSet<&'a str> {
    let hosts = vm.host.iter().chain(&vm.incoming);
    hosts
        .filter_map(|name| match over {
            Domain::Host => Some(name.as_str()),
            Domain::Rack => fleet.racks.get(name).map(String::as_str),
        })
        .collect()
}

/// One of two VMs asks for what the other is named by, or each asks it of all.
fn concerns(one: Side, two: Side) -> bool {
    match one {
        Side::Every => true,
        Side::Asks => two != Side::Asks,
        Side::Named => two != Side::Named,
    }
}

/// By rule, domain kind and domain: who is there, and on which side.
type Parts<'a> = BTreeMap<(&'a str, Domain, &'a str), Vec<(&'a VmUid, Side)>>;

fn crowding(fleet: &Fleet) -> Vec<Violation> {
    let mut parts: Parts<'_> = BTreeMap::new();
    for (uid, vm) in &fleet.vms {
        for relation in &vm.rules.apart {
            for place in domains(fleet, vm, relation.over) {
                let key = (relation.rule.as_str(), relation.over, place);
                parts.entry(key).or_default().push((uid, relation.side));
            }
        }
    }
    let mut violations = Vec::new();
    for together in parts.values() {
        for (index, (one, side)) in together.iter().enumerate() {
            for (other, _) in together
                .iter()
                .skip(index + 1)
                .filter(|(_, other)| concerns(*side, *other))
            {
                violations.push(Violation::Together((*one).clone(), (*other).clone()));
            }
        }
    }
    violations
}

/// Groups that must share a host: there is one on which all are that are on hosts that stand.
fn separated(fleet: &Fleet) -> Vec<Violation> {
    let mut groups: BTreeMap<&str, Vec<(&VmUid, BTreeSet<&HostName>)>> = BTreeMap::new();
    for (uid, vm) in &fleet.vms {
        let hosts = vm.host.iter().chain(&vm.incoming);
        let standing: BTreeSet<&HostName> = hosts
            .filter(|name| fleet.hosts.get(*name).is_some_and(|host| host.stands))
            .collect();
        if let (Some(group), false) = (&vm.rules.together, standing.is_empty()) {
            groups.entry(group).or_default().push((uid, standing));
        }
    }
    let mut violations = Vec::new();
    for members in groups.values() {
        let Some(((first, all), others)) = members.split_first() else {
            continue;
        };
        let mut common = all.clone();
        for (other, hosts) in others {
            common.retain(|name| hosts.contains(name));
            if common.is_empty() {
                violations.push(Violation::Separated((*first).clone(), (*other).clone()));
                break;
            }
        }
    }
    violations
}

/// Rules that forbid a VM on a host, whatever else is there.
fn misplaced(
    vm: &Vm,
    name: &HostName,
    host: &Host,
    pool: Option<&Pool>,
    rack: Option<&String>,
) -> Vec<&'static str> {
    let Some(pool) = pool else {
        return vec!["pool"];
    };
    let rules = [
        (
            vm.zones.iter().any(|zone| !pool.zones.contains(zone)),
            "zone",
        ),
        (vm.architecture != pool.architecture, "architecture"),
        (sees_another_processor(vm, host, pool), "processor model"),
        (vm.mlps_grade > pool.mlps_grade, "grade"),
        (
            vm.storage_pools
                .iter()
                .any(|pool| !host.storage_pools.contains(pool)),
            "storage",
        ),
        (out_of_reach(vm, host), "network"),
        (
            vm.pinned_to.as_ref().is_some_and(|pinned| pinned != name),
            "pinned",
        ),
        (
            rack.is_none() && vm.rules.apart.iter().any(|part| part.over == Domain::Rack),
            "rack",
        ),
        (vm.rules.contradiction.is_some(), "contradiction"),
    ];
    let broken = rules.into_iter().filter(|(broken, _)| *broken);
    broken.map(|(_, rule)| rule).collect()
}

/// The pool's processor model, or one that the VM runs with, is not among those that the host says it
/// offers.
fn sees_another_processor(vm: &Vm, host: &Host, pool: &Pool) -> bool {
    let named: BTreeSet<&String> = vm.runs_with.iter().chain(&pool.cpu_model).collect();
    let offered = host.cpu_models.as_ref();
    offered.is_some_and(|offered| !offered.iter().collect::<BTreeSet<_>>().is_superset(&named))
}

/// A network of the VM is one that the host says it can not carry, or a VXLAN where no tunnel ends.
fn out_of_reach(vm: &Vm, host: &Host) -> bool {
    let unready = &host.unready_networks;
    (vm.needs_tunnels && !host.has_tunnels)
        || vm.networks.iter().any(|network| unready.contains(network))
}

fn overloaded(host: &Host, pool: Option<&Pool>, cpu: u128, memory: u128) -> bool {
    pool.is_some_and(|pool| {
        cpu * 100 > u128::from(host.cpu) * u128::from(pool.cpu_overcommit_percent)
            || memory * 100
                > u128::from(host.memory_bytes) * u128::from(pool.memory_overcommit_percent)
    })
}
