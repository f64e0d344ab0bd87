//! The hypervisor in memory: several hosts share a fabric, so that migration between them
//! works. For scale and unit tests of the agent; passes the same contract as libvirt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::Hypervisor;
use crate::types::{
    Domain, DomainSpec, DomainState, DomainStats, Error, Event, Job, Migrated, MigrationTarget,
    Node, Owner, Result, StopCause,
};

/// Steps in which memory is copied.
const COPY_STEPS: u64 = 20;
/// Between a moved domain's end and the end of its move's call, as real hypervisors clear up.
const CLEARS_UP: Duration = Duration::from_millis(20);
/// Events kept for a slow receiver.
const EVENTS_MAX: usize = 4096;

/// Hosts that can migrate to one another, by name.
#[derive(Clone, Default)]
pub struct MemoryFabric {
    hosts: Arc<Mutex<BTreeMap<String, Arc<State>>>>,
}

/// How the next migration from a host ends, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationFault {
    /// Well.
    #[default]
    None,
    /// The target refuses.
    Refused,
    /// The copy stands on the target and the source runs on: the Finish reply was lost.
    FinishLost,
}

/// What a host's hypervisor does wrong, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Starting a domain does not end.
    StartHangs,
    /// Destroying a domain does not end, and the domain stays.
    DestroyHangs,
    /// Destroying a domain is refused, and the domain stays.
    DestroyFails,
    /// It answers nothing.
    Unreachable,
}

struct State {
    name: String,
    domains: Mutex<BTreeMap<Uuid, Entry>>,
    fault: Mutex<MigrationFault>,
    broken: Mutex<Fault>,
    step: Mutex<Duration>,
    /// What guests write to their memory, MiB per second; who is not named writes nothing.
    writes: Mutex<BTreeMap<Uuid, u64>>,
    events: broadcast::Sender<Event>,
}

#[derive(Clone)]
struct Entry {
    name: String,
    state: DomainState,
    owner: Option<Owner>,
    memory_kib: u64,
    arrived_paused: bool,
    /// Steps still to copy, while a job runs; `None` without a job.
    remaining: Option<u64>,
    abort: bool,
}

/// The hypervisor of one host of a fabric.
#[derive(Clone)]
pub struct MemoryHypervisor {
    fabric: MemoryFabric,
    state: Arc<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryFabric {
    /// A host; its migration URI is `memory:NAME`.
    pub fn host(&self, name: &str) -> MemoryHypervisor {
        let state = Arc::new(State {
            name: name.to_owned(),
            domains: Mutex::default(),
            fault: Mutex::default(),
            broken: Mutex::default(),
            step: Mutex::new(Duration::from_millis(1)),
            writes: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
        });
        lock(&self.hosts).insert(name.to_owned(), state.clone());
        MemoryHypervisor {
            fabric: self.clone(),
            state,
        }
    }
}

impl MemoryHypervisor {
    /// How the next migrations from this host end.
    pub fn set_migration_fault(&self, fault: MigrationFault) {
        *lock(&self.state.fault) = fault;
    }

    /// What this host does wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.state.broken) = fault;
    }

    fn reach(&self) -> Result<Fault> {
        match *lock(&self.state.broken) {
            Fault::Unreachable => Err(Error::Disconnected("as a test asked".to_owned())),
            fault => Ok(fault),
        }
    }

    /// How long each twentieth of a guest's memory takes to copy.
    pub fn set_copy_step(&self, step: Duration) {
        *lock(&self.state.step) = step;
    }

    /// How fast a guest writes to its memory from now on, MiB per second.
    pub fn set_dirty_rate(&self, uuid: Uuid, mebibytes: u64) {
        lock(&self.state.writes).insert(uuid, mebibytes);
    }

    /// The guest ends by itself, by crash or shutdown.
    pub fn end(&self, uuid: Uuid, cause: StopCause) {
        if lock(&self.state.domains).remove(&uuid).is_some() {
            self.state.send(Event::Stopped(uuid, cause));
        }
    }

    /// A domain that somebody else made.
    pub fn add_stray(&self, uuid: Uuid, name: &str) {
        let stray = Entry {
            name: name.to_owned(),
            state: DomainState::Running,
            owner: None,
            memory_kib: 1,
            arrived_paused: false,
            remaining: None,
            abort: false,
        };
        lock(&self.state.domains).insert(uuid, stray);
    }

    fn with<T>(&self, uuid: Uuid, act: impl FnOnce(&mut Entry) -> T) -> Result<T> {
        lock(&self.state.domains)
            .get_mut(&uuid)
            .map(act)
            .ok_or(Error::NotFound(uuid))
    }

    async fn copy_memory(&self, uuid: Uuid) -> Result<()> {
        let step = *lock(&self.state.step);
        self.with(uuid, |entry| {
            (entry.remaining, entry.abort) = (Some(COPY_STEPS), false)
        })?;
        for left in (0..COPY_STEPS).rev() {
            tokio::time::sleep(step).await;
            let aborted = self.with(uuid, |entry| {
                entry.remaining = Some(left);
                std::mem::take(&mut entry.abort)
            })?;
            if aborted {
                self.with(uuid, |entry| entry.remaining = None)?;
                return Err(Error::Aborted);
            }
        }
        self.with(uuid, |entry| entry.remaining = None)
    }
}

impl State {
    fn send(&self, event: Event) {
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }
}

fn entry(spec: &DomainSpec, state: DomainState) -> Entry {
    Entry {
        name: spec.name.clone(),
        state,
        owner: Some(spec.owner.clone()),
        memory_kib: spec.memory_kib,
        arrived_paused: state == DomainState::Paused,
        remaining: None,
        abort: false,
    }
}

#[async_trait]
impl Hypervisor for MemoryHypervisor {
    async fn node(&self) -> Result<Node> {
        Ok(Node {
            architecture: "x86_64".to_owned(),
            cpu_model: "Memory".to_owned(),
            // The one that emulated hosts have: pools that name it take these hosts too.
            cpu_models: vec![crate::emulation::CPU_MODEL.to_owned()],
            cpus: 64,
            memory_kib: 256 << 20,
            domain_type: "memory".to_owned(),
            versions: ("0.0.0".to_owned(), "0.0.0".to_owned()),
        })
    }

    async fn list(&self) -> Result<Vec<Domain>> {
        self.reach()?;
        let domains = lock(&self.state.domains);
        Ok(domains
            .iter()
            .map(|(uuid, entry)| Domain {
                uuid: *uuid,
                name: entry.name.clone(),
                state: entry.state,
                owner: entry.owner.clone(),
            })
            .collect())
    }

    async fn start(&self, spec: &DomainSpec) -> Result<()> {
        if self.reach()? == Fault::StartHangs {
            std::future::pending::<()>().await;
        }
        let mut domains = lock(&self.state.domains);
        if domains.contains_key(&spec.uuid) {
            return Err(Error::Exists(spec.uuid));
        }
        domains.insert(spec.uuid, entry(spec, DomainState::Running));
        self.state.send(Event::Started(spec.uuid));
        Ok(())
    }

    async fn destroy(&self, uuid: Uuid) -> Result<()> {
        match self.reach()? {
            Fault::DestroyHangs => std::future::pending::<()>().await,
            Fault::DestroyFails => {
                return Err(Error::Failed {
                    call: "destroy",
                    message: "as a test asked".to_owned(),
                });
            }
            Fault::None | Fault::StartHangs | Fault::Unreachable => {}
        }
        self.end(uuid, StopCause::Destroyed);
        Ok(())
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |_| ())?;
        self.end(uuid, StopCause::GuestShutdown);
        Ok(())
    }

    async fn resume(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |entry| {
            (entry.state, entry.arrived_paused) = (DomainState::Running, false)
        })?;
        self.state.send(Event::Resumed(uuid));
        Ok(())
    }

    async fn migrate(&self, uuid: Uuid, to: &MigrationTarget) -> Result<Migrated> {
        if self.with(uuid, |entry| {
            entry.state != DomainState::Running || entry.arrived_paused
        })? {
            return Err(Error::Refused {
                uuid,
                why: "is not running; only a running guest is migrated: resume it or shut it down"
                    .to_owned(),
            });
        }
        let unreachable = || Error::Failed {
            call: "migrate",
            message: format!("{}: no such host", to.uri),
        };
        let name = to.uri.strip_prefix("memory:").ok_or_else(unreachable)?;
        let target = lock(&self.fabric.hosts)
            .get(name)
            .cloned()
            .ok_or_else(unreachable)?;
        let fault = *lock(&self.state.fault);
        if fault == MigrationFault::Refused || lock(&target.domains).contains_key(&uuid) {
            return Err(Error::Failed {
                call: "migrate",
                message: format!("{} refused", target.name),
            });
        }
        let sent = self.with(uuid, |entry| entry.memory_kib * 1024)?;
        self.copy_memory(uuid).await?;
        lock(&target.domains).insert(uuid, entry(&to.spec, DomainState::Paused));
        target.send(Event::Started(uuid));
        if fault == MigrationFault::FinishLost {
            return Err(Error::Disconnected("the Finish reply was lost".to_owned()));
        }
        self.state.send(Event::SwitchedOver(uuid));
        self.end(uuid, StopCause::Migrated);
        tokio::time::sleep(CLEARS_UP).await;
        Ok(Migrated {
            pause_milliseconds: Some(1),
            sent_bytes: Some(sent),
        })
    }

    async fn job(&self, uuid: Uuid) -> Result<Option<Job>> {
        self.with(uuid, |entry| {
            let total_bytes = entry.memory_kib * 1024;
            entry.remaining.map(|left| Job {
                total_bytes,
                remaining_bytes: total_bytes / COPY_STEPS * left,
                iterations: 1,
            })
        })
    }

    async fn departed(&self, uuid: Uuid) -> Duration {
        let (mut events, mut since) = (self.events(), Instant::now());
        loop {
            match events.recv().await {
                Ok(Event::SwitchedOver(which)) if which == uuid => since = Instant::now(),
                Ok(Event::Stopped(which, StopCause::Migrated)) if which == uuid => {
                    return since.elapsed();
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    async fn abort_job(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |entry| entry.abort = entry.remaining.is_some())
    }

    async fn stats(&self) -> Result<Vec<DomainStats>> {
        let domains = lock(&self.state.domains);
        Ok(domains
            .iter()
            .map(|(uuid, entry)| DomainStats {
                uuid: *uuid,
                resident_kib: entry.memory_kib,
                ..DomainStats::default()
            })
            .collect())
    }

    async fn dirty_rate(&self, uuid: Uuid) -> Result<u64> {
        self.reach()?;
        if self.with(uuid, |entry| entry.state != DomainState::Running)? {
            return Err(Error::Refused {
                uuid,
                why: "is not running; only a running guest writes".to_owned(),
            });
        }
        let writes = lock(&self.state.writes);
        Ok(writes.get(&uuid).copied().unwrap_or(0))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.state.events.subscribe()
    }
}
