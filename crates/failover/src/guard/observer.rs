//! One host's look at the heartbeats of others on one pool: whom it looks at, and how long each
//! has been unchanged. All times are this observer's CLOCK_BOOTTIME; nothing here is compared
//! with another machine's clock.
//!
//! A round is: write the own heartbeat by direct I/O, read it back, read the others'. An
//! observer that could not do the first two sees nothing that counts, and a gap of more than one
//! interval begins every window anew: what it slept through it did not see.

use std::collections::BTreeMap;

use model::HostName;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::time::Moment;

/// Hosts with a beating heart that each observer wants to see; so many observe each dead host.
pub const WATCHED: usize = 3;
/// Most hosts that one observer looks at: the walk past dead ones ends here.
pub const WATCHED_MAX: usize = 16;

/// A heartbeat seen unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The beat.
    pub beat: u64,
    /// It was there at this moment at the latest: the end of the first round that saw it.
    pub since: Moment,
    /// It was still there at this moment: the begin of the last round that saw it.
    pub until: Moment,
}

/// One round on one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The own heartbeat was written and read back.
    pub own: bool,
    /// When the round began.
    pub began: Moment,
    /// When it had ended.
    pub ended: Moment,
    /// What was read of others.
    pub seen: BTreeMap<HostName, u64>,
}

/// What one observer saw on one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolWatch {
    /// When the last round began that wrote the own heartbeat and read it back.
    pub wrote_at: Option<Moment>,
    /// Beats that stand unchanged.
    pub runs: BTreeMap<HostName, Run>,
}

impl PoolWatch {
    /// Takes one round.
    pub fn take(&mut self, round: &Round, policy: &Policy) {
        if !round.own {
            self.runs.clear();
            return;
        }
        let allowed = policy.heartbeat_interval_milliseconds + policy.grace_milliseconds;
        let before = std::mem::take(&mut self.runs);
        for (host, beat) in &round.seen {
            let known = before
                .get(host)
                .filter(|run| run.beat == *beat && round.began.since(run.until) <= allowed);
            let run = Run {
                beat: *beat,
                since: known.map_or(round.ended, |run| run.since),
                until: round.began,
            };
            self.runs.insert(host.clone(), run);
        }
        self.wrote_at = Some(round.began);
    }

    /// Whether a host's heart is seen to beat, or was not looked at for long enough to say.
    fn beats(&self, host: &HostName, policy: &Policy) -> bool {
        let silence = self
            .runs
            .get(host)
            .map_or(0, |run| run.until.since(run.since));
        silence <= 2 * policy.heartbeat_interval_milliseconds + policy.grace_milliseconds
    }

    /// Whom to look at in the next round, of all that have a slot on the pool: the next ones
    /// around the ring until [`WATCHED`] of them beat. So the nearest living hosts before a dead
    /// one watch it, however many died side by side.
    pub fn whom(&self, me: &HostName, slots: &[HostName], policy: &Policy) -> Vec<HostName> {
        let mut ring: Vec<(u64, &HostName)> =
            slots.iter().map(|host| (place(host), host)).collect();
        ring.sort();
        ring.dedup();
        let mine = (place(me), me);
        let split = ring.partition_point(|other| *other <= mine);
        let (before, after) = ring.split_at(split);
        let mut chosen = Vec::new();
        let mut beating = 0;
        for (_, host) in after.iter().chain(before) {
            if *host == me || beating == WATCHED || chosen.len() == WATCHED_MAX {
                continue;
            }
            beating += usize::from(self.beats(host, policy));
            chosen.push((*host).clone());
        }
        chosen
    }
}

/// A host's place on the ring: FNV-1a of its name, so that neighbours in a rack are none here.
fn place(host: &HostName) -> u64 {
    host.as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn round(at: u64, beat: u64) -> Round {
        Round {
            own: true,
            began: Moment(at),
            ended: Moment(at + 10),
            seen: BTreeMap::from([("h2".into(), beat)]),
        }
    }

    fn watched(rounds: &[Round]) -> PoolWatch {
        let mut watch = PoolWatch::default();
        for round in rounds {
            watch.take(round, &Policy::default());
        }
        watch
    }

    fn run(watch: &PoolWatch) -> (u64, u64) {
        let run = watch.runs[&HostName::from("h2")];
        (run.since.0, run.until.0)
    }

    #[test]
    fn a_run_counts_from_the_end_of_the_first_round_to_the_begin_of_the_last() {
        let watch = watched(&[round(1_000, 7), round(2_000, 7), round(3_000, 7)]);
        assert_eq!(run(&watch), (1_010, 3_000));
    }

    #[test]
    fn a_beat_a_gap_and_an_own_failure_begin_anew() {
        let beat = watched(&[round(1_000, 7), round(2_000, 8)]);
        assert_eq!(run(&beat), (2_010, 2_000));
        let gap = watched(&[round(1_000, 7), round(4_001, 7)]);
        assert_eq!(run(&gap), (4_011, 4_001));
        let failed = Round {
            own: false,
            ..round(2_000, 7)
        };
        let failure = watched(&[round(1_000, 7), failed.clone(), round(3_000, 7)]);
        assert_eq!(run(&failure), (3_010, 3_000));
        assert!(watched(&[round(1_000, 7), failed]).runs.is_empty());
    }

    #[test]
    fn a_host_that_was_not_read_in_a_round_is_not_seen() {
        let missed = Round {
            seen: BTreeMap::new(),
            ..round(2_000, 7)
        };
        assert_eq!(
            run(&watched(&[round(1_000, 7), missed, round(3_000, 7)])),
            (3_010, 3_000)
        );
    }

    #[test]
    fn every_host_is_watched_by_living_ones_however_many_died() {
        let policy = Policy::default();
        let hosts: Vec<HostName> = (0..40).map(|n| HostName(format!("h{n}"))).collect();
        for dead_every in [2, 3, 5] {
            let dead = |host: &HostName| {
                hosts.iter().position(|other| other == host).unwrap() % dead_every == 0
            };
            let mut watchers: BTreeMap<HostName, BTreeSet<HostName>> = BTreeMap::new();
            for me in hosts.iter().filter(|host| !dead(host)) {
                let mut watch = PoolWatch::default();
                for second in 0..60 {
                    let seen = watch
                        .whom(me, &hosts, &policy)
                        .into_iter()
                        .map(|host| (host.clone(), if dead(&host) { 0 } else { second }))
                        .collect();
                    let round = Round {
                        seen,
                        ..round(second * 1000, 0)
                    };
                    watch.take(&round, &policy);
                }
                let last = watch.whom(me, &hosts, &policy);
                assert!(last.len() <= WATCHED_MAX && !last.contains(me));
                for host in last {
                    watchers.entry(host).or_default().insert(me.clone());
                }
            }
            for host in &hosts {
                assert!(
                    watchers[host].len() >= WATCHED,
                    "{host} is watched by {:?}",
                    watchers[host]
                );
            }
        }
    }

    #[test]
    fn two_hosts_watch_each_other_and_one_watches_nobody() {
        let (watch, policy) = (PoolWatch::default(), Policy::default());
        let both = ["h1".into(), "h2".into()];
        assert_eq!(
            watch.whom(&"h1".into(), &both, &policy),
            [HostName::from("h2")]
        );
        assert_eq!(
            watch.whom(&"h2".into(), &both, &policy),
            [HostName::from("h1")]
        );
        assert!(watch.whom(&"h1".into(), &["h1".into()], &policy).is_empty());
    }
}
