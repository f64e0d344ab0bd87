//! An operator as a process: leadership, caches that may be stale, and its loops. What it
//! decides it decides with `failover` and `placement`; the loops here are short retellings of
//! the operator's own. Which file retells which one is in `tests/sim/README.md`.

mod fleet;
mod freeze;
mod hosts;
mod moves;
mod power;
mod rights;
mod seats;
mod vms;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use failover::Moment;
use failover::failures::Failures;
use failover::freeze::Turn;
use failover::guard::heartbeats::Heartbeats;
use failover::hand_over::HandOvers;
use failover::host::fencing::CommandEnd;
use failover::host::fleet::Hosts;
use failover::host::machine::HostFacts;
use failover::proof::confirmation::Confirmation;
use failover::proof::power::PowerReading;
use failover::proof::self_fence::GuardRegistration;
use failover::proof::storage::StorageCut;
use failover::recovery::RecoveryClock;
use failover::signs::Sign;
use model::{BootId, Epoch, HostName, VmUid};

use crate::api::Objects;
use crate::mutant::Mutant;
use crate::world::{Event, World};
use freeze::Freeze;
use seats::Seat;
pub use writes::{MoveEdit, Work};

/// How often the leader renews, how long it may write after a renewal, how long others wait
/// for it, milliseconds (as in `operator/src/leader.rs`).
const RENEW: u64 = 1_500;
const WRITES_FOR: u64 = 4_000;
const TAKE_AFTER: u64 = 6_000;

/// A cache that has not moved on for so long after a write never will: etcd was restored to the version
/// that was written from (`operator/src/writer.rs`), milliseconds.
const MOVES_ON_WITHIN: u64 = 10_000;

/// What an operator saw of a host's Lease.
#[derive(Clone, Debug)]
pub struct Renewals {
    renewals: u64,
    guard: GuardRegistration,
    sign: Sign,
    boot_id: Option<BootId>,
    loop_age: u64,
    api_seen: Option<(String, u64)>,
}

/// An operator.
#[derive(Debug)]
pub struct Operator {
    /// Its process runs.
    pub alive: bool,
    /// Counts its runs.
    pub run: u64,
    /// It stands still until then.
    pub paused_until: u64,
    /// Its watches stand still until then.
    pub stale_until: u64,
    /// Its clock began so long before the world's.
    pub clock: u64,
    /// Its wall clock is an hour ahead of another one, which is an hour behind itself.
    pub wall_ahead: bool,
    cache: Objects,
    synced: bool,
    renewals: Vec<Option<Renewals>>,
    heartbeats: Heartbeats,
    asked: Vec<Option<Moment>>,
    /// Probes in a row that no VM of a host answered.
    missed: BTreeMap<usize, u32>,
    hosts: Hosts,
    facts: BTreeMap<HostName, HostFacts>,
    seen: Vec<(u64, u64)>,
    readings: Vec<Option<PowerReading>>,
    asked_at: Vec<Option<Moment>>,
    commands: Vec<Option<CommandEnd>>,
    forcing: BTreeSet<usize>,
    cuts: Vec<Option<(u64, StorageCut)>>,
    cutting: BTreeSet<usize>,
    trusting: BTreeSet<usize>,
    intents: Vec<Option<(u64, Moment)>>,
    confirmations: Vec<Option<(Confirmation, Moment)>>,
    assigned_at: BTreeMap<VmUid, (Epoch, Moment)>,
    recovery: RecoveryClock,
    failures: BTreeMap<VmUid, Failures>,
    moves_begun: BTreeMap<usize, Moment>,
    hand_overs: HandOvers,
    /// From which version each object was last written, and when.
    written: BTreeMap<(u8, usize), (u64, u64)>,
    /// Where VMs were placed, for as long as the cache may not show it.
    seats: BTreeMap<VmUid, Seat>,
    works: u32,
    renewed_at: Option<u64>,
    /// Moment of the API server's last answer about the leader's Lease.
    answered_at: Option<u64>,
    election_at: u64,
    leader_seen: Option<(u64, u64)>,
    troubled: bool,
    freeze: Freeze,
}

impl Operator {
    /// A process that has just started.
    pub fn new(index: usize) -> Self {
        let clock = 1_000 + 77_777 * u64::try_from(index).unwrap_or(0);
        Self {
            alive: true,
            run: 0,
            paused_until: 0,
            stale_until: 0,
            clock,
            wall_ahead: false,
            cache: Objects::default(),
            synced: false,
            renewals: Vec::new(),
            heartbeats: Heartbeats::default(),
            asked: Vec::new(),
            missed: BTreeMap::new(),
            hosts: Hosts::default(),
            facts: BTreeMap::new(),
            seen: Vec::new(),
            readings: Vec::new(),
            asked_at: Vec::new(),
            commands: Vec::new(),
            forcing: BTreeSet::new(),
            cuts: Vec::new(),
            cutting: BTreeSet::new(),
            trusting: BTreeSet::new(),
            intents: Vec::new(),
            confirmations: Vec::new(),
            assigned_at: BTreeMap::new(),
            recovery: RecoveryClock::default(),
            failures: BTreeMap::new(),
            moves_begun: BTreeMap::new(),
            hand_overs: HandOvers::default(),
            written: BTreeMap::new(),
            seats: BTreeMap::new(),
            works: 0,
            renewed_at: None,
            answered_at: None,
            election_at: 0,
            leader_seen: None,
            troubled: false,
            freeze: Freeze::default(),
        }
    }

    fn sized(&mut self, hosts: usize) {
        if self.renewals.len() != hosts {
            self.renewals = vec![None; hosts];
            self.asked = vec![None; hosts];
            self.seen = vec![(u64::MAX, u64::MAX); hosts];
            self.readings = vec![None; hosts];
            self.asked_at = vec![None; hosts];
            self.commands = vec![None; hosts];
            self.cuts = vec![None; hosts];
            self.intents = vec![None; hosts];
            self.confirmations = vec![None; hosts];
        }
    }
}

/// Name of an operator in stories.
pub fn name(operator: usize) -> &'static str {
    if operator == 0 {
        "operator-a"
    } else {
        "operator-b"
    }
}

/// Who an operator's process is in intents: another one after each restart.
fn identity(operator: usize, run: u64) -> usize {
    operator + 2 * usize::try_from(run).unwrap_or(0)
}

impl World {
    fn moment(&self, operator: usize) -> Moment {
        Moment(self.now + self.operators[operator].clock)
    }

    /// Whether an operator may write, as far as it knows.
    pub fn leads(&self, operator: usize) -> bool {
        let renewed = self.operators[operator].renewed_at;
        let leads = renewed.is_some_and(|at| self.now - at < WRITES_FOR);
        leads || (self.now < self.split_until && self.operators[operator].synced)
    }

    /// Whether the API server answered an operator lately.
    pub fn hears(&self, operator: usize) -> bool {
        let answered = self.operators[operator].answered_at;
        answered.is_some_and(|at| self.now - at < WRITES_FOR)
    }

    /// An operator's loops go round once.
    pub fn operator_turn(&mut self, operator: usize, run: u64) {
        let now = self.now;
        let hosts = self.machines.len();
        let this = &mut self.operators[operator];
        if !this.alive || this.run != run {
            return;
        }
        if now < this.paused_until {
            let after = this.paused_until - now + 1;
            return self.push(after, Event::OperatorTurn(operator, run));
        }
        this.sized(hosts);
        self.operator_syncs(operator);
        self.elect(operator);
        if self.operators[operator].synced {
            let trouble_with_hosts = self.host_turn(operator);
            let mut trouble = trouble_with_hosts;
            self.follow_rebases(operator);
            if self.leads(operator) && self.operators[operator].works == 0 {
                trouble |= match self.freeze_turn(operator) {
                    Turn::Act => self.vm_turn(operator),
                    Turn::Listen | Turn::Frozen { .. } => true,
                };
                self.operators[operator].troubled = trouble;
            }
            trouble |= self.operators[operator].troubled;
            let wait = if trouble {
                self.rng.range(200, 350)
            } else {
                self.rng.range(850, 1_050)
            };
            self.push(wait, Event::OperatorTurn(operator, run));
        } else {
            self.push(500, Event::OperatorTurn(operator, run));
        }
    }

    /// A crashed operator starts again with nothing remembered.
    pub fn operator_up(&mut self, operator: usize, run: u64) {
        let this = &mut self.operators[operator];
        if this.alive || this.run != run {
            return;
        }
        let (clock, ahead) = (this.clock + 12_345, this.wall_ahead);
        *this = Operator::new(operator);
        (this.run, this.clock, this.wall_ahead) = (run, clock, ahead);
        self.tell_as(name(operator), "operatorUp", &[]);
        self.push(1, Event::OperatorTurn(operator, run));
    }

    fn operator_syncs(&mut self, operator: usize) {
        if !self.api_serves()
            || self.now < self.operators[operator].stale_until
            || self.message_lost()
        {
            return;
        }
        let moment = self.moment(operator);
        let this = &mut self.operators[operator];
        this.freeze.went_back |= this.cache.is_older_in(&self.api.objects);
        this.cache.clone_from(&self.api.objects);
        this.synced = true;
        let deaf = self.mutant == Mutant::DeafToOne;
        for (host, known) in this.renewals.iter_mut().enumerate() {
            let lease = &this.cache.leases[host];
            if deaf && host == 0 && known.is_some() {
                continue;
            }
            if known
                .as_ref()
                .is_some_and(|known| known.renewals == lease.renewals)
            {
                continue;
            }
            let changes = known.as_ref().map_or(0, |known| known.sign.changes) + 1;
            *known = Some(Renewals {
                renewals: lease.renewals,
                guard: lease.guard.clone(),
                sign: Sign {
                    changes,
                    changed_at: moment,
                },
                boot_id: lease.boot_id.clone(),
                loop_age: lease.loop_age,
                api_seen: lease.api_seen.clone().map(|word| (word, lease.version)),
            });
            let deaf_to = self.mutant == Mutant::BelievesOne && host != 1;
            if let (Some(report), Some(boot_id)) = (&lease.report, &lease.boot_id)
                && !deaf_to
            {
                let report = report.as_ref().clone();
                this.heartbeats
                    .take(&self.names[host], boot_id, report, moment);
            }
        }
        for vm in &this.cache.vms {
            if let Some(right) = &vm.rights.assignment {
                let known = this.assigned_at.get(&vm.uid);
                if known.is_none_or(|(epoch, _)| *epoch != right.epoch) {
                    this.assigned_at
                        .insert(vm.uid.clone(), (right.epoch, moment));
                }
            }
        }
    }

    /// Leader election on a Lease, only by this operator's own clock.
    fn elect(&mut self, operator: usize) {
        let now = self.now;
        if now < self.operators[operator].election_at {
            return;
        }
        self.operators[operator].election_at = now + RENEW;
        if !self.api_takes_writes() || self.message_lost() {
            return;
        }
        let (version, holder) = self.api.objects.leader;
        let this = &mut self.operators[operator];
        this.answered_at = Some(now);
        let mine = identity(operator, this.run);
        if holder != mine {
            this.renewed_at = None;
            match this.leader_seen {
                Some((known, since)) if known == version => {
                    if now - since <= TAKE_AFTER {
                        return;
                    }
                }
                _ => {
                    this.leader_seen = Some((version, now));
                    return;
                }
            }
        }
        if self.api.lead(version, mine) {
            self.operator_sees_version(operator);
            let led = self.operators[operator].renewed_at.is_some();
            // A reply that is lost leaves a holder that does not know it.
            if !self.message_lost() {
                self.operators[operator].renewed_at = Some(now);
            }
            if !led {
                self.tell_as(name(operator), "leads", &[]);
            }
        }
    }
}
