//! A job of libvirt that sends a guest to another host, from its first byte to the last trace that its source
//! clears up. The order at switch-over is libvirt's: the guest stands still, the target has finished (until then its
//! libvirt holds the copy, and destroys it when the source fails), the source's QEMU is ended, and only later
//! does the source's libvirt return from the move. The agent of the source says the hand-over as soon as that QEMU is dead
//! (decision 0019).

use failover::agent::ledger::EpochState;
use model::{Assignment, VmUid};

use crate::agent::Task;
use crate::libvirt::Step;
use crate::machine::{Domain, DomainState};
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// How long the agent of a source takes to see that its QEMU is dead, milliseconds (departure.rs of
/// agent/hypervisor/src/libvirt looks every 4).
const SEEN_WITHIN: u64 = 8;
/// Of a thousand deaths so many are not seen: an event was lost, or the process was not known. Then libvirt's word counts.
const UNSEEN: u64 = 150;
/// The same while hand-overs are disturbed; so many agents die then, so often libvirt takes long to clear up, and so often
/// it calls a move failed whose source is gone.
const UNSEEN_DISTURBED: u64 = 400;
const AGENT_DIES: u64 = 500;
const CLEARS_LATE: u64 = 200;
const CLEARS_BADLY: u64 = 300;

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

impl World {
    /// Both ends of a job are there and reach each other.
    fn job_connected(&self, host: usize, job: &Job) -> bool {
        let target = &self.machines[job.to];
        self.machines[host].on_management(self.now)
            && target.on_management(self.now)
            && target.boots == job.to_boot
    }

    pub(crate) fn job_begins(&mut self, host: usize, job: Job) {
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
                state: DomainState::Arriving,
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

    pub(crate) fn job_switches(&mut self, host: usize, job: Job) {
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
        if self.mutant == Mutant::HandsOverStopped {
            self.agent_sees(host, &job, 1);
        }
        let (after, step) = if self.source_dies(false) {
            (self.rng.range(1, takes), Step::Dies(Box::new(job)))
        } else {
            (takes, Step::Finish(Box::new(job)))
        };
        self.push(after, Event::Libvirt(host, boot, step));
    }

    pub(crate) fn job_finishes(&mut self, host: usize, job: Job) {
        let lost = self.now < self.finish_lost_until || !self.job_connected(host, &job);
        // libvirt's source lets the guest run on when the last reply is lost; sometimes it is
        // left paused, when libvirt itself was restarted.
        let left_paused = self.rng.chance(250);
        if !self.machines[host].domains.contains_key(&job.uid) {
            self.drop_arrival(&job);
            return self.job_ended(host, job, false);
        }
        if self.job_connected(host, &job) || self.rng.chance(500) {
            self.target_finished(&job);
        } else {
            // Its libvirt was not reached any more, and finds the connection gone.
            let learns = self.rng.range(5_000, 30_000);
            let drop = Step::Drop(Box::new(job.clone()));
            self.push(learns, Event::Libvirt(job.to, job.to_boot, drop));
        }
        // It can also die by itself when the target has finished and its own libvirt has not heard of it.
        let dies = self.source_dies(true);
        if dies || !lost {
            return self.source_is_dead(host, job, !dies);
        }
        let Some(domain) = self.machines[host].domains.get_mut(&job.uid) else {
            return;
        };
        domain.job = None;
        if !left_paused {
            domain.state = DomainState::Running;
        }
        self.tell(
            "finishLost",
            &[("vm", &job.uid), ("sourceRunsOn", &!left_paused)],
        );
        self.writers_changed();
        self.job_ended(host, job, false);
    }

    /// Whether the QEMU of a move's source dies by itself now.
    fn source_dies(&self, finished: bool) -> bool {
        let (until, when) = self.source_dies;
        self.now < until && when == finished
    }

    /// The target's libvirt has taken the copy in and holds it no more.
    fn target_finished(&mut self, job: &Job) {
        let target = &mut self.machines[job.to];
        if let Some(domain) = target.domains.get_mut(&job.uid)
            && target.boots == job.to_boot
            && domain.epoch == job.target.epoch
            && domain.state == DomainState::Arriving
        {
            domain.state = DomainState::Paused;
        }
    }

    /// Before the target has finished: what it received is destroyed when its libvirt learns of the death, from the
    /// source's, or when their connection is found to be gone.
    pub(crate) fn source_died(&mut self, host: usize, job: Job) {
        if !self.machines[host].domains.contains_key(&job.uid) {
            return self.job_ended(host, job, false);
        }
        let learns = if self.job_connected(host, &job) {
            self.rng.range(5, 3_000)
        } else {
            self.rng.range(5_000, 30_000)
        };
        let drop = Step::Drop(Box::new(job.clone()));
        self.push(learns, Event::Libvirt(job.to, job.to_boot, drop));
        self.source_is_dead(host, job, false);
    }

    /// The source's QEMU is dead; libvirt shows its domain until it has cleared up.
    fn source_is_dead(&mut self, host: usize, job: Job, as_told: bool) {
        if let Some(domain) = self.machines[host].domains.get_mut(&job.uid) {
            domain.state = DomainState::Dead;
        }
        let name = self.names[host].clone();
        self.tell(
            "sourceDead",
            &[("vm", &job.uid), ("host", &name), ("asTold", &as_told)],
        );
        let disturbed = self.now < self.hand_over_disturbed_until;
        let seen = self.rng.below(SEEN_WITHIN);
        let unseen = if disturbed { UNSEEN_DISTURBED } else { UNSEEN };
        if !self.rng.chance(unseen) {
            self.agent_sees(host, &job, seen);
        }
        if disturbed && self.rng.chance(AGENT_DIES) {
            let (after, span) = (self.rng.range(0, 400), self.rng.range(300, 5_000));
            let run = self.machines[host].agent.run;
            self.push(after, Event::AgentDown(host, run, span));
        }
        let clears = if disturbed && self.rng.chance(CLEARS_LATE) {
            self.rng.range(2_000, 80_000)
        } else {
            self.rng.range(200, 2_000)
        };
        let migrated = as_told && !(disturbed && self.rng.chance(CLEARS_BADLY));
        let boot = self.machines[host].boots;
        let cleared = Step::Cleared(Box::new(job), migrated);
        self.push(clears, Event::Libvirt(host, boot, cleared));
    }

    fn agent_sees(&mut self, host: usize, job: &Job, after: u64) {
        let departed = Task::Departed(Box::new(job.clone()));
        self.push(after, Event::Task(host, job.run, Box::new(departed)));
    }

    pub(crate) fn job_cleared(&mut self, host: usize, job: Job, migrated: bool) {
        let hangs = self.machines[host].clearing_hangs_until;
        if self.now < hangs {
            let boot = self.machines[host].boots;
            let cleared = Step::Cleared(Box::new(job), migrated);
            return self.push(hangs - self.now, Event::Libvirt(host, boot, cleared));
        }
        let domains = &mut self.machines[host].domains;
        let shown = domains.get(&job.uid).is_some_and(|domain| {
            domain.state == DomainState::Dead && domain.epoch == job.source.epoch
        });
        if shown {
            domains.remove(&job.uid);
        }
        let (name, uid) = (self.names[host].clone(), job.uid.clone());
        self.tell(
            "cleared",
            &[("vm", &uid), ("host", &name), ("migrated", &migrated)],
        );
        self.job_ended(host, job, migrated);
    }

    /// libvirt's target drops what has arrived of a job that breaks before it has finished.
    pub(crate) fn drop_arrival(&mut self, job: &Job) {
        let target = &mut self.machines[job.to];
        let ours = target.domains.get(&job.uid).is_some_and(|domain| {
            domain.epoch == job.target.epoch && domain.state == DomainState::Arriving
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
        let ended = Task::JobEnded(Box::new(job), migrated);
        self.push(5, Event::Task(host, run, Box::new(ended)));
    }
}
