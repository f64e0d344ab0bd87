//! `zyctl incident`: the fault ledger.

use anyhow::{Context as _, Result, ensure};
use api::{Incident, IncidentClosure, IncidentStatus, TimelineKind};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Context, person};
use crate::client::{self, name_of};
use crate::language::{Language, local_time, local_time_milliseconds};
use crate::options::{CauseClass, Output};
use crate::table::Table;

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

/// One incident: timeline and measured downtimes.
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
    let mut systems = match context.language {
        Language::English => Table::new(["BUSINESS SYSTEM", "VMS", "DOWNTIME", "UNOBSERVED"]),
        Language::Chinese => Table::new(["业务系统", "虚拟机", "中断时长", "未观测"]),
    };
    for system in &status.systems {
        systems.row([
            system.display_name.clone(),
            system.virtual_machines.len().to_string(),
            downtime(
                context.language,
                system.not_measured,
                system.downtime_seconds,
            ),
            format!("{:.1} s", system.unobserved_seconds),
        ]);
    }
    println!("{}", systems.render());
    for entry in &status.timeline {
        let kind = match entry.kind {
            TimelineKind::Seen => context.say("seen", "发现"),
            TimelineKind::Decided => context.say("decided", "决定"),
            TimelineKind::Done => context.say("done", "执行"),
            TimelineKind::NotDone => context.say("not done", "未执行"),
        };
        let text = match context.language {
            Language::Chinese if !entry.chinese.is_empty() => &entry.chinese,
            _ => &entry.text,
        };
        println!("{}  {kind}  {text}", local_time_milliseconds(entry.at.0));
    }
    Ok(())
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
    person::needs_reason(reason, "what was found and done")?;
    let incidents: Api<Incident> = Api::all(context.client.clone());
    let incident = incidents
        .get_opt(name)
        .await?
        .with_context(|| format!("incident {name} does not exist; see zyctl incident list"))?;
    let closed_already = incident
        .status
        .is_some_and(|status| status.state == "Closed");
    ensure!(
        !closed_already,
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
            "A closed incident is not opened again; its record is kept.",
            "事件关闭后不会重新打开;记录将保留。",
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
    println!("{}", closed(context.language, class));
    Ok(())
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

fn closed(language: Language, class: Option<CauseClass>) -> String {
    let class = class.map(|class| language.state(&format!("{:?}", class_found(class))));
    match (language, class) {
        (Language::English, None) => "Closed.".to_owned(),
        (Language::English, Some(class)) => format!("Closed; class of the cause: {class}."),
        (Language::Chinese, None) => "已关闭。".to_owned(),
        (Language::Chinese, Some(class)) => format!("已关闭;原因分类:{class}。"),
    }
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

    #[test]
    fn every_class_of_the_api_can_be_named_and_is_told_in_both_languages() {
        for class in CauseClass::value_variants() {
            let word = format!("{:?}", class_found(*class));
            // One name in both places: what a person types is what the API keeps.
            assert_eq!(word, format!("{class:?}"));
            let english = closed(Language::English, Some(*class));
            assert!(english.contains(&word), "{english}");
            let chinese = closed(Language::Chinese, Some(*class));
            assert!(!chinese.contains(&word), "{chinese}");
        }
        assert_eq!(closed(Language::English, None), "Closed.");
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
