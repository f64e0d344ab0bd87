//! Benchmark files with seeded faults: every one is read or refused with its line and field, and
//! whatever is read is searched and judged, never a panic. A moment by default; for longer:
//! `FUZZ_SECONDS=3600 cargo test --release -p placement --test fuzz`.

use std::time::{Duration, Instant};

use placement::core::{Model, State};
use placement::roadef::{Instance, cost, parse_assignment, parse_model, violations};
use placement::search::{Budget, Rng, improve};

const MODEL: &str = "2\n1 100\n0 10\n4\n0 0 30 400 16 80 0 1 4 5\n0 0 10 240 8 160 1 0 3 4\n\
1 1 15 100 12 80 4 3 0 2\n1 2 10 100 8 80 5 4 2 0\n2\n2 0\n1 1 0\n3\n0 12 10 1000\n0 10 20 100\n\
1 6 200 1\n1\n0 1 20\n10\n1 10 100\n";
const START: &str = "0 3 0\n";

/// Numbers at the edges of what counts, labels, amounts and 64 bits can hold.
const ABSURD: [&str; 9] = [
    "0",
    "-1",
    "2147483647",
    "4294967295",
    "4294967296",
    "1000000000000000",
    "9223372036854775807",
    "18446744073709551616",
    "\u{ff11}",
];

/// One fault in a text.
fn fault(text: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(text.len());
    let some = (1 + rng.below(6)).min(text.len() - at);
    match rng.below(6) {
        0 => text[at] = rng.bits() as u8,
        1 => text[at] = b'0' + rng.below(10) as u8,
        2 => drop(text.drain(at..at + some)),
        3 => {
            let copy = text[at..at + some].to_vec();
            text.splice(at..at, copy);
        }
        4 => text.truncate(at),
        _ => {
            let end = (at..text.len()).find(|&k| text[k].is_ascii_whitespace());
            let word = ABSURD[rng.below(ABSURD.len())].bytes();
            text.splice(at..end.unwrap_or(text.len()), word);
        }
    }
}

fn faulty(text: &str, most: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..rng.below(most + 1) {
        if !bytes.is_empty() {
            fault(&mut bytes, rng);
        }
    }
    bytes
}

/// Any changes, asked for or not allowed: sums stay those of the judge, and undoing ends at home.
fn change(instance: &Instance, start: &[u32], model: &Model, rng: &mut Rng) {
    let mut state = State::at_home(model);
    let first = state.cost();
    let (items, hosts) = (model.item_count(), model.host_count());
    if items == 0 {
        return;
    }
    for _ in 0..12 {
        let (a, b) = (rng.below(items) as u32, rng.below(items) as u32);
        let to = rng.below(hosts) as u32;
        let before = state.cost().total();
        if state.host_of(a) != to {
            let delta = state.delta_move(a, to);
            state.apply_move(a, to);
            assert_eq!(state.cost().total(), before + delta);
        } else if state.host_of(a) != state.host_of(b) {
            let delta = state.delta_swap(a, b);
            state.apply_swap(a, b);
            assert_eq!(state.cost().total(), before + delta);
        }
        let total = cost(instance, start, state.placement()).total();
        assert_eq!(i128::from(state.cost().total()), total);
    }
    state.become_like(start);
    assert_eq!(state.cost(), first);
}

/// How far one pair of texts came: refused as text, refused as a problem, searched.
fn one(seed: u64) -> usize {
    let mut rng = Rng::new(seed, 77);
    let text = faulty(MODEL, 3, &mut rng);
    let instance = match parse_model(&text) {
        Ok(instance) => instance,
        Err(error) => {
            assert!(error.to_string().starts_with("line "), "{error}");
            return 0;
        }
    };
    let start = match parse_assignment(&faulty(START, 1, &mut rng), &instance) {
        Ok(start) => start,
        Err(error) => {
            assert!(error.to_string().starts_with("line "), "{error}");
            return 0;
        }
    };
    let Ok(model) = Model::new(instance.to_spec(&start)) else {
        return 1;
    };
    change(&instance, &start, &model, &mut rng);
    let found = improve(&model, seed, 1, Budget::Proposals(2_000));
    if violations(&instance, &start, &start).is_empty() {
        let broken = violations(&instance, &start, &found.placement);
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
        let total = cost(&instance, &start, &found.placement).total();
        assert_eq!(found.cost.map(i128::from), Some(total), "seed {seed}");
        assert!(total <= cost(&instance, &start, &start).total());
    }
    2
}

#[test]
fn faulty_files_are_refused_by_line_or_solved_never_a_panic() {
    let seconds = std::env::var("FUZZ_SECONDS").map(|text| text.parse::<u64>());
    let seconds = seconds.map_or(0, |number| number.expect("FUZZ_SECONDS is a whole number"));
    let (began, least) = (Instant::now(), 3_000);
    let mut came = [0u64; 3];
    for seed in 0.. {
        if seed >= least && began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        came[one(seed)] += 1;
    }
    println!("{came:?}: refused as text, as a problem, searched");
    assert!(came.iter().all(|&n| n > 5), "{came:?}");
}
