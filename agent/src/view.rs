//! What the agent knows of the API: caches kept by watches, narrowed to this host where the
//! API server can. A cache tells what to look at; a start is decided by a fresh read.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{
    Anew, CloudPolicy, Host, Image, Network, StoragePool, VirtualMachine, VirtualMachineMigration,
    Volume,
};
use futures::{FutureExt, StreamExt};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Caches of one host's agent.
#[derive(Clone)]
pub struct View {
    /// VMs assigned here.
    pub assigned: Store<VirtualMachine>,
    /// VMs on their way here.
    pub incoming: Store<VirtualMachine>,
    /// Volumes whose job is ours.
    pub volumes: Store<Volume>,
    /// Migrations that leave here.
    pub leaving: Store<VirtualMachineMigration>,
    /// Migrations that come here.
    pub arriving: Store<VirtualMachineMigration>,
    /// This host.
    pub host: Store<Host>,
    /// All hosts' networks, pools, images, policy.
    pub networks: Store<Network>,
    /// Storage pools.
    pub pools: Store<StoragePool>,
    /// Images.
    pub images: Store<Image>,
    /// The policy.
    pub policies: Store<CloudPolicy>,
    /// Woken by every change.
    pub changed: Arc<Notify>,
    interrupted: Arc<AtomicBool>,
    anew: Anew,
}

impl View {
    /// Starts the watches; their tasks end only with an error of the program.
    pub fn start(client: &Client, host: &str, tasks: &mut JoinSet<&'static str>) -> Self {
        let changed = Arc::new(Notify::new());
        let (interrupted, anew) = (Arc::new(AtomicBool::new(false)), Anew::default());
        let here = |field: &str| watcher::Config::default().fields(&format!("{field}={host}"));
        let mut watch = Watch {
            client,
            anew: anew.clone(),
            changed: changed.clone(),
            interrupted: interrupted.clone(),
            tasks,
        };
        Self {
            assigned: watch.start("assigned VMs", here("status.assignment.host")),
            incoming: watch.start("incoming VMs", here("status.incoming.host")),
            volumes: watch.start("volume jobs", here("status.job.host")),
            leaving: watch.start("leaving migrations", here("status.sourceAssignment.host")),
            arriving: watch.start("arriving migrations", here("status.targetAssignment.host")),
            host: watch.start("host", here("metadata.name")),
            networks: watch.start("networks", watcher::Config::default()),
            pools: watch.start("storage pools", watcher::Config::default()),
            images: watch.start("images", watcher::Config::default()),
            policies: watch.start("policy", watcher::Config::default()),
            changed,
            interrupted,
            anew,
        }
    }

    /// Begins every watch anew: etcd was restored, and none is told anything at the versions that it
    /// goes on from.
    pub fn begin_anew(&self) {
        self.anew.begin();
    }

    /// Whether a watch was interrupted since this was last asked.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted.swap(false, Ordering::AcqRel)
    }

    /// Whether the policy says that the site is frozen.
    pub fn site_frozen(&self) -> bool {
        let policies = self.policies.state();
        let status = policies.first().and_then(|policy| policy.status.as_ref());
        status.is_some_and(|status| status.frozen.is_some())
    }

    /// The site's policy, or its defaults.
    pub fn policy(&self) -> api::CloudPolicySpec {
        self.policies
            .state()
            .first()
            .map(|policy| policy.spec.clone())
            .unwrap_or_default()
    }

    /// The site's policies, of which there is one or none; nothing until the API server has told once.
    pub fn known_policies(&self) -> Option<Vec<Arc<CloudPolicy>>> {
        self.policies.wait_until_ready().now_or_never()?.ok()?;
        Some(self.policies.state())
    }

    /// A storage pool by name.
    pub fn pool(&self, name: &str) -> Option<Arc<StoragePool>> {
        self.pools.get(&reflector::ObjectRef::new(name))
    }

    /// An image by name.
    pub fn image(&self, name: &str) -> Option<Arc<Image>> {
        self.images.get(&reflector::ObjectRef::new(name))
    }

    /// A network by name.
    pub fn network(&self, name: &str) -> Option<Arc<Network>> {
        self.networks.get(&reflector::ObjectRef::new(name))
    }
}

struct Watch<'a> {
    client: &'a Client,
    anew: Anew,
    changed: Arc<Notify>,
    interrupted: Arc<AtomicBool>,
    tasks: &'a mut JoinSet<&'static str>,
}

impl Watch<'_> {
    fn start<K>(&mut self, name: &'static str, config: watcher::Config) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Hash + Eq + Clone,
    {
        let (store, writer) = reflector::store();
        let stream = api::watch_anew(Api::<K>::all(self.client.clone()), config, &self.anew);
        let stream = StreamBackoff::new(stream, api::watch_backoff());
        let mut stream = reflector::reflector(writer, stream).boxed();
        let (changed, interrupted) = (self.changed.clone(), self.interrupted.clone());
        self.tasks.spawn(async move {
            while let Some(event) = stream.next().await {
                match event {
                    Ok(_) => changed.notify_one(),
                    Err(error) => {
                        interrupted.store(true, Ordering::Release);
                        tracing::warn!(watch = name, %error, "the watch was interrupted");
                    }
                }
            }
            name
        });
        store
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    /// What kube's watcher adds before it takes a watch that says nothing for dead.
    const MARGIN: Duration = Duration::from_secs(5);

    #[test]
    fn a_watch_that_nothing_happens_to_ends_before_its_connection_counts_as_dead() {
        let stands = Duration::from_secs(api::WATCH_SECONDS.into()) + MARGIN;
        assert!(stands < wire::client::SILENCE_OF_WATCHES);
    }
}
