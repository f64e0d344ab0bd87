//! The election against an API server in memory, in virtual time: whatever fails and stalls, at most one
//! leads at any moment, and one does when the API is well again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Method;
use serde_json::{Value, json};
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::api_in_memory::{Answer, client, failure};
use crate::chance::Chance;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happens to a request.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Nothing is done.
    Refused,
    /// It is done, and nobody learns of it.
    AnswerLost,
    /// Another write came first.
    Overtaken,
}

/// An API server with one Lease, and the time that passes around it.
struct Site {
    milliseconds: AtomicU64,
    lease: Mutex<(Option<Value>, u64)>,
    fault: Mutex<Fault>,
    /// Requests then fail and last as it wants.
    chance: Option<Arc<Mutex<Chance>>>,
    is_well: AtomicBool,
    is_over: AtomicBool,
}

impl Site {
    fn new(chance: Option<Arc<Mutex<Chance>>>) -> Arc<Self> {
        Arc::new(Self {
            milliseconds: AtomicU64::new(1_000_000),
            lease: Mutex::default(),
            fault: Mutex::new(Fault::None),
            chance,
            is_well: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        self.milliseconds.load(Ordering::SeqCst)
    }

    fn advance(&self, milliseconds: u64) {
        self.milliseconds.fetch_add(milliseconds, Ordering::SeqCst);
    }

    fn below(&self, bound: usize) -> usize {
        let chance = self.chance.as_ref();
        chance.map_or(0, |chance| lock(chance).below(bound))
    }

    /// Lets time pass, as whoever drives the test has it.
    async fn pass(&self, milliseconds: usize) {
        let until = self.now() + u64::try_from(milliseconds).expect("a time");
        while self.now() < until && !self.is_over.load(Ordering::SeqCst) {
            yield_now().await;
        }
    }

    fn next_fault(&self) -> Fault {
        if self.chance.is_none() || self.is_well.load(Ordering::SeqCst) {
            return *lock(&self.fault);
        }
        match self.below(8) {
            0 => Fault::Refused,
            1 => Fault::AnswerLost,
            _ => Fault::None,
        }
    }

    fn next_latency(&self) -> usize {
        let longest = if !self.is_well.load(Ordering::SeqCst) && self.below(10) == 9 {
            9_000
        } else {
            50
        };
        self.below(longest)
    }

    async fn answer(self: Arc<Self>, method: Method, body: Value) -> Answer {
        let fault = self.next_fault();
        self.pass(self.next_latency()).await;
        if fault == Fault::Refused {
            return failure(503, "ServiceUnavailable");
        }
        let answer = if fault == Fault::Overtaken && method == Method::PUT {
            failure(409, "Conflict")
        } else {
            self.store(&method, body)
        };
        self.pass(self.next_latency()).await;
        if fault == Fault::AnswerLost {
            return failure(500, "InternalError");
        }
        answer
    }

    fn store(&self, method: &Method, mut body: Value) -> Answer {
        let mut guard = lock(&self.lease);
        let (lease, version) = &mut *guard;
        let without_change = match (method.as_str(), lease.as_ref()) {
            ("GET", Some(lease)) => Some((200, lease.clone())),
            ("GET", None) => Some(failure(404, "NotFound")),
            ("POST", Some(_)) => Some(failure(409, "AlreadyExists")),
            ("PUT", Some(stands))
                if stands["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] =>
            {
                Some(failure(409, "Conflict"))
            }
            _ => None,
        };
        if let Some(answer) = without_change {
            return answer;
        }
        *version += 1;
        body["metadata"]["resourceVersion"] = json!(version.to_string());
        *lease = Some(body.clone());
        (200, body)
    }
}

/// A process with a clock of its own.
struct Candidate {
    leader: Arc<Leader>,
    leases: Api<Lease>,
    seen: Option<(String, Moment)>,
    site: Arc<Site>,
    ahead: u64,
}

impl Candidate {
    fn new(site: &Arc<Site>, name: &str, ahead: u64) -> Self {
        let of_site = site.clone();
        let client = client(move |method, _, body| of_site.clone().answer(method, body));
        Self {
            leader: Arc::new(Leader::new(name.to_owned())),
            leases: Api::namespaced(client, SYSTEM_NAMESPACE),
            seen: None,
            site: site.clone(),
            ahead,
        }
    }

    async fn elect(&mut self) {
        let (site, ahead) = (self.site.clone(), self.ahead);
        let now = move || Moment(site.now() + ahead);
        self.leader.elect(&self.leases, &mut self.seen, &now).await;
    }

    fn leads(&self) -> bool {
        self.leader.leads_at(Moment(self.site.now() + self.ahead))
    }

    fn hears(&self) -> bool {
        self.leader.hears_at(Moment(self.site.now() + self.ahead))
    }
}

#[tokio::test]
async fn another_takes_over_after_silence_whatever_the_wall_clocks_say() {
    for renewed in [None, Some("1970-01-01"), Some("2100-01-01")] {
        let site = Site::new(None);
        let mut a = Candidate::new(&site, "a", 0);
        let mut b = Candidate::new(&site, "b", 77_000_000);
        a.elect().await;
        if let (Some(day), Some(lease)) = (renewed, &mut lock(&site.lease).0) {
            lease["spec"]["renewTime"] = json!(format!("{day}T00:00:00.000000Z"));
        }
        assert!(!b.hears(), "it has not asked yet");
        b.elect().await;
        assert_eq!((a.leads(), b.leads()), (true, false));
        assert!(b.hears(), "who does not lead hears the API all the same");
        let mut silence = 0;
        while !b.leads() {
            site.advance(500);
            silence += 500;
            b.elect().await;
            assert_eq!(a.leads(), silence < 4_000, "after {silence} ms");
            assert!(silence <= 7_000, "nobody took over");
        }
        assert!(silence > 6_000, "taken after {silence} ms");
        // It comes back: it does not lead, and takes nothing away.
        a.elect().await;
        b.elect().await;
        assert_eq!((a.leads(), b.leads()), (false, true));
    }
}

#[tokio::test]
async fn a_leader_whose_renewals_fail_has_its_seconds_and_no_more() {
    let site = Site::new(None);
    let mut a = Candidate::new(&site, "a", 0);
    a.elect().await;
    *lock(&site.fault) = Fault::Refused;
    for (later, leads) in [(1_500, true), (2_499, true), (1, false), (60_000, false)] {
        site.advance(later);
        a.elect().await;
        assert_eq!(a.leads(), leads, "{} ms", site.now() - 1_000_000);
        assert_eq!(a.hears(), leads, "{} ms", site.now() - 1_000_000);
    }
    *lock(&site.fault) = Fault::None;
    a.elect().await;
    assert!(a.leads(), "nobody else took it");
    // Stopped for an hour: before it has asked anybody, it does not lead.
    site.advance(3_600_000);
    assert!(!a.leads());
}

#[tokio::test]
async fn only_the_time_in_which_another_leads_counts_as_followed() {
    let site = Site::new(None);
    let (mut a, mut b) = (Candidate::new(&site, "a", 0), Candidate::new(&site, "b", 5));
    let seconds = |candidate: &Candidate| candidate.leader.followed().as_secs();
    for _ in 0..=20 {
        a.elect().await;
        b.elect().await;
        site.advance(1_500);
    }
    assert_eq!((seconds(&a), seconds(&b)), (0, 30), "a leads");
    // Nobody is answered for ten minutes; then a leads again, before b may.
    *lock(&site.fault) = Fault::Refused;
    for _ in 0..400 {
        a.elect().await;
        b.elect().await;
        site.advance(1_500);
    }
    *lock(&site.fault) = Fault::None;
    for _ in 0..=2 {
        a.elect().await;
        b.elect().await;
        site.advance(1_500);
    }
    assert_eq!(
        (seconds(&a), seconds(&b)),
        (0, 33),
        "the outage is nobody's"
    );
}

#[tokio::test]
async fn who_was_overtaken_stops_at_once() {
    let site = Site::new(None);
    let mut a = Candidate::new(&site, "a", 0);
    a.elect().await;
    assert!(a.leads());
    *lock(&site.fault) = Fault::Overtaken;
    site.advance(1_500);
    a.elect().await;
    assert!(!a.leads());
}

#[tokio::test]
async fn of_two_that_come_at_the_same_time_one_leads() {
    let site = Site::new(None);
    let mut a = Candidate::new(&site, "a", 0);
    let mut b = Candidate::new(&site, "b", 5);
    futures::join!(a.elect(), b.elect());
    assert!(a.leads() != b.leads(), "{} {}", a.leads(), b.leads());
}

/// Schedules of the test below, and how long each is troubled and then well, steps of about 100 ms.
const SCHEDULES: usize = 30;
const TROUBLED: usize = 600;
const WELL: usize = 600;

#[tokio::test]
async fn whatever_fails_and_stalls_one_leads_at_most_and_one_does_in_the_end() {
    let chance = Arc::new(Mutex::new(Chance::from_environment()));
    let mut led = 0;
    for schedule in 0..SCHEDULES {
        let site = Site::new(Some(chance.clone()));
        let candidates = [("a", 0), ("b", 3_000), ("c", 9_000_000)]
            .map(|(name, ahead)| Candidate::new(&site, name, ahead));
        let known: Vec<(Arc<Leader>, u64)> = candidates
            .iter()
            .map(|candidate| (candidate.leader.clone(), candidate.ahead))
            .collect();
        let leaders = || -> Vec<&str> {
            let leads =
                |(leader, ahead): &&(Arc<Leader>, u64)| leader.leads_at(Moment(site.now() + ahead));
            let leading = known.iter().filter(leads);
            leading.map(|(leader, _)| leader.identity()).collect()
        };
        let mut tasks = JoinSet::new();
        for mut candidate in candidates {
            tasks.spawn(async move {
                let site = candidate.site.clone();
                while !site.is_over.load(Ordering::SeqCst) {
                    candidate.elect().await;
                    // Now and then a process stands still.
                    let stalls = !site.is_well.load(Ordering::SeqCst) && site.below(12) == 11;
                    let pause = if stalls { site.below(15_000) } else { 1_500 };
                    site.pass(pause).await;
                }
            });
        }
        let mut last: Vec<String> = Vec::new();
        for step in 0..TROUBLED + WELL {
            site.is_well.store(step >= TROUBLED, Ordering::SeqCst);
            for _ in 0..8 {
                yield_now().await;
                let leading = leaders();
                assert!(
                    leading.len() < 2,
                    "schedule {schedule}, step {step}: {leading:?}"
                );
                if leading != last {
                    led += leading.len();
                    last = leading.iter().map(|name| (*name).to_owned()).collect();
                }
            }
            site.advance(50 + u64::try_from(site.below(100)).expect("a time"));
            let leading = leaders();
            assert!(
                leading.len() < 2,
                "schedule {schedule}, step {step}: {leading:?}"
            );
        }
        assert_eq!(leaders().len(), 1, "schedule {schedule}: nobody leads");
        site.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a candidate");
        }
    }
    assert!(led > 2 * SCHEDULES, "leadership changed {led} times only");
}
