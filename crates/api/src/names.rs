//! Names that more than one program must agree on.

/// API group of every kind.
pub const GROUP: &str = "zhengyun.io";
/// Namespace of the platform's own objects: Leases, BMC credentials, events.
pub const SYSTEM_NAMESPACE: &str = "zhengyun-system";
/// Name of the site's only `CloudPolicy`.
pub const POLICY_NAME: &str = "default";
/// Finalizer of VMs, volumes and hosts: nothing vanishes while a copy may run.
pub const FINALIZER: &str = "zhengyun.io/stop-proof";
/// User name of the operator in the API server.
pub const OPERATOR_USER: &str = "zhengyun:operator";
/// Prefix of an agent's user name; the host's name follows.
pub const HOST_USER_PREFIX: &str = "zhengyun:host:";
/// Group of every agent's certificate.
pub const HOSTS_GROUP: &str = "zhengyun:hosts";

/// Label on VMs and volumes: name of their business system.
pub const LABEL_SYSTEM: &str = "zhengyun.io/system";
/// Label on VMs: tier of the business system.
pub const LABEL_TIER: &str = "zhengyun.io/tier";
/// Label on VMs: index of the replica within its tier, from 0.
pub const LABEL_REPLICA: &str = "zhengyun.io/replica";
/// Label on namespaces: the department that owns it.
pub const LABEL_DEPARTMENT: &str = "zhengyun.io/department";
/// Label of a migration that the operator made: the host that is emptied by it. Nobody else may set it.
pub const LABEL_EVACUATES: &str = "zhengyun.io/evacuates";
/// Annotation of a migration that the operator made: why the VM goes to that host, in one sentence.
pub const ANNOTATION_WHY: &str = "zhengyun.io/why";
/// Step of an Incident that a person's word has not closed yet, as its cause stands.
pub const INCIDENT_STEP_NOT_CLOSED: &str = "not-closed";

/// Annotation on a host's Lease: boot id of the incarnation that renews it.
pub const LEASE_BOOT_ID: &str = "zhengyun.io/boot-id";
/// Annotation on a host's Lease: age of the agent's converge loop in milliseconds.
pub const LEASE_LOOP_AGE: &str = "zhengyun.io/agent-loop-age-milliseconds";
/// What [`LEASE_LOOP_AGE`] says, milliseconds, while the loop has not gone round once in this boot: older than any policy
/// allows, so that nothing is placed there.
pub const LEASE_LOOP_NEVER: u64 = 86_400_000;
/// Annotation on a host's Lease: what its guard registers as in force (JSON): `armed`,
/// `contractMilliseconds`, `watchdogMilliseconds`, `pools`. `SelfFenced` rests on it.
pub const LEASE_GUARD: &str = "zhengyun.io/guard";
/// Annotation on a host's Lease: why its guard is not armed (JSON).
pub const LEASE_GUARD_WHY: &str = "zhengyun.io/guard-not-armed";
/// Annotation on a host's Lease: how long its guard saw other hosts' storage heartbeats unchanged.
pub const LEASE_HEARTBEATS: &str = "zhengyun.io/heartbeats";
/// Annotation on a host's Lease, written by the operator: a token that the guard repeats in
/// [`LEASE_HEARTBEATS`], so that the operator knows after what it looked.
pub const LEASE_TOKEN: &str = "zhengyun.io/token";

/// Annotation on a host's Lease: the highest version of the API that the host remembers, and the
/// last rebase. A version above the Lease's own says that etcd was restored.
pub const LEASE_API_SEEN: &str = "zhengyun.io/api-seen";

/// Name of a host's Lease in [`SYSTEM_NAMESPACE`].
pub fn lease_name(host: &str) -> String {
    format!("host-{host}")
}

/// Namespace with the secrets of one host; only its agent and the operator read it.
pub fn host_namespace(host: &str) -> String {
    format!("zy-host-{host}")
}

/// Name of the Secret in [`host_namespace`] with a VM's seed (keys `meta-data`,
/// `user-data`, `network-config`).
pub fn seed_secret_name(vm_uid: &str) -> String {
    format!("seed-{vm_uid}")
}
