//! Hardware faults as facts: what the agent's probes report and `failover` rates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a fault is; decides the response (show, quarantine, evacuate now).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Severity {
    /// Shown, nothing moves.
    Info,
    /// Quarantine; evacuation by priority when N+1 survives it.
    Degraded,
    /// Quarantine and evacuate now.
    Critical,
}

/// What kind of hardware misbehaves, and how.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum FaultKind {
    /// Corrected memory errors above the threshold (EDAC).
    MemoryCorrectedErrors,
    /// An uncorrected memory error that the host survived (EDAC, MCE).
    MemoryUncorrectedError,
    /// A fatal hardware error record of the firmware (CPER) or machine check.
    FatalHardwareError,
    /// A disk whose self-assessment failed or whose counters say that it is failing.
    DiskFailing,
    /// A disk that wears out (NVMe percentage used).
    DiskWear,
    /// A disk or controller that returned I/O errors to the kernel.
    DiskErrors,
    /// A degraded or failed md array.
    ArrayDegraded,
    /// A power supply lost or not redundant any more.
    PowerSupply,
    /// A fan that failed.
    Fan,
    /// A temperature above the hardware's own warning.
    Temperature,
    /// A network link without carrier.
    LinkDown,
    /// A network link that goes up and down.
    LinkFlapping,
    /// A network link with errors above the threshold.
    LinkErrors,
    /// The BMC reports a component as critical.
    ComponentCritical,
    /// The root file system turned read-only.
    FileSystemReadOnly,
    /// A storage pool answers slowly.
    StorageSlow,
    /// A storage pool does not answer or fails.
    StorageLost,
    /// The host's clock is not synchronised.
    ClockUnsynchronised,
    /// A kernel task hangs.
    KernelHang,
}

/// One fault of one component of a host, as last observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Stable id of the component, such as `memory/mc0` or `disk/nvme0`.
    pub component: String,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// Default rating by the probe; the site's policy can change it.
    pub severity: Severity,
    /// What was seen, in one sentence with values.
    pub evidence: String,
    /// How often it was seen (errors, flaps), where that is meaningful.
    #[serde(default)]
    pub count: i64,
    /// When it was first seen, RFC 3339, by the host's clock (display only).
    pub first_seen: String,
    /// When it was last seen, RFC 3339, by the host's clock (display only).
    pub last_seen: String,
}
