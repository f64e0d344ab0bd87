use super::*;
use crate::host::incarnation::Identity;
use crate::host::machine::Intent;
use crate::proof::power::{PowerAnswer, PowerReading};
use crate::signs::Sign;

const UUID: &str = "11111111-2222-3333-4444-555555555555";
const STEP: u64 = 500;

/// Two hosts: h2 lives, h1 does what the fields say.
struct Site {
    hosts: Hosts,
    policy: Policy,
    facts: BTreeMap<HostName, HostFacts>,
    now: u64,
    /// h1 renews its Lease until then.
    renews_until: u64,
    /// h1's storage heart beats; none: no pool carries one.
    beats: Option<bool>,
    /// A VM of h1 answers; none: there is nothing to probe.
    answers: Option<bool>,
    power: PowerAnswer,
    disarmed_until: u64,
    /// The API server answers the observer from then on.
    deaf_until: u64,
    /// The observer does not lead, and so reads no power, until then.
    blind_until: u64,
    /// What was wanted of h1, and when.
    actions: Vec<(u64, HostAction)>,
    told: Vec<(u64, crate::Reason)>,
}

impl Site {
    fn new(policy: Policy) -> Self {
        let host = |name: &str| {
            let facts = HostFacts {
                identity: Some(Identity {
                    boot_id: "b1".into(),
                    system_uuid: UUID.to_owned(),
                    mac_addresses: std::collections::BTreeSet::new(),
                }),
                lease_boot_id: Some("b1".into()),
                bmcs: 1,
                ..HostFacts::default()
            };
            (HostName::from(name), facts)
        };
        Self {
            hosts: Hosts::default(),
            policy,
            facts: [host("h1"), host("h2")].into(),
            now: 0,
            renews_until: 10_000,
            beats: None,
            answers: None,
            power: PowerAnswer::On,
            disarmed_until: 0,
            deaf_until: 0,
            blind_until: 0,
            actions: Vec::new(),
            told: Vec::new(),
        }
    }

    fn renew(sign: &mut Option<Sign>, now: u64) {
        let changes = sign.map_or(0, |sign| sign.changes) + 1;
        *sign = Some(Sign {
            changes,
            changed_at: Moment(now),
        });
    }

    fn observe(&mut self) {
        let now = self.now;
        for (name, facts) in &mut self.facts {
            let h1 = name.as_str() == "h1";
            if !h1 || now <= self.renews_until {
                Self::renew(&mut facts.signs.lease, now);
            }
            if !h1 {
                continue;
            }
            if self.beats == Some(true) || (self.beats.is_some() && now <= self.renews_until) {
                Self::renew(&mut facts.signs.heartbeat, now);
            }
            if let Some(answers) = self.answers {
                facts.signs.probe_sent_at = Some(Moment(now));
                if answers {
                    facts.signs.answered_probe_sent_at = Some(Moment(now));
                }
            }
            if now < self.blind_until {
                continue;
            }
            // A BMC that reads Off of a host that renews would lie.
            let off_too_soon = self.power == PowerAnswer::Off && now <= self.renews_until;
            facts.reading = Some(PowerReading {
                answer: if off_too_soon {
                    PowerAnswer::On
                } else {
                    self.power.clone()
                },
                system_uuid: Some(UUID.to_owned()),
                unanimous: true,
                contradicted: false,
                sent_at: Moment(now),
                received_at: Moment(now),
            });
        }
    }

    fn step(&mut self) -> FleetStep {
        self.observe();
        let observer = ObserverFacts {
            can_write: self.now >= self.deaf_until.max(self.blind_until),
            hears: self.now >= self.deaf_until,
            disarmed: self.now < self.disarmed_until,
            frozen: false,
        };
        let (now, h1) = (Moment(self.now), HostName::from("h1"));
        let step = self.hosts.step(&self.facts, observer, &self.policy, now);
        let of_h1 = step.actions.iter().filter(|(host, _)| *host == h1);
        let at = self.now;
        self.actions
            .extend(of_h1.map(|(_, action)| (at, action.clone())));
        let events = step.events.iter().filter(|event| event.host == h1);
        self.told
            .extend(events.map(|event| (at, event.reason.clone())));
        step
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            let _ = self.step();
            self.now += STEP;
        }
    }

    /// When the intent to fence h1 was first wanted.
    fn fence_wanted_at(&self) -> Option<u64> {
        let mut wanted = self.actions.iter();
        wanted
            .find(|(_, action)| matches!(action, HostAction::WriteIntent { .. }))
            .map(|(at, _)| *at)
    }

    fn said(&self, reason: &crate::Reason) -> bool {
        self.told.iter().any(|(_, told)| told == reason)
    }

    fn life(&self) -> Life {
        self.hosts.machine(&"h1".into()).unwrap().life()
    }
}

fn isolated_kept() -> Policy {
    Policy {
        fence_isolated: false,
        ..Policy::default()
    }
}

#[test]
fn an_isolated_host_is_fenced_after_its_wait_or_never_as_the_policy_says() {
    // Heart, probes: isolated, isolated, half alive.
    for (beats, answers) in [(true, None), (true, Some(false)), (false, Some(true))] {
        for policy in [Policy::default(), isolated_kept()] {
            let fences = policy.fence_isolated;
            let mut site = Site::new(policy);
            (site.beats, site.answers) = (Some(beats), answers);
            site.run(300_000);
            let expected = fences.then_some(40_000);
            assert_eq!(site.fence_wanted_at(), expected, "{beats} {answers:?}");
            assert_eq!(site.said(&crate::Reason::IsolatedKept), !fences);
        }
    }
}

#[test]
fn a_hung_host_is_fenced_whatever_the_policy_says_of_isolated_ones() {
    for policy in [Policy::default(), isolated_kept()] {
        let mut site = Site::new(policy);
        site.run(60_000);
        assert_eq!(site.fence_wanted_at(), Some(18_000));
    }
}

#[test]
fn a_management_cut_is_never_fenced() {
    let mut site = Site::new(Policy::default());
    (site.beats, site.answers) = (Some(true), Some(true));
    site.run(300_000);
    assert_eq!(site.fence_wanted_at(), None);
    assert_eq!(site.life(), Life::Unreachable);
}

#[test]
fn nothing_is_placed_on_a_host_until_anothers_intent_has_certainly_passed() {
    let mut site = Site::new(Policy::default());
    site.renews_until = u64::MAX;
    let h1 = HostName::from("h1");
    site.run(5_000);
    let placeable = |site: &Site, now| {
        let facts = &site.facts[&h1];
        let view = site.hosts.view(&h1, facts, &site.policy, Moment(now));
        view.unwrap().not_placeable
    };
    assert_eq!(placeable(&site, 5_000), None);
    if let Some(facts) = site.facts.get_mut(&h1) {
        facts.intent = Intent::Foreign {
            until: Moment(65_000),
        };
    }
    let intended = Some(crate::Reason::FenceIntended);
    assert_eq!(placeable(&site, 5_000), intended);
    assert_eq!(placeable(&site, 64_999), intended);
    assert_eq!(placeable(&site, 65_000), None);
}

#[test]
fn while_disarmed_nothing_is_forced_and_re_arming_starts_all_timers_anew() {
    let mut site = Site::new(Policy::default());
    site.disarmed_until = 70_000;
    site.run(70_000);
    assert_eq!(site.fence_wanted_at(), None);
    assert!(site.said(&crate::Reason::Disarmed));
    site.run(120_000);
    // Silent for a minute already; yet it gets its whole time again.
    let bound = 70_000 + site.policy.unreachable_after_milliseconds;
    assert_eq!(site.fence_wanted_at(), Some(bound));
}

#[test]
fn a_host_that_renews_after_the_re_arming_is_not_fenced() {
    let mut site = Site::new(Policy::default());
    site.disarmed_until = 70_000;
    site.run(74_000);
    site.renews_until = u64::MAX;
    site.run(120_000);
    assert_eq!((site.fence_wanted_at(), site.life()), (None, Life::Ready));
}

/// Simulation seed 3405: the API server was away, and the one host that was left was forced off before
/// it could renew.
#[test]
fn an_observer_that_heard_nothing_begins_its_windows_anew() {
    let mut site = Site::new(Policy::default());
    site.deaf_until = 25_000;
    site.run(25_000 + site.policy.unreachable_after_milliseconds - STEP);
    assert_eq!(site.fence_wanted_at(), None);
    site.run(60_000);
    let bound = 25_000 + site.policy.unreachable_after_milliseconds;
    assert_eq!(site.fence_wanted_at(), Some(bound));
}

#[test]
fn what_is_only_read_proves_while_disarmed() {
    let mut site = Site::new(Policy::default());
    (site.disarmed_until, site.power) = (70_000, PowerAnswer::Off);
    site.run(30_000);
    assert_eq!((site.fence_wanted_at(), site.life()), (None, Life::Fenced));
}

#[test]
fn an_observer_that_was_paused_begins_its_windows_anew() {
    for (pause, begins_anew) in [(1_500, false), (1_501, true), (60_000, true)] {
        let mut site = Site::new(Policy::default());
        site.run(17_500);
        site.now += pause - STEP;
        let now = site.now;
        let step = site.step();
        assert_eq!(step.paused_milliseconds, begins_anew.then_some(pause));
        site.now += STEP;
        site.run(now + 30_000);
        let at = site.fence_wanted_at().unwrap();
        assert_eq!(at >= now + 8_000, begins_anew, "pause {pause}: {at}");
    }
}

/// An operator caught the BMC of h1 lying and is gone. The next one has seen nothing of that, the host's last path is cut,
/// and its VMs run on.
#[test]
fn a_new_leader_does_not_believe_a_bmc_that_was_caught_lying() {
    for (lies, life) in [(false, Life::Fenced), (true, Life::Unreachable)] {
        let mut site = Site::new(Policy::default());
        site.power = PowerAnswer::Off;
        let h1 = HostName::from("h1");
        site.facts.get_mut(&h1).unwrap().bmc_told_lying = lies;
        site.blind_until = 12_000;
        site.run(60_000);
        assert_eq!(site.life(), life);
        assert_eq!(site.hosts.machine(&h1).unwrap().bmc_lies(), lies);
    }
}

/// What it has read itself ends what it was told, though the status tells it on for a while.
#[test]
fn a_bmc_that_was_caught_lying_is_believed_once_the_new_leader_has_read_on() {
    let mut site = Site::new(Policy::default());
    let h1 = HostName::from("h1");
    site.facts.get_mut(&h1).unwrap().bmc_told_lying = true;
    site.blind_until = 5_000;
    site.run(5_000);
    let lies = |site: &Site| site.hosts.machine(&h1).unwrap().bmc_lies();
    assert!(lies(&site), "it has only begun to lead");
    site.run(10_000);
    assert!(!lies(&site));
    site.facts.get_mut(&h1).unwrap().bmc_told_lying = false;
    site.power = PowerAnswer::Off;
    site.run(60_000);
    assert_eq!(site.life(), Life::Fenced);
}

/// The word was about the boot in which the BMC read Off.
#[test]
fn a_new_boot_ends_what_was_told_of_a_bmc() {
    let mut site = Site::new(Policy::default());
    let h1 = HostName::from("h1");
    site.facts.get_mut(&h1).unwrap().bmc_told_lying = true;
    (site.blind_until, site.renews_until) = (u64::MAX, u64::MAX);
    site.run(5_000);
    assert!(site.hosts.machine(&h1).unwrap().bmc_lies());
    let facts = site.facts.get_mut(&h1).unwrap();
    let identity = facts.identity.as_mut().unwrap();
    identity.boot_id = "b2".into();
    facts.lease_boot_id = Some("b2".into());
    site.run(6_000);
    assert!(!site.hosts.machine(&h1).unwrap().bmc_lies());
}
