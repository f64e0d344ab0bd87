//! `zyctl drain --dry-run`: who would move where and when, and what can not move. Asks the same
//! `placement` that the operator asks; changes nothing.

use std::collections::BTreeSet;

use anyhow::Result;
use model::HostName;
use placement::{Fleet, Plan, headroom_report, plan_evacuation};
use serde_json::json;

use super::planning::{Planning, Told};
use super::reckoned::Reckoned;
use crate::table::Table;

/// Plans and prints.
///
/// # Errors
/// The host does not exist.
pub fn run(planning: &Planning, host: &str) -> Result<()> {
    let (plan, after) = rehearse(planning, host)?;
    let mut json = as_json(&planning.fleet, &plan);
    json["after"] = json!(after.as_ref().map(Told::json));
    let reckoned = Reckoned::of(planning, &plan);
    json["reckonedWith"] = json!(reckoned.as_ref().map(Reckoned::json));
    planning.print(&json, || {
        let mut text = as_table(planning, &planning.fleet, &plan);
        text.extend(reckoned.as_ref().map(|reckoned| reckoned.text(planning)));
        if let Some(after) = &after {
            text.push_str(&then_line(planning, after));
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
    let migrations = &planning.snapshot.migrations;
    let request = objects.evacuation(&policy, BTreeSet::from([name.clone()]), migrations);
    let plan = plan_evacuation(&planning.fleet, &request);
    let after = afterwards(planning, &name, &plan);
    Ok((plan, after))
}

/// The head-room of a host's pool before and after the host is emptied.
pub struct Redundancy {
    now: Option<Told>,
    then: Option<Told>,
    /// Why it is not known.
    unknown: Option<String>,
}

/// What emptying a host makes of its pool's redundancy. A host that never reported is in no pool's count.
pub fn redundancy(planning: &Planning, host: &str) -> Redundancy {
    match rehearse(planning, host) {
        Ok((_, then)) => Redundancy {
            now: standing(planning, host),
            then,
            unknown: None,
        },
        Err(why) => Redundancy {
            now: None,
            then: None,
            unknown: Some(format!("{why:#}")),
        },
    }
}

impl Redundancy {
    /// For people, one line each for now and then.
    pub fn text(&self, planning: &Planning) -> String {
        let now = self.now.as_ref().map(|now| {
            let label = planning.say("now:", "目前:");
            format!("{label} {}", now.text(planning))
        });
        let then = self.then.as_ref().map(|told| then_line(planning, told));
        let unknown = self.unknown.as_ref().map(|why| {
            let label = planning.say(
                "what becomes of the pool's redundancy is not known:",
                "主机池冗余将如何变化尚不可知:",
            );
            format!("{label} {why}\n")
        });
        now.into_iter().chain(then).chain(unknown).collect()
    }

    /// For programs, beside other fields.
    pub fn json(&self, mut beside: serde_json::Value) -> serde_json::Value {
        beside["now"] = json!(self.now.as_ref().map(Told::json));
        beside["then"] = json!(self.then.as_ref().map(Told::json));
        beside
    }
}

fn then_line(planning: &Planning, told: &Told) -> String {
    let label = planning.say("then:", "之后:");
    format!("{label} {}", told.text(planning))
}

fn standing(planning: &Planning, host: &str) -> Option<Told> {
    let pool = &planning.fleet.hosts.get(&HostName::from(host))?.pool;
    let report = headroom_report(&planning.fleet, pool)?;
    Some(planning.headroom(&planning.fleet, &report, pool))
}

fn afterwards(planning: &Planning, host: &HostName, plan: &Plan) -> Option<Told> {
    let mut fleet = plan.carried_out(&planning.fleet);
    let emptied = fleet.hosts.get_mut(host)?;
    emptied.closed = Some("it is being emptied".to_owned());
    // Out of service, it carries nothing and has nothing to lose.
    (emptied.stands, emptied.may_fail) = (false, false);
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
                "virtualMachine": fleet.name_of(&step.vm), "from": step.from, "to": step.to,
                "startMilliseconds": step.start_ms, "endMilliseconds": step.end_ms, "bytes": step.bytes,
                "after": step.after.iter().map(|uid| fleet.name_of(uid)).collect::<Vec<_>>(),
                "reason": step.reason,
            })
        })
        .collect();
    let stuck: Vec<_> = plan
        .stuck
        .iter()
        .map(|stuck| json!({"virtualMachine": fleet.name_of(&stuck.vm), "why": stuck.why}))
        .collect();
    let idle = plan.idle.iter().map(|uid| fleet.name_of(uid));
    let idle: Vec<_> = idle.collect();
    json!({"moves": moves, "stuck": stuck, "idle": idle, "endMilliseconds": plan.end_ms, "lowerBoundMilliseconds": plan.bound_ms})
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
            fleet.name_of(&step.vm),
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
            fleet.name_of(&stuck.vm),
            planning.told(&stuck.why)
        ));
    }
    for uid in &plan.idle {
        text.push_str(&format!(
            "{} {}\n",
            planning.say("does not run, is left as it is:", "未运行,保持原状:"),
            fleet.name_of(uid)
        ));
    }
    let verdict = match (plan.moves.is_empty(), plan.stuck.is_empty()) {
        (true, true) => planning
            .say("No VM runs on the host.", "该宿主机上没有运行中的虚拟机。")
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
