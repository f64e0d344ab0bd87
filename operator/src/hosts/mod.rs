//! Hosts: gathers what is seen of each, runs `failover`'s state machines every 100 ms, and carries
//! out what they answer: reads and switches BMCs, writes intents, states and proofs.

mod certificates;
mod gather;
#[cfg(test)]
mod in_memory;
mod power;
mod self_fence;
mod show;
mod storage;
mod test_read;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::Host;
use failover::host::fencing::CommandEnd;
use failover::host::fleet::{Hosts, ObserverFacts};
use failover::host::machine::{HostAction, HostFacts, HostMachine, Life};
use failover::proof::HostStopProof;
use failover::proof::confirmation::Confirmation;
use failover::proof::power::PowerReading;
use failover::severity::{FaultBook, FaultKey, StandingFault};
use failover::storm::StormState;
use failover::vm::HostSight;
use failover::{Moment, Policy};
use kube::ResourceExt;
use model::{Assignment, HostName, Severity};
use serde_json::json;

use self::self_fence::SelfFencing;
use self::storage::StorageCuts;
use self::test_read::TestRead;
use crate::arming::Arming;
use crate::runtime::Context;
use crate::writer::logged;
use crate::{clock, door, freeze, incidents, on_panic};

/// Turn of the loop.
const TURN: Duration = Duration::from_millis(100);

/// What is known and decided about hosts.
#[derive(Default)]
pub struct HostWatch {
    machines: Hosts,
    facts: BTreeMap<HostName, HostFacts>,
    readings: BTreeMap<HostName, PowerReading>,
    commands: BTreeMap<HostName, CommandEnd>,
    reading: BTreeSet<HostName>,
    forcing: BTreeSet<HostName>,
    /// Fencing intents first seen, with the moment.
    intents: BTreeMap<HostName, (String, Moment)>,
    /// Faults that stand, by host.
    books: BTreeMap<HostName, FaultBook>,
    /// Confirmations first seen.
    confirmations: BTreeMap<HostName, (Confirmation, Moment)>,
    /// What is remembered for `SelfFenced`.
    self_fencing: SelfFencing,
    /// What pools' servers list of hosts that are cut off.
    storage: StorageCuts,
    /// The last test-read of every BMC of a host.
    tests: BTreeMap<HostName, TestRead>,
}

impl HostWatch {
    /// What deciders need about the host of one assignment.
    pub fn sight(&self, assignment: &Assignment) -> HostSight {
        self.machines.sight(
            &assignment.host,
            &assignment.boot_id,
            self.facts.get(&assignment.host),
        )
    }

    /// For tests: hosts that all renew under the boot id of `context_in_memory`.
    #[cfg(test)]
    pub(crate) fn serving(names: &[String], policy: &Policy) -> Self {
        let boot_id = model::BootId::from(crate::context_in_memory::BOOT);
        let facts = names.iter().map(|name| {
            let facts = HostFacts {
                identity: Some(failover::host::incarnation::Identity {
                    boot_id: boot_id.clone(),
                    system_uuid: name.clone(),
                    mac_addresses: std::collections::BTreeSet::new(),
                }),
                lease_boot_id: Some(boot_id.clone()),
                ..HostFacts::default()
            };
            (HostName::from(name.as_str()), facts)
        });
        let mut watch = Self {
            facts: facts.collect(),
            ..Self::default()
        };
        let observer = ObserverFacts {
            can_write: true,
            hears: true,
            disarmed: false,
            frozen: false,
        };
        for changes in 1..=2 {
            let now = clock::now();
            for facts in watch.facts.values_mut() {
                facts.signs.lease = Some(failover::signs::Sign {
                    changes,
                    changed_at: now,
                });
            }
            let _ = watch.machines.step(&watch.facts, observer, policy, now);
        }
        watch
    }

    /// For tests: the guard of a host says that its agent's loop has stood still for an hour.
    #[cfg(test)]
    pub(crate) fn agent_stands_still(&mut self, host: &str) {
        let facts = self.facts.get_mut(&HostName::from(host));
        facts.expect("a host").loop_age_milliseconds = Some(3_600_000);
    }

    /// Proof that a host is off now, if there is one: read or confirmed, and no sign of life since.
    pub fn off(&self, host: &HostName) -> Option<HostStopProof> {
        let facts = self.facts.get(host)?;
        let machine = self.machines.machine(host)?;
        let boot_id = &facts.identity.as_ref()?.boot_id;
        (machine.life() == Life::Fenced)
            .then(|| machine.stop_proof(boot_id, facts))
            .flatten()
    }

    /// The accepted incarnation of a host that may take VMs now, or why it may not.
    ///
    /// # Errors
    /// Why nothing may be placed there.
    pub fn placeable(&self, host: &HostName, policy: &Policy) -> Result<model::BootId, String> {
        let facts = self.facts.get(host).ok_or("not registered")?;
        let view = self
            .machines
            .view(host, facts, policy, clock::now())
            .ok_or("not watched yet")?;
        if let Some(reason) = view.not_placeable {
            return Err(reason.english());
        }
        facts
            .identity
            .as_ref()
            .map(|identity| identity.boot_id.clone())
            .ok_or_else(|| "not registered".to_owned())
    }

    /// What keeps new VMs from a host; none when it may take them.
    pub fn closed(&self, host: &HostName, policy: &Policy) -> Option<fleet::Closed> {
        let why = self.placeable(host, policy).err()?;
        let machine = self.machines.machine(host);
        let lost = machine.is_some_and(HostMachine::is_lost);
        Some(fleet::Closed { why, lost })
    }

    /// Faults that stand on a host.
    pub fn faults(&self, host: &HostName) -> Vec<(FaultKey, StandingFault)> {
        self.books
            .get(host)
            .into_iter()
            .flat_map(FaultBook::standing)
            .map(|(key, fault)| (key.clone(), fault.clone()))
            .collect()
    }

    /// The worst fault that stands on a host and quarantines it.
    pub fn worst(&self, host: &HostName) -> Option<Severity> {
        let worst = self.books.get(host).and_then(FaultBook::worst);
        worst.filter(|severity| *severity >= Severity::Degraded)
    }

    /// How many faults that stand quarantine a host.
    pub fn quarantining(&self, host: &HostName) -> u32 {
        self.books.get(host).map_or(0, FaultBook::quarantining)
    }

    /// No storm: silence of single hosts is what it seems.
    pub fn is_calm(&self) -> bool {
        *self.machines.storm() == failover::storm::StormState::Calm
    }

    /// The storm guard stands, be it that it lets one host at a time be forced off, and more than one host is silent: what
    /// is wrong is not the matter of each of them. The last one that stays silent is a matter of its own again.
    pub fn storm_stands(&self) -> bool {
        !self.is_calm() && self.silent() > 1
    }

    /// Hosts that miss renewals just now.
    fn silent(&self) -> usize {
        let silent = self.facts.keys().filter(|host| self.is_silent(host));
        silent.count()
    }

    /// Whether a host misses renewals just now.
    pub fn is_silent(&self, host: &HostName) -> bool {
        self.machines
            .machine(host)
            .is_some_and(HostMachine::is_silent)
    }

    /// Whether a host was silent past the time-out, or is proven dead, and has not come back.
    pub fn is_lost(&self, host: &HostName) -> bool {
        let machine = self.machines.machine(host);
        machine.is_some_and(HostMachine::is_lost)
    }

    /// Hosts that are silent, of so many, where a storm is to be told.
    pub fn told_storm(&self) -> Option<(u32, u32)> {
        let stands = matches!(self.machines.storm(), StormState::Storm { .. });
        told_storm(stands, self.silent(), self.facts.len())
    }

    /// Whether a host can not end a copy, as its agent says.
    pub fn is_stuck(&self, host: &HostName) -> bool {
        self.facts
            .get(host)
            .is_some_and(|facts| facts.close_stuck > 0)
    }
}

fn lock(context: &Context) -> std::sync::MutexGuard<'_, HostWatch> {
    context.hosts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work about a host beside the loop. If it panics it leaves no mark behind: the host would never be
/// read or fenced again.
fn in_task(
    context: &Arc<Context>,
    what: &'static str,
    name: &HostName,
    mut release: impl FnMut(&mut HostWatch, &HostName) + Send + 'static,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let (context, host) = (context.clone(), name.clone());
    let release = move || {
        let mut watch = lock(&context);
        release(&mut watch, &host);
    };
    on_panic::in_task(what, name.as_str(), release, work);
}

/// Runs for ever.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        turn(context).await;
    }
}

async fn turn(context: &Arc<Context>) {
    let spec = context.stores.policy();
    let policy = door::policy(&spec);
    let hosts = context.stores.hosts.state();
    let now = clock::now();
    let (leads, hears) = (context.writer.leads(), context.writer.hears());
    let (actions, views, events, storm, asks) = {
        let mut watch = lock(context);
        let asks = gather::update(context, &mut watch, &hosts, &policy, now);
        let observer = ObserverFacts {
            can_write: leads,
            hears,
            disarmed: Arming::of(&spec.failover, jiff::Timestamp::now()).is_off(),
            frozen: freeze::message(context).is_some(),
        };
        let HostWatch {
            machines, facts, ..
        } = &mut *watch;
        let step = machines.step(facts, observer, &policy, now);
        for event in &step.events {
            tracing::info!(host = %event.host, kind = ?event.kind, "{}", event.reason.english());
        }
        if step.storm_began {
            tracing::error!("many hosts fell silent at once: nothing is forced off");
        }
        let views: BTreeMap<HostName, _> = facts
            .iter()
            .filter_map(|(name, facts)| {
                Some((name.clone(), machines.view(name, facts, &policy, now)?))
            })
            .collect();
        let storm = watch.told_storm();
        (step.actions, views, step.events, storm, asks)
    };
    for wanted in asks {
        self_fence::ask(context, wanted);
    }
    // Outside the lock: the ledger looks at hosts while it holds its own.
    let observer = incidents::Observer {
        leads,
        hears,
        heard_at: context.writer.heard_at(),
        followed: context.writer.followed(),
        now,
    };
    context.incidents.note(&observer, events, storm);
    if !leads {
        return;
    }
    test_read::turn(context, &hosts, now);
    for (name, action) in actions {
        let Some(host) = hosts.iter().find(|host| host.name_any() == name.as_str()) else {
            continue;
        };
        carry_out(context, host, &name, action).await;
    }
    let (vms, volumes) = (context.stores.vms.state(), context.stores.volumes.state());
    let loads = show::loads(&vms, &volumes);
    for host in &hosts {
        let name = HostName(host.name_any());
        if let Some(view) = views.get(&name) {
            let load = loads.get(&name).copied().unwrap_or_default();
            show::show(context, host, view, &policy, load).await;
        }
    }
}

/// Hosts that are silent, of so many, where a storm stands that is one root cause: one host that falls silent while others
/// have just come back is held up by the storm guard all the same, but is an incident of its own.
fn told_storm(stands: bool, silent: usize, hosts: usize) -> Option<(u32, u32)> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (stands && silent > 1).then(|| (count(silent), count(hosts)))
}

async fn carry_out(context: &Arc<Context>, host: &Arc<Host>, name: &HostName, action: HostAction) {
    match action {
        HostAction::ReadPower => {
            if lock(context).reading.insert(name.clone()) {
                let release = |watch: &mut HostWatch, name: &HostName| {
                    watch.reading.remove(name);
                };
                let (of_task, host, named) = (context.clone(), host.clone(), name.clone());
                in_task(context, "power reading", name, release, async move {
                    power::read_power(&of_task, &host, &named).await;
                });
            }
        }
        HostAction::WriteIntent {
            boot_id,
            expires_after_milliseconds,
        } => {
            let intent = json!({"fencing": {
                "bootId": boot_id, "startedAt": clock::wall(), "expiresAfterSeconds": expires_after_milliseconds / 1000, "attempts": 0,
                "reason": host.status.as_ref().and_then(|status| status.state_reason.clone()).unwrap_or_default(),
                "by": context.writer.identity()}});
            if context.writer.settled(host.as_ref()) {
                logged(
                    "fencing intent",
                    name.as_str(),
                    context.writer.swap_status(host.as_ref(), intent).await,
                );
            }
        }
        HostAction::ForceOff {
            bmc,
            attempt,
            expires_at,
        } => {
            if lock(context).forcing.insert(name.clone()) {
                // The attempt is over: the power is read back, and the next one may come.
                let release = move |watch: &mut HostWatch, name: &HostName| {
                    watch.forcing.remove(name);
                    let at = clock::now();
                    watch
                        .commands
                        .insert(name.clone(), CommandEnd { attempt, at });
                };
                let (of_task, host, named) = (context.clone(), host.clone(), name.clone());
                in_task(context, "force-off", name, release, async move {
                    power::force_off(&of_task, &host, &named, bmc, attempt, expires_at).await;
                });
            }
        }
        HostAction::CutStorage { boot_id } => storage::cut(context, host, name, &boot_id).await,
        HostAction::LiftCut => storage::lift(context, host, name).await,
        HostAction::ClearIntent => {
            // By compare-and-swap, and only its own: another leader's intent may just have been written,
            // and its command be on its way.
            let own = is_own_intent(host, context.writer.identity());
            if own && context.writer.settled(host.as_ref()) {
                logged(
                    "fencing intent",
                    name.as_str(),
                    context
                        .writer
                        .swap_status(host.as_ref(), json!({"fencing": null}))
                        .await,
                );
            }
        }
    }
}

/// Whether the fencing intent of a host is this very operator process's.
fn is_own_intent(host: &Host, identity: &str) -> bool {
    let intent = host
        .status
        .as_ref()
        .and_then(|status| status.fencing.as_ref());
    intent.is_some_and(|intent| intent.by == identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_that_is_silent_is_no_storm_to_tell_of() {
        assert_eq!(told_storm(true, 1, 4), None);
        assert_eq!(told_storm(false, 2, 4), None);
        assert_eq!(told_storm(true, 2, 4), Some((2, 4)));
    }

    /// Lets 10 s pass in which all hosts but these renew.
    fn pass(watch: &mut HostWatch, policy: &Policy, now: &mut Moment, silent: &[&str]) {
        let observer = ObserverFacts {
            can_write: true,
            hears: true,
            ..ObserverFacts::default()
        };
        for _ in 0..100 {
            *now = now.plus(100);
            for (name, facts) in &mut watch.facts {
                if silent.contains(&name.as_str()) {
                    continue;
                }
                let lease = facts.signs.lease;
                facts.signs.lease = Some(failover::signs::Sign {
                    changes: lease.map_or(0, |sign| sign.changes) + 1,
                    changed_at: *now,
                });
            }
            let _ = watch.machines.step(&watch.facts, observer, policy, *now);
        }
    }

    #[test]
    fn a_storm_stands_while_more_than_one_host_is_silent() {
        let names = ["h1", "h2", "h3", "h4"].map(str::to_owned);
        let policy = Policy::default();
        let mut watch = HostWatch::serving(&names, &policy);
        let mut now = clock::now();
        pass(&mut watch, &policy, &mut now, &["h1"]);
        assert!(!watch.storm_stands(), "one host");
        pass(&mut watch, &policy, &mut now, &["h1", "h2"]);
        assert!(watch.storm_stands());
        pass(&mut watch, &policy, &mut now, &["h1"]);
        assert!(!watch.is_calm() && !watch.storm_stands(), "one is left");
        pass(&mut watch, &policy, &mut now, &[]);
        assert!(!watch.storm_stands(), "all are back");
    }

    #[test]
    fn an_operator_takes_back_its_own_fencing_intent_and_no_other() {
        let host = |status: serde_json::Value| -> Host {
            let host = json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"},
                "spec": {"pool": "p", "managementAddress": "10.0.0.1"}, "status": status,
            });
            serde_json::from_value(host).expect("a host")
        };
        let intent = host(json!({"fencing": {
            "bootId": "b1", "startedAt": "2026-01-01T00:00:00Z", "expiresAfterSeconds": 60,
            "reason": "", "by": "operator-a",
        }}));
        assert!(is_own_intent(&intent, "operator-a"));
        assert!(!is_own_intent(&intent, "operator-b"));
        assert!(!is_own_intent(&host(json!({})), "operator-a"));
    }
}
