//! The connection to the API, and everything of ours in one read.

use anyhow::{Context, Result};
use api::{
    BusinessSystem, Host, HostPool, Incident, StoragePool, VirtualMachine, VirtualMachineMigration,
};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;

use crate::options::Options;

/// Connects as the options say.
///
/// # Errors
/// Says which file could not be used and what to do.
pub async fn connect(options: &Options) -> Result<Client> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {}: can not be read", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer()
            .await
            .context("no kubeconfig found; name one with --kubeconfig or $KUBECONFIG")?,
    };
    Client::try_from(config).context("the kubeconfig can not be used")
}

/// The site as the API shows it.
pub struct Site {
    /// Business systems of all departments.
    pub systems: Vec<BusinessSystem>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// Host pools.
    pub host_pools: Vec<HostPool>,
    /// Storage pools.
    pub storage_pools: Vec<StoragePool>,
    /// VMs of all departments.
    pub vms: Vec<VirtualMachine>,
    /// Migrations.
    pub migrations: Vec<VirtualMachineMigration>,
    /// Incidents.
    pub incidents: Vec<Incident>,
}

impl Site {
    /// Reads everything.
    ///
    /// # Errors
    /// Names the kind that could not be read.
    pub async fn read(client: &Client) -> Result<Self> {
        let (systems, hosts, host_pools, storage_pools, vms, migrations, incidents) = futures::try_join!(
            list(client),
            list(client),
            list(client),
            list(client),
            list(client),
            list(client),
            list(client)
        )?;
        Ok(Self {
            systems,
            hosts,
            host_pools,
            storage_pools,
            vms,
            migrations,
            incidents,
        })
    }
}

/// Lists all objects of a kind, in every namespace, by name.
///
/// # Errors
/// Names the kind, and the remedy where the API is not there.
pub async fn list<K>(client: &Client) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let kind = K::kind(&());
    match Api::<K>::all(client.clone())
        .list(&ListParams::default())
        .await
    {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            anyhow::bail!(
                "{kind}: this cluster does not have the kinds of Zhengyun; install charts/zhengyun first"
            )
        }
        Err(error) => Err(error).with_context(|| format!("{kind}: can not be listed")),
    }
}

/// Finds a VM by `NAMESPACE/NAME`, by name and namespace, or by a name that only one has.
///
/// # Errors
/// Says which VMs come into question.
pub async fn find_vm(client: &Client, vm: &str, namespace: Option<&str>) -> Result<VirtualMachine> {
    let (namespace, name) = match vm.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (namespace, vm),
    };
    if let Some(namespace) = namespace {
        let api: Api<VirtualMachine> = Api::namespaced(client.clone(), namespace);
        return api.get_opt(name).await?.with_context(|| {
            format!("VM {namespace}/{name} does not exist; see kubectl get vm -A")
        });
    }
    let mut found: Vec<VirtualMachine> = list(client).await?;
    found.retain(|vm: &VirtualMachine| vm.metadata.name.as_deref() == Some(name));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => anyhow::bail!("VM {name} does not exist; see kubectl get vm -A"),
        _ => {
            let namespaces: Vec<_> = found
                .iter()
                .filter_map(|vm| vm.metadata.namespace.clone())
                .collect();
            anyhow::bail!(
                "VM {name} exists in {}; name one with -n",
                namespaces.join(", ")
            )
        }
    }
}

/// Name of an object; every object from the API has one.
pub fn name_of<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// `NAMESPACE/NAME` of an object.
pub fn full_name_of<K: Resource>(object: &K) -> String {
    match &object.meta().namespace {
        Some(namespace) => format!("{namespace}/{}", name_of(object)),
        None => name_of(object),
    }
}
