//! Installs our API into a cluster: the very CRDs, roles and admission policies of the chart.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::Scope;
use kube::{Client, core::GroupVersionKind};
use serde::Deserialize;

use crate::process::PATIENCE;

/// Folders of the chart that are plain YAML, in the order in which they are applied.
const FOLDERS: [&str; 3] = ["crds", "templates/rbac", "templates/admission"];

/// The chart's folder: `ZHENGYUN_CHART`, else that of the source tree.
fn chart() -> PathBuf {
    std::env::var_os("ZHENGYUN_CHART").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/zhengyun"),
        PathBuf::from,
    )
}

/// Applies the chart's CRDs, roles and policies, and waits until they are in force.
///
/// # Errors
/// Names the file that was not accepted.
pub async fn install_api(client: Client) -> Result<()> {
    for folder in FOLDERS {
        let folder = chart().join(folder);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .with_context(|| format!("{}", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        // Namespaces come first: roles live in them.
        files.sort_by_key(|path| {
            (
                path.file_stem().is_some_and(|stem| stem != "namespace"),
                path.clone(),
            )
        });
        for file in files.iter().filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        }) {
            apply_file(&client, file)
                .await
                .with_context(|| format!("{}", file.display()))?;
        }
        if folder.ends_with("crds") {
            wait_established(&client).await?;
        }
    }
    Ok(())
}

/// Applies every object of a YAML file, server side.
///
/// # Errors
/// What the API server answered, and for which object.
pub async fn apply_file(client: &Client, path: &Path) -> Result<()> {
    apply_yaml(client, &std::fs::read_to_string(path)?).await
}

/// Applies every object of a YAML text, server side.
///
/// # Errors
/// What the API server answered, and for which object.
pub async fn apply_yaml(client: &Client, text: &str) -> Result<()> {
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_json::Value::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject =
            serde_json::from_value(value).context("not a Kubernetes object")?;
        let name = object.metadata.name.clone().unwrap_or_default();
        apply_object(client, &object)
            .await
            .with_context(|| format!("object {name}"))?;
    }
    Ok(())
}

async fn apply_object(client: &Client, object: &DynamicObject) -> Result<()> {
    let types = object
        .types
        .as_ref()
        .context("apiVersion and kind are missing")?;
    let gvk = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = discover(client, &gvk).await?;
    let api: Api<DynamicObject> = match (&object.metadata.namespace, capabilities) {
        (Some(namespace), Scope::Namespaced) => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        (None, Scope::Namespaced) => bail!("metadata.namespace is missing"),
        (_, Scope::Cluster) => Api::all_with(client.clone(), &resource),
    };
    let name = object
        .metadata
        .name
        .as_deref()
        .context("metadata.name is missing")?;
    api.patch(
        name,
        &PatchParams::apply("zylab").force(),
        &Patch::Apply(object),
    )
    .await?;
    Ok(())
}

async fn discover(
    client: &Client,
    gvk: &GroupVersionKind,
) -> Result<(kube::core::ApiResource, Scope)> {
    let (resource, capabilities) = kube::discovery::pinned_kind(client, gvk)
        .await
        .with_context(|| {
            format!(
                "the API server does not know kind {} of {}",
                gvk.kind,
                gvk.api_version()
            )
        })?;
    Ok((resource, capabilities.scope))
}

async fn wait_established(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let begin = Instant::now();
    loop {
        let crds = api.list(&ListParams::default()).await?;
        let ours = crds
            .items
            .iter()
            .filter(|crd| crd.spec.group == api::names::GROUP);
        let waiting: Vec<_> = ours
            .filter(|crd| !established(crd))
            .filter_map(|crd| crd.metadata.name.clone())
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            bail!(
                "waited {PATIENCE:?} for kinds to be established: {}",
                waiting.join(", ")
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}
