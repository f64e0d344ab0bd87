//! Which systems an incident touches, what became of their VMs, and their downtime from probes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use api::{BusinessSystem, Incident as Object, VirtualMachine};
use failover::host::machine::EventKind;
use failover::incident::causes;
use failover::incident::rules::{SILENT_CAUSES, STORM_CAUSE, silent_cause};
use failover::incident::{AffectedSystem, Downtime, Entry, Incident, Ledger, WallTime};
use fleet::system::system_of;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use model::{Assignment, NamespacedName, StopProofKind};

use super::closing::{Words, cause_is_gone, close_with_word};
use super::openings::vm_name;
use super::{State, is_open, now, openings, stored};
use crate::probes::{self, endpoint_key};
use crate::runtime::Context;

/// A silence is noticed after the missed renewal, and probes failed before: the window of an
/// incident of silence begins so much earlier. Renewal interval, grace and probe time-out together.
const BEFORE_SILENCE: SignedDuration = SignedDuration::from_secs(5);
/// How much earlier at most: an operator that has just begun to lead notices a silence late.
const BEFORE_SILENCE_MAX: SignedDuration = SignedDuration::from_secs(60);

/// See [`seldom`].
const MINUTE_MILLISECONDS: u64 = 60_000;

/// A system that an incident interrupted, and that fails again so soon after it answered, microseconds, fails of the same
/// cause: guests come up one after the other.
const RELAPSE: i64 = 30_000_000;

/// Whether the systems of an incident that has recovered are still measured.
fn may_relapse(incident: &Incident, now: WallTime) -> bool {
    let was_down = incident.longest_down_milliseconds() > 0;
    let recovered = incident.recovered_at.filter(|_| was_down);
    recovered.is_some_and(|at| now.0 - at.0 < RELAPSE)
}

/// Downtime that a former leader measured, and until when.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    until: Timestamp,
    systems: BTreeMap<NamespacedName, AffectedSystem>,
}

impl Baseline {
    pub(super) fn of(incident: &Object) -> Option<Self> {
        let status = incident.status.clone()?;
        let systems = status.systems.into_iter().map(|system| {
            let name = NamespacedName::new(system.namespace.clone(), system.name.clone());
            (name, stored::read_system(system, false))
        });
        Some(Self {
            until: status.measured_until?.0,
            systems: systems.collect(),
        })
    }
}

/// One look at every incident that is not closed.
pub(super) fn follow(context: &Context, words: &Words, state: &mut State) {
    let Some(ledger) = &mut state.ledger else {
        return;
    };
    let hosts = context.stores.hosts.state();
    let (vms, systems) = (context.stores.vms.state(), context.stores.systems.state());
    let open: Vec<Incident> = ledger.open().values().cloned().collect();
    let mut over = Vec::new();
    for incident in open {
        let cause = incident.cause.clone();
        let opened_here = openings::is_gone(context, &incident, &vms);
        let gone = opened_here.unwrap_or_else(|| {
            let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            cause_is_gone(&incident, &hosts, &watch)
        });
        let mut settled = true;
        if is_open(&incident) || may_relapse(&incident, now()) {
            let concerns = |right: &Assignment| concerns(context, &incident, right);
            affect(ledger, &cause, &vms, &systems, &concerns);
            tell_vms(ledger, &cause, &vms, &concerns);
            let begin = *state
                .begins
                .entry(cause.clone())
                .or_insert_with(|| begin(context, &incident));
            let baseline = state.baselines.get(&cause);
            measure(context, ledger, &cause, &systems, (begin, baseline));
            let left = vms.iter().any(|vm| assignment(vm).is_some_and(&concerns));
            // A cut that healed leaves every VM where it was. What this operator has just noticed of a
            // guest its system's probes may not have seen yet.
            settled = gone || (opened_here.is_none() && !left);
        }
        if settled && let Some(mut closed) = ledger.settle(&cause, gone, now()) {
            close_with_word(&mut closed, words);
            state.baselines.remove(&cause);
            state.begins.remove(&cause);
            over.push(closed);
        }
    }
    over.into_iter().for_each(|incident| state.store(incident));
}

/// The right under which a VM may run.
pub(super) fn assignment(vm: &VirtualMachine) -> Option<&Assignment> {
    vm.status.as_ref()?.assignment.as_ref()
}

/// Whether a copy under that assignment is touched by the cause. Of a silence only the incarnation
/// that fell silent counts: the host that came back carries VMs again.
fn concerns(context: &Context, incident: &Incident, right: &Assignment) -> bool {
    if incident.cause == STORM_CAUSE {
        return openings::is_silent(context, &right.host);
    }
    if incident.cause.starts_with(causes::GUEST_CAUSES) {
        let epoch = incident.cause.rsplit('/').next();
        return incident.host.as_ref() == Some(&right.host)
            && epoch == Some(right.epoch.to_string().as_str());
    }
    if incident.cause.starts_with(SILENT_CAUSES) {
        return incident.cause == silent_cause(&right.host, &right.boot_id);
    }
    incident.host.as_ref() == Some(&right.host)
}

/// A business system by its name.
pub(super) fn find<'a>(
    systems: &'a [Arc<BusinessSystem>],
    name: &NamespacedName,
) -> Option<&'a BusinessSystem> {
    systems.iter().map(|system| &**system).find(|system| {
        system.metadata.name.as_deref() == Some(name.name.as_str())
            && system.metadata.namespace.as_deref() == Some(name.namespace.as_str())
    })
}

/// Systems of which a part stands still, or that people work on, are named only while they do not
/// answer: neither stops a VM by itself.
fn only_when_down(cause: &str) -> bool {
    [causes::AGENT_CAUSES, causes::PLANNED_CAUSES]
        .iter()
        .any(|kind| cause.starts_with(kind))
}

/// Whether another incident that is not recovered names a system.
fn is_explained(ledger: &Ledger, cause: &str, system: &NamespacedName) -> bool {
    let mut others = ledger.open().values();
    others.any(|other| other.cause != cause && is_open(other) && other.systems.contains_key(system))
}

/// Systems with a VM there, or with one that was there until it was proven stopped.
fn affect(
    ledger: &mut Ledger,
    cause: &str,
    vms: &[Arc<VirtualMachine>],
    systems: &[Arc<BusinessSystem>],
    concerns: &dyn Fn(&Assignment) -> bool,
) {
    for vm in vms {
        let silence = cause.starts_with(SILENT_CAUSES) || cause == STORM_CAUSE;
        let proven = silence
            && vm
                .status
                .iter()
                .flat_map(|status| &status.proofs)
                .any(|proof| concerns(&proof.assignment));
        let there = match cause.starts_with(causes::GUEST_CAUSES) {
            true => cause.starts_with(&causes::guest_causes(&vm_name(vm))),
            false => assignment(vm).is_some_and(concerns),
        };
        if !proven && !there {
            continue;
        }
        let Some(name) = system_of(vm) else {
            continue;
        };
        let system = find(systems, &name).filter(|system| {
            let status = system.status.as_ref();
            let is_down = status.is_some_and(|status| status.state == "Down");
            !only_when_down(cause) || (is_down && !is_explained(ledger, cause, &name))
        });
        if let Some(system) = system {
            ledger.affect(cause, name, &system.spec.display_name, &vm.name_any());
        }
    }
}

/// Restarts and moves of the affected VMs, once each.
fn tell_vms(
    ledger: &mut Ledger,
    cause: &str,
    vms: &[Arc<VirtualMachine>],
    concerns: &dyn Fn(&Assignment) -> bool,
) {
    let Some(incident) = ledger.get(cause).cloned() else {
        return;
    };
    for vm in vms {
        let status = vm.status.clone().unwrap_or_default();
        let affected = system_of(vm)
            .and_then(|name| incident.systems.get(&name))
            .is_some_and(|system| system.virtual_machines.contains(&vm.name_any()));
        let Some(right) = status
            .assignment
            .filter(|right| affected && !concerns(right))
        else {
            continue;
        };
        let moved = status
            .proofs
            .last()
            .is_some_and(|proof| proof.kind == StopProofKind::HandedOver);
        if openings::running(vm).is_none() {
            continue;
        }
        let (word, name, host) = (
            if moved { "moved" } else { "restarted" },
            vm.name_any(),
            &right.host,
        );
        let (english, chinese) = if moved {
            (
                format!("VM {name} moved to {host} without a stop"),
                format!("虚拟机 {name} 已热迁移至 {host}"),
            )
        } else {
            (
                format!("VM {name} restarted on {host}"),
                format!("虚拟机 {name} 已在 {host} 重启"),
            )
        };
        ledger.tell(
            cause,
            Entry {
                at: now(),
                kind: EventKind::Done,
                step: format!("{word}/{name}/{}", right.epoch),
                english,
                chinese,
            },
        );
    }
}

/// Since when an incident may have interrupted systems. Of a silent host no earlier than its last renewal,
/// which the clock of its guard tells; as that may be wrong, it moves the window by so much at most.
fn begin(context: &Context, incident: &failover::incident::Incident) -> Timestamp {
    let opened = Timestamp::from_microsecond(incident.opened_at.0).unwrap_or(Timestamp::UNIX_EPOCH);
    if incident.cause.starts_with("hardware/") {
        return opened;
    }
    let own = incident.host.as_ref().and_then(|host| {
        let renewals = context.stores.renewals(host.as_str())?;
        let boot_id = renewals.boot_id.as_ref()?;
        (incident.cause == silent_cause(host, boot_id)).then_some(renewals.renewed)?
    });
    silent_since(opened, own)
}

fn silent_since(opened: Timestamp, renewed: Option<Timestamp>) -> Timestamp {
    let (first, last) = (opened - BEFORE_SILENCE_MAX, opened - BEFORE_SILENCE);
    renewed.map_or(last, |renewed| renewed.clamp(first, last))
}

/// Downtime of every affected system since `begin`; what a former leader measured stands, and this operator
/// goes on from there.
fn measure(
    context: &Context,
    ledger: &mut Ledger,
    cause: &str,
    systems: &[Arc<BusinessSystem>],
    (begin, baseline): (Timestamp, Option<&Baseline>),
) {
    let Some(incident) = ledger.get(cause).cloned() else {
        return;
    };
    for (name, known) in &incident.systems {
        let Some(system) = find(systems, name) else {
            // One that was deleted is not waited for.
            let deleted = AffectedSystem {
                answers: true,
                ..known.clone()
            };
            ledger.measure(cause, name, &deleted);
            continue;
        };
        let former =
            baseline.and_then(|baseline| Some((baseline.until, baseline.systems.get(name)?)));
        let from = former.map_or(begin, |(until, _)| until);
        // The window begins before anybody noticed: what was down even earlier, and over by then, is not of this cause.
        let opened = Timestamp::from_microsecond(incident.opened_at.0).ok();
        let mut measured = look(context, system, from, opened.filter(|_| former.is_none()));
        if let Some((_, former)) = former {
            add(&mut measured, former);
        }
        measured.display_name.clone_from(&known.display_name);
        ledger.measure(cause, name, &measured);
    }
}

fn look(
    context: &Context,
    system: &BusinessSystem,
    from: Timestamp,
    opened: Option<Timestamp>,
) -> AffectedSystem {
    let to = super::wall();
    let keys: Vec<String> = system
        .spec
        .endpoints
        .iter()
        .map(|endpoint| endpoint_key(system, endpoint))
        .collect();
    let whole = downtime(context.probes.downtime(&keys, (from, to), opened));
    let mut endpoints = BTreeMap::new();
    for (endpoint, key) in system.spec.endpoints.iter().zip(&keys) {
        let own = downtime(
            context
                .probes
                .downtime(std::slice::from_ref(key), (from, to), opened),
        );
        if own.down_milliseconds > 0 || own.unobserved_milliseconds > 0 {
            endpoints.insert(endpoint.name.clone(), own);
        }
    }
    let unmeasured = keys.is_empty();
    let unobserved = whole.unobserved_milliseconds;
    AffectedSystem {
        down_milliseconds: whole.down_milliseconds,
        unobserved_milliseconds: if unmeasured {
            seldom(unobserved)
        } else {
            unobserved
        },
        unmeasured,
        endpoints,
        answers: system
            .status
            .as_ref()
            .is_some_and(|status| status.state == "Ready"),
        ..AffectedSystem::default()
    }
}

/// Nobody will ever look at a system without endpoints, and an Incident may stand for days: what grows with time alone
/// is written once a minute after the first one. Rounded up, as it is never counted as up.
fn seldom(milliseconds: u64) -> u64 {
    if milliseconds < MINUTE_MILLISECONDS {
        milliseconds
    } else {
        milliseconds.next_multiple_of(MINUTE_MILLISECONDS)
    }
}

fn downtime(seen: probes::Downtime) -> Downtime {
    // Tenths of a second, as they are stored: finer ones would be a write each.
    let tenths = |seconds: f64| (seconds * 10.0).round() as u64 * 100;
    let wall = |at: Timestamp| WallTime(at.as_microsecond());
    Downtime {
        down_milliseconds: tenths(seen.down_seconds),
        unobserved_milliseconds: tenths(seen.unobserved_seconds),
        down_at: seen.down_at.map(wall),
        up_at: seen.up_at.map(wall),
    }
}

fn add(measured: &mut AffectedSystem, former: &AffectedSystem) {
    measured.down_milliseconds += former.down_milliseconds;
    measured.unobserved_milliseconds += former.unobserved_milliseconds;
    // What was measured while it had endpoints stands.
    measured.unmeasured &= former.unmeasured;
    for (name, before) in &former.endpoints {
        let own = measured.endpoints.entry(name.clone()).or_default();
        let again = own.down_at.is_some();
        own.down_milliseconds += before.down_milliseconds;
        own.unobserved_milliseconds += before.unobserved_milliseconds;
        own.down_at = before.down_at.or(own.down_at);
        if !again {
            own.up_at = own.up_at.or(before.up_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_measures_is_unobserved_and_seldom_written() {
        for (passed, told) in [
            (0, 0),
            (59_900, 59_900),
            (60_000, 60_000),
            (60_100, 120_000),
            (120_000, 120_000),
        ] {
            assert_eq!(seldom(passed), told);
        }
        let unmeasured = AffectedSystem {
            unobserved_milliseconds: 1_000,
            unmeasured: true,
            ..AffectedSystem::default()
        };
        let mut sum = unmeasured.clone();
        add(&mut sum, &unmeasured);
        assert!(sum.unmeasured && sum.unobserved_milliseconds == 2_000);
        let seen_before = AffectedSystem {
            down_milliseconds: 500,
            ..AffectedSystem::default()
        };
        add(&mut sum, &seen_before);
        assert!(!sum.unmeasured, "a former leader measured an endpoint");
    }

    #[test]
    fn a_silence_that_a_new_leader_noticed_late_is_measured_from_the_last_renewal() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let opened = at(1_000);
        assert_eq!(silent_since(opened, None), at(995));
        assert_eq!(silent_since(opened, Some(at(997))), at(995));
        assert_eq!(silent_since(opened, Some(at(993))), at(993));
        assert_eq!(silent_since(opened, Some(at(1))), at(940), "a wrong clock");
        assert_eq!(silent_since(opened, Some(at(9_999))), at(995));
    }
}
