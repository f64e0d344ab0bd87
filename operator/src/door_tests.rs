//! Statuses as hostile or broken agents write them: of others' VMs, of epochs from the future, of
//! hours that are off, of identities that somebody has already, of anything at all.

use std::collections::BTreeSet;

use failover::Moment;
use failover::failures::Failures;
use failover::guard::heartbeats::{HeartbeatReport, Heartbeats};
use failover::host::incarnation::{Identity, Registration, register};
use failover::migration::{MigrationFacts, MigrationStep};
use failover::proof::self_fence::GuardRegistration;
use failover::vm::{HostSight, VmDecision, VmFacts, Volumes, Wanted, decide};
use model::Assignment;
use serde_json::{Value, json};

use super::*;
use crate::chance::{Chance, cases};

fn vm(status: Value) -> Option<VirtualMachine> {
    serde_json::from_value(json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": "v", "namespace": "d", "uid": "11111111-1111-1111-1111-111111111111"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "linux", "networks": [], "disks": []},
        "status": status,
    }))
    .ok()
}

fn word(chance: &mut Chance, words: &[Value]) -> Value {
    words[chance.below(words.len())].clone()
}

/// What an agent may write of itself and of others, sensible or not.
fn copy(chance: &mut Chance) -> Value {
    let hosts = [
        json!("h1"),
        json!("h2"),
        json!(""),
        json!("h1 "),
        json!("H1"),
    ];
    let boots = [json!("b1"), json!("b0"), json!("b1+1"), json!("")];
    let epochs = [
        json!(3),
        json!(4),
        json!(2),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(i64::MIN),
    ];
    json!({"host": word(chance, &hosts), "bootId": word(chance, &boots), "epoch": word(chance, &epochs)})
}

fn runtime(chance: &mut Chance) -> Value {
    let phases = [
        "Preparing",
        "Starting",
        "Running",
        "Arrived",
        "Stopping",
        "Closed",
        "HandedOver",
        "CloseStuck",
        "Stalled",
        "Dead",
    ];
    let times = [
        "2026-11-25T18:00:00Z",
        "2026-11-25T17:00:00Z",
        "9999-12-31T23:59:59Z",
        "soon",
    ];
    let mut runtime = json!({
        "assignment": copy(chance),
        "phase": phases[chance.below(phases.len())],
        "since": times[chance.below(times.len())],
    });
    if chance.below(3) == 0 {
        runtime["closeReason"] = json!(["Crashed", "Requested", "StartFailed"][chance.below(3)]);
    }
    runtime
}

fn facts<'a>(
    rights: &'a Rights,
    report: Option<&'a CopyReport>,
    incoming_report: Option<&'a CopyReport>,
) -> VmFacts<'a> {
    VmFacts {
        rights,
        wanted: Wanted::Running,
        report,
        incoming_report,
        host: HostSight::default(),
        incoming_host: HostSight::default(),
        volumes: Volumes::Ready,
        pools: BTreeSet::new(),
        pinned_to: None,
        restart_elsewhere: true,
        handed_over_at: None,
        failures: Failures::default(),
    }
}

/// A VM is started anew only on the word of the agent of exactly the standing assignment, that this
/// very copy is closed or handed over, and of `incoming` too; whatever else anybody writes.
#[test]
fn no_status_but_the_right_agents_own_frees_a_vm() {
    let mut chance = Chance::from_environment();
    let own = Assignment {
        host: "h1".into(),
        boot_id: "b1".into(),
        epoch: Epoch(3),
    };
    let (mut freed, mut read) = (0_u64, 0_u64);
    for _ in 0..cases() {
        let mut status =
            json!({"assignment": own, "lastEpoch": 4, "runtime": runtime(&mut chance)});
        if chance.below(3) == 0 {
            status["incoming"] = json!({"host": "h2", "bootId": "b1", "epoch": 4});
            status["incomingRuntime"] = runtime(&mut chance);
        }
        if chance.below(4) == 0 {
            let bytes = chance.mangle(status.to_string().as_bytes());
            status = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        }
        let Some(vm) = vm(status) else { continue };
        read += 1;
        let rights = rights(&vm);
        let status = vm.status.unwrap_or_default();
        let (current, arriving) = (
            status.runtime.as_ref().map(report),
            status.incoming_runtime.as_ref().map(report),
        );
        let verdict = decide(
            &facts(&rights, current.as_ref(), arriving.as_ref()),
            &Policy::default(),
            Moment(1_000_000),
        );
        let Some(assignment) = &rights.assignment else {
            continue;
        };
        if matches!(
            verdict.decision,
            VmDecision::Restart { .. } | VmDecision::Clear { .. }
        ) {
            freed += 1;
            let stopped = |report: &Option<CopyReport>, right: &Assignment| {
                report.as_ref().is_some_and(|report| {
                    report.assignment == *right
                        && matches!(report.phase, CopyPhase::Closed | CopyPhase::HandedOver)
                })
            };
            assert!(stopped(&current, assignment), "{current:?}");
            if let Some(incoming) = &rights.incoming {
                assert!(stopped(&arriving, incoming), "{arriving:?}");
            }
        }
    }
    assert!(freed > 0 && freed < read, "{freed} of {read}");
}

/// An identity is accepted only when it is nobody else's and the Lease carries its boot; a boot that
/// was retired never.
#[test]
fn no_report_takes_an_identity_that_is_not_its_own() {
    const UUIDS: [&str; 6] = [
        "11111111-2222-3333-4444-555555555555",
        "99999999-2222-3333-4444-555555555555",
        "00000000-0000-0000-0000-000000000000",
        "11111111-2222-3333-4444-55555555555",
        "",
        "11111111222233334444555555555555",
    ];
    const BOOTS: [&str; 4] = ["b1", "b2", "b0", ""];
    const NICS: [&[&str]; 3] = [&[], &["0c:c4:7a:00:00:01"], &["0c:c4:7a:00:00:02"]];
    let mut chance = Chance::from_environment();
    let others = [(UUIDS[1].to_owned(), "h9".to_owned())];
    let retired = BTreeSet::from(["b0".into()]);
    let mut accepted_some = 0_u64;
    for _ in 0..cases() {
        let mut identity = || Identity {
            boot_id: BOOTS[chance.below(4)].into(),
            system_uuid: UUIDS[chance.below(6)].to_owned(),
            mac_addresses: NICS[chance.below(3)]
                .iter()
                .map(|it| (*it).to_owned())
                .collect(),
        };
        let (reported, known) = (identity(), identity());
        let accepted = (chance.below(2) == 0).then_some(known);
        let lease = BOOTS[chance.below(4)].into();
        let verdict = register(
            accepted.as_ref(),
            &retired,
            &reported,
            Some(&lease),
            &others,
        );
        if matches!(verdict, Registration::Accept | Registration::Retire(_)) {
            accepted_some += 1;
            assert_eq!(lease, reported.boot_id, "{reported:?}");
            if let Some(accepted) = &accepted {
                let (known, told) = (&accepted.mac_addresses, &reported.mac_addresses);
                assert!(
                    known.is_empty() || told.is_empty() || known == told,
                    "{accepted:?} {reported:?}"
                );
            }
            assert_ne!(reported.boot_id.as_str(), "b0", "retired");
            assert_eq!(
                reported.system_uuid.replace('-', ""),
                UUIDS[5],
                "{reported:?}"
            );
        }
    }
    assert!(accepted_some > 0);
}

/// What a guard writes of itself into its Lease is read or is nothing; what can not be read is not
/// armed, and what is armed says so.
#[test]
fn no_mangled_registration_panics_or_arms() {
    let guard = r#"{"armed":false,"contractMilliseconds":20000,"watchdogMilliseconds":20000,"pools":["p"]}"#;
    let whole: GuardRegistration = serde_json::from_str(guard).expect("the sample is one");
    assert_eq!(whole.contract_milliseconds, 20_000);
    let mut chance = Chance::from_environment();
    let (mut read, mut armed) = (0_u64, 0_u64);
    for _ in 0..cases() {
        let bytes = chance.mangle(guard.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        let Ok(registration) = serde_json::from_str::<GuardRegistration>(&text) else {
            continue;
        };
        // A number that no program can hold, in a field that nobody knows.
        let Ok(document) = serde_json::from_str::<Value>(&text) else {
            continue;
        };
        read += 1;
        assert_eq!(document["armed"], registration.armed, "{text}");
        armed += u64::from(registration.armed);
    }
    assert!(
        0 < armed && armed < read && read < cases(),
        "{armed} of {read}"
    );
}

/// What a guard writes of others' hearts into its Lease is read or is nothing; what is read tells
/// of nobody that it does not name, nor of itself, and nothing longer than the operator has waited.
#[test]
fn no_mangled_report_of_heartbeats_panics_or_tells_more_than_it_can_know() {
    let sample = r#"{"token":"op-1/1","tokenSeenAt":1500,"pools":{"p":{"h2":{"beat":7,"since":1000,"until":60000}}}}"#;
    let own = HostName::from("h1");
    let told = |report: HeartbeatReport| {
        let mut heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.token("op-1", Moment(1_000)), "op-1/1");
        heartbeats.take(&own, &"b1".into(), report, Moment(4_000));
        heartbeats
    };
    let silence = |heartbeats: &Heartbeats, host: &HostName, pool: &str| {
        let evidence = heartbeats.evidence(host, pool, Moment(1_000));
        evidence.map(|evidence| evidence.unchanged_milliseconds)
    };
    let whole = HeartbeatReport::parse(sample).expect("the sample is a report");
    assert_eq!(silence(&told(whole), &"h2".into(), "p"), Some(3_000));
    let mut chance = Chance::from_environment();
    let (mut read, mut proving) = (0_u64, 0_u64);
    for _ in 0..cases() {
        let bytes = chance.mangle(sample.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        let Some(report) = HeartbeatReport::parse(&text) else {
            continue;
        };
        read += 1;
        let heartbeats = told(report.clone());
        assert_eq!(heartbeats.sign(&own), None, "{text}");
        for (pool, runs) in &report.pools {
            for host in runs.keys() {
                let silence = silence(&heartbeats, host, pool);
                proving += u64::from(silence.is_some());
                assert!(silence.is_none_or(|silence| silence <= 3_000), "{text}");
                let contradiction = heartbeats.contradiction(host, pool, u64::MAX, Moment(4_000));
                assert_eq!(contradiction, None, "a first word is no change: {text}");
            }
        }
    }
    assert!(
        0 < proving && proving < read && read < cases(),
        "{proving} of {read}"
    );
}

/// What one side of a move, or anybody in its name, may write into the move's object: every other time about
/// its own copy.
fn side(chance: &mut Chance, own: &Assignment, phases: &[&str]) -> Value {
    let about = match chance.below(2) {
        0 => json!(own),
        _ => json!(copy(chance)),
    };
    json!({"assignment": about, "phase": phases[chance.below(phases.len())]})
}

/// A move ends, or gives a VM to its target, only on words about exactly the copies that the VM's
/// rights name: not about others' VMs, epochs of the past or the future, or other boots.
#[test]
fn no_status_of_a_move_takes_a_vm_from_a_copy_that_may_run() {
    let mut chance = Chance::from_environment();
    let right = |host: &str, epoch| Assignment {
        host: host.into(),
        boot_id: "b1".into(),
        epoch: Epoch(epoch),
    };
    let (source, target) = (right("h1", 3), right("h2", 4));
    let rights = Rights {
        assignment: Some(source.clone()),
        incoming: Some(target.clone()),
        last_epoch: Epoch(4),
        ..Rights::none("v".into())
    };
    let (mut changed, mut read) = (0_u64, 0_u64);
    for _ in 0..cases() {
        let mut status = json!({"phase": "Running", "sourceAssignment": source, "targetAssignment": target,
            "abortRequested": chance.below(2) == 0, "refuseRequested": chance.below(2) == 0});
        for (field, own, phases) in [
            (
                "source",
                &source,
                ["Migrating", "HandedOver", "StillRunning", "Closed"],
            ),
            (
                "target",
                &target,
                ["Prepared", "Arrived", "Resumed", "Refused"],
            ),
        ] {
            if chance.below(2) == 0 {
                status[field] = side(&mut chance, own, &phases);
            }
        }
        if chance.below(8) == 0 {
            status["targetAssignment"] = copy(&mut chance);
        }
        if chance.below(4) == 0 {
            let bytes = chance.mangle(status.to_string().as_bytes());
            status = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        }
        let Ok(status) = serde_json::from_value::<VirtualMachineMigrationStatus>(status) else {
            continue;
        };
        let said = |chance: &mut Chance| {
            let runtime = (chance.below(2) == 0).then(|| runtime(chance));
            runtime
                .and_then(|runtime| serde_json::from_value::<Runtime>(runtime).ok())
                .map(|runtime| report(&runtime))
        };
        let (current, arriving) = (said(&mut chance), said(&mut chance));
        read += 1;
        let told = sides(&status);
        let facts = MigrationFacts {
            rights: &rights,
            wanted_running: chance.below(4) > 0,
            cancel: chance.below(4) == 0,
            wanted_target: None,
            other_move: chance.below(4) == 0,
            sides: told.sides.clone(),
            begun_at: Some(Moment(0)),
            handed_over_at: None,
            source: told.source,
            target: told.target,
            report: current.as_ref(),
            incoming_report: arriving.as_ref(),
            source_host: HostSight::default(),
            target_host: HostSight::default(),
            pools: std::collections::BTreeSet::new(),
            abort_requested: status.abort_requested,
            refuse_requested: status.refuse_requested,
        };
        let step = failover::migration::decide(&facts, &Policy::default(), Moment(1_000)).step;
        let reported = |report: &Option<CopyReport>, copy: &Assignment, phases: &[CopyPhase]| {
            let report = report.as_ref();
            report.is_some_and(|it| it.assignment == *copy && phases.contains(&it.phase))
        };
        let ended = [CopyPhase::Closed, CopyPhase::HandedOver];
        let source_ended = reported(&current, &source, &ended)
            || status.source.as_ref().is_some_and(|it| {
                let phases = [
                    MigrationSourcePhase::Closed,
                    MigrationSourcePhase::HandedOver,
                ];
                it.assignment == source && phases.contains(&it.phase)
            });
        let target_said = |phase| {
            let target_side = status.target.as_ref();
            target_side.is_some_and(|it| it.assignment == target && it.phase == phase)
        };
        match step {
            MigrationStep::Promote(_) | MigrationStep::PromoteResumed(..) => {
                changed += 1;
                let runs = reported(&arriving, &target, &[CopyPhase::Running]);
                assert!(source_ended, "{status:?} {current:?}");
                assert!(
                    runs || target_said(MigrationTargetPhase::Resumed),
                    "{status:?} {arriving:?}"
                );
            }
            MigrationStep::DropIncoming(_) => {
                changed += 1;
                let closed = reported(&arriving, &target, &[CopyPhase::Closed]);
                assert!(
                    closed || target_said(MigrationTargetPhase::Refused),
                    "{status:?} {arriving:?}"
                );
            }
            // What the move's object holds of other sides than the VM's rights ends the move alone.
            MigrationStep::Finish(_) => {
                assert_ne!(told.sides, Some((source.clone(), target.clone())));
            }
            _ => {}
        }
    }
    assert!(changed > 0 && changed < read, "{changed} of {read}");
}
