//! `CloudPolicy`: the site's one policy object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use model::{FaultKind, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A tunable's safe range; a value outside of it is refused with the range and what would go wrong.
fn safe(field: &str, least: i64, most: i64, otherwise: &str) -> Value {
    rule(
        &format!("self >= {least} && self <= {most}"),
        &format!("{field}: safe is {least} to {most}; outside of that {otherwise}"),
    )
}

/// A rule that the API server checks, with the sentence that it refuses with.
fn rule(rule: &str, message: &str) -> Value {
    json!([{"rule": rule, "message": message}])
}

/// The site's policy. There is one, named `default`; every field has a default.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "CloudPolicy",
    plural = "cloudpolicies",
    shortname = "policy",
    category = "zhengyun",
    status = "CloudPolicyStatus",
    derive = "PartialEq",
    doc = "The site's one policy object.",
    validation = Rule::new("self.metadata.name == 'default'").message("metadata.name: the site has one policy, named 'default'"),
    validation = Rule::new("self.spec.failover.unreachableAfterSeconds > self.spec.failover.leaseIntervalSeconds + 1").message("spec.failover.unreachableAfterSeconds: must be more than leaseIntervalSeconds + 1, the moment at which a host becomes Suspect"),
    validation = Rule::new("self.spec.failover.contractSeconds + self.spec.failover.watchdogSeconds + self.spec.failover.selfFenceMarginSeconds <= 50").message("spec.failover: contractSeconds, watchdogSeconds and selfFenceMarginSeconds together are at most 50, as VMs of a dead host stay down for so long"),
    validation = Rule::new("self.spec.failover.contractSeconds >= 3 * self.spec.failover.leaseIntervalSeconds && self.spec.failover.contractSeconds >= 3 * self.spec.failover.heartbeatIntervalSeconds").message("spec.failover.contractSeconds: must be at least three times leaseIntervalSeconds and heartbeatIntervalSeconds; two missed renewals would kill every VM of a healthy host"),
    validation = Rule::new("self.spec.failover.fenceIsolatedAfterSeconds >= self.spec.failover.unreachableAfterSeconds").message("spec.failover.fenceIsolatedAfterSeconds: must be at least unreachableAfterSeconds; a host that still runs must not be fenced sooner than one that shows no life"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CloudPolicySpec {
    /// When a host counts as dead and what is done.
    #[serde(default)]
    pub failover: FailoverPolicy,
    /// Bounds of live migration.
    #[serde(default)]
    pub migration: MigrationPolicy,
    /// Whether VMs are moved to even out the load of hosts.
    #[serde(default)]
    pub rebalancing: RebalancingPolicy,
    /// How failed VMs are restarted.
    #[serde(default)]
    pub recovery: RecoveryPolicy,
    /// Probes of endpoints.
    #[serde(default)]
    pub probes: ProbePolicy,
    /// Ratings of hardware faults that differ from the built-in ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub severities: Vec<SeverityRule>,
    /// From which numbers on the hosts' probes call something a hardware fault. A change counts with their next look,
    /// a few seconds later.
    #[serde(default)]
    pub thresholds: ThresholdPolicy,
    /// How long closed incidents are kept, days. Default 365, at least 180 (the law asks for six months).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = safe("incidentRetentionDays", 180, 3650, "the law asks for six months, and nobody looks further back than ten years")))]
    pub incident_retention_days: Option<i32>,
}

/// When a host counts as dead and what is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailoverPolicy {
    /// How often each host renews its Lease, seconds. Default 2; longer on large fleets, with a longer
    /// `contractSeconds`: at least three times this.
    #[schemars(extend("x-kubernetes-validations" = safe("leaseIntervalSeconds", 1, 14, "the API server drowns in renewals, or a death is noticed late")))]
    pub lease_interval_seconds: i32,
    /// Silence after which a host that reads On counts as unreachable, seconds. Default 8.
    #[schemars(extend("x-kubernetes-validations" = safe("unreachableAfterSeconds", 3, 600, "a short stall would be fenced, or recovery comes late")))]
    pub unreachable_after_seconds: i32,
    /// Wait before a host that runs but is isolated is fenced, seconds. Default 30.
    #[schemars(extend("x-kubernetes-validations" = safe("fenceIsolatedAfterSeconds", 10, 3600, "a short cut would be fenced, or recovery comes late")))]
    pub fence_isolated_after_seconds: i32,
    /// Fence hosts that run but are isolated. Default true.
    pub fence_isolated: bool,
    /// Share of hosts, percent, whose silence within `stormWindowSeconds` stops all forcing off. Default 30.
    #[schemars(extend("x-kubernetes-validations" = safe("stormPercent", 10, 100, "the storm guard would always or never stand")))]
    pub storm_percent: i32,
    /// Window of the storm guard, seconds. Default 60.
    #[schemars(extend("x-kubernetes-validations" = safe("stormWindowSeconds", 10, 600, "a storm would not be seen as one, or stand for ever")))]
    pub storm_window_seconds: i32,
    /// Fewest hosts whose silence together is a storm. Default 2.
    #[schemars(extend("x-kubernetes-validations" = safe("stormMinimumHosts", 2, 1000, "one dead host would be a storm, or none ever is")))]
    pub storm_minimum_hosts: i32,
    /// Calm, with no new silence, after which a storm releases one fence at a time, seconds. Default 60: longer than
    /// a switch takes that comes back at all.
    #[schemars(extend("x-kubernetes-validations" = safe("stormReleaseSeconds", 10, 3600, "fences would follow each other too quickly, or never")))]
    pub storm_release_seconds: i32,
    /// Age of an agent's converge loop above which the agent counts as down, and its host takes nothing new,
    /// seconds. Default 15.
    #[schemars(extend("x-kubernetes-validations" = safe("agentDownAfterSeconds", 5, 600, "a busy agent would look down, or one that is stuck keeps taking VMs")))]
    pub agent_down_after_seconds: i32,
    /// Attempts per method before fencing counts as failed. Default 3, at most 6.
    #[schemars(extend("x-kubernetes-validations" = safe("fenceAttempts", 1, 6, "fencing would never begin, or outlast its intent of 60 s")))]
    pub fence_attempts: i32,
    /// How often each host renews its storage heartbeat, seconds, on pools with `spec.heartbeat`. Default 2.
    #[schemars(extend("x-kubernetes-validations" = safe("heartbeatIntervalSeconds", 1, 14, "the pool drowns in writes, or the contract could not be kept")))]
    pub heartbeat_interval_seconds: i32,
    /// The guard's contract on hosts with `spec.selfFencing`: after so many seconds without Lease
    /// and without storage heartbeat the host kills its VMs. Default 20.
    #[schemars(extend("x-kubernetes-validations" = safe("contractSeconds", 6, 43, "a short cut would kill VMs, or VMs of a dead host stay down for too long")))]
    pub contract_seconds: i32,
    /// Longest time-out of the hosts' hardware watchdogs, seconds. Default 20.
    #[schemars(extend("x-kubernetes-validations" = safe("watchdogSeconds", 2, 39, "a busy moment would reset the host, or VMs of a dead host stay down for too long")))]
    pub watchdog_seconds: i32,
    /// How long the platform waits beyond contract and watchdog before it restarts the VMs of a
    /// host that must have fenced itself, seconds. Default 10.
    #[schemars(extend("x-kubernetes-validations" = safe("selfFenceMarginSeconds", 5, 30, "a late kill might meet a restarted VM, or VMs of a dead host stay down for too long")))]
    pub self_fence_margin_seconds: i32,
    /// Force nothing off until a moment, for work on the network. `zyctl failover disarm` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disarmed: Option<Disarmed>,
    /// Who last armed it before the time was over. `zyctl failover arm` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub armed: Option<Armed>,
    /// A person asks for a rebase after etcd was restored. `zyctl failover rebase` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebase: Option<RebaseRequest>,
}

impl Default for FailoverPolicy {
    fn default() -> Self {
        Self {
            lease_interval_seconds: 2,
            unreachable_after_seconds: 8,
            fence_isolated_after_seconds: 30,
            fence_isolated: true,
            storm_percent: 30,
            storm_window_seconds: 60,
            storm_minimum_hosts: 2,
            storm_release_seconds: 60,
            agent_down_after_seconds: 15,
            fence_attempts: 3,
            heartbeat_interval_seconds: 2,
            contract_seconds: 20,
            watchdog_seconds: 20,
            self_fence_margin_seconds: 10,
            disarmed: None,
            armed: None,
            rebase: None,
        }
    }
}

/// A person's word that a frozen site goes on from what hosts say runs on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebaseRequest {
    /// The freeze that it ends: `status.frozen.since`. One that is found in a backup ends none.
    pub frozen_since: Time,
    /// When it was asked for.
    pub at: Time,
    /// Why, such as which backup was restored.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
}

/// Fencing was armed again by a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Armed {
    /// When.
    pub at: Time,
    /// Why, such as that the work is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
}

/// Fencing is off until a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rule("has(self.at) && self.until - self.at <= duration('24h')", "disarmed.until: must be at most 24 hours after disarmed.at, the moment of writing; a forgotten one must not last a weekend, so disarm again when more is needed")))]
pub struct Disarmed {
    /// When it was said. Must be there; one without it is from before this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Until when, at most 24 hours after `at`; then it arms itself again. The operator ignores one that
    /// is further away.
    pub until: Time,
    /// Why.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
}

/// Bounds of live migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationPolicy {
    /// Migrations that one host sends or receives at once. Default 2.
    #[schemars(extend("x-kubernetes-validations" = safe("perHost", 1, 16, "no VM could move, or moves would starve each other")))]
    pub per_host: i32,
    /// Migrations under way at once in the whole site. Default 16.
    #[schemars(extend("x-kubernetes-validations" = safe("perSite", 1, 256, "no VM could move, or the network between racks would starve its guests")))]
    pub per_site: i32,
    /// Bandwidth of one migration, MiB/s. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = safe("bandwidthMebibytesPerSecond", 1, 100000, "no VM could move, or the number means nothing")))]
    pub bandwidth_mebibytes_per_second: Option<i32>,
    /// Longest pause that the hypervisor aims at, milliseconds. Default 300.
    #[schemars(extend("x-kubernetes-validations" = safe("maximumPauseMilliseconds", 10, 10000, "no move could end, or guests would stand still for long")))]
    pub maximum_pause_milliseconds: i32,
    /// A migration that takes longer is aborted, seconds. Default 600.
    #[schemars(extend("x-kubernetes-validations" = safe("timeoutSeconds", 10, 86400, "no VM could move, or a stuck move blocks a drain")))]
    pub timeout_seconds: i32,
    /// A target that is not prepared after so long has failed, and so has one that could not let run what was handed over
    /// to it so long ago, seconds. Default 60.
    #[schemars(extend("x-kubernetes-validations" = safe("prepareTimeoutSeconds", 5, 3600, "no target could prepare in time, or a dead one holds a move up")))]
    pub prepare_timeout_seconds: i32,
    /// At most one new evacuation of a host because of hardware faults in this time, seconds. Default 1800; retries
    /// of one that is blocked do not count.
    #[schemars(extend("x-kubernetes-validations" = safe("evacuationIntervalSeconds", 60, 86400, "an alarm that flaps would move VMs all day, or a host that fails again is not emptied")))]
    pub evacuation_interval_seconds: i32,
    /// Hosts that are emptied at once because of hardware faults. Default 2.
    #[schemars(extend("x-kubernetes-validations" = safe("hostsEvacuatedAtOnce", 1, 50, "no host would be emptied, or the whole site would move at once")))]
    pub hosts_evacuated_at_once: i32,
}

impl Default for MigrationPolicy {
    fn default() -> Self {
        Self {
            per_host: 2,
            per_site: 16,
            bandwidth_mebibytes_per_second: None,
            maximum_pause_milliseconds: 300,
            timeout_seconds: 600,
            prepare_timeout_seconds: 60,
            evacuation_interval_seconds: 1800,
            hosts_evacuated_at_once: 2,
        }
    }
}

/// Whether VMs are moved to even out the load of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RebalancingPolicy {
    /// `Off`, `Advise` (default: moves are told in `HostPool.status.rebalancing`, none is made) or
    /// `Automatic` (they are made).
    pub mode: RebalancingMode,
    /// Imbalance of a pool up to which nothing is moved, per mille: how far hosts are from the
    /// pool's mean share of memory and CPU, as a root mean square. Default 80.
    #[schemars(extend("x-kubernetes-validations" = safe("thresholdPermille", 10, 1000, "VMs would move for nothing, or never")))]
    pub threshold_permille: i32,
    /// What one move must gain: the share of its two hosts' squared distance from the mean that it
    /// takes away, percent. Default 10.
    #[schemars(extend("x-kubernetes-validations" = safe("gainPercent", 1, 100, "VMs would move for nothing, or never")))]
    pub gain_percent: i32,
    /// A VM that moved, or whose move failed, is left alone so long, seconds. Default 3600.
    #[schemars(extend("x-kubernetes-validations" = safe("coolDownSeconds", 60, 604800, "VMs would move to and fro, or never again")))]
    pub cool_down_seconds: i32,
    /// Moves at once in the whole site, when automatic. Default 2.
    #[schemars(extend("x-kubernetes-validations" = safe("movesAtOnce", 1, 16, "nothing would be evened out, or the site would move at once")))]
    pub moves_at_once: i32,
}

impl Default for RebalancingPolicy {
    fn default() -> Self {
        Self {
            mode: RebalancingMode::Advise,
            threshold_permille: 80,
            gain_percent: 10,
            cool_down_seconds: 3600,
            moves_at_once: 2,
        }
    }
}

/// Who carries out what would even out the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebalancingMode {
    /// Nobody; nothing is looked for.
    Off,
    /// A person; the platform tells the moves.
    #[default]
    Advise,
    /// The platform.
    Automatic,
}

/// How failed VMs are restarted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rule("self.restartBackOffMaximumSeconds >= self.restartBackOffSeconds", "restartBackOffMaximumSeconds: must be at least restartBackOffSeconds; the longest wait would be shorter than the first")))]
#[serde(rename_all = "camelCase", default)]
pub struct RecoveryPolicy {
    /// VMs that one host starts at once. Default 4.
    #[schemars(extend("x-kubernetes-validations" = safe("startsPerHost", 1, 64, "nothing would start, or a host is overrun")))]
    pub starts_per_host: i32,
    /// First wait after a crash, seconds; doubles with each crash in a row. Default 5.
    #[schemars(extend("x-kubernetes-validations" = safe("restartBackOffSeconds", 1, 600, "a crashing VM would burn the host, or stay down long")))]
    pub restart_back_off_seconds: i32,
    /// Longest wait after crashes in a row, seconds. Default 300.
    #[schemars(extend("x-kubernetes-validations" = safe("restartBackOffMaximumSeconds", 1, 3600, "a crashing VM would burn the host, or stay down long")))]
    pub restart_back_off_maximum_seconds: i32,
    /// A copy that ran this long ends the row of crashes, seconds. Default 600.
    #[schemars(extend("x-kubernetes-validations" = safe("restartBackOffResetSeconds", 1, 86400, "crashes in a row would never add up, or a crash of last week counts")))]
    pub restart_back_off_reset_seconds: i32,
    /// Starts in a row that may fail before the VM stays in error, with the reason; moves of a VM that keep failing
    /// are given up after as many. Default 5.
    #[schemars(extend("x-kubernetes-validations" = safe("startAttempts", 1, 100, "nothing would start, or a broken VM is started for ever")))]
    pub start_attempts: i32,
}

impl Default for RecoveryPolicy {
    fn default() -> Self {
        Self {
            starts_per_host: 4,
            restart_back_off_seconds: 5,
            restart_back_off_maximum_seconds: 300,
            restart_back_off_reset_seconds: 600,
            start_attempts: 5,
        }
    }
}

/// Probes of endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rule("self.busyIntervalMilliseconds <= self.intervalMilliseconds", "busyIntervalMilliseconds: must be at most intervalMilliseconds; a system in trouble is watched more closely, not less")))]
#[serde(rename_all = "camelCase", default)]
pub struct ProbePolicy {
    /// Interval in quiet times, milliseconds. Default 1000.
    #[schemars(extend("x-kubernetes-validations" = safe("intervalMilliseconds", 200, 60000, "probes would load the systems that they watch, or an outage is measured late")))]
    pub interval_milliseconds: i32,
    /// Interval while something happens to the system, milliseconds. Default 200.
    #[schemars(extend("x-kubernetes-validations" = safe("busyIntervalMilliseconds", 100, 60000, "probes would load the systems that they watch, or an outage is measured late")))]
    pub busy_interval_milliseconds: i32,
    /// An answer must come within, milliseconds. Default 1000.
    #[schemars(extend("x-kubernetes-validations" = safe("timeoutMilliseconds", 100, 60000, "a healthy system would look down, or an outage is measured late")))]
    pub timeout_milliseconds: i32,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self {
            interval_milliseconds: 1000,
            busy_interval_milliseconds: 200,
            timeout_milliseconds: 1000,
        }
    }
}

/// A rating that differs from the built-in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeverityRule {
    /// The kind of fault.
    pub kind: FaultKind,
    /// Its severity here.
    pub severity: Severity,
}

/// From which numbers on the hosts' probes call something a hardware fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ThresholdPolicy {
    /// Corrected memory errors of one module, row or controller within `memoryWindowSeconds` that are a fault
    /// (`MemoryCorrectedErrors`). Default 50.
    #[schemars(extend("x-kubernetes-validations" = safe("correctedMemoryErrors", 1, 100_000, "a host without any error would be quarantined, or a module that fails is never seen")))]
    pub corrected_memory_errors: i32,
    /// Window in which corrected memory errors are counted together, seconds. Default 86400, a day. What is older
    /// than a shortened window is forgotten.
    #[schemars(extend("x-kubernetes-validations" = safe("memoryWindowSeconds", 3600, 86400, "a module that fails slowly is never seen, or the window is longer than errors are remembered")))]
    pub memory_window_seconds: i32,
    /// How often a link must lose its carrier within `linkWindowSeconds` to be a fault (`LinkFlapping`). Default 5.
    #[schemars(extend("x-kubernetes-validations" = safe("linkFlaps", 2, 1000, "a cable that is plugged anew would be a fault, or a link that flaps is never seen")))]
    pub link_flaps: i32,
    /// Share of a link's packets within `linkWindowSeconds` above which errors are a fault (`LinkErrors`), per mille.
    /// Default 10, which is 1 %. With fewer than 1000 packets nothing is judged.
    #[schemars(extend("x-kubernetes-validations" = safe("linkErrorPermille", 1, 500, "a single broken packet would be a fault, or a link that loses every second one is none")))]
    pub link_error_permille: i32,
    /// Window in which a link's flaps and broken packets are counted together, seconds. Default 600. What is older
    /// than a shortened window is forgotten.
    #[schemars(extend("x-kubernetes-validations" = safe("linkWindowSeconds", 120, 86400, "flaps, which are kept by the minute, would be lost, or the window is longer than they are remembered")))]
    pub link_window_seconds: i32,
    /// How long a temperature must stay above the hardware's own warning to be a fault (`Temperature`), seconds.
    /// Default 600. One at the hardware's critical limit does not wait.
    #[schemars(extend("x-kubernetes-validations" = safe("temperatureHoldSeconds", 30, 7200, "a short peak would empty its host, or heat harms it before anybody is told")))]
    pub temperature_hold_seconds: i32,
    /// Share of a disk's rated endurance from which its wear is shown (`DiskWear`), percent. Default 80.
    #[schemars(extend("x-kubernetes-validations" = safe("diskWearPercent", 10, 100, "every disk would be shown, or one that is worn out is not")))]
    pub disk_wear_percent: i32,
    /// Looks in a row that must see a fault before it is raised. Default 2; they are 1 to 4 seconds apart.
    #[schemars(extend("x-kubernetes-validations" = safe("raisePolls", 2, 10, "one misreading would empty a host, or its VMs leave too late")))]
    pub raise_polls: i32,
    /// Time without a fault after which it is cleared, seconds. Default 1800; a person clears sooner
    /// (`zyctl host clear`).
    #[schemars(extend("x-kubernetes-validations" = safe("clearSeconds", 60, 86400, "a fault that flaps would clear itself, or one that is gone keeps its host empty")))]
    pub clear_seconds: i32,
}

impl Default for ThresholdPolicy {
    fn default() -> Self {
        Self {
            corrected_memory_errors: 50,
            memory_window_seconds: 86400,
            link_flaps: 5,
            link_error_permille: 10,
            link_window_seconds: 600,
            temperature_hold_seconds: 600,
            disk_wear_percent: 80,
            raise_polls: 2,
            clear_seconds: 1800,
        }
    }
}

/// Status of the policy, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudPolicyStatus {
    /// Conditions: `Valid` (a policy that contradicts itself is not used), `Armed`, `Acting` (not when
    /// the API holds less than hosts remember; its message tells what a rebase waits for).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Nothing is started, stopped, moved or forced off, on any host, until a rebase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<SiteFreeze>,
    /// The last rebase; agents know by it that a freeze is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rebase: Option<Rebased>,
}

/// The site is frozen: etcd was restored from a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteFreeze {
    /// Since when; names the freeze.
    pub since: Time,
    /// Who noticed what.
    pub cause: String,
    /// Names the roll-call of the operator that leads: hosts count as heard that answered this one. A
    /// new leader, and one that sees etcd restored once more, calls anew. Operator only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub roll_call: String,
    /// `lastEpoch` of every VM after the rebase, at least; set when a rebase has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_floor: Option<i64>,
}

/// A rebase that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebased {
    /// Names it.
    pub id: String,
    /// When it was done.
    pub at: Time,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The freeze that it ended.
    pub frozen_since: Time,
    /// VMs whose rights were set to what runs.
    pub virtual_machines: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;

    /// Every number under a schema, with its path and its rules' messages.
    fn numbers(path: &str, schema: &Value, found: &mut Vec<(String, Vec<String>)>) {
        if schema["type"] == "integer" {
            let rules = schema["x-kubernetes-validations"].as_array();
            let messages = rules
                .into_iter()
                .flatten()
                .filter_map(|rule| rule["message"].as_str());
            found.push((path.to_owned(), messages.map(str::to_owned).collect()));
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            numbers(&format!("{path}.{name}"), inner, found);
        }
    }

    #[test]
    fn every_tunable_names_its_safe_range_and_what_goes_wrong_outside_of_it() {
        let crd = serde_json::to_value(CloudPolicy::crd()).expect("a CRD");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Vec::new();
        numbers("spec", &schema["properties"]["spec"], &mut found);
        assert_eq!(found.len(), 43, "{found:?}");
        for (path, messages) in found {
            let field = path.rsplit('.').next().unwrap_or_default();
            let names = |message: &String| {
                message.starts_with(&format!("{field}: safe is "))
                    && message.contains("; outside of that ")
            };
            assert!(messages.iter().any(names), "{path}: {messages:?}");
        }
    }
}
