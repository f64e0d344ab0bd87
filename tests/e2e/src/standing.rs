//! Where VMs stand by the API, and where their QEMU processes really are.

use std::collections::BTreeMap;

use anyhow::Result;
use kube::ResourceExt;
use lab::Lab;

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

/// QEMU processes of every host.
///
/// # Errors
/// A host's cgroup can not be read.
pub fn guests(lab: &Lab) -> Result<Guests> {
    lab.hosts()?
        .into_iter()
        .map(|host| {
            let mut pids = lab::host::processes(&lab.files, &host, "qemu-system-x86_64")?;
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
    let names_it = |pid: &i32| {
        // One that is just ending has none.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(uid)
    };
    Ok(guests(lab)?
        .into_values()
        .flatten()
        .filter(names_it)
        .collect())
}
