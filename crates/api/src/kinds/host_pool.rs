//! `HostPool` (计算资源池): hosts that can stand in for one another.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use model::{Architecture, Zone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Hosts of one architecture that can stand in for one another. N+1 is proven per pool.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "HostPool",
    plural = "hostpools",
    shortname = "hp",
    category = "zhengyun",
    status = "HostPoolStatus",
    derive = "PartialEq",
    doc = "Hosts (计算资源池) of one zone and architecture that can stand in for one another.",
    printcolumn(name = "Zones", type_ = "string", json_path = ".spec.zones"),
    printcolumn(name = "Hosts", type_ = "integer", json_path = ".status.hosts"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.hostsReady"),
    printcolumn(name = "N+1", type_ = "string", json_path = ".status.headroom.state"),
    printcolumn(
        name = "Headroom",
        type_ = "string",
        json_path = ".status.headroom.message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.zones.size() == 1 || has(self.sharedZonesReason)").message("zones: a pool serves one zone; to share it between zones on purpose, state the approved exception in sharedZonesReason"),
    validation = Rule::new("self.architecture != 'aarch64' || !has(self.cpuModel)").message("cpuModel: guests on aarch64 always see their host's own model; leave it out")
)]
#[serde(rename_all = "camelCase")]
pub struct HostPoolSpec {
    /// Network zones served. More than one is an audited exception and needs `sharedZonesReason`.
    #[schemars(length(min = 1, max = 3))]
    pub zones: Vec<Zone>,
    /// Why this pool serves several zones (who approved it, under which number).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub shared_zones_reason: Option<String>,
    /// Processor architecture of every host. Can not be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("architecture: can not be changed; make a new pool"))]
    pub architecture: Architecture,
    /// Processor model that every VM of the pool is started with, so that it can run on any host. Example:
    /// `Cascadelake-Server`; a host lists what it offers in `status.reported.cpuModels`. A host that does
    /// not offer it takes no VM; VMs that run are not touched by a change and keep theirs until they start
    /// anew. Default: the model of the host that starts it; such a VM moves only to hosts of that model.
    /// Not for aarch64, whose guests always see their host's own model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub cpu_model: Option<String>,
    /// Virtual processors per hundred logical ones. Default 400 (4:1).
    #[serde(default = "default_cpu_overcommit")]
    #[schemars(range(min = 100, max = 1600))]
    pub cpu_overcommit_percent: i32,
    /// Memory promised per hundred bytes. Default 100: none is promised twice.
    #[serde(default = "default_memory_overcommit")]
    #[schemars(range(min = 100, max = 200))]
    pub memory_overcommit_percent: i32,
    /// How many hosts may fail with every VM still finding a place: 1 (N+1, the default), which is proven for every
    /// host, or 0, and the pool gives no such promise. More at once is proven for nothing but declared racks, which
    /// `status.headroom.racks` tells.
    #[serde(default = "default_failures")]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self <= 1").message("failuresToTolerate: more than one failure at once can not be proven; write 1, or 0 for a pool that promises nothing"))]
    pub failures_to_tolerate: i32,
    /// Highest MLPS grade (等保定级) of systems that may run here, 1 to 4. Default 3.
    #[serde(default = "default_grade")]
    #[schemars(range(min = 1, max = 4))]
    pub mlps_grade: i32,
}

fn default_cpu_overcommit() -> i32 {
    400
}
fn default_memory_overcommit() -> i32 {
    100
}
fn default_failures() -> i32 {
    1
}
fn default_grade() -> i32 {
    3
}

/// Status of a host pool, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostPoolStatus {
    /// Hosts that name this pool.
    pub hosts: i32,
    /// Of these, hosts in state Ready.
    pub hosts_ready: i32,
    /// Virtual processors that may be promised, overcommit included.
    pub cpu_capacity: i32,
    /// Virtual processors promised.
    pub cpu_allocated: i32,
    /// Memory that may be promised, MiB.
    pub memory_capacity_mebibytes: i64,
    /// Memory promised, MiB.
    pub memory_allocated_mebibytes: i64,
    /// The N+1 proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
    /// Moves that would even out the load, and what each gains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalancing: Option<Rebalancing>,
    /// Conditions: `Redundant` (N+1 is proven), `Balanced` (no move is worth it), `ModelOffered` (every host
    /// offers `spec.cpuModel`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Result of the N+1 proof of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headroom {
    /// `Proven`, `Broken`, `Unknown`, `NotPromised`.
    pub state: String,
    /// The most dangerous failure: of a host, or of a rack where racks are declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_failure: Option<String>,
    /// The proof or what breaks it, in one sentence.
    pub message: String,
    /// Failures of hosts and racks of which nothing could be proven in time; raise the alarm above 0.
    pub unknown_failures: i32,
    /// What the loss of each declared rack would do. Told, not promised.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub racks: Vec<String>,
    /// Room left in flavors a person knows: `3 more 4C8G`; `0 more 4C8G fit` for each flavor when none of any fits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub room_left: Vec<String>,
    /// VMs that stand outside the proof: their only data is on one host's local pool, or their rules
    /// about other VMs contradict each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<String>,
}

/// What would even out the load of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rebalancing {
    /// `Off`, `Calm` (no move is worth it), `Advised`, `Moving`, `Held` (the message says why
    /// nothing is moved just now).
    pub state: String,
    /// Why, in one sentence.
    pub message: String,
    /// Imbalance of the pool, per mille.
    pub imbalance_permille: i64,
    /// Imbalance after all the moves, per mille.
    pub after_permille: i64,
    /// The moves in their order, at most eight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<AdvisedMove>,
}

/// One move that is worth it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvisedMove {
    /// The VM, `NAMESPACE/NAME`.
    pub virtual_machine: String,
    /// The host that it leaves.
    pub from: String,
    /// The host that it goes to.
    pub to: String,
    /// What the move gains, in one sentence.
    pub gain: String,
}
