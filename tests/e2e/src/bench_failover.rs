//! The bars of failover in one table: what was measured on a real lab, and by the simulation, beside
//! what is promised.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::{Host, HostState};
use clap::{Parser, ValueEnum};
use kube::Api;
use lab::{Fault, Lab, LabOptions, judges, rest};

use crate::bench::{Failures, failures, percentile};
use crate::command::clear;
use crate::recovery::Times;
use crate::standing::{guests, standing};
use crate::story::{self, Teller, check_programs};
use crate::watch::{busy_host, host_state, on_host, until, vms};

mod storm;

/// Name of the lab that is measured.
pub const LAB: &str = "benchf";
/// A missed renewal is shown within so long: interval, grace and a turn of the operator, seconds.
const SUSPECT: f64 = 3.5;
/// The time-out of 8 s, and a turn of the operator until it is shown, seconds.
const UNREACHABLE: f64 = 8.5;

/// One part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Random fault schedules through the production code.
    Schedules,
    /// The operator killed at every write of whole stories, in the simulation.
    OperatorDies,
    /// Power cuts.
    Cuts,
    /// Hangs while the BMC says On.
    Hangs,
    /// Power and BMC lost together.
    BmcDead,
    /// A hung host that is off by the time it would be forced off.
    AlreadyOff,
    /// Memory errors.
    Quarantine,
    /// The API server is down.
    ApiDown,
    /// Half of the hosts fall silent.
    HalfSilent,
}

impl Part {
    fn is_simulated(self) -> bool {
        matches!(self, Part::Schedules | Part::OperatorDies)
    }
}

/// What is measured, and how often.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    about = "Measures failover and prints one table beside the bars"
)]
pub struct Options {
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub parts: Vec<Part>,
    /// Power cuts.
    #[arg(long, default_value_t = 20)]
    pub cuts: u32,
    /// Hangs.
    #[arg(long, default_value_t = 20)]
    pub hangs: u32,
    /// Hosts whose power and BMC are lost together, hosts that are off already, and quarantines, of each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Minutes without the API server.
    #[arg(long, default_value_t = 10.0)]
    pub api_minutes: f64,
    /// Fault schedules.
    #[arg(long, default_value_t = 100_000)]
    pub schedules: u64,
    /// First seed of the schedules.
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// The simulator, built for release. Default: target/release/sim in the source tree.
    #[arg(long)]
    pub sim: Option<PathBuf>,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// One row.
struct Row {
    what: String,
    bar: String,
    measured: String,
    met: bool,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, what: &str, bar: &str, measured: String, met: bool) {
        eprintln!("  {what}: {measured}");
        self.0.push(Row {
            what: what.to_owned(),
            bar: bar.to_owned(),
            measured,
            met,
        });
    }

    /// Percentiles beside a bar on the 95th, seconds; no bar: a part of the whole.
    fn seconds(&mut self, what: &str, values: &[f64], bar: Option<f64>) {
        let (half, most) = (percentile(values, 50.0), percentile(values, 95.0));
        let text = format!("p50 {half:.1} s, p95 {most:.1} s, n {}", values.len());
        let words = bar.map_or_else(|| "–".to_owned(), |bar| format!("p95 ≤ {bar} s"));
        self.add(what, &words, text, bar.is_none_or(|bar| most <= bar));
    }

    fn print(&self) {
        println!("{:<52} {:<22} {:<44} met", "what", "bar", "measured");
        for row in &self.0 {
            println!(
                "{:<52} {:<22} {:<44} {}",
                row.what,
                row.bar,
                row.measured,
                if row.met { "yes" } else { "NO" }
            );
        }
    }
}

/// Measures every part that is wanted and prints the table.
///
/// # Errors
/// Something that was to be measured did not happen, or a bar was missed.
pub async fn run(options: Options) -> Result<()> {
    let mut table = Table::default();
    if options.wants(Part::Schedules) {
        schedules(&options, &mut table)?;
    }
    if options.wants(Part::OperatorDies) {
        operator_dies(&mut table)?;
    }
    let on_the_lab = Part::value_variants()
        .iter()
        .any(|part| !part.is_simulated() && options.wants(*part));
    if on_the_lab {
        on_lab(&options, &mut table).await?;
    }
    table.print();
    ensure!(table.0.iter().all(|row| row.met), "a bar was missed");
    Ok(())
}

async fn on_lab(options: &Options, table: &mut Table) -> Result<()> {
    check_programs()?;
    let lab = Lab::up(LabOptions {
        name: LAB.to_owned(),
        ..LabOptions::default()
    })
    .await?;
    story::deploy(&lab, &Teller::new(false)).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    rest::settle(&lab).await?;
    if options.wants(Part::Cuts) {
        let times = failures(&lab, options.cuts, Fault::PowerLoss).await?;
        split(table, "power cut, BMC reads Off", &times, 8.0);
        rest::settle(&lab).await?;
    }
    if options.wants(Part::Hangs) {
        let times = failures(&lab, options.hangs, Fault::KernelHang).await?;
        split(table, "hang, BMC reads On", &times, 15.0);
        rest::settle(&lab).await?;
    }
    if options.wants(Part::BmcDead) {
        bmc_dead(&lab, table, options.repeats).await?;
    }
    if options.wants(Part::AlreadyOff) {
        already_off(&lab, table, options.repeats).await?;
    }
    if options.wants(Part::Quarantine) {
        quarantine(&lab, table, options.repeats).await?;
    }
    if options.wants(Part::ApiDown) {
        api_down(&lab, table, options.api_minutes).await?;
        rest::settle(&lab).await?;
    }
    if options.wants(Part::HalfSilent) {
        storm::half_silent(&lab, table).await?;
        rest::settle(&lab).await?;
    }
    judges::stop_prober(&lab.files)?;
    let verdicts = judges::judge_disks(&lab.files, &lab.client).await?;
    let dirty = verdicts.values().filter(|verdict| !verdict.is_clean());
    let dirty = dirty.count();
    let measured = format!("{dirty} of {}", verdicts.len());
    table.add(
        "data disks with a lost or doubled write",
        "0",
        measured,
        dirty == 0,
    );
    lab.down()
}

/// How long a step of a recovery took.
type Step = fn(&Times) -> f64;

/// Steps of recoveries, each from the one before, and the whole beside its bar.
fn split(table: &mut Table, what: &str, failures: &Failures, bar: f64) {
    let all = &failures.times;
    let row = format!("{what}: held up, not counted");
    table.add(&row, "–", failures.held_up.to_string(), true);
    let each = |step: Step| all.iter().map(step).collect::<Vec<f64>>();
    let row = format!("{what}: Suspect (detect)");
    table.seconds(&row, &each(|times| times.suspect), Some(SUSPECT));
    // A proof before the time-out makes it needless, and it may end from one look to the next.
    let unreachable: Vec<f64> = all.iter().filter_map(|times| times.unreachable).collect();
    if !unreachable.is_empty() {
        let row = format!("{what}: Unreachable");
        table.seconds(&row, &unreachable, Some(UNREACHABLE));
    }
    let steps: [(&str, Step); 3] = [
        ("prove", |times| times.proven - times.suspect),
        ("decide", |times| times.decided - times.proven),
        ("start", |times| times.started - times.decided),
    ];
    for (step, value) in steps {
        table.seconds(&format!("{what}: {step}"), &each(value), None);
    }
    let whole = each(|times| times.started);
    table.seconds(&format!("{what}: VM process elsewhere"), &whole, Some(bar));
    // Only faults after which somebody waited for OA.
    let answered: Vec<f64> = all.iter().filter_map(|times| times.oa_answered).collect();
    if !answered.is_empty() {
        let row = format!("{what}: every OA endpoint answers");
        table.seconds(&row, &answered, Some(25.0));
    }
}

async fn reason(lab: &Lab, name: &str) -> Result<String> {
    let host: Host = Api::all(lab.client.clone()).get(name).await?;
    Ok(host
        .status
        .and_then(|status| status.state_reason)
        .unwrap_or_default())
}

async fn bmc_dead(lab: &Lab, table: &mut Table, repeats: u32) -> Result<()> {
    let (mut recovered, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let name = busy_host(&lab.client).await?;
        lab.fault(Some(&name), Fault::BmcDead)?;
        lab.fault(Some(&name), Fault::PowerLoss)?;
        let (begin, mut person) = (Instant::now(), false);
        until(
            &lab.client,
            "a recovery or a person to be asked",
            async || {
                person = reason(lab, &name).await?.contains("confirm-dead");
                Ok(person || on_host(&lab.client, &name).await?.is_empty())
            },
        )
        .await?;
        let took = begin.elapsed().as_secs_f64();
        let outcome = if person { &mut asked } else { &mut recovered };
        outcome.push(took);
        lab.heal(Some(&name), Fault::BmcDead)?;
        lab.heal(Some(&name), Fault::PowerLoss)?;
        rest::settle(lab).await?;
    }
    for (outcome, times) in [("recovered", &recovered), ("a person is asked", &asked)] {
        if !times.is_empty() {
            let what = format!("power and BMC lost together: {outcome}");
            table.seconds(&what, times, Some(60.0));
        }
    }
    Ok(())
}

async fn already_off(lab: &Lab, table: &mut Table, repeats: u32) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..repeats {
        let name = busy_host(&lab.client).await?;
        lab.fault(Some(&name), Fault::KernelHang)?;
        until(&lab.client, "the silence to be noticed", async || {
            Ok(host_state(&lab.client, &name).await? != Some(HostState::Ready))
        })
        .await?;
        lab.fault(Some(&name), Fault::PowerLoss)?;
        let took = until(&lab.client, "the host to be fenced", async || {
            Ok(host_state(&lab.client, &name).await? == Some(HostState::Fenced))
        })
        .await?;
        times.push(took.as_secs_f64());
        rest::settle(lab).await?;
    }
    table.seconds("host that is already off: fenced", &times, Some(10.0));
    Ok(())
}

async fn quarantine(lab: &Lab, table: &mut Table, repeats: u32) -> Result<()> {
    let (mut quarantined, mut moving) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let (closed, first) = one_quarantine(lab).await?;
        quarantined.push(closed);
        moving.push(first);
        rest::settle(lab).await?;
    }
    let what = "fault injected: host quarantined";
    table.seconds(what, &quarantined, Some(10.0));
    table.seconds("fault injected: first VM moving", &moving, Some(15.0));
    Ok(())
}

/// Seconds from a fault until its host is quarantined, and until its first VM moves.
async fn one_quarantine(lab: &Lab) -> Result<(f64, f64)> {
    let name = busy_host(&lab.client).await?;
    lab.fault(Some(&name), Fault::MemoryErrors)?;
    let begin = Instant::now();
    until(&lab.client, "the quarantine", async || {
        Ok(host_state(&lab.client, &name).await? == Some(HostState::Quarantined))
    })
    .await?;
    let closed = begin.elapsed().as_secs_f64();
    until(&lab.client, "the first VM to move", async || {
        Ok(vms(&lab.client).await?.iter().any(|vm| {
            vm.status
                .as_ref()
                .is_some_and(|status| status.incoming.is_some())
        }))
    })
    .await?;
    let first = begin.elapsed().as_secs_f64();
    until(&lab.client, "the host to be empty", async || {
        Ok(on_host(&lab.client, &name).await?.is_empty())
    })
    .await?;
    clear(lab, &name, "memory replaced")?;
    Ok((closed, first))
}

/// Where VMs stand and which QEMU processes run.
async fn picture(lab: &Lab) -> Result<Vec<String>> {
    let rights = standing(lab).await?;
    let rights = rights
        .iter()
        .map(|(vm, (epoch, host))| format!("{vm} {host} {epoch}"));
    let running = guests(lab)?;
    let running = running
        .iter()
        .map(|(host, pids)| format!("{host} {pids:?}"));
    Ok(rights.chain(running).collect())
}

fn differing(before: &[String], after: &[String]) -> usize {
    let gone = before.iter().filter(|line| !after.contains(line)).count();
    let new = after.iter().filter(|line| !before.contains(line)).count();
    gone.max(new)
}

async fn api_down(lab: &Lab, table: &mut Table, minutes: f64) -> Result<()> {
    let before = picture(lab).await?;
    lab.fault(None, Fault::ApiDown)?;
    tokio::time::sleep(Duration::try_from_secs_f64(minutes * 60.0).context("--api-minutes")?).await;
    lab.heal(None, Fault::ApiDown)?;
    rest::settle(lab).await?;
    let changes = differing(&before, &picture(lab).await?);
    let what = format!("API server down {minutes} min: VM changes");
    table.add(&what, "0", changes.to_string(), changes == 0);
    Ok(())
}

/// Deaths of the operator that a run of the test tells of.
fn deaths(output: &str) -> Option<u64> {
    let line = output
        .lines()
        .find_map(|line| line.trim().strip_suffix(" deaths tried"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The same test that `make test` has: every write of every story, before and after it arrives.
fn operator_dies(table: &mut Table) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(["test", "--release", "-p", "sim", "--test", "operator_dies"])
        .args(["--", "--nocapture", "--test-threads=1"])
        .output()
        .context("cargo test --release -p sim --test operator_dies")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let tried = deaths(&text).unwrap_or(0);
    let clean = output.status.success() && tried > 0;
    if !clean {
        eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let measured = if clean { "0 other ends" } else { "BROKEN" };
    let what = format!("operator killed at each of {tried} writes");
    table.add(&what, "same end", measured.to_owned(), clean);
    Ok(())
}

fn schedules(options: &Options, table: &mut Table) -> Result<()> {
    let program = options.sim.clone().unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/release/sim")
    });
    let begin = Instant::now();
    let output = Command::new(&program)
        .args(["--schedules", &options.schedules.to_string()])
        .args(["--from", &options.from.to_string()])
        .output()
        .with_context(|| format!("{}: cargo build --release -p sim", program.display()))?;
    let took = begin.elapsed().as_secs_f64();
    let clean = output.status.success();
    if !clean {
        eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    }
    let measured = if clean { "0 broken" } else { "BROKEN" };
    let what = format!("{} fault schedules: broken rules", options.schedules);
    table.add(&what, "0", measured.to_owned(), clean);
    let per_bar = 300.0 * options.schedules as f64 / 100_000.0;
    let bar = format!("≤ {per_bar:.0} s");
    table.add(
        "time for them",
        &bar,
        format!("{took:.0} s"),
        took <= per_bar,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_went_is_one_change() {
        let line = |text: &str| text.to_owned();
        let before = [line("a h1 1"), line("b h2 1")];
        assert_eq!(differing(&before, &before), 0);
        assert_eq!(differing(&before, &[line("a h3 2"), line("b h2 1")]), 1);
        assert_eq!(differing(&before, &[line("b h2 1")]), 1);
    }

    #[test]
    fn a_run_that_tried_no_death_is_not_taken_for_one() {
        assert_eq!(
            deaths("running 2 tests\n1234 deaths tried\nok\n"),
            Some(1234)
        );
        let started = "test an_operator_that_dies ... 7 deaths tried\n";
        assert_eq!(deaths(started), Some(7), "on the line of the test's name");
        assert_eq!(deaths("running 0 tests\n"), None);
    }

    #[test]
    fn a_missed_bar_is_told() {
        let mut table = Table::default();
        table.seconds("x", &[1.0, 9.0], Some(8.0));
        table.seconds("x", &[1.0, 9.0], None);
        let met: Vec<bool> = table.0.iter().map(|row| row.met).collect();
        assert_eq!(met, [false, true]);
    }
}
