//! The history, sorted: which fault was where from when to when, who died, what was told.

use std::collections::BTreeMap;

use super::{Finding, SECOND, find};
use crate::history::{Entry, Power};
use crate::incident::{self, Incident};

/// What a fault may do, by the nature of the fault; the product has no part in this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The host falls silent.
    Silence,
    /// Its storage path fails or hangs.
    Storage,
    /// Its hardware reports a fault.
    Hardware,
    /// Its VMs are cut from their users; the host itself is well.
    Business,
    /// The host's BMC misbehaves.
    Bmc,
    /// A part of the platform dies; the host and its VMs are well.
    Platform,
}

impl Effect {
    /// The effect of a fault by its name.
    pub fn of(fault: &str) -> Option<Self> {
        Some(match fault {
            "power-loss" | "kernel-hang" | "management-cut" => Effect::Silence,
            "storage-hang" | "storage-cut" => Effect::Storage,
            "memory-errors" | "memory-uncorrected" | "disk-smart" | "psu" | "fan"
            | "temperature" | "nic-link" => Effect::Hardware,
            "business-cut" => Effect::Business,
            "bmc-dead" | "bmc-slow" | "bmc-lying" | "bmc-other-host" | "bmc-other-login" => {
                Effect::Bmc
            }
            "agent-kill" | "agent-stop" | "guard-kill" | "libvirtd-kill" | "api-down"
            | "operator-kill" | "operator-stop" | "operator-pause" => Effect::Platform,
            _ => return None,
        })
    }

    /// Whether the platform may force a host off because of it. A host whose storage hangs can not
    /// close what it should close.
    pub fn may_fence(self) -> bool {
        matches!(self, Effect::Silence | Effect::Storage)
    }
}

/// A fault from its beginning to its healing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Its name.
    pub fault: String,
    /// What it may do.
    pub effect: Effect,
    /// Where; none: the site's.
    pub host: Option<String>,
    /// When it was made.
    pub from: u64,
    /// When it was healed.
    pub until: u64,
}

impl Interval {
    /// Whether it was at that host.
    pub fn is_at(&self, host: &str) -> bool {
        self.host.as_deref() == Some(host)
    }
}

/// The sorted history.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When faults may have begun.
    pub began: Option<u64>,
    /// Faults that were made.
    pub faults: Vec<Interval>,
    /// Incarnations that ended.
    pub deaths: Vec<Power>,
    /// When each incarnation began, by boot id.
    pub boots: BTreeMap<String, u64>,
    /// What the product told.
    pub incidents: Vec<Incident>,
    /// Data disks that were judged.
    pub disks: usize,
    /// After how long a silence on both ways an armed guard kills; none where guards are not armed.
    pub contract: Option<u64>,
    /// When the guards of which hosts killed.
    pub firings: Vec<(u64, String)>,
    /// Where guests had processes, by time.
    copies: Vec<(u64, BTreeMap<String, Vec<String>>)>,
}

impl Facts {
    /// Sorts a history; what can not be understood is a finding.
    pub fn of(history: &[Entry], findings: &mut Vec<Finding>) -> Self {
        let mut facts = Facts::default();
        for entry in history {
            match entry {
                Entry::Begin {
                    at,
                    contract_seconds,
                    ..
                } => {
                    facts.began = Some(*at);
                    facts.contract = contract_seconds.map(|seconds| seconds * SECOND);
                }
                Entry::Guard { at, host } => facts.firings.push((*at, host.clone())),
                Entry::Fault { at, fault, host } => match Effect::of(fault) {
                    Some(effect) => facts.faults.push(Interval {
                        fault: fault.clone(),
                        effect,
                        host: host.clone(),
                        from: *at,
                        until: u64::MAX,
                    }),
                    None => find(findings, "history", format!("{fault} is no known fault")),
                },
                Entry::Spared { fault, host, .. } => {
                    let made = facts.open(fault, host.as_deref());
                    if let Some(index) = made {
                        facts.faults.remove(index);
                    }
                }
                Entry::Heal { at, fault, host } => {
                    if let Some(index) = facts.open(fault, host.as_deref()) {
                        facts.faults[index].until = *at;
                    }
                }
                Entry::Power(power) if !power.on => facts.deaths.push(power.clone()),
                Entry::Power(power) => {
                    facts.boots.insert(power.boot_id.clone(), power.at);
                }
                Entry::Copies { at, guests } => facts.copies.push((*at, guests.clone())),
                Entry::Disk { .. } => facts.disks += 1,
                Entry::Incident { object } => match incident::read(object) {
                    Ok(incident) => facts.incidents.push(incident),
                    Err(error) => find(findings, "history", error),
                },
                _ => {}
            }
        }
        facts
    }

    /// The fault of that kind there that is not healed.
    fn open(&self, fault: &str, host: Option<&str>) -> Option<usize> {
        self.faults.iter().rposition(|known| {
            known.fault == fault && known.host.as_deref() == host && known.until == u64::MAX
        })
    }

    /// Whether a guest had a process on a host shortly before a moment. What was seen last may be a
    /// look old, and a copy that moves counts for both hosts.
    pub fn carried(&self, guest: &str, host: &str, at: u64) -> bool {
        let earliest = at.saturating_sub(2 * SECOND);
        let mut older = 0;
        let recent = self
            .copies
            .iter()
            .rev()
            .skip_while(|(seen, _)| *seen > at + SECOND)
            .take_while(|(seen, _)| {
                older += usize::from(*seen <= earliest);
                older <= 1
            });
        let here = |(_, guests): &(u64, BTreeMap<String, Vec<String>>)| {
            guests
                .get(guest)
                .is_some_and(|hosts| hosts.iter().any(|known| known == host))
        };
        recent.into_iter().any(here)
    }

    /// A moment as a person reads it: seconds since the beginning.
    pub fn when(&self, at: u64) -> String {
        let began = self.began.unwrap_or(0);
        let seconds = (i128::from(at) - i128::from(began)) as f64 / SECOND as f64;
        format!("at {seconds:.1} s")
    }
}
