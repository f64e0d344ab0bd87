//! The end of a copy: destroyed until libvirt shows no such domain; and a close that does not
//! finish within its bound, which is told, as it is a reason to fence the host.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use hypervisor::Hypervisor;
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

/// How often libvirt is asked whether a domain is gone.
const LOOK: Duration = Duration::from_millis(50);

/// How long a close may take before it counts as stuck.
pub fn patience() -> Duration {
    Duration::from_millis(failover::Policy::default().close_stuck_milliseconds)
}

/// libvirt answers, and still shows a domain that should have been gone within the bound. What
/// libvirt does not answer is no stuck close: nothing is known then.
#[derive(Debug, Error)]
#[error(
    "libvirt still shows domain {uuid} {} s after it was first told to destroy it", .waited.as_secs()
)]
pub struct CloseStuck {
    uuid: Uuid,
    waited: Duration,
}

/// A close that was not tried for so long is over: its domain went between two tries. The next close of
/// that VM is another one.
const OVER_AFTER: Duration = Duration::from_secs(60);
/// Every try gets this part of the whole bound at least: what libvirt has begun it goes on with, and a
/// request in each moment would use up those that it answers.
const PART: u32 = 6;

#[derive(Clone, Copy, Debug)]
struct Close {
    begun: Instant,
    tried: Instant,
    told: bool,
    /// A try ended past the bound, and libvirt showed the domain.
    stuck: bool,
}

/// Closes under way, from their first try on.
#[derive(Debug, Default)]
pub struct Closes(Mutex<BTreeMap<Uuid, Close>>);

impl Closes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Uuid, Close>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self, uuid: Uuid, now: Instant) -> Instant {
        let begin = Close {
            begun: now,
            tried: now,
            told: false,
            stuck: false,
        };
        let mut all = self.all();
        let close = all.entry(uuid).or_insert(begin);
        if now.duration_since(close.tried) > OVER_AFTER {
            *close = begin;
        }
        close.tried = now;
        close.begun
    }

    /// Whether it was told already that this close is stuck.
    pub fn is_told(&self, uuid: Uuid) -> bool {
        self.all().get(&uuid).is_some_and(|close| close.told)
    }

    /// Domains whose close is stuck and is still tried.
    pub fn stuck(&self) -> Vec<Uuid> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Vec<Uuid> {
        let all = self.all();
        let stuck = all
            .iter()
            .filter(|(_, close)| close.stuck && now.duration_since(close.tried) <= OVER_AFTER);
        stuck.map(|(uuid, _)| *uuid).collect()
    }

    /// A try ended so. One alone may take the whole bound: the next goes on from it.
    fn set_stuck(&self, uuid: Uuid, now: Instant) {
        if let Some(close) = self.all().get_mut(&uuid) {
            (close.stuck, close.tried) = (true, now);
        }
    }

    /// It was told.
    pub fn set_told(&self, uuid: Uuid) {
        if let Some(close) = self.all().get_mut(&uuid) {
            close.told = true;
        }
    }
}

/// Whether libvirt shows no such domain, within the time given. An answer that does not come says
/// nothing.
pub async fn wait_gone(hypervisor: &dyn Hypervisor, uuid: Uuid, patience: Duration) -> bool {
    let begin = Instant::now();
    loop {
        let listed = hypervisor.list().await;
        let gone = listed.is_ok_and(|domains| domains.iter().all(|domain| domain.uuid != uuid));
        if gone || begin.elapsed() > patience {
            return gone;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Destroys a domain until libvirt shows none.
///
/// # Errors
/// [`CloseStuck`] once the bound has passed since the first try and libvirt shows it all the same;
/// anything else is tried again.
pub async fn end(
    hypervisor: &dyn Hypervisor,
    closes: &Closes,
    uuid: Uuid,
    patience: Duration,
) -> Result<()> {
    let begun = closes.begun(uuid, Instant::now());
    let left = || {
        patience
            .saturating_sub(begun.elapsed())
            .max(patience / PART)
    };
    let destroyed = tokio::time::timeout(left(), hypervisor.destroy(uuid)).await;
    let failed = match destroyed {
        Ok(Ok(())) if wait_gone(hypervisor, uuid, left()).await => None,
        Ok(Ok(())) => Some("libvirt has destroyed it and still shows it".to_owned()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("libvirt does not end destroying it".to_owned()),
    };
    if let Some(failed) = failed {
        let domains = hypervisor.list().await?;
        if domains.iter().any(|domain| domain.uuid == uuid) {
            let waited = begun.elapsed();
            if waited >= patience {
                closes.set_stuck(uuid, Instant::now());
                return Err(CloseStuck { uuid, waited }.into());
            }
            bail!("domain {uuid}: {failed}");
        }
    }
    closes.all().remove(&uuid);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::memory::{Fault, MemoryFabric};

    const BOUND: Duration = Duration::from_millis(300);

    async fn tried(fault: Fault, patience: Duration) -> (Result<()>, Closes) {
        let uuid = Uuid::from_u128(7);
        let host = MemoryFabric::default().host("h1");
        host.add_stray(uuid, "v");
        host.set_fault(fault);
        let closes = Closes::default();
        let first = end(&host, &closes, uuid, patience).await;
        (first, closes)
    }

    #[test]
    fn a_close_that_was_not_tried_any_more_is_no_beginning_of_the_next() {
        let (closes, uuid, begin) = (Closes::default(), Uuid::from_u128(7), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(closes.begun(uuid, begin), begin);
        closes.set_told(uuid);
        assert_eq!(closes.begun(uuid, after(60)), begin);
        assert!(closes.is_told(uuid));
        assert_eq!(closes.begun(uuid, after(121)), after(121));
        assert!(!closes.is_told(uuid));
    }

    #[test]
    fn a_try_that_took_the_whole_bound_is_followed_by_the_same_close() {
        let (closes, uuid, begin) = (Closes::default(), Uuid::from_u128(7), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(closes.begun(uuid, begin), begin);
        closes.set_stuck(uuid, after(61));
        assert_eq!(closes.begun(uuid, after(62)), begin);
        assert_eq!(closes.stuck_at(after(63)), [uuid]);
    }

    #[tokio::test]
    async fn a_close_ends_when_libvirt_shows_no_domain() {
        let (ended, closes) = tried(Fault::None, BOUND).await;
        ended.expect("gone");
        assert!(closes.all().is_empty());
    }

    #[tokio::test]
    async fn a_domain_that_stays_is_stuck_after_the_bound_and_told_once() {
        let (ended, closes) = tried(Fault::DestroyHangs, BOUND).await;
        let error = ended.expect_err("it is still there");
        assert!(error.is::<CloseStuck>(), "{error:#}");
        let uuid = Uuid::from_u128(7);
        assert!(!closes.is_told(uuid));
        closes.set_told(uuid);
        assert!(closes.is_told(uuid));
        assert_eq!(closes.stuck(), [uuid]);
        let later = Instant::now() + OVER_AFTER + LOOK;
        assert!(closes.stuck_at(later).is_empty(), "nobody tries any more");
    }

    #[tokio::test]
    async fn a_libvirt_that_does_not_answer_is_no_stuck_close() {
        let (ended, closes) = tried(Fault::Unreachable, BOUND).await;
        let error = ended.expect_err("nobody knows");
        assert!(!error.is::<CloseStuck>(), "{error:#}");
        assert!(closes.stuck().is_empty());
    }

    #[tokio::test]
    async fn the_bound_runs_from_the_first_try() {
        let uuid = Uuid::from_u128(7);
        let host = MemoryFabric::default().host("h1");
        host.add_stray(uuid, "v");
        host.set_fault(Fault::DestroyFails);
        let closes = Closes::default();
        let first = end(&host, &closes, uuid, BOUND).await;
        let first = first.expect_err("refused");
        assert!(!first.is::<CloseStuck>(), "the bound has not passed");
        tokio::time::sleep(BOUND).await;
        let again = end(&host, &closes, uuid, BOUND).await;
        assert!(again.expect_err("refused").is::<CloseStuck>());
    }
}
