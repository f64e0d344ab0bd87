//! `VirtualMachineMigration` (热迁移): one move of one VM.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use model::Assignment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One live migration of one VM.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "VirtualMachineMigration",
    plural = "virtualmachinemigrations",
    shortname = "vmm",
    category = "zhengyun",
    namespaced,
    status = "VirtualMachineMigrationStatus",
    derive = "PartialEq",
    doc = "One live migration (热迁移) of one virtual machine.",
    selectable = ".status.sourceAssignment.host",
    selectable = ".status.targetAssignment.host",
    printcolumn(name = "VM", type_ = "string", json_path = ".spec.virtualMachine"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "From",
        type_ = "string",
        json_path = ".status.sourceAssignment.host"
    ),
    printcolumn(
        name = "To",
        type_ = "string",
        json_path = ".status.targetAssignment.host"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(
        name = "Progress",
        type_ = "integer",
        json_path = ".status.source.progressPercent"
    ),
    printcolumn(
        name = "Pause ms",
        type_ = "integer",
        json_path = ".status.pauseMilliseconds"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.virtualMachine == oldSelf.virtualMachine && self.reason == oldSelf.reason && has(self.targetHost) == has(oldSelf.targetHost) && (!has(self.targetHost) || self.targetHost == oldSelf.targetHost)").message("virtualMachine, targetHost, reason: a migration can not be changed; cancel it and make a new one"),
    validation = Rule::new("!oldSelf.cancel || self.cancel").message("cancel: a cancelled migration can not be revived; make a new one")
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineMigrationSpec {
    /// Name of the VM in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    pub virtual_machine: String,
    /// Host to move to. Default: the platform chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub target_host: Option<String>,
    /// Why it moves. Default User.
    #[serde(default)]
    pub reason: MigrationReason,
    /// Set to true to cancel. The VM stays where it is.
    #[serde(default)]
    pub cancel: bool,
}

/// Why a VM moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationReason {
    /// Someone asked for it.
    #[default]
    User,
    /// The host is to be worked on.
    Maintenance,
    /// The host's hardware fails.
    HardwareFault,
    /// The pool is better balanced afterwards.
    Rebalance,
}

/// Phase of a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationPhase {
    /// Waits for its turn or a target.
    #[default]
    Pending,
    /// The target prepares.
    Preparing,
    /// Memory is being copied.
    Running,
    /// Handed over; the target takes over.
    Completing,
    /// Moved.
    Succeeded,
    /// Being cancelled.
    Cancelling,
    /// Cancelled; the VM stayed, or was restarted as the message says.
    Cancelled,
    /// Failed; the VM stayed, or was restarted as the message says.
    Failed,
}

/// Status of a migration: `source` and `target` by the two agents, the rest by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineMigrationStatus {
    /// Phase.
    pub phase: MigrationPhase,
    /// Why, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Uid of the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_uid: Option<String>,
    /// The assignment that the VM leaves. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_assignment: Option<Assignment>,
    /// The assignment that it goes to (the VM's `incoming`). Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_assignment: Option<Assignment>,
    /// Why it goes there; becomes the VM's `status.placement` when it has moved. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<super::PlacementReport>,
    /// The operator wants it aborted (cancelled, timed out, target lost): the source aborts and
    /// reports. Operator only.
    pub abort_requested: bool,
    /// The target is to give its copy up: the source runs, or has stopped without handing over, or has handed over and
    /// the copy could not be let run. Operator only.
    pub refuse_requested: bool,
    /// What the source's agent reports. That agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<MigrationSource>,
    /// What the target's agent reports. That agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<MigrationTarget>,
    /// When the operator began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// How long the guest stood still, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_milliseconds: Option<i64>,
    /// From begin to end, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_milliseconds: Option<i64>,
    /// Conditions: `Complete`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The source's side of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSource {
    /// The assignment that this side acts under.
    pub assignment: Assignment,
    /// State.
    pub phase: MigrationSourcePhase,
    /// Memory copied, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_percent: Option<i32>,
    /// How long the guest stood still until it was handed over, milliseconds; as the hypervisor says (up to the
    /// arrival of its state) where the source could not see more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_milliseconds: Option<i64>,
    /// Bytes sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<i64>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// State of the source's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationSourcePhase {
    /// Copies memory.
    Migrating,
    /// Handed over: the source never ran after switch-over and never will.
    HandedOver,
    /// Failed or aborted: the guest runs here.
    StillRunning,
    /// Ended some other way: the epoch is closed, the guest is gone here.
    Closed,
}

/// The target's side of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationTarget {
    /// The assignment that this side acts under.
    pub assignment: Assignment,
    /// State.
    pub phase: MigrationTargetPhase,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the guest was resumed here, by the target's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Time>,
}

/// State of the target's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationTargetPhase {
    /// Volumes, networks and ledger entry are ready: the source may begin.
    Prepared,
    /// The copy is here, was handed over, and could not be let run; `message` tells why. It is tried again.
    Arrived,
    /// Resumed on the source's hand-over: runs here.
    Resumed,
    /// Refused: the epoch is closed, the copy destroyed.
    Refused,
}
