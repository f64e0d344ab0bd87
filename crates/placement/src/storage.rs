//! Room on storage pools for volumes that are not made yet.

use std::collections::BTreeMap;

use model::HostName;

/// Bytes that a storage pool may still promise: its capacity with overcommit, less the volumes that are
/// made or being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageRoom {
    /// All hosts reach the same room.
    Shared(u64),
    /// Each host has its own; one that is not named is not judged.
    PerHost(BTreeMap<HostName, u64>),
}

impl StorageRoom {
    /// What new volumes of a VM on that host may take; none where that is not known.
    pub fn on(&self, host: &HostName) -> Option<u64> {
        match self {
            StorageRoom::Shared(bytes) => Some(*bytes),
            StorageRoom::PerHost(hosts) => hosts.get(host).copied(),
        }
    }
}

/// Adds the volumes of one VM to those of others.
pub(crate) fn add(sum: &mut BTreeMap<String, u64>, volumes: &BTreeMap<String, u64>) {
    for (pool, bytes) in volumes {
        let sum = sum.entry(pool.clone()).or_default();
        *sum = sum.saturating_add(*bytes);
    }
}
