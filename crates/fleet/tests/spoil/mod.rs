//! Seeded faults for objects and texts: by structure (deleted, doubled, exchanged, absurd, of another type, deep) and by
//! byte. One seed, one case.

use std::time::{Duration, Instant};

use placement::search::Rng;
use serde_json::{Value, json};

/// Numbers at the edges of what fields hold.
const NUMBERS: [i64; 9] = [
    0,
    1,
    -1,
    64,
    65,
    100_000,
    2_147_483_647,
    4_294_967_296,
    i64::MAX,
];

/// Texts that some field takes, names among them, and some that none does, between bars.
const TEXTS: &str = "|0|77|1Ki|8Gi|8191Pi|8192Pi|1.5Gi|-1|\u{ff11}Gi|a|b|c|main|shared|local|oa|common|Running|\
    Stopped|True|False|{} {w} {n}|\u{0}\u{202e}";

/// Deeper than any reader goes.
const DEEP: usize = 200;

/// Tells the seed of a case that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was seed {0}; once more, alone: FUZZ_SEED={0}", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse::<u64>();
    Some(number.unwrap_or_else(|_| panic!("{name} is a whole number, not {text}")))
}

/// Plays at least so many cases, and goes on for `FUZZ_SECONDS`; only the one of `FUZZ_SEED` where that is set. How many
/// ended in each way.
pub fn play<const WAYS: usize>(least: u64, one: impl Fn(u64) -> usize) -> [u64; WAYS] {
    let mut came = [0; WAYS];
    if let Some(seed) = number("FUZZ_SEED") {
        let _told = Seed(seed);
        one(seed);
        return [u64::MAX; WAYS];
    }
    let lasts = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(0));
    let began = Instant::now();
    for seed in 0.. {
        if seed >= least && began.elapsed() >= lasts {
            break;
        }
        let _told = Seed(seed);
        came[one(seed)] += 1;
    }
    came
}

fn any<T: Copy>(all: &[T], rng: &mut Rng) -> T {
    all[rng.below(all.len())]
}

fn any_text(rng: &mut Rng) -> &'static str {
    let all: Vec<&str> = TEXTS.split('|').collect();
    any(&all, rng)
}

/// Something that hardly any field expects.
fn odd(rng: &mut Rng) -> Value {
    match rng.below(9) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!([]),
        3 => json!({}),
        4 => json!(u64::MAX),
        5 => json!(1e300),
        6 => (0..rng.below(DEEP)).fold(json!(0), |inner, _| json!([inner])),
        7 => json!(any(&NUMBERS, rng)),
        _ => json!(any_text(rng)),
    }
}

/// Something else of the same type, so that it is read and thought about.
fn other(value: &Value, rng: &mut Rng) -> Value {
    match value {
        Value::Bool(yes) => json!(!yes),
        Value::Number(_) => json!(any(&NUMBERS, rng)),
        Value::String(_) => json!(any_text(rng)),
        Value::Null | Value::Array(_) | Value::Object(_) => odd(rng),
    }
}

/// One fault somewhere below a value that is a list or has fields; the value itself stays one.
pub fn spoil(value: &mut Value, rng: &mut Rng) {
    let deeper = rng.below(5) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let (name, second) = (
                &names[rng.below(names.len())],
                &names[rng.below(names.len())],
            );
            let here = fields.get(name).cloned().unwrap_or_default();
            let there = fields.get(second).cloned().unwrap_or_default();
            match rng.below(4) {
                _ if deeper => {
                    if let Some(inner) = fields.get_mut(name) {
                        spoil(inner, rng);
                    }
                }
                0 => drop(fields.remove(name)),
                1 => drop(fields.insert(format!("{name}{name}"), here)),
                2 => {
                    fields.insert(name.clone(), there);
                    fields.insert(second.clone(), here);
                }
                _ => drop(fields.insert(name.clone(), odd(rng))),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let (at, second) = (rng.below(items.len()), rng.below(items.len()));
            match rng.below(4) {
                _ if deeper => spoil(&mut items[at], rng),
                0 => drop(items.remove(at)),
                1 => items.insert(second, items[at].clone()),
                2 => items.swap(at, second),
                _ => items[at] = odd(rng),
            }
        }
        leaf if deeper => *leaf = other(leaf, rng),
        leaf => *leaf = odd(rng),
    }
}

/// One fault in the bytes of a text.
pub fn scratch(text: &mut Vec<u8>, rng: &mut Rng) {
    if text.is_empty() {
        return;
    }
    let at = rng.below(text.len());
    let some = (1 + rng.below(40)).min(text.len() - at);
    match rng.below(5) {
        0 => text[at] = rng.bits() as u8,
        1 => drop(text.drain(at..at + some)),
        2 => {
            let copy = text[at..at + some].to_vec();
            text.splice(at..at, copy);
        }
        3 => text.truncate(at),
        _ => {
            let open = any(&["[", "{", "\"", "&a ", "*a", "- "], rng).repeat(1 + rng.below(DEEP));
            text.splice(at..at, open.into_bytes());
        }
    }
}
