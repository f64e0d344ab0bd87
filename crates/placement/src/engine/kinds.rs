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
    has_network: bool,
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
}

impl Class {
    fn learn(&mut self, number: u32, kind: &Kind) {
        let removes = fits_kind(kind.pool.as_ref(), &self.sample, &kind.sample, kind.racked);
        if removes.is_none() {
            self.allowed.push(number);
        }
        self.removes.push(removes);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    kind_numbers: BTreeMap<KindKey, u32>,
    kinds: Vec<Kind>,
    class_numbers: BTreeMap<ClassKey, u32>,
    classes: Vec<Class>,
}

impl Kinds {
    /// The kind of an open host.
    pub(super) fn kind(&mut self, host: &Host, pool: Option<&Pool>, racked: bool) -> u32 {
        let key = KindKey {
            pool: host.pool.clone(),
            storage_pools: host.storage_pools.clone(),
            has_network: host.has_network,
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
            for class in &mut self.classes {
                class.learn(next, &new);
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
            };
            for (index, kind) in self.kinds.iter().enumerate() {
                new.learn(number(index), kind);
            }
            self.classes.push(new);
        }
        class
    }

    /// Lets a VM share what all of its class have.
    pub(super) fn share(&self, class: u32, vm: &mut Vm) {
        if let Some(class) = self.classes.get(class as usize) {
            vm.storage_pools = class.sample.storage_pools.clone();
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
