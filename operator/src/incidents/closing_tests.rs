//! Whether a person's word closes an incident, and when.

use failover::incident::{CauseClass, Ledger, Opening, WallTime};
use serde_json::json;

use super::*;
use crate::context_in_memory::{self, Site};
use crate::incidents::world_in_memory::World;

fn fan(second: i64) -> State {
    let mut ledger = Ledger::default();
    let cause = "hardware/h1/fan/1/Fan";
    ledger.open_incident(opening(cause, None), WallTime(second * 1_000_000));
    State {
        ledger: Some(ledger),
        ..State::default()
    }
}

fn opening(cause: &str, host: Option<&str>) -> Opening {
    Opening {
        cause: cause.to_owned(),
        class: CauseClass::Unknown,
        host: host.map(Into::into),
        title: failover::Sentence {
            english: cause.to_owned(),
            chinese: cause.to_owned(),
        },
    }
}

fn word() -> Arc<Object> {
    let word = serde_json::from_value(json!({
        "metadata": {"name": "hardware-h1-fan-1-fan-5"},
        "spec": {"cause": "hardware/h1/fan/1/Fan", "causeClass": "Hardware", "title": "t", "titleChinese": "t",
            "openedAt": "1970-01-01T00:00:05Z", "closure": {"by": "w", "reason": "r", "causeClass": "Planned"}}
    }));
    Arc::new(word.expect("an Incident"))
}

/// The cause came back after a person had closed its incident, and the cache shows that one as open still.
#[test]
fn a_persons_word_closes_the_incident_that_it_is_about_and_no_later_one_of_its_cause() {
    for (second, closes) in [(5, true), (65, false)] {
        let mut state = fan(second);
        state.take_words_that_close(&words(&[word()]), &|_| true);
        let ledger = state.ledger.expect("a ledger");
        assert_eq!(ledger.open().is_empty(), closes, "{second}");
    }
}

#[test]
fn a_word_waits_until_the_cause_is_gone_and_its_class_counts_then() {
    let mut state = fan(5);
    for _ in 0..2 {
        state.take_words_that_close(&words(&[word()]), &|_| false);
    }
    let ledger = state.ledger.as_ref().expect("a ledger");
    let open = ledger.get("hardware/h1/fan/1/Fan").expect("open");
    let [told] = open.timeline.as_slice() else {
        panic!("{:?}", open.timeline);
    };
    assert_eq!(
        (told.kind, told.step.as_str()),
        (EventKind::NotDone, INCIDENT_STEP_NOT_CLOSED)
    );
    state.take_words_that_close(&words(&[word()]), &|_| true);
    assert!(state.ledger.as_ref().expect("a ledger").open().is_empty());
    let closed = &state.dirty["hardware-h1-fan-1-fan-5"];
    assert_eq!(closed.class, CauseClass::Planned);
    assert_eq!(closed.timeline.len(), 2);
}

/// Two hosts in these states, the first in maintenance or not, and a VM that has a right to run on the second under
/// its present boot.
async fn site(states: [&str; 2], in_maintenance: bool) -> Site {
    site_of(states, in_maintenance, context_in_memory::BOOT).await
}

/// The same with a boot of the second host.
async fn site_of(states: [&str; 2], in_maintenance: bool, boot: &str) -> Site {
    let reason = if in_maintenance {
        json!({"reason": "new memory"})
    } else {
        json!(null)
    };
    let hosts = ["h1", "h2"].into_iter().zip(states).map(|(name, state)| {
        let maintenance = if name == "h1" {
            reason.clone()
        } else {
            json!(null)
        };
        let mut host = Host::clone(&context_in_memory::host(name, maintenance, json!(null)));
        let status = host.status.as_mut().expect("a status");
        status.state = Some(serde_json::from_value(json!(state)).expect("a state"));
        if let Some(report) = status.reported.as_mut().filter(|_| name == "h2") {
            report.incarnation.boot_id = boot.into();
        }
        Arc::new(host)
    });
    let vm = context_in_memory::vm("oa-db-0", "Normal", "h2", json!({}));
    Site::new(Default::default(), hosts.collect(), vec![vm], vec![]).await
}

fn incident(cause: &str, host: Option<&str>, steps: &[&str]) -> Incident {
    let mut ledger = Ledger::default();
    ledger.open_incident(opening(cause, host), WallTime(0));
    for step in steps {
        let entry = Entry {
            step: (*step).to_owned(),
            ..closed(&IncidentClosure {
                by: "w".to_owned(),
                reason: "r".to_owned(),
                cause_class: None,
            })
        };
        ledger.tell(cause, entry);
    }
    ledger.get(cause).expect("open").clone()
}

#[tokio::test]
async fn a_word_closes_what_nothing_more_follows_of() {
    let of_silence = || incident("host-silent/h1/b0", Some("h1"), &[]);
    let of_storm = || incident(STORM_CAUSE, None, &["storm", "h1/Seen/MissedRenewal"]);
    let of_work = || incident("maintenance/h1", Some("h1"), &[]);
    let planned = true;
    for (incident, h1, in_maintenance, closes, why) in [
        (of_silence(), "Ready", !planned, true, "it is back"),
        (of_silence(), "Maintenance", planned, true, "it lives"),
        (of_silence(), "Quarantined", !planned, true, "it lives"),
        (
            of_silence(),
            "NotRegistered",
            !planned,
            true,
            "it was made anew",
        ),
        (of_silence(), "Suspect", !planned, false, "silent"),
        (of_silence(), "Unreachable", !planned, false, "silent"),
        (of_silence(), "Fencing", !planned, false, "silent"),
        (of_silence(), "Fenced", !planned, false, "dead"),
        (
            of_silence(),
            "Recovering",
            !planned,
            false,
            "on its way back",
        ),
        (
            incident("host-silent/h9/b", Some("h9"), &[]),
            "Ready",
            !planned,
            true,
            "deleted",
        ),
        (
            incident("host-silent/h2/b", Some("h2"), &[]),
            "Ready",
            !planned,
            true,
            "its VMs never stopped",
        ),
        (of_storm(), "Ready", !planned, true, "all are back"),
        (of_storm(), "Fenced", !planned, false, "one is dead"),
        (
            incident(STORM_CAUSE, None, &["storm", "h2/Seen/MissedRenewal"]),
            "Fenced",
            !planned,
            true,
            "off for weeks",
        ),
        (
            of_work(),
            "Maintenance",
            planned,
            false,
            "people still work",
        ),
        (of_work(), "Ready", !planned, true, "the work is over"),
        (
            incident("hardware/h1/fan/1/Fan", Some("h1"), &[]),
            "Ready",
            !planned,
            true,
            "no such fault",
        ),
    ] {
        let site = site([h1, "Ready"], in_maintenance).await;
        let cause = &incident.cause;
        assert_eq!(
            may_close(&site.context, &incident),
            closes,
            "{cause}: {why}"
        );
    }
}

#[tokio::test]
async fn a_fault_that_is_no_incident_any_more_may_be_closed() {
    let fan = incident("hardware/h1/fan/1/Fan", Some("h1"), &[]);
    for (severity, closes) in [
        (Severity::Info, true),
        (Severity::Degraded, false),
        (Severity::Critical, false),
    ] {
        let site = site(["Ready", "Ready"], false).await;
        let fault = failover::severity::ReportedFault {
            component: "fan/1".to_owned(),
            kind: model::FaultKind::Fan,
            severity,
            evidence: "0 rpm".to_owned(),
            last_seen_seconds: 1,
        };
        let now = crate::clock::now();
        let mut watch = site.context.hosts.lock().expect("hosts");
        watch.report(&"h1".into(), &[fault], now);
        assert_eq!(watch.faults(&"h1".into()).len(), 1);
        drop(watch);
        assert_eq!(may_close(&site.context, &fan), closes, "{severity:?}");
    }
}

#[tokio::test]
async fn a_silence_is_not_over_while_a_vm_is_left_under_the_boot_that_died() {
    let silence = incident("host-silent/h2/b", Some("h2"), &[]);
    let site = site_of(["Ready", "Ready"], false, "b2").await;
    assert!(!may_close(&site.context, &silence));
}

/// Two hosts are off for long, each with an incident of its own, when others fall silent for a moment.
#[test]
fn a_storm_is_not_closed_while_it_is_told() {
    let (mut world, mut watch) = (World::new(), HostWatch::default());
    let mut pass = |world: &mut World, steps: usize| {
        for _ in 0..steps {
            world.step();
            let _ = watch.look(&world.facts, (true, true), world.now);
        }
        let hosts = world.shown(0, Vec::new()).hosts;
        let hosts: Vec<Arc<Host>> = hosts.into_iter().map(Arc::new).collect();
        let storm = incident(STORM_CAUSE, None, &["storm", "h3/Seen/MissedRenewal"]);
        let gone = cause_is_gone(&storm, &hosts, &watch);
        (watch.told_storm().is_some(), gone)
    };
    for host in ["h1", "h2"] {
        world.falls_silent(host);
        pass(&mut world, 90);
    }
    assert_eq!(
        pass(&mut world, 1),
        (false, true),
        "the last one is long over"
    );
    for host in ["h3", "h4"] {
        world.falls_silent(host);
    }
    assert_eq!(pass(&mut world, 5), (true, false));
    for host in ["h3", "h4"] {
        world.renews(host);
    }
    assert_eq!(
        pass(&mut world, 2),
        (true, false),
        "it would be opened again"
    );
    assert_eq!(pass(&mut world, 90), (false, true));
}
