//! `StorageFenced`: every volume of a VM lies on pools whose server has cut the host off
//! and was read back so. How a pool cuts a host off is the shell's affair.

use std::collections::BTreeSet;

use model::{Assignment, BootId, HostName, StopProofKind, VmUid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::StopProof;
use super::evidence::STORAGE_FENCED;

/// A pool's server as it was read back after it was told to cut a host off. Made only by
/// [`StorageCut::read_back`]; it is no part of any file or message:
///
/// ```compile_fail,E0277
/// let said = r#"{"pool":"p","host":"h1","bootId":"b1","connectionsGone":true}"#;
/// let cut: failover::proof::storage::StorageCut = serde_json::from_str(said).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCut {
    pool: String,
    host: HostName,
    boot_id: BootId,
    connections_gone: bool,
}

impl StorageCut {
    /// The server itself, not a client of it, was asked after the cut and listed the host as cut
    /// off under the order that was given for this incarnation. `connections_gone`: it also told that
    /// no connection of the host to the pool is left.
    pub fn read_back(
        pool: String,
        host: HostName,
        ordered_for: BootId,
        connections_gone: bool,
    ) -> Self {
        Self {
            pool,
            host,
            boot_id: ordered_for,
            connections_gone,
        }
    }
}

/// What is known of cutting one host off from its storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageFacts {
    /// A pool that its VMs use has a server that can cut hosts off.
    pub cuttable: bool,
    /// The incarnation that a cut was ordered for, as the API has it: the cut stands until that
    /// incarnation is gone by what was read of the machine itself.
    pub ordered: Option<BootId>,
    /// The servers as they were read back since; no part of what is stored.
    #[serde(skip)]
    pub cuts: Vec<StorageCut>,
}

/// Why cuts are no proof.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StorageFenceError {
    /// A VM without volumes on cut-able pools is not stopped by any cut.
    #[error("VM {0} has no volume; cutting storage proves nothing about it")]
    NoVolumes(VmUid),
    /// A pool is not cut, or not read back.
    #[error("pool {pool} was not read back as cut off from host {host}")]
    NotCut {
        /// The pool.
        pool: String,
        /// The host.
        host: HostName,
    },
}

/// Builds the proof for one copy from the read-backs of all pools of its volumes.
///
/// # Errors
/// The first pool that still lets the host in.
pub fn storage_fenced(
    vm: &VmUid,
    assignment: &Assignment,
    pools_of_volumes: &BTreeSet<String>,
    cuts: &[StorageCut],
) -> Result<StopProof, StorageFenceError> {
    if pools_of_volumes.is_empty() {
        return Err(StorageFenceError::NoVolumes(vm.clone()));
    }
    for pool in pools_of_volumes {
        let cut = cuts.iter().any(|cut| {
            // It is lifted once that incarnation is gone for certain: it proves nothing about a
            // later one of the same host.
            cut.pool == *pool
                && cut.host == assignment.host
                && cut.boot_id == assignment.boot_id
                && cut.connections_gone
        });
        if !cut {
            return Err(StorageFenceError::NotCut {
                pool: pool.clone(),
                host: assignment.host.clone(),
            });
        }
    }
    let names: Vec<&str> = pools_of_volumes.iter().map(String::as_str).collect();
    Ok(StopProof {
        vm: vm.clone(),
        assignment: assignment.clone(),
        kind: StopProofKind::StorageFenced,
        evidence: STORAGE_FENCED.told(&[&names.join(", "), &assignment.host]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Epoch;

    #[test]
    fn every_pool_must_be_cut_and_read_back() {
        let assignment = Assignment {
            host: "h1".into(),
            boot_id: "b".into(),
            epoch: Epoch(1),
        };
        let vm = VmUid::from("v");
        let read_back = |pool: &str, host: &str, boot_id: &str, connections_gone| {
            StorageCut::read_back(pool.into(), host.into(), boot_id.into(), connections_gone)
        };
        let cut = |pool| read_back(pool, "h1", "b", true);
        let pools = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert!(storage_fenced(&vm, &assignment, &pools, &[cut("a"), cut("b")]).is_ok());
        assert!(storage_fenced(&vm, &assignment, &pools, &[cut("a")]).is_err());
        assert!(storage_fenced(&vm, &assignment, &BTreeSet::new(), &[]).is_err());
        for broken in [
            read_back("b", "h2", "b", true),
            read_back("b", "h1", "former", true),
            read_back("b", "h1", "b", false),
        ] {
            assert!(storage_fenced(&vm, &assignment, &pools, &[cut("a"), broken]).is_err());
        }
    }
}
