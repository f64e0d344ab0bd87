//! The host's report: incarnation, capacity, pools, networks, faults. Looked at once a second and when a
//! fault was raised or cleared; never written while it is the same.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api::{
    Host, HostCapacity, HostCertificate, HostNetwork, HostReport, HostStoragePool, HostVersions,
    Incarnation, MigrationLink,
};
use hypervisor::Domain;
use kube::Api;
use kube::api::{Patch, PatchParams};
use model::{Architecture, Bytes};
use serde_json::json;

use crate::agent::Context;
use crate::certificates::Expiry;
use crate::hardware_report;
use crate::hook_check;
use crate::migration;
use crate::network;
use crate::storage::folder::PoolFolder;
use crate::storage::pools::PoolProbes;

/// How often the report is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps `Host.status.reported` true.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let probes = PoolProbes::shared();
    let mut written: Option<Written> = None;
    loop {
        match gather(context, &probes).await {
            Ok(report) => {
                let host = context.view.host.state().into_iter().next();
                let stands = host.as_ref().and_then(|host| host.reported());
                if is_due(&report, stands, written.as_ref()) {
                    match write(context, &report).await {
                        Ok(kept) => written = Some(Written { report, kept }),
                        Err(error) => tracing::warn!(
                            error = format!("{error:#}"),
                            "the host's report is tried again"
                        ),
                    }
                }
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the host's report could not be made"
            ),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = hardware_report::changed() => {}
        }
    }
}

/// The last report that was written.
struct Written {
    report: HostReport,
    /// What the API made of it: with the CRDs of before it keeps no field that is new.
    kept: Option<HostReport>,
}

/// Whether a report is to be written: it is not what stands, and neither is that all that the API keeps of it.
fn is_due(report: &HostReport, stands: Option<&HostReport>, written: Option<&Written>) -> bool {
    let is_kept = |last: &Written| last.report == *report && last.kept.as_ref() == stands;
    stands != Some(report) && !written.is_some_and(is_kept)
}

/// Writes the report; what the API keeps of it.
async fn write(context: &Context, report: &HostReport) -> Result<Option<HostReport>> {
    let hosts: Api<Host> = Api::all(context.client.clone());
    // Every field is named, also what is gone: a merge keeps what it does not name.
    let patch = json!({"status": {"reported": report}});
    let host = hosts
        .patch_status(
            context.host.as_str(),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
        .context("status of the host")?;
    Ok(host.status.and_then(|status| status.reported))
}

async fn gather(context: &Arc<Context>, probes: &PoolProbes) -> Result<HostReport> {
    let hardware = hardware_report::current();
    let domains = context.hypervisor.list().await?;
    let mut stuck = context.closes.stuck();
    stuck.extend(context.departed.stuck());
    let (certificates, unread) = certificates(&context.certificates.expiries());
    let (migration_link, unknown) = migration_link(context).await?;
    let mut probe_errors = hardware.errors;
    probe_errors.extend(unread.into_iter().chain(unknown));
    let hook = hook_check::check(&[hook_check::HOOK], hook_check::BOUND).await;
    let hook_verified = hook.is_ok();
    context.alarms.set_hook(hook.err());
    let nic_addresses = mac_addresses(&context.options.hardware.sysfs_root);
    Ok(HostReport {
        incarnation: Incarnation {
            boot_id: context.boot_id.to_string(),
            system_uuid: system_uuid(context)?,
            nic_addresses: nic_addresses.clone(),
            mac_addresses: nic_addresses,
        },
        capacity: capacity(context),
        architecture: if context.node.architecture == "aarch64" {
            Architecture::aarch64
        } else {
            Architecture::x86_64
        },
        cpu_model: context.node.cpu_model.clone(),
        cpu_models: Some(context.node.cpu_models.clone()),
        domain_type: context.node.domain_type.clone(),
        vtep_address: context
            .options
            .vtep_address
            .map(|address| address.to_string()),
        migration_link,
        versions: HostVersions {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            libvirt: context.node.versions.0.clone(),
            qemu: context.node.versions.1.clone(),
        },
        hook_verified,
        starts_forbidden: context.starts_forbidden(),
        storage_pools: pools(context, probes),
        networks: networks(context).await,
        frozen: context.freezer.report(),
        faults: hardware.faults,
        probe_errors,
        certificates,
        closes_stuck: named(&domains, |domain| stuck.contains(&domain.uuid)),
        strays: named(&domains, |domain| domain.owner.is_none()),
    })
}

/// The link that moves go over, and one sentence where it can not be looked at.
async fn migration_link(context: &Context) -> Result<(Option<MigrationLink>, Option<String>)> {
    let root = context.options.hardware.sysfs_root.clone();
    let address = context.options.management_address;
    let found = tokio::task::spawn_blocking(move || migration::link::find(&root, address)).await?;
    Ok(match found {
        Ok(link) => (link, None),
        Err(why) => (None, Some(why)),
    })
}

/// Uuid and name of some domains, as many as a report holds.
fn named(domains: &[Domain], which: impl Fn(&Domain) -> bool) -> Vec<String> {
    domains
        .iter()
        .filter(|domain| which(domain))
        .take(256)
        .map(|domain| format!("{} {}", domain.uuid, domain.name))
        .collect()
}

/// When certificates expire, and one sentence for each of which that is not known.
fn certificates(expiries: &[Expiry]) -> (Vec<HostCertificate>, Vec<String>) {
    let (mut known, mut unread) = (Vec::new(), Vec::new());
    for (name, expiry) in expiries {
        let at = expiry.clone().and_then(|second| {
            jiff::Timestamp::from_second(second).map_err(|error| error.to_string())
        });
        match at {
            Ok(at) => known.push(HostCertificate {
                name: (*name).to_owned(),
                expires_at: api::Time(at),
            }),
            Err(why) => unread.push(format!("certificate {name}: {why}")),
        }
    }
    (known, unread)
}

/// Sees to every network that stands here, and says how it is.
async fn networks(context: &Context) -> Vec<HostNetwork> {
    let declared = context.view.networks.state();
    let mut reports = Vec::new();
    for object in &declared {
        // The bridge of one that collides is the other's.
        if network::admitted(object).is_err() || !network::exists(&network::bridge_name(object)) {
            continue;
        }
        let result = context.networks.ensure(object, &context.uplink).await;
        reports.push(HostNetwork {
            name: object.metadata.name.clone().unwrap_or_default(),
            ready: result.is_ok(),
            message: result.err().map(|error| error.to_string()),
        });
    }
    context.networks.keep_only(&declared);
    reports.sort_by(|one, two| one.name.cmp(&two.name));
    reports
}

fn pools(context: &Context, probes: &PoolProbes) -> Vec<HostStoragePool> {
    let now = Instant::now();
    let mut reports: Vec<_> = context
        .view
        .pools
        .state()
        .iter()
        .map(|pool| {
            probes.look(
                &pool.metadata.name.clone().unwrap_or_default(),
                &PoolFolder::of(pool),
                now,
            )
        })
        .collect();
    reports.sort_by(|one, two| one.name.cmp(&two.name));
    reports
}

fn capacity(context: &Context) -> HostCapacity {
    match &context.options.capacity {
        Some(capacity) => HostCapacity {
            cpu: capacity.cpu,
            memory: capacity.memory.to_string(),
        },
        None => HostCapacity {
            cpu: i32::try_from(context.node.cpus).unwrap_or(i32::MAX),
            memory: Bytes(context.node.memory_kib * 1024).to_string(),
        },
    }
}

fn system_uuid(context: &Context) -> Result<String> {
    let path = context
        .options
        .hardware
        .sysfs_root
        .join("class/dmi/id/product_uuid");
    Ok(std::fs::read_to_string(&path)
        .with_context(|| path.display().to_string())?
        .trim()
        .to_lowercase())
}

/// NICs that a report names at most.
const NICS_MAX: usize = 64;

/// Hardware addresses that tell this machine from others, sorted: what its NICs were made with.
fn mac_addresses(sysfs_root: &Path) -> Vec<String> {
    let mut addresses: Vec<String> = std::fs::read_dir(sysfs_root.join("class/net"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| made_with(&entry.path()))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(NICS_MAX);
    addresses
}

/// The address that a NIC was made with. None for what is no device (bridges, bonds, taps: their
/// addresses are drawn, or stand on a disk that can be cloned), for functions of another NIC, for
/// NICs on USB (a board's way to its BMC has one address on all boards of its make), and for
/// addresses that software has set.
fn made_with(nic: &Path) -> Option<String> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(nic.join(name)).ok()?;
        Some(text.trim().to_ascii_lowercase())
    };
    let device = nic.join("device");
    if !device.exists() || device.join("physfn").exists() {
        return None;
    }
    let subsystem = std::fs::read_link(device.join("subsystem"));
    if subsystem.is_ok_and(|path| path.ends_with("usb")) {
        return None;
    }
    // A member of a bond bears the bond's address.
    let own = read("bonding_slave/perm_hwaddr");
    let permanent = || {
        // NET_ADDR_PERM of linux/netdevice.h.
        let set = read("addr_assign_type").is_some_and(|kind| kind != "0");
        if set { None } else { read("address") }
    };
    own.or_else(permanent).filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_written_when_it_changed_or_does_not_stand_and_not_for_what_the_api_drops() {
        let report = |cpu: i32, link: bool| -> HostReport {
            let link = link.then(|| json!({"interface": "bond0", "speedMegabits": 25_000}));
            let value = json!({"incarnation": {"bootId": "b", "systemUuid": "u"}, "domainType": "kvm",
                "capacity": {"cpu": cpu, "memory": "8Gi"}, "architecture": "x86_64", "migrationLink": link});
            serde_json::from_value(value).expect("a report")
        };
        let (whole, pruned, other) = (report(4, true), report(4, false), report(8, true));
        let written = |kept: &HostReport| Written {
            report: whole.clone(),
            kept: Some(kept.clone()),
        };
        assert!(is_due(&whole, None, None), "the first");
        assert!(!is_due(&whole, Some(&whole), None), "it stands");
        assert!(!is_due(&whole, Some(&whole), Some(&written(&whole))));
        assert!(is_due(&other, Some(&whole), Some(&written(&whole))));
        assert!(
            is_due(&whole, Some(&other), Some(&written(&whole))),
            "undone"
        );
        assert!(!is_due(&whole, Some(&pruned), Some(&written(&pruned))));
        assert!(is_due(&other, Some(&pruned), Some(&written(&pruned))));
        assert!(is_due(&whole, None, Some(&written(&pruned))), "a new Host");
    }

    #[test]
    fn a_certificate_that_can_not_be_read_is_a_probe_that_failed() {
        let broken = Err("/etc/pki/qemu/server-cert.pem: no certificate in PEM".to_owned());
        let told = [
            ("api", Ok(1_893_456_000)),
            ("qemu-server", broken),
            ("agent", Ok(i64::MAX)),
        ];
        let (known, unread) = certificates(&told);
        let known: Vec<String> = known
            .iter()
            .map(|certificate| format!("{} {}", certificate.name, certificate.expires_at.0))
            .collect();
        assert_eq!(known, ["api 2030-01-01T00:00:00Z"]);
        assert_eq!(unread.len(), 2, "{unread:?}");
        assert!(unread[0].starts_with("certificate qemu-server: /etc/pki/qemu/server-cert.pem"));
        assert!(unread[1].starts_with("certificate agent: "));
    }

    #[test]
    fn a_machine_is_told_by_what_its_nics_were_made_with() {
        let root = tempfile::tempdir().expect("a folder");
        let nic = |name: &str, bus: Option<&str>, files: &[(&str, &str)]| {
            let folder = root.path().join("class/net").join(name);
            std::fs::create_dir_all(&folder).expect("a NIC");
            if let Some(bus) = bus {
                std::fs::create_dir_all(folder.join("device")).expect("a device");
                let subsystem = folder.join("device/subsystem");
                std::os::unix::fs::symlink(format!("../../bus/{bus}"), subsystem).expect("a bus");
            }
            for (file, text) in files {
                let path = folder.join(file);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                std::fs::write(path, format!("{text}\n")).expect("a file");
            }
        };
        let pci = Some("pci");
        nic(
            "eth1",
            pci,
            &[("address", "0C:C4:7A:00:00:02"), ("addr_assign_type", "0")],
        );
        nic("eth0", pci, &[("address", "0c:c4:7a:00:00:01")]);
        let bonded = ("bonding_slave/perm_hwaddr", "0c:c4:7a:00:00:03");
        nic(
            "eth2",
            pci,
            &[
                ("address", "0c:c4:7a:00:00:01"),
                ("addr_assign_type", "3"),
                bonded,
            ],
        );
        nic("bond0", None, &[("address", "0c:c4:7a:00:00:01")]);
        nic("virbr0", None, &[("address", "52:54:00:00:00:01")]);
        nic("usb0", Some("usb"), &[("address", "0c:c4:7a:00:00:99")]);
        nic(
            "eth3",
            pci,
            &[("address", "0c:c4:7a:00:00:98"), ("addr_assign_type", "3")],
        );
        nic(
            "eth4",
            pci,
            &[
                ("address", "0c:c4:7a:00:00:97"),
                ("device/physfn/vendor", "0x8086"),
            ],
        );
        nic("eth5", pci, &[]);
        assert_eq!(
            mac_addresses(root.path()),
            [
                "0c:c4:7a:00:00:01",
                "0c:c4:7a:00:00:02",
                "0c:c4:7a:00:00:03"
            ]
        );
        assert!(mac_addresses(&root.path().join("nowhere")).is_empty());
    }
}
