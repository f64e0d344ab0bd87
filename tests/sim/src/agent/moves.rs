//! An agent's side of live migrations, with the decisions of `failover::agent::moving`.

use failover::agent::moving::{SourceFacts, SourceStep, TargetFacts, TargetStep, source, target};
use failover::copy::{CopyPhase, CopyReport};
use failover::migration::{SourcePhase, TargetPhase};
use model::{Assignment, VmUid};

use super::{Key, Patch, Task};
use crate::job::Job;
use crate::libvirt::Step;
use crate::machine::DomainState;
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// How often a target looks for the copy and the hand-over, milliseconds.
const RECEIVE_EVERY: u64 = 100;
/// How long libvirt may clear up after a source that was handed over (agent/src/migration/source.rs), milliseconds.
const CLEARED_WITHIN: u64 = 60_000;

impl World {
    /// Begins what is due for every move that concerns a host.
    pub(crate) fn move_turn(&mut self, host: usize, run: u64) {
        let moves = self.machines[host].agent.cache.moves.clone();
        for (index, object) in moves.iter().enumerate() {
            let Some((from, to)) = &object.sides else {
                continue;
            };
            let machine = &self.machines[host];
            let mine = |side: &Assignment| {
                side.host == self.names[host] && side.boot_id == machine.boot_id
            };
            let uid = VmUid(object.uid.clone());
            let entry = machine.entry(&uid);
            let domain = machine.domains.get(&uid).filter(|domain| !domain.ending);
            if mine(from) {
                let sending = machine.agent.sending.contains_key(&index);
                if sending && (object.cancel || object.abort_requested) {
                    if let Some(domain) = self.machines[host].domains.get_mut(&uid) {
                        domain.abort = true;
                    }
                    continue;
                }
                let step = source(SourceFacts {
                    said: object.source,
                    target: object.target,
                    abort_requested: object.abort_requested,
                    ended: object.outcome.is_some(),
                    sending,
                    epoch: entry.state(from.epoch.0),
                    running: domain.is_some_and(|domain| {
                        domain.epoch == from.epoch && domain.state == DomainState::Running
                    }),
                    paused: domain.is_some_and(|domain| {
                        let still = matches!(domain.state, DomainState::Paused | DomainState::Dead);
                        domain.epoch == from.epoch && still
                    }),
                });
                if let Some(step) = step.filter(|_| !machine.agent.busy_source.contains(&index)) {
                    self.source_begins(host, run, index, uid, from, step);
                }
            } else if mine(to) && !machine.agent.busy_target.contains(&index) {
                let copy = domain.filter(|domain| domain.epoch == to.epoch);
                let step = target(TargetFacts {
                    said: object.target,
                    source: object.source,
                    abort_requested: object.abort_requested,
                    refuse_requested: object.refuse_requested,
                    epoch: entry.state(to.epoch.0),
                    copy: copy.is_some(),
                    ran: copy.is_some_and(|copy| copy.state.has_run()),
                });
                if let Some(step) = step.filter(|_| object.outcome.is_none()) {
                    self.target_begins(host, run, index, uid, to.clone(), step);
                }
            }
        }
    }

    fn source_begins(
        &mut self,
        host: usize,
        run: u64,
        index: usize,
        uid: VmUid,
        from: &Assignment,
        step: SourceStep,
    ) {
        self.machines[host].agent.busy_source.insert(index);
        let say = |phase| Task::Say(Key::Source(index), Patch::Source(index, phase), None);
        let task = match step {
            SourceStep::Send => {
                self.machines[host].agent.sending.insert(index, uid);
                Task::SendRead(index)
            }
            SourceStep::SayRunning => Task::SayRunning(index),
            SourceStep::SayHandedOver => say(SourcePhase::HandedOver),
            SourceStep::SayClosed => say(SourcePhase::Closed),
            SourceStep::GiveUp => {
                let job = self.machines[host]
                    .domains
                    .get(&uid)
                    .and_then(|domain| domain.job);
                if job.is_some() {
                    return self.release(host, &Key::Source(index));
                }
                let then = Some(Box::new(say(SourcePhase::Closed)));
                Task::Close(Key::Source(index), uid, from.clone(), then)
            }
        };
        let wait = self.latency();
        self.push(wait, Event::Task(host, run, Box::new(task)));
    }

    fn target_begins(
        &mut self,
        host: usize,
        run: u64,
        index: usize,
        uid: VmUid,
        right: Assignment,
        step: TargetStep,
    ) {
        self.machines[host].agent.busy_target.insert(index);
        let key = Key::Target(index);
        let refused = Task::Say(
            key.clone(),
            Patch::Target(index, TargetPhase::Refused),
            None,
        );
        let task = match step {
            TargetStep::Prepare => Task::PrepareRead(index, self.machines[host].guard.firings),
            TargetStep::Receive => Task::Receive(index),
            TargetStep::Refuse => Task::Close(key, uid, right, Some(Box::new(refused))),
            TargetStep::SayRefused => refused,
        };
        let wait = self.latency();
        self.push(wait, Event::Task(host, run, Box::new(task)));
    }

    /// The steps of work that belong to moves.
    pub(crate) fn move_task(&mut self, host: usize, run: u64, task: Task) {
        match task {
            Task::SendRead(index) => self.send_read(host, run, index),
            Task::SendJob(index) => self.send_job(host, run, index),
            Task::JobEnded(job, migrated) => self.job_was_ended(host, *job, migrated),
            Task::Departed(job) => self.departed(host, *job),
            Task::ClearingTimedOut(index) => self.cleared(host, index),
            Task::SayRunning(index) => self.say_running(host, run, index),
            Task::PrepareRead(index, firings) => self.prepare(host, run, index, firings),
            Task::Receive(index) => self.receive(host, run, index),
            Task::Resumed(index) => self.resumed(host, run, index),
            Task::NotResumed(index) => self.not_resumed(host, run, index),
            _ => {}
        }
    }

    fn then(&mut self, host: usize, run: u64, task: Task) {
        let wait = self.latency();
        self.push(wait, Event::Task(host, run, Box::new(task)));
    }

    fn send_read(&mut self, host: usize, run: u64, index: usize) {
        let key = Key::Source(index);
        if !self.agent_reaches(host) || !self.sees_version(host) {
            return self.release(host, &key);
        }
        let object = self.api.objects.moves[index].clone();
        let vm = self.api.objects.vms[object.vm].clone();
        let right = object.sides.as_ref().is_some_and(|(from, to)| {
            vm.rights.assignment.as_ref() == Some(from)
                && vm.rights.incoming.as_ref() == Some(to)
                && self.api.claimed(&vm, to, true)
        });
        if !right {
            return self.release(host, &key);
        }
        let patch = Patch::Source(index, SourcePhase::Migrating);
        self.then(
            host,
            run,
            Task::Say(key, patch, Some(Box::new(Task::SendJob(index)))),
        );
    }

    fn send_job(&mut self, host: usize, run: u64, index: usize) {
        let object = self.api.objects.moves[index].clone();
        let sides = object.sides.clone().filter(|_| self.machines[host].acts());
        let Some((from, to)) = sides else {
            return self.release(host, &Key::Source(index));
        };
        let target = self.index_of(&to.host);
        let job = Job {
            index,
            run,
            vm: object.vm,
            uid: VmUid(object.uid.clone()),
            source: from,
            to: target,
            to_boot: self.machines[target].boots,
            target: to,
        };
        let boot = self.machines[host].boots;
        self.push(10, Event::Libvirt(host, boot, Step::Send(Box::new(job))));
    }

    fn job_was_ended(&mut self, host: usize, job: Job, migrated: bool) {
        let index = job.index;
        let key = Key::Source(index);
        let machine = &mut self.machines[host];
        if machine.agent.clearing.contains(&index) {
            // It was handed over: whatever libvirt says of it changes nothing.
            return self.cleared(host, index);
        }
        if !machine.agent.sending.contains_key(&index) {
            // Waited for no more.
            return;
        }
        if migrated {
            return self.hand_over(host, job);
        }
        let running = machine
            .domains
            .get(&job.uid)
            .is_some_and(|domain| domain.state == DomainState::Running && !domain.ending);
        let say = |phase| Task::Say(Key::Source(index), Patch::Source(index, phase), None);
        let task = if running {
            say(SourcePhase::StillRunning)
        } else {
            // Switch-over was reached and its end is not known: the VM starts anew from its disks.
            let closed = Some(Box::new(say(SourcePhase::Closed)));
            Task::Close(key, job.uid, job.source, closed)
        };
        self.then(host, job.run, task);
    }

    /// The QEMU of a source is dead and its guest did not run again: it is handed over at once, and libvirt clears up
    /// meanwhile (agent/src/migration/source.rs `gone`).
    fn departed(&mut self, host: usize, job: Job) {
        let (run, index) = (job.run, job.index);
        let agent = &mut self.machines[host].agent;
        // Whatever came first, libvirt's word or this, is acted upon.
        if agent.sending.contains_key(&index) && agent.clearing.insert(index) {
            let late = Event::Task(host, run, Box::new(Task::ClearingTimedOut(index)));
            self.push(CLEARED_WITHIN, late);
            self.hand_over(host, job);
        }
    }

    /// libvirt has cleared up after a source that was handed over, or is not waited for any longer.
    fn cleared(&mut self, host: usize, index: usize) {
        let agent = &mut self.machines[host].agent;
        if agent.clearing.remove(&index) && !agent.busy_source.contains(&index) {
            agent.sending.remove(&index);
        }
    }

    /// The ledger first: from then on the target may learn it.
    fn hand_over(&mut self, host: usize, job: Job) {
        let index = job.index;
        let (uid, from) = (job.uid, job.source);
        let key = Key::Source(index);
        let machine = &mut self.machines[host];
        let entry = machine.ledger.entry(uid.clone()).or_default();
        if entry.hand_over(from.epoch.0).is_err() {
            machine.agent.clearing.remove(&index);
            return self.release(host, &key);
        }
        let name = self.names[host].clone();
        self.tell("handedOver", &[("vm", &uid), ("host", &name)]);
        let report = CopyReport::new(from, CopyPhase::HandedOver);
        let report = Task::Say(key.clone(), Patch::Runtime(job.vm, uid, report), None);
        let patch = Patch::Source(index, SourcePhase::HandedOver);
        self.then(host, job.run, Task::Say(key, patch, Some(Box::new(report))));
    }

    /// As the agent does it: abort, see that no job is left, say that it is here. What stands still is believed to be
    /// here only where the move itself, and no cache of it, says that nothing was begun.
    fn say_running(&mut self, host: usize, run: u64, index: usize) {
        let uid = VmUid(self.api.objects.moves[index].uid.clone());
        if let Some(domain) = self.machines[host].domains.get_mut(&uid) {
            if domain.job.is_some() {
                domain.abort = true;
                return self.release(host, &Key::Source(index));
            }
            let still = matches!(domain.state, DomainState::Paused | DomainState::Dead);
            if still {
                let read = self.agent_reaches(host) && self.sees_version(host);
                if !read || self.api.objects.moves[index].source.is_some() {
                    // It was begun, and the cache will show it: then it is given up.
                    return self.release(host, &Key::Source(index));
                }
            }
        }
        let patch = Patch::Source(index, SourcePhase::StillRunning);
        self.then(host, run, Task::Say(Key::Source(index), patch, None));
    }

    fn prepare(&mut self, host: usize, run: u64, index: usize, firings: u64) {
        let key = Key::Target(index);
        if !self.agent_reaches(host) || !self.sees_version(host) {
            return self.release(host, &key);
        }
        let object = self.api.objects.moves[index].clone();
        let vm = self.api.objects.vms[object.vm].clone();
        let right = object.sides.as_ref().map(|(_, to)| to.clone());
        let Some(right) = right.filter(|to| {
            vm.rights.incoming.as_ref() == Some(to) && self.api.claimed(&vm, to, true)
        }) else {
            return self.release(host, &key);
        };
        if self.machines[host].starts_nothing {
            return self.release(host, &key);
        }
        let entry = self.machines[host]
            .ledger
            .entry(vm.uid.clone())
            .or_default();
        if entry.take(right.epoch.0, firings).is_err() {
            return self.release(host, &key);
        }
        let patch = Patch::Target(index, TargetPhase::Prepared);
        self.then(host, run, Task::Say(key, patch, None));
    }

    fn receive(&mut self, host: usize, run: u64, index: usize) {
        let machine = &self.machines[host];
        let Some(object) = machine.agent.cache.moves.get(index).cloned() else {
            return self.release(host, &Key::Target(index));
        };
        let Some((from, to)) = object.sides.clone() else {
            return self.release(host, &Key::Target(index));
        };
        if object.outcome.is_some() || !machine.acts() {
            return self.release(host, &Key::Target(index));
        }
        let uid = VmUid(object.uid.clone());
        let state = machine
            .domains
            .get(&uid)
            .filter(|domain| domain.epoch == to.epoch && !domain.ending)
            .map(|domain| domain.state);
        let source_host = self.index_of(&from.host);
        let handed = object.source == Some(SourcePhase::HandedOver)
            || (machine.on_management(self.now)
                && self.handed_over(source_host, &uid, from.epoch.0))
            || self.mutant == Mutant::ResumesEagerly;
        let kept = handed || state.is_some_and(DomainState::has_run);
        let source_runs = object.source == Some(SourcePhase::StillRunning);
        if object.refuse_requested && (!kept || source_runs) {
            return self.release(host, &Key::Target(index));
        }
        match state {
            Some(state) if state.has_run() => self.then(host, run, Task::Resumed(index)),
            Some(DomainState::Paused) if handed => {
                let boot = self.machines[host].boots;
                let wait = self.rng.range(5, 50);
                let resume = Step::Resume(uid, run, Box::new(Task::Resumed(index)));
                self.push(wait, Event::Libvirt(host, boot, resume));
            }
            // It was handed over and is gone before it was said to run: decided anew.
            None if object.source == Some(SourcePhase::HandedOver) => {
                self.release(host, &Key::Target(index));
            }
            _ => {
                let again = Event::Task(host, run, Box::new(Task::Receive(index)));
                self.push(RECEIVE_EVERY, again);
            }
        }
    }

    fn resumed(&mut self, host: usize, run: u64, index: usize) {
        let object = self.api.objects.moves[index].clone();
        let key = Key::Target(index);
        let Some((_, to)) = object.sides.clone() else {
            return self.release(host, &key);
        };
        let report = CopyReport::new(to, CopyPhase::Running);
        let uid = VmUid(object.uid.clone());
        let report = Task::Say(key.clone(), Patch::Incoming(object.vm, uid, report), None);
        let patch = Patch::Target(index, TargetPhase::Resumed);
        self.then(host, run, Task::Say(key, patch, Some(Box::new(report))));
    }

    /// The copy could not be let run: that is said when it is news, and tried again at the next turn.
    fn not_resumed(&mut self, host: usize, run: u64, index: usize) {
        let key = Key::Target(index);
        let known = self.machines[host].agent.cache.moves.get(index);
        if known.is_some_and(|object| object.target == Some(TargetPhase::Arrived)) {
            return self.release(host, &key);
        }
        let patch = Patch::Target(index, TargetPhase::Arrived);
        self.then(host, run, Task::Say(key, patch, None));
    }
}
