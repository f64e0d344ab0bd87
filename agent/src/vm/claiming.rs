//! Claims that are being written beside the data, on a thread of their own: a pool that hangs keeps the thread, for as
//! long as it hangs, and nobody else. Whoever waits may give up, and tries again; there is one thread of a VM at a time,
//! so that tries do not use up the threads that other pools need.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};

/// VMs, by uid, whose claims a thread writes.
#[derive(Clone, Debug, Default)]
pub struct Claiming(Arc<Mutex<BTreeSet<String>>>);

/// Whether somebody waits for a piece of work yet.
#[derive(Clone, Debug)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Somebody does.
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Held by who waits; dropped, it says that nobody does.
struct Waits(Wanted);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// Held by the thread.
struct Place(Claiming, String);

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.1);
    }
}

impl Claiming {
    /// Does the work on a thread of its own and waits for it. Whoever waits no more is told of to the work.
    ///
    /// # Errors
    /// What the work said; or that earlier work of this VM, which was given up, has not come back.
    pub async fn run<E>(
        &self,
        uid: &str,
        work: impl FnOnce(&Wanted) -> Result<(), E> + Send + 'static,
    ) -> Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let place = self.place(uid)?;
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let waits = Waits(wanted.clone());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&wanted)
        })
        .await??;
        drop(waits);
        Ok(())
    }

    fn place(&self, uid: &str) -> Result<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.insert(uid.to_owned()) {
            bail!(
                "spec.disks: the storage pool of one of them hangs on this host: the last try to write a claim beside its data has not come back; see status.reported.storagePools of the Host"
            );
        }
        Ok(Place(self.clone(), uid.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn work_that_hangs_is_given_up_told_of_and_not_begun_again_beside_itself() {
        let claiming = Claiming::default();
        let (come_back, hangs) = mpsc::channel::<()>();
        let (says, saw) = tokio::sync::oneshot::channel();
        let work = claiming.run("u1", move |wanted| {
            let _ = hangs.recv();
            let _ = says.send(wanted.is_wanted());
            Ok::<_, std::io::Error>(())
        });
        let given_up = tokio::time::timeout(SHORT, work).await;
        given_up.expect_err("it hangs");
        let fine = |_: &Wanted| Ok::<_, std::io::Error>(());
        let again = claiming.run("u1", fine).await.expect_err("one at a time");
        assert!(again.to_string().contains("hangs"), "{again}");
        claiming.run("u2", fine).await.expect("another VM's");
        drop(come_back);
        assert!(!saw.await.expect("it came back"), "nobody waits for it");
        // Its place is free in a moment.
        while claiming.run("u1", fine).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn work_that_is_waited_for_knows_that_and_says_what_went_wrong() {
        let claiming = Claiming::default();
        let failed = claiming.run("u1", |wanted| {
            assert!(wanted.is_wanted());
            Err(std::io::Error::other("full"))
        });
        let failed = failed.await.expect_err("it failed");
        assert!(failed.to_string().contains("full"), "{failed}");
    }
}
