//! The hosts' loop: facts from caches, one step of `failover`'s machines, and what they ask
//! for: reading and switching power, intents, registrations.

use failover::Moment;
use failover::copy::{CopyPhase, CopyReport};
use failover::host::fleet::ObserverFacts;
use failover::host::incarnation::{Registration, register};
use failover::host::machine::{EventKind, HostFacts, HostMachine, Intent};
use failover::proof::self_fence::{LastLook, self_fenced};
use failover::proof::storage::StorageFacts;
use failover::signs::ProbeAnswer;
use failover::vm::{HostSight, VmPhase};
use model::Assignment;

use super::vms::HOST;
use super::{Work, identity, name};
use crate::machine::DomainState;
use crate::mutant::Mutant;
use crate::world::World;

/// How long an observer is given to see a token before it is given another, milliseconds.
const ASK_AGAIN: u64 = 3_000;
/// Probes in a row without an answer after which endpoints are told down.
const MISSED: u32 = 3;

impl World {
    /// One turn of an operator's machines; returns whether a host is in trouble.
    pub(super) fn host_turn(&mut self, operator: usize) -> bool {
        let now = self.moment(operator);
        for host in 0..self.machines.len() {
            self.gather(operator, host, now);
        }
        let observer = ObserverFacts {
            can_write: self.leads(operator),
            hears: self.hears(operator),
            disarmed: self.now < self.disarmed_until && self.mutant != Mutant::IgnoresDisarm,
            frozen: self.holds_frozen(operator),
        };
        let policy = self.policy.clone();
        let this = &mut self.operators[operator];
        let step = this.hosts.step(&this.facts, observer, &policy, now);
        if self.story.heard && observer.can_write {
            for event in &step.events {
                let reason = event.reason.key();
                let text = format!("\"{}\"", event.reason.english());
                let what = match event.kind {
                    EventKind::Seen => "seen",
                    EventKind::Decided => "decided",
                    EventKind::Done => "done",
                    EventKind::NotDone => "notDone",
                };
                self.tell_as(
                    name(operator),
                    what,
                    &[("host", &event.host), ("reason", &reason), ("text", &text)],
                );
            }
            if step.storm_began {
                self.tell_as(name(operator), "storm", &[]);
            }
        }
        if self.mutant == Mutant::LiftsEarly {
            for host in 0..self.machines.len() {
                let renews = self.machines[host].on_management(self.now);
                if let Some(order) = self.cut[host].filter(|_| renews) {
                    let run = self.operators[operator].run;
                    self.storage_server(operator, run, host, order, false);
                }
            }
        }
        if observer.can_write {
            for (host, action) in step.actions {
                let host = self.index_of(&host);
                self.host_action(operator, host, action, now);
            }
            for host in 0..self.machines.len() {
                self.end_stray_cut(operator, host);
                self.write_void(operator, host, now);
                self.write_lie(operator, host);
                self.judge_registration(operator, host);
            }
        }
        self.names.iter().any(|name| {
            let machine = self.operators[operator].hosts.machine(name);
            machine.is_some_and(|machine| machine.is_silent())
        })
    }

    /// That a person's word was found void outlives the operator that found it.
    fn write_void(&mut self, operator: usize, host: usize, now: Moment) {
        let this = &self.operators[operator];
        let (object, name) = (&this.cache.hosts[host], &self.names[host]);
        let Some(facts) = this.facts.get(name).filter(|_| object.confirmed.is_some()) else {
            return;
        };
        let view = this.hosts.view(name, facts, &self.policy, now);
        let void = view.and_then(|view| view.void_confirmation);
        let (version, news) = (object.version, void != object.void);
        if let Some(word) = void.filter(|_| news)
            && self.settled(operator, HOST, host, version)
        {
            self.write(operator, Work::Void(host, version, word));
        }
    }

    /// That a BMC was caught lying outlives the operator that found it.
    fn write_lie(&mut self, operator: usize, host: usize) {
        let this = &self.operators[operator];
        let object = &this.cache.hosts[host];
        let machine = this.hosts.machine(&self.names[host]);
        let now = self.moment(operator);
        let lies = machine.is_some_and(|it| it.tells_that_bmc_lies(&self.policy, now));
        let (version, news) = (object.version, lies != object.bmc_lies);
        if news && self.settled(operator, HOST, host, version) {
            self.write(operator, Work::BmcLies(host, version, lies));
        }
    }

    fn gather(&mut self, operator: usize, host: usize, now: Moment) {
        self.self_fence(operator, host, now);
        let probed = self.probe(host);
        if let Some(answer) = probed {
            self.note_probe(operator, host, answer.is_up());
        }
        let name = &self.names[host];
        let this = &mut self.operators[operator];
        let (Some(object), Some(renewals)) = (this.cache.hosts.get(host), &this.renewals[host])
        else {
            return;
        };
        if !this.facts.contains_key(name) {
            this.facts.insert(name.clone(), HostFacts::default());
        }
        let Some(facts) = this.facts.get_mut(name) else {
            return;
        };
        if this.seen[host].0 != object.version {
            this.seen[host].0 = object.version;
            facts.identity.clone_from(&object.accepted);
            facts.retired.clone_from(&object.retired);
            facts.maintenance = object.drain;
            facts.faults = object.faults;
        }
        if facts.lease_boot_id != renewals.boot_id {
            facts.lease_boot_id.clone_from(&renewals.boot_id);
        }
        facts.signs.lease = Some(renewals.sign);
        facts.signs.heartbeat = this.heartbeats.sign(name);
        facts.signs.heartbeat_unobserved = this
            .heartbeats
            .observers(name, &self.policy, now)
            .is_empty();
        if let Some(answer) = probed {
            facts.signs.probe_sent_at = Some(now);
            if answer.is_life() {
                facts.signs.answered_probe_sent_at = Some(now);
            }
        }
        facts.loop_age_milliseconds = Some(renewals.loop_age);
        facts.bmcs = self.plan.bmcs;
        let known = facts.reading.as_ref().map(|reading| reading.sent_at);
        let latest = this.readings[host].as_ref().map(|reading| reading.sent_at);
        if known != latest {
            facts.reading.clone_from(&this.readings[host]);
        }
        facts.bmc_told_lying = object.bmc_lies;
        facts.command = this.commands[host];
        facts.forcing = this.forcing.contains(&host);
        facts.storage = StorageFacts {
            cuttable: self.plan.cuts,
            ordered: object.cut.as_ref().map(|(boot_id, _)| boot_id.clone()),
            cuts: object
                .cut
                .as_ref()
                .and_then(|(_, order)| this.cuts[host].clone().filter(|(known, _)| known == order))
                .map(|(_, cut)| cut)
                .into_iter()
                .collect(),
        };
        facts.intent = match &object.intent {
            None => {
                this.intents[host] = None;
                Intent::None
            }
            Some((boot_id, by, expires, mark)) => {
                let first = match this.intents[host] {
                    Some((known, first)) if known == *mark => first,
                    _ => now,
                };
                this.intents[host] = Some((*mark, first));
                let until = first.plus(*expires);
                if *by == identity(operator, this.run) {
                    Intent::Ours {
                        boot_id: boot_id.clone(),
                        expires_at: until,
                    }
                } else {
                    let until = until.plus(self.policy.fence_send_milliseconds);
                    Intent::Foreign { until }
                }
            }
        };
        facts.void_confirmation.clone_from(&object.void);
        facts.confirmation = object.confirmed.as_ref().map(|word| {
            let known = this.confirmations[host].take();
            let known = known.filter(|(known, _)| known == word);
            let first = known.map_or(now, |(_, first)| first);
            this.confirmations[host] = Some((word.clone(), first));
            (word.clone(), first)
        });
        let accepted = object.accepted.as_ref().map(|identity| &identity.boot_id);
        let stuck = |right: &Option<Assignment>, said: &Option<CopyReport>| {
            let mine = right
                .as_ref()
                .filter(|right| right.host == *name && Some(&right.boot_id) == accepted);
            let said = said
                .as_ref()
                .filter(|said| said.phase == CopyPhase::CloseStuck);
            mine.is_some() && mine == said.map(|said| &said.assignment)
        };
        let stuck = this.cache.vms.iter().filter(|vm| {
            stuck(&vm.rights.assignment, &vm.runtime)
                || stuck(&vm.rights.incoming, &vm.incoming_runtime)
        });
        facts.close_stuck = u32::try_from(stuck.count()).unwrap_or(u32::MAX);
        let unsettled = this
            .cache
            .vms
            .iter()
            .filter_map(|vm| vm.rights.assignment.as_ref())
            .filter(|right| right.host == *name && accepted.is_some_and(|id| *id != right.boot_id))
            .count();
        facts.unsettled = u32::try_from(unsettled).unwrap_or(u32::MAX);
    }

    /// Whether the host's guard must have fenced it, as others saw. While that is not so yet,
    /// those who look at it are asked to say after what they looked.
    fn self_fence(&mut self, operator: usize, host: usize, now: Moment) {
        let name = self.names[host].clone();
        let policy = self.policy.clone();
        let leads = self.leads(operator);
        let this = &mut self.operators[operator];
        let silent = this
            .hosts
            .machine(&name)
            .is_some_and(HostMachine::is_silent);
        let Some(facts) = this.facts.get_mut(&name) else {
            return;
        };
        facts.self_fenced = None;
        let (Some(renewals), Some(identity)) = (&this.renewals[host], &facts.identity) else {
            return;
        };
        if !silent || !renewals.guard.armed || renewals.boot_id.as_ref() != Some(&identity.boot_id)
        {
            return;
        }
        let youngest = this
            .cache
            .vms
            .iter()
            .filter(|vm| {
                let rights = [&vm.rights.assignment, &vm.rights.incoming];
                rights.into_iter().flatten().any(|right| right.host == name)
            })
            .filter_map(|vm| this.assigned_at.get(&vm.uid))
            .map(|(_, at)| *at)
            .max();
        let look = LastLook {
            lease_changed_at: renewals.sign.changed_at,
            // A quorum read: the Lease is as this operator last saw it.
            lease_confirmed_unchanged: self.api.objects.leases[host].renewals == renewals.renewals,
            assigned_at: youngest.unwrap_or_default(),
            probe_answered_at: facts.signs.answered_probe_sent_at,
            at: now,
        };
        let incarnation = (&name, &identity.boot_id);
        let verdict = self_fenced(
            incarnation,
            &renewals.guard,
            &this.heartbeats,
            &look,
            &policy,
        );
        facts.self_fenced = verdict.ok();
        if facts.self_fenced.is_some() || !leads {
            return;
        }
        for observer in this.heartbeats.observers(&name, &policy, now) {
            let index = self.index_of(&observer);
            self.ask_observer(operator, index, look.floor(), now);
        }
    }

    /// Writes a token into an observer's Lease, unless it has seen one that is young enough or
    /// was given one just now.
    fn ask_observer(&mut self, operator: usize, observer: usize, floor: Moment, now: Moment) {
        let this = &mut self.operators[operator];
        let just = this.asked[observer].is_some_and(|at| now.since(at) < ASK_AGAIN);
        if just
            || this
                .heartbeats
                .has_answered_since(&self.names[observer], floor)
        {
            return;
        }
        this.asked[observer] = Some(now);
        let token = this
            .heartbeats
            .token(&format!("{operator}-{}", this.run), now);
        if self.api_takes_writes() && !self.message_lost() {
            self.api
                .lease(observer, None, |lease| lease.token = Some(token));
        }
    }

    /// A probe of a VM's own address on a host: none where there is nothing to probe.
    fn probe(&mut self, host: usize) -> Option<ProbeAnswer> {
        if !self.plan.probes {
            return None;
        }
        let machine = &self.machines[host];
        let runs = machine
            .domains
            .values()
            .any(|domain| domain.state == DomainState::Running);
        let reached = self.now >= machine.business_until;
        let serves = self.now >= machine.services_until;
        let arrives = machine.power && runs && self.rng.chance(950) && reached;
        Some(match (arrives, serves) {
            (false, _) => ProbeAnswer::Nothing,
            (true, false) => ProbeAnswer::Guest,
            (true, true) => ProbeAnswer::Service,
        })
    }

    /// The endpoints of the systems whose VMs a host is shown to run are down when several probes in a row
    /// got no answer (one gets lost now and then), and up with the next one that does.
    fn note_probe(&mut self, operator: usize, host: usize, answered: bool) {
        let name = &self.names[host];
        let this = &mut self.operators[operator];
        let serves = this.cache.vms.iter().any(|vm| {
            let right = vm.rights.assignment.as_ref();
            vm.phase == VmPhase::Running && right.is_some_and(|right| right.host == *name)
        });
        let missed = this.missed.entry(host).or_default();
        let before = *missed;
        *missed = if answered || !serves { 0 } else { before + 1 };
        let seen = match (*missed, before) {
            (MISSED, _) => "Down",
            (0, MISSED..) if answered => "Up",
            _ => return,
        };
        if self.leads(operator) {
            let name = self.names[host].clone();
            self.tell("endpoints", &[("host", &name), ("seen", &seen)]);
        }
    }

    fn judge_registration(&mut self, operator: usize, host: usize) {
        let this = &mut self.operators[operator];
        let object = this.cache.hosts[host].clone();
        let Some(mut reported) = object.reported.clone() else {
            return;
        };
        if self.mutant == Mutant::UuidAlone {
            reported.mac_addresses.clear();
        }
        let lease = this.renewals[host]
            .as_ref()
            .and_then(|known| known.boot_id.clone());
        let mark = this.renewals[host].as_ref().map_or(0, |known| {
            u64::from(known.boot_id.as_ref() == Some(&reported.boot_id))
        }) + 2 * object.version;
        if this.seen[host].1 == mark {
            return;
        }
        this.seen[host].1 = mark;
        let others: Vec<(String, String)> = this
            .cache
            .hosts
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != host)
            .filter_map(|(other, object)| {
                let identity = object.accepted.as_ref()?;
                Some((identity.system_uuid.clone(), self.names[other].to_string()))
            })
            .collect();
        let accepted = object.accepted.as_ref();
        let verdict = register(
            accepted,
            &object.retired,
            &reported,
            lease.as_ref(),
            &others,
        );
        let problem = match &verdict {
            Registration::Refuse(problem) => Some(problem.to_string()),
            _ => None,
        };
        if let Some(facts) = this.facts.get_mut(&self.names[host]) {
            facts.identity_problem = problem;
        }
        let retired = match verdict {
            Registration::Accept => None,
            Registration::Retire(boot_id) => Some(boot_id),
            Registration::Same | Registration::Wait | Registration::Refuse(_) => return,
        };
        // It is judged again next turn: the write may be lost.
        this.seen[host].1 = u64::MAX;
        let version = object.version;
        self.write(operator, Work::Register(host, version, reported, retired));
    }

    /// What deciders need about the host of one assignment.
    pub(super) fn sight(&self, operator: usize, right: &Assignment) -> HostSight {
        let this = &self.operators[operator];
        let facts = this.facts.get(&right.host);
        this.hosts.sight(&right.host, &right.boot_id, facts)
    }
}
