//! From the failure of a host until all is well elsewhere: when each step was seen.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{HostState, VirtualMachine};
use judge::report::{Outage, Window};
use kube::{Client, ResourceExt};
use lab::{Lab, judges};
use model::{Assignment, StopProofKind};

use crate::watch::{all_well, host_state, until, vms};

/// A VM is found by namespace and name.
type Name = (String, String);

/// An outage that ended so long ago, nanoseconds, is over: one that goes on reaches up to the last probe.
const OVER: u64 = 3_000_000_000;

/// Seconds from the fault until each step was seen.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// The host is shown as Suspect, or is further already.
    pub suspect: f64,
    /// It is shown as Unreachable, or is forced off already; none where the proof came first, or where
    /// the state did not last from one look to the next.
    pub unreachable: Option<f64>,
    /// A stop proof stands.
    pub proven: f64,
    /// The first VM is assigned to another host.
    pub decided: f64,
    /// The first VM's process runs there.
    pub started: f64,
    /// Every endpoint of the OA system answers again, by the prober (see [`oa_answered`]).
    pub oa_answered: Option<f64>,
    /// Every endpoint of every system answers again.
    pub answered: f64,
    /// Tiers that lost VMs, in the order in which they are to start.
    pub tiers: Vec<Tier>,
    /// What the new start of each lost VM rests on; none: its status shows no proof of the lost copy.
    pub proofs: BTreeMap<String, Option<StopProofKind>>,
}

/// A tier of a business system that lost VMs.
#[derive(Clone, Debug, Default)]
pub struct Tier {
    /// Namespace and name of the system.
    pub system: String,
    /// Its place in the restart order.
    pub order: i32,
    /// Its name.
    pub name: String,
    /// It lost every VM: tiers after it wait until it answers.
    pub whole: bool,
    /// Its first VM is assigned elsewhere.
    pub assigned: Option<f64>,
    /// Its first VM runs there, under its new epoch.
    pub started: Option<f64>,
}

/// The first tier that was given a host before an earlier tier of its system ran again, as a sentence.
/// A tier of which some VM never stopped is not waited for.
pub fn out_of_turn(tiers: &[Tier]) -> Option<String> {
    let early = |earlier: &Tier, later: &Tier| {
        earlier.system == later.system
            && earlier.order < later.order
            && earlier.whole
            && later
                .assigned
                .is_some_and(|assigned| earlier.started.is_none_or(|started| assigned < started))
    };
    tiers.iter().find_map(|later| {
        let earlier = tiers.iter().find(|earlier| early(earlier, later))?;
        Some(format!(
            "{}: tier {} was assigned after {:.1} s, before tier {} ran ({:?} s)",
            later.system,
            later.name,
            later.assigned.unwrap_or(f64::NAN),
            earlier.name,
            earlier.started
        ))
    })
}

/// What the failed host ran, and what became of it so far.
struct Lost {
    rights: BTreeMap<Name, Assignment>,
    tiers: Vec<Tier>,
    decided: Option<f64>,
    started: Option<f64>,
}

fn name(vm: &VirtualMachine) -> Name {
    (vm.namespace().unwrap_or_default(), vm.name_any())
}

fn right(vm: &VirtualMachine) -> Option<&Assignment> {
    vm.status.as_ref()?.assignment.as_ref()
}

/// System, restart order and tier of a VM that belongs to a system.
fn tier(vm: &VirtualMachine) -> Option<(String, i32, String)> {
    let system = vm.labels().get(LABEL_SYSTEM)?;
    let tier = vm.labels().get(LABEL_TIER)?;
    let system = format!("{}/{system}", vm.namespace().unwrap_or_default());
    Some((system, vm.spec.restart_order, tier.clone()))
}

fn runs(vm: &VirtualMachine) -> bool {
    let runtime = vm
        .status
        .as_ref()
        .and_then(|status| status.runtime.as_ref());
    runtime.is_some_and(|runtime| {
        runtime.phase == api::RuntimePhase::Running && Some(&runtime.assignment) == right(vm)
    })
}

impl Lost {
    fn of(host: &str, vms: &[VirtualMachine]) -> Self {
        let here = |vm: &VirtualMachine| right(vm).is_some_and(|own| own.host.as_str() == host);
        // By tier: whether every VM of it is here.
        let mut whole: BTreeMap<(String, i32, String), bool> = BTreeMap::new();
        for vm in vms.iter().filter(|vm| here(vm)) {
            whole.extend(tier(vm).map(|tier| (tier, true)));
        }
        for vm in vms.iter().filter(|vm| !here(vm)) {
            if let Some(own) = tier(vm)
                && let Some(all) = whole.get_mut(&own)
            {
                *all = false;
            }
        }
        let tiers = whole
            .into_iter()
            .map(|((system, order, name), whole)| Tier {
                system,
                order,
                name,
                whole,
                ..Tier::default()
            });
        let rights = vms
            .iter()
            .filter(|vm| here(vm))
            .filter_map(|vm| Some((name(vm), right(vm)?.clone())));
        Self {
            rights: rights.collect(),
            tiers: tiers.collect(),
            decided: None,
            started: None,
        }
    }

    /// Notes what is seen for the first time.
    fn look(&mut self, vms: &[VirtualMachine], now: f64) {
        for vm in vms {
            let Some(lost) = self.rights.get(&name(vm)) else {
                continue;
            };
            if right(vm).is_none_or(|own| own.epoch.0 <= lost.epoch.0) {
                continue;
            }
            let runs = runs(vm);
            self.decided.get_or_insert(now);
            if runs {
                self.started.get_or_insert(now);
            }
            let Some((system, order, name)) = tier(vm) else {
                continue;
            };
            let own = |tier: &&mut Tier| {
                tier.system == system && tier.order == order && tier.name == name
            };
            if let Some(tier) = self.tiers.iter_mut().find(own) {
                tier.assigned.get_or_insert(now);
                if runs {
                    tier.started.get_or_insert(now);
                }
            }
        }
    }

    /// The kind of proof by which each lost copy counts as stopped.
    fn proofs(&self, vms: &[VirtualMachine]) -> BTreeMap<String, Option<StopProofKind>> {
        let of = |vm: &VirtualMachine| {
            let lost = self.rights.get(&name(vm))?;
            let proofs = vm.status.iter().flat_map(|status| &status.proofs);
            let mut own = proofs.filter(|proof| proof.assignment == *lost);
            Some((vm.name_any(), own.next().map(|proof| proof.kind)))
        };
        vms.iter().filter_map(of).collect()
    }
}

/// Follows a recovery; `once_noticed` is called when the host was noticed.
///
/// # Errors
/// A step that does not come, with a picture of the site.
pub async fn follow(
    client: &Client,
    host: &str,
    systems: usize,
    once_noticed: impl FnOnce() -> Result<()>,
) -> Result<Times> {
    let begin = Instant::now();
    let mut times = Times::default();
    let seconds = || begin.elapsed().as_secs_f64();
    let mut lost = Lost::of(host, &vms(client).await?);
    until(client, "the host to be noticed", async || {
        Ok(host_state(client, host).await? != Some(HostState::Ready))
    })
    .await?;
    times.suspect = seconds();
    once_noticed()?;
    until(client, "the host to be proven off", async || {
        let state = host_state(client, host).await?;
        if matches!(state, Some(HostState::Unreachable | HostState::Fencing)) {
            times.unreachable.get_or_insert(seconds());
        }
        Ok(state == Some(HostState::Fenced))
    })
    .await?;
    times.proven = seconds();
    until(
        client,
        "the first VM to be assigned elsewhere",
        async || {
            lost.look(&vms(client).await?, seconds());
            Ok(lost.decided.is_some())
        },
    )
    .await?;
    until(client, "the first VM to start elsewhere", async || {
        lost.look(&vms(client).await?, seconds());
        Ok(lost.started.is_some())
    })
    .await?;
    until(client, "every system to be Ready elsewhere", async || {
        let now = vms(client).await?;
        lost.look(&now, seconds());
        let gone = |vm: &VirtualMachine| right(vm).is_none_or(|own| own.host.as_str() != host);
        let all = lost.tiers.iter().all(|tier| tier.started.is_some());
        Ok(all && now.iter().all(gone) && all_well(client, systems).await?)
    })
    .await?;
    times.answered = seconds();
    (times.decided, times.started) = (
        lost.decided.unwrap_or(f64::NAN),
        lost.started.unwrap_or(f64::NAN),
    );
    times.proofs = lost.proofs(&vms(client).await?);
    times.tiers = lost.tiers;
    Ok(times)
}

/// Seconds from `from` until the prober had every endpoint of the OA system answered again. None where the
/// failed host ran no VM of it, or no endpoint of it stopped answering: nobody waited then.
///
/// # Errors
/// The prober's results can not be read, or the endpoints do not answer.
pub async fn oa_answered(lab: &Lab, times: &Times, from: u64) -> Result<Option<f64>> {
    let of_oa = |tier: &Tier| tier.system.ends_with("/oa");
    if !times.tiers.iter().any(of_oa) {
        return Ok(None);
    }
    let mut ended = None;
    until(&lab.client, "the prober to be answered by OA", async || {
        let to = judges::now();
        let report = judges::judge_probes(&lab.files, Window { from, to })?;
        let last: Vec<Outage> = (report.endpoints.iter())
            .filter(|(name, _)| name.starts_with("oa/"))
            .filter_map(|(_, endpoint)| endpoint.downtime.last().copied())
            .collect();
        ended = last.iter().map(|outage| outage.to).max();
        let over = |outage: &Outage| outage.ended || outage.to.saturating_add(OVER) < to;
        Ok(last.iter().all(over))
    })
    .await?;
    Ok(ended.map(|at| at.saturating_sub(from) as f64 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(order: i32, whole: bool, assigned: f64, started: Option<f64>) -> Tier {
        Tier {
            system: "egov-center/oa".to_owned(),
            order,
            name: format!("tier-{order}"),
            whole,
            assigned: Some(assigned),
            started,
        }
    }

    #[test]
    fn a_tier_waits_for_the_one_before() {
        let database = tier(10, true, 4.0, Some(5.0));
        let web = tier(40, true, 5.0, Some(6.0));
        assert_eq!(out_of_turn(&[database.clone(), web.clone()]), None);
        let early = tier(40, true, 4.5, Some(6.0));
        let told = out_of_turn(&[database.clone(), early.clone()]).unwrap_or_default();
        assert!(
            told.contains("tier-40") && told.contains("tier-10"),
            "{told}"
        );
        let never = tier(10, true, 4.0, None);
        assert!(out_of_turn(&[never, web]).is_some());
        // Another replica answered all the time, or it is another system: nobody waits.
        let part = Tier {
            whole: false,
            ..database.clone()
        };
        assert_eq!(out_of_turn(&[part, early.clone()]), None);
        let other = Tier {
            system: "tourism/tourism".to_owned(),
            ..database
        };
        assert_eq!(out_of_turn(&[other, early]), None);
    }

    fn vm(tier: &str, order: i32, host: &str, epoch: i64, runs: bool) -> VirtualMachine {
        let right = serde_json::json!({"host": host, "bootId": "boot", "epoch": epoch});
        let mut object = serde_json::json!({
            "metadata": {"name": tier, "namespace": "egov-center",
                "labels": {LABEL_SYSTEM: "oa", LABEL_TIER: tier}},
            "spec": {"cpu": 1, "memory": "128Mi", "image": "i", "disks": [], "networks": [],
                "restartOrder": order},
            "status": {"assignment": right, "proofs": [{"kind": "PoweredOff", "host": "h1",
                "bootId": "boot", "epoch": 1, "evidence": "the BMC reads Off"}]}
        });
        if runs {
            object["status"]["runtime"] = serde_json::json!({"assignment": right, "phase": "Running",
                "since": "2026-01-01T00:00:00Z"});
        }
        serde_json::from_value(object).expect("a VM")
    }

    #[test]
    fn only_new_starts_of_lost_vms_are_seen() {
        let before = [
            vm("database", 10, "h1", 1, true),
            vm("web", 40, "h2", 1, true),
        ];
        let mut lost = Lost::of("h1", &before);
        assert_eq!(lost.tiers.len(), 1, "web lost nothing: {:?}", lost.tiers);
        lost.look(&before, 1.0);
        assert_eq!((lost.decided, lost.started), (None, None));
        lost.look(&[vm("database", 10, "h3", 2, false)], 2.0);
        let after = [vm("database", 10, "h3", 2, true)];
        lost.look(&after, 3.0);
        lost.look(&after, 4.0);
        let seen = &lost.tiers[0];
        assert_eq!((seen.assigned, seen.started), (Some(2.0), Some(3.0)));
        let proofs = lost.proofs(&after);
        assert_eq!(proofs["database"], Some(StopProofKind::PoweredOff));
    }
}
