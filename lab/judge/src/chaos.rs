//! Judges a history of faults that were really made against what the product told and did: who was
//! forced off and why, which Incidents there are, what downtime they tell, whether guests rebooted
//! without a cause, whether the site came to rest. Pure. The rules are told in `lab/judge/README.md`.

mod facts;
mod guard;
mod ledger;
mod recovery;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::history::Entry;
use crate::report::{self, Window};
use crate::results::Results;
use crate::witness::Witness;
use facts::Facts;

const SECOND: u64 = 1_000_000_000;
/// A command to a BMC that was on its way when its reason went may still arrive.
const COMMAND_UNDER_WAY: u64 = 15 * SECOND;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The broken rule.
    pub rule: &'static str,
    /// What happened, with names and times.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// The verdict on a history.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
pub struct Verdict {
    /// What is wrong; empty: nothing.
    pub findings: Vec<Finding>,
    /// Faults that were made.
    pub faults: usize,
    /// Incarnations of hosts that ended.
    pub deaths: usize,
    /// How often a guard killed all guests of its host.
    pub firings: usize,
    /// Incidents that were told.
    pub incidents: usize,
    /// Probes that were judged.
    pub probes: usize,
    /// Stamped writes on all data disks.
    pub writes: u64,
    /// The longest way from the last healing to rest, seconds.
    pub longest_rest_seconds: f64,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Judges a history with all that was probed meanwhile.
pub fn judge(history: &[Entry], results: &Results) -> Verdict {
    let mut findings = Vec::new();
    let facts = Facts::of(history, &mut findings);
    let guests = report::judge(results, Window::ALL).guests;
    something_happened(&facts, results, &mut findings);
    disks_are_clean(history, &mut findings);
    guests_agree(&guests, &mut findings);
    reboots_have_a_cause(&facts, &guests, &mut findings);
    fences_have_a_cause(&facts, &mut findings);
    epochs_grow(history, &mut findings);
    the_site_rests(history, &mut findings);
    let systems = report::system_spans(results);
    ledger::judge(&facts, &systems, &mut findings);
    recovery::judge(&facts, &systems, &mut findings);
    guard::judge(&facts, &mut findings);
    Verdict {
        findings,
        faults: facts.faults.len(),
        deaths: facts.deaths.len(),
        firings: facts.firings.len(),
        incidents: facts.incidents.len(),
        probes: results.samples.len(),
        writes: history.iter().map(writes).sum(),
        longest_rest_seconds: history.iter().map(rest_seconds).fold(0.0, f64::max),
    }
}

fn writes(entry: &Entry) -> u64 {
    match entry {
        Entry::Disk { writes, .. } => *writes,
        _ => 0,
    }
}

fn rest_seconds(entry: &Entry) -> f64 {
    match entry {
        Entry::Rest { after_seconds, .. } => *after_seconds,
        _ => 0.0,
    }
}

fn find(findings: &mut Vec<Finding>, rule: &'static str, text: String) {
    findings.push(Finding { rule, text });
}

/// A history of nothing proves nothing.
fn something_happened(facts: &Facts, results: &Results, findings: &mut Vec<Finding>) {
    for (missing, what) in [
        (facts.began.is_none(), "no beginning"),
        (facts.faults.is_empty(), "no fault"),
        (facts.disks == 0, "no data disk"),
        (results.samples.is_empty(), "no probe"),
    ] {
        if missing {
            find(
                findings,
                "empty",
                format!("{what} is on record: nothing can be judged"),
            );
        }
    }
}

fn disks_are_clean(history: &[Entry], findings: &mut Vec<Finding>) {
    for entry in history {
        if let Entry::Disk {
            volume, problems, ..
        } = entry
        {
            for problem in problems {
                find(findings, "disk", format!("{volume}: {problem}"));
            }
        }
    }
}

fn guests_agree(guests: &BTreeMap<String, Witness>, findings: &mut Vec<Finding>) {
    for (name, witness) in guests {
        for problem in &witness.problems {
            find(findings, "guest", format!("{name}: {problem}"));
        }
    }
}

/// A guest boots again only because an incarnation that carried it ended or that host's guard killed it, and after
/// that.
fn reboots_have_a_cause(
    facts: &Facts,
    guests: &BTreeMap<String, Witness>,
    findings: &mut Vec<Finding>,
) {
    for (guest, witness) in guests {
        let (Some(first), Some(last)) = (
            witness.boots.keys().next(),
            witness.boots.keys().next_back(),
        ) else {
            continue;
        };
        let deaths = facts.deaths.iter().map(|death| (death.at, &death.host));
        let firings = facts.firings.iter().map(|(at, host)| (*at, host));
        let deaths: Vec<u64> = deaths
            .chain(firings)
            .filter(|(at, host)| facts.carried(guest, host, *at))
            .map(|(at, _)| at)
            .collect();
        if let Some(text) = reboot_of_its_own(facts, guest, witness, &deaths) {
            find(findings, "reboot", text);
            continue;
        }
        let deaths = deaths.len() as u64;
        if last - first > deaths {
            let text = format!(
                "{guest} booted {} times, and {deaths} times a host that carried it died or killed it",
                last - first
            );
            find(findings, "reboot", text);
        }
    }
}

/// The first boot that was heard of before a death that could explain it: its host lived.
fn reboot_of_its_own(
    facts: &Facts,
    guest: &str,
    witness: &Witness,
    deaths: &[u64],
) -> Option<String> {
    let boots: Vec<(&u64, &u64)> = witness.boots.iter().collect();
    boots.windows(2).find_map(|pair| {
        let [(before, heard_before), (after, heard)] = pair else {
            return None;
        };
        // The last answer of the one before may have been on its way when its host died.
        let between = |at: &&u64| **at + SECOND > **heard_before && at <= heard;
        let explained = deaths.iter().filter(between).count() as u64;
        (*after - *before > explained).then(|| {
            format!(
                "{guest} was heard of under boot {before} and then under boot {after} {}, and {explained} times a host that carried it died or killed it between",
                facts.when(**heard)
            )
        })
    })
}

/// Nobody is forced off whom no fault had silenced.
fn fences_have_a_cause(facts: &Facts, findings: &mut Vec<Finding>) {
    for death in facts.deaths.iter().filter(|death| death.by == "bmc") {
        let caused = facts.faults.iter().any(|fault| {
            fault.is_at(&death.host)
                && fault.effect.may_fence()
                && (fault.from..=fault.until.saturating_add(COMMAND_UNDER_WAY)).contains(&death.at)
        });
        if !caused {
            let text = format!(
                "{} was forced off {} though nothing had silenced it",
                death.host,
                facts.when(death.at)
            );
            find(findings, "fence", text);
        }
    }
}

/// The epochs of a VM only grow, and one epoch is for one host and boot.
fn epochs_grow(history: &[Entry], findings: &mut Vec<Finding>) {
    let mut last: BTreeMap<&str, (i64, &str, &str)> = BTreeMap::new();
    for entry in history {
        let Entry::Right {
            guest,
            epoch,
            host,
            boot_id,
            ..
        } = entry
        else {
            continue;
        };
        let now = (*epoch, host.as_str(), boot_id.as_str());
        if let Some(before) = last.insert(guest, now)
            && (now.0 < before.0 || (now.0 == before.0 && now != before))
        {
            find(
                findings,
                "epoch",
                format!("{guest}: {before:?} was followed by {now:?}"),
            );
        }
    }
}

fn the_site_rests(history: &[Entry], findings: &mut Vec<Finding>) {
    let mut rests = 0;
    for entry in history {
        match entry {
            Entry::Rest { .. } => rests += 1,
            Entry::Restless { what, .. } => find(findings, "rest", what.join("; ")),
            _ => {}
        }
    }
    if rests == 0 {
        find(
            findings,
            "rest",
            "the site never came to rest after a fault".to_owned(),
        );
    }
}

#[cfg(test)]
#[path = "chaos_tests.rs"]
mod tests;
