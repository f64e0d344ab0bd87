//! `zyctl failover status|disarm|arm`; `rebase` is a file of its own.

use anyhow::{Context as _, Result, bail};
use api::names::POLICY_NAME;
use api::{CloudPolicy, Condition, FailoverPolicy, Host};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Context, person};
use crate::client::list;
use crate::language::{Language, local_time};
use crate::options::Output;
use crate::said;

/// Longest time without fencing, hours: a forgotten one must not last a weekend.
const DISARM_HOURS_MAX: i64 = 24;

/// Whether fencing is armed, and the timers in force.
///
/// # Errors
/// The API can not be read.
pub async fn status(context: &Context) -> Result<()> {
    let policies: Vec<CloudPolicy> = list(&context.client).await?;
    let policy = policies.first().cloned();
    let invalid = policy.as_ref().and_then(invalid);
    let failover = policy.as_ref().map(in_force).unwrap_or_default();
    // One that the operator does not follow is told by the policy's condition.
    let ignored = policy
        .as_ref()
        .and_then(|policy| policy.status.as_ref())
        .and_then(|status| {
            status
                .conditions
                .iter()
                .find(|c| c.reason == "DisarmIgnored")
        })
        .map(|condition| condition.message.clone());
    let disarmed = failover
        .disarmed
        .clone()
        .filter(|disarmed| ignored.is_none() && disarmed.until.0 > Timestamp::now());
    let frozen = policy.as_ref().and_then(super::rebase::freeze_of);
    let waits = policy.as_ref().filter(|_| frozen.is_some());
    let waits = waits.map(super::rebase::waits);
    if context.output == Output::Json {
        return context.print_json(&json!({"armed": disarmed.is_none(), "policy": failover, "policyUsed": invalid.is_none(), "frozen": frozen, "rebaseWaits": waits}));
    }
    match disarmed {
        None => println!(
            "{}",
            context.say(
                "Armed: dead hosts are fenced, their VMs restart elsewhere.",
                "已启用:故障宿主机将被隔离,其虚拟机在其他宿主机重启。"
            )
        ),
        Some(disarmed) => println!(
            "{} {} ({}: {})",
            context.say("Disarmed until", "已停用,直至"),
            local_time(disarmed.until.0),
            disarmed.by,
            disarmed.reason
        ),
    }
    if let Some(ignored) = ignored {
        println!(
            "{}: {}",
            context.say("Not followed", "未采纳"),
            said::sentence(context.language, &ignored)
        );
    }
    if let (Some(frozen), Some(waits)) = (frozen, waits) {
        super::rebase::tell(context, &frozen);
        if !waits.is_empty() {
            println!(
                "  {}: {}",
                context.say("the rebase waits", "重新定基等待"),
                said::sentence(context.language, waits)
            );
        }
    }
    if invalid.is_some() {
        println!(
            "{}",
            context.say("The defaults are in force:", "按默认值运行:")
        );
    }
    let row = |english: &str, chinese: &str, value: String| {
        println!("  {}: {value}", context.say(english, chinese));
    };
    row(
        "Lease every",
        "租约间隔",
        format!("{} s", failover.lease_interval_seconds),
    );
    row(
        "unreachable after",
        "判定失联",
        format!("{} s", failover.unreachable_after_seconds),
    );
    row(
        "storm guard at",
        "风暴保护阈值",
        storm(context.language, &failover),
    );
    row(
        "guard's contract, watchdog, margin",
        "守护约定、看门狗、余量",
        format!(
            "{} s + {} s + {} s",
            failover.contract_seconds,
            failover.watchdog_seconds,
            failover.self_fence_margin_seconds
        ),
    );
    for host in list::<Host>(&context.client).await? {
        guard_of(context, &host);
    }
    if let Some(invalid) = invalid {
        println!(
            "{}: {}",
            context.say("The policy is not used", "策略未生效"),
            said::sentence(context.language, &invalid.message)
        );
    }
    Ok(())
}

/// Why the policy is not used, if it is not.
fn invalid(policy: &CloudPolicy) -> Option<&Condition> {
    let mut conditions = policy.status.as_ref()?.conditions.iter();
    conditions.find(|condition| condition.type_ == "Valid" && condition.status != "True")
}

/// What counts now: of a policy that is not used, the words of people; the rest is the defaults'.
fn in_force(policy: &CloudPolicy) -> FailoverPolicy {
    let declared = policy.spec.failover.clone();
    if invalid(policy).is_none() {
        return declared;
    }
    FailoverPolicy {
        disarmed: declared.disarmed,
        armed: declared.armed,
        rebase: declared.rebase,
        ..FailoverPolicy::default()
    }
}

/// When the storm guard holds back, and when it lets hosts be forced off again.
fn storm(language: Language, failover: &FailoverPolicy) -> String {
    let (percent, hosts) = (failover.storm_percent, failover.storm_minimum_hosts);
    let (window, calm) = (
        failover.storm_window_seconds,
        failover.storm_release_seconds,
    );
    match language {
        Language::English => format!(
            "{percent} % of the hosts, {hosts} or more, silent within {window} s; one at a time after {calm} s without a new one"
        ),
        Language::Chinese => format!(
            "{window} 秒内 {percent} % 且至少 {hosts} 台宿主机静默;{calm} 秒无新增后逐台放行"
        ),
    }
}

/// One host's guard: armed under which contract, or why not.
fn guard_of(context: &Context, host: &Host) {
    let name = host.metadata.name.as_deref().unwrap_or_default();
    let conditions = host.status.iter().flat_map(|status| &status.conditions);
    let fencing = conditions
        .into_iter()
        .find(|condition| condition.type_ == "SelfFencing");
    match fencing {
        Some(fencing) if fencing.status == "True" => println!(
            "  {name}: {}: {}",
            context.say("guard armed", "守护已启用"),
            said::sentence(context.language, &fencing.message)
        ),
        Some(fencing) => println!(
            "  {name}: {}: {}",
            context.say("guard not armed", "守护未启用"),
            said::sentence(context.language, &fencing.message)
        ),
        None => println!(
            "  {name}: {}",
            context.say("guard not heard of", "守护未知")
        ),
    }
}

/// `30m`, `2h`, `90s`.
fn parse(text: &str) -> Result<SignedDuration> {
    let duration: SignedDuration = text
        .parse()
        .with_context(|| format!("--for {text:?}: write a duration such as 30m or 2h"))?;
    if duration <= SignedDuration::ZERO || duration > SignedDuration::from_hours(DISARM_HOURS_MAX) {
        bail!(
            "--for {text}: must be more than nothing and at most {DISARM_HOURS_MAX}h; disarm again when more is needed"
        );
    }
    Ok(duration)
}

/// Forces nothing off for a while.
///
/// # Errors
/// Says which argument is wrong, or what the API server answered.
pub async fn disarm(
    context: &Context,
    duration: &str,
    reason: &str,
    typed: Option<&str>,
) -> Result<()> {
    person::needs_reason(context.language, reason, ("what the work is", "作业内容"))?;
    let at = Timestamp::now();
    let until = at + parse(duration)?;
    person::confirm(
        context,
        typed,
        "disarm",
        context.say(
            "Until then no host is forced off: VMs of a hung host wait for a person.",
            "在此期间不会强制断电:挂死宿主机上的虚拟机须等待人工处理。",
        ),
    )?;
    let by = person::name(context).await?;
    let disarmed =
        json!({"at": at.to_string(), "until": until.to_string(), "reason": reason, "by": by});
    write(context, json!({"disarmed": disarmed})).await?;
    println!(
        "{} {}",
        context.say("Disarmed until", "已停用,直至"),
        local_time(until)
    );
    Ok(())
}

/// Arms again.
///
/// # Errors
/// The reason or the typed word is missing, or what the API server answered.
pub async fn arm(context: &Context, reason: &str, typed: Option<&str>) -> Result<()> {
    person::needs_reason(
        context.language,
        reason,
        ("why the work is over", "作业结束的缘由"),
    )?;
    person::confirm(
        context,
        typed,
        "arm",
        context.say(
            "From now on hosts that fall silent are forced off again.",
            "此后静默的宿主机将重新被强制断电。",
        ),
    )?;
    let by = person::name(context).await?;
    let armed = json!({"at": Timestamp::now().to_string(), "by": by, "reason": reason});
    write(context, json!({"disarmed": null, "armed": armed})).await?;
    println!(
        "{}",
        context.say("Armed. All timers start anew.", "已启用,所有计时重新开始。")
    );
    Ok(())
}

pub(super) async fn write(context: &Context, failover: serde_json::Value) -> Result<()> {
    let policies: Api<CloudPolicy> = Api::all(context.client.clone());
    let patch = json!({"spec": {"failover": failover}});
    policies
        .patch(POLICY_NAME, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("CloudPolicy {POLICY_NAME} can not be changed; the site needs one: manifests/base/policy.yaml"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The site's own numbers would tell of timers by which nobody goes.
    #[test]
    fn a_policy_that_is_not_used_tells_the_defaults_and_what_people_said() {
        let policy = |valid: &str| -> CloudPolicy {
            let failover = json!({"stormPercent": 45, "stormMinimumHosts": 3, "stormReleaseSeconds": 90,
                "disarmed": {"until": "2026-11-26T01:00:00Z", "reason": "switch work", "by": "li"}});
            let valid = json!({"type": "Valid", "status": valid, "reason": "r", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            serde_json::from_value(json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "CloudPolicy", "metadata": {"name": POLICY_NAME},
                "spec": {"failover": failover}, "status": {"conditions": [valid]},
            }))
            .expect("a policy")
        };
        let used = in_force(&policy("True"));
        assert_eq!(used.storm_percent, 45);
        assert!(
            storm(Language::English, &used).starts_with("45 % of the hosts, 3 or more, "),
            "{}",
            storm(Language::English, &used)
        );
        assert!(storm(Language::Chinese, &used).contains("90 秒"));
        let refused = in_force(&policy("False"));
        assert_eq!(
            refused.storm_percent,
            FailoverPolicy::default().storm_percent
        );
        assert_eq!(refused.disarmed, used.disarmed);
        assert!(refused.disarmed.is_some());
    }

    #[test]
    fn durations_are_bounded_and_readable() {
        assert_eq!(parse("30m").expect("fine"), SignedDuration::from_mins(30));
        assert_eq!(parse("2h").expect("fine"), SignedDuration::from_hours(2));
        for wrong in ["", "soon", "-5m", "0s", "25h"] {
            let error = format!("{:#}", parse(wrong).expect_err(wrong));
            assert!(error.contains("--for"), "{error}");
        }
    }
}
