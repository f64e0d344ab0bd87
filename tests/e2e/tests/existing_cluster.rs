//! A lab on a cluster that is there already: its hosts and operator work with users that the cluster
//! vouches for, and its end leaves the cluster alone.

use anyhow::{Context as _, Result, ensure};
use api::Host;
use e2e::watch::until_ready;
use kube::Api;
use lab::{Fault, Lab, LabOptions};

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
    until_ready(&lab.client, "h1").await?;
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
