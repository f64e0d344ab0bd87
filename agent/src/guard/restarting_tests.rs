//! A guard that is started again goes on where the one before it stood.

use std::sync::atomic::Ordering;

use super::tests::{Server, armed, site, start_with_watchdog, until};
use super::*;

/// A guard's process ended, without a word; the API server answers as a code says from then on.
async fn ended(code: u16) -> (tempfile::TempDir, Server, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, address) = Server::start(200).await;
    drop(armed(folder.path(), &address).await);
    server.code.store(code, Ordering::SeqCst);
    (folder, server, address)
}

fn beaten_after(guard: &Guard, begin: Moment) -> bool {
    let at = guard.memory.beaten_at.get("p");
    at.is_some_and(|at| *at > begin)
}

#[tokio::test]
async fn it_beats_on_while_the_api_server_is_down() {
    let (folder, _server, address) = ended(503).await;
    let begin = clock::now().expect("a clock");
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    guard.site_due = Moment(0);
    until(&mut guard, &mut arrivals, |guard| {
        beaten_after(guard, begin) && guard.site_due > Moment(0)
    })
    .await;
    let now = clock::now().expect("a clock");
    let bound = guard.memory.bound().expect("bound as before");
    assert!(bound.pools.contains("p"));
    assert!(guard.memory.silence_milliseconds(&bound, now) < now.since(begin));
    assert!(guard.registration(now).expect("armed").armed);
}

#[tokio::test]
async fn a_pool_that_has_vanished_meanwhile_does_not_beat() {
    let (folder, _server, address) = ended(503).await;
    std::fs::remove_dir_all(folder.path().join("pool")).expect("removed");
    let begin = clock::now().expect("a clock");
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    until(&mut guard, &mut arrivals, |guard| {
        let problem = guard.beaters["p"].state().problem;
        problem.is_some_and(|problem| problem.contains("No such file"))
    })
    .await;
    assert!(!beaten_after(&guard, begin));
}

#[tokio::test]
async fn without_what_was_kept_it_says_so_and_stops_no_watchdog() {
    let (folder, server, address) = ended(200).await;
    std::fs::write(folder.path().join("run/guard-site.json"), "{").expect("write");
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    let unarmed = |guard: &Guard| guard.memory.bound().is_none();
    until(&mut guard, &mut arrivals, unarmed).await;
    assert_eq!(server.says(LEASE_GUARD_WHY), r#"{"why":"noPolicy"}"#);
    for _ in 0..3 {
        guard.turn().expect("a turn");
    }
    assert!(folder.path().join("watchdog").exists(), "it runs on");
    let site = Site {
        opted_in: false,
        ..site(folder.path())
    };
    guard.take(Ended::Site(Ok(site))).expect("taken");
    guard.turn().expect("a turn");
    assert!(!folder.path().join("watchdog").exists(), "nobody wants it");
}

#[tokio::test]
async fn the_first_renewal_registers_what_stands() {
    let (folder, server, address) = ended(200).await;
    let before = server.says(LEASE_GUARD);
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    let begin = clock::now().expect("a clock");
    let renewed = |guard: &Guard| guard.memory.renewed_at >= begin;
    until(&mut guard, &mut arrivals, renewed).await;
    assert_eq!(server.says(LEASE_GUARD), before);
    assert_eq!(server.says(LEASE_GUARD_WHY), "");
}

/// It was stopped, and its host may have opted out since.
#[tokio::test]
async fn what_was_kept_arms_nothing_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, address) = Server::start(200).await;
    let (guard, _arrivals) = armed(folder.path(), &address).await;
    guard.stop().await.expect("stopped");
    let begin = clock::now().expect("a clock");
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    until(&mut guard, &mut arrivals, |guard| {
        beaten_after(guard, begin)
    })
    .await;
    let now = clock::now().expect("a clock");
    assert_eq!(guard.registration(now), Err(NotArmed::NoPolicy));
    assert!(!folder.path().join("watchdog").exists(), "not opened");
}

#[tokio::test]
async fn a_memory_that_is_lost_feeds_no_watchdog_before_it_is_said() {
    let (folder, server, address) = ended(503).await;
    let watchdog = folder.path().join("watchdog");
    std::fs::remove_file(&watchdog).expect("a trace of feeding");
    std::fs::write(folder.path().join("run/guard.json"), "no JSON").expect("write");
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    guard
        .take(Ended::Site(Ok(site(folder.path()))))
        .expect("taken");
    let begin = clock::now().expect("a clock");
    until(&mut guard, &mut arrivals, |guard| {
        beaten_after(guard, begin)
    })
    .await;
    assert!(!watchdog.exists(), "neither opened nor fed");
    server.code.store(200, Ordering::SeqCst);
    until(&mut guard, &mut arrivals, |guard| !guard.memory.lost).await;
    assert_eq!(server.says(LEASE_GUARD_WHY), r#"{"why":"memoryLost"}"#);
    guard.turn().expect("a turn");
    assert!(watchdog.exists(), "opened and fed");
}
