//! What a person at a lab does and sees: commands, VMs and where they stand, QEMU processes.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt;
use lab::Lab;

use crate::watch::vms;

/// No command of a person takes longer, seconds.
const ZYCTL_SECONDS: &str = "240";

/// Runs `zyctl` as the administrator and returns what it printed.
///
/// # Errors
/// It failed, with all that it said.
pub fn zyctl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let program = lab::process::zylab()?.with_file_name("zyctl");
    let output = Command::new("timeout")
        .arg(ZYCTL_SECONDS)
        .arg(program)
        .arg("--kubeconfig")
        .arg(lab.files.kubeconfig("admin"))
        .args(arguments)
        .output()
        .context("zyctl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "zyctl {}: {}{text}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// What is assigned: VM, epoch, host.
///
/// # Errors
/// The API can not be read.
pub async fn standing(lab: &Lab) -> Result<BTreeMap<String, (i64, String)>> {
    Ok(vms(&lab.client)
        .await?
        .iter()
        .filter_map(|vm| {
            let right = vm.status.as_ref()?.assignment.clone()?;
            Some((vm.name_any(), (right.epoch.0, right.host.to_string())))
        })
        .collect())
}

/// QEMU processes of every host.
///
/// # Errors
/// A host's cgroup can not be read.
pub fn guests(lab: &Lab) -> Result<BTreeMap<String, Vec<i32>>> {
    lab.hosts()?
        .into_iter()
        .map(|host| {
            let mut pids = lab::host::processes(&lab.files, &host, "qemu-system-x86_64")?;
            pids.sort_unstable();
            Ok((host, pids))
        })
        .collect()
}
