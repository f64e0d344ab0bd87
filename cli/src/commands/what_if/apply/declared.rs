//! What the files of `zyctl what-if apply` declare.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use api::{BusinessSystem, Department, Flavor, VirtualMachine};
use kube::CustomResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::schema;
use crate::language::Language;

/// What files declare.
#[derive(Default)]
pub struct Declared {
    /// Business systems.
    pub systems: Vec<BusinessSystem>,
    /// VMs that stand alone.
    pub vms: Vec<VirtualMachine>,
    /// Sizes.
    pub flavors: Vec<Arc<Flavor>>,
    /// Departments with their quotas.
    pub departments: Vec<Arc<Department>>,
    /// Images, networks and volumes.
    pub objects: fleet::Objects,
    /// Kind and name of what the answer does not count with.
    pub left_out: Vec<String>,
}

impl Declared {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that can not be read, or an object that is not as its kind asks.
    pub fn read(language: Language, files: &[PathBuf]) -> Result<Self> {
        let mut declared = Self::default();
        for file in files {
            for value in documents(language, file)? {
                let added = declared.add(language, value);
                added.with_context(|| format!("-f {}", file.display()))?;
            }
        }
        Ok(declared)
    }

    fn add(&mut self, language: Language, value: Value) -> Result<()> {
        match value.get("kind").and_then(Value::as_str) {
            Some("BusinessSystem") => self.systems.push(typed(language, value)?),
            Some("VirtualMachine") => self.vms.push(typed(language, value)?),
            Some("Flavor") => self.flavors.push(Arc::new(typed(language, value)?)),
            Some("Department") => self.departments.push(Arc::new(typed(language, value)?)),
            Some("Image") => self.objects.images.push(Arc::new(typed(language, value)?)),
            Some("Network") => self
                .objects
                .networks
                .push(Arc::new(typed(language, value)?)),
            Some("Volume") => self.objects.volumes.push(Arc::new(typed(language, value)?)),
            Some(_) => self.left_out.push(named(language, &value)),
            None => anyhow::bail!(
                language
                    .pick("a document has no kind", "有文档缺少 kind")
                    .to_owned()
            ),
        }
        Ok(())
    }

    /// Tells what the answer does not count with; nothing when it counts with everything.
    pub fn told_left_out(&self, language: Language) -> String {
        if self.left_out.is_empty() {
            return String::new();
        }
        let names = self.left_out.join(language.pick(", ", "、"));
        match language {
            Language::English => format!(
                "not counted with, as what-if knows Department, Flavor, Image, Network and Volume beside BusinessSystem and VirtualMachine: {names}\n"
            ),
            Language::Chinese => format!(
                "以下对象未计入(除 BusinessSystem、VirtualMachine 外,what-if 只识别 Department、Flavor、Image、Network、Volume):{names}\n"
            ),
        }
    }
}

/// The documents of a YAML file.
fn documents(language: Language, file: &Path) -> Result<Vec<Value>> {
    let at =
        |english, chinese| format!("-f {}: {}", file.display(), language.pick(english, chinese));
    let text = std::fs::read_to_string(file).with_context(|| at("can not be read", "无法读取"))?;
    let mut values = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value: Value = serde::Deserialize::deserialize(document)
            .with_context(|| at("it is not YAML", "不是 YAML"))?;
        if !value.is_null() {
            values.push(value);
        }
    }
    Ok(values)
}

/// Kind and name, for sentences.
fn named(language: Language, value: &Value) -> String {
    let kind = value.get("kind").and_then(Value::as_str);
    let name = value.pointer("/metadata/name").and_then(Value::as_str);
    format!(
        "{} {}",
        kind.unwrap_or_default(),
        name.unwrap_or(language.pick("without a name", "(无名称)"))
    )
}

/// An object of a file. The API server never saw it, and a number beyond its bounds may be more than there is memory for.
fn typed<T: DeserializeOwned + CustomResourceExt>(language: Language, value: Value) -> Result<T> {
    let what = named(language, &value);
    schema::check::<T>(language, &value).with_context(|| what.clone())?;
    serde_json::from_value(value).with_context(|| what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_counted_with_is_named() {
        let mut declared = Declared::default();
        for value in [
            json!({"kind": "Flavor", "metadata": {"name": "2c4g"}, "spec": {"cpu": 2, "memory": "4Gi"}}),
            json!({"kind": "Department", "metadata": {"name": "archives"}, "spec": {"displayName": "d"}}),
            json!({"kind": "HostPool", "metadata": {"name": "main"}, "spec": {}}),
            json!({"kind": "Secret", "metadata": {"name": "key", "namespace": "archives"}}),
            json!({"kind": "BusinesSystem"}),
        ] {
            declared.add(Language::English, value).expect("a document");
        }
        assert_eq!((declared.flavors.len(), declared.departments.len()), (1, 1));
        let english = declared.told_left_out(Language::English);
        assert!(
            english.ends_with(": HostPool main, Secret key, BusinesSystem without a name\n"),
            "{english}"
        );
        let chinese = declared.told_left_out(Language::Chinese);
        assert!(chinese.starts_with("以下对象未计入"), "{chinese}");
        for language in [Language::English, Language::Chinese] {
            assert_eq!(Declared::default().told_left_out(language), "");
        }
    }

    #[test]
    fn a_document_that_is_none_is_told() {
        let mut declared = Declared::default();
        let mut told = |language, value| {
            let error = declared.add(language, value).expect_err("no object");
            error.to_string()
        };
        let none = json!({"metadata": {}});
        assert_eq!(
            told(Language::English, none.clone()),
            "a document has no kind"
        );
        assert_eq!(told(Language::Chinese, none), "有文档缺少 kind");
        let wrong = json!({"kind": "Flavor", "metadata": {"name": "2c4g"}, "spec": {"cpu": "two"}});
        assert_eq!(told(Language::English, wrong), "Flavor 2c4g");
        let many = json!({"kind": "Flavor", "metadata": {"name": "2c4g"}, "spec": {"cpu": 257, "memory": "4Gi"}});
        let error = declared.add(Language::English, many).expect_err("too many");
        assert_eq!(
            format!("{error:#}"),
            "Flavor 2c4g: spec.cpu: 257 is not allowed; write 1 to 256"
        );
    }
}
