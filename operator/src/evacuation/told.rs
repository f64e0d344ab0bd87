//! What is told of an evacuation in its host's status.

use api::{Evacuation, Host};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::permit::{Why, standing};
use crate::clock;
use crate::runtime::Context;
use crate::writer::logged;

/// How far an evacuation is.
pub(super) struct Outcome {
    /// VMs that run there or arrive.
    pub(super) remaining: usize,
    /// Those of them that can not move and why; or why none does.
    pub(super) blocked: Vec<String>,
    /// VMs that are only waited for, or whose move failed and is tried again.
    pub(super) waits: Vec<String>,
    /// None moves: the phase that says so.
    pub(super) whole: Option<&'static str>,
}

impl Outcome {
    pub(super) fn whole(phase: &'static str, remaining: usize, reason: String) -> Self {
        Self {
            remaining,
            blocked: vec![reason],
            waits: Vec::new(),
            whole: Some(phase),
        }
    }

    fn phase(&self) -> &'static str {
        match (self.remaining, self.whole) {
            (0, _) => "Done",
            (_, Some(phase)) => phase,
            (remaining, None) if remaining <= self.blocked.len() => "Blocked",
            _ => "Running",
        }
    }
}

pub(super) async fn progress(context: &Context, host: &Host, why: Why, outcome: Outcome) {
    let generation = host.metadata.generation;
    let Some(patch) = told(standing(host), generation, why, outcome) else {
        return;
    };
    let result = context
        .writer
        .status(host, json!({"evacuation": patch}))
        .await;
    logged("evacuation", &host.name_any(), result);
}

/// What is to be written about an evacuation of a host that has this generation, if it changed. One that waits
/// for its turn has not begun: it leaves `startedAt` to the one before it.
pub(super) fn told(
    standing: Option<&Evacuation>,
    generation: Option<i64>,
    why: Why,
    outcome: Outcome,
) -> Option<Value> {
    let phase = outcome.phase();
    let remaining = i32::try_from(outcome.remaining).unwrap_or(i32::MAX);
    let mut blocked = outcome.blocked;
    blocked.extend(outcome.waits);
    blocked.sort();
    let same = standing.is_some_and(|known| {
        known.phase == phase && known.remaining == remaining && known.blocked == blocked
    });
    if same {
        let seen = standing.and_then(|known| known.observed_generation);
        return (seen != generation).then(|| json!({"observedGeneration": generation}));
    }
    let mut patch: Value = json!({
        "phase": phase, "remaining": remaining, "blocked": blocked, "observedGeneration": generation
    });
    let is_new = standing
        .is_none_or(|known| matches!(known.phase.as_str(), "Done" | "Cancelled" | "Waiting"));
    if is_new && phase != "Waiting" {
        patch["startedAt"] = json!(clock::wall());
        patch["reason"] = json!(why.reason());
    }
    patch["finishedAt"] = if phase == "Done" {
        json!(clock::wall())
    } else {
        Value::Null
    };
    Some(patch)
}
