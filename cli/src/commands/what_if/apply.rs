//! `zyctl what-if apply`: declarations are applied, in thought.

mod asked;
mod declared;
#[cfg(test)]
mod fuzz_tests;
mod schema;
mod wanted;

use std::path::PathBuf;

use anyhow::Result;
use model::VmUid;
use placement::Engine;
use serde_json::{Value, json};

use self::asked::Answer;
use self::declared::Declared;
use self::wanted::Wanted;
use crate::commands::planning::{Planning, Told};
use crate::language::Language;
use crate::table::Table;

/// Declarations are applied: what would start where, and what would wait and why.
///
/// # Errors
/// A file that can not be read or holds nothing to place.
pub fn apply(planning: &Planning, files: &[PathBuf]) -> Result<()> {
    let outcome = outcome(planning, files)?;
    planning.print(&outcome.json(), || outcome.text())
}

fn outcome<'a>(planning: &'a Planning, files: &[PathBuf]) -> Result<Outcome<'a>> {
    let declared = Declared::read(planning.language, files)?;
    let wanted = Wanted::of(planning, &declared)?;
    if wanted.new.is_empty() && wanted.standing == 0 && wanted.changes.is_empty() {
        return Err(nothing_to_place(planning, &declared));
    }
    let mut engine = Engine::new(wanted.objects.fleet(fleet::closed_by_condition));
    let answers = asked::ask(&wanted, &mut engine);
    let pools: Vec<String> = engine.fleet().pools.keys().cloned().collect();
    let after = pools.iter().filter_map(|pool| {
        let report = engine.headroom_report(pool)?;
        Some(planning.headroom(engine.fleet(), &report, pool))
    });
    Ok(Outcome {
        after: after.collect(),
        planning,
        declared,
        wanted,
        engine,
        answers,
    })
}

fn nothing_to_place(planning: &Planning, declared: &Declared) -> anyhow::Error {
    let others = |before: &str, between: &str| match declared.left_out.is_empty() {
        true => String::new(),
        false => format!("{before}{}", declared.left_out.join(between)),
    };
    planning.fail(
        format!(
            "-f: neither a BusinessSystem nor a VirtualMachine is declared there{}",
            others(", only ", ", ")
        ),
        format!(
            "-f:其中既未声明 BusinessSystem,也未声明 VirtualMachine{}",
            others(",只有 ", "、")
        ),
    )
}

/// What would become of it all.
struct Outcome<'a> {
    planning: &'a Planning,
    declared: Declared,
    wanted: Wanted,
    /// With those that were placed.
    engine: Engine,
    answers: Vec<(VmUid, Answer)>,
    /// Head-room of every pool.
    after: Vec<Told>,
}

impl Outcome<'_> {
    fn waited(&self, uid: &VmUid) -> bool {
        let mut waiting = self.wanted.waiting.iter();
        waiting.any(|vm| fleet::uid(vm) == *uid)
    }

    fn json(&self) -> Value {
        let told = |waited: bool| -> Vec<Value> {
            let answers = self.answers.iter();
            let answers = answers.filter(|(uid, _)| self.waited(uid) == waited);
            answers
                .map(|(uid, answer)| {
                    json!({"virtualMachine": self.engine.fleet().name_of(uid), "host": answer.host(),
                        "why": answer.why(&self.engine, Language::English)})
                })
                .collect()
        };
        let changes = self.wanted.changes.iter();
        json!({"virtualMachines": told(false), "waitedAlready": told(true), "alreadyThere": self.wanted.standing,
            "notCounted": changes.map(|change| change.told(Language::English)).collect::<Vec<_>>(),
            "quotasCounted": self.wanted.departments.is_some(), "leftOut": self.declared.left_out,
            "after": self.after.iter().map(Told::json).collect::<Vec<_>>()})
    }

    fn text(&self) -> String {
        let planning = self.planning;
        let mut text = self.counts();
        let mut table = Table::new([
            planning.say("VM", "虚拟机"),
            planning.say("HOST", "宿主机"),
            planning.say("WHY", "理由"),
        ]);
        for (uid, answer) in &self.answers {
            let host = answer.host().unwrap_or_else(|| "-".to_owned());
            let why = answer.why(&self.engine, planning.language);
            table.row([self.engine.fleet().name_of(uid), host, why]);
        }
        text.push_str(&table.render_rows());
        text.extend(self.after.iter().map(|told| told.text(planning)));
        for change in &self.wanted.changes {
            let label = planning.say("change not counted:", "未计入的变更:");
            text.push_str(&format!("{label} {}\n", change.told(planning.language)));
        }
        text.push_str(&self.declared.told_left_out(planning.language));
        if self.wanted.departments.is_none() {
            text.push_str(planning.say(
                "quotas are not counted with: the file was saved without departments; save the fleet anew with zyctl fleet save\n",
                "未计入配额:该文件保存时不含委办局;请用 zyctl fleet save 重新保存\n",
            ));
        }
        text.push_str(&planning.nothing_changed());
        text
    }

    /// How many of the declared would start, and wait.
    fn counts(&self) -> String {
        let new = self.answers.iter().filter(|(uid, _)| !self.waited(uid));
        let (placed, waiting): (Vec<_>, Vec<_>) =
            new.partition(|(_, answer)| answer.host().is_some());
        let (placed, waiting, standing) = (placed.len(), waiting.len(), self.wanted.standing);
        let asked = self.wanted.waiting.len();
        let mut text = match self.planning.language {
            Language::English => format!(
                "{placed} VMs would start, {waiting} would wait, {standing} are there already\n"
            ),
            Language::Chinese => {
                format!("{placed} 台虚拟机可以启动,{waiting} 台将等待,{standing} 台已存在\n")
            }
        };
        if asked > 0 {
            text.push_str(&match self.planning.language {
                Language::English => format!(
                    "{asked} VMs of the site wait for a host already and are asked about with them, in the operator's order\n"
                ),
                Language::Chinese => {
                    format!("站点中另有 {asked} 台虚拟机已在等待宿主机,按控制器的顺序一并计算\n")
                }
            });
        }
        text
    }
}
