//! The hosts' loop: facts from caches, one step of `failover`'s machines, and what they ask
//! for: reading and switching power, intents, registrations.

use std::collections::BTreeSet;

use failover::Moment;
use failover::host::fleet::ObserverFacts;
use failover::host::incarnation::{Registration, register};
use failover::host::machine::{EventKind, HostFacts, Intent};
use failover::proof::self_fence::{
    GuardRegistration, HeartbeatReading, LastLook, SelfFenceWitness,
};
use failover::signs::Sign;
use failover::vm::HostSight;
use model::Assignment;

use super::{Work, identity, name};
use crate::machine::DomainState;
use crate::world::World;

/// The one pool that carries heartbeats.
const POOL: &str = "shared";

impl World {
    /// One turn of an operator's machines; returns whether a host is in trouble.
    pub(super) fn host_turn(&mut self, operator: usize) -> bool {
        let now = self.moment(operator);
        for host in 0..self.machines.len() {
            self.gather(operator, host, now);
        }
        let observer = ObserverFacts {
            can_write: self.leads(operator),
            disarmed: self.now < self.disarmed_until,
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
        if observer.can_write {
            for (host, action) in step.actions {
                let host = self.index_of(&host);
                self.host_action(operator, host, action, now);
            }
            for host in 0..self.machines.len() {
                self.judge_registration(operator, host);
            }
        }
        self.names.iter().any(|name| {
            let machine = self.operators[operator].hosts.machine(name);
            machine.is_some_and(|machine| machine.is_silent())
        })
    }

    fn gather(&mut self, operator: usize, host: usize, now: Moment) {
        let observed = self.observe_heartbeat(operator, host, now);
        let probed = self.probe(host);
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
        facts.signs.heartbeat = observed;
        if let Some(answered) = probed {
            facts.signs.probe_sent_at = Some(now);
            if answered {
                facts.signs.answered_probe_sent_at = Some(now);
            }
        }
        facts.loop_age_milliseconds = Some(renewals.loop_age);
        facts.bmcs = 1;
        let known = facts.reading.as_ref().map(|reading| reading.sent_at);
        let latest = this.readings[host].as_ref().map(|reading| reading.sent_at);
        if known != latest {
            facts.reading.clone_from(&this.readings[host]);
        }
        facts.command = this.commands[host];
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
        facts.confirmation = object.confirmed.as_ref().map(|word| {
            let first = *this.confirmations[host].get_or_insert(now);
            (word.clone(), first)
        });
        let accepted = object.accepted.as_ref().map(|identity| &identity.boot_id);
        let unsettled = this
            .cache
            .vms
            .iter()
            .filter_map(|vm| vm.rights.assignment.as_ref())
            .filter(|right| right.host == *name && accepted.is_some_and(|id| *id != right.boot_id))
            .count();
        facts.unsettled = u32::try_from(unsettled).unwrap_or(u32::MAX);
    }

    /// Some other host's agent beats itself, reads this host's heartbeat, and reports it.
    fn observe_heartbeat(&mut self, operator: usize, host: usize, now: Moment) -> Option<Sign> {
        if !self.plan.heartbeat {
            return None;
        }
        let serves = self.api_serves() && self.now >= self.operators[operator].stale_until;
        let observer = (0..self.machines.len()).find(|other| {
            let machine = &self.machines[*other];
            *other != host
                && machine.agent.alive
                && machine.on_management(self.now)
                && machine.on_storage(self.now)
        });
        let beat = self.machines[host].beat;
        let this = &mut self.operators[operator];
        if let Some(observer) = observer.filter(|_| serves) {
            match &mut this.beats[host] {
                Some((known, _)) if *known == beat => {}
                Some((known, sign)) => {
                    *known = beat;
                    sign.changes += 1;
                    sign.changed_at = now;
                }
                none => {
                    let sign = Sign {
                        changes: 1,
                        changed_at: now,
                    };
                    *none = Some((beat, sign));
                }
            }
            self.self_fence(operator, host, observer, beat, now);
        }
        self.operators[operator].beats[host]
            .as_ref()
            .map(|(_, sign)| *sign)
    }

    /// The windows of `SelfFenced`, begun when a host is silent.
    fn self_fence(
        &mut self,
        operator: usize,
        host: usize,
        observer: usize,
        beat: u64,
        now: Moment,
    ) {
        let silent = self.operators[operator]
            .hosts
            .machine(&self.names[host])
            .is_some_and(|machine| machine.is_silent());
        let policy = &self.policy;
        let this = &mut self.operators[operator];
        let (Some(renewals), Some(identity)) = (
            this.renewals[host].clone(),
            this.facts
                .get(&self.names[host])
                .and_then(|facts| facts.identity.clone()),
        ) else {
            return;
        };
        let fresh = renewals
            .sign
            .is_fresh(policy.lease_interval_milliseconds, policy, now);
        if !silent || fresh {
            (this.witnesses[host], this.self_fenced[host]) = (None, None);
            return;
        }
        let name = &self.names[host];
        let witness = this.witnesses[host].get_or_insert_with(|| {
            let guard = GuardRegistration {
                armed: true,
                contract_milliseconds: policy.contract_milliseconds,
                watchdog_milliseconds: policy.watchdog_milliseconds,
                pools: BTreeSet::from([POOL.to_owned()]),
            };
            SelfFenceWitness::new(name.clone(), identity.boot_id.clone(), guard)
        });
        let reading = HeartbeatReading {
            observer: self.names[observer].clone(),
            pool: POOL.to_owned(),
            observer_wrote: true,
            beat,
            at: now,
        };
        witness.observe(&reading, policy);
        let youngest = this
            .cache
            .vms
            .iter()
            .filter(|vm| {
                vm.rights
                    .assignment
                    .as_ref()
                    .is_some_and(|right| right.host == *name)
            })
            .filter_map(|vm| this.assigned_at.get(&vm.uid))
            .map(|(_, at)| *at)
            .max();
        let look = LastLook {
            lease_changed_at: renewals.sign.changed_at,
            // A quorum read: the Lease is as this operator last saw it.
            lease_confirmed_unchanged: self.api.objects.leases[host].version == renewals.version,
            assigned_at: youngest.unwrap_or_default(),
            probe_answered_at: this
                .facts
                .get(name)
                .and_then(|facts| facts.signs.answered_probe_sent_at),
        };
        this.self_fenced[host] = witness.conclude(&look, policy).ok();
    }

    /// A probe of a VM's own address on a host: none where there is nothing to probe.
    fn probe(&mut self, host: usize) -> Option<bool> {
        if !self.plan.probes {
            return None;
        }
        let machine = &self.machines[host];
        let runs = machine
            .domains
            .values()
            .any(|domain| domain.state == DomainState::Running);
        Some(machine.power && runs && self.rng.chance(950))
    }

    fn judge_registration(&mut self, operator: usize, host: usize) {
        let this = &mut self.operators[operator];
        let object = this.cache.hosts[host].clone();
        let Some(reported) = object.reported.clone() else {
            return;
        };
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
        let mut sight = this.hosts.sight(&right.host, &right.boot_id, facts);
        if sight.stop_proof.is_none() {
            let host = self.index_of(&right.host);
            sight.stop_proof = this
                .self_fenced
                .get(host)
                .cloned()
                .flatten()
                .filter(|proof| proof.boot_id() == &right.boot_id);
        }
        sight
    }
}
