//! Tests of the report: a muted endpoint is red, an answering one green, and nothing in between is
//! counted as either.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::results::{Config, Line, Target};

const SECOND: u64 = 1_000_000_000;
const STEP: u64 = SECOND / 5;

fn target(id: &str, replica_of: Option<&str>) -> Target {
    Target {
        id: id.into(),
        system: "oa".into(),
        address: "10.0.0.1:80".parse().unwrap(),
        path: "/".into(),
        host_header: None,
        replica_of: replica_of.map(str::to_owned),
        interval_milliseconds: None,
        hold_path: None,
    }
}

/// Results of 5 probes a second for `length` seconds; `muted` says when a target does not answer.
fn results(targets: &[Target], length: u64, muted: impl Fn(&str, f64) -> bool) -> Results {
    let config = Config {
        interval_milliseconds: 200,
        timeout_milliseconds: 1000,
        targets: targets.to_vec(),
    };
    let mut results = Results::default();
    results.push(Line::Run { at: 0, config });
    for step in 0..length * 5 {
        for target in targets {
            let at = SECOND + step * STEP;
            let ok = !muted(&target.id, step as f64 / 5.0);
            let error = (!ok).then(|| "no answer within 1000 ms".to_owned());
            let took = if ok { 5_000_000 } else { SECOND };
            let sample = Sample {
                at,
                target: target.id.clone(),
                ok,
                took,
                error,
                guest: None,
            };
            results.push(Line::Probe(sample));
        }
    }
    results
}

#[test]
fn an_answering_endpoint_is_green() {
    let report = judge(
        &results(&[target("a", None)], 10, |_, _| false),
        Window::ALL,
    );
    let endpoint = &report.endpoints["a"];
    assert_eq!(
        (endpoint.probes, endpoint.failures, endpoint.downtime.len()),
        (50, 0, 0)
    );
    assert_eq!(endpoint.unobserved_seconds, 0.0);
    assert!(
        endpoint.longest_gap_seconds < 0.21,
        "{}",
        endpoint.longest_gap_seconds
    );
    assert!(report.systems["oa"].downtime.is_empty());
}

#[test]
fn a_muted_endpoint_is_red_for_as_long_as_it_is_muted() {
    let report = judge(
        &results(&[target("a", None)], 10, |_, at| (3.0..5.5).contains(&at)),
        Window::ALL,
    );
    let endpoint = &report.endpoints["a"];
    assert_eq!(endpoint.failures, 13);
    assert_eq!(endpoint.downtime.len(), 1);
    let outage = endpoint.downtime[0];
    assert_eq!((outage.from, outage.ended), (4 * SECOND, true));
    assert!((outage.seconds - 2.6).abs() < 1e-6, "{outage:?}");
    assert_eq!(endpoint.errors["no answer within 1000 ms"], 13);
    assert!((report.systems["oa"].downtime_seconds - 2.6).abs() < 1e-6);
    assert!(endpoint.longest_gap_seconds > 2.5);
}

#[test]
fn one_failed_probe_is_seen() {
    let report = judge(
        &results(&[target("a", None)], 10, |_, at| at == 4.0),
        Window::ALL,
    );
    assert_eq!(report.endpoints["a"].failures, 1);
    assert!((report.endpoints["a"].downtime_seconds - 0.2).abs() < 1e-6);
}

#[test]
fn an_endpoint_that_never_comes_back_is_down_to_the_end() {
    let report = judge(
        &results(&[target("a", None)], 10, |_, at| at >= 8.0),
        Window::ALL,
    );
    let outage = report.endpoints["a"].downtime[0];
    assert!(!outage.ended);
    assert!(
        (outage.seconds - 2.8).abs() < 1e-6,
        "to the end of the last probe: {outage:?}"
    );
}

#[test]
fn a_replicated_endpoint_is_down_only_while_no_replica_answers() {
    let targets = [target("a@0", Some("a")), target("a@1", Some("a"))];
    let muted = |id: &str, at: f64| match id {
        "a@0" => (2.0..6.0).contains(&at),
        _ => (5.0..8.0).contains(&at),
    };
    let report = judge(&results(&targets, 10, muted), Window::ALL);
    assert!((report.replicas["a@0"].downtime_seconds - 4.0).abs() < 1e-6);
    assert!((report.replicas["a@1"].downtime_seconds - 3.0).abs() < 1e-6);
    assert!(
        (report.endpoints["a"].downtime_seconds - 1.0).abs() < 1e-6,
        "{:?}",
        report.endpoints["a"].downtime
    );
    assert_eq!(report.endpoints.len(), 1);
}

#[test]
fn a_system_is_down_while_any_endpoint_is() {
    let targets = [target("a", None), target("b", None)];
    let muted = |id: &str, at: f64| {
        if id == "a" {
            at < 2.0
        } else {
            (1.0..4.0).contains(&at)
        }
    };
    let report = judge(&results(&targets, 10, muted), Window::ALL);
    assert!(
        (report.systems["oa"].downtime_seconds - 4.0).abs() < 1e-6,
        "{:?}",
        report.systems["oa"].downtime
    );
}

#[test]
fn a_pause_of_the_prober_is_unobserved_not_up() {
    let mut results = results(&[target("a", None)], 10, |_, _| false);
    results
        .samples
        .retain(|sample| !(4 * SECOND..7 * SECOND).contains(&sample.at));
    let report = judge(&results, Window::ALL);
    let endpoint = &report.endpoints["a"];
    assert!(endpoint.downtime.is_empty());
    assert!(
        (endpoint.unobserved_seconds - 3.195).abs() < 1e-3,
        "{}",
        endpoint.unobserved_seconds
    );
}

#[test]
fn a_window_judges_only_what_lies_in_it() {
    let results = results(&[target("a", None)], 10, |_, at| (3.0..5.0).contains(&at));
    let before = judge(
        &results,
        Window {
            from: 0,
            to: 4 * SECOND,
        },
    );
    assert_eq!(
        (before.endpoints["a"].failures, before.endpoints["a"].probes),
        (0, 15)
    );
    let within = judge(
        &results,
        Window {
            from: 5 * SECOND,
            to: 20 * SECOND,
        },
    );
    assert!((within.endpoints["a"].downtime_seconds - 1.0).abs() < 1e-6);
}

#[test]
fn a_held_connection_that_breaks_is_red() {
    let event = |at: u64, connection: u64, broken: Option<&str>| HoldEvent {
        at: at * SECOND,
        target: "a".into(),
        connection,
        lines: at,
        broken: broken.map(str::to_owned),
    };
    let mut results = Results {
        holds: (1..5).map(|at| event(at, 1, None)).collect(),
        ..Results::default()
    };
    let good = judge(&results, Window::ALL).holds["a"].clone();
    assert_eq!((good.connections, good.lines, good.broken.len()), (1, 4, 0));
    assert_eq!(good.longest_gap_seconds, 1.0);
    results
        .holds
        .extend([event(8, 1, Some("closed")), event(9, 2, None)]);
    let bad = judge(&results, Window::ALL).holds["a"].clone();
    assert_eq!(
        (bad.connections, bad.broken.as_slice()),
        (2, ["closed".to_owned()].as_slice())
    );
    assert_eq!(bad.longest_gap_seconds, 4.0);
}
