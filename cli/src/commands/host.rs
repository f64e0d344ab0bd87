//! `zyctl host clear`.

use anyhow::{Context as _, Result, bail};
use api::Host;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Context;

/// Declares a host's faults up to now as dealt with.
///
/// # Errors
/// Says why the host can not be cleared.
pub async fn clear(context: &Context, name: &str, reason: &str) -> Result<()> {
    if reason.trim().is_empty() {
        bail!("--reason: say in a few words what was done about the faults");
    }
    let hosts: Api<Host> = Api::all(context.client.clone());
    let host = get(&hosts, name).await?;
    let faults = host
        .status
        .and_then(|status| status.reported)
        .map(|reported| reported.faults)
        .unwrap_or_default();
    let by = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let patch = json!({"spec": {"faultClearance": {"at": jiff::Timestamp::now().to_string(), "reason": reason, "by": by}}});
    hosts
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    if context.output == crate::options::Output::Json {
        return context.print_json(&json!({"host": name, "cleared": faults}));
    }
    println!(
        "{}",
        match context.language {
            crate::language::Language::English => format!(
                "Host {name}: {} faults cleared. A fault that is seen again counts again.",
                faults.len()
            ),
            crate::language::Language::Chinese => format!(
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
