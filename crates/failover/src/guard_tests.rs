//! The guard's contract, rule by rule.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn registration(contract_seconds: u64, pools: &[&str]) -> GuardRegistration {
    GuardRegistration {
        armed: true,
        contract_milliseconds: contract_seconds * 1000,
        watchdog_milliseconds: 20_000,
        pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
    }
}

fn unarmed() -> GuardRegistration {
    GuardRegistration {
        armed: false,
        ..registration(0, &[])
    }
}

fn bound_since_zero() -> GuardMemory {
    let mut memory = GuardMemory::default();
    memory.acknowledged(Moment(0), &registration(20, &["p"]));
    memory.beaten("p", Moment(0));
    memory
}

fn at(memory: &mut GuardMemory, milliseconds: u64) -> (bool, bool) {
    let step = memory.step(Moment(milliseconds));
    (step.fires, step.kill)
}

#[test]
fn it_fires_once_when_lease_and_heartbeat_are_silent_for_the_contract() {
    let mut memory = bound_since_zero();
    assert_eq!(at(&mut memory, 19_999), (false, false));
    assert_eq!(at(&mut memory, 20_000), (true, true));
    assert_eq!(
        at(&mut memory, 20_500),
        (false, true),
        "counted once, killed until all is gone"
    );
    assert!(!memory.may_feed() && !memory.may_renew());
    memory.killed(false);
    assert!(memory.may_feed(), "all is gone");
    assert_eq!(
        at(&mut memory, 21_000),
        (false, true),
        "what appears now is killed too"
    );
    memory.killed(false);
    memory.acknowledged(Moment(21_100), &registration(20, &["p"]));
    assert_eq!(at(&mut memory, 21_200), (false, false));
    assert_eq!(memory.firings, 1);
    assert_eq!(
        at(&mut memory, 41_100),
        (true, true),
        "the next silence counts again"
    );
}

#[test]
fn the_watchdog_keeps_what_was_promised_when_the_policy_is_not_read_yet_or_has_changed() {
    let promise = |seconds: u64| GuardRegistration {
        watchdog_milliseconds: seconds * 1000,
        ..registration(20, &["p"])
    };
    let policy = |seconds: u64| Policy {
        watchdog_milliseconds: seconds * 1000,
        ..Policy::default()
    };
    let mut memory = GuardMemory::default();
    assert_eq!(memory.watchdog_allowed(&Policy::default()), 20_000);
    memory.acknowledged(Moment(0), &promise(10));
    assert_eq!(
        memory.watchdog_allowed(&Policy::default()),
        10_000,
        "a guard that is started again has not read the policy"
    );
    assert_eq!(memory.watchdog_allowed(&policy(5)), 5_000);
    memory.offer(&promise(8));
    assert_eq!(
        memory.watchdog_allowed(&policy(30)),
        8_000,
        "the offer may have arrived"
    );
    memory.acknowledged(Moment(1), &unarmed());
    assert_eq!(memory.watchdog_allowed(&policy(30)), 30_000);
}

#[test]
fn either_sign_keeps_the_host() {
    let mut leased = bound_since_zero();
    leased.acknowledged(Moment(15_000), &registration(20, &["p"]));
    assert_eq!(at(&mut leased, 34_999), (false, false));
    let mut beating = bound_since_zero();
    beating.beaten("p", Moment(15_000));
    assert_eq!(
        at(&mut beating, 34_999),
        (false, false),
        "an API server that is down stops no VM"
    );
    beating.beaten("elsewhere", Moment(30_000));
    assert_eq!(
        at(&mut beating, 35_000),
        (true, true),
        "only registered pools count"
    );
}

#[test]
fn a_host_without_a_contract_never_kills() {
    let mut memory = GuardMemory::default();
    assert_eq!(at(&mut memory, u64::MAX), (false, false));
    memory.acknowledged(Moment(0), &unarmed());
    memory.offer(&unarmed());
    assert_eq!(at(&mut memory, u64::MAX), (false, false));
}

#[test]
fn what_was_offered_binds_until_something_else_is_acknowledged() {
    let mut memory = GuardMemory::default();
    memory.offer(&registration(20, &["p"]));
    memory.beaten("p", Moment(0));
    assert_eq!(
        at(&mut memory, 20_000),
        (true, true),
        "the answer was lost, the renewal was not"
    );
    let mut disarming = bound_since_zero();
    disarming.offer(&unarmed());
    assert_eq!(
        at(&mut disarming, 20_000),
        (true, true),
        "not disarmed before it is acknowledged"
    );
    let mut disarmed = bound_since_zero();
    disarmed.acknowledged(Moment(1), &unarmed());
    assert_eq!(at(&mut disarmed, 90_000), (false, false));
}

#[test]
fn of_two_registrations_the_strictest_counts() {
    let mut memory = GuardMemory::default();
    memory.acknowledged(Moment(0), &registration(20, &["a", "b"]));
    memory.offer(&registration(15, &["b", "c"]));
    assert_eq!(
        memory.bound(),
        Some(Bound {
            contract_milliseconds: 15_000,
            pools: BTreeSet::from(["b".to_owned()])
        })
    );
    memory.beaten("a", Moment(14_000));
    memory.beaten("c", Moment(14_000));
    assert_eq!(
        at(&mut memory, 15_000),
        (true, true),
        "neither a nor c stands in both"
    );
}

#[test]
fn memory_survives_a_restart_word_for_word() {
    let mut memory = bound_since_zero();
    memory.offer(&registration(15, &["p", "q"]));
    let _ = memory.step(Moment(30_000));
    let text = serde_json::to_string(&memory).unwrap();
    assert_eq!(serde_json::from_str::<GuardMemory>(&text).unwrap(), memory);
}

#[test]
fn what_a_later_version_remembers_is_read_over() {
    let mut memory = bound_since_zero();
    let mut json = serde_json::to_value(&memory).unwrap();
    assert_eq!(json.get("lost"), None, "an earlier version refuses it");
    json["learnt"] = serde_json::json!({"later": 1});
    json["registered"]["learnt"] = serde_json::json!(1);
    let read: GuardMemory = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(read, memory);
    memory.lost = true;
    let text = serde_json::to_string(&memory).unwrap();
    assert_eq!(serde_json::from_str::<GuardMemory>(&text).unwrap(), memory);
}

#[test]
fn a_guard_that_lost_its_memory_claims_and_feeds_nothing_before_another_word_stands() {
    let mut memory = GuardMemory {
        lost: true,
        ..GuardMemory::default()
    };
    assert_eq!(
        arm(&ready(), &memory, Some(&Policy::default())),
        Err(NotArmed::MemoryLost)
    );
    memory.offer(&unarmed());
    assert_eq!(
        at(&mut memory, u64::MAX),
        (false, false),
        "it kills nothing"
    );
    assert!(
        !memory.may_feed(),
        "the watchdog keeps what nobody remembers"
    );
    assert!(memory.may_renew());
    memory.acknowledged(Moment(1), &unarmed());
    assert!(memory.may_feed());
    assert!(arm(&ready(), &memory, Some(&Policy::default())).is_ok());
}

#[test]
fn a_firing_ends_the_incarnation() {
    let boot = BootId::from("b");
    assert_eq!(incarnation(&boot, 0), boot);
    assert_ne!(incarnation(&boot, 1), incarnation(&boot, 2));
    for firings in 0..3 {
        let name = incarnation(&boot, firings);
        assert_eq!(super::boot(name.as_str()), boot.as_str(), "{firings}");
    }
}

fn ready() -> Readiness {
    Readiness {
        opted_in: true,
        declared: ["p".to_owned(), "q".to_owned()].into(),
        beating: BTreeSet::from(["p".to_owned()]),
        problems: String::new(),
        watchdog: Ok(20_000),
    }
}

#[test]
fn armed_only_with_word_pool_watchdog_and_policy() {
    let (policy, memory) = (Policy::default(), GuardMemory::default());
    assert_eq!(
        arm(&ready(), &memory, Some(&policy)),
        Ok(registration(20, &["p"]))
    );
    let refused = |change: &dyn Fn(&mut Readiness)| {
        let mut ready = ready();
        change(&mut ready);
        arm(&ready, &memory, Some(&policy)).unwrap_err()
    };
    assert_eq!(refused(&|r| r.opted_in = false), NotArmed::NotOptedIn);
    assert!(matches!(
        refused(&|r| r.beating.clear()),
        NotArmed::NoHeartbeatPool { .. }
    ));
    assert!(matches!(
        refused(&|r| r.watchdog = Err("none".into())),
        NotArmed::NoWatchdog { .. }
    ));
    assert!(matches!(
        refused(&|r| r.watchdog = Ok(30_000)),
        NotArmed::NoWatchdog { .. }
    ));
    assert_eq!(arm(&ready(), &memory, None), Err(NotArmed::NoPolicy));
    let unread = Readiness {
        opted_in: false,
        ..ready()
    };
    assert_eq!(
        arm(&unread, &memory, None),
        Err(NotArmed::NoPolicy),
        "nobody knows yet whether it opted in"
    );
}

/// Either of two registrations may stand while none is acknowledged: the guard fires by both.
#[test]
fn pools_that_share_none_with_those_that_bind_come_after_an_unarmed_registration() {
    let mut memory = GuardMemory::default();
    memory.acknowledged(Moment(0), &registration(20, &["old"]));
    let policy = Policy::default();
    assert_eq!(
        arm(&ready(), &memory, Some(&policy)),
        Err(NotArmed::PoolsReplaced)
    );
    memory.offer(&unarmed());
    assert!(arm(&ready(), &memory, Some(&policy)).is_err(), "not yet");
    memory.acknowledged(Moment(1), &unarmed());
    assert!(arm(&ready(), &memory, Some(&policy)).is_ok());
}

#[test]
fn a_bound_guard_keeps_a_pool_that_fails() {
    let mut memory = bound_since_zero();
    memory.acknowledged(Moment(1), &registration(20, &["p", "q"]));
    assert_eq!(
        arm(&ready(), &memory, Some(&Policy::default())),
        Ok(registration(20, &["p", "q"]))
    );
    let mut undeclared = ready();
    undeclared.declared.remove("q");
    assert_eq!(
        arm(&undeclared, &memory, Some(&Policy::default())),
        Ok(registration(20, &["p"]))
    );
}

#[test]
fn every_refusal_has_a_sentence_in_both_languages() {
    for why in [
        NotArmed::NotOptedIn,
        NotArmed::NoHeartbeatPool {
            problems: String::new(),
        },
        NotArmed::NoHeartbeatPool {
            problems: "p: read-only".to_owned(),
        },
        NotArmed::NoWatchdog {
            problem: "none".to_owned(),
        },
        NotArmed::NoPolicy,
        NotArmed::MemoryLost,
        NotArmed::Stopping,
        NotArmed::PoolsReplaced,
    ] {
        let sentence = why.sentence();
        assert!(!sentence.english.is_empty() && !sentence.chinese.is_empty());
    }
}

proptest! {
    /// Whatever was sent, answered and beaten: when it does not kill, then every registration
    /// that may stand is unarmed, or was kept by a sign that counts under it.
    #[test]
    fn a_registration_that_may_stand_is_kept_or_killed_for(
        events in proptest::collection::vec((0..4_u8, 1..4_u64, 0..8_u8), 1..30),
    ) {
        let (mut memory, mut now) = (GuardMemory::default(), 0);
        let pools = |mask: u8| -> Vec<&str> {
            ["a", "b", "c"].into_iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, pool)| pool).collect()
        };
        for (what, size, mask) in events {
            now += size * 3_000;
            let wanted = registration(size * 6, &pools(mask));
            match what {
                0 => memory.offer(&wanted),
                1 => memory.acknowledged(Moment(now), &wanted),
                2 => pools(mask).iter().for_each(|pool| memory.beaten(pool, Moment(now))),
                _ => {}
            }
            if memory.step(Moment(now)).kill {
                memory.killed(false);
                continue;
            }
            for standing in memory.registered.iter().chain(&memory.offered) {
                let beat = standing.pools.iter().filter_map(|pool| memory.beaten_at.get(pool)).max();
                let youngest = memory.renewed_at.max(beat.copied().unwrap_or_default());
                prop_assert!(now - youngest.0 < standing.contract_milliseconds, "{standing:?} at {now}");
            }
        }
    }
}
