//! Redfish's `Status` and names, read by their meaning (DSP0268). Pure.

use serde_json::Value;

use crate::finding::{id_part, quote};

/// Health of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nothing wrong, or nothing said.
    Ok,
    /// Needs attention.
    Warning,
    /// Needs attention now.
    Critical,
}

/// `Status.Health`, of the resource alone.
pub fn health(resource: &Value) -> Health {
    grade(resource.pointer("/Status/Health"))
}

/// `Status.HealthRollup`: the resource with all below it.
pub fn rollup(resource: &Value) -> Health {
    grade(resource.pointer("/Status/HealthRollup")).max(health(resource))
}

fn grade(value: Option<&Value>) -> Health {
    match value.and_then(Value::as_str) {
        Some("Critical") => Health::Critical,
        Some("Warning") => Health::Warning,
        _ => Health::Ok,
    }
}

/// `Status.State`.
pub fn state(resource: &Value) -> &str {
    resource
        .pointer("/Status/State")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// An empty slot, or something switched off on purpose: says nothing about health.
pub fn is_absent(resource: &Value) -> bool {
    matches!(
        state(resource),
        "Absent" | "Disabled" | "Deferring" | "Qualified" | "NotQualified"
    )
}

/// It should serve and can not.
pub fn is_unavailable(resource: &Value) -> bool {
    state(resource) == "UnavailableOffline"
}

/// Health and state in one phrase.
pub fn phrase(resource: &Value) -> String {
    let health = resource
        .pointer("/Status/Health")
        .and_then(Value::as_str)
        .unwrap_or("not told");
    let state = match state(resource) {
        "" => "not told",
        state => state,
    };
    format!("health {}, state {}", quote(health, 24), quote(state, 24))
}

/// Stable id of a resource or array member: its own id, else its place.
pub fn id(resource: &Value, index: usize) -> String {
    let own = ["Id", "MemberId"]
        .iter()
        .find_map(|key| resource.get(key)?.as_str());
    own.map_or_else(|| index.to_string(), id_part)
}

/// Name for people.
pub fn name(resource: &Value) -> String {
    quote(
        resource
            .get("Name")
            .and_then(Value::as_str)
            .unwrap_or("unnamed"),
        64,
    )
}

/// A number at a path.
pub fn number(resource: &Value, pointer: &str) -> Option<f64> {
    resource.pointer(pointer)?.as_f64()
}

/// Members of an array property.
pub fn array<'a>(resource: &'a Value, property: &str) -> &'a [Value] {
    resource
        .get(property)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
