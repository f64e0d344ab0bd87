//! Step 2 of the story: memory errors rise, the host is quarantined and emptied by live migration, and
//! nobody notices. The prober judges: every probe answered, every open connection held.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::HostState;
use judge::report::{Report, Window};
use lab::{Fault, Lab, judges};

use crate::story::{SYSTEMS, Teller};
use crate::watch::{all_well, busy_host, host_state, migrations, names_on, on_host, until};

/// How long every probe must have been answered before the site counts as calm.
const CALM: Duration = Duration::from_secs(15);
/// When the machine itself stands still, probes of VMs that do not move are lost too; a move may then
/// not be told from it, unless it stopped its VM for so long.
const STOPPED_SECONDS: f64 = 3.0;

/// Plays the step.
///
/// # Errors
/// A migration failed, a probe was lost, a connection broke, a guest rebooted.
pub(crate) async fn play(lab: &Lab, teller: &Teller) -> Result<()> {
    calm(lab).await?;
    let host = busy_host(&lab.client).await?;
    let moved = names_on(&lab.client, &host).await?;
    teller.say(&format!(
        "2. Memory errors rise on {host}, which runs {}",
        moved.join(", ")
    ));
    let from = judges::now();
    lab.fault(Some(&host), Fault::MemoryErrors)?;
    empty(lab, teller, &host).await?;
    tell_migrations(lab, teller).await?;
    // The judge looks a while longer: a late failure is one too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let to = judges::now();
    let report = judges::judge_probes(&lab.files, Window { from, to })?;
    tell(teller, &report);
    judge_moves(&report, &moved)?;
    until(
        &lab.client,
        "every system to answer after the moves",
        async || all_well(&lab.client, SYSTEMS).await,
    )
    .await
    .map(drop)
}

/// Twelve guests that boot on two processors answer late; what is judged is the move, not their boot.
async fn calm(lab: &Lab) -> Result<()> {
    let begin = judges::now();
    until(&lab.client, "every probe to be answered", async || {
        let to = judges::now();
        let from = to.saturating_sub(u64::try_from(CALM.as_nanos()).unwrap_or(u64::MAX));
        let report = judges::judge_probes(&lab.files, Window { from, to })?;
        let quiet =
            |endpoint: &judge::report::Availability| endpoint.probes > 0 && endpoint.failures == 0;
        Ok(from >= begin && report.endpoints.values().all(quiet))
    })
    .await
    .map(drop)
}

async fn empty(lab: &Lab, teller: &Teller, host: &str) -> Result<()> {
    let quarantined = until(&lab.client, "the quarantine", async || {
        Ok(host_state(&lab.client, host).await? == Some(HostState::Quarantined))
    })
    .await?;
    teller.say(&format!(
        "   quarantined after {:.1} s",
        quarantined.as_secs_f64()
    ));
    until(&lab.client, "the host to be empty", async || {
        Ok(on_host(&lab.client, host).await?.is_empty())
    })
    .await?;
    until(&lab.client, "every migration to end", async || {
        Ok(migrations(&lab.client).await?.iter().all(|migration| {
            migration
                .status
                .as_ref()
                .is_some_and(|status| status.finished_at.is_some())
        }))
    })
    .await
    .map(drop)
}

async fn tell_migrations(lab: &Lab, teller: &Teller) -> Result<()> {
    for migration in migrations(&lab.client).await? {
        let status = migration.status.clone().unwrap_or_default();
        let vm = &migration.spec.virtual_machine;
        ensure!(
            status.phase == api::MigrationPhase::Succeeded,
            "migration of {vm}: {:?} {:?}",
            status.phase,
            status.message
        );
        let (pause, total) = status
            .pause_milliseconds
            .zip(status.total_milliseconds)
            .with_context(|| format!("the pause of {vm}'s move was not measured"))?;
        teller.say(&format!(
            "   {vm}: moved, guest stood still {pause} ms, {total} ms in all"
        ));
    }
    Ok(())
}

fn boots(report: &Report) -> BTreeMap<String, usize> {
    report
        .guests
        .iter()
        .map(|(name, witness)| (name.clone(), witness.boots.len()))
        .collect()
}

fn tell(teller: &Teller, report: &Report) {
    let failures: usize = report.replicas.values().map(|target| target.failures).sum();
    let probes: usize = report.replicas.values().map(|target| target.probes).sum();
    teller.say(&format!(
        "   the prober: {probes} probes, {failures} failed; {} guests rebooted",
        boots(report).values().filter(|count| **count > 1).count()
    ));
    for (name, target) in &report.replicas {
        if target.failures > 0 {
            teller.say(&format!(
                "   {name}: {} of {} failed, {:?}",
                target.failures, target.probes, target.errors
            ));
        }
    }
}

/// A VM that moved was never down for longer than a probe's patience, its open connections were held, no guest
/// rebooted. A probe that is lost is told above: emulated guests on two processors with everything else may take a
/// second to answer (decision 0009), and how often is `make bench`'s to measure.
fn judge_moves(report: &Report, moved: &[String]) -> Result<()> {
    let is_moved = |target: &str| {
        target
            .split_once('@')
            .is_some_and(|(_, vm)| moved.iter().any(|name| name == vm))
    };
    let others_lost = (report.replicas.iter())
        .filter(|(target, _)| !is_moved(target))
        .any(|(_, answers)| answers.failures > 0);
    for (target, answers) in report.replicas.iter().filter(|(name, _)| is_moved(name)) {
        ensure!(
            answers.failures <= 1 || (others_lost && answers.downtime_seconds < STOPPED_SECONDS),
            "{target} lost {} of {} probes during its live migration and was down for {:.1} s: {:?}",
            answers.failures,
            answers.probes,
            answers.downtime_seconds,
            answers.errors
        );
    }
    for vm in moved {
        let own = |target: &&String| target.split_once('@').is_some_and(|(_, name)| name == vm);
        let mut held = report
            .holds
            .iter()
            .filter(|(target, _)| own(target))
            .peekable();
        ensure!(
            held.peek().is_some() || !report.replicas.keys().any(|target| own(&target)),
            "no connection to {vm} was held"
        );
        for (target, hold) in held {
            ensure!(
                hold.broken.is_empty() && hold.connections == 1 && hold.lines > 0,
                "an open connection to {target} did not survive the live migration: {hold:?}"
            );
        }
    }
    for vm in moved {
        // A guest without an endpoint is asked by nobody.
        let Some(witness) = report.guests.get(vm) else {
            let asked = |target: &String| target.ends_with(&format!("@{vm}"));
            ensure!(!report.replicas.keys().any(asked), "{vm} told no uptime");
            continue;
        };
        ensure!(
            witness.uptime_went_back.is_none() && witness.uptime_grew_seconds > 0.0,
            "{vm} did not run through its live migration: its uptime grew by {:.1} s, {:?}",
            witness.uptime_grew_seconds,
            witness.uptime_went_back
        );
    }
    ensure!(
        boots(report).values().all(|count| *count <= 1),
        "a guest rebooted during a live migration: {:?}",
        boots(report)
    );
    Ok(())
}
