//! From the failure of a host until all is well elsewhere: when each step was seen.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use api::{HostState, VirtualMachine};
use kube::{Client, ResourceExt};

use crate::watch::{all_well, host_state, is_ready, on_host, until, vms};

/// Seconds from the fault until each step was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The host is not shown as Ready any more.
    pub noticed: f64,
    /// A stop proof stands.
    pub proven: f64,
    /// The first VM is assigned to another host.
    pub decided: f64,
    /// The first VM's process runs there.
    pub started: f64,
    /// Every endpoint of the OA system answers again.
    pub oa_answered: f64,
    /// Every endpoint of every system answers again.
    pub answered: f64,
}

fn epoch(vm: &VirtualMachine) -> i64 {
    vm.status
        .as_ref()
        .and_then(|status| status.assignment.as_ref())
        .map_or(0, |right| right.epoch.0)
}

/// Follows a recovery; `once_noticed` is called when the host was noticed.
///
/// # Errors
/// A step that does not come, with a picture of the site.
pub async fn follow(
    client: &Client,
    host: &str,
    systems: usize,
    once_noticed: impl FnOnce() -> Result<()>,
) -> Result<Times> {
    let begin = Instant::now();
    let mut times = Times::default();
    let seconds = || begin.elapsed().as_secs_f64();
    let before: BTreeMap<String, i64> = vms(client)
        .await?
        .iter()
        .map(|vm| (vm.name_any(), epoch(vm)))
        .collect();
    let is_new = |vm: &VirtualMachine| epoch(vm) > before.get(&vm.name_any()).copied().unwrap_or(0);
    until(client, "the host to be noticed", async || {
        Ok(host_state(client, host).await? != Some(HostState::Ready))
    })
    .await?;
    times.noticed = seconds();
    once_noticed()?;
    until(client, "the host to be proven off", async || {
        Ok(host_state(client, host).await? == Some(HostState::Fenced))
    })
    .await?;
    times.proven = seconds();
    until(
        client,
        "the first VM to be assigned elsewhere",
        async || Ok(vms(client).await?.iter().any(is_new)),
    )
    .await?;
    times.decided = seconds();
    until(client, "the first VM to start elsewhere", async || {
        let runs = |vm: &VirtualMachine| {
            let status = vm.status.clone().unwrap_or_default();
            is_new(vm)
                && status.runtime.is_some_and(|runtime| {
                    runtime.phase == api::RuntimePhase::Running
                        && Some(&runtime.assignment) == status.assignment.as_ref()
                })
        };
        Ok(vms(client).await?.iter().any(runs))
    })
    .await?;
    times.started = seconds();
    until(client, "the host to carry nothing", async || {
        Ok(on_host(client, host).await?.is_empty())
    })
    .await?;
    until(client, "the OA system to be Ready again", async || {
        is_ready(client, "oa").await
    })
    .await?;
    times.oa_answered = seconds();
    until(client, "every system to be Ready again", async || {
        all_well(client, systems).await
    })
    .await?;
    times.answered = seconds();
    Ok(times)
}
