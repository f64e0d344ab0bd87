//! Hosts whose management network is cut while their storage heartbeat beats, by row of the table of signals: what
//! else is seen of one decides whether it is left alone for as long as that lasts, or fenced after its wait.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{Incident, TimelineEntry, TimelineKind, VirtualMachine};
use e2e::calm::Calm;
use e2e::declared::right;
use e2e::ledger::incidents;
use e2e::plays::all_answer;
use e2e::power::fences;
use e2e::watch::{busiest, names_on, vms};
use kube::ResourceExt;
use lab::guards::{firings, is_armed};
use lab::{Lab, judges};
use model::StopProofKind;

use crate::unreachable::{armed_host, rest_on};
use crate::{drill, well};

/// Concluded of a host that reads On and whose VMs answer.
const MANAGEMENT_CUT: &str = "its management network is cut and its VMs answer; it is not fenced";
/// Concluded of one whose BMC does not answer either.
const SWITCH_DEAD: &str = "management and BMC are unreachable while its storage heartbeat beats; a switch is suspected and it is not fenced";
/// Told of both, as deliberately not done.
const LEFT_ALONE: &str = "is not forced off, as it shows life";
/// Concluded of one that reads On and none of whose VMs answers.
const ISOLATED: &str = "it runs but is isolated";
/// An isolated host is fenced so long after it was told as unreachable, at least: 30 s of silence less 8 s, and less what
/// a turn of the operator may come late.
const WAITS: Duration = Duration::from_secs(20);

/// Its VMs answer: it is never fenced.
pub async fn management_is_cut(lab: &Lab) -> Result<()> {
    is_left_alone(lab, "management-cut-armed", MANAGEMENT_CUT).await
}

/// Its BMC is unreachable with it: it is never fenced, and nothing is made of its silence.
pub async fn a_switch_is_dead(lab: &Lab) -> Result<()> {
    is_left_alone(lab, "switch-dead", SWITCH_DEAD).await
}

/// None of its VMs answers: it is forced off after its wait, while its guard has no reason to fire, and what it carried
/// runs elsewhere on what its BMC reads.
pub async fn an_isolated_host_is_fenced(lab: &Lab) -> Result<()> {
    let host = heard_best(lab).await?;
    let names = names_on(&lab.client, &host).await?;
    let (forced, fired) = (fences(lab)?.len(), firings(lab)?);
    drill(lab, "host-isolated", &host)?;
    ensure!(
        fences(lab)?.len() == forced + 1,
        "{host} was not forced off once"
    );
    ensure!(firings(lab)? == fired, "a guard fired");
    let told = incident_of(lab, &host).await?;
    says(&told, &host, ISOLATED)?;
    was_waited_for(&told, &host)?;
    rest_on(lab, &names, StopProofKind::PoweredOff).await?;
    well(lab).await
}

/// The drill, and what only the lab can see: the same processes, no guest that booted, nobody forced off, no guard that
/// fired; one Incident, which says why it is left alone, and that nothing was decided.
async fn is_left_alone(lab: &Lab, name: &str, why: &str) -> Result<()> {
    let host = heard_best(lab).await?;
    let (calm, fired, from) = (Calm::now(lab).await?, firings(lab)?, judges::now());
    drill(lab, name, &host)?;
    calm.stands().await?;
    ensure!(lab::host::is_on(&lab.files, &host), "{host} is off");
    ensure!(firings(lab)? == fired, "a guard fired");
    no_guest_booted(lab, from)?;
    let told = incident_of(lab, &host).await?;
    let alerts = calm.new_incidents().await?;
    ensure!(
        alerts == [told.spec.cause.clone()],
        "the Incidents are {alerts:?}"
    );
    says(&told, &host, why)?;
    says(&told, &host, LEFT_ALONE)?;
    let mut decided = timeline(&told);
    decided.retain(|entry| entry.kind == TimelineKind::Decided);
    ensure!(decided.is_empty(), "decided was {decided:?}");
    well(lab).await
}

/// The armed host that carries most VMs of those with one that alone serves its endpoint: it is probed each time, replicas
/// take turns. Every guest answers: one that still boots would leave its host without that sign of life.
async fn heard_best(lab: &Lab) -> Result<String> {
    all_answer(lab).await?;
    let all = vms(&lab.client).await?;
    let mut carriers = Vec::new();
    for vm in all.iter().filter(|vm| serves_alone(vm, &all)) {
        carriers.push(right(vm)?.host.to_string());
    }
    let fits = |host: &_| is_armed(host) && carriers.contains(&host.name_any());
    match busiest(&lab.client, fits).await {
        Ok(host) => Ok(host),
        // All of those stand on the one that is not armed.
        Err(_) => armed_host(lab).await,
    }
}

/// Whether a VM is the only one of its tier.
fn serves_alone(vm: &VirtualMachine, all: &[VirtualMachine]) -> bool {
    let tier = |vm: &VirtualMachine| {
        let label = |name| vm.labels().get(name).cloned();
        Some((vm.namespace(), label(LABEL_SYSTEM)?, label(LABEL_TIER)?))
    };
    let own = tier(vm);
    own.is_some() && all.iter().filter(|other| tier(other) == own).count() == 1
}

fn no_guest_booted(lab: &Lab, from: u64) -> Result<()> {
    for (guest, witness) in &judges::judge_since(&lab.files, from)?.guests {
        ensure!(
            witness.boots.len() <= 1 && witness.uptime_went_back.is_none(),
            "{guest} booted: {witness:?}"
        );
    }
    Ok(())
}

/// The youngest Incident of a host's silence.
async fn incident_of(lab: &Lab, host: &str) -> Result<Incident> {
    let cause = format!("host-silent/{host}/");
    let mut all = incidents(lab).await?.into_iter();
    let youngest = all.rfind(|incident| incident.spec.cause.starts_with(&cause));
    youngest.with_context(|| format!("{host} was silent, and no Incident tells of it"))
}

fn timeline(incident: &Incident) -> Vec<&TimelineEntry> {
    let status = incident.status.as_ref();
    status.iter().flat_map(|status| &status.timeline).collect()
}

/// What was concluded of a host stands in its Incident, in these words.
fn says(incident: &Incident, host: &str, words: &str) -> Result<()> {
    let (told, words) = (timeline(incident), format!("{host}: {words}"));
    ensure!(
        told.iter().any(|entry| entry.text == words),
        "{words:?} is missing in {told:?}"
    );
    Ok(())
}

/// A host was not fenced before its wait was over, by the clock of whoever decided it.
fn was_waited_for(incident: &Incident, host: &str) -> Result<()> {
    let told = timeline(incident);
    let at = |step: &str| {
        let step = format!("{host}/{step}");
        let found = told.iter().find(|entry| entry.step == step);
        let found = found.with_context(|| format!("{step} is missing in {told:?}"))?;
        anyhow::Ok(found.at.0)
    };
    let waited = at("Decided/FenceIntended")?.duration_since(at("Seen/Unreachable")?);
    let waited = Duration::try_from(waited)?;
    println!("{host} was unreachable for {waited:.1?} before it was fenced");
    ensure!(waited >= WAITS, "{host} was fenced after {waited:?}");
    Ok(())
}
