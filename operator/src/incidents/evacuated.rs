//! What became of a quarantined host's VMs, from `Host.status.evacuation`: emptied, or deliberately
//! not, and why. The status outlives the operator that wrote it.

use api::{Evacuation, Host};
use failover::host::machine::EventKind;
use failover::incident::{Entry, Ledger, WallTime};
use kube::ResourceExt;

/// Tells how far the evacuation of a host with a standing fault is.
pub(super) fn tell(ledger: &mut Ledger, cause: &str, host: &Host, at: WallTime) {
    let status = host.status.as_ref();
    let Some(evacuation) = status.and_then(|status| status.evacuation.as_ref()) else {
        return;
    };
    let opened = ledger.get(cause).map_or(at, |incident| incident.opened_at);
    for entry in entries(&host.name_any(), evacuation, opened, at) {
        ledger.tell(cause, entry);
    }
}

fn entries(host: &str, evacuation: &Evacuation, opened: WallTime, at: WallTime) -> Vec<Entry> {
    let entry = |kind, step: &str, english: String, chinese: String| Entry {
        at,
        kind,
        step: step.to_owned(),
        english,
        chinese,
    };
    let mut entries = Vec::new();
    match evacuation.phase.as_str() {
        "Running" => entries.push(entry(
            EventKind::Decided,
            "evacuate",
            format!("host {host} is emptied by live migration"),
            format!("热迁移疏散宿主机 {host}"),
        )),
        // One that ended before this fault was seen is another story.
        "Done" if finished_since(evacuation, opened) => entries.push(entry(
            EventKind::Done,
            "emptied",
            format!("host {host} is empty"),
            format!("宿主机 {host} 已清空"),
        )),
        _ => {}
    }
    if evacuation.phase == "Cancelled" {
        return entries;
    }
    for sentence in &evacuation.blocked {
        entries.push(entry(
            EventKind::NotDone,
            &format!("not-moved/{}", stable(sentence)),
            format!("not moved from {host}: {sentence}"),
            format!("未从 {host} 迁出:{sentence}"),
        ));
    }
    entries
}

fn finished_since(evacuation: &Evacuation, opened: WallTime) -> bool {
    // The status keeps whole seconds.
    let second = opened.0.div_euclid(1_000_000);
    let finished = evacuation.finished_at.as_ref();
    finished.is_some_and(|finished| finished.0.as_second() >= second)
}

/// A sentence without its figures, which change from turn to turn; the name of a VM keeps its own.
fn stable(sentence: &str) -> String {
    let plain = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "");
    match sentence.split_once(": ") {
        Some((vm, why)) if vm.contains('/') && !vm.contains(' ') => format!("{vm}: {}", plain(why)),
        _ => plain(sentence),
    }
}

#[cfg(test)]
mod tests {
    use api::Time;
    use jiff::Timestamp;

    use super::*;

    const OPENED: WallTime = WallTime(5_500_000);

    fn evacuation(phase: &str, blocked: &[&str]) -> Evacuation {
        Evacuation {
            phase: phase.to_owned(),
            blocked: blocked
                .iter()
                .map(|&sentence| sentence.to_owned())
                .collect(),
            ..Evacuation::default()
        }
    }

    fn told(evacuation: &Evacuation) -> Vec<(EventKind, String)> {
        entries("h1", evacuation, OPENED, WallTime(9_000_000))
            .into_iter()
            .map(|entry| (entry.kind, entry.english))
            .collect()
    }

    #[test]
    fn a_host_that_is_held_is_not_said_to_be_emptied() {
        let why = "its VMs stay for now: with them elsewhere N+1 of pool general would break";
        let held = told(&evacuation("Blocked", &[why]));
        assert_eq!(
            held,
            [(EventKind::NotDone, format!("not moved from h1: {why}"))]
        );
        let runs = told(&evacuation("Running", &[]));
        let emptied = "host h1 is emptied by live migration".to_owned();
        assert_eq!(runs, [(EventKind::Decided, emptied)]);
        assert!(told(&evacuation("Cancelled", &[why])).is_empty());
    }

    #[test]
    fn each_vm_that_stays_is_told_once_whatever_its_figures() {
        let mut ledger = Ledger::default();
        let (host, kind) = ("h1".into(), model::FaultKind::Fan);
        let severity = model::Severity::Degraded;
        ledger.fault(&host, "fan/1", kind, severity, "0 rpm", OPENED);
        let cause = failover::incident::rules::fault_cause(&host, "fan/1", kind);
        for tries in 1..4 {
            let first =
                format!("egov/oa-web-0: its move failed {tries} times and is tried again: ");
            let second =
                format!("egov/oa-web-1: its move failed {tries} times and is tried again: ");
            let now = evacuation("Running", &[&first, &second]);
            for entry in entries("h1", &now, OPENED, WallTime(9_000_000 + tries)) {
                ledger.tell(&cause, entry);
            }
        }
        let timeline = &ledger.get(&cause).expect("open").timeline;
        let not_done = timeline
            .iter()
            .filter(|entry| entry.kind == EventKind::NotDone)
            .count();
        assert_eq!(not_done, 2, "{timeline:?}");
    }

    #[test]
    fn an_evacuation_that_ended_before_the_fault_is_another_story() {
        for (second, told_so) in [(4, false), (5, true), (60, true)] {
            let mut done = evacuation("Done", &[]);
            let at = Timestamp::from_second(second).expect("a time");
            done.finished_at = Some(Time(at));
            assert_eq!(!told(&done).is_empty(), told_so, "{second}");
        }
    }
}
