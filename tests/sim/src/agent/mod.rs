//! The agent of a host: its loop gathers facts for `failover::agent`, which decides, and begins
//! the work. `work` carries it out step by step; `moves` is its side of live migrations.

mod frozen;
mod moves;
mod work;

use failover::agent::copy::{Action, ApiFacts, Domain as Copy, Facts, decide, is_unaccounted};
use failover::copy::{CloseCause, CopyPhase, CopyReport};
use failover::host::incarnation::Identity;
use failover::migration::{SourcePhase, TargetPhase};
use failover::rebase::HostWord;
use failover::vm::Wanted;
use model::{Assignment, BootId, VmUid};

use crate::api::VmObject;
use crate::job::Job;
use crate::machine::{DomainState, THAWS_WITHIN};
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// How often an agent's loop goes round when nothing wakes it, milliseconds.
const TURN: u64 = 1_000;

/// How often the API's version is looked at when nothing is wrong, milliseconds (agent/src/freeze.rs).
const LOOK: u64 = 10_000;

/// Which work a step belongs to: one piece of each at a time.
#[derive(Clone, Debug)]
pub enum Key {
    /// Of one VM.
    Vm(VmUid),
    /// The source's of one move.
    Source(usize),
    /// The target's of one move.
    Target(usize),
}

/// What an agent merges into the API.
#[derive(Clone, Debug)]
pub enum Patch {
    /// `status.runtime` of a VM.
    Runtime(usize, VmUid, CopyReport),
    /// `status.incomingRuntime` of a VM.
    Incoming(usize, VmUid, CopyReport),
    /// The source's word in a move.
    Source(usize, SourcePhase),
    /// The target's word in a move.
    Target(usize, TargetPhase),
    /// The host's own report.
    Reported(usize, Identity),
    /// The host's own report: this incarnation starts nothing.
    StartsNothing(usize, BootId),
    /// What a frozen host says.
    Frozen(usize, Option<(String, String, HostWord)>),
}

/// A step of an agent's work.
#[derive(Clone, Debug)]
pub enum Task {
    /// The fresh read before a start; the guard's firings were counted before it.
    StartRead(usize, VmUid, Assignment, u64),
    /// Everything is ready: take the epoch and ask libvirt.
    StartTake(usize, VmUid, Assignment, u64),
    /// libvirt answered a start.
    StartEnded(VmUid, Assignment, bool),
    /// A start that libvirt has not answered by now is closed.
    StartDeadline(VmUid, Assignment),
    /// Close: the ledger, then the domain, then go on.
    Close(Key, VmUid, Assignment, Option<Box<Task>>),
    /// The fresh read for a copy whose right is in doubt.
    Check(usize, VmUid, Assignment),
    /// The fresh read for a guest that stands still since a disk failed.
    ResumeStalled(usize, VmUid, Assignment),
    /// The guest is asked to shut down.
    Shutdown(usize, VmUid, Assignment),
    /// A patch is sent; the work goes on, or is over.
    Say(Key, Patch, Option<Box<Task>>),
    /// The source reads afresh before it sends.
    SendRead(usize),
    /// The job is given to libvirt.
    SendJob(usize),
    /// The job ended, as migrated or not.
    JobEnded(Box<Job>, bool),
    /// The agent sees that the QEMU of a move's source is dead.
    Departed(Box<Job>),
    /// libvirt has had the time that it gets for clearing up after a move's source.
    ClearingTimedOut(usize),
    /// The source asks libvirt to abort and says that it runs.
    SayRunning(usize),
    /// The target reads afresh before it prepares; the guard's firings.
    PrepareRead(usize, u64),
    /// The target waits for the copy and the hand-over.
    Receive(usize),
    /// The copy was let run.
    Resumed(usize),
    /// The copy could not be let run.
    NotResumed(usize),
    /// The work of a key is over.
    Done(Key),
}

impl World {
    /// An agent's loop goes round.
    pub fn agent_turn(&mut self, host: usize, run: u64, extra: bool) {
        let now = self.now;
        let machine = &self.machines[host];
        if !machine.power || !machine.up || !machine.agent.alive || machine.agent.run != run {
            return;
        }
        let still = machine.hung_until.max(machine.agent.stuck_until);
        if now < still {
            if !extra {
                let after = (still - now + 1).min(THAWS_WITHIN);
                self.push(after, Event::AgentTurn(host, run, false));
            }
            return;
        }
        if !extra {
            self.push(TURN, Event::AgentTurn(host, run, false));
        }
        self.machines[host].agent.loop_at = now;
        self.agent_syncs(host);
        self.audit_ledger(host);
        self.say_who_i_am(host, run);
        if !self.machines[host].acts() {
            return self.frozen_turn(host, run);
        }
        for (uid, vm, action) in self.decisions(host) {
            self.begin(host, run, vm, uid, action);
        }
        if self.machines[host].agent.synced {
            self.move_turn(host, run);
        }
    }

    fn agent_syncs(&mut self, host: usize) {
        let machine = &self.machines[host];
        if !machine.on_management(self.now) || !self.api_serves() {
            self.machines[host].agent.interrupted = true;
            return;
        }
        if self.message_lost() {
            return;
        }
        let now = self.now;
        let agent = &mut self.machines[host].agent;
        if now >= agent.stale_until {
            agent.cache.clone_from(&self.api.objects);
            agent.synced = true;
        }
        let (frozen, looked_at) = (agent.cache.policy.frozen, agent.looked_at);
        let late = looked_at.is_none_or(|at| now - at >= LOOK);
        let interrupted = std::mem::take(&mut agent.interrupted);
        if late || interrupted || frozen || !self.machines[host].acts() {
            self.machines[host].agent.looked_at = Some(now);
            self.look_at_version(host);
        }
    }

    /// A copy that the ledger does not know (agent/src/alarm.rs).
    fn audit_ledger(&mut self, host: usize) {
        if self.mutant == Mutant::KeepsStarting {
            return;
        }
        let machine = &mut self.machines[host];
        let mut lost = false;
        for (uid, domain) in &machine.domains {
            let entry = machine.ledger.entry(uid.clone()).or_default();
            let copy = Copy {
                boot_id: domain.boot_id.clone(),
                epoch: domain.epoch,
                ending: domain.ending,
                stalled: domain.state == DomainState::Stalled,
            };
            if is_unaccounted(&machine.boot_id, &copy, entry) {
                entry.adopt(domain.epoch.0);
                lost = true;
            }
        }
        if lost {
            self.ledger_is_lost(host);
        }
    }

    fn ledger_is_lost(&mut self, host: usize) {
        let known = std::mem::replace(&mut self.machines[host].starts_nothing, true);
        if !known {
            let name = self.names[host].clone();
            self.tell("startsNothing", &[("host", &name)]);
        }
    }

    /// An epoch that it has said something of and that its ledger does not know (agent/src/vm/forgotten.rs); what is to
    /// be said of it yet.
    fn give_up(
        &mut self,
        host: usize,
        vm: usize,
        uid: &VmUid,
        right: Assignment,
        said: CopyPhase,
    ) -> Option<Task> {
        self.ledger_is_lost(host);
        let entry = self.machines[host].ledger.entry(uid.clone()).or_default();
        entry.recall(right.epoch.0, said);
        if matches!(said, CopyPhase::Closed | CopyPhase::HandedOver) {
            return None;
        }
        let then = self.report_closed(host, vm, uid, &right, CloseCause::Declined);
        Some(Task::Close(Key::Vm(uid.clone()), uid.clone(), right, then))
    }

    fn say_who_i_am(&mut self, host: usize, run: u64) {
        let machine = &self.machines[host];
        let same = machine.agent.cache.hosts.get(host).is_some_and(|object| {
            object.reported.as_ref().map(|reported| &reported.boot_id) == Some(&machine.boot_id)
        });
        if machine.agent.synced && !same {
            let identity = machine.identity();
            let wait = self.latency();
            // No work waits for it, so its key is one that nobody holds.
            let say = Task::Say(
                Key::Target(usize::MAX),
                Patch::Reported(host, identity),
                None,
            );
            self.push(wait, Event::Task(host, run, Box::new(say)));
        }
        let machine = &self.machines[host];
        let told = machine
            .agent
            .cache
            .hosts
            .get(host)
            .is_some_and(|object| object.starts_nothing.as_ref() == Some(&machine.boot_id));
        if machine.agent.synced && machine.starts_nothing && !told {
            let patch = Patch::StartsNothing(host, machine.boot_id.clone());
            let say = Task::Say(Key::Target(usize::MAX), patch, None);
            let wait = self.latency();
            self.push(wait, Event::Task(host, run, Box::new(say)));
        }
    }

    /// What the agent decides for every VM that concerns it.
    fn decisions(&self, host: usize) -> Vec<(VmUid, usize, Action)> {
        let machine = &self.machines[host];
        let agent = &machine.agent;
        let name = &self.names[host];
        let mine = |vm: &VmObject| {
            vm.exists
                && vm
                    .rights
                    .assignment
                    .iter()
                    .chain(&vm.rights.incoming)
                    .any(|right| right.host == *name)
        };
        let known: &[_] = if agent.synced { &agent.cache.vms } else { &[] };
        let mut out = Vec::new();
        let mut judge = |uid: &VmUid, vm: usize, object: Option<&VmObject>| {
            let sending = agent.sending.values().any(|sent| sent == uid);
            if sending || agent.busy.contains(uid) {
                return;
            }
            let mut entry = machine.entry(uid);
            let mut api = object.map(|object| api_facts(object, name, &machine.boot_id));
            if self.mutant == Mutant::LedgerForgets {
                entry.epochs.clear();
                if let Some(api) = api.as_mut().filter(|_| !machine.domains.contains_key(uid)) {
                    // Nor does it ask what it has said.
                    (api.reported, api.reported_incoming) = (None, None);
                }
            }
            let action = decide(&Facts {
                host: name,
                boot_id: &machine.boot_id,
                api,
                ledger: &entry,
                domain: machine.domains.get(uid).map(|domain| Copy {
                    boot_id: domain.boot_id.clone(),
                    epoch: domain.epoch,
                    ending: domain.ending,
                    stalled: domain.state == DomainState::Stalled,
                }),
                moving_out: false,
                shut_down_inside: agent.shut_down.contains(uid),
            });
            if action != Action::Nothing {
                out.push((uid.clone(), vm, action));
            }
        };
        for (vm, object) in known.iter().enumerate() {
            if mine(object) {
                judge(&object.uid, vm, Some(object));
            }
        }
        for (uid, domain) in &machine.domains {
            let told = known
                .iter()
                .any(|object| object.uid == *uid && mine(object));
            if !told {
                judge(uid, domain.vm, None);
            }
        }
        out
    }

    fn begin(&mut self, host: usize, run: u64, vm: usize, uid: VmUid, action: Action) {
        let key = Key::Vm(uid.clone());
        let firings = self.machines[host].guard.firings;
        let wait = self.latency();
        let (wait, task) = match action {
            Action::Nothing => return,
            Action::Start(right) => (wait, Task::StartRead(vm, uid.clone(), right, firings)),
            Action::Forgotten(right, _) if self.mutant == Mutant::KeepsStarting => {
                (wait, Task::StartRead(vm, uid.clone(), right, firings))
            }
            Action::Forgotten(right, said) => match self.give_up(host, vm, &uid, right, said) {
                Some(task) => (1, task),
                None => return,
            },
            Action::Shutdown(right) => (wait, Task::Shutdown(vm, uid.clone(), right)),
            Action::Close(right, cause) => {
                let then = self.report_closed(host, vm, &uid, &right, cause);
                (1, Task::Close(key, uid.clone(), right, then))
            }
            Action::Resume(right) => (wait, Task::ResumeStalled(vm, uid.clone(), right)),
            Action::CheckSuperseded(right) => (wait, Task::Check(vm, uid.clone(), right)),
            Action::Report(right, phase, cause) => {
                let mut report = CopyReport::new(right, phase);
                report.cause = cause;
                (
                    wait,
                    Task::Say(key, Patch::Runtime(vm, uid.clone(), report), None),
                )
            }
        };
        self.machines[host].agent.busy.insert(uid);
        self.push(wait, Event::Task(host, run, Box::new(task)));
    }

    /// The report after a close; a copy of another boot has nothing to report.
    pub(crate) fn report_closed(
        &self,
        host: usize,
        vm: usize,
        uid: &VmUid,
        right: &Assignment,
        cause: CloseCause,
    ) -> Option<Box<Task>> {
        (right.boot_id == self.machines[host].boot_id).then(|| {
            let report = CopyReport::closed(right.clone(), cause);
            let patch = Patch::Runtime(vm, uid.clone(), report);
            Box::new(Task::Say(Key::Vm(uid.clone()), patch, None))
        })
    }

    /// Something changed that concerns hosts: their watches tell them.
    pub fn wake<'a>(&mut self, rights: impl Iterator<Item = &'a Assignment>) {
        let hosts: Vec<usize> = rights.map(|right| self.index_of(&right.host)).collect();
        for host in hosts {
            if let Some(machine) = self.machines.get(host) {
                let run = machine.agent.run;
                let wait = self.rng.range(10, 150);
                self.push(wait, Event::AgentTurn(host, run, true));
            }
        }
    }
}

/// What an object of a VM says that decides about its copy in one boot of a host.
pub(crate) fn api_facts(vm: &VmObject, host: &model::HostName, boot_id: &BootId) -> ApiFacts {
    let own = |said: &Option<CopyReport>| {
        let said = said
            .as_ref()
            .filter(|said| said.assignment.host == *host && said.assignment.boot_id == *boot_id);
        said.map(|said| (said.assignment.epoch.0, said.phase))
    };
    ApiFacts {
        assignment: vm.rights.assignment.clone(),
        incoming: vm.rights.incoming.clone(),
        halt: !vm.wanted.runs() || vm.wanted == Wanted::Deleted,
        reported: own(&vm.runtime),
        reported_incoming: own(&vm.incoming_runtime),
    }
}

/// The phase after which a report ends an arrival's own one.
pub(crate) fn ends_arrival(phase: CopyPhase) -> bool {
    phase == CopyPhase::Running
}
