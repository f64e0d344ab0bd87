//! The judges. They look at the truth and at the API's objects, count for themselves, and
//! share no code with what they judge.

use std::collections::{BTreeMap, BTreeSet};

use failover::assignment::Rights;
use failover::vm::{VmPhase, Wanted};
use model::VmUid;

use crate::apart::Apart;
use crate::healthy::Health;
use crate::machine::DomainState;
use crate::world::World;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, virtual milliseconds.
    pub at: u64,
    /// Which rule, one of the words in `tests/sim/README.md`.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
}

/// What the judges remember.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Everything runs where it should, some seconds after the faults.
    pub settled: bool,
    /// Highest epoch ever issued, by VM, and all that were.
    issued: BTreeMap<VmUid, (i64, BTreeSet<i64>)>,
    started: BTreeSet<(VmUid, i64)>,
    /// When the API server last took a renewal of each host.
    pub(crate) renewed_at: Vec<u64>,
    steady_since: u64,
    steady_operator: Option<usize>,
    good_looks: u32,
    pending: Option<(&'static str, String)>,
    /// What the judges of `healthy` remember.
    pub(crate) health: Health,
    /// What the judge of `apart` remembers.
    pub(crate) apart: Apart,
    /// etcd was restored and the site is not rebased: an epoch may be issued again, though
    /// nothing may start under it.
    old: bool,
}

/// With a working operator and API, a VM on a host silent for so long is not shown as running,
/// milliseconds. The host counts as Suspect after 3 s; an operator that was paused for a moment,
/// or re-armed, begins that window once more; the rest is turns and writes.
const SHOWN_WITHIN: u64 = 12_000;
/// Looks in a row that must find everything at rest.
const GOOD_LOOKS: u32 = 3;

impl Checker {
    /// Judges of a world of so many hosts and VMs.
    pub fn new(hosts: usize, _vms: usize) -> Self {
        Self {
            renewed_at: vec![0; hosts],
            ..Self::default()
        }
    }

    pub(crate) fn object(&mut self, at: u64, rule: &'static str, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { at, rule, text });
        }
    }

    /// One operator has led undisturbed since an earlier look.
    pub(crate) fn steadily_led(&self, now: u64) -> bool {
        self.steady_operator.is_some() && self.steady_since < now
    }

    /// A QEMU process was made under an epoch.
    pub fn started(&mut self, vm: &VmUid, epoch: i64) {
        if !self.started.insert((vm.clone(), epoch)) {
            self.pending = Some((
                "epoch-once",
                format!("epoch {epoch} of {vm} was started twice"),
            ));
        }
        let issued = self.issued.entry(vm.clone()).or_default();
        if issued.1.is_empty() {
            issued.0 = epoch;
            issued.1.insert(epoch);
        }
    }

    /// What the API holds went back, and what it shows: operators get time to show what is.
    pub fn restored(&mut self, now: u64) {
        (self.old, self.steady_since) = (true, now);
    }

    /// The site was rebased.
    pub fn rebased(&mut self) {
        self.old = false;
    }

    /// A rebase set a VM's rights: above all that was ever issued, in forgotten histories too.
    pub fn adopted(&mut self, after: &Rights) {
        let issued = self.issued.entry(after.vm.clone()).or_default();
        let highest = issued.0.max(issued.1.last().copied().unwrap_or(0));
        if after.last_epoch.0 < highest {
            let text = format!("{}: rebased below epoch {highest}", after.vm);
            self.pending = Some(("epochs-grow", text));
        }
        issued.0 = after.last_epoch.0;
    }

    /// A host's Lease was renewed.
    pub fn renewed(&mut self, host: usize, now: u64) {
        self.renewed_at[host] = now;
    }

    /// Rights of a VM were written.
    pub fn rights_changed(&mut self, before: &Rights, after: &Rights) {
        let issued = self.issued.entry(after.vm.clone()).or_default();
        let mut new = Vec::new();
        for right in [&after.assignment, &after.incoming].into_iter().flatten() {
            let stood = [&before.assignment, &before.incoming]
                .into_iter()
                .flatten()
                .any(|old| old == right);
            if !stood {
                new.push(right.epoch.0);
            }
        }
        let mut broken = None;
        for epoch in new {
            if (epoch <= issued.0 || !issued.1.insert(epoch)) && !self.old {
                broken = Some(format!("{}: epoch {epoch} was issued before", after.vm));
            }
            issued.0 = issued.0.max(epoch);
        }
        if after.last_epoch < before.last_epoch {
            broken = Some(format!("{}: lastEpoch fell", after.vm));
        }
        if let Some(text) = broken {
            self.pending = Some(("epochs-grow", text));
        }
    }
}

impl World {
    /// A guest began to run somewhere: no disk may have two writers, whatever is reachable.
    pub fn writers_changed(&mut self) {
        let mut writers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (host, machine) in self.machines.iter().enumerate().filter(|(_, m)| m.power) {
            for domain in machine.domains.values() {
                if domain.state == DomainState::Running && self.cut[host].is_none() {
                    let who = format!(
                        "{} (epoch {}) on {}",
                        domain.uid, domain.epoch, self.names[host]
                    );
                    writers.entry(domain.volume).or_default().push(who);
                }
            }
        }
        let double = writers.into_values().find(|who| who.len() > 1);
        if let Some(who) = double {
            let text = format!("one disk, two writers: {}", who.join(" and "));
            self.checker.object(self.now, "one-writer", text);
        }
    }

    /// The regular look at the whole.
    pub fn look(&mut self) {
        let now = self.now;
        if let Some((rule, text)) = self.checker.pending.take() {
            self.checker.object(now, rule, text);
        }
        self.look_at_what_is_shown();
        self.look_at_health();
        self.look_at_what_is_apart();
        if self.healed {
            self.people_switch_on();
            self.people_reboot_the_cut();
            if self.rng.chance(100) {
                self.ask_rebase();
            }
            let good = self.what_is_wrong().is_none();
            let looks = if good { self.checker.good_looks + 1 } else { 0 };
            self.checker.good_looks = looks;
            self.checker.settled = looks >= GOOD_LOOKS;
        }
    }

    fn look_at_what_is_shown(&mut self) {
        let now = self.now;
        let working = (0..self.operators.len()).find(|index| {
            let operator = &self.operators[*index];
            operator.alive
                && now >= operator.paused_until
                && now >= operator.stale_until
                && now >= self.split_until
                && self.leads(*index)
        });
        let lossy = now < self.outage.lossy_until;
        let checker = &mut self.checker;
        if working.is_none()
            || working != checker.steady_operator
            || lossy
            || now < self.outage.down_until
        {
            checker.steady_since = now;
            checker.steady_operator = working;
        }
        let since = checker.steady_since;
        if now - since < SHOWN_WITHIN {
            return;
        }
        for vm in self
            .api
            .objects
            .vms
            .iter()
            .filter(|vm| vm.exists && vm.phase == VmPhase::Running)
        {
            let Some(right) = &vm.rights.assignment else {
                continue;
            };
            let host = self
                .names
                .iter()
                .position(|name| *name == right.host)
                .unwrap_or(0);
            let renewed = self.checker.renewed_at[host].max(since);
            if now - renewed > SHOWN_WITHIN {
                let silent = now - renewed;
                let text = format!(
                    "{} is shown Running on {}, silent for {silent} ms",
                    vm.uid, right.host
                );
                return self.checker.object(now, "shown", text);
            }
        }
    }

    /// The first thing that is not as it should be at rest, and the rule it breaks.
    fn what_is_wrong(&self) -> Option<(&'static str, String)> {
        for (index, vm) in self.api.objects.vms.iter().enumerate() {
            let copies: Vec<_> = self
                .machines
                .iter()
                .enumerate()
                .filter(|(_, machine)| machine.power)
                .flat_map(|(host, machine)| {
                    machine.domains.values().map(move |domain| (host, domain))
                })
                .filter(|(_, domain)| domain.vm == index && domain.uid == vm.uid)
                .collect();
            match (vm.exists, vm.wanted) {
                (true, Wanted::Running | Wanted::RunningUntilShutDown) => {
                    if self.refused(index) {
                        continue;
                    }
                    let right = vm.rights.assignment.as_ref();
                    let runs = matches!(copies.as_slice(), [(host, domain)]
                        if domain.state == DomainState::Running
                        && right.is_some_and(|right| right.host == self.names[*host] && right.epoch == domain.epoch));
                    if !runs {
                        let text = format!(
                            "{} is down: {} copies, shown {:?}, right {right:?}",
                            vm.uid,
                            copies.len(),
                            vm.phase
                        );
                        return Some(("recovers", text));
                    }
                    if vm.phase != VmPhase::Running {
                        return Some((
                            "recovers",
                            format!("{} runs and is shown {:?}", vm.uid, vm.phase),
                        ));
                    }
                }
                (true, Wanted::Halted) if !copies.is_empty() || vm.rights.assignment.is_some() => {
                    return Some(("stops", format!("{} should be halted", vm.uid)));
                }
                (true, Wanted::Deleted) => {
                    return Some(("stops", format!("{} should be deleted", vm.uid)));
                }
                _ => {}
            }
        }
        self.api
            .objects
            .moves
            .iter()
            .find(|object| World::is_open(object) && !object.message.starts_with("no host fits"))
            .map(|object| {
                (
                    "drains-end",
                    format!(
                        "the move of {} has not ended: {}",
                        object.uid, object.message
                    ),
                )
            })
    }

    /// Another VM holds its volume: it waits with that reason, rightly.
    fn refused(&self, vm: usize) -> bool {
        let object = &self.api.objects.vms[vm];
        let claim = &self.api.objects.volumes[object.volume].claim;
        claim.as_ref().is_some_and(|(uid, _)| *uid != object.uid)
            && self
                .plan
                .vms
                .iter()
                .filter(|spec| spec.volume == object.volume)
                .count()
                > 1
    }

    /// The bound has passed and the world has not settled.
    pub fn judge_the_end(&mut self) {
        let (rule, text) = self
            .what_is_wrong()
            .unwrap_or(("recovers", "nothing settled for long enough".to_owned()));
        let bound = self.plan.settle_bound / 1000;
        let text = format!("{bound} s after all faults ended: {text}");
        self.checker.object(self.now, rule, text);
    }
}
