//! In which order VMs start: by priority of their business system, then tier by tier. A
//! tier starts when its predecessors answer, or when their time-out has passed: one broken
//! tier delays the rest, it does not keep it down. Starts are staggered per host. First
//! starts and restarts go by the same rule.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, NamespacedName, Priority, VmUid};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::Moment;

/// A VM that is ready to be given a host, apart from its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The VM.
    pub vm: VmUid,
    /// Its business system; none for a VM that stands alone.
    pub system: Option<NamespacedName>,
    /// Priority of the system.
    pub priority: Priority,
    /// Its tier's restart order.
    pub order: i32,
}

/// What is known about one tier of a system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierFact {
    /// Its endpoint's probe: answers, does not, or there is none to ask.
    pub answers: Option<bool>,
    /// Every VM of it that should run runs.
    pub runs: bool,
    /// How long the next tiers wait for it, milliseconds.
    pub timeout_milliseconds: u64,
}

impl TierFact {
    fn is_up(&self) -> bool {
        self.answers.unwrap_or(self.runs)
    }
}

/// Tiers by system and restart order. Tiers of equal order are one: see [`add_tier`].
pub type Tiers = BTreeMap<(NamespacedName, i32), TierFact>;

/// Takes in what is known of a tier, or of one VM of it. What has the same system and restart order is waited for
/// together: it runs when all of it runs, answers when every endpoint that there is to ask answers, and is given up
/// after the longest of its time-outs, as whoever set that one counts on it.
pub fn add_tier(tiers: &mut Tiers, key: (NamespacedName, i32), fact: TierFact) {
    match tiers.entry(key) {
        Entry::Vacant(place) => {
            place.insert(fact);
        }
        Entry::Occupied(mut known) => {
            let known = known.get_mut();
            known.runs &= fact.runs;
            known.answers = match (known.answers, fact.answers) {
                (Some(one), Some(two)) => Some(one && two),
                (one, two) => one.or(two),
            };
            known.timeout_milliseconds = known.timeout_milliseconds.max(fact.timeout_milliseconds);
        }
    }
}

/// Remembers since when each tier has been waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryClock {
    down_since: BTreeMap<(NamespacedName, i32), Moment>,
}

/// Whose turn it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Turns {
    /// VMs that may start now, the first one first.
    pub start: Vec<VmUid>,
    /// VMs that wait, with the reason.
    pub wait: BTreeMap<VmUid, Reason>,
    /// Both, the first one first: who stands before others is given room and a slot before them, and who
    /// still waits for a tier keeps its room from those behind it.
    pub order: Vec<VmUid>,
}

impl Turns {
    /// Sorts VMs into the order in which room and slots are given: what asks for neither first, as it was listed,
    /// then who starts or waits to, in `order`.
    pub fn sort<T>(&self, vms: &mut [T], uid: impl Fn(&T) -> VmUid) {
        let places: BTreeMap<&VmUid, usize> = self.order.iter().zip(1..).collect();
        vms.sort_by_cached_key(|vm| places.get(&uid(vm)).copied().unwrap_or(0));
    }
}

impl RecoveryClock {
    /// Sorts candidates into those that may start now and those that wait.
    pub fn turns(&mut self, candidates: &[Candidate], tiers: &Tiers, now: Moment) -> Turns {
        self.follow(candidates, tiers, now);
        let mut ordered: Vec<&Candidate> = candidates.iter().collect();
        ordered.sort_by(|a, b| {
            (a.priority, a.order, &a.system, &a.vm).cmp(&(b.priority, b.order, &b.system, &b.vm))
        });
        let mut turns = Turns::default();
        for candidate in ordered {
            turns.order.push(candidate.vm.clone());
            match self.blocking_tier(candidate, tiers, now) {
                Some(order) => {
                    turns
                        .wait
                        .insert(candidate.vm.clone(), Reason::WaitsForTier { order });
                }
                None => turns.start.push(candidate.vm.clone()),
            }
        }
        turns
    }

    /// A tier's time-out runs from when nothing stood before it any more, so that a chain of
    /// broken tiers waits for each in turn, and only while somebody waits for it.
    fn follow(&mut self, candidates: &[Candidate], tiers: &Tiers, now: Moment) {
        let waiting: BTreeSet<&NamespacedName> = candidates
            .iter()
            .filter_map(|c| c.system.as_ref())
            .collect();
        self.down_since.retain(|key, _| {
            waiting.contains(&key.0) && tiers.get(key).is_some_and(|tier| !tier.is_up())
        });
        for (key, tier) in tiers {
            if !tier.is_up()
                && waiting.contains(&key.0)
                && self.blocked_below(&key.0, key.1, tiers, now).is_none()
            {
                self.down_since.entry(key.clone()).or_insert(now);
            }
        }
    }

    fn blocking_tier(&self, candidate: &Candidate, tiers: &Tiers, now: Moment) -> Option<i32> {
        self.blocked_below(candidate.system.as_ref()?, candidate.order, tiers, now)
    }

    /// The first tier below `order` that is down and whose time-out has not passed.
    fn blocked_below(
        &self,
        system: &NamespacedName,
        order: i32,
        tiers: &Tiers,
        now: Moment,
    ) -> Option<i32> {
        let below = tiers.range((system.clone(), i32::MIN)..(system.clone(), order));
        below
            .filter(|(_, tier)| !tier.is_up())
            .find(|(key, tier)| {
                self.down_since
                    .get(*key)
                    .is_none_or(|since| now.since(*since) < tier.timeout_milliseconds)
            })
            .map(|((_, order), _)| *order)
    }
}

/// Whether a host may start one more VM now.
///
/// # Errors
/// The host starts enough already.
pub fn slot(host: &HostName, starting: u32, policy: &Policy) -> Result<(), Reason> {
    if starting >= policy.starts_per_host {
        return Err(Reason::WaitsForSlot {
            host: host.clone(),
            starting,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(name: &str) -> NamespacedName {
        NamespacedName::new("oa", name)
    }

    fn candidate(vm: &str, of: &str, priority: Priority, order: i32) -> Candidate {
        Candidate {
            vm: vm.into(),
            system: Some(system(of)),
            priority,
            order,
        }
    }

    fn tier(answers: Option<bool>, runs: bool) -> TierFact {
        TierFact {
            answers,
            runs,
            timeout_milliseconds: 120_000,
        }
    }

    fn names(turns: &Turns) -> Vec<&str> {
        turns.start.iter().map(VmUid::as_str).collect()
    }

    #[test]
    fn database_before_application_before_web() {
        let mut clock = RecoveryClock::default();
        let all = [
            candidate("web", "oa", Priority::Critical, 3),
            candidate("database", "oa", Priority::Critical, 1),
            candidate("application", "oa", Priority::Critical, 2),
        ];
        let tiers = |up: i32| -> Tiers {
            (1..=3)
                .map(|order| ((system("oa"), order), tier(Some(order <= up), false)))
                .collect()
        };
        let turns = clock.turns(&all, &tiers(0), Moment(0));
        assert_eq!(names(&turns), ["database"]);
        assert_eq!(turns.wait[&"web".into()], Reason::WaitsForTier { order: 1 });
        assert_eq!(
            names(&clock.turns(&all[..1], &tiers(1), Moment(1))),
            [] as [&str; 0]
        );
        assert_eq!(
            names(&clock.turns(&[all[0].clone(), all[2].clone()], &tiers(1), Moment(2))),
            ["application"]
        );
        assert_eq!(
            names(&clock.turns(&all[..1], &tiers(2), Moment(3))),
            ["web"]
        );
    }

    #[test]
    fn a_broken_tier_delays_and_does_not_keep_down() {
        let mut clock = RecoveryClock::default();
        let web = [candidate("web", "oa", Priority::Critical, 3)];
        let tiers: Tiers = (1..=2)
            .map(|order| ((system("oa"), order), tier(Some(false), true)))
            .collect();
        assert!(names(&clock.turns(&web, &tiers, Moment(0))).is_empty());
        assert!(names(&clock.turns(&web, &tiers, Moment(119_999))).is_empty());
        assert_eq!(
            clock.turns(&web, &tiers, Moment(120_000)).wait[&"web".into()],
            Reason::WaitsForTier { order: 2 }
        );
        assert!(names(&clock.turns(&web, &tiers, Moment(120_001))).is_empty());
        assert_eq!(names(&clock.turns(&web, &tiers, Moment(240_001))), ["web"]);
    }

    #[test]
    fn tiers_of_equal_order_are_waited_for_together_and_as_long_as_the_most_patient() {
        let key = || (system("portal"), 1);
        let fact = |answers, runs, seconds: u64| TierFact {
            timeout_milliseconds: seconds * 1000,
            ..tier(answers, runs)
        };
        for (one, two, both) in [
            (
                fact(Some(true), true, 300),
                fact(None, false, 60),
                fact(Some(true), false, 300),
            ),
            (
                fact(Some(true), true, 60),
                fact(Some(false), true, 90),
                fact(Some(false), true, 90),
            ),
        ] {
            for facts in [[one.clone(), two.clone()], [two, one]] {
                let mut tiers = Tiers::new();
                for fact in facts {
                    add_tier(&mut tiers, key(), fact);
                }
                assert_eq!(tiers[&key()], both);
            }
        }
    }

    #[test]
    fn a_tier_without_a_probe_counts_by_what_runs() {
        let mut clock = RecoveryClock::default();
        let web = [candidate("web", "oa", Priority::Normal, 1)];
        let with = |runs| -> Tiers { BTreeMap::from([((system("oa"), 0), tier(None, runs))]) };
        assert!(names(&clock.turns(&web, &with(false), Moment(0))).is_empty());
        assert_eq!(names(&clock.turns(&web, &with(true), Moment(1))), ["web"]);
    }

    #[test]
    fn important_systems_first_and_single_vms_never_wait() {
        let mut clock = RecoveryClock::default();
        let single = Candidate {
            vm: "single".into(),
            system: None,
            priority: Priority::Low,
            order: 5,
        };
        let all = [
            single,
            candidate("b", "sites", Priority::High, 9),
            candidate("a", "oa", Priority::Critical, 9),
        ];
        assert_eq!(
            names(&clock.turns(&all, &Tiers::new(), Moment(0))),
            ["a", "b", "single"]
        );
    }

    #[test]
    fn room_is_given_in_order_whoever_is_listed_first() {
        let turns = Turns {
            order: ["database", "web", "tourism"].map(VmUid::from).into(),
            ..Turns::default()
        };
        let mut listed = ["runs", "tourism", "web", "halted", "database"].map(VmUid::from);
        turns.sort(&mut listed, Clone::clone);
        let sorted = listed.each_ref().map(VmUid::as_str);
        assert_eq!(sorted, ["runs", "halted", "database", "web", "tourism"]);
    }

    #[test]
    fn starts_are_staggered_per_host() {
        let policy = Policy::default();
        assert!(slot(&"h1".into(), 3, &policy).is_ok());
        assert!(slot(&"h1".into(), 4, &policy).is_err());
    }
}
