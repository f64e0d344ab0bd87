//! `BusinessSystem` (业务系统): what users care about.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use model::Priority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HighAvailability, SecretReference, yes};

/// A business system of a department: tiers of VMs, endpoints that must answer, whom an outage affects.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "BusinessSystem",
    plural = "businesssystems",
    shortname = "bs",
    category = "zhengyun",
    namespaced,
    status = "BusinessSystemStatus",
    derive = "PartialEq",
    doc = "A business system (业务系统) of a department.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name: at most 40 characters, as VM names are built from it; shorten it"),
    validation = Rule::new(kept("flavor")).message("tiers.flavor: changing the flavor of a running tier is not supported yet; add a tier with the new flavor, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    validation = Rule::new(kept("image")).message("tiers.image: changing the image of a running tier is not supported yet; add a tier with the new image, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    validation = Rule::new(kept("networks")).message("tiers.networks: changing the networks of a running tier is not supported yet; add a tier on the new networks, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    validation = Rule::new(kept("storagePool")).message("tiers.storagePool: changing the storage pool of a running tier is not supported yet; add a tier on the new pool, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    validation = Rule::new(kept_optional("systemDiskSize")).message("tiers.systemDiskSize: changing the disks of a running tier is not supported yet; grow spec.size of the tier's Volumes, or add a tier with the new size, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    validation = Rule::new(kept_optional("dataDisks")).message("tiers.dataDisks: changing the data disks of a running tier is not supported yet; grow spec.size of the tier's Volumes, or add a tier with the new disks, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    validation = Rule::new(kept_optional("cloudInit")).message("tiers.cloudInit: is read at the first start of a VM only; add a tier with the new cloudInit, move the service, remove the old tier; only a tier that status.madeTiers leaves out can be corrected"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.displayName"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Endpoints", type_ = "string", json_path = ".status.endpointsUp"),
    printcolumn(name = "VMs", type_ = "string", json_path = ".status.virtualMachinesRunning"),
    printcolumn(name = "Priority", type_ = "string", json_path = ".spec.priority"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.endpoints) || self.endpoints.all(e, self.tiers.exists(t, t.name == e.tier))").message("endpoints.tier: names a tier that spec.tiers does not have; write the name of one of the tiers")
)]
#[serde(rename_all = "camelCase")]
pub struct BusinessSystemSpec {
    /// Official name, such as `协同办公平台(OA系统)`.
    #[schemars(length(min = 1, max = 200))]
    pub display_name: String,
    /// Order of recovery and evacuation among systems. Default Normal.
    #[serde(default)]
    pub priority: Priority,
    /// MLPS grade (等保定级), 1 to 4; runs only on host pools of at least this grade. Default 2. It can
    /// not rise above the grade of a pool that the system's VMs stand in.
    #[serde(default = "default_grade")]
    #[schemars(range(min = 1, max = 4))]
    pub mlps_grade: i32,
    /// Time within which the system must be back after a failure (RTO), seconds. For reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub recovery_time_objective_seconds: Option<i32>,
    /// Age of data that may be lost (RPO), seconds. For reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub recovery_point_objective_seconds: Option<i32>,
    /// Name of the on-call contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub on_call: Option<String>,
    /// The tiers, such as database, application, web.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub tiers: Vec<Tier>,
    /// What must answer for the system to be up. Probed once a second, five times while something happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<Endpoint>,
    /// Whom an outage affects: dated, sourced facts kept by the owner, never computed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub impact: Vec<ImpactFact>,
}

fn default_grade() -> i32 {
    2
}

/// Rule: what a tier is made of stays, unless the operator said that nothing of the tier is made. It
/// stands at the object's root, where the status can be seen; without a word of the operator it stays.
fn kept_where(same: &str) -> String {
    format!(
        "oldSelf.spec.tiers.all(o, (has(oldSelf.status) && has(oldSelf.status.madeTiers) && !(o.name in oldSelf.status.madeTiers)) || self.spec.tiers.all(t, t.name != o.name || ({same})))"
    )
}

fn kept(field: &str) -> String {
    kept_where(&format!("t.{field} == o.{field}"))
}

fn kept_optional(field: &str) -> String {
    kept_where(&format!(
        "has(t.{field}) == has(o.{field}) && (!has(t.{field}) || t.{field} == o.{field})"
    ))
}

/// One tier of a business system: equal VMs with one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("tiers.name: use lower-case letters, digits and '-'")
)]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// Name, such as `database`.
    #[schemars(length(min = 1, max = 16))]
    pub name: String,
    /// How many VMs. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: i32,
    /// Name of a `Flavor`. Can not be changed once the tier is made.
    #[schemars(length(min = 1, max = 63))]
    pub flavor: String,
    /// Name of an `Image`. Can not be changed once the tier is made.
    #[schemars(length(min = 1, max = 63))]
    pub image: String,
    /// Networks that each VM attaches to, the first one first. Can not be changed once the tier is made.
    #[schemars(length(min = 1, max = 8))]
    pub networks: Vec<String>,
    /// Storage pool of the system disk. Can not be changed once the tier is made.
    #[schemars(length(min = 1, max = 63))]
    pub storage_pool: String,
    /// Size of the system disk. Default: the image's minimum. Can not be changed once
    /// the tier is made; its `Volume` can grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi|Ti)$"), length(max = 16))]
    pub system_disk_size: Option<String>,
    /// Data disks; kept when the system is deleted. Can not be changed once the tier is
    /// made; their `Volume`s can grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub data_disks: Vec<DataDisk>,
    /// Restart order: tiers with a lower number start first, and the next number waits until they
    /// answer. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub restart_order: i32,
    /// How long the next tiers wait for this one, seconds. Default 120.
    #[serde(default = "default_wait")]
    #[schemars(range(min = 1, max = 3600))]
    pub start_timeout_seconds: i32,
    /// Keep replicas apart. Default: on different hosts, required when there are two or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// What happens when the host of a VM fails. Default Restart.
    #[serde(default)]
    pub high_availability: HighAvailability,
    /// cloud-init configuration, read at the first start. Can not be changed once the tier is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<TierCloudInit>,
}

fn one() -> i32 {
    1
}
fn default_wait() -> i32 {
    120
}

/// How replicas of a tier are kept apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Over hosts, or over racks: `spec.rack` of hosts, else their label
    /// `topology.kubernetes.io/rack`. Where it is required, a host that declares none takes no replica.
    pub over: SpreadOver,
    /// Never together (default), or together when nothing else is free.
    #[serde(default = "yes")]
    pub required: bool,
}

/// What replicas are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpreadOver {
    /// Different hosts.
    Host,
    /// Different racks.
    Rack,
}

/// A data disk of a tier's VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("dataDisks.name: use lower-case letters, digits and '-'"))]
#[serde(rename_all = "camelCase")]
pub struct DataDisk {
    /// Name, such as `data`; the guest sees it as the disk's serial number.
    #[schemars(length(min = 1, max = 16))]
    pub name: String,
    /// Size, such as `100Gi`.
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi|Ti)$"))]
    pub size: String,
    /// Storage pool. Default: the tier's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub storage_pool: Option<String>,
    /// Format. Default Qcow2.
    #[serde(default)]
    pub format: super::VolumeFormat,
}

/// cloud-init configuration of a tier: inline, or from a Secret when it holds passwords or keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.userData) != has(self.secret)").message("cloudInit: set exactly one of userData and secret"))]
#[serde(rename_all = "camelCase")]
pub struct TierCloudInit {
    /// User data without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub user_data: Option<String>,
    /// Secret in the same namespace whose key `user-data` is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretReference>,
}

/// Something that must answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.path.startsWith('/')").message("endpoints.path: must begin with '/'"))]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name, such as `portal`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Official name of the service or site, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub display_name: Option<String>,
    /// Tier whose replicas answer. The endpoint is up when at least one does.
    #[schemars(length(min = 1, max = 16))]
    pub tier: String,
    /// TCP port. Default 80.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path. Default `/`.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Host header, such as `www.example.gov.cn`. Default: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub host_header: Option<String>,
}

fn default_port() -> i32 {
    80
}
fn default_path() -> String {
    "/".to_owned()
}

/// A dated, sourced fact on whom an outage affects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImpactFact {
    /// What is counted, such as `单位` (units) or `账号` (accounts).
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// The number.
    #[schemars(range(min = 0))]
    pub value: i64,
    /// Date of the fact, such as `2018-08-10`.
    #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub as_of: String,
    /// Where it comes from.
    #[schemars(length(min = 1, max = 300))]
    pub source: String,
}

/// Status of a business system, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BusinessSystemStatus {
    /// `Ready`, `Progressing`, `Degraded` (some replicas or endpoints down), `Down` (an endpoint has no
    /// replica that answers), `Invalid`.
    pub state: String,
    /// Why, in one sentence.
    pub message: String,
    /// `18/18`: endpoints that answer.
    pub endpoints_up: String,
    /// `6/6`: VMs that run.
    pub virtual_machines_running: String,
    /// Each endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStatus>,
    /// Tiers of which something is made, or may be at any moment: written before anything is made of a
    /// tier, and kept while the tier is declared. What other tiers are made of can still be corrected.
    /// Absent before the operator has looked: nothing can be corrected then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(max = 16)))]
    pub made_tiers: Option<Vec<String>>,
    /// Generation that this status reflects.
    pub observed_generation: i64,
    /// Conditions: `Ready`, `Valid`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Whether an endpoint answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Name of the endpoint.
    pub name: String,
    /// `Up`, `Down`, `Unobserved`.
    pub state: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Replicas that answer.
    pub replicas_up: i32,
    /// Replicas probed.
    pub replicas: i32,
}
