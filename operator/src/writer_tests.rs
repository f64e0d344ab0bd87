//! The writer against an API server in memory: what goes out, what each answer means, and that nothing goes
//! out of an operator that does not lead at the moment of sending.

use std::sync::MutexGuard;

use api::Flavor;
use axum::http::Method;
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::api_in_memory::{Answer, client, failure};

/// Method, path and body of what arrived.
type Requests = Arc<Mutex<Vec<(Method, String, Value)>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn object(name: &str, version: &str) -> Flavor {
    serde_json::from_value(json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "Flavor",
        "metadata": {"name": name, "resourceVersion": version},
        "spec": {"cpu": 1, "memory": "1Gi"}}))
    .expect("a flavor")
}

/// What the API server answers with when it has taken a write.
fn taken(version: &str) -> Answer {
    (200, json!(object("small", version)))
}

/// A writer of an operator that leads, and what it sent; everything is answered alike.
fn writer(answer: Answer) -> (Writer, Arc<Leader>, Requests) {
    let requests = Requests::default();
    let arrived = requests.clone();
    let client = client(move |method, path, body| {
        lock(&arrived).push((method, path, body));
        std::future::ready(answer.clone())
    });
    let leader = Arc::new(Leader::new("a".to_owned()));
    leader.set_leading(true);
    (Writer::new(client, leader.clone()), leader, requests)
}

const PATH: &str = "/apis/zhengyun.io/v1alpha1/flavors";

#[tokio::test]
async fn what_was_decided_from_a_version_is_written_over_that_version_only() {
    let (writer, _, requests) = writer(taken("8"));
    let (read, change) = (object("small", "7"), json!({"a": 1}));
    writer
        .swap_status(&read, change.clone())
        .await
        .expect("swapped");
    writer.status(&read, change.clone()).await.expect("merged");
    writer.spec(&read, change.clone()).await.expect("spec");
    writer
        .metadata(&read, change.clone())
        .await
        .expect("metadata");
    let requests = lock(&requests);
    let sent: Vec<(&str, &Value)> = requests
        .iter()
        .map(|(method, path, body)| {
            assert_eq!(method, Method::PATCH);
            (path.strip_prefix(PATH).expect("a flavor"), body)
        })
        .collect();
    let version = json!({"resourceVersion": "7"});
    assert_eq!(
        sent,
        [
            (
                "/small/status",
                &json!({"metadata": version, "status": change})
            ),
            ("/small/status", &json!({"status": change})),
            ("/small", &json!({"metadata": version, "spec": change})),
            (
                "/small",
                &json!({"metadata": {"resourceVersion": "7", "a": 1}})
            ),
        ]
    );
}

#[tokio::test]
async fn nothing_is_decided_again_from_a_version_that_was_written_over() {
    let (writer, ..) = writer(taken("8"));
    let (read, after) = (object("small", "7"), object("small", "8"));
    assert!(writer.settled(&read));
    writer.status(&read, json!({})).await.expect("written");
    assert!(
        !writer.settled(&read),
        "the cache still has what was written over"
    );
    assert!(writer.settled(&after));
    assert!(writer.settled(&object("large", "7")));
    writer.forget_written();
    assert!(writer.settled(&read));
    // A write that changed nothing is followed by no event: nothing may wait for one.
    writer.status(&after, json!({})).await.expect("written");
    assert!(writer.settled(&after));
}

/// Under its name another object may stand by now, or it has changed since it was found to be in the way.
#[tokio::test]
async fn what_is_deleted_is_what_was_read() {
    let (writer, _, requests) = writer(taken("8"));
    let mut read = object("small", "7");
    read.metadata.uid = Some("u".to_owned());
    writer.delete(&read).await.expect("deleted");
    let requests = lock(&requests);
    let (method, _, body) = requests.first().expect("a request");
    assert_eq!(method, Method::DELETE);
    assert_eq!(
        body["preconditions"],
        json!({"uid": "u", "resourceVersion": "7"})
    );
}

#[tokio::test]
async fn a_write_that_may_have_arrived_is_decided_anew_and_others_reckon_with_it() {
    for (answer, doubted) in [
        (failure(504, "Timeout"), true),
        (failure(408, "Timeout"), true),
        (failure(403, "Forbidden"), false),
        (failure(409, "Conflict"), false),
    ] {
        let (writer, ..) = writer(answer.clone());
        let read = object("small", "7");
        assert!(!writer.may_be_older(&read));
        let result = writer.swap_status(&read, json!({})).await;
        result.expect_err("not taken");
        assert!(writer.settled(&read), "{answer:?}");
        assert_eq!(writer.may_be_older(&read), doubted, "{answer:?}");
        assert!(!writer.may_be_older(&object("small", "8")));
    }
}

#[tokio::test]
async fn an_answer_means_what_the_next_turn_needs_to_know() {
    for (answer, means) in [
        (failure(409, "Conflict"), "Conflict"),
        (failure(404, "NotFound"), "Gone"),
        (failure(403, "Forbidden"), "Api"),
        (failure(500, "InternalError"), "Api"),
    ] {
        let (writer, ..) = writer(answer);
        let read = object("small", "7");
        let error = writer.swap_status(&read, json!({})).await.expect_err(means);
        assert!(format!("{error:?}").starts_with(means), "{error:?}");
        assert!(writer.settled(&read), "{means}: nothing was written");
    }
    let new = object("small", "");
    let (exists, ..) = writer(failure(409, "AlreadyExists"));
    exists
        .create(&new)
        .await
        .expect("it is there, as was wanted");
    let error = exists.delete(&new).await.expect_err("not deleted");
    assert!(matches!(error, WriteError::Conflict), "{error:?}");
    let (gone, ..) = writer(failure(404, "NotFound"));
    gone.delete(&new).await.expect("it is gone, as was wanted");
    let error = gone.create(&new).await.expect_err("no such namespace");
    assert!(matches!(error, WriteError::Gone), "{error:?}");
}

#[tokio::test]
async fn nothing_goes_out_of_an_operator_that_does_not_lead() {
    let (writer, leader, requests) = writer(taken("8"));
    leader.set_leading(false);
    let read = object("small", "7");
    for result in [
        writer.swap_status(&read, json!({})).await,
        writer.status(&read, json!({})).await,
        writer.metadata(&read, json!({})).await,
        writer.spec(&read, json!({})).await,
        writer.create(&read).await,
        writer.apply(&read).await,
        writer.delete(&read).await,
    ] {
        assert!(matches!(result, Err(WriteError::NotLeader)), "{result:?}");
    }
    writer.tell(&read, EventType::Normal, "Told", "x").await;
    assert!(lock(&requests).is_empty(), "{requests:?}");
    assert!(writer.settled(&read));
}

#[tokio::test]
async fn a_write_that_was_decided_while_leading_and_waits_for_a_place_is_not_sent_after() {
    const MORE: usize = 4;
    let (arrived, gate) = (Requests::default(), Arc::new(Semaphore::new(0)));
    let (log, door) = (arrived.clone(), gate.clone());
    let client = client(move |method, path, body| {
        lock(&log).push((method, path, body));
        let door = door.clone();
        async move {
            door.acquire().await.expect("a door").forget();
            taken("8")
        }
    });
    let leader = Arc::new(Leader::new("a".to_owned()));
    leader.set_leading(true);
    let writer = Arc::new(Writer::new(client, leader.clone()));
    let mut tasks = JoinSet::new();
    for number in 0..CONCURRENT + MORE {
        let writer = writer.clone();
        tasks.spawn(async move {
            let read = object(&format!("f{number}"), "7");
            writer.swap_status(&read, json!({})).await
        });
    }
    while lock(&arrived).len() < CONCURRENT {
        yield_now().await;
    }
    leader.set_leading(false);
    gate.add_permits(CONCURRENT + MORE);
    let (mut made, mut held_back) = (0, 0);
    while let Some(ended) = tasks.join_next().await {
        match ended.expect("a write") {
            Ok(()) => made += 1,
            Err(WriteError::NotLeader) => held_back += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((made, held_back), (CONCURRENT, MORE));
    assert_eq!(lock(&arrived).len(), CONCURRENT, "it went out");
}
