//! `Host` (宿主机): a physical machine that runs VMs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use model::{Architecture, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretReference, yes};

/// A physical machine that runs VMs. Ops creates it; its agent reports `status.reported`;
/// the operator writes everything else in `status`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Host",
    plural = "hosts",
    shortname = "zh",
    category = "zhengyun",
    status = "HostStatus",
    derive = "PartialEq",
    doc = "A physical machine (宿主机) that runs virtual machines.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name: a host's name has at most 40 characters; shorten it"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "VMs", type_ = "integer", json_path = ".status.virtualMachines"),
    printcolumn(name = "Faults", type_ = "integer", json_path = ".status.faultCount"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.stateReason"),
    printcolumn(name = "Rack", type_ = "string", json_path = ".spec.rack", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// Name of the `HostPool` that this host belongs to. Changing it needs the host to be empty.
    #[schemars(length(min = 1, max = 63))]
    pub pool: String,
    /// Address on the management network under which other agents and the operator reach this host.
    #[schemars(length(min = 2, max = 64))]
    pub management_address: String,
    /// Rack, for spreading and for N+1 per rack. Example: `a-03`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub rack: Option<String>,
    /// Site, for reports. Example: `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub site: Option<String>,
    /// Management controllers, in the order in which fencing tries them. Without one the host can
    /// not be proven dead by power, and a dead host waits for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub bmcs: Vec<Bmc>,
    /// Set to empty the host and keep it empty; remove to take it back. `zyctl drain` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// This host may kill its own VMs and, by its hardware watchdog, reset itself when it has lost
    /// both the API server and every storage heartbeat for `failover.contractSeconds` of the
    /// policy. In return its VMs are restarted elsewhere although no BMC answers. In force only
    /// while condition `SelfFencing` is True, which needs a shared pool with `spec.heartbeat` and
    /// a hardware watchdog. Default false: the host never kills, and a dead one whose BMC is
    /// silent waits for a person.
    #[serde(default)]
    pub self_fencing: bool,
    /// Declares all faults last seen before a moment as dealt with. `zyctl host clear` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_clearance: Option<FaultClearance>,
    /// A named person's word that this incarnation of the host is powered off. `zyctl host confirm-dead` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_off: Option<ConfirmedOff>,
}

/// Protocol of a management controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BmcProtocol {
    /// DMTF Redfish over HTTP(S).
    Redfish,
    /// IPMI 2.0 over LAN (lanplus).
    Ipmi,
}

/// How to reach a host's management controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.protocol != 'Redfish' || self.address.startsWith('https://') || self.address.startsWith('http://')").message("bmcs.address: a Redfish address is a URL such as https://10.0.0.1"))]
#[serde(rename_all = "camelCase")]
pub struct Bmc {
    /// Redfish or Ipmi.
    pub protocol: BmcProtocol,
    /// Redfish: base URL, such as `https://10.0.0.1`. Ipmi: `address` or `address:port` (default port 623).
    #[schemars(length(min = 2, max = 253))]
    pub address: String,
    /// Secret in namespace `zhengyun-system` with keys `username` and `password`.
    pub credentials: SecretReference,
    /// PEM of the authority that signed the controller's certificate. Default: the certificate is
    /// not verified, as most controllers come with one that they signed themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub certificate_authority: Option<String>,
    /// IPMI cipher suite. Default 17; older controllers know only 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 17))]
    pub cipher_suite: Option<i32>,
}

/// Reason of condition `BmcReady` of a host that declares no BMC: none can fail, so nobody is alarmed.
pub const NO_BMC: &str = "NoBmc";

/// Planned work on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Why; shown with every VM that moves.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// Move the VMs away (default). With `false` the host only takes no new ones.
    #[serde(default = "yes")]
    pub evacuate: bool,
    /// When it was asked for, or asked for again: VMs whose moves kept failing before are tried anew. `zyctl drain`
    /// fills it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Time>,
}

/// Faults last seen before this moment no longer count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultClearance {
    /// Faults last seen up to this moment are cleared.
    pub at: Time,
    /// What was done about them.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// Who says so.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
}

/// A person's confirmation that one incarnation of a host is powered off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmedOff {
    /// Boot id of the incarnation that is off.
    #[schemars(length(min = 1, max = 64))]
    pub boot_id: String,
    /// When it was confirmed.
    pub at: Time,
    /// Who confirmed it.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// How they know.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
}

/// What a person sees as the state of a host.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum HostState {
    /// No agent has registered yet.
    #[default]
    NotRegistered,
    /// Alive and usable.
    Ready,
    /// A renewal was missed; its BMC is being read.
    Suspect,
    /// Silent past the time-out.
    Unreachable,
    /// Being forced off.
    Fencing,
    /// Proven off.
    Fenced,
    /// Back after a failure, being reconciled.
    Recovering,
    /// Planned work.
    Maintenance,
    /// Takes no new VMs because of a fault or a contradiction.
    Quarantined,
}

/// Status of a host: `reported` by its agent, the rest by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostStatus {
    /// What the host's agent reports. Written by that agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<HostReport>,
    /// State in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<HostState>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Time>,
    /// Why, in one sentence, with what the platform waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// The same in Chinese, as `zyctl` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason_chinese: Option<String>,
    /// Last time that the operator saw the host's Lease renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// Power state that the BMC last answered: `On`, `Off`, `NoAnswer`, `OtherMachine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<String>,
    /// A confirmation of `spec.confirmedOff` that was given while the host showed life: it counts
    /// for nothing, ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub void_confirmation: Option<ConfirmedOff>,
    /// A fencing under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fencing: Option<FencingIntent>,
    /// Its storage is, or is being, cut off; stands until a later boot has registered or its BMC has proven it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_cut: Option<StorageCutOrder>,
    /// How many VMs are assigned here (incoming ones included).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_machines: Option<i32>,
    /// How many volume jobs that have not ended were given to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_jobs: Option<i32>,
    /// How many faults of degree Degraded or Critical stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_count: Option<i32>,
    /// The evacuation under way or last ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evacuation: Option<Evacuation>,
    /// The incarnation that the operator accepted; assignments name its boot id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Incarnation>,
    /// Boot ids of former incarnations; they never come back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retired_boot_ids: Vec<String>,
    /// Conditions: `Ready`, `AgentReady`, `BmcReady`, `HardwareHealthy`, `Schedulable`, `SelfFencing`,
    /// `CertificatesValid`, `StartsPermitted`, `CopiesEnd`, `NoStrays`; `ConfirmedOff` and `FaultsCleared` while a
    /// person's word stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// An intent to force a host off, written before the command is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FencingIntent {
    /// The incarnation to stop.
    pub boot_id: String,
    /// When the intent was written.
    pub started_at: Time,
    /// After how many seconds the intent is void; nobody sends a command past it.
    pub expires_after_seconds: i32,
    /// Always 0. Operators and guards of before ask for it; it goes with the next version.
    #[serde(default)]
    pub attempts: i32,
    /// Why the host is fenced.
    pub reason: String,
    /// Identity of the operator that wrote it.
    pub by: String,
}

/// An order to cut a host off from its VMs' disks, written before any server is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageCutOrder {
    /// The incarnation that it is for.
    pub boot_id: String,
    /// Number of the order; later orders have higher ones, and a server lifts only the one it is named.
    pub number: i64,
    /// Pools whose servers are told.
    pub pools: Vec<String>,
    /// Since when.
    pub since: Time,
    /// Identity of the operator that wrote it.
    pub by: String,
}

/// Progress of emptying a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Evacuation {
    /// `Waiting` (for its turn), `Running`, `Done`, `Blocked`, `Cancelled`.
    pub phase: String,
    /// Why it was begun: `Maintenance` or `HardwareFault`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::MigrationReason>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// VMs that run on the host or arrive there; those that were shut down and keep their seat are not counted.
    pub remaining: i32,
    /// VMs that can not move, or not yet, and why, one sentence each. `phase` is `Blocked` when none other remains
    /// and none of them is only waited for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// `metadata.generation` of the host as it was when this was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Host {
    /// What its agent reports; none before its first report.
    pub fn reported(&self) -> Option<&HostReport> {
        self.status.as_ref()?.reported.as_ref()
    }
}

/// What an agent reports about its host. Merged whole into the status, so every field is serialised: a merge
/// keeps what it does not name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// The running incarnation and the machine's identity.
    pub incarnation: Incarnation,
    /// Size of the host as the hypervisor may use it.
    pub capacity: HostCapacity,
    /// Processor architecture.
    pub architecture: Architecture,
    /// Processor model as libvirt names it.
    #[serde(default)]
    pub cpu_model: String,
    /// Processor models that this host can give its guests, sorted: those that `spec.cpuModel` of its
    /// `HostPool` may name. What it says never stops a VM that runs.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub cpu_models: Option<Vec<String>>,
    /// `kvm`, or `qemu` (software emulation, for labs).
    pub domain_type: String,
    /// Address of this host's tunnel end point on the business network.
    #[serde(default)]
    pub vtep_address: Option<String>,
    /// The link that moves go over: the one that bears this host's management address. Absent where its speed is not
    /// known; plans then count with the policy's bandwidth, else with 10 Gbit/s.
    #[serde(default)]
    pub migration_link: Option<MigrationLink>,
    /// Versions: agent, libvirt, QEMU.
    #[serde(default)]
    pub versions: HostVersions,
    /// The `qemu` hook is installed and answered as it must; without it the host starts nothing.
    #[serde(default)]
    pub hook_verified: bool,
    /// The agent starts nothing, and why (alarm); empty when it starts VMs.
    #[serde(default)]
    pub starts_forbidden: Option<String>,
    /// State of each storage pool as this host sees it.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub storage_pools: Vec<HostStoragePool>,
    /// State of each network as this host sees it.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub networks: Vec<HostNetwork>,
    /// Hardware faults, held and cleared by the probes' hysteresis.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub faults: Vec<Fault>,
    /// Probes that could not be read, one sentence each.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub probe_errors: Vec<String>,
    /// This host starts and stops nothing, as the API holds less than it remembers; what runs here.
    #[serde(default)]
    pub frozen: Option<FrozenReport>,
    /// When each certificate of this host expires. Condition `CertificatesValid` warns two weeks before.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub certificates: Vec<HostCertificate>,
    /// Domains of ours (uuid and name) that libvirt still shows a minute after it was first told to destroy them,
    /// or after they were handed over; also those whose VM has long been assigned elsewhere. Condition `CopiesEnd` tells.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub closes_stuck: Vec<String>,
    /// Domains that we did not make (uuid and name): reported, never touched.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub strays: Vec<String>,
}

/// The network interface over which VMs move. Merged whole, as [`HostReport`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationLink {
    /// Its name on the host, such as `bond0`.
    #[schemars(length(min = 1, max = 63))]
    pub interface: String,
    /// Megabits per second each way, as the kernel tells it; of a bridge, that of the fastest port with hardware below it.
    #[schemars(range(min = 1))]
    pub speed_megabits: i64,
}

/// A certificate of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostCertificate {
    /// `api` (agent and guard, for the API server), `agent` (between agents), `libvirt-client`,
    /// `libvirt-server`, `qemu-client`, `qemu-server` (moves).
    #[schemars(length(max = 63))]
    pub name: String,
    /// When it expires.
    pub expires_at: Time,
}

/// What a frozen host says, so that a person can rebase the site. Merged whole, as [`HostReport`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrozenReport {
    /// Why it is frozen.
    #[schemars(length(max = 1000))]
    pub cause: String,
    /// `status.lastRebase.id` of the policy when it was last seen frozen; empty: there was none. A later one ends
    /// the freeze.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub rebase: String,
    /// `status.frozen.rollCall` of the policy that this answers; empty: it was not read yet.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub roll_call: String,
    /// Highest epoch that this boot ever saw, of any VM.
    pub highest_epoch: i64,
    /// Every copy of a VM here.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub copies: Vec<FrozenCopy>,
}

/// A copy of a VM on a frozen host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrozenCopy {
    /// Uid of the VM.
    #[schemars(length(min = 1, max = 64))]
    pub vm: String,
    /// Its namespace and name.
    #[schemars(length(max = 510))]
    pub name: String,
    /// The epoch that it was started or received under.
    pub epoch: i64,
    /// Its guest runs; else it arrived by migration and waits.
    pub runs: bool,
}

/// One boot of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incarnation {
    /// Boot id of the kernel.
    #[schemars(length(min = 1, max = 64))]
    pub boot_id: String,
    /// SMBIOS system UUID; a BMC that reports another one is another machine's.
    #[schemars(length(min = 1, max = 64))]
    pub system_uuid: String,
    /// Hardware addresses of the physical NICs, sorted, for people.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub mac_addresses: Vec<String>,
    /// The addresses that its NICs were made with, sorted: they tell machines apart. Absent where an older agent told, whose
    /// `macAddresses` may be what software has set.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub nic_addresses: Vec<String>,
}

/// Size of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostCapacity {
    /// Logical processors.
    pub cpu: i32,
    /// Memory for VMs, such as `256Gi`.
    pub memory: String,
}

/// Versions of the software on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostVersions {
    /// The agent.
    pub agent: String,
    /// libvirt.
    pub libvirt: String,
    /// QEMU.
    pub qemu: String,
}

/// A storage pool seen from one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStoragePool {
    /// Name of the `StoragePool`.
    pub name: String,
    /// `Ready`, `Slow`, `Lost`.
    pub state: String,
    /// Why, when not Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes in all.
    pub capacity_bytes: i64,
    /// Bytes free.
    pub available_bytes: i64,
    /// Whether image locks of QEMU work on it, as one process on this host sees what another one locks. Whether they are
    /// carried to other hosts is not seen from one host. Absent while the pool does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_locks: Option<bool>,
}

/// A network seen from one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostNetwork {
    /// Name of the `Network`.
    pub name: String,
    /// The bridge and its uplink stand as declared.
    pub ready: bool,
    /// Why, when not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
