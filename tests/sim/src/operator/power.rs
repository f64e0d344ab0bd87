//! Reading and switching power, as the machines of hosts ask for it.

use failover::Moment;
use failover::host::fencing::CommandEnd;
use failover::host::machine::HostAction;
use failover::proof::power::{PowerAnswer, PowerReading};
use failover::proof::storage::StorageCut;

use super::vms::HOST;
use super::{Work, identity, name};
use crate::hardware::POOL;
use crate::machine::Bmc;
use crate::mutant::Mutant;
use crate::world::{Event, World};

impl World {
    /// Carries out what a host's machine asks for.
    pub(super) fn host_action(
        &mut self,
        operator: usize,
        host: usize,
        action: HostAction,
        now: Moment,
    ) {
        let run = self.operators[operator].run;
        if self.mutant == Mutant::NeverFences {
            return;
        }
        match action {
            HostAction::ReadPower => {
                if self.operators[operator].asked_at[host].is_none() {
                    self.operators[operator].asked_at[host] = Some(now);
                    let wait = match self.machines[host].bmc_now(self.now) {
                        Bmc::Slow => self.rng.range(800, 2_500),
                        Bmc::Dead => self.rng.range(1_000, 3_000),
                        _ => self.rng.range(10, 80),
                    };
                    self.push(wait, Event::BmcAsked(operator, run, host));
                }
            }
            HostAction::WriteIntent {
                boot_id,
                expires_after_milliseconds,
            } => {
                let version = self.operators[operator].cache.hosts[host].version;
                let by = identity(operator, run);
                let expires = expires_after_milliseconds;
                self.write(operator, Work::Intent(host, version, boot_id, by, expires));
            }
            HostAction::ForceOff {
                bmc,
                attempt,
                expires_at,
            } => {
                if self.operators[operator].forcing.insert(host) {
                    let index = usize::try_from(bmc).unwrap_or(usize::MAX);
                    let told = self.machines[host].bmcs_now(self.now).nth(index);
                    let slow = told == Some(Bmc::Slow);
                    let wait = if slow {
                        self.rng.range(1_000, 4_500)
                    } else {
                        self.rng.range(50, 900)
                    };
                    if now < expires_at {
                        let name_of = self.names[host].clone();
                        self.tell_as(
                            name(operator),
                            "forceOffSent",
                            &[("host", &name_of), ("bmc", &bmc), ("attempt", &attempt)],
                        );
                        self.note_fence(host);
                        self.push(wait, Event::ForceOff(host, bmc));
                    }
                    let after = wait + self.rng.range(1, 500);
                    self.push(after, Event::ForceEnded(operator, run, host, attempt));
                }
            }
            HostAction::ClearIntent => {
                let object = &self.operators[operator].cache.hosts[host];
                let version = object.version;
                let own = identity(operator, run);
                let owned = object.intent.as_ref().is_some_and(|intent| intent.1 == own);
                if owned && self.settled(operator, HOST, host, version) {
                    self.write(operator, Work::ClearIntent(host, version));
                }
            }
            HostAction::CutStorage { boot_id } => {
                let object = self.operators[operator].cache.hosts[host].clone();
                match &object.cut {
                    Some((cut, order)) if *cut == boot_id => {
                        let known = self.operators[operator].cuts[host].as_ref();
                        if known.is_none_or(|(known, _)| known != order) {
                            self.tell_storage(operator, host, *order, true);
                        }
                    }
                    // Another boot's order stands until it is lifted.
                    Some(_) => {}
                    None => self.write(operator, Work::Cut(host, object.version, Some(boot_id))),
                }
            }
            HostAction::LiftCut => {
                let object = self.operators[operator].cache.hosts[host].clone();
                let order = object.cut.as_ref().map(|(_, order)| *order);
                match order {
                    // The server first: what is not lifted there may not count as lifted.
                    Some(order) if self.cut[host] == Some(order) => {
                        self.tell_storage(operator, host, order, false);
                    }
                    _ => self.write(operator, Work::Cut(host, object.version, None)),
                }
            }
        }
    }

    /// A cut that arrived after its order was lifted. The server lifts only what it is named, so
    /// that a late lift can not undo a newer cut.
    pub(super) fn end_stray_cut(&mut self, operator: usize, host: usize) {
        let standing = &self.api.objects.hosts[host].cut;
        if let Some(order) = self.cut[host]
            && standing.as_ref().is_none_or(|(_, ordered)| *ordered > order)
            // An order from the future is none that was lifted: etcd was restored.
            && order <= self.api.revision()
            && self.api_serves()
            && !self.holds_frozen(operator)
        {
            self.tell_storage(operator, host, order, false);
        }
    }

    fn tell_storage(&mut self, operator: usize, host: usize, order: u64, cut: bool) {
        if self.operators[operator].cutting.insert(host) {
            if cut {
                self.note_fence(host);
            }
            let run = self.operators[operator].run;
            let wait = self.rng.range(100, 1_500);
            self.push(wait, Event::Storage(operator, run, host, order, cut));
        }
    }

    /// The pool's server obeys, and is read back.
    pub fn storage_server(
        &mut self,
        operator: usize,
        run: u64,
        host: usize,
        order: u64,
        cut: bool,
    ) {
        let stands = self.cut[host];
        let obeys = if cut {
            stands.is_none_or(|stands| stands <= order)
        } else {
            stands == Some(order)
        };
        if obeys {
            self.cut[host] = cut.then_some(order);
        }
        let name_of = self.names[host].clone();
        let what = if cut { "storageCutOff" } else { "storageLetIn" };
        self.tell(what, &[("host", &name_of)]);
        self.writers_changed();
        let this = &mut self.operators[operator];
        if !this.alive || this.run != run {
            return;
        }
        this.cutting.remove(&host);
        // Read back under the order; whom it was given for the API says.
        let ordered = this.cache.hosts[host].cut.as_ref();
        let ordered_for = ordered.filter(|(_, number)| *number == order);
        let read_back = ordered_for.map(|(boot_id, _)| {
            StorageCut::read_back(POOL.to_owned(), name_of, boot_id.clone(), true)
        });
        this.cuts[host] = read_back
            .filter(|_| cut && obeys)
            .map(|read_back| (order, read_back));
    }

    /// A BMC is asked; its answer is on its way.
    pub fn bmc_asked(&mut self, operator: usize, run: u64, host: usize) {
        let asked_at = self.operators[operator].asked_at.get(host);
        let sent_at = asked_at.copied().flatten().unwrap_or_default();
        let silence = || PowerReading {
            answer: PowerAnswer::NoAnswer,
            system_uuid: None,
            unanimous: true,
            contradicted: false,
            sent_at,
            received_at: Moment(0),
        };
        let reading = self.bmcs_say(host, sent_at).unwrap_or_else(silence);
        let wait = self.rng.range(5, 150);
        self.push(
            wait,
            Event::BmcAnswers(operator, run, host, Box::new(reading)),
        );
    }

    /// A BMC's answer reaches the operator that asked.
    pub fn bmc_answers(
        &mut self,
        operator: usize,
        run: u64,
        host: usize,
        mut reading: PowerReading,
    ) {
        reading.received_at = self.moment(operator);
        let uuid = self.machines[host].uuid.clone();
        let now = self.now;
        let this = &mut self.operators[operator];
        if !this.alive || this.run != run || this.readings.len() <= host {
            return;
        }
        if now < this.paused_until {
            let after = this.paused_until - now + 1;
            return self.push(
                after,
                Event::BmcAnswers(operator, run, host, Box::new(reading)),
            );
        }
        if this.trusting.contains(&host) {
            reading.answer = PowerAnswer::Off;
            reading.system_uuid = Some(uuid);
        }
        this.asked_at[host] = None;
        this.readings[host] = Some(reading);
    }

    /// The operator learns that a force-off ended, well or badly.
    pub fn force_ended(&mut self, operator: usize, run: u64, host: usize, attempt: u32) {
        let at = self.moment(operator);
        let trusts = self.mutant == Mutant::TrustsCommand;
        let this = &mut self.operators[operator];
        if this.alive && this.run == run && this.commands.len() > host {
            this.forcing.remove(&host);
            this.commands[host] = Some(CommandEnd { attempt, at });
            if trusts {
                this.trusting.insert(host);
            }
        }
    }
}
