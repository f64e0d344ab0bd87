//! Events of hosts and storms that wait to be told: those that an operator saw while it did not lead, and those that
//! it had taken and not written when it stopped leading.

use std::collections::VecDeque;
use std::time::Duration;

use api::Incident;
use failover::host::machine::HostEvent;
use failover::incident::WallTime;
use failover::incident::rules::STORM_CAUSE;
use failover::{Moment, Reason};

use super::stored;

/// Events that are kept at most: of each host of the largest site a silence, its fence and its return.
const MAXIMUM: usize = 8_192;
/// Time of another leader after which it has told what happened before. While nobody leads, as the API server is
/// away, nothing is told by anybody, however long that is.
const TOLD_AFTER: Duration = Duration::from_secs(30);
/// What was written so long ago, microseconds, is of no silence to come: a host is silent before it is unreachable, and
/// what was seen of it then is written with its incident only.
const WRITTEN: i64 = 30_000_000;

/// After a time in which the API server was not heard, a storm counts only once it has outlasted this, milliseconds: all
/// hosts are silent until their Leases are seen to change.
const HEARD_ANEW: u64 = 6_000;

/// What an operator is and hears at a look.
#[derive(Clone, Copy, Debug)]
pub struct Observer {
    /// It leads.
    pub leads: bool,
    /// The API server answered it lately. While it does not, all hosts are silent.
    pub hears: bool,
    /// When it answered last; 0: never.
    pub heard_at: Moment,
    /// For how long in all others were seen to lead.
    pub followed: Duration,
    /// When it looks.
    pub now: Moment,
}

/// Whether others have led long enough to have told what was noted when they had led for `then`.
fn is_told(then: Duration, followed: Duration) -> bool {
    followed.saturating_sub(then) > TOLD_AFTER
}

/// Whether an event says something of a host though the API server was not heard when it was seen. A missed renewal alone
/// is no incident, and is forgotten once the host is back.
fn is_true_of_the_deaf(event: &HostEvent) -> bool {
    matches!(
        event.reason,
        Reason::MissedRenewal { .. } | Reason::Alive | Reason::Returned | Reason::Proven { .. }
    )
}

/// An event that was noted.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub(super) event: HostEvent,
    pub(super) at: WallTime,
    /// For how long others had led in all, as this operator saw it.
    pub(super) followed: Duration,
    /// The API server was not heard.
    pub(super) unheard: bool,
}

/// Events in the order in which they were noted.
#[derive(Default)]
pub(super) struct Waiting(pub(super) VecDeque<Noted>);

impl Waiting {
    /// Takes events, and drops those that another leader must have told. What is concluded of a silence while the API server
    /// is not heard says nothing of hosts: of one that is silent afterwards it is seen anew.
    pub(super) fn note(&mut self, events: Vec<HostEvent>, at: WallTime, observer: &Observer) {
        let followed = observer.followed;
        self.0.retain(|noted| !is_told(noted.followed, followed));
        let heard = events
            .into_iter()
            .filter(|event| observer.hears || is_true_of_the_deaf(event));
        for event in heard {
            if event.reason == Reason::Alive {
                self.forget_unheard(&event);
            }
            self.0.push_back(Noted {
                event,
                at,
                followed,
                unheard: !observer.hears,
            });
        }
        self.bound();
    }

    /// A host is back that was silent only as nobody was heard.
    fn forget_unheard(&mut self, back: &HostEvent) {
        let missed = |event: &HostEvent| matches!(event.reason, Reason::MissedRenewal { .. });
        self.0.retain(|noted| {
            !(noted.unheard && noted.event.host == back.host && missed(&noted.event))
        });
    }

    /// What was taken from here comes back, before what waits since.
    pub(super) fn again(&mut self, taken: Self, followed: Duration) {
        let waiting = std::mem::replace(self, taken);
        for noted in &mut self.0 {
            noted.followed = followed;
        }
        self.0.extend(waiting.0);
        self.bound();
    }

    /// Keeps an event that was taken.
    pub(super) fn keep(&mut self, noted: Noted) {
        self.0.push_back(noted);
        self.bound();
    }

    /// All that was taken is written by now: only what may belong to an incident to come is kept.
    pub(super) fn written(&mut self, now: WallTime) {
        self.0.retain(|noted| noted.at.0 >= now.0 - WRITTEN);
    }

    fn bound(&mut self) {
        let excess = self.0.len().saturating_sub(MAXIMUM);
        self.0.drain(..excess);
    }
}

/// Many hosts that fell silent together, as it was noted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storm {
    /// So many hosts.
    pub(super) silent: u32,
    /// Of so many.
    pub(super) of: u32,
    /// When it was first seen: its Incident begins then, whoever leads by the time that it is told.
    pub(super) since: WallTime,
    first_seen: Moment,
    followed: Duration,
    is_over: bool,
}

/// The storm that waits to be told, and the one that the ledger has taken and the API may not hold.
#[derive(Default)]
pub(super) struct Storms {
    waiting: Option<Storm>,
    taken: Option<Storm>,
    ear: Ear,
}

/// Whether the API server is heard.
#[derive(Clone, Copy, Default)]
enum Ear {
    /// And was ever since this operator began.
    #[default]
    Good,
    Deaf,
    /// Again, since then.
    Anew(Moment),
}

impl Ear {
    fn after(self, observer: &Observer) -> Self {
        match (self, observer.hears) {
            (Self::Good, false) if observer.heard_at == Moment(0) => Self::Good,
            (_, false) => Self::Deaf,
            (Self::Deaf, true) => Self::Anew(observer.now),
            (known, true) => known,
        }
    }

    fn hears_well(self, now: Moment) -> bool {
        match self {
            Self::Good => true,
            Self::Deaf => false,
            Self::Anew(since) => now.since(since) >= HEARD_ANEW,
        }
    }
}

impl Storms {
    /// Takes note of a storm that stands, with how many hosts are silent, of how many; or that none does.
    pub(super) fn note(&mut self, stands: Option<(u32, u32)>, at: WallTime, observer: &Observer) {
        self.ear = self.ear.after(observer);
        if !observer.hears {
            // Nobody's Lease can change: a storm that began since is of the API server's.
            let false_one = |storm: &mut Storm| storm.first_seen > observer.heard_at;
            self.waiting.take_if(false_one);
            self.taken.take_if(false_one);
            return;
        }
        match stands {
            Some(hosts) if self.ear.hears_well(observer.now) => self.begin(hosts, at, observer),
            Some(_) => {}
            None => {
                let known = self.waiting.iter_mut().chain(&mut self.taken);
                known.for_each(|storm| storm.is_over = true);
            }
        }
        self.waiting
            .take_if(|storm| storm.is_over && is_told(storm.followed, observer.followed));
    }

    fn begin(&mut self, (silent, of): (u32, u32), at: WallTime, observer: &Observer) {
        // Where nobody has led since an earlier one was seen, they are one story.
        let followed = observer.followed;
        let same = |known: &Storm| !known.is_over || known.followed == followed;
        let known = self.waiting.filter(same);
        let begun = known.map_or((at, observer.now), |known| (known.since, known.first_seen));
        self.waiting = Some(Storm {
            silent,
            of,
            since: begun.0,
            first_seen: begun.1,
            followed,
            is_over: false,
        });
    }

    /// What was taken waits once more.
    pub(super) fn again(&mut self, followed: Duration) {
        if let Some(taken) = self.taken.take() {
            self.waiting = Some(Storm { followed, ..taken });
        }
    }

    /// Forgets a storm that is over and that another leader has told to its end: told again, it would be an Incident of
    /// its own.
    pub(super) fn forget_told(&mut self, all: &[Incident]) {
        let ends = all.iter().filter_map(|incident| {
            let closed = stored::is_closed(incident) && incident.spec.cause == STORM_CAUSE;
            let status = incident.status.as_ref().filter(|_| closed)?;
            Some(status.closed_at.as_ref()?.0.as_microsecond())
        });
        let last = ends.max();
        self.waiting
            .take_if(|storm| storm.is_over && last.is_some_and(|end| end >= storm.since.0));
    }

    /// What the ledger is to be told.
    pub(super) fn take(&mut self) -> Option<Storm> {
        let storm = self.waiting.take()?;
        self.taken.get_or_insert(storm);
        Some(storm)
    }

    /// All that was taken is written by now: one that is over need not be told again.
    pub(super) fn written(&mut self) {
        self.taken.take_if(|storm| storm.is_over);
    }
}

#[cfg(test)]
mod tests {
    use failover::host::machine::EventKind;
    use serde_json::json;

    use super::*;

    /// An operator that has followed others for so many seconds.
    fn followed(seconds: u64) -> Observer {
        Observer {
            leads: false,
            hears: true,
            heard_at: Moment(1),
            followed: Duration::from_secs(seconds),
            now: Moment(1),
        }
    }

    fn event() -> HostEvent {
        HostEvent {
            host: "h1".into(),
            boot_id: "b1".into(),
            kind: EventKind::Seen,
            reason: Reason::MissedRenewal {
                silent_milliseconds: 3_000,
            },
        }
    }

    #[test]
    fn an_event_waits_however_long_nobody_leads_and_no_longer_than_another_needs_to_tell_it() {
        let mut waiting = Waiting::default();
        waiting.note(vec![event()], WallTime(0), &followed(100));
        // Ten minutes, in which the API server is away.
        waiting.note(vec![], WallTime(600_000_000), &followed(100));
        assert_eq!(waiting.0.len(), 1);
        waiting.note(vec![], WallTime(630_000_000), &followed(130));
        assert_eq!(waiting.0.len(), 1, "the other one may just have begun");
        waiting.note(vec![], WallTime(631_000_000), &followed(131));
        assert_eq!(waiting.0.len(), 0);
    }

    #[test]
    fn what_was_taken_comes_back_first_and_is_as_good_as_new() {
        let (mut waiting, mut taken) = (Waiting::default(), Waiting::default());
        waiting.note(vec![event()], WallTime(1), &followed(0));
        let first = waiting.0.pop_front().expect("noted");
        taken.keep(first);
        waiting.note(vec![event()], WallTime(2), &followed(0));
        waiting.again(taken, Duration::from_secs(50));
        let times: Vec<i64> = waiting.0.iter().map(|noted| noted.at.0).collect();
        assert_eq!(times, [1, 2]);
        waiting.note(vec![], WallTime(3), &followed(60));
        let left: Vec<i64> = waiting.0.iter().map(|noted| noted.at.0).collect();
        assert_eq!(left, [1], "it was taken from who led until then");
    }

    #[test]
    fn a_full_queue_loses_the_oldest() {
        let mut waiting = Waiting::default();
        waiting.note(vec![event()], WallTime(1), &followed(0));
        waiting.note(vec![event(); MAXIMUM], WallTime(2), &followed(0));
        assert_eq!(waiting.0.len(), MAXIMUM);
        assert!(waiting.0.iter().all(|noted| noted.at == WallTime(2)));
    }

    fn of_storm(closed: Option<&str>) -> Incident {
        let state = if closed.is_some() { "Closed" } else { "Open" };
        let incident = serde_json::from_value(json!({
            "metadata": {"name": "i"},
            "spec": {"cause": STORM_CAUSE, "causeClass": "Network", "title": "t", "openedAt": "1970-01-01T00:00:05.000000Z"},
            "status": {"state": state, "closedAt": closed}
        }));
        incident.expect("an Incident")
    }

    #[test]
    fn a_storm_that_is_over_is_told_unless_another_has_told_it_to_its_end() {
        let at = WallTime(10_000_000);
        for (stored, over, kept) in [
            (of_storm(None), true, true),
            (of_storm(Some("1970-01-01T00:00:09.000000Z")), true, true),
            (of_storm(Some("1970-01-01T00:00:30.000000Z")), true, false),
            (of_storm(Some("1970-01-01T00:00:30.000000Z")), false, true),
        ] {
            let mut storms = Storms::default();
            storms.note(Some((2, 4)), at, &followed(0));
            if over {
                storms.note(None, at, &followed(0));
            }
            storms.forget_told(std::slice::from_ref(&stored));
            assert_eq!(storms.take().is_some(), kept, "{stored:?} {over}");
        }
    }

    #[test]
    fn a_storm_begins_when_it_was_first_seen_and_waits_as_events_do() {
        let mut storms = Storms::default();
        for (silent, second) in [(2, 1), (3, 2)] {
            storms.note(Some((silent, 4)), WallTime(second), &followed(0));
        }
        storms.note(None, WallTime(3), &followed(0));
        // Nobody has led: the next one is the same story.
        storms.note(Some((4, 4)), WallTime(4), &followed(0));
        let told = storms.take().expect("it waits");
        assert_eq!((told.silent, told.of, told.since), (4, 4, WallTime(1)));
        storms.note(None, WallTime(5), &followed(0));
        storms.again(Duration::from_secs(1));
        storms.note(None, WallTime(6), &followed(31));
        assert_eq!(storms.waiting.map(|storm| storm.since), Some(WallTime(1)));
        storms.note(None, WallTime(7), &followed(32));
        assert_eq!(storms.waiting, None);
    }

    /// While the API server is away no Lease can change.
    #[test]
    fn what_is_seen_while_the_api_server_is_not_heard_is_no_silence_of_hosts() {
        let at = |seconds: u64, hears: bool, heard_at: u64| Observer {
            hears,
            heard_at: Moment(heard_at * 1_000),
            now: Moment(seconds * 1_000),
            ..followed(0)
        };
        // It is heard until 100, and seen to be away from 104 on. One storm began before, one since.
        for (began, kept) in [(99, true), (103, false)] {
            let mut storms = Storms::default();
            storms.note(Some((2, 4)), WallTime(0), &at(began, true, 100));
            for second in [104, 120] {
                storms.note(Some((4, 4)), WallTime(0), &at(second, false, 100));
            }
            assert_eq!(storms.waiting.is_some(), kept, "{began}");
        }
        // Heard again, Leases have yet to change; a storm that outlasts that is one.
        let mut storms = Storms::default();
        storms.note(Some((4, 4)), WallTime(0), &at(104, false, 100));
        for (second, stands) in [(200, false), (205, false), (206, true)] {
            storms.note(Some((4, 4)), WallTime(0), &at(second, true, second));
            assert_eq!(storms.waiting.is_some(), stands, "{second}");
        }
        let unreachable = HostEvent {
            reason: Reason::Unreachable {
                silent_milliseconds: 8_000,
            },
            ..event()
        };
        let mut waiting = Waiting::default();
        waiting.note(
            vec![event(), unreachable],
            WallTime(0),
            &at(104, false, 100),
        );
        let told: Vec<&Reason> = waiting.0.iter().map(|noted| &noted.event.reason).collect();
        assert_eq!(told, [&event().reason]);
        // One that has just begun has not been answered yet, and must know of a storm that stands.
        let mut storms = Storms::default();
        storms.note(None, WallTime(0), &at(1, false, 0));
        storms.note(Some((4, 4)), WallTime(0), &at(2, true, 2));
        assert!(storms.waiting.is_some());
    }
}
