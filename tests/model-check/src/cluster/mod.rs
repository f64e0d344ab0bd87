//! Hosts with libvirt and agents, one VM, its object in the API, a leader and an old leader
//! that was paused, and at most one live migration.
//!
//! Written as in production: a write of the operator names what it was computed from and fails
//! if that has changed. The leader decides and writes in one step; the old leader holds its
//! write for as long as it likes, so every order of two leaders is covered.

mod agent;
pub mod configurations;
mod leader;
mod moving;
mod properties;
mod restore;
mod state;
mod world;

pub use properties::ONE_WRITER;
pub use state::{Api, Domain, Effect, Faults, Host, Job, Move, Report, State, Task};

use stateright::{Model, Property};

use crate::mutation::Mutation;
use crate::words::EPOCHS;

/// A configuration of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Hosts in use.
    pub hosts: u8,
    /// What may go wrong, and how often.
    pub faults: Faults,
    /// Every host has a BMC that answers.
    pub bmc: bool,
    /// Storage can cut a host off.
    pub cuts: bool,
    /// Hosts have an armed guard whose heartbeat pool the isolation cuts off as well.
    pub guard: bool,
    /// Agents see the API as late as they like; else at once.
    pub stale_caches: bool,
    /// Libvirt starts what ran last when its host boots, against the rules.
    pub autostart: bool,
    /// The hook is installed.
    pub hook: bool,
    /// QEMU's image locking works.
    pub locking: bool,
    /// The VM is to be moved.
    pub moves: bool,
    /// Nothing that may go wrong here is a reason to stop the VM.
    pub calm: bool,
    /// Rules that are removed.
    pub without: &'static [Mutation],
}

impl Cluster {
    /// A configuration in which nothing goes wrong.
    pub const fn new(hosts: u8) -> Self {
        Self {
            hosts,
            faults: Faults::NONE,
            bmc: true,
            cuts: false,
            guard: false,
            stale_caches: false,
            autostart: false,
            hook: true,
            locking: false,
            moves: false,
            calm: false,
            without: &[],
        }
    }

    /// The same without a rule.
    #[must_use]
    pub const fn without(self, without: &'static [Mutation]) -> Self {
        Self { without, ..self }
    }

    fn lacks(&self, mutation: Mutation) -> bool {
        self.without.contains(&mutation)
    }

    fn each(&self) -> std::ops::Range<u8> {
        0..self.hosts
    }
}

/// Something that happens. Hosts are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The agent sees the API's present state.
    See(u8),
    /// The agent takes its next step for the VM.
    Agent(u8),
    /// The agent takes its next step as a migration's source.
    Source(u8),
    /// The agent takes its next step as a migration's target.
    Target(u8),
    /// Libvirt carries out a start that it was asked for.
    Libvirt(u8),
    /// The same, late.
    LibvirtLate(u8),
    /// A start in libvirt hangs.
    Hang(u8),
    /// The host's present boot is registered.
    Register(u8),
    /// The migration job reaches switch-over: the source is paused.
    Switch,
    /// The target finishes: the copy is complete and libvirt holds it no more.
    Finish,
    /// The Finish reply arrives: the source's QEMU is ended.
    End,
    /// The source's libvirt has cleared up after its dead QEMU.
    Clear,
    /// The target's libvirt destroys what it received of a job that did not finish.
    Drop,
    /// The leader reads the host's power as off, a silent window long.
    Prove(u8),
    /// The leader forces a host off that runs but is isolated.
    Fence(u8),
    /// The guard fires.
    Fire(u8),
    /// The leader has storage cut an isolated host off.
    Cut(u8),
    /// The leader has the cut lifted.
    Lift(u8),
    /// The leader decides about the VM and writes; the number names the host chosen.
    Vm(u8),
    /// The leader decides about the move and writes.
    Move(u8),
    /// The move's time runs out.
    Late,
    /// The leader takes up an `incoming` that no move stands behind.
    Adopt,

    // Faults and other things that need not happen.
    /// Power is lost.
    PowerLoss(u8),
    /// Power is back: a new boot.
    PowerOn(u8),
    /// The agent dies and is started again.
    AgentCrash(u8),
    /// Libvirt is restarted.
    LibvirtRestart(u8),
    /// QEMU dies, at the switch-over of a move too.
    GuestCrash(u8),
    /// The host loses the management network.
    Isolate(u8),
    /// The host has it back.
    Heal(u8),
    /// The leader is paused with a decided write about the VM in its hands.
    PauseVm(u8),
    /// The same with a write about the move.
    PauseMove(u8),
    /// The paused leader wakes and writes.
    Wake,
    /// The job's connection breaks; the source runs on. Once the source is dead its libvirt calls the job failed.
    JobBreaks,
    /// The job's connection breaks at switch-over; the source stays paused.
    JobHangs,
    /// The target can not let the copy run that was handed over to it.
    ResumeFails(u8),
    /// A person cancels the move.
    Cancel,
    /// The VM's user wants it halted.
    Halt,
    /// What the API server holds is copied.
    BackUp,
    /// The copy is restored.
    Restore,
    /// Somebody meets a lower version.
    Freeze,
    /// A person rebases the fleet.
    Rebase,
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.finish(self.first())]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action as A;
        self.due(actions);
        for host in self.each() {
            actions.extend([
                A::LibvirtLate(host),
                A::Hang(host),
                A::PowerLoss(host),
                A::PowerOn(host),
                A::AgentCrash(host),
                A::LibvirtRestart(host),
                A::GuestCrash(host),
                A::Isolate(host),
                A::Heal(host),
                A::PauseVm(host),
            ]);
            if self.moves {
                actions.extend([A::PauseMove(host), A::ResumeFails(host)]);
            }
        }
        actions.push(A::Wake);
        if self.moves {
            actions.extend([A::JobBreaks, A::JobHangs, A::Cancel]);
        }
        actions.push(A::Halt);
        if self.faults.restores > 0 {
            actions.extend([A::BackUp, A::Restore]);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action).map(|next| self.finish(next))
    }

    fn within_boundary(&self, state: &State) -> bool {
        usize::from(state.api.rights.last) < EPOCHS
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl Cluster {
    /// What happens in the end if nothing goes wrong any more. A start that hangs is not among
    /// it.
    fn due(&self, actions: &mut Vec<Action>) {
        use Action as A;
        for host in self.each() {
            actions.extend([
                A::Agent(host),
                A::Libvirt(host),
                A::Register(host),
                A::Prove(host),
                A::Vm(host),
            ]);
            if self.faults.isolations > 0 {
                actions.extend([A::Fire(host), A::Fence(host), A::Cut(host), A::Lift(host)]);
            }
            if self.stale_caches {
                actions.push(A::See(host));
            }
            if self.moves {
                actions.extend([A::Source(host), A::Target(host), A::Move(host)]);
            }
        }
        if self.moves {
            actions.extend([A::Switch, A::Finish, A::End, A::Clear, A::Drop]);
            actions.extend([A::Late, A::Adopt]);
        }
        if self.faults.restores > 0 {
            actions.extend([A::Freeze, A::Rebase]);
        }
        if self.lacks(Mutation::FenceStuckAgent) {
            actions.extend(self.each().map(A::Fence));
        }
    }

    fn step(&self, state: &State, action: Action) -> Option<State> {
        use Action as A;
        match action {
            A::See(host) => self.see(state, host),
            A::Agent(host) => self.agent(state, host),
            A::Source(host) => self.source(state, host),
            A::Target(host) => self.target(state, host),
            A::Libvirt(host) => (!state.hosts[usize::from(host)].hung)
                .then(|| self.libvirt(state, host))
                .flatten(),
            A::LibvirtLate(host) => state.hosts[usize::from(host)]
                .hung
                .then(|| self.libvirt(state, host))
                .flatten(),
            A::Hang(host) => self.hang(state, host),
            A::Register(host) => self.register(state, host),
            A::Switch => self.switch(state),
            A::Finish => self.target_finishes(state),
            A::End => self.job_finishes(state),
            A::Clear => self.clear(state, true),
            A::Drop => self.drop_arrival(state),
            A::Prove(host) => self.prove(state, host),
            A::Fence(host) => self.fence(state, host),
            A::Fire(host) => self.fire(state, host),
            A::Cut(host) => self.cut(state, host),
            A::Lift(host) => self.lift(state, host),
            A::Vm(host) => self.apply(state, self.decide_vm(state, host)?),
            A::Move(host) => self.apply(state, self.decide_move(state, host)?),
            A::Late => self.late(state),
            A::Adopt => self.adopt(state),
            A::PowerLoss(host) => self.power_loss(state, host),
            A::PowerOn(host) => self.power_on(state, host),
            A::AgentCrash(host) => self.agent_crash(state, host),
            A::LibvirtRestart(host) => self.libvirt_restart(state, host),
            A::GuestCrash(host) => self.guest_crash(state, host),
            A::Isolate(host) => self.isolate(state, host),
            A::Heal(host) => self.heal(state, host),
            A::PauseVm(host) => self.pause(state, self.decide_vm(state, host)?),
            A::PauseMove(host) => self.pause(state, self.decide_move(state, host)?),
            A::Wake => self.wake(state),
            A::JobBreaks => self.job_breaks(state, true),
            A::JobHangs => self.job_breaks(state, false),
            A::ResumeFails(host) => self.resume_fails(state, host),
            A::Cancel => self.cancel(state),
            A::Halt => self.halt(state),
            A::BackUp => self.back_up(state),
            A::Restore => self.restore(state),
            A::Freeze => self.freeze(state),
            A::Rebase => self.rebase(state),
        }
    }

    /// What follows at once from every step: caches that are not late, and whether anything
    /// is still due.
    fn finish(&self, mut state: State) -> State {
        if !self.stale_caches {
            let seen = (state.api.rights.assignment, state.api.rights.incoming);
            for host in &mut state.hosts {
                if host.on && !host.isolated {
                    host.cache = Some(seen);
                }
            }
        }
        self.remember(&mut state);
        let mut due = Vec::new();
        self.due(&mut due);
        state.quiet = due
            .into_iter()
            .all(|action| self.step(&state, action).is_none());
        state
    }
}
