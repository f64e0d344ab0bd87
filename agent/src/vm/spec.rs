//! How a VM's domain looks on this host, from the API's objects; and whether every claim of
//! its volumes allows it to run here. Pure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Image, StoragePool, VirtualMachine, Volume};
use hypervisor::{DirectBoot, DiskSpec, DomainSpec, NicSpec, Owner};
use model::{Assignment, Bytes, ClaimHolder};
use thiserror::Error;
use uuid::Uuid;

use crate::network::tap_name;
use crate::storage::{format_name, image_file, seed_file, volume_file};

/// Longest name of a domain, in bytes, before the uid's first digits.
const NAME_BYTES_MAX: usize = 60;

/// Why a VM can not be run here, now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A volume is not there or not ready.
    #[error("volume {0} is not ready")]
    VolumeNotReady(String),
    /// A claim is absent, another one's, or for another epoch.
    #[error("volume {volume} is not claimed for this start: {why}")]
    Claim {
        /// The volume.
        volume: String,
        /// What stands there instead.
        why: String,
    },
    /// Something that it names does not exist.
    #[error("{kind} {name} does not exist")]
    Missing {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
    },
    /// The object makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// What a domain is made from.
pub struct Parts<'a> {
    /// The VM, freshly read.
    pub vm: &'a VirtualMachine,
    /// The right to run it.
    pub assignment: &'a Assignment,
    /// Its volumes, freshly read, in the order of its disks.
    pub volumes: &'a [Volume],
    /// Their pools, in the same order.
    pub pools: &'a [Arc<StoragePool>],
    /// Its image.
    pub image: &'a Image,
    /// Bridges and packet sizes of its NICs, in order.
    pub bridges: &'a [(String, i32)],
    /// `kvm` or `qemu`.
    pub domain_type: &'a str,
    /// Folder for serial consoles.
    pub console_folder: &'a Path,
}

/// Which claim of a volume must name the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// `status.claim`, for a start.
    Current,
    /// `status.incomingClaim`, for an arrival; `status.claim` is the VM's own.
    Incoming,
}

/// Checks that every volume is claimed by this VM for exactly this right.
///
/// # Errors
/// Names the first volume whose claim does not fit.
pub fn check_claims(
    vm_uid: &str,
    assignment: &Assignment,
    volumes: &[Volume],
    kind: ClaimKind,
) -> Result<(), SpecError> {
    for volume in volumes {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let status = volume.status.clone().unwrap_or_default();
        let held = status.claim.as_ref();
        let held = held.filter(|claim| claim.holder == ClaimHolder::VirtualMachine);
        let own = held.is_some_and(|claim| claim.uid == vm_uid);
        let claim = match kind {
            ClaimKind::Current => status.claim,
            // Who receives a volume that another one holds would be its second writer.
            ClaimKind::Incoming if !own => status.claim,
            ClaimKind::Incoming => status.incoming_claim,
        };
        let why = match claim {
            None => "it has no claim".to_owned(),
            Some(claim) if claim.holder != ClaimHolder::VirtualMachine => {
                "a job holds it".to_owned()
            }
            Some(claim) if claim.uid != vm_uid => format!("VM {} holds it", claim.uid),
            Some(claim) if claim.assignment != *assignment => {
                format!(
                    "it is claimed for host {} epoch {}",
                    claim.assignment.host, claim.assignment.epoch
                )
            }
            Some(_) => continue,
        };
        return Err(SpecError::Claim { volume: name, why });
    }
    Ok(())
}

/// The domain's name: readable, and unique even when a VM is deleted and made again.
pub fn domain_name(namespace: &str, name: &str, uid: &str) -> String {
    let mut text = format!("{namespace}.{name}");
    while text.len() > NAME_BYTES_MAX {
        text.pop();
    }
    format!("{text}.{}", uid.get(..8).unwrap_or(uid))
}

/// Builds the domain.
///
/// # Errors
/// See [`SpecError`].
pub fn build(parts: &Parts<'_>) -> Result<DomainSpec, SpecError> {
    let vm = parts.vm;
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    let (namespace, name) = (
        vm.metadata.namespace.clone().unwrap_or_default(),
        vm.metadata.name.clone().unwrap_or_default(),
    );
    let memory = Bytes::parse(&vm.spec.memory)
        .map_err(|error| SpecError::Invalid(format!("spec.memory: {error}")))?;
    let system_pool = parts
        .pools
        .first()
        .map(|pool| PathBuf::from(&pool.spec.path))
        .ok_or_else(|| SpecError::Invalid("spec.disks: the VM has none".to_owned()))?;
    let status = vm.status.clone().unwrap_or_default();
    let nics =
        status
            .nics
            .iter()
            .zip(parts.bridges)
            .enumerate()
            .map(|(index, (nic, (bridge, mtu)))| NicSpec {
                bridge: bridge.clone(),
                mac_address: nic.mac_address.clone(),
                device: tap_name(&uid, index),
                mtu: u32::try_from(*mtu).unwrap_or(1450),
            });
    let nics: Vec<_> = nics.collect();
    if nics.len() != vm.spec.networks.len() {
        return Err(SpecError::Invalid(format!(
            "status.nics has {} addresses for {} networks",
            nics.len(),
            vm.spec.networks.len()
        )));
    }
    Ok(DomainSpec {
        uuid: Uuid::parse_str(&uid)
            .map_err(|_| SpecError::Invalid(format!("metadata.uid {uid:?} is no UUID")))?,
        name: domain_name(&namespace, &name, &uid),
        cpus: u32::try_from(vm.spec.cpu).unwrap_or(1),
        memory_kib: memory.0 / 1024,
        domain_type: parts.domain_type.to_owned(),
        architecture: parts.image.spec.architecture.to_string(),
        cpu_model: status.cpu_model.clone(),
        boot: boot(parts.image, &system_pool),
        disks: disks(parts, &uid, &system_pool)?,
        nics,
        console_log: Some(parts.console_folder.join(format!("{uid}.log"))),
        owner: Owner {
            vm: uid.into(),
            namespace,
            name,
            boot_id: parts.assignment.boot_id.clone(),
            epoch: parts.assignment.epoch,
        },
    })
}

fn boot(image: &Image, pool: &Path) -> Option<DirectBoot> {
    let kernel = image.spec.kernel.as_ref()?;
    Some(DirectBoot {
        kernel: image_file(pool, &kernel.sha256),
        initrd: image
            .spec
            .initrd
            .as_ref()
            .map(|initrd| image_file(pool, &initrd.sha256)),
        command_line: image.spec.kernel_command_line.clone().unwrap_or_default(),
    })
}

fn disks(parts: &Parts<'_>, uid: &str, system_pool: &Path) -> Result<Vec<DiskSpec>, SpecError> {
    let mut disks = Vec::new();
    for ((disk, volume), pool) in parts
        .vm
        .spec
        .disks
        .iter()
        .zip(parts.volumes)
        .zip(parts.pools)
    {
        let volume_uid = volume.metadata.uid.as_deref().unwrap_or_default();
        if volume
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            != Some("Ready")
        {
            return Err(SpecError::VolumeNotReady(disk.volume.clone()));
        }
        disks.push(DiskSpec {
            file: volume_file(Path::new(&pool.spec.path), volume_uid, volume.spec.format),
            format: format_name(volume.spec.format),
            serial: disk.name.clone(),
            read_only: false,
        });
    }
    disks.push(DiskSpec {
        file: seed_file(system_pool, uid),
        format: "raw",
        serial: "cidata".to_owned(),
        read_only: true,
    });
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Claim, Epoch};

    fn right(host: &str, epoch: i64) -> Assignment {
        Assignment {
            host: host.into(),
            boot_id: "b".into(),
            epoch: Epoch(epoch),
        }
    }

    fn volume(claim: Option<(ClaimHolder, &str, Assignment)>) -> Volume {
        let mut volume = Volume::new(
            "v",
            serde_json::from_value(serde_json::json!({"pool": "p", "size": "1Gi"})).expect("spec"),
        );
        let claim = claim.map(|(holder, uid, assignment)| Claim {
            fleet: "f".into(),
            holder,
            uid: uid.into(),
            assignment,
        });
        volume.status = Some(api::VolumeStatus {
            claim,
            ..Default::default()
        });
        volume
    }

    #[test]
    fn a_start_needs_every_claim_for_exactly_this_right() {
        use ClaimHolder::{Job, VirtualMachine};
        let own = right("h1", 3);
        let check = |claim| check_claims("u", &own, &[volume(claim)], ClaimKind::Current);
        check(Some((VirtualMachine, "u", own.clone()))).expect("ours");
        for (claim, part) in [
            (None, "no claim"),
            (Some((Job, "u", own.clone())), "a job holds it"),
            (Some((VirtualMachine, "w", own.clone())), "VM w holds it"),
            (Some((VirtualMachine, "u", right("h2", 3))), "host h2"),
            (Some((VirtualMachine, "u", right("h1", 2))), "epoch 2"),
            (Some((VirtualMachine, "u", right("h1", 4))), "epoch 4"),
        ] {
            let error = check(claim).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let current_only = volume(Some((VirtualMachine, "u", own.clone())));
        check_claims("u", &own, &[current_only], ClaimKind::Incoming)
            .expect_err("an arrival needs its own claim");
        // Claimed for the arrival, and held by who runs on it.
        let (mine, other) = (right("h1", 3), right("h9", 1));
        let mut anothers = volume(Some((VirtualMachine, "w", other.clone())));
        let mut own_held = volume(Some((VirtualMachine, "u", other)));
        for volume in [&mut anothers, &mut own_held] {
            let incoming = Claim {
                fleet: "f".to_owned(),
                holder: VirtualMachine,
                uid: "u".to_owned(),
                assignment: mine.clone(),
            };
            let status = volume.status.get_or_insert_default();
            status.incoming_claim = Some(incoming);
        }
        let arrives = |volume| check_claims("u", &mine, &[volume], ClaimKind::Incoming);
        let error = arrives(anothers).expect_err("VM w runs on it").to_string();
        assert!(error.contains("VM w holds it"), "{error}");
        arrives(own_held).expect("its own");
    }

    #[test]
    fn names_of_domains_stay_short_and_unique() {
        let long = "n".repeat(80);
        assert!(domain_name(&long, "v", "0123456789").len() <= 70);
        assert_ne!(
            domain_name("n", "v", "01234567-a"),
            domain_name("n", "v", "11234567-a")
        );
    }
}
