//! Power, kernels, BMCs' deeds, the guard and its watchdog. What the guard decides and what it
//! makes of others' heartbeats is `failover::guard`; the shell around it is retold here
//! (agent/src/guard). Where no pool carries a heartbeat it only renews the Lease.

use std::rc::Rc;

use failover::Moment;
use failover::agent::ledger::Entry;
use failover::guard::heartbeats::HeartbeatReport;
use failover::guard::observer::Round;
use failover::guard::{Readiness, arm, incarnation};
use failover::proof::power::{PowerAnswer, PowerReading, together};
use failover::proof::self_fence::GuardRegistration;

use crate::liars::false_beats;
use crate::machine::{Bmc, boot_id};
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// How often the guard renews, milliseconds.
const GUARD_EVERY: u64 = 2_000;
/// The one pool that carries heartbeats.
pub const POOL: &str = "shared";
/// The machine that a host's entry may point at by mistake.
const OTHER_UUID: &str = "99999999-9999-4999-8999-999999999999";

impl World {
    /// Power goes, at once and for everything on the machine.
    pub fn power_off(&mut self, host: usize, why: &str) {
        if !self.machines[host].power {
            return;
        }
        self.machines[host].power = false;
        self.machines[host].kernel_dies();
        let name = self.names[host].clone();
        self.tell("powerOff", &[("host", &name), ("why", &why)]);
    }

    /// A machine is given power and boots.
    pub fn power_on(&mut self, host: usize) {
        if self.machines[host].power {
            return;
        }
        self.machines[host].power = true;
        let name = self.names[host].clone();
        self.tell("powerOn", &[("host", &name)]);
        self.boot(host);
    }

    /// The kernel goes and comes again.
    pub fn reboot(&mut self, host: usize) {
        if !self.machines[host].power {
            return;
        }
        self.machines[host].kernel_dies();
        let name = self.names[host].clone();
        self.tell("rebooting", &[("host", &name)]);
        self.boot(host);
    }

    fn boot(&mut self, host: usize) {
        let machine = &mut self.machines[host];
        machine.boots += 1;
        let boot = machine.boots;
        let takes = self.rng.range(8_000, 25_000);
        self.push(takes, Event::Booted(host, boot));
    }

    /// A kernel is up: a new boot id, an empty `/run`, nothing started.
    pub fn booted(&mut self, host: usize, boot: u64) {
        let now = self.now;
        let machine = &mut self.machines[host];
        if !machine.power || machine.up || machine.boots != boot {
            return;
        }
        machine.up = true;
        machine.boot_id = boot_id(host, boot);
        machine.fed_at = now;
        machine.agent.run += 1;
        let run = machine.agent.run;
        let (name, id) = (self.names[host].clone(), self.boot_of(host));
        self.tell("booted", &[("host", &name), ("boot", &id)]);
        let wait = self.rng.range(200, 4_000);
        self.push(wait, Event::AgentUp(host, run));
    }

    /// A force-off reaches the machine behind one of its BMCs.
    pub fn force_off_hits(&mut self, host: usize, bmc: u32) {
        let index = usize::try_from(bmc).unwrap_or(usize::MAX);
        let told = self.machines[host].bmcs_now(self.now).nth(index);
        let obeys = matches!(
            told,
            Some(Bmc::Honest | Bmc::Slow | Bmc::LiesOn | Bmc::LiesOff)
        );
        if obeys {
            self.power_off(host, "forced off");
        }
    }

    /// What the BMCs of a host answer together, asked at that moment.
    pub fn bmcs_say(&self, host: usize, sent_at: Moment) -> Option<PowerReading> {
        let machine = &self.machines[host];
        let of_machine = if machine.power {
            PowerAnswer::On
        } else {
            PowerAnswer::Off
        };
        let says = |bmc| {
            let (answer, uuid) = match bmc {
                Bmc::Honest | Bmc::Slow | Bmc::AcksOnly => (of_machine.clone(), &*machine.uuid),
                Bmc::LiesOn => (PowerAnswer::On, &*machine.uuid),
                Bmc::LiesOff => (PowerAnswer::Off, &*machine.uuid),
                // The other machine happens to be off.
                Bmc::OtherMachine if self.mutant == Mutant::TrustsAnyBmc => {
                    (PowerAnswer::Off, &*machine.uuid)
                }
                Bmc::OtherMachine => (PowerAnswer::Off, OTHER_UUID),
                Bmc::Dead | Bmc::RefusesLogin => return None,
            };
            Some(PowerReading {
                answer,
                system_uuid: Some(uuid.to_owned()),
                unanimous: false,
                contradicted: false,
                sent_at,
                received_at: Moment(0),
            })
        };
        let all: Vec<_> = machine.bmcs_now(self.now).map(says).collect();
        let declared = all.len();
        together(all.into_iter().flatten().collect(), declared, &machine.uuid)
    }

    /// A moment on a host's own clock, which has nothing to do with anybody else's.
    fn host_moment(&self, host: usize) -> Moment {
        Moment(self.now + 1_000_003 * (1 + u64::try_from(host).unwrap_or(0)))
    }

    /// The guard's turn: beat, look at the others, renew, and keep the contract.
    pub fn guard_turn(&mut self, host: usize) {
        self.push(GUARD_EVERY, Event::Guard(host));
        let now = self.now;
        if !self.machines[host].runs(now) || now < self.machines[host].guard_until {
            return;
        }
        let told = self.machines[host].on_management(now) && self.api_serves();
        self.machines[host].knows_pools |= told;
        if self.plan.heartbeat && self.machines[host].knows_pools {
            self.beat(host);
        }
        if self.machines[host].guard.may_renew() {
            self.renew(host);
        }
        // Its word alone is not kept: it feeds on, else the watchdog would keep it instead.
        if self.mutant == Mutant::GuardSleeps {
            self.machines[host].fed_at = now;
            return;
        }
        let moment = self.host_moment(host);
        let step = self.machines[host].guard.step(moment);
        if step.kill {
            self.guard_kills(host, step.fires);
        }
        if self.machines[host].guard.may_feed() {
            self.machines[host].fed_at = now;
        }
    }

    /// One round on the pool that carries heartbeats.
    fn beat(&mut self, host: usize) {
        let moment = self.host_moment(host);
        let own = self.machines[host].beats(self.now);
        if own {
            self.machines[host].beat += 1;
            self.machines[host].guard.beaten(POOL, moment);
        }
        let watch = &self.machines[host].watch;
        let others = watch.whom(&self.names[host], &self.names, &self.policy);
        let seen = others
            .into_iter()
            .map(|other| {
                let beat = self.machines[self.index_of(&other)].beat;
                (other, beat)
            })
            .collect();
        let round = Round {
            own,
            began: moment,
            ended: moment,
            seen,
        };
        self.machines[host].watch.take(&round, &self.policy);
    }

    /// What the guard registers with a renewal.
    fn registration(&self, host: usize) -> GuardRegistration {
        let machine = &self.machines[host];
        let ready = Readiness {
            opted_in: self.plan.heartbeat,
            declared: [POOL.to_owned()].into(),
            beating: machine
                .beats(self.now)
                .then(|| POOL.to_owned())
                .into_iter()
                .collect(),
            problems: String::new(),
            watchdog: if self.plan.watchdog {
                Ok(self.policy.watchdog_milliseconds)
            } else {
                Err("no watchdog".to_owned())
            },
        };
        let policy = machine.knows_pools.then_some(&self.policy);
        arm(&ready, &machine.guard, policy).unwrap_or_default()
    }

    fn renew(&mut self, host: usize) {
        let moment = self.host_moment(host);
        let registration = self.registration(host);
        let machine = &mut self.machines[host];
        machine.guard.offer(&registration);
        if !self.machines[host].on_management(self.now)
            || !self.api_takes_writes()
            || self.message_lost()
        {
            return;
        }
        let machine = &self.machines[host];
        let age = self.now - machine.agent.loop_at + machine.clock_jump;
        let boot = machine.boot_id.clone();
        let report = self.plan.heartbeat.then(|| {
            let lies = self.now < machine.lies_until;
            let told = HeartbeatReport::of(machine.token.clone(), [(POOL, &machine.watch)]);
            Rc::new(if lies {
                false_beats(told, host, &self.names)
            } else {
                told
            })
        });
        let guard = registration.clone();
        let api_seen = machine.memory.word();
        self.api.lease(host, None, |lease| {
            lease.renewals += 1;
            lease.boot_id = Some(boot);
            lease.loop_age = age;
            (lease.guard, lease.report) = (guard, report);
            lease.api_seen = api_seen;
        });
        self.checker.renewed(host, self.now);
        // The answer may be lost where the renewal was not.
        if self.message_lost() {
            return;
        }
        let machine = &mut self.machines[host];
        machine.guard.acknowledged(moment, &registration);
        let token = &self.api.objects.leases[host].token;
        if token.as_ref() != machine.token.as_ref().map(|(token, _)| token) {
            machine.token = token.clone().map(|token| (token, moment));
        }
    }

    /// Everything that writes is killed. A firing ends the incarnation; the agent starts anew.
    fn guard_kills(&mut self, host: usize, fires: bool) {
        let machine = &mut self.machines[host];
        let killed = !machine.domains.is_empty();
        machine.domains.clear();
        machine.guard.killed(false);
        if fires {
            let base = boot_id(host, machine.boots);
            machine.boot_id = incarnation(&base, machine.guard.firings);
            machine.agent_dies();
            let run = machine.agent.run;
            let wait = self.rng.range(200, 2_000);
            self.push(wait, Event::AgentUp(host, run));
        }
        if killed {
            let name = self.names[host].clone();
            self.tell("guardFired", &[("host", &name)]);
        }
    }

    /// Hangs a machine's processes; where a watchdog is armed it will bite.
    pub fn hang(&mut self, host: usize, milliseconds: u64) {
        self.machines[host].hung_until = self.now + milliseconds;
    }

    /// A watchdog that was not fed resets its machine.
    pub fn watchdogs(&mut self) {
        for host in 0..self.machines.len() {
            let machine = &self.machines[host];
            let armed = machine.guard.bound().is_some();
            let unfed = self.now.saturating_sub(machine.fed_at);
            if machine.power && machine.up && armed && unfed >= self.policy.watchdog_milliseconds {
                let name = self.names[host].clone();
                self.tell("watchdogBites", &[("host", &name)]);
                self.reboot(host);
            }
        }
    }

    /// An agent comes up: it destroys what is not of this boot or is closed, before anything
    /// else, and then waits for the API.
    pub fn agent_up(&mut self, host: usize, run: u64) {
        let machine = &mut self.machines[host];
        if !machine.power || !machine.up || machine.agent.alive || machine.agent.run != run {
            return;
        }
        machine.agent.alive = true;
        machine.agent.loop_at = self.now;
        if self.mutant == Mutant::AgentStopsVms {
            machine.domains.clear();
        }
        let name = self.names[host].clone();
        self.tell("agentUp", &[("host", &name)]);
        let wait = self.rng.range(50, 500);
        self.push(wait, Event::AgentTurn(host, run, false));
    }

    /// Whether the ledger of a host says that an epoch was handed over: what its agent tells
    /// another one that asks.
    pub fn handed_over(&self, host: usize, uid: &model::VmUid, epoch: i64) -> bool {
        let machine = &self.machines[host];
        machine.agent.alive
            && machine.on_management(self.now)
            && machine
                .ledger
                .get(uid)
                .and_then(|entry: &Entry| entry.state(epoch))
                == Some(failover::agent::ledger::EpochState::HandedOver)
    }
}
