//! Spans of time in which something was up, down or unobserved, and how spans of replicas combine.

use serde::Serialize;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Answered.
    Up,
    /// Nobody looked: neither up nor down.
    Unobserved,
    /// Did not answer.
    Down,
}

/// A span of one state; times in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Beginning.
    pub from: u64,
    /// End.
    pub to: u64,
    /// What was seen.
    pub state: State,
}

/// One observation: a probe that began, ended, and was good or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When the probe began.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Whether it was answered well.
    pub ok: bool,
}

/// The spans of one replica, without gaps, from its first probe's beginning to its last one's end.
/// Down from the beginning of the first failed probe to the beginning of the next good one; a pause
/// between two probes longer than `patience` is unobserved. `observations` in order of beginning.
pub fn of_replica(observations: &[Observation], patience: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    for (index, observation) in observations.iter().enumerate() {
        let state = if observation.ok {
            State::Up
        } else {
            State::Down
        };
        match observations.get(index + 1) {
            None => push(&mut spans, observation.began, observation.ended, state),
            Some(next) if next.began.saturating_sub(observation.began) > patience => {
                let seen_until = observation.ended.min(next.began);
                push(&mut spans, observation.began, seen_until, state);
                push(&mut spans, seen_until, next.began, State::Unobserved);
            }
            Some(next) => push(&mut spans, observation.began, next.began, state),
        }
    }
    spans
}

/// Spans of several replicas as one: up when any is up, down when every one is seen to be down,
/// else unobserved.
pub fn of_any(replicas: &[Vec<Span>]) -> Vec<Span> {
    combine(replicas, |states| {
        if states.contains(&State::Up) {
            State::Up
        } else if states.iter().all(|state| *state == State::Down) {
            State::Down
        } else {
            State::Unobserved
        }
    })
}

/// Spans of several things that are all needed as one: down when any is down, up when all are up.
pub fn of_all(needed: &[Vec<Span>]) -> Vec<Span> {
    combine(needed, |states| {
        states.iter().copied().max().unwrap_or(State::Unobserved)
    })
}

/// Sweeps over all edges; `state` tells the state between two from the states of each.
fn combine(each: &[Vec<Span>], state: impl Fn(&[State]) -> State) -> Vec<Span> {
    let mut edges: Vec<u64> = each
        .iter()
        .flatten()
        .flat_map(|span| [span.from, span.to])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut positions = vec![0usize; each.len()];
    let mut states = vec![State::Unobserved; each.len()];
    let mut spans = Vec::new();
    for pair in edges.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        for ((own, position), now) in each.iter().zip(&mut positions).zip(&mut states) {
            while own.get(*position).is_some_and(|span| span.to <= from) {
                *position += 1;
            }
            let covering = own.get(*position).filter(|span| span.from <= from);
            *now = covering.map_or(State::Unobserved, |span| span.state);
        }
        push(&mut spans, from, to, state(&states));
    }
    spans
}

/// The part of `spans` within a window.
pub fn within(spans: &[Span], from: u64, to: u64) -> Vec<Span> {
    spans
        .iter()
        .map(|span| Span {
            from: span.from.max(from),
            to: span.to.min(to),
            state: span.state,
        })
        .filter(|span| span.from < span.to)
        .collect()
}

fn push(spans: &mut Vec<Span>, from: u64, to: u64, state: State) {
    match spans.last_mut() {
        Some(last) if last.state == state && last.to == from => last.to = to,
        _ if from < to => spans.push(Span { from, to, state }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(list: &[(u64, u64, bool)]) -> Vec<Observation> {
        list.iter()
            .map(|(began, ended, ok)| Observation {
                began: *began,
                ended: *ended,
                ok: *ok,
            })
            .collect()
    }

    fn span(from: u64, to: u64, state: State) -> Span {
        Span { from, to, state }
    }

    #[test]
    fn down_lasts_from_the_first_failed_probe_to_the_next_good_one() {
        let spans = of_replica(
            &observe(&[
                (0, 1, true),
                (10, 15, false),
                (20, 25, false),
                (30, 31, true),
            ]),
            100,
        );
        assert_eq!(
            spans,
            [
                span(0, 10, State::Up),
                span(10, 30, State::Down),
                span(30, 31, State::Up)
            ]
        );
    }

    #[test]
    fn a_pause_of_the_prober_is_neither_up_nor_down() {
        let spans = of_replica(&observe(&[(0, 1, true), (500, 501, true)]), 100);
        assert_eq!(
            spans,
            [
                span(0, 1, State::Up),
                span(1, 500, State::Unobserved),
                span(500, 501, State::Up)
            ]
        );
    }

    #[test]
    fn an_endpoint_is_up_when_any_replica_is() {
        let first = vec![
            span(0, 10, State::Up),
            span(10, 30, State::Down),
            span(30, 40, State::Up),
        ];
        let second = vec![span(0, 20, State::Up), span(20, 40, State::Down)];
        assert_eq!(
            of_any(&[first.clone(), second]),
            [
                span(0, 20, State::Up),
                span(20, 30, State::Down),
                span(30, 40, State::Up)
            ]
        );
        let blind = vec![span(0, 15, State::Up), span(15, 40, State::Unobserved)];
        assert_eq!(
            of_any(&[first, blind]),
            [
                span(0, 15, State::Up),
                span(15, 30, State::Unobserved),
                span(30, 40, State::Up)
            ],
            "down is only what every replica was seen to be"
        );
    }

    #[test]
    fn a_window_cuts_spans() {
        let spans = [span(0, 10, State::Up), span(10, 20, State::Down)];
        assert_eq!(
            within(&spans, 5, 12),
            [span(5, 10, State::Up), span(10, 12, State::Down)]
        );
        assert_eq!(within(&spans, 30, 40), []);
    }
}
