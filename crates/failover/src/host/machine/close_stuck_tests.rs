//! A living host whose agent can not end a copy.

use std::collections::BTreeMap;

use model::{BootId, HostName};

use super::fixtures::{UUID, facts};
use super::*;
use crate::host::fencing::CommandEnd;
use crate::host::table::Conclusion;
use crate::proof::power::{PowerAnswer, PowerReading};
use crate::signs::{LifeSigns, Sign};

/// A host that renews, second by second, and its BMC.
struct World {
    machine: HostMachine,
    facts: HostFacts,
    permit: FencePermit,
    policy: Policy,
    second: u64,
    on: bool,
    obeys: bool,
    actions: Vec<HostAction>,
    told: Vec<(EventKind, Reason)>,
}

/// A site that lets hosts be forced off for this.
fn willing() -> Policy {
    Policy {
        fence_close_stuck: true,
        ..Policy::default()
    }
}

impl World {
    fn new(close_stuck: u32) -> Self {
        let facts = HostFacts {
            close_stuck,
            ..facts("b1", 1)
        };
        Self {
            machine: HostMachine::new("h1".into(), Moment(0)),
            facts,
            permit: FencePermit::Granted,
            policy: willing(),
            second: 0,
            on: true,
            obeys: true,
            actions: Vec::new(),
            told: Vec::new(),
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let now = Moment(self.second * 1_000);
            if self.on {
                self.facts.signs = LifeSigns {
                    lease: Some(Sign {
                        changes: self.second,
                        changed_at: now,
                    }),
                    ..LifeSigns::default()
                };
            }
            let step = self
                .machine
                .step(&self.facts, &self.permit, &self.policy, now);
            for action in step.actions {
                self.obey(&action, now);
                self.actions.push(action);
            }
            let told = step.events.into_iter();
            self.told
                .extend(told.map(|event| (event.kind, event.reason)));
        }
    }

    fn obey(&mut self, action: &HostAction, now: Moment) {
        match action {
            HostAction::ReadPower => {
                self.facts.reading = Some(PowerReading {
                    answer: if self.on {
                        PowerAnswer::On
                    } else {
                        PowerAnswer::Off
                    },
                    system_uuid: Some(UUID.to_owned()),
                    unanimous: true,
                    contradicted: false,
                    sent_at: now,
                    received_at: now,
                });
            }
            HostAction::WriteIntent {
                boot_id,
                expires_after_milliseconds,
            } => {
                self.facts.intent = Intent::Ours {
                    boot_id: boot_id.clone(),
                    expires_at: now.plus(*expires_after_milliseconds),
                };
            }
            HostAction::ForceOff { attempt, .. } => {
                self.on &= !self.obeys;
                self.facts.command = Some(CommandEnd {
                    attempt: *attempt,
                    at: now,
                });
            }
            HostAction::ClearIntent => self.facts.intent = Intent::None,
            HostAction::CutStorage { .. } | HostAction::LiftCut => {}
        }
    }

    fn forced(&self) -> usize {
        let forced = |action: &&HostAction| matches!(action, HostAction::ForceOff { .. });
        self.actions.iter().filter(forced).count()
    }

    fn not_done(&self, reason: &Reason) -> bool {
        self.told.contains(&(EventKind::NotDone, reason.clone()))
    }

    fn person() -> Reason {
        Reason::NeedsPerson { host: "h1".into() }
    }
}

#[test]
fn it_is_forced_off_although_it_renews_and_proven_off() {
    let mut world = World::new(0);
    world.pass(10);
    assert_eq!((world.forced(), world.machine.life()), (0, Life::Ready));
    world.facts.close_stuck = 1;
    world.pass(29);
    assert_eq!((world.forced(), world.machine.life()), (0, Life::Ready));
    world.pass(31);
    assert_eq!(world.forced(), 1);
    assert_eq!(world.machine.life(), Life::Fenced);
    let stuck = Reason::CloseStuck { host: "h1".into() };
    assert!(world.told.contains(&(EventKind::Seen, stuck)));
    let boot_id = BootId::from("b1");
    assert!(world.machine.stop_proof(&boot_id, &world.facts).is_some());
}

#[test]
fn a_storm_or_a_person_holds_the_fence_back() {
    for reason in [Reason::Disarmed, Reason::Storm { silent: 2, of: 3 }] {
        let mut world = World::new(1);
        world.permit = FencePermit::Refused(reason.clone());
        world.pass(30);
        assert_eq!((world.forced(), world.machine.life()), (0, Life::Ready));
        assert!(world.not_done(&reason));
        world.permit = FencePermit::Granted;
        world.pass(60);
        assert_eq!(world.machine.life(), Life::Fenced);
    }
}

#[test]
fn without_a_bmc_or_where_the_policy_says_no_it_needs_a_person() {
    let mut bare = World::new(1);
    bare.facts.bmcs = 0;
    bare.pass(60);
    let mut kept = World::new(1);
    kept.policy.fence_close_stuck = false;
    kept.pass(60);
    for world in [bare, kept] {
        assert_eq!((world.forced(), world.machine.life()), (0, Life::Ready));
        assert!(world.not_done(&World::person()));
        let now = Moment(world.second * 1_000);
        let view = world.machine.view(&world.facts, &world.policy, now);
        assert_eq!(
            view.not_placeable,
            Some(Reason::CloseStuck { host: "h1".into() })
        );
    }
}

#[test]
fn a_fence_that_fails_is_not_tried_for_ever_and_the_host_counts_as_alive() {
    let mut world = World::new(1);
    world.obeys = false;
    world.pass(120);
    let tries = usize::try_from(world.policy.fence_attempts).unwrap();
    assert_eq!(world.forced(), tries);
    assert!(world.not_done(&World::person()));
    assert_eq!(world.machine.life(), Life::Ready);
    world.pass(60);
    assert_eq!(world.forced(), tries, "no more");
    // The process ended after all; later another one does not.
    world.facts.close_stuck = 0;
    world.pass(5);
    (world.facts.close_stuck, world.obeys) = (1, true);
    world.pass(60);
    assert_eq!(world.machine.life(), Life::Fenced);
}

#[test]
fn a_copy_that_ends_before_the_command_is_sent_stops_the_fence() {
    let mut world = World::new(1);
    world.pass(32);
    assert_eq!((world.forced(), world.machine.life()), (0, Life::Fencing));
    world.facts.close_stuck = 0;
    world.pass(20);
    assert_eq!((world.forced(), world.machine.life()), (0, Life::Ready));
    assert_eq!(world.facts.intent, Intent::None);
    let hung = Conclusion::Hung;
    let told = Reason::Concluded { conclusion: hung };
    assert!(!world.told.contains(&(EventKind::Seen, told)));
}

/// A storage server that fails holds copies on every host; to force hosts off helps nobody.
#[test]
fn hosts_that_are_stuck_together_are_not_forced_off() {
    let mut fleet = crate::host::fleet::Hosts::default();
    let mut facts: BTreeMap<HostName, HostFacts> = BTreeMap::new();
    for host in ["h1", "h2", "h3"] {
        let stuck = u32::from(host != "h3");
        facts.insert(host.into(), World::new(stuck).facts);
    }
    let observer = crate::host::fleet::ObserverFacts {
        can_write: true,
        hears: true,
        ..Default::default()
    };
    let policy = willing();
    let mut intents = Vec::new();
    let mut seen = Vec::new();
    for second in 1..=200_u64 {
        let now = Moment(second * 1_000);
        for (host, facts) in &mut facts {
            facts.signs.lease = Some(Sign {
                changes: second,
                changed_at: now,
            });
            if second > 120 && host.as_str() == "h2" {
                facts.close_stuck = 0;
            }
        }
        let step = fleet.step(&facts, observer, &policy, now);
        for (host, action) in step.actions {
            if matches!(action, HostAction::WriteIntent { .. }) {
                intents.push((second, host));
            }
        }
        seen.extend(step.events.into_iter().map(|event| event.reason));
    }
    let first = intents.first().cloned().expect("one is left and is fenced");
    assert_eq!(first.1.as_str(), "h1");
    assert!(first.0 > 150, "it gets its whole time again: {first:?}");
    assert!(intents.iter().all(|(_, host)| host.as_str() == "h1"));
    assert!(seen.contains(&Reason::StuckTogether { hosts: 2 }));
}
