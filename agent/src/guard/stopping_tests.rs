//! A guard that is stopped leaves no word that it is armed where no watchdog runs.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::tests::{Arrives, Server, armed, until};
use super::*;

/// Waits until the server alone is left: a renewal that lived on has ended then, whatever it did.
async fn until_none_of_it_lives_on() {
    let (tasks, begin) = (tokio::runtime::Handle::current().metrics(), Instant::now());
    while tasks.num_alive_tasks() > 1 {
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(20), "something lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stops a guard while a renewal is on its way; what the Lease says in the end, and whether the watchdog runs.
async fn stopped(arrives: Arrives) -> (String, bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, address) = Server::start(200).await;
    let (mut guard, mut arrivals) = armed(folder.path(), &address).await;
    *server.hold.lock().expect("held up") = Some(arrives);
    guard.pace = Pace::default();
    until(&mut guard, &mut arrivals, |_| server.holds_one_up()).await;
    guard.stop().await.expect("stopped");
    until_none_of_it_lives_on().await;
    assert!(!server.holds_one_up(), "it has arrived");
    let runs = folder.path().join("watchdog").exists();
    (server.says(LEASE_GUARD), runs)
}

fn says_armed(said: &str) -> bool {
    let said: GuardRegistration = serde_json::from_str(said).expect("a registration");
    said.armed
}

#[tokio::test]
async fn a_renewal_under_way_does_not_arm_a_host_again_whose_watchdog_is_stopped() {
    let (said, runs) = stopped(Arrives::After).await;
    assert!(!says_armed(&said) && !runs, "{said}, watchdog: {runs}");
}

#[tokio::test]
async fn the_word_of_the_end_wins_over_a_renewal_that_arrives_before_it() {
    let (said, runs) = stopped(Arrives::Before).await;
    assert!(!says_armed(&said) && !runs, "{said}, watchdog: {runs}");
}

#[tokio::test]
async fn the_watchdog_runs_on_where_the_word_of_the_end_is_not_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, address) = Server::start(200).await;
    let (guard, _arrivals) = armed(folder.path(), &address).await;
    server.code.store(503, Ordering::SeqCst);
    guard.stop().await.expect("stopped");
    assert!(says_armed(&server.says(LEASE_GUARD)));
    assert!(folder.path().join("watchdog").exists(), "it runs on");
}
