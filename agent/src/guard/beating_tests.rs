//! A guard goes on to beat on a pool by which it is bound.

use std::sync::atomic::Ordering;

use super::tests::{Server, armed, site, start_with_watchdog, until};
use super::*;

/// What the API tells when no pool carries a heartbeat any more.
fn without_pools(folder: &Path) -> Site {
    Site {
        pools: BTreeMap::new(),
        ..site(folder)
    }
}

fn beats(guard: &Guard, begin: Moment) -> bool {
    let at = guard.memory.beaten_at.get("p");
    at.is_some_and(|at| *at > begin)
}

#[tokio::test]
async fn a_pool_that_carries_no_heartbeat_any_more_is_beaten_on_until_that_is_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, address) = Server::start(200).await;
    let (mut guard, mut arrivals) = armed(folder.path(), &address).await;
    // The management network is cut in the moment when the pool's declaration has changed.
    server.code.store(503, Ordering::SeqCst);
    let begin = clock::now().expect("a clock");
    let site = without_pools(folder.path());
    guard.take(Ended::Site(Ok(site))).expect("taken");
    until(&mut guard, &mut arrivals, |guard| beats(guard, begin)).await;
    let bound = guard.memory.bound().expect("bound as before");
    assert!(bound.pools.contains("p"));
    let now = clock::now().expect("a clock");
    let registered = guard.registration(now);
    let problems = String::new();
    assert_eq!(registered, Err(NotArmed::NoHeartbeatPool { problems }));

    drop((guard, arrivals));
    let begin = clock::now().expect("a clock");
    let (mut guard, mut arrivals) = start_with_watchdog(folder.path(), &address).await;
    until(&mut guard, &mut arrivals, |guard| beats(guard, begin)).await;
    let site = without_pools(folder.path());
    guard.take(Ended::Site(Ok(site))).expect("taken");
    assert!(
        guard.beaters.contains_key("p"),
        "read again, as by the first"
    );

    server.code.store(200, Ordering::SeqCst);
    let left = |guard: &Guard| guard.beaters.is_empty() && guard.memory.bound().is_none();
    until(&mut guard, &mut arrivals, left).await;
    assert!(guard.site.left.is_empty());
    assert_eq!(guard.memory.firings, 0);
}

#[tokio::test]
async fn pools_that_were_all_replaced_are_registered_after_a_word_that_it_is_not_armed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, address) = Server::start(200).await;
    let (mut guard, mut arrivals) = armed(folder.path(), &address).await;
    let other = folder.path().join("other");
    std::fs::create_dir(&other).expect("a pool");
    let site = Site {
        pools: BTreeMap::from([("q".to_owned(), other)]),
        ..site(folder.path())
    };
    guard.take(Ended::Site(Ok(site))).expect("taken");
    let bound_by = |guard: &Guard, pool: &str| {
        let bound = guard.memory.bound();
        bound.is_some_and(|bound| bound.pools.contains(pool))
    };
    until(&mut guard, &mut arrivals, |guard| {
        assert!(
            guard
                .memory
                .bound()
                .is_none_or(|bound| !bound.pools.is_empty()),
            "bound, and no heartbeat would count"
        );
        bound_by(guard, "q")
    })
    .await;
    assert!(!bound_by(&guard, "p") && !guard.beaters.contains_key("p"));
}
