//! A physical host: power, kernel, networks, BMC, libvirt's domains, the agent and the guard
//! as processes. What is in here is the truth; programs see only parts of it.

use std::collections::{BTreeMap, BTreeSet};

use failover::Moment;
use failover::agent::freeze::ApiMemory;
use failover::agent::ledger::Entry;
use failover::guard::GuardMemory;
use failover::guard::observer::PoolWatch;
use failover::host::incarnation::Identity;
use model::{BootId, Epoch, VmUid};

use crate::api::Objects;

/// So often a step on a host that stands still looks whether it goes on, milliseconds.
pub const THAWS_WITHIN: u64 = 1_000;

/// What a BMC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bmc {
    /// Tells the truth and obeys.
    Honest,
    /// Does not answer.
    Dead,
    /// Answers at once that the login is wrong.
    RefusesLogin,
    /// Answers and obeys after seconds.
    Slow,
    /// Says that it obeyed and does nothing.
    AcksOnly,
    /// Reads On whatever is.
    LiesOn,
    /// Reads Off whatever is.
    LiesOff,
    /// Belongs to another machine.
    OtherMachine,
}

/// A QEMU process as libvirt shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// Being made; its guest does not run yet.
    Starting,
    /// Its guest runs and may write.
    Running,
    /// It comes from another host, and libvirt holds it: nobody can let its guest run.
    Arriving,
    /// Its guest stands still: it arrived, or is being switched over.
    Paused,
    /// Its process has ended, and libvirt shows it still as one that stands still.
    Dead,
    /// Its guest stands still since a disk failed.
    Stalled,
}

impl DomainState {
    /// Whether its guest has run here, though a disk may have failed since: it is no arrival.
    pub fn has_run(self) -> bool {
        matches!(self, Self::Running | Self::Stalled)
    }
}

/// A domain.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The VM in its metadata.
    pub uid: VmUid,
    /// Index of the VM.
    pub vm: usize,
    /// Index of the disk that it writes.
    pub volume: usize,
    /// The incarnation in its metadata.
    pub boot_id: BootId,
    /// The epoch in its metadata.
    pub epoch: Epoch,
    /// Its state.
    pub state: DomainState,
    /// Being destroyed.
    pub ending: bool,
    /// A job sends it to this host.
    pub job: Option<usize>,
    /// The job was asked to abort.
    pub abort: bool,
}

/// The agent as a process.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// Runs.
    pub alive: bool,
    /// Counts its runs: work of a former run is void.
    pub run: u64,
    /// What its watches have told it.
    pub cache: Objects,
    /// It has listed the API at least once in this run.
    pub synced: bool,
    /// Its watches stand still until then.
    pub stale_until: u64,
    /// A watch was interrupted since the API's version was last looked at.
    pub interrupted: bool,
    /// When the API's version was last looked at.
    pub looked_at: Option<u64>,
    /// VMs with work under way.
    pub busy: BTreeSet<VmUid>,
    /// Moves with work of the source under way.
    pub busy_source: BTreeSet<usize>,
    /// Moves with work of the target under way.
    pub busy_target: BTreeSet<usize>,
    /// VMs that this run sends, by move.
    pub sending: BTreeMap<usize, VmUid>,
    /// Those of them that were handed over, and that libvirt has not cleared up after.
    pub clearing: BTreeSet<usize>,
    /// Epochs that libvirt was asked to start and has not answered for.
    pub starting: BTreeMap<VmUid, Epoch>,
    /// Since when a copy was to end, and whether it was told that it does not.
    pub closing: BTreeMap<VmUid, (u64, bool)>,
    /// VMs whose guest was seen to shut itself down.
    pub shut_down: BTreeSet<VmUid>,
    /// Its loop is stuck until then.
    pub stuck_until: u64,
    /// When its loop last went round.
    pub loop_at: u64,
}

/// A host.
#[derive(Clone, Debug)]
pub struct Machine {
    /// It has power.
    pub power: bool,
    /// Its kernel runs (it has booted).
    pub up: bool,
    /// Counts boots.
    pub boots: u64,
    /// Boot id of the running, or last, kernel.
    pub boot_id: BootId,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Addresses of its NICs.
    pub nics: BTreeSet<String>,
    /// Its processes stand still until then; guests may run on.
    pub hung_until: u64,
    /// Cut off from the management network until then.
    pub management_until: u64,
    /// Cut off from the business network until then.
    pub business_until: u64,
    /// Its guests' services answer errors until then.
    pub services_until: u64,
    /// Cut off from storage until then.
    pub storage_until: u64,
    /// Its heartbeat can not be written until then; all else of its storage answers.
    pub heartbeat_until: u64,
    /// What its BMC does, until when.
    pub bmc: (Bmc, u64),
    /// The same of the second one, where there is one.
    pub second_bmc: Option<(Bmc, u64)>,
    /// The BMCs have no power until then.
    pub bmc_dark_until: u64,
    /// Starts of QEMU hang until then.
    pub start_hangs_until: u64,
    /// Starts of QEMU fail until then.
    pub start_fails_until: u64,
    /// QEMU processes do not end until then.
    pub close_hangs_until: u64,
    /// libvirt does not clear up after guests that moved away until then.
    pub clearing_hangs_until: u64,
    /// Reads and writes of disks fail until then.
    pub disks_fail_until: u64,
    /// The guard does not run until then.
    pub guard_until: u64,
    /// The guard knows which pools carry heartbeats: it was told in this boot, and keeps it.
    pub knows_pools: bool,
    /// The wall clock has jumped by so much, milliseconds.
    pub clock_jump: u64,
    /// Storage heartbeats written.
    pub beat: u64,
    /// What the guard remembers of this boot.
    pub guard: GuardMemory,
    /// When the guard last fed the watchdog.
    pub fed_at: u64,
    /// What the guard saw of others' heartbeats.
    pub watch: PoolWatch,
    /// Its guard tells others' heartbeats falsely until then.
    pub lies_until: u64,
    /// The operator's token that the guard saw last, and when.
    pub token: Option<(String, Moment)>,
    /// Active domains, by uid of the VM.
    pub domains: BTreeMap<VmUid, Domain>,
    /// The ledger of this boot.
    pub ledger: BTreeMap<VmUid, Entry>,
    /// Its agent found that the ledger was lost: nothing is started in this boot any more.
    pub starts_nothing: bool,
    /// What this boot remembers of the API.
    pub memory: ApiMemory,
    /// The roll-call that its agent last read.
    pub roll_call: String,
    /// The agent.
    pub agent: Agent,
}

/// The two NICs of a host's board of some make, `aa` being that of the first.
pub fn nics(host: usize, make: &str) -> BTreeSet<String> {
    let nic = |port| format!("0c:c4:{make}:00:{:02x}:{port:02x}", host + 1);
    (1..=2).map(nic).collect()
}

impl Machine {
    /// What its agent reports of the boot that runs.
    pub fn identity(&self) -> Identity {
        Identity {
            boot_id: self.boot_id.clone(),
            system_uuid: self.uuid.clone(),
            mac_addresses: self.nics.clone(),
        }
    }

    /// A host that runs, under its first boot.
    pub fn new(index: usize) -> Self {
        Self {
            power: true,
            up: true,
            boots: 1,
            boot_id: boot_id(index, 1),
            uuid: format!("{:08}-2222-3333-4444-555555555555", index + 10_000_001),
            nics: nics(index, "aa"),
            hung_until: 0,
            management_until: 0,
            business_until: 0,
            services_until: 0,
            storage_until: 0,
            heartbeat_until: 0,
            bmc: (Bmc::Honest, 0),
            second_bmc: None,
            bmc_dark_until: 0,
            start_hangs_until: 0,
            start_fails_until: 0,
            close_hangs_until: 0,
            clearing_hangs_until: 0,
            disks_fail_until: 0,
            guard_until: 0,
            knows_pools: true,
            clock_jump: 0,
            beat: 1,
            guard: GuardMemory::default(),
            fed_at: 0,
            watch: PoolWatch::default(),
            lies_until: 0,
            token: None,
            domains: BTreeMap::new(),
            ledger: BTreeMap::new(),
            starts_nothing: false,
            memory: ApiMemory::default(),
            roll_call: String::new(),
            agent: Agent {
                alive: true,
                ..Agent::default()
            },
        }
    }

    /// Its processes run now.
    pub fn runs(&self, now: u64) -> bool {
        self.power && self.up && now >= self.hung_until
    }

    /// It reaches the management network now.
    pub fn on_management(&self, now: u64) -> bool {
        self.runs(now) && now >= self.management_until
    }

    /// It reaches its storage now.
    pub fn on_storage(&self, now: u64) -> bool {
        self.runs(now) && now >= self.storage_until
    }

    /// Its guard can write its heartbeat now and read it back.
    pub fn beats(&self, now: u64) -> bool {
        self.on_storage(now) && now >= self.heartbeat_until
    }

    /// What its first BMC does now.
    pub fn bmc_now(&self, now: u64) -> Bmc {
        self.bmcs_now(now).next().unwrap_or(Bmc::Dead)
    }

    /// What its BMCs do now.
    pub fn bmcs_now(&self, now: u64) -> impl Iterator<Item = Bmc> + '_ {
        let all = std::iter::once(self.bmc).chain(self.second_bmc);
        all.map(move |(mode, until)| {
            if now < self.bmc_dark_until {
                Bmc::Dead
            } else if now < until {
                mode
            } else {
                Bmc::Honest
            }
        })
    }

    /// Its agent starts and stops VMs.
    pub fn acts(&self) -> bool {
        self.memory.freeze.is_none()
    }

    /// The ledger's entry of a VM.
    pub fn entry(&self, uid: &VmUid) -> Entry {
        self.ledger.get(uid).cloned().unwrap_or_default()
    }

    /// Everything that dies with the kernel.
    pub fn kernel_dies(&mut self) {
        self.up = false;
        self.hung_until = 0;
        self.domains.clear();
        self.ledger.clear();
        self.starts_nothing = false;
        (self.memory, self.roll_call) = (ApiMemory::default(), String::new());
        self.guard = GuardMemory::default();
        self.knows_pools = false;
        self.watch = PoolWatch::default();
        self.token = None;
        self.agent_dies();
    }

    /// The agent's process ends; libvirt and QEMU run on.
    pub fn agent_dies(&mut self) {
        let agent = &mut self.agent;
        agent.alive = false;
        agent.run += 1;
        agent.synced = false;
        agent.looked_at = None;
        agent.busy.clear();
        agent.busy_source.clear();
        agent.busy_target.clear();
        agent.sending.clear();
        agent.clearing.clear();
        agent.starting.clear();
        agent.closing.clear();
        agent.shut_down.clear();
    }
}

/// Boot id of a host's n-th boot.
pub fn boot_id(index: usize, boot: u64) -> BootId {
    BootId(format!("h{}-boot{boot}", index + 1))
}
