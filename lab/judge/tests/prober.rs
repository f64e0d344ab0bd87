//! The prober against a real server on the loopback: green while it answers, red when it is muted,
//! refuses, errs or breaks a held connection.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use judge::probe;
use judge::report::{self, Report, Window};
use judge::results::{Config, Results, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

const ANSWER: u8 = 0;
const MUTE: u8 = 1;
const ERROR: u8 = 2;
const BREAK_HELD: u8 = 3;

/// Serves until the test's runtime ends; `mode` says how.
async fn serve(mode: Arc<AtomicU8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mode = Arc::clone(&mode);
            tokio::spawn(async move {
                let mut request = vec![0u8; 1024];
                let count = stream.read(&mut request).await.unwrap_or(0);
                let held = request[..count].starts_with(b"GET /hold");
                let body = r#"{"name":"web-0","boot_count":1,"uptime_seconds":5.0,"disk":null}"#;
                let status = if mode.load(Ordering::SeqCst) == ERROR {
                    "503 Service Unavailable"
                } else {
                    "200 OK"
                };
                if held {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    while mode.load(Ordering::SeqCst) != BREAK_HELD
                        && stream.write_all(b"line\n").await.is_ok()
                    {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                } else if mode.load(Ordering::SeqCst) == MUTE {
                    // Says nothing until the prober gives up.
                    let _ = stream.read(&mut request).await;
                } else {
                    let answer = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    address
}

fn target(id: &str, address: SocketAddr) -> Target {
    Target {
        id: id.into(),
        system: "website-group".into(),
        address,
        path: "/".into(),
        host_header: Some("portal.example".into()),
        replica_of: None,
        interval_milliseconds: None,
        hold_path: None,
    }
}

fn read(file: &Path) -> Results {
    Results::read(file).unwrap_or_default()
}

/// Waits until the results fulfil `condition`, as long as a loaded machine may need.
async fn wait(file: &Path, what: &str, condition: impl Fn(&Results) -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !condition(&read(file)) {
        assert!(
            Instant::now() < limit,
            "{what}: {:?}",
            report::judge(&read(file), Window::ALL).replicas
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Long enough for any answer on a loaded machine: where answers are expected, none may be late.
const PATIENT: u64 = 60_000;
/// Short, where silence is expected.
const IMPATIENT: u64 = 400;

/// Probes `targets` while `play` runs; returns the judgement.
async fn probe_while<Play: Future<Output = ()>>(
    timeout_milliseconds: u64,
    targets: Vec<Target>,
    play: impl FnOnce(std::path::PathBuf) -> Play,
) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.jsonl");
    let config = Config {
        interval_milliseconds: 50,
        timeout_milliseconds,
        targets,
    };
    let out = std::fs::File::create(&file).unwrap();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(async move { probe::run(&config, out, stopped).await });
    play(file.clone()).await;
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    report::judge(&read(&file), Window::ALL)
}

fn good(results: &Results) -> usize {
    results.samples.iter().filter(|sample| sample.ok).count()
}

fn bad(results: &Results) -> usize {
    results.samples.iter().filter(|sample| !sample.ok).count()
}

#[tokio::test]
async fn an_answering_endpoint_is_green() {
    let address = serve(Arc::new(AtomicU8::new(ANSWER))).await;
    let report = probe_while(PATIENT, vec![target("a", address)], |file| async move {
        wait(&file, "twenty answers", |results| {
            results.samples.len() >= 20
        })
        .await;
    })
    .await;
    assert_eq!(
        report.replicas["a"].failures, 0,
        "{:?}",
        report.replicas["a"].errors
    );
    assert!(report.is_clean());
    assert!(report.guests["web-0"].answers >= 20);
}

#[tokio::test]
async fn a_muted_endpoint_is_red() {
    let mode = Arc::new(AtomicU8::new(ANSWER));
    let address = serve(Arc::clone(&mode)).await;
    let report = probe_while(IMPATIENT, vec![target("a", address)], |file| async move {
        wait(&file, "answers", |results| good(results) >= 5).await;
        mode.store(MUTE, Ordering::SeqCst);
        wait(&file, "time-outs", |results| bad(results) >= 5).await;
        mode.store(ANSWER, Ordering::SeqCst);
        let before = good(&read(&file));
        wait(&file, "answers again", |results| {
            good(results) >= before + 5
        })
        .await;
    })
    .await;
    let endpoint = &report.endpoints["a"];
    assert!(!report.is_clean() && endpoint.failures >= 5);
    assert!(
        endpoint.errors.contains_key("no answer within 400 ms"),
        "{:?}",
        endpoint.errors
    );
    assert!(endpoint.downtime.last().unwrap().ended);
}

#[tokio::test]
async fn a_refused_connection_and_an_error_status_are_red() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = closed.local_addr().unwrap();
    drop(closed);
    let failing = serve(Arc::new(AtomicU8::new(ERROR))).await;
    let report = probe_while(
        PATIENT,
        vec![target("refused", refused), target("failing", failing)],
        |file| async move {
            wait(&file, "failures", |results| bad(results) >= 6).await;
        },
    )
    .await;
    assert!(
        report.replicas["refused"]
            .errors
            .keys()
            .any(|error| error.contains("refused"))
    );
    assert!(report.replicas["failing"].errors.contains_key("status 503"));
    assert!(!report.endpoints["refused"].downtime[0].ended);
}

#[tokio::test]
async fn a_held_connection_is_watched() {
    let mode = Arc::new(AtomicU8::new(ANSWER));
    let address = serve(Arc::clone(&mode)).await;
    let held = Target {
        hold_path: Some("/hold".into()),
        ..target("a", address)
    };
    let report = probe_while(PATIENT, vec![held.clone()], |file| async move {
        wait(&file, "lines", |results| results.holds.len() >= 5).await;
    })
    .await;
    assert_eq!(
        (
            report.holds["a"].connections,
            report.holds["a"].broken.len()
        ),
        (1, 0)
    );
    let report = probe_while(PATIENT, vec![held], |file| async move {
        wait(&file, "lines", |results| results.holds.len() >= 5).await;
        mode.store(BREAK_HELD, Ordering::SeqCst);
        wait(&file, "a break", |results| {
            results.holds.iter().any(|event| event.broken.is_some())
        })
        .await;
    })
    .await;
    assert!(
        !report.is_clean() && report.holds["a"].broken[0].contains("closed"),
        "{:?}",
        report.holds["a"]
    );
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_probes_until_it_is_told_to_stop_and_its_report_ends_with_the_verdict() {
    let mode = Arc::new(AtomicU8::new(ANSWER));
    let address = serve(Arc::clone(&mode)).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (
        folder.path().join("config.json"),
        folder.path().join("results.jsonl"),
    );
    let targets = vec![target("a", address)];
    let written = Config {
        interval_milliseconds: 50,
        timeout_milliseconds: PATIENT,
        targets,
    };
    std::fs::write(&config, serde_json::to_string(&written).unwrap()).unwrap();
    let program = env!("CARGO_BIN_EXE_zy-prober");
    let mut child = Running(
        Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--out")
            .arg(&file)
            .spawn()
            .unwrap(),
    );
    wait(&file, "answers", |results| good(results) >= 5).await;
    let pid = child.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = tokio::task::spawn_blocking(move || child.0.wait().unwrap())
        .await
        .unwrap();
    assert!(ended.success(), "{ended}");
    let verdict = |file: &Path| {
        Command::new(program)
            .arg("report")
            .arg(file)
            .output()
            .unwrap()
    };
    let green = verdict(&file);
    assert_eq!(
        green.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&green.stdout)
    );
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("\"ok\":true", "\"ok\":false");
    std::fs::write(&file, text).unwrap();
    assert_eq!(verdict(&file).status.code(), Some(1));
}
