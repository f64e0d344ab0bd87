//! The one way to write. Checks leadership at the moment of sending; compare-and-swap where the
//! caller decided from a state; remembers from which version an object was last written, so
//! that nobody decides twice from the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use failover::Moment;
use kube::api::{
    DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use prometheus::{IntCounterVec, register_int_counter_vec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::leader::Leader;
use crate::merge;

/// Writes under way at once: more buys no throughput, only latency.
const CONCURRENT: usize = 16;

/// Characters of an event's note that the API server takes.
const NOTE_MAX: usize = 1000;

/// Writes by outcome.
static WRITES: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    register_int_counter_vec!(
        "zhengyun_operator_writes_total",
        "Writes to the API server",
        &["outcome"]
    )
    .ok()
});

/// Counts a write by its outcome.
pub(crate) fn count(outcome: &str) {
    if let Some(writes) = WRITES.as_ref() {
        writes.with_label_values(&[outcome]).inc();
    }
}

/// Why a write was not made.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Another operator leads.
    #[error("this operator does not lead")]
    NotLeader,
    /// The object changed since it was read; the next turn decides anew.
    #[error("the object changed meanwhile")]
    Conflict,
    /// It is gone.
    #[error("the object is gone")]
    Gone,
    /// The API server refused or failed.
    #[error("{0}")]
    Api(#[from] kube::Error),
}

impl WriteError {
    /// Whether the write may have been made, or be made yet, although it was answered so.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            // A refusal; 408 is a request that ran out of time.
            Self::Api(kube::Error::Api(status)) => {
                !matches!(status.code, 400..500) || status.code == 408
            }
            Self::Api(_) => true,
            Self::NotLeader | Self::Conflict | Self::Gone => false,
        }
    }
}

/// A cache that has not moved on for so long after a write never will: etcd was restored to the very
/// version that was written from, and nobody noticed as versions had grown past it again. What is decided
/// from it anew is written by compare-and-swap as ever.
const MOVES_ON_WITHIN: Duration = Duration::from_secs(10);

/// How long a write that was answered with an error may still arrive: the API server gives up every request by then
/// (kube-apiserver's `--request-timeout`).
pub(crate) const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// What was written longer ago is shown by now, or its object is gone: watches begin anew every few seconds.
const REMEMBERED: Duration = Duration::from_secs(600);

/// From which version an object was last written, and when.
struct Written {
    from: String,
    at: Instant,
    /// The API server said that it took it; else nobody knows whether it did.
    taken: bool,
}

/// The writer.
pub struct Writer {
    client: Client,
    leader: Arc<Leader>,
    places: Semaphore,
    written: Mutex<BTreeMap<String, Written>>,
    forgot: Mutex<Instant>,
    recorder: Recorder,
}

/// An API for an object of any scope.
fn api_of<K>(client: &Client, namespace: Option<&str>) -> Api<DynamicObject>
where
    K: Resource<DynamicType = ()>,
{
    let resource = kube::core::ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!(
        "{}/{}/{}",
        K::kind(&()),
        object.meta().namespace.as_deref().unwrap_or_default(),
        object.name_any()
    )
}

impl Writer {
    /// A writer that obeys a leader.
    pub fn new(client: Client, leader: Arc<Leader>) -> Self {
        let reporter = Reporter {
            controller: "zhengyun-operator".to_owned(),
            instance: Some(leader.identity().to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            leader,
            places: Semaphore::new(CONCURRENT),
            written: Mutex::default(),
            forgot: Mutex::new(Instant::now()),
        }
    }

    /// The client, for reads.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Identity of this operator.
    pub fn identity(&self) -> &str {
        self.leader.identity()
    }

    /// Whether this operator leads.
    pub fn leads(&self) -> bool {
        self.leader.leads()
    }

    /// Whether the API server answered this operator lately.
    pub fn hears(&self) -> bool {
        self.leader.hears()
    }

    /// When the API server answered this operator last; 0: never.
    pub fn heard_at(&self) -> Moment {
        self.leader.heard_at()
    }

    /// For how long in all others were seen to lead.
    pub fn followed(&self) -> Duration {
        self.leader.followed()
    }

    /// Whether the cache has moved on since this object was last written: until then nothing is
    /// decided from it again.
    pub fn settled<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        !self.written_from(object, |written| {
            written.taken && written.at.elapsed() < MOVES_ON_WITHIN
        })
    }

    /// Whether the cache shows what this object was last written from, or perhaps written: what was decided about it
    /// may stand already, and others must not be given the same.
    pub fn may_be_older<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        self.written_from(object, |written| {
            written.taken || written.at.elapsed() < ARRIVES_WITHIN
        })
    }

    fn written_from<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        when: impl FnOnce(&Written) -> bool,
    ) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let version = object.meta().resource_version.as_ref();
        let last = written.get(&key(object));
        last.is_some_and(|last| Some(&last.from) == version && when(last))
    }

    /// Whether this operator saw the API hold less than before.
    pub fn saw_it_go_back(&self) -> bool {
        self.leader.saw_it_go_back()
    }

    /// Versions that the leader's Lease had mean nothing any more: the API would go back anew.
    pub fn forget_seen(&self) {
        self.leader.forget_versions();
    }

    /// Forgets from which versions objects were written: etcd was restored and uses them anew.
    pub fn forget_written(&self) {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn note<K: Resource<DynamicType = ()>>(&self, object: &K, taken: bool) {
        if let Some(from) = object.meta().resource_version.clone() {
            let mut written = Written {
                from,
                at: Instant::now(),
                taken,
            };
            let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.get(&key(object));
            let known = known.is_some_and(|known| known.taken && known.from == written.from);
            written.taken |= known;
            let mut forgot = self.forgot.lock().unwrap_or_else(PoisonError::into_inner);
            if forgot.elapsed() >= REMEMBERED {
                all.retain(|_, written| written.at.elapsed() < REMEMBERED);
                *forgot = Instant::now();
            }
            all.insert(key(object), written);
        }
    }

    /// Sends a write that only the leader may make, bounded in number.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn send<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let Ok(_place) = self.places.acquire().await else {
            return Err(WriteError::NotLeader);
        };
        if !self.leader.leads() {
            count("not-leader");
            return Err(WriteError::NotLeader);
        }
        match call.await {
            Ok(value) => {
                count("ok");
                Ok(value)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                count("conflict");
                Err(WriteError::Conflict)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                count("gone");
                Err(WriteError::Gone)
            }
            Err(error) => {
                count("error");
                Err(error.into())
            }
        }
    }

    /// Merges into the status by compare-and-swap with the version that was read.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn swap_status<K>(&self, object: &K, status: Value) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let patch = json!({"metadata": {"resourceVersion": object.meta().resource_version}, "status": status});
        self.patch(object, patch, true).await
    }

    /// Replaces the whole status by compare-and-swap: what the new one has no more is taken away too.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn replace_status<K, S>(
        &self,
        object: &K,
        before: &S,
        after: &S,
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        self.swap_status(object, merge::patch(&json!(before), &json!(after)))
            .await
    }

    /// Merges into the status, whatever the version.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn status<K>(&self, object: &K, status: Value) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        self.patch(object, json!({ "status": status }), true).await
    }

    /// Merges into metadata by compare-and-swap.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn metadata<K>(&self, object: &K, mut metadata: Value) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        metadata["resourceVersion"] = json!(object.meta().resource_version);
        self.patch(object, json!({ "metadata": metadata }), false)
            .await
    }

    /// Merges into the spec of an object that is the operator's own, by compare-and-swap.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn spec<K>(&self, object: &K, spec: Value) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let patch =
            json!({"metadata": {"resourceVersion": object.meta().resource_version}, "spec": spec});
        self.patch(object, patch, false).await
    }

    async fn patch<K>(&self, object: &K, patch: Value, status: bool) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let api = api_of::<K>(&self.client, object.meta().namespace.as_deref());
        let (name, params) = (object.name_any(), PatchParams::default());
        let result = if status {
            self.send(api.patch_status(&name, &params, &Patch::Merge(&patch)))
                .await
        } else {
            self.send(api.patch(&name, &params, &Patch::Merge(&patch)))
                .await
        };
        match &result {
            // A write that changed nothing leaves the version as it is, and nothing to wait for.
            Ok(after) if after.metadata.resource_version != object.meta().resource_version => {
                self.note(object, true);
            }
            Err(error) if error.may_have_arrived() => self.note(object, false),
            Ok(_) | Err(_) => {}
        }
        result.map(drop)
    }

    /// Tells people what was decided about an object, as a Kubernetes Event. Nothing depends on it:
    /// one that can not be written is logged.
    pub async fn tell<K>(&self, object: &K, kind: EventType, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE_MAX).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        let result = self.send(self.recorder.publish(&event, &reference)).await;
        logged("event", &object.name_any(), result);
    }

    /// All objects of a kind as the API server holds them now, not as a cache does.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn list<K>(&self) -> Result<Vec<K>, WriteError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let api = Api::<K>::all(self.client.clone());
        Ok(api.list(&Default::default()).await?.items)
    }

    /// Creates an object that goes with its owner. One that still goes with a former owner of the same name is in the
    /// way: it is on its way out, and a conflict is told.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn create_owned<K>(&self, object: &K) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        self.create(object).await?;
        let api = api_of::<K>(&self.client, object.meta().namespace.as_deref());
        let stands = api.get(&object.name_any()).await?;
        let owners = |meta: &ObjectMeta| -> BTreeSet<String> {
            let owners = meta.owner_references.iter().flatten();
            owners.map(|owner| owner.uid.clone()).collect()
        };
        let (has, wanted) = (owners(&stands.metadata), owners(object.meta()));
        // One without an owner goes with nobody, and stays.
        let of_another = !has.is_empty() && has != wanted;
        if !of_another && stands.metadata.deletion_timestamp.is_none() {
            return Ok(());
        }
        let (kind, name) = (K::kind(&()), object.name_any());
        tracing::info!(%kind, name, "still goes with a former owner; waited for until it is collected");
        Err(WriteError::Conflict)
    }

    /// Creates an object; that it exists already is fine.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn create<K>(&self, object: &K) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let namespace = object.meta().namespace.clone();
        let mut dynamic: DynamicObject = serde_json::to_value(object)
            .and_then(serde_json::from_value)
            .map_err(|error| WriteError::Api(kube::Error::SerdeError(error)))?;
        dynamic.types = Some(kube::core::TypeMeta {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
        });
        let api = api_of::<K>(&self.client, namespace.as_deref());
        match self
            .send(api.create(&PostParams::default(), &dynamic))
            .await
        {
            Err(WriteError::Conflict) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Server-side apply of an object that is wholly the operator's.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn apply<K>(&self, object: &K) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut value = serde_json::to_value(object)
            .map_err(|error| WriteError::Api(kube::Error::SerdeError(error)))?;
        value["apiVersion"] = json!(K::api_version(&()));
        value["kind"] = json!(K::kind(&()));
        let api = api_of::<K>(&self.client, object.meta().namespace.as_deref());
        let params = PatchParams::apply("zhengyun-operator").force();
        self.send(api.patch(&object.name_any(), &params, &Patch::Apply(&value)))
            .await
            .map(drop)
    }

    /// Deletes an object as it was read: one that was made anew under its name, or has changed, is left alone. That it is
    /// gone is fine.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn delete<K>(&self, object: &K) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()>,
    {
        let api = api_of::<K>(&self.client, object.meta().namespace.as_deref());
        let preconditions = Preconditions {
            uid: object.meta().uid.clone(),
            resource_version: object.meta().resource_version.clone(),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        match self.send(api.delete(&object.name_any(), &params)).await {
            Err(WriteError::Gone) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Logs what a turn could not write; the next turn decides anew.
pub fn logged(what: &str, name: &str, result: Result<(), WriteError>) {
    match result {
        Ok(()) | Err(WriteError::NotLeader | WriteError::Conflict) => {}
        Err(error) => tracing::warn!(what, name, %error, "not written"),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
