//! Two judges that do not wait for the end of all faults: a guest on a host that nothing has hit
//! goes on running whatever becomes of the platform's own programs, and a VM whose host is off is
//! running again within a bound while there is a host for it. They look at the truth, and share no code
//! with what they judge.

use std::collections::{BTreeMap, BTreeSet};

use failover::vm::{VmPhase, Wanted};
use model::{BootId, VmUid};

use crate::faults::Fault;
use crate::machine::{Bmc, DomainState};
use crate::world::World;

/// A VM of a host that reads Off is running again after so long, milliseconds: a missed renewal and two
/// readings take 8 s, a leader that fell silent 6 s more, writes and the start some seconds.
const STARTED_WITHIN: u64 = 40_000;
/// A host whose Lease the API server has seen unchanged for so long may be forced off, milliseconds: the
/// silence after which the design calls it unreachable.
const SILENT_FOR: u64 = 8_000;

/// What these judges remember.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Hosts that something hit: their guests may have to stop.
    hit: BTreeSet<usize>,
    /// Hosts that may not take VMs for reasons that pass unseen here.
    odd: BTreeSet<usize>,
    /// Boots that an operator forced off, or cut off from their storage, and why it should not have; nothing:
    /// it had to take the host for unreachable.
    fenced: BTreeMap<(usize, BootId), Option<String>>,
    /// VMs that a person stopped, or that ended by themselves.
    ended: BTreeSet<VmUid>,
    /// A switch-over may have been cut short: its VM starts anew.
    switches_break: bool,
    /// What the API held was changed by hand.
    by_hand: bool,
    /// Guests that were on each host at the last look, with their epochs.
    guests: BTreeMap<usize, BTreeMap<VmUid, i64>>,
    /// Since when each host could take VMs.
    well_since: BTreeMap<usize, u64>,
    /// Since when each VM could run and does not.
    down_since: BTreeMap<usize, u64>,
}

impl World {
    /// Notes what a fault may do to hosts and guests. What is not named here hits the platform's own
    /// programs, a BMC or the API server, and stops no guest.
    pub(crate) fn note_harm(&mut self, fault: &Fault) {
        let health = &mut self.checker.health;
        match *fault {
            Fault::PowerLoss { host, .. }
            | Fault::Hang { host, .. }
            | Fault::Reboot { host }
            | Fault::ManagementCut { host, .. }
            | Fault::StorageCut { host, .. } => {
                health.hit.insert(host.0);
                health.switches_break = true;
            }
            Fault::Replace { host, .. }
            | Fault::ReplaceNics { host, .. }
            | Fault::Twin { host, .. }
            | Fault::LedgerLost { host }
            | Fault::DisksFail { host, .. }
            | Fault::CloseHangs { host, .. } => {
                health.hit.insert(host.0);
                health.odd.insert(host.0);
            }
            Fault::SwitchReboot { .. } => {
                health.hit.extend(0..self.machines.len());
                health.switches_break = true;
            }
            Fault::FinishLost { .. } | Fault::SourceDies { .. } | Fault::StaleOperator { .. } => {
                health.switches_break = true;
            }
            Fault::BackUp | Fault::Restore { .. } | Fault::Rebase => health.by_hand = true,
            Fault::GuestCrash { vm }
            | Fault::GuestShutdown { vm }
            | Fault::Halt { vm }
            | Fault::Delete { vm } => {
                let uid = self.api.objects.vms[vm.0].uid.clone();
                health.ended.insert(uid);
            }
            _ => {}
        }
    }

    /// An operator sends a force-off, or has a host cut off from its storage: judged by what the API server
    /// has taken from hosts by then, whatever the operator has seen of it. With leave the guests of that boot
    /// may go.
    pub(crate) fn note_fence(&mut self, host: usize) {
        let (now, boot_id) = (self.now, self.boot_of(host));
        let silent = now - self.checker.renewed_at[host];
        let lives = |other: &usize| now - self.checker.renewed_at[*other] < SILENT_FOR;
        let another = (0..self.machines.len()).any(|other| other != host && lives(&other));
        let wrong = if silent < SILENT_FOR {
            Some(format!("its Lease was renewed {silent} ms before"))
        } else {
            (!another).then(|| "no other host was renewing its Lease".to_owned())
        };
        let health = &mut self.checker.health;
        health.switches_break |= wrong.is_none();
        // What was sent without leave stays so.
        let told = health.fenced.entry((host, boot_id)).or_default();
        *told = told.take().or(wrong);
    }

    /// The look of these judges.
    pub(crate) fn look_at_health(&mut self) {
        if self.checker.health.by_hand {
            return;
        }
        let broken = self.a_guest_was_stopped().or_else(|| self.a_vm_is_late());
        if let Some((rule, text)) = broken {
            self.checker.object(self.now, rule, text);
        }
    }

    /// Guests on a machine, with their epochs; one that stands still for a moment is there.
    fn guests_of(&self, host: usize) -> BTreeMap<VmUid, i64> {
        let machine = &self.machines[host];
        let there = machine.domains.values().filter(|domain| {
            machine.power && domain.job.is_none() && domain.state == DomainState::Running
        });
        there
            .map(|domain| (domain.uid.clone(), domain.epoch.0))
            .collect()
    }

    fn a_guest_was_stopped(&mut self) -> Option<(&'static str, String)> {
        let mut stopped = None;
        for host in 0..self.machines.len() {
            let now = self.guests_of(host);
            let before = self.checker.health.guests.insert(host, now);
            for (uid, epoch) in before.unwrap_or_default() {
                if !self.may_be_gone(host, &uid, epoch) {
                    let name = &self.names[host];
                    let boot = (host, self.boot_of(host));
                    let fenced = self.checker.health.fenced.get(&boot).cloned().flatten();
                    let why = fenced.map(|why| format!(": it was fenced though {why}"));
                    let text = format!(
                        "{uid} (epoch {epoch}) was stopped on {name}, which is healthy{}",
                        why.unwrap_or_default()
                    );
                    stopped = Some(("healthy-runs", text));
                }
            }
        }
        stopped
    }

    /// It is there, went away with its leave, or its host was hit.
    fn may_be_gone(&self, host: usize, uid: &VmUid, epoch: i64) -> bool {
        let health = &self.checker.health;
        let machine = &self.machines[host];
        let there = machine
            .domains
            .get(uid)
            .is_some_and(|domain| machine.power && domain.epoch.0 == epoch);
        let mut moves = self.api.objects.moves.iter();
        let moved = moves.any(|object| object.uid == uid.as_str());
        let elsewhere = (0..self.machines.len())
            .any(|other| other != host && self.machines[other].domains.contains_key(uid));
        there
            || health.hit.contains(&host)
            || health.fenced.get(&(host, self.boot_of(host))) == Some(&None)
            || health.ended.contains(uid)
            || (moved && (elsewhere || health.switches_break))
    }

    /// Whether a host could take a VM now, as far as it and the API server go.
    fn is_well(&self, host: usize) -> bool {
        let (machine, now) = (&self.machines[host], self.now);
        let object = &self.api.objects.hosts[host];
        let agent = &machine.agent;
        let accepted = object.accepted.as_ref().map(|identity| &identity.boot_id);
        machine.on_management(now)
            && machine.on_storage(now)
            && now >= machine.guard_until
            && now >= machine.start_hangs_until.max(machine.start_fails_until)
            && machine.clock_jump == 0
            && !machine.starts_nothing
            && agent.alive
            && now >= agent.stale_until.max(agent.stuck_until)
            && accepted == Some(&machine.boot_id)
            && object.intent.is_none()
            && object.cut.is_none()
            && self.cut[host].is_none()
            && !object.drain
            && object.faults == 0
            && !self.checker.health.odd.contains(&host)
    }

    fn has_room(&self, host: usize) -> bool {
        let held = self.api.objects.vms.iter().filter(|vm| vm.exists);
        let rights = held.flat_map(|vm| vm.rights.assignment.iter().chain(&vm.rights.incoming));
        let here = rights
            .filter(|right| right.host == self.names[host])
            .count();
        u64::try_from(here).is_ok_and(|here| here < self.plan.room)
    }

    /// A VM that any host may run has none that runs, and its host is off for everybody to read, or
    /// could run it.
    fn could_run(&self, vm: usize) -> bool {
        let (object, spec) = (&self.api.objects.vms[vm], &self.plan.vms[vm]);
        let alike = self
            .plan
            .vms
            .iter()
            .filter(|other| other.volume == spec.volume);
        let free = spec.pinned.is_none() && !spec.stays && !spec.apart && spec.tier.is_none();
        let mut moves = self.api.objects.moves.iter();
        let Some(right) = &object.rights.assignment else {
            return false;
        };
        let host = self.index_of(&right.host);
        let well_for = |host: &usize| self.checker.health.well_since.contains_key(host);
        let off = !self.machines[host].power
            && !self.checker.health.odd.contains(&host)
            && self.machines[host]
                .bmcs_now(self.now)
                .all(|bmc| bmc == Bmc::Honest);
        let mut others = self.checker.health.well_since.keys();
        let runs = (0..self.machines.len()).any(|on| self.guests_of(on).contains_key(&object.uid));
        object.exists
            && object.wanted == Wanted::Running
            && object.phase != VmPhase::Failed
            && free
            && alike.count() == 1
            && object.rights.incoming.is_none()
            && !moves.any(|object_of| object_of.uid == object.uid.as_str())
            && !runs
            && (well_for(&host) || (off && others.any(|other| self.has_room(*other))))
    }

    fn a_vm_is_late(&mut self) -> Option<(&'static str, String)> {
        let now = self.now;
        for host in 0..self.machines.len() {
            if self.is_well(host) {
                self.checker.health.well_since.entry(host).or_insert(now);
            } else {
                self.checker.health.well_since.remove(&host);
            }
        }
        let steady = self.checker.steadily_led(now) && self.api_takes_writes();
        let mut late = None;
        for vm in 0..self.api.objects.vms.len() {
            if !steady || !self.could_run(vm) {
                self.checker.health.down_since.remove(&vm);
                continue;
            }
            let since = *self.checker.health.down_since.entry(vm).or_insert(now);
            if now - since > STARTED_WITHIN {
                let object = &self.api.objects.vms[vm];
                let text = format!(
                    "{} is down for {} ms although its host is proven off, or well, and there is room",
                    object.uid,
                    now - since
                );
                late = Some(("in-time", text));
            }
        }
        late
    }
}
