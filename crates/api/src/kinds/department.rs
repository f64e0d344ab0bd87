//! `Department` (委办局): a tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A tenant: one namespace, a quota, people to call.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Department",
    plural = "departments",
    shortname = "dept",
    category = "zhengyun",
    status = "DepartmentStatus",
    derive = "PartialEq",
    doc = "A tenant (委办局): one namespace, a quota, people to call.",
    validation = Rule::new("self.metadata.name.size() <= 50").message("metadata.name: at most 50 characters; use a short stable id and put the name in spec.displayName"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.displayName"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".status.namespace"),
    printcolumn(name = "VMs", type_ = "integer", json_path = ".status.virtualMachines"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DepartmentSpec {
    /// Present official name, such as `州总工会`. The object's own name is the stable id.
    #[schemars(length(min = 1, max = 200))]
    pub display_name: String,
    /// Former names, oldest first; bodies are renamed in reforms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub former_names: Vec<FormerName>,
    /// Officed outside the administrative centre. Default false.
    #[serde(default)]
    pub offsite: bool,
    /// People to call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub contacts: Vec<Contact>,
    /// Most that the department's VMs may take together. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// A name that a department had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormerName {
    /// The name.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Until when, such as `2019-03-01`.
    #[schemars(length(min = 4, max = 10))]
    pub until: String,
}

/// A person to call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contact {
    /// Name or function.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Telephone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub phone: Option<String>,
}

/// Upper bounds for the sum of a department's VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Virtual processors.
    #[schemars(range(min = 0, max = 100_000))]
    pub cpu: i32,
    /// Memory, such as `64Gi`.
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi|Ti)$"))]
    pub memory: String,
    /// Volumes together, such as `2Ti`.
    #[schemars(regex(pattern = "^[0-9]+(Mi|Gi|Ti)$"))]
    pub storage: String,
}

/// Status of a department, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DepartmentStatus {
    /// Its namespace (the department's own name).
    pub namespace: String,
    /// VMs that it has.
    pub virtual_machines: i32,
    /// Volumes that it has, kept data disks of deleted systems included.
    pub volumes: i32,
    /// Virtual processors in use.
    pub cpu_used: i32,
    /// Memory in use, MiB.
    pub memory_used_mebibytes: i64,
    /// Volumes together, bytes.
    pub storage_used_bytes: i64,
    /// Conditions: `Ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
