//! Rules about other VMs: who must, or would rather, be apart or together.

use std::collections::BTreeSet;

use model::{HostName, VmUid};

use crate::fleet::{Fleet, Vm};
use crate::storage;

/// Over what VMs are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// Hosts.
    #[default]
    Host,
    /// Racks; a host that declares none counts for no rack, and such a VM is not placed there.
    Rack,
}

/// On which side of a rule a VM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Each with each.
    #[default]
    Every,
    /// It asks for it.
    Asks,
    /// The others name it.
    Named,
}

impl Side {
    /// Whether the rule stands between VMs on these sides.
    pub fn meets(self, other: Side) -> bool {
        !matches!(
            (self, other),
            (Side::Asks, Side::Asks) | (Side::Named, Side::Named)
        )
    }
}

/// A VM's part in one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation {
    /// Name of the rule.
    pub rule: String,
    /// Over what.
    pub over: Domain,
    /// On which side.
    pub side: Side,
}

impl Relation {
    /// Each with each, over hosts.
    pub fn every(rule: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            over: Domain::Host,
            side: Side::Every,
        }
    }

    /// Whether it is one rule that stands between these two.
    pub fn meets(&self, other: &Relation) -> bool {
        self.rule == other.rule && self.over == other.over && self.side.meets(other.side)
    }
}

/// A VM's part in all rules about other VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Never in one domain.
    pub apart: BTreeSet<Relation>,
    /// VMs of one group share a host. It holds at rest: members move one after the other.
    pub together: Option<String>,
    /// Not in one domain where there is a choice.
    pub rather_apart: BTreeSet<Relation>,
    /// In one domain where there is a choice; only who asks is drawn.
    pub rather_together: BTreeSet<Relation>,
    /// Why they can not all hold, whatever the host; both rules are named.
    pub contradiction: Option<String>,
}

impl Rules {
    /// Each of a group on a host of its own.
    pub fn kept_apart(group: impl Into<String>) -> Self {
        Self {
            apart: BTreeSet::from([Relation::every(group)]),
            ..Self::default()
        }
    }

    /// How many wishes it has. Who is only named by a wish to be together does not ask for it.
    pub(crate) fn wishes(&self) -> u32 {
        let asked = self.rather_together.iter();
        let asked = asked.filter(|wish| wish.side != Side::Named).count();
        u32::try_from(self.rather_apart.len() + asked).unwrap_or(u32::MAX)
    }

    /// A rule about racks must hold.
    pub(crate) fn needs_rack(&self) -> bool {
        let mut apart = self.apart.iter();
        apart.any(|relation| relation.over == Domain::Rack)
    }
}

/// Hosts on which all of some VMs are, each given by its hosts; where there is none, for they were torn
/// apart, those on which any is.
pub(crate) fn shared<T: Ord + Clone>(places: &[BTreeSet<T>]) -> BTreeSet<T> {
    let all = |host: &&T| places.iter().all(|hosts| hosts.contains(host));
    let common: BTreeSet<T> = places.iter().flatten().filter(all).cloned().collect();
    match common.is_empty() {
        true => places.iter().flatten().cloned().collect(),
        false => common,
    }
}

/// VMs that choose one host: those of a group that must share it and have none that stands.
pub(crate) struct Bundle {
    /// What they need, as if they were one.
    pub vm: Vm,
    /// Who they are.
    pub rest: BTreeSet<VmUid>,
    /// Hosts on which others of the group are; where there is one, nothing else will do.
    pub anchors: BTreeSet<HostName>,
}

impl Bundle {
    /// `mates` are the other VMs of its group.
    pub(crate) fn of<'a>(
        fleet: &Fleet,
        uid: &VmUid,
        vm: &Vm,
        mates: impl Iterator<Item = (&'a VmUid, &'a Vm)>,
    ) -> Self {
        let stands = |name: &&HostName| {
            let host = fleet.hosts.get(*name);
            host.is_some_and(|host| host.stands)
        };
        let (mut standing, mut waiting) = (Vec::new(), Vec::new());
        for (other, mate) in mates.filter(|(other, _)| *other != uid) {
            let places: BTreeSet<HostName> = mate.places().filter(stands).cloned().collect();
            match places.is_empty() {
                true => waiting.push((other, mate)),
                false => standing.push(places),
            }
        }
        let mut bundle = Self {
            vm: vm.clone(),
            rest: BTreeSet::from([uid.clone()]),
            anchors: shared(&standing),
        };
        if bundle.anchors.is_empty() {
            for (other, mate) in waiting {
                bundle.rest.insert(other.clone());
                bundle.vm.join(mate);
            }
        }
        bundle
    }
}

impl Vm {
    /// Counts another as part of it.
    fn join(&mut self, other: &Vm) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.zones.extend(other.zones.iter().copied());
        self.storage_pools
            .extend(other.storage_pools.iter().cloned());
        self.networks.extend(other.networks.iter().cloned());
        self.needs_tunnels |= other.needs_tunnels;
        storage::add(&mut self.new_volumes, &other.new_volumes);
        // One that starts anew is not held to what others run with: they start with it. One that runs goes
        // where they can run on.
        if self.host.is_some() || !self.runs_with.is_empty() {
            self.runs_with.extend(other.runs_with.iter().cloned());
        }
        self.mlps_grade = self.mlps_grade.max(other.mlps_grade);
        let theirs = &other.rules.apart;
        let apart = |mine: &Relation| theirs.iter().any(|their| mine.meets(their));
        let different = if self.rules.apart.iter().any(apart) {
            Some("must be kept apart from it")
        } else if self.architecture != other.architecture {
            Some("has another architecture")
        } else if self.pinned_to.is_some()
            && other.pinned_to.is_some()
            && self.pinned_to != other.pinned_to
        {
            Some("has its data on another host")
        } else {
            None
        };
        self.pinned_to = self.pinned_to.take().or_else(|| other.pinned_to.clone());
        self.rules.apart.extend(theirs.iter().cloned());
        let contradiction = different.map(|what| {
            format!(
                "{} must share a host with {} and {what}",
                self.name, other.name
            )
        });
        let contradiction = other.rules.contradiction.clone().or(contradiction);
        self.rules.contradiction = self.rules.contradiction.take().or(contradiction);
    }
}
