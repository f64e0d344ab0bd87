//! libvirt and QEMU of a host: they outlive the agent, and finish what it began. The hook of
//! the platform asks the ledger before any process starts.

use model::{Assignment, Epoch, VmUid};

use crate::agent::Task;
use crate::job::Job;
use crate::machine::{Domain, DomainState};
use crate::mutant::Mutant;
use crate::world::{Event, World};

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
    /// The source's QEMU dies by itself while its guest stands still for the switch-over.
    Dies(Box<Job>),
    /// The target's libvirt destroys what it received of a job that never finished.
    Drop(Box<Job>),
    /// The source's libvirt has cleared up after a QEMU that is dead; whether it calls the job migrated.
    Cleared(Box<Job>, bool),
}

impl World {
    /// libvirt's next step on a host, in the boot in which it was begun.
    pub fn libvirt(&mut self, host: usize, boot: u64, step: Step) {
        let machine = &self.machines[host];
        if !machine.power || !machine.up || machine.boots != boot {
            return;
        }
        if self.now < machine.hung_until {
            // Faults may all be ended before.
            let after = (machine.hung_until - self.now + 1).min(crate::machine::THAWS_WITHIN);
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
            Step::Resume(uid, run, then) => self.resume(host, run, uid, *then),
            Step::Send(job) => self.job_begins(host, *job),
            Step::Switch(job) => self.job_switches(host, *job),
            Step::Finish(job) => self.job_finishes(host, *job),
            Step::Dies(job) => self.source_died(host, *job),
            Step::Drop(job) => self.drop_arrival(&job),
            Step::Cleared(job, migrated) => self.job_cleared(host, *job, migrated),
        }
    }

    /// A guest is let run: its disks are opened and locked first, which fails where the host does not reach its storage.
    fn resume(&mut self, host: usize, run: u64, uid: VmUid, then: Task) {
        let cut = self.cut[host].is_some();
        let now = self.now;
        let machine = &mut self.machines[host];
        let reaches = machine.on_storage(now) && !cut;
        let domain = machine.domains.get_mut(&uid);
        let domain = domain.filter(|domain| reaches && !domain.ending);
        let resumed = domain.is_some();
        if let Some(domain) = domain {
            domain.state = DomainState::Running;
        }
        if resumed {
            let name = self.names[host].clone();
            self.tell("vmResumes", &[("vm", &uid), ("host", &name)]);
            self.writers_changed();
        }
        let then = match then {
            Task::Resumed(index) if !resumed => Task::NotResumed(index),
            then => then,
        };
        self.push(1, Event::Task(host, run, Box::new(then)));
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
}
