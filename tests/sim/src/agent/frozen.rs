//! An agent whose API went back: it looks, keeps still, says what runs, and acts again after a
//! rebase (agent/src/freeze.rs), as `failover::agent::freeze` decides.

use std::collections::BTreeSet;

use failover::agent::freeze::{SiteWord, Step};
use failover::agent::ledger::EpochState;
use failover::rebase::{HostWord, SeenCopy};
use model::{Epoch, VmUid};

use super::{Key, Patch, Task};
use crate::machine::DomainState;
use crate::mutant::Mutant;
use crate::world::{Event, World};

impl World {
    /// A fresh list's version; whether this host may act.
    pub(crate) fn sees_version(&mut self, host: usize) -> bool {
        if self.mutant == Mutant::ForgetsVersions {
            return true;
        }
        let version = self.api.revision();
        let acted = self.machines[host].acts();
        // Reads of the simulated API are answered at once.
        let begun = self.machines[host].memory.begin();
        let acts = self.machines[host].memory.see(version, &begun);
        if acted && !acts {
            let name = self.names[host].clone();
            self.tell("froze", &[("host", &name)]);
        }
        acts
    }

    /// The look at the API that freezes and thaws.
    pub(super) fn look_at_version(&mut self, host: usize) {
        let acted = self.machines[host].acts();
        if !self.sees_version(host) && acted {
            return;
        }
        let policy = self.api.objects.policy.clone();
        let site = SiteWord {
            frozen: policy.frozen,
            rebase: policy.rebase.clone(),
        };
        let version = self.api.revision();
        let step = self.machines[host].memory.step(&site);
        self.machines[host].roll_call = policy.roll_call.clone();
        if step == Step::Settle && self.settles(host) {
            let vms = &self.api.objects.vms;
            let epochs = vms.iter().map(|vm| vm.rights.last_epoch).max();
            self.machines[host]
                .memory
                .thaw(version, &site.rebase, epochs.unwrap_or(Epoch(0)));
            let name = self.names[host].clone();
            self.tell("thawed", &[("host", &name)]);
            self.api.host(host, None, |object| object.frozen = None);
        }
    }

    /// Closes what the rights do not name; whether nothing of it is left.
    fn settles(&mut self, host: usize) -> bool {
        let keeps = self.mutant == Mutant::RebaseKeepsStarts;
        let vms = self.api.objects.vms.clone();
        let machine = &mut self.machines[host];
        let (name, boot) = (&self.names[host], machine.boot_id.clone());
        let mut done = machine.agent.busy.is_empty();
        let mut close = Vec::new();
        for (index, vm) in vms.iter().enumerate().filter(|(_, vm)| vm.exists) {
            let named: BTreeSet<i64> = [&vm.rights.assignment, &vm.rights.incoming]
                .into_iter()
                .flatten()
                .filter(|right| right.host == *name && right.boot_id == boot)
                .map(|right| right.epoch.0)
                .collect();
            let runs = machine
                .domains
                .get(&vm.uid)
                .filter(|domain| domain.boot_id == boot)
                .map(|domain| domain.epoch.0);
            if let Some(epoch) = runs.filter(|epoch| !named.contains(epoch)) {
                done = false;
                close.push((index, vm.uid.clone(), epoch));
            }
            if keeps {
                continue;
            }
            let entry = machine.ledger.entry(vm.uid.clone()).or_default();
            let seen: BTreeSet<i64> = entry.epochs.keys().chain(&named).copied().collect();
            for epoch in seen.into_iter().filter(|epoch| Some(*epoch) != runs) {
                if entry.state(epoch) != Some(EpochState::HandedOver) {
                    // Closing what is not handed over is never refused.
                    let _ = entry.close(epoch);
                }
            }
        }
        let listed = vms.iter().filter(|vm| vm.exists).map(|vm| &vm.uid);
        let listed: BTreeSet<_> = listed.collect();
        for (uid, entry) in &mut machine.ledger {
            // What has not become a copy yet may not: another VM may hold its disk.
            let kept = keeps || listed.contains(uid) || machine.domains.contains_key(uid);
            for epoch in entry.epochs.clone().into_keys().filter(|_| !kept) {
                let _ = entry.close(epoch);
            }
        }
        for (_, uid, epoch) in close {
            self.close_by_rebase(host, uid, Epoch(epoch));
        }
        done
    }

    fn close_by_rebase(&mut self, host: usize, uid: VmUid, epoch: Epoch) {
        let machine = &mut self.machines[host];
        if !machine.agent.busy.insert(uid.clone()) {
            return;
        }
        let right = model::Assignment {
            host: self.names[host].clone(),
            boot_id: machine.boot_id.clone(),
            epoch,
        };
        let run = machine.agent.run;
        let task = Task::Close(Key::Vm(uid.clone()), uid, right, None);
        self.push(1, Event::Task(host, run, Box::new(task)));
    }

    /// A frozen agent's turn: once nothing is under way it says what runs here.
    pub(super) fn frozen_turn(&mut self, host: usize, run: u64) {
        let machine = &self.machines[host];
        let agent = &machine.agent;
        let idle = agent.busy.is_empty()
            && agent.busy_source.is_empty()
            && agent.busy_target.is_empty()
            && agent.sending.is_empty();
        let rebase = machine
            .memory
            .freeze
            .as_ref()
            .and_then(|freeze| freeze.rebase.clone());
        let (true, true, Some(rebase)) = (idle, agent.synced, rebase) else {
            return;
        };
        let highest = machine
            .ledger
            .values()
            .filter_map(|entry| entry.epochs.last_key_value())
            .map(|(epoch, _)| *epoch)
            .max();
        let copies = machine
            .domains
            .values()
            .map(|domain| SeenCopy {
                vm: domain.uid.clone(),
                name: domain.uid.to_string(),
                epoch: domain.epoch,
                runs: matches!(domain.state, DomainState::Running | DomainState::Stalled),
            })
            .collect();
        let word = HostWord {
            boot_id: machine.boot_id.clone(),
            copies,
            highest: machine.memory.epochs.max(Epoch(highest.unwrap_or(0))),
        };
        let said = Some((rebase, machine.roll_call.clone(), word));
        let known = agent
            .cache
            .hosts
            .get(host)
            .and_then(|object| object.frozen.clone());
        if known != said {
            let wait = self.latency();
            let say = Task::Say(Key::Target(usize::MAX), Patch::Frozen(host, said), None);
            self.push(wait, Event::Task(host, run, Box::new(say)));
        }
    }
}
