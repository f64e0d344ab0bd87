//! What the dangerous commands write, and that they write nothing before the very word was typed, on
//! an API server that answers what is asked of it here and keeps what it was sent.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Context, drill, failover, host, incident, rebase};
use crate::language::Language;
use crate::options::{DrillBy, Output};

/// What was written: path and body.
type Written = Arc<Mutex<Vec<(String, Value)>>>;

/// Dangerous commands: the word that each asks for, and where its own word is written.
const COMMANDS: [(&str, &str, &str); 6] = [
    ("disarm", "disarm", "/spec/failover/disarmed"),
    ("arm", "arm", "/spec/failover/armed"),
    ("rebase", "rebase", "/spec/failover/rebase"),
    ("clear", "h1", "/spec/faultClearance"),
    ("confirm-dead", "h1", "/spec/confirmedOff"),
    ("close", "i1", "/spec/closure"),
];

async fn run(context: &Context, command: &str, reason: &str, typed: &str) -> Result<()> {
    let typed = Some(typed);
    match command {
        "disarm" => failover::disarm(context, "30m", reason, typed).await,
        "arm" => failover::arm(context, reason, typed).await,
        "rebase" => rebase::rebase(context, reason, typed, true).await,
        "clear" => host::clear(context, "h1", reason, typed).await,
        "confirm-dead" => host::confirm_dead(context, "h1", reason, typed).await,
        _ => incident::close(context, "i1", reason, None, typed).await,
    }
}

fn object(kind: &str, name: &str, spec: Value, status: Value) -> Value {
    json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec, "status": status})
}

fn a_host(state: &str) -> Value {
    let spec = json!({"pool": "p", "managementAddress": "10.0.0.1"});
    let accepted = json!({"bootId": "b1", "systemUuid": "u1"});
    object(
        "Host",
        "h1",
        spec,
        json!({"state": state, "accepted": accepted}),
    )
}

fn an_incident(name: &str, state: &str) -> Value {
    let at = "2026-01-01T00:00:00.000000Z";
    let spec = json!({"cause": "c", "causeClass": "Hardware", "title": "t", "openedAt": at});
    object("Incident", name, spec, json!({ "state": state }))
}

/// What this site's API server answers.
fn answer(method: &str, path: &str) -> Value {
    let last = path.rsplit('/').next().unwrap_or_default();
    match (method, last) {
        ("POST", "selfsubjectreviews") => {
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
                "metadata": {}, "status": {"userInfo": {"username": "li"}}})
        }
        // Seen afresh it is silent, in the list it is still Ready.
        (_, "h1") => a_host("Unreachable"),
        (_, "i1") => an_incident(last, "Recovered"),
        (_, "closed") => an_incident(last, "Closed"),
        (_, "default") => {
            let frozen = json!({"since": "2026-01-01T00:00:00Z", "cause": "c"});
            object(
                "CloudPolicy",
                "default",
                json!({}),
                json!({ "frozen": frozen }),
            )
        }
        (_, kind) => {
            let items = match kind {
                "hosts" => vec![a_host("Ready")],
                // Watched after a word: the operator has taken it.
                "incidents" => vec![an_incident("i1", "Closed")],
                _ => Vec::new(),
            };
            json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
        }
    }
}

/// Reads one request: method, path, body.
async fn request(stream: &mut TcpStream) -> Option<(String, String, Value)> {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.ok()?;
        if count == 0 {
            return None;
        }
        text.push_str(std::str::from_utf8(&bytes[..count]).ok()?);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| {
            let value = line.strip_prefix("content-length:")?;
            value.trim().parse::<usize>().ok()
        });
        if body.len() < length.unwrap_or_default() {
            continue;
        }
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        let mut words = text.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let path = target.split('?').next().unwrap_or_default();
        return Some((method, path.to_owned(), body));
    }
}

/// Answers one request on a connection, and ends it.
async fn serve(mut stream: TcpStream, written: Written) {
    let Some((method, path, body)) = request(&mut stream).await else {
        return;
    };
    if !path.ends_with("/selfsubjectreviews") && method != "GET" {
        let mut written = written.lock().expect("nobody panicked");
        written.push((path.clone(), body));
    }
    let text = answer(&method, &path).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream
        .write_all(format!("{head}{text}").as_bytes())
        .await
        .expect("an answer is sent");
}

/// A context of that API server, and what was written to it.
async fn site() -> (Context, Written) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let written = Written::default();
    let all = written.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, all.clone()));
        }
    });
    let url = format!("http://{address}").parse().expect("a URL");
    let mut config = kube::Config::new(url);
    // No authorities are needed, and none are looked for.
    config.root_cert = Some(Vec::new());
    let context = Context {
        client: kube::Client::try_from(config).expect("a client"),
        language: Language::English,
        output: Output::Table,
    };
    (context, written)
}

#[tokio::test]
async fn a_dangerous_command_writes_nothing_before_the_very_word_was_typed() {
    let (context, written) = site().await;
    for (command, word, _) in COMMANDS {
        for wrong in ["", "y", "yes", "h2", "DISARM", &format!("{word}!")] {
            let result = run(&context, command, "switch work", wrong).await;
            let error = format!("{:#}", result.expect_err(command));
            assert!(error.contains("nothing was done"), "{command}: {error}");
        }
        for empty in ["", "  "] {
            let result = run(&context, command, empty, word).await;
            let error = format!("{:#}", result.expect_err(command));
            assert!(error.starts_with("--reason: "), "{command}: {error}");
        }
        let written = written.lock().expect("nobody panicked");
        assert!(written.is_empty(), "{command}: {written:?}");
    }
}

#[tokio::test]
async fn the_right_word_writes_once_in_the_name_that_the_api_server_knows() {
    for (command, word, place) in COMMANDS {
        let (context, written) = site().await;
        let result = run(&context, command, "switch work", word).await;
        assert!(result.is_ok(), "{command}: {result:?}");
        let written = written.lock().expect("nobody panicked");
        assert_eq!(written.len(), 1, "{command}: {written:?}");
        let said = written[0].1.pointer(place).expect(command);
        assert_eq!(said["by"], "li", "{command}: {said}");
        assert_eq!(said["reason"], "switch work", "{command}: {said}");
    }
}

#[tokio::test]
async fn a_closed_incident_is_not_closed_again() {
    let (context, written) = site().await;
    let result = incident::close(&context, "closed", "found it", None, Some("closed")).await;
    let error = format!("{:#}", result.expect_err("closed already"));
    assert!(error.contains("is closed already"), "{error}");
    assert!(written.lock().expect("nobody panicked").is_empty());
}

#[tokio::test]
async fn a_drill_on_a_live_site_does_not_begin_before_the_host_was_named_again() {
    let (context, written) = site().await;
    for drill in ["management-cut", "agent-restart", "bmc-dead", "host-hang"] {
        let request = drill::Request {
            drill,
            host: "h1",
            lab: None,
            by: DrillBy::Person,
            confirm: Some("h2"),
            report: None,
        };
        let result = drill::run(&context, &request).await;
        let error = format!("{:#}", result.expect_err(drill));
        assert!(error.contains("nothing was done"), "{drill}: {error}");
    }
    let written = written.lock().expect("nobody panicked");
    assert!(written.is_empty(), "{written:?}");
}
