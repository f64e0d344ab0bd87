//! Network links: carrier, flaps, error rates, members of bonds (`class/net`).
//!
//! Virtual devices (bridges, taps, tunnels, the guests' own) are ignored by what they are, not
//! by name, unless the host was told that it lives on one (`watched`).

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings, Moment, Quantity, id_part, quote, span};
use crate::source::{self, ReadError};
use crate::thresholds::Thresholds;
use crate::window::{CountedEvents, FirstValue};

/// One link as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Device name.
    pub name: String,
    /// The host was told that it needs this link.
    pub watched: bool,
    /// Someone switched it on (`IFF_UP`).
    pub enabled: bool,
    /// It has carrier; absent when it is switched off.
    pub carrier: Option<bool>,
    /// Carrier changes since it appeared.
    pub carrier_changes: Option<u64>,
    /// Carrier losses since it appeared; old kernels do not tell.
    pub carrier_losses: Option<u64>,
    /// Packets received and sent.
    pub packets: u64,
    /// Receive errors.
    pub receive_errors: u64,
    /// Transmit errors.
    pub transmit_errors: u64,
    /// The bond that it belongs to, with the bond's own view of it.
    pub bond: Option<BondMember>,
}

/// What a bond says about one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondMember {
    /// Name of the bond.
    pub bond: String,
    /// Link monitoring says up.
    pub up: bool,
}

/// What is remembered of each link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkHistory {
    links: BTreeMap<String, Past>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Past {
    had_carrier: bool,
    changes: CountedEvents,
    losses: CountedEvents,
    /// `(boot seconds, packets, errors)` over the window, oldest first.
    traffic: VecDeque<(i64, u64, u64)>,
}

impl LinkHistory {
    /// Forgets flaps that a person has dealt with.
    pub fn clear_until(&mut self, unix_seconds: i64) {
        for past in self.links.values_mut() {
            past.changes.window.clear_until(unix_seconds);
            past.losses.window.clear_until(unix_seconds);
        }
    }
}

/// Devices looked at.
const LINKS_MAX: usize = 512;
/// `IFF_UP` of linux/if.h.
const FLAG_UP: i64 = 1;

/// Reads physical links, members of bonds, and those that are watched.
pub fn read(sysfs: &Path, watched: &[String], findings: &mut Findings) -> Vec<Link> {
    let root = sysfs.join("class/net");
    let names = match source::names(&root) {
        Ok(names) => names,
        Err(error) => {
            findings.fail(None, error.sentence());
            return Vec::new();
        }
    };
    let members = read_bonds(&root, &names, findings);
    let mut links = Vec::new();
    for name in watched.iter().filter(|name| !names.contains(name)) {
        findings.fail(
            Some(format!("nic/{}", id_part(name))),
            format!(
                "link {} does not exist; check the agent's option that names it",
                quote(name, 32)
            ),
        );
    }
    for name in names
        .iter()
        .filter(|name| name.as_str() != "lo")
        .take(LINKS_MAX)
    {
        let folder = root.join(name);
        let is_watched = watched.contains(name);
        let bond = members.get(name).cloned();
        if !is_watched && bond.is_none() && !is_physical(&folder) {
            continue;
        }
        match read_link(&folder, name) {
            Ok(link) => links.push(Link {
                watched: is_watched,
                bond,
                ..link
            }),
            Err(error) => findings.fail(Some(format!("nic/{}", id_part(name))), error.sentence()),
        }
    }
    // A bond may know members whose own folder can not be seen.
    for (name, member) in &members {
        if !links.iter().any(|link| link.name == *name) {
            links.push(Link {
                name: name.clone(),
                bond: Some(member.clone()),
                ..Link::default()
            });
        }
    }
    links
}

/// A device with hardware below it, and no virtual function handed to a guest.
pub(crate) fn is_physical(folder: &Path) -> bool {
    if folder.join("device/physfn").exists() {
        return false;
    }
    if folder.join("device").exists() {
        return true;
    }
    fs::canonicalize(folder).is_ok_and(|real| {
        let real = real.to_string_lossy();
        real.contains("/devices/") && !real.contains("/devices/virtual/")
    })
}

fn read_link(folder: &Path, name: &str) -> Result<Link, ReadError> {
    let statistic = |part: &str| {
        source::counter(&folder.join("statistics").join(part)).map(Option::unwrap_or_default)
    };
    let flags = source::attribute(&folder.join("flags"))?
        .and_then(|text| i64::from_str_radix(text.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0);
    Ok(Link {
        name: name.to_owned(),
        watched: false,
        enabled: flags & FLAG_UP != 0,
        carrier: source::number(&folder.join("carrier"))?.map(|carrier| carrier == 1),
        carrier_changes: source::counter(&folder.join("carrier_changes"))?,
        carrier_losses: source::counter(&folder.join("carrier_down_count"))?,
        packets: statistic("rx_packets")?.saturating_add(statistic("tx_packets")?),
        receive_errors: statistic("rx_errors")?,
        transmit_errors: statistic("tx_errors")?,
        bond: None,
    })
}

fn read_bonds(
    root: &Path,
    names: &[String],
    findings: &mut Findings,
) -> BTreeMap<String, BondMember> {
    let mut members = BTreeMap::new();
    for bond in names {
        let folder = root.join(bond);
        let slaves = match source::attribute(&folder.join("bonding/slaves")) {
            Ok(slaves) => slaves.unwrap_or_default(),
            Err(error) => {
                findings.fail(Some(format!("nic/{}", id_part(bond))), error.sentence());
                continue;
            }
        };
        for name in slaves.split_whitespace() {
            // Kernels before 3.9 and later ones link members by different names.
            let status = [
                format!("{bond}/slave_{name}"),
                format!("{bond}/lower_{name}"),
                name.to_owned(),
            ]
            .iter()
            .find_map(|path| {
                source::attribute(&root.join(path).join("bonding_slave/mii_status")).transpose()
            });
            match status {
                Some(Ok(status)) => {
                    members.insert(
                        name.to_owned(),
                        BondMember {
                            bond: bond.clone(),
                            up: status == "up",
                        },
                    );
                }
                Some(Err(error)) => {
                    findings.fail(Some(format!("nic/{}", id_part(name))), error.sentence())
                }
                None => {}
            }
        }
    }
    members
}

/// Judges links against their history.
pub fn judge(
    links: &[Link],
    history: &mut LinkHistory,
    now: Moment,
    thresholds: &Thresholds,
) -> Findings {
    let mut findings = Findings::default();
    for link in links {
        let component = format!("nic/{}", id_part(&link.name));
        readings(link, &component, &mut findings);
        let past = history.links.entry(link.name.clone()).or_default();
        for finding in [
            down(link, &component, past),
            flapping(link, &component, past, now, thresholds),
            errors(link, &component, past, now, thresholds),
        ]
        .into_iter()
        .flatten()
        {
            findings.add(finding);
        }
    }
    history
        .links
        .retain(|name, _| links.iter().any(|link| link.name == *name));
    findings
}

fn readings(link: &Link, component: &str, findings: &mut Findings) {
    if let Some(carrier) = link.carrier {
        findings.read(
            component,
            Quantity::LinkCarrier,
            f64::from(u8::from(carrier)),
        );
    }
    if let Some(changes) = link.carrier_changes {
        findings.read(component, Quantity::LinkCarrierChanges, changes as f64);
    }
    findings.read(
        component,
        Quantity::LinkReceiveErrors,
        link.receive_errors as f64,
    );
    findings.read(
        component,
        Quantity::LinkTransmitErrors,
        link.transmit_errors as f64,
    );
}

/// A link without carrier is a fault when something counts on it: it is watched, belongs to a
/// bond, or had carrier before. An unused port without a cable is none.
fn down(link: &Link, component: &str, past: &mut Past) -> Option<Finding> {
    past.had_carrier |= link.carrier == Some(true);
    let degraded = |evidence| {
        Some(Finding::new(
            component,
            FaultKind::LinkDown,
            Severity::Degraded,
            evidence,
        ))
    };
    let name = quote(&link.name, 32);
    if let Some(member) = &link.bond
        && !member.up
    {
        return degraded(format!(
            "{name}, a member of bond {}, is down",
            quote(&member.bond, 32)
        ));
    }
    if link.watched && !link.enabled {
        return degraded(format!(
            "{name} is switched off, but this host's networks need it"
        ));
    }
    let expected = link.watched || link.bond.is_some() || past.had_carrier;
    if link.enabled && link.carrier == Some(false) && expected {
        return degraded(format!("{name} is switched on and has no carrier"));
    }
    None
}

fn flapping(
    link: &Link,
    component: &str,
    past: &mut Past,
    now: Moment,
    thresholds: &Thresholds,
) -> Option<Finding> {
    if let Some(changes) = link.carrier_changes {
        past.changes.observe(now, changes, FirstValue::IsBaseline);
    }
    if let Some(losses) = link.carrier_losses {
        past.losses.observe(now, losses, FirstValue::IsBaseline);
    }
    let seconds = thresholds.link_window_seconds;
    // A flap is a loss; each loss and each return is one change.
    let flaps = past
        .losses
        .window
        .count(now, seconds)
        .max(past.changes.window.count(now, seconds).div_ceil(2));
    (flaps >= thresholds.link_flaps).then(|| {
        let evidence = format!(
            "{} lost its carrier {flaps} times in {}",
            quote(&link.name, 32),
            span(seconds)
        );
        Finding::new(
            component,
            FaultKind::LinkFlapping,
            Severity::Degraded,
            evidence,
        )
        .counted(flaps)
        .at(past.changes.window.last().max(past.losses.window.last()))
    })
}

/// Oldest samples kept per link; polls are seconds apart.
const TRAFFIC_SAMPLES_MAX: usize = 64;

fn errors(
    link: &Link,
    component: &str,
    past: &mut Past,
    now: Moment,
    thresholds: &Thresholds,
) -> Option<Finding> {
    let failed = link.receive_errors.saturating_add(link.transmit_errors);
    if past
        .traffic
        .back()
        .is_some_and(|(_, packets, errors)| link.packets < *packets || failed < *errors)
    {
        past.traffic.clear();
    }
    let spacing = thresholds.link_window_seconds / (TRAFFIC_SAMPLES_MAX as i64 - 2);
    if past
        .traffic
        .back()
        .is_none_or(|(at, ..)| now.boot_seconds >= at + spacing)
    {
        past.traffic
            .push_back((now.boot_seconds, link.packets, failed));
    }
    let oldest = now.boot_seconds - thresholds.link_window_seconds;
    while past.traffic.len() > 1
        && (past.traffic.len() > TRAFFIC_SAMPLES_MAX
            || past.traffic.front().is_some_and(|(at, ..)| *at < oldest))
    {
        past.traffic.pop_front();
    }
    let (_, packets_before, errors_before) = *past.traffic.front()?;
    // Broken packets are not among the received ones.
    let errors = failed - errors_before;
    let packets = (link.packets - packets_before).saturating_add(errors);
    let ratio = errors as f64 / packets.max(1) as f64;
    (packets >= thresholds.link_packets_min && ratio > thresholds.link_error_ratio).then(|| {
        let evidence = format!(
            "{}: {errors} of {packets} packets with errors ({:.1} %, limit {:.1} %)",
            quote(&link.name, 32),
            ratio * 100.0,
            thresholds.link_error_ratio * 100.0
        );
        Finding::new(
            component,
            FaultKind::LinkErrors,
            Severity::Degraded,
            evidence,
        )
        .counted(errors)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_seconds: i64) -> Moment {
        Moment {
            boot_seconds,
            unix_seconds: boot_seconds,
        }
    }

    fn link() -> Link {
        Link {
            name: "eth0".into(),
            enabled: true,
            carrier: Some(true),
            carrier_changes: Some(2),
            ..Link::default()
        }
    }

    fn kinds(findings: &Findings) -> Vec<FaultKind> {
        findings
            .findings
            .iter()
            .map(|finding| finding.kind)
            .collect()
    }

    #[test]
    fn a_lost_carrier_is_a_fault_and_an_unused_port_is_none() {
        let limits = Thresholds::default();
        let mut history = LinkHistory::default();
        let down = Link {
            carrier: Some(false),
            ..link()
        };
        assert!(
            judge(std::slice::from_ref(&down), &mut history, at(0), &limits)
                .findings
                .is_empty()
        );
        judge(&[link()], &mut history, at(1), &limits);
        assert_eq!(
            kinds(&judge(
                std::slice::from_ref(&down),
                &mut history,
                at(2),
                &limits
            )),
            [FaultKind::LinkDown]
        );
        let watched = Link {
            watched: true,
            ..down.clone()
        };
        assert_eq!(
            kinds(&judge(
                &[watched],
                &mut LinkHistory::default(),
                at(0),
                &limits
            )),
            [FaultKind::LinkDown]
        );
        let off = Link {
            enabled: false,
            carrier: None,
            ..down
        };
        assert!(
            judge(&[off], &mut history, at(3), &limits)
                .findings
                .is_empty()
        );
        let member = Link {
            bond: Some(BondMember {
                bond: "bond0".into(),
                up: false,
            }),
            ..link()
        };
        assert_eq!(
            kinds(&judge(
                &[member],
                &mut LinkHistory::default(),
                at(0),
                &limits
            )),
            [FaultKind::LinkDown]
        );
    }

    #[test]
    fn five_flaps_in_ten_minutes_are_a_fault_and_four_are_not() {
        let limits = Thresholds::default();
        for (changes, faulty) in [(8, false), (9, true), (10, true)] {
            let mut history = LinkHistory::default();
            judge(&[link()], &mut history, at(0), &limits);
            let after = Link {
                carrier_changes: Some(2 + changes),
                ..link()
            };
            let found = judge(std::slice::from_ref(&after), &mut history, at(300), &limits);
            assert_eq!(
                kinds(&found).contains(&FaultKind::LinkFlapping),
                faulty,
                "{changes}"
            );
            assert!(
                judge(&[after], &mut history, at(901), &limits)
                    .findings
                    .is_empty()
            );
        }
        let mut history = LinkHistory::default();
        judge(
            &[Link {
                carrier_losses: Some(0),
                ..link()
            }],
            &mut history,
            at(0),
            &limits,
        );
        let found = judge(
            &[Link {
                carrier_losses: Some(5),
                ..link()
            }],
            &mut history,
            at(1),
            &limits,
        );
        assert_eq!(kinds(&found), [FaultKind::LinkFlapping]);
    }

    #[test]
    fn more_than_one_percent_errors_of_enough_packets_are_a_fault() {
        let limits = Thresholds::default();
        for (packets, errors, faulty) in [(9900, 100, false), (9899, 101, true), (500, 400, false)]
        {
            let mut history = LinkHistory::default();
            judge(&[link()], &mut history, at(0), &limits);
            let after = Link {
                packets,
                receive_errors: errors,
                ..link()
            };
            let found = judge(&[after], &mut history, at(60), &limits);
            assert_eq!(
                kinds(&found) == [FaultKind::LinkErrors],
                faulty,
                "{packets} {errors}"
            );
        }
    }

    #[test]
    fn traffic_history_stays_bounded_and_survives_a_counter_reset() {
        let limits = Thresholds::default();
        let mut history = LinkHistory::default();
        for second in 0..5000 {
            judge(
                &[Link {
                    packets: second as u64,
                    ..link()
                }],
                &mut history,
                at(second),
                &limits,
            );
        }
        assert!(history.links["eth0"].traffic.len() <= TRAFFIC_SAMPLES_MAX);
        let reset = Link {
            packets: 3,
            ..link()
        };
        assert!(
            judge(&[reset], &mut history, at(5001), &limits)
                .findings
                .is_empty()
        );
    }
}
