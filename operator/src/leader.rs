//! Leader election on a Lease. A leader that could not renew stops writing well before another
//! can take over; only monotonic time counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use api::names::SYSTEM_NAMESPACE;
use failover::Moment;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::clock;

/// Name of the Lease.
const NAME: &str = "zhengyun-operator";
/// How often the leader renews.
const RENEW: Duration = Duration::from_millis(1500);
/// How long a leader may write after sending its last acknowledged renewal.
const WRITES_FOR: Duration = Duration::from_secs(4);
/// How long others wait for a silent leader.
const TAKE_AFTER: Duration = Duration::from_secs(6);

/// Whether this process leads.
pub struct Leader {
    identity: String,
    /// Moment of sending the last renewal that was acknowledged; 0: none.
    renewed_at: AtomicU64,
    /// Moment of the last answer of the API server, whatever it said; 0: none.
    answered_at: AtomicU64,
    led: AtomicBool,
    /// See [`Leader::followed`], milliseconds.
    followed: AtomicU64,
    /// The highest version of the API that the Lease was read or answered with.
    highest: AtomicU64,
    went_back: AtomicBool,
}

impl Leader {
    /// A candidate.
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            renewed_at: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            led: AtomicBool::new(false),
            followed: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            went_back: AtomicBool::new(false),
        }
    }

    /// Whether this process may write, now.
    pub fn leads(&self) -> bool {
        self.leads_at(clock::now())
    }

    /// Whether the API server answered this process within the time that a leader may write for.
    pub fn hears(&self) -> bool {
        self.hears_at(clock::now())
    }

    /// When the API server answered this process last; 0: never.
    pub fn heard_at(&self) -> Moment {
        Moment(self.answered_at.load(Ordering::Acquire))
    }

    /// For how long in all other processes were seen to lead.
    pub fn followed(&self) -> Duration {
        Duration::from_millis(self.followed.load(Ordering::Acquire))
    }

    /// Another's Lease stands in this version: what passed since an earlier one was seen is its time, unless that is so
    /// long ago that nobody may have led between.
    fn follow(&self, seen: Option<&(String, Moment)>, version: &str, now: Moment) {
        let renewed = seen.filter(|(known, _)| known != version);
        let since = renewed.map(|(_, since)| passed(*since, now));
        if let Some(since) = since.filter(|since| *since <= TAKE_AFTER) {
            let milliseconds = u64::try_from(since.as_millis()).unwrap_or(0);
            self.followed.fetch_add(milliseconds, Ordering::AcqRel);
        }
    }

    fn hears_at(&self, now: Moment) -> bool {
        lately(&self.answered_at, now)
    }

    fn leads_at(&self, now: Moment) -> bool {
        lately(&self.renewed_at, now)
    }

    /// Whether the API was seen to hold less than before.
    pub fn saw_it_go_back(&self) -> bool {
        self.went_back.load(Ordering::Acquire)
    }

    /// The site was rebased: what was seen before counts no more.
    pub fn forget_versions(&self) {
        self.highest.store(0, Ordering::Release);
        self.went_back.store(false, Ordering::Release);
    }

    /// Versions of one etcd only grow.
    fn see(&self, version: Option<&str>) {
        let Some(version) = version.and_then(|version| version.parse().ok()) else {
            return;
        };
        if self.highest.fetch_max(version, Ordering::AcqRel) > version {
            self.went_back.store(true, Ordering::Release);
        }
    }

    /// Name of this process in intents and logs.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Elects until the process ends.
    pub async fn run(&self, client: Client) -> &'static str {
        let leases: Api<Lease> = Api::namespaced(client, SYSTEM_NAMESPACE);
        let mut seen = None;
        loop {
            self.elect(&leases, &mut seen, &clock::now).await;
            tokio::time::sleep(RENEW).await;
        }
    }

    /// One turn: renews, takes or leaves the Lease. `now` is a monotonic clock.
    async fn elect(
        &self,
        leases: &Api<Lease>,
        seen: &mut Option<(String, Moment)>,
        now: &(impl Fn() -> Moment + Sync),
    ) {
        let sent = now();
        let turn = self.turn(leases, seen, now).await;
        if turn.is_ok() {
            self.answered_at.store(now().0, Ordering::Release);
        }
        match turn {
            Ok(true) => self.renewed_at.store(sent.0, Ordering::Release),
            Ok(false) => self.renewed_at.store(0, Ordering::Release),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the leader's Lease could not be renewed"
            ),
        }
        let leads = self.leads_at(now());
        if self.led.swap(leads, Ordering::AcqRel) != leads {
            tracing::info!(identity = self.identity, leads, "leadership changed");
        }
    }

    async fn turn(
        &self,
        leases: &Api<Lease>,
        seen: &mut Option<(String, Moment)>,
        now: &(impl Fn() -> Moment + Sync),
    ) -> Result<bool> {
        let Some(mut lease) = leases.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held()),
            };
            let created = leases.create(&PostParams::default(), &lease).await;
            self.see(version_of(&created));
            return Ok(written(created));
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        // Seen by who does not lead too: its caches must not be of before a restore when it does.
        self.see(Some(&version));
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone());
        let mine = holder.as_deref() == Some(self.identity.as_str());
        // Asked after the answer: the holder sent what it holds before that.
        if !mine {
            let now = now();
            self.follow(seen.as_ref(), &version, now);
            if !silent(seen, &version, now) {
                return Ok(false);
            }
        }
        lease.spec = Some(self.held());
        // A replace carries the version that was read: of two candidates one wins.
        let replaced = leases.replace(NAME, &PostParams::default(), &lease).await;
        self.see(version_of(&replaced));
        Ok(written(replaced))
    }

    fn held(&self) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(TAKE_AFTER.as_secs()).ok(),
            renew_time: Some(MicroTime(jiff::Timestamp::now())),
            ..LeaseSpec::default()
        }
    }
}

/// Whether this process holds the Lease now. That another candidate was first is no news; what else kept it from
/// being written is: nobody leads while it lasts.
fn written(answer: Result<Lease, kube::Error>) -> bool {
    if let Some(error) = answer.as_ref().err().filter(|error| !lost_race(error)) {
        tracing::warn!(%error, "the leader's Lease could not be written");
    }
    answer.is_ok()
}

/// Another candidate wrote, or made, the Lease first.
fn lost_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn version_of<E>(answer: &Result<Lease, E>) -> Option<&str> {
    answer.as_ref().ok()?.metadata.resource_version.as_deref()
}

/// Whether another's Lease has not changed for so long, on this clock, that it may be taken.
fn silent(seen: &mut Option<(String, Moment)>, version: &str, now: Moment) -> bool {
    match seen {
        Some((known, since)) if known == version => passed(*since, now) > TAKE_AFTER,
        _ => {
            *seen = Some((version.to_owned(), now));
            false
        }
    }
}

/// Whether a moment that was kept, if any was, is within the time that a leader may write for.
fn lately(at: &AtomicU64, now: Moment) -> bool {
    let at = at.load(Ordering::Acquire);
    at != 0 && passed(Moment(at), now) < WRITES_FOR
}

fn passed(since: Moment, now: Moment) -> Duration {
    Duration::from_millis(now.since(since))
}

#[cfg(test)]
impl Leader {
    /// Leads from now on for a day, or not at all, without an election.
    pub(crate) fn set_leading(&self, leads: bool) {
        let renewed = if leads {
            clock::now().0 + 86_400_000
        } else {
            0
        };
        self.renewed_at.store(renewed, Ordering::Release);
    }

    /// Another process leads for so long, as this one sees it.
    pub(crate) fn sees_another_lead(&self, milliseconds: u64) {
        self.followed.fetch_add(milliseconds, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod election_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_below_an_earlier_one_is_remembered_until_a_rebase() {
        let leader = Leader::new("a".to_owned());
        for version in ["7", "7", "9"] {
            leader.see(Some(version));
        }
        leader.see(None);
        leader.see(Some("?"));
        assert!(!leader.saw_it_go_back());
        leader.see(Some("8"));
        leader.see(Some("20"));
        assert!(leader.saw_it_go_back());
        leader.forget_versions();
        leader.see(Some("3"));
        assert!(!leader.saw_it_go_back());
    }

    #[test]
    fn a_lease_is_taken_only_after_it_was_seen_unchanged_for_long() {
        let (mut seen, first) = (None, Moment(7));
        assert!(
            !silent(&mut seen, "1", first),
            "first sight starts the window"
        );
        assert!(!silent(&mut seen, "1", first.plus(6_000)));
        assert!(silent(&mut seen, "1", first.plus(6_001)));
        assert!(
            !silent(&mut seen, "2", first.plus(60_000)),
            "a change starts it anew"
        );
        assert!(!silent(&mut seen, "2", first.plus(66_000)));
        assert!(WRITES_FOR < TAKE_AFTER);
    }
}
