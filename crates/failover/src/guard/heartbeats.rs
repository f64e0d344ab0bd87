//! What hosts tell of each other's heartbeats, and what the operator makes of it: the signal in
//! the table of signals, and the evidence for `SelfFenced`.
//!
//! ```text
//!  operator ── asks (token) ──► Lease of the observer ──► its guard
//!  operator ◄── report {token seen at, runs} ── renewal ──┘
//! ```
//!
//! Clocks of two machines are never compared. That a run lies after the last change of the
//! host's Lease is known by cause and effect: the operator writes a token after it saw that
//! change, the observer notes on its own clock when it saw the token, and only what it saw
//! after that counts. How long it saw it is told by the observer's clock alone. So reports may
//! come as late as they like, and a pause of the operator lengthens no window.

use std::collections::BTreeMap;

use model::{BootId, HostName};
use serde::{Deserialize, Serialize};

use super::observer::{PoolWatch, Run};
use crate::policy::Policy;
use crate::signs::Sign;
use crate::time::Moment;

/// Longest report that is read, bytes: a few pools with [`super::observer::WATCHED_MAX`] hosts.
const REPORT_BYTES_MAX: usize = 16 * 1024;
/// Tokens of an observer that are remembered.
const ANCHORS_MAX: usize = 64;

/// What one observer tells with each renewal of its Lease. Times are its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatReport {
    /// The last token that it saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When it had seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_seen_at: Option<Moment>,
    /// What it saw, by pool; only pools on which it wrote its own heartbeat and read it back.
    pub pools: BTreeMap<String, BTreeMap<HostName, Run>>,
}

impl HeartbeatReport {
    /// The report of an observer about its pools.
    pub fn of<'a>(
        token: Option<(String, Moment)>,
        watches: impl IntoIterator<Item = (&'a str, &'a PoolWatch)>,
    ) -> Self {
        let (token, token_seen_at) = token.unzip();
        let pools = watches
            .into_iter()
            .filter(|(_, watch)| !watch.runs.is_empty())
            .map(|(pool, watch)| (pool.to_owned(), watch.runs.clone()))
            .collect();
        Self {
            token,
            token_seen_at,
            pools,
        }
    }

    /// Reads what stands in a Lease: none where it is absent, too long or no report.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > REPORT_BYTES_MAX {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

/// A token that an observer has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    /// When the operator had it written, on the operator's clock.
    asked_at: Moment,
    /// When the observer had seen it, on the observer's.
    seen_at: Moment,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Observer {
    boot_id: Option<BootId>,
    arrived_at: Moment,
    report: HeartbeatReport,
    anchors: Vec<Anchor>,
}

/// Evidence about one host on one pool, from one observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The observer.
    pub observer: HostName,
    /// For how long it saw the heartbeat unchanged after it had seen the token, by its clock.
    pub unchanged_milliseconds: u64,
}

/// Everything that one operator was told of heartbeats.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    observers: BTreeMap<HostName, Observer>,
    signs: BTreeMap<HostName, (u64, Sign)>,
    asked: BTreeMap<String, Moment>,
    tokens: u64,
}

impl Heartbeats {
    /// A new token, written to observers' Leases after `now`.
    pub fn token(&mut self, operator: &str, now: Moment) -> String {
        self.tokens += 1;
        let token = format!("{operator}/{}", self.tokens);
        self.asked.insert(token.clone(), now);
        // Only the youngest can still be answered by those that see it late.
        while self.asked.len() > ANCHORS_MAX {
            let oldest = self.asked.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(token, _)| token.clone()) else {
                break;
            };
            self.asked.remove(&oldest);
        }
        token
    }

    /// Takes a report that arrived with a renewal.
    pub fn take(
        &mut self,
        observer: &HostName,
        boot_id: &BootId,
        report: HeartbeatReport,
        now: Moment,
    ) {
        let known = self.observers.entry(observer.clone()).or_default();
        if known.boot_id.as_ref() != Some(boot_id) {
            // Its clock began anew.
            *known = Observer {
                boot_id: Some(boot_id.clone()),
                ..Observer::default()
            };
        }
        let asked_at = report
            .token
            .as_ref()
            .and_then(|token| self.asked.get(token));
        if let (Some(asked_at), Some(seen_at)) = (asked_at, report.token_seen_at) {
            let anchor = Anchor {
                asked_at: *asked_at,
                seen_at,
            };
            if !known.anchors.contains(&anchor) {
                known.anchors.push(anchor);
                let excess = known.anchors.len().saturating_sub(ANCHORS_MAX);
                known.anchors.drain(..excess);
            }
        }
        known.arrived_at = now;
        for (host, run) in report.pools.values().flatten() {
            if host == observer {
                continue;
            }
            let first = (
                run.beat,
                Sign {
                    changes: 1,
                    changed_at: now,
                },
            );
            let (beat, sign) = self.signs.entry(host.clone()).or_insert(first);
            // A beat only grows; a lower one is an older look of a slower observer.
            if *beat < run.beat {
                *beat = run.beat;
                *sign = Sign {
                    changes: sign.changes + 1,
                    changed_at: now,
                };
            }
        }
        known.report = report;
    }

    /// Forgets hosts that are gone.
    pub fn retain(&mut self, keep: impl Fn(&HostName) -> bool) {
        self.observers.retain(|host, _| keep(host));
        self.signs.retain(|host, _| keep(host));
    }

    /// A host's heartbeat as others see it.
    pub fn sign(&self, host: &HostName) -> Option<Sign> {
        self.signs.get(host).map(|(_, sign)| *sign)
    }

    /// Observers that look at a host now: their reports are recent and name it.
    pub fn observers(&self, host: &HostName, policy: &Policy, now: Moment) -> Vec<HostName> {
        let recent = policy.lease_interval_milliseconds + 2 * policy.grace_milliseconds;
        let looks = |(name, observer): &(&HostName, &Observer)| {
            *name != host
                && now.since(observer.arrived_at) <= recent
                && observer
                    .report
                    .pools
                    .values()
                    .any(|runs| runs.contains_key(host))
        };
        self.observers
            .iter()
            .filter(looks)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether an observer has seen a token that was written after `floor`.
    pub fn has_answered_since(&self, observer: &HostName, floor: Moment) -> bool {
        self.observers.get(observer).is_some_and(|observer| {
            observer
                .anchors
                .iter()
                .any(|anchor| anchor.asked_at >= floor)
        })
    }

    /// The longest silence of a host on a pool that any observer saw wholly after `floor`, which
    /// is a moment on the operator's clock.
    pub fn evidence(&self, host: &HostName, pool: &str, floor: Moment) -> Option<Evidence> {
        let of = |(name, observer): (&HostName, &Observer)| {
            if name == host {
                return None;
            }
            let run = observer.report.pools.get(pool)?.get(host)?;
            let anchors = observer.anchors.iter();
            let seen_at = anchors
                .filter(|anchor| anchor.asked_at >= floor)
                .map(|anchor| anchor.seen_at)
                .min()?;
            Some(Evidence {
                observer: name.clone(),
                unchanged_milliseconds: run.until.since(run.since.max(seen_at)),
            })
        };
        self.observers
            .iter()
            .filter_map(of)
            .max_by_key(|evidence| evidence.unchanged_milliseconds)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn the_sign_changes_with_a_higher_beat_only() {
        let mut heartbeats = Heartbeats::default();
        take(&mut heartbeats, "b", report(None, 7, 0, 0), 1_000);
        take(&mut heartbeats, "b", report(None, 6, 0, 0), 2_000);
        let sign = heartbeats.sign(&"h2".into()).unwrap();
        assert_eq!((sign.changes, sign.changed_at), (1, Moment(1_000)));
        take(&mut heartbeats, "b", report(None, 8, 0, 0), 3_000);
        assert_eq!(heartbeats.sign(&"h2".into()).unwrap().changes, 2);
        let policy = Policy::default();
        assert_eq!(
            heartbeats
                .observers(&"h2".into(), &policy, Moment(7_000))
                .len(),
            1
        );
        assert!(
            heartbeats
                .observers(&"h2".into(), &policy, Moment(7_001))
                .is_empty()
        );
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
}
