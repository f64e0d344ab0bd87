//! One VM, one host: the one that is left with the most memory, ties by name. This is the
//! definition, in one pass over a snapshot; [`crate::Engine`] gives the same answer from indexes.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::filter::{Filter, There, judge};
use crate::fleet::Fleet;

/// A host that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The host.
    pub host: HostName,
    /// Why, the weightiest first.
    pub reasons: Vec<String>,
}

impl Choice {
    /// The host with the most free memory, which is stated.
    pub(crate) fn roomiest(host: HostName, free_bytes: u64) -> Self {
        let reason = format!(
            "most free memory of the hosts that fit ({} MiB)",
            free_bytes >> 20
        );
        Self {
            host,
            reasons: vec![reason],
        }
    }
}

/// Why no host was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// How many hosts each rule removed.
    pub removed: BTreeMap<Filter, u32>,
}

impl Refusal {
    /// `3 hosts: not enough memory`, one line a rule.
    pub fn lines(&self) -> Vec<String> {
        let line = |(filter, count): (&Filter, &u32)| {
            let noun = if *count == 1 { "host" } else { "hosts" };
            format!("{count} {noun}: {}", filter.english())
        };
        self.removed.iter().map(line).collect()
    }

    /// All of it in one sentence.
    pub fn sentence(&self) -> String {
        if self.removed.is_empty() {
            "no host is registered".to_owned()
        } else {
            format!("no host fits ({})", self.lines().join("; "))
        }
    }

    pub(crate) fn count(&mut self, filter: Filter, hosts: u32) {
        if hosts > 0 {
            *self.removed.entry(filter).or_insert(0) += hosts;
        }
    }
}

/// Chooses a host for a VM of the fleet; `avoid` are hosts on which starts failed, used only
/// when nothing else is left.
///
/// # Errors
/// How many hosts each rule removed.
pub fn place(fleet: &Fleet, uid: &VmUid, avoid: &BTreeSet<HostName>) -> Result<Choice, Refusal> {
    let mut refusal = Refusal::default();
    let Some(vm) = fleet.vms.get(uid) else {
        return Err(refusal);
    };
    let mut there: BTreeMap<&HostName, There> = fleet
        .hosts
        .iter()
        .map(|(name, host)| {
            let free = fleet.capacity(host);
            (name, There { free, apart: false })
        })
        .collect();
    for (_, other) in fleet.vms.iter().filter(|(other, _)| *other != uid) {
        for name in other.places() {
            if let Some(there) = there.get_mut(name) {
                there.add(vm, other);
            }
        }
    }
    let mut best: Option<(bool, u64, &HostName)> = None;
    for (name, host) in &fleet.hosts {
        let there = there.get(name).copied().unwrap_or_default();
        if let Some(filter) = judge(fleet.pools.get(&host.pool), vm, name, host, there) {
            refusal.count(filter, 1);
            continue;
        }
        let wanted = !avoid.contains(name);
        let free = there.free.memory_bytes;
        if best.is_none_or(|(best_wanted, best_free, _)| (wanted, free) > (best_wanted, best_free))
        {
            best = Some((wanted, free, name));
        }
    }
    match best {
        Some((_, free, host)) => Ok(Choice::roomiest(host.clone(), free)),
        None => Err(refusal),
    }
}
