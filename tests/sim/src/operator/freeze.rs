//! A site whose etcd was restored, as an operator sees it (operator/src/freeze.rs): it keeps
//! everything still and carries out the rebase that a person asks for.

use std::collections::BTreeMap;

use failover::agent::freeze::went_back;
use failover::host::machine::Life;
use failover::rebase::{HostSaid, HostWord, rebase};
use failover::vm::frozen;
use model::{Assignment, Epoch, HostName, VmUid};

use super::{Work, name};
use crate::api::PolicyObject;
use crate::mutant::Mutant;
use crate::world::World;

/// When the site began, milliseconds since 1970.
const BEGAN: i64 = 1_790_000_000_000;

/// What may be done with VMs.
pub(super) enum Word {
    /// What is right.
    Act,
    /// Nothing yet.
    Listen,
    /// Nothing before a rebase.
    Frozen,
}

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Frozen {
    /// The site is frozen.
    pub(super) stands: bool,
    highest: u64,
    pub(super) went_back: bool,
    rebase: String,
    roll_call: String,
    began: Option<u64>,
    heard: bool,
}

impl World {
    /// The version that a renewal of the leader's Lease was answered with.
    pub(super) fn operator_sees_version(&mut self, operator: usize) {
        let version = self.api.revision();
        let freeze = &mut self.operators[operator].freeze;
        freeze.went_back |= version < freeze.highest;
        freeze.highest = freeze.highest.max(version);
    }

    /// Follows rebases, leading or not; one that does not lead forgets that it froze.
    pub(super) fn follow_rebases(&mut self, operator: usize) {
        let leads = self.leads(operator);
        let this = &mut self.operators[operator];
        let policy = &this.cache.policy;
        if !policy.frozen && policy.rebase > this.freeze.rebase {
            this.freeze.rebase.clone_from(&policy.rebase);
            (this.freeze.highest, this.freeze.went_back) = (0, false);
            this.freeze.roll_call.clear();
            this.written.clear();
        }
        this.freeze.stands &= leads;
    }

    /// Whether the site is frozen, by this operator's own word or by the API's.
    pub(super) fn holds_frozen(&self, operator: usize) -> bool {
        let this = &self.operators[operator];
        this.freeze.stands || this.cache.policy.frozen
    }

    /// One turn before anything is decided about VMs.
    pub(super) fn freeze_turn(&mut self, operator: usize) -> Word {
        if self.mutant == Mutant::ForgetsVersions {
            return Word::Act;
        }
        let policy = self.operators[operator].cache.policy.clone();
        if policy.frozen {
            let this = &mut self.operators[operator];
            if !this.freeze.stands {
                // Versions are used anew: what was written from them means nothing any more.
                this.written.clear();
            }
            this.freeze.stands = true;
            let freeze = &this.freeze;
            let (called, again) = (freeze.roll_call == policy.roll_call, freeze.went_back);
            if again {
                this.written.clear();
            }
            self.show_frozen(operator);
            if called && !again {
                self.go_on(operator);
            } else {
                self.write(operator, Work::CallTheRoll(policy.version, again));
            }
            return Word::Frozen;
        }
        let this = &self.operators[operator];
        // A freeze of its own that ended by no rebase was forgotten, or is not seen yet.
        let awaits = !this.freeze.roll_call.is_empty();
        if this.freeze.went_back || awaits || self.hosts_noticed(operator, &policy.rebase) {
            let this = &mut self.operators[operator];
            this.written.clear();
            this.freeze.stands = true;
            self.write(operator, Work::Freeze(policy.version));
            return Word::Frozen;
        }
        self.operators[operator].freeze.stands = false;
        if self.everybody_heard(operator) {
            Word::Act
        } else {
            Word::Listen
        }
    }

    fn hosts_noticed(&self, operator: usize, rebase: &str) -> bool {
        let this = &self.operators[operator];
        let told = |object: &crate::api::HostObject| {
            object
                .frozen
                .as_ref()
                .is_some_and(|(known, ..)| known == rebase)
        };
        let remembers = |known: &Option<super::Renewals>| {
            let seen = known.as_ref().and_then(|known| known.api_seen.as_ref());
            seen.is_some_and(|(word, version)| went_back(word, *version, rebase))
        };
        this.cache.hosts.iter().any(|object| told(object)) || this.renewals.iter().any(remembers)
    }

    /// Every accepted host has renewed once more since this operator began, or had the time to: one whose Lease was
    /// never seen is not heard.
    fn everybody_heard(&mut self, operator: usize) -> bool {
        let now = self.now;
        let late = self.policy.unreachable_after_milliseconds;
        let this = &mut self.operators[operator];
        let began = *this.freeze.began.get_or_insert(now);
        let mut hosts = this.cache.hosts.iter().zip(&this.renewals);
        let all = hosts.all(|(object, renewals)| {
            let heard = renewals.as_ref().is_some_and(|it| it.sign.changes > 1);
            object.accepted.is_none() || heard
        });
        this.freeze.heard |= now - began >= late || all;
        this.freeze.heard
    }

    fn show_frozen(&mut self, operator: usize) {
        let phase = frozen().phase;
        let vms = self.operators[operator].cache.vms.clone();
        for (index, vm) in vms.iter().enumerate() {
            let settled = self.settled(operator, super::vms::VM, index, vm.version);
            if vm.exists && vm.phase != phase && settled {
                self.write(operator, Work::Show(index, vm.version, phase));
            }
        }
    }

    /// Carries out the rebase that was asked for, from a fresh read.
    fn go_on(&mut self, operator: usize) {
        let policy = self.api.objects.policy.clone();
        let called = self.operators[operator].freeze.roll_call == policy.roll_call;
        if !self.api_serves() || !policy.asked || !policy.frozen || !called {
            return;
        }
        let said = self.what_hosts_say(operator, &policy.rebase, &policy.roll_call);
        let vms = self.api.objects.vms.clone();
        let rights: Vec<_> = vms
            .iter()
            .filter(|vm| vm.exists)
            .map(|vm| vm.rights.clone())
            .collect();
        let Ok(plan) = rebase(
            &rights,
            &said,
            policy.floor,
            self.wall_milliseconds(operator),
        ) else {
            return;
        };
        if policy.floor.is_none() {
            return self.write(operator, Work::Floor(policy.version, plan.floor));
        }
        if plan.changes.is_empty() {
            if self.claim_what_runs(operator, &plan.running) {
                return;
            }
            let known = &self.operators[operator].freeze.rebase;
            let last = policy.rebase.as_str().max(known.as_str());
            let id = self.wall(operator).max(format!("{last}+"));
            return self.write(operator, Work::Thaw(policy.version, id));
        }
        for change in plan.changes {
            let after = change.after().clone();
            let vm = vms.iter().position(|vm| vm.exists && vm.uid == after.vm);
            if let Some(vm) = vm {
                self.write(operator, Work::Adopt(vm, vms[vm].version, Box::new(after)));
            }
        }
    }

    fn what_hosts_say(
        &self,
        operator: usize,
        rebase: &str,
        roll_call: &str,
    ) -> BTreeMap<HostName, HostSaid> {
        let this = &self.operators[operator];
        let unheard = self.mutant == Mutant::RebaseUnheard;
        let mut said = BTreeMap::new();
        for (host, name) in self.names.iter().enumerate() {
            let object = &self.api.objects.hosts[host];
            let renews = this.renewals[host]
                .as_ref()
                .and_then(|known| known.boot_id.as_ref());
            let word = object.frozen.as_ref().filter(|(known, answers, word)| {
                known == rebase && answers == roll_call && renews == Some(&word.boot_id)
            });
            let off = || {
                let (machine, facts) = (this.hosts.machine(name)?, this.facts.get(name)?);
                let boot = &facts.identity.as_ref()?.boot_id;
                (machine.life() == Life::Fenced)
                    .then(|| machine.stop_proof(boot, facts))
                    .flatten()
            };
            let word = match word {
                Some((.., word)) => HostSaid::Heard(word.clone()),
                None if unheard => HostSaid::Heard(HostWord {
                    boot_id: machine_boot(object),
                    copies: Vec::new(),
                    highest: Epoch(0),
                }),
                None => off().map_or(HostSaid::Silent, HostSaid::Off),
            };
            said.insert(name.clone(), word);
        }
        said
    }

    /// Gives the volumes of what runs to what runs; whether one of them was another's.
    fn claim_what_runs(&mut self, operator: usize, running: &BTreeMap<VmUid, Assignment>) -> bool {
        let mut astray = Vec::new();
        for vm in self.api.objects.vms.iter().filter(|vm| vm.exists) {
            let wanted = running
                .get(&vm.uid)
                .map(|right| (vm.uid.clone(), right.clone()));
            let volume = &self.api.objects.volumes[vm.volume];
            if wanted.is_some() && volume.claim != wanted {
                astray.push(Work::AdoptClaim(vm.volume, volume.version, wanted));
            }
        }
        let any = !astray.is_empty();
        for work in astray {
            self.write(operator, work);
        }
        any
    }

    /// What an operator's wall clock shows, milliseconds since its site began.
    fn since_began(&self, operator: usize) -> u64 {
        self.now + u64::from(self.operators[operator].wall_ahead) * 3_600_000
    }

    /// The same as words that are compared as such.
    fn wall(&self, operator: usize) -> String {
        format!("{:09}", self.since_began(operator))
    }

    /// The same since 1970.
    fn wall_milliseconds(&self, operator: usize) -> i64 {
        BEGAN + i64::try_from(self.since_began(operator)).unwrap_or(0)
    }

    /// Every host is to say anew what runs there; a floor of epochs from before is void.
    fn call_the_roll(
        &mut self,
        operator: usize,
        version: u64,
        edit: impl FnOnce(&mut PolicyObject),
    ) -> bool {
        let roll_call = format!("{} {}", self.wall(operator), name(operator));
        let written = self.api.policy(Some(version), |policy| {
            policy.roll_call.clone_from(&roll_call);
            policy.floor = None;
            edit(policy);
        });
        if written {
            let freeze = &mut self.operators[operator].freeze;
            freeze.roll_call = roll_call;
            (freeze.highest, freeze.went_back) = (0, false);
        }
        written
    }

    /// Writes of a freeze and a rebase, as they are made at the API server.
    pub(super) fn freeze_write(&mut self, operator: usize, work: &Work) -> bool {
        match work {
            Work::Freeze(version) => {
                let written = self.call_the_roll(operator, *version, |policy| {
                    (policy.frozen, policy.asked) = (true, false);
                });
                if written {
                    self.tell_as(name(operator), "frozen", &[]);
                }
                written
            }
            Work::CallTheRoll(version, again) => {
                let written = self.call_the_roll(operator, *version, |policy| {
                    // A rebase that was asked for before is none of a new freeze.
                    policy.asked &= !again;
                });
                if written {
                    self.tell_as(name(operator), "rollCalled", &[]);
                }
                written
            }
            Work::Floor(version, floor) => self
                .api
                .policy(Some(*version), |policy| policy.floor = Some(*floor)),
            Work::Adopt(vm, version, after) => {
                let rights = after.as_ref().clone();
                let written = self.api.vm(*vm, Some(*version), |object| {
                    object.rights = rights;
                    (object.runtime, object.incoming_runtime) = (None, None);
                });
                if written {
                    self.checker.adopted(after);
                    let host = after.assignment.as_ref();
                    let host = host.map_or("none".to_owned(), |right| right.host.to_string());
                    self.tell_as(
                        name(operator),
                        "adopted",
                        &[("vm", &after.vm), ("host", &host)],
                    );
                }
                written
            }
            Work::AdoptClaim(volume, version, wanted) => {
                self.api.volume(*volume, Some(*version), |volume| {
                    volume.claim.clone_from(wanted);
                })
            }
            Work::Thaw(version, id) => {
                let written = self.api.policy(Some(*version), |policy| {
                    (policy.frozen, policy.asked, policy.floor) = (false, false, None);
                    policy.rebase.clone_from(id);
                });
                if written {
                    self.operators[operator].freeze.roll_call.clear();
                    self.checker.rebased();
                    self.tell_as(name(operator), "rebased", &[]);
                }
                written
            }
            _ => false,
        }
    }
}

fn machine_boot(object: &crate::api::HostObject) -> model::BootId {
    let reported = object.reported.as_ref().or(object.accepted.as_ref());
    reported.map_or_else(|| "unknown".into(), |identity| identity.boot_id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn an_accepted_host_whose_lease_was_never_seen_is_not_heard() {
        let mut world = World::new(Plan::random(1), Mutant::None, false);
        let hosts = world.machines.len();
        world.operators[0].sized(hosts);
        world.operators[0].cache = world.api.objects.clone();
        assert!(!world.everybody_heard(0));
        // One that was never accepted keeps nobody waiting.
        for host in 0..hosts {
            world.api.host(host, None, |object| object.accepted = None);
        }
        world.operators[0].cache = world.api.objects.clone();
        assert!(world.everybody_heard(0));
    }
}
