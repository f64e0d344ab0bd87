//! Faults as they hit the world, requests of people, and the end of all faults.

use std::rc::Rc;

use failover::migration::MigrationOutcome;
use failover::proof::confirmation::Confirmation;
use failover::vm::Wanted;
use model::{Assignment, VmUid};

use crate::api::{MoveObject, VmObject};
use crate::faults::Fault;
use crate::machine::{Bmc, DomainState, nics};
use crate::mutant::Mutant;
use crate::operator::name;
use crate::world::{Event, World};

impl World {
    /// Inflicts a fault, or carries out what a person asks for.
    pub fn inflict(&mut self, fault: &Fault) {
        if self.story.heard {
            let text = format!("{fault:?}");
            self.tell("fault", &[("what", &text)]);
        }
        self.note_harm(fault);
        self.checker.apart.note(fault);
        let now = self.now;
        match *fault {
            Fault::PowerLoss { host, bmc } => {
                if bmc {
                    self.machines[host.0].bmc_dark_until = u64::MAX;
                }
                self.power_off(host.0, "power lost");
            }
            Fault::PowerOn { host } => {
                self.machines[host.0].bmc_dark_until = 0;
                self.power_on(host.0);
            }
            Fault::Reboot { host } => self.reboot(host.0),
            Fault::Hang { host, span } => self.hang(host.0, span),
            Fault::ManagementCut { host, span } => {
                self.machines[host.0].management_until = now + span;
            }
            Fault::BusinessCut { host, span } => self.machines[host.0].business_until = now + span,
            Fault::ServicesFail { host, span } => {
                self.machines[host.0].services_until = now + span;
            }
            Fault::StorageCut { host, span } => self.machines[host.0].storage_until = now + span,
            Fault::HeartbeatReadOnly { host, span } => {
                self.machines[host.0].heartbeat_until = now + span;
            }
            Fault::SwitchReboot { span } => {
                for machine in &mut self.machines {
                    machine.management_until = now + span;
                }
            }
            Fault::Bmc { host, mode, span } => {
                self.machines[host.0].bmc = (mode.into(), now + span);
            }
            Fault::SecondBmc { host, mode, span } => {
                if let Some(second) = &mut self.machines[host.0].second_bmc {
                    *second = (mode.into(), now + span);
                }
            }
            Fault::OperatorCrash { operator, span } => {
                let this = &mut self.operators[operator.0];
                this.alive = false;
                this.run += 1;
                let run = this.run;
                self.push(span, Event::OperatorUp(operator.0, run));
            }
            Fault::OperatorPause { operator, span } => {
                self.operators[operator.0].paused_until = now + span;
            }
            Fault::SplitLeaders { span } => self.split_until = now + span,
            Fault::StaleOperator { operator, span } => {
                self.operators[operator.0].stale_until = now + span;
            }
            Fault::StaleAgent { host, span } => {
                self.machines[host.0].agent.stale_until = now + span
            }
            Fault::ApiDown { span } => self.outage.down_until = now + span,
            Fault::ApiReadOnly { span } => self.outage.read_only_until = now + span,
            Fault::Replace { host, clone_of } => {
                let uuid = match clone_of {
                    Some(other) => self.machines[other.0].uuid.clone(),
                    None => format!("{:08}-7777-4777-8777-777777777777", host.0 + 1),
                };
                let machine = &mut self.machines[host.0];
                (machine.uuid, machine.nics) = (uuid, nics(host.0, "cc"));
            }
            Fault::ReplaceNics { host, all } => {
                let old = &mut self.machines[host.0].nics;
                let mut new = nics(host.0, "dd");
                if !all {
                    new.pop_first();
                    new.extend(old.pop_first());
                }
                *old = new;
            }
            Fault::ApiLossy { span } => self.outage.lossy_until = now + span,
            Fault::AgentCrash { host, span } => self.agent_down(host.0, span),
            Fault::LedgerLost { host } => self.machines[host.0].ledger.clear(),
            Fault::AgentStuck { host, span } => {
                self.machines[host.0].agent.stuck_until = now + span
            }
            Fault::GuardStop { host, span } => {
                let machine = &mut self.machines[host.0];
                machine.guard_until = now + span;
                machine.knows_pools &= self.mutant != Mutant::GuardForgetsPools;
            }
            Fault::FalseWord { host, vm } => self.false_word(host.0, vm.0),
            Fault::FalseBeats { host, span } => self.machines[host.0].lies_until = now + span,
            Fault::Twin {
                host,
                span,
                same_uuid,
            } => self.twin_turn(host.0, now + span, same_uuid),
            Fault::OperatorClock { operator, ahead } => {
                self.operators[operator.0].wall_ahead = ahead;
            }
            Fault::ClockJump { host, by } => self.machines[host.0].clock_jump = by,
            Fault::GuestCrash { vm } => self.guest_ends(vm.0, false),
            Fault::GuestShutdown { vm } => self.guest_ends(vm.0, true),
            Fault::Disarm { span } => self.disarmed_until = now + span,
            Fault::FinishLost { span } => self.finish_lost_until = now + span,
            Fault::ClearingHangs { host, span } => {
                self.machines[host.0].clearing_hangs_until = now + span;
            }
            Fault::SourceDies { finished, span } => self.source_dies = (now + span, finished),
            Fault::HandOverDisturbed { span } => self.hand_over_disturbed_until = now + span,
            Fault::BackUp => self.backup = Some(self.api.clone()),
            Fault::Restore { span } => self.restore(span),
            Fault::StartHangs { host, span } => {
                self.machines[host.0].start_hangs_until = now + span
            }
            Fault::DisksFail { host, span } => {
                let machine = &mut self.machines[host.0];
                machine.disks_fail_until = now + span;
                for domain in machine.domains.values_mut() {
                    if domain.state == DomainState::Running {
                        domain.state = DomainState::Stalled;
                    }
                }
            }
            Fault::CloseHangs { host, span } => {
                self.machines[host.0].close_hangs_until = now + span
            }
            Fault::StartFails { host, span } => {
                self.machines[host.0].start_fails_until = now + span
            }
            _ => self.ask(fault),
        }
    }

    /// An agent's process dies, and is started again after so long.
    pub fn agent_down(&mut self, host: usize, span: u64) {
        self.machines[host].agent_dies();
        let run = self.machines[host].agent.run;
        self.push(span, Event::AgentUp(host, run));
    }

    /// Faults that follow an event: each once.
    pub fn pull_triggers(&mut self) {
        let Some(told) = self.story.lines.last() else {
            return;
        };
        let due = self
            .plan
            .triggers
            .iter()
            .position(|trigger| trigger.on.matches(told));
        if let Some(due) = due {
            let trigger = self.plan.triggers.remove(due);
            if trigger.after == 0 {
                // A crash at just this point, before whatever would have come next.
                return self.inflict(&trigger.fault);
            }
            let index = self.plan.faults.len();
            let at = self.now + trigger.after;
            self.plan.faults.push(crate::plan::Timed {
                at,
                fault: trigger.fault,
            });
            self.push(trigger.after, Event::Fault(index));
        }
    }

    /// Where everything stands when a scenario is over.
    pub fn tell_the_end(&mut self) {
        for vm in self.api.objects.vms.clone() {
            let runs = self.machines.iter().position(|machine| {
                machine.power
                    && machine
                        .domains
                        .get(&vm.uid)
                        .is_some_and(|domain| domain.state == DomainState::Running)
            });
            let host = runs.map_or("nowhere".to_owned(), |host| self.names[host].to_string());
            let phase = if vm.exists {
                format!("{:?}", vm.phase)
            } else {
                "gone".to_owned()
            };
            let (claims, epoch) = (self.claims_of(&vm), vm.rights.last_epoch);
            self.tell(
                "end",
                &[
                    ("vm", &vm.uid),
                    ("host", &host),
                    ("phase", &phase),
                    ("claims", &claims),
                    ("lastEpoch", &epoch),
                ],
            );
        }
        for (index, object) in self.api.objects.moves.clone().iter().enumerate() {
            let outcome = object
                .outcome
                .map_or("open".to_owned(), |outcome| format!("{outcome:?}"));
            self.tell(
                "endOfMove",
                &[
                    ("vm", &object.uid),
                    ("number", &(index + 1)),
                    ("outcome", &outcome),
                    ("reason", &object.message),
                ],
            );
        }
    }

    /// Whether the claims on a VM's volume are what its rights say.
    fn claims_of(&self, vm: &VmObject) -> &'static str {
        let volume = &self.api.objects.volumes[vm.volume];
        let of = |claim: &Option<(VmUid, Assignment)>| {
            let claim = claim.as_ref().filter(|(uid, _)| *uid == vm.uid);
            claim.map(|(_, right)| right.clone())
        };
        match (of(&volume.claim), of(&volume.incoming_claim)) {
            held if held != (vm.rights.assignment.clone(), vm.rights.incoming.clone()) => "astray",
            (None, None) => "none",
            (_, Some(_)) => "both",
            (Some(_), None) => "one",
        }
    }

    /// What people ask the API for; with the API down they try again later.
    fn ask(&mut self, fault: &Fault) {
        match *fault {
            Fault::Halt { vm } => self.want(vm.0, Wanted::Halted),
            Fault::Run { vm } => self.want(vm.0, Wanted::Running),
            Fault::Delete { vm } => self.want(vm.0, Wanted::Deleted),
            Fault::Recreate { vm } => self.recreate(vm.0),
            Fault::Drain { host } => {
                self.api.host(host.0, None, |object| object.drain = true);
            }
            Fault::EndDrain { host } => {
                self.api.host(host.0, None, |object| object.drain = false);
                self.cancel_moves(true);
            }
            Fault::Alarm { host } => {
                self.api.host(host.0, None, |object| object.faults = 1);
            }
            Fault::EndAlarm { host } => {
                self.api.host(host.0, None, |object| object.faults = 0);
            }
            Fault::Move { vm, to } => {
                let uid = self.api.objects.vms[vm.0].uid.to_string();
                self.api.create_move(MoveObject {
                    vm: vm.0,
                    uid,
                    target_host: to.map(|host| host.0),
                    ..MoveObject::default()
                });
            }
            Fault::Rebase => self.ask_rebase(),
            Fault::CancelMoves => self.cancel_moves(false),
            Fault::Confirm { host } => {
                let name = self.names[host.0].clone();
                let boot = self.api.objects.hosts[host.0].accepted.clone();
                if let Some(identity) = boot {
                    let word = Confirmation {
                        host: name,
                        boot_id: identity.boot_id,
                        by: "li".to_owned(),
                        reason: "looked at it".to_owned(),
                        given_at: self.now.to_string(),
                    };
                    self.api
                        .host(host.0, None, |object| object.confirmed = Some(word));
                }
            }
            _ => {}
        }
    }

    /// What the API holds goes back; the world does not.
    fn restore(&mut self, span: u64) {
        let Some(backup) = self.backup.clone() else {
            return;
        };
        // Moves are known by their number here: one that is forgotten is one that is over.
        let forgotten = self
            .api
            .objects
            .moves
            .iter()
            .skip(backup.objects.moves.len());
        let forgotten: Vec<_> = forgotten
            .map(|object| {
                let mut object = MoveObject::clone(object);
                object.outcome = Some(MigrationOutcome::Failed);
                Rc::new(object)
            })
            .collect();
        self.requests_fail();
        self.api = backup;
        self.api.objects.moves.extend(forgotten);
        self.outage.down_until = self.now + span;
        for machine in &mut self.machines {
            machine.agent.interrupted = true;
        }
        self.checker.restored(self.now);
        self.tell("restored", &[]);
    }

    /// A person asks for a rebase where the site is frozen; what runs and is not in the API is shut
    /// down by hand first, and so is the copy with the older data where two run.
    pub fn ask_rebase(&mut self) {
        if !self.api.objects.policy.frozen || !self.api_takes_writes() {
            return;
        }
        let known: Vec<VmUid> = self
            .api
            .objects
            .vms
            .iter()
            .map(|vm| vm.uid.clone())
            .collect();
        for machine in &mut self.machines {
            machine.domains.retain(|uid, _| known.contains(uid));
        }
        for uid in known {
            let copies = self.machines.iter().filter_map(|it| it.domains.get(&uid));
            let newest = copies.map(|copy| copy.epoch).max();
            for (host, machine) in self.machines.iter_mut().enumerate() {
                let copy = machine.domains.get(&uid);
                let cut = self.cut[host].is_some();
                if cut && copy.is_some_and(|copy| Some(copy.epoch) < newest) {
                    machine.domains.remove(&uid);
                }
            }
        }
        if !self.api.objects.policy.asked {
            self.api.policy(None, |policy| policy.asked = true);
            self.tell("rebaseAsked", &[]);
        }
    }

    fn want(&mut self, vm: usize, wanted: Wanted) {
        let object = self.api.objects.vms[vm].clone();
        if object.exists && object.wanted != Wanted::Deleted {
            self.api.vm(vm, None, |object| object.wanted = wanted);
            let concerned: Vec<_> = object.rights.assignment.iter().cloned().collect();
            self.wake(concerned.iter());
        }
    }

    fn recreate(&mut self, vm: usize) {
        let object = self.api.objects.vms[vm].clone();
        if object.exists {
            return;
        }
        // A uid is never used twice, whatever etcd has forgotten.
        self.recreated += 1;
        let uid = VmUid(format!("vm{}-{}", vm + 1, self.recreated + 1));
        self.api.vm(vm, None, |object| {
            object.rights = failover::assignment::Rights::none(uid.clone());
            object.uid = uid;
            object.wanted = Wanted::Running;
            (object.runtime, object.incoming_runtime) = (None, None);
            object.phase = failover::vm::VmPhase::Pending;
            object.exists = true;
        });
    }

    fn cancel_moves(&mut self, drains_only: bool) {
        for index in 0..self.api.objects.moves.len() {
            let object = self.api.objects.moves[index].clone();
            let cancel = object.outcome.is_none() && (!drains_only || object.drain);
            if cancel {
                self.api.moving(index, None, |object| object.cancel = true);
                if let Some((source, target)) = &object.sides {
                    self.wake([source, target].into_iter());
                }
            }
        }
    }

    fn guest_ends(&mut self, vm: usize, shut_down: bool) {
        let now = self.now;
        for machine in &mut self.machines {
            let uid = machine.domains.values().find_map(|domain| {
                let runs = domain.vm == vm && domain.state == DomainState::Running;
                (runs && now >= machine.hung_until).then(|| domain.uid.clone())
            });
            if let Some(uid) = uid {
                machine.domains.remove(&uid);
                if shut_down && machine.agent.alive {
                    machine.agent.shut_down.insert(uid);
                }
                return;
            }
        }
    }

    /// All faults end: what is left must settle within the bound.
    pub fn heal(&mut self) {
        let now = self.now;
        self.healed = true;
        self.outage = crate::world::Outage::default();
        (self.split_until, self.disarmed_until) = (0, 0);
        (self.finish_lost_until, self.hand_over_disturbed_until) = (0, 0);
        self.source_dies = (0, false);
        let mut off = 0;
        for host in 0..self.machines.len() {
            let machine = &mut self.machines[host];
            (machine.management_until, machine.storage_until) = (0, 0);
            machine.heartbeat_until = 0;
            machine.business_until = 0;
            machine.services_until = 0;
            machine.hung_until = machine.hung_until.min(now);
            machine.bmc = (Bmc::Honest, 0);
            machine.second_bmc = machine.second_bmc.map(|_| (Bmc::Honest, 0));
            machine.bmc_dark_until = 0;
            (machine.start_hangs_until, machine.start_fails_until) = (0, 0);
            (machine.close_hangs_until, machine.disks_fail_until) = (0, 0);
            (machine.clearing_hangs_until, machine.lies_until) = (0, 0);
            (machine.guard_until, machine.clock_jump) = (0, 0);
            machine.agent.stale_until = 0;
            machine.agent.stuck_until = machine.agent.stuck_until.min(now);
            off += usize::from(!machine.power);
            // One host may stay dead: there is room without it.
            if !machine.power && (off > 1 || !self.plan.leave_one_off || self.homes(host)) {
                self.push(1, Event::PowerOn(host));
            }
            self.api.host(host, None, |object| {
                (object.drain, object.faults) = (false, 0)
            });
        }
        for operator in 0..self.operators.len() {
            let this = &mut self.operators[operator];
            (this.paused_until, this.stale_until) = (this.paused_until.min(now), 0);
            if !this.alive {
                let run = this.run;
                self.push(1, Event::OperatorUp(operator, run));
            }
        }
        for vm in 0..self.api.objects.vms.len() {
            self.recreate(vm);
        }
        self.tell_as(name(0), "healed", &[]);
    }

    /// A host whose storage is cut off and that lives on is rebooted by a person.
    pub fn people_reboot_the_cut(&mut self) {
        for host in 0..self.machines.len() {
            let cut = self.api.objects.hosts[host].cut.as_ref();
            let boot = &self.machines[host].boot_id;
            let stands = cut.is_some_and(|(cut, _)| cut == boot);
            if stands && self.machines[host].up && self.rng.chance(70) {
                self.reboot(host);
            }
        }
    }

    /// After the faults at most one host stays off: one that was forced off meanwhile is switched
    /// on by a person some time later.
    pub fn people_switch_on(&mut self) {
        let off: Vec<usize> = (0..self.machines.len())
            .filter(|host| !self.machines[*host].power)
            .collect();
        let may_stay = self.plan.leave_one_off && off.len() < 2;
        for host in off {
            if (!may_stay || self.homes(host)) && self.rng.chance(70) {
                self.push(1, Event::PowerOn(host));
                return;
            }
        }
    }

    /// A VM can run on this host only.
    fn homes(&self, host: usize) -> bool {
        let here = |vm: usize| {
            let right = &self.api.objects.vms[vm].rights.assignment;
            right
                .as_ref()
                .is_some_and(|right| right.host == self.names[host])
        };
        self.plan
            .vms
            .iter()
            .enumerate()
            .any(|(vm, spec)| spec.pinned == Some(host) || (spec.stays && here(vm)))
    }

    /// Whether a move still has to end.
    pub fn is_open(object: &Rc<MoveObject>) -> bool {
        !matches!(
            object.outcome,
            Some(
                MigrationOutcome::Succeeded
                    | MigrationOutcome::Failed
                    | MigrationOutcome::Cancelled
            )
        )
    }
}
