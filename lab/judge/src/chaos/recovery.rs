//! How long what died stayed down. A host whose death can be read from its BMC, while the platform was
//! whole and one host alone was struck, has its systems back within a bound.

use std::collections::BTreeMap;

use super::facts::{Facts, Interval};
use super::{Finding, SECOND, find};
use crate::history::Power;
use crate::spans::{Span, State};

/// From a death to the answer of every system that it stopped: proof within 8 s, start within 15 s of the
/// loss, guests of up to three tiers that boot one after another on a busy machine. The bars themselves
/// are measured, one by one on a quiet site, by `make bench-failover`.
const BACK_WITHIN: u64 = 90 * SECOND;
/// What struck so long before a death may still be at work when it comes.
const STILL_AT_WORK: u64 = 60 * SECOND;

/// Judges every death that can be proven by its BMC.
pub fn judge(facts: &Facts, systems: &BTreeMap<String, Vec<Span>>, findings: &mut Vec<Finding>) {
    let deaths = facts
        .deaths
        .iter()
        .filter(|death| is_provable(facts, death));
    for death in deaths {
        for (system, spans) in systems {
            let outage = spans.iter().find(|span| {
                span.state == State::Down
                    && span.from >= death.at.saturating_sub(SECOND)
                    && span.from <= death.at + STILL_AT_WORK
            });
            let Some(outage) = outage else { continue };
            let took = outage.to.saturating_sub(death.at);
            if took > BACK_WITHIN {
                let text = format!(
                    "{system} answered again {:.1} s after {} lost its power {}; nothing but that host was struck",
                    took as f64 / SECOND as f64,
                    death.host,
                    facts.when(death.at)
                );
                find(findings, "recovery", text);
            }
        }
    }
}

/// The power went by a fault, and nothing else was at work from a minute before until the bound: no proof
/// had to wait for anything.
fn is_provable(facts: &Facts, death: &Power) -> bool {
    let own = |fault: &&Interval| {
        fault.fault == "power-loss" && fault.is_at(&death.host) && fault.from <= death.at
    };
    let at_work = |fault: &&Interval| {
        fault.from <= death.at + BACK_WITHIN
            && fault.until.saturating_add(STILL_AT_WORK) >= death.at
    };
    let struck: Vec<&Interval> = facts.faults.iter().filter(at_work).collect();
    death.by != "bmc" && struck.len() == 1 && struck.iter().any(own)
}
