//! A fan that stands still, of a host whose BMC speaks IPMI alone: read by the real ipmitool from the real
//! `ipmi_sim`, reported by the host, acted on, and gone once it is mended.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use api::{BmcProtocol, Host, HostState};
use kube::{Api, ResourceExt};
use lab::{Fault, Lab, rest};
use model::{FaultKind, Severity};

use crate::command::{clear, zyctl};
use crate::watch::{busy_host, full_name, host_state, hosts, on_host, until};

/// How often a mended host is cleared until its fault is gone: what is seen once more before the next look at
/// the mended fan counts again.
const CLEAR_EVERY: Duration = Duration::from_secs(3);

/// Whether a host's BMC is declared by IPMI and by nothing else.
pub fn is_read_over_ipmi(host: &Host) -> bool {
    let bmcs = &host.spec.bmcs;
    !bmcs.is_empty() && bmcs.iter().all(|bmc| bmc.protocol == BmcProtocol::Ipmi)
}

/// Faults of fans that a host reports.
async fn reported(lab: &Lab, host: &str) -> Result<Vec<model::Fault>> {
    let host: Host = Api::all(lab.client.clone()).get(host).await?;
    let report = host.status.unwrap_or_default().reported;
    let mut faults = report.context("a host reports")?.faults;
    faults.retain(|fault| fault.kind == FaultKind::Fan);
    Ok(faults)
}

/// The fan's fault is reported as Degraded, in the words of IPMI; the host is quarantined and emptied; mended
/// and cleared, it reports no fault and the site is at rest.
///
/// # Errors
/// No host is read over IPMI, or what came differently.
pub async fn a_fan_stands_still_over_ipmi(lab: &Lab) -> Result<()> {
    let client = &lab.client;
    let all = hosts(client).await?;
    let host = all.iter().find(|host| is_read_over_ipmi(host));
    let host = host.context("no host is read over IPMI alone")?.name_any();
    let before = reported(lab, &host).await?;
    ensure!(before.is_empty(), "{host} has faults of fans: {before:?}");
    let moves = somebody_runs_on(lab, &host).await?;
    lab.fault(Some(&host), Fault::Fan)?;
    let mut faults = Vec::new();
    let took = until(client, "a fan's fault over IPMI", async || {
        faults = reported(lab, &host).await?;
        Ok(!faults.is_empty())
    })
    .await?;
    let [fault] = faults.as_slice() else {
        bail!("one fan of {host} stands still, reported are {faults:?}");
    };
    // The state of a sensor (lower critical) is told by IPMI only.
    ensure!(
        fault.component == "fan/Fan-1"
            && fault.severity == Severity::Degraded
            && fault.evidence == "BMC: Fan 1 is 0.0 RPM, state lcr",
        "{fault:?}"
    );
    until(client, "the quarantine for a fan", async || {
        Ok(host_state(client, &host).await? == Some(HostState::Quarantined))
    })
    .await?;
    until(client, "the host to be emptied for a fan", async || {
        Ok(on_host(client, &host).await?.is_empty())
    })
    .await?;
    lab.heal(Some(&host), Fault::Fan)?;
    let mut cleared: Option<Instant> = None;
    until(client, "the fan's fault to be gone", async || {
        if cleared.is_none_or(|last| last.elapsed() > CLEAR_EVERY) {
            clear(lab, &host, "fan replaced")?;
            cleared = Some(Instant::now());
        }
        Ok(reported(lab, &host).await?.is_empty()
            && host_state(client, &host).await? == Some(HostState::Ready))
    })
    .await?;
    rest::settle(lab).await?;
    println!(
        "a fan of {host} stood still: told over IPMI after {:.1} s, {host} emptied of {moves} VMs, mended and taken back",
        took.as_secs_f64()
    );
    Ok(())
}

/// How many VMs run there; one is moved there when none does.
async fn somebody_runs_on(lab: &Lab, host: &str) -> Result<usize> {
    let client = &lab.client;
    if on_host(client, host).await?.is_empty() {
        let from = busy_host(client).await?;
        let vm = on_host(client, &from).await?;
        let vm = vm.first().context("a VM on the busiest host")?;
        let name = full_name(vm);
        zyctl(lab, &["migrate", &name, "--to", host])?;
    }
    let count = on_host(client, host).await?.len();
    ensure!(count > 0, "no VM runs on {host}");
    Ok(count)
}
