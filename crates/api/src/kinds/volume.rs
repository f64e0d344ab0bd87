//! `Volume` (云硬盘): a virtual disk.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use model::{Assignment, Claim};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A virtual disk. It has no owner: deleting a system or a namespace erases no data unless
/// `reclaimPolicy` says so.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Volume",
    plural = "volumes",
    shortname = "vol",
    category = "zhengyun",
    namespaced,
    status = "VolumeStatus",
    derive = "PartialEq",
    doc = "A virtual disk (云硬盘).",
    selectable = ".status.job.host",
    validation = Rule::new("!quantity(self.spec.size).isLessThan(quantity(oldSelf.spec.size)) || (has(oldSelf.status) && has(oldSelf.status.reported) && has(oldSelf.status.reported.sizeBytes) && !has(oldSelf.status.job) && quantity(self.spec.size).asInteger() >= oldSelf.status.reported.sizeBytes)").message("spec.size: a volume can not shrink, data would be lost; keep the size or make a smaller volume and copy"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Claimed", type_ = "string", json_path = ".status.claim.host"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.pool == oldSelf.pool").message("pool: can not be changed; make a new volume on the other pool and copy the data"),
    validation = Rule::new("self.format == oldSelf.format").message("format: can not be changed; make a new volume"),
    validation = Rule::new("has(self.image) == has(oldSelf.image) && (!has(self.image) || self.image == oldSelf.image)").message("image: can not be changed; make a new volume")
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Name of the `StoragePool`. Can not be changed.
    #[schemars(length(min = 1, max = 63))]
    pub pool: String,
    /// Size, such as `100Gi`. May grow while no VM runs with it and its pool has room; never shrinks. A growth
    /// that the pool has no room for is told in `status.message` and may be taken back.
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi|Ti)$"), length(max = 16))]
    pub size: String,
    /// Format. Default Qcow2. Can not be changed.
    #[serde(default)]
    pub format: VolumeFormat,
    /// Image to copy from. Default: an empty disk. Can not be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub image: Option<String>,
    /// What happens to the data when this object is deleted. Default Retain.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

/// Format of a disk file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeFormat {
    /// Grows as it is written.
    #[default]
    Qcow2,
    /// Plain bytes.
    Raw,
}

/// What happens to a volume's data when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// The file stays on the pool; a new `Volume` can adopt it.
    #[default]
    Retain,
    /// The file is deleted.
    Delete,
}

/// Status of a volume: `reported` by the agent that works on it, the rest by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// State in one word: `Pending`, `Creating`, `Ready`, `Resizing`, `Deleting`, `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Host whose local pool holds the data; empty for shared pools. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_host: Option<String>,
    /// The job (create, resize, delete) that the operator gave to a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<VolumeJob>,
    /// Highest job number ever given. Operator only.
    pub last_job: i64,
    /// Who may write the volume. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Who may receive the volume by live migration of its VM. Operator only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming_claim: Option<Claim>,
    /// What the host of the job reports. That agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<VolumeReport>,
    /// Conditions: `Ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A job on a volume, given to one incarnation of one host; the `epoch` is the job's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeJob {
    /// Host, boot id and number of the job.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// `Create`, `Resize`, `Delete`.
    pub operation: VolumeOperation,
    /// Size to reach, bytes.
    pub size_bytes: i64,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeOperation {
    /// Make the file, empty or from the image; idempotent by the volume's uid.
    Create,
    /// Grow it.
    Resize,
    /// Remove it.
    Delete,
}

/// What an agent reports about a job on a volume, and what stands of its file. Merged whole, as
/// [`super::HostReport`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeReport {
    /// The job that this report is about.
    pub assignment: Assignment,
    /// `Working`, `Done`, `Failed`, `Closed` (interrupted: never begun again under this number).
    pub phase: String,
    /// Path of the file below the pool's folder.
    #[serde(default)]
    pub file: Option<String>,
    /// Size that the guest sees, bytes.
    #[serde(default)]
    pub size_bytes: Option<i64>,
    /// SHA-256 of the image that it was made from.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// What went wrong.
    #[serde(default)]
    pub message: Option<String>,
}
