//! What is seen of a site while faults strike: where guests have processes, what VMs are assigned to.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use api::VirtualMachine;
use judge::history::Entry;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::Record;
use crate::files::LabFiles;
use crate::host::processes;
use crate::judges::now;
use crate::lifecycle::hosts;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(400);
const QEMU: &str = "qemu-system-x86_64";

/// Looks until it is dropped; what changes goes to the history.
pub async fn follow(files: LabFiles, client: Client, record: Record) {
    let mut copies = BTreeMap::new();
    let mut rights = BTreeMap::new();
    let mut blind = false;
    loop {
        let seen = look(&files, &client, &record, &mut copies, &mut rights).await;
        // The API server may be down just now, by a fault; that is told once.
        if let Err(error) = &seen
            && !blind
        {
            record.note(&format!("the API is not seen: {error:#}"));
        }
        blind = seen.is_err();
        tokio::time::sleep(LOOK).await;
    }
}

type Copies = BTreeMap<String, Vec<String>>;
type Rights = BTreeMap<String, (i64, String, String)>;

async fn look(
    files: &LabFiles,
    client: &Client,
    record: &Record,
    copies: &mut Copies,
    rights: &mut Rights,
) -> Result<()> {
    let at = now();
    let seen = guests(files)?;
    if seen != *copies {
        record.write(&Entry::Copies {
            at,
            guests: seen.clone(),
        })?;
        *copies = seen;
    }
    let (api, everything) = (
        Api::<VirtualMachine>::all(client.clone()),
        ListParams::default(),
    );
    let machines = tokio::time::timeout(Duration::from_secs(2), api.list(&everything))
        .await
        .context("the API server does not answer")??;
    for vm in machines.items {
        let Some(right) = vm.status.as_ref().and_then(|s| s.assignment.clone()) else {
            continue;
        };
        let now = (
            right.epoch.0,
            right.host.to_string(),
            right.boot_id.to_string(),
        );
        if rights.insert(vm.name_any(), now.clone()).as_ref() != Some(&now) {
            record.write(&Entry::Right {
                at,
                guest: vm.name_any(),
                epoch: now.0,
                host: now.1,
                boot_id: now.2,
            })?;
        }
    }
    Ok(())
}

/// Hosts by guest, from QEMU's own command lines.
fn guests(files: &LabFiles) -> Result<Copies> {
    let mut copies = Copies::new();
    for host in hosts(files)? {
        for pid in processes(files, &host, QEMU)? {
            let file = PathBuf::from(format!("/proc/{pid}/cmdline"));
            // It may have ended since it was listed.
            let line = fs::read(file).unwrap_or_default();
            if let Some(guest) = guest_name(&line) {
                copies.entry(guest).or_default().push(host.clone());
            }
        }
    }
    Ok(copies)
}

/// The guest of a QEMU command line: libvirt names it `guest=NAMESPACE.NAME.UID,…`.
fn guest_name(line: &[u8]) -> Option<String> {
    let words = line.split(|byte| *byte == 0);
    let domain = words
        .filter_map(|word| std::str::from_utf8(word).ok())
        .find_map(|word| word.strip_prefix("guest="))?;
    let domain = domain.split(',').next()?;
    Some(domain.split('.').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_stands_in_the_command_line() {
        let line = b"/usr/bin/qemu\0-name\0guest=egov.oa-web-0.1234abcd,debug-threads=on\0-S\0";
        assert_eq!(guest_name(line).as_deref(), Some("oa-web-0"));
        assert_eq!(guest_name(b"/usr/bin/qemu\0-version\0"), None);
    }
}
