//! Rules about other VMs, from the words of their owners to relations that `placement` reads:
//! `spec.affinity` and `spec.spread` of every VM of a namespace, looked at together, because a
//! rule binds those that it names as well as who asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{Affinity, AffinityKind, Spread, SpreadOver, VirtualMachine};
use kube::ResourceExt;
use model::VmUid;
use placement::{Domain, Relation, Rules, Side};

use crate::uid;

/// What was made of all rules.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The part of each VM that has one.
    pub rules: BTreeMap<VmUid, Rules>,
    /// Rules that name no VM, by who asks for them: one sentence each.
    pub named_nothing: BTreeMap<VmUid, Vec<String>>,
    /// VMs of which the tier is kept apart more strictly than they ask for, one sentence each.
    pub stricter: BTreeMap<VmUid, String>,
}

/// Reads the rules of all VMs.
pub fn read(vms: &[Arc<VirtualMachine>]) -> Read {
    let mut namespaces: BTreeMap<String, Vec<&VirtualMachine>> = BTreeMap::new();
    for vm in vms {
        let namespace = vm.namespace().unwrap_or_default();
        namespaces.entry(namespace).or_default().push(vm);
    }
    let mut read = Read::default();
    for (namespace, mut vms) in namespaces {
        vms.sort_by_key(|vm| vm.name_any());
        Reader::new(&namespace, &vms).read(&mut read);
    }
    read.rules.retain(|_, rules| *rules != Rules::default());
    read
}

/// A tier of a business system, by its labels.
type Tier<'a> = (&'a String, &'a String);

/// The strictest is the greatest: what must hold before what is wished for, then racks before hosts.
type Form = (bool, Domain);

/// The VMs of one namespace.
struct Reader<'a> {
    namespace: &'a str,
    vms: &'a [&'a VirtualMachine],
    /// VMs by one label and its value.
    labelled: BTreeMap<(&'a String, &'a String), Vec<usize>>,
    rules: Vec<Rules>,
    /// Each VM's neighbour on the way to the first of those that it must be together with.
    joined: Vec<usize>,
    /// Rules that join VMs: who asks, and in words.
    joins: Vec<(usize, String)>,
    /// Rules that keep apart, in words.
    words: BTreeMap<String, String>,
    /// The strictest spread that a VM of each tier asks for.
    spreads: BTreeMap<Tier<'a>, Form>,
}

impl<'a> Reader<'a> {
    fn new(namespace: &'a str, vms: &'a [&'a VirtualMachine]) -> Self {
        let mut labelled: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, vm) in vms.iter().enumerate() {
            for label in vm.labels() {
                labelled.entry(label).or_default().push(index);
            }
        }
        let mut spreads = BTreeMap::new();
        for (tier, spread) in vms
            .iter()
            .filter_map(|vm| tier(vm).zip(vm.spec.spread.as_ref()))
        {
            let strictest = spreads.entry(tier).or_insert_with(|| form(spread));
            *strictest = form(spread).max(*strictest);
        }
        Self {
            namespace,
            vms,
            labelled,
            rules: vec![Rules::default(); vms.len()],
            joined: (0..vms.len()).collect(),
            joins: Vec::new(),
            words: BTreeMap::new(),
            spreads,
        }
    }

    fn read(mut self, read: &mut Read) {
        for index in 0..self.vms.len() {
            self.spread(index, read);
            for (place, rule) in self.vms[index].spec.affinity.iter().enumerate() {
                let words = format!(
                    "spec.affinity[{place}] of {}/{} ({} {})",
                    self.namespace,
                    self.vms[index].name_any(),
                    match rule.kind {
                        AffinityKind::Together => "together with",
                        AffinityKind::Apart => "apart from",
                    },
                    selector(rule)
                );
                if !self.affinity(index, rule, &words) {
                    let sentence = format!(
                        "{words} names no other VM of the namespace; correct matchLabels, or make the VM"
                    );
                    let sentences = read.named_nothing.entry(uid(self.vms[index]));
                    sentences.or_default().push(sentence);
                }
            }
        }
        self.groups();
        let rules = self.rules.into_iter();
        let uids = self.vms.iter().map(|vm| uid(vm));
        read.rules.extend(uids.zip(rules));
    }

    /// Replicas of a tier: all by the strictest form that one of them asks for, or two forms would be two rules that
    /// do not see each other.
    fn spread(&mut self, index: usize, read: &mut Read) {
        let vm = self.vms[index];
        let Some(spread) = &vm.spec.spread else {
            return;
        };
        let (namespace, name) = (self.namespace, vm.name_any());
        let Some(tier) = tier(vm) else {
            let sentence = format!(
                "spec.spread of {namespace}/{name} names no other VM: it is about VMs of one system and tier, and the VM has no labels {LABEL_SYSTEM} and {LABEL_TIER}; remove it, and ask with spec.affinity instead"
            );
            let sentences = read.named_nothing.entry(uid(vm));
            return sentences.or_default().push(sentence);
        };
        let own = form(spread);
        let (required, over) = self.spreads.get(&tier).copied().unwrap_or(own);
        let (system, tier) = tier;
        if (required, over) != own {
            let (less, spread_over) = (spread.required, spread.over);
            let sentence = format!(
                "spec.spread of {namespace}/{name} (over {spread_over:?}, required {less}) is less strict than that of another VM of its tier (over {over:?}, required {required}), which holds for all of them; make them alike"
            );
            read.stricter.insert(uid(vm), sentence);
        }
        let rule = format!("{namespace}/{system}/{tier}");
        let words = format!("spread of tier {tier} of {namespace}/{system}");
        self.words.entry(rule.clone()).or_insert(words);
        let side = Side::Every;
        let rules = &mut self.rules[index];
        if required {
            rules.apart.insert(Relation { rule, over, side });
            return;
        }
        // Where not every rack can be another one, or hosts declare none, another host is better than the same.
        for over in BTreeSet::from([over, Domain::Host]) {
            let rule = rule.clone();
            rules.rather_apart.insert(Relation { rule, over, side });
        }
    }

    /// One rule; whether it names another VM.
    fn affinity(&mut self, index: usize, rule: &Affinity, words: &str) -> bool {
        let named = self.named(rule);
        let others = named.iter().any(|other| *other != index);
        if (rule.kind, rule.required) == (AffinityKind::Together, true) {
            for other in named.into_iter().filter(|other| *other != index) {
                self.join(index, other);
            }
            self.joins.push((index, words.to_owned()));
            return others;
        }
        let does = match rule.kind {
            AffinityKind::Together => "together",
            AffinityKind::Apart => "apart",
        };
        let name = format!("{}/{does}/{}", self.namespace, selector(rule));
        self.words
            .entry(name.clone())
            .or_insert_with(|| words.to_owned());
        for other in named {
            self.add(other, rule, &name, Side::Named);
        }
        self.add(index, rule, &name, Side::Asks);
        others
    }

    /// VMs with all the labels.
    fn named(&self, rule: &Affinity) -> Vec<usize> {
        let Some(first) = rule.match_labels.first_key_value() else {
            return Vec::new();
        };
        let candidates = self.labelled.get(&first).into_iter().flatten().copied();
        let all = |index: &usize| {
            let labels = self.vms[*index].labels();
            let mut wanted = rule.match_labels.iter();
            wanted.all(|(name, value)| labels.get(name) == Some(value))
        };
        candidates.filter(all).collect()
    }

    /// Whoever stands on both sides of a rule stands against each.
    fn add(&mut self, index: usize, rule: &Affinity, name: &str, side: Side) {
        let rules = &mut self.rules[index];
        let set = match (rule.kind, rule.required) {
            (AffinityKind::Apart, true) => &mut rules.apart,
            (AffinityKind::Apart, false) => &mut rules.rather_apart,
            (AffinityKind::Together, _) => &mut rules.rather_together,
        };
        let known = set.iter().find(|known| known.rule == name).cloned();
        let side = match known {
            Some(known) if known.side != side => Side::Every,
            _ => side,
        };
        set.retain(|known| known.rule != name);
        set.insert(Relation {
            rule: name.to_owned(),
            over: Domain::Host,
            side,
        });
    }

    fn first(&self, mut index: usize) -> usize {
        while self.joined[index] != index {
            index = self.joined[index];
        }
        index
    }

    fn join(&mut self, one: usize, two: usize) {
        let (one, two) = (self.first(one), self.first(two));
        self.joined[one.max(two)] = one.min(two);
    }

    /// VMs that must be together, directly or through others, are one group; who of them must be
    /// apart as well can not be placed, nor can the group.
    fn groups(&mut self) {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in 0..self.vms.len() {
            groups.entry(self.first(index)).or_default().push(index);
        }
        for (first, members) in groups.into_iter().filter(|(_, all)| all.len() > 1) {
            let name = format!("{}/{}", self.namespace, self.vms[first].name_any());
            let contradiction = self.contradiction(&members);
            for member in members {
                let rules = &mut self.rules[member];
                rules.together = Some(name.clone());
                rules.contradiction.clone_from(&contradiction);
            }
        }
    }

    fn contradiction(&self, members: &[usize]) -> Option<String> {
        let all: BTreeSet<usize> = members.iter().copied().collect();
        for (place, one) in members.iter().enumerate() {
            for two in members.iter().skip(place + 1) {
                let theirs = &self.rules[*two].apart;
                let apart = self.rules[*one]
                    .apart
                    .iter()
                    .find(|mine| theirs.iter().any(|their| mine.meets(their)));
                let Some(apart) = apart.and_then(|apart| self.words.get(&apart.rule)) else {
                    continue;
                };
                let own = [*one, *two];
                let join = self.joins.iter().find(|(who, _)| own.contains(who));
                let join = join.or_else(|| self.joins.iter().find(|(who, _)| all.contains(who)));
                let (_, together) = join?;
                return Some(format!(
                    "{together} and {apart} contradict each other for {} and {}; remove one of them",
                    self.vms[*one].name_any(),
                    self.vms[*two].name_any()
                ));
            }
        }
        None
    }
}

/// The tier that a VM is of.
fn tier(vm: &VirtualMachine) -> Option<Tier<'_>> {
    let labels = vm.labels();
    labels.get(LABEL_SYSTEM).zip(labels.get(LABEL_TIER))
}

fn form(spread: &Spread) -> Form {
    let over = match spread.over {
        SpreadOver::Host => Domain::Host,
        SpreadOver::Rack => Domain::Rack,
    };
    (spread.required, over)
}

/// `app=web,tier=front`.
fn selector(rule: &Affinity) -> String {
    let labels = rule.match_labels.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn vm(name: &str, app: &str, affinity: Value, spread: Value) -> Arc<VirtualMachine> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "oa", "uid": name,
                "labels": {"app": app, LABEL_SYSTEM: "s", LABEL_TIER: app}},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": [], "affinity": affinity}});
        if !spread.is_null() {
            value["spec"]["spread"] = spread;
        }
        Arc::new(serde_json::from_value(value).expect("a VM"))
    }

    fn rule(kind: &str, app: &str, required: bool) -> Value {
        json!([{"kind": kind, "matchLabels": {"app": app}, "required": required}])
    }

    fn part(read: &Read, name: &str) -> Rules {
        let uid = VmUid(name.to_owned());
        read.rules.get(&uid).cloned().unwrap_or_default()
    }

    #[test]
    fn a_rule_binds_those_that_it_names() {
        let read = read(&[
            vm("a", "web", rule("Apart", "db", true), Value::Null),
            vm("b", "db", json!([]), Value::Null),
            vm("c", "cache", json!([]), Value::Null),
        ]);
        let (a, b) = (part(&read, "a"), part(&read, "b"));
        let (mine, theirs) = (a.apart.first().expect("one"), b.apart.first().expect("one"));
        assert!(mine.meets(theirs), "{mine:?} {theirs:?}");
        assert!(!mine.meets(mine), "two that ask may be together");
        assert_eq!(part(&read, "c"), Rules::default());
        assert!(read.named_nothing.is_empty());
    }

    #[test]
    fn whoever_names_itself_is_apart_from_each() {
        let apart = || rule("Apart", "db", true);
        let read = read(&[
            vm("a", "db", apart(), Value::Null),
            vm("b", "db", apart(), Value::Null),
        ]);
        let a = part(&read, "a");
        assert_eq!(a.apart.first().map(|part| part.side), Some(Side::Every));
    }

    #[test]
    fn together_goes_through_others() {
        let read = read(&[
            vm("a", "x", rule("Together", "y", true), Value::Null),
            vm("b", "y", rule("Together", "z", true), Value::Null),
            vm("c", "z", json!([]), Value::Null),
            vm("d", "w", rule("Together", "z", false), Value::Null),
        ]);
        for name in ["a", "b", "c"] {
            assert_eq!(part(&read, name).together.as_deref(), Some("oa/a"));
        }
        let d = part(&read, "d");
        assert_eq!((d.together, d.rather_together.len()), (None, 1));
    }

    #[test]
    fn rules_that_contradict_each_other_are_both_named() {
        let spread = json!({"over": "Rack", "required": true});
        let read = read(&[
            vm("a", "web", rule("Together", "web", true), spread.clone()),
            vm("b", "web", json!([]), spread),
        ]);
        let why = part(&read, "b").contradiction.expect("a contradiction");
        assert!(
            why.contains("spec.affinity[0] of oa/a (together with app=web)"),
            "{why}"
        );
        assert!(why.contains("spread of tier web of oa/s"), "{why}");
        assert!(why.contains("remove one"), "{why}");
    }

    #[test]
    fn a_rule_that_names_nothing_is_told_and_hinders_nobody() {
        let read = read(&[vm("a", "web", rule("Together", "dbb", true), Value::Null)]);
        assert_eq!(part(&read, "a"), Rules::default());
        let told = &read.named_nothing[&VmUid("a".to_owned())];
        assert!(told[0].contains("together with app=dbb"), "{told:?}");
    }

    #[test]
    fn racks_and_wishes_are_told_apart() {
        let read = read(&[
            vm(
                "a",
                "web",
                json!([]),
                json!({"over": "Rack", "required": true}),
            ),
            vm(
                "b",
                "db",
                json!([]),
                json!({"over": "Host", "required": false}),
            ),
        ]);
        let (a, b) = (part(&read, "a"), part(&read, "b"));
        assert_eq!(a.apart.first().map(|part| part.over), Some(Domain::Rack));
        assert!(b.apart.is_empty());
        assert_eq!(b.rather_apart.len(), 1);
    }

    #[test]
    fn who_would_rather_be_in_another_rack_would_rather_be_on_another_host() {
        let spread = json!({"over": "Rack", "required": false});
        let read = read(&[vm("a", "web", json!([]), spread)]);
        let a = part(&read, "a");
        let over = a.rather_apart.iter().map(|wish| wish.over);
        assert_eq!(over.collect::<Vec<_>>(), [Domain::Host, Domain::Rack]);
        assert!(a.apart.is_empty());
    }

    #[test]
    fn a_spread_of_no_tier_is_told_and_hinders_nobody() {
        let spread = json!({"over": "Host", "required": true});
        let mut lone = (*vm("a", "web", json!([]), spread)).clone();
        lone.metadata.labels = None;
        let read = read(&[Arc::new(lone)]);
        assert_eq!(part(&read, "a"), Rules::default());
        let told = &read.named_nothing[&VmUid("a".to_owned())];
        assert!(told[0].contains("spec.spread of oa/a"), "{told:?}");
        assert!(told[0].contains(LABEL_TIER), "{told:?}");
    }

    #[test]
    fn the_strictest_spread_of_a_tier_holds_for_all_of_it() {
        let spread = |over: &str, required: bool| json!({"over": over, "required": required});
        let (host, wish) = (spread("Host", true), spread("Rack", false));
        let read = read(&[
            vm("a", "web", json!([]), host.clone()),
            vm("b", "web", json!([]), wish.clone()),
            vm("c", "web", json!([]), spread("Host", false)),
            vm("d", "web", json!([]), Value::Null),
            vm("e", "db", json!([]), wish),
            vm("f", "db", json!([]), spread("Host", false)),
            vm("g", "db2", json!([]), spread("Rack", true)),
            vm("h", "db2", json!([]), host),
        ]);
        let must = |one: &str, two: &str| {
            let (one, two) = (part(&read, one).apart, part(&read, two).apart);
            one.iter().any(|one| two.iter().any(|two| one.meets(two)))
        };
        assert!(must("a", "b") && must("a", "c") && must("b", "c") && must("g", "h"));
        assert_eq!(part(&read, "b").rather_apart.len(), 0, "one relation");
        assert_eq!(part(&read, "d"), Rules::default(), "it does not ask");
        let over = |name: &str| part(&read, name).apart.first().map(|part| part.over);
        assert_eq!(over("b"), Some(Domain::Host), "racks were only wished for");
        assert_eq!(over("h"), Some(Domain::Rack));
        assert_eq!(part(&read, "f").rather_apart, part(&read, "e").rather_apart);
        let told: Vec<&str> = read.stricter.keys().map(|uid| uid.as_str()).collect();
        assert_eq!(told, ["b", "c", "f", "h"]);
        let why = &read.stricter[&VmUid("h".to_owned())];
        assert!(why.contains("(over Host, required true)"), "{why}");
        assert!(why.contains("(over Rack, required true)"), "{why}");
    }
}
