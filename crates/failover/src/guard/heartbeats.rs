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
//! after that counts. How long it saw it is told by the observer's clock, and can not be longer
//! than the operator has waited since it wrote the token. So reports may come as late as they
//! like, and a pause of the operator lengthens no window.
//!
//! Observers may lie or be mistaken, so what each told is kept by (observer, pool, host): a beat
//! is compared only with what the same observer told of it before. Whoever sees it change proves
//! life, and nobody else's numbers undo that, neither in the signal nor against the evidence.
//! One that tells of changes which it did not see makes a dead host look alive: that costs time,
//! until other proofs or a person end it, and no data.

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
/// Beats of an observer that are remembered beyond its last report.
const TOLD_MAX: usize = 1024;

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

/// An observer that was not heard of for so long begins to look anew. Longer than any interval of renewals that a policy may set.
const AWAY_MILLISECONDS: u64 = 60_000;

/// A token that an observer has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    /// When the operator had it written, on the operator's clock.
    asked_at: Moment,
    /// When the observer had seen it, on the observer's.
    seen_at: Moment,
}

/// What one observer told of one host's heartbeat on one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    beat: u64,
    /// When it last told another beat than before, on the operator's clock.
    changed_at: Option<Moment>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Observer {
    boot_id: Option<BootId>,
    arrived_at: Moment,
    report: HeartbeatReport,
    anchors: Vec<Anchor>,
    /// By pool and host. Outlives a boot of the observer: beats are not told by its clock.
    told: BTreeMap<(String, HostName), Told>,
}

impl Observer {
    /// How long ago the last change can have been that it told of: by the operator's clock since
    /// it told so, or by its own since it first saw the new beat, whichever is longer.
    fn since_change(&self, pool: &str, host: &HostName, now: Moment) -> Option<u64> {
        let told = self.told.get(&(pool.to_owned(), host.clone()))?;
        let by_operator = now.since(told.changed_at?);
        let run = self.report.pools.get(pool).and_then(|runs| runs.get(host));
        let by_observer = run.map_or(0, |run| {
            let seen = run.until.since(run.since);
            seen.saturating_add(now.since(self.arrived_at))
        });
        Some(by_operator.max(by_observer))
    }
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
    signs: BTreeMap<HostName, Sign>,
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
        self.note_changes(observer, boot_id, &report, now);
        let known = self.observers.entry(observer.clone()).or_default();
        if known.boot_id.as_ref() != Some(boot_id) {
            // Its clock began anew.
            *known = Observer {
                boot_id: Some(boot_id.clone()),
                told: std::mem::take(&mut known.told),
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
        known.report = report;
    }

    /// Compares each beat of a report with what the same observer told of it before.
    fn note_changes(
        &mut self,
        observer: &HostName,
        boot_id: &BootId,
        report: &HeartbeatReport,
        now: Moment,
    ) {
        // What it tells now may be a beat of an hour ago that others know for long.
        let away = self.observers.get(observer).is_some_and(|known| {
            known.boot_id.as_ref() != Some(boot_id)
                || now.since(known.arrived_at) > AWAY_MILLISECONDS
        });
        for (pool, runs) in &report.pools {
            for (host, run) in runs.iter().filter(|(host, _)| *host != observer) {
                let key = (pool.clone(), host.clone());
                let before = self
                    .observers
                    .get(observer)
                    .and_then(|known| known.told.get(&key).copied());
                let changed = match before {
                    Some(before) if !away => before.beat != run.beat,
                    // An observer that begins to look has seen a change when the beat is beyond
                    // all that was told.
                    _ => self.highest_told(&key).is_some_and(|beat| beat < run.beat),
                };
                if changed || !self.signs.contains_key(host) {
                    let sign = self.signs.entry(host.clone()).or_insert(Sign {
                        changes: 0,
                        changed_at: now,
                    });
                    *sign = Sign {
                        changes: sign.changes + 1,
                        changed_at: now,
                    };
                }
                let changed_at = if changed {
                    Some(now)
                } else {
                    before.and_then(|before| before.changed_at)
                };
                let told = Told {
                    beat: run.beat,
                    changed_at,
                };
                let known = self.observers.entry(observer.clone()).or_default();
                known.told.insert(key, told);
            }
        }
        if let Some(known) = self.observers.get_mut(observer)
            && known.told.len() > TOLD_MAX
        {
            known.told.retain(|(pool, host), _| {
                let runs = report.pools.get(pool);
                runs.is_some_and(|runs| runs.contains_key(host))
            });
        }
    }

    fn highest_told(&self, key: &(String, HostName)) -> Option<u64> {
        let told = self.observers.values().filter_map(|it| it.told.get(key));
        told.map(|told| told.beat).max()
    }

    /// Forgets hosts that are gone.
    pub fn retain(&mut self, keep: impl Fn(&HostName) -> bool) {
        self.observers.retain(|host, _| keep(host));
        self.signs.retain(|host, _| keep(host));
        for observer in self.observers.values_mut() {
            observer.told.retain(|(_, host), _| keep(host));
        }
    }

    /// A host's heartbeat as others see it.
    pub fn sign(&self, host: &HostName) -> Option<Sign> {
        self.signs.get(host).copied()
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
    /// is a moment on the operator's clock. It rests on one observer's word: see
    /// [`Heartbeats::contradiction`].
    pub fn evidence(&self, host: &HostName, pool: &str, floor: Moment) -> Option<Evidence> {
        let of = |(name, observer): (&HostName, &Observer)| {
            if name == host {
                return None;
            }
            let run = observer.report.pools.get(pool)?.get(host)?;
            let young = |anchor: &&Anchor| anchor.asked_at >= floor;
            let anchors = observer.anchors.iter().filter(young);
            let seen = |anchor: &Anchor| {
                let seen = run.until.since(run.since.max(anchor.seen_at));
                seen.min(observer.arrived_at.since(anchor.asked_at))
            };
            Some(Evidence {
                observer: name.clone(),
                unchanged_milliseconds: anchors.map(seen).max()?,
            })
        };
        self.observers
            .iter()
            .filter_map(of)
            .max_by_key(|evidence| evidence.unchanged_milliseconds)
    }

    /// An observer that told of a change of a host's heartbeat on a pool which can have been less
    /// than so long ago: it contradicts whoever says that there was none for so long.
    pub fn contradiction(
        &self,
        host: &HostName,
        pool: &str,
        milliseconds: u64,
        now: Moment,
    ) -> Option<HostName> {
        let saw = |(name, observer): &(&HostName, &Observer)| {
            let since = observer.since_change(pool, host, now);
            *name != host && since.is_some_and(|since| since < milliseconds)
        };
        let found = self.observers.iter().find(saw);
        found.map(|(name, _)| name.clone())
    }
}

#[cfg(test)]
#[path = "heartbeats_tests.rs"]
mod tests;
