//! A live migration on its two hosts: what `failover::agent::moving` decides, and what libvirt
//! makes of it.

use failover::agent::ledger::EpochState;
use failover::agent::moving::{self, SourceFacts, SourceStep, TargetFacts, TargetStep};
use failover::copy::CopyPhase;
use failover::migration::{SourcePhase, TargetPhase};

use super::{Cluster, Domain, Host, Job, Report, State, Task};
use crate::mutation::Mutation;
use crate::words::Slot;

fn carries(host: &Host, slot: Slot) -> Option<Domain> {
    host.domain.filter(|domain| domain.epoch == slot.epoch)
}

impl Cluster {
    fn sides(state: &State) -> Option<(Slot, Slot)> {
        state.api.moving.sides
    }

    fn mine(state: &State, index: u8, slot: Slot) -> Option<Host> {
        let host = state.hosts[usize::from(index)];
        let mine = slot.host == index && slot.boot == host.boot;
        (host.on && !host.isolated && mine).then_some(host)
    }

    /// The agent's next step as the source.
    pub(super) fn source(&self, state: &State, index: u8) -> Option<State> {
        let (source, target) = Self::sides(state)?;
        let host = Self::mine(state, index, source)?;
        let object = state.api.moving;
        let copy = carries(&host, source);
        let mut next = *state;
        match host.task {
            Task::Sending => return self.sending(state, source, target),
            Task::Aborting => {
                match state.job {
                    Job::Switched | Job::Finished | Job::Ended | Job::Died => return None,
                    Job::Copying => {
                        self.job_ends(&mut next, target);
                        return Some(next);
                    }
                    _ => {}
                }
                // The job is over: it looks again at what became of the guest.
                next.hosts[usize::from(index)].task = Task::Idle;
                // What stands still is here as well where nothing was begun.
                let here = |domain: Domain| domain.runs || object.source.is_none();
                if copy.is_some_and(here) || self.lacks(Mutation::SayRunningUnseen) {
                    next.api.moving.source = Some(SourcePhase::StillRunning);
                }
                return Some(next);
            }
            Task::Idle => {}
            _ => return None,
        }
        let step = moving::source(SourceFacts {
            said: object.source,
            target: object.target,
            abort_requested: object.abort,
            ended: object.ended.is_some(),
            sending: false,
            epoch: host.ledger.state(source.epoch),
            running: copy.is_some_and(|domain| domain.runs),
            paused: copy.is_some_and(|domain| !domain.runs),
        })?;
        match step {
            SourceStep::Send => {
                let rights = state.api.rights;
                let right = rights.assignment == Some(source) && rights.incoming == Some(target);
                if !(right || self.lacks(Mutation::PrepareBeforeIncoming)) {
                    return None;
                }
                next.api.moving.source = Some(SourcePhase::Migrating);
                next.hosts[usize::from(index)].task = Task::Sending;
            }
            SourceStep::SayRunning => next.hosts[usize::from(index)].task = Task::Aborting,
            SourceStep::SayHandedOver => {
                next.api.moving.source = Some(SourcePhase::HandedOver);
            }
            SourceStep::GiveUp => {
                let job = matches!(
                    state.job,
                    Job::Copying | Job::Switched | Job::Finished | Job::Ended | Job::Died
                );
                return (!job).then(|| self.close(state, index, source.epoch));
            }
            SourceStep::SayClosed => next.api.moving.source = Some(SourcePhase::Closed),
        }
        Some(next)
    }

    fn sending(&self, state: &State, source: Slot, target: Slot) -> Option<State> {
        let object = state.api.moving;
        let mut next = *state;
        let epoch = i64::from(source.epoch);
        let copy = carries(&state.hosts[usize::from(source.host)], source);
        let runs = copy.is_some_and(|domain| domain.runs);
        match state.job {
            // Its QEMU is dead and the guest did not run again: whatever libvirt says later.
            Job::Switched | Job::Finished | Job::Ended | Job::Died
                if copy.is_some_and(|domain| self.counts_as_gone(domain)) =>
            {
                let me = &mut next.hosts[usize::from(source.host)];
                let _ = me.ledger.change(|entry| entry.hand_over(epoch));
                me.task = Task::Idle;
            }
            Job::None => {
                let there = &mut next.hosts[usize::from(target.host)];
                let begun = runs
                    && there.on
                    && there.boot == target.boot
                    && there.domain.is_none()
                    && there
                        .ledger
                        .change(|entry| entry.start(i64::from(target.epoch), 0));
                if begun {
                    there.domain = Some(Domain {
                        runs: false,
                        whole: false,
                        ..Domain::started(target.boot, target.epoch)
                    });
                }
                next.job = if begun { Job::Copying } else { Job::Failed };
            }
            Job::Copying | Job::Switched | Job::Finished
                if object.abort && self.lacks(Mutation::SayRunningEarly) =>
            {
                next.api.moving.source = Some(SourcePhase::StillRunning);
                next.hosts[usize::from(source.host)].task = Task::Idle;
            }
            Job::Copying if object.abort || object.cancel => self.job_ends(&mut next, target),
            Job::Copying | Job::Switched | Job::Finished | Job::Ended | Job::Died => return None,
            Job::Migrated => {
                let me = &mut next.hosts[usize::from(source.host)];
                let _ = me.ledger.change(|entry| entry.hand_over(epoch));
                me.task = Task::Idle;
                next.job = Job::None;
            }
            // The guest ran again, and then its QEMU died: that is no hand-over.
            Job::Failed if copy.is_none() && self.lacks(Mutation::HandOverOfAny) => {
                let me = &mut next.hosts[usize::from(source.host)];
                let _ = me.ledger.change(|entry| entry.hand_over(epoch));
                me.task = Task::Idle;
            }
            Job::Failed if runs => {
                next.api.moving.source = Some(SourcePhase::StillRunning);
                next.hosts[usize::from(source.host)].task = Task::Idle;
                next.job = Job::None;
            }
            Job::Failed => {
                next = self.close(state, source.host, source.epoch);
                next.job = Job::None;
            }
        }
        Some(next)
    }

    /// What the source's agent takes for a copy that never runs here again (decision 0019).
    fn counts_as_gone(&self, copy: Domain) -> bool {
        copy.dead || (self.lacks(Mutation::HandOverStopped) && !copy.runs)
    }

    /// The job ends before switch-over: libvirt drops the copy that was arriving.
    fn job_ends(&self, next: &mut State, target: Slot) {
        let there = &mut next.hosts[usize::from(target.host)];
        if carries(there, target).is_some_and(|domain| !domain.whole) {
            there.domain = None;
        }
        next.job = Job::Failed;
    }

    /// The agent's next step as the target.
    pub(super) fn target(&self, state: &State, index: u8) -> Option<State> {
        let (source, target) = Self::sides(state)?;
        let host = Self::mine(state, index, target)?;
        let copy = carries(&host, target);
        let mut next = *state;
        let me = &mut next.hosts[usize::from(index)];
        match host.task {
            Task::Prepared => {
                me.task = Task::Idle;
                next.api.moving.target = Some(TargetPhase::Prepared);
                return Some(next);
            }
            Task::Resumed => {
                me.task = Task::Idle;
                next.api.moving.target = Some(TargetPhase::Resumed);
                next.api.incoming_report = Some(Report {
                    slot: target,
                    phase: CopyPhase::Running,
                });
                return Some(next);
            }
            Task::Idle => {}
            _ => return None,
        }
        match Self::target_step(state, &host, target)? {
            TargetStep::Prepare => {
                let right = state.api.rights.incoming == Some(target);
                if !(right || self.lacks(Mutation::PrepareBeforeIncoming)) {
                    return None;
                }
                let late = self.lacks(Mutation::TargetWritesLate);
                let taken = late
                    || me
                        .ledger
                        .change(|entry| entry.take(i64::from(target.epoch), 0));
                me.task = if taken { Task::Prepared } else { return None };
            }
            TargetStep::Receive => {
                let there = copy?;
                let resumes = there.whole && self.may_resume(state, source);
                if !(there.runs || resumes) {
                    return None;
                }
                me.task = Task::Resumed;
                if let Some(domain) = &mut me.domain {
                    domain.runs = true;
                }
            }
            TargetStep::Refuse => return Some(self.close(state, index, target.epoch)),
            TargetStep::SayRefused => next.api.moving.target = Some(TargetPhase::Refused),
        }
        Some(next)
    }

    /// What the target's agent decides.
    fn target_step(state: &State, host: &Host, target: Slot) -> Option<TargetStep> {
        let object = state.api.moving;
        let copy = carries(host, target);
        moving::target(TargetFacts {
            said: object.target,
            source: object.source,
            abort_requested: object.abort,
            refuse_requested: object.refuse,
            epoch: host.ledger.state(target.epoch),
            copy: copy.is_some(),
            ran: copy.is_some_and(|domain| domain.runs),
        })
    }

    /// The copy was handed over and can not be let run: that is said, and tried again.
    pub(super) fn resume_fails(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.resume_failures = next.left.resume_failures.checked_sub(1)?;
        let (source, target) = Self::sides(state)?;
        let host = Self::mine(state, index, target)?;
        carries(&host, target).filter(|copy| copy.whole && !copy.runs)?;
        let tries = host.task == Task::Idle
            && Self::target_step(state, &host, target) == Some(TargetStep::Receive)
            && self.may_resume(state, source);
        if !tries {
            return None;
        }
        next.api.moving.target = Some(TargetPhase::Arrived);
        next.disturbed = true;
        Some(next)
    }

    /// The target resumes on the hand-over, which the API tells, or the source when asked.
    fn may_resume(&self, state: &State, source: Slot) -> bool {
        let said = state.api.moving.source;
        let there = state.hosts[usize::from(source.host)];
        let asked = there.on
            && there.boot == source.boot
            && there.ledger.state(source.epoch) == Some(EpochState::HandedOver);
        let silent = !there.on || there.boot != source.boot;
        said == Some(SourcePhase::HandedOver)
            || asked
            || (self.lacks(Mutation::ResumeOnSilence) && silent)
            || (self.lacks(Mutation::ResumeOnClosed) && said == Some(SourcePhase::Closed))
    }

    /// Switch-over: the source is paused; the target's libvirt holds the copy.
    pub(super) fn switch(&self, state: &State) -> Option<State> {
        let (source, target) = Self::sides(state)?;
        if state.job != Job::Copying {
            return None;
        }
        let mut next = *state;
        let here = next.hosts[usize::from(source.host)].domain.as_mut()?;
        here.runs = false;
        next.hosts[usize::from(target.host)].domain.as_ref()?;
        next.job = Job::Switched;
        Some(next)
    }

    /// The target finishes: the copy is whole.
    pub(super) fn target_finishes(&self, state: &State) -> Option<State> {
        let (_, target) = Self::sides(state)?;
        if state.job != Job::Switched {
            return None;
        }
        let mut next = *state;
        let there = next.hosts[usize::from(target.host)].domain.as_mut()?;
        there.whole = true;
        there.runs = self.lacks(Mutation::ArrivesRunning);
        next.job = Job::Finished;
        Some(next)
    }

    /// The Finish reply arrives: the source's process ends, and libvirt shows it still.
    pub(super) fn job_finishes(&self, state: &State) -> Option<State> {
        (state.job == Job::Finished)
            .then(|| self.source_ends(state, Job::Ended))
            .flatten()
    }

    /// The source's QEMU dies while its guest stands still: libvirt ended it, or it crashed.
    fn source_ends(&self, state: &State, job: Job) -> Option<State> {
        let (source, _) = Self::sides(state)?;
        let mut next = *state;
        let here = &mut next.hosts[usize::from(source.host)].domain;
        here.as_mut()?.dead = true;
        next.job = job;
        Some(next)
    }

    /// A host's QEMU crashes in the middle of a switch-over that sends it away.
    pub(super) fn dies_at_switch_over(&self, state: &State, index: u8) -> Option<State> {
        let (source, _) = Self::sides(state)?;
        let stands = matches!(state.job, Job::Switched | Job::Finished);
        (stands && source.host == index)
            .then(|| self.source_ends(state, Job::Died))
            .flatten()
    }

    /// The source's libvirt has cleared up, and calls the job migrated, or failed.
    pub(super) fn clear(&self, state: &State, migrated: bool) -> Option<State> {
        let (source, _) = Self::sides(state)?;
        if !matches!(state.job, Job::Ended | Job::Died) {
            return None;
        }
        let mut next = *state;
        let me = &mut next.hosts[usize::from(source.host)];
        me.domain = me.domain.filter(|domain| !domain.dead);
        next.job = match (me.task, state.job) {
            (Task::Sending, Job::Ended) if migrated => Job::Migrated,
            (Task::Sending, _) => Job::Failed,
            // Nobody waits for its answer.
            _ => Job::None,
        };
        Some(next)
    }

    /// The target's libvirt learns that a job will not finish: what it received is destroyed.
    pub(super) fn drop_arrival(&self, state: &State) -> Option<State> {
        let (_, target) = Self::sides(state)?;
        let under_way = matches!(state.job, Job::Copying | Job::Switched);
        let mut next = *state;
        let there = &mut next.hosts[usize::from(target.host)];
        let held = carries(there, target).is_some_and(|copy| !copy.whole);
        if under_way || !held {
            return None;
        }
        there.domain = None;
        Some(next)
    }

    /// The connection breaks. After switch-over libvirt's source resumes, or stays paused.
    pub(super) fn job_breaks(&self, state: &State, resumes: bool) -> Option<State> {
        let (source, target) = Self::sides(state)?;
        let mut next = *state;
        next.left.job_breaks = next.left.job_breaks.checked_sub(1)?;
        match state.job {
            Job::Copying if resumes => self.job_ends(&mut next, target),
            Job::Switched | Job::Finished => {
                self.source_left(&mut next, source, target, resumes);
            }
            Job::Ended if resumes => {
                next = State {
                    left: next.left,
                    ..self.clear(state, false)?
                };
                next.disturbed = true;
            }
            _ => return None,
        }
        next.disturbed |= !resumes;
        Some(next)
    }

    fn source_left(&self, next: &mut State, source: Slot, target: Slot, resumes: bool) {
        if let Some(here) = &mut next.hosts[usize::from(source.host)].domain {
            here.runs = resumes;
        }
        // Its disks change from now on.
        if resumes && let Some(there) = &mut next.hosts[usize::from(target.host)].domain {
            there.old_memory = true;
        }
        next.job = Job::Failed;
    }

    /// A host goes dark under a running job.
    pub(super) fn job_loses(&self, next: &mut State, index: u8) {
        let Some((source, target)) = Self::sides(next) else {
            return;
        };
        let switched = matches!(next.job, Job::Switched | Job::Finished);
        let under_way = next.job == Job::Copying || switched;
        if index == source.host {
            if under_way {
                self.job_ends(next, target);
            }
            next.job = Job::None;
        } else if index == target.host && under_way {
            next.job = Job::Failed;
            if switched {
                self.source_left(next, source, target, true);
            }
        }
    }

    /// `incoming` that stands without a move that could end it (an old leader wrote it after
    /// the move was cancelled) is taken up by a new move that is cancelled at once.
    pub(super) fn adopt(&self, state: &State) -> Option<State> {
        let incoming = state.api.rights.incoming?;
        let object = state.api.moving;
        let known = object.sides.is_some_and(|(_, target)| target == incoming);
        if object.ended.is_none() || known || self.lacks(Mutation::NeverAdopt) {
            return None;
        }
        let mut next = *state;
        next.api.moving = super::Move {
            cancel: true,
            ..super::Move::default()
        };
        next.disturbed = true;
        Some(next)
    }

    pub(super) fn late(&self, state: &State) -> Option<State> {
        let object = state.api.moving;
        if object.sides.is_none() || object.late || object.ended.is_some() {
            return None;
        }
        let mut next = *state;
        next.api.moving.late = true;
        Some(next)
    }

    pub(super) fn cancel(&self, state: &State) -> Option<State> {
        let mut next = *state;
        next.left.cancels = next.left.cancels.checked_sub(1)?;
        next.api.moving.cancel = true;
        Some(next)
    }
}
