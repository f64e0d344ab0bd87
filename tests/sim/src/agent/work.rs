//! An agent's work, one step an event: a crash between any two steps loses the rest, and what
//! libvirt was told it does all the same.

use std::rc::Rc;

use failover::agent::copy::forgotten;
use failover::copy::{CloseCause, CopyPhase, CopyReport};
use model::{Assignment, VmUid};

use super::{Key, Patch, Task, api_facts, ends_arrival};
use crate::api::VmObject;
use crate::libvirt::Step;
use crate::machine::DomainState;
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// How long libvirt may take to start a domain (agent/src/vm/starting.rs), milliseconds.
const START_DEADLINE: u64 = 120_000;

impl World {
    /// The next step of an agent's work.
    pub fn task(&mut self, host: usize, run: u64, task: Task) {
        let machine = &self.machines[host];
        if !machine.power || !machine.up || !machine.agent.alive || machine.agent.run != run {
            return;
        }
        if self.now < machine.hung_until {
            // Faults may all be ended before.
            let after = (machine.hung_until - self.now + 1).min(crate::machine::THAWS_WITHIN);
            return self.push(after, Event::Task(host, run, Box::new(task)));
        }
        match task {
            Task::StartRead(vm, uid, right, firings) => {
                self.start_read(host, run, vm, uid, right, firings)
            }
            Task::StartTake(vm, uid, right, firings) => {
                self.start_take(host, run, vm, uid, right, firings)
            }
            Task::StartEnded(uid, right, ok) => self.start_ended(host, run, uid, right, ok),
            Task::StartDeadline(uid, right) => {
                let starting = self.machines[host].agent.starting.get(&uid);
                if starting == Some(&right.epoch) {
                    self.start_ended(host, run, uid, right, false);
                }
            }
            Task::Close(key, uid, right, then) => self.close(host, run, key, uid, right, then),
            Task::Check(vm, uid, right) => self.check_superseded(host, run, vm, uid, right),
            Task::ResumeStalled(vm, uid, right) => self.resume_stalled(host, run, vm, uid, right),
            Task::Shutdown(vm, uid, right) => self.shut_down(host, run, vm, uid, right),
            Task::Say(key, patch, then) => self.say(host, run, key, patch, then),
            Task::Done(key) => self.release(host, &key),
            other => self.move_task(host, run, other),
        }
    }

    /// The work of a key is over.
    pub(crate) fn release(&mut self, host: usize, key: &Key) {
        let agent = &mut self.machines[host].agent;
        match key {
            Key::Vm(uid) => {
                agent.busy.remove(uid);
            }
            Key::Source(index) => {
                agent.busy_source.remove(index);
                if !agent.clearing.contains(index) {
                    agent.sending.remove(index);
                }
            }
            Key::Target(index) => {
                agent.busy_target.remove(index);
            }
        }
    }

    /// A call of an agent to the API server gets through, and its answer back.
    pub(crate) fn agent_reaches(&mut self, host: usize) -> bool {
        self.machines[host].on_management(self.now) && self.api_serves() && !self.message_lost()
    }

    fn next(&mut self, host: usize, run: u64, after: u64, task: Task) {
        self.push(after, Event::Task(host, run, Box::new(task)));
    }

    fn say(&mut self, host: usize, run: u64, key: Key, patch: Patch, then: Option<Box<Task>>) {
        if !self.machines[host].on_management(self.now) || !self.api_takes_writes() {
            return self.release(host, &key);
        }
        if self.message_lost() {
            // Given up by its sender; it may have been lost, or still arrive.
            if self.rng.chance(500) {
                let wait = self.rng.range(300, 4_000);
                self.push(wait, Event::Late(host, Box::new(patch)));
            }
            return self.release(host, &key);
        }
        self.apply(host, patch);
        match then {
            Some(then) => {
                let wait = self.latency();
                self.push(wait, Event::Task(host, run, then));
            }
            None => self.release(host, &key),
        }
    }

    /// A host's patch is merged at the API server, which lets it write its own facts only (docs/contract.md).
    pub fn apply(&mut self, host: usize, patch: Patch) {
        if !self.admits(host, &patch) {
            return;
        }
        match patch {
            Patch::Runtime(vm, uid, report) => {
                let (host, phase, epoch) = (
                    report.assignment.host.clone(),
                    report.phase,
                    report.assignment.epoch,
                );
                let same = self
                    .api
                    .objects
                    .vms
                    .get(vm)
                    .is_some_and(|object| object.uid == uid);
                if same {
                    self.api.vm(vm, None, |object| {
                        if ends_arrival(report.phase) {
                            object.incoming_runtime = None;
                        }
                        object.runtime = Some(report);
                    });
                    let phase = format!("{phase:?}");
                    self.tell_as(
                        &format!("agent {host}"),
                        "reported",
                        &[("vm", &uid), ("phase", &phase), ("epoch", &epoch)],
                    );
                }
            }
            Patch::Incoming(vm, uid, report) => {
                let same = self
                    .api
                    .objects
                    .vms
                    .get(vm)
                    .is_some_and(|object| object.uid == uid);
                if same {
                    self.api
                        .vm(vm, None, |object| object.incoming_runtime = Some(report));
                }
            }
            Patch::Source(index, phase) => {
                self.api
                    .moving(index, None, |object| object.source = Some(phase));
                self.move_said(index, "source", &format!("{phase:?}"));
            }
            Patch::Target(index, phase) => {
                self.api
                    .moving(index, None, |object| object.target = Some(phase));
                self.move_said(index, "target", &format!("{phase:?}"));
            }
            Patch::Frozen(host, word) => {
                self.api.host(host, None, |object| object.frozen = word);
            }
            Patch::StartsNothing(host, boot_id) => {
                self.api
                    .host(host, None, |object| object.starts_nothing = Some(boot_id));
            }
            Patch::Reported(host, identity) => {
                self.api
                    .host(host, None, |object| object.reported = Some(identity));
            }
        }
    }

    fn admits(&self, host: usize, patch: &Patch) -> bool {
        let objects = &self.api.objects;
        let here =
            |right: Option<&Assignment>| right.is_some_and(|right| right.host == self.names[host]);
        let rights = |vm: &usize| objects.vms.get(*vm).map(|object| &object.rights);
        let sides = |index: &usize| objects.moves.get(*index)?.sides.as_ref();
        match patch {
            Patch::Runtime(vm, ..) => here(rights(vm).and_then(|it| it.assignment.as_ref())),
            Patch::Incoming(vm, ..) => here(rights(vm).and_then(|it| it.incoming.as_ref())),
            Patch::Source(index, _) => here(sides(index).map(|(source, _)| source)),
            Patch::Target(index, _) => here(sides(index).map(|(_, target)| target)),
            Patch::Frozen(of, _) | Patch::Reported(of, _) | Patch::StartsNothing(of, _) => {
                *of == host
            }
        }
    }

    fn move_said(&mut self, index: usize, side: &'static str, phase: &str) {
        let object = self.api.objects.moves[index].clone();
        self.tell_as(
            "agent",
            "moveSaid",
            &[("vm", &object.uid), ("side", &side), ("phase", &phase)],
        );
        if let Some((source, target)) = &object.sides {
            self.wake([source, target].into_iter());
        }
    }

    /// A fresh read of a VM, if an answer comes and it shows the VM assigned under this right.
    fn reads_assigned(
        &mut self,
        host: usize,
        vm: usize,
        uid: &VmUid,
        right: &Assignment,
    ) -> Option<Rc<VmObject>> {
        if !self.agent_reaches(host) || !self.sees_version(host) {
            return None;
        }
        let fresh = self.api.objects.vms[vm].clone();
        let stands =
            fresh.exists && fresh.uid == *uid && fresh.rights.assignment.as_ref() == Some(right);
        stands.then_some(fresh)
    }

    fn start_read(
        &mut self,
        host: usize,
        run: u64,
        vm: usize,
        uid: VmUid,
        right: Assignment,
        firings: u64,
    ) {
        let key = Key::Vm(uid.clone());
        let fresh = self.reads_assigned(host, vm, &uid, &right);
        let Some(fresh) = fresh.filter(|fresh| fresh.wanted.runs()) else {
            return self.release(host, &key);
        };
        let forgets = matches!(self.mutant, Mutant::LedgerForgets | Mutant::KeepsStarting);
        let machine = &self.machines[host];
        let facts = api_facts(&fresh, &self.names[host], &machine.boot_id);
        if forgotten(&facts, right.epoch, &machine.entry(&uid)).is_some() && !forgets {
            // Its cache shows it in a moment.
            return self.release(host, &key);
        }
        if !self.api.claimed(&fresh, &right, false) {
            let report = CopyReport::new(right, CopyPhase::Preparing);
            let patch = Patch::Runtime(vm, uid, report);
            return self.next(host, run, 5, Task::Say(key, patch, None));
        }
        let wait = self.rng.range(5, 300);
        self.next(host, run, wait, Task::StartTake(vm, uid, right, firings));
    }

    fn start_take(
        &mut self,
        host: usize,
        run: u64,
        vm: usize,
        uid: VmUid,
        right: Assignment,
        firings: u64,
    ) {
        let forgets = self.mutant == Mutant::LedgerForgets;
        let now = self.now;
        let machine = &mut self.machines[host];
        if !machine.acts() || machine.starts_nothing {
            return self.release(host, &Key::Vm(uid));
        }
        let entry = machine.ledger.entry(uid.clone()).or_default();
        if entry.take(right.epoch.0, firings).is_err() && !forgets {
            return self.release(host, &Key::Vm(uid));
        }
        let hangs = machine.start_hangs_until.saturating_sub(now);
        let boot = machine.boots;
        let volume = self.api.objects.vms[vm].volume;
        let wait = hangs + self.rng.range(10, 100);
        machine.agent.starting.insert(uid.clone(), right.epoch);
        let deadline = Task::StartDeadline(uid.clone(), right.clone());
        self.next(host, run, START_DEADLINE, deadline);
        let start = Step::Start(vm, volume, uid, right, run);
        self.push(wait, Event::Libvirt(host, boot, start));
    }

    fn start_ended(&mut self, host: usize, run: u64, uid: VmUid, right: Assignment, ok: bool) {
        let starting = &mut self.machines[host].agent.starting;
        if starting.get(&uid) != Some(&right.epoch) {
            // Given up at its deadline: the work goes on without this answer.
            return;
        }
        starting.remove(&uid);
        let Some(vm) = self.vm_of(&uid) else {
            return self.release(host, &Key::Vm(uid));
        };
        if ok {
            let report = CopyReport::new(right, CopyPhase::Running);
            let say = Task::Say(Key::Vm(uid.clone()), Patch::Runtime(vm, uid, report), None);
            let wait = self.latency();
            self.next(host, run, wait, say);
        } else {
            let then = self.report_closed(host, vm, &uid, &right, CloseCause::StartFailed);
            self.next(
                host,
                run,
                1,
                Task::Close(Key::Vm(uid.clone()), uid, right, then),
            );
        }
    }

    fn vm_of(&self, uid: &VmUid) -> Option<usize> {
        self.api
            .objects
            .vms
            .iter()
            .position(|object| object.uid == *uid)
    }

    fn close(
        &mut self,
        host: usize,
        run: u64,
        key: Key,
        uid: VmUid,
        right: Assignment,
        then: Option<Box<Task>>,
    ) {
        let machine = &mut self.machines[host];
        let boot = machine.boots;
        let entry = machine.ledger.entry(uid.clone()).or_default();
        if entry.close(right.epoch.0).is_err() {
            return self.release(host, &key);
        }
        let hangs = self.now < self.machines[host].close_hangs_until;
        if let Some(domain) = self.machines[host].domains.get_mut(&uid).filter(|_| hangs) {
            domain.ending = true;
            return self.close_hangs(host, run, key, uid, right, then);
        }
        self.machines[host].agent.closing.remove(&uid);
        let then = then.unwrap_or_else(|| Box::new(Task::Done(key)));
        match self.machines[host].domains.get_mut(&uid) {
            Some(domain) => {
                domain.ending = true;
                let takes = self.rng.range(50, 800);
                self.push(
                    takes,
                    Event::Libvirt(host, boot, Step::Destroyed(uid, run, then)),
                );
            }
            None => self.push(1, Event::Task(host, run, then)),
        }
    }

    /// A process does not end: it is told to again and again, and past the bound that is said.
    fn close_hangs(
        &mut self,
        host: usize,
        run: u64,
        key: Key,
        uid: VmUid,
        right: Assignment,
        then: Option<Box<Task>>,
    ) {
        let (now, bound) = (self.now, self.policy.close_stuck_milliseconds);
        let heard = self.machines[host].on_management(now) && self.api_takes_writes();
        let vm = self.vm_of(&uid);
        let agent = &mut self.machines[host].agent;
        let (begun, told) = agent.closing.entry(uid.clone()).or_insert((now, false));
        let due = heard && !*told && now - *begun >= bound;
        *told |= due;
        let again = Task::Close(key.clone(), uid.clone(), right.clone(), then);
        let Some(vm) = vm.filter(|_| due) else {
            return self.next(host, run, 1_000, again);
        };
        let stuck = CopyReport::new(right, CopyPhase::CloseStuck);
        let patch = match key {
            Key::Target(_) => Patch::Incoming(vm, uid, stuck),
            Key::Vm(_) | Key::Source(_) => Patch::Runtime(vm, uid, stuck),
        };
        let say = Task::Say(key, patch, Some(Box::new(again)));
        self.next(host, run, 5, say);
    }

    fn check_superseded(
        &mut self,
        host: usize,
        run: u64,
        vm: usize,
        uid: VmUid,
        running: Assignment,
    ) {
        let key = Key::Vm(uid.clone());
        if !self.agent_reaches(host) || !self.sees_version(host) {
            return self.release(host, &key);
        }
        let fresh = self.api.objects.vms[vm].clone();
        let rights = &fresh.rights;
        let gone = !fresh.exists || fresh.uid != uid;
        let forgets = self.mutant == Mutant::ForgetsVersions;
        if !gone && !forgets {
            let memory = &mut self.machines[host].memory;
            if !memory.see_epoch(&uid, running.epoch, rights.last_epoch) {
                return self.release(host, &key);
            }
        }
        let higher = rights
            .assignment
            .as_ref()
            .is_some_and(|other| *other != running && other.epoch > running.epoch);
        let kept = rights.incoming.as_ref() == Some(&running);
        if gone || kept || !higher {
            return self.release(host, &key);
        }
        self.next(host, run, 1, Task::Close(key, uid, running, None));
    }

    /// A guest whose disk failed runs on here, where it is assigned, once the storage answers.
    fn resume_stalled(&mut self, host: usize, run: u64, vm: usize, uid: VmUid, right: Assignment) {
        let key = Key::Vm(uid.clone());
        let fresh = self.reads_assigned(host, vm, &uid, &right);
        let stands = fresh.is_some_and(|fresh| fresh.rights.incoming.is_none());
        let machine = &self.machines[host];
        let answers = machine.on_storage(self.now) && self.now >= machine.disks_fail_until;
        let stalled = machine.domains.get(&uid).is_some_and(|domain| {
            domain.epoch == right.epoch && domain.state == DomainState::Stalled && !domain.ending
        });
        if !(stands && answers && stalled && machine.acts()) {
            return self.release(host, &key);
        }
        let (boot, wait) = (machine.boots, self.rng.range(5, 50));
        let resume = Step::Resume(uid, run, Box::new(Task::Done(key)));
        self.push(wait, Event::Libvirt(host, boot, resume));
    }

    fn shut_down(&mut self, host: usize, run: u64, vm: usize, uid: VmUid, right: Assignment) {
        // A restored API may want halted what its user has started since.
        if !self.agent_reaches(host) || !self.sees_version(host) {
            return self.release(host, &Key::Vm(uid));
        }
        let report = CopyReport::new(right.clone(), CopyPhase::Stopping);
        self.apply(host, Patch::Runtime(vm, uid.clone(), report));
        let boot = self.machines[host].boots;
        let takes = self.rng.range(500, 5_000);
        self.push(
            takes,
            Event::Libvirt(host, boot, Step::GuestDown(uid.clone(), right.epoch)),
        );
        let then = self.report_closed(host, vm, &uid, &right, CloseCause::Requested);
        let close = Task::Close(Key::Vm(uid.clone()), uid, right, then);
        self.next(host, run, takes + 50, close);
    }
}
