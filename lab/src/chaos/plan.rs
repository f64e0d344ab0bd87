//! Which faults strike when: a function of the seed. Rounds of one or two faults at random moments;
//! between rounds everything is healed and must come to rest.

use std::fmt;
use std::time::Duration;

use crate::fault::Fault;

/// Faults with how often each is drawn, of [`WEIGHTS`] together. Those that end a host's life or its
/// links are drawn more often: that is where two copies could come from.
const FAULTS: [(Fault, u64); 25] = [
    (Fault::PowerLoss, 6),
    (Fault::KernelHang, 6),
    (Fault::ManagementCut, 5),
    (Fault::BusinessCut, 2),
    (Fault::StorageHang, 3),
    (Fault::StorageCut, 3),
    (Fault::NicLink, 1),
    (Fault::MemoryErrors, 2),
    (Fault::MemoryUncorrected, 1),
    (Fault::DiskSmart, 1),
    (Fault::Psu, 1),
    (Fault::Fan, 1),
    (Fault::Temperature, 1),
    (Fault::AgentKill, 3),
    (Fault::AgentStop, 2),
    (Fault::GuardKill, 2),
    (Fault::LibvirtdKill, 2),
    (Fault::BmcDead, 2),
    (Fault::BmcSlow, 1),
    (Fault::BmcLying, 1),
    (Fault::BmcOtherHost, 1),
    (Fault::BmcOtherLogin, 1),
    (Fault::ApiDown, 2),
    (Fault::OperatorKill, 3),
    (Fault::OperatorPause, 3),
];
/// Sum of all weights above.
const WEIGHTS: u64 = 56;
/// Faults that take the place of a drawn one, one time in [`RARE_IN`]. Their chance is a source of its
/// own, so that a seed keeps the plan that it had before they were added, but for them.
const RARE: [Fault; 1] = [Fault::OperatorStop];
/// See [`RARE`].
const RARE_IN: u64 = 25;
/// Sets the source of rare faults apart from the plan's ("seldom").
const RARE_KEY: u64 = 0x7365_6c64_6f6d;
/// With armed guards, one round in so many cuts a host off from the API server and from its storage.
const CUT_OFF_IN: u64 = 5;
/// How long it is cut off, milliseconds: from less than a contract to longer than a fence waits.
const CUT_OFF: [u64; 2] = [8_000, 45_000];
/// The second way is cut within so many milliseconds of the first.
const CUT_OFF_APART: u64 = 5_000;
/// Sets the source of these rounds apart from the plan's ("guard").
const GUARD_KEY: u64 = 0x0067_7561_7264;
/// So many rounds in a thousand have two faults.
const PAIRS: u64 = 500;
/// The second fault strikes up to so many milliseconds after the first: within detection, proof,
/// restart, or after it.
const APART: u64 = 15_000;
/// A fault lasts at least so many milliseconds.
const SHORTEST: u64 = 6_000;
/// And at most so many.
const LONGEST: u64 = 30_000;

/// A small seeded source of chance (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }
}

/// One fault: where, when after the beginning of its round, for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blow {
    /// What happens.
    pub fault: Fault,
    /// At which host; none: the site's.
    pub host: Option<String>,
    /// When after the beginning of the round.
    pub after: Duration,
    /// For how long.
    pub lasts: Duration,
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault.name())?;
        if let Some(host) = &self.host {
            write!(f, " of {host}")?;
        }
        write!(
            f,
            " after {:.1} s for {:.1} s",
            self.after.as_secs_f64(),
            self.lasts.as_secs_f64()
        )
    }
}

/// The rounds of a seed, without end.
#[derive(Clone, Debug)]
pub struct Plan {
    chance: Chance,
    rare: Chance,
    /// Where guards are armed.
    guards: Option<Chance>,
    hosts: Vec<String>,
    only: Vec<Fault>,
}

impl Plan {
    /// The plan of a seed; `only` these faults, or all when empty.
    pub fn new(seed: u64, hosts: Vec<String>, only: Vec<Fault>) -> Self {
        let mut chance = Chance(seed);
        // Neighbouring seeds are unrelated after one step.
        chance.bits();
        let mut rare = Chance(seed ^ RARE_KEY);
        rare.bits();
        Self {
            chance,
            rare,
            guards: None,
            hosts,
            only,
        }
    }

    /// The same for a site whose guards are armed: some rounds give them a reason to kill.
    pub fn with_guards(mut self) -> Self {
        let mut guards = Chance(self.chance.0 ^ GUARD_KEY);
        guards.bits();
        self.guards = Some(guards);
        self
    }

    /// A host that reaches neither the API server nor its storage, now and then.
    fn cut_off(&mut self) -> Option<Vec<Blow>> {
        let chance = self.guards.as_mut()?;
        if chance.below(CUT_OFF_IN) != 0 {
            return None;
        }
        let host = self.hosts[chance.below(self.hosts.len() as u64) as usize].clone();
        let storage = if chance.below(2) == 0 {
            Fault::StorageCut
        } else {
            Fault::StorageHang
        };
        let [shortest, longest] = CUT_OFF;
        let ends = CUT_OFF_APART + chance.between(shortest, longest);
        let blows = [Fault::ManagementCut, storage].map(|fault| {
            let after = chance.below(CUT_OFF_APART);
            Blow {
                fault,
                host: Some(host.clone()),
                after: Duration::from_millis(after),
                lasts: Duration::from_millis(ends - after),
            }
        });
        Some(blows.into())
    }

    fn fault(&mut self) -> Fault {
        if !self.only.is_empty() {
            let index = self.chance.below(self.only.len() as u64);
            return self.only[index as usize];
        }
        let mut drawn = self.chance.below(WEIGHTS);
        if self.rare.below(RARE_IN) == 0 {
            return RARE[self.rare.below(RARE.len() as u64) as usize];
        }
        for (fault, weight) in FAULTS {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return fault,
            }
        }
        Fault::PowerLoss
    }

    fn blow(&mut self, after: u64) -> Blow {
        let fault = self.fault();
        let index = self.chance.below(self.hosts.len() as u64) as usize;
        Blow {
            fault,
            host: (!fault.is_of_site()).then(|| self.hosts[index].clone()),
            after: Duration::from_millis(after),
            lasts: Duration::from_millis(self.chance.between(SHORTEST, LONGEST)),
        }
    }
}

impl Iterator for Plan {
    type Item = Vec<Blow>;

    fn next(&mut self) -> Option<Vec<Blow>> {
        let first = self.chance.below(2_000);
        let mut blows = vec![self.blow(first)];
        if self.chance.below(1000) < PAIRS {
            let second = first + self.chance.below(APART);
            let blow = self.blow(second);
            // The same fault twice at one place would be one.
            if (blow.fault, &blow.host) != (blows[0].fault, &blows[0].host) {
                blows.push(blow);
            }
        }
        Some(self.cut_off().unwrap_or(blows))
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, vec!["h1".into(), "h2".into()], Vec::new())
    }

    #[test]
    fn a_seed_is_a_plan() {
        let rounds = |seed| plan(seed).take(20).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn every_fault_is_drawn_alone_and_in_pairs_and_stays_in_bounds() {
        assert_eq!(
            FAULTS.iter().map(|(_, weight)| weight).sum::<u64>(),
            WEIGHTS
        );
        let rounds: Vec<_> = plan(1).take(2_000).collect();
        let drawn = FAULTS.into_iter().map(|(fault, _)| fault).chain(RARE);
        for fault in drawn {
            for length in [1, 2] {
                let drawn = rounds
                    .iter()
                    .any(|round| round.len() == length && round.iter().any(|b| b.fault == fault));
                assert!(drawn, "{fault:?} in a round of {length}");
            }
        }
        for blow in rounds.iter().flatten() {
            assert_eq!(blow.host.is_none(), blow.fault.is_of_site());
            assert!(blow.lasts >= Duration::from_millis(SHORTEST));
        }
    }

    #[test]
    fn every_fault_of_the_lab_is_in_a_plan() {
        let often = FAULTS.iter().map(|(fault, _)| *fault).chain(RARE);
        let mut named: Vec<Fault> = often.collect();
        named.sort();
        assert_eq!(named, Fault::value_variants());
    }

    #[test]
    fn a_rare_fault_moves_no_other_of_a_plan() {
        let rare = |blow: &Blow| RARE.contains(&blow.fault);
        let mut without = plan(1);
        without.rare = Chance(0);
        let rounds: Vec<_> = plan(1).zip(without).take(300).collect();
        let same = |(one, other): &&(Blow, Blow)| {
            (one.after, one.lasts) == (other.after, other.lasts)
                && (one.fault == other.fault || rare(one) || rare(other))
        };
        let blows: Vec<(Blow, Blow)> = rounds
            .into_iter()
            .filter(|(one, other)| one.len() == other.len())
            .flat_map(|(one, other)| one.into_iter().zip(other))
            .collect();
        assert!(blows.iter().any(|(one, _)| rare(one)));
        assert_eq!(blows.iter().filter(same).count(), blows.len());
    }

    #[test]
    fn armed_guards_get_rounds_of_their_own_and_move_no_other() {
        let both = plan(4).zip(plan(4).with_guards()).take(200);
        let own: Vec<Vec<Blow>> = both
            .filter(|(without, with)| without != with)
            .map(|(_, with)| with)
            .collect();
        assert!((20..60).contains(&own.len()), "{} of 200", own.len());
        for round in own {
            let [management, storage] = &round[..] else {
                panic!("{round:?}");
            };
            assert_eq!(management.fault, Fault::ManagementCut);
            assert!(matches!(
                storage.fault,
                Fault::StorageCut | Fault::StorageHang
            ));
            assert_eq!(management.host, storage.host);
        }
    }

    #[test]
    fn a_choice_of_faults_is_kept_to() {
        let only = vec![Fault::PowerLoss, Fault::ApiDown];
        let plan = Plan::new(3, vec!["h1".into()], only.clone());
        assert!(plan.take(50).flatten().all(|b| only.contains(&b.fault)));
    }
}
