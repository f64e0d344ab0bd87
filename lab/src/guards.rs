//! Guards that are armed, and how often they fired.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::names::POLICY_NAME;
use api::{CloudPolicy, Host, StoragePool};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::lifecycle::Lab;

/// Contract, watchdog and margin of armed guards, seconds: as short as a busy machine allows.
pub const TIMERS: [u64; 3] = [10, 10, 5];
/// Longest time for guards to be armed.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);

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
    let begin = Instant::now();
    loop {
        let hosts = all.list(&Default::default()).await?.items;
        let wrong = (hosts.iter())
            .filter(|host| is_armed(host) != names.contains(&host.name_any()))
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>();
        if wrong.is_empty() {
            return Ok(begin.elapsed());
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "after {PATIENCE:?} the guards of {} are not as asked: armed are to be {}",
            wrong.join(", "),
            names.join(", ")
        );
        tokio::time::sleep(LOOK).await;
    }
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
    let fired = hosts.iter().map(|host| fired_on(lab, host));
    fired.map(|fired| fired.map(|fired| fired.len())).sum()
}

/// When the guard of a host has fired, nanoseconds since 1970 by its own log.
///
/// # Errors
/// The log can not be read.
pub fn fired_on(lab: &Lab, host: &str) -> Result<Vec<u64>> {
    let file = lab.files.logs().join(format!("{host}-guard.log"));
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    text.lines()
        .filter(|line| line.contains(FIRES))
        .map(|line| moment(line).with_context(|| format!("{}: {line}", file.display())))
        .collect()
}

/// The time at which a line of a log begins.
fn moment(line: &str) -> Result<u64> {
    let time = line.split_whitespace().next().unwrap_or_default();
    let time: jiff::Timestamp = time.parse()?;
    Ok(u64::try_from(time.as_nanosecond())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_begins_with_its_time() {
        let line = format!("2026-03-01T00:00:00.500000Z ERROR guard: {FIRES} firings=1");
        assert_eq!(moment(&line).expect("a time"), 1_772_323_200_500_000_000);
        assert!(moment("killed").is_err());
    }
}
