//! How copies ended here: what the hypervisor has told of it, and ends that nobody has told of yet. A list may be without a
//! copy a moment before its end is told: why it ended decides whether its VM starts again.

use std::collections::{BTreeMap, BTreeSet};

use failover::copy::CloseCause;
use hypervisor::{Event, StopCause};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use crate::vm::decide::Action;

/// What is known of ends, by VM.
#[derive(Debug, Default)]
pub struct Ends {
    stopped: BTreeMap<String, StopCause>,
    /// Not in this turn's list, and not told of.
    unexplained: BTreeSet<String>,
    /// The same of the turn before.
    unexplained_before: BTreeSet<String>,
}

impl Ends {
    /// Takes note of what happened. A copy that starts has not ended, whatever was told of another one.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Stopped(uuid, cause) => {
                self.stopped.insert(uuid.to_string(), *cause);
            }
            Event::Started(uuid) => self.forget(&uuid.to_string()),
            Event::Resumed(_)
            | Event::Suspended(_)
            | Event::SwitchedOver(_)
            | Event::Reconnected => {}
        }
    }

    /// Takes note of all that was told by now.
    pub fn hear_all(&mut self, events: &mut Receiver<Event>) {
        loop {
            match events.try_recv() {
                Ok(event) => self.hear(&event),
                // What was lost is unexplained; what came after it is still to be heard.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Begins a turn over those VMs that concern this host.
    pub fn begin_turn(&mut self, concerns: impl Fn(&str) -> bool) {
        self.stopped.retain(|uid, _| concerns(uid));
        self.unexplained_before = std::mem::take(&mut self.unexplained);
    }

    /// Whether the VM's guest shut itself down.
    pub fn shut_down_inside(&self, uid: &str) -> bool {
        self.stopped.get(uid) == Some(&StopCause::GuestShutdown)
    }

    /// Another epoch of the VM begins.
    pub fn forget(&mut self, uid: &str) {
        self.stopped.remove(uid);
    }

    /// Whether an action waits for the next list: it takes a copy for crashed that is not in this one, while nobody has told
    /// of its end. libvirt tells of an end a moment later than its lists are without the copy, and before it answers
    /// another one. An end that was told of is acted on at once, so a crash waits for a turn only where its event was lost.
    pub fn is_to_confirm(&mut self, uid: &str, action: &Action) -> bool {
        let unexplained = matches!(action, Action::Close(_, CloseCause::Crashed))
            && !self.stopped.contains_key(uid);
        if unexplained {
            self.unexplained.insert(uid.to_owned());
        }
        unexplained && !self.unexplained_before.contains(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::Hypervisor as _;
    use hypervisor::memory::{MemoryFabric, MemoryHypervisor};
    use model::{Assignment, Epoch};
    use uuid::Uuid;

    const GUEST: Uuid = Uuid::from_u128(7);

    fn close(cause: CloseCause) -> Action {
        let assignment = Assignment {
            host: "h1".into(),
            boot_id: "b1".into(),
            epoch: Epoch(3),
        };
        Action::Close(assignment, cause)
    }

    fn crashed() -> Action {
        close(CloseCause::Crashed)
    }

    /// A host with a guest, its events, and the guest's uid.
    fn host() -> (MemoryHypervisor, Receiver<Event>, String) {
        let host = MemoryFabric::default().host("h1");
        host.add_stray(GUEST, "v");
        let events = host.events();
        (host, events, GUEST.to_string())
    }

    #[tokio::test]
    async fn a_guest_that_shuts_itself_down_just_before_the_list_is_known_to_have() {
        let ((host, mut events, uid), mut ends) = (host(), Ends::default());
        ends.hear_all(&mut events);
        host.end(GUEST, StopCause::GuestShutdown);
        assert!(host.list().await.expect("a list").is_empty());
        ends.hear_all(&mut events);
        ends.begin_turn(|_| true);
        assert!(ends.shut_down_inside(&uid));
    }

    #[test]
    fn a_shutdown_that_is_told_after_the_list_is_no_crash() {
        let ((host, mut events, uid), mut ends) = (host(), Ends::default());
        // The list is without the guest, and nobody has told why.
        ends.begin_turn(|_| true);
        assert!(ends.is_to_confirm(&uid, &crashed()));
        host.end(GUEST, StopCause::GuestShutdown);
        ends.hear_all(&mut events);
        ends.begin_turn(|_| true);
        assert!(ends.shut_down_inside(&uid));
        assert!(!ends.is_to_confirm(&uid, &close(CloseCause::GuestShutdown)));
    }

    #[test]
    fn a_crash_that_was_told_of_waits_for_nothing_and_one_that_was_not_for_one_more_list() {
        let ((host, mut events, uid), mut ends) = (host(), Ends::default());
        ends.begin_turn(|_| true);
        assert!(ends.is_to_confirm(&uid, &crashed()));
        ends.begin_turn(|_| true);
        assert!(!ends.is_to_confirm(&uid, &crashed()), "the second list");
        // It was listed, or worked on, in between.
        ends.begin_turn(|_| true);
        ends.begin_turn(|_| true);
        assert!(ends.is_to_confirm(&uid, &crashed()), "another end");
        host.end(GUEST, StopCause::Crashed);
        ends.hear_all(&mut events);
        ends.begin_turn(|_| true);
        assert!(!ends.is_to_confirm(&uid, &crashed()), "told of");
        assert!(!ends.shut_down_inside(&uid));
    }

    #[test]
    fn only_a_crash_is_confirmed() {
        let mut ends = Ends::default();
        ends.begin_turn(|_| true);
        for cause in [
            CloseCause::GuestShutdown,
            CloseCause::Superseded,
            CloseCause::Declined,
        ] {
            assert!(!ends.is_to_confirm("u1", &close(cause)), "{cause:?}");
        }
        assert!(!ends.is_to_confirm("u1", &Action::Nothing));
    }

    #[test]
    fn that_a_guest_shut_itself_down_is_not_said_of_the_next_one() {
        let mut ends = Ends::default();
        let uid = GUEST.to_string();
        let stopped = Event::Stopped(GUEST, StopCause::GuestShutdown);
        ends.hear(&stopped);
        ends.hear(&Event::Started(GUEST));
        assert!(!ends.shut_down_inside(&uid));
        ends.hear(&stopped);
        ends.forget(&uid);
        assert!(!ends.shut_down_inside(&uid));
        ends.hear(&stopped);
        ends.begin_turn(|_| false);
        assert!(!ends.shut_down_inside(&uid), "it left this host");
    }

    #[test]
    fn events_that_were_lost_hide_none_of_those_that_came_after() {
        let (events, mut receiver) = tokio::sync::broadcast::channel(1);
        for event in [
            Event::Reconnected,
            Event::Stopped(GUEST, StopCause::GuestShutdown),
        ] {
            events.send(event).expect("somebody listens");
        }
        let mut ends = Ends::default();
        ends.hear_all(&mut receiver);
        assert!(ends.shut_down_inside(&GUEST.to_string()));
    }
}
