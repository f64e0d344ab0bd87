//! Reports of honest, late, lying and hostile observers.

use super::*;

fn report(token: Option<(&str, u64)>, beat: u64, since: u64, until: u64) -> HeartbeatReport {
    let run = Run {
        beat,
        since: Moment(since),
        until: Moment(until),
    };
    HeartbeatReport {
        token: token.map(|(token, _)| token.to_owned()),
        token_seen_at: token.map(|(_, at)| Moment(at)),
        pools: BTreeMap::from([("p".to_owned(), BTreeMap::from([("h2".into(), run)]))]),
    }
}

fn take(heartbeats: &mut Heartbeats, boot: &str, report: HeartbeatReport, now: u64) {
    heartbeats.take(&"h1".into(), &boot.into(), report, Moment(now));
}

fn unchanged(heartbeats: &Heartbeats, floor: u64) -> Option<u64> {
    heartbeats
        .evidence(&"h2".into(), "p", Moment(floor))
        .map(|evidence| evidence.unchanged_milliseconds)
}

#[test]
fn only_what_was_seen_after_the_token_counts_however_late_it_arrives() {
    let mut heartbeats = Heartbeats::default();
    take(&mut heartbeats, "b", report(None, 7, 500_000, 560_000), 100);
    assert_eq!(
        unchanged(&heartbeats, 0),
        None,
        "seen, but nobody knows when"
    );
    let token = heartbeats.token("op", Moment(1_000));
    take(
        &mut heartbeats,
        "b",
        report(Some((&token, 550_000)), 7, 500_000, 560_000),
        90_000,
    );
    assert_eq!(unchanged(&heartbeats, 1_000), Some(10_000));
    assert_eq!(
        unchanged(&heartbeats, 1_001),
        None,
        "the token is older than the Lease's change"
    );
}

#[test]
fn tokens_of_another_operator_and_of_another_boot_count_for_nothing() {
    let mut heartbeats = Heartbeats::default();
    let token = heartbeats.token("op", Moment(1_000));
    take(
        &mut heartbeats,
        "b",
        report(Some(("other/1", 5)), 7, 0, 60_000),
        90_000,
    );
    assert_eq!(unchanged(&heartbeats, 0), None);
    take(
        &mut heartbeats,
        "b",
        report(Some((&token, 5)), 7, 0, 60_000),
        90_000,
    );
    assert_eq!(unchanged(&heartbeats, 0), Some(59_995));
    take(&mut heartbeats, "c", report(None, 7, 0, 60_000), 90_000);
    assert_eq!(unchanged(&heartbeats, 0), None, "its clock began anew");
}

#[test]
fn an_anchor_outlives_later_tokens() {
    let mut heartbeats = Heartbeats::default();
    let first = heartbeats.token("op", Moment(1_000));
    take(
        &mut heartbeats,
        "b",
        report(Some((&first, 100)), 7, 0, 200),
        1_500,
    );
    let second = heartbeats.token("op", Moment(30_000));
    take(
        &mut heartbeats,
        "b",
        report(Some((&second, 29_000)), 7, 0, 40_000),
        41_000,
    );
    assert_eq!(unchanged(&heartbeats, 1_000), Some(39_900));
    assert_eq!(unchanged(&heartbeats, 20_000), Some(11_000));
    assert!(heartbeats.has_answered_since(&"h1".into(), Moment(30_000)));
    assert!(!heartbeats.has_answered_since(&"h1".into(), Moment(30_001)));
}

#[test]
fn nobody_tells_of_itself() {
    let mut heartbeats = Heartbeats::default();
    let token = heartbeats.token("op", Moment(0));
    heartbeats.take(
        &"h2".into(),
        &"b".into(),
        report(Some((&token, 0)), 7, 0, 60_000),
        Moment(9),
    );
    assert_eq!(unchanged(&heartbeats, 0), None);
    assert_eq!(heartbeats.sign(&"h2".into()), None);
}

/// What an observer other than `h1` tells.
fn tell(heartbeats: &mut Heartbeats, observer: &str, report: HeartbeatReport, now: u64) {
    heartbeats.take(&observer.into(), &"b".into(), report, Moment(now));
}

fn changes(heartbeats: &Heartbeats) -> (u64, u64) {
    let sign = heartbeats.sign(&"h2".into()).unwrap();
    (sign.changes, sign.changed_at.0)
}

#[test]
fn the_sign_changes_when_one_observer_tells_another_beat_than_before() {
    let mut heartbeats = Heartbeats::default();
    take(&mut heartbeats, "b", report(None, 7, 0, 0), 1_000);
    take(&mut heartbeats, "b", report(None, 7, 0, 0), 2_000);
    assert_eq!(changes(&heartbeats), (1, 1_000));
    take(&mut heartbeats, "b", report(None, 8, 0, 0), 3_000);
    assert_eq!(changes(&heartbeats), (2, 3_000));
    // A slot that was lost begins anew: a heart that is seen at another beat has beaten.
    take(&mut heartbeats, "b", report(None, 2, 0, 0), 4_000);
    assert_eq!(changes(&heartbeats), (3, 4_000));
    let policy = Policy::default();
    let observers = |at| {
        heartbeats
            .observers(&"h2".into(), &policy, Moment(at))
            .len()
    };
    assert_eq!((observers(8_000), observers(8_001)), (1, 0));
}

#[test]
fn an_observer_that_begins_to_look_at_a_dead_host_has_seen_no_change() {
    let mut heartbeats = Heartbeats::default();
    tell(&mut heartbeats, "h1", report(None, 7, 0, 0), 1_000);
    for late in [7, 6] {
        let observer = format!("late{late}");
        tell(&mut heartbeats, &observer, report(None, late, 0, 0), 9_000);
    }
    let mut elsewhere = report(None, 9, 0, 0);
    let runs = elsewhere.pools.remove("p").unwrap();
    elsewhere.pools.insert("another".to_owned(), runs);
    tell(&mut heartbeats, "h4", elsewhere, 9_500);
    assert_eq!(changes(&heartbeats), (1, 1_000));
    tell(&mut heartbeats, "h5", report(None, 8, 0, 0), 10_000);
    assert_eq!(
        changes(&heartbeats),
        (2, 10_000),
        "a beat that nobody had seen"
    );
    // Its clock began anew, the beats of others did not.
    heartbeats.take(
        &"h5".into(),
        &"b2".into(),
        report(None, 8, 0, 0),
        Moment(11_000),
    );
    assert_eq!(changes(&heartbeats), (2, 10_000));
}

/// Its former word is an hour old, and others have long told of all that came after.
#[test]
fn an_observer_that_was_away_brings_no_dead_host_to_life() {
    for (boot, back_at) in [("b", 90_000), ("b2", 20_000)] {
        let mut heartbeats = Heartbeats::default();
        take(&mut heartbeats, "b", report(None, 7, 0, 0), 1_000);
        for (beat, at) in [(7, 1_500), (8, 2_000), (9, 3_000)] {
            tell(&mut heartbeats, "h3", report(None, beat, 0, 0), at);
        }
        let before = changes(&heartbeats);
        take(&mut heartbeats, boot, report(None, 9, 0, 0), back_at);
        assert_eq!(changes(&heartbeats), before);
        take(
            &mut heartbeats,
            boot,
            report(None, 10, 0, 0),
            back_at + 1_000,
        );
        assert_eq!(changes(&heartbeats).1, back_at + 1_000);
    }
}

/// Found by an audit: a beat only grew, so one report of the highest froze the sign of life of a
/// host that others saw beating.
#[test]
fn a_beat_beyond_all_measure_hides_no_life_that_others_see() {
    let mut heartbeats = Heartbeats::default();
    tell(&mut heartbeats, "h1", report(None, 7, 0, 0), 1_000);
    for second in 2..30 {
        let now = second * 1_000;
        tell(&mut heartbeats, "liar", report(None, u64::MAX, 0, 0), now);
        let honest = report(None, 7 + second, 0, 0);
        tell(&mut heartbeats, "h1", honest, now + 1);
        assert_eq!(changes(&heartbeats).1, now + 1, "second {second}");
    }
    let (before, _) = changes(&heartbeats);
    tell(
        &mut heartbeats,
        "liar",
        report(None, u64::MAX, 0, 0),
        30_000,
    );
    assert_eq!(
        changes(&heartbeats).0,
        before,
        "the same lie is no second sign"
    );
}

#[test]
fn no_observer_saw_longer_than_the_operator_has_waited() {
    let mut heartbeats = Heartbeats::default();
    let token = heartbeats.token("op", Moment(1_000));
    let lie = report(Some((&token, 0)), 7, 0, u64::MAX);
    tell(&mut heartbeats, "liar", lie, 4_000);
    assert_eq!(unchanged(&heartbeats, 1_000), Some(3_000));
}

#[test]
fn who_saw_a_change_contradicts_until_it_is_long_ago() {
    let contradicts = |heartbeats: &Heartbeats, milliseconds, now| {
        heartbeats.contradiction(&"h2".into(), "p", milliseconds, Moment(now))
    };
    let mut heartbeats = Heartbeats::default();
    tell(&mut heartbeats, "h1", report(None, 7, 0, 500), 1_000);
    assert_eq!(
        contradicts(&heartbeats, 50_000, 1_000),
        None,
        "a first look is no change"
    );
    tell(&mut heartbeats, "h1", report(None, 8, 2_000, 2_000), 3_000);
    assert_eq!(
        contradicts(&heartbeats, 50_000, 52_999),
        Some("h1".into()),
        "though it was not heard since"
    );
    assert_eq!(contradicts(&heartbeats, 50_000, 53_000), None);
    assert_eq!(
        heartbeats.contradiction(&"h2".into(), "q", 50_000, Moment(4_000)),
        None
    );
    // The change was told late: by the observer's own clock it is long ago.
    tell(
        &mut heartbeats,
        "h1",
        report(None, 9, 10_000, 60_000),
        70_000,
    );
    assert_eq!(contradicts(&heartbeats, 50_000, 70_000), None);
    assert_eq!(contradicts(&heartbeats, 50_001, 70_000), Some("h1".into()));
    // A gap begins its window anew, and is no change.
    tell(
        &mut heartbeats,
        "h1",
        report(None, 9, 69_000, 70_000),
        130_000,
    );
    assert_eq!(contradicts(&heartbeats, 50_000, 130_000), None);
}

#[test]
fn what_an_observer_told_is_bounded_and_ends_with_the_hosts() {
    let mut heartbeats = Heartbeats::default();
    for number in 0..10_000 {
        let mut one = report(None, 7, 0, 0);
        let runs = one.pools.remove("p").unwrap();
        one.pools.insert(format!("p{number}"), runs);
        tell(&mut heartbeats, "liar", one, 1_000);
    }
    let told = |heartbeats: &Heartbeats| heartbeats.observers[&"liar".into()].told.len();
    assert!(told(&heartbeats) <= TOLD_MAX);
    heartbeats.retain(|host| host.as_str() == "liar");
    assert_eq!(told(&heartbeats), 0);
}

#[test]
fn hostile_reports_are_read_as_none() {
    for text in [
        "",
        "null",
        "{\"pools\":3}",
        "{\"pools\":{\"p\":[]}}",
        "{\"tokenSeenAt\":-1}",
    ] {
        assert_eq!(HeartbeatReport::parse(text), None, "{text}");
    }
    assert_eq!(
        HeartbeatReport::parse(&" ".repeat(REPORT_BYTES_MAX + 1)),
        None
    );
    let whole = report(Some(("t", 1)), 7, 1, 2);
    let text = serde_json::to_string(&whole).unwrap();
    assert_eq!(HeartbeatReport::parse(&text), Some(whole));
}
