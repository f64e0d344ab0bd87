//! `StoragePool` (存储池): where volumes lie.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where volumes lie, and which hosts reach it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "StoragePool",
    plural = "storagepools",
    shortname = "sp",
    category = "zhengyun",
    status = "StoragePoolStatus",
    derive = "PartialEq",
    doc = "Where volumes lie (存储池), and which hosts reach it.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Shared", type_ = "boolean", json_path = ".spec.shared"),
    printcolumn(name = "Hosts", type_ = "string", json_path = ".status.hostsReady"),
    printcolumn(
        name = "Locks",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='ImageLocks')].status"
    ),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.capacity"),
    printcolumn(name = "Allocated", type_ = "string", json_path = ".status.allocated"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("self.path.startsWith('/') && !self.path.contains('..')").message("path: write an absolute path without '..', such as /srv/zhengyun/shared"))]
#[x_kube(validation = Rule::new("!self.heartbeat || self.shared").message("heartbeat: only a shared pool can carry it, as other hosts read it there; set shared or remove heartbeat"))]
#[serde(rename_all = "camelCase")]
pub struct StoragePoolSpec {
    /// Kind of storage. Can not be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("kind: can not be changed; make a new pool and move the volumes"))]
    pub kind: StoragePoolKind,
    /// Folder on every host that reaches the pool. Can not be changed.
    #[schemars(length(min = 2, max = 1024))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("path: can not be changed; make a new pool and move the volumes"))]
    pub path: String,
    /// The folder shows the same files on every host (NFS, cluster file system). Volumes of a pool
    /// that is not shared pin their VM to one host and stand outside N+1. Can not be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("shared: can not be changed; make a new pool and move the volumes"))]
    pub shared: bool,
    /// Host pools whose hosts reach it. Empty (default): all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub host_pools: Vec<String>,
    /// Bytes promised per hundred bytes of capacity. Default 100.
    #[serde(default = "default_overcommit")]
    #[schemars(range(min = 50, max = 1000))]
    pub overcommit_percent: i32,
    /// Fill level that raises an alert, percent. Default 85.
    #[serde(default = "default_warning")]
    #[schemars(range(min = 50, max = 99))]
    pub warning_percent: i32,
    /// The pool carries the hosts' storage heartbeats: each host that reaches it writes one block
    /// under `heartbeat/` and reads those of a few others, by direct I/O. With it the platform
    /// tells a host whose management network is cut from a dead one, and hosts may fence
    /// themselves (`Host.spec.selfFencing`). Only for a shared pool. Default false.
    #[serde(default)]
    pub heartbeat: bool,
    /// URL of a service of the pool's server that cuts hosts off from it (`docs/contract.md`). With it
    /// the VMs of a dead host whose BMC is silent restart elsewhere without waiting for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("fenceService: write a URL such as https://storage.example:8443/fence"))]
    pub fence_service: Option<String>,
    /// Place no new volume here. Default false.
    #[serde(default)]
    pub maintenance: bool,
}

fn default_overcommit() -> i32 {
    100
}
fn default_warning() -> i32 {
    85
}

/// Kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoragePoolKind {
    /// A folder on each host, local or shared.
    Directory,
}

/// Status of a storage pool, written by the operator from the hosts' reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StoragePoolStatus {
    /// `3/4`: hosts that report it Ready, of those that should reach it.
    pub hosts_ready: String,
    /// Capacity as a person reads it; for a local pool the sum of all hosts.
    pub capacity: String,
    /// Bytes promised to volumes, as a person reads it.
    pub allocated: String,
    /// Capacity in bytes.
    pub capacity_bytes: i64,
    /// Free bytes.
    pub available_bytes: i64,
    /// Bytes promised to volumes.
    pub allocated_bytes: i64,
    /// Volumes on the pool.
    pub volumes: i32,
    /// Conditions: `Ready`; `ImageLocks`: on every host that reports it, image locks of QEMU work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
