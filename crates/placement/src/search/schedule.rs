//! What heats and shares of the time a search uses.

/// Heat at the start and at the end of annealing, as parts of the cost of a mean host's whole load.
/// Of 0.02, 0.05, 0.2 and 0.6 at the start, 0.05 gave the best a2_2 and a2_5.
const HOT: f64 = 0.05;
pub(super) const WARM: f64 = 1e-4;
/// The heat that the finish starts from, in the same unit, and the one it ends with, in cost: low
/// enough that an item which costs 1 to be away from home goes there, for all the hosts it might
/// be on instead (a heat of 1 / ln(hosts) and less).
pub(super) const COOL: f64 = 1e-5;
pub(super) const COLD: f64 = 0.1;
/// Progress at which the phases end: a first descent, annealing, melting of regions. The rest is
/// the finish.
pub(super) const DESCENT: f64 = 0.03;
pub(super) const ANNEAL: f64 = 0.85;
pub(super) const MELT: f64 = 0.95;
/// Progress at which the short annealings end and the slow one begins, when there are several.
const SCOUTED: f64 = 0.45;
/// The most short annealings, and the proposals per item of the whole run for each of them. On
/// a2_3 and a2_5 single runs of 20 s end 3 and 7 % apart.
const SCOUTS: usize = 4;
const PER_SCOUT: f64 = 250_000.0;
/// The heat that the slow annealing starts from: on a2_2 and a2_3 large items are at rest there,
/// and one change in a hundred is still accepted.
const REHEAT: f64 = 3e-3;
/// Times that annealing threads compare what they have.
pub(super) const ROUNDS: u32 = 12;

/// Proposals per item with which annealing may not start warmer than it ends, and with which it
/// may start as hot as it likes.
const PER_ITEM: (f64, f64) = (300.0, 30_000.0);

/// The heat to start annealing from: a large fleet in a short time is better improved than melted.
fn start_heat(proposals_in_all: f64, items: usize) -> f64 {
    let per_item = proposals_in_all / items.max(1) as f64;
    let part = (per_item / PER_ITEM.0).ln() / (PER_ITEM.1 / PER_ITEM.0).ln();
    WARM * (HOT / WARM).powf(part.clamp(0.0, 1.0))
}

/// From `a` at the start of a phase to `b` at its end, by equal factors.
pub(super) fn cool(a: f64, b: f64, from: f64, to: f64, done: f64) -> f64 {
    a * (b / a).powf(((done - from) / (to - from)).clamp(0.0, 1.0))
}

/// One annealing, from hot to warm.
#[derive(Clone, Copy)]
pub(super) struct Cooling {
    /// Progress at its begin and end.
    pub(super) span: (f64, f64),
    /// Heat at the start, as a part of the scale.
    pub(super) hot: f64,
    /// How far this start is on the way from the hottest to `WARM`.
    pub(super) first: f64,
    /// Whether it starts from home, or from the best that is known.
    pub(super) fresh: bool,
}

/// How to use the time for annealing. Where the largest items freeze is a matter of luck, and
/// worth more than anything after it: with enough time there are several short annealings, and
/// the best of them is annealed again, slowly, from a heat that leaves large items in place.
pub(super) fn coolings(proposals_in_all: f64, items: usize) -> Vec<Cooling> {
    let hot = start_heat(proposals_in_all, items);
    let scouts = (proposals_in_all / items.max(1) as f64 / PER_SCOUT) as usize;
    let cooling = |span, fresh| Cooling {
        span,
        hot,
        first: 0.0,
        fresh,
    };
    if scouts < 2 {
        return vec![cooling((DESCENT, ANNEAL), true)];
    }
    let scouts = scouts.min(SCOUTS);
    let end = |k: usize| DESCENT + (SCOUTED - DESCENT) * k as f64 / scouts as f64;
    let mut all: Vec<Cooling> = (0..scouts)
        .map(|k| cooling((end(k), end(k + 1)), true))
        .collect();
    all.push(Cooling {
        span: (SCOUTED, ANNEAL),
        hot: REHEAT.min(hot),
        first: (hot / REHEAT.min(hot)).ln() / (hot / WARM).max(1.0 + 1e-9).ln(),
        fresh: false,
    });
    all
}
