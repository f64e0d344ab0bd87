//! A live migration that is asked for by hand, and what is looked at while it is under way.

use anyhow::{Context as _, Result, bail, ensure};
use api::names::POLICY_NAME;
use api::{
    CloudPolicy, Host, MigrationPhase, MigrationSourcePhase, MigrationTargetPhase, VirtualMachine,
    VirtualMachineMigration, VirtualMachineMigrationStatus,
};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use lab::Lab;
use model::Assignment;
use serde_json::json;

use crate::standing::processes_of;
use crate::watch::{full_name, hosts, is_ready, on_host, runs, until};

/// How fast memory is copied where a story needs time to strike meanwhile, MiB/s: some 40 MiB of a lab's guest
/// are not empty.
pub const SLOW: i32 = 2;

/// Sets how fast memory is copied from now on, MiB/s; none: as fast as it goes.
///
/// # Errors
/// The API refuses.
pub async fn copy_at_most(lab: &Lab, bound: Option<i32>) -> Result<()> {
    let patch = json!({"spec": {"migration": {"bandwidthMebibytesPerSecond": bound}}});
    let policies: Api<CloudPolicy> = Api::all(lab.client.clone());
    policies
        .patch(POLICY_NAME, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The hosts that a VM may move to, that with most VMs first.
///
/// # Errors
/// There are fewer than two.
pub async fn targets(lab: &Lab, source: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let ready = hosts(&lab.client).await?;
    let others = |host: &&Host| is_ready(host) && host.name_any() != source;
    for host in ready.iter().filter(others) {
        let name = host.name_any();
        found.push((on_host(&lab.client, &name).await?.len(), name));
    }
    found.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    ensure!(found.len() >= 2, "beside {source} there are only {found:?}");
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// One move of one VM.
pub struct Move {
    vms: Api<VirtualMachine>,
    migrations: Api<VirtualMachineMigration>,
    vm: String,
    /// The VM's uid.
    pub uid: String,
    name: String,
    /// The right under which it ran when the move was asked for.
    pub before: Assignment,
    /// Its process then.
    pub process: Vec<i32>,
    /// Where it is to go.
    pub target: String,
}

impl Move {
    /// Asks for the move of a VM that runs.
    ///
    /// # Errors
    /// It does not run once, or the API refuses.
    pub async fn begin(lab: &Lab, vm: &VirtualMachine, target: &str) -> Result<Self> {
        let namespace = vm.namespace().unwrap_or_default();
        let status = vm.status.clone().unwrap_or_default();
        let name = full_name(vm);
        let before = status
            .assignment
            .with_context(|| format!("{name} has no host"))?;
        let uid = vm.uid().unwrap_or_default();
        let process = processes_of(lab, &uid)?;
        ensure!(
            process.len() == 1,
            "{name} has the processes {process:?} before its move"
        );
        let migrations: Api<VirtualMachineMigration> =
            Api::namespaced(lab.client.clone(), &namespace);
        let migration: VirtualMachineMigration = serde_json::from_value(json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachineMigration",
            "metadata": {"generateName": format!("{}-", vm.name_any())},
            "spec": {"virtualMachine": vm.name_any(), "targetHost": target}}))?;
        let made = migrations
            .create(&PostParams::default(), &migration)
            .await?;
        println!("  {name} is to move from {} to {target}", before.host);
        Ok(Self {
            vms: Api::namespaced(lab.client.clone(), &namespace),
            migrations,
            vm: vm.name_any(),
            uid,
            name: made.name_any(),
            before,
            process,
            target: target.to_owned(),
        })
    }

    /// The host that it leaves.
    pub fn source(&self) -> &str {
        self.before.host.as_str()
    }

    /// How the move stands.
    ///
    /// # Errors
    /// The API can not be read.
    pub async fn status(&self) -> Result<VirtualMachineMigrationStatus> {
        let migration = self.migrations.get(&self.name).await?;
        Ok(migration.status.unwrap_or_default())
    }

    /// The VM now.
    ///
    /// # Errors
    /// The API can not be read.
    pub async fn vm(&self) -> Result<VirtualMachine> {
        Ok(self.vms.get(&self.vm).await?)
    }

    /// Waits until the target is ready to receive and nothing more.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn until_prepared(&self, lab: &Lab) -> Result<()> {
        until(&lab.client, "the target to be prepared", async || {
            let target = self.status().await?.target;
            Ok(target.is_some_and(|target| target.phase == MigrationTargetPhase::Prepared))
        })
        .await
        .map(drop)
    }

    /// Waits until the source says this of the move.
    ///
    /// # Errors
    /// It does not.
    pub async fn until_source_says(&self, lab: &Lab, phase: MigrationSourcePhase) -> Result<()> {
        let what = format!("the source of {}'s move to say {phase:?}", self.vm);
        until(&lab.client, &what, async || {
            let source = self.status().await?.source;
            Ok(source.is_some_and(|source| source.phase == phase))
        })
        .await
        .map(drop)
    }

    /// Cancels it.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn cancel(&self) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        self.migrations
            .patch(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Waits until it is over, which it must be in this way.
    ///
    /// # Errors
    /// It goes on, or ends another way.
    pub async fn ends(&self, lab: &Lab, phase: MigrationPhase) -> Result<()> {
        let what = format!("the move of {} to end", self.vm);
        until(&lab.client, &what, async || {
            Ok(self.status().await?.finished_at.is_some())
        })
        .await?;
        let status = self.status().await?;
        if status.phase != phase {
            bail!(
                "the move of {} ended {:?}, not {phase:?}: {:?}",
                self.vm,
                status.phase,
                status.message
            );
        }
        println!("  the move ended {phase:?}: {:?}", status.message);
        Ok(())
    }

    /// The move came to nothing: the VM runs where and as it ran, and nothing of the copy is left.
    ///
    /// # Errors
    /// What is otherwise.
    pub async fn changed_nothing(&self, lab: &Lab) -> Result<()> {
        let status = self.vm().await?.status.unwrap_or_default();
        ensure!(
            status.assignment.as_ref() == Some(&self.before) && status.incoming.is_none(),
            "{} ran under {:?}; now {:?}, to come {:?}",
            self.vm,
            self.before,
            status.assignment,
            status.incoming
        );
        let process = processes_of(lab, &self.uid)?;
        ensure!(
            process == self.process,
            "{} had the process {:?}; now {process:?}",
            self.vm,
            self.process
        );
        Ok(())
    }

    /// The VM runs on the target under the epoch of the move: it never stopped.
    ///
    /// # Errors
    /// What is otherwise.
    pub async fn succeeded(&self, lab: &Lab) -> Result<()> {
        self.ends(lab, MigrationPhase::Succeeded).await?;
        let moved = self.status().await?.target_assignment;
        let status = self.vm().await?.status.unwrap_or_default();
        ensure!(
            status.assignment.is_some()
                && status.assignment == moved
                && moved.is_some_and(|moved| moved.host.as_str() == self.target),
            "{} was to move to {}; it is under {:?}",
            self.vm,
            self.target,
            status.assignment
        );
        until(&lab.client, "the source's process to be gone", async || {
            Ok(processes_of(lab, &self.uid)?.len() == 1)
        })
        .await
        .map(drop)
    }

    /// Waits until the VM runs anew from its disks, at an epoch that was never the move's. Returns its host.
    ///
    /// # Errors
    /// It does not.
    pub async fn started_anew(&self, lab: &Lab) -> Result<String> {
        let moved = self.status().await?.target_assignment;
        let moved = moved.context("the move had a target")?;
        let mut host = None;
        let what = format!("{} to run anew", self.vm);
        until(&lab.client, &what, async || {
            let vm = self.vm().await?;
            let right = vm
                .status
                .as_ref()
                .and_then(|status| status.assignment.clone());
            let anew = right.filter(|right| right.epoch > moved.epoch && runs(&vm));
            host = anew.map(|right| right.host.to_string());
            Ok(host.is_some())
        })
        .await?;
        host.context("it has a host")
    }
}
