//! `zyctl drain --dry-run`: who would move where and when, and what can not move. Asks the same
//! `placement` that the operator asks; changes nothing.

use std::collections::BTreeSet;

use anyhow::Result;
use placement::{Fleet, Plan, plan_evacuation};
use serde_json::json;

use super::planning::{Planning, vm_name};
use crate::table::Table;

/// Plans and prints.
///
/// # Errors
/// The host does not exist.
pub fn run(planning: &Planning, host: &str) -> Result<()> {
    let name = planning.host(host)?;
    let policy = planning.snapshot.policy();
    let objects = &planning.snapshot.objects;
    let request = objects.evacuation(&policy, BTreeSet::from([name]));
    let plan = plan_evacuation(&planning.fleet, &request);
    planning.print(&as_json(&planning.fleet, &plan), || {
        as_table(planning, &planning.fleet, &plan)
    })
}

fn as_json(fleet: &Fleet, plan: &Plan) -> serde_json::Value {
    let moves: Vec<_> = plan
        .moves
        .iter()
        .map(|step| {
            json!({
                "virtualMachine": vm_name(fleet, &step.vm), "from": step.from, "to": step.to,
                "startMilliseconds": step.start_ms, "endMilliseconds": step.end_ms, "bytes": step.bytes,
                "after": step.after.iter().map(|uid| vm_name(fleet, uid)).collect::<Vec<_>>(),
                "reason": step.reason,
            })
        })
        .collect();
    let stuck: Vec<_> = plan
        .stuck
        .iter()
        .map(|stuck| json!({"virtualMachine": vm_name(fleet, &stuck.vm), "why": stuck.why}))
        .collect();
    json!({"moves": moves, "stuck": stuck, "endMilliseconds": plan.end_ms, "lowerBoundMilliseconds": plan.bound_ms})
}

fn as_table(planning: &Planning, fleet: &Fleet, plan: &Plan) -> String {
    let seconds = |milliseconds: u64| format!("{:.1} s", milliseconds as f64 / 1000.0);
    let mut text = String::new();
    let mut table = Table::new([
        planning.say("VM", "虚拟机"),
        planning.say("FROM", "从"),
        planning.say("TO", "到"),
        planning.say("STARTS", "开始"),
        planning.say("ENDS", "结束"),
        planning.say("WHY THERE", "选择理由"),
    ]);
    for step in &plan.moves {
        table.row([
            vm_name(fleet, &step.vm),
            step.from.to_string(),
            step.to.to_string(),
            seconds(step.start_ms),
            seconds(step.end_ms),
            step.reason.clone(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    for stuck in &plan.stuck {
        text.push_str(&format!(
            "{} {}: {}\n",
            planning.say("stays:", "无法迁移:"),
            vm_name(fleet, &stuck.vm),
            stuck.why
        ));
    }
    let verdict = match (plan.moves.is_empty(), plan.stuck.is_empty()) {
        (true, true) => planning
            .say("The host carries no VM.", "该宿主机上没有虚拟机。")
            .to_owned(),
        (_, true) => format!(
            "{} {}",
            planning.say("Empty after about", "预计清空用时约"),
            seconds(plan.end_ms)
        ),
        (_, false) => planning
            .say(
                "The host can not be emptied as things stand.",
                "当前条件下无法清空该宿主机。",
            )
            .to_owned(),
    };
    text.push_str(&verdict);
    text.push(' ');
    text.push_str(&planning.nothing_changed());
    text
}
