//! The product's fault ledger against what was really done: one Incident for each death, none
//! without a cause, and the downtime that the prober saw.

use std::collections::BTreeMap;

use super::facts::{Effect, Facts, Interval};
use super::{Finding, SECOND, find};
use crate::history::Power;
use crate::incident::{Affected, Incident};
use crate::spans::{self, Span, State};

/// Downtimes of Incident and prober agree within this, seconds, for each outage.
const AGREE_SECONDS: f64 = 1.0;
/// Between two probes of one endpoint by the prober, seconds (`results::Config`): an outage may have begun so long before the
/// first that failed, and may have been over so long before the first good one.
const BETWEEN_PROBES: f64 = 0.2;
/// An Incident of silence measures from this long before it was opened, as it is opened when a
/// renewal was missed (docs/contract.md).
const BEFORE_OPENING: u64 = 5 * SECOND;
/// How long after a fault an Incident may still open because of it.
const AFTERMATH: u64 = 30 * SECOND;
/// How long many silences count together.
const STORM: u64 = 60 * SECOND;
/// A system that is down for longer than this has an Incident that says so.
const OUTAGE: u64 = 5 * SECOND;
/// Cause of the one Incident of many hosts.
const STORM_CAUSE: &str = "hosts-silent";

/// Judges all Incidents.
pub fn judge(facts: &Facts, systems: &BTreeMap<String, Vec<Span>>, findings: &mut Vec<Finding>) {
    for death in &facts.deaths {
        told_once(facts, death, findings);
    }
    for incident in &facts.incidents {
        if !facts
            .faults
            .iter()
            .any(|fault| explains(facts, fault, incident))
        {
            let text = format!(
                "{} opened {} and no fault explains it",
                incident.cause,
                facts.when(incident.opened_at)
            );
            find(findings, "incident-without-cause", text);
        }
        if incident.closed_at.is_none() {
            let text = format!("{} is still open after the end", incident.cause);
            find(findings, "incident-open", text);
        }
        for affected in &incident.systems {
            downtime_agrees(facts, incident, affected, systems, findings);
        }
    }
    for (system, spans) in systems {
        outages_are_told(facts, system, spans, findings);
    }
}

fn is_storm(incident: &Incident) -> bool {
    incident.cause == STORM_CAUSE
}

/// The host and boot id that an Incident of silence is about. A boot in which the guard has killed is told as `BOOT+1`.
fn silence(incident: &Incident) -> Option<(&str, &str)> {
    let (host, boot) = incident
        .cause
        .strip_prefix("host-silent/")?
        .split_once('/')?;
    Some((host, boot.split_once('+').map_or(boot, |(boot, _)| boot)))
}

/// Each death has exactly one Incident: its own, or that of a storm that stood at the time.
fn told_once(facts: &Facts, death: &Power, findings: &mut Vec<Finding>) {
    let own = facts
        .incidents
        .iter()
        .filter(|incident| silence(incident) == Some((&death.host, &death.boot_id)))
        // One that was over before is about a former silence of this boot, from which it came back.
        .filter(|incident| incident.closed_at.is_none_or(|closed| closed >= death.at))
        .count();
    let storms = facts
        .incidents
        .iter()
        .filter(|incident| is_storm(incident))
        .filter(|incident| {
            let until = incident.closed_at.unwrap_or(u64::MAX);
            (incident.opened_at.saturating_sub(STORM)..=until).contains(&death.at)
        })
        .count();
    let what = format!(
        "{} ({}) died {}",
        death.host,
        death.boot_id,
        facts.when(death.at)
    );
    if own + storms == 0 && !forced_off_again(facts, death) {
        find(findings, "incident-missing", format!("{what}: no Incident"));
    } else if own > 1 {
        find(
            findings,
            "incident-doubled",
            format!("{what}: {own} Incidents"),
        );
    }
}

/// How long a boot that never reported may have lasted: a host registers within some seconds.
const UNREPORTED: u64 = 5 * SECOND;

/// Whether a BMC ended a boot of moments while its host's former boot was still being forced off: the platform never
/// heard of that boot, and the Incident of the former one tells of each order.
fn forced_off_again(facts: &Facts, death: &Power) -> bool {
    let began = facts.boots.get(&death.boot_id);
    let moments = began.is_some_and(|began| death.at.saturating_sub(*began) <= UNREPORTED);
    let open = facts.incidents.iter().any(|incident| {
        let until = incident.closed_at.unwrap_or(u64::MAX);
        let host = silence(incident).map(|(host, _)| host);
        host == Some(death.host.as_str())
            && (incident.opened_at.saturating_sub(BEFORE_OPENING)..=until).contains(&death.at)
    });
    death.by == "bmc" && moments && open
}

/// Whether a fault can be what an Incident is about.
fn explains(facts: &Facts, fault: &Interval, incident: &Incident) -> bool {
    // Its time may be a second early: the API keeps whole seconds.
    let near = fault.from <= incident.opened_at + SECOND
        && incident.opened_at <= fault.until.saturating_add(AFTERMATH);
    let here = incident
        .host
        .as_deref()
        .is_some_and(|host| fault.is_at(host));
    let of_site = fault.host.is_none();
    let enough = match incident.cause.split_once('/').map(|(kind, _)| kind) {
        Some("host-silent") => {
            // A boot that began after the fault was healed has nothing to do with it.
            let began = silence(incident).and_then(|(_, boot)| facts.boots.get(boot));
            here && fault.effect.may_fence() && began.is_none_or(|began| *began <= fault.until)
        }
        Some("hardware") => here && matches!(fault.effect, Effect::Hardware | Effect::Storage),
        None if is_storm(incident) => fault.fault == "api-down" || stormy(facts, fault),
        // Kinds that this judge does not know: something was wrong there.
        _ => here || of_site,
    };
    near && enough
}

/// Whether another host fell silent within the same minute.
fn stormy(facts: &Facts, fault: &Interval) -> bool {
    fault.effect.may_fence()
        && facts.faults.iter().any(|other| {
            other.effect.may_fence()
                && other.host != fault.host
                && other.from.abs_diff(fault.from) <= STORM
        })
}

/// The downtime that an Incident of silence tells against the prober's: from the fault until the
/// systems answered. Time that either did not observe may have been either.
fn downtime_agrees(
    facts: &Facts,
    incident: &Incident,
    affected: &Affected,
    systems: &BTreeMap<String, Vec<Span>>,
    findings: &mut Vec<Finding>,
) {
    let (Some((host, _)), Some(recovered)) = (silence(incident), incident.recovered_at) else {
        return;
    };
    let fault = facts
        .faults
        .iter()
        .filter(|fault| fault.is_at(host) && explains(facts, fault, incident))
        .max_by_key(|fault| fault.from);
    let Some(fault) = fault else { return };
    let none = Vec::new();
    let spans = systems.get(&affected.name).unwrap_or(&none);
    let early = fault
        .from
        .min(incident.opened_at.saturating_sub(BEFORE_OPENING));
    let late = incident.closed_at.unwrap_or(recovered).max(recovered) + SECOND;
    let least = seconds(spans, fault.from, recovered, State::Down);
    let most =
        seconds(spans, early, late, State::Down) + seconds(spans, early, late, State::Unobserved);
    let outages = spans::within(spans, early, late)
        .iter()
        .filter(|span| span.state == State::Down)
        .count()
        .max(1);
    let bound = (AGREE_SECONDS + BETWEEN_PROBES) * outages as f64;
    let (told, told_most) = (
        affected.down_seconds,
        affected.down_seconds + affected.unobserved_seconds,
    );
    if told_most + bound < least || told - bound > most {
        let text = format!(
            "{}: {} was down for {told:.1} to {told_most:.1} s by the Incident, {least:.1} to {most:.1} s by the prober",
            incident.cause, affected.name
        );
        find(findings, "downtime", text);
    }
}

fn seconds(all: &[Span], from: u64, to: u64, state: State) -> f64 {
    spans::within(all, from, to)
        .iter()
        .filter(|span| span.state == state)
        .map(|span| (span.to - span.from) as f64 / SECOND as f64)
        .sum()
}

/// Operators that all stand still see nothing, and who leads next begins to listen anew: so long
/// until it may know that a host is silent.
const LISTENS: u64 = 10 * SECOND;

/// Whether no operator ran during an outage, but for less than it takes to hear of it.
fn unheard(facts: &Facts, outage: &Span) -> bool {
    let stopped = facts
        .faults
        .iter()
        .filter(|fault| fault.fault == "operator-stop");
    let mut stopped = stopped.map(|fault| {
        let (from, until) = (fault.from.max(outage.from), fault.until.min(outage.to));
        (outage.to - outage.from).saturating_sub(until.saturating_sub(from))
    });
    stopped.any(|heard| heard < LISTENS && heard < outage.to - outage.from)
}

/// A system that stops answering is named by an Incident of that time, unless its users alone were
/// cut off, which no host and no BMC can see, or no operator ran.
fn outages_are_told(facts: &Facts, system: &str, spans: &[Span], findings: &mut Vec<Finding>) {
    let began = facts.began.unwrap_or(0);
    let long = |span: &&Span| {
        span.state == State::Down && span.from >= began && span.to - span.from > OUTAGE
    };
    for outage in spans.iter().filter(long) {
        let told = facts.incidents.iter().any(|incident| {
            let from = incident.opened_at.saturating_sub(2 * BEFORE_OPENING);
            let until = incident.closed_at.unwrap_or(u64::MAX);
            from <= outage.to
                && outage.from <= until
                && incident.systems.iter().any(|known| known.name == system)
        });
        let cut = facts.faults.iter().any(|fault| {
            fault.effect == Effect::Business
                && fault.from <= outage.to
                && outage.from <= fault.until.saturating_add(AFTERMATH)
        });
        if !told && !cut && !unheard(facts, outage) {
            let text = format!(
                "{system} was down for {:.1} s {} and no Incident says so",
                (outage.to - outage.from) as f64 / SECOND as f64,
                facts.when(outage.from)
            );
            find(findings, "outage-untold", text);
        }
    }
}
