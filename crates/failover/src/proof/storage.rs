//! `StorageFenced`: every volume of a VM lies on pools whose server has cut the host off
//! and was read back so. How a pool cuts a host off is the shell's affair.

use std::collections::BTreeSet;

use model::{Assignment, BootId, HostName, StopProofKind, VmUid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::StopProof;

/// A pool's server as it was read back after it was told to cut a host off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageCut {
    /// The pool.
    pub pool: String,
    /// The host that was cut off.
    pub host: HostName,
    /// The server itself, not a client, listed the host as cut off.
    pub read_back_from_server: bool,
    /// Every open connection of the host to the pool was seen gone.
    pub connections_gone: bool,
}

/// What is known of cutting one host off from its storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageFacts {
    /// A pool that its VMs use has a server that can cut hosts off.
    pub cuttable: bool,
    /// The incarnation that a cut was ordered for, as the API has it: the cut stands until that
    /// incarnation has given another proof.
    pub ordered: Option<BootId>,
    /// The servers as they were read back since.
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
            cut.pool == *pool
                && cut.host == assignment.host
                && cut.read_back_from_server
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
        evidence: format!(
            "servers of {} read back as cut off from {}",
            names.join(", "),
            assignment.host
        ),
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
        let cut = |pool: &str| StorageCut {
            pool: pool.to_owned(),
            host: "h1".into(),
            read_back_from_server: true,
            connections_gone: true,
        };
        let pools = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert!(storage_fenced(&vm, &assignment, &pools, &[cut("a"), cut("b")]).is_ok());
        assert!(storage_fenced(&vm, &assignment, &pools, &[cut("a")]).is_err());
        assert!(storage_fenced(&vm, &assignment, &BTreeSet::new(), &[]).is_err());
        for broken in [
            StorageCut {
                host: "h2".into(),
                ..cut("b")
            },
            StorageCut {
                read_back_from_server: false,
                ..cut("b")
            },
            StorageCut {
                connections_gone: false,
                ..cut("b")
            },
        ] {
            assert!(storage_fenced(&vm, &assignment, &pools, &[cut("a"), broken]).is_err());
        }
    }
}
