//! Judges probes: per endpoint and per replica the failures, downtime and time that nobody observed;
//! per held connection whether it broke; per guest what its answers contradict. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::results::{HoldEvent, Results, Sample};
use crate::spans::{self, Observation, Span, State};
use crate::witness::{self, Witness};

/// Pauses of the prober up to this many intervals are jitter, not blindness.
const PATIENCE_INTERVALS: u64 = 5;
const NANOSECONDS: f64 = 1e9;

/// A window of time, nanoseconds since 1970; the end is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Beginning.
    pub from: u64,
    /// End.
    pub to: u64,
}

impl Window {
    /// All of time.
    pub const ALL: Window = Window {
        from: 0,
        to: u64::MAX,
    };

    fn has(&self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// The verdict on a results file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
pub struct Report {
    /// By endpoint: up when any of its replicas answers.
    pub endpoints: BTreeMap<String, Availability>,
    /// By target.
    pub replicas: BTreeMap<String, Availability>,
    /// By business system: down when any of its endpoints is down.
    pub systems: BTreeMap<String, Availability>,
    /// By target: its held connections.
    pub holds: BTreeMap<String, Hold>,
    /// By name: what guests said about themselves.
    pub guests: BTreeMap<String, Witness>,
}

impl Report {
    /// No probe failed, no held connection broke, no guest contradicts itself.
    pub fn is_clean(&self) -> bool {
        self.replicas.values().all(|replica| replica.failures == 0)
            && self.holds.values().all(|hold| hold.broken.is_empty())
            && self.guests.values().all(|guest| guest.problems.is_empty())
    }
}

/// How something answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Availability {
    /// Business system that it belongs to.
    pub system: String,
    /// Probes that began in the window.
    pub probes: usize,
    /// Of these, failed ones.
    pub failures: usize,
    /// Why probes failed, with how often.
    pub errors: BTreeMap<String, usize>,
    /// Spans in which it was down, in order.
    pub downtime: Vec<Outage>,
    /// Downtime together, seconds.
    pub downtime_seconds: f64,
    /// Time that nobody observed, seconds: neither up nor down.
    pub unobserved_seconds: f64,
    /// Longest time between two good answers, seconds.
    pub longest_gap_seconds: f64,
}

/// One span of downtime.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// First failed probe's beginning, nanoseconds since 1970.
    pub from: u64,
    /// Next good probe's beginning, or the end of the observation.
    pub to: u64,
    /// How long, seconds.
    pub seconds: f64,
    /// It answered again at the end.
    pub ended: bool,
}

/// How a target's held connections fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hold {
    /// Connections used in the window; 1: none broke.
    pub connections: usize,
    /// Lines received.
    pub lines: usize,
    /// Longest time between two lines of one connection, seconds.
    pub longest_gap_seconds: f64,
    /// Why connections broke.
    pub broken: Vec<String>,
}

/// Judges everything that happened within `window`.
pub fn judge(results: &Results, window: Window) -> Report {
    let by_target = by_target(results);
    let mut report = Report::default();
    let mut endpoints: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for (id, samples) in by_target {
        let (endpoint, system, spans) = of_target(results, id, &samples);
        report.replicas.insert(
            id.to_owned(),
            availability(system, &spans, &samples, window),
        );
        endpoints
            .entry(endpoint)
            .or_default()
            .add(system, spans, &samples);
    }
    let mut systems: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for (name, mut replicas) in endpoints {
        let spans = spans::of_any(&replicas.spans);
        replicas.samples.sort_by_key(|sample| sample.at);
        report.endpoints.insert(
            name.to_owned(),
            availability(replicas.system, &spans, &replicas.samples, window),
        );
        systems
            .entry(replicas.system)
            .or_default()
            .add(replicas.system, spans, &replicas.samples);
    }
    for (name, mut endpoints) in systems {
        let spans = spans::of_all(&endpoints.spans);
        endpoints.samples.sort_by_key(|sample| sample.at);
        report.systems.insert(
            name.to_owned(),
            availability(name, &spans, &endpoints.samples, window),
        );
    }
    report.holds = holds(&results.holds, window);
    let heard: Vec<Sample> = results
        .samples
        .iter()
        .filter(|sample| window.has(sample.at))
        .cloned()
        .collect();
    report.guests = witness::judge(&heard);
    report
}

/// All samples by target, each in the order of their beginning.
fn by_target(results: &Results) -> BTreeMap<&str, Vec<&Sample>> {
    let mut by_target: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in &results.samples {
        by_target.entry(&sample.target).or_default().push(sample);
    }
    for samples in by_target.values_mut() {
        samples.sort_by_key(|sample| sample.at);
    }
    by_target
}

/// Endpoint, system and spans of a target. One that no run line names (a file begun in the middle)
/// is judged by itself.
fn of_target<'a>(
    results: &'a Results,
    id: &'a str,
    samples: &[&Sample],
) -> (&'a str, &'a str, Vec<Span>) {
    let known = results.targets.get(id);
    let interval = known.map_or(1_000, |(_, interval)| *interval) * 1_000_000;
    let system = known
        .map(|(target, _)| target.system.as_str())
        .unwrap_or_default();
    let endpoint = known.map_or(id, |(target, _)| target.endpoint());
    let spans = spans_of(samples, interval * PATIENCE_INTERVALS);
    (endpoint, system, spans)
}

/// The spans of every business system over all that was probed: down when any endpoint is.
pub fn system_spans(results: &Results) -> BTreeMap<String, Vec<Span>> {
    let mut endpoints: BTreeMap<(&str, &str), Vec<Vec<Span>>> = BTreeMap::new();
    for (id, samples) in by_target(results) {
        let (endpoint, system, spans) = of_target(results, id, &samples);
        endpoints.entry((system, endpoint)).or_default().push(spans);
    }
    let mut systems: BTreeMap<String, Vec<Vec<Span>>> = BTreeMap::new();
    for ((system, _), replicas) in endpoints {
        let spans = spans::of_any(&replicas);
        systems.entry(system.to_owned()).or_default().push(spans);
    }
    systems
        .into_iter()
        .map(|(system, endpoints)| (system, spans::of_all(&endpoints)))
        .collect()
}

/// Replicas of one endpoint, or endpoints of one system.
#[derive(Default)]
struct Group<'a> {
    system: &'a str,
    spans: Vec<Vec<Span>>,
    samples: Vec<&'a Sample>,
}

impl<'a> Group<'a> {
    fn add(&mut self, system: &'a str, spans: Vec<Span>, samples: &[&'a Sample]) {
        self.system = system;
        self.spans.push(spans);
        self.samples.extend(samples);
    }
}

fn spans_of(samples: &[&Sample], patience: u64) -> Vec<Span> {
    let observations: Vec<_> = samples
        .iter()
        .map(|sample| Observation {
            began: sample.at,
            ended: sample.ended(),
            ok: sample.ok,
        })
        .collect();
    spans::of_replica(&observations, patience)
}

fn availability(system: &str, spans: &[Span], samples: &[&Sample], window: Window) -> Availability {
    let spans = spans::within(spans, window.from, window.to);
    let observed_until = spans.last().map_or(0, |span| span.to);
    let downtime: Vec<Outage> = spans
        .iter()
        .enumerate()
        .filter(|(_, span)| span.state == State::Down)
        .map(|(index, span)| Outage {
            from: span.from,
            to: span.to,
            seconds: seconds(span.to - span.from),
            ended: spans
                .get(index + 1)
                .is_some_and(|next| next.state == State::Up),
        })
        .collect();
    let samples: Vec<&&Sample> = samples
        .iter()
        .filter(|sample| window.has(sample.at))
        .collect();
    let mut errors = BTreeMap::new();
    for error in samples.iter().filter_map(|sample| sample.error.as_ref()) {
        *errors.entry(error.clone()).or_default() += 1;
    }
    let unobserved: u64 = spans
        .iter()
        .filter(|span| span.state == State::Unobserved)
        .map(|span| span.to - span.from)
        .sum();
    Availability {
        system: system.to_owned(),
        probes: samples.len(),
        failures: samples.iter().filter(|sample| !sample.ok).count(),
        errors,
        // The sum of no numbers is -0.0, which would be shown.
        downtime_seconds: downtime.iter().map(|outage| outage.seconds).sum::<f64>() + 0.0,
        downtime,
        unobserved_seconds: seconds(unobserved),
        longest_gap_seconds: longest_gap(&samples, observed_until),
    }
}

/// Longest time without a good answer, from the first probe to `until`.
fn longest_gap(samples: &[&&Sample], until: u64) -> f64 {
    let Some(first) = samples.first() else {
        return 0.0;
    };
    let mut good: Vec<u64> = samples
        .iter()
        .filter(|sample| sample.ok)
        .map(|sample| sample.ended())
        .collect();
    good.push(first.at);
    good.push(until.max(first.at));
    good.sort_unstable();
    good.windows(2)
        .map(|pair| seconds(pair[1] - pair[0]))
        .fold(0.0, f64::max)
}

fn holds(events: &[HoldEvent], window: Window) -> BTreeMap<String, Hold> {
    let mut holds: BTreeMap<String, Hold> = BTreeMap::new();
    let mut last: BTreeMap<&str, &HoldEvent> = BTreeMap::new();
    for event in events.iter().filter(|event| window.has(event.at)) {
        let hold = holds.entry(event.target.clone()).or_default();
        match last.insert(&event.target, event) {
            Some(before) if before.connection == event.connection => {
                hold.longest_gap_seconds = hold
                    .longest_gap_seconds
                    .max(seconds(event.at.saturating_sub(before.at)));
            }
            _ => hold.connections += 1,
        }
        match &event.broken {
            Some(reason) => hold.broken.push(reason.clone()),
            None => hold.lines += 1,
        }
    }
    holds
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / NANOSECONDS
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
