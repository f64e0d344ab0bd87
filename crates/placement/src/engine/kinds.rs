//! Kinds of open hosts, classes of VMs, and what the rules say of each pair.

use std::collections::{BTreeMap, BTreeSet};

use model::{Architecture, Zone};

use super::shelf::Shelf;
use crate::filter::{Filter, fits_kind};
use crate::fleet::{Host, Pool, Vm};
use crate::names::Names;

/// What the rules about kinds read of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KindKey {
    pool: String,
    storage_pools: BTreeSet<String>,
    has_tunnels: bool,
    unready_networks: BTreeSet<String>,
    cpu_models: Option<BTreeSet<String>>,
    racked: bool,
}

/// What they read of a VM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClassKey {
    architecture: Architecture,
    mlps_grade: i32,
    zones: BTreeSet<Zone>,
    storage_pools: Names,
    networks: Names,
    needs_tunnels: bool,
    runs_with: Names,
    needs_rack: bool,
}

#[derive(Clone, Debug)]
struct Kind {
    sample: Host,
    racked: bool,
    pool: Option<Pool>,
    shelf: Shelf,
}

#[derive(Clone, Debug)]
struct Class {
    sample: Vm,
    /// By kind: the rule that removes it.
    removes: Vec<Option<Filter>>,
    /// Kinds that no rule removes, ascending.
    allowed: Vec<u32>,
    /// The same for all classes that are allowed the same kinds.
    reach: u32,
}

impl Class {
    fn learn(&mut self, number: u32, kind: &Kind) {
        let removes = fits_kind(kind.pool.as_ref(), &self.sample, &kind.sample, kind.racked);
        if removes.is_none() {
            self.allowed.push(number);
        }
        self.removes.push(removes);
    }

    fn number_reach(&mut self, reaches: &mut BTreeMap<Vec<u32>, u32>) {
        let next = number(reaches.len());
        self.reach = *reaches.entry(self.allowed.clone()).or_insert(next);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    kind_numbers: BTreeMap<KindKey, u32>,
    kinds: Vec<Kind>,
    class_numbers: BTreeMap<ClassKey, u32>,
    classes: Vec<Class>,
    /// Sets of kinds that are allowed to some class, numbered.
    reaches: BTreeMap<Vec<u32>, u32>,
}

impl Kinds {
    /// The kind of an open host.
    pub(super) fn kind(&mut self, host: &Host, pool: Option<&Pool>, racked: bool) -> u32 {
        let key = KindKey {
            pool: host.pool.clone(),
            storage_pools: host.storage_pools.clone(),
            has_tunnels: host.has_tunnels,
            unready_networks: host.unready_networks.clone(),
            cpu_models: host.cpu_models.clone(),
            racked,
        };
        let next = number(self.kinds.len());
        let kind = *self.kind_numbers.entry(key).or_insert(next);
        if kind == next {
            let new = Kind {
                sample: host.clone(),
                racked,
                pool: pool.cloned(),
                shelf: Shelf::default(),
            };
            self.reaches.clear();
            for class in &mut self.classes {
                class.learn(next, &new);
                class.number_reach(&mut self.reaches);
            }
            self.kinds.push(new);
        }
        kind
    }

    /// The class of a VM.
    pub(super) fn class(&mut self, vm: &Vm) -> u32 {
        let key = ClassKey {
            architecture: vm.architecture,
            mlps_grade: vm.mlps_grade,
            zones: vm.zones.clone(),
            storage_pools: vm.storage_pools.clone(),
            networks: vm.networks.clone(),
            needs_tunnels: vm.needs_tunnels,
            runs_with: vm.runs_with.clone(),
            needs_rack: vm.rules.needs_rack(),
        };
        let next = number(self.classes.len());
        let class = *self.class_numbers.entry(key).or_insert(next);
        if class == next {
            let mut new = Class {
                sample: vm.clone(),
                removes: Vec::new(),
                allowed: Vec::new(),
                reach: 0,
            };
            for (index, kind) in self.kinds.iter().enumerate() {
                new.learn(number(index), kind);
            }
            new.number_reach(&mut self.reaches);
            self.classes.push(new);
        }
        class
    }

    /// Lets a VM share what all of its class have.
    pub(super) fn share(&self, class: u32, vm: &mut Vm) {
        if let Some(class) = self.classes.get(class as usize) {
            vm.storage_pools = class.sample.storage_pools.clone();
            vm.networks = class.sample.networks.clone();
            vm.runs_with = class.sample.runs_with.clone();
        }
    }

    /// The rule that removes hosts of a kind for a class.
    pub(super) fn removes(&self, class: u32, kind: u32) -> Option<&Filter> {
        let class = self.classes.get(class as usize);
        class
            .and_then(|class| class.removes.get(kind as usize))
            .and_then(Option::as_ref)
    }

    /// A number of the kinds of hosts that a class may run on, which classes with the same have in common: VMs on two
    /// networks that are ready everywhere are of two classes, and nothing tells them apart. It holds until there is a new kind.
    pub(super) fn reach(&self, class: u32) -> u32 {
        let class = self.classes.get(class as usize);
        class.map_or(u32::MAX, |class| class.reach)
    }

    /// Kinds on which a class may run, with their hosts.
    pub(super) fn allowed(&self, class: u32) -> impl Iterator<Item = (u32, &Shelf)> {
        let class = self.classes.get(class as usize);
        class
            .into_iter()
            .flat_map(|class| &class.allowed)
            .map(|kind| (*kind, &self.kinds[*kind as usize].shelf))
    }

    /// All kinds with the number of their hosts.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u32, u32)> {
        self.kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| (number(index), number(kind.shelf.len())))
    }

    pub(super) fn shelf(&mut self, kind: u32) -> &mut Shelf {
        &mut self.kinds[kind as usize].shelf
    }

    /// Kinds of which no host is left. Their verdicts are kept, since hosts come and go.
    pub(super) fn empty(&self) -> usize {
        let empty = |kind: &&Kind| kind.shelf.len() == 0;
        self.kinds.iter().filter(empty).count()
    }

    /// How many kinds there are, empty ones included.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }
}

/// A number of something of which there are fewer than four thousand million.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;
    use model::NamespacedName;

    fn host(unready: &[&str]) -> Host {
        Host {
            pool: "main".to_owned(),
            closed: None,
            stands: true,
            may_fail: true,
            cpu: 8,
            memory_bytes: 8,
            storage_pools: BTreeSet::new(),
            has_tunnels: true,
            unready_networks: unready.iter().map(|name| (*name).to_owned()).collect(),
            cpu_models: None,
        }
    }

    fn vm(network: &str) -> Vm {
        Vm {
            name: NamespacedName::new("n", network),
            cpu: 1,
            memory_bytes: 1,
            zones: BTreeSet::new(),
            networks: BTreeSet::from([network.to_owned()]).into(),
            needs_tunnels: true,
            architecture: Architecture::x86_64,
            runs_with: Names::default(),
            storage_pools: Names::default(),
            new_volumes: BTreeMap::new(),
            pinned_to: None,
            mlps_grade: 1,
            rules: Rules::default(),
            restarts_elsewhere: true,
            host: None,
            incoming: None,
        }
    }

    #[test]
    fn two_networks_tell_vms_apart_only_where_one_is_not_ready() {
        let pool = Pool {
            zones: BTreeSet::new(),
            architecture: Architecture::x86_64,
            cpu_model: None,
            cpu_overcommit_percent: 100,
            memory_overcommit_percent: 100,
            failures_to_tolerate: 1,
            mlps_grade: 3,
        };
        let mut kinds = Kinds::default();
        let (one, two) = (kinds.class(&vm("m")), kinds.class(&vm("n")));
        assert_ne!(one, two);
        let all = kinds.kind(&host(&[]), Some(&pool), false);
        assert_eq!(kinds.reach(one), kinds.reach(two));
        let some = kinds.kind(&host(&["m"]), Some(&pool), false);
        assert_ne!(kinds.reach(one), kinds.reach(two));
        assert_eq!(kinds.removes(one, some), Some(&Filter::Network));
        assert_eq!(kinds.removes(two, some), None);
        assert_eq!(kinds.removes(one, all), None);
        let third = kinds.class(&vm("o"));
        assert_eq!(kinds.reach(third), kinds.reach(two));
    }
}
