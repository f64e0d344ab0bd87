//! Measures what users wait for: detection, proof, decision and start after power cuts and hangs,
//! live migrations and what they cost a client, the agent's size, writes of an idle site.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::{
    HostState, Incident, MigrationPhase, VirtualMachineMigration, VirtualMachineMigrationSpec,
};
use clap::Parser;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use lab::{Fault, Lab, LabOptions, guest, judges};

use crate::footprint::{self, processor_time, tell_taken};
use crate::ledger::incidents;
use crate::recovery::{self, Times};
use crate::stolen::{Stolen, TOO_MUCH};
use crate::story::{self, SYSTEMS, Teller, check_programs};
use crate::watch::{all_well, busy_host, host_state, until, vms};

/// Name of the lab that is measured.
pub const LAB: &str = "bench";

/// A VM's process that starts elsewhere later than this is told with its reasons, seconds: the bar for a hang.
const LATE: f64 = 15.0;

/// What is measured, and how often.
#[derive(Clone, Debug, Parser)]
#[command(version, about = "Measures a lab")]
pub struct Options {
    /// Power cuts.
    #[arg(long, default_value_t = 10)]
    pub cuts: u32,
    /// Kernel hangs.
    #[arg(long, default_value_t = 10)]
    pub hangs: u32,
    /// Live migrations.
    #[arg(long, default_value_t = 20)]
    pub migrations: u32,
    /// Do not watch the idle site and the agents.
    #[arg(long)]
    pub no_idle: bool,
    /// Numbers of VMs with which an agent's size is measured; they are in memory and run nothing.
    #[arg(long, value_delimiter = ',', default_value = "1,20,50")]
    pub agent_vms: Vec<u16>,
}

/// Runs every measurement and prints its table.
///
/// # Errors
/// Something that was to be measured did not happen.
pub async fn run(options: Options) -> Result<()> {
    check_programs()?;
    let begin = Instant::now();
    let lab = Lab::up(LabOptions {
        name: LAB.to_owned(),
        ..LabOptions::default()
    })
    .await?;
    println!(
        "lab up (control plane, API, four hosts): {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    if let Some(took) = lab.api_ready {
        println!("fresh control plane: /readyz: {:.1} s", took.as_secs_f64());
    }
    // Built once and kept: no part of what is measured.
    guest::build()?;
    let begin = Instant::now();
    story::deploy(&lab, &Teller::new(false)).await?;
    println!(
        "kubectl apply -> every system Ready: {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    judges::start_prober(&lab.files, &lab.client).await?;
    if !options.no_idle {
        idle(&lab).await?;
    }
    if options.migrations > 0 {
        migrations(&lab, options.migrations).await?;
    }
    for (count, fault, what) in [
        (options.cuts, Fault::PowerLoss, "power cut"),
        (options.hangs, Fault::KernelHang, "kernel hang"),
    ] {
        if count > 0 {
            tell_failures(what, &failures(&lab, count, fault).await?);
        }
    }
    let verdicts = judges::judge_disks(&lab.files, &lab.client).await?;
    for (volume, verdict) in &verdicts {
        ensure!(
            verdict.is_clean(),
            "data disk of {volume}: {:?}",
            verdict.problems
        );
    }
    println!("data disks judged clean: {}", verdicts.len());
    judges::stop_prober(&lab.files)?;
    lab.down()?;
    for vms in options.agent_vms {
        footprint::of_agent(vms).await?;
    }
    Ok(())
}

/// The p-th percentile of what was measured, by the nearest rank.
pub(crate) fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (p / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

fn row(what: &str, values: &[f64], unit: &str) {
    if values.is_empty() {
        println!("  {what:<44} nothing was measured");
        return;
    }
    println!(
        "  {what:<44} p50 {:>8.1} {unit}   p95 {:>8.1} {unit}   n {}",
        percentile(values, 50.0),
        percentile(values, 95.0),
        values.len()
    );
}

/// Moves VMs one after another and counts what a client loses.
async fn migrations(lab: &Lab, count: u32) -> Result<()> {
    let (mut pauses, mut totals, mut silent) = (vec![], vec![], vec![]);
    let (mut failed, mut probes, mut lost) = (0, 0, 0);
    let machines = vms(&lab.client).await?;
    for vm in machines.iter().cycle().take(usize::try_from(count)?) {
        let from = judges::now();
        let status = migrate(&lab.client, vm).await?;
        if status.phase == MigrationPhase::Succeeded {
            let measured = |value: Option<i64>| {
                let name = vm.name_any();
                let value = value.with_context(|| format!("the move of {name} was not measured"));
                value.map(|milliseconds| milliseconds as f64)
            };
            pauses.push(measured(status.pause_milliseconds)?);
            totals.push(measured(status.total_milliseconds)? / 1000.0);
        } else {
            failed += 1;
            println!(
                "  {}: {:?} {}",
                vm.name_any(),
                status.phase,
                status.message.unwrap_or_default()
            );
        }
        // A probe that began before the end may fail a time-out later.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let report = judges::judge_since(&lab.files, from)?;
        let own = format!("@{}", vm.name_any());
        let replicas = report.replicas.iter();
        let silences = replicas.filter(|(name, _)| name.ends_with(&own));
        silent.extend(silences.map(|(_, seen)| seen.longest_gap_seconds * 1000.0));
        for (name, endpoint) in &report.endpoints {
            probes += endpoint.probes;
            lost += endpoint.failures;
            if endpoint.failures > 0 {
                println!(
                    "  {} moved: {name} lost {} of {} probes, {:?}",
                    vm.name_any(),
                    endpoint.failures,
                    endpoint.probes,
                    endpoint.errors
                );
            }
        }
    }
    println!("{count} live migrations, {failed} failed; {lost} of {probes} probes lost");
    row("the guest stands still until its hand-over", &pauses, "ms");
    row("longest time between answers, by prober", &silent, "ms");
    row("whole move", &totals, "s");
    Ok(())
}

async fn migrate(
    client: &Client,
    vm: &api::VirtualMachine,
) -> Result<api::VirtualMachineMigrationStatus> {
    let namespace = vm.namespace().unwrap_or_default();
    let api: Api<VirtualMachineMigration> = Api::namespaced(client.clone(), &namespace);
    let migration = VirtualMachineMigration {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", vm.name_any())),
            ..ObjectMeta::default()
        },
        spec: VirtualMachineMigrationSpec {
            virtual_machine: vm.name_any(),
            target_host: None,
            reason: Default::default(),
            cancel: false,
        },
        status: None,
    };
    let name = api
        .create(&PostParams::default(), &migration)
        .await?
        .name_any();
    let mut ended = None;
    until(client, "the migration to end", async || {
        ended = api
            .get(&name)
            .await?
            .status
            .filter(|status| status.finished_at.is_some());
        Ok(ended.is_some())
    })
    .await?;
    ended.context("the migration ended")
}

/// What so many failures of hosts took.
#[derive(Default)]
pub(crate) struct Failures {
    /// The times of each that counts.
    pub(crate) times: Vec<Times>,
    /// How many were played again, as this machine itself was held up.
    pub(crate) held_up: usize,
}

/// Lets so many hosts fail one after another; each returns before the next fails. A round in which the machine
/// itself was held up is told, played again and not counted; so many may be.
pub(crate) async fn failures(lab: &Lab, count: u32, fault: Fault) -> Result<Failures> {
    let mut all = Failures::default();
    let count = count as usize;
    while all.times.len() < count {
        let round = all.times.len() + 1;
        let host = busy_host(&lab.client).await?;
        let from = judges::now();
        let stolen = Stolen::since_now()?;
        lab.fault(Some(&host), fault)?;
        let mut times = recovery::follow(&lab.client, &host, SYSTEMS, || Ok(())).await?;
        times.oa_answered = recovery::oa_answered(lab, &times, from).await?;
        let stolen = stolen.share()?;
        eprintln!(
            "  {round} of {count}, {host}: proven after {:.1} s, process elsewhere {:.1} s, all answers {:.1} s; {:.0} % of the processors' time was stolen",
            times.proven,
            times.started,
            times.answered,
            stolen * 100.0
        );
        if times.started > LATE {
            tell_why(lab, &host).await?;
        }
        if stolen <= TOO_MUCH {
            all.times.push(times);
        } else {
            all.held_up += 1;
            eprintln!(
                "    not counted, {} so far: this machine was held up by its own host",
                all.held_up
            );
            ensure!(
                all.held_up <= count,
                "this machine is held up by its own host (steal in /proc/stat): measure on another, or later"
            );
        }
        lab.heal(Some(&host), Fault::PowerLoss)?;
        until(&lab.client, "the host to return", async || {
            Ok(
                host_state(&lab.client, &host).await? == Some(HostState::Ready)
                    && all_well(&lab.client, SYSTEMS).await?,
            )
        })
        .await?;
    }
    Ok(all)
}

/// Why a host's VMs were late elsewhere, as the fault ledger tells it.
async fn tell_why(lab: &Lab, host: &str) -> Result<()> {
    let found = incidents(lab).await?;
    let of_host = |incident: &&Incident| incident.spec.host.as_deref() == Some(host);
    let last = found.iter().rfind(of_host);
    let status = last.and_then(|incident| incident.status.as_ref());
    for entry in status.iter().flat_map(|status| &status.timeline) {
        eprintln!("    {} {:?}: {}", entry.at.0, entry.kind, entry.text);
    }
    Ok(())
}

fn tell_failures(what: &str, failures: &Failures) {
    let all = &failures.times;
    let held_up = failures.held_up;
    println!(
        "{} times {what}, from the fault ({held_up} more not counted: the machine was held up):",
        all.len()
    );
    let column = |field: fn(&Times) -> f64| all.iter().map(field).collect::<Vec<f64>>();
    let some =
        |field: fn(&Times) -> Option<f64>| all.iter().filter_map(field).collect::<Vec<f64>>();
    row("Suspect (detect)", &column(|times| times.suspect), "s");
    row(
        "Unreachable, where shown",
        &some(|times| times.unreachable),
        "s",
    );
    row("proven stopped (prove)", &column(|times| times.proven), "s");
    row(
        "assigned elsewhere (decide)",
        &column(|times| times.decided),
        "s",
    );
    row(
        "first VM process elsewhere (start)",
        &column(|times| times.started),
        "s",
    );
    row(
        "every OA endpoint answers, where one did not",
        &some(|times| times.oa_answered),
        "s",
    );
    row(
        "every endpoint of every system answers",
        &column(|times| times.answered),
        "s",
    );
}

/// Writes of the idle site, and what the programs take.
async fn idle(lab: &Lab) -> Result<()> {
    let (before, begin) = (requests(&lab.client).await?, Instant::now());
    let ticks = processor_time(lab)?;
    tokio::time::sleep(footprint::OBSERVED).await;
    let (after, minutes) = (
        requests(&lab.client).await?,
        begin.elapsed().as_secs_f64() / 60.0,
    );
    println!(
        "idle site, four hosts, twelve VMs, over {:.0} s:",
        footprint::OBSERVED.as_secs_f64()
    );
    for (resource, count) in &after {
        let more = count
            - before
                .iter()
                .find(|(known, _)| known == resource)
                .map_or(0.0, |(_, count)| *count);
        if more > 0.0 {
            println!("  {:<44} {:>8.1} writes/min", resource, more / minutes);
        }
    }
    tell_taken(lab, &ticks, begin)?;
    Ok(())
}

/// Mutating requests that the API server has served, by resource.
async fn requests(client: &Client) -> Result<Vec<(String, f64)>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = client.request_text(request).await?;
    let mut sums = std::collections::BTreeMap::<String, f64>::new();
    for line in text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let verb = label("verb").unwrap_or_default();
        let value = line
            .rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        if ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb.as_str()) {
            *sums
                .entry(label("resource").unwrap_or_default())
                .or_default() += value.unwrap_or(0.0);
        }
    }
    Ok(sums.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values_by_the_nearest_rank() {
        let values = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert_eq!(percentile(&values, 50.0), 3.0);
        assert_eq!(percentile(&values, 95.0), 5.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
