//! The product's fault ledger, told, and held against the prober.

use anyhow::{Context as _, Result, ensure};
use api::Incident;
use judge::report::{Report, Window};
use kube::{Api, ResourceExt};
use lab::{Lab, judges};

use crate::command::zyctl;
use crate::story::Teller;
use crate::watch::until;

/// Incident and prober agree within a second.
const AGREE_SECONDS: f64 = 1.0;
/// A fault is noticed and its Incident opened within so long, nanoseconds: the time-out of a silent host
/// and what a loaded machine adds. What failed before is no downtime of it.
const NOTICED_WITHIN: u64 = 10_000_000_000;

/// Every Incident, the oldest first.
///
/// # Errors
/// The API can not be read.
pub async fn incidents(lab: &Lab) -> Result<Vec<Incident>> {
    let api: Api<Incident> = Api::all(lab.client.clone());
    let mut incidents = api.list(&Default::default()).await?.items;
    incidents.sort_by_key(|incident| incident.spec.opened_at.0);
    Ok(incidents)
}

fn recovered_at(incident: &Incident) -> Option<u64> {
    let status = incident.status.as_ref()?;
    nanoseconds(status.recovered_at.as_ref()?.0)
}

fn nanoseconds(at: jiff::Timestamp) -> Option<u64> {
    u64::try_from(at.as_nanosecond()).ok()
}

/// The Incident of a host that died, once its systems answer again, against a report of the prober that
/// begins with the fault.
///
/// # Errors
/// There is none, it names no system, or its downtime is another than the prober's.
pub(crate) async fn ledger_agrees(
    lab: &Lab,
    teller: &Teller,
    host: &str,
    report: &Report,
) -> Result<()> {
    let mut found = None;
    until(&lab.client, "the Incident to be recovered", async || {
        let own = |incident: &Incident| {
            incident.spec.cause.starts_with("host-silent/")
                && incident.spec.host.as_deref() == Some(host)
        };
        found = incidents(lab).await?.into_iter().rfind(own);
        Ok(found
            .as_ref()
            .is_some_and(|own| recovered_at(own).is_some()))
    })
    .await?;
    let incident = found.context("the Incident was seen")?;
    let status = incident.status.as_ref();
    ensure!(
        status.is_some_and(|status| !status.systems.is_empty()),
        "the Incident of {host} names no system"
    );
    agrees(teller, &incident, report)
}

/// Every Incident of the lab, each from before its fault was noticed until its systems answered.
///
/// # Errors
/// There is none, one does not recover, or its downtime is another than the prober's.
pub async fn whole_ledger_agrees(lab: &Lab, teller: &Teller) -> Result<()> {
    let mut all = Vec::new();
    until(&lab.client, "every Incident to be recovered", async || {
        all = incidents(lab).await?;
        Ok(all.iter().all(|incident| recovered_at(incident).is_some()))
    })
    .await?;
    ensure!(!all.is_empty(), "the fault ledger has no Incident");
    let names_some = |incident: &Incident| {
        let status = incident.status.as_ref();
        status.is_some_and(|status| !status.systems.is_empty())
    };
    let mut before = 0;
    for incident in &all {
        let opened = nanoseconds(incident.spec.opened_at.0).context("spec.openedAt")?;
        let to = recovered_at(incident).context("status.recoveredAt")?;
        // What an earlier Incident tells is not told again; one that names no system tells of no downtime.
        let from = opened
            .saturating_sub(NOTICED_WITHIN)
            .max(before)
            .min(opened);
        if names_some(incident) {
            before = before.max(to);
        }
        teller.say(&format!("   {}", incident.spec.title));
        let report = judges::judge_probes(&lab.files, Window { from, to })?;
        agrees(teller, incident, &report)?;
    }
    ensure!(
        all.iter().any(names_some),
        "no Incident names a system: nothing was compared"
    );
    Ok(())
}

/// An Incident's downtime of each system against the prober's. Time that the operator did not observe,
/// because it was killed meanwhile, may have been either.
fn agrees(teller: &Teller, incident: &Incident, report: &Report) -> Result<()> {
    for system in incident.status.iter().flat_map(|status| &status.systems) {
        let probed = report
            .systems
            .get(&system.name)
            .map_or(0.0, |system| system.downtime_seconds.max(0.0));
        let (least, most) = (
            system.downtime_seconds,
            system.downtime_seconds + system.unobserved_seconds,
        );
        teller.say(&format!(
            "   {}: down {least:.1} s by the Incident ({:.1} s unobserved), {probed:.1} s by the prober",
            system.display_name, system.unobserved_seconds
        ));
        ensure!(
            probed > least - AGREE_SECONDS && probed < most + AGREE_SECONDS,
            "{}: Incident {} says {least:.1} to {most:.1} s, the prober {probed:.1} s",
            system.name,
            incident.name_any()
        );
    }
    Ok(())
}

/// What the product's own ledger says, as a person reads it.
pub(crate) async fn tell_ledger(lab: &Lab, teller: &Teller) -> Result<()> {
    teller.say("7. The fault ledger against the prober");
    whole_ledger_agrees(lab, teller).await?;
    let incidents = incidents(lab).await?;
    ensure!(
        incidents.len() >= 3,
        "{} incidents for three faults",
        incidents.len()
    );
    teller.say("   zyctl incident list, and zyctl incident show of each:");
    let list = zyctl(lab, &["incident", "list"])?;
    teller.show(&list);
    for incident in &incidents {
        let name = incident.name_any();
        ensure!(
            list.contains(&name) && list.contains(&incident.spec.title),
            "zyctl incident list does not tell {name}:\n{list}"
        );
        let text = zyctl(lab, &["incident", "show", &name])?;
        teller.show(&text);
        let status = incident.status.clone().unwrap_or_default();
        for system in &status.systems {
            let told = format!("{:.1} s", system.downtime_seconds);
            let row = |line: &str| line.contains(&system.display_name) && line.contains(&told);
            ensure!(
                text.lines().any(row),
                "zyctl incident show {name} does not tell {told} of {}:\n{text}",
                system.display_name
            );
        }
        for entry in &status.timeline {
            ensure!(
                text.contains(&entry.text),
                "zyctl incident show {name} does not tell {:?}:\n{text}",
                entry.text
            );
        }
    }
    Ok(())
}
