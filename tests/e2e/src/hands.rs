//! What people do with `zyctl` on a site that runs: move a VM, ask why it is where it is, watch the screen.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use api::VirtualMachine;
use lab::Lab;
use serde_json::Value;

use crate::command::{Following, zyctl, zyctl_command};
use crate::watch::{full_name, until, vms};

/// What `zyctl status --watch` prints before it draws the screen again.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Host of a VM that is assigned.
pub(crate) fn host_of(vm: &VirtualMachine) -> Option<&str> {
    let right = vm.status.as_ref()?.assignment.as_ref()?;
    Some(right.host.as_str())
}

/// Whether a network is a VM's first.
pub(crate) fn is_on(vm: &VirtualMachine, network: &str) -> bool {
    vm.spec.networks.first().map(String::as_str) == Some(network)
}

/// A VM of one network is moved by hand to the host of a VM of another, and the platform explains it.
///
/// # Errors
/// It was not moved there, its pause was not measured, or the explanation tells something else.
pub async fn a_vm_is_moved_by_hand(lab: &Lab, network: &str, other: &str) -> Result<()> {
    let machines = vms(&lab.client).await?;
    let (vm, target) = machines
        .iter()
        .filter(|vm| is_on(vm, network))
        .find_map(|vm| {
            let beside = machines.iter().filter(|beside| is_on(beside, other));
            let mut hosts = beside.filter_map(host_of);
            Some((vm, hosts.find(|host| Some(*host) != host_of(vm))?))
        })
        .with_context(|| format!("no VM of {network} and one of {other} on different hosts"))?;
    let name = full_name(vm);
    let text = zyctl(lab, &["migrate", &name, "--to", target, "-o", "json"])?;
    let end: Value = serde_json::from_str(&text)?;
    ensure!(
        end["phase"] == "Succeeded" && end["pauseMilliseconds"].is_i64(),
        "zyctl migrate {name}: {end:#}"
    );
    let text = zyctl(lab, &["explain", "vm", &name, "-o", "json"])?;
    let told: Value = serde_json::from_str(&text)?;
    ensure!(
        told["assignment"]["host"] == target,
        "zyctl explain vm {name} after its move to {target}: {told:#}"
    );
    let text = zyctl(lab, &["explain", "vm", &name])?;
    let decided = |line: &str| {
        let decision = line.trim_start().strip_prefix("decision: ");
        decision.is_some_and(|decision| decision.contains(&format!(" to {target}: ")))
    };
    ensure!(
        text.starts_with(&format!("{name}: "))
            && text.contains(&format!("host: {target} "))
            && text.lines().any(decided),
        "zyctl explain vm {name} after its move to {target}: {text}"
    );
    println!(
        "{name} was moved by hand to {target}, stood still {} ms, and is explained there",
        end["pauseMilliseconds"]
    );
    Ok(())
}

/// `zyctl status --watch`, running.
pub struct Screen {
    _watcher: Following,
    file: PathBuf,
}

impl Screen {
    /// Starts it.
    ///
    /// # Errors
    /// It can not be run.
    pub fn watch(lab: &Lab) -> Result<Self> {
        let file = lab.files.logs().join("status-watch.txt");
        let watcher = zyctl_command(lab)?
            .args(["status", "--watch"])
            .stdout(File::create(&file)?)
            .spawn()
            .context("zyctl")?;
        let watcher = Following(watcher);
        Ok(Self {
            _watcher: watcher,
            file,
        })
    }

    /// Waits until the screen, as it was drawn last, shows a host in one of these states.
    ///
    /// # Errors
    /// It does not.
    pub async fn shows(&self, lab: &Lab, host: &str, states: &[&str]) -> Result<()> {
        let what = format!("zyctl status --watch to show {host} as {states:?}");
        until(&lab.client, &what, async || {
            let text = std::fs::read_to_string(&self.file)?;
            let screen = text.rsplit(REDRAW).next().unwrap_or_default();
            let row = |line: &str| {
                let mut cells = line.split_whitespace();
                cells.next() == Some(host) && cells.any(|cell| states.contains(&cell))
            };
            Ok(screen.lines().any(row))
        })
        .await
        .map(drop)
    }
}
