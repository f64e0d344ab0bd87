//! Guards that are armed, and how often they fired.

use std::time::Duration;

use anyhow::Result;
use api::names::POLICY_NAME;
use api::{CloudPolicy, Host, StoragePool};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::Lab;
use serde_json::json;

use crate::watch::{hosts, until};

/// Contract, watchdog and margin of armed guards, seconds: as short as a busy machine allows.
pub const TIMERS: [u64; 3] = [10, 10, 5];

/// What a guard's log says when it fires.
const FIRES: &str = "every VM of this host is killed";

/// Sets the guards' timers, as short as a busy machine allows.
///
/// # Errors
/// The policy can not be written.
pub async fn shorten_timers(lab: &Lab) -> Result<()> {
    let [contract, watchdog, margin] = TIMERS;
    let timers = json!({"spec": {"failover": {"contractSeconds": contract,
        "watchdogSeconds": watchdog, "selfFenceMarginSeconds": margin}}});
    let policies: Api<CloudPolicy> = Api::all(lab.client.clone());
    policies
        .patch(POLICY_NAME, &PatchParams::default(), &Patch::Merge(&timers))
        .await?;
    Ok(())
}

/// Every host beats on the shared pool, its guard armed with short timers.
///
/// # Errors
/// A guard is not armed.
pub async fn arm(lab: &Lab) -> Result<()> {
    shorten_timers(lab).await?;
    arm_hosts(lab, &lab.hosts()?).await.map(drop)
}

/// Every host beats on the shared pool, and the guards of these are armed, no others. Returns how long that took.
///
/// # Errors
/// A guard is not armed, or another one is.
pub async fn arm_hosts(lab: &Lab, names: &[String]) -> Result<Duration> {
    let (merge, client) = (PatchParams::default(), &lab.client);
    let beats = Patch::Merge(json!({"spec": {"heartbeat": true}}));
    let pools: Api<StoragePool> = Api::all(client.clone());
    pools.patch("shared", &merge, &beats).await?;
    let armed = Patch::Merge(json!({"spec": {"selfFencing": true}}));
    let all: Api<Host> = Api::all(client.clone());
    for host in names {
        all.patch(host, &merge, &armed).await?;
    }
    let as_asked = |host: &Host| is_armed(host) == names.contains(&host.name_any());
    until(client, "the guards to be armed", async || {
        Ok(hosts(client).await?.iter().all(as_asked))
    })
    .await
}

/// Whether a host's guard is armed.
pub fn is_armed(host: &Host) -> bool {
    let mut conditions = host.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|one| one.type_ == "SelfFencing" && one.status == "True")
}

/// How many times guards have fired.
///
/// # Errors
/// A guard's log can not be read.
pub fn firings(lab: &Lab) -> Result<usize> {
    let hosts = lab.hosts()?;
    hosts.iter().map(|host| firings_on(lab, host)).sum()
}

/// How many times the guard of a host has fired.
///
/// # Errors
/// Its log can not be read.
pub fn firings_on(lab: &Lab, host: &str) -> Result<usize> {
    let log = lab.files.logs().join(format!("{host}-guard.log"));
    Ok(std::fs::read_to_string(log)?.matches(FIRES).count())
}
