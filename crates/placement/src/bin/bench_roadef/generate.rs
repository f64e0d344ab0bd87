//! Synthetic instances in the shape of the challenge's larger set, of which no copy is needed.
//!
//! Machines differ in size, a tenth of them are to be emptied (no load on them is safe), processes are
//! as skewed as those of the public set, and the start is crowded unevenly. Spreads and dependencies
//! are asked for only where the start keeps them, so every start is legal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use placement::search::Rng;

/// Size of one instance.
struct Shape {
    name: &'static str,
    resources: usize,
    transients: usize,
    machines: usize,
    processes: usize,
    services: usize,
    neighbourhoods: usize,
    locations: usize,
}

/// Sizes of the challenge's second set, as its statement gives them, and names of our own.
const SHAPES: [Shape; 6] = [
    shape("s1", 12, 4, 100, 5_000, 2_500, 4, 10),
    shape("s2", 6, 0, 500, 20_000, 10_000, 5, 50),
    shape("s3", 6, 2, 100, 40_000, 20_000, 5, 10),
    shape("s4", 6, 0, 4_000, 40_000, 20_000, 5, 50),
    shape("s5", 3, 1, 100, 50_000, 10_000, 5, 10),
    shape("s6", 3, 0, 5_000, 50_000, 15_000, 5, 100),
];

#[allow(clippy::too_many_arguments)]
const fn shape(
    name: &'static str,
    resources: usize,
    transients: usize,
    machines: usize,
    processes: usize,
    services: usize,
    neighbourhoods: usize,
    locations: usize,
) -> Shape {
    Shape {
        name,
        resources,
        transients,
        machines,
        processes,
        services,
        neighbourhoods,
        locations,
    }
}

/// Load of the whole fleet, per cent of its capacity.
const LOAD: i64 = 82;
/// One machine in so many is to be emptied.
const EMPTIED: usize = 10;

/// Writes every instance into a directory.
pub fn write_all(directory: &Path, only: Option<&[&str]>) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (k, shape) in SHAPES.iter().enumerate() {
        if only.is_some_and(|only| !only.contains(&shape.name)) {
            continue;
        }
        let (model, start) = text(shape, &mut Rng::new(20_120, k as u64));
        std::fs::write(directory.join(format!("model_{}.txt", shape.name)), model)?;
        std::fs::write(
            directory.join(format!("assignment_{}.txt", shape.name)),
            start,
        )?;
    }
    Ok(())
}

/// A number from 1 up, most small, a few large: the product of two even draws.
fn skewed(rng: &mut Rng, top: f64) -> i64 {
    (rng.unit() * rng.unit() * rng.unit() * top) as i64 + 1
}

fn row(values: &[i64]) -> String {
    let words: Vec<String> = values.iter().map(i64::to_string).collect();
    words.join(" ")
}

fn text(shape: &Shape, rng: &mut Rng) -> (String, String) {
    let r = shape.resources;
    let mut needs: Vec<Vec<i64>> = (0..shape.processes)
        .map(|_| (0..r).map(|_| skewed(rng, 1e6)).collect())
        .collect();
    // The largest first, so that each finds room.
    needs.sort_by_key(|need| std::cmp::Reverse(need.iter().copied().max()));
    let shares: Vec<f64> = (0..shape.machines)
        .map(|_| 0.4 + 1.2 * rng.unit())
        .collect();
    let all: f64 = shares.iter().sum();
    let total: Vec<i64> = (0..r).map(|k| needs.iter().map(|n| n[k]).sum()).collect();
    let capacity: Vec<Vec<i64>> = shares
        .iter()
        .map(|share| {
            let part = |k: usize| total[k] as f64 * 100.0 / LOAD as f64 * share / all;
            (0..r)
                .map(|k| ((part(k) * (0.85 + 0.3 * rng.unit())) as i64).max(1_000_000))
                .collect()
        })
        .collect();
    // Crowded in the order of the machines' numbers more than by size.
    let service: Vec<usize> = (0..shape.processes)
        .map(|_| rng.below(shape.services))
        .collect();
    let mut room = capacity.clone();
    let mut taken = BTreeSet::new();
    let start: Vec<usize> = needs
        .iter()
        .zip(&service)
        .map(|(need, &s)| {
            let fits = |m: usize, room: &[Vec<i64>], taken: &BTreeSet<(usize, usize)>| {
                !taken.contains(&(s, m)) && need.iter().zip(&room[m]).all(|(n, free)| n <= free)
            };
            let mut at = rng.below(shape.machines).min(rng.below(shape.machines));
            for _ in 0..shape.machines {
                if fits(at, &room, &taken) {
                    break;
                }
                at = (at + 1) % shape.machines;
            }
            for (free, n) in room[at].iter_mut().zip(need) {
                *free -= n;
            }
            taken.insert((s, at));
            at
        })
        .collect();
    (
        model_text(shape, rng, &needs, &capacity, &service, &start),
        {
            let words: Vec<String> = start.iter().map(usize::to_string).collect();
            words.join(" ") + "\n"
        },
    )
}

fn model_text(
    shape: &Shape,
    rng: &mut Rng,
    needs: &[Vec<i64>],
    capacity: &[Vec<i64>],
    service: &[usize],
    start: &[usize],
) -> String {
    let hood = |m: usize| m * 7 % shape.neighbourhoods;
    let location = |m: usize| m % shape.locations;
    let mut out = format!("{}\n", shape.resources);
    for k in 0..shape.resources {
        let _ = writeln!(out, "{} 10", u8::from(k < shape.transients));
    }
    let _ = writeln!(out, "{}", shape.machines);
    for (m, capacity) in capacity.iter().enumerate() {
        let part = if rng.below(EMPTIED) == 0 {
            0.0
        } else {
            0.8 + 0.15 * rng.unit()
        };
        let safety: Vec<i64> = capacity.iter().map(|&c| (c as f64 * part) as i64).collect();
        let costs: Vec<i64> = (0..shape.machines)
            .map(|to| {
                if to == m {
                    0
                } else {
                    1 + ((m * 31 + to * 17) % 10) as i64
                }
            })
            .collect();
        let _ = writeln!(
            out,
            "{} {} {} {} {}",
            hood(m),
            location(m),
            row(capacity),
            row(&safety),
            row(&costs)
        );
    }
    let mut locations: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut hoods: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (&s, &m) in service.iter().zip(start) {
        locations.entry(s).or_default().insert(location(m));
        hoods.entry(s).or_default().insert(hood(m));
    }
    let (nowhere, none) = (BTreeSet::new(), BTreeSet::new());
    let _ = writeln!(out, "{}", shape.services);
    for s in 0..shape.services {
        let spread = rng.below(locations.get(&s).map_or(0, BTreeSet::len) + 1);
        let mine = hoods.get(&s).unwrap_or(&none);
        let needed: BTreeSet<usize> = (0..8)
            .map(|_| rng.below(shape.services))
            .filter(|t| *t != s && mine.is_subset(hoods.get(t).unwrap_or(&nowhere)))
            .take(2)
            .collect();
        let words: Vec<i64> = needed.iter().map(|&t| t as i64).collect();
        let _ = writeln!(out, "{spread} {} {}", needed.len(), row(&words));
    }
    let _ = writeln!(out, "{}", needs.len());
    for (need, s) in needs.iter().zip(service) {
        let _ = writeln!(out, "{s} {} {}", row(need), 1 + rng.below(100));
    }
    let _ = writeln!(out, "1\n0 1 2\n10\n1 10 100");
    out
}
