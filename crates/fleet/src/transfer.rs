//! What the times of planned moves are reckoned with: how fast hosts' links are, and how fast VMs write to their memory.
//! One reckoning for emptying hosts and for evening out, in the operator and at the command line.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{CloudPolicySpec, Host, VirtualMachine};
use kube::ResourceExt;
use model::{HostName, VmUid};
use placement::Limits;

use crate::{Objects, uid};

/// Bytes per second of a megabit per second.
const MEGABIT: u64 = 1_000_000 / 8;

/// Bytes of a MiB.
const MEBIBYTE: u64 = 1 << 20;

/// What a move takes besides its copy: volumes and the incoming copy are prepared, and the VM is handed over. On the
/// lab a resting guest of 128 MiB, copied in a tenth of a second, moves in 2 to 3 s (`make bench`).
const MOVE_OVERHEAD_MILLISECONDS: u64 = 2_000;

/// What moves are bounded by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// What the network and the hosts bear.
    pub limits: Limits,
    /// Bytes per second that a VM writes to its memory; who is not named was not sampled.
    pub dirty_bytes_per_second: BTreeMap<VmUid, u64>,
}

impl Objects {
    /// What moves are bounded by, as the site's policy allows and as agents report. A host that reports no link counts as
    /// the policy's bandwidth, else as 10 Gbit/s; a VM that was not sampled as one that writes nothing.
    pub fn transfer(&self, policy: &CloudPolicySpec) -> Transfer {
        let rates = self.vms.iter();
        Transfer {
            limits: limits(policy, &self.hosts),
            dirty_bytes_per_second: rates
                .filter_map(|vm| Some((uid(vm), dirty_rate(vm)?)))
                .collect(),
        }
    }
}

fn limits(policy: &CloudPolicySpec, hosts: &[Arc<Host>]) -> Limits {
    let count = |number: i32| u32::try_from(number).unwrap_or(1);
    let mut limits = Limits {
        moves_per_host: count(policy.migration.per_host),
        moves_per_site: count(policy.migration.per_site),
        overhead_ms: MOVE_OVERHEAD_MILLISECONDS,
        ..Limits::default()
    };
    let bandwidth = policy.migration.bandwidth_mebibytes_per_second;
    let per_move = bandwidth.and_then(|bandwidth| u64::try_from(bandwidth).ok());
    let per_move = per_move.map(|bandwidth| bandwidth.saturating_mul(MEBIBYTE));
    // The policy bounds one move; a link carries as many as a host may have at once.
    let bound =
        per_move.map(|bandwidth| bandwidth.saturating_mul(u64::from(limits.moves_per_host)));
    if let (Some(per_move), Some(bound)) = (per_move, bound) {
        limits.per_move = per_move;
        limits.link_default = bound;
    }
    let links = hosts.iter().filter_map(|host| {
        let link = link(host)?.min(bound.unwrap_or(u64::MAX));
        Some((HostName(host.name_any()), link))
    });
    limits.links = links.collect();
    limits
}

/// Bytes per second of the link that a host's moves go over.
fn link(host: &Host) -> Option<u64> {
    let reported = host.reported()?.migration_link.as_ref()?;
    let megabits = u64::try_from(reported.speed_megabits).ok()?;
    (megabits > 0).then(|| megabits.saturating_mul(MEGABIT))
}

/// Bytes per second that a VM writes to its memory, as the agent of its host sampled it.
fn dirty_rate(vm: &VirtualMachine) -> Option<u64> {
    let status = vm.status.as_ref()?;
    let runtime = status.runtime.as_ref()?;
    // What another copy of it wrote before says nothing of this one.
    let told = (status.assignment.as_ref() == Some(&runtime.assignment))
        .then_some(runtime.dirty_mebibytes_per_second)??;
    Some(u64::try_from(told).ok()?.saturating_mul(MEBIBYTE))
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
