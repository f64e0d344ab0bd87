//! Power, kernels, BMCs' deeds, the guard and its watchdog. The guard follows rules 5 and 6 of
//! the failover design; where no pool carries a heartbeat it only renews the Lease.

use failover::agent::ledger::Entry;

use crate::machine::{Bmc, boot_id};
use crate::world::{Event, World};

/// How often the guard renews, milliseconds.
const GUARD_EVERY: u64 = 2_000;

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
        machine.kept_alive_at = now;
        machine.agent.run += 1;
        let run = machine.agent.run;
        let (name, id) = (self.names[host].clone(), self.boot_of(host));
        self.tell("booted", &[("host", &name), ("boot", &id)]);
        let wait = self.rng.range(200, 4_000);
        self.push(wait, Event::AgentUp(host, run));
    }

    /// A force-off reaches the machine behind a BMC.
    pub fn force_off_hits(&mut self, host: usize) {
        let obeys = matches!(
            self.machines[host].bmc_now(self.now),
            Bmc::Honest | Bmc::Slow | Bmc::LiesOn | Bmc::LiesOff
        );
        if obeys {
            self.power_off(host, "forced off");
        }
    }

    /// What the BMC's asker gets to see: true is On, none is no answer.
    pub fn bmc_says(&self, host: usize) -> Option<bool> {
        let on = self.machines[host].power;
        match self.machines[host].bmc_now(self.now) {
            Bmc::Honest | Bmc::Slow | Bmc::AcksOnly => Some(on),
            Bmc::LiesOn => Some(true),
            // The other machine happens to be off.
            Bmc::LiesOff | Bmc::OtherMachine => Some(false),
            Bmc::Dead => None,
        }
    }

    /// The guard's turn: renew, beat, and keep the contract.
    pub fn guard_turn(&mut self, host: usize) {
        self.push(GUARD_EVERY, Event::Guard(host));
        let now = self.now;
        if !self.machines[host].runs(now) || now < self.machines[host].guard_until {
            return;
        }
        let heartbeat = self.plan.heartbeat;
        if heartbeat && self.machines[host].on_storage(now) {
            self.machines[host].beat += 1;
            self.machines[host].kept_alive_at = now;
        }
        let renews = self.machines[host].on_management(now) && self.api_takes_writes();
        if renews && !self.message_lost() {
            let machine = &self.machines[host];
            let age = now - machine.agent.loop_at + machine.clock_jump;
            let boot = machine.boot_id.clone();
            self.api.lease(host, None, |lease| {
                lease.boot_id = Some(boot);
                lease.loop_age = age;
            });
            self.checker.renewed(host, now);
            self.machines[host].kept_alive_at = now;
        }
        let silent = now - self.machines[host].kept_alive_at;
        if heartbeat && silent > self.policy.contract_milliseconds {
            self.guard_fires(host);
        } else if self.machines[host].kept_alive_at == now {
            self.machines[host].fired = false;
        }
    }

    fn guard_fires(&mut self, host: usize) {
        let machine = &mut self.machines[host];
        if !machine.fired {
            machine.firings += 1;
        }
        machine.fired = true;
        if !machine.domains.is_empty() {
            machine.domains.clear();
            let name = self.names[host].clone();
            self.tell("guardFired", &[("host", &name)]);
        }
    }

    /// Hangs a machine's processes; where a watchdog is armed it will bite.
    pub fn hang(&mut self, host: usize, milliseconds: u64) {
        let now = self.now;
        let machine = &mut self.machines[host];
        machine.hung_until = now + milliseconds;
        let (boot, until) = (machine.boots, machine.hung_until);
        if self.plan.heartbeat {
            let bites = self.policy.watchdog_milliseconds;
            self.push(bites, Event::Watchdog(host, boot, until));
        }
    }

    /// The watchdog resets a machine that still hangs.
    pub fn watchdog(&mut self, host: usize, boot: u64, hang: u64) {
        let machine = &self.machines[host];
        if machine.power && machine.up && machine.boots == boot && machine.hung_until == hang {
            if self.now >= hang {
                return;
            }
            let name = self.names[host].clone();
            self.tell("watchdogBites", &[("host", &name)]);
            self.reboot(host);
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
