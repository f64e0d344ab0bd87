//! `Network`: a zone's segment that VMs attach to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use model::Zone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A segment that VMs attach to: zone, isolation (VXLAN or VLAN) and subnets.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Network",
    plural = "networks",
    shortname = "zn",
    category = "zhengyun",
    status = "NetworkStatus",
    derive = "PartialEq",
    doc = "A segment that virtual machines attach to: zone, isolation and subnets.",
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone"),
    printcolumn(name = "VNI", type_ = "integer", json_path = ".spec.vxlan.vni"),
    printcolumn(name = "VLAN", type_ = "integer", json_path = ".spec.vlan.id"),
    printcolumn(
        name = "Subnets",
        type_ = "string",
        json_path = ".spec.subnets[*].cidr"
    ),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.addressesUsed"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.vxlan) != has(self.vlan)").message("vxlan, vlan: set exactly one of the two"),
    validation = Rule::new("has(self.vxlan) == has(oldSelf.vxlan)").message("vxlan, vlan: can not be changed into each other; make a new network"),
    validation = Rule::new("self.subnets.map(s, s.cidr) == oldSelf.subnets.map(s, s.cidr)").message("subnets.cidr: can not be changed; make a new network"),
    validation = Rule::new("self.subnets.filter(s, !s.cidr.contains(':')).size() <= 1 && self.subnets.filter(s, s.cidr.contains(':')).size() <= 1").message("subnets: at most one IPv4 and one IPv6 subnet; make another network for more")
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// Network zone (网络区). VMs on this network run only on host pools that serve it. Can not be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("zone: can not be changed; make a new network"))]
    pub zone: Zone,
    /// Isolation by VXLAN between the hosts' tunnel end points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
    /// Isolation by a VLAN on the business NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Subnets, unique per site: one IPv4, one IPv6, or both. The operator gives every NIC an address of each.
    #[schemars(length(min = 1, max = 2))]
    pub subnets: Vec<Subnet>,
    /// Where the operator and the site's routers enter this network: a tunnel end point outside the
    /// hosts (VXLAN only). Probes of endpoints go through it, over the business network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<NetworkEdge>,
    /// Largest packet in bytes. Default 1450 (1500 less the VXLAN header).
    #[serde(default = "default_mtu")]
    #[schemars(range(min = 1280, max = 9000))]
    pub mtu: i32,
}

fn default_mtu() -> i32 {
    1450
}

/// Isolation by VXLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Vxlan {
    /// VXLAN network identifier, unique per site. Can not be changed.
    #[schemars(range(min = 1, max = 16777215))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vxlan.vni: can not be changed; make a new network"))]
    pub vni: i32,
}

/// Isolation by VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Vlan {
    /// VLAN id, unique per site. Can not be changed.
    #[schemars(range(min = 1, max = 4094))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vlan.id: can not be changed; make a new network"))]
    pub id: i32,
}

/// An address range of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("isCIDR(self.cidr)").message("subnets.cidr: not a network in CIDR notation; write one such as 10.20.0.0/24 or fd00:20::/64"),
    validation = Rule::new("!has(self.gateway) || !isCIDR(self.cidr) || (isIP(self.gateway) && cidr(self.cidr).containsIP(self.gateway))").message("subnets.gateway: must be an address inside cidr")
)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// The range, such as `10.20.0.0/24` or `fd00:20::/64`. Can not be changed.
    #[schemars(length(min = 3, max = 64))]
    pub cidr: String,
    /// Gateway inside the range; never given to a VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 64))]
    pub gateway: Option<String>,
    /// First host number that is given to VMs. Default 10; lower ones are kept for devices.
    #[serde(default = "default_first")]
    #[schemars(range(min = 1, max = 65535))]
    pub first_host_number: i32,
}

fn default_first() -> i32 {
    10
}

/// A tunnel end point outside the hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkEdge {
    /// Its address on the business network.
    #[schemars(length(min = 2, max = 64))]
    pub address: String,
}

/// Reason of condition `Ready` of a network that declares what an earlier one has already.
pub const NETWORK_COLLIDES: &str = "Collides";

impl Network {
    /// Condition `Ready` as the operator judged it; none while it has not judged.
    pub fn ready(&self) -> Option<&Condition> {
        let conditions = &self.status.as_ref()?.conditions;
        conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
    }
}

/// Status of a network, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStatus {
    /// Tunnel end points: every registered host that may carry VMs of this network, and the edge.
    /// Agents send frames to these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vteps: Vec<Vtep>,
    /// Addresses given to VMs.
    pub addresses_used: i32,
    /// Conditions: `Ready`; False for reason `Collides` where an earlier network has the same VNI or
    /// VLAN id, or a subnet that overlaps: no host builds such a network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A tunnel end point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Vtep {
    /// Host name, or `edge`.
    pub host: String,
    /// Address on the business network.
    pub address: String,
}
