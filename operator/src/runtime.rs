//! Starts every loop and joins it: the end of an essential one ends the process.
//!
//! `hosts` decides about hosts every 100 ms; `vms` and `migrations` about VMs and moves on every
//! change and every 200 ms; `reconcile` looks after everything else twice a second; `probes`
//! watches endpoints.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use failover::freeze::Turn;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::task::JoinSet;

use crate::freeze::Freeze;
use crate::hosts::HostWatch;
use crate::incidents::Incidents;
use crate::leader::Leader;
use crate::metrics::Site;
use crate::options::Options;
use crate::planner::Planner;
use crate::probes::Probes;
use crate::reconcile::addresses::Addresses;
use crate::reconcile::hosts::Keeper;
use crate::reconcile::pools;
use crate::reconcile::rebalance::Rebalances;
use crate::store::Stores;
use crate::writer::Writer;
use crate::{freeze, health, hosts, reconcile, vms};

/// Turn of the VM loop when nothing changes.
const VM_TURN: Duration = Duration::from_millis(200);
/// Turn of the other reconcilers.
const RECONCILE_TURN: Duration = Duration::from_millis(500);

/// How long until an API server that did not answer at the start is asked again.
const START_AGAIN: Duration = Duration::from_secs(1);

/// What every loop needs.
pub struct Context {
    /// Caches.
    pub stores: Stores,
    /// The one writer.
    pub writer: Writer,
    /// What is known and decided about hosts.
    pub hosts: Mutex<HostWatch>,
    /// What probes saw.
    pub probes: Probes,
    /// The fleet as `placement` reads it, with its indexes and proofs.
    pub planner: Planner,
    /// What was last told of host pools.
    pub told: pools::Told,
    /// What is wrong with rules of VMs about one another.
    pub rules: vms::RuleNotes,
    /// What would even out pools.
    pub rebalances: Rebalances,
    /// Whether the site is frozen because etcd was restored.
    pub freeze: Freeze,
    /// Keeps hosts from going under what is assigned to them.
    pub keeper: Keeper,
    /// Addresses that were given and that the cache may not show yet.
    pub addresses: Addresses,
    /// The fault ledger.
    pub incidents: Incidents,
    /// Id of the fleet, which every claim names.
    pub fleet: String,
}

/// Runs the operator until it is told to stop, or an essential part of it ends.
///
/// # Errors
/// What made it impossible to go on.
pub async fn run(options: Options) -> Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    if options.log_json {
        logs.json().init()
    } else {
        logs.init()
    }
    let config = match &options.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer()
            .await
            .context("no kubeconfig; name one with --kubeconfig")?,
    };
    tell_expiry(&config.auth_info)?;
    let watches = wire::client::watches(config.clone())?;
    let client = wire::client::client(config)?;
    let fleet = fleet_id(&client).await;
    let identity = options
        .identity
        .clone()
        .unwrap_or_else(|| format!("operator-{}", std::process::id()));
    let leader = Arc::new(Leader::new(format!(
        "{identity}-{}",
        uuid::Uuid::new_v4().simple()
    )));
    let mut tasks = JoinSet::new();
    let stores = Stores::start(&watches, &mut tasks);
    let context = Arc::new(Context {
        writer: Writer::new(client.clone(), leader.clone()),
        hosts: Mutex::default(),
        probes: Probes::default(),
        planner: Planner::default(),
        told: pools::Told::default(),
        rules: vms::RuleNotes::default(),
        rebalances: Rebalances::default(),
        freeze: Freeze::default(),
        keeper: Keeper::default(),
        addresses: Addresses::default(),
        incidents: Incidents::default(),
        fleet,
        stores,
    });
    prometheus::register(Box::new(Site::new(context.clone())?))?;
    let ready = Arc::new(AtomicBool::new(false));
    {
        let (address, ready) = (options.metrics_address, ready.clone());
        tasks.spawn(async move {
            if let Err(error) = health::serve(address, ready).await {
                tracing::error!(error = format!("{error:#}"), "health server");
            }
            "health server"
        });
    }
    tasks.spawn(async move { leader.run(client).await });
    context.stores.ready().await;
    ready.store(true, Ordering::Release);
    tracing::info!(identity, "caches are filled");
    spawn_loops(&context, &mut tasks);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tasks.join_next() => bail!("an essential task ended: {ended:?}"),
        _ = terminate.recv() => tracing::info!("stopped on request"),
        _ = tokio::signal::ctrl_c() => tracing::info!("interrupted"),
    }
    Ok(())
}

/// Tells on `/metrics` when the operator's certificate for the API server expires, if it comes with one:
/// the one that was read now is in use until the operator is started again.
fn tell_expiry(user: &kube::config::AuthInfo) -> Result<()> {
    let gauge = prometheus::register_int_gauge_vec!(
        "zhengyun_certificate_expiry_timestamp_seconds",
        "When a certificate expires, seconds since 1970",
        &["certificate"]
    )?;
    match wire::certificate::expiry_of_user(user) {
        Ok(None) => {}
        Ok(Some(at)) => gauge.with_label_values(&["operator"]).set(at),
        Err(error) => {
            tracing::warn!(%error, "when the operator's certificate expires is not known")
        }
    }
    Ok(())
}

/// Id of the fleet: the uid of `kube-system`. An API server that is down when the operator starts is
/// waited for: a control plane that comes back needs nobody to start the operator again.
async fn fleet_id(client: &Client) -> String {
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(client.clone());
    loop {
        match namespaces.get("kube-system").await {
            Ok(namespace) => {
                if let Some(uid) = namespace.metadata.uid {
                    return uid;
                }
                tracing::error!("namespace kube-system has no uid");
            }
            Err(error) => {
                tracing::warn!(%error, "the API server can not be reached; trying again");
            }
        }
        tokio::time::sleep(START_AGAIN).await;
    }
}

fn spawn_loops(context: &Arc<Context>, tasks: &mut JoinSet<&'static str>) {
    let hosts = context.clone();
    tasks.spawn(async move { hosts::run(&hosts).await });
    let probes = context.clone();
    tasks.spawn(async move { probes.probes.run(&probes).await });
    let machines = context.clone();
    tasks.spawn(async move {
        let mut changes = machines.stores.subscribe();
        let mut memory = vms::Memory::default();
        loop {
            freeze::follow(&machines);
            if machines.writer.leads() {
                match freeze::turn(&machines).await {
                    Turn::Act => vms::turn(&machines, &mut memory).await,
                    Turn::Frozen { .. } => vms::show_frozen(&machines).await,
                    Turn::Listen => {}
                }
            } else {
                machines.planner.forget().await;
                machines.freeze.forget();
                machines.keeper.forget();
                machines.addresses.forget();
                memory.forget();
            }
            // Woken by a change or by the timer, whichever comes first.
            let _ = tokio::time::timeout(VM_TURN, changes.changed()).await;
        }
    });
    let others = context.clone();
    tasks.spawn(async move {
        loop {
            if others.writer.leads() {
                reconcile::turn(&others).await;
            } else {
                pools::measure::forget();
                others.keeper.forget();
            }
            tokio::time::sleep(RECONCILE_TURN).await;
        }
    });
}
