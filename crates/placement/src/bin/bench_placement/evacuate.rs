//! Emptying hosts: how long a plan takes to make, and how near its end is to what no plan can beat.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::HostName;
use placement::{
    EvacuationRequest, Fleet, Limits, Plan, lint_plan, plan_evacuation, plan_evacuation_on,
};

use crate::generate::{Random, dirty, filled, host_name};
use crate::table::Row;

/// In the shape of BtrPlace's published case: many hosts, many rules, a part to be drained.
pub fn repair(rows: &mut Vec<Row>) {
    let engine = filled(17, 5_000, 10, 30_000, 2_000);
    let request = EvacuationRequest {
        hosts: (0..100).map(|index| host_name(index * 50)).collect(),
        dirty_bytes_per_second: dirty(engine.fleet(), 19),
        limits: Limits {
            moves_per_site: 400,
            moves_per_host: 4,
            ..Limits::default()
        },
        ..EvacuationRequest::default()
    };
    let fleet = engine.into_fleet();
    let begun = Instant::now();
    let plan = plan_evacuation(&fleet, &request);
    let planned = begun.elapsed();
    let faults = lint_plan(&fleet, &request.limits, &plan).len();
    let total = begun.elapsed();
    rows.push(Row {
        what: format!(
            "drain 2 % of 5,000 hosts, {} VMs, 2,000 rules, planned and linted",
            fleet.vms.len()
        ),
        measured: format!(
            "{total:.2?} (plan {planned:.2?}, {} moves, {} stuck, {faults} faults)",
            plan.moves.len(),
            plan.stuck.len()
        ),
        bar: "<= 3 s".into(),
        anchor: "BtrPlace: 3 min whole, < 30 s partitioned".into(),
        good: Some(total <= Duration::from_secs(3) && faults == 0),
    });
    rows.push(Row {
        what: "  its end / lower bound".into(),
        measured: format!("{:.3}", plan.end_ms as f64 / plan.bound_ms as f64),
        bar: "<= 1.1".into(),
        anchor: "".into(),
        good: Some(plan.end_ms * 10 <= plan.bound_ms * 11),
    });
}

/// The greater of what the busiest link needs for its bytes and of the longest single move, milliseconds; without the
/// turns that hosts and the site allow, and without moves that wait for others.
fn bare_bound_ms(fleet: &Fleet, request: &EvacuationRequest, plan: &Plan) -> f64 {
    let mut links: BTreeMap<(bool, &HostName), f64> = BTreeMap::new();
    let mut longest = 0.0_f64;
    for step in &plan.moves {
        let memory = fleet.vms.get(&step.vm).map_or(0, |vm| vm.memory_bytes) as f64;
        let dirty = request.dirty_bytes_per_second.get(&step.vm);
        let dirty = dirty.copied().unwrap_or(0) as f64;
        let best = request.limits.fastest(&step.from, &step.to) as f64;
        let slowed = best * 100.0 / request.sent_percent_max as f64;
        let seconds = memory / (best - dirty).max(slowed);
        longest = longest.max(seconds);
        for (inward, host) in [(false, &step.from), (true, &step.to)] {
            let link = request.limits.link(host) as f64;
            *links.entry((inward, host)).or_default() += best * seconds / link;
        }
    }
    1_000.0 * links.into_values().fold(longest, f64::max)
}

/// One to three hosts of a random pool emptied over links of 10 and 25 Gbit/s.
pub fn evacuations(rows: &mut Vec<Row>) {
    let (mut ratios, mut bare, mut faults) = (Vec::new(), Vec::new(), 0);
    for case in 0.. {
        if ratios.len() == 200 {
            break;
        }
        let mut random = Random(case);
        let hosts = 6 + random.below(18);
        let engine = filled(case, hosts, 1, hosts * (4 + random.below(8)), 20);
        let request = EvacuationRequest {
            hosts: (0..hosts)
                .map(host_name)
                .filter(|name| !engine.on(name).is_empty())
                .take(1 + random.below(3))
                .collect(),
            dirty_bytes_per_second: dirty(engine.fleet(), case),
            limits: Limits {
                links: (0..hosts)
                    .map(|index| (host_name(index), [10, 25][random.below(2)] * 125_000_000))
                    .collect(),
                moves_per_host: 4,
                ..Limits::default()
            },
            ..EvacuationRequest::default()
        };
        let plan = plan_evacuation_on(&engine, &request);
        faults += lint_plan(engine.fleet(), &request.limits, &plan).len();
        if plan.bound_ms > 0 {
            ratios.push(plan.end_ms as f64 / plan.bound_ms as f64);
            bare.push(plan.end_ms as f64 / bare_bound_ms(engine.fleet(), &request, &plan));
        }
    }
    ratios.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
    let within = ratios.iter().filter(|ratio| **ratio <= 1.1).count();
    let worst = ratios.last().copied().unwrap_or(0.0);
    rows.push(Row {
        what: format!(
            "evacuation end / lower bound, {} random cases",
            ratios.len()
        ),
        measured: format!(
            "mean {mean:.3} worst {worst:.3}; {within} within 1.1; {faults} faults; by links and the longest move alone, turns left out: mean {:.3} worst {:.3}, {} within 1.1",
            bare.iter().sum::<f64>() / bare.len().max(1) as f64,
            bare.last().copied().unwrap_or(0.0),
            bare.iter().filter(|ratio| **ratio <= 1.1).count()
        ),
        bar: "<= 1.1".into(),
        anchor: "mVM: 20 to 28 % sooner than capped parallelism".into(),
        good: Some(within == ratios.len() && faults == 0),
    });
}

/// The worst case of an evacuation: a fleet so full that hardly anybody finds a place, and other
/// VMs must step aside.
pub fn full(rows: &mut Vec<Row>) {
    let engine = filled(17, 5_000, 10, 200_000, 2_000);
    let request = EvacuationRequest {
        hosts: (0..20).map(|index| host_name(index * 250)).collect(),
        ..EvacuationRequest::default()
    };
    let begun = Instant::now();
    let plan = plan_evacuation_on(&engine, &request);
    let took = begun.elapsed();
    let faults = lint_plan(engine.fleet(), &request.limits, &plan).len();
    let waiting = plan.moves.iter().filter(|step| !step.after.is_empty());
    rows.push(Row {
        what: format!(
            "drain 20 of 5,000 full hosts, {} VMs",
            engine.fleet().vms.len()
        ),
        measured: format!(
            "{took:.2?} ({} moves, {} after another, {} stuck, {faults} faults)",
            plan.moves.len(),
            waiting.count(),
            plan.stuck.len()
        ),
        bar: "0 faults".into(),
        anchor: "".into(),
        good: Some(faults == 0),
    });
}
