//! VMs that a person declares beside the business systems: like one that is there, with disks of their own or
//! another's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::{VirtualMachine, Volume};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::{Lab, declarations};
use model::Assignment;
use serde_json::{Value, json};

use crate::standing::processes_of;
use crate::watch::{runs, until, vms};

/// The VM that declared ones are like; it has a system and a data disk.
pub const LIKE: &str = "trade-union-application-0";
/// How often a thing that must not happen is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// What a person declares: a VM like [`LIKE`], in its namespace.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Name of the VM.
    pub name: String,
    /// Its volumes are named after this, so that two VMs of one value have the same disks.
    pub disks: String,
    /// Its memory.
    pub memory: String,
    /// It is never beside another such VM that has the same word here.
    pub apart: Option<String>,
}

impl Declared {
    /// A small VM with disks of its own.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            disks: name.to_owned(),
            memory: "128Mi".to_owned(),
            apart: None,
        }
    }

    /// Declares it; disks that are there already are taken as they are.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn apply(&self, lab: &Lab) -> Result<()> {
        let like = find(lab, LIKE).await?;
        let namespace = like.namespace().unwrap_or_default();
        let volumes: Api<Volume> = Api::namespaced(lab.client.clone(), &namespace);
        let (mut objects, mut disks) = (Vec::new(), Vec::new());
        for disk in &like.spec.disks {
            let spec = volumes.get(&disk.volume).await?.spec;
            let name = format!("{}-{}", self.disks, disk.name);
            objects.push(object("Volume", &namespace, &name, json!(spec)));
            disks.push(json!({"name": disk.name, "volume": name}));
        }
        // The guest's own name is that of its disks: the ledger on them knows one owner, whichever VM it is.
        let seed = format!("{}-cloud-init", self.disks);
        let told = format!("#cloud-config\nzhengyun: {{name: {}}}\n", self.disks);
        objects.push(json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": seed, "namespace": namespace}, "stringData": {"user-data": told}}));
        let mut spec = json!({"cpu": 1, "memory": self.memory, "image": like.spec.image,
            "networks": like.spec.networks, "cloudInit": {"name": seed}, "disks": disks});
        let mut labels = json!({});
        if let Some(word) = &self.apart {
            labels = json!({"apart": word});
            spec["affinity"] = json!([{"kind": "Apart", "matchLabels": labels, "required": true}]);
        }
        let mut vm = object("VirtualMachine", &namespace, &self.name, spec);
        vm["metadata"]["labels"] = labels;
        objects.push(vm);
        declarations::apply(&lab.client, &objects).await
    }

    /// Declares it and waits until it runs.
    ///
    /// # Errors
    /// It does not.
    pub async fn started(&self, lab: &Lab) -> Result<VirtualMachine> {
        self.apply(lab).await?;
        until_runs(lab, &self.name).await
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

/// A VM by its name.
///
/// # Errors
/// There is none.
pub async fn find(lab: &Lab, name: &str) -> Result<VirtualMachine> {
    let all = vms(&lab.client).await?;
    let found = all.into_iter().find(|vm| vm.name_any() == name);
    found.with_context(|| format!("there is no VM {name}"))
}

/// The right under which a VM runs.
///
/// # Errors
/// It has none.
pub fn right(vm: &VirtualMachine) -> Result<Assignment> {
    let right = vm
        .status
        .as_ref()
        .and_then(|status| status.assignment.clone());
    right.with_context(|| format!("{} has no host", vm.name_any()))
}

/// Waits until a VM runs.
///
/// # Errors
/// It does not.
pub async fn until_runs(lab: &Lab, name: &str) -> Result<VirtualMachine> {
    until(&lab.client, &format!("{name} to run"), async || {
        Ok(runs(&find(lab, name).await?))
    })
    .await?;
    find(lab, name).await
}

/// Asks for the deletion of a VM.
///
/// # Errors
/// The API refuses.
pub async fn delete(lab: &Lab, vm: &VirtualMachine) -> Result<()> {
    let api = api_of(lab, vm);
    api.delete(&vm.name_any(), &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until a VM that was deleted is gone: no object, no process, no claim of its disks.
///
/// # Errors
/// Something is left.
pub async fn until_gone(lab: &Lab, vm: &VirtualMachine) -> Result<()> {
    let (name, uid) = (vm.name_any(), vm.uid());
    until(&lab.client, &format!("{name} to be gone"), async || {
        Ok(vms(&lab.client).await?.iter().all(|left| left.uid() != uid))
    })
    .await?;
    let processes = processes_of(lab, &uid.unwrap_or_default())?;
    ensure!(
        processes.is_empty(),
        "{name} is gone and has the processes {processes:?}"
    );
    let volumes: Api<Volume> =
        Api::namespaced(lab.client.clone(), &vm.namespace().unwrap_or_default());
    until(
        &lab.client,
        &format!("the disks of {name} to be free"),
        async || {
            for disk in &vm.spec.disks {
                let status = volumes.get(&disk.volume).await?.status.unwrap_or_default();
                let own = |claim: &model::Claim| Some(claim.uid.as_str()) == vm.uid().as_deref();
                if status.claim.is_some_and(|claim| own(&claim)) {
                    return Ok(false);
                }
            }
            Ok(true)
        },
    )
    .await
    .map(drop)
}

/// Deletes a VM and waits until it is gone.
///
/// # Errors
/// The API refuses, or something is left.
pub async fn remove(lab: &Lab, vm: &VirtualMachine) -> Result<()> {
    delete(lab, vm).await?;
    until_gone(lab, vm).await
}

/// Changes what its user wants of a VM.
///
/// # Errors
/// The API refuses.
pub async fn set(lab: &Lab, vm: &VirtualMachine, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    let api = api_of(lab, vm);
    api.patch(&vm.name_any(), &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

fn api_of(lab: &Lab, vm: &VirtualMachine) -> Api<VirtualMachine> {
    Api::namespaced(lab.client.clone(), &vm.namespace().unwrap_or_default())
}

/// Looks for so long whether a thing that must hold holds all the while.
///
/// # Errors
/// When it does not, or can not be told.
pub async fn holds(
    what: &str,
    lasts: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < lasts {
        ensure!(
            condition().await?,
            "after {:.1} s it is not so any more: {what}",
            begin.elapsed().as_secs_f64()
        );
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
