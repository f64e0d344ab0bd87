//! Waiting for conditions of the API, with a picture of the site when one does not come.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use api::{
    BusinessSystem, Host, HostPool, HostState, VirtualMachine, VirtualMachineMigration,
    VirtualMachinePhase,
};
use kube::{Api, Client, ResourceExt};

/// Longest wait for any condition; machines may be heavily loaded.
const PATIENCE: Duration = Duration::from_secs(400);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Namespace and name, as `zyctl` takes them.
pub fn full_name(vm: &VirtualMachine) -> String {
    format!("{}/{}", vm.namespace().unwrap_or_default(), vm.name_any())
}

/// Waits until a condition holds and returns how long that took.
///
/// # Errors
/// What was waited for, and how the site stood then.
pub async fn until(
    client: &Client,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<Duration> {
    let begin = Instant::now();
    let mut unseen = String::new();
    loop {
        match condition().await {
            Ok(true) => return Ok(begin.elapsed()),
            Ok(false) => unseen.clear(),
            // While the API server is down, nothing is known; the next look may tell.
            Err(error) => unseen = format!("; it could not be looked at: {error:#}"),
        }
        if begin.elapsed() > PATIENCE {
            bail!(
                "waited {PATIENCE:?} for {what}{unseen}; the site:\n{}",
                picture(client).await
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn picture(client: &Client) -> String {
    let mut lines = Vec::new();
    for host in hosts(client).await.unwrap_or_default() {
        let status = host.status.clone().unwrap_or_default();
        lines.push(format!(
            "  host {}: {:?} {}",
            host.name_any(),
            status.state,
            status.state_reason.unwrap_or_default()
        ));
    }
    for vm in vms(client).await.unwrap_or_default() {
        let status = vm.status.clone().unwrap_or_default();
        let host = status
            .assignment
            .map(|right| right.host.to_string())
            .unwrap_or_default();
        lines.push(format!(
            "  VM {}: {:?} {host} {}",
            vm.name_any(),
            status.phase,
            status.message.unwrap_or_default()
        ));
    }
    for system in systems(client).await.unwrap_or_default() {
        let status = system.status.clone().unwrap_or_default();
        lines.push(format!(
            "  system {}: {} {} {}",
            system.name_any(),
            status.state,
            status.endpoints_up,
            status.message
        ));
    }
    lines.join("\n")
}

/// All hosts.
///
/// # Errors
/// The API can not be read.
pub async fn hosts(client: &Client) -> Result<Vec<Host>> {
    Ok(Api::all(client.clone())
        .list(&Default::default())
        .await?
        .items)
}

/// All VMs.
///
/// # Errors
/// The API can not be read.
pub async fn vms(client: &Client) -> Result<Vec<VirtualMachine>> {
    Ok(Api::all(client.clone())
        .list(&Default::default())
        .await?
        .items)
}

/// All business systems.
///
/// # Errors
/// The API can not be read.
pub async fn systems(client: &Client) -> Result<Vec<BusinessSystem>> {
    Ok(Api::all(client.clone())
        .list(&Default::default())
        .await?
        .items)
}

/// State of a host.
///
/// # Errors
/// The API can not be read.
pub async fn host_state(client: &Client, host: &str) -> Result<Option<HostState>> {
    let host: Host = Api::all(client.clone()).get(host).await?;
    Ok(host.status.and_then(|status| status.state))
}

/// VMs assigned to a host.
///
/// # Errors
/// The API can not be read.
pub async fn on_host(client: &Client, host: &str) -> Result<Vec<VirtualMachine>> {
    let assigned = |vm: &VirtualMachine| {
        vm.status
            .as_ref()
            .and_then(|status| status.assignment.as_ref())
            .is_some_and(|right| right.host.as_str() == host)
    };
    Ok(vms(client).await?.into_iter().filter(assigned).collect())
}

/// Whether a VM is shown as Running.
pub fn runs(vm: &VirtualMachine) -> bool {
    vm.status.as_ref().and_then(|status| status.phase) == Some(VirtualMachinePhase::Running)
}

fn says_ready(system: &BusinessSystem) -> bool {
    let status = system.status.as_ref();
    status.is_some_and(|status| status.state == "Ready")
}

/// Whether every business system is Ready and every VM runs.
///
/// # Errors
/// The API can not be read.
pub async fn all_well(client: &Client, systems_wanted: usize) -> Result<bool> {
    let systems = systems(client).await?;
    let ready = systems.iter().filter(|system| says_ready(system)).count();
    Ok(ready == systems_wanted
        && systems.len() == systems_wanted
        && vms(client).await?.iter().all(runs))
}

/// State of the N+1 proof of the lab's pool.
///
/// # Errors
/// The API can not be read.
pub async fn headroom(client: &Client) -> Result<String> {
    let pool: HostPool = Api::all(client.clone()).get("main").await?;
    Ok(pool
        .status
        .and_then(|status| status.headroom)
        .map(|headroom| headroom.state)
        .unwrap_or_default())
}

/// Whether a host is Ready.
pub fn is_ready(host: &Host) -> bool {
    host.status.as_ref().and_then(|status| status.state) == Some(HostState::Ready)
}

/// The Ready host that carries most VMs.
///
/// # Errors
/// The API can not be read, or no host carries a VM.
pub async fn busy_host(client: &Client) -> Result<String> {
    busiest(client, is_ready).await
}

/// The host that carries most VMs of those that may be chosen.
///
/// # Errors
/// The API can not be read, or none of them carries a VM.
pub async fn busiest(client: &Client, may: impl Fn(&Host) -> bool) -> Result<String> {
    let mut best = (0, String::new());
    for host in hosts(client).await?.iter().filter(|host| may(host)) {
        let count = on_host(client, &host.name_any()).await?.len();
        if count > best.0 {
            best = (count, host.name_any());
        }
    }
    ensure!(best.0 > 0, "no host carries a VM");
    Ok(best.1)
}

/// Waits until every host is Ready, every VM runs and so many systems answer. Incidents may stand open yet.
///
/// # Errors
/// They do not become so.
pub async fn until_well(client: &Client, systems: usize) -> Result<()> {
    until(client, "all to be well", async || {
        Ok(all_well(client, systems).await? && hosts(client).await?.iter().all(is_ready))
    })
    .await
    .map(drop)
}

/// Whether a host reports a fault of its storage.
///
/// # Errors
/// The API does not answer.
pub async fn says_storage(client: &Client, host: &str) -> Result<bool> {
    let api: Api<Host> = Api::all(client.clone());
    let host = api.get(host).await?;
    let faults = host.reported().map(|report| &report.faults);
    let mut all = faults.into_iter().flatten();
    Ok(all.any(|fault| fault.component.starts_with("storage")))
}

/// Waits until a host is Ready.
///
/// # Errors
/// It does not become so.
pub async fn until_ready(client: &Client, host: &str) -> Result<()> {
    until(client, &format!("host {host} to be Ready"), async || {
        Ok(host_state(client, host).await? == Some(HostState::Ready))
    })
    .await
    .map(drop)
}

/// Every move that was ever asked for.
///
/// # Errors
/// The API could not be read.
pub async fn migrations(client: &Client) -> Result<Vec<VirtualMachineMigration>> {
    let api: Api<VirtualMachineMigration> = Api::all(client.clone());
    Ok(api.list(&Default::default()).await?.items)
}

/// The names of the VMs that are assigned to a host.
///
/// # Errors
/// The API could not be read.
pub async fn names_on(client: &Client, host: &str) -> Result<Vec<String>> {
    let vms = on_host(client, host).await?;
    Ok(vms.iter().map(|vm| vm.name_any()).collect())
}
