//! A fleet in a file: everything that `placement` reads, to be asked about without the site.
//!
//! JSON with the name and version of its form, and a digest of its objects: a file that was cut
//! off or edited by hand is refused, since an answer about another fleet is worse than none.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{CloudPolicy, Department, Flavor, VirtualMachineMigration};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::Objects;

/// Name of the form.
const FORM: &str = "zhengyun.io/fleet-snapshot";
/// Version of the form; changes when an older reader would misunderstand a newer file.
const VERSION: u64 = 1;

/// A site as far as planning goes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was read, as RFC 3339; for people.
    pub saved_at: String,
    /// What the fleet is made of.
    pub objects: Objects,
    /// Sizes that people know.
    pub flavors: Vec<Arc<Flavor>>,
    /// The site's policy; one or none.
    pub policies: Vec<Arc<CloudPolicy>>,
    /// Moves: who moved a short while ago rests.
    pub migrations: Vec<Arc<VirtualMachineMigration>>,
    /// Departments with their quotas; none where the file is of a time when they were not saved.
    pub departments: Option<Vec<Arc<Department>>>,
}

/// Why a file is no fleet.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Not JSON.
    #[error("it is not JSON ({0}); make a new one with zyctl fleet save")]
    Json(#[source] serde_json::Error),
    /// Some other JSON.
    #[error("form is {0}, not {FORM}; name a file that zyctl fleet save made")]
    Form(String),
    /// Of a newer or unknown version.
    #[error(
        "version is {0} and this zyctl reads {VERSION}; use the zyctl that made it, or make a new one with zyctl fleet save"
    )]
    Version(String),
    /// Cut off or edited.
    #[error(
        "digest does not match its objects; the file was changed after it was saved: make a new one with zyctl fleet save"
    )]
    Digest,
    /// An object that can not be read.
    #[error("objects.{kind}[{index}] ({name}): {why}; make a new file with zyctl fleet save")]
    Object {
        /// Which list.
        kind: &'static str,
        /// Place in the list.
        index: usize,
        /// Name, where it has one.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A list that is not there.
    #[error("objects.{0}: is missing or no list; make a new file with zyctl fleet save")]
    List(&'static str),
}

impl SnapshotError {
    /// The same in Chinese (zh-CN).
    pub fn chinese(&self) -> String {
        let anew = "请用 zyctl fleet save 重新保存";
        match self {
            SnapshotError::Json(error) => format!("不是 JSON({error});{anew}"),
            SnapshotError::Form(form) => {
                format!("form 为 {form},应为 {FORM};请指定由 zyctl fleet save 保存的文件")
            }
            SnapshotError::Version(version) => format!(
                "version 为 {version},本 zyctl 只读取 {VERSION};请使用保存它的 zyctl,或{anew}"
            ),
            SnapshotError::Digest => format!("digest 与对象不符,文件在保存后被改动;{anew}"),
            SnapshotError::Object {
                kind,
                index,
                name,
                why,
            } => format!("objects.{kind}[{index}]({name}):{why};{anew}"),
            SnapshotError::List(list) => format!("objects.{list} 缺失或不是列表;{anew}"),
        }
    }
}

impl Snapshot {
    /// The site's policy, or its defaults.
    pub fn policy(&self) -> api::CloudPolicySpec {
        let first = self.policies.first();
        first.map(|policy| policy.spec.clone()).unwrap_or_default()
    }

    /// As text for a file.
    ///
    /// # Errors
    /// An object has no JSON form.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut objects = json!({
            "hostPools": values(&self.objects.host_pools)?, "hosts": values(&self.objects.hosts)?,
            "virtualMachines": values(&self.objects.vms)?, "volumes": values(&self.objects.volumes)?,
            "networks": values(&self.objects.networks)?, "images": values(&self.objects.images)?,
            "storagePools": values(&self.objects.storage_pools)?,
            "flavors": values(&self.flavors)?, "cloudPolicies": values(&self.policies)?,
            "migrations": values(&self.migrations)?,
        });
        if let Some(departments) = &self.departments {
            objects["departments"] = json!(values(departments)?);
        }
        let whole = json!({
            "form": FORM, "version": VERSION, "savedAt": self.saved_at,
            "digest": digest(&objects)?, "objects": objects,
        });
        Ok(format!("{}\n", serde_json::to_string_pretty(&whole)?))
    }

    /// From the text of a file.
    ///
    /// # Errors
    /// What is wrong with the file, and the remedy.
    pub fn from_text(text: &str) -> Result<Self, SnapshotError> {
        let whole: Value = serde_json::from_str(text).map_err(SnapshotError::Json)?;
        let told = |field: &str| {
            whole
                .get(field)
                .map_or("missing".to_owned(), Value::to_string)
        };
        if whole.get("form").and_then(Value::as_str) != Some(FORM) {
            return Err(SnapshotError::Form(told("form")));
        }
        if whole.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return Err(SnapshotError::Version(told("version")));
        }
        let objects = whole.get("objects").unwrap_or(&Value::Null);
        let right = digest(objects).map_err(SnapshotError::Json)?;
        if whole.get("digest").and_then(Value::as_str) != Some(right.as_str()) {
            return Err(SnapshotError::Digest);
        }
        let Value::Object(lists) = objects else {
            return Err(SnapshotError::List("hosts"));
        };
        let saved_at = whole.get("savedAt").and_then(Value::as_str);
        Ok(Self {
            saved_at: saved_at.unwrap_or_default().to_owned(),
            objects: Objects {
                host_pools: list(lists, "hostPools")?,
                hosts: list(lists, "hosts")?,
                vms: vms(lists)?,
                volumes: list(lists, "volumes")?,
                networks: list(lists, "networks")?,
                images: list(lists, "images")?,
                // Files of before do not name them; then their room is not judged.
                storage_pools: match lists.contains_key("storagePools") {
                    true => list(lists, "storagePools")?,
                    false => Vec::new(),
                },
            },
            flavors: list(lists, "flavors")?,
            policies: list(lists, "cloudPolicies")?,
            migrations: list(lists, "migrations")?,
            departments: match lists.contains_key("departments") {
                true => Some(list(lists, "departments")?),
                false => None,
            },
        })
    }
}

fn values<K: Serialize>(list: &[Arc<K>]) -> Result<Vec<Value>, serde_json::Error> {
    list.iter()
        .map(|object| serde_json::to_value(object.as_ref()))
        .collect()
}

/// SHA-256 of the compact form; keys are in order, so equal objects have equal digests.
fn digest(objects: &impl Serialize) -> Result<String, serde_json::Error> {
    let bytes = serde_json::to_vec(objects)?;
    Ok(format!("sha256:{:x}", Sha256::digest(bytes)))
}

fn list<K>(lists: &Map<String, Value>, kind: &'static str) -> Result<Vec<Arc<K>>, SnapshotError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let values = lists.get(kind).and_then(Value::as_array);
    let values = values.ok_or(SnapshotError::List(kind))?;
    let (mut known, mut objects) = (BTreeSet::new(), Vec::with_capacity(values.len()));
    for (index, value) in values.iter().enumerate() {
        let name = value.pointer("/metadata/name").and_then(Value::as_str);
        let wrong = |why: String| SnapshotError::Object {
            kind,
            index,
            name: name.unwrap_or("without a name").to_owned(),
            why,
        };
        let object: K =
            serde_json::from_value(value.clone()).map_err(|error| wrong(error.to_string()))?;
        if !known.insert((object.namespace(), object.name_any())) {
            return Err(wrong("stands there twice".to_owned()));
        }
        objects.push(Arc::new(object));
    }
    Ok(objects)
}

/// VMs are told apart by their uid: one without would stand for another.
fn vms(lists: &Map<String, Value>) -> Result<Vec<Arc<api::VirtualMachine>>, SnapshotError> {
    let kind = "virtualMachines";
    let vms: Vec<Arc<api::VirtualMachine>> = list(lists, kind)?;
    let mut known = BTreeSet::new();
    for (index, vm) in vms.iter().enumerate() {
        let uid = vm.metadata.uid.clone().unwrap_or_default();
        if uid.is_empty() || !known.insert(uid) {
            return Err(SnapshotError::Object {
                kind,
                index,
                name: vm.name_any(),
                why: "metadata.uid: is missing or stands there twice".to_owned(),
            });
        }
    }
    Ok(vms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let vm = json!({"metadata": {"name": "web", "namespace": "oa", "uid": "u"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []}});
        let mut snapshot = Snapshot {
            saved_at: "2026-11-25T08:00:00Z".to_owned(),
            ..Snapshot::default()
        };
        let vm = serde_json::from_value(vm).expect("a VM");
        snapshot.objects.vms.push(Arc::new(vm));
        snapshot
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let text = snapshot().to_text().expect("text");
        let read = Snapshot::from_text(&text).expect("a snapshot");
        assert_eq!(read.to_text().expect("text"), text);
        assert_eq!(read.objects.vms.len(), 1);
    }

    /// A file that was saved before departments were is read, and does not say that there are none.
    #[test]
    fn departments_are_saved_and_a_file_without_them_is_read() {
        let mut snapshot = snapshot();
        let old = Snapshot::from_text(&snapshot.to_text().expect("text")).expect("a snapshot");
        assert!(old.departments.is_none());
        let department = json!({"metadata": {"name": "tourism"}, "spec": {"displayName": "d",
            "quota": {"cpu": 8, "memory": "16Gi", "storage": "1Ti"}}});
        let department = serde_json::from_value(department).expect("a department");
        snapshot.departments = Some(vec![Arc::new(department)]);
        let new = Snapshot::from_text(&snapshot.to_text().expect("text")).expect("a snapshot");
        let departments = new.departments.expect("departments");
        let quota = departments[0].spec.quota.as_ref().expect("a quota");
        assert_eq!(quota.cpu, 8);
    }

    #[test]
    fn a_file_that_is_no_fleet_is_refused_with_what_is_wrong() {
        let good = snapshot().to_text().expect("text");
        let with = |change: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_str(&good).expect("JSON");
            change(&mut value);
            if let Ok(right) = digest(&value["objects"]) {
                value["digest"] = json!(right);
            }
            value.to_string()
        };
        let changed = good.replace("\"cpu\": 1", "\"cpu\": 2");
        let cases = [
            (good[..good.len() / 2].to_owned(), "not JSON"),
            ("[1]".to_owned(), "form is missing"),
            (with(&|value| value["version"] = json!(9)), "version is 9"),
            (changed, "digest"),
            (
                with(&|value| value["objects"]["hosts"] = json!("none")),
                "objects.hosts: is missing or no list",
            ),
            (
                with(&|value| value["objects"]["virtualMachines"][0]["spec"]["cpu"] = json!("x")),
                "objects.virtualMachines[0] (web)",
            ),
            (
                with(&|value| {
                    value["objects"]["virtualMachines"][0]["metadata"]["uid"] = json!("")
                }),
                "metadata.uid",
            ),
            (
                with(&|value| {
                    let vm = value["objects"]["virtualMachines"][0].clone();
                    value["objects"]["virtualMachines"] = json!([vm, vm]);
                }),
                "twice",
            ),
        ];
        for (text, wanted) in cases {
            let error = Snapshot::from_text(&text).expect_err(wanted);
            assert!(error.chinese().contains("zyctl fleet save"), "{error}");
            let error = error.to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
