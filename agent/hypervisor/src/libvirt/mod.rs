//! The hypervisor by libvirt. Every call runs on a blocking thread with a time-out of its own:
//! a call can not be cancelled, so one that hangs keeps its thread, and the others go on.

mod abort;
mod connection;
mod departure;
mod dirty_rate;
mod ffi;
mod list;
mod node;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use uuid::Uuid;
use virt::domain::MigrateParameters;
use virt::error::Error as VirtError;
use virt::sys;

use crate::Hypervisor;
use crate::types::{
    Domain, DomainSpec, DomainState, DomainStats, Error, Event, IoStats, Job, Migrated,
    MigrationTarget, Node, Result,
};
use crate::xml::{render, render_as, running_from_xml};
use connection::Connection;

/// Bound of calls that ask.
const ASK: Duration = Duration::from_secs(15);
/// Bound of calls that start or stop a process; a loaded machine may take long.
const ACT: Duration = Duration::from_secs(120);
/// Bound of a migration; the operator aborts far earlier, by policy.
const MIGRATE: Duration = Duration::from_secs(24 * 3600);

/// What is known of domains that move, or did.
#[derive(Default)]
struct Moves {
    /// Those whose last move was asked to be aborted.
    aborted: BTreeSet<Uuid>,
    /// Those whose QEMU tells of an earlier move that was cancelled, as the present one has not begun there.
    cancelled_before: BTreeSet<Uuid>,
    /// Those that were suspended to end an abort, and may stand still.
    suspended: BTreeSet<Uuid>,
}

/// The libvirt of this host.
pub struct LibvirtHypervisor {
    connection: Arc<Connection>,
    domain_type: Option<String>,
    /// The root of the file tree that libvirt sees.
    root: PathBuf,
    moves: Mutex<Moves>,
}

impl LibvirtHypervisor {
    /// Connects in the background and again whenever the connection is lost. `domain_type`
    /// overrides what the host's capabilities say.
    ///
    /// # Errors
    /// libvirt's event loop can not be started.
    pub fn connect(uri: &str, domain_type: Option<String>) -> Result<Self> {
        Ok(Self {
            connection: Connection::open(uri)?,
            domain_type,
            root: PathBuf::from("/"),
            moves: Mutex::default(),
        })
    }

    /// The libvirt of another file tree than this program's, with its own `/run` and `/proc`.
    pub fn at_root(self, root: PathBuf) -> Self {
        Self { root, ..self }
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job of a domain, with libvirt's word for its kind.
    async fn job_now(&self, uuid: Uuid) -> Result<Option<(i32, Job)>> {
        let (kind, numbers) = match self.on_domain("job", ASK, uuid, ffi::job_stats).await {
            // On its way out, as at the end of a migration: its job is over.
            Err(Error::Refused { .. }) => return Ok(None),
            other => other?,
        };
        let number = |name: &str| numbers.get(name).copied().unwrap_or(0);
        let job = Job {
            total_bytes: number("memory_total"),
            remaining_bytes: number("memory_remaining"),
            iterations: number("memory_iteration"),
        };
        if job.total_bytes > 0 {
            self.moves().cancelled_before.remove(&uuid);
        }
        Ok((kind != 0).then_some((kind, job)))
    }

    /// Runs a blocking call with a time-out.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        bound: Duration,
        call: impl FnOnce(&virt::connect::Connect) -> std::result::Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.clone();
        let task = tokio::task::spawn_blocking(move || {
            let connect = connection.get()?;
            call(&connect).map_err(|error| failure(name, &error))
        });
        match tokio::time::timeout(bound, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(Error::Failed {
                call: name,
                message: error.to_string(),
            }),
            Err(_) => Err(Error::TimedOut {
                call: name,
                seconds: bound.as_secs(),
            }),
        }
    }

    /// A call about one domain; `Error::NotFound` where it is not active.
    async fn on_domain<T: Send + 'static>(
        &self,
        name: &'static str,
        bound: Duration,
        uuid: Uuid,
        call: impl FnOnce(&virt::domain::Domain) -> std::result::Result<T, VirtError> + Send + 'static,
    ) -> Result<T> {
        let text = uuid.to_string();
        let result = self
            .call(name, bound, move |connect| {
                call(&connect.lookup_domain_by_uuid_string(&text)?)
            })
            .await;
        match result {
            Err(Error::NotFound(_)) => Err(Error::NotFound(uuid)),
            other => other,
        }
    }
}

/// What libvirt refuses once a move was asked of it, it may have begun all the same.
fn begun(error: Error) -> Error {
    match error {
        Error::Refused { why, .. } => Error::Failed {
            call: "migrate",
            message: why,
        },
        other => other,
    }
}

/// Sorts libvirt's errors by what the caller can do about them.
fn failure(call: &'static str, error: &VirtError) -> Error {
    match error.code().to_raw() {
        sys::VIR_ERR_NO_DOMAIN => Error::NotFound(Uuid::nil()),
        sys::VIR_ERR_OPERATION_ABORTED => Error::Aborted,
        sys::VIR_ERR_OPERATION_INVALID => Error::Refused {
            uuid: Uuid::nil(),
            why: error.message().to_owned(),
        },
        sys::VIR_ERR_RPC | sys::VIR_ERR_NO_CONNECT | sys::VIR_ERR_INVALID_CONN => {
            Error::Disconnected(error.message().to_owned())
        }
        _ => Error::Failed {
            call,
            message: error.message().to_owned(),
        },
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn node(&self) -> Result<Node> {
        let chosen = self.domain_type.clone();
        self.call("capabilities", ASK, move |connect| {
            node::read(connect, chosen)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Domain>> {
        self.call(list::CALL, ASK, list::all).await?
    }

    async fn start(&self, spec: &DomainSpec) -> Result<()> {
        let (xml, uuid) = (render(spec), spec.uuid);
        let text = uuid.to_string();
        self.call("start", ACT, move |connect| {
            // One that is only defined, by an administrator, is in nobody's way.
            let known = connect.lookup_domain_by_uuid_string(&text);
            if known.is_ok_and(|domain| domain.is_active().unwrap_or(true)) {
                return Ok(Err(Error::Exists(uuid)));
            }
            connect
                .create_domain_xml(&xml, sys::VIR_DOMAIN_NONE)
                .map(|_| Ok(()))
        })
        .await?
    }

    async fn destroy(&self, uuid: Uuid) -> Result<()> {
        match self
            .on_domain("destroy", ACT, uuid, |domain| domain.destroy())
            .await
        {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<()> {
        self.on_domain("shutdown", ASK, uuid, |domain| domain.shutdown())
            .await
    }

    async fn resume(&self, uuid: Uuid) -> Result<()> {
        self.on_domain("resume", ASK, uuid, |domain| domain.resume())
            .await
    }

    async fn migrate(&self, uuid: Uuid, to: &MigrationTarget) -> Result<Migrated> {
        let domains = self.list().await?;
        let domain = domains
            .iter()
            .find(|domain| domain.uuid == uuid)
            .ok_or(Error::NotFound(uuid))?;
        if domain.state != DomainState::Running {
            // QEMU 7.2 aborts when a guest that arrived paused is migrated again.
            return Err(Error::Refused {
                uuid,
                why: "is not running; only a running guest is migrated: resume it or shut it down"
                    .to_owned(),
            });
        }
        let mut flags = sys::VIR_MIGRATE_LIVE
            | sys::VIR_MIGRATE_PEER2PEER
            | sys::VIR_MIGRATE_PAUSED
            | sys::VIR_MIGRATE_AUTO_CONVERGE;
        if to.tls_name.is_some() {
            flags |= sys::VIR_MIGRATE_TLS;
        }
        if to.storage_is_shared {
            flags |= sys::VIR_MIGRATE_UNSAFE;
        }
        let mut parameters = MigrateParameters {
            uri: Some(to.stream_uri.clone()),
            tls_destination: to.tls_name.clone(),
            bandwidth: to.bandwidth_mebibytes,
            ..MigrateParameters::default()
        };
        let (uri, pause) = (to.uri.clone(), to.pause_milliseconds);
        let spec = to.spec.clone();
        self.connection.forget_job(uuid);
        self.moves().aborted.remove(&uuid);
        self.note_earlier_move(uuid).await?;
        let moved = self
            .on_domain("migrate", MIGRATE, uuid, move |domain| {
                let running = running_from_xml(&domain.xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE)?);
                parameters.dest_xml = Some(render_as(&spec, &running));
                // Refused before a job runs on some versions; the default then holds.
                let _ = domain.migrate_set_max_downtime(pause, 0);
                domain.migrate_to_uri3(Some(&uri), parameters, flags)
            })
            .await;
        // Whatever part of a move hears of its abort first tells its own story.
        let aborted = self.moves().aborted.remove(&uuid);
        if aborted && moved.is_err() {
            // Who aborted may be gone by now.
            self.let_run(uuid).await.map_err(begun)?;
            return Err(Error::Aborted);
        }
        moved.map_err(begun)?;
        let numbers = self
            .connection
            .ended_job(uuid, Duration::from_millis(500))
            .await;
        Ok(Migrated {
            pause_milliseconds: numbers.get("downtime").copied(),
            sent_bytes: numbers.get("memory_processed").copied(),
        })
    }

    async fn job(&self, uuid: Uuid) -> Result<Option<Job>> {
        Ok(self.job_now(uuid).await?.map(|(_, job)| job))
    }

    async fn departed(&self, uuid: Uuid) -> Duration {
        self.gone(uuid).await
    }

    async fn abort_job(&self, uuid: Uuid) -> Result<()> {
        self.abort(uuid).await
    }

    async fn stats(&self) -> Result<Vec<DomainStats>> {
        let all = self.call("stats", ASK, ffi::all_stats).await?;
        Ok(all
            .into_iter()
            .map(|(uuid, numbers, names)| domain_stats(uuid, &numbers, &names))
            .collect())
    }

    async fn dirty_rate(&self, uuid: Uuid) -> Result<u64> {
        self.sample_dirty_rate(uuid).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.connection.events.subscribe()
    }
}

fn domain_stats(
    uuid: Uuid,
    numbers: &ffi::Numbers,
    names: &std::collections::BTreeMap<String, String>,
) -> DomainStats {
    let number = |name: &str| numbers.get(name).copied().unwrap_or(0);
    let devices = |kind: &str, fields: [&str; 4]| -> Vec<IoStats> {
        (0..number(&format!("{kind}.count")))
            .map(|index| {
                let field = |name: &str| number(&format!("{kind}.{index}.{name}"));
                IoStats {
                    name: names
                        .get(&format!("{kind}.{index}.name"))
                        .cloned()
                        .unwrap_or_default(),
                    in_bytes: field(fields[0]),
                    out_bytes: field(fields[1]),
                    in_count: field(fields[2]),
                    out_count: field(fields[3]),
                }
            })
            .collect()
    };
    DomainStats {
        uuid,
        cpu_nanoseconds: number("cpu.time"),
        resident_kib: number("balloon.rss"),
        blocks: devices("block", ["rd.bytes", "wr.bytes", "rd.reqs", "wr.reqs"]),
        nics: devices("net", ["rx.bytes", "tx.bytes", "rx.pkts", "tx.pkts"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_begun_is_refused() {
        let refused = Error::Refused {
            uuid: Uuid::nil(),
            why: "domain is not running".to_owned(),
        };
        assert!(matches!(begun(refused), Error::Failed { .. }));
        assert_eq!(begun(Error::Aborted), Error::Aborted);
    }
}
