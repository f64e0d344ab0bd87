//! Who is where of each rule about other VMs.

use std::collections::{BTreeMap, BTreeSet};

use model::VmUid;

use super::kinds::number;
use super::{Engine, VmSlot};
use crate::fleet::Vm;
use crate::rules::{Bundle, Domain, Relation, Rules, Side, shared};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Does {
    Apart,
    RatherApart,
    RatherTogether,
}

/// A VM's part in one rule, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub group: u32,
    pub side: Side,
}

/// A wish, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub member: Member,
    together: bool,
}

/// VMs of one rule by domain and side.
#[derive(Clone, Debug)]
struct Group {
    over: Domain,
    counts: BTreeMap<u32, [u32; 3]>,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    numbers: BTreeMap<(Does, Domain, String), u32>,
    groups: Vec<Group>,
    bundle_numbers: BTreeMap<String, u32>,
    /// Numbers of the VMs that must share a host.
    bundles: Vec<BTreeSet<u32>>,
}

/// The sides in the order of their counts.
pub(crate) const SIDES: [Side; 3] = [Side::Every, Side::Asks, Side::Named];

fn place_of(side: Side) -> usize {
    match side {
        Side::Every => 0,
        Side::Asks => 1,
        Side::Named => 2,
    }
}

impl Groups {
    /// How many rules there are, those included that nobody has any more.
    pub(super) fn len(&self) -> usize {
        self.groups.len() + self.bundles.len()
    }

    fn member(&mut self, does: Does, relation: &Relation) -> Member {
        let next = number(self.groups.len());
        let key = (does, relation.over, relation.rule.clone());
        let group = *self.numbers.entry(key).or_insert(next);
        if group == next {
            self.groups.push(Group {
                over: relation.over,
                counts: BTreeMap::new(),
            });
        }
        Member {
            group,
            side: relation.side,
        }
    }

    pub(super) fn apart(&mut self, rules: &Rules) -> Box<[Member]> {
        let relations = rules.apart.iter();
        relations
            .map(|relation| self.member(Does::Apart, relation))
            .collect()
    }

    pub(super) fn wishes(&mut self, rules: &Rules) -> Box<[Wish]> {
        let mut wishes = Vec::new();
        for relation in &rules.rather_apart {
            let member = self.member(Does::RatherApart, relation);
            wishes.push(Wish {
                member,
                together: false,
            });
        }
        for relation in &rules.rather_together {
            let member = self.member(Does::RatherTogether, relation);
            wishes.push(Wish {
                member,
                together: true,
            });
        }
        wishes.into()
    }

    pub(super) fn bundle(&mut self, name: &str) -> u32 {
        let next = number(self.bundles.len());
        let bundle = *self.bundle_numbers.entry(name.to_owned()).or_insert(next);
        if bundle == next {
            self.bundles.push(BTreeSet::new());
        }
        bundle
    }

    pub(super) fn join(&mut self, bundle: Option<u32>, vm: u32) {
        if let Some(members) = bundle.and_then(|bundle| self.bundles.get_mut(bundle as usize)) {
            members.insert(vm);
        }
    }

    pub(super) fn part(&mut self, bundle: Option<u32>, vm: u32) {
        if let Some(members) = bundle.and_then(|bundle| self.bundles.get_mut(bundle as usize)) {
            members.remove(&vm);
        }
    }
}

impl Engine {
    /// Number of the domain of a host.
    fn domain(&self, over: Domain, host: u32) -> Option<u32> {
        match over {
            Domain::Host => Some(host),
            Domain::Rack => self.host(host).rack,
        }
    }

    /// Number of the domain of a host for a group.
    pub(crate) fn domain_of(&self, group: u32, host: u32) -> Option<u32> {
        self.domain(self.groups.groups.get(group as usize)?.over, host)
    }

    /// Whether a rule is about racks.
    pub(crate) fn is_of_racks(&self, group: u32) -> bool {
        let group = self.groups.groups.get(group as usize);
        group.is_some_and(|group| group.over == Domain::Rack)
    }

    /// Hosts of a domain.
    fn hosts_of(&self, over: Domain, domain: u32) -> Vec<u32> {
        match over {
            Domain::Host => vec![domain],
            Domain::Rack => {
                let hosts = self.rack_hosts.get(domain as usize);
                hosts.into_iter().flatten().copied().collect()
            }
        }
    }

    /// Counts a VM on a host, or (`false`) no more.
    pub(super) fn count(&mut self, vm: u32, host: u32, there: bool) {
        let slot = &self.vms[vm as usize];
        let wishes = slot.wishes.iter().map(|wish| wish.member);
        let members: Vec<Member> = slot.apart.iter().copied().chain(wishes).collect();
        for member in members {
            let Some(domain) = self.domain_of(member.group, host) else {
                continue;
            };
            let Some(group) = self.groups.groups.get_mut(member.group as usize) else {
                continue;
            };
            let counts = group.counts.entry(domain).or_default();
            let count = &mut counts[place_of(member.side)];
            *count = if there {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *counts == [0; 3] {
                group.counts.remove(&domain);
            }
        }
    }

    /// How many VMs of a rule are in a domain and concern a member.
    fn concerning(&self, member: Member, domain: u32) -> u32 {
        let group = self.groups.groups.get(member.group as usize);
        let counts = group.and_then(|group| group.counts.get(&domain));
        let Some(counts) = counts else { return 0 };
        let sides = SIDES.into_iter().filter(|side| member.side.meets(*side));
        sides.map(|side| counts[place_of(side)]).sum()
    }

    /// How often VMs of a set are counted among those.
    fn of_set(&self, member: Member, domain: u32, set: &BTreeSet<u32>) -> u32 {
        let parts = set.iter().filter_map(|vm| {
            let slot = self.vm(*vm);
            let wishes = slot.wishes.iter().map(|wish| &wish.member);
            let mut all = slot.apart.iter().chain(wishes);
            let counts =
                |other: &&Member| other.group == member.group && member.side.meets(other.side);
            all.any(|other| counts(&other)).then_some(slot)
        });
        let here = parts.map(|slot| {
            let places = self.machine(&slot.uid).into_iter().flat_map(Vm::places);
            let hosts = places.filter_map(|name| self.number(name));
            let same = hosts.filter(|host| self.domain_of(member.group, *host) == Some(domain));
            number(same.count())
        });
        here.sum()
    }

    /// Whether another VM, not of the set, concerns a member in the domain of a host.
    fn meets(&self, member: Member, host: u32, but: &BTreeSet<u32>) -> bool {
        let Some(domain) = self.domain_of(member.group, host) else {
            return false;
        };
        let all = self.concerning(member, domain);
        all > 0 && all > self.of_set(member, domain, but)
    }

    /// A VM that it must be apart from, not of the set, is on a host or in its rack.
    pub(crate) fn mates(&self, apart: &[Member], host: u32, but: &BTreeSet<u32>) -> bool {
        apart.iter().any(|member| self.meets(*member, host, but))
    }

    /// Hosts on which a VM that it must be apart from, not of the set, forbids it.
    pub(crate) fn mates_hosts(&self, apart: &[Member], but: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut hosts = BTreeSet::new();
        for member in apart {
            let Some(group) = self.groups.groups.get(member.group as usize) else {
                continue;
            };
            for domain in group.counts.keys() {
                let all = self.concerning(*member, *domain);
                if all > 0 && all > self.of_set(*member, *domain, but) {
                    hosts.extend(self.hosts_of(group.over, *domain));
                }
            }
        }
        hosts
    }

    /// How many wishes of a VM stay unmet on a host.
    pub(super) fn unmet(&self, vm: u32, host: u32) -> u32 {
        let own = BTreeSet::from([vm]);
        let unmet = self.vm(vm).wishes.iter().filter(|wish| {
            let there = self.meets(wish.member, host, &own);
            match wish.together {
                true => !there && wish.member.side != Side::Named,
                false => there,
            }
        });
        number(unmet.count())
    }

    /// Hosts on which wishes of a VM are not met as everywhere else, and how many are unmet
    /// everywhere else.
    pub(super) fn wished(&self, slot: &VmSlot) -> (BTreeSet<u32>, u32) {
        let (mut hosts, mut unmet) = (BTreeSet::new(), 0);
        for wish in &slot.wishes {
            let Some(group) = self.groups.groups.get(wish.member.group as usize) else {
                continue;
            };
            unmet += u32::from(wish.together && wish.member.side != Side::Named);
            for domain in group.counts.keys() {
                hosts.extend(self.hosts_of(group.over, *domain));
            }
        }
        (hosts, unmet)
    }

    /// What chooses a host with a VM; none when it chooses alone and hosts of a kind are alike to it.
    pub(crate) fn bundle(&self, uid: &VmUid, vm: &Vm, slot: &VmSlot) -> Option<Bundle> {
        let Some(bundle) = slot.bundle else {
            // Room for volumes is told host by host.
            let new = !vm.new_volumes.is_empty();
            return new.then(|| Bundle::of(self.fleet(), uid, vm, std::iter::empty()));
        };
        let members = self.groups.bundles.get(bundle as usize)?;
        let mut mates: Vec<(&VmUid, &Vm)> = members
            .iter()
            .filter_map(|member| {
                let uid = &self.vm(*member).uid;
                Some((uid, self.machine(uid)?))
            })
            .collect();
        mates.sort_by_key(|(uid, _)| *uid);
        Some(Bundle::of(self.fleet(), uid, vm, mates.into_iter()))
    }

    /// VMs that must share a host with one, itself included, by uid.
    pub(crate) fn group(&self, uid: &VmUid) -> BTreeSet<VmUid> {
        let number = self.vm_number(uid);
        let bundle = number.and_then(|vm| self.vm(vm).bundle);
        let members = bundle.and_then(|bundle| self.groups.bundles.get(bundle as usize));
        let members = members.into_iter().flatten();
        members.map(|vm| self.vm(*vm).uid.clone()).collect()
    }

    /// A VM that no other host could take over, whatever room it has: its data lies on one host only,
    /// its rules contradict each other, or it must share its host with such a one.
    pub(crate) fn is_bound(&self, vm: u32) -> bool {
        let slot = self.vm(vm);
        let bundle = slot
            .bundle
            .and_then(|bundle| self.groups.bundles.get(bundle as usize));
        let mates = bundle.into_iter().flatten().copied();
        mates.chain([vm]).any(|vm| {
            let machine = self.machine(&self.vm(vm).uid);
            machine.is_some_and(|machine| {
                machine.pinned_to.is_some()
                    || machine.rules.contradiction.is_some()
                    || self.will_be_pinned(machine)
            })
        })
    }

    /// Hosts of a VM that stand, some failed ones left out.
    fn standing(&self, vm: u32, failed: &BTreeSet<u32>) -> BTreeSet<u32> {
        let machine = self.machine(&self.vm(vm).uid);
        let places = machine.into_iter().flat_map(Vm::places);
        let standing = places.filter(|name| {
            let host = self.fleet.hosts.get(*name);
            host.is_some_and(|host| host.stands)
        });
        let numbers = standing.filter_map(|name| self.number(name));
        numbers.filter(|host| !failed.contains(host)).collect()
    }

    /// Others that must share the host of these, lost ones left out: the hosts on which they remain
    /// when some fail, and who of them is nowhere then.
    pub(crate) fn remaining(
        &self,
        vms: &[u32],
        lost: &BTreeSet<u32>,
        failed: &BTreeSet<u32>,
    ) -> (BTreeSet<u32>, Vec<u32>) {
        let bundle = vms.first().and_then(|vm| self.vm(*vm).bundle);
        let members = bundle.and_then(|bundle| self.groups.bundles.get(bundle as usize));
        let mates = members.into_iter().flatten().copied();
        let (mut places, mut nowhere) = (Vec::new(), Vec::new());
        for mate in mates.filter(|vm| !lost.contains(vm)) {
            let standing = self.standing(mate, failed);
            match standing.is_empty() {
                true => nowhere.push(mate),
                false => places.push(standing),
            }
        }
        (shared(&places), nowhere)
    }

    /// Numbers of a bundle's VMs, and what they must all be apart from.
    pub(crate) fn parts(&self, bundle: &Bundle) -> (BTreeSet<u32>, Vec<Member>) {
        let numbers: BTreeSet<u32> = bundle
            .rest
            .iter()
            .filter_map(|uid| self.vm_number(uid))
            .collect();
        let apart = numbers.iter().flat_map(|vm| self.vm(*vm).apart.iter());
        let apart = apart.copied().collect();
        (numbers, apart)
    }
}
