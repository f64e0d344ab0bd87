//! What a domain needs before it can be: claims beside its data, image, networks and seed; and its description from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::{StoragePool, VirtualMachine, Volume};
use hypervisor::DomainSpec;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use model::Assignment;

use super::claiming::Wanted;
use super::spec::{self, ClaimKind, Parts, SpecError};
use super::worker::VmRef;
use crate::agent::Context;
use crate::network;
use crate::storage::folder::PoolFolder;
use crate::storage::{claims, image_file, images, seed};

/// How long either side of a move may prepare: as long as a connection to the API server may be silent, and many times
/// what a pool takes that answers. Until then a cancelled move is not looked at, and the operator waits for this side.
pub const MOVE_WITHIN: Duration = Duration::from_secs(30);

/// Makes everything ready that a domain needs and describes the domain; within this time, as a pool that hangs may
/// never answer. What is given up changes nothing later: claims that nobody waits for are not written any more, the
/// seed and the networks are made anew by every start, and the epoch was not used.
///
/// # Errors
/// What is missing, or that it was not ready in time; nothing was used up.
pub async fn prepare(
    context: &Arc<Context>,
    vm: &VmRef,
    fresh: &VirtualMachine,
    assignment: &Assignment,
    claims: ClaimKind,
    bound: Duration,
) -> Result<DomainSpec> {
    let prepared = gather(context, vm, fresh, assignment, claims);
    match tokio::time::timeout(bound, prepared).await {
        Ok(prepared) => prepared,
        Err(_) => bail!(
            "claims beside its data, image, networks and seed were not ready within {} s: a storage pool hangs, or the API server; see status.reported.storagePools of Host {}",
            bound.as_secs(),
            context.host
        ),
    }
}

async fn gather(
    context: &Arc<Context>,
    vm: &VmRef,
    fresh: &VirtualMachine,
    assignment: &Assignment,
    claims: ClaimKind,
) -> Result<DomainSpec> {
    let volumes = read_volumes(context, fresh).await?;
    spec::check_claims(&vm.uid, assignment, &volumes, claims)?;
    let pools = volumes
        .iter()
        .map(|volume| pool(context, &volume.spec.pool))
        .collect::<Result<Vec<_>>>()?;
    let missing = |kind, name: &str| SpecError::Missing {
        kind,
        name: name.to_owned(),
    };
    claim_beside(context, vm, &volumes, &pools, claims).await?;
    let image = context
        .view
        .image(&fresh.spec.image)
        .ok_or_else(|| missing("Image", &fresh.spec.image))?;
    let system_pool = std::path::PathBuf::from(
        &pools
            .first()
            .context("spec.disks: the VM has none")?
            .spec
            .path,
    );
    check_image(context, &image, &system_pool).await?;
    let mut bridges = Vec::new();
    for name in &fresh.spec.networks {
        let network = context
            .view
            .network(name)
            .ok_or_else(|| missing("Network", name))?;
        context.networks.ensure(&network, &context.uplink).await?;
        bridges.push((network::bridge_name(&network), network.spec.mtu));
    }
    if claims == ClaimKind::Current {
        make_seed(context, vm, &system_pool).await?;
    }
    let parts = Parts {
        vm: fresh,
        assignment,
        volumes: &volumes,
        pools: &pools,
        image: &image,
        bridges: &bridges,
        domain_type: &context.node.domain_type,
        console_folder: &context.console_folder,
    };
    Ok(spec::build(&parts)?)
}

/// Writes the claims beside the data, in order of uid; a pool that hangs holds up its own thread.
async fn claim_beside(
    context: &Context,
    vm: &VmRef,
    volumes: &[Volume],
    pools: &[Arc<StoragePool>],
    kind: ClaimKind,
) -> Result<()> {
    let mut wanted = Vec::new();
    for (volume, pool) in volumes.iter().zip(pools) {
        let status = volume.status.clone().unwrap_or_default();
        let claim = match kind {
            ClaimKind::Current => status.claim,
            ClaimKind::Incoming => status.incoming_claim,
        };
        let uid = volume.metadata.uid.clone().unwrap_or_default();
        let folder = PoolFolder::of(pool);
        wanted.extend(claim.map(|claim| (uid, folder, claim)));
    }
    wanted.sort_by(|one, two| one.0.cmp(&two.0));
    let write = move |waits: &Wanted| {
        wanted.iter().try_for_each(|(uid, folder, claim)| {
            claims::write_while(folder, uid, claim, || waits.is_wanted())
        })
    };
    context.claiming.run(&vm.uid, write).await
}

/// A storage pool as the cache has it.
///
/// # Errors
/// It does not exist.
pub(super) fn pool(context: &Context, name: &str) -> Result<Arc<StoragePool>> {
    context
        .view
        .pool(name)
        .with_context(|| format!("StoragePool {name} does not exist"))
}

/// The volumes of a VM, in the order of its disks, as the API server holds them now.
///
/// # Errors
/// One can not be read.
pub(super) async fn read_volumes(context: &Context, vm: &VirtualMachine) -> Result<Vec<Volume>> {
    let namespace = vm.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Volume> = Api::namespaced(context.client.clone(), &namespace);
    let reads = vm.spec.disks.iter().map(|disk| api.get(&disk.volume));
    futures::future::try_join_all(reads)
        .await
        .context("volumes")
}

/// The files of direct boot are checked before each use; hashing runs on a thread of its own.
async fn check_image(
    context: &Arc<Context>,
    image: &api::Image,
    pool: &std::path::Path,
) -> Result<()> {
    let files: Vec<_> = images::files(&image.spec)
        .into_iter()
        .skip(1)
        .map(|file| (image_file(pool, &file.sha256), file.sha256.clone()))
        .collect();
    let context = context.clone();
    tokio::task::spawn_blocking(move || {
        files
            .iter()
            .try_for_each(|(path, sha256)| context.checked.check(path, sha256))
    })
    .await??;
    Ok(())
}

async fn make_seed(context: &Context, vm: &VmRef, pool: &std::path::Path) -> Result<()> {
    let namespace = api::names::host_namespace(context.host.as_str());
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let secret = secrets
        .get(&api::names::seed_secret_name(&vm.uid))
        .await
        .context("seed of the VM")?;
    let content: BTreeMap<String, Vec<u8>> = secret
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect();
    seed::make(pool, &context.options.run_dir, &vm.uid, &content).await?;
    Ok(())
}
