//! Why a step of a drill failed, in both languages.

use super::definition::{Condition, Text};
use crate::language::Language;

fn text(en: impl Into<String>, zh: impl Into<String>) -> Text {
    Text {
        en: en.into(),
        zh: zh.into(),
    }
}

/// It did not come about in all the time that it was waited for.
pub(super) fn never(what: &Condition) -> Text {
    let what = told(what);
    text(
        format!("this never came about: {}", what.en),
        format!("始终未出现:{}", what.zh),
    )
}

/// It did not stay so.
pub(super) fn changed(what: &Condition) -> Text {
    let what = told(what);
    text(
        format!("this did not stay so: {}", what.en),
        format!("未能保持:{}", what.zh),
    )
}

/// Nobody could see whether it is so.
pub(super) fn unseen(error: &anyhow::Error) -> Text {
    text(
        format!("the site could not be looked at: {error:#}"),
        format!("无法查看站点:{error:#}"),
    )
}

/// A host's faults could not be declared as dealt with.
pub(super) fn not_cleared(error: &anyhow::Error) -> Text {
    text(
        format!("the faults could not be cleared: {error:#}"),
        format!("无法清除故障:{error:#}"),
    )
}

/// A condition as a sentence.
fn told(what: &Condition) -> Text {
    let english = |words: &[String]| words.join(" or ");
    let chinese = |words: &[String]| {
        let words = words.iter().map(|word| Language::Chinese.state(word));
        words.collect::<Vec<_>>().join("或")
    };
    match what {
        Condition::HostState { states } => text(
            format!("the host is {}", english(states)),
            format!("宿主机状态为{}", chinese(states)),
        ),
        Condition::HostStateNot { states } => text(
            format!("the host is not {}", english(states)),
            format!("宿主机状态不为{}", chinese(states)),
        ),
        Condition::ReasonSays { text: part } => text(
            format!("the reason of the host's state says {part:?}"),
            format!("宿主机状态的原因包含“{part}”"),
        ),
        Condition::HostSays { name, status } => text(
            format!("the host's condition {name} is {status}"),
            format!("宿主机的状况 {name} 为 {status}"),
        ),
        Condition::FaultReported { component } => text(
            format!("the host reports a fault of {component}"),
            format!("宿主机报告 {component} 的故障"),
        ),
        Condition::Phase { phase } => text(
            format!("each of its VMs is {phase}"),
            format!("其虚拟机均为{}", Language::Chinese.state(phase)),
        ),
        Condition::Incident { cause } => text(
            format!("an Incident {cause} of the host was opened"),
            format!("已记录该宿主机的 {cause} 事件"),
        ),
        Condition::AssignedAnew => text(
            "one of its VMs is assigned anew",
            "其虚拟机中有一台已重新分配",
        ),
        Condition::StartedAnew => text(
            "one of its VMs runs under its new assignment",
            "其虚拟机中有一台已按新的归属运行",
        ),
        Condition::Empty => text(
            "each of its VMs is assigned to another host",
            "其虚拟机均已分配到其他宿主机",
        ),
        Condition::NothingMoves => text("none of its VMs moves", "其虚拟机均未在迁移"),
        Condition::Unchanged => text(
            "every VM stands where it stood, at the epoch that it had",
            "所有虚拟机均在原处,纪元未变",
        ),
        Condition::NoIncident => text(
            "no Incident of the host was opened",
            "没有新增该宿主机的事件",
        ),
        Condition::IncidentsClosed => text(
            "every Incident that was opened is closed",
            "新增的事件均已关闭",
        ),
        Condition::SystemsReady => text("every business system answers", "全部业务系统均有应答"),
        Condition::SystemsDisturbed => text(
            "a business system does not answer in part or at all",
            "有业务系统部分或全部无应答",
        ),
        Condition::AllWell => text(
            "every host is Ready, every VM runs, every business system answers",
            "所有宿主机正常,所有虚拟机运行中,全部业务系统均有应答",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::drill::definition::{Step, built_in};

    #[test]
    fn every_condition_of_the_drills_is_told_in_chinese_and_english() {
        let steps = built_in().expect("drills").into_iter();
        let conditions = steps
            .flat_map(|drill| drill.steps)
            .flat_map(|step| match step {
                Step::Until { what, .. } => vec![what],
                Step::Hold { what, .. } => what,
                _ => Vec::new(),
            });
        for condition in conditions {
            let Text { en, zh } = changed(&condition);
            assert!(en.is_ascii() && en.len() > 30, "{en}");
            assert!(zh.chars().count() > 8, "{zh}");
            let state = |word: &str| zh.contains(word);
            assert!(!state("Ready") && !state("Fenced"), "{zh}");
        }
        let states = ["Fencing", "Fenced"].map(str::to_owned).to_vec();
        let told = never(&Condition::HostStateNot { states });
        assert_eq!(
            told.en,
            "this never came about: the host is not Fencing or Fenced"
        );
        assert_eq!(told.zh, "始终未出现:宿主机状态不为隔离中或已隔离");
    }
}
