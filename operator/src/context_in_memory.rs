//! A site for tests: caches that hold given objects, hosts that serve, and an API server that takes every write and
//! remembers it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::names::FINALIZER;
use api::{CloudPolicySpec, Host, VirtualMachine, VirtualMachineMigration};
use axum::http::Method;
use fleet::Objects;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api_in_memory::{client, failure};
use crate::hosts::HostWatch;
use crate::leader::Leader;
use crate::runtime::Context;
use crate::store::Stores;
use crate::writer::Writer;
use crate::{door, planner, vms};

/// A write: method, path and body.
pub(crate) type Written = (Method, String, Value);

/// Boot id of every host.
pub(crate) const BOOT: &str = "b";

/// The site.
pub(crate) struct Site {
    pub(crate) context: Arc<Context>,
    written: Arc<Mutex<Vec<Written>>>,
    refused: Arc<Mutex<Vec<Refused>>>,
    holds: Arc<Mutex<BTreeMap<String, Value>>>,
}

/// Where the API server holds the objects of a kind, and one of them.
fn path_of(plural: &str, name: &str) -> String {
    let end = if name.is_empty() {
        String::new()
    } else {
        format!("/{name}")
    };
    format!("/apis/zhengyun.io/v1alpha1/{plural}{end}")
}

/// Method, end of the path, code and message of writes that are not taken.
type Refused = (Method, &'static str, (u16, &'static str));

/// An object from JSON.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

/// A host with 16 processors and 64 GiB; `maintenance` as in its spec.
pub(crate) fn host(name: &str, maintenance: Value, evacuation: Value) -> Arc<Host> {
    typed(json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "generation": 3,
            "finalizers": [FINALIZER]},
        "spec": {"pool": "main", "managementAddress": "10.0.0.1", "maintenance": maintenance},
        "status": {
            "evacuation": evacuation,
            "reported": {
                "incarnation": {"bootId": BOOT, "systemUuid": name}, "domainType": "kvm",
                "capacity": {"cpu": 16, "memory": "64Gi"}, "cpuModel": "m", "architecture": "x86_64",
                "vtepAddress": "10.1.0.1", "storagePools": []
            }
        }
    }))
}

/// A VM of 1 GiB under epoch 1 on a host, with more of its status.
pub(crate) fn vm(name: &str, priority: &str, host: &str, status: Value) -> Arc<VirtualMachine> {
    let assignment = json!({"host": host, "bootId": BOOT, "epoch": 1});
    let mut all = json!({
        "phase": "Running", "assignment": assignment, "lastEpoch": 1,
        "runtime": {"assignment": assignment, "phase": "Running", "since": "2026-01-01T00:00:00Z"}
    });
    crate::merge::add(&mut all, status);
    typed(json!({
        "metadata": {"name": name, "namespace": "oa", "uid": name, "resourceVersion": "1"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": [], "priority": priority},
        "status": all
    }))
}

/// A move of a VM to h2, with more of its metadata, spec and status.
pub(crate) fn migration(
    name: &str,
    vm: &str,
    metadata: Value,
    spec: Value,
    status: Value,
) -> Arc<VirtualMachineMigration> {
    let mut all = json!({"name": name, "namespace": "oa", "uid": name, "resourceVersion": "1"});
    crate::merge::add(&mut all, metadata);
    let mut what = json!({"virtualMachine": vm, "targetHost": "h2", "reason": "Maintenance"});
    crate::merge::add(&mut what, spec);
    typed(json!({"metadata": all, "spec": what, "status": status}))
}

/// What every loop needs, with nothing that was remembered.
pub(crate) fn context(writer: Writer, hosts: HostWatch, stores: Stores) -> Context {
    Context {
        writer,
        hosts: Mutex::new(hosts),
        probes: Default::default(),
        planner: planner::Planner::default(),
        told: Default::default(),
        rules: vms::RuleNotes::default(),
        rebalances: Default::default(),
        freeze: Default::default(),
        keeper: Default::default(),
        addresses: Default::default(),
        incidents: Default::default(),
        fleet: "fleet".to_owned(),
        stores,
    }
}

impl Site {
    /// A site of these objects, whose hosts all renew; its planner has seen them, and its operator has led for long.
    pub(crate) async fn new(
        policy: CloudPolicySpec,
        hosts: Vec<Arc<Host>>,
        vms: Vec<Arc<VirtualMachine>>,
        migrations: Vec<Arc<VirtualMachineMigration>>,
    ) -> Self {
        let objects = Objects {
            hosts,
            vms,
            ..Objects::default()
        };
        Self::of(policy, objects, migrations).await
    }

    /// The same with other objects beside hosts and VMs.
    pub(crate) async fn of(
        policy: CloudPolicySpec,
        mut objects: Objects,
        migrations: Vec<Arc<VirtualMachineMigration>>,
    ) -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let arrived = written.clone();
        let refused = Arc::<Mutex<Vec<Refused>>>::default();
        let refuses = refused.clone();
        let named = objects.hosts.iter().filter_map(|host| {
            let host: &Host = host;
            let name = host.metadata.name.as_ref()?;
            Some((path_of("hosts", name), json!(host)))
        });
        let holds = Arc::new(Mutex::new(named.collect::<BTreeMap<_, _>>()));
        let held = holds.clone();
        let client = client(move |method, path, body| {
            let known = held.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.get(&path).filter(|_| method == Method::GET).cloned();
            let refused = refuses.lock().unwrap_or_else(PoisonError::into_inner);
            let mut refused = refused.iter();
            let refused = refused.find(|(with, end, _)| *with == method && path.ends_with(end));
            let answer = match (refused, known) {
                (Some((.., (code, message))), _) => failure(*code, message),
                (None, Some(known)) => (200, known),
                (None, None) => (
                    200,
                    json!({"apiVersion": "v1", "kind": "Taken", "metadata": {"resourceVersion": "2"}}),
                ),
            };
            let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.push((method, path, body));
            std::future::ready(answer)
        });
        let leader = Arc::new(Leader::new("a".to_owned()));
        leader.set_leading(true);
        let names: Vec<String> = objects
            .hosts
            .iter()
            .filter_map(|host| host.metadata.name.clone())
            .collect();
        let pool = typed(json!({
            "metadata": {"name": "main"}, "spec": {"zones": ["Common"], "architecture": "x86_64"}
        }));
        objects.host_pools = vec![pool];
        let failover = door::policy(&policy);
        let watch = HostWatch::serving(&names, &failover);
        let stores = Stores::holding(&objects, &migrations, policy);
        let context = Arc::new(context(Writer::new(client, leader), watch, stores));
        context.keeper.has_led_for_long();
        let fleet = door::fleet(&context, &failover);
        context.planner.own().await.sync(fleet);
        Self {
            context,
            written,
            refused,
            holds,
        }
    }

    /// What the API server holds now, whatever the caches say: an object of a kind (by its plural), or all of them where
    /// the name is empty.
    pub(crate) fn holds(&self, plural: &str, name: &str, value: Value) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.insert(path_of(plural, name), value);
    }

    /// From now on the API server does not take such writes.
    pub(crate) fn refuse(
        &mut self,
        method: &Method,
        end: &'static str,
        answer: (u16, &'static str),
    ) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push((method.clone(), end, answer));
    }

    /// Everything written to paths that end so, in order.
    pub(crate) fn written(&self, method: &Method, end: &str) -> Vec<Value> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = written
            .iter()
            .filter(|(with, path, _)| with == method && path.ends_with(end));
        wanted.map(|(_, _, body)| body.clone()).collect()
    }
}
