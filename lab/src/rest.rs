//! Whether a site is at rest: what is not as it should be, one sentence each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::{
    BusinessSystem, Host, HostState, Incident, VirtualMachine, VirtualMachineMigration,
    VirtualMachinePhase,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::host;
use crate::lifecycle::Lab;

/// Longest time for a site to come to rest by [`settle`].
const SETTLE: Duration = Duration::from_secs(300);
/// How often a site is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often a person does what is to be done meanwhile.
const TEND: Duration = Duration::from_secs(3);

/// What keeps the site from rest: hosts that are not Ready, VMs that do not run or are moving,
/// systems that do not answer, moves and Incidents that have not ended. Empty: it is at rest.
///
/// # Errors
/// The API can not be read.
pub async fn unrest(client: &Client) -> Result<Vec<String>> {
    let mut what = Vec::new();
    let hosts: Vec<Host> = list(client).await?;
    for host in &hosts {
        let status = host.status.clone().unwrap_or_default();
        if status.state != Some(HostState::Ready) {
            what.push(format!(
                "host {}: {:?} {}",
                host.name_any(),
                status.state,
                status.state_reason.unwrap_or_default()
            ));
        }
    }
    let machines: Vec<VirtualMachine> = list(client).await?;
    for vm in &machines {
        let status = vm.status.clone().unwrap_or_default();
        if status.phase != Some(VirtualMachinePhase::Running) || status.incoming.is_some() {
            what.push(format!(
                "VM {}: {:?} {}",
                vm.name_any(),
                status.phase,
                status.message.unwrap_or_default()
            ));
        }
    }
    let systems: Vec<BusinessSystem> = list(client).await?;
    for system in &systems {
        let status = system.status.clone().unwrap_or_default();
        if status.state != "Ready" {
            what.push(format!(
                "system {}: {} {} {}",
                system.name_any(),
                status.state,
                status.endpoints_up,
                status.message
            ));
        }
    }
    if systems.is_empty() {
        what.push("there is no business system yet".to_owned());
    }
    let moves: Vec<VirtualMachineMigration> = list(client).await?;
    for migration in &moves {
        let status = migration.status.clone().unwrap_or_default();
        if status.finished_at.is_none() {
            what.push(format!(
                "move of {}: {:?}",
                migration.spec.virtual_machine, status.phase
            ));
        }
    }
    let incidents: Vec<Incident> = list(client).await?;
    for incident in &incidents {
        let state = incident.status.clone().unwrap_or_default().state;
        if state != "Closed" {
            what.push(format!("incident {}: {state}", incident.spec.cause));
        }
    }
    Ok(what)
}

async fn list<K>(client: &Client) -> Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    Ok(Api::all(client.clone())
        .list(&Default::default())
        .await?
        .items)
}

/// What a person does once all faults are healed: switches on what is off, and clears hosts that are
/// quarantined for what was mended. A host that is being forced off is left alone until that is proven
/// (runbook HostUnreachable): on again meanwhile, it would be forced off once more.
///
/// # Errors
/// A host can not be started, or the API server refuses.
pub async fn tend(lab: &Lab) -> Result<()> {
    let api: Api<Host> = Api::all(lab.client.clone());
    let hosts = api.list(&Default::default()).await?.items;
    let being_fenced = |name: &str| {
        let state = |host: &Host| host.status.as_ref().and_then(|status| status.state);
        let fencing = Some(HostState::Fencing);
        hosts
            .iter()
            .any(|host| host.name_any() == name && state(host) == fencing)
    };
    for name in lab.hosts()? {
        if !host::is_on(&lab.files, &name) && !being_fenced(&name) {
            host::power_on(&lab.files, &name)?;
        }
    }
    for host in hosts {
        let state = host.status.as_ref().and_then(|status| status.state);
        if state == Some(HostState::Quarantined) {
            let person = api::signer(lab.client.clone())
                .await?
                .context("the API server does not say who this client is")?;
            let clearance = json!({"spec": {"faultClearance": {
                "at": jiff::Timestamp::now().to_string(), "reason": "mended", "by": person}}});
            api.patch(
                &host.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&clearance),
            )
            .await?;
        }
    }
    Ok(())
}

/// Waits for rest; `tend` is called every few seconds, for what a person does meanwhile. Returns what
/// was still wrong after `patience`: empty when the site came to rest.
pub async fn wait(client: &Client, patience: Duration, mut tend: impl AsyncFnMut()) -> Vec<String> {
    let begin = Instant::now();
    let mut tended: Option<Instant> = None;
    loop {
        if tended.is_none_or(|last| last.elapsed() > TEND) {
            tended = Some(Instant::now());
            tend().await;
        }
        // Without the API server nothing is known.
        let what = unrest(client)
            .await
            .unwrap_or_else(|error| vec![format!("{error:#}")]);
        if what.is_empty() || begin.elapsed() > patience {
            return what;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Mends what a person would (hosts that are off, quarantines) and waits until the site is at rest.
///
/// # Errors
/// What was still wrong after five minutes.
pub async fn settle(lab: &Lab) -> Result<()> {
    let mut refused = None;
    let what = wait(&lab.client, SETTLE, async || {
        // While the API server starts it refuses; the next look tries again.
        refused = tend(lab).await.err();
    })
    .await;
    ensure!(what.is_empty(), "no rest: {}; {refused:?}", what.join("; "));
    Ok(())
}
