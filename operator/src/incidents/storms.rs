//! A storm, many hosts that fell silent together, as it waits to be told: seen while this operator did not lead, or taken
//! and not written when it stopped leading.

use std::time::Duration;

use api::Incident;
use failover::Moment;
use failover::incident::WallTime;
use failover::incident::rules::STORM_CAUSE;

use super::waiting::{Observer, is_told};

/// After a time in which the API server was not heard, a storm counts only once it has outlasted this, milliseconds: all
/// hosts are silent until their Leases are seen to change.
const HEARD_ANEW: u64 = 6_000;

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
            let closed = incident.is_closed() && incident.spec.cause == STORM_CAUSE;
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
    use serde_json::json;

    use super::*;

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
            storms.note(Some((2, 4)), at, &Observer::that_followed(0));
            if over {
                storms.note(None, at, &Observer::that_followed(0));
            }
            storms.forget_told(std::slice::from_ref(&stored));
            assert_eq!(storms.take().is_some(), kept, "{stored:?} {over}");
        }
    }

    #[test]
    fn a_storm_begins_when_it_was_first_seen_and_waits_as_events_do() {
        let mut storms = Storms::default();
        for (silent, second) in [(2, 1), (3, 2)] {
            storms.note(
                Some((silent, 4)),
                WallTime(second),
                &Observer::that_followed(0),
            );
        }
        storms.note(None, WallTime(3), &Observer::that_followed(0));
        // Nobody has led: the next one is the same story.
        storms.note(Some((4, 4)), WallTime(4), &Observer::that_followed(0));
        let told = storms.take().expect("it waits");
        assert_eq!((told.silent, told.of, told.since), (4, 4, WallTime(1)));
        storms.note(None, WallTime(5), &Observer::that_followed(0));
        storms.again(Duration::from_secs(1));
        storms.note(None, WallTime(6), &Observer::that_followed(31));
        assert_eq!(storms.waiting.map(|storm| storm.since), Some(WallTime(1)));
        storms.note(None, WallTime(7), &Observer::that_followed(32));
        assert_eq!(storms.waiting, None);
    }

    /// While the API server is away no Lease can change.
    #[test]
    fn a_storm_that_is_seen_while_the_api_server_is_not_heard_is_none() {
        let at = |seconds: u64, hears: bool, heard_at: u64| Observer {
            hears,
            heard_at: Moment(heard_at * 1_000),
            now: Moment(seconds * 1_000),
            ..Observer::that_followed(0)
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
        // One that has just begun has not been answered yet, and must know of a storm that stands.
        let mut storms = Storms::default();
        storms.note(None, WallTime(0), &at(1, false, 0));
        storms.note(Some((4, 4)), WallTime(0), &at(2, true, 2));
        assert!(storms.waiting.is_some());
    }
}
