//! `zyctl incident`: the fault ledger.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::names::INCIDENT_STEP_NOT_CLOSED;
use api::{Incident, IncidentClosure, IncidentSpec, IncidentStatus, TimelineEntry, TimelineKind};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Context, drain, follow, person};
use crate::client::{self, name_of};
use crate::language::{Language, local_time, local_time_milliseconds};
use crate::options::{CauseClass, Output};
use crate::table::Table;

/// How long a person waits for what the operator makes of a word.
const ANSWER: Duration = Duration::from_secs(5);

/// The title in the user's language.
pub fn title(language: Language, incident: &Incident) -> &str {
    match language {
        Language::Chinese if !incident.spec.title_chinese.is_empty() => {
            &incident.spec.title_chinese
        }
        _ => &incident.spec.title,
    }
}

/// The longest downtime of the affected systems, where any of them was measured.
fn longest(language: Language, status: &IncidentStatus) -> String {
    let measured = status.systems.iter().any(|system| !system.not_measured);
    if measured || status.systems.is_empty() {
        format!("{:.1} s", status.longest_downtime_seconds)
    } else {
        language.pick("not measured", "未测量").to_owned()
    }
}

/// How long a system was down, where somebody measured it.
pub fn downtime(language: Language, not_measured: bool, seconds: f64) -> String {
    if not_measured {
        let why = language.pick("not measured (no endpoint declared)", "未测量(未声明端点)");
        return why.to_owned();
    }
    format!("{seconds:.1} s")
}

/// All incidents, the newest first.
pub async fn list(context: &Context) -> Result<()> {
    let mut incidents: Vec<Incident> = client::list(&context.client).await?;
    incidents.sort_by_key(|incident| std::cmp::Reverse(incident.spec.opened_at.0));
    if context.output == Output::Json {
        return context.print_json(&incidents);
    }
    let mut table = match context.language {
        Language::English => Table::new([
            "NAME", "OPENED", "STATE", "CAUSE", "SYSTEMS", "DOWNTIME", "WHAT",
        ]),
        Language::Chinese => Table::new([
            "名称",
            "开始时间",
            "状态",
            "原因",
            "业务系统",
            "中断时长",
            "事件",
        ]),
    };
    for incident in &incidents {
        let status = incident.status.clone().unwrap_or_default();
        table.row([
            name_of(incident),
            local_time(incident.spec.opened_at.0),
            context.language.state(&status.state),
            context
                .language
                .state(&format!("{:?}", incident.spec.cause_class)),
            status.systems_affected.to_string(),
            longest(context.language, &status),
            title(context.language, incident).to_owned(),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

/// Of what class its cause is, where it began, and when it began and ended.
fn head(language: Language, spec: &IncidentSpec, status: &IncidentStatus) -> Table {
    let mut table = match language {
        Language::English => Table::new(["CAUSE", "HOST", "OPENED", "RECOVERED", "CLOSED"]),
        Language::Chinese => Table::new(["原因", "宿主机", "开始时间", "恢复时间", "关闭时间"]),
    };
    let none = || "-".to_owned();
    let time = |at: Option<jiff::Timestamp>| at.map_or_else(none, local_time);
    table.row([
        language.state(&format!("{:?}", spec.cause_class)),
        spec.host.clone().unwrap_or_else(none),
        time(Some(spec.opened_at.0)),
        time(status.recovered_at.as_ref().map(|at| at.0)),
        time(status.closed_at.as_ref().map(|at| at.0)),
    ]);
    table
}

/// Each system that was touched, and below it each of its endpoints that was down or unobserved.
fn systems(language: Language, status: &IncidentStatus) -> Table {
    let mut table = match language {
        Language::English => Table::new(["BUSINESS SYSTEM", "VMS", "DOWNTIME", "UNOBSERVED"]),
        Language::Chinese => Table::new(["业务系统", "虚拟机", "中断时长", "未观测"]),
    };
    for system in &status.systems {
        table.row([
            system.display_name.clone(),
            system.virtual_machines.len().to_string(),
            downtime(language, system.not_measured, system.downtime_seconds),
            format!("{:.1} s", system.unobserved_seconds),
        ]);
        for endpoint in &system.endpoints {
            table.row([
                format!("  {}", endpoint.name),
                String::new(),
                downtime(language, false, endpoint.downtime_seconds),
                format!("{:.1} s", endpoint.unobserved_seconds),
            ]);
        }
    }
    table
}

/// One incident: its cause, when it began and ended, measured downtimes and timeline.
pub async fn show(context: &Context, name: &str) -> Result<()> {
    let incidents: Api<Incident> = Api::all(context.client.clone());
    let incident = incidents
        .get_opt(name)
        .await?
        .with_context(|| format!("incident {name} does not exist; see zyctl incident list"))?;
    if context.output == Output::Json {
        return context.print_json(&incident);
    }
    let status = incident.status.clone().unwrap_or_default();
    println!(
        "{}  [{}]",
        title(context.language, &incident),
        context.language.state(&status.state)
    );
    println!();
    let head = head(context.language, &incident.spec, &status);
    println!("{}", head.render());
    println!("{}", systems(context.language, &status).render());
    for entry in &status.timeline {
        let kind = match entry.kind {
            TimelineKind::Seen => context.say("seen", "发现"),
            TimelineKind::Decided => context.say("decided", "决定"),
            TimelineKind::Done => context.say("done", "执行"),
            TimelineKind::NotDone => context.say("not done", "未执行"),
        };
        let text = text(context.language, entry);
        println!("{}  {kind}  {text}", local_time_milliseconds(entry.at.0));
    }
    Ok(())
}

/// The sentence of an entry. Why a VM was not moved stands in English in both of them, as `Host.status.evacuation` has it.
fn text(language: Language, entry: &TimelineEntry) -> String {
    if language == Language::English || entry.chinese.is_empty() {
        return entry.text.clone();
    }
    match entry.chinese.split_once(':') {
        Some((what, why)) if entry.step.starts_with("not-moved/") => {
            format!("{what}:{}", drain::told(language, why))
        }
        _ => entry.chinese.clone(),
    }
}

/// Closes an incident, under the name that the API server knows.
///
/// # Errors
/// The reason or the typed word is missing, or the API refuses.
pub async fn close(
    context: &Context,
    name: &str,
    reason: &str,
    class: Option<CauseClass>,
    typed: Option<&str>,
) -> Result<()> {
    person::needs_reason(
        context.language,
        reason,
        ("what was found and done", "查明的情况与处置措施"),
    )?;
    let incidents: Api<Incident> = Api::all(context.client.clone());
    let incident = incidents
        .get_opt(name)
        .await?
        .with_context(|| format!("incident {name} does not exist; see zyctl incident list"))?;
    ensure!(
        !incident.is_closed(),
        match context.language {
            Language::English => format!(
                "incident {name} is closed already; its record is kept as it is: zyctl incident show {name}"
            ),
            Language::Chinese =>
                format!("事件 {name} 已关闭,其记录保持不变:zyctl incident show {name}"),
        }
    );
    person::confirm(
        context,
        typed,
        name,
        context.say(
            "It is closed as soon as its cause is gone, and not opened again; its record is kept.",
            "原因消除后立即关闭,关闭后不会重新打开;记录将保留。",
        ),
    )?;
    let by = person::name(context).await?;
    let closure = IncidentClosure {
        by,
        reason: reason.to_owned(),
        cause_class: class.map(class_found),
    };
    let patch = json!({"spec": {"closure": closure}});
    incidents
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("incident {name} can not be closed"))?;
    let answer = follow::until(incidents, name, |incident| {
        incident.status.as_ref().and_then(outcome)
    });
    let outcome = tokio::time::timeout(ANSWER, answer)
        .await
        .ok()
        .transpose()?;
    println!("{}", told(context.language, name, outcome, class));
    Ok(())
}

/// What became of a word that closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Closed,
    /// The cause stands: it is closed once that is gone.
    Waits,
}

/// What the operator makes of a word; none: it has not answered yet.
fn outcome(status: &IncidentStatus) -> Option<Outcome> {
    let mut steps = status.timeline.iter().map(|entry| &entry.step);
    if status.state == "Closed" {
        return Some(Outcome::Closed);
    }
    steps
        .any(|step| step == INCIDENT_STEP_NOT_CLOSED)
        .then_some(Outcome::Waits)
}

/// The class as the API names it.
fn class_found(class: CauseClass) -> api::CauseClass {
    match class {
        CauseClass::Hardware => api::CauseClass::Hardware,
        CauseClass::Software => api::CauseClass::Software,
        CauseClass::Network => api::CauseClass::Network,
        CauseClass::Planned => api::CauseClass::Planned,
        CauseClass::Unknown => api::CauseClass::Unknown,
    }
}

fn told(
    language: Language,
    name: &str,
    outcome: Option<Outcome>,
    class: Option<CauseClass>,
) -> String {
    let words = match outcome {
        Some(Outcome::Closed) => ("Closed.", "已关闭。"),
        Some(Outcome::Waits) => (
            "Not closed yet, as its cause stands: it is closed as soon as that is gone.",
            "原因尚未消除,暂不关闭;消除后立即关闭。",
        ),
        None => (
            "Your word is taken; the operator has not answered yet.",
            "已受理,控制器尚未处理。",
        ),
    };
    let class = class.map(|class| language.state(&format!("{:?}", class_found(class))));
    let (what, class) = match language {
        Language::English => (
            words.0,
            class.map(|class| format!("Class of the cause: {class}.")),
        ),
        Language::Chinese => (words.1, class.map(|class| format!("原因分类:{class}。"))),
    };
    let look = (outcome != Some(Outcome::Closed)).then(|| format!("zyctl incident show {name}"));
    let lines = [Some(what.to_owned()), class, look];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn a_system_without_an_endpoint_was_not_up() {
        let unmeasured = serde_json::from_value(json!({
            "systems": [{"namespace": "n", "name": "mail", "displayName": "Mail", "downtimeSeconds": 0.0,
                "unobservedSeconds": 40.0, "notMeasured": true}],
            "longestDowntimeSeconds": 0.0
        }));
        let mut status: IncidentStatus = unmeasured.expect("a status");
        assert_eq!(longest(Language::English, &status), "not measured");
        assert_eq!(longest(Language::Chinese, &status), "未测量");
        let told = |language| downtime(language, status.systems[0].not_measured, 0.0);
        assert!(told(Language::English).contains("no endpoint declared"));
        assert!(told(Language::Chinese).contains("未声明端点"));
        assert_eq!(downtime(Language::English, false, 2.34), "2.3 s");
        status.systems[0].not_measured = false;
        assert_eq!(longest(Language::English, &status), "0.0 s");
        status.systems.clear();
        assert_eq!(
            longest(Language::English, &status),
            "0.0 s",
            "nobody was touched"
        );
    }

    /// As the operator writes it: operator/src/incidents/evacuated.rs.
    #[test]
    fn why_a_vm_was_not_moved_is_told_in_the_language_asked_for() {
        let entry = |why: &str| -> TimelineEntry {
            serde_json::from_value(json!({
                "at": "2026-01-01T00:00:00.000000Z", "kind": "NotDone", "step": "not-moved/x",
                "text": format!("not moved from h1: {why}"), "chinese": format!("未从 h1 迁出:{why}"),
            }))
            .expect("an entry")
        };
        let of_vm = entry("egov/oa-web-0: it is being started");
        assert_eq!(
            text(Language::Chinese, &of_vm),
            "未从 h1 迁出:egov/oa-web-0:正在启动"
        );
        assert_eq!(text(Language::English, &of_vm), of_vm.text);
        let of_all = entry(
            "its VMs stay for now: with them elsewhere N+1 of pool general would break (if host h2 failed, egov/db would find no place); add a host, or empty it with zyctl drain h1",
        );
        assert_eq!(
            text(Language::Chinese, &of_all),
            "未从 h1 迁出:其虚拟机暂不迁出:迁出后主机池 general 的 N+1 将被破坏(若宿主机 h2 故障,egov/db 将找不到位置);请增加宿主机,或执行 zyctl drain h1 清空它"
        );
    }

    #[test]
    fn an_incident_is_told_with_its_cause_its_times_and_each_endpoint() {
        let incident: Incident = serde_json::from_value(json!({
            "metadata": {"name": "i"},
            "spec": {"cause": "host-silent/h3/b1", "causeClass": "Planned", "title": "t", "host": "h3",
                "openedAt": "2026-01-01T00:00:00.000000Z"},
            "status": {"state": "Recovered", "recoveredAt": "2026-01-01T00:00:20.000000Z", "systems": [
                {"namespace": "n", "name": "oa", "displayName": "OA", "virtualMachines": ["oa-0", "oa-1"],
                    "downtimeSeconds": 7.0, "unobservedSeconds": 1.5, "endpoints": [
                    {"name": "portal", "downtimeSeconds": 6.1, "unobservedSeconds": 0.0},
                    {"name": "mail", "downtimeSeconds": 4.0, "unobservedSeconds": 1.5}]}]}
        }))
        .expect("an Incident");
        let status = incident.status.clone().expect("a status");
        let at = |text: &str| local_time(text.parse().expect("a time"));
        let (opened, recovered) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:20Z"));
        assert_eq!(
            head(Language::English, &incident.spec, &status).render(),
            format!(
                "CAUSE    HOST  OPENED               RECOVERED            CLOSED\n\
                 Planned  h3    {opened}  {recovered}  -\n"
            )
        );
        let chinese = head(Language::Chinese, &incident.spec, &status).render();
        assert!(chinese.starts_with("原因    宿主机  开始时间"), "{chinese}");
        assert!(chinese.contains("计划内  h3"), "{chinese}");
        assert_eq!(
            systems(Language::English, &status).render(),
            "BUSINESS SYSTEM  VMS  DOWNTIME  UNOBSERVED\n\
             OA               2    7.0 s     1.5 s\n\
             \x20 portal              6.1 s     0.0 s\n\
             \x20 mail                4.0 s     1.5 s\n"
        );
        let mut everywhere = incident.spec;
        everywhere.host = None;
        let storm = head(Language::English, &everywhere, &status).render();
        assert!(storm.contains("Planned  -     "), "{storm}");
    }

    #[test]
    fn every_class_of_the_api_can_be_named_and_is_told_in_both_languages() {
        for class in CauseClass::value_variants() {
            let word = format!("{:?}", class_found(*class));
            // One name in both places: what a person types is what the API keeps.
            assert_eq!(word, format!("{class:?}"));
            for outcome in [Some(Outcome::Closed), Some(Outcome::Waits), None] {
                let english = told(Language::English, "i", outcome, Some(*class));
                assert!(english.contains(&word), "{english}");
                let chinese = told(Language::Chinese, "i", outcome, Some(*class));
                assert!(!chinese.contains(&word), "{chinese}");
            }
        }
        let english = |outcome| told(Language::English, "i", outcome, None);
        assert_eq!(english(Some(Outcome::Closed)), "Closed.");
        assert!(english(Some(Outcome::Waits)).ends_with("\nzyctl incident show i"));
    }

    #[test]
    fn a_word_waits_where_the_operator_says_so() {
        let status = |state: &str, steps: &[&str]| -> IncidentStatus {
            let entry = |step: &&str| json!({"at": "2026-01-01T00:00:00Z", "kind": "NotDone", "step": step, "text": "t"});
            let timeline: Vec<_> = steps.iter().map(entry).collect();
            serde_json::from_value(json!({"state": state, "timeline": timeline})).expect("a status")
        };
        assert_eq!(outcome(&status("Open", &["h1/Seen"])), None);
        assert_eq!(
            outcome(&status("Recovered", &[INCIDENT_STEP_NOT_CLOSED])),
            Some(Outcome::Waits)
        );
        assert_eq!(
            outcome(&status("Closed", &[INCIDENT_STEP_NOT_CLOSED, "closed"])),
            Some(Outcome::Closed)
        );
    }

    #[test]
    fn a_closure_without_a_class_says_nothing_of_one() {
        let closure = |cause_class| IncidentClosure {
            by: "ops".to_owned(),
            reason: "found".to_owned(),
            cause_class,
        };
        assert_eq!(
            json!(closure(None)),
            json!({"by": "ops", "reason": "found"})
        );
        assert_eq!(
            json!(closure(Some(api::CauseClass::Software)))["causeClass"],
            "Software"
        );
    }
}
