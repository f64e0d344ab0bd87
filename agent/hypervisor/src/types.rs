//! Plain types of the hypervisor trait.

use std::path::PathBuf;

use model::{BootId, Epoch, VmUid};
use thiserror::Error;
use uuid::Uuid;

/// Result of a call to the hypervisor.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call to the hypervisor failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// No active domain of that UUID.
    #[error("no domain {0} is active")]
    NotFound(Uuid),
    /// A domain of that UUID is active already.
    #[error("domain {0} is active already")]
    Exists(Uuid),
    /// The connection to the hypervisor is down; the call may or may not have worked.
    #[error("the hypervisor is not reachable: {0}")]
    Disconnected(String),
    /// No answer in time; the call may still work later.
    #[error("{call} did not end within {seconds} s")]
    TimedOut {
        /// The call.
        call: &'static str,
        /// Its bound.
        seconds: u64,
    },
    /// The job was aborted.
    #[error("aborted")]
    Aborted,
    /// The domain's state does not allow it.
    #[error("domain {uuid}: {why}")]
    Refused {
        /// The domain.
        uuid: Uuid,
        /// Why.
        why: String,
    },
    /// The hypervisor refused or failed.
    #[error("{call}: {message}")]
    Failed {
        /// The call.
        call: &'static str,
        /// What the hypervisor said.
        message: String,
    },
}

/// Whether a failed start was refused by QEMU's image lock: another process has a disk open for writing. libvirt
/// has no code for it; these are QEMU's words, and the contract of hypervisors sees them said.
pub fn tells_of_image_lock(message: &str) -> bool {
    message.contains("Failed to get \"write\" lock")
        || message.contains("Is another process using the image")
}

/// What a host can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Architecture in the kernel's words.
    pub architecture: String,
    /// Processor model by libvirt's name.
    pub cpu_model: String,
    /// Processor models that guests can be given here, sorted; empty where guests always see the host's.
    pub cpu_models: Vec<String>,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in KiB as libvirt reports it; wrong on some machines, so it can be overridden.
    pub memory_kib: u64,
    /// `kvm` where the host can, else `qemu`.
    pub domain_type: String,
    /// Versions of the hypervisor's library and of QEMU.
    pub versions: (String, String),
}

/// Which VM, incarnation and epoch a domain belongs to; carried in its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The VM.
    pub vm: VmUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The incarnation that started it, or received it.
    pub boot_id: BootId,
    /// The epoch under which it was started, or received.
    pub epoch: Epoch,
}

/// State of an active domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// Runs.
    Running,
    /// Stands still for a move's switch-over, or nobody knows why.
    Paused,
    /// Stands still, and no switch-over from here stopped it: a person or the guest itself suspended it, or it has
    /// arrived so.
    Suspended,
    /// Stands still since a disk failed: QEMU stopped it, and nobody else.
    Stalled,
    /// Is on its way out.
    Ending,
}

impl DomainState {
    /// Whether its guest has run here, though a disk may have failed since: it is no arrival.
    pub fn has_run(self) -> bool {
        matches!(self, Self::Running | Self::Stalled)
    }

    /// Asked of a move's source: whether its guest is here for certain, as no switch-over has stopped it, though it may
    /// stand still for another reason.
    pub fn has_not_left(self) -> bool {
        self.has_run() || self == Self::Suspended
    }
}

/// An active domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its UUID: the VM's uid.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: DomainState,
    /// Whose it is; none for strays.
    pub owner: Option<Owner>,
}

/// A disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file.
    pub file: PathBuf,
    /// `qcow2` or `raw`.
    pub format: &'static str,
    /// Serial number that the guest sees.
    pub serial: String,
    /// The guest may not write it (seed).
    pub read_only: bool,
}

/// A NIC of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// Bridge that it is attached to.
    pub bridge: String,
    /// Hardware address.
    pub mac_address: String,
    /// Name of the tap device on the host.
    pub device: String,
    /// Largest packet, bytes.
    pub mtu: u32,
}

/// How a domain boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectBoot {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub command_line: String,
}

/// A domain to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSpec {
    /// UUID: the VM's uid.
    pub uuid: Uuid,
    /// Name, unique on the host.
    pub name: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, KiB.
    pub memory_kib: u64,
    /// `kvm` or `qemu`.
    pub domain_type: String,
    /// Architecture.
    pub architecture: String,
    /// Processor model that the guest sees; none: the host's own (KVM), a common old one (emulation).
    pub cpu_model: Option<String>,
    /// Kernel for direct boot; none: the disk's boot loader.
    pub boot: Option<DirectBoot>,
    /// Disks, the system disk first.
    pub disks: Vec<DiskSpec>,
    /// NICs.
    pub nics: Vec<NicSpec>,
    /// File for the serial console.
    pub console_log: Option<PathBuf>,
    /// Whose it is.
    pub owner: Owner,
}

/// Where a domain moves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationTarget {
    /// Connection URI of the target's hypervisor, such as `qemu+tls://h2/system`.
    pub uri: String,
    /// URI for the memory stream, such as `tcp://h2`.
    pub stream_uri: String,
    /// Name in the target's certificate.
    pub tls_name: Option<String>,
    /// The XML that the target starts it with: same guest, the target's owner metadata and devices.
    pub spec: DomainSpec,
    /// Bound of the bandwidth, MiB/s.
    pub bandwidth_mebibytes: Option<u64>,
    /// Pause to aim at, milliseconds.
    pub pause_milliseconds: u64,
    /// All its disks lie on storage that both hosts share, whatever libvirt thinks of the folder.
    pub storage_is_shared: bool,
}

/// How a migration went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// How long the guest stood still, as the hypervisor counted it, milliseconds; up to the arrival:
    /// what follows until the hand-over comes on top.
    pub pause_milliseconds: Option<u64>,
    /// Bytes sent.
    pub sent_bytes: Option<u64>,
}

/// Progress of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Memory in all, bytes; 0 while it is prepared.
    pub total_bytes: u64,
    /// Memory still to send, bytes.
    pub remaining_bytes: u64,
    /// Rounds of copying that began.
    pub iterations: u64,
}

impl Job {
    /// How much is done, percent.
    pub fn percent(&self) -> u8 {
        let done = self.total_bytes.saturating_sub(self.remaining_bytes);
        u8::try_from(done * 100 / self.total_bytes.max(1))
            .unwrap_or(100)
            .min(100)
    }
}

/// Counters of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainStats {
    /// The domain.
    pub uuid: Uuid,
    /// Processor time, nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory of the process, KiB.
    pub resident_kib: u64,
    /// Block devices: read and written bytes, requests.
    pub blocks: Vec<IoStats>,
    /// NICs: received and sent bytes, packets.
    pub nics: Vec<IoStats>,
}

/// Counters of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Name of the device.
    pub name: String,
    /// Bytes read or received.
    pub in_bytes: u64,
    /// Bytes written or sent.
    pub out_bytes: u64,
    /// Read requests or received packets.
    pub in_count: u64,
    /// Write requests or sent packets.
    pub out_count: u64,
}

/// Why a domain is no longer active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The guest shut itself down.
    GuestShutdown,
    /// Somebody destroyed it.
    Destroyed,
    /// QEMU crashed or was killed, or failed otherwise.
    Crashed,
    /// It moved to another host.
    Migrated,
}

/// Something that happened to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It started, or arrived.
    Started(Uuid),
    /// It runs on after a pause.
    Resumed(Uuid),
    /// It stands still.
    Suspended(Uuid),
    /// It stands still while it is being moved: as a rule for the switch-over.
    SwitchedOver(Uuid),
    /// It is gone.
    Stopped(Uuid, StopCause),
    /// The connection is up again: what happened meanwhile is not known.
    Reconnected,
}
