//! Guards that are armed, and how often they fired.

use anyhow::Result;
use api::names::POLICY_NAME;
use api::{CloudPolicy, Host, StoragePool};
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::Lab;
use serde_json::json;

use crate::watch::{hosts, until};

/// Contract, watchdog and margin of armed guards, seconds: as short as a busy machine allows.
pub const TIMERS: [u64; 3] = [10, 10, 5];

/// Every host beats on the shared pool, its guard armed with short timers.
///
/// # Errors
/// A guard is not armed.
pub async fn arm(lab: &Lab) -> Result<()> {
    let (merge, client) = (PatchParams::default(), &lab.client);
    let [contract, watchdog, margin] = TIMERS;
    let timers = json!({"spec": {"failover": {"contractSeconds": contract,
        "watchdogSeconds": watchdog, "selfFenceMarginSeconds": margin}}});
    let policies: Api<CloudPolicy> = Api::all(client.clone());
    policies
        .patch(POLICY_NAME, &merge, &Patch::Merge(&timers))
        .await?;
    let beats = Patch::Merge(json!({"spec": {"heartbeat": true}}));
    let pools: Api<StoragePool> = Api::all(client.clone());
    pools.patch("shared", &merge, &beats).await?;
    let armed = Patch::Merge(json!({"spec": {"selfFencing": true}}));
    let all: Api<Host> = Api::all(client.clone());
    for host in lab.hosts()? {
        all.patch(&host, &merge, &armed).await?;
    }
    until(client, "the guards to be armed", async || {
        let armed = |host: &Host| {
            let mut told = host.status.iter().flat_map(|status| &status.conditions);
            told.any(|one| one.type_ == "SelfFencing" && one.status == "True")
        };
        Ok(hosts(client).await?.iter().all(armed))
    })
    .await
    .map(drop)
}

/// How many times guards have fired.
///
/// # Errors
/// A guard's log can not be read.
pub fn firings(lab: &Lab) -> Result<usize> {
    let mut fired = 0;
    for host in lab.hosts()? {
        let log = lab.files.logs().join(format!("{host}-guard.log"));
        let text = std::fs::read_to_string(log)?;
        fired += text.matches("every VM of this host is killed").count();
    }
    Ok(fired)
}
