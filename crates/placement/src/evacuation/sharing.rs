//! What bandwidth each move under way gets.

use super::schedule::{SETTLED, Site};

/// How moves under way share a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The earlier takes what it can.
    FirstComes,
    /// All the same.
    Evenly,
    /// In proportion to what is left to copy, so that they end together.
    ByWork,
    /// In proportion to how little is left, so that others may soon begin.
    ShortestFirst,
}

impl Sharing {
    pub(super) const ALL: [Self; 4] = [
        Self::FirstComes,
        Self::Evenly,
        Self::ByWork,
        Self::ShortestFirst,
    ];
}

impl Site {
    pub(super) fn free(&self, running: &[usize], rates: &[f64]) -> Vec<[f64; 2]> {
        let mut free: Vec<[f64; 2]> = self.links.iter().map(|link| [*link; 2]).collect();
        for (index, rate) in running.iter().zip(rates) {
            for (way, host) in self.jobs[*index].ends().into_iter().enumerate() {
                free[host][way] -= rate;
            }
        }
        free
    }

    /// Moves under way take up what others have left free, the earlier first.
    pub(super) fn relieved(&self, running: &[usize], mut rates: Vec<f64>) -> Vec<f64> {
        let mut free = self.free(running, &rates);
        for (index, rate) in running.iter().zip(&mut rates) {
            let job = &self.jobs[*index];
            let more = free[job.from][0].min(free[job.to][1]).min(job.best - *rate);
            if more > 0.0 {
                *rate += more;
                free[job.from][0] -= more;
                free[job.to][1] -= more;
            }
        }
        rates
    }

    /// Bandwidth of each move under way when links are shared evenly or by work.
    pub(super) fn rates(&self, running: &[usize], left: &[f64], sharing: Sharing) -> Vec<f64> {
        let weight = |index: usize| match sharing {
            Sharing::ByWork => left[index].max(SETTLED),
            Sharing::ShortestFirst => 1.0 / left[index].max(SETTLED),
            Sharing::FirstComes | Sharing::Evenly => 1.0,
        };
        // Weighted max-min: the level rises until a link is full, or a move has all that it may; these are then settled.
        let mut rates = vec![0.0; running.len()];
        let mut open: Vec<usize> = (0..running.len()).collect();
        let mut free = self.free(&[], &[]);
        while !open.is_empty() {
            let mut sums = vec![[0.0; 2]; self.links.len()];
            for at in &open {
                for (way, host) in self.jobs[running[*at]].ends().into_iter().enumerate() {
                    sums[host][way] += weight(running[*at]);
                }
            }
            let level = |at: &usize| {
                let ends = self.jobs[running[*at]].ends().into_iter().enumerate();
                let most = self.jobs[running[*at]].best / weight(running[*at]);
                ends.map(|(way, host)| free[host][way].max(0.0) / sums[host][way])
                    .fold(most, f64::min)
            };
            let levels: Vec<f64> = open.iter().map(level).collect();
            let lowest = levels.iter().copied().fold(f64::INFINITY, f64::min);
            let (mut next, mut settled) = (Vec::new(), Vec::new());
            for (at, level) in open.into_iter().zip(levels) {
                let full = level <= lowest * (1.0 + 1e-9);
                if full { &mut settled } else { &mut next }.push(at);
            }
            for at in settled {
                let index = running[at];
                rates[at] = lowest * weight(index);
                for (way, host) in self.jobs[index].ends().into_iter().enumerate() {
                    free[host][way] -= rates[at];
                }
            }
            open = next;
        }
        rates
    }
}
