//! The story, step by step. Each step waits for its end by conditions and is then judged; times
//! are told, not asserted.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use api::HostState;
use kube::ResourceExt;
use lab::{Fault, Lab, declarations, guest, judges};
use model::StopProofKind;

use crate::command::{clear, kubectl, zyctl};
use crate::evacuation;
use crate::ledger::{ledger_agrees, tell_ledger};
use crate::recovery;
use crate::watch::{
    all_well, busy_host, headroom, hosts, is_ready, names_on, on_host, systems, until, until_ready,
};

/// Business systems that the declarations hold.
pub(crate) const SYSTEMS: usize = 4;
/// Sites of the website group, by the seed.
const SITES: usize = 18;

/// How the story is played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Play {
    /// Tell it on standard output.
    pub talk: bool,
    /// Kill the operator in the middle of the recovery from the power loss.
    pub kill_operator: bool,
}

/// Tells the story with the time of each line.
pub struct Teller {
    talk: bool,
    begin: Instant,
}

impl Teller {
    /// One that begins now; it says nothing unless it is to talk.
    pub fn new(talk: bool) -> Self {
        Self {
            talk,
            begin: Instant::now(),
        }
    }

    /// Says one line.
    pub fn say(&self, text: &str) {
        if self.talk {
            println!("[{:6.1} s] {text}", self.begin.elapsed().as_secs_f64());
        }
    }

    /// Shows what a program printed.
    pub(crate) fn show(&self, text: &str) {
        if self.talk {
            println!("{}\n", text.trim_end());
        }
    }
}

/// Plays the whole story on a lab that is up.
///
/// # Errors
/// The first thing that is not as it must be.
pub async fn play(lab: &Lab, how: Play) -> Result<()> {
    let teller = Teller::new(how.talk);
    deploy(lab, &teller).await?;
    look_around(lab, &teller).await?;
    judges::start_prober(&lab.files, &lab.client).await?;
    evacuation::play(lab, &teller).await?;
    power_loss(lab, &teller, how.kill_operator).await?;
    return_of_hosts(lab, &teller).await?;
    hang(lab, &teller).await?;
    judge_disks(lab, &teller).await?;
    tell_ledger(lab, &teller).await?;
    judges::stop_prober(&lab.files)
}

/// Step 1: everything applied, every system Ready, 18 sites answer.
pub(crate) async fn deploy(lab: &Lab, teller: &Teller) -> Result<()> {
    teller.say("1. The declarations: OA, website group, two department applications");
    let folder = guest::build()?;
    let values = guest::serve(&lab.files, &folder)?;
    let objects = declarations::for_lab(&declarations::folder(), &values)?;
    declarations::apply(&lab.client, &objects).await?;
    let took = until(
        &lab.client,
        "every business system to be Ready",
        async || all_well(&lab.client, SYSTEMS).await,
    )
    .await?;
    teller.say(&format!(
        "   every system Ready {:.1} s after the last apply",
        took.as_secs_f64()
    ));
    for system in systems(&lab.client).await? {
        let status = system.status.clone().unwrap_or_default();
        teller.say(&format!(
            "   {}: {}, endpoints {}, VMs {}",
            system.spec.display_name,
            status.state,
            status.endpoints_up,
            status.virtual_machines_running
        ));
        if system.name_any() == "website-group" {
            ensure!(
                status.endpoints_up == format!("{SITES}/{SITES}"),
                "website group: {}",
                status.endpoints_up
            );
        }
    }
    ensure!(
        headroom(&lab.client).await? == "Proven",
        "N+1 is not proven"
    );
    Ok(())
}

/// What a person sees of a site where all is well: on one screen, and in kubectl's columns.
async fn look_around(lab: &Lab, teller: &Teller) -> Result<()> {
    let headline = format!("{SYSTEMS} of {SYSTEMS} business systems ready");
    let sites = format!("{SITES}/{SITES}");
    let tells = |screen: &str| {
        let group = |line: &str| {
            line.contains("website-group") && line.contains("Ready") && line.contains(&sites)
        };
        screen.starts_with(&headline) && screen.lines().any(group)
    };
    let what = format!("zyctl status to tell {headline:?} and {sites} sites");
    let mut screen = String::new();
    // Guests that just booted answer late now and then.
    until(&lab.client, &what, async || {
        screen = zyctl(lab, &["status"])?;
        Ok(tells(&screen))
    })
    .await?;
    teller.say("   zyctl status:");
    teller.show(&screen);
    let columns = kubectl(lab, &["get", "bs,vm,zh", "-A"])?;
    teller.say("   kubectl get bs,vm,zh -A:");
    teller.show(&columns);
    let told = |name: &str| columns.contains(name);
    ensure!(
        told("website-group") && lab.hosts()?.iter().all(|host| told(host)),
        "kubectl does not tell systems and hosts:\n{columns}"
    );
    Ok(())
}

/// A site that is down for so long did stop answering: single answers come late while the emulated guests of
/// a dead host boot beside it.
const STOPPED_SECONDS: f64 = 1.0;

/// Step 3: the power of a host is cut; its VMs restart elsewhere, and no site is missed.
async fn power_loss(lab: &Lab, teller: &Teller, kill_operator: bool) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let lost = names_on(&lab.client, &host).await?;
    teller.say(&format!(
        "3. The power of {host} is cut; it ran {}",
        lost.join(", ")
    ));
    let from = judges::now();
    lab.fault(Some(&host), Fault::PowerLoss)?;
    recover(lab, teller, &host, kill_operator).await?;
    let report = judges::judge_since(&lab.files, from)?;
    for (name, system) in &report.systems {
        teller.say(&format!(
            "   the prober: {name} down {:.1} s",
            system.downtime_seconds.max(0.0)
        ));
    }
    let sites = (report.endpoints.iter())
        .filter(|(name, _)| name.starts_with("website-group/"))
        .map(|(_, endpoint)| endpoint.downtime_seconds)
        .fold(0.0, f64::max);
    ensure!(
        sites < STOPPED_SECONDS,
        "a site of the website group stopped answering for {sites:.1} s"
    );
    ledger_agrees(lab, teller, &host, &report).await
}

/// From the failure of a host until all is well elsewhere, told step by step.
async fn recover(lab: &Lab, teller: &Teller, host: &str, kill_operator: bool) -> Result<()> {
    let kill = || {
        if kill_operator {
            lab.fault(None, Fault::OperatorKill)?;
            teller.say("   the operator is killed and starts again");
        }
        Ok(())
    };
    let times = recovery::follow(&lab.client, host, SYSTEMS, kill).await?;
    let unreachable = times.unreachable.map(|time| (time, "Unreachable"));
    let first = std::iter::once((times.suspect, "Suspect")).chain(unreachable);
    for (time, what) in first.chain([
        (times.proven, "proven off"),
        (times.decided, "the first VM is assigned elsewhere"),
        (times.started, "the first VM process runs elsewhere"),
    ]) {
        teller.say(&format!("   {time:.1} s: {what}"));
    }
    for tier in &times.tiers {
        teller.say(&format!(
            "   {:.1} s: {}, {} runs (assigned after {:.1} s)",
            tier.started.unwrap_or(f64::NAN),
            tier.system,
            tier.name,
            tier.assigned.unwrap_or(f64::NAN)
        ));
    }
    teller.say(&format!(
        "   {:.1} s: every system answers again",
        times.answered
    ));
    if let Some(early) = recovery::out_of_turn(&times.tiers) {
        bail!("tiers started out of turn: {early}");
    }
    for (vm, proof) in &times.proofs {
        ensure!(
            *proof == Some(StopProofKind::PoweredOff),
            "{vm} started anew on the proof {proof:?}, not on power that the BMC reads as off"
        );
    }
    teller.say("   each start rests on the proof PoweredOff");
    Ok(())
}

/// Step 4: dead hosts return with a new boot, the quarantined one is cleared, N+1 is whole.
async fn return_of_hosts(lab: &Lab, teller: &Teller) -> Result<()> {
    teller.say("4. The dead host returns, the quarantined one is cleared");
    for host in hosts(&lab.client).await? {
        match host.status.as_ref().and_then(|status| status.state) {
            Some(HostState::Quarantined) => {
                let reason = "memory module replaced";
                let name = host.name_any();
                clear(lab, &name, reason)?;
            }
            Some(HostState::Ready) => {}
            _ => lab.heal(Some(&host.name_any()), Fault::PowerLoss)?,
        }
    }
    until(&lab.client, "four hosts to be Ready", async || {
        Ok(hosts(&lab.client).await?.iter().all(is_ready))
    })
    .await?;
    until(&lab.client, "N+1 to be whole", async || {
        Ok(headroom(&lab.client).await? == "Proven")
    })
    .await?;
    for host in lab.hosts()? {
        let assigned = on_host(&lab.client, &host).await?.len();
        let running = lab::host::processes(&lab.files, &host, "qemu-system-x86_64")?.len();
        ensure!(
            running == assigned,
            "{host} runs {running} QEMU processes and has {assigned} VMs assigned: something of an old incarnation runs"
        );
    }
    teller.say("   every host Ready, N+1 proven, nothing of an old incarnation runs");
    Ok(())
}

/// Step 5: a host hangs while its BMC says On; it is forced off, then its VMs restart elsewhere.
async fn hang(lab: &Lab, teller: &Teller) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    teller.say(&format!("5. {host} hangs; its BMC says On"));
    let from = judges::now();
    lab.fault(Some(&host), Fault::KernelHang)?;
    recover(lab, teller, &host, false).await?;
    ensure!(
        !lab::host::is_on(&lab.files, &host),
        "{host} was not forced off"
    );
    let report = judges::judge_since(&lab.files, from)?;
    ledger_agrees(lab, teller, &host, &report).await?;
    lab.heal(Some(&host), Fault::PowerLoss)?;
    until_ready(&lab.client, &host).await?;
    Ok(())
}

/// Nothing lost, nothing doubled, on any data disk.
async fn judge_disks(lab: &Lab, teller: &Teller) -> Result<()> {
    let verdicts = judges::judge_disks(&lab.files, &lab.client).await?;
    ensure!(!verdicts.is_empty(), "there is no data disk to judge");
    for (volume, verdict) in &verdicts {
        ensure!(
            verdict.is_clean(),
            "data disk of {volume}: {:?}",
            verdict.problems
        );
    }
    let writes: u64 = verdicts.values().map(|verdict| verdict.last).sum();
    teller.say(&format!(
        "6. The disk ledger: {} data disks, {writes} stamped writes, none lost, none doubled",
        verdicts.len()
    ));
    Ok(())
}

/// The names of everything that a story needs to be built.
///
/// # Errors
/// A program is missing.
pub fn check_programs() -> Result<()> {
    let folder = lab::process::zylab()?
        .parent()
        .context("zylab lies in a folder")?
        .to_owned();
    for program in [
        "zhengyun-operator",
        "zhengyun-agent",
        "zhengyun-guard",
        "zhengyun-qemu-hook",
        "zy-prober",
        "zyctl",
    ] {
        ensure!(
            folder.join(program).is_file(),
            "{program} is not built; run: make build"
        );
    }
    Ok(())
}
