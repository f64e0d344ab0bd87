//! Caches for tests, filled without an API server.

use api::CloudPolicySpec;
use fleet::Objects;

use super::*;

fn store<K>(objects: &[Arc<K>]) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store::<K>();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(object.as_ref().clone()));
    }
    store
}

impl Stores {
    /// Caches that hold these objects and nothing else.
    pub(crate) fn holding(
        objects: &Objects,
        migrations: &[Arc<VirtualMachineMigration>],
        policy: CloudPolicySpec,
    ) -> Self {
        let (changed, _) = watch::channel(0);
        Self {
            hosts: store(&objects.hosts),
            host_pools: store(&objects.host_pools),
            storage_pools: store(&objects.storage_pools),
            networks: store(&objects.networks),
            images: store(&objects.images),
            flavors: store(&[]),
            departments: store(&[]),
            policies: store(&[Arc::new(CloudPolicy::new("default", policy))]),
            incidents: store(&[]),
            systems: store(&[]),
            vms: store(&objects.vms),
            volumes: store(&objects.volumes),
            migrations: store(migrations),
            renewals: Arc::default(),
            heartbeats: Arc::default(),
            changed,
            went_back: Arc::default(),
            anew: Anew::default(),
        }
    }
}
