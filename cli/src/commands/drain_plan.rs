//! `zyctl drain --dry-run`: who would move where and when, and what can not move. Asks the same
//! `placement` that the operator asks, about all hosts that are being emptied at once as the operator does; changes
//! nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use api::Host;
use kube::ResourceExt;
use model::{HostName, VmUid};
use placement::{Fleet, Plan, headroom_report, plan_evacuation};
use serde_json::{Value, json};

use super::planning::{Planning, Told};
use super::reckoned::Reckoned;
use crate::language::Language;
use crate::table::Table;

/// Plans and prints.
///
/// # Errors
/// The host does not exist.
pub fn run(planning: &Planning, host: &str) -> Result<()> {
    let rehearsal = Rehearsal::of(planning, host)?;
    planning.print(&rehearsal.json(planning), || rehearsal.text(planning))
}

/// A drain that is rehearsed.
pub struct Rehearsal {
    /// What of the operator's plan empties the host: the moves from it, those that make room for them, and who does not
    /// move.
    pub plan: Plan,
    /// Other hosts that are being emptied and still carry VMs. They are planned together with it: none of them is
    /// promised the room that another one needs.
    pub beside: Vec<HostName>,
    /// No schedule of these moves can end sooner, milliseconds; not known where other moves are planned with them.
    bound_ms: Option<u64>,
    /// The head-room of the pool with all moves made and the hosts closed.
    pub after: Option<Told>,
}

impl Rehearsal {
    /// Plans.
    ///
    /// # Errors
    /// The host does not exist.
    pub fn of(planning: &Planning, host: &str) -> Result<Self> {
        let name = planning.host(host)?;
        let (snapshot, fleet) = (&planning.snapshot, &planning.fleet);
        let mut hosts = being_emptied(&snapshot.objects.hosts);
        hosts.insert(name.clone());
        let others = hosts.iter().filter(|other| **other != name);
        let beside = others.filter(|other| fleet.on(other).next().is_some());
        let beside = beside.cloned().collect();
        let policy = snapshot.policy();
        let migrations = &snapshot.migrations;
        let request = snapshot.objects.evacuation(&policy, hosts, migrations);
        let whole = plan_evacuation(fleet, &request);
        let plan = part_of(&whole, fleet, &name);
        let mut then = whole.carried_out(fleet);
        close(&mut then, &request.hosts);
        Ok(Self {
            beside,
            bound_ms: (plan.moves.len() == whole.moves.len()).then_some(whole.bound_ms),
            after: standing(planning, &then, &name),
            plan,
        })
    }

    /// For programs.
    pub fn json(&self, planning: &Planning) -> Value {
        let mut json = as_json(&planning.fleet, &self.plan);
        json["lowerBoundMilliseconds"] = json!(self.bound_ms);
        json["alsoEmptied"] = json!(self.beside);
        json["after"] = json!(self.after.as_ref().map(Told::json));
        let reckoned = Reckoned::of(planning, &self.plan);
        json["reckonedWith"] = json!(reckoned.as_ref().map(Reckoned::json));
        json
    }

    /// For people.
    pub fn text(&self, planning: &Planning) -> String {
        let mut text = as_table(planning, &planning.fleet, &self.plan);
        let reckoned = Reckoned::of(planning, &self.plan);
        text.extend(reckoned.map(|reckoned| reckoned.text(planning)));
        text.extend(self.told_beside(planning));
        if let Some(after) = &self.after {
            text.push_str(&then_line(planning, after));
        }
        text.push_str(&planning.nothing_changed());
        text
    }

    fn told_beside(&self, planning: &Planning) -> Option<String> {
        let names: Vec<&str> = self.beside.iter().map(HostName::as_str).collect();
        let names = names.join(planning.say(", ", "、"));
        (!names.is_empty()).then(|| match planning.language {
            Language::English => format!(
                "Being emptied as well, and planned together with it: {names}; the room that their VMs need is not promised here.\n"
            ),
            Language::Chinese => {
                format!("同时正在清空并一并计划的宿主机:{names};其虚拟机所需的资源未计入可用。\n")
            }
        })
    }
}

/// Hosts that the operator empties: those in maintenance, and those of which it says that it does, such as faulty ones.
/// One that is blocked is planned for on and on.
fn being_emptied(hosts: &[Arc<Host>]) -> BTreeSet<HostName> {
    let emptied = hosts.iter().filter(|host| {
        let maintenance = host.spec.maintenance.as_ref();
        let status = host.status.as_ref();
        let evacuation = status.and_then(|status| status.evacuation.as_ref());
        maintenance.is_some_and(|maintenance| maintenance.evacuate)
            || evacuation.is_some_and(|evacuation| {
                matches!(evacuation.phase.as_str(), "Running" | "Blocked")
            })
    });
    emptied.map(|host| HostName(host.name_any())).collect()
}

/// What of a plan for several hosts empties this one.
fn part_of(whole: &Plan, fleet: &Fleet, host: &HostName) -> Plan {
    let (mut waited_for, mut moves) = (BTreeSet::<&VmUid>::new(), Vec::new());
    // Whoever waits starts later: from the last on, each names those that it waits for.
    for step in whole.moves.iter().rev() {
        if step.from == *host || waited_for.contains(&step.vm) {
            waited_for.extend(step.after.iter());
            moves.push(step.clone());
        }
    }
    moves.reverse();
    let here = |uid: &&VmUid| {
        let vm = fleet.vms.get(*uid);
        vm.is_some_and(|vm| vm.host.as_ref() == Some(host))
    };
    let stuck = whole.stuck.iter().filter(|stuck| stuck.host == *host);
    Plan {
        stuck: stuck.cloned().collect(),
        leaving: whole.leaving.iter().filter(here).cloned().collect(),
        idle: whole.idle.iter().filter(here).cloned().collect(),
        end_ms: moves.iter().map(|step| step.end_ms).max().unwrap_or(0),
        bound_ms: 0,
        moves,
    }
}

/// Hosts that are emptied take nothing. Whether one of them may fail stays as it is: it has nothing to lose once nothing is
/// on it, and what stays on it is lost with it, which the operator goes on counting.
fn close(fleet: &mut Fleet, emptied: &BTreeSet<HostName>) {
    for name in emptied {
        if let Some(host) = fleet.hosts.get_mut(name) {
            host.closed = Some("it is being emptied".to_owned());
            host.stands = false;
        }
    }
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
    match Rehearsal::of(planning, host) {
        Ok(rehearsal) => Redundancy {
            now: standing(planning, &planning.fleet, &HostName::from(host)),
            then: rehearsal.after,
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
    pub fn json(&self, mut beside: Value) -> Value {
        beside["now"] = json!(self.now.as_ref().map(Told::json));
        beside["then"] = json!(self.then.as_ref().map(Told::json));
        beside
    }
}

fn then_line(planning: &Planning, told: &Told) -> String {
    let label = planning.say("then:", "之后:");
    format!("{label} {}", told.text(planning))
}

/// The head-room of a host's pool in some fleet.
fn standing(planning: &Planning, fleet: &Fleet, host: &HostName) -> Option<Told> {
    let pool = &fleet.hosts.get(host)?.pool;
    let report = headroom_report(fleet, pool)?;
    Some(planning.headroom(fleet, &report, pool))
}

fn as_json(fleet: &Fleet, plan: &Plan) -> Value {
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
    let leaving = plan.leaving.iter();
    let leaving: Vec<_> = leaving
        .map(|uid| json!({"virtualMachine": fleet.name_of(uid), "to": leaves_to(fleet, uid)}))
        .collect();
    let idle = plan.idle.iter().map(|uid| fleet.name_of(uid));
    let idle: Vec<_> = idle.collect();
    json!({"moves": moves, "stuck": stuck, "leaving": leaving, "idle": idle, "endMilliseconds": plan.end_ms})
}

/// Where a VM that leaves already goes.
fn leaves_to<'a>(fleet: &'a Fleet, uid: &VmUid) -> Option<&'a HostName> {
    fleet.vms.get(uid)?.incoming.as_ref()
}

fn as_table(planning: &Planning, fleet: &Fleet, plan: &Plan) -> String {
    let mut text = moves_table(planning, fleet, plan);
    for stuck in &plan.stuck {
        text.push_str(&format!(
            "{} {}: {}\n",
            planning.say("stays:", "无法迁移:"),
            fleet.name_of(&stuck.vm),
            planning.told(&stuck.why)
        ));
    }
    for uid in &plan.leaving {
        let to = leaves_to(fleet, uid);
        text.push_str(&format!(
            "{} {}{}\n",
            planning.say("leaves already:", "已在迁出:"),
            fleet.name_of(uid),
            to.map_or_else(String::new, |to| format!(
                "{}{to}",
                planning.say(" to ", " → ")
            ))
        ));
    }
    for uid in &plan.idle {
        text.push_str(&format!(
            "{} {}\n",
            planning.say("does not run, is left as it is:", "未运行,保持原状:"),
            fleet.name_of(uid)
        ));
    }
    text.push_str(&verdict(planning, plan));
    text.push('\n');
    text
}

fn moves_table(planning: &Planning, fleet: &Fleet, plan: &Plan) -> String {
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
    table.render_rows()
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

/// Whether the host becomes empty, and when.
fn verdict(planning: &Planning, plan: &Plan) -> String {
    if !plan.stuck.is_empty() {
        return planning
            .say(
                "The host can not be emptied as things stand.",
                "当前条件下无法清空该宿主机。",
            )
            .to_owned();
    }
    match (plan.moves.is_empty(), plan.leaving.is_empty()) {
        (true, true) => planning
            .say("No VM runs on the host.", "该宿主机上没有运行中的虚拟机。")
            .to_owned(),
        (true, false) => planning
            .say(
                "Empty as soon as those that leave already are gone.",
                "已在迁出的虚拟机离开后即清空。",
            )
            .to_owned(),
        (false, none_leaves) => {
            let label = planning.say("Empty after about", "预计清空用时约");
            let rest = planning.say(
                ", when those that leave already are gone too",
                ",且须等待已在迁出的虚拟机离开",
            );
            let rest = if none_leaves { "" } else { rest };
            format!("{label} {}{rest}", seconds(plan.end_ms))
        }
    }
}

#[cfg(test)]
mod tests {
    use placement::{Move, Stuck};

    use super::*;

    fn step(vm: &str, from: &str, after: &[&str], end_ms: u64) -> Move {
        Move {
            vm: vm.into(),
            from: from.into(),
            to: "z".into(),
            start_ms: 0,
            end_ms,
            bytes: 1,
            after: after.iter().map(|vm| VmUid::from(*vm)).collect(),
            reason: String::new(),
        }
    }

    /// Of two hosts that are emptied: who makes room for somebody that makes room is needed as well.
    #[test]
    fn a_host_is_emptied_by_its_own_moves_and_by_those_that_they_wait_for() {
        let stuck = |vm: &str, host: &str| Stuck {
            vm: vm.into(),
            host: host.into(),
            why: "it does".to_owned(),
        };
        let whole = Plan {
            moves: vec![
                step("first", "c", &[], 10),
                step("other", "b", &[], 20),
                step("second", "d", &["first"], 30),
                step("own", "a", &["second"], 40),
                step("others", "b", &["first"], 50),
            ],
            stuck: vec![stuck("s", "a"), stuck("t", "b")],
            leaving: vec!["unknown".into()],
            bound_ms: 45,
            end_ms: 50,
            ..Plan::default()
        };
        let part = part_of(&whole, &Fleet::default(), &"a".into());
        let moved: Vec<&str> = part.moves.iter().map(|step| step.vm.as_str()).collect();
        assert_eq!(moved, ["first", "second", "own"]);
        assert_eq!(part.end_ms, 40);
        assert_eq!(part.stuck, [stuck("s", "a")]);
        assert!(part.leaving.is_empty(), "{part:?}");
    }
}
