use super::*;

const EXPIRES: u64 = 60_000;

fn ours() -> Intent {
    Intent::Ours {
        boot_id: "b1".into(),
        expires_at: Moment(EXPIRES),
    }
}

fn at(stage: Stage) -> Fencing {
    Fencing {
        attempt: 1,
        attempts_here: 1,
        stage,
        ..Fencing::begin("b1".into())
    }
}

fn sight(reading: Option<(PowerState, u64)>, intent: &Intent) -> Sight<'_> {
    Sight {
        reading: reading.map(|(state, sent)| (state, Moment(sent))),
        intent,
        command: None,
        forcing: false,
        bmcs: 1,
    }
}

fn intended() -> HostAction {
    HostAction::WriteIntent {
        boot_id: "b1".into(),
        expires_after_milliseconds: EXPIRES,
    }
}

fn force(bmc: u32, attempt: u32) -> HostAction {
    HostAction::ForceOff {
        bmc,
        attempt,
        expires_at: Moment(EXPIRES),
    }
}

/// Where it stands, the intent, the reading, now; and what then stands, is wanted and is told.
type Row = (
    Stage,
    Intent,
    Option<(PowerState, u64)>,
    u64,
    Stage,
    Vec<HostAction>,
    Vec<Reason>,
);

#[test]
fn every_row_of_one_step() {
    use PowerState::{NoAnswer, Off, On};
    let since = |at| Stage::Look { since: Moment(at) };
    let back = |at| Stage::ReadBack { since: Moment(at) };
    let sent = |at| Stage::Sent { at: Moment(at) };
    let read = || vec![HostAction::ReadPower];
    let told = |attempt| vec![Reason::ForcedOff { bmc: 0, attempt }];
    let foreign = |until| Intent::Foreign {
        until: Moment(until),
    };
    let of_another_boot = || Intent::Ours {
        boot_id: "b0".into(),
        expires_at: Moment(EXPIRES),
    };
    let rows: Vec<Row> = vec![
        // Nothing is looked at, and far less sent, before the intent is held.
        (
            Stage::Intend,
            Intent::None,
            Some((On, 900)),
            1_000,
            Stage::Intend,
            vec![intended()],
            vec![],
        ),
        (
            Stage::Intend,
            of_another_boot(),
            None,
            1_000,
            Stage::Intend,
            vec![intended()],
            vec![],
        ),
        // Another operator's intent is waited out, and not a moment longer.
        (
            Stage::Intend,
            foreign(1_001),
            None,
            1_000,
            Stage::Intend,
            vec![],
            vec![],
        ),
        (
            Stage::Intend,
            foreign(1_000),
            None,
            1_000,
            Stage::Intend,
            vec![intended()],
            vec![],
        ),
        (
            Stage::Intend,
            ours(),
            None,
            1_000,
            since(1_000),
            vec![],
            vec![],
        ),
        // One that would expire while the command is on its way is as good as none.
        (
            Stage::Intend,
            ours(),
            None,
            54_999,
            since(54_999),
            vec![],
            vec![],
        ),
        (
            Stage::Intend,
            ours(),
            None,
            55_000,
            Stage::Intend,
            vec![intended()],
            vec![],
        ),
        // A reading from before the look does not count.
        (
            since(1_000),
            ours(),
            None,
            1_100,
            since(1_000),
            read(),
            vec![],
        ),
        (
            since(1_000),
            ours(),
            Some((Off, 999)),
            1_100,
            since(1_000),
            read(),
            vec![],
        ),
        (
            since(1_000),
            ours(),
            Some((On, 999)),
            1_100,
            since(1_000),
            read(),
            vec![],
        ),
        (
            since(1_000),
            ours(),
            Some((Off, 1_000)),
            1_100,
            Stage::Watch {
                since: Moment(1_100),
            },
            vec![],
            vec![Reason::PowerAlreadyOff],
        ),
        (
            since(1_000),
            ours(),
            Some((On, 1_000)),
            1_100,
            sent(1_100),
            vec![force(0, 2)],
            told(2),
        ),
        // It may still obey.
        (
            since(1_000),
            ours(),
            Some((NoAnswer, 1_000)),
            1_100,
            sent(1_100),
            vec![force(0, 2)],
            told(2),
        ),
        // The intent is gone, another's, or about to expire: nothing is sent.
        (
            since(1_000),
            Intent::None,
            Some((On, 1_000)),
            1_100,
            Stage::Intend,
            vec![],
            vec![],
        ),
        (
            since(1_000),
            foreign(9_000),
            Some((On, 1_000)),
            1_100,
            Stage::Intend,
            vec![],
            vec![],
        ),
        (
            since(1_000),
            ours(),
            Some((On, 54_999)),
            54_999,
            sent(54_999),
            vec![force(0, 2)],
            told(2),
        ),
        (
            since(1_000),
            ours(),
            Some((On, 55_000)),
            55_000,
            Stage::Intend,
            vec![],
            vec![],
        ),
        // A command whose end nobody tells is over after send time-out and grace (6 s).
        (
            sent(1_000),
            ours(),
            Some((Off, 900)),
            7_000,
            sent(1_000),
            vec![],
            vec![],
        ),
        (
            sent(1_000),
            ours(),
            None,
            7_001,
            back(7_001),
            read(),
            vec![],
        ),
        // An intent that expires while the command is on its way takes nothing back.
        (
            sent(1_000),
            Intent::None,
            None,
            6_000,
            sent(1_000),
            vec![],
            vec![],
        ),
        (
            sent(1_000),
            Intent::None,
            None,
            7_001,
            back(7_001),
            read(),
            vec![],
        ),
        // Only a reading from after the command proves; the return code never does.
        (
            back(2_000),
            ours(),
            Some((Off, 1_999)),
            3_000,
            back(2_000),
            read(),
            vec![],
        ),
        (
            back(2_000),
            ours(),
            Some((Off, 2_000)),
            3_000,
            Stage::Watch {
                since: Moment(3_000),
            },
            vec![],
            vec![],
        ),
        (
            back(2_000),
            ours(),
            Some((On, 6_900)),
            7_000,
            back(2_000),
            read(),
            vec![],
        ),
        (
            back(2_000),
            ours(),
            Some((On, 6_900)),
            7_001,
            since(7_001),
            read(),
            vec![],
        ),
        // Off, and nothing that proves it: after sixteen seconds from the look again.
        (
            Stage::Watch { since: Moment(0) },
            ours(),
            None,
            16_001,
            since(16_001),
            read(),
            vec![Reason::OffNotProven { bmc: 0 }],
        ),
        // Off once and On again: from the look again.
        (
            Stage::Watch { since: Moment(0) },
            ours(),
            Some((Off, 9_000)),
            9_100,
            Stage::Watch { since: Moment(0) },
            vec![],
            vec![],
        ),
        (
            Stage::Watch { since: Moment(0) },
            ours(),
            None,
            9_100,
            Stage::Watch { since: Moment(0) },
            vec![],
            vec![],
        ),
        (
            Stage::Watch { since: Moment(0) },
            ours(),
            Some((On, 9_000)),
            9_100,
            since(9_100),
            read(),
            vec![],
        ),
        (
            Stage::Failed,
            ours(),
            Some((On, 9_000)),
            9_100,
            Stage::Failed,
            vec![],
            vec![],
        ),
    ];
    for (stage, intent, reading, now, then, actions, done) in rows {
        let mut fencing = at(stage);
        let wants = fencing.step(sight(reading, &intent), &Policy::default(), Moment(now));
        let row = format!("{stage:?}, {intent:?}, {reading:?}, {now}");
        assert_eq!(fencing.stage, then, "{row}");
        assert_eq!(wants.actions, actions, "{row}");
        assert_eq!(wants.done, done, "{row}");
    }
}

#[test]
fn the_end_of_another_attempt_is_not_the_end_of_this_one() {
    let intent = ours();
    for (attempt, stage) in [
        (0, Stage::Sent { at: Moment(1_000) }),
        (2, Stage::Sent { at: Moment(1_000) }),
        (
            1,
            Stage::ReadBack {
                since: Moment(1_400),
            },
        ),
    ] {
        let mut fencing = at(Stage::Sent { at: Moment(1_000) });
        let command = Some(CommandEnd {
            attempt,
            at: Moment(1_400),
        });
        let sight = Sight {
            command,
            forcing: false,
            ..sight(None, &intent)
        };
        let _ = fencing.step(sight, &Policy::default(), Moment(1_500));
        assert_eq!(fencing.stage, stage, "attempt {attempt}");
    }
}

/// Lets a host that stays On be fenced to the end; which BMC was told, and what was said.
fn fenced_in_vain(bmcs: u32, power: PowerState) -> (Vec<u32>, Vec<Reason>, Stage) {
    let (policy, intent) = (Policy::default(), ours());
    let mut fencing = Fencing::begin("b1".into());
    let (mut told, mut done, mut command) = (Vec::new(), Vec::new(), None);
    for now in (1_000..54_000).step_by(500) {
        let sight = Sight {
            reading: Some((power, Moment(now))),
            intent: &intent,
            command,
            forcing: false,
            bmcs,
        };
        let wants = fencing.step(sight, &policy, Moment(now));
        done.extend(wants.done);
        for action in wants.actions {
            if let HostAction::ForceOff { bmc, attempt, .. } = action {
                told.push(bmc);
                command = Some(CommandEnd {
                    attempt,
                    at: Moment(now),
                });
            }
        }
    }
    (told, done, fencing.stage)
}

#[test]
fn each_bmc_gets_its_tries_in_turn_and_then_a_person_is_needed() {
    let (told, done, stage) = fenced_in_vain(2, PowerState::On);
    assert_eq!(told, [0, 0, 0, 1, 1, 1]);
    assert_eq!(stage, Stage::Failed);
    let ends: Vec<_> = done
        .into_iter()
        .filter(|reason| !matches!(reason, Reason::ForcedOff { .. }))
        .collect();
    let stays = |bmc| Reason::StaysOn { bmc, attempts: 3 };
    let (next, failed) = (Reason::NextBmc { bmc: 1 }, Reason::FenceFailed);
    assert_eq!(ends, [stays(0), next, stays(1), failed]);
    assert_eq!(fenced_in_vain(1, PowerState::On).0, [0, 0, 0]);
}

#[test]
fn a_bmc_of_another_machine_is_never_told_anything() {
    for bmcs in [1, 2] {
        let (told, done, stage) = fenced_in_vain(bmcs, PowerState::OtherMachine);
        assert_eq!(told, Vec::<u32>::new());
        assert_eq!(stage, Stage::Failed);
        assert!(done.contains(&Reason::FenceFailed));
    }
}

#[test]
fn a_host_is_not_alive_while_a_command_may_still_hit_it() {
    let now = Moment(1_000);
    for (stage, in_flight) in [
        (Stage::Intend, false),
        (Stage::Look { since: now }, false),
        (Stage::Sent { at: now }, true),
        (Stage::ReadBack { since: now }, true),
        (Stage::Watch { since: Moment(0) }, false),
        (Stage::Failed, false),
    ] {
        assert_eq!(at(stage).in_flight(), in_flight, "{stage:?}");
    }
}
