//! `zyctl host clear` and `zyctl host confirm-dead`.

use anyhow::{Context as _, Result, bail};
use api::Host;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Context, person};
use crate::language::Language;

/// What the reason of a clearance says.
const CLEARED: person::Wanted = ("what was done about the faults", "对故障的处置措施");

/// Declares a host's faults up to now as dealt with.
///
/// # Errors
/// The reason or the typed word is missing, or says why the host can not be cleared.
pub async fn clear(context: &Context, name: &str, reason: &str, typed: Option<&str>) -> Result<()> {
    person::needs_reason(context.language, reason, CLEARED)?;
    get(&Api::all(context.client.clone()), name).await?;
    person::confirm(
        context,
        typed,
        name,
        context.say(
            "The faults of this host no longer count: VMs are placed there again.",
            "该宿主机的故障将不再计入,并重新接收虚拟机。",
        ),
    )?;
    let faults = declare_cleared(context, name, reason).await?;
    if context.output == crate::options::Output::Json {
        return context.print_json(&json!({"host": name, "cleared": faults}));
    }
    println!(
        "{}",
        match context.language {
            Language::English => format!(
                "Host {name}: {} faults cleared. A fault that is seen again counts again.",
                faults.len()
            ),
            Language::Chinese => format!(
                "宿主机 {name}:已清除 {} 项故障;再次出现的故障会重新计入。",
                faults.len()
            ),
        }
    );
    for fault in faults {
        println!("  {}: {}", fault.component, fault.evidence);
    }
    Ok(())
}

/// Writes the clearance; returns the faults that it is about.
///
/// # Errors
/// Says why the host can not be cleared.
pub async fn declare_cleared(
    context: &Context,
    name: &str,
    reason: &str,
) -> Result<Vec<model::Fault>> {
    person::needs_reason(context.language, reason, CLEARED)?;
    let hosts: Api<Host> = Api::all(context.client.clone());
    let host = get(&hosts, name).await?;
    let faults = host
        .status
        .and_then(|status| status.reported)
        .map(|reported| reported.faults)
        .unwrap_or_default();
    let by = person::name(context).await?;
    let patch = json!({"spec": {"faultClearance": {"at": jiff::Timestamp::now().to_string(), "reason": reason, "by": by}}});
    hosts
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(faults)
}

/// A named person's word that the present incarnation of a host is powered off.
///
/// # Errors
/// The host shows life, the word was not typed, or the API refuses.
pub async fn confirm_dead(
    context: &Context,
    name: &str,
    reason: &str,
    typed: Option<&str>,
) -> Result<()> {
    person::needs_reason(
        context.language,
        reason,
        ("how you know that it is powered off", "如何确认其已断电"),
    )?;
    let hosts: Api<Host> = Api::all(context.client.clone());
    let host = get(&hosts, name).await?;
    let status = host.status.unwrap_or_default();
    if status.state == Some(api::HostState::Ready) {
        bail!(match context.language {
            Language::English => format!(
                "host {name} is Ready: it shows life, so it is not powered off; drain it instead"
            ),
            Language::Chinese =>
                format!("宿主机 {name} 状态正常:有存活迹象,并未断电;请改用 zyctl drain 清空"),
        });
    }
    let boot_id = status
        .accepted
        .map(|incarnation| incarnation.boot_id)
        .with_context(|| match context.language {
            Language::English => format!("host {name} was never registered: nothing runs there"),
            Language::Chinese => format!("宿主机 {name} 从未登记:其上没有运行任何虚拟机"),
        })?;
    person::confirm(
        context,
        typed,
        name,
        context.say(
            "If this host still runs, its VMs will run twice and destroy their data.",
            "如果该宿主机仍在运行,其虚拟机将同时运行两份并损坏数据。",
        ),
    )?;
    let by = person::name(context).await?;
    let patch = json!({"spec": {"confirmedOff": {"bootId": boot_id, "at": jiff::Timestamp::now().to_string(), "by": by, "reason": reason}}});
    hosts
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    println!(
        "{}",
        context.say(
            "Confirmed. Any sign of life voids it; follow with: zyctl status --watch",
            "已确认。若再出现存活迹象则自动作废;查看进展:zyctl status --watch"
        )
    );
    Ok(())
}

/// Reads a host.
///
/// # Errors
/// Names the hosts that there are when this one is not.
pub async fn get(hosts: &Api<Host>, name: &str) -> Result<Host> {
    if let Some(host) = hosts.get_opt(name).await? {
        return Ok(host);
    }
    let names = hosts
        .list(&Default::default())
        .await
        .context("hosts can not be listed")?;
    let names: Vec<_> = names
        .items
        .into_iter()
        .filter_map(|host| host.metadata.name)
        .collect();
    bail!(
        "host {name} does not exist; there are: {}",
        names.join(", ")
    )
}
