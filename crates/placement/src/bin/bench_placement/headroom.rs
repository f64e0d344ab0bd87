//! The proof of N+1 after changes, and new VMs that must keep it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use placement::roadef::Clock;
use placement::{Admission, Engine, Headroom};

use super::generate::{self, GIB, Random, filled, host_name, uid};
use super::table::Row;
use super::{processor_seconds, quantile};

/// One pool of 500 hosts and 10,000 VMs: a proof from nothing, and one after each change.
pub(super) fn headroom(rows: &mut Vec<Row>, memory: u64) {
    let mut engine = filled(11, 500, 1, 0, 0);
    for index in 0..500 {
        let host = engine.fleet().hosts.get(&host_name(index)).cloned();
        if let Some(mut host) = host {
            (host.cpu, host.memory_bytes) = (128, memory * GIB);
            host.storage_pools = ["fast".to_owned(), "bulk".to_owned()].into();
            engine.upsert_host(host_name(index), host);
        }
    }
    let mut random = Random(13);
    let nothing = BTreeSet::new();
    let mut inside = Vec::new();
    for index in 0..10_000 {
        let new = generate::vm(&mut random, index, 1, 1_000);
        engine.upsert_vm(uid(index), new);
        if let Ok(choice) = engine.place(&uid(index), &nothing) {
            engine.assign(&uid(index), &choice.host);
            inside.push(index);
        }
    }
    let used: u64 = engine
        .fleet()
        .vms
        .values()
        .filter(|vm| vm.host.is_some())
        .map(|vm| vm.memory_bytes)
        .sum();
    let full = used * 100 / (500 * memory * GIB);
    let begun = Instant::now();
    let first = engine.prove_headroom("pool-00");
    let cold = begun.elapsed();
    // One thread: the time of the process is that of the proofs, whoever else uses the machine.
    let start = Instant::now();
    let used = || Clock::Cpu.used(start, 1);
    let processor = processor_seconds(start);
    let (mut times, mut unknown, mut broken, changes) = (Vec::new(), 0, 0, 3_000);
    for _ in 0..changes {
        let uid = uid(inside[random.below(inside.len())]);
        // A VM leaves and, if it can, comes back elsewhere: one change that takes and one that
        // frees.
        let placed = engine
            .fleet()
            .vms
            .get(&uid)
            .is_some_and(|vm| vm.host.is_some());
        if placed {
            engine.unassign(&uid);
        } else if let Ok(choice) = engine.place(&uid, &nothing) {
            engine.assign(&uid, &choice.host);
        }
        let begun = used();
        let answer = engine.prove_headroom("pool-00");
        times.push(used().saturating_sub(begun));
        match answer {
            Headroom::Unknown { .. } => unknown += 1,
            Headroom::Broken { .. } => broken += 1,
            Headroom::Proven | Headroom::NotPromised => {}
        }
    }
    let mean = (processor_seconds(start) - processor) * 1e6 / changes as f64;
    let report = engine.headroom_report("pool-00");
    let open = report.map_or(0, |report| report.unknown());
    let p99 = quantile(&mut times, 990);
    rows.push(Row {
        what: format!(
            "N+1 after one change, 500 hosts, {} VMs, {full} % full",
            inside.len()
        ),
        measured: format!(
            "p50 {:.0?} p99 {p99:.0?} max {:.0?} of processor; mean with the change {mean:.0} us",
            quantile(&mut times, 500),
            quantile(&mut times, 1_000)
        ),
        bar: "p99 <= 10 ms".into(),
        anchor: "".into(),
        good: Some(p99 <= Duration::from_millis(10)),
    });
    rows.push(Row {
        what: "  from nothing; answers; unknown failures at the end".into(),
        measured: format!(
            "{cold:.1?} {}; {unknown} unknown, {broken} broken of {changes}; {open} of 525",
            if first == Headroom::Proven {
                "proven"
            } else {
                "not proven"
            }
        ),
        bar: "unknown counted".into(),
        anchor: "".into(),
        good: None,
    });
    admission(rows, &mut engine, &mut random, full);
}

/// New VMs of usual sizes ask for a host that keeps N+1, each gone again before the next: full pools refuse them.
fn admission(rows: &mut Vec<Row>, engine: &mut Engine, random: &mut Random, full: u64) {
    let (nothing, start) = (BTreeSet::new(), Instant::now());
    let used = || Clock::Cpu.used(start, 1);
    let (mut times, mut placed, mut broken, mut unfinished) = (Vec::new(), 0, 0, 0);
    for index in 20_000..20_500 {
        let new = uid(index);
        engine.upsert_vm(new.clone(), generate::vm(random, index, 1, 1_000));
        let begun = used();
        let answer = engine.admit(&new, &nothing);
        times.push(used().saturating_sub(begun));
        match answer {
            Admission::Placed(_) => placed += 1,
            Admission::Breaks { tried, .. } => {
                broken += 1;
                unfinished += u32::from(!tried.all);
            }
            Admission::Refused(_) => {}
        }
        engine.remove_vm(&new);
    }
    let p99 = quantile(&mut times, 990);
    rows.push(Row {
        what: format!("  a new VM asks for a host with N+1, {full} % full"),
        measured: format!(
            "p50 {:.0?} p99 {p99:.0?} max {:.0?} of processor; {placed} placed, {broken} refused, {unfinished} of them with hosts not asked, of {}",
            quantile(&mut times, 500),
            quantile(&mut times, 1_000),
            times.len()
        ),
        bar: "".into(),
        anchor: "".into(),
        good: None,
    });
}
