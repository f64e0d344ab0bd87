//! The judges in the lab: tells the prober what to probe, starts and stops it inside the lab's
//! network, and finds the data disks for the ledger. The judging itself is the `judge` crate's.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, VirtualMachine, Volume};
use judge::ledger::Verdict;
use judge::report::{self, Report, Window};
use judge::results::{Config, Results, Target};
use kube::{Api, Client, ResourceExt};

use crate::files::{LabFiles, write_at_once};
use crate::namespace;
use crate::process::{Daemon, PATIENCE, run, wait_for, zylab};

const PROGRAM: &str = "zy-prober";
/// Time between two probes of one endpoint, all its replicas together: five a second.
const INTERVAL_MILLISECONDS: u64 = 200;
/// Longest time that an answer may take.
const TIMEOUT_MILLISECONDS: u64 = 1000;

/// What the prober should probe: every endpoint at every replica's own address, five times a second
/// per endpoint (its replicas take turns), and one held connection to each VM.
///
/// # Errors
/// The API can not be read, or a VM that should be probed has no address yet.
pub async fn targets(client: &Client) -> Result<Vec<Target>> {
    let machines = Api::<VirtualMachine>::all(client.clone())
        .list(&Default::default())
        .await?
        .items;
    let systems = Api::<BusinessSystem>::all(client.clone())
        .list(&Default::default())
        .await?
        .items;
    let mut targets = Vec::new();
    let mut held = std::collections::BTreeSet::new();
    for system in &systems {
        let name = system.name_any();
        for endpoint in &system.spec.endpoints {
            let replicas: Vec<_> = machines
                .iter()
                .filter(|machine| machine.namespace() == system.namespace())
                .filter(|machine| machine.labels().get(LABEL_SYSTEM) == Some(&name))
                .filter(|machine| machine.labels().get(LABEL_TIER) == Some(&endpoint.tier))
                .collect();
            for machine in &replicas {
                let machine_name = machine.name_any();
                let port = u16::try_from(endpoint.port).context("endpoints.port")?;
                targets.push(Target {
                    id: format!("{name}/{}@{machine_name}", endpoint.name),
                    system: name.clone(),
                    address: SocketAddr::new(address(machine)?, port),
                    path: endpoint.path.clone(),
                    host_header: endpoint.host_header.clone(),
                    replica_of: Some(format!("{name}/{}", endpoint.name)),
                    interval_milliseconds: Some(INTERVAL_MILLISECONDS * replicas.len() as u64),
                    hold_path: held.insert(machine.uid()).then(|| "/hold".to_owned()),
                });
            }
        }
    }
    Ok(targets)
}

/// First address of a VM, without its prefix length.
fn address(machine: &VirtualMachine) -> Result<IpAddr> {
    let nics = machine
        .status
        .as_ref()
        .map(|status| status.nics.as_slice())
        .unwrap_or_default();
    let text = nics.first().and_then(|nic| nic.addresses.first());
    let text = text.with_context(|| {
        format!(
            "VM {} has no address yet; wait until it runs",
            machine.name_any()
        )
    })?;
    let address = text.split('/').next().unwrap_or_default();
    address
        .parse()
        .with_context(|| format!("VM {}: {text:?} is no address", machine.name_any()))
}

/// Starts the prober inside the lab's network. A prober that runs already is stopped first; results
/// go to the end of the same file.
///
/// # Errors
/// There is nothing to probe, or the prober does not begin to write.
pub async fn start_prober(files: &LabFiles, client: &Client) -> Result<()> {
    stop_prober(files)?;
    let targets = targets(client).await?;
    if targets.is_empty() {
        bail!(
            "no business system has an endpoint with a VM; apply the declarations first: zylab apply"
        );
    }
    let config = Config {
        interval_milliseconds: INTERVAL_MILLISECONDS,
        timeout_milliseconds: TIMEOUT_MILLISECONDS,
        targets,
    };
    config.check()?;
    let (file, results) = (files.root.join("prober.json"), results_file(files));
    write_at_once(&file, &serde_json::to_vec_pretty(&config)?)?;
    let program = zylab()?.with_file_name(PROGRAM);
    if !program.is_file() {
        bail!(
            "{}: not built; run: cargo build -p judge",
            program.display()
        );
    }
    let before = fs::metadata(&results).map_or(0, |metadata| metadata.len());
    let namespace = namespace::control(&files.name);
    Daemon {
        cgroup: &namespace::cgroup(&files.name, "control")?,
        namespace: Some(&namespace),
        log: &files.logs().join("prober.log"),
        command: vec![
            program.into(),
            "run".into(),
            "--config".into(),
            file.into(),
            "--out".into(),
            (&results).into(),
        ],
    }
    .start()?;
    wait_for("the prober's first results", PATIENCE, || {
        Ok(fs::metadata(&results).map_or(0, |metadata| metadata.len()) > before)
    })
}

/// Stops the prober, when one runs, and waits until all its results are in the file.
///
/// # Errors
/// It does not end.
pub fn stop_prober(files: &LabFiles) -> Result<()> {
    for pid in crate::host::processes(files, "control", PROGRAM)? {
        run("kill", ["-TERM", &pid.to_string()])?;
    }
    wait_for("the prober's end", PATIENCE, || {
        Ok(crate::host::processes(files, "control", PROGRAM)?.is_empty())
    })
}

/// Where the prober's results lie.
pub fn results_file(files: &LabFiles) -> PathBuf {
    files.root.join("probes.jsonl")
}

/// Judges what was probed so far within a window.
///
/// # Errors
/// The results can not be read.
pub fn judge_probes(files: &LabFiles, window: Window) -> Result<Report> {
    Ok(report::judge(&Results::read(&results_file(files))?, window))
}

/// What the prober saw from a moment until now.
///
/// # Errors
/// As [`judge_probes`].
pub fn judge_since(files: &LabFiles, from: u64) -> Result<Report> {
    judge_probes(files, Window { from, to: now() })
}

/// This moment, as the prober's results tell time: nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64
}

/// Judges every data disk against all that its guest has told the prober so far; by `NAMESPACE/VOLUME`.
///
/// # Errors
/// The API or a disk can not be read.
pub async fn judge_disks(files: &LabFiles, client: &Client) -> Result<BTreeMap<String, Verdict>> {
    // Read before the disks: what was told by now must be on them.
    let samples = match results_file(files) {
        file if file.exists() => Results::read(&file)?.samples,
        _ => Vec::new(),
    };
    let mut verdicts = BTreeMap::new();
    for (volume, path) in data_disks(files, client).await? {
        let verdict =
            judge::judge_disk(&path, &samples).with_context(|| format!("volume {volume}"))?;
        verdicts.insert(volume, verdict);
    }
    Ok(verdicts)
}

/// Files of all data volumes (those made from no image), as this machine sees them.
async fn data_disks(files: &LabFiles, client: &Client) -> Result<BTreeMap<String, PathBuf>> {
    let volumes = Api::<Volume>::all(client.clone())
        .list(&Default::default())
        .await?
        .items;
    let mut disks = BTreeMap::new();
    for volume in volumes.iter().filter(|volume| volume.spec.image.is_none()) {
        let name = format!(
            "{}/{}",
            volume.namespace().unwrap_or_default(),
            volume.name_any()
        );
        let status = volume.status.clone().unwrap_or_default();
        let file = status.reported.and_then(|reported| reported.file);
        let file =
            file.with_context(|| format!("volume {name} has no file yet; wait until it is Ready"))?;
        // A shared pool is one folder of the lab; a local one lies with its host.
        let pool = match &status.pinned_host {
            Some(host) => files.host(host).join("local"),
            None => files.shared(),
        };
        disks.insert(name, pool.join(file.trim_start_matches('/')));
    }
    Ok(disks)
}
