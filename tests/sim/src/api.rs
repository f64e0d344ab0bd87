//! The API server as the programs see it: versioned objects, compare-and-swap, merge patches.
//! Outages and lost messages are decided by the world, before a call reaches this.

use std::collections::BTreeSet;
use std::rc::Rc;

use failover::assignment::Rights;
use failover::claims::{Claims, mended};
use failover::copy::CopyReport;
use failover::guard::heartbeats::HeartbeatReport;
use failover::host::incarnation::Identity;
use failover::migration::{MigrationOutcome, SourcePhase, TargetPhase};
use failover::proof::confirmation::Confirmation;
use failover::proof::self_fence::GuardRegistration;
use failover::rebase::HostWord;
use failover::vm::{VmPhase, Wanted};
use model::{Assignment, BootId, Claim, Epoch, VmUid};

/// The fleet that every claim names.
const FLEET: &str = "sim";

/// A `Host` object.
#[derive(Clone, Debug, Default)]
pub struct HostObject {
    /// resourceVersion.
    pub version: u64,
    /// The accepted incarnation.
    pub accepted: Option<Identity>,
    /// Boot ids that never come back.
    pub retired: BTreeSet<BootId>,
    /// The incarnation that the agent reports.
    pub reported: Option<Identity>,
    /// Fencing intent: incarnation, operator process, its expiry in milliseconds, a mark.
    pub intent: Option<(BootId, usize, u64, u64)>,
    /// The incarnation that its storage is cut off for, and the order's number.
    pub cut: Option<(BootId, u64)>,
    /// A person's word.
    pub confirmed: Option<Confirmation>,
    /// The last word that was found void.
    pub void: Option<Confirmation>,
    /// Its BMC read Off while it lived, and has not read On since.
    pub bmc_lies: bool,
    /// It is to be emptied.
    pub drain: bool,
    /// Faults that quarantine it.
    pub faults: u32,
    /// The incarnation whose agent says that it starts nothing.
    pub starts_nothing: Option<BootId>,
    /// What its frozen agent says: the last rebase that it knew of, the roll-call that it answers, and
    /// what runs there.
    pub frozen: Option<(String, String, HostWord)>,
}

/// What the `CloudPolicy` says of a freeze.
#[derive(Clone, Debug, Default)]
pub struct PolicyObject {
    /// resourceVersion.
    pub version: u64,
    /// The site is frozen.
    pub frozen: bool,
    /// The leader's roll-call.
    pub roll_call: String,
    /// `lastEpoch` of every VM after the rebase, at least.
    pub floor: Option<Epoch>,
    /// Names the last rebase.
    pub rebase: String,
    /// A person asks for a rebase.
    pub asked: bool,
}

/// A host's Lease.
#[derive(Clone, Debug, Default)]
pub struct LeaseObject {
    /// resourceVersion.
    pub version: u64,
    /// Boot id that the guard renews under.
    pub boot_id: Option<BootId>,
    /// Age of the agent's loop, milliseconds.
    pub loop_age: u64,
    /// Counts renewals: what else is written into a Lease is none.
    pub renewals: u64,
    /// What the guard registered.
    pub guard: GuardRegistration,
    /// What the guard saw of others' heartbeats.
    pub report: Option<Rc<HeartbeatReport>>,
    /// The operator's token for the guard.
    pub token: Option<String>,
    /// What the host remembers of the API.
    pub api_seen: Option<String>,
}

/// A `VirtualMachine` object.
#[derive(Clone, Debug)]
pub struct VmObject {
    /// resourceVersion.
    pub version: u64,
    /// Its uid; a VM that is deleted and made again has another one.
    pub uid: VmUid,
    /// What its user wants.
    pub wanted: Wanted,
    /// Who may run it.
    pub rights: Rights,
    /// Report of the assigned host.
    pub runtime: Option<CopyReport>,
    /// Report of the incoming host.
    pub incoming_runtime: Option<CopyReport>,
    /// What people see.
    pub phase: VmPhase,
    /// Index of its volume.
    pub volume: usize,
    /// The object exists.
    pub exists: bool,
}

/// A `Volume` object.
#[derive(Clone, Debug, Default)]
pub struct VolumeObject {
    /// resourceVersion.
    pub version: u64,
    /// Who may write it.
    pub claim: Option<(VmUid, Assignment)>,
    /// Who may receive it.
    pub incoming_claim: Option<(VmUid, Assignment)>,
}

impl VolumeObject {
    /// What `failover` says that its claims are to be under a VM's rights; none where they are.
    pub fn mended(&self, rights: &Rights, moving: bool) -> Option<Claims> {
        let of = |claim: &Option<(VmUid, Assignment)>| {
            let claim = claim.as_ref();
            claim.map(|(uid, right)| Claim::of_vm(FLEET, uid.as_str(), right))
        };
        let (claim, incoming) = (of(&self.claim), of(&self.incoming_claim));
        mended(FLEET, rights, moving, claim.as_ref(), incoming.as_ref())
    }

    /// Takes over claims.
    pub fn set_claims(&mut self, claims: &Claims) {
        let of = |claim: &Option<Claim>| {
            let claim = claim.as_ref();
            claim.map(|claim| (VmUid(claim.uid.clone()), claim.assignment.clone()))
        };
        (self.claim, self.incoming_claim) = (of(&claims.claim), of(&claims.incoming));
    }
}

/// A `VirtualMachineMigration` object.
#[derive(Clone, Debug, Default)]
pub struct MoveObject {
    /// resourceVersion.
    pub version: u64,
    /// Index of the VM.
    pub vm: usize,
    /// Uid of the VM when the move was made.
    pub uid: String,
    /// The only target that will do.
    pub target_host: Option<usize>,
    /// It was made to empty a host.
    pub drain: bool,
    /// Somebody cancelled it.
    pub cancel: bool,
    /// Source and target, once begun.
    pub sides: Option<(Assignment, Assignment)>,
    /// What the source said.
    pub source: Option<SourcePhase>,
    /// What the target said.
    pub target: Option<TargetPhase>,
    /// The source was asked to abort.
    pub abort_requested: bool,
    /// The target was asked to refuse.
    pub refuse_requested: bool,
    /// How it ended.
    pub outcome: Option<MigrationOutcome>,
    /// Why it stands where it stands.
    pub message: String,
}

/// All objects. A cache is a clone of it, possibly an old one.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Hosts.
    pub hosts: Vec<Rc<HostObject>>,
    /// Leases, by host.
    pub leases: Vec<Rc<LeaseObject>>,
    /// VMs.
    pub vms: Vec<Rc<VmObject>>,
    /// Volumes.
    pub volumes: Vec<Rc<VolumeObject>>,
    /// Moves.
    pub moves: Vec<Rc<MoveObject>>,
    /// The operators' Lease: version and holder.
    pub leader: (u64, usize),
    /// The policy.
    pub policy: Rc<PolicyObject>,
}

impl Objects {
    /// Whether a watch that knew these objects sees one of them older than it was (operator/src/store.rs).
    pub fn is_older_in(&self, new: &Objects) -> bool {
        let mut vms = self.vms.iter().zip(&new.vms);
        let mut hosts = self.hosts.iter().zip(&new.hosts);
        let mut volumes = self.volumes.iter().zip(&new.volumes);
        let mut moves = self.moves.iter().zip(&new.moves);
        new.policy.version < self.policy.version
            || vms.any(|(known, new)| known.uid == new.uid && new.version < known.version)
            || hosts.any(|(known, new)| new.version < known.version)
            || volumes.any(|(known, new)| new.version < known.version)
            || moves.any(|(known, new)| new.version < known.version)
    }
}

/// The server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The objects as they are now.
    pub objects: Objects,
    revision: u64,
}

macro_rules! editor {
    ($(#[$doc:meta])* $name:ident, $list:ident, $object:ty) => {
        $(#[$doc])*
        /// `expected`: the version that the writer read; none merges whatever stands. Returns
        /// whether it was written.
        pub fn $name(&mut self, index: usize, expected: Option<u64>, edit: impl FnOnce(&mut $object)) -> bool {
            let Some(slot) = self.objects.$list.get_mut(index) else { return false };
            if expected.is_some_and(|version| version != slot.version) {
                return false;
            }
            self.revision += 1;
            let mut object = <$object>::clone(slot);
            edit(&mut object);
            object.version = self.revision;
            *slot = Rc::new(object);
            true
        }
    };
}

impl Server {
    editor!(
        /// Writes a host.
        host, hosts, HostObject
    );
    editor!(
        /// Writes a Lease.
        lease, leases, LeaseObject
    );
    editor!(
        /// Writes a VM.
        vm, vms, VmObject
    );
    editor!(
        /// Writes a volume.
        volume, volumes, VolumeObject
    );
    editor!(
        /// Writes a move.
        moving, moves, MoveObject
    );

    /// Version of the whole store, as a fresh list carries it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Writes the policy's status by compare-and-swap.
    pub fn policy(&mut self, expected: Option<u64>, edit: impl FnOnce(&mut PolicyObject)) -> bool {
        if expected.is_some_and(|version| version != self.objects.policy.version) {
            return false;
        }
        self.revision += 1;
        let mut object = PolicyObject::clone(&self.objects.policy);
        edit(&mut object);
        object.version = self.revision;
        self.objects.policy = Rc::new(object);
        true
    }

    /// Makes a move; of two writers that make the same one, one wins.
    pub fn create_move(&mut self, mut object: MoveObject) {
        self.revision += 1;
        object.version = self.revision;
        self.objects.moves.push(Rc::new(object));
    }

    /// Takes or renews the operators' Lease by compare-and-swap.
    pub fn lead(&mut self, expected: u64, holder: usize) -> bool {
        if self.objects.leader.0 != expected {
            return false;
        }
        self.revision += 1;
        self.objects.leader = (self.revision, holder);
        true
    }

    /// Whether the volume of a VM is claimed for exactly this right.
    pub fn claimed(&self, vm: &VmObject, right: &Assignment, incoming: bool) -> bool {
        let Some(volume) = self.objects.volumes.get(vm.volume) else {
            return false;
        };
        let standing = if incoming {
            &volume.incoming_claim
        } else {
            &volume.claim
        };
        standing
            .as_ref()
            .is_some_and(|(uid, claimed)| *uid == vm.uid && claimed == right)
    }
}
