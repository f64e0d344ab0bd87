//! Better orders of moves: exchanges of two, and random changes where these no longer help.

use super::schedule::{PARTS, Schedule, Site};
use super::sharing::Sharing;
use crate::search::rng::Rng;

/// Within this factor of the lower bound an order is left as it is.
const CLOSE: f64 = 1.05;

/// Schedules that are tried at random, times the moves of each: some tens of milliseconds.
const SHAKES: usize = 60_000;

/// Above that many moves so few schedules could be tried that it would not help.
const SHAKEN_MAX: usize = 120;

impl Site {
    /// Exchanges moves of one priority as long as that ends sooner.
    pub(super) fn exchange(&self, schedule: &mut Schedule, good: f64) {
        let mut improved = true;
        while improved && schedule.end > good {
            improved = false;
            for one in 0..self.jobs.len() {
                for other in one + 1..self.jobs.len() {
                    let mut order = schedule.order.clone();
                    if self.jobs[order[one]].priority != self.jobs[order[other]].priority {
                        break;
                    }
                    order.swap(one, other);
                    let tried = self.run(order, schedule.part, schedule.sharing);
                    if tried.end < schedule.end * (1.0 - 1e-6) {
                        (*schedule, improved) = (tried, true);
                    }
                }
            }
        }
    }

    /// Changes an order at random, within a priority, and keeps what does not end later. The same
    /// moves are always shaken alike.
    pub(super) fn shaken(&self, mut best: Schedule) -> Schedule {
        let (close, moves) = (self.bound() * CLOSE, self.jobs.len());
        if moves > SHAKEN_MAX {
            return best;
        }
        let mut random = Rng::new(moves as u64, 0);
        for _ in 0..SHAKES / moves.max(1) {
            if best.end <= close {
                break;
            }
            let mut order = best.order.clone();
            for _ in 0..=random.below(3) {
                let (from, to) = (random.below(moves), random.below(moves));
                if self.jobs[order[from]].priority == self.jobs[order[to]].priority {
                    let moved = order.remove(from);
                    order.insert(to, moved);
                }
            }
            let (mut part, mut sharing) = (best.part, best.sharing);
            if random.below(4) == 0 {
                part = PARTS[random.below(PARTS.len())];
                sharing = Sharing::ALL[random.below(Sharing::ALL.len())];
            }
            let tried = self.run(order, part, sharing);
            if tried.end <= best.end {
                best = tried;
            }
        }
        best
    }
}
