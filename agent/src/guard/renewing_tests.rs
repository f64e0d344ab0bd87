//! The guard and an API server that answers as a test says, over a real connection.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;

/// When a renewal that is on its way arrives: before the next word that the guard is not armed, or after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrives {
    Before,
    After,
}

/// A renewal that is on its way, and where its answer goes.
type OnItsWay = (Arrives, Bytes, oneshot::Sender<Answer>);
type Answer = (StatusCode, Json<Value>);

/// What the API server answers, and what it was asked.
#[derive(Clone, Default)]
pub(super) struct Server {
    pub code: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
    version: Arc<AtomicUsize>,
    pub lease: Arc<Mutex<Option<Value>>>,
    /// The next renewal that is armed is held up so.
    pub hold: Arc<Mutex<Option<Arrives>>>,
    on_its_way: Arc<Mutex<Option<OnItsWay>>>,
}

impl Server {
    /// Serves Leases only, on a port of its own.
    pub async fn start(code: u16) -> (Self, String) {
        let server = Self::default();
        server.code.store(code, Ordering::SeqCst);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = server.clone();
        let router = Router::new().fallback(move |method: Method, body: Bytes| {
            let shared = shared.clone();
            async move { shared.take(method, body).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, address)
    }

    /// What the Lease says of the guard.
    pub fn says(&self, annotation: &str) -> String {
        let lease = self.lease.lock().expect("the Lease").clone();
        let said = &lease.expect("a Lease")["metadata"]["annotations"][annotation];
        said.as_str().unwrap_or_default().to_owned()
    }

    pub fn holds_one_up(&self) -> bool {
        self.on_its_way.lock().expect("held up").is_some()
    }

    async fn take(&self, method: Method, body: Bytes) -> Answer {
        let armed = String::from_utf8_lossy(&body).contains(r#"\"armed\":true"#);
        let hold = match armed {
            true => self.hold.lock().expect("held up").take(),
            false => None,
        };
        if let Some(arrives) = hold {
            let (answer, answered) = oneshot::channel();
            *self.on_its_way.lock().expect("held up") = Some((arrives, body, answer));
            return answered.await.expect("it arrives");
        }
        let unarmed = method == Method::PATCH && !armed;
        let lets = |arrives| unarmed && self.next_arrives() == Some(arrives);
        if lets(Arrives::Before) {
            self.arrives();
        }
        let answer = self.answer(&method, &body);
        if lets(Arrives::After) {
            self.arrives();
        }
        answer
    }

    fn next_arrives(&self) -> Option<Arrives> {
        let held = self.on_its_way.lock().expect("held up");
        held.as_ref().map(|(arrives, ..)| *arrives)
    }

    /// What was held up is carried out, whether its sender waits or not.
    fn arrives(&self) {
        let held = self.on_its_way.lock().expect("held up").take();
        let (_, body, answer) = held.expect("one is held up");
        let _ = answer.send(self.answer(&Method::PATCH, &body));
    }

    fn answer(&self, method: &Method, body: &[u8]) -> Answer {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let code = self.code.load(Ordering::SeqCst);
        if code != 200 {
            return refusal(code);
        }
        let mut lease = self.lease.lock().expect("the Lease");
        if *method != Method::GET {
            let mut sent: Value = serde_json::from_slice(body).expect("a Lease");
            let stands = lease
                .as_ref()
                .map(|lease| &lease["metadata"]["resourceVersion"]);
            if stands.is_some_and(|stands| *stands != sent["metadata"]["resourceVersion"]) {
                return refusal(409);
            }
            let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
            sent["metadata"]["resourceVersion"] = json!(version.to_string());
            if let Some(annotations) = sent["metadata"]["annotations"].as_object_mut() {
                annotations.retain(|_, value| !value.is_null());
            }
            *lease = Some(sent);
        }
        match lease.clone() {
            Some(lease) => (StatusCode::OK, Json(lease)),
            None => refusal(404),
        }
    }
}

fn refusal(code: u16) -> Answer {
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": "no", "reason": if code == 404 { "NotFound" } else { "No" }, "code": code});
    (StatusCode::from_u16(code).expect("a code"), Json(status))
}

/// What a guard is told of.
pub(super) type Arrivals = mpsc::UnboundedReceiver<Ended>;

pub(super) async fn start(folder: &Path, address: &str) -> (Guard, Arrivals) {
    let kubeconfig = folder.join("kubeconfig");
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&kubeconfig, text.to_string()).expect("kubeconfig");
    let options = GuardOptions {
        host: "h1".to_owned(),
        kubeconfig,
        run_dir: folder.join("run"),
        watchdog: folder.join("watchdog"),
        simulated_watchdog: None,
        guest_cgroups: Vec::new(),
    };
    let (ended, arrivals) = mpsc::unbounded_channel();
    let mut guard = Guard::start(options, ended).await.expect("a guard");
    // Policy and pools are not what is asked here.
    guard.site_due = Moment(u64::MAX);
    guard.pools_are_mounts = false;
    (guard, arrivals)
}

/// A guard on a host that opted in, with a watchdog; its pool `p` is a folder.
pub(super) async fn start_with_watchdog(folder: &Path, address: &str) -> (Guard, Arrivals) {
    let (mut guard, arrivals) = start(folder, address).await;
    guard.options.simulated_watchdog = Some(folder.join("watchdog"));
    (guard, arrivals)
}

/// What the API tells such a guard.
pub(super) fn site(folder: &Path) -> Site {
    let pool = folder.join("pool");
    std::fs::create_dir_all(&pool).expect("a pool");
    Site {
        // A machine that is slow must not make a guard fire.
        policy: Some(Policy {
            contract_milliseconds: 40_000,
            watchdog_milliseconds: 5_000,
            self_fence_margin_milliseconds: 5_000,
            ..Policy::default()
        }),
        opted_in: true,
        pools: BTreeMap::from([("p".to_owned(), pool)]),
        left: BTreeMap::new(),
    }
}

/// Turns until something is so.
pub(super) async fn until(
    guard: &mut Guard,
    arrivals: &mut Arrivals,
    is_so: impl Fn(&Guard) -> bool,
) {
    let begin = std::time::Instant::now();
    loop {
        guard.turn().expect("a turn");
        while let Ok(ended) = arrivals.try_recv() {
            guard.take(ended).expect("taken");
        }
        if is_so(guard) {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "waited for too long"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same guard once it is armed.
pub(super) async fn armed(folder: &Path, address: &str) -> (Guard, Arrivals) {
    let (mut guard, mut arrivals) = start_with_watchdog(folder, address).await;
    guard.take(Ended::Site(Ok(site(folder)))).expect("taken");
    let armed = |guard: &Guard| {
        let registered = guard.memory.registered.as_ref();
        registered.is_some_and(|registered| registered.armed)
    };
    until(&mut guard, &mut arrivals, armed).await;
    assert!(folder.join("watchdog").exists(), "it runs");
    (guard, arrivals)
}

/// A turn in which a renewal is sent, to its end.
async fn renewal(guard: &mut Guard, arrivals: &mut Arrivals) {
    guard.turn().expect("a turn");
    let ended = arrivals.recv().await.expect("the renewal's end");
    guard.take(ended).expect("taken");
}

#[tokio::test]
async fn a_renewal_that_is_refused_is_one_request_and_sent_again_before_the_next_is_due() {
    for code in [429, 500, 503] {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, address) = Server::start(code).await;
        let (mut guard, mut arrivals) = start(folder.path(), &address).await;
        let begin = clock::now().expect("a clock");
        renewal(&mut guard, &mut arrivals).await;
        let requests = || server.requests.load(Ordering::SeqCst);
        assert_eq!(requests(), 1, "{code} is not tried again within the call");
        let sent = clock::now().expect("a clock");
        assert!(!guard.pace.is_due(begin), "not at once");
        assert!(
            guard.pace.is_due(sent.plus(1_000)),
            "before the interval of 2 s"
        );
        assert_eq!(guard.memory.renewed_at, Moment(0));

        server.code.store(200, Ordering::SeqCst);
        while !guard.pace.is_due(clock::now().expect("a clock")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = clock::now().expect("a clock");
        renewal(&mut guard, &mut arrivals).await;
        assert!(guard.memory.renewed_at >= before, "acknowledged");
        assert!(
            !guard.pace.is_due(before.plus(1_999)),
            "and the pace is the policy's again"
        );
        assert_eq!(requests(), 3, "the Lease is read and made");
    }
}

#[tokio::test]
async fn a_lease_carries_the_age_of_the_agents_loop_or_no_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, address) = Server::start(200).await;
    let (mut guard, mut arrivals) = start(folder.path(), &address).await;
    let run_dir = guard.options.run_dir.clone();
    let boot = BootId::new(guard.boot_id.as_str());
    let mut told = async |guard: &mut Guard| {
        guard.pace = Pace::default();
        renewal(guard, &mut arrivals).await;
        let lease = server.lease.lock().expect("the Lease").clone();
        lease.expect("a Lease")["metadata"]["annotations"][LEASE_LOOP_AGE].clone()
    };
    let never = json!(api::names::LEASE_LOOP_NEVER.to_string());
    assert_eq!(told(&mut guard).await, never);
    let begin = clock::now().expect("a clock");
    pulse::tell(&run_dir, &boot, begin).expect("tell");
    let age = told(&mut guard).await;
    let age: u64 = age
        .as_str()
        .and_then(|age| age.parse().ok())
        .expect("an age");
    assert!(age <= clock::now().expect("a clock").since(begin));
    std::fs::write(run_dir.join("loop"), "").expect("an older agent's file");
    assert_eq!(told(&mut guard).await, Value::Null);
}
