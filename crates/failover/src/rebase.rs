//! After etcd was restored from a backup: what the API holds went back, the world did not.
//!
//! ```text
//! Acting ──somebody remembers more than the API holds──► Frozen ──a person asks, every host heard or off──► Acting
//! ```
//!
//! While it is frozen nothing is started, stopped, moved or forced off. Then every agent has said
//! what runs on its host and the highest epoch that it ever saw, or the host is proven off. The
//! rebase makes each copy that runs the assignment of its VM and sets every `lastEpoch` above
//! all that was seen; agents close every epoch that the new rights do not name before they act
//! again. What an agent remembers, and when it freezes, is in [`crate::agent::freeze`].

use std::collections::{BTreeMap, BTreeSet};

use model::{Assignment, BootId, Epoch, HostName, StopProofKind, VmUid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::assignment::{Rights, RightsChange, adopt};
use crate::proof::HostStopProof;

/// Epochs after a rebase begin at the next multiple of this above all that was seen. The
/// leap also clears epochs that were issued to hosts which are off now and can tell nobody:
/// such epochs still stand in claims beside the data.
const LEAP: i64 = 1_000_000;

/// No platform ever issues this many epochs: a host that tells of a higher one tells nonsense, which
/// would use up all numbers that there are.
const HIGHEST: Epoch = Epoch(1_000_000_000_000_000);

/// A copy on a host as its frozen agent tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenCopy {
    /// The VM.
    pub vm: VmUid,
    /// Its namespace and name, for people.
    pub name: String,
    /// The epoch that it was started or received under.
    pub epoch: Epoch,
    /// Its guest runs; else it arrived and waits.
    pub runs: bool,
}

/// What a frozen agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWord {
    /// The incarnation that speaks.
    pub boot_id: BootId,
    /// Every copy there.
    pub copies: Vec<SeenCopy>,
    /// The highest epoch that it ever saw, of any VM: those that it took, and those below which a
    /// rebase that it remembers issues none.
    pub highest: Epoch,
}

/// What is known of one host at a rebase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostSaid {
    /// Its agent is frozen and has told all.
    Heard(HostWord),
    /// It is proven off.
    Off(HostStopProof),
    /// Neither.
    Silent,
}

/// Why there can be no rebase yet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// A host has not spoken and is not proven off.
    #[error(
        "host {0} has not told what runs there; wait for its agent, or switch it off: its BMC is read, or say zyctl host confirm-dead {0}"
    )]
    Unheard(HostName),
    /// Two copies of a VM run.
    #[error("VM {name} runs on {one} and on {other}; destroy the copy with the older data by hand")]
    TwoCopies {
        /// The VM.
        name: String,
        /// One host.
        one: HostName,
        /// Another.
        other: HostName,
    },
    /// A host tells of epochs that can not have been issued.
    #[error(
        "host {host} tells of epoch {epoch}, and none above {HIGHEST} is ever issued; its ledger is damaged: empty the host and reboot it, or switch it off"
    )]
    Absurd {
        /// The host.
        host: HostName,
        /// What it tells.
        epoch: Epoch,
    },
    /// A copy runs whose VM the API does not hold: it was declared after the backup, perhaps under a
    /// name that is used again, on a disk that another VM would write.
    #[error(
        "on {host} runs VM {name} (uid {vm}), which the API does not hold; copy what is needed out of it and shut it down by hand"
    )]
    Unknown {
        /// Its host.
        host: HostName,
        /// Its namespace and name.
        name: String,
        /// Its uid.
        vm: VmUid,
    },
}

/// Every host was heard or is off. Built only by [`rebase`].
#[derive(Debug)]
pub struct EveryHostHeard(());

/// What a rebase does.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct RebasePlan {
    /// Every VM's `lastEpoch` from now on, at least.
    pub floor: Epoch,
    /// New rights, only of VMs whose rights change.
    pub changes: Vec<RightsChange>,
    /// VMs of which a copy runs: the claims of their volumes are theirs, whoever had them when the
    /// backup was taken. Before hosts act again, or another VM is started on a disk that is in use.
    pub running: BTreeMap<VmUid, Assignment>,
}

/// Plans a rebase. `decided` is the floor of an earlier plan for the same freeze, so that a
/// rebase which was interrupted goes on as it began. `wall_milliseconds` is the operator's wall clock: no VM is given an epoch a
/// millisecond, so a floor that is not below it is above all that was issued since an earlier rebase, even where nobody remembers
/// that one: etcd was restored to before it, and the hosts have booted since. A clock that is wrong takes nothing away from
/// what hosts and API tell.
///
/// # Errors
/// Everything that is in the way.
pub fn rebase(
    vms: &[Rights],
    hosts: &BTreeMap<HostName, HostSaid>,
    decided: Option<Epoch>,
    wall_milliseconds: i64,
) -> Result<RebasePlan, Vec<Obstacle>> {
    let mut obstacles: Vec<Obstacle> = hosts
        .iter()
        .filter(|(_, said)| !is_settled(said))
        .map(|(host, _)| Obstacle::Unheard(host.clone()))
        .collect();
    for (host, word) in heard(hosts) {
        let told = word.copies.iter().map(|copy| copy.epoch);
        let highest = told.chain([word.highest]).max();
        obstacles.extend(highest.filter(|epoch| *epoch > HIGHEST).map(|epoch| {
            let host = host.clone();
            Obstacle::Absurd { host, epoch }
        }));
    }
    let mut running: BTreeMap<VmUid, (Assignment, SeenCopy)> = BTreeMap::new();
    let mut arrived: BTreeMap<VmUid, Assignment> = BTreeMap::new();
    for (host, word) in heard(hosts) {
        for copy in &word.copies {
            let right = Assignment {
                host: host.clone(),
                boot_id: word.boot_id.clone(),
                epoch: copy.epoch,
            };
            if !copy.runs {
                arrived.insert(copy.vm.clone(), right);
            } else if let Some((other, _)) = running.get(&copy.vm) {
                obstacles.push(Obstacle::TwoCopies {
                    name: copy.name.clone(),
                    one: other.host.clone(),
                    other: host.clone(),
                });
            } else {
                running.insert(copy.vm.clone(), (right, copy.clone()));
            }
        }
    }
    let known: BTreeSet<&VmUid> = vms.iter().map(|rights| &rights.vm).collect();
    let unknown = running
        .values()
        .filter(|(_, copy)| !known.contains(&copy.vm));
    obstacles.extend(unknown.map(|(right, copy)| Obstacle::Unknown {
        host: right.host.clone(),
        name: copy.name.clone(),
        vm: copy.vm.clone(),
    }));
    if !obstacles.is_empty() {
        return Err(obstacles);
    }
    let floor = decided
        .unwrap_or_else(|| floor(vms, hosts).max(Epoch(wall_milliseconds.min(HIGHEST.0 / 2))));
    let holders = running
        .iter()
        .map(|(vm, (right, _))| (vm.clone(), right.clone()))
        .collect();
    let mut changes = Vec::new();
    for rights in vms {
        let current = running.remove(&rights.vm).map(|(right, _)| right);
        // A copy that arrived means something beside its source only.
        let incoming = current.as_ref().and(arrived.remove(&rights.vm));
        let change = adopt(rights, current, incoming, floor, &EveryHostHeard(()));
        if change.before() != change.after() {
            changes.push(change);
        }
    }
    Ok(RebasePlan {
        floor,
        changes,
        running: holders,
    })
}

/// A host that is off must have been seen so just now: an older proof is about a boot that the
/// restored API remembers, and the host may have booted since.
fn is_settled(said: &HostSaid) -> bool {
    match said {
        HostSaid::Heard(_) => true,
        HostSaid::Off(proof) => matches!(
            proof.kind(),
            StopProofKind::PoweredOff | StopProofKind::Confirmed
        ),
        HostSaid::Silent => false,
    }
}

fn heard(hosts: &BTreeMap<HostName, HostSaid>) -> impl Iterator<Item = (&HostName, &HostWord)> {
    hosts.iter().filter_map(|(host, said)| match said {
        HostSaid::Heard(word) => Some((host, word)),
        _ => None,
    })
}

fn floor(vms: &[Rights], hosts: &BTreeMap<HostName, HostSaid>) -> Epoch {
    let stored = vms.iter().flat_map(|rights| {
        let standing = rights.assignment.iter().chain(&rights.incoming);
        standing
            .map(|right| right.epoch.0)
            .chain([rights.last_epoch.0])
    });
    let told = heard(hosts).flat_map(|(_, word)| {
        let copies = word.copies.iter().map(|copy| copy.epoch.0);
        copies.chain([word.highest.0])
    });
    let highest = stored.chain(told).max().unwrap_or(0).max(0);
    Epoch((highest / LEAP).saturating_add(1).saturating_mul(LEAP))
}

#[cfg(test)]
#[path = "rebase_tests.rs"]
mod tests;
