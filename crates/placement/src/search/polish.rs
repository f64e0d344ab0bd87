//! What is left when all is cold. An *exact descent* looks at every move of one item and every
//! exchange of two that may gain, until none does. Then, as long as there is time, the best
//! placement is warmed again, now more and now less, cooled, and taken down in the same way; the
//! best goes on.
//!
//! What may gain is known beforehand. The loads of all hosts add up to the same wherever the items
//! are, so a change can only save what its two hosts waste and what its items cost by being away
//! from home (`crate::core`'s waste). Where nothing is wasted, a few items are left to look at
//! instead of all pairs.

use crate::core::State;

use super::anneal::{Annealer, BATCH, GAIN, Phase};
use super::propose::Change;
use super::schedule::{COLD, LAST, cool, thrift};

/// Times that the best placement is warmed.
const TURNS: u32 = 12;

/// Polishes from the best placement met; `top` is the highest heat that it is warmed to.
pub(super) fn polish(one: &mut Annealer<'_>, top: f64, progress: &dyn Fn(u64) -> f64) {
    let from = progress(one.proposals);
    let unit = one.state.model().move_unit() as f64;
    descend(one, LAST, progress);
    for turn in 1..=TURNS {
        let begin = progress(one.proposals);
        if begin >= LAST {
            break;
        }
        one.back_to_best();
        let until = from + (LAST - from) * f64::from(turn) / f64::from(TURNS);
        let hot = COLD * (top / COLD).max(1.0).powf(one.rng.unit());
        one.run(
            Phase {
                heat: &|done| cool(hot, COLD, begin, until, done),
                coolness: &|_| 1.0,
                thrift: Some(&|heat| thrift(heat, unit)),
                until,
            },
            progress,
        );
        descend(one, LAST, progress);
    }
    one.back_to_best();
    descend(one, 1.0, progress);
}

/// Makes every move and exchange that gains, the first that is met, until none is left (then true)
/// or it is `until`. All limits are hard.
pub(super) fn descend(one: &mut Annealer<'_>, until: f64, progress: &dyn Fn(u64) -> f64) -> bool {
    let items = one.state.model().item_count();
    let mut time = Time {
        looks: 0,
        until,
        progress,
        over: false,
    };
    time.look(one);
    // Items in a row by which nothing gained.
    let (mut item, mut quiet) = (0, 0);
    while quiet < items && !time.over {
        if gain_by(one, item as u32, &mut time) {
            quiet = 0;
        } else if !time.over {
            quiet += 1;
            item = (item + 1) % items;
        }
        time.look_now_and_then(one);
    }
    time.look(one);
    quiet == items
}

/// Whether a change of an item may gain wherever the other host and item are: it is away from home,
/// or its host wastes something.
fn is_promising(state: &State<'_>, item: u32) -> bool {
    let host = state.host_of(item);
    host != state.model().home(item) || wastes(state, host)
}

fn wastes(state: &State<'_>, host: u32) -> bool {
    state.quick_waste(host) > -GAIN
}

/// Looks at what an item may do until something gains, which is made. Exchanges of two promising
/// items are looked at for the first of them.
fn gain_by(one: &mut Annealer<'_>, item: u32, time: &mut Time<'_>) -> bool {
    let model = one.state.model();
    let here = one.state.host_of(item);
    let promising = is_promising(&one.state, item);
    time.looks += 1;
    if !promising && one.state.quick_wastes() <= -GAIN {
        return false;
    }
    let few = model.reach(item);
    let count = if few.is_empty() {
        model.host_count()
    } else {
        few.len()
    };
    for k in 0..count {
        time.looks += 1;
        let to = few.get(k).copied().unwrap_or(k as u32);
        if to == here || !model.may_reach(item, to) || !(promising || wastes(&one.state, to)) {
            continue;
        }
        let gains = one.consider(Change::Move(item, to), GAIN)
            || promising && gain_by_exchange(one, item, to, time);
        if gains {
            return true;
        }
        time.look_now_and_then(one);
        if time.over {
            return false;
        }
    }
    false
}

fn gain_by_exchange(one: &mut Annealer<'_>, item: u32, to: u32, time: &mut Time<'_>) -> bool {
    let model = one.state.model();
    let here = one.state.host_of(item);
    for k in 0..one.state.items_on(to).len() {
        let other = one.state.items_on(to)[k];
        let seen = other < item && is_promising(&one.state, other);
        if seen || !model.may_reach(other, here) {
            continue;
        }
        time.looks += 1;
        if one.consider(Change::Swap(item, other), GAIN) {
            return true;
        }
    }
    false
}

/// How long a descent may take.
struct Time<'a> {
    /// Looks at changes that are not yet among the proposals.
    looks: u64,
    until: f64,
    progress: &'a dyn Fn(u64) -> f64,
    over: bool,
}

impl Time<'_> {
    /// Looks at the time, with what was done counted.
    fn look(&mut self, one: &mut Annealer<'_>) {
        one.proposals += self.looks;
        self.looks = 0;
        self.over = (self.progress)(one.proposals) >= self.until;
    }

    fn look_now_and_then(&mut self, one: &mut Annealer<'_>) {
        if self.looks >= BATCH {
            self.look(one);
        }
    }
}
