//! The world: virtual time, the queue of what happens next, the truth about machines and the
//! API server, and the programs that live in it. One run is a function of its plan and seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use failover::Policy;
use failover::agent::ledger::EpochState;
use failover::assignment::Rights;
use failover::copy::{CopyPhase, CopyReport};
use failover::proof::power::PowerReading;
use failover::vm::{VmPhase, Wanted};
use model::{Assignment, BootId, Epoch, HostName, VmUid};

use crate::agent::{Patch, Task};
use crate::api::{HostObject, LeaseObject, Server, VmObject, VolumeObject};
use crate::check::Checker;
use crate::faults::Fault;
use crate::libvirt::Step;
use crate::machine::{Bmc, Domain, DomainState, Machine};
use crate::mutant::Mutant;
use crate::operator::{Operator, Work};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::story::Story;

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A fault or a command of the plan.
    Fault(usize),
    /// All faults end; from here on everything must settle.
    Heal,
    /// An operator's loop goes round.
    OperatorTurn(usize, u64),
    /// An operator's write arrives at the API server (stage of a chain of writes).
    Write(usize, u64, Box<Work>, u8),
    /// A BMC is asked for the power state.
    BmcAsked(usize, u64, usize),
    /// Its answer arrives.
    BmcAnswers(usize, u64, usize, Box<PowerReading>),
    /// A force-off through one of a host's BMCs takes effect.
    ForceOff(usize, u32),
    /// The storage server is told to cut a host off (or to let it in), and read back.
    Storage(usize, u64, usize, u64, bool),
    /// The operator learns that a force-off ended.
    ForceEnded(usize, u64, usize, u32),
    /// A crashed operator is started again.
    OperatorUp(usize, u64),
    /// An agent's loop goes round; extra turns do not repeat themselves.
    AgentTurn(usize, u64, bool),
    /// The next step of an agent's work.
    Task(usize, u64, Box<Task>),
    /// An agent dies in this run, for so long.
    AgentDown(usize, u64, u64),
    /// A crashed agent is started again.
    AgentUp(usize, u64),
    /// A message of a host's agent that was given up arrives after all.
    Late(usize, Box<Patch>),
    /// Another machine under a host's name, with its system UUID or another: it reports and renews, until then.
    Twin(usize, u64, bool),
    /// libvirt or QEMU on a host, in a boot, takes its next step.
    Libvirt(usize, u64, Step),
    /// The guard's turn.
    Guard(usize),
    /// A machine is given power.
    PowerOn(usize),
    /// Its kernel comes up: machine and power cycle.
    Booted(usize, u64),
    /// The checkers look at the whole.
    Look,
}

struct Queued {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The state of the API server as a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    /// It answers nobody until then.
    pub down_until: u64,
    /// It refuses writes until then.
    pub read_only_until: u64,
    /// It loses messages and is slow until then.
    pub lossy_until: u64,
}

/// The world.
pub struct World {
    /// What is to happen in it.
    pub plan: Plan,
    /// The error that was planted, if any.
    pub mutant: Mutant,
    /// The policy of the site.
    pub policy: Policy,
    /// Chance in delays and losses.
    pub rng: Rng,
    /// Milliseconds since the start.
    pub now: u64,
    /// The API server.
    pub api: Server,
    /// Whether it serves.
    pub outage: Outage,
    /// Moves lose their last reply until then.
    pub finish_lost_until: u64,
    /// QEMU processes of moves' sources die by themselves at switch-over until then, when the target has finished or
    /// before.
    pub source_dies: (u64, bool),
    /// What follows the death of a move's source goes wrong until then.
    pub hand_over_disturbed_until: u64,
    /// Both operators believe that they lead until then.
    pub split_until: u64,
    /// A person disarmed failover until then.
    pub disarmed_until: u64,
    /// The order under which the storage server does not let each host in.
    pub cut: Vec<Option<u64>>,
    /// A backup of etcd.
    pub backup: Option<Server>,
    /// VMs that were made again under the name of one that was deleted.
    pub recreated: u64,
    /// Hosts.
    pub machines: Vec<Machine>,
    /// Operators.
    pub operators: Vec<Operator>,
    /// Names of the hosts.
    pub names: Vec<HostName>,
    /// What happened.
    pub story: Story,
    /// The judges.
    pub checker: Checker,
    /// All faults are over.
    pub healed: bool,
    /// Writes of operators so far.
    pub writes: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
}

/// Period of the checkers' look, milliseconds.
const LOOK_EVERY: u64 = 1_000;

impl World {
    /// A world at rest: every host runs, every VM of the plan runs on its host.
    pub fn new(plan: Plan, mutant: Mutant, heard: bool) -> Self {
        let names: Vec<HostName> = (0..plan.hosts)
            .map(|h| HostName(format!("h{}", h + 1)))
            .collect();
        let mut world = Self {
            policy: mutant.policy(plan.policy()),
            rng: Rng::new(plan.seed ^ 0xd31a_5eed),
            now: 0,
            api: Server::default(),
            outage: Outage::default(),
            finish_lost_until: 0,
            source_dies: (0, false),
            hand_over_disturbed_until: 0,
            split_until: 0,
            disarmed_until: 0,
            cut: vec![None; plan.hosts],
            backup: None,
            recreated: 0,
            machines: (0..plan.hosts).map(Machine::new).collect(),
            operators: (0..2).map(Operator::new).collect(),
            names,
            story: Story {
                heard,
                lines: Vec::new(),
            },
            checker: Checker::new(plan.hosts, plan.vms.len()),
            healed: false,
            writes: 0,
            queue: BinaryHeap::new(),
            order: 0,
            mutant,
            plan,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let two = self.plan.bmcs > 1;
        for machine in &mut self.machines {
            machine.second_bmc = two.then_some((Bmc::Honest, 0));
            let identity = machine.identity();
            self.api.objects.hosts.push(Rc::new(HostObject {
                accepted: Some(identity.clone()),
                reported: Some(identity),
                ..HostObject::default()
            }));
            self.api.objects.leases.push(Rc::new(LeaseObject {
                boot_id: Some(machine.boot_id.clone()),
                ..LeaseObject::default()
            }));
        }
        for vm in 0..self.plan.vms.len() {
            self.make_vm(vm, 1);
        }
        for volume in 0..self.plan.vms.len() {
            let claim = self.api.objects.vms.iter().find_map(|vm| {
                let right = vm.rights.assignment.clone()?;
                (vm.volume == volume).then(|| (vm.uid.clone(), right))
            });
            self.api.objects.volumes.push(Rc::new(VolumeObject {
                claim,
                ..VolumeObject::default()
            }));
        }
        self.api.objects.leader = (0, 0);
        for host in 0..self.machines.len() {
            let phase = self.rng.below(2_000);
            self.push(phase, Event::Guard(host));
            let run = self.machines[host].agent.run;
            let phase = self.rng.below(1_000);
            self.push(phase, Event::AgentTurn(host, run, false));
        }
        for operator in 0..self.operators.len() {
            let run = self.operators[operator].run;
            self.push(
                1 + 37 * u64::try_from(operator).unwrap_or(0),
                Event::OperatorTurn(operator, run),
            );
        }
        for index in 0..self.plan.faults.len() {
            let at = self.plan.faults[index].at;
            self.push(at, Event::Fault(index));
        }
        if self.plan.heals {
            let heal = self.plan.heal_at;
            self.push(heal, Event::Heal);
        }
        self.push(LOOK_EVERY, Event::Look);
    }

    /// Declares a VM of the plan; where it has a home it runs there already.
    fn make_vm(&mut self, index: usize, generation: u64) {
        let spec = self.plan.vms[index].clone();
        let uid = VmUid(format!("vm{}-{generation}", index + 1));
        let mut rights = Rights::none(uid.clone());
        let mut runtime = None;
        let mut phase = VmPhase::Pending;
        if let Some(home) = spec.home.filter(|home| *home < self.machines.len()) {
            let machine = &mut self.machines[home];
            let right = Assignment {
                host: self.names[home].clone(),
                boot_id: machine.boot_id.clone(),
                epoch: Epoch(1),
            };
            rights.assignment = Some(right.clone());
            rights.last_epoch = Epoch(1);
            let entry = machine.ledger.entry(uid.clone()).or_default();
            entry.epochs.insert(1, EpochState::Started);
            machine.domains.insert(
                uid.clone(),
                Domain {
                    uid: uid.clone(),
                    vm: index,
                    volume: spec.volume,
                    boot_id: machine.boot_id.clone(),
                    epoch: Epoch(1),
                    state: DomainState::Running,
                    ending: false,
                    job: None,
                    abort: false,
                },
            );
            runtime = Some(CopyReport::new(right, CopyPhase::Running));
            phase = VmPhase::Running;
            self.checker.started(&uid, 1);
        }
        self.api.objects.vms.push(Rc::new(VmObject {
            version: 0,
            uid,
            wanted: Wanted::Running,
            rights,
            runtime,
            incoming_runtime: None,
            phase,
            volume: spec.volume,
            exists: true,
        }));
    }

    /// Lets something happen after so many milliseconds.
    pub fn push(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued {
            at: self.now + after,
            order: self.order,
            event,
        }));
    }

    /// The API server is stopped: requests on their way end with their connections, and their senders know
    /// that they failed.
    pub fn requests_fail(&mut self) {
        for Reverse(queued) in std::mem::take(&mut self.queue).into_vec() {
            match queued.event {
                Event::Write(operator, run, ..) => self.chain_over(operator, run),
                Event::Late(..) => {}
                _ => self.queue.push(Reverse(queued)),
            }
        }
    }

    /// Runs until everything has settled after the faults, a checker objects, or the bound is
    /// reached.
    pub fn run(&mut self) {
        let end = self.plan.heal_at + self.plan.settle_bound;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now = next.at;
            if self.now > end {
                if self.plan.heals {
                    self.judge_the_end();
                } else {
                    self.tell_the_end();
                }
                break;
            }
            self.happen(next.event);
            if self.checker.violation.is_some() || self.checker.settled {
                break;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(index) => {
                let fault: Fault = self.plan.faults[index].fault.clone();
                self.inflict(&fault);
            }
            Event::Heal => self.heal(),
            Event::OperatorTurn(operator, run) => self.operator_turn(operator, run),
            Event::Write(operator, run, work, stage) => {
                self.write_arrives(operator, run, work, stage)
            }
            Event::BmcAsked(operator, run, host) => self.bmc_asked(operator, run, host),
            Event::BmcAnswers(operator, run, host, reading) => {
                self.bmc_answers(operator, run, host, *reading)
            }
            Event::Storage(operator, run, host, order, cut) => {
                self.storage_server(operator, run, host, order, cut)
            }
            Event::ForceOff(host, bmc) => self.force_off_hits(host, bmc),
            Event::ForceEnded(operator, run, host, attempt) => {
                self.force_ended(operator, run, host, attempt)
            }
            Event::OperatorUp(operator, run) => self.operator_up(operator, run),
            Event::AgentTurn(host, run, extra) => self.agent_turn(host, run, extra),
            Event::Task(host, run, task) => self.task(host, run, *task),
            Event::AgentDown(host, run, span) => {
                if self.machines[host].agent.run == run {
                    self.agent_down(host, span);
                }
            }
            Event::AgentUp(host, run) => self.agent_up(host, run),
            Event::Late(host, patch) => {
                if self.api_serves() {
                    self.apply(host, *patch);
                }
            }
            Event::Twin(host, until, same) => self.twin_turn(host, until, same),
            Event::Libvirt(host, boot, step) => self.libvirt(host, boot, step),
            Event::Guard(host) => self.guard_turn(host),
            Event::PowerOn(host) => self.power_on(host),
            Event::Booted(host, boot) => self.booted(host, boot),
            Event::Look => {
                self.push(LOOK_EVERY, Event::Look);
                self.watchdogs();
                self.look();
            }
        }
    }

    /// The API server answers now.
    pub fn api_serves(&self) -> bool {
        self.now >= self.outage.down_until
    }

    /// The API server takes writes now.
    pub fn api_takes_writes(&self) -> bool {
        self.api_serves() && self.now >= self.outage.read_only_until
    }

    /// A message to or from the API server is lost.
    pub fn message_lost(&mut self) -> bool {
        self.now < self.outage.lossy_until && self.rng.chance(200)
    }

    /// Milliseconds that one message to the API server takes.
    pub fn latency(&mut self) -> u64 {
        if self.now < self.outage.lossy_until && self.rng.chance(300) {
            self.rng.range(200, 3_000)
        } else {
            self.rng.range(2, 25)
        }
    }

    /// Index of a host by name.
    pub fn index_of(&self, host: &HostName) -> usize {
        self.names
            .iter()
            .position(|name| name == host)
            .unwrap_or(usize::MAX)
    }

    /// Tells an event of the world itself.
    pub fn tell(&mut self, what: &'static str, fields: &[(&'static str, &dyn std::fmt::Display)]) {
        self.tell_as("world", what, fields);
    }

    /// Tells an event of somebody.
    pub fn tell_as(
        &mut self,
        who: &str,
        what: &'static str,
        fields: &[(&'static str, &dyn std::fmt::Display)],
    ) {
        let now = self.now;
        self.story.tell(now, what, || {
            let fields = fields
                .iter()
                .map(|(key, value)| (*key, value.to_string()))
                .collect();
            (who.to_owned(), fields)
        });
        if !self.plan.triggers.is_empty() {
            self.pull_triggers();
        }
    }

    /// Boot id that a machine runs under.
    pub fn boot_of(&self, host: usize) -> BootId {
        self.machines[host].boot_id.clone()
    }
}
