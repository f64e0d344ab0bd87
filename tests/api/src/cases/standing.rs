//! The objects that stand when the cases are judged.

use serde_json::{Value, json};

use crate::server::{
    AGENT_H1, AGENT_H2, Identity, ON_CALL, OPERATOR, SYSTEM_ADMINISTRATOR, Target,
};

/// Objects, as a person applies them.
pub const STANDING: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: oa-office, labels: {zhengyun.io/department: oa-office}}
---
apiVersion: v1
kind: Namespace
metadata: {name: zy-host-h1}
---
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: zhengyun-test-hosts}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: zhengyun-host}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: "zhengyun:host:h1"}
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: "zhengyun:host:h2"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: zhengyun-test-hosts, namespace: zhengyun-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: zhengyun-host-lease}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: "zhengyun:host:h1"}
  - {apiGroup: rbac.authorization.k8s.io, kind: User, name: "zhengyun:host:h2"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: zhengyun-test-department, namespace: oa-office}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: zhengyun-department}
subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "zhengyun:department:oa-office"}
---
apiVersion: zhengyun.io/v1alpha1
kind: CloudPolicy
metadata: {name: default}
spec: {}
---
apiVersion: zhengyun.io/v1alpha1
kind: HostPool
metadata: {name: main}
spec: {zones: [Common], architecture: x86_64}
---
apiVersion: zhengyun.io/v1alpha1
kind: Host
metadata: {name: h1, finalizers: [zhengyun.io/stop-proof]}
spec: {pool: main, managementAddress: 10.0.0.1}
---
apiVersion: zhengyun.io/v1alpha1
kind: Host
metadata: {name: h2}
spec: {pool: main, managementAddress: 10.0.0.2}
---
apiVersion: zhengyun.io/v1alpha1
kind: Host
metadata: {name: h3}
spec: {pool: main, managementAddress: 10.0.0.3}
---
apiVersion: zhengyun.io/v1alpha1
kind: StoragePool
metadata: {name: shared}
spec: {kind: Directory, path: /srv/zhengyun/shared, shared: true}
---
apiVersion: zhengyun.io/v1alpha1
kind: Network
metadata: {name: common}
spec: {zone: Common, vxlan: {vni: 100}, subnets: [{cidr: 10.20.0.0/24, gateway: 10.20.0.1}]}
---
apiVersion: zhengyun.io/v1alpha1
kind: Network
metadata: {name: offices}
spec: {zone: Common, vlan: {id: 20}, subnets: [{cidr: 10.30.0.0/24}]}
---
apiVersion: zhengyun.io/v1alpha1
kind: Image
metadata: {name: linux}
spec:
  architecture: x86_64
  disk: {url: "http://images/linux.qcow2", sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
  minimumSize: 1Gi
---
apiVersion: zhengyun.io/v1alpha1
kind: Flavor
metadata: {name: small}
spec: {cpu: 1, memory: 128Mi}
---
apiVersion: zhengyun.io/v1alpha1
kind: Department
metadata: {name: oa-office}
spec: {displayName: 州电子政务管理中心}
---
apiVersion: zhengyun.io/v1alpha1
kind: Department
metadata: {name: archives}
spec: {displayName: 州档案馆}
---
apiVersion: zhengyun.io/v1alpha1
kind: Incident
metadata: {name: incident1}
spec: {cause: host-silent/h1/b, causeClass: Hardware, openedAt: "2026-01-01T00:00:00.000000Z", title: host h1 fell silent}
---
apiVersion: zhengyun.io/v1alpha1
kind: Incident
metadata: {name: incident2}
spec: {cause: host-silent/h2/b, causeClass: Hardware, openedAt: "2026-01-01T00:00:00.000000Z", title: host h2 fell silent}
---
apiVersion: zhengyun.io/v1alpha1
kind: BusinessSystem
metadata: {name: oa, namespace: oa-office}
spec:
  displayName: 协同办公平台(OA系统)
  tiers: [{name: database, flavor: small, image: linux, networks: [common], storagePool: shared}]
  endpoints: [{name: portal, tier: database}]
---
apiVersion: zhengyun.io/v1alpha1
kind: VirtualMachine
metadata: {name: vm1, namespace: oa-office, finalizers: [zhengyun.io/stop-proof]}
spec: {cpu: 1, memory: 128Mi, image: linux, disks: [{name: system, volume: vm1-system}], networks: [common]}
---
apiVersion: zhengyun.io/v1alpha1
kind: Volume
metadata: {name: vm1-system, namespace: oa-office, finalizers: [zhengyun.io/stop-proof]}
spec: {pool: shared, size: 1Gi, image: linux}
---
apiVersion: zhengyun.io/v1alpha1
kind: VirtualMachineMigration
metadata: {name: move1, namespace: oa-office}
spec: {virtualMachine: vm1}
---
apiVersion: zhengyun.io/v1alpha1
kind: VirtualMachineMigration
metadata: {name: move2, namespace: oa-office}
spec: {virtualMachine: vm1, cancel: true}
"#;

/// A copy of a VM on h1 as its agent reports it.
pub fn runtime(host: &str, epoch: i64) -> Value {
    json!({"assignment": assignment(host, epoch), "phase": "Running", "since": "2026-01-01T00:00:00Z"})
}

/// An assignment.
pub fn assignment(host: &str, epoch: i64) -> Value {
    json!({"host": host, "bootId": format!("boot-{host}"), "epoch": epoch})
}

/// A report of a host's agent.
pub fn report(boot_id: &str, system_uuid: &str) -> Value {
    json!({"incarnation": {"bootId": boot_id, "systemUuid": system_uuid, "macAddresses": []},
           "capacity": {"cpu": 4, "memory": "1Gi"}, "architecture": "x86_64", "domainType": "qemu"})
}

/// A word that fencing is off for two hours.
pub fn disarmed(by: &str) -> Value {
    json!({"at": "2026-01-01T00:00:00Z", "until": "2026-01-01T02:00:00Z", "reason": "switch work", "by": by})
}

/// A word that a host's faults are dealt with.
pub fn clearance(by: &str) -> Value {
    json!({"at": "2026-01-01T00:00:00Z", "reason": "new fan", "by": by})
}

/// Specs with people's words in them, written by those whose words they are.
pub fn standing_words() -> Vec<(Identity, Target, Value)> {
    vec![
        (
            ON_CALL,
            Target::of_site("Host", "h2"),
            json!({"faultClearance": clearance("li")}),
        ),
        (
            ON_CALL,
            Target::of_site("CloudPolicy", "default"),
            json!({"failover": {"disarmed": disarmed("li")}}),
        ),
        (
            SYSTEM_ADMINISTRATOR,
            Target::of_site("Incident", "incident2"),
            json!({"closure": {"by": "ops", "reason": "fan replaced"}}),
        ),
    ]
}

/// Statuses, written in this order by those who may.
pub fn standing_statuses() -> Vec<(Identity, Target, Value)> {
    let host = |name| Target::of_site("Host", name);
    let tenant = |kind, name| Target::of(kind, "oa-office", name);
    let cluster = |kind, name| Target::of_site(kind, name);
    vec![
        (
            AGENT_H1,
            host("h1"),
            json!({"reported": report("boot-h1", "uuid-h1")}),
        ),
        (
            AGENT_H2,
            host("h2"),
            json!({"reported": report("boot-h2", "uuid-h2")}),
        ),
        (
            OPERATOR,
            host("h1"),
            json!({"state": "Ready", "virtualMachines": 1, "retiredBootIds": ["boot-old"]}),
        ),
        (OPERATOR, host("h3"), json!({"volumeJobs": 2})),
        (
            OPERATOR,
            cluster("HostPool", "main"),
            json!({"hosts": 2, "hostsReady": 2, "cpuCapacity": 8,
            "cpuAllocated": 1, "memoryCapacityMebibytes": 2048, "memoryAllocatedMebibytes": 128}),
        ),
        (
            OPERATOR,
            cluster("StoragePool", "shared"),
            json!({"volumes": 1}),
        ),
        (
            OPERATOR,
            cluster("Network", "common"),
            json!({"addressesUsed": 1}),
        ),
        (
            OPERATOR,
            cluster("Image", "linux"),
            json!({"inUseBy": 1, "pools": [
            {"pool": "shared", "host": "h1"}, {"pool": "other", "host": "h2"}]}),
        ),
        (
            AGENT_H2,
            cluster("Image", "linux"),
            json!({"reports": [
            {"pool": "other", "host": "h2", "phase": "Ready", "message": ""}]}),
        ),
        (
            OPERATOR,
            cluster("Department", "oa-office"),
            json!({"virtualMachines": 1}),
        ),
        (
            OPERATOR,
            cluster("Department", "archives"),
            json!({"volumes": 2}),
        ),
        (
            OPERATOR,
            tenant("VirtualMachine", "vm1"),
            json!({"assignment": assignment("h1", 4),
            "incoming": assignment("h2", 5), "lastEpoch": 5}),
        ),
        (
            AGENT_H1,
            tenant("VirtualMachine", "vm1"),
            json!({"runtime": runtime("h1", 4)}),
        ),
        (
            OPERATOR,
            tenant("Volume", "vm1-system"),
            json!({"lastJob": 3,
            "job": {"host": "h1", "bootId": "boot-h1", "epoch": 3, "operation": "Create", "sizeBytes": 1},
            "claim": {"fleet": "f", "holder": "VirtualMachine", "uid": "u", "host": "h1", "bootId": "boot-h1", "epoch": 4}}),
        ),
        (
            OPERATOR,
            cluster("Incident", "incident2"),
            json!({"state": "Closed", "closedAt": "2026-01-01T01:00:00.000000Z"}),
        ),
        (
            OPERATOR,
            tenant("VirtualMachineMigration", "move1"),
            json!({"phase": "Running",
            "sourceAssignment": assignment("h1", 4), "targetAssignment": assignment("h2", 5)}),
        ),
    ]
}
