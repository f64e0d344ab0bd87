//! A start that QEMU's image lock refused: some process writes the VM's disk that should not. It is the last line of
//! defence and holds, but something before it has failed, so people are told at once and not after the last try.

use std::sync::Arc;

use api::{CloseReason, Incident, Runtime, RuntimePhase, VirtualMachine};
use failover::Sentence;
use failover::host::machine::EventKind;
use failover::incident::causes::guest_causes;
use failover::incident::{CauseClass, Entry, Ledger, Opening, WallTime};
use model::NamespacedName;

use super::openings::{is_well, vm_name};
use super::recall;

/// So much of what QEMU said is told, characters.
const SAID: usize = 300;

/// Tells of a VM whose last start was refused so, and that does not run since. What a closed Incident tells is over.
pub(super) fn look(
    ledger: &mut Ledger,
    stored: &[Arc<Incident>],
    vm: &VirtualMachine,
    at: WallTime,
) {
    let Some(refused) = refused(vm) else {
        return;
    };
    let name = vm_name(vm);
    let copy = &refused.assignment;
    let step = format!("image-locked/{name}/{}", copy.epoch);
    let closed = stored.iter().map(|incident| &**incident);
    if recall::is_told(closed.filter(|incident| incident.is_closed()), &step) {
        return;
    }
    let cause = of_guest(ledger, &name, refused, at);
    let said = refused.message.as_deref().unwrap_or("-");
    let said: String = said.chars().take(SAID).collect();
    let seen = Entry {
        at,
        kind: EventKind::Seen,
        step: step.clone(),
        english: format!(
            "{} was not started on {}: another process has a disk of it open for writing; QEMU said: {said}",
            name, copy.host
        ),
        chinese: format!(
            "虚拟机 {name} 未能在 {} 启动:另有进程正以写方式打开其磁盘;QEMU 报告:{said}",
            copy.host
        ),
    };
    let next = Entry {
        at,
        kind: EventKind::NotDone,
        step: format!("{step}/next"),
        english: "who that process is can not be told from here; find it and end it before anything is forced \
                  (docs/runbooks/ImageLocked.md); starts are tried again meanwhile"
            .to_owned(),
        chinese: "平台无法判断该进程的身份;请先找到并结束它,勿强制启动(见 docs/runbooks/ImageLocked.md);期间将继续重试启动"
            .to_owned(),
    };
    for entry in [seen, next] {
        ledger.tell(&cause, entry);
    }
}

/// The copy that was refused, of a VM that does not run since.
fn refused(vm: &VirtualMachine) -> Option<&Runtime> {
    let runtime = vm.status.as_ref()?.runtime.as_ref()?;
    let locked = runtime.phase == RuntimePhase::Closed
        && runtime.close_reason == Some(CloseReason::ImageLocked);
    (locked && !is_well(vm)).then_some(runtime)
}

/// The open incident of the VM's own under this title; opened if it has none. It is never told in that of a host that
/// died: if that host still writes, it has not.
fn of_guest(ledger: &mut Ledger, name: &NamespacedName, refused: &Runtime, at: WallTime) -> String {
    let title = Sentence {
        english: format!("VM {name} is refused its disk: another process writes it"),
        chinese: format!("虚拟机 {name} 的磁盘正被另一进程写入,拒绝启动"),
    };
    let own = guest_causes(name);
    let open = ledger.open().keys().find(|cause| cause.starts_with(&own));
    if let Some(cause) = open.cloned() {
        ledger.reclassify(&cause, CauseClass::Unknown, title);
        return cause;
    }
    let cause = format!("{own}{}", refused.assignment.epoch);
    let opening = Opening {
        cause: cause.clone(),
        class: CauseClass::Unknown,
        title,
        host: Some(refused.assignment.host.clone()),
    };
    ledger.open_incident(opening, at);
    cause
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: WallTime = WallTime(5_000_000);
    const STEP: &str = "image-locked/egov/oa-db-0/3";

    fn vm(run_strategy: &str, status: Value) -> VirtualMachine {
        let mut vm: VirtualMachine = serde_json::from_value(json!({
            "metadata": {"name": "oa-db-0", "namespace": "egov"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": [],
                     "runStrategy": run_strategy}
        }))
        .expect("a VM");
        vm.status = Some(serde_json::from_value(status).expect("a status"));
        vm
    }

    fn closed(reason: &str) -> Value {
        json!({"assignment": {"host": "h2", "bootId": "b2", "epoch": 3}, "phase": "Closed",
               "since": "2026-01-01T00:00:00Z", "closeReason": reason,
               "message": "Failed to get \"write\" lock"})
    }

    fn right(epoch: i64) -> Value {
        json!({"host": "h2", "bootId": "b2", "epoch": epoch})
    }

    #[test]
    fn the_first_refusal_opens_an_incident_that_says_what_to_do() {
        let vm = vm(
            "Always",
            json!({"assignment": right(3), "runtime": closed("ImageLocked")}),
        );
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            look(&mut ledger, &[], &vm, AT);
        }
        let causes: Vec<_> = ledger.open().keys().cloned().collect();
        assert_eq!(causes, ["guest/egov/oa-db-0/3"]);
        let incident = &ledger.open()["guest/egov/oa-db-0/3"];
        assert_eq!(incident.host, Some("h2".into()));
        assert!(
            incident.title.contains("another process writes"),
            "{}",
            incident.title
        );
        let steps: Vec<_> = incident
            .timeline
            .iter()
            .map(|entry| entry.step.as_str())
            .collect();
        assert_eq!(steps, [STEP, &format!("{STEP}/next")], "told once");
        let told: String = incident
            .timeline
            .iter()
            .map(|entry| entry.english.as_str())
            .collect();
        assert!(
            told.contains("Failed to get") && told.contains("ImageLocked.md"),
            "{told}"
        );
    }

    #[test]
    fn a_refusal_while_the_next_epoch_is_assigned_is_told_and_any_other_end_is_not() {
        let opened = |run_strategy: &str, status: Value| {
            let mut ledger = Ledger::default();
            look(&mut ledger, &[], &vm(run_strategy, status), AT);
            !ledger.open().is_empty()
        };
        assert!(opened(
            "Always",
            json!({"assignment": right(4), "runtime": closed("ImageLocked")})
        ));
        assert!(opened("Always", json!({"runtime": closed("ImageLocked")})));
        for reason in ["StartFailed", "Crashed", "Declined"] {
            let status = json!({"assignment": right(3), "runtime": closed(reason)});
            assert!(!opened("Always", status), "{reason}");
        }
        let halted = json!({"phase": "Stopped", "runtime": closed("ImageLocked")});
        assert!(!opened("Halted", halted));
    }

    /// A crash whose QEMU lives on: one story.
    #[test]
    fn an_open_incident_of_the_vm_goes_on_under_the_new_title() {
        let opening = Opening {
            cause: "guest/egov/oa-db-0/2".to_owned(),
            class: CauseClass::Software,
            title: Sentence {
                english: "VM egov/oa-db-0 crashed on h1".to_owned(),
                chinese: String::new(),
            },
            host: None,
        };
        let mut ledger = Ledger::default();
        ledger.open_incident(opening, AT);
        let vm = vm(
            "Always",
            json!({"assignment": right(3), "runtime": closed("ImageLocked")}),
        );
        look(&mut ledger, &[], &vm, AT);
        let open: Vec<_> = ledger.open().values().collect();
        assert_eq!(open.len(), 1);
        assert!(
            open[0].title.contains("another process writes"),
            "{}",
            open[0].title
        );
        assert!(open[0].timeline.iter().any(|entry| entry.step == STEP));
    }

    #[test]
    fn what_a_closed_incident_tells_is_not_told_again() {
        let told: Incident = serde_json::from_value(json!({
            "metadata": {"name": "i"},
            "spec": {"cause": "guest/egov/oa-db-0/3", "causeClass": "Unknown", "title": "t",
                     "openedAt": "2026-01-01T00:00:00.000000Z"},
            "status": {"state": "Closed", "timeline": [
                {"at": "2026-01-01T00:00:00.000000Z", "kind": "Seen", "step": STEP, "text": "m"}]}
        }))
        .expect("an incident");
        let vm = vm(
            "Always",
            json!({"assignment": right(4), "runtime": closed("ImageLocked")}),
        );
        let mut ledger = Ledger::default();
        look(&mut ledger, &[Arc::new(told)], &vm, AT);
        assert!(ledger.open().is_empty());
    }
}
