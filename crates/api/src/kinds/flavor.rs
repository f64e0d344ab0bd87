//! `Flavor` (规格): a named size.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A named size of VMs.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Flavor",
    plural = "flavors",
    category = "zhengyun",
    derive = "PartialEq",
    doc = "A named size (规格) of virtual machines.",
    printcolumn(name = "CPU", type_ = "integer", json_path = ".spec.cpu"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.memory"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("spec: a flavor can not be changed, running VMs rely on it; make a new flavor"))]
#[serde(rename_all = "camelCase")]
pub struct FlavorSpec {
    /// Virtual processors (核).
    #[schemars(range(min = 1, max = 256))]
    pub cpu: i32,
    /// Memory, such as `8Gi`.
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi)$"), length(max = 16))]
    pub memory: String,
    /// Code in the service catalogue, where the site keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub catalogue_code: Option<String>,
}
