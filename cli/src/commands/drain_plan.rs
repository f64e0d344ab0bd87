//! `zyctl drain --dry-run`: who would move where and when, and what can not move. Asks the same
//! `placement` that the operator asks; changes nothing.

use std::collections::BTreeSet;

use anyhow::Result;
use model::HostName;
use placement::{Fleet, Plan, headroom_report, plan_evacuation};
use serde_json::json;

use super::planning::{Planning, Told, vm_name};
use crate::table::Table;

/// Plans and prints.
///
/// # Errors
/// The host does not exist.
pub fn run(planning: &Planning, host: &str) -> Result<()> {
    let (plan, after) = rehearse(planning, host)?;
    let mut json = as_json(&planning.fleet, &plan);
    json["after"] = json!(after.as_ref().map(Told::json));
    planning.print(&json, || {
        let mut text = as_table(planning, &planning.fleet, &plan);
        if let Some(after) = &after {
            let label = planning.say("then:", "之后:");
            text.push_str(&format!("{label} {}", after.text(planning)));
        }
        text.push_str(&planning.nothing_changed());
        text
    })
}

/// The plan, and the head-room of the pool with its moves made and the host out of service.
///
/// # Errors
/// The host does not exist.
pub fn rehearse(planning: &Planning, host: &str) -> Result<(Plan, Option<Told>)> {
    let name = planning.host(host)?;
    let policy = planning.snapshot.policy();
    let objects = &planning.snapshot.objects;
    let request = objects.evacuation(&policy, BTreeSet::from([name.clone()]));
    let plan = plan_evacuation(&planning.fleet, &request);
    let after = afterwards(planning, &name, &plan);
    Ok((plan, after))
}

fn afterwards(planning: &Planning, host: &HostName, plan: &Plan) -> Option<Told> {
    let mut fleet = planning.fleet.clone();
    for step in &plan.moves {
        if let Some(vm) = fleet.vms.get_mut(&step.vm) {
            (vm.host, vm.incoming) = (Some(step.to.clone()), None);
        }
    }
    let emptied = fleet.hosts.get_mut(host)?;
    (emptied.closed, emptied.stands) = (Some("it is being emptied".to_owned()), false);
    let pool = emptied.pool.clone();
    let report = headroom_report(&fleet, &pool)?;
    Some(planning.headroom(&fleet, &report, &pool))
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
            planning.told(&step.reason),
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
            planning.told(&stuck.why)
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
    text.push('\n');
    text
}
