//! A site whose etcd was restored, as an operator sees it (operator/src/freeze.rs): it keeps
//! everything still and carries out the rebase that a person asks for.

use std::collections::BTreeMap;

use failover::freeze::{Answer, Due, Facts, HostFacts, OperatorMemory, Turn, host_said};
use failover::host::machine::Life;
use failover::rebase::{HostSaid, HostWord, rebase};
use failover::vm::frozen;
use model::{Assignment, Epoch, HostName, VmUid};

use super::{Work, name};
use crate::api::{HostObject, PolicyObject};
use crate::mutant::Mutant;
use crate::world::World;

/// When the site began, milliseconds since 1970.
const BEGAN: i64 = 1_790_000_000_000;

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Freeze {
    memory: OperatorMemory,
    highest: u64,
    pub(super) went_back: bool,
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
        if !policy.frozen && this.freeze.memory.learns_of(&policy.rebase) {
            (this.freeze.highest, this.freeze.went_back) = (0, false);
            this.written.clear();
        }
        if !leads {
            this.freeze.memory.forget();
        }
    }

    /// Whether the site is frozen, by this operator's own word or by the API's.
    pub(super) fn holds_frozen(&self, operator: usize) -> bool {
        let this = &self.operators[operator];
        this.freeze.memory.stands() || this.cache.policy.frozen
    }

    /// One turn before anything is decided about VMs.
    pub(super) fn freeze_turn(&mut self, operator: usize) -> Turn {
        if self.mutant == Mutant::ForgetsVersions {
            return Turn::Act;
        }
        let now = self.moment(operator);
        let late = self.policy.unreachable_after_milliseconds;
        let this = &mut self.operators[operator];
        let policy = this.cache.policy.clone();
        let hosts = this.cache.hosts.iter().zip(&this.renewals).zip(&self.names);
        let facts = Facts {
            roll_call: policy.frozen.then_some(policy.roll_call.as_str()),
            last_rebase: &policy.rebase,
            went_back: this.freeze.went_back,
            hosts: hosts
                .map(|((object, renewals), name)| host_facts(name, object, renewals.as_ref()))
                .collect(),
            unreachable_after_milliseconds: late,
        };
        let turn = this.freeze.memory.turn(&facts, now);
        let Turn::Frozen {
            forget_written,
            due,
        } = &turn
        else {
            return turn;
        };
        if *forget_written {
            this.written.clear();
        }
        if policy.frozen {
            self.show_frozen(operator);
        }
        match due {
            Due::Rebase => self.go_on(operator),
            Due::CallTheRoll { again } => {
                self.write(operator, Work::CallTheRoll(policy.version, *again));
            }
            Due::Freeze(_) => self.write(operator, Work::Freeze(policy.version)),
        }
        turn
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

    /// Carries out the rebase that was asked for, from VMs and hosts that are read afresh.
    fn go_on(&mut self, operator: usize) {
        let policy = self.operators[operator].cache.policy.clone();
        if !self.api_serves() || !policy.asked {
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
            let memory = &self.operators[operator].freeze.memory;
            let id = memory.name_rebase(&policy.rebase, self.wall(operator));
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
            let answer = object
                .frozen
                .as_ref()
                .map(|(rebase, roll_call, word)| Answer {
                    rebase,
                    roll_call,
                    word: word.clone(),
                });
            let off = || {
                let (machine, facts) = (this.hosts.machine(name)?, this.facts.get(name)?);
                let boot = &facts.identity.as_ref()?.boot_id;
                (machine.life() == Life::Fenced)
                    .then(|| machine.stop_proof(boot, facts))
                    .flatten()
            };
            let mut word = host_said(answer, renews, rebase, roll_call, off());
            if unheard && !matches!(word, HostSaid::Heard(_)) {
                word = HostSaid::Heard(HostWord {
                    boot_id: machine_boot(object),
                    copies: Vec::new(),
                    highest: Epoch(0),
                });
            }
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
            freeze.memory.called(&roll_call);
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
                    self.operators[operator].freeze.memory.rebased();
                    self.checker.rebased();
                    self.tell_as(name(operator), "rebased", &[]);
                }
                written
            }
            _ => false,
        }
    }
}

/// What an operator knows of a host.
fn host_facts<'a>(
    name: &HostName,
    object: &'a HostObject,
    renewals: Option<&super::Renewals>,
) -> HostFacts<'a> {
    let told = object.frozen.as_ref();
    HostFacts {
        name: name.clone(),
        accepted: object.accepted.is_some(),
        renewals: renewals.map_or(0, |known| known.sign.changes),
        remembers: renewals.and_then(|known| known.api_seen.clone()),
        frozen: told.map(|(rebase, ..)| (rebase.as_str(), "frozen")),
    }
}

fn machine_boot(object: &HostObject) -> model::BootId {
    let reported = object.reported.as_ref().or(object.accepted.as_ref());
    reported.map_or_else(|| "unknown".into(), |identity| identity.boot_id.clone())
}
