//! The declarations in `manifests/`: reads them, lays the lab's overlay over them, applies them.
//! The rules of laying over are told in `manifests/README.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::install::apply_yaml;
use crate::process::PATIENCE;

/// Folders that every site applies, in the lab too.
pub const COMMON: [&str; 2] = ["base", "systems"];
/// Folder of the lab's overlay.
pub const OVERLAY: &str = "lab";

/// Kinds in the order in which they are applied; what others name comes first.
const ORDER: [&str; 8] = [
    "CloudPolicy",
    "Department",
    "HostPool",
    "StoragePool",
    "Network",
    "Flavor",
    "Image",
    "BusinessSystem",
];

/// Values of a running lab, put in place of `${name}` in the overlay.
pub type Values = BTreeMap<String, String>;

/// The folder of declarations: `ZHENGYUN_MANIFESTS`, else that of the source tree.
pub fn folder() -> PathBuf {
    std::env::var_os("ZHENGYUN_MANIFESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests"),
        PathBuf::from,
    )
}

/// The declarations as the lab applies them: common folders with the overlay laid over, in order.
///
/// # Errors
/// Names the file that can not be read, or the value that the overlay needs and nobody gave.
pub fn for_lab(folder: &Path, values: &Values) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for part in COMMON {
        objects.extend(read_folder(&folder.join(part), None)?);
    }
    for patch in read_folder(&folder.join(OVERLAY), Some(values))? {
        match objects
            .iter_mut()
            .find(|object| identity(object) == identity(&patch))
        {
            Some(object) => lay_over(object, patch),
            None => objects.push(patch),
        }
    }
    sort(&mut objects);
    Ok(objects)
}

/// The objects of every YAML file in a folder, in the order of the file names.
///
/// # Errors
/// Names the file that can not be read, and why.
pub fn read_folder(folder: &Path, values: Option<&Values>) -> Result<Vec<Value>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: can not be read", folder.display()))?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let read = || -> Result<Vec<Value>> {
            let mut text = std::fs::read_to_string(&file)?;
            if let Some(values) = values {
                text = fill(&text, values)?;
            }
            serde_yaml::Deserializer::from_str(&text)
                .map(|document| Ok(Value::deserialize(document)?))
                .collect()
        };
        let read = read().with_context(|| format!("{}", file.display()))?;
        objects.extend(read.into_iter().filter(|object| !object.is_null()));
    }
    Ok(objects)
}

/// Puts values in place of `${name}`.
fn fill(text: &str, values: &Values) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').context("'${' is never closed")?;
        out.push_str(before);
        // A comment may speak of ${} itself.
        match values.get(name) {
            Some(value) => out.push_str(value),
            None if name.is_empty() => out.push_str("${}"),
            None => bail!(
                "${{{name}}}: no such value; there are {}",
                values.keys().cloned().collect::<Vec<_>>().join(", ")
            ),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn identity(object: &Value) -> [&str; 3] {
    let metadata = &object["metadata"];
    [&object["kind"], &metadata["namespace"], &metadata["name"]]
        .map(|value| value.as_str().unwrap_or_default())
}

fn sort(objects: &mut [Value]) {
    objects.sort_by_key(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        ORDER
            .iter()
            .position(|known| *known == kind)
            .unwrap_or(ORDER.len())
    });
}

/// Lays `patch` over `target`: mappings merge, lists of named items merge by name, `null` removes,
/// everything else is replaced.
fn lay_over(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                match target.get_mut(&key) {
                    _ if value.is_null() => drop(target.remove(&key)),
                    Some(present) => lay_over(present, value),
                    None => drop(target.insert(key, without_nulls(value))),
                }
            }
        }
        (Value::Array(target), Value::Array(patch)) if is_named(target) && is_named(&patch) => {
            for item in patch {
                match target
                    .iter_mut()
                    .find(|present| present["name"] == item["name"])
                {
                    Some(present) => lay_over(present, item),
                    None => target.push(without_nulls(item)),
                }
            }
        }
        (target, patch) => *target = without_nulls(patch),
    }
}

fn is_named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item["name"].is_string())
}

/// A patch that meets nothing to remove must not leave its `null` behind.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(key, value)| (key, without_nulls(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Applies objects in order; before the first one of a namespace waits until the operator has made it.
///
/// # Errors
/// What the API server answered, and for which object; or the namespace that did not come.
pub async fn apply(client: &Client, objects: &[Value]) -> Result<()> {
    for object in objects {
        let [kind, namespace, name] = identity(object);
        if !namespace.is_empty() {
            wait_for_namespace(client, namespace).await?;
        }
        apply_yaml(client, &object.to_string())
            .await
            .with_context(|| format!("{kind} {namespace}/{name}"))?;
    }
    Ok(())
}

/// Applies the declarations with these business systems, or with all of them when none is named.
///
/// # Errors
/// A system is not declared, the guest image can not be built, or the API server refuses.
pub async fn deploy(lab: &crate::Lab, systems: &[String]) -> Result<()> {
    let values = crate::guest::serve(&lab.files, &crate::guest::build()?)?;
    let mut objects = for_lab(&folder(), &values)?;
    let names: Vec<String> = objects
        .iter()
        .filter(|object| object["kind"] == "BusinessSystem")
        .map(|object| identity(object)[2].to_owned())
        .collect();
    if let Some(unknown) = systems.iter().find(|name| !names.contains(name)) {
        bail!(
            "{unknown} is no declared business system; there are: {}",
            names.join(", ")
        );
    }
    objects.retain(|object| {
        object["kind"] != "BusinessSystem"
            || systems.is_empty()
            || systems.iter().any(|name| *name == identity(object)[2])
    });
    apply(&lab.client, &objects).await
}

async fn wait_for_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let begin = Instant::now();
    while namespaces.get_opt(name).await?.is_none() {
        if begin.elapsed() > PATIENCE {
            bail!(
                "waited {PATIENCE:?} for namespace {name}; the operator makes it for the Department {name}: does one run?"
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}

#[cfg(test)]
#[path = "declarations_tests.rs"]
mod tests;
