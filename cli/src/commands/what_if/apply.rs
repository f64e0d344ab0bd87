//! `zyctl what-if apply`: declarations are applied, in thought.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use api::{BusinessSystem, Flavor, VirtualMachine};
use kube::ResourceExt;
use placement::{Admission, Engine, Fleet};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::commands::planning::{Planning, Told, vm_name};
use crate::language::Language;
use crate::table::Table;

/// Declarations are applied: what would start where, and what would wait and why.
///
/// # Errors
/// A file that can not be read or holds nothing to place.
pub fn apply(planning: &Planning, files: &[PathBuf]) -> Result<()> {
    let Declared {
        systems,
        vms: mut new,
        flavors: more,
        objects: beside,
        left_out,
    } = declared(files)?;
    let mut objects = planning.snapshot.objects.clone();
    objects.images.extend(beside.images);
    objects.networks.extend(beside.networks);
    objects.volumes.extend(beside.volumes);
    let mut flavors = planning.snapshot.flavors.clone();
    flavors.extend(more);
    for system in &systems {
        for tier in &system.spec.tiers {
            let flavor = flavors
                .iter()
                .find(|flavor| flavor.name_any() == tier.flavor);
            let image = objects
                .images
                .iter()
                .find(|image| image.name_any() == tier.image);
            let at = format!("{} spec.tiers[{}]", system.name_any(), tier.name);
            let (flavor, image) = match (flavor, image.cloned()) {
                (Some(flavor), Some(image)) => (flavor, image),
                (None, _) => bail!(
                    "{at}.flavor: Flavor {} does not exist; correct the name or create it",
                    tier.flavor
                ),
                (_, None) => bail!(
                    "{at}.image: Image {} does not exist; correct the name or create it",
                    tier.image
                ),
            };
            for replica in 0..tier.replicas {
                let volumes = fleet::system::volumes(Some(&image), system, tier, replica);
                objects.volumes.extend(volumes.into_iter().map(Arc::new));
                new.push(fleet::system::vm(Some(flavor), system, tier, replica));
            }
        }
    }
    let there = |vm: &VirtualMachine| {
        let known = planning.snapshot.objects.vms.iter();
        known
            .filter(|known| known.name_any() == vm.name_any())
            .any(|known| known.namespace() == vm.namespace())
    };
    let all = new.len();
    new.retain(|vm| !there(vm));
    if all == 0 {
        let others = if left_out.is_empty() {
            String::new()
        } else {
            format!(", only {}", left_out.join(", "))
        };
        bail!("-f: neither a BusinessSystem nor a VirtualMachine is declared there{others}");
    }
    let standing = all - new.len();
    for vm in &mut new {
        let uid = format!(
            "new/{}/{}",
            vm.namespace().unwrap_or_default(),
            vm.name_any()
        );
        vm.metadata.uid = Some(uid);
    }
    objects.vms.extend(new.iter().cloned().map(Arc::new));
    admitted(planning, &objects, &new, standing, &left_out)
}

/// What files declare.
#[derive(Default)]
struct Declared {
    systems: Vec<BusinessSystem>,
    vms: Vec<VirtualMachine>,
    flavors: Vec<Arc<Flavor>>,
    /// Images, networks and volumes.
    objects: fleet::Objects,
    /// Kind and name of what the answer does not count with.
    left_out: Vec<String>,
}

impl Declared {
    fn add(&mut self, value: Value) -> Result<()> {
        match value.get("kind").and_then(Value::as_str) {
            Some("BusinessSystem") => self.systems.push(typed(value)?),
            Some("VirtualMachine") => self.vms.push(typed(value)?),
            Some("Flavor") => self.flavors.push(Arc::new(typed(value)?)),
            Some("Image") => self.objects.images.push(Arc::new(typed(value)?)),
            Some("Network") => self.objects.networks.push(Arc::new(typed(value)?)),
            Some("Volume") => self.objects.volumes.push(Arc::new(typed(value)?)),
            Some(_) => self.left_out.push(named(&value)),
            None => bail!("a document has no kind"),
        }
        Ok(())
    }
}

fn declared(files: &[PathBuf]) -> Result<Declared> {
    let mut declared = Declared::default();
    for file in files {
        for value in documents(file)? {
            let added = declared.add(value);
            added.with_context(|| format!("-f {}", file.display()))?;
        }
    }
    Ok(declared)
}

/// Tells what the answer does not count with; nothing when it counts with everything.
fn told_left_out(language: Language, left_out: &[String]) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    let names = left_out.join(", ");
    match language {
        Language::English => format!(
            "not counted with, as what-if knows Flavor, Image, Network and Volume beside BusinessSystem and VirtualMachine: {names}\n"
        ),
        Language::Chinese => format!(
            "以下对象未计入(除 BusinessSystem、VirtualMachine 外,what-if 只识别 Flavor、Image、Network、Volume):{names}\n"
        ),
    }
}

fn admitted(
    planning: &Planning,
    objects: &fleet::Objects,
    new: &[VirtualMachine],
    standing: usize,
    left_out: &[String],
) -> Result<()> {
    let mut fleet = objects.fleet(fleet::closed_by_condition);
    let pending: Vec<_> = new
        .iter()
        .filter_map(|vm| {
            let uid = fleet::uid(vm);
            Some((vm.spec.priority, uid.clone(), *fleet.vms.remove(&uid)?))
        })
        .collect();
    let mut engine = Engine::new(fleet);
    let answers = placement::admit_all(&mut engine, pending);
    let pools: Vec<String> = engine.fleet().pools.keys().cloned().collect();
    let told: Vec<Told> = pools
        .iter()
        .filter_map(|pool| {
            let report = engine.headroom_report(pool)?;
            Some(planning.headroom(engine.fleet(), &report, pool))
        })
        .collect();
    let after = engine.fleet();
    let why = |answer: &Admission| match answer {
        Admission::Placed(choice) => choice.reasons.join("; "),
        Admission::Refused(refusal) => refusal.sentence(),
        Admission::Breaks {
            pool,
            headroom,
            tried,
        } => format!("{}; {}", breaks(after, pool, headroom), tried.sentence()),
    };
    let host = |answer: &Admission| match answer {
        Admission::Placed(choice) => Some(choice.host.clone()),
        Admission::Refused(_) | Admission::Breaks { .. } => None,
    };
    let json: Vec<Value> = answers
        .iter()
        .map(|(uid, answer)| {
            json!({"virtualMachine": vm_name(after, uid), "host": host(answer), "why": why(answer)})
        })
        .collect();
    let json = json!({"virtualMachines": json, "alreadyThere": standing, "leftOut": left_out,
        "after": told.iter().map(Told::json).collect::<Vec<_>>()});
    planning.print(&json, || {
        let mut table = Table::new([
            planning.say("VM", "虚拟机"),
            planning.say("HOST", "宿主机"),
            planning.say("WHY", "理由"),
        ]);
        for (uid, answer) in &answers {
            let host = host(answer).map_or_else(|| "-".to_owned(), |host| host.to_string());
            table.row([vm_name(after, uid), host, why(answer)]);
        }
        let placed = answers
            .iter()
            .filter(|(_, answer)| host(answer).is_some())
            .count();
        let waiting = answers.len() - placed;
        let mut text = match planning.language {
            Language::English => format!(
                "{placed} VMs would start, {waiting} would wait, {standing} are there already\n"
            ),
            Language::Chinese => {
                format!("{placed} 台虚拟机可以启动,{waiting} 台将等待,{standing} 台已存在\n")
            }
        };
        if !table.is_empty() {
            text.push_str(&table.render());
        }
        text.extend(told.iter().map(|told| told.text(planning)));
        text.push_str(&told_left_out(planning.language, left_out));
        text.push_str(&planning.nothing_changed());
        text
    })
}

fn breaks(fleet: &Fleet, pool: &str, headroom: &placement::Headroom) -> String {
    match headroom {
        placement::Headroom::Broken { failure, vm } => format!(
            "N+1 of pool {pool} would break: if host {failure} failed, {} would find no place",
            vm_name(fleet, vm)
        ),
        placement::Headroom::Unknown { failure } => {
            format!("N+1 of pool {pool} could not be proven for the failure of host {failure}")
        }
        placement::Headroom::Proven | placement::Headroom::NotPromised => String::new(),
    }
}

/// The documents of a YAML file.
fn documents(file: &PathBuf) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("-f {}: can not be read", file.display()))?;
    let mut values = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value: Value = serde::Deserialize::deserialize(document)
            .with_context(|| format!("-f {}: it is not YAML", file.display()))?;
        if !value.is_null() {
            values.push(value);
        }
    }
    Ok(values)
}

/// Kind and name, for sentences.
fn named(value: &Value) -> String {
    let kind = value.get("kind").and_then(Value::as_str);
    let name = value.pointer("/metadata/name").and_then(Value::as_str);
    format!(
        "{} {}",
        kind.unwrap_or_default(),
        name.unwrap_or("without a name")
    )
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    let what = named(&value);
    serde_json::from_value(value).with_context(|| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_with_is_named() {
        let mut declared = Declared::default();
        for value in [
            json!({"kind": "Flavor", "metadata": {"name": "2c4g"}, "spec": {"cpu": 2, "memory": "4Gi"}}),
            json!({"kind": "Department", "metadata": {"name": "archives"}, "spec": {"displayName": "d"}}),
            json!({"kind": "Secret", "metadata": {"name": "key", "namespace": "archives"}}),
            json!({"kind": "BusinesSystem"}),
        ] {
            declared.add(value).expect("a document");
        }
        assert_eq!(declared.flavors.len(), 1);
        assert_eq!(
            declared.left_out,
            [
                "Department archives",
                "Secret key",
                "BusinesSystem without a name"
            ]
        );
        for language in [Language::English, Language::Chinese] {
            let text = told_left_out(language, &declared.left_out);
            assert!(
                text.ends_with("Department archives, Secret key, BusinesSystem without a name\n"),
                "{text}"
            );
            assert_eq!(told_left_out(language, &[]), "");
        }
        let chinese = told_left_out(Language::Chinese, &declared.left_out);
        assert!(chinese.starts_with("以下对象未计入"), "{chinese}");
    }

    #[test]
    fn a_document_that_is_none_is_told() {
        let mut declared = Declared::default();
        let error = declared.add(json!({"metadata": {}})).expect_err("no kind");
        assert_eq!(error.to_string(), "a document has no kind");
        let wrong = json!({"kind": "Flavor", "metadata": {"name": "2c4g"}, "spec": {"cpu": "two"}});
        let error = declared.add(wrong).expect_err("no number");
        assert_eq!(error.to_string(), "Flavor 2c4g");
    }
}
