//! A host's BMC over Redfish: power supplies, fans and temperatures in the old form (`Power`,
//! `Thermal`) and the new one (`PowerSubsystem`, `ThermalSubsystem`, `Sensors`), and the health of
//! processors, memory and drives. Fetching is the caller's ([`RedfishSource`]); this walks and
//! judges. The walk is bounded in depth by its shape and in number by a budget.

mod chassis;
mod status;
mod system;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::finding::{Findings, quote};
use crate::thresholds::Thresholds;

/// Why a resource could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RedfishError {
    /// The BMC has no such resource.
    #[error("the BMC has no {path}")]
    NotFound {
        /// The resource.
        path: String,
    },
    /// The BMC did not answer, refused, or answered something else than bounded JSON.
    #[error("the BMC gives no {path}: {message}")]
    Failed {
        /// The resource.
        path: String,
        /// What happened.
        message: String,
    },
}

/// Fetches resources of one BMC. Implementations bound time and size of an answer.
pub trait RedfishSource {
    /// The resource at an absolute path such as `/redfish/v1/Chassis`.
    ///
    /// # Errors
    /// It does not exist or can not be fetched.
    fn get(&self, path: &str) -> Result<Value, RedfishError>;
}

/// Resources fetched in one walk; a rack server has about 100 that matter.
const RESOURCES_MAX: usize = 400;
/// Members followed of one collection.
const MEMBERS_MAX: usize = 128;
/// Failures after which a walk ends: a BMC that is gone must not cost one time-out per sensor.
const FAILURES_MAX: usize = 3;

struct Walk<'a> {
    source: &'a dyn RedfishSource,
    thresholds: &'a Thresholds,
    findings: Findings,
    fetched: usize,
    failures: usize,
    seen: BTreeSet<String>,
}

/// Walks the BMC's resources and judges them.
pub fn walk(source: &dyn RedfishSource, thresholds: &Thresholds) -> Findings {
    let mut walk = Walk {
        source,
        thresholds,
        findings: Findings::default(),
        fetched: 0,
        failures: 0,
        seen: BTreeSet::new(),
    };
    if let Some(root) = walk.get("/redfish/v1/") {
        for chassis in walk.members_at(&root, "Chassis") {
            walk.chassis(&chassis);
        }
        for system in walk.members_at(&root, "Systems") {
            walk.system(&system);
        }
    }
    if walk.failures >= FAILURES_MAX {
        walk.findings.fail(
            None,
            format!("the BMC failed {FAILURES_MAX} times; the rest of it was not read"),
        );
    } else if walk.fetched >= RESOURCES_MAX {
        walk.findings.fail(
            None,
            format!("the BMC has more than {RESOURCES_MAX} resources; the rest was not read"),
        );
    }
    walk.findings
}

impl Walk<'_> {
    /// A resource, once; `None` also when it does not exist, was seen, or the budget is spent.
    fn get(&mut self, path: &str) -> Option<Value> {
        if !path.starts_with("/redfish/v1")
            || path.len() > 512
            || self.fetched >= RESOURCES_MAX
            || self.failures >= FAILURES_MAX
        {
            return None;
        }
        // Members of a parent's array are `parent#/Fans/0`; the parent has them already.
        let path = path.split('#').next().unwrap_or(path);
        if !self.seen.insert(path.trim_end_matches('/').to_owned()) {
            return None;
        }
        self.fetched += 1;
        match self.source.get(path) {
            Ok(value) => Some(value),
            Err(RedfishError::NotFound { .. }) => None,
            Err(error) => {
                self.failures += 1;
                self.findings.fail(None, quote(&error.to_string(), 300));
                None
            }
        }
    }

    /// The resource that a property links to.
    fn linked(&mut self, resource: &Value, property: &str) -> Option<Value> {
        let path = link(resource.get(property)?)?.to_owned();
        self.get(&path)
    }

    /// Members of the collection that a property links to, over all its pages. Members that the
    /// BMC has expanded in place are taken as they are.
    fn members_at(&mut self, resource: &Value, property: &str) -> Vec<Value> {
        let mut members = Vec::new();
        let mut page = self.linked(resource, property);
        while let Some(collection) = page {
            let listed = collection.get("Members").and_then(Value::as_array);
            for member in listed.into_iter().flatten() {
                if members.len() >= MEMBERS_MAX {
                    return members;
                }
                let is_expanded = member.as_object().is_some_and(|object| object.len() > 1);
                let member = if is_expanded {
                    Some(member.clone())
                } else {
                    link(member)
                        .map(str::to_owned)
                        .and_then(|path| self.get(&path))
                };
                members.extend(member);
            }
            let next = collection
                .get("Members@odata.nextLink")
                .and_then(Value::as_str)
                .map(str::to_owned);
            page = next.and_then(|next| self.get(&next));
        }
        members
    }
}

fn link(value: &Value) -> Option<&str> {
    value.get("@odata.id")?.as_str()
}

#[cfg(test)]
mod tests;
