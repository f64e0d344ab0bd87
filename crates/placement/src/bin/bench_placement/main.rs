//! Measures the planners beside their bars and prints one table.
//!
//! `cargo run --release -p placement --bin bench_placement [-- --only PART,… --and FILE]`; FILE holds rows that other
//! programs measured (`bench_roadef` and `scale` with `--rows FILE`). One thread; the workloads are
//! generated from fixed seeds, so only the times differ between runs. Rates are per second of
//! processor time, and proofs of N+1 in processor time, so that a busy machine does not spoil them; other
//! single times are by the clock, and their tails are those of the machine when others use it too.
//! What others published of cases of the same shape stands beside the bars.

#![forbid(unsafe_code)]

mod evacuate;
mod generate;
mod headroom;
mod table;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use generate::{GIB, Random, uid};
use placement::roadef::Options;
use placement::{Engine, Mode, RebalanceRequest, Rules, lint, lint_plan, plan_rebalance};
use table::Row;

const SCHEDULER_PERF: &str = "scheduler_perf: 680 to 810 pods/s, through an API server";

/// A part that can run alone: its name, and what it measures.
type Part = (&'static str, fn(&mut Vec<Row>));

/// All parts. The largest placements first: memory that is freed is used again, and would not be seen.
const PARTS: [Part; 10] = [
    ("place-10000", |rows| {
        placements(rows, 10_000, 100_000, false)
    }),
    ("place-tiers", |rows| {
        placements(rows, 10_000, 100_000, true)
    }),
    ("place-5000", |rows| placements(rows, 5_000, 50_000, false)),
    ("place-sparse", |rows| {
        placements(rows, 5_000, 10_000, false)
    }),
    ("headroom", |rows| {
        [256, 300, 400]
            .into_iter()
            .for_each(|memory| headroom::headroom(rows, memory))
    }),
    ("packing", packing),
    ("rebalancing", rebalancing),
    ("repair", evacuate::repair),
    ("full", evacuate::full),
    ("evacuations", evacuate::evacuations),
];

fn main() -> ExitCode {
    let options = match Options::new(std::env::args().skip(1), &["--only", "--and"]) {
        Ok(options) => options,
        Err(error) => return refuse(&error.to_string()),
    };
    let only: Option<Vec<&str>> = options.text("--only").map(|only| only.split(',').collect());
    let known = |name: &&&str| PARTS.iter().any(|(part, _)| part == *name);
    if let Some(unknown) = only.iter().flatten().find(|name| !known(name)) {
        let names: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
        return refuse(&format!(
            "--only has {unknown:?}; the parts are {}",
            names.join(", ")
        ));
    }
    let others = match options.text("--and").map(table::read).transpose() {
        Ok(others) => others.unwrap_or_default(),
        Err(error) => return refuse(&error),
    };
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        if only.as_ref().is_none_or(|only| only.contains(&name)) {
            part(&mut rows);
        }
    }
    rows.extend(others);
    table::print(&rows);
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("bench_placement: {why}");
    ExitCode::FAILURE
}

fn quantile(times: &mut [Duration], permille: usize) -> Duration {
    times.sort_unstable();
    let at = times.len() * permille / 1_000;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Resident memory of this process, bytes; 0 where the kernel does not tell.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

/// Processor time of this thread, seconds; the clock's where the kernel does not tell.
fn processor_seconds(since: Instant) -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next();
    match nanoseconds.and_then(|nanoseconds| nanoseconds.parse::<u64>().ok()) {
        Some(nanoseconds) if nanoseconds > 0 => nanoseconds as f64 / 1e9,
        _ => since.elapsed().as_secs_f64(),
    }
}

/// Places VMs one by one into an empty fleet, then asks for what has no place. A fortieth of as many rules as VMs, or
/// (`tiers`) each VM in a tier of three that are kept apart, as business systems are by default.
fn placements(rows: &mut Vec<Row>, hosts: usize, vms: usize, tiers: bool) {
    let pools = 20;
    let mut random = Random(7);
    let (mut times, mut refused, nothing) = (vec![Duration::ZERO; vms], 0, BTreeSet::new());
    let before = resident();
    let mut engine = Engine::new(generate::hosts(hosts, pools));
    let of_hosts = resident().saturating_sub(before);
    for index in 0..vms {
        let mut new = generate::vm(&mut random, index, pools, vms / 40);
        if tiers {
            new.rules = Rules::kept_apart(format!("tier-{:05}", index / 3));
        }
        engine.upsert_vm(uid(index), new);
    }
    let start = Instant::now();
    let processor = processor_seconds(start);
    for (index, time) in times.iter_mut().enumerate() {
        let (uid, begun) = (uid(index), Instant::now());
        match engine.place(&uid, &nothing) {
            Ok(choice) => engine.assign(&uid, &choice.host),
            Err(_) => refused += 1,
        }
        *time = begun.elapsed();
    }
    let rate = vms as f64 / (processor_seconds(start) - processor).max(1e-6);
    let of_vms = resident().saturating_sub(before + of_hosts);
    let tiers = if tiers { " in tiers of three" } else { "" };
    let label = format!("{hosts} hosts, {vms} VMs{tiers}");
    let p99 = quantile(&mut times, 990);
    let legal = lint(engine.fleet()).is_empty();
    rows.push(Row {
        what: format!("placements/s, assigned one by one, {label}"),
        measured: format!(
            "{rate:.0} ({refused} refused{})",
            if legal { "" } else { ", ILLEGAL" }
        ),
        bar: ">= 100,000".into(),
        anchor: SCHEDULER_PERF.into(),
        good: Some(rate >= 100_000.0 && legal),
    });
    rows.push(Row {
        what: format!("  p99 of one placement, {label}"),
        measured: format!("{p99:.1?}"),
        bar: "<= 100 us".into(),
        anchor: "".into(),
        good: Some(p99 <= Duration::from_micros(100)),
    });
    let mut refusals = Vec::new();
    for index in 0..2_000 {
        let mut huge = generate::vm(&mut random, index, pools, 0);
        huge.memory_bytes = 4_096 * GIB;
        let name = uid(vms + 1);
        engine.upsert_vm(name.clone(), huge);
        let begun = Instant::now();
        let answer = engine.place(&name, &nothing);
        refusals.push(begun.elapsed());
        assert!(answer.is_err(), "no host has 4 TiB");
    }
    rows.push(Row {
        what: format!("  p99 of one refusal with its counts, {label}"),
        measured: format!("{:.1?}", quantile(&mut refusals, 990)),
        bar: "<= 100 us".into(),
        anchor: "".into(),
        good: Some(quantile(&mut refusals, 990) <= Duration::from_micros(100)),
    });
    // Later parts use again what the first has freed.
    if rows.len() < 4 {
        let (per_host, per_vm) = (of_hosts / hosts as u64, of_vms / vms as u64);
        rows.push(Row {
            what: format!("  memory per host / per VM, {label}"),
            measured: format!("{per_host} B / {per_vm} B"),
            bar: "<= 4,096 B / 1,024 B".into(),
            anchor: "".into(),
            good: Some(per_host <= 4_096 && per_vm <= 1_024),
        });
    }
}

/// Ten thousand VMs packed on as few equal hosts as possible, against a lower bound: volume, and
/// L2 (large VMs that cannot share a host, and what does not fit beside them).
fn packing(rows: &mut Vec<Row>) {
    const MEMORY: u64 = 96;
    let mut fleet = generate::hosts(4_000, 1);
    for host in fleet.hosts.values_mut() {
        (host.cpu, host.memory_bytes) = (64, MEMORY * GIB);
        host.storage_pools = ["fast".to_owned(), "bulk".to_owned()].into();
    }
    let mut engine = Engine::new(fleet);
    let mut random = Random(23);
    let mut vms: Vec<_> = (0..10_000)
        .map(|index| generate::vm(&mut random, index, 1, 0))
        .collect();
    vms.sort_by_key(|vm| std::cmp::Reverse((vm.memory_bytes, vm.cpu)));
    let (mut used, mut refused) = (BTreeSet::new(), 0);
    for (index, vm) in vms.iter().enumerate() {
        engine.upsert_vm(uid(index), vm.clone());
        match engine.place_tightest(&uid(index)) {
            Ok(choice) => {
                engine.assign(&uid(index), &choice.host);
                used.insert(choice.host);
            }
            Err(_) => refused += 1,
        }
    }
    let sizes: Vec<u64> = vms.iter().map(|vm| vm.memory_bytes / GIB).collect();
    let cpu = vms.iter().map(|vm| vm.cpu).sum::<u64>().div_ceil(64 * 4);
    let memory = (0..=MEMORY / 2).map(|small| {
        let counted = sizes.iter().map(|size| match *size {
            size if size > MEMORY - small => MEMORY,
            size if size >= small => size,
            _ => 0,
        });
        counted.sum::<u64>().div_ceil(MEMORY)
    });
    let bound = memory.max().unwrap_or(0).max(cpu);
    rows.push(Row {
        what: "hosts used / lower bound (volume, L2), 10,000 VMs, tightest fit".into(),
        measured: format!(
            "{} / {bound} = {:.4} ({refused} refused)",
            used.len(),
            used.len() as f64 / bound as f64
        ),
        bar: "reported".into(),
        anchor: "".into(),
        good: None,
    });
}

/// A pool that was filled host by host.
fn rebalancing(rows: &mut Vec<Row>) {
    let mut random = Random(29);
    let mut engine = Engine::new(generate::hosts(500, 1));
    let mut placed = 0;
    for index in 0..10_000 {
        engine.upsert_vm(uid(index), generate::vm(&mut random, index, 1, 200));
        if let Ok(choice) = engine.place_tightest(&uid(index)) {
            engine.assign(&uid(index), &choice.host);
            placed += 1;
        }
    }
    let request = RebalanceRequest {
        mode: Mode::Eager,
        moves_max: 50,
        ..RebalanceRequest::new("pool-00")
    };
    let fleet = engine.into_fleet();
    let begun = Instant::now();
    let answer = plan_rebalance(&fleet, &request);
    let took = begun.elapsed();
    let faults = lint_plan(&fleet, &request.limits, &answer.plan).len();
    rows.push(Row {
        what: format!("rebalance of 500 hosts, {placed} VMs filled host by host, at most 50 moves"),
        measured: format!(
            "{took:.2?}, {} moves, imbalance {} -> {} per mille, {faults} faults",
            answer.gains.len(),
            answer.before_permille,
            answer.after_permille
        ),
        bar: "0 faults".into(),
        anchor: "".into(),
        good: Some(faults == 0),
    });
}
