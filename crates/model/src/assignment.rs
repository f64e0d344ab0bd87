//! Who may run a VM (assignment), who may write a volume (claim), and what was
//! accepted as evidence that a former copy stopped (stop proof record).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BootId, Epoch, HostName};

/// The right to start one VM once, on one incarnation of one host. Written only by
/// the operator, only by compare-and-swap.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The host that may start the VM.
    pub host: HostName,
    /// The incarnation of that host; another boot of it may not use this assignment.
    pub boot_id: BootId,
    /// Buys exactly one start.
    pub epoch: Epoch,
}

/// What kind of holder a claim of a volume names.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ClaimHolder {
    /// A virtual machine that runs with this volume attached.
    VirtualMachine,
    /// A job that writes the volume (create, resize, copy).
    Job,
}

/// The right to write one volume. A start needs every claim of its volumes, each
/// naming this VM, host, boot id and epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Id of the fleet (uid of the `kube-system` namespace): a second fleet on the
    /// same pool is a foreign claim.
    pub fleet: String,
    /// What holds the claim.
    pub holder: ClaimHolder,
    /// Uid of the VM, or of the volume whose job it is.
    pub uid: String,
    /// Host, boot id and epoch of the holder.
    #[serde(flatten)]
    pub assignment: Assignment,
}

impl Claim {
    /// A VM's claim under one of its rights.
    pub fn of_vm(fleet: &str, uid: &str, right: &Assignment) -> Self {
        Self {
            fleet: fleet.to_owned(),
            holder: ClaimHolder::VirtualMachine,
            uid: uid.to_owned(),
            assignment: right.clone(),
        }
    }
}

/// Which evidence a stop proof rests on; `docs/contract.md` and the failover design
/// say who may produce each.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum StopProofKind {
    /// The host's agent closed the epoch and libvirt shows no such domain.
    Closed,
    /// The source's QEMU is dead after the switch-over, or its job ended as migrated: the source never ran after it.
    HandedOver,
    /// The same machine registered with a new boot id.
    Rebooted,
    /// The BMC with the host's system UUID was read back as Off and no sign of life
    /// changed since.
    PoweredOff,
    /// The storage servers cut the host off from every volume of the VM.
    StorageFenced,
    /// The armed guard of the host must have fired: contract, watchdog and margin
    /// passed under an observer's positive evidence.
    SelfFenced,
    /// A named person confirmed power-off of this host and boot id.
    Confirmed,
}

/// A stop proof as it is stored beside the assignment that used it, and in the
/// incident. A record proves nothing by itself: decisions take `failover::StopProof`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopProofRecord {
    /// Kind of evidence.
    pub kind: StopProofKind,
    /// The assignment whose copy is proven stopped.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// The evidence in one sentence, with values and times.
    pub evidence: String,
}
