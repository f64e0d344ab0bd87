//! A lab on a cluster that is there already: its hosts and operator work with users that the cluster
//! vouches for, and its end leaves the cluster alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::{Host, HostState};
use kube::Api;
use lab::{Fault, Lab, LabOptions};

/// Longest time for a host to be Ready.
const PATIENCE: Duration = Duration::from_secs(120);

async fn ready(lab: &Lab, name: &str) -> Result<()> {
    let (hosts, begin) = (Api::<Host>::all(lab.client.clone()), Instant::now());
    loop {
        let status = hosts.get(name).await?.status.unwrap_or_default();
        if status.state == Some(HostState::Ready) {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "{name} is not Ready: {:?} {:?}",
            status.state,
            status.state_reason
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lab_uses_a_cluster_that_is_there() -> Result<()> {
    let cluster = Lab::up(LabOptions {
        name: "there".to_owned(),
        hosts: 0,
        operators: 0,
        ..LabOptions::default()
    })
    .await?;
    let lab = Lab::up(LabOptions {
        name: "guest".to_owned(),
        hosts: 1,
        kubeconfig: Some(cluster.files.kubeconfig("admin")),
        ..LabOptions::default()
    })
    .await?;
    lab::install::apply_yaml(
        &lab.client,
        "{apiVersion: zhengyun.io/v1alpha1, kind: HostPool, metadata: {name: main}, spec: {zones: [Common], architecture: x86_64}}",
    )
    .await
    .context("the pool of the host")?;
    ready(&lab, "h1").await?;
    let status = lab::status::describe(&lab.files)?;
    ensure!(!status.contains("kube-apiserver"), "{status}");
    let refused = lab
        .fault(None, Fault::ApiDown)
        .expect_err("it is not the lab's");
    ensure!(
        refused.to_string().contains("existing cluster"),
        "{refused}"
    );
    lab.down()?;
    // The cluster is still there, with what was declared in it.
    Api::<Host>::all(cluster.client.clone()).get("h1").await?;
    cluster.down()
}
