//! Where VMs stand by the API, and where their QEMU processes really are.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use lab::{Lab, judges};

use crate::watch::vms;

/// What is assigned: VM, epoch, host.
pub type Standing = BTreeMap<String, (i64, String)>;

/// What is assigned now.
///
/// # Errors
/// The API can not be read.
pub async fn standing(lab: &Lab) -> Result<Standing> {
    Ok(vms(&lab.client)
        .await?
        .iter()
        .filter_map(|vm| {
            let right = vm.status.as_ref()?.assignment.clone()?;
            Some((vm.name_any(), (right.epoch.0, right.host.to_string())))
        })
        .collect())
}

/// QEMU processes by host.
pub type Guests = BTreeMap<String, Vec<i32>>;

/// The command line of a process; one that is just ending has none.
fn command_line(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

/// QEMU processes of every host.
///
/// # Errors
/// A host's cgroup can not be read.
pub fn guests(lab: &Lab) -> Result<Guests> {
    lab.hosts()?
        .into_iter()
        .map(|host| {
            let mut pids = lab::host::processes(&lab.files, &host, "qemu-system-x86_64")?;
            // A libvirtd that begins runs some for a moment, to ask what they can do; they are no guests.
            pids.retain(|pid| command_line(*pid).contains("guest="));
            pids.sort_unstable();
            Ok((host, pids))
        })
        .collect()
}

/// The QEMU processes of one VM, which its uid names, on whatever hosts.
///
/// # Errors
/// A host's cgroup can not be read.
pub fn processes_of(lab: &Lab, uid: &str) -> Result<Vec<i32>> {
    let names_it = |pid: &i32| command_line(*pid).contains(uid);
    Ok(guests(lab)?
        .into_values()
        .flatten()
        .filter(names_it)
        .collect())
}

/// Stops the prober; every guest's own account and every data disk must be without a problem.
///
/// # Errors
/// Names the guest or volume and what the judges found.
pub async fn nothing_was_lost(lab: &Lab) -> Result<()> {
    judges::stop_prober(&lab.files)?;
    let report = judges::judge_probes(&lab.files, judge::report::Window::ALL)?;
    for (guest, witness) in &report.guests {
        let problems = &witness.problems;
        ensure!(problems.is_empty(), "{guest}: {problems:?}");
    }
    for (volume, verdict) in judges::judge_disks(&lab.files, &lab.client).await? {
        ensure!(verdict.is_clean(), "{volume}: {:?}", verdict.problems);
    }
    Ok(())
}
