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
/// Progress at which the first descent ends.
pub(super) const DESCENT: f64 = 0.03;
/// Progress at which polishing leaves the rest to a last exact descent.
pub(super) const LAST: f64 = 0.99;

/// Progress at which the phases after the first descent end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// Annealing.
    pub(super) anneal: f64,
    /// Melting of regions.
    pub(super) melt: f64,
    /// The finish; polishing has the rest.
    pub(super) finish: f64,
    /// Whether the finish starts where moves count more than they cost.
    pub(super) thrifty: bool,
}

/// What the first descent leaves of what hosts waste, as a part, is little up to this.
pub(super) const LITTLE: f64 = 0.01;
/// While much of what could be saved is at the hosts.
pub(super) const LOADS: Shares = Shares {
    anneal: 0.85,
    melt: 0.95,
    finish: 0.98,
    thrifty: false,
};
/// When most of it is what moves cost. Annealing to 0.25, 0.45 and 0.55 (5 s on two threads, seed 1)
/// gave a2_1 192, 209 and 188, and a1_2 777,536,330, 777,535,808 and 777,534,498; with the first two
/// a1_5 ended at 727,578,310 and 727,578,311.
pub(super) const MOVES: Shares = Shares {
    anneal: 0.3,
    melt: 0.4,
    finish: 0.85,
    thrifty: true,
};

/// The highest heat, as a part of the cost of a mean host's whole load, at which moves count more
/// than they cost; and the power of heat that this grows with. With 1 moves would be as cold as they
/// are in the end from the start.
const THRIFT: f64 = 1e-3;
const THRIFT_GROWTH: f64 = 0.95;
/// Times that annealing threads compare what they have. One long annealing is worth more than the
/// best of several short ones: with 60 s on two threads three short and a slow one from the best
/// gave a2_3 1,191 million, and one long one 1,179.
pub(super) const ROUNDS: u32 = 12;

/// Proposals per item with which annealing may not start warmer than it ends, and with which it
/// may start as hot as it likes.
const PER_ITEM: (f64, f64) = (300.0, 30_000.0);

/// How far up from the lowest of its heats a search may start, from 0 to 1: a large fleet in a short
/// time is better improved than melted.
pub(super) fn start(proposals_in_all: f64, items: usize) -> f64 {
    let per_item = proposals_in_all / items.max(1) as f64;
    let part = (per_item / PER_ITEM.0).ln() / (PER_ITEM.1 / PER_ITEM.0).ln();
    part.clamp(0.0, 1.0)
}

/// The heat to start annealing from.
pub(super) fn start_heat(start: f64) -> f64 {
    WARM * (HOT / WARM).powf(start)
}

/// The heat to start from where moves count as often as [`thrift`] says, at `scale`.
pub(super) fn thrift_heat(scale: f64, start: f64) -> f64 {
    let top = (scale * THRIFT).max(COLD);
    COLD * (top / COLD).powf(start)
}

/// How many times their cost moves count at a heat, when a mean one costs `unit`.
pub(super) fn thrift(heat: f64, unit: f64) -> f64 {
    (heat / (COLD * unit)).powf(THRIFT_GROWTH).max(1.0)
}

/// From `a` at the start of a phase to `b` at its end, by equal factors.
pub(super) fn cool(a: f64, b: f64, from: f64, to: f64, done: f64) -> f64 {
    a * (b / a).powf(((done - from) / (to - from)).clamp(0.0, 1.0))
}
