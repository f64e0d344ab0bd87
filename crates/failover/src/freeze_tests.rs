use model::Epoch;

use super::*;

fn host(renewals: u64) -> HostFacts<'static> {
    HostFacts {
        name: "h1".into(),
        accepted: true,
        renewals,
        remembers: None,
        frozen: None,
    }
}

fn facts(hosts: Vec<HostFacts<'_>>) -> Facts<'_> {
    Facts {
        roll_call: None,
        last_rebase: "",
        went_back: false,
        hosts,
        unreachable_after_milliseconds: 8_000,
    }
}

fn frozen(forget_written: bool, due: Due) -> Turn {
    Turn::Frozen {
        forget_written,
        due,
    }
}

#[test]
fn an_operator_that_begins_listens_until_every_host_was_heard_or_is_late() {
    let mut memory = OperatorMemory::default();
    let unheard = facts(vec![host(1)]);
    assert_eq!(memory.turn(&unheard, Moment(1_000)), Turn::Listen);
    assert_eq!(memory.turn(&unheard, Moment(8_999)), Turn::Listen);
    assert_eq!(memory.turn(&unheard, Moment(9_000)), Turn::Act);
    // Once is enough: a host that joins later holds nobody up.
    assert_eq!(memory.turn(&facts(vec![host(0)]), Moment(9_001)), Turn::Act);

    let mut memory = OperatorMemory::default();
    let heard = facts(vec![host(2)]);
    assert_eq!(memory.turn(&heard, Moment(1_000)), Turn::Act);

    // One whose Lease was never seen is not heard; one that was never accepted keeps nobody waiting.
    let mut memory = OperatorMemory::default();
    assert_eq!(memory.turn(&facts(vec![host(0)]), Moment(0)), Turn::Listen);
    let stranger = HostFacts {
        accepted: false,
        ..host(0)
    };
    assert_eq!(memory.turn(&facts(vec![stranger]), Moment(0)), Turn::Act);
}

#[test]
fn whoever_remembers_more_than_the_api_holds_freezes_the_site() {
    let begun = || {
        let mut memory = OperatorMemory::default();
        assert_eq!(memory.turn(&facts(vec![host(2)]), Moment(0)), Turn::Act);
        memory
    };
    let by_itself = Facts {
        went_back: true,
        ..facts(vec![host(2)])
    };
    let by_report = facts(vec![HostFacts {
        frozen: Some(("", "etcd was restored")),
        ..host(2)
    }]);
    let by_memory = facts(vec![HostFacts {
        remembers: Some(("90 ".to_owned(), 80)),
        ..host(2)
    }]);
    for (facts, cause) in [
        (
            by_itself,
            "the operator saw the API server hold less than before",
        ),
        (by_report, "host h1: etcd was restored"),
        (
            by_memory,
            "host h1 remembers version 90  of the API server, which is at 80",
        ),
    ] {
        let mut memory = begun();
        let Turn::Frozen {
            forget_written: true,
            due: Due::Freeze(told),
        } = memory.turn(&facts, Moment(1))
        else {
            panic!("not frozen: {cause}");
        };
        assert_eq!(told.to_string(), cause);
        assert!(memory.stands());
        // What it wrote since it froze stands; not so where the API goes back again and again.
        let again = memory.turn(&facts, Moment(2));
        assert_eq!(again, frozen(facts.went_back, Due::Freeze(told)));
    }
}

#[test]
fn a_word_from_before_the_last_rebase_freezes_nothing() {
    let mut memory = OperatorMemory::default();
    let old = Facts {
        last_rebase: "2026-11-02",
        ..facts(vec![HostFacts {
            frozen: Some(("2026-11-01", "etcd was restored")),
            remembers: Some(("90 2026-11-01".to_owned(), 80)),
            ..host(2)
        }])
    };
    assert_eq!(memory.turn(&old, Moment(0)), Turn::Act);
}

#[test]
fn a_rebase_waits_for_answers_to_this_operators_own_roll_call() {
    let mut memory = OperatorMemory::default();
    let of_another = Facts {
        roll_call: Some("12:00 a"),
        ..facts(vec![host(2)])
    };
    let call = Due::CallTheRoll { again: false };
    assert_eq!(
        memory.turn(&of_another, Moment(0)),
        frozen(true, call.clone())
    );
    memory.called("12:01 b");
    // Its cache shows the former one still.
    assert_eq!(memory.turn(&of_another, Moment(1)), frozen(false, call));
    let own = Facts {
        roll_call: Some("12:01 b"),
        ..of_another
    };
    assert_eq!(memory.turn(&own, Moment(2)), frozen(false, Due::Rebase));
    // Etcd goes back once more, to a moment after that.
    let back = Facts {
        went_back: true,
        ..own
    };
    let again = Due::CallTheRoll { again: true };
    assert_eq!(memory.turn(&back, Moment(3)), frozen(true, again));
}

/// Etcd was restored to a moment before the freeze.
#[test]
fn a_freeze_that_the_api_has_forgotten_stands_until_a_rebase() {
    let mut memory = OperatorMemory::default();
    memory.called("12:01 b");
    let unfrozen = facts(vec![host(2)]);
    let forgotten = Due::Freeze(Cause::Forgotten);
    assert_eq!(memory.turn(&unfrozen, Moment(0)), frozen(true, forgotten));
    // Another operator rebased the site.
    assert!(memory.learns_of("12:05"));
    assert!(!memory.learns_of("12:05"));
    let rebased = Facts {
        last_rebase: "12:05",
        ..unfrozen
    };
    assert_eq!(memory.turn(&rebased, Moment(1)), Turn::Act);
    assert!(!memory.stands());
}

/// Another one led meanwhile, and may have written.
#[test]
fn a_leader_that_comes_back_to_a_freeze_trusts_nothing_that_it_wrote() {
    let mut memory = OperatorMemory::default();
    memory.called("12:01 b");
    let own = Facts {
        roll_call: Some("12:01 b"),
        ..facts(vec![host(2)])
    };
    assert_eq!(memory.turn(&own, Moment(0)), frozen(true, Due::Rebase));
    assert_eq!(memory.turn(&own, Moment(1)), frozen(false, Due::Rebase));
    memory.forget();
    assert!(!memory.stands());
    assert_eq!(memory.turn(&own, Moment(2)), frozen(true, Due::Rebase));
    // A freeze that names no roll-call is answered by nobody.
    let unnamed = Facts {
        roll_call: Some(""),
        ..own
    };
    let call = Due::CallTheRoll { again: false };
    let turn = OperatorMemory::default().turn(&unnamed, Moment(0));
    assert_eq!(turn, frozen(true, call));
}

#[test]
fn a_freeze_that_this_operator_ended_is_over_before_its_cache_shows_the_rebase() {
    let mut memory = OperatorMemory::default();
    memory.called("12:01 b");
    memory.rebased();
    let turn = memory.turn(&facts(vec![host(2)]), Moment(0));
    assert_eq!(turn, Turn::Act);
}

#[test]
fn rebases_have_later_words_whatever_the_clock_does_and_etcd_forgets() {
    let mut memory = OperatorMemory::default();
    assert!(memory.learns_of("12:05"));
    assert_eq!(memory.name_rebase("12:05", "12:09".to_owned()), "12:09");
    assert_eq!(memory.name_rebase("12:05", "11:00".to_owned()), "12:05+");
    assert_eq!(memory.name_rebase("", "11:00".to_owned()), "12:05+");
    assert_eq!(memory.name_rebase("12:07", "11:00".to_owned()), "12:07+");
}

#[test]
fn a_hosts_word_counts_from_the_boot_that_renews_and_for_this_freeze_alone() {
    let word = HostWord {
        boot_id: "b1".into(),
        copies: Vec::new(),
        highest: Epoch(7),
    };
    let answer = |rebase, roll_call| {
        let word = word.clone();
        Some(Answer {
            rebase,
            roll_call,
            word,
        })
    };
    let (b1, b2) = (BootId::from("b1"), BootId::from("b2"));
    let silent = |answer, renews| host_said(answer, renews, "r1", "c1", None) == HostSaid::Silent;
    let heard = host_said(answer("r1", "c1"), Some(&b1), "r1", "c1", None);
    assert_eq!(heard, HostSaid::Heard(word.clone()));
    assert!(silent(answer("r0", "c1"), Some(&b1)));
    assert!(silent(answer("r1", "c0"), Some(&b1)));
    assert!(silent(answer("r1", "c1"), Some(&b2)));
    assert!(silent(answer("r1", "c1"), None));
    assert!(silent(None, Some(&b1)));
}
