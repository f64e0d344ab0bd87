//! The chart, by real Helm: it renders, an API server takes all of it, and what it installs are the
//! very objects that the lab and the other tests install.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use lab::ControlPlane;
use serde::Deserialize;
use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/zhengyun")
}

/// Helm: `$HELM`, else what `scripts/setup.sh` fetched.
fn helm() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("HELM") {
        return Ok(program.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let program = cache.join("zhengyun/tools/helm");
    ensure!(
        program.is_file(),
        "{}: Helm is not there; run: make setup",
        program.display()
    );
    Ok(program)
}

fn run(arguments: &[&str]) -> Result<String> {
    let output = Command::new(helm()?)
        .args(arguments)
        .arg(chart())
        .output()
        .context("helm")?;
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Kind, namespace and name of every object of a YAML text.
fn names(text: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = Value::deserialize(document)?;
        if object.is_null() {
            continue;
        }
        let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, metadata) = (field(&object["kind"]), &object["metadata"]);
        names.insert(format!(
            "{kind} {}/{}",
            field(&metadata["namespace"]),
            field(&metadata["name"])
        ));
    }
    Ok(names)
}

fn names_in(folder: &str) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(chart().join(folder))? {
        all.extend(names(&std::fs::read_to_string(entry?.path())?)?);
    }
    Ok(all)
}

#[test]
fn helm_renders_what_the_lab_installs() -> Result<()> {
    let rendered = names(&run(&["template", "zhengyun", "--include-crds"])?)?;
    let mut installed = names_in("crds")?;
    installed.extend(names_in("templates/rbac")?);
    installed.extend(names_in("templates/admission")?);
    assert_eq!(rendered, installed, "without an image nothing else is made");
    let with_operator = names(&run(&[
        "template",
        "zhengyun",
        "--include-crds",
        "--set",
        "operator.image=zhengyun/operator:test",
    ])?)?;
    let more: Vec<_> = with_operator.difference(&rendered).cloned().collect();
    assert_eq!(
        more,
        [
            "Deployment zhengyun-system/zhengyun-operator",
            "Service zhengyun-system/zhengyun-operator"
        ]
    );
    // Alerting rules, where somebody reads them.
    let watched = names(&run(&[
        "template",
        "zhengyun",
        "--include-crds",
        "--api-versions",
        "monitoring.coreos.com/v1/PrometheusRule",
    ])?)?;
    let more: Vec<_> = watched.difference(&rendered).cloned().collect();
    assert_eq!(
        more,
        [
            "PrometheusRule zhengyun-system/zhengyun-host-pools",
            "PrometheusRule zhengyun-system/zhengyun-platform",
            "PrometheusRule zhengyun-system/zhengyun-site"
        ]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_the_chart() -> Result<()> {
    let server = ControlPlane::start_private("chart").await?;
    let kubeconfig = server.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("a path of UTF-8")?;
    let install = [
        "upgrade",
        "--install",
        "zhengyun",
        "--kubeconfig",
        kubeconfig,
        "--namespace",
        "default",
        "--take-ownership",
        "--force-conflicts",
        "--set",
        "operator.image=zhengyun/operator:test",
    ];
    let mut rehearsal = install.to_vec();
    rehearsal.push("--dry-run=server");
    run(&rehearsal)?;
    let client = kube::Client::try_from(server.admin_config().await?)?;
    let deployments: Api<Deployment> = Api::namespaced(client, "zhengyun-system");
    ensure!(
        deployments.get_opt("zhengyun-operator").await?.is_none(),
        "a rehearsal made something"
    );
    run(&install)?;
    let deployment = deployments.get("zhengyun-operator").await?;
    assert_eq!(deployment.spec.and_then(|spec| spec.replicas), Some(2));
    server.stop().await
}
