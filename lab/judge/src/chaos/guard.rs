//! What armed guards did against what they were cut off from: a guard kills when neither the API server nor the
//! storage was reached for the contract's time, and then always; never before, and never while either was.

use super::facts::{Effect, Facts, Interval};
use super::{Finding, SECOND, find};

/// Renewals and heartbeats are seconds apart: the last that arrived may be so much older than the fault.
const BEATS: u64 = 4 * SECOND;
/// How long after the healing of a fault a guard may still hear of nothing: what hung has to come back.
const COMES_BACK: u64 = 10 * SECOND;
/// How much later than its contract a guard may be on a busy machine.
const LATE: u64 = 8 * SECOND;

/// Judges every firing, and every host that was cut off for long enough.
pub fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(contract) = facts.contract else {
        for (at, host) in &facts.firings {
            let text = format!(
                "the guard of {host} killed {} and is not armed",
                facts.when(*at)
            );
            find(findings, "guard", text);
        }
        return;
    };
    for (at, host) in &facts.firings {
        let caused = cut_off(facts, host).any(|(from, until)| {
            *at + BEATS >= from.saturating_add(contract) && *at <= until.saturating_add(COMES_BACK)
        });
        if !caused {
            let text = format!(
                "the guard of {host} killed {}, and the host was not cut off from both the API server and its storage for its contract",
                facts.when(*at)
            );
            find(findings, "guard", text);
        }
    }
    let hosts = facts.faults.iter().filter_map(|fault| fault.host.as_ref());
    for host in hosts.collect::<std::collections::BTreeSet<_>>() {
        for (from, until) in cut_off(facts, host) {
            let due = from.saturating_add(contract + LATE);
            let window = from..=due;
            let died = facts.deaths.iter();
            let mut ends = died.filter(|death| death.host == *host && window.contains(&death.at));
            let mut fired = facts.firings.iter();
            let killed = fired.any(|(at, own)| own == host && window.contains(at));
            if until >= due && ends.next().is_none() && !killed && is_whole(facts, host, from, due)
            {
                let text = format!(
                    "{host} was cut off from the API server and its storage {} and its guard did not kill",
                    facts.when(from)
                );
                find(findings, "guard", text);
            }
        }
    }
}

/// When a host reached neither the API server nor its storage. One that hangs reaches nothing, and kills when it wakes
/// up if its watchdog has not ended it before.
fn cut_off<'a>(facts: &'a Facts, host: &'a str) -> impl Iterator<Item = (u64, u64)> + 'a {
    let hangs = |fault: &Interval| fault.fault == "kernel-hang" && fault.is_at(host);
    let no_api = move |fault: &&Interval| {
        hangs(fault)
            || fault.fault == "api-down"
            || (fault.fault == "management-cut" && fault.is_at(host))
    };
    let no_storage = move |fault: &&Interval| {
        hangs(fault) || (fault.effect == Effect::Storage && fault.is_at(host))
    };
    let api = facts.faults.iter().filter(no_api);
    api.flat_map(move |api| {
        let storage = facts.faults.iter().filter(no_storage);
        storage.map(move |storage| (api.from.max(storage.from), api.until.min(storage.until)))
    })
    .filter(|(from, until)| from < until)
}

/// Whether the guard itself, and the machine that it runs on, was left alone meanwhile.
fn is_whole(facts: &Facts, host: &str, from: u64, until: u64) -> bool {
    let strikes = ["guard-kill", "kernel-hang", "power-loss"];
    !facts.faults.iter().any(|fault| {
        fault.is_at(host)
            && strikes.contains(&fault.fault.as_str())
            && fault.from <= until
            && from <= fault.until
    })
}
