//! One connection to libvirt, kept up: opened on demand, dropped when dead, events registered
//! anew each time. libvirt's own event loop runs on a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use uuid::Uuid;
use virt::connect::Connect;

use super::ffi::{self, Numbers, Sink};
use crate::types::{Error, Event, Result};

/// Events kept for a slow receiver; one that lags more reads the list anew.
const EVENTS_MAX: usize = 1024;
/// Ended jobs remembered.
const JOBS_MAX: usize = 256;
/// Keepalive: interval in seconds, and misses after which the connection counts as dead.
const KEEPALIVE: (i32, u32) = (2, 3);

/// Where ended jobs come in, and those that nobody has asked for yet.
type EndedJobs = (Receiver<(Uuid, Numbers)>, BTreeMap<Uuid, Numbers>);

/// What is open, and whether what was open before was lost.
struct Slot<C> {
    open: Option<Arc<C>>,
    /// Stays until another one is open, however often that fails.
    lost: bool,
}

impl<C> Slot<C> {
    const EMPTY: Self = Self {
        open: None,
        lost: false,
    };

    /// What is open and alive, opened if need be, and whether it is the first since one was lost.
    fn get(
        &mut self,
        is_alive: impl Fn(&C) -> bool,
        open: impl FnOnce() -> Result<C>,
    ) -> Result<(Arc<C>, bool)> {
        if let Some(alive) = self.open.as_ref().filter(|open| is_alive(open)) {
            return Ok((alive.clone(), false));
        }
        self.lost |= self.open.take().is_some();
        let opened = Arc::new(open()?);
        self.open = Some(opened.clone());
        Ok((opened, std::mem::take(&mut self.lost)))
    }
}

/// A connection that heals itself.
pub struct Connection {
    uri: String,
    connect: Mutex<Slot<Connect>>,
    sink: &'static Sink,
    jobs: Mutex<EndedJobs>,
    /// Where events go.
    pub events: broadcast::Sender<Event>,
}

/// Starts libvirt's event loop, once per process.
fn event_loop() -> Result<()> {
    static STARTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|error| error.message().to_owned())?;
        std::thread::Builder::new()
            .name("libvirt-events".to_owned())
            .spawn(|| {
                loop {
                    // An error of one turn is told by the call that it belongs to.
                    let _ = virt::event::event_run_default_impl();
                }
            })
            .map_err(|error| error.to_string())?;
        // A timer keeps the loop turning when no descriptor is ready.
        virt::event::event_add_timeout(1000, |_, _| {}, std::ptr::null_mut())
            .map_err(|error| error.message().to_owned())?;
        Ok(())
    });
    started.clone().map_err(|message| Error::Failed {
        call: "event loop",
        message,
    })
}

impl Connection {
    /// A connection that is opened by the first call.
    pub fn open(uri: &str) -> Result<Arc<Self>> {
        event_loop()?;
        let (jobs, ended) = std::sync::mpsc::channel();
        let (events, _) = broadcast::channel(EVENTS_MAX);
        // Leaked on purpose: libvirt may call back until the very end of the process.
        let sink = Box::leak(Box::new(Sink {
            events: events.clone(),
            jobs,
        }));
        Ok(Arc::new(Self {
            uri: uri.to_owned(),
            connect: Mutex::new(Slot::EMPTY),
            sink,
            jobs: Mutex::new((ended, BTreeMap::new())),
            events,
        }))
    }

    /// The live connection, opened if need be. Blocks.
    pub fn get(&self) -> Result<Arc<Connect>> {
        let mut slot = self.connect.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || -> Result<Connect> {
            let disconnected =
                |error: virt::error::Error| Error::Disconnected(error.message().to_owned());
            let connect = Connect::open(Some(&self.uri)).map_err(disconnected)?;
            // A local socket without keepalive support is fine: it fails at once when the daemon goes.
            let _ = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
            ffi::register(&connect, self.sink).map_err(disconnected)?;
            Ok(connect)
        };
        let is_alive = |connect: &Connect| connect.is_alive().unwrap_or(false);
        let (connect, again) = slot.get(is_alive, open)?;
        if again {
            let _ = self.events.send(Event::Reconnected);
        }
        Ok(connect)
    }

    /// Forgets what an earlier job of this domain left.
    pub fn forget_job(&self, uuid: Uuid) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.1.remove(&uuid);
    }

    /// Numbers of the job of this domain that just ended; empty when libvirt did not say.
    pub async fn ended_job(&self, uuid: Uuid, patience: Duration) -> Numbers {
        let begin = tokio::time::Instant::now();
        loop {
            {
                let mut guard = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                let (ended, kept) = &mut *guard;
                while let Ok((uuid, numbers)) = ended.try_recv() {
                    if kept.len() >= JOBS_MAX {
                        kept.pop_first();
                    }
                    kept.insert(uuid, numbers);
                }
                if let Some(numbers) = kept.remove(&uuid) {
                    return numbers;
                }
            }
            if begin.elapsed() > patience {
                return Numbers::new();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that is restarted answers nobody for a while; who watches a domain must learn that events were lost.
    #[test]
    fn what_was_lost_is_told_once_when_it_is_open_again_however_often_that_fails() {
        let mut slot = Slot::<i32>::EMPTY;
        let refused = || Err(Error::Disconnected("refused".to_owned()));
        slot.get(|_| true, refused).expect_err("nobody answers yet");
        let (first, again) = slot.get(|_| true, || Ok(1)).expect("open");
        assert!(*first == 1 && !again, "nothing was lost");
        for _ in 0..2 {
            slot.get(|_| false, refused)
                .expect_err("the daemon is away");
        }
        let (second, again) = slot.get(|_| true, || Ok(2)).expect("open again");
        assert!(*second == 2 && again);
        let (same, again) = slot.get(|_| true, || Ok(3)).expect("alive");
        assert!(*same == 2 && !again, "told once");
        let (third, again) = slot.get(|_| *same == 3, || Ok(3)).expect("at once");
        assert!(*third == 3 && again);
    }
}
