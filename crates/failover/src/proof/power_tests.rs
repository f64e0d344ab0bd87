use super::*;
use crate::signs::Sign;

const UUID: &str = "11111111-2222-3333-4444-555555555555";

fn reading(answer: PowerAnswer, at: u64) -> PowerReading {
    PowerReading {
        answer,
        system_uuid: Some(UUID.to_owned()),
        unanimous: true,
        contradicted: false,
        sent_at: Moment(at),
        received_at: Moment(at),
    }
}

fn signs(changes: u64, changed_at: u64) -> LifeSigns {
    LifeSigns {
        lease: Some(Sign {
            changes,
            changed_at: Moment(changed_at),
        }),
        ..LifeSigns::default()
    }
}

fn witness() -> PowerWitness {
    PowerWitness::new("h1".into(), "b1".into(), UUID.to_owned())
}

#[test]
fn two_off_readings_around_a_silent_window_prove() {
    let policy = Policy::default();
    let mut witness = witness();
    witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
    assert_eq!(witness.conclude(&signs(1, 0), &policy, Moment(4_100)), None);
    witness.observe(&reading(PowerAnswer::Off, 5_900), &signs(1, 0));
    assert_eq!(
        witness.conclude(&signs(1, 0), &policy, Moment(6_500)),
        None,
        "the window is 2 s"
    );
    witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(1, 0));
    let proof = witness
        .conclude(&signs(1, 0), &policy, Moment(6_100))
        .unwrap();
    assert_eq!(proof.kind(), StopProofKind::PoweredOff);
}

#[test]
fn a_sign_of_life_contradicts_and_starts_over() {
    let policy = Policy::default();
    let mut witness = witness();
    witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
    assert!(witness.watch(&signs(2, 5_000), &policy));
    witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(2, 5_000));
    witness.observe(&reading(PowerAnswer::Off, 8_000), &signs(2, 5_000));
    assert_eq!(
        witness.conclude(&signs(2, 5_000), &policy, Moment(9_000)),
        None,
        "stands contradicted"
    );
    witness.settle();
    assert!(
        witness
            .conclude(&signs(2, 5_000), &policy, Moment(9_000))
            .is_some()
    );
}

#[test]
fn a_bmc_that_read_off_of_a_living_host_proves_nothing_until_it_has_read_on() {
    let policy = Policy::default();
    let mut witness = witness();
    witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
    assert!(witness.watch(&signs(2, 5_000), &policy));
    witness.settle();
    assert!(!witness.lies(), "it may have been late");
    witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(2, 5_000));
    assert!(witness.watch(&signs(3, 7_500), &policy));
    witness.settle();
    assert!(
        !witness.lies(),
        "one may come of an observer that was blind"
    );
    assert!(witness.watch(&signs(4, 9_500), &policy));
    witness.settle();
    witness.restart();
    assert!(witness.lies(), "it lived on");
    witness.observe(&reading(PowerAnswer::Off, 60_000), &signs(4, 9_500));
    witness.observe(&reading(PowerAnswer::NoAnswer, 61_000), &signs(4, 9_500));
    witness.observe(&reading(PowerAnswer::Off, 62_000), &signs(4, 9_500));
    witness.observe(&reading(PowerAnswer::Off, 65_000), &signs(4, 9_500));
    let proof = witness.conclude(&signs(4, 9_500), &policy, Moment(66_000));
    assert_eq!(proof, None, "however silent it is");
    witness.observe(&reading(PowerAnswer::On, 67_000), &signs(4, 9_500));
    witness.observe(&reading(PowerAnswer::Off, 68_000), &signs(4, 9_500));
    witness.observe(&reading(PowerAnswer::Off, 71_000), &signs(4, 9_500));
    assert!(
        witness
            .conclude(&signs(4, 9_500), &policy, Moment(72_000))
            .is_some()
    );
}

#[test]
fn a_heartbeat_that_nobody_read_for_a_while_makes_no_bmc_a_liar() {
    let policy = Policy::default();
    for (unobserved, lies) in [(true, false), (false, true)] {
        let beats = |changes, at| LifeSigns {
            heartbeat: Some(Sign {
                changes,
                changed_at: Moment(at),
            }),
            ..signs(1, 0)
        };
        let mut witness = witness();
        witness.observe(&reading(PowerAnswer::Off, 4_000), &beats(1, 3_000));
        let meanwhile = LifeSigns {
            heartbeat_unobserved: unobserved,
            ..beats(1, 3_000)
        };
        assert!(!witness.watch(&meanwhile, &policy));
        assert!(witness.watch(&beats(2, 20_000), &policy));
        witness.watch(&beats(3, 22_000), &policy);
        assert_eq!(witness.lies(), lies);
    }
}

#[test]
fn one_bmc_that_reads_on_does_not_speak_for_another_that_lied() {
    let policy = Policy::default();
    let mut witness = witness();
    witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
    for (changes, at) in [(2, 10_000), (3, 12_000)] {
        witness.watch(&signs(changes, at), &policy);
    }
    assert!(witness.lies());
    let on = |unanimous, at| PowerReading {
        unanimous,
        contradicted: false,
        ..reading(PowerAnswer::On, at)
    };
    witness.observe(&on(false, 13_000), &signs(3, 12_000));
    assert!(witness.lies());
    witness.observe(&on(true, 14_000), &signs(3, 12_000));
    assert!(!witness.lies());
}

#[test]
fn a_probe_answer_counts_only_when_sent_after_the_first_off() {
    let mut witness = witness();
    witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
    let before = LifeSigns {
        answered_probe_sent_at: Some(Moment(3_999)),
        ..signs(1, 0)
    };
    assert!(!witness.watch(&before, &Policy::default()));
    let after = LifeSigns {
        answered_probe_sent_at: Some(Moment(4_001)),
        ..signs(1, 0)
    };
    assert!(witness.watch(&after, &Policy::default()));
}

#[test]
fn on_no_answer_and_another_machine_close_the_window() {
    let policy = Policy::default();
    for (answer, uuid) in [
        (PowerAnswer::On, Some(UUID)),
        (PowerAnswer::NoAnswer, None),
        (
            PowerAnswer::Off,
            Some("99999999-2222-3333-4444-555555555555"),
        ),
        (PowerAnswer::Off, None),
    ] {
        let mut witness = witness();
        witness.observe(&reading(PowerAnswer::Off, 4_000), &signs(1, 0));
        let other = PowerReading {
            system_uuid: uuid.map(str::to_owned),
            ..reading(answer, 5_000)
        };
        witness.observe(&other, &signs(1, 0));
        witness.observe(&reading(PowerAnswer::Off, 6_000), &signs(1, 0));
        assert_eq!(witness.conclude(&signs(1, 0), &policy, Moment(6_100)), None);
    }
}

#[test]
fn an_old_reading_and_a_beating_heart_prove_nothing() {
    let policy = Policy::default();
    let mut witness = witness();
    let beating = LifeSigns {
        heartbeat: Some(Sign {
            changes: 9,
            changed_at: Moment(4_000),
        }),
        ..signs(1, 0)
    };
    witness.observe(&reading(PowerAnswer::Off, 4_100), &beating);
    witness.observe(&reading(PowerAnswer::Off, 6_200), &beating);
    assert_eq!(
        witness.conclude(&beating, &policy, Moment(6_300)),
        None,
        "heartbeat may only be late"
    );
    assert!(witness.conclude(&beating, &policy, Moment(7_100)).is_some());
    assert_eq!(
        witness.conclude(&beating, &policy, Moment(11_300)),
        None,
        "the last reading is too old"
    );
}

#[test]
fn every_usual_byte_order_names_the_machine() {
    assert!(same_machine(
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "33221100-5544-7766-8899-aabbccddeeff"
    ));
    assert!(same_machine(
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "ffeeddcc-bbaa-9988-7766-554433221100"
    ));
    assert!(same_machine(UUID, &UUID.to_uppercase()));
    assert!(!same_machine("Not Settable", "Not Settable"));
    assert!(!same_machine(UUID, "11111111-2222-3333-4444-555555555556"));
    assert!(!same_machine("", ""));
}

#[test]
fn of_two_controllers_on_counts_and_another_machines_answer_does_not() {
    let uuid = UUID;
    let reading = |answer, system_uuid: &str| PowerReading {
        answer,
        system_uuid: Some(system_uuid.to_owned()),
        unanimous: false,
        contradicted: false,
        sent_at: Moment(1),
        received_at: Moment(2),
    };
    let other = "99999999-2222-3333-4444-555555555555";
    let order = [
        reading(PowerAnswer::NoAnswer, uuid),
        reading(PowerAnswer::On, other),
        reading(PowerAnswer::Off, uuid),
        reading(PowerAnswer::On, uuid),
    ];
    let weights: Vec<u8> = order
        .iter()
        .map(|reading| weight(reading.judge(uuid)))
        .collect();
    assert_eq!(weights, [0, 1, 2, 3]);
    let said = |answers: &[usize], declared| {
        let readings = answers.iter().map(|index| order[*index].clone());
        let said = together(readings.collect(), declared, uuid)?;
        Some((said.judge(uuid), said.unanimous))
    };
    assert_eq!(said(&[], 1), None);
    assert_eq!(said(&[3, 3], 2), Some((PowerState::On, true)));
    for (answers, declared) in [(&[3][..], 2), (&[2, 3], 2), (&[3, 1], 2), (&[0, 3], 2)] {
        assert_eq!(said(answers, declared), Some((PowerState::On, false)));
    }
}

/// One of two BMCs reads Off of a host that lives.
#[test]
fn of_two_bmcs_that_contradict_each_other_off_counts_from_both_together() {
    let read = |answer, (unanimous, contradicted), at| PowerReading {
        answer,
        system_uuid: Some(UUID.to_owned()),
        unanimous,
        contradicted,
        sent_at: Moment(at),
        received_at: Moment(at + 100),
    };
    let (on, off) = (PowerAnswer::On, PowerAnswer::Off);
    let policy = Policy::default();
    let signs = signs(1, 0);
    let proves = |witness: &PowerWitness, at| {
        let proof = witness.conclude(&signs, &policy, Moment(at));
        proof.is_some()
    };
    let mut witness = witness();
    let tested = read(on.clone(), (false, true), 1_000);
    assert_eq!(witness.observe(&tested, &signs), PowerState::On);
    // The one that reads On is dark: what the other one reads is no answer, however often.
    for at in [100_000, 110_000, 120_000] {
        let alone = read(off.clone(), (false, false), at);
        assert_eq!(witness.observe(&alone, &signs), PowerState::NoAnswer);
        assert!(!proves(&witness, at + 200), "{at}");
    }
    // Both read Off, as after a force-off.
    for at in [130_000, 140_000] {
        let both = read(off.clone(), (true, false), at);
        assert_eq!(witness.observe(&both, &signs), PowerState::Off);
    }
    assert!(proves(&witness, 140_200));
    // One that reads On alone does not mend it; both together do.
    for (unanimous, state) in [(false, PowerState::NoAnswer), (true, PowerState::Off)] {
        let back = read(on.clone(), (unanimous, false), 150_000);
        assert_eq!(witness.observe(&back, &signs), PowerState::On);
        let alone = read(off.clone(), (false, false), 160_000);
        assert_eq!(witness.observe(&alone, &signs), state, "{unanimous}");
    }
}
