//! Cutting a host off from its VMs' disks, where a pool's server can: the order in the API first, then
//! every server is told and read back; lifted in the same order, the servers first.
//!
//! What a cut proves is `failover::proof::storage`'s to say. A pool implements [`StorageFence`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Host, StorageCutOrder, StoragePool};
use async_trait::async_trait;
use failover::Moment;
use failover::proof::storage::{StorageCut, StorageFacts};
use kube::ResourceExt;
use model::{BootId, HostName};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use wire::body::BodyError;

use super::{HostWatch, in_task, lock};
use crate::runtime::Context;
use crate::writer::logged;
use crate::{clock, vms};

/// Longest time that one call to a server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer that is read, bytes.
const ANSWER_BYTES: usize = 16 * 1024;
/// How often the servers of an ordered cut are told and read back, milliseconds.
const AGAIN: u64 = 1_000;

/// Why a server could not be used.
#[derive(Debug, Error)]
pub enum StorageFenceError {
    /// The declaration can not be used.
    #[error("spec.fenceService of StoragePool {pool}: {why}; write a URL")]
    Declaration {
        /// The pool.
        pool: String,
        /// What is wrong.
        why: String,
    },
    /// No usable answer.
    #[error("the fence service of StoragePool {pool} {what}")]
    Failed {
        /// The pool.
        pool: String,
        /// What it did instead.
        what: String,
    },
}

/// A cut as a pool's server lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The server says that no connection of the host is left.
    pub connections_gone: bool,
}

/// A pool whose server can cut hosts off.
#[async_trait]
pub trait StorageFence: Send + Sync {
    /// Cuts a host off under an order; an older order than the one that stands changes nothing.
    ///
    /// # Errors
    /// Why the server did not take it. Its success proves nothing.
    async fn cut(&self, host: &HostName, order: i64) -> Result<(), StorageFenceError>;

    /// What the server lists about a host: the cut under exactly this order, or none.
    ///
    /// # Errors
    /// No usable answer.
    async fn read_back(
        &self,
        host: &HostName,
        order: i64,
    ) -> Result<Option<Listed>, StorageFenceError>;

    /// Lets a host in again, if the cut that stands is of this order.
    ///
    /// # Errors
    /// Why the server did not take it.
    async fn lift(&self, host: &HostName, order: i64) -> Result<(), StorageFenceError>;
}

/// The fence of a pool, if its server has one.
///
/// # Errors
/// The declaration can not be used.
pub fn fence_of(pool: &StoragePool) -> Option<Result<Box<dyn StorageFence>, StorageFenceError>> {
    let address = pool.spec.fence_service.as_ref()?;
    let service = FenceService::new(pool.name_any(), address);
    Some(service.map(|service| Box::new(service) as Box<dyn StorageFence>))
}

/// A fence over HTTP: `PUT BASE/hosts/HOST?order=N`, `GET BASE/hosts/HOST` answers
/// `{"cut": bool, "order": N, "connections": N}`, `DELETE BASE/hosts/HOST?order=N`.
struct FenceService {
    pool: String,
    base: Url,
    client: Client,
}

#[derive(Deserialize)]
struct Answer {
    cut: bool,
    order: Option<i64>,
    connections: Option<u64>,
}

impl FenceService {
    fn new(pool: String, address: &str) -> Result<Self, StorageFenceError> {
        let refuse = |why: String| StorageFenceError::Declaration {
            pool: pool.clone(),
            why,
        };
        let base = Url::parse(address).map_err(|error| refuse(error.to_string()))?;
        let tls = wire::tls::client_config(None).map_err(|error| refuse(error.to_string()))?;
        let client = Client::builder()
            .use_preconfigured_tls(tls)
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self { pool, base, client })
    }

    fn failed(&self, what: impl Into<String>) -> StorageFenceError {
        StorageFenceError::Failed {
            pool: self.pool.clone(),
            what: what.into(),
        }
    }

    async fn send(
        &self,
        method: Method,
        host: &HostName,
        order: Option<i64>,
    ) -> Result<Vec<u8>, StorageFenceError> {
        let mut url = self.base.clone();
        let path = format!("{}/hosts/{host}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        if let Some(order) = order {
            url.set_query(Some(&format!("order={order}")));
        }
        let failed = |error: reqwest::Error| self.failed(error.without_url().to_string());
        let request = self.client.request(method, url);
        let response = request.send().await.map_err(failed)?;
        if !response.status().is_success() && response.status() != StatusCode::NOT_FOUND {
            return Err(self.failed(format!("answered status {}", response.status().as_u16())));
        }
        let answer = wire::body::read(response, ANSWER_BYTES).await;
        answer.map_err(|error| match error {
            BodyError::Failed(error) => failed(error),
            BodyError::TooLarge(most) => self.failed(format!("answered more than {most} bytes")),
        })
    }
}

#[async_trait]
impl StorageFence for FenceService {
    async fn cut(&self, host: &HostName, order: i64) -> Result<(), StorageFenceError> {
        self.send(Method::PUT, host, Some(order)).await.map(drop)
    }

    async fn read_back(
        &self,
        host: &HostName,
        order: i64,
    ) -> Result<Option<Listed>, StorageFenceError> {
        let answer = self.send(Method::GET, host, None).await?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| self.failed("answered something that is no state of a host"))?;
        let ours = answer.cut && answer.order == Some(order);
        Ok(ours.then_some(Listed {
            connections_gone: answer.connections == Some(0),
        }))
    }

    async fn lift(&self, host: &HostName, order: i64) -> Result<(), StorageFenceError> {
        self.send(Method::DELETE, host, Some(order)).await.map(drop)
    }
}

/// What is remembered of cuts between turns.
#[derive(Default)]
pub struct StorageCuts {
    /// Servers as they were read back, by host, with the order.
    cuts: BTreeMap<HostName, (i64, Vec<StorageCut>)>,
    /// When a host's servers were last told, and whether that is under way.
    told: BTreeMap<HostName, (Moment, bool)>,
}

/// Pools with a fence that the VMs of a host use.
fn pools(context: &Context, host: &HostName) -> BTreeSet<String> {
    let all = context.stores.storage_pools.state();
    let fenced: BTreeSet<String> = all
        .iter()
        .filter(|pool| pool.spec.fence_service.is_some())
        .map(|pool| pool.name_any())
        .collect();
    if fenced.is_empty() {
        return fenced;
    }
    let here = |vm: &&Arc<api::VirtualMachine>| {
        let mut rights = vm.status.iter().flat_map(|status| status.rights());
        rights.any(|right| right.host == *host)
    };
    let machines = context.stores.vms.state();
    let used = machines
        .iter()
        .filter(here)
        .flat_map(|vm| vms::volumes_of(context, vm).unwrap_or_default())
        .map(|volume| volume.spec.pool.clone());
    used.filter(|pool| fenced.contains(pool)).collect()
}

/// What is known of a host's cut.
pub(super) fn facts(
    context: &Context,
    watch: &HostWatch,
    host: &Host,
    name: &HostName,
) -> StorageFacts {
    let order = host
        .status
        .as_ref()
        .and_then(|status| status.storage_cut.as_ref());
    let cuts = watch.storage.cuts.get(name);
    StorageFacts {
        // Looked for only where it matters.
        cuttable: watch.is_silent(name) && !pools(context, name).is_empty(),
        ordered: order.map(|order| BootId::new(order.boot_id.as_str())),
        cuts: match (order, cuts) {
            (Some(order), Some((number, cuts))) if order.number == *number => cuts.clone(),
            _ => Vec::new(),
        },
    }
}

/// Orders the cut, or has the servers of an ordered one told and read back.
pub(super) async fn cut(context: &Arc<Context>, host: &Host, name: &HostName, boot_id: &BootId) {
    let standing = host
        .status
        .as_ref()
        .and_then(|status| status.storage_cut.clone());
    match standing {
        Some(order) if order.boot_id == boot_id.as_str() => tell(context, name, order, true),
        // Another boot's order stands until it is lifted.
        Some(_) => {}
        None => order_cut(context, host, name, boot_id).await,
    }
}

async fn order_cut(context: &Context, host: &Host, name: &HostName, boot_id: &BootId) {
    // The version that the order is written from: it grows, and compare-and-swap makes it unique.
    let number: Option<i64> = host
        .resource_version()
        .and_then(|version| version.parse().ok());
    let (Some(number), true) = (number, context.writer.settled(host)) else {
        return;
    };
    let order = StorageCutOrder {
        boot_id: boot_id.to_string(),
        number,
        pools: pools(context, name).into_iter().collect(),
        since: clock::wall(),
        by: context.writer.identity().to_owned(),
    };
    let result = context
        .writer
        .swap_status(host, json!({"storageCut": order}))
        .await;
    logged("storage cut", name.as_str(), result);
}

/// Lets a host in again on every pool; the order goes when every server has been read back so.
pub(super) async fn lift(context: &Arc<Context>, host: &Host, name: &HostName) {
    if let Some(order) = host
        .status
        .as_ref()
        .and_then(|status| status.storage_cut.clone())
    {
        tell(context, name, order, false);
    }
}

/// Tells every server of an order, beside the loop, and reads it back.
fn tell(context: &Arc<Context>, name: &HostName, order: StorageCutOrder, cut: bool) {
    let now = clock::now();
    {
        let mut watch = lock(context);
        let told = watch.storage.told.get(name);
        if told.is_some_and(|(at, running)| *running || now.since(*at) < AGAIN) {
            return;
        }
        watch.storage.told.insert(name.clone(), (now, true));
    }
    let release = |watch: &mut HostWatch, name: &HostName| {
        let over = (clock::now(), false);
        watch.storage.told.insert(name.clone(), over);
    };
    let (of_task, host) = (context.clone(), name.clone());
    in_task(context, "storage cut", name, release, async move {
        let (context, name) = (of_task, host);
        let (cuts, complete) = tell_all(&context, &name, &order, cut).await;
        {
            let mut watch = lock(&context);
            watch
                .storage
                .told
                .insert(name.clone(), (clock::now(), false));
            watch
                .storage
                .cuts
                .insert(name.clone(), (order.number, cuts));
        }
        if !cut && complete {
            end_order(&context, &name, order.number).await;
        }
    });
}

/// The cuts that servers list, and whether every one answered and obeyed.
async fn tell_all(
    context: &Context,
    host: &HostName,
    order: &StorageCutOrder,
    cut: bool,
) -> (Vec<StorageCut>, bool) {
    let all = context.stores.storage_pools.state();
    let (mut cuts, mut complete) = (Vec::new(), true);
    for name in &order.pools {
        let pool = all.iter().find(|pool| pool.name_any() == *name);
        let fence = match pool.and_then(|pool| fence_of(pool)) {
            Some(Ok(fence)) => fence,
            Some(Err(error)) => {
                tracing::error!(%host, %error, "storage is not cut off");
                complete = false;
                continue;
            }
            None => {
                tracing::error!(%host, pool = name, "a pool of a storage cut is gone or has no fence any more");
                complete = false;
                continue;
            }
        };
        // Checked at the moment of sending: this operator still leads.
        if !context.writer.leads() {
            return (Vec::new(), false);
        }
        let told = if cut {
            fence.cut(host, order.number).await
        } else {
            fence.lift(host, order.number).await
        };
        if let Err(error) = told {
            tracing::warn!(%host, %error, cut, "a storage server did not obey");
        }
        match fence.read_back(host, order.number).await {
            Ok(listed) => {
                complete &= listed.is_some() == cut;
                cuts.extend(listed.map(|listed| {
                    let boot_id = BootId::new(order.boot_id.as_str());
                    StorageCut::read_back(
                        name.clone(),
                        host.clone(),
                        boot_id,
                        listed.connections_gone,
                    )
                }));
            }
            Err(error) => {
                tracing::warn!(%host, %error, "a storage server could not be read back");
                complete = false;
            }
        }
    }
    (cuts, complete)
}

async fn end_order(context: &Context, name: &HostName, number: i64) {
    let hosts = context.stores.hosts.state();
    let host = hosts.iter().find(|host| host.name_any() == name.as_str());
    let Some(host) = host.filter(|host| {
        let order = host
            .status
            .as_ref()
            .and_then(|status| status.storage_cut.as_ref());
        order.is_some_and(|order| order.number == number)
    }) else {
        return;
    };
    let result = context
        .writer
        .swap_status(host.as_ref(), json!({"storageCut": null}))
        .await;
    logged("storage cut", name.as_str(), result);
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
