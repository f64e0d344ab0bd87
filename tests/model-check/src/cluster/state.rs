//! The state of the cluster in a few dozen bytes.

use failover::copy::CopyPhase;
use failover::migration::{MigrationOutcome, SourcePhase, TargetPhase};

use super::restore::Versions;
use crate::words::{HOSTS, Ledger, Rights, Slot};

/// What may go wrong, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Power losses.
    pub power_losses: u8,
    /// Returns of power.
    pub power_returns: u8,
    /// Deaths of an agent.
    pub agent_crashes: u8,
    /// Restarts of libvirt.
    pub libvirt_restarts: u8,
    /// Starts that hang in libvirt.
    pub hangs: u8,
    /// Deaths of QEMU.
    pub guest_crashes: u8,
    /// Losses of the management network.
    pub isolations: u8,
    /// Pauses of a leader.
    pub pauses: u8,
    /// Breaks of the migration's connection.
    pub job_breaks: u8,
    /// Resumes of a copy that was handed over that fail.
    pub resume_failures: u8,
    /// Cancelled moves.
    pub cancels: u8,
    /// Restores of etcd.
    pub restores: u8,
    /// Halts by the VM's user.
    pub halts: u8,
}

impl Faults {
    /// Nothing.
    pub const NONE: Self = Self {
        power_losses: 0,
        power_returns: 0,
        agent_crashes: 0,
        libvirt_restarts: 0,
        hangs: 0,
        guest_crashes: 0,
        isolations: 0,
        pauses: 0,
        job_breaks: 0,
        resume_failures: 0,
        cancels: 0,
        restores: 0,
        halts: 0,
    };
}

/// A QEMU process on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    /// Boot in its metadata.
    pub boot: u8,
    /// Epoch in its metadata.
    pub epoch: u8,
    /// Its vCPUs run; else it is paused.
    pub runs: bool,
    /// Its memory is complete, and libvirt holds it no more: the target has finished.
    pub whole: bool,
    /// Its process has ended, and libvirt shows it still: the source of a move.
    pub dead: bool,
    /// The disks changed after its memory was taken.
    pub old_memory: bool,
}

impl Domain {
    /// One that was started.
    pub fn started(boot: u8, epoch: u8) -> Self {
        Self {
            boot,
            epoch,
            runs: true,
            whole: true,
            dead: false,
            old_memory: false,
        }
    }
}

/// What the agent is in the middle of; lost when it dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Task {
    /// Nothing.
    #[default]
    Idle,
    /// A fresh read allowed a start at this epoch; the guard's firings noted before it.
    Allowed(u8, u8),
    /// Libvirt was asked to start this epoch.
    Starting(u8),
    /// This epoch is closed; its domain is to be destroyed.
    Destroying(u8),
    /// Sends the VM: said so, and the job begins or runs.
    Sending,
    /// Asked libvirt to end the job, and is to say that the guest runs.
    Aborting,
    /// The target's epoch is taken; is to say that it is prepared.
    Prepared,
    /// The copy was resumed; is to say so.
    Resumed,
}

/// One host with libvirt and agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// It has power.
    pub on: bool,
    /// It has no management network.
    pub isolated: bool,
    /// Which boot it is in, or was in last.
    pub boot: u8,
    /// Storage has cut the host off, because of this boot and epoch.
    pub cut: Option<(u8, u8)>,
    /// The ledger of this boot.
    pub ledger: Ledger,
    /// The VM's domain here.
    pub domain: Option<Domain>,
    /// Boot and epoch of a start in libvirt that is not done; outlives the agent.
    pub pending: Option<(u8, u8)>,
    /// How often the guard has fired in this boot.
    pub firings: u8,
    /// It fired in the present silence.
    pub fired: bool,
    /// That start hangs: it is done late, or never.
    pub hung: bool,
    /// What libvirt would start at boot, where somebody turned that on.
    pub autostart: Option<(u8, u8)>,
    /// Assignment and incoming as the agent last saw them.
    pub cache: Option<(Option<Slot>, Option<Slot>)>,
    /// What the agent is in the middle of.
    pub task: Task,
}

/// An agent's report about a copy, as it stands in the VM's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// The copy.
    pub slot: Slot,
    /// Its phase.
    pub phase: CopyPhase,
}

/// The migration's object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Move {
    /// Source and target, once begun.
    pub sides: Option<(Slot, Slot)>,
    /// The source's word.
    pub source: Option<SourcePhase>,
    /// The target's word.
    pub target: Option<TargetPhase>,
    /// The source is asked to abort.
    pub abort: bool,
    /// The target is asked to refuse.
    pub refuse: bool,
    /// A person cancelled it.
    pub cancel: bool,
    /// Its time has run out.
    pub late: bool,
    /// How it ended.
    pub ended: Option<MigrationOutcome>,
}

/// What the API server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Api {
    /// The VM's assignment, incoming and last epoch.
    pub rights: Rights,
    /// Report of the assigned host.
    pub report: Option<Report>,
    /// Report of the incoming host.
    pub incoming_report: Option<Report>,
    /// Accepted boot of each host.
    pub registered: [u8; HOSTS],
    /// The migration.
    pub moving: Move,
    /// The VM's user wants it halted.
    pub halt: bool,
}

/// A write of the operator: what it was computed from, and what it makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To the VM.
    Rights(Rights, Rights),
    /// To the migration.
    Move(Move, Move),
}

/// Libvirt's migration job, as its source knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Job {
    /// None.
    #[default]
    None,
    /// Copies memory; the guest runs on the source.
    Copying,
    /// Switch-over: the source is paused; the target has not finished, and its libvirt holds the copy.
    Switched,
    /// The target has finished: the copy is whole. The source's libvirt has not heard of it.
    Finished,
    /// The source's libvirt has ended its QEMU, and clears up.
    Ended,
    /// The source's QEMU died by itself at switch-over; its libvirt clears up.
    Died,
    /// Ended as migrated.
    Migrated,
    /// Ended otherwise.
    Failed,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The hosts.
    pub hosts: [Host; HOSTS],
    /// The API server.
    pub api: Api,
    /// Boots that the leader holds a power proof for, plus one.
    pub proofs: [u8; HOSTS],
    /// The paused leader's write.
    pub paused: Option<Effect>,
    /// What is remembered of the API's versions.
    pub versions: Versions,
    /// The migration job.
    pub job: Job,
    /// What may still go wrong.
    pub left: Faults,
    /// A host, a guest or an agent has failed, or its user halted the VM.
    pub disturbed: bool,
    /// A host that could reach the API was forced off.
    pub forced_healthy: bool,
    /// Nothing is due: only faults can happen next.
    pub quiet: bool,
}
