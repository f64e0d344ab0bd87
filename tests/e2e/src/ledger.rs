//! The product's fault ledger, told, and held against the prober.

use anyhow::{Result, ensure};
use api::Incident;
use kube::Api;
use lab::Lab;

use crate::story::Teller;
use crate::watch::until;

/// Incident and prober agree within a second.
const AGREE_SECONDS: f64 = 1.0;

/// The Incident's downtime of each system against the prober's. Time that the operator did not
/// observe, because it was killed meanwhile, may have been either.
pub(crate) async fn ledger_agrees(
    lab: &Lab,
    teller: &Teller,
    host: &str,
    report: &judge::report::Report,
) -> Result<()> {
    let mut found = None;
    until(&lab.client, "the Incident to be recovered", async || {
        let incidents: Vec<Incident> = Api::all(lab.client.clone())
            .list(&Default::default())
            .await?
            .items;
        found = incidents
            .into_iter()
            .filter(|incident| {
                incident.spec.cause.starts_with("host-silent/")
                    && incident.spec.host.as_deref() == Some(host)
            })
            .max_by_key(|incident| incident.spec.opened_at.0);
        Ok(found.as_ref().is_some_and(|incident| {
            incident
                .status
                .as_ref()
                .is_some_and(|status| status.recovered_at.is_some())
        }))
    })
    .await?;
    let status = found
        .and_then(|incident| incident.status)
        .unwrap_or_default();
    ensure!(
        !status.systems.is_empty(),
        "the Incident of {host} names no system"
    );
    for system in &status.systems {
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
            "{}: the Incident says {least:.1} to {most:.1} s, the prober {probed:.1} s",
            system.name
        );
    }
    Ok(())
}

/// What the product's own ledger says.
pub(crate) async fn tell_ledger(lab: &Lab, teller: &Teller) -> Result<()> {
    let incidents: Vec<Incident> = Api::all(lab.client.clone())
        .list(&Default::default())
        .await?
        .items;
    ensure!(
        incidents.len() >= 3,
        "{} incidents for three faults",
        incidents.len()
    );
    teller.say("7. The fault ledger");
    for incident in &incidents {
        let status = incident.status.clone().unwrap_or_default();
        teller.say(&format!("   {} [{}]", incident.spec.title, status.state));
        for entry in &status.timeline {
            teller.say(&format!(
                "     {} {:?}: {}",
                entry.at.0.strftime("%H:%M:%S%.3f"),
                entry.kind,
                entry.text
            ));
        }
        for system in &status.systems {
            teller.say(&format!(
                "     {}: down {:.1} s, not observed {:.1} s",
                system.display_name, system.downtime_seconds, system.unobserved_seconds
            ));
        }
    }
    Ok(())
}
