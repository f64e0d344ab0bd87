//! The host's report: incarnation, capacity, pools, networks, faults. Looked at once a second and when a
//! fault was raised or cleared; never written while it is the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api::{
    Host, HostCapacity, HostCertificate, HostNetwork, HostReport, HostStoragePool, HostVersions,
    Incarnation,
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
use crate::network;
use crate::storage::pools::PoolProbes;

/// How often the report is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps `Host.status.reported` true.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let probes = PoolProbes::shared();
    let mut written: Option<HostReport> = None;
    loop {
        match gather(context, &probes).await {
            Ok(report) => {
                let stands = context
                    .view
                    .host
                    .state()
                    .first()
                    .and_then(|host| host.status.clone()?.reported);
                if stands.as_ref() != Some(&report)
                    && written
                        .as_ref()
                        .is_none_or(|last| *last != report || stands != written)
                {
                    match write(context, &report).await {
                        Ok(()) => written = Some(report),
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

async fn write(context: &Context, report: &HostReport) -> Result<()> {
    let hosts: Api<Host> = Api::all(context.client.clone());
    // Every field is named, also what is gone: a merge keeps what it does not name.
    let patch = json!({"status": {"reported": report}});
    hosts
        .patch_status(
            context.host.as_str(),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
        .context("status of the host")?;
    Ok(())
}

async fn gather(context: &Arc<Context>, probes: &PoolProbes) -> Result<HostReport> {
    let hardware = hardware_report::current();
    let domains = context.hypervisor.list().await?;
    let mut stuck = context.closes.stuck();
    stuck.extend(context.departed.stuck());
    let (certificates, unread) = certificates(&context.certificates.expiries());
    let mut probe_errors = hardware.errors;
    probe_errors.extend(unread);
    let hook = hook_check::check(&[hook_check::HOOK], hook_check::BOUND).await;
    let hook_verified = hook.is_ok();
    context.alarms.set_hook(hook.err());
    Ok(HostReport {
        incarnation: Incarnation {
            boot_id: context.boot_id.to_string(),
            system_uuid: system_uuid(context)?,
            mac_addresses: mac_addresses(context),
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
                std::path::Path::new(&pool.spec.path),
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

/// Hardware addresses of NICs that are devices, not bridges, taps or tunnels.
fn mac_addresses(context: &Context) -> Vec<String> {
    let folder = context.options.hardware.sysfs_root.join("class/net");
    let mut addresses: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            ["lo", "zy", "vnet", "br", "vx"]
                .iter()
                .all(|prefix| !entry.file_name().to_string_lossy().starts_with(prefix))
        })
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("address")).ok())
        .map(|address| address.trim().to_owned())
        .collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
