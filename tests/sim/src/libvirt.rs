//! libvirt and QEMU of a host: they outlive the agent, and finish what it began. The hook of
//! the platform asks the ledger before any process starts.

use failover::agent::ledger::EpochState;
use model::{Assignment, Epoch, VmUid};

use crate::agent::Task;
use crate::machine::{Domain, DomainState};
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// A job that sends a guest to another host.
#[derive(Clone, Debug)]
pub struct Job {
    /// Index of the move.
    pub index: usize,
    /// Run of the source's agent that began it.
    pub run: u64,
    /// Index of the VM.
    pub vm: usize,
    /// The VM.
    pub uid: VmUid,
    /// The source.
    pub source: Assignment,
    /// The target.
    pub target: Assignment,
    /// Index of the target's host.
    pub to: usize,
    /// Boot of the target's host when it began.
    pub to_boot: u64,
}

/// What libvirt does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// The hook is asked, and QEMU made: VM, its disk, the right, the waiting agent's run.
    Start(usize, usize, VmUid, Assignment, u64),
    /// QEMU runs its guest.
    Runs(VmUid, Assignment, u64),
    /// A domain is gone; the waiting agent goes on.
    Destroyed(VmUid, u64, Box<Task>),
    /// A guest has shut itself down.
    GuestDown(VmUid, Epoch),
    /// A guest that arrived is let run; the waiting agent goes on.
    Resume(VmUid, u64, Box<Task>),
    /// A job begins: the target's process is made.
    Send(Box<Job>),
    /// Memory is copied: the guest is switched over.
    Switch(Box<Job>),
    /// The last reply of a job.
    Finish(Box<Job>),
}

impl World {
    /// libvirt's next step on a host, in the boot in which it was begun.
    pub fn libvirt(&mut self, host: usize, boot: u64, step: Step) {
        let machine = &self.machines[host];
        if !machine.power || !machine.up || machine.boots != boot {
            return;
        }
        if self.now < machine.hung_until {
            let after = machine.hung_until - self.now + 1;
            return self.push(after, Event::Libvirt(host, boot, step));
        }
        match step {
            Step::Start(vm, volume, uid, right, run) => {
                self.hook_and_start(host, vm, volume, uid, right, run)
            }
            Step::Runs(uid, right, run) => {
                let domain = self.machines[host].domains.get_mut(&uid);
                let ok = domain.is_some_and(|domain| {
                    let same = domain.epoch == right.epoch && !domain.ending;
                    if same {
                        domain.state = DomainState::Running;
                    }
                    same
                });
                if ok {
                    let (name, epoch) = (self.names[host].clone(), right.epoch);
                    self.tell(
                        "vmRuns",
                        &[("vm", &uid), ("host", &name), ("epoch", &epoch)],
                    );
                    self.writers_changed();
                }
                self.push(
                    1,
                    Event::Task(host, run, Box::new(Task::StartEnded(uid, right, ok))),
                );
            }
            Step::Destroyed(uid, run, then) => {
                if self.machines[host].domains.remove(&uid).is_some() {
                    let name = self.names[host].clone();
                    self.tell("domainGone", &[("vm", &uid), ("host", &name)]);
                }
                self.push(1, Event::Task(host, run, then));
            }
            Step::GuestDown(uid, epoch) => {
                let now = self.now;
                let machine = &mut self.machines[host];
                if now < machine.close_hangs_until {
                    return;
                }
                if machine
                    .domains
                    .get(&uid)
                    .is_some_and(|domain| domain.epoch == epoch)
                {
                    machine.domains.remove(&uid);
                }
            }
            Step::Resume(uid, run, then) => {
                let resumed = self.machines[host]
                    .domains
                    .get_mut(&uid)
                    .is_some_and(|domain| {
                        let here = !domain.ending;
                        if here {
                            domain.state = DomainState::Running;
                        }
                        here
                    });
                if resumed {
                    let name = self.names[host].clone();
                    self.tell("vmResumes", &[("vm", &uid), ("host", &name)]);
                    self.writers_changed();
                    self.push(1, Event::Task(host, run, then));
                }
            }
            Step::Send(job) => self.job_begins(host, *job),
            Step::Switch(job) => self.job_switches(host, *job),
            Step::Finish(job) => self.job_finishes(host, *job),
        }
    }

    fn hook_and_start(
        &mut self,
        host: usize,
        vm: usize,
        volume: usize,
        uid: VmUid,
        right: Assignment,
        run: u64,
    ) {
        let forgets = matches!(self.mutant, Mutant::LedgerForgets | Mutant::HookPasses);
        let now = self.now;
        let machine = &mut self.machines[host];
        let firings = machine.guard.firings;
        let entry = machine.ledger.entry(uid.clone()).or_default();
        let allowed = entry.start(right.epoch.0, firings).is_ok() || forgets;
        let fails = now < machine.start_fails_until || machine.domains.contains_key(&uid);
        if !allowed || fails || now < machine.storage_until || self.cut[host].is_some() {
            let ended = Task::StartEnded(uid, right, false);
            return self.push(50, Event::Task(host, run, Box::new(ended)));
        }
        machine.domains.insert(
            uid.clone(),
            Domain {
                uid: uid.clone(),
                vm,
                volume,
                boot_id: right.boot_id.clone(),
                epoch: right.epoch,
                state: DomainState::Starting,
                ending: false,
                job: None,
                abort: false,
            },
        );
        let boot = machine.boots;
        self.checker.started(&uid, right.epoch.0);
        let takes = self.rng.range(200, 1_500);
        self.push(
            takes,
            Event::Libvirt(host, boot, Step::Runs(uid, right, run)),
        );
    }

    /// Both ends of a job are there and reach each other.
    fn job_connected(&self, host: usize, job: &Job) -> bool {
        let target = &self.machines[job.to];
        self.machines[host].on_management(self.now)
            && target.on_management(self.now)
            && target.boots == job.to_boot
    }

    fn job_begins(&mut self, host: usize, job: Job) {
        let running = self.machines[host]
            .domains
            .get(&job.uid)
            .is_some_and(|domain| {
                domain.state == DomainState::Running && !domain.ending && domain.job.is_none()
            });
        let connected = self.job_connected(host, &job);
        let target = &mut self.machines[job.to];
        let firings = target.guard.firings;
        let entry = target.ledger.entry(job.uid.clone()).or_default();
        let allowed = entry.state(job.target.epoch.0) == Some(EpochState::Used)
            && !target.domains.contains_key(&job.uid);
        if !running || !connected || !allowed || entry.start(job.target.epoch.0, firings).is_err() {
            return self.job_ended(host, job, false);
        }
        let volume = self.api.objects.vms[job.vm].volume;
        target.domains.insert(
            job.uid.clone(),
            Domain {
                uid: job.uid.clone(),
                vm: job.vm,
                volume,
                boot_id: job.target.boot_id.clone(),
                epoch: job.target.epoch,
                state: DomainState::Paused,
                ending: false,
                job: None,
                abort: false,
            },
        );
        self.checker.started(&job.uid, job.target.epoch.0);
        let boot = self.machines[host].boots;
        if let Some(domain) = self.machines[host].domains.get_mut(&job.uid) {
            domain.job = Some(job.to);
            domain.abort = false;
        }
        let takes = self.rng.range(500, 6_000);
        self.push(
            takes,
            Event::Libvirt(host, boot, Step::Switch(Box::new(job))),
        );
    }

    fn job_switches(&mut self, host: usize, job: Job) {
        let connected = self.job_connected(host, &job);
        let boot = self.machines[host].boots;
        let Some(domain) = self.machines[host].domains.get_mut(&job.uid) else {
            self.drop_arrival(&job);
            return self.job_ended(host, job, false);
        };
        if domain.abort || !connected {
            domain.job = None;
            self.drop_arrival(&job);
            return self.job_ended(host, job, false);
        }
        domain.state = DomainState::Paused;
        let takes = self.rng.range(20, 300);
        self.push(
            takes,
            Event::Libvirt(host, boot, Step::Finish(Box::new(job))),
        );
    }

    fn job_finishes(&mut self, host: usize, job: Job) {
        let lost = self.now < self.finish_lost_until || !self.job_connected(host, &job);
        // libvirt's source lets the guest run on when the last reply is lost; sometimes it is
        // left paused, when libvirt itself was restarted.
        let left_paused = self.rng.chance(250);
        let Some(domain) = self.machines[host].domains.get_mut(&job.uid) else {
            return self.job_ended(host, job, false);
        };
        domain.job = None;
        if lost {
            if !left_paused {
                domain.state = DomainState::Running;
            }
            self.tell(
                "finishLost",
                &[("vm", &job.uid), ("sourceRunsOn", &!left_paused)],
            );
            self.writers_changed();
            return self.job_ended(host, job, false);
        }
        self.machines[host].domains.remove(&job.uid);
        self.job_ended(host, job, true);
    }

    /// Before switch-over libvirt's target drops what has arrived when the stream breaks.
    fn drop_arrival(&mut self, job: &Job) {
        let target = &mut self.machines[job.to];
        let ours = target.domains.get(&job.uid).is_some_and(|domain| {
            domain.epoch == job.target.epoch && domain.state == DomainState::Paused
        });
        if ours && target.boots == job.to_boot {
            target.domains.remove(&job.uid);
        }
    }

    fn job_ended(&mut self, host: usize, job: Job, migrated: bool) {
        if let Some(domain) = self.machines[host].domains.get_mut(&job.uid) {
            domain.job = None;
        }
        let run = job.run;
        let ended = Task::JobEnded(job.index, job.vm, job.uid, job.source, migrated);
        self.push(5, Event::Task(host, run, Box::new(ended)));
    }
}
