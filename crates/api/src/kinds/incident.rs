//! `Incident` (事件): the fault ledger.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One entry of the fault ledger: one root cause, whom it affected, what was done and not done.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "zhengyun.io",
    version = "v1alpha1",
    kind = "Incident",
    plural = "incidents",
    shortname = "inc",
    category = "zhengyun",
    status = "IncidentStatus",
    derive = "PartialEq",
    doc = "One entry of the fault ledger (事件).",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".spec.causeClass"),
    printcolumn(name = "What", type_ = "string", json_path = ".spec.title"),
    printcolumn(
        name = "Systems",
        type_ = "integer",
        json_path = ".status.systemsAffected"
    ),
    printcolumn(
        name = "Downtime s",
        type_ = "number",
        json_path = ".status.longestDowntimeSeconds"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IncidentSpec {
    /// Root cause as a stable key: one incident per key and opening, such as `host-silent/h2/<boot id>`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cause: can not be changed"))]
    pub cause: String,
    /// Class of the cause.
    pub cause_class: CauseClass,
    /// What happened, in one sentence.
    #[schemars(length(min = 1, max = 500))]
    pub title: String,
    /// The same in Chinese.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub title_chinese: String,
    /// Host where it began, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When it was opened, with microseconds: downtime is measured from here.
    pub opened_at: MicroTime,
    /// A person closes it, saying why: at once, or as soon as its cause is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closure: Option<IncidentClosure>,
}

/// Class of an incident's cause.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum CauseClass {
    /// Hardware failed.
    Hardware,
    /// Software failed, ours or the guest's.
    Software,
    /// A network failed.
    Network,
    /// Planned work.
    Planned,
    /// Not known yet.
    Unknown,
}

impl Incident {
    /// Whether it is over: its record is final.
    pub fn is_closed(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.state == "Closed")
    }
}

/// A person's closing word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentClosure {
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why, what was found.
    #[schemars(length(min = 1, max = 1000))]
    pub reason: String,
    /// Class of the cause that was found; none leaves `spec.causeClass` as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause_class: Option<CauseClass>,
}

/// Status of an incident, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IncidentStatus {
    /// `Open` (something is still wrong or under way), `Recovered` (services answer, the cause still
    /// stands), `Closed`.
    pub state: String,
    /// What was seen, decided, done, and deliberately not done, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub timeline: Vec<TimelineEntry>,
    /// Entries left out because the timeline is full.
    pub timeline_dropped: i32,
    /// Business systems affected, with their measured downtime.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub systems: Vec<AffectedSystem>,
    /// How many business systems are affected.
    pub systems_affected: i32,
    /// The longest downtime of any of them, seconds.
    pub longest_downtime_seconds: f64,
    /// Until when downtime was measured when this was written: a new leader goes on from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_until: Option<MicroTime>,
    /// When all services answered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<MicroTime>,
    /// When it was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<MicroTime>,
}

/// What an entry of a timeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimelineKind {
    /// A fact that was observed.
    Seen,
    /// A decision, with its reason.
    Decided,
    /// An act that was carried out.
    Done,
    /// An act that was deliberately left undone, with its reason.
    NotDone,
}

/// One entry of an incident's timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineEntry {
    /// When, with microseconds.
    pub at: MicroTime,
    /// What sort of entry.
    pub kind: TimelineKind,
    /// Stable key of the step (such as `suspect`, `power-off-read`, `assigned/ns/vm`), for programs
    /// and against double entries.
    pub step: String,
    /// The sentence.
    pub text: String,
    /// The sentence in Chinese.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chinese: String,
}

/// A business system that an incident touched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AffectedSystem {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its official name.
    pub display_name: String,
    /// VMs of it that stood on the failed part.
    #[serde(default)]
    pub virtual_machines: Vec<String>,
    /// Seconds in which at least one endpoint had no replica that answered.
    pub downtime_seconds: f64,
    /// Seconds that nobody observed; never counted as up. Of a system that is not measured: all of the time, in whole
    /// minutes from the first one on.
    pub unobserved_seconds: f64,
    /// Its `spec.endpoints` is empty, so nobody measured whether it was down: `downtimeSeconds` says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_measured: bool,
    /// Each endpoint that was down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointDowntime>,
}

/// Downtime of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDowntime {
    /// Name of the endpoint.
    pub name: String,
    /// Seconds without an answer from any replica.
    pub downtime_seconds: f64,
    /// Seconds that nobody observed.
    pub unobserved_seconds: f64,
    /// When it first failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_at: Option<MicroTime>,
    /// When it answered again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_at: Option<MicroTime>,
}
