//! Caches of everything that the operator decides from, kept by watches, and when each Lease
//! was seen to change on this observer's clock.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::names::SYSTEM_NAMESPACE;
use api::{
    Anew, BusinessSystem, CloudPolicy, Department, Flavor, Host, HostPool, Image, Incident,
    Network, StoragePool, VirtualMachine, VirtualMachineMigration, Volume,
};
use failover::Moment;
use failover::guard::NotArmed;
use failover::guard::heartbeats::{HeartbeatReport, Heartbeats};
use failover::proof::self_fence::GuardRegistration;
use failover::signs::Sign;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use model::BootId;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;

/// What is known of a host's Lease.
#[derive(Clone, Debug)]
pub struct Renewals {
    /// How often and when it was seen to change.
    pub sign: Sign,
    /// The incarnation that renews it.
    pub boot_id: Option<BootId>,
    /// Since when this observer has seen that incarnation renew it.
    pub boot_seen: Moment,
    /// Age of the agent's loop, milliseconds; [`api::names::LEASE_LOOP_NEVER`]: not seen in this boot.
    pub loop_age: Option<u64>,
    /// When it was last renewed, by the guard's clock: compared for equality only.
    pub renewed: Option<jiff::Timestamp>,
    /// What the guard registered as in force.
    pub guard: GuardRegistration,
    /// Why the guard is not armed.
    pub not_armed: Option<NotArmed>,
    /// What the host remembers of the API, and the version of the Lease that told it.
    pub api_seen: Option<(String, u64)>,
}

/// Caches of every kind.
#[derive(Clone)]
pub struct Stores {
    /// Hosts.
    pub hosts: Store<Host>,
    /// Host pools.
    pub host_pools: Store<HostPool>,
    /// Storage pools.
    pub storage_pools: Store<StoragePool>,
    /// Networks.
    pub networks: Store<Network>,
    /// Images.
    pub images: Store<Image>,
    /// Flavors.
    pub flavors: Store<Flavor>,
    /// Departments.
    pub departments: Store<Department>,
    /// The policy.
    pub policies: Store<CloudPolicy>,
    /// Incidents.
    pub incidents: Store<Incident>,
    /// Business systems.
    pub systems: Store<BusinessSystem>,
    /// VMs.
    pub vms: Store<VirtualMachine>,
    /// Volumes.
    pub volumes: Store<Volume>,
    /// Migrations.
    pub migrations: Store<VirtualMachineMigration>,
    renewals: Arc<Mutex<BTreeMap<String, Renewals>>>,
    heartbeats: Arc<Mutex<Heartbeats>>,
    changed: watch::Sender<u64>,
    went_back: Arc<AtomicBool>,
    anew: Anew,
}

impl Stores {
    /// Starts the watches; their tasks end only with an error of the program.
    pub fn start(client: &Client, tasks: &mut JoinSet<&'static str>) -> Self {
        let (changed, _) = watch::channel(0);
        let renewals = Arc::new(Mutex::new(BTreeMap::new()));
        let heartbeats = Arc::new(Mutex::new(Heartbeats::default()));
        let anew = Anew::default();
        watch_leases(client, &anew, renewals.clone(), heartbeats.clone(), tasks);
        let went_back = Arc::new(AtomicBool::new(false));
        let mut start = Start {
            client,
            anew: anew.clone(),
            went_back: went_back.clone(),
            changed: changed.clone(),
            tasks,
        };
        Self {
            hosts: start.watch("hosts"),
            host_pools: start.watch("host pools"),
            storage_pools: start.watch("storage pools"),
            networks: start.watch("networks"),
            images: start.watch("images"),
            flavors: start.watch("flavors"),
            departments: start.watch("departments"),
            policies: start.watch("policy"),
            incidents: start.watch("incidents"),
            systems: start.watch("business systems"),
            vms: start.watch("VMs"),
            volumes: start.watch("volumes"),
            migrations: start.watch("migrations"),
            renewals,
            heartbeats,
            changed,
            went_back,
            anew,
        }
    }

    /// Whether a watch showed an object older than it was: etcd was restored.
    pub fn saw_it_go_back(&self) -> bool {
        self.went_back.load(Ordering::Acquire)
    }

    /// Begins every watch anew: etcd was restored, and none is told anything at the versions that it
    /// goes on from.
    pub fn begin_anew(&self) {
        self.anew.begin();
    }

    /// The site is frozen, or was rebased: what was seen before counts no more.
    pub fn forget_versions(&self) {
        self.went_back.store(false, Ordering::Release);
    }

    /// What hosts tell of each other's storage heartbeats. Held for a look only.
    pub fn heartbeats(&self) -> MutexGuard<'_, Heartbeats> {
        self.heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every cache has been filled once.
    pub async fn ready(&self) {
        // A closed store never fills; its task's end ends the process.
        let _ = tokio::join!(
            self.hosts.wait_until_ready(),
            self.host_pools.wait_until_ready(),
            self.storage_pools.wait_until_ready(),
            self.networks.wait_until_ready(),
            self.images.wait_until_ready(),
            self.flavors.wait_until_ready(),
            self.departments.wait_until_ready(),
            self.policies.wait_until_ready(),
            self.incidents.wait_until_ready(),
            self.systems.wait_until_ready(),
            self.vms.wait_until_ready(),
            self.volumes.wait_until_ready(),
            self.migrations.wait_until_ready(),
        );
    }

    /// Woken by every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What is known of a host's Lease.
    pub fn renewals(&self, host: &str) -> Option<Renewals> {
        self.renewals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(host)
            .cloned()
    }

    /// The site's policy, or its defaults.
    pub fn policy(&self) -> api::CloudPolicySpec {
        self.policies
            .state()
            .first()
            .map(|policy| policy.spec.clone())
            .unwrap_or_default()
    }
}

struct Start<'a> {
    client: &'a Client,
    anew: Anew,
    went_back: Arc<AtomicBool>,
    changed: watch::Sender<u64>,
    tasks: &'a mut JoinSet<&'static str>,
}

impl Start<'_> {
    fn watch<K>(&mut self, name: &'static str) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store::<K>();
        let (known, went_back) = (store.clone(), self.went_back.clone());
        let api = Api::<K>::all(self.client.clone());
        let stream = api::watch_anew(api, watcher::Config::default(), &self.anew);
        let (anew, mut expected) = (self.anew.clone(), Expected::default());
        let stream = StreamBackoff::new(stream, api::watch_backoff()).inspect_ok(move |event| {
            if !expected.see(event, anew.times())
                && let Event::Apply(object) | Event::InitApply(object) = event
                && is_older(object, &known)
            {
                went_back.store(true, Ordering::Release);
            }
        });
        let mut stream = reflector::reflector(writer, stream).boxed();
        let changed = self.changed.clone();
        self.tasks.spawn(async move {
            while let Some(event) = stream.next().await {
                match event {
                    Ok(_) => changed.send_modify(|count| *count += 1),
                    Err(error) => tracing::warn!(watch = name, %error, "the watch was interrupted"),
                }
            }
            name
        });
        store
    }
}

/// Whether older objects are expected: in a list with which a watch begins anew because etcd was
/// restored. They show nothing new.
#[derive(Debug, Default)]
struct Expected {
    times: u64,
    now: bool,
}

impl Expected {
    /// Takes an event of a watch that was told `times` times to begin anew.
    fn see<K>(&mut self, event: &Event<K>, times: u64) -> bool {
        match event {
            // A list that fails is tried again: it stays the same one.
            Event::Init => {
                self.now |= times != self.times;
                self.times = times;
            }
            Event::InitDone => self.now = false,
            Event::Apply(_) | Event::Delete(_) | Event::InitApply(_) => {}
        }
        self.now
    }
}

/// Whether an object is older than the same object was before: versions of one etcd only grow.
fn is_older<K>(object: &K, known: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let number = |object: &K| {
        let version = object.meta().resource_version.as_deref();
        version.and_then(|version| version.parse::<u64>().ok())
    };
    let before = known.get(&ObjectRef::from_obj(object));
    before
        .filter(|before| before.meta().uid == object.meta().uid)
        .is_some_and(|before| number(object) < number(before.as_ref()))
}

fn watch_leases(
    client: &Client,
    anew: &Anew,
    renewals: Arc<Mutex<BTreeMap<String, Renewals>>>,
    heartbeats: Arc<Mutex<Heartbeats>>,
    tasks: &mut JoinSet<&'static str>,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let stream = api::watch_anew(leases, watcher::Config::default(), anew);
    let mut stream = StreamBackoff::new(stream, api::watch_backoff()).boxed();
    tasks.spawn(async move {
        while let Some(event) = stream.next().await {
            if let Ok(Event::Apply(lease) | Event::InitApply(lease)) = event {
                note(&renewals, &heartbeats, &lease);
            }
        }
        "leases"
    });
}

fn note(
    renewals: &Mutex<BTreeMap<String, Renewals>>,
    heartbeats: &Mutex<Heartbeats>,
    lease: &Lease,
) {
    let Some(host) = lease
        .metadata
        .name
        .as_deref()
        .and_then(|name| name.strip_prefix("host-"))
    else {
        return;
    };
    let renewed = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let annotation = |key: &str| {
        lease
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(key).cloned())
    };
    let mut renewals = renewals.lock().unwrap_or_else(PoisonError::into_inner);
    let known = renewals.get(host);
    // The same renewal, seen again by a new list, is no sign of life.
    let changed = known.is_none_or(|known| known.renewed != renewed);
    let sign = match known {
        Some(known) if !changed => known.sign,
        known => Sign {
            changes: known.map_or(0, |known| known.sign.changes) + 1,
            changed_at: clock::now(),
        },
    };
    let boot_id = annotation(api::names::LEASE_BOOT_ID).map(BootId);
    let boot_seen = known
        .filter(|known| known.boot_id == boot_id)
        .map_or_else(clock::now, |known| known.boot_seen);
    let loop_age = annotation(api::names::LEASE_LOOP_AGE).and_then(|age| age.parse().ok());
    // What can not be read is not armed, and tells of nobody.
    let guard = annotation(api::names::LEASE_GUARD)
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let not_armed =
        annotation(api::names::LEASE_GUARD_WHY).and_then(|text| serde_json::from_str(&text).ok());
    let version = lease.metadata.resource_version.as_deref();
    let version = version.and_then(|version| version.parse().ok());
    let api_seen = annotation(api::names::LEASE_API_SEEN).zip(version);
    let report =
        annotation(api::names::LEASE_HEARTBEATS).and_then(|text| HeartbeatReport::parse(&text));
    if let (true, Some(boot_id), Some(report)) = (changed, &boot_id, report) {
        heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&host.into(), boot_id, report, sign.changed_at);
    }
    renewals.insert(
        host.to_owned(),
        Renewals {
            sign,
            boot_id,
            boot_seen,
            loop_age,
            renewed,
            guard,
            not_armed,
            api_seen,
        },
    );
}

#[cfg(test)]
#[path = "store_in_memory.rs"]
mod in_memory;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_objects_are_expected_in_the_list_of_a_watch_that_was_told_to_begin_anew() {
        let mut expected = Expected::default();
        let mut see = |event: Event<()>, times| expected.see(&event, times);
        assert!(!see(Event::Init, 0) && !see(Event::InitApply(()), 0));
        assert!(!see(Event::InitDone, 0) && !see(Event::Apply(()), 0));
        // The word comes while a list is under way, and the next list fails once.
        assert!(!see(Event::Init, 0) && !see(Event::InitApply(()), 1));
        assert!(see(Event::Init, 1) && see(Event::InitApply(()), 1));
        assert!(see(Event::Init, 1) && see(Event::InitApply(()), 1));
        assert!(!see(Event::InitDone, 1) && !see(Event::Apply(()), 1));
        assert!(!see(Event::Init, 1), "a watch that expired is compared");
    }

    #[test]
    fn an_incarnation_is_known_since_its_first_renewal_and_not_longer() {
        let renewals = Mutex::<BTreeMap<String, Renewals>>::default();
        let heartbeats = Mutex::<Heartbeats>::default();
        let renewed = |boot: &str, second: u32| {
            let lease: Lease = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "host-h1", "annotations": {"zhengyun.io/boot-id": boot}},
                "spec": {"renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")}
            }))
            .expect("a Lease");
            note(&renewals, &heartbeats, &lease);
        };
        let seen = |set: Option<Moment>| {
            let mut all = renewals.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.get_mut("h1").expect("known");
            known.boot_seen = set.unwrap_or(known.boot_seen);
            known.boot_seen
        };
        let long_ago = Moment(1);
        renewed("b1", 1);
        assert!(seen(None) > long_ago);
        seen(Some(long_ago));
        renewed("b1", 2);
        assert_eq!(seen(None), long_ago, "the same boot");
        renewed("b2", 3);
        assert!(seen(None) > long_ago, "another one");
    }
}
