//! When each move starts and ends.
//!
//! A list schedule on shared links: whenever something ends, the waiting moves are looked at in
//! order, by priority and then the longest first, and each starts that may. Copying at full
//! speed one after the other sends fewer bytes than sharing a link, so a move waits until it
//! can have a good part of its link. How good a part is best, and how moves should share,
//! depends on the links: a few answers are worked out and the soonest end is kept.

use std::collections::{BTreeMap, VecDeque};

use model::{HostName, Priority};

use super::EvacuationRequest;
use super::estimate::Copying;
use super::sharing::Sharing;
use super::targets::Step;
use crate::fleet::Fleet;
use crate::plan::{Move, Plan};

/// Parts of its best bandwidth below which a move waits.
pub(super) const PARTS: [f64; 4] = [0.999, 0.5, 0.25, 0.1];

/// Within this factor of the lower bound no better schedule is looked for.
const GOOD: f64 = 1.01;

/// Above that many moves links are not shared in other ways: working that out takes time that
/// grows with the square of the moves, and the busiest link decides anyway.
const MANY: usize = 1_000;

/// Up to that many moves, exchanges in their order are tried.
const FEW: usize = 32;

/// How many schedules exchanges start from.
const CLIMBS: usize = 6;

/// What is left to copy when a move counts as ended, bytes: less than a page.
pub(super) const SETTLED: f64 = 1.0;

pub(super) struct Job {
    copying: Copying,
    pub(super) priority: Priority,
    /// Positions of its two hosts.
    pub(super) from: usize,
    pub(super) to: usize,
    /// What it copies where it has its links for itself, bytes per second.
    pub(super) best: f64,
    after: Vec<usize>,
}

impl Job {
    /// Where it leaves and where it arrives: positions of the host that sends and of the one
    /// that receives.
    pub(super) fn ends(&self) -> [usize; 2] {
        [self.from, self.to]
    }
}

pub(super) struct Schedule {
    pub(super) end: f64,
    times: Vec<Times>,
    pub(super) order: Vec<usize>,
    pub(super) part: f64,
    pub(super) sharing: Sharing,
}

pub(super) struct Site {
    pub(super) jobs: Vec<Job>,
    /// Bytes per second, by host.
    pub(super) links: Vec<f64>,
    per_host: u32,
    per_site: usize,
    /// Seconds of each move besides its copy.
    overhead: f64,
}

#[derive(Clone, Copy, Default)]
struct Times {
    start: f64,
    end: f64,
    bytes: f64,
}

/// Gives the moves their times; the result is ordered by start.
pub(crate) fn timed(fleet: &Fleet, request: &EvacuationRequest, steps: Vec<Step>) -> Plan {
    let site = Site::new(fleet, request, &steps);
    let (end, times) = site.soonest();
    let vms: Vec<_> = steps.iter().map(|step| step.vm.clone()).collect();
    let mut moves: Vec<Move> = steps
        .into_iter()
        .zip(times)
        .map(|(step, times)| Move {
            vm: step.vm,
            from: step.from,
            to: step.to,
            start_ms: milliseconds(times.start),
            end_ms: milliseconds(times.end),
            bytes: whole(times.bytes),
            after: step
                .after
                .iter()
                .filter_map(|index| vms.get(*index).cloned())
                .collect(),
            reason: step.reason,
        })
        .collect();
    moves.sort_by(|one, two| (one.start_ms, &one.vm).cmp(&(two.start_ms, &two.vm)));
    Plan {
        moves,
        end_ms: milliseconds(end),
        bound_ms: whole(site.bound() * 1_000.0),
        ..Plan::default()
    }
}

/// Rounded up, the same for an end and for the start that follows it at once.
fn milliseconds(seconds: f64) -> u64 {
    whole((seconds * 1_000.0).ceil())
}

fn whole(value: f64) -> u64 {
    // A cast saturates, and no value here is negative.
    value as u64
}

impl Site {
    fn new(fleet: &Fleet, request: &EvacuationRequest, steps: &[Step]) -> Self {
        let mut numbers: BTreeMap<&HostName, usize> = BTreeMap::new();
        let mut links = Vec::new();
        let mut number = |name| {
            *numbers.entry(name).or_insert_with(|| {
                links.push(request.limits.link(name) as f64);
                links.len() - 1
            })
        };
        let mut jobs = Vec::with_capacity(steps.len());
        for step in steps {
            let memory = fleet.vms.get(&step.vm).map_or(0, |vm| vm.memory_bytes);
            let dirty = request.dirty_bytes_per_second.get(&step.vm);
            jobs.push(Job {
                copying: Copying {
                    memory: (memory as f64).max(SETTLED),
                    dirty: dirty.copied().unwrap_or(0) as f64,
                    sent_max: (request.sent_percent_max as f64 / 100.0).max(1.0),
                },
                priority: step.priority,
                from: number(&step.from),
                to: number(&step.to),
                best: request.limits.fastest(&step.from, &step.to) as f64,
                after: step.after.clone(),
            });
        }
        Self {
            jobs,
            links,
            per_host: request.limits.moves_per_host.max(1),
            per_site: request.limits.moves_per_site.max(1) as usize,
            overhead: request.limits.overhead_ms as f64 / 1_000.0,
        }
    }

    /// No schedule of these moves ends sooner, seconds.
    pub(super) fn bound(&self) -> f64 {
        let mut bytes = vec![[0.0; 2]; self.links.len()];
        let mut busy = vec![0.0; self.links.len()];
        let (mut longest, mut sum) = (0.0_f64, 0.0);
        // A move that waits for another ends after both.
        let mut chains: Vec<f64> = Vec::with_capacity(self.jobs.len());
        for job in &self.jobs {
            let seconds = job.copying.seconds(job.best) + self.overhead;
            let before = job.after.iter().filter_map(|index| chains.get(*index));
            let chain = seconds + before.copied().fold(0.0, f64::max);
            chains.push(chain);
            for (host, way) in [(job.from, 0), (job.to, 1)] {
                bytes[host][way] += job.copying.bytes(job.best);
                busy[host] += seconds;
            }
            longest = longest.max(chain);
            sum += seconds;
        }
        let links = bytes
            .iter()
            .zip(&self.links)
            .map(|(ways, link)| ways[0].max(ways[1]) / link + self.overhead)
            .fold(0.0, f64::max);
        let hosts = busy.into_iter().fold(0.0, f64::max) / f64::from(self.per_host);
        longest
            .max(links)
            .max(hosts)
            .max(sum / self.per_site as f64)
    }

    /// The best of several schedules: two orders, several ways to share links, and, when there
    /// are few moves (the more there are, the less their order matters), exchanges of two of
    /// the same priority and random changes of the order.
    fn soonest(&self) -> (f64, Vec<Times>) {
        let good = self.bound() * GOOD;
        let orders = [self.longest_first(), self.busiest_link_first()];
        let mut tried: Vec<Schedule> = Vec::new();
        let many = self.jobs.len() > MANY;
        for sharing in Sharing::ALL.into_iter().take(if many { 1 } else { 4 }) {
            for part in PARTS {
                for order in &orders {
                    let schedule = self.run(order.clone(), part, sharing);
                    if schedule.end <= good {
                        return (schedule.end, schedule.times);
                    }
                    tried.push(schedule);
                }
            }
        }
        tried.sort_by(|one, two| one.end.total_cmp(&two.end));
        if self.jobs.len() <= FEW {
            tried.truncate(CLIMBS);
            for schedule in &mut tried {
                self.exchange(schedule, good);
            }
        }
        let best = tried
            .into_iter()
            .min_by(|one, two| one.end.total_cmp(&two.end));
        let best = best.map(|best| self.shaken(best));
        best.map_or((0.0, Vec::new()), |best| (best.end, best.times))
    }

    /// By priority, then the longest first.
    fn longest_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.jobs.len()).collect();
        let seconds = |index: &usize| self.jobs[*index].copying.seconds(self.jobs[*index].best);
        order.sort_by(|one, two| {
            let priority = self.jobs[*one].priority.cmp(&self.jobs[*two].priority);
            priority.then(seconds(two).total_cmp(&seconds(one)))
        });
        order
    }

    /// By priority, then the moves whose links have the most to carry, then the longest first.
    fn busiest_link_first(&self) -> Vec<usize> {
        let mut load = vec![[0.0_f64; 2]; self.links.len()];
        for job in &self.jobs {
            load[job.from][0] += job.copying.bytes(job.best) / self.links[job.from];
            load[job.to][1] += job.copying.bytes(job.best) / self.links[job.to];
        }
        let busiest = |index: &usize| {
            let job = &self.jobs[*index];
            load[job.from][0].max(load[job.to][1])
        };
        let mut order = self.longest_first();
        order.sort_by(|one, two| {
            let priority = self.jobs[*one].priority.cmp(&self.jobs[*two].priority);
            priority.then(busiest(two).total_cmp(&busiest(one)))
        });
        order
    }

    /// Plays the schedule.
    pub(super) fn run(&self, order: Vec<usize>, part: f64, sharing: Sharing) -> Schedule {
        let mut times = vec![Times::default(); self.jobs.len()];
        let mut left: Vec<f64> = self.jobs.iter().map(|job| job.copying.memory).collect();
        let mut ended = vec![false; self.jobs.len()];
        let mut busy = vec![0_u32; self.links.len()];
        let mut waiting: Vec<usize> = order.clone();
        let mut running: Vec<usize> = Vec::new();
        let mut held: Vec<f64> = Vec::new();
        // Copied and not at their end, in the order of their ends.
        let mut closing: VecDeque<usize> = VecDeque::new();
        let mut now = 0.0;
        while !(waiting.is_empty() && running.is_empty() && closing.is_empty()) {
            let mut rates = match sharing {
                Sharing::FirstComes => self.relieved(&running, std::mem::take(&mut held)),
                _ => self.rates(&running, &left, sharing),
            };
            let mut free = self.free(&running, &rates);
            let flows = |way: usize, host: usize, running: &[usize]| {
                let here = |index: &&usize| self.jobs[**index].ends()[way] == host;
                running.iter().filter(here).count() as f64
            };
            waiting.retain(|index| {
                let job = &self.jobs[*index];
                let allowed = running.len() + closing.len() < self.per_site
                    && busy[job.from].max(busy[job.to]) < self.per_host
                    && job.after.iter().all(|before| ended[*before]);
                if !allowed {
                    return true;
                }
                let rate = match sharing {
                    Sharing::FirstComes => free[job.from][0].min(free[job.to][1]).min(job.best),
                    _ => [job.from, job.to]
                        .into_iter()
                        .enumerate()
                        .map(|(way, host)| self.links[host] / (flows(way, host, &running) + 1.0))
                        .fold(job.best, f64::min),
                };
                let starts = rate >= part * job.best;
                if starts {
                    free[job.from][0] -= rate;
                    free[job.to][1] -= rate;
                    busy[job.from] += 1;
                    busy[job.to] += 1;
                    times[*index].start = now;
                    running.push(*index);
                    rates.push(rate);
                }
                !starts
            });
            if sharing != Sharing::FirstComes {
                rates = self.rates(&running, &left, sharing);
            }
            held.clear();
            let under_way: Vec<(usize, f64)> = running.drain(..).zip(rates).collect();
            let lasts = |(index, rate): &(usize, f64)| {
                left[*index] / self.jobs[*index].copying.progress(*rate)
            };
            let copied = under_way.iter().map(lasts);
            let closed = closing.front().map(|index| times[*index].end - now);
            let Some(step) = copied.chain(closed).min_by(f64::total_cmp) else {
                // Cannot happen: with nothing under way every link is free, and moves wait only
                // for earlier ones.
                break;
            };
            now += step;
            for (index, rate) in under_way {
                let job = &self.jobs[index];
                left[index] -= step * job.copying.progress(rate);
                times[index].bytes += step * rate;
                if left[index] < SETTLED {
                    times[index].end = now + self.overhead;
                    closing.push_back(index);
                } else {
                    running.push(index);
                    held.push(rate);
                }
            }
            while let Some(index) = closing.pop_front_if(|index| times[*index].end <= now) {
                ended[index] = true;
                busy[self.jobs[index].from] -= 1;
                busy[self.jobs[index].to] -= 1;
            }
        }
        Schedule {
            end: times.iter().map(|times| times.end).fold(0.0, f64::max),
            times,
            order,
            part,
            sharing,
        }
    }
}
