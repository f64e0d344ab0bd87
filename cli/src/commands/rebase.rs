//! `zyctl failover rebase`: a person's word that a site whose etcd was restored goes on from what
//! hosts say runs on them. The operator carries it out, and says what it waits for.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::names::POLICY_NAME;
use api::{CloudPolicy, Host, HostState, SiteFreeze};
use jiff::Timestamp;
use kube::Api;
use serde_json::json;

use super::{Context, failover, person};
use crate::client::list;
use crate::language::{Language, local_time};
use crate::options::Output;
use crate::said;
use crate::table::Table;

/// How often it is looked whether the rebase is done.
const LOOK: Duration = Duration::from_secs(1);

/// The freeze that stands, if one does.
pub fn freeze_of(policy: &CloudPolicy) -> Option<SiteFreeze> {
    policy.status.as_ref()?.frozen.clone()
}

/// What the operator says that a rebase waits for; empty before it has said so.
pub fn waits(policy: &CloudPolicy) -> &str {
    let status = policy.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| &status.conditions);
    let acting = conditions.find(|condition| condition.type_ == "Acting");
    acting.map_or("", |condition| condition.message.as_str())
}

/// Says that the site is frozen, and why.
pub fn tell(context: &Context, frozen: &SiteFreeze) {
    println!(
        "{} {}: {}",
        context.say(
            "FROZEN: nothing is started, stopped, moved or forced off before zyctl failover rebase. Since",
            "已冻结:执行 zyctl failover rebase 前不启动、不停止、不迁移、不强制断电。起始时间"
        ),
        local_time(frozen.since.0),
        said::sentence(context.language, &frozen.cause)
    );
}

/// Asks for a rebase, and follows it.
///
/// # Errors
/// The site is not frozen, the word was not typed, or the API refuses.
pub async fn rebase(
    context: &Context,
    reason: &str,
    typed: Option<&str>,
    no_wait: bool,
) -> Result<()> {
    person::needs_reason(
        context.language,
        reason,
        (
            "which backup was restored and why",
            "恢复了哪份备份及其原因",
        ),
    )?;
    let policies: Api<CloudPolicy> = Api::all(context.client.clone());
    let policy = policies.get(POLICY_NAME).await.with_context(|| {
        format!("CloudPolicy {POLICY_NAME}: the site needs one: manifests/base/policy.yaml")
    })?;
    let Some(frozen) = freeze_of(&policy) else {
        bail!(
            "{}",
            context.say(
                "the site is not frozen: no host remembers more than the API server holds, so there is nothing to rebase",
                "站点未冻结:没有宿主机的记忆多于 API 服务器,无需重新定基"
            )
        );
    };
    if context.output == Output::Table {
        tell(context, &frozen);
        let hosts: Vec<Host> = list(&context.client).await?;
        print!("{}", table(context.language, &hosts));
    }
    person::confirm(
        context,
        typed,
        "rebase",
        context.say(
            "Every copy that these hosts name becomes the assignment of its VM. A host that is missing here (it joined after the backup) must be declared again first: what runs there would run twice.",
            "上列宿主机所报告的运行副本将成为各虚拟机的归属。此处缺少的宿主机(备份之后加入)须先重新声明,否则其上的虚拟机会同时运行两份。",
        ),
    )?;
    let by = person::name(context).await?;
    let request = json!({
        "frozenSince": frozen.since, "at": Timestamp::now().to_string(), "by": by, "reason": reason.trim(),
    });
    failover::write(context, json!({ "rebase": request })).await?;
    if no_wait {
        return Ok(());
    }
    follow(context, &policies, &frozen).await
}

/// Follows the rebase until it is done; tells each new thing that it waits for.
async fn follow(context: &Context, policies: &Api<CloudPolicy>, frozen: &SiteFreeze) -> Result<()> {
    let mut known = String::new();
    loop {
        let policy = policies.get(POLICY_NAME).await?;
        let status = policy.status.as_ref();
        if let Some(last) = status
            .and_then(|status| status.last_rebase.as_ref())
            .filter(|last| last.frozen_since == frozen.since)
        {
            if context.output == Output::Json {
                return context.print_json(&json!({"rebased": last}));
            }
            println!(
                "{} {}",
                context.say(
                    "Rebased. Hosts act again once each has closed what is old. VMs:",
                    "已重新定基。各宿主机关闭旧副本后恢复运作。虚拟机数:"
                ),
                last.virtual_machines
            );
            return Ok(());
        }
        let waits = waits(&policy);
        if waits != known && context.output == Output::Table {
            let told = said::sentence(context.language, waits);
            println!("{}: {told}", context.say("waits", "等待"));
            waits.clone_into(&mut known);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What each host said.
fn table(language: Language, hosts: &[Host]) -> String {
    let mut table = match language {
        Language::English => Table::new(["HOST", "SAID", "RUNS", "EPOCHS UP TO"]),
        Language::Chinese => Table::new(["宿主机", "报告", "运行副本", "最高纪元"]),
    };
    for host in hosts {
        let status = host.status.clone().unwrap_or_default();
        let frozen = status.reported.and_then(|reported| reported.frozen);
        let said = match (&frozen, status.state) {
            (Some(_), _) => language.pick("what runs there", "已报告"),
            (None, Some(HostState::Fenced)) => language.pick("proven off", "已证明关机"),
            (None, _) => language.pick("nothing yet", "尚无报告"),
        };
        let (runs, highest) = frozen.map_or(("-".to_owned(), "-".to_owned()), |frozen| {
            let runs = frozen.copies.iter().filter(|copy| copy.runs).count();
            (runs.to_string(), frozen.highest_epoch.to_string())
        });
        let name = host.metadata.name.clone().unwrap_or_default();
        table.row([name, said.to_owned(), runs, highest]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, status: serde_json::Value) -> Host {
        serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": name},
            "spec": {"pool": "p", "managementAddress": "10.0.0.1"}, "status": status,
        }))
        .expect("a host")
    }

    #[test]
    fn what_a_rebase_waits_for_is_the_acting_conditions_message() {
        let mut policy = CloudPolicy::new(POLICY_NAME, api::CloudPolicySpec::default());
        assert_eq!(waits(&policy), "");
        let condition = |kind: &str, message: &str| {
            json!({"type": kind, "status": "False", "reason": "r", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let conditions = [
            condition("Valid", "in force"),
            condition("Acting", "h2 is silent"),
        ];
        let status = serde_json::from_value(json!({ "conditions": conditions }));
        policy.status = Some(status.expect("a status"));
        assert_eq!(waits(&policy), "h2 is silent");
    }

    #[test]
    fn a_person_sees_who_has_spoken_who_is_off_and_who_is_missing() {
        let copies = json!([
            {"vm": "1", "name": "d/a", "epoch": 7, "runs": true},
            {"vm": "2", "name": "d/b", "epoch": 9, "runs": false},
        ]);
        let reported = json!({
            "incarnation": {"bootId": "b", "systemUuid": "u"}, "capacity": {"cpu": 1, "memory": "1Gi"},
            "architecture": "x86_64", "domainType": "kvm",
            "frozen": {"cause": "c", "rebase": "", "highestEpoch": 9, "copies": copies},
        });
        let hosts = [
            host("h1", json!({"state": "Ready", "reported": reported})),
            host("h2", json!({"state": "Fenced"})),
            host("h3", json!({"state": "Unreachable"})),
        ];
        let text = table(Language::English, &hosts);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[1].split_whitespace().last(), Some("9"));
        assert!(rows[1].contains("what runs there  1"), "{text}");
        assert!(
            rows[2].contains("proven off") && rows[3].contains("nothing yet"),
            "{text}"
        );
        assert!(table(Language::Chinese, &hosts).contains("已证明关机"));
    }
}
