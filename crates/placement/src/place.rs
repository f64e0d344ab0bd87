//! One VM, one host: the one that is left with the most memory, ties by name.

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::filter::{Filter, removes};
use crate::fleet::Fleet;

/// A host that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The host.
    pub host: HostName,
    /// Why, the weightiest first.
    pub reasons: Vec<String>,
}

/// Why no host was.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Chooses a host for a VM of the fleet; `avoid` are hosts on which starts failed, used only
/// when nothing else is left.
///
/// # Errors
/// How many hosts each rule removed.
pub fn place(fleet: &Fleet, uid: &VmUid, avoid: &BTreeSet<HostName>) -> Result<Choice, Refusal> {
    let mut removed = BTreeMap::new();
    let mut best: Option<(bool, u64, &HostName)> = None;
    let Some(vm) = fleet.vms.get(uid) else {
        return Err(Refusal { removed });
    };
    for (name, host) in &fleet.hosts {
        if let Some(filter) = removes(fleet, uid, vm, name, host) {
            *removed.entry(filter).or_insert(0) += 1;
            continue;
        }
        let wanted = !avoid.contains(name);
        let free = fleet.free(name, host).memory_bytes;
        if best.is_none_or(|(best_wanted, best_free, _)| (wanted, free) > (best_wanted, best_free))
        {
            best = Some((wanted, free, name));
        }
    }
    match best {
        Some((_, free, host)) => Ok(Choice {
            host: host.clone(),
            reasons: vec![format!(
                "most free memory of the hosts that fit ({} MiB)",
                free >> 20
            )],
        }),
        None => Err(Refusal { removed }),
    }
}
