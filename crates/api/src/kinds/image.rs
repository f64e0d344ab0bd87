//! `Image` (镜像): a digest-checked system disk.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use model::Architecture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VolumeFormat;

/// A digest-checked system disk, fetched once per storage pool.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Image",
    plural = "images",
    category = "zhengyun",
    status = "ImageStatus",
    derive = "PartialEq",
    doc = "A digest-checked system disk (镜像), fetched once per storage pool.",
    printcolumn(
        name = "Architecture",
        type_ = "string",
        json_path = ".spec.architecture"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    ),
    printcolumn(
        name = "Hardened",
        type_ = "boolean",
        json_path = ".spec.hardened",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.disk == oldSelf.disk && has(self.kernel) == has(oldSelf.kernel) && (!has(self.kernel) || self.kernel == oldSelf.kernel) && has(self.initrd) == has(oldSelf.initrd) && (!has(self.initrd) || self.initrd == oldSelf.initrd)").message("disk, kernel, initrd: an image's content can not be changed; make a new image with a new name"),
    validation = Rule::new("has(self.kernel) || !has(self.initrd)").message("initrd: needs kernel; set kernel as well")
)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    /// Processor architecture; VMs of this image run only on such host pools.
    pub architecture: Architecture,
    /// The system disk.
    pub disk: ImageFile,
    /// Format of the system disk. Default Qcow2.
    #[serde(default)]
    pub format: VolumeFormat,
    /// Smallest volume that the disk fits in, such as `10Gi`.
    #[schemars(regex(pattern = "^[0-9]+(Ki|Mi|Gi|Ti)?$"))]
    pub minimum_size: String,
    /// Kernel for direct boot. Default: the disk's own boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<ImageFile>,
    /// Initial RAM disk for direct boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<ImageFile>,
    /// Kernel command line for direct boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub kernel_command_line: Option<String>,
    /// Operating system and version, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub operating_system: Option<String>,
    /// A hardened image (加固镜像). Default false.
    #[serde(default)]
    pub hardened: bool,
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.url.startsWith('http://') || self.url.startsWith('https://')").message("url: must begin with http:// or https://"),
    validation = Rule::new("self.sha256.matches('^[0-9a-f]{64}$')").message("sha256: must be 64 lower-case hexadecimal digits; run sha256sum on the file")
)]
pub struct ImageFile {
    /// Where to fetch it.
    #[schemars(length(min = 8, max = 2048))]
    pub url: String,
    /// Its SHA-256; a file with another digest is refused.
    #[schemars(length(max = 128))]
    pub sha256: String,
}

/// Status of an image: `pools` by the operator, `reports` by agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageStatus {
    /// Pools that need the image, and the host that the operator named to fetch it (for a local
    /// pool one entry per host). Written by the operator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 600))]
    pub pools: Vec<ImagePlacement>,
    /// What the named hosts report; each agent writes only its own entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 600))]
    pub reports: Vec<ImageReport>,
    /// Volumes and VMs that name the image. Written by the operator.
    pub in_use_by: i32,
    /// Conditions: `Ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A pool that needs an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ImagePlacement {
    /// Name of the storage pool.
    pub pool: String,
    /// Host that fetches it.
    pub host: String,
}

/// Progress of fetching an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageReport {
    /// Name of the storage pool.
    pub pool: String,
    /// Host that reports.
    pub host: String,
    /// `Fetching`, `Ready`, `Failed`.
    pub phase: String,
    /// Progress or what went wrong.
    #[serde(default)]
    pub message: String,
}
