//! What people said, in the Incidents that it concerns: who confirmed, cleared, disarmed, armed or asked for
//! a rebase, when, and why. Each word has a step of its own, so that no leader tells it twice.

use std::sync::Arc;

use api::{CloudPolicySpec, Host};
use failover::host::machine::EventKind;
use failover::incident::rules::silent_cause;
use failover::incident::{Entry, Incident, Ledger, WallTime};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::arming::Arming;

/// A word, and which open Incidents it concerns.
struct Word {
    entry: Entry,
    concerns: Box<dyn Fn(&Incident) -> bool>,
}

fn entry(step: String, english: String, chinese: String, at: WallTime) -> Entry {
    Entry {
        at,
        kind: EventKind::Done,
        step,
        english,
        chinese,
    }
}

/// Tells the words that stand to the Incidents that are open.
pub(super) fn follow(
    ledger: &mut Ledger,
    policy: &CloudPolicySpec,
    hosts: &[Arc<Host>],
    now: Timestamp,
) {
    if ledger.open().is_empty() {
        return;
    }
    let mut words = of_site(policy, now);
    words.extend(hosts.iter().flat_map(|host| of_host(host, now)));
    for word in words {
        let causes: Vec<String> = ledger
            .open()
            .values()
            // One without room counts what it leaves out: once is enough.
            .filter(|incident| incident.dropped == 0 && (word.concerns)(incident))
            .map(|incident| incident.cause.clone())
            .collect();
        for cause in causes {
            ledger.tell(&cause, word.entry.clone());
        }
    }
}

fn wall(at: Timestamp) -> WallTime {
    WallTime(at.as_microsecond())
}

/// Said while the Incident stood.
fn since(incident: &Incident, said: Timestamp) -> bool {
    wall(said) >= incident.opened_at
}

fn of_site(policy: &CloudPolicySpec, now: Timestamp) -> Vec<Word> {
    let failover = &policy.failover;
    let mut words = Vec::new();
    if let Arming::Disarmed(word) = Arming::of(failover, now) {
        let until = word.until.0;
        words.push(Word {
            entry: entry(
                format!("disarmed/{until}"),
                format!(
                    "failover is disarmed until {until} by {}: {}",
                    word.by, word.reason
                ),
                format!("故障切换由 {} 停用,直至 {until}:{}", word.by, word.reason),
                wall(now),
            ),
            // It holds back what any of them waits for, whenever it was said.
            concerns: Box::new(|_| true),
        });
    }
    if let Some(word) = &failover.armed {
        let (at, reason) = (word.at.0, word.reason.as_deref().unwrap_or("-"));
        words.push(Word {
            entry: entry(
                format!("armed/{at}"),
                format!("failover is armed again by {}: {reason}", word.by),
                format!("故障切换由 {} 重新启用:{reason}", word.by),
                wall(now),
            ),
            concerns: Box::new(move |incident| since(incident, at)),
        });
    }
    if let Some(word) = &failover.rebase {
        let at = word.at.0;
        words.push(Word {
            entry: entry(
                format!("rebase/{at}"),
                format!("{} asked for a rebase: {}", word.by, word.reason),
                format!("{} 要求重新定基:{}", word.by, word.reason),
                wall(now),
            ),
            concerns: Box::new(move |incident| since(incident, at)),
        });
    }
    words
}

fn of_host(host: &Host, now: Timestamp) -> Vec<Word> {
    let name = host.name_any();
    let mut words = Vec::new();
    if let Some(word) = &host.spec.confirmed_off {
        let silent = silent_cause(&name, &word.boot_id);
        words.push(Word {
            entry: entry(
                format!("confirmed/{}", word.at.0),
                format!("{} says that it is powered off: {}", word.by, word.reason),
                format!("{} 确认其已断电:{}", word.by, word.reason),
                wall(now),
            ),
            concerns: Box::new(move |incident| incident.cause == silent),
        });
    }
    if let Some(word) = &host.spec.fault_clearance {
        let (at, hardware) = (word.at.0, format!("hardware/{name}/"));
        words.push(Word {
            entry: entry(
                format!("cleared/{at}"),
                format!(
                    "{} says that the faults are dealt with: {}",
                    word.by, word.reason
                ),
                format!("{} 确认故障已处理:{}", word.by, word.reason),
                wall(now),
            ),
            concerns: Box::new(move |incident| {
                incident.cause.starts_with(&hardware) && since(incident, at)
            }),
        });
    }
    words
}

#[cfg(test)]
mod tests {
    use failover::Sentence;
    use failover::incident::{CauseClass, Opening};
    use model::HostName;
    use serde_json::{Value, json};

    use super::*;

    const OPENED: i64 = 1_800_000_000_000_000;
    /// Two silent hosts and a fan.
    const CAUSES: [&str; 3] = [
        "host-silent/h1/b1",
        "host-silent/h2/b2",
        "hardware/h1/fan/Fan",
    ];

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for cause in CAUSES {
            let opening = Opening {
                cause: cause.to_owned(),
                class: CauseClass::Unknown,
                title: Sentence {
                    english: "t".to_owned(),
                    chinese: String::new(),
                },
                host: cause
                    .split('/')
                    .nth(1)
                    .map(|name| HostName(name.to_owned())),
            };
            ledger.open_incident(opening, WallTime(OPENED));
        }
        ledger
    }

    /// So many seconds after the Incidents were opened.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_microsecond(OPENED + seconds * 1_000_000).expect("a moment")
    }

    fn host(words: Value) -> Arc<Host> {
        let mut spec = json!({"pool": "p", "managementAddress": "10.0.0.1"});
        for (field, word) in words.as_object().expect("words") {
            spec[field] = word.clone();
        }
        let host = serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"}, "spec": spec,
        }));
        Arc::new(host.expect("a host"))
    }

    fn policy(failover: Value) -> CloudPolicySpec {
        serde_json::from_value(json!({ "failover": failover })).expect("a policy")
    }

    /// Which Incidents tell this step, by their causes.
    fn told(ledger: &Ledger, step: &str) -> Vec<String> {
        let tells = |incident: &&Incident| {
            let steps = incident.timeline.iter();
            steps.filter(|entry| entry.step.starts_with(step)).count() == 1
        };
        let open = ledger.open().values().filter(tells);
        open.map(|incident| incident.cause.clone()).collect()
    }

    #[test]
    fn a_word_is_told_once_in_the_incidents_that_it_concerns() {
        let mut ledger = ledger();
        let said = at(60).to_string();
        let word = json!({"at": said, "by": "li", "reason": "new fan"});
        let host = host(json!({
            "faultClearance": word,
            "confirmedOff": {"bootId": "b1", "at": said, "by": "li", "reason": "cord pulled"},
        }));
        let policy = policy(json!({
            "disarmed": {"until": at(3600).to_string(), "by": "li", "reason": "switch work"},
            "rebase": {"frozenSince": said, "at": said, "by": "ops", "reason": "disk full"},
        }));
        // Every turn, of whatever leader.
        for second in 60..65 {
            follow(
                &mut ledger,
                &policy,
                std::slice::from_ref(&host),
                at(second),
            );
        }
        assert_eq!(told(&ledger, "confirmed/"), ["host-silent/h1/b1"]);
        assert_eq!(told(&ledger, "cleared/"), ["hardware/h1/fan/Fan"]);
        assert_eq!(told(&ledger, "disarmed/").len(), CAUSES.len());
        assert_eq!(told(&ledger, "rebase/").len(), CAUSES.len());
        assert!(told(&ledger, "armed/").is_empty());
        let silent = ledger.get("host-silent/h1/b1").expect("open");
        let entry = silent.timeline.iter();
        let mut entry = entry.filter(|entry| entry.step.starts_with("confirmed/"));
        let entry = entry.next().expect("told");
        assert!(entry.english.contains("li") && entry.english.contains("cord pulled"));
        assert!(entry.chinese.contains("li") && entry.chinese.contains("cord pulled"));
    }

    #[test]
    fn words_of_another_boot_and_from_before_concern_no_incident() {
        let mut ledger = ledger();
        let before = at(-60).to_string();
        let host = host(json!({
            "faultClearance": {"at": before, "by": "li", "reason": "new fan"},
            "confirmedOff": {"bootId": "b0", "at": before, "by": "li", "reason": "cord pulled"},
        }));
        let policy = policy(json!({
            "disarmed": {"until": at(-1).to_string(), "by": "li", "reason": "switch work"},
            "armed": {"at": before, "by": "li"},
        }));
        follow(&mut ledger, &policy, &[host], at(1));
        for step in ["confirmed/", "cleared/", "disarmed/", "armed/"] {
            assert!(told(&ledger, step).is_empty(), "{step}");
        }
        let again = self::policy(json!({"armed": {"at": at(30).to_string(), "by": "li"}}));
        follow(&mut ledger, &again, &[], at(31));
        assert_eq!(told(&ledger, "armed/").len(), CAUSES.len());
    }
}
