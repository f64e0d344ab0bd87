//! The hypervisor of one host behind one trait, with two implementations that pass the same
//! contract: libvirt, and an in-memory one for scale and unit tests.
//!
//! May not live here: assignments, epochs as decisions, storage, networks. Domains are
//! transient: never defined, never started by libvirt itself.

mod emulation;
pub mod libvirt;
pub mod memory;
mod types;
mod xml;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use uuid::Uuid;

pub use types::*;
pub use xml::{METADATA_NAMESPACE, owner_from_xml, render};

/// What an agent asks of the hypervisor of its host. Every call is bounded in time; a call
/// that hangs on one domain does not hold up calls about others.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// What the host can run.
    async fn node(&self) -> Result<Node>;
    /// Every active domain, ours and strays.
    async fn list(&self) -> Result<Vec<Domain>>;
    /// Starts a transient domain. An active domain of that UUID is an error.
    async fn start(&self, spec: &DomainSpec) -> Result<()>;
    /// Kills a domain; succeeds when there is none.
    async fn destroy(&self, uuid: Uuid) -> Result<()>;
    /// Asks the guest to shut itself down (ACPI).
    async fn shutdown(&self, uuid: Uuid) -> Result<()>;
    /// Lets a paused domain run.
    async fn resume(&self, uuid: Uuid) -> Result<()>;
    /// Moves a running domain; it arrives paused on the target. Success means that the source
    /// is gone and never ran after switch-over; any error says nothing about the target. [`Error::Refused`] means that
    /// nothing was begun.
    async fn migrate(&self, uuid: Uuid, to: &MigrationTarget) -> Result<Migrated>;
    /// Waited for beside [`Self::migrate`]: ends when the domain stood still for its switch-over and can never run here
    /// again, which may be seen before the move's call returns; says for how long it stood still. Says nothing about
    /// the target. Never ends where that can not be told, nor when the domain ran again.
    async fn departed(&self, _uuid: Uuid) -> Duration {
        std::future::pending().await
    }
    /// Progress of the job of a domain, if one runs.
    async fn job(&self, uuid: Uuid) -> Result<Option<Job>>;
    /// Aborts the job of a domain; succeeds when there is none.
    async fn abort_job(&self, uuid: Uuid) -> Result<()>;
    /// Counters of every active domain, by one bulk call.
    async fn stats(&self) -> Result<Vec<DomainStats>>;
    /// How fast a running domain writes to its memory, MiB per second, by a sample of its pages: writes are not tracked for
    /// it, and what a page is given within one second counts once. Takes a second or two.
    async fn dirty_rate(&self, uuid: Uuid) -> Result<u64>;
    /// What happens from now on. A receiver that lags reads the list anew.
    fn events(&self) -> broadcast::Receiver<Event>;
}
