//! Events of hosts that wait to be told: those that an operator saw while it did not lead, and those that it had taken
//! and not written when it stopped leading.

use std::collections::VecDeque;
use std::time::Duration;

use failover::host::machine::HostEvent;
use failover::incident::WallTime;
use failover::{Moment, Reason};

/// Events that are kept at most: of each host of the largest site a silence, its fence and its return.
const MAXIMUM: usize = 8_192;
/// Time of another leader after which it has told what happened before. While nobody leads, as the API server is
/// away, nothing is told by anybody, however long that is.
const TOLD_AFTER: Duration = Duration::from_secs(30);
/// What was written so long ago, microseconds, is of no silence to come: a host is silent before it is unreachable, and
/// what was seen of it then is written with its incident only.
const WRITTEN: i64 = 30_000_000;

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

#[cfg(test)]
impl Observer {
    /// One that hears, and has followed others for so many seconds.
    pub(super) fn that_followed(seconds: u64) -> Self {
        Self {
            leads: false,
            hears: true,
            heard_at: Moment(1),
            followed: Duration::from_secs(seconds),
            now: Moment(1),
        }
    }
}

/// Whether others have led long enough to have told what was noted when they had led for `then`.
pub(super) fn is_told(then: Duration, followed: Duration) -> bool {
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

#[cfg(test)]
mod tests {
    use failover::host::machine::EventKind;

    use super::*;

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
        waiting.note(vec![event()], WallTime(0), &Observer::that_followed(100));
        // Ten minutes, in which the API server is away.
        waiting.note(vec![], WallTime(600_000_000), &Observer::that_followed(100));
        assert_eq!(waiting.0.len(), 1);
        waiting.note(vec![], WallTime(630_000_000), &Observer::that_followed(130));
        assert_eq!(waiting.0.len(), 1, "the other one may just have begun");
        waiting.note(vec![], WallTime(631_000_000), &Observer::that_followed(131));
        assert_eq!(waiting.0.len(), 0);
    }

    #[test]
    fn what_was_taken_comes_back_first_and_is_as_good_as_new() {
        let (mut waiting, mut taken) = (Waiting::default(), Waiting::default());
        waiting.note(vec![event()], WallTime(1), &Observer::that_followed(0));
        let first = waiting.0.pop_front().expect("noted");
        taken.keep(first);
        waiting.note(vec![event()], WallTime(2), &Observer::that_followed(0));
        waiting.again(taken, Duration::from_secs(50));
        let times: Vec<i64> = waiting.0.iter().map(|noted| noted.at.0).collect();
        assert_eq!(times, [1, 2]);
        waiting.note(vec![], WallTime(3), &Observer::that_followed(60));
        let left: Vec<i64> = waiting.0.iter().map(|noted| noted.at.0).collect();
        assert_eq!(left, [1], "it was taken from who led until then");
    }

    #[test]
    fn a_full_queue_loses_the_oldest() {
        let mut waiting = Waiting::default();
        waiting.note(vec![event()], WallTime(1), &Observer::that_followed(0));
        waiting.note(
            vec![event(); MAXIMUM],
            WallTime(2),
            &Observer::that_followed(0),
        );
        assert_eq!(waiting.0.len(), MAXIMUM);
        assert!(waiting.0.iter().all(|noted| noted.at == WallTime(2)));
    }

    #[test]
    fn what_is_concluded_while_the_api_server_is_not_heard_is_not_kept() {
        let deaf = Observer {
            hears: false,
            ..Observer::that_followed(0)
        };
        let unreachable = HostEvent {
            reason: Reason::Unreachable {
                silent_milliseconds: 8_000,
            },
            ..event()
        };
        let mut waiting = Waiting::default();
        waiting.note(vec![event(), unreachable], WallTime(0), &deaf);
        let told: Vec<&Reason> = waiting.0.iter().map(|noted| &noted.event.reason).collect();
        assert_eq!(told, [&event().reason]);
    }
}
