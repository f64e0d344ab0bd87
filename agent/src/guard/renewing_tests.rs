//! The guard and an API server that answers as a test says, over a real connection.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;

/// What the API server answers, and what it was asked.
#[derive(Clone, Default)]
struct Server {
    code: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
    lease: Arc<Mutex<Option<Value>>>,
}

impl Server {
    /// Serves Leases only, on a port of its own.
    async fn start(code: u16) -> (Self, String) {
        let server = Self::default();
        server.code.store(code, Ordering::SeqCst);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = server.clone();
        let router = Router::new().fallback(move |method: Method, body: Bytes| {
            let shared = shared.clone();
            async move { shared.answer(&method, &body) }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, address)
    }

    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Json<Value>) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let code = self.code.load(Ordering::SeqCst);
        if code != 200 {
            return refusal(code);
        }
        let mut lease = self.lease.lock().expect("the Lease");
        if *method != Method::GET {
            let mut sent: Value = serde_json::from_slice(body).expect("a Lease");
            sent["metadata"]["resourceVersion"] = json!("1");
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

fn refusal(code: u16) -> (StatusCode, Json<Value>) {
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": "no", "reason": if code == 404 { "NotFound" } else { "No" }, "code": code});
    (StatusCode::from_u16(code).expect("a code"), Json(status))
}

async fn start(folder: &Path, address: &str) -> (Guard, mpsc::UnboundedReceiver<Ended>) {
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
    (guard, arrivals)
}

/// A turn in which a renewal is sent, to its end.
async fn renewal(guard: &mut Guard, arrivals: &mut mpsc::UnboundedReceiver<Ended>) {
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
