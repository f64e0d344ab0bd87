//! `VirtualMachine` (虚拟机).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use model::{Assignment, Priority, StopProofRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretReference, Spread};

/// A virtual machine. `spec` belongs to its user (or to the business system that owns it),
/// `status.runtime` and `status.incomingRuntime` to agents, the rest of `status` to the operator.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    shortname = "vm",
    category = "zhengyun",
    namespaced,
    status = "VirtualMachineStatus",
    derive = "PartialEq",
    doc = "A virtual machine (虚拟机).",
    selectable = ".status.assignment.host",
    selectable = ".status.incoming.host",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters; shorten it"),
    validation = Rule::new("!has(self.status) || !has(self.status.assignment) || self.spec.disks.map(d, d.name + '/' + d.volume) == oldSelf.spec.disks.map(d, d.name + '/' + d.volume)").message("spec.disks: can not be changed while the VM is assigned to a host; shut it down first (runStrategy: Halted)"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.assignment.host"),
    printcolumn(name = "To", type_ = "string", json_path = ".status.incoming.host"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.nics[0].addresses[0]"),
    printcolumn(name = "CPU", type_ = "integer", json_path = ".spec.cpu"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.memory"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.assignment.epoch", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.disks.all(d, self.disks.exists_one(e, e.volume == d.volume))").message("disks.volume: one volume stands twice; attach it once"),
    validation = Rule::new("!has(self.affinity) || self.affinity.all(a, a.matchLabels.size() > 0)").message("affinity.matchLabels: name at least one label; an empty rule would name every VM"),
    validation = Rule::new("self.image == oldSelf.image").message("image: can not be changed; make a new VM"),
    validation = Rule::new("self.cpu == oldSelf.cpu && self.memory == oldSelf.memory").message("cpu, memory: can not be changed yet; make a new VM of the new size and move the service"),
    validation = Rule::new("self.networks == oldSelf.networks").message("networks: can not be changed; make a new VM")
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// Virtual processors (核). Can not be changed.
    #[schemars(range(min = 1, max = 256))]
    pub cpu: i32,
    /// Memory, such as `8Gi`. Can not be changed.
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi)$"), length(max = 16))]
    pub memory: String,
    /// Name of the `Image` that it boots: gives architecture and direct-boot kernel. Can not be changed.
    #[schemars(length(min = 1, max = 63))]
    pub image: String,
    /// Disks, the system disk first. Each names a `Volume` in the same namespace. Can be changed while the VM is halted.
    #[schemars(length(min = 1, max = 17))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub disks: Vec<Disk>,
    /// Networks, one NIC each, the first one first. Can not be changed.
    #[schemars(length(min = 1, max = 8))]
    pub networks: Vec<String>,
    /// Whether it should run. Default Always.
    #[serde(default)]
    pub run_strategy: RunStrategy,
    /// What happens when its host fails. Default Restart.
    #[serde(default)]
    pub high_availability: HighAvailability,
    /// Order of recovery and evacuation; set by the business system. Default Normal.
    #[serde(default)]
    pub priority: Priority,
    /// Restart order within the business system: lower first. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub restart_order: i32,
    /// How long VMs of the next restart order wait for this one, seconds. Default 120.
    #[serde(default = "default_wait")]
    #[schemars(range(min = 1, max = 3600))]
    pub start_timeout_seconds: i32,
    /// MLPS grade of its system. Default 2.
    #[serde(default = "default_grade")]
    #[schemars(range(min = 1, max = 4))]
    pub mlps_grade: i32,
    /// Kept apart from VMs of the same system and tier (labels). Set by the business system. Where VMs of one tier ask
    /// for different forms, the strictest holds for all that ask; the others are told so in the condition `RulesObeyed`,
    /// and so is one that has no such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// Other VMs of the namespace to share a host with or to be apart from. A rule binds the VMs that
    /// it names as well: who is named by an `Apart` rule is not put beside who asks for it, and VMs
    /// joined by required `Together` rules, directly or through others, choose one host for all. A
    /// rule that names no VM, and rules that contradict each other, are told in the condition
    /// `RulesObeyed`. May be changed; VMs that run are not moved for it, `zyctl explain vm` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub affinity: Vec<Affinity>,
    /// Secret in the same namespace whose key `user-data` is given to cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<SecretReference>,
}

fn default_wait() -> i32 {
    120
}
fn default_grade() -> i32 {
    2
}

/// A disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Name; the guest sees it as the disk's serial number.
    #[schemars(length(min = 1, max = 20))]
    pub name: String,
    /// Name of the `Volume`.
    #[schemars(length(min = 1, max = 63))]
    pub volume: String,
}

/// Whether a VM should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunStrategy {
    /// Runs; started again when it stops or crashes.
    #[default]
    Always,
    /// Runs; started again when it crashes, but not when its user shuts it down inside.
    RestartOnFailure,
    /// Shut down, its disks kept.
    Halted,
}

/// What happens to a VM when its host fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HighAvailability {
    /// Restarted on another host, once the failed copy is proven stopped.
    #[default]
    Restart,
    /// Waits for its host.
    None,
}

/// Nearness to other VMs of the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Together or apart.
    pub kind: AffinityKind,
    /// VMs with all of these labels.
    #[schemars(length(min = 1, max = 8))]
    pub match_labels: std::collections::BTreeMap<String, String>,
    /// A rule that must hold (default), or a wish.
    #[serde(default = "super::yes")]
    pub required: bool,
}

/// Together or apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AffinityKind {
    /// On the same host (亲和).
    Together,
    /// On different hosts (反亲和).
    Apart,
}

/// Status of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineStatus {
    /// Who may run it. Operator only, compare-and-swap only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// Who may receive it by live migration. Operator only, compare-and-swap only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming: Option<Assignment>,
    /// Highest epoch ever issued; only grows. Operator only.
    pub last_epoch: i64,
    /// Stop proofs that the present assignment rests on (the last few). Operator only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<StopProofRecord>,
    /// What the assigned host's agent reports. That agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What the incoming host's agent reports. That agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming_runtime: Option<Runtime>,
    /// NICs with the addresses that the operator gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// Processor model that its guest sees, from `spec.cpuModel` of the host pool at its start; none: the
    /// host's own. A move keeps it. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// State in one word for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<VirtualMachinePhase>,
    /// Why, in one sentence: what it waits for, where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why this host was chosen, or how many hosts each rule removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementReport>,
    /// Crashes and failed starts in a row; none once it has run for long. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<VmFailures>,
    /// Conditions: `Scheduled`, `Ready`; `RulesObeyed` where it has rules about other VMs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl VirtualMachineStatus {
    /// Whoever may run or receive it.
    pub fn rights(&self) -> impl Iterator<Item = &Assignment> {
        self.assignment.iter().chain(&self.incoming)
    }
}

/// Crashes and failed starts of a VM in a row: how long its next start waits, and where it is not tried first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VmFailures {
    /// How many.
    #[schemars(range(min = 0))]
    pub in_a_row: i32,
    /// Epoch of the last one.
    pub epoch: i64,
    /// Hosts that could not start it since it last ran. Written even when empty: it replaces what stood.
    pub hosts: Vec<String>,
}

/// State of a VM in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VirtualMachinePhase {
    /// Waits for a host or for its volumes.
    Pending,
    /// Assigned, being started.
    Starting,
    /// Runs.
    Running,
    /// Runs and moves.
    Migrating,
    /// Being shut down.
    Stopping,
    /// Shut down, as its user wants.
    Stopped,
    /// No copy of it runs: its host failed, or its move's target does not let it run. It is being restarted.
    Recovering,
    /// Its host is silent: nobody knows.
    Unknown,
    /// Its only data is on a failed host's local pool; it waits for that host.
    Pinned,
    /// Can not be started; the message says why.
    Failed,
    /// Stands still since a disk failed; it runs on when its storage answers again.
    Stalled,
}

/// What an agent reports about its copy of a VM. It counts only for the assignment that it names. Merged whole, as
/// [`super::HostReport`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// The assignment that this report is about.
    pub assignment: Assignment,
    /// State of the copy.
    pub phase: RuntimePhase,
    /// Since when, by the host's clock (display only).
    pub since: Time,
    /// Why it was closed, when it was.
    #[serde(default)]
    pub close_reason: Option<CloseReason>,
    /// What went wrong or is waited for.
    #[serde(default)]
    pub message: Option<String>,
    /// When the QEMU process of this epoch was started, by the host's clock.
    #[serde(default)]
    pub started_at: Option<Time>,
    /// How much of its memory the guest writes anew within a second, MiB, as lately sampled; told again when it has
    /// changed by a factor of about two. Absent before the first sample, and where the hypervisor can not tell.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub dirty_mebibytes_per_second: Option<i32>,
}

/// State of one copy of a VM on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RuntimePhase {
    /// Volumes, networks and seed are being prepared; the epoch is not used yet.
    Preparing,
    /// The epoch is used; QEMU is being started.
    Starting,
    /// Runs.
    Running,
    /// Arrived by migration and paused until the source has handed over.
    Arrived,
    /// Being shut down on request.
    Stopping,
    /// The epoch is closed for ever and libvirt shows no such domain: a stop proof.
    Closed,
    /// Migrated away; the source never ran after switch-over: a stop proof.
    HandedOver,
    /// A close does not finish; the host may have to be fenced.
    CloseStuck,
    /// Stands still since a disk failed; it runs on when its storage answers again.
    Stalled,
}

/// Why an epoch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CloseReason {
    /// Its user wants it halted or deleted.
    Requested,
    /// The guest shut itself down.
    GuestShutdown,
    /// QEMU crashed or was killed.
    Crashed,
    /// The start failed or took too long.
    StartFailed,
    /// QEMU's image lock refused a disk: another process has it open for writing. Look who.
    ImageLocked,
    /// The assignment moved elsewhere.
    Superseded,
    /// The agent declined to start it (volumes missing, hook not verified, ledger lost).
    Declined,
    /// The migration that this copy was to receive failed or was cancelled.
    MigrationFailed,
}

/// A NIC of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Name of the `Network`.
    pub network: String,
    /// Hardware address.
    pub mac_address: String,
    /// Addresses with prefix length, IPv4 first, such as `10.20.0.10/24`.
    pub addresses: Vec<String>,
}

/// Why a VM is where it is, or why it is nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementReport {
    /// Host chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The decision in one sentence.
    pub message: String,
    /// Reasons for the choice, the weightiest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Hosts that each rule removed: `3 hosts: not enough memory`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}
