//! The site with the declarations applied, in thought: what would be new, and what the answer does not count.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use api::names::LABEL_SYSTEM;
use api::{
    BusinessSystem, Department, Flavor, RunStrategy, Tier, VirtualMachine, VirtualMachinePhase,
    Volume,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::declared::Declared;
use crate::commands::planning::Planning;
use crate::language::Language;

/// The site as it would be.
pub struct Wanted {
    /// Everything that stands and everything that is new.
    pub objects: fleet::Objects,
    /// Departments; none where the saved fleet does not tell.
    pub departments: Option<Vec<Arc<Department>>>,
    /// VMs that would be made.
    pub new: Vec<Arc<VirtualMachine>>,
    /// VMs of the site that wait for a host and are asked about with the new ones.
    pub waiting: Vec<Arc<VirtualMachine>>,
    /// How many of the declared VMs are there already.
    pub standing: usize,
    /// Changes of what stands, with which the answer does not count.
    pub changes: Vec<Change>,
}

/// A change of something that stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Kind and name.
    pub of: String,
    /// What changes.
    pub what: What,
}

/// What changes.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// Fields with their values before and after.
    Fields(Vec<(&'static str, String, String)>),
    /// It is no longer declared.
    Gone,
}

impl Change {
    /// In words.
    pub fn told(&self, language: Language) -> String {
        let what = match &self.what {
            What::Gone => language
                .pick(
                    "no longer declared; its room does not count as free",
                    "不再声明;其资源未计为空闲",
                )
                .to_owned(),
            What::Fields(fields) => {
                let fields = fields.iter();
                let fields =
                    fields.map(|(name, before, after)| format!("{name} {before} → {after}"));
                fields.collect::<Vec<_>>().join(language.pick(", ", "、"))
            }
        };
        format!("{}{}{what}", self.of, language.pick(": ", ":"))
    }
}

/// Fields of a VM that follow its declaration; what is beside them is not declared, or no matter of placement.
const FIELDS: [&str; 11] = [
    "cpu",
    "memory",
    "image",
    "disks",
    "networks",
    "highAvailability",
    "priority",
    "restartOrder",
    "startTimeoutSeconds",
    "mlpsGrade",
    "spread",
];
/// Fields that an owner sets at a VM itself; a business system leaves them alone.
const OWN_FIELDS: [&str; 2] = ["runStrategy", "affinity"];

/// As many replicas of a tier as the API server takes: nothing beyond is made, here neither.
const REPLICAS_MAX: i32 = 64;

impl Wanted {
    /// Applies what is declared.
    ///
    /// # Errors
    /// A tier names a flavor or image that is not there, or asks for more replicas than may be.
    pub fn of(planning: &Planning, declared: &Declared) -> Result<Self> {
        let mut wanted = Self {
            objects: planning.snapshot.objects.clone(),
            departments: planning.snapshot.departments.clone(),
            new: Vec::new(),
            waiting: Vec::new(),
            standing: 0,
            changes: Vec::new(),
        };
        wanted.waiting = wanted
            .objects
            .vms
            .iter()
            .filter(|vm| waits(vm))
            .cloned()
            .collect();
        replace(&mut wanted.objects.images, &declared.objects.images);
        replace(&mut wanted.objects.networks, &declared.objects.networks);
        if let Some(departments) = &mut wanted.departments {
            replace(departments, &declared.departments);
        }
        let mut flavors = planning.snapshot.flavors.clone();
        replace(&mut flavors, &declared.flavors);
        for volume in &declared.objects.volumes {
            wanted.add_volume(volume.as_ref().clone());
        }
        for vm in &declared.vms {
            wanted.add_vm(vm.clone(), true);
        }
        for system in &declared.systems {
            wanted.add_system(planning, system, &flavors)?;
        }
        wanted.objects.vms.extend(wanted.new.iter().cloned());
        Ok(wanted)
    }

    fn add_system(
        &mut self,
        planning: &Planning,
        system: &BusinessSystem,
        flavors: &[Arc<Flavor>],
    ) -> Result<()> {
        let mut names = BTreeSet::new();
        for tier in &system.spec.tiers {
            let flavor = flavors
                .iter()
                .find(|flavor| flavor.name_any() == tier.flavor);
            let flavor = flavor
                .ok_or_else(|| lacks(planning, system, tier, "flavor", "Flavor", &tier.flavor))?;
            let mut images = self.objects.images.iter();
            let image = images.find(|image| image.name_any() == tier.image).cloned();
            let image = image
                .ok_or_else(|| lacks(planning, system, tier, "image", "Image", &tier.image))?;
            if !(0..=REPLICAS_MAX).contains(&tier.replicas) {
                return Err(too_many(planning, system, tier));
            }
            for replica in 0..tier.replicas {
                let volumes = fleet::system::volumes(Some(&image), system, tier, replica);
                volumes
                    .into_iter()
                    .for_each(|volume| self.add_volume(volume));
                let vm = fleet::system::vm(Some(flavor), system, tier, replica);
                names.insert(vm.name_any());
                self.add_vm(vm, false);
            }
        }
        let (namespace, name) = (system.namespace(), system.name_any());
        let own = |vm: &&Arc<VirtualMachine>| {
            vm.namespace() == namespace && vm.labels().get(LABEL_SYSTEM) == Some(&name)
        };
        let gone = self.objects.vms.iter().filter(own);
        let gone = gone.filter(|vm| !names.contains(&vm.name_any()));
        let gone = gone.map(|vm| Change {
            of: named("VirtualMachine", vm.as_ref()),
            what: What::Gone,
        });
        self.changes.extend(gone.collect::<Vec<_>>());
        Ok(())
    }

    /// A volume that stands is kept as it is: its data lies somewhere.
    fn add_volume(&mut self, volume: Volume) {
        let known = self
            .objects
            .volumes
            .iter()
            .find(|known| same(known.as_ref(), &volume));
        let Some(known) = known else {
            return self.objects.volumes.push(Arc::new(volume));
        };
        let fields = differing(&["pool", "size"], &json!(known.spec), &json!(volume.spec));
        self.change("Volume", &volume, fields);
    }

    fn add_vm(&mut self, mut vm: VirtualMachine, alone: bool) {
        let known = self
            .objects
            .vms
            .iter()
            .find(|known| same(known.as_ref(), &vm));
        let Some(known) = known else {
            let uid = format!(
                "new/{}/{}",
                vm.namespace().unwrap_or_default(),
                vm.name_any()
            );
            vm.metadata.uid = Some(uid);
            return self.new.push(Arc::new(vm));
        };
        let (before, after) = (json!(known.spec), json!(vm.spec));
        let mut fields = differing(&FIELDS, &before, &after);
        if alone {
            fields.extend(differing(&OWN_FIELDS, &before, &after));
        }
        self.standing += 1;
        self.change("VirtualMachine", &vm, fields);
    }

    fn change(
        &mut self,
        kind: &str,
        object: &impl ResourceExt,
        fields: Vec<(&'static str, String, String)>,
    ) {
        if !fields.is_empty() {
            self.changes.push(Change {
                of: named(kind, object),
                what: What::Fields(fields),
            });
        }
    }
}

/// Whether the operator asks for a host for it: it should run, and has no right to any.
fn waits(vm: &VirtualMachine) -> bool {
    let status = vm.status.clone().unwrap_or_default();
    let pending = matches!(status.phase, None | Some(VirtualMachinePhase::Pending));
    pending
        && vm.spec.run_strategy != RunStrategy::Halted
        && vm.metadata.deletion_timestamp.is_none()
        && status.assignment.is_none()
        && status.incoming.is_none()
}

fn lacks(
    planning: &Planning,
    system: &BusinessSystem,
    tier: &Tier,
    field: &str,
    kind: &str,
    name: &str,
) -> anyhow::Error {
    let at = format!("{} spec.tiers[{}].{field}", system.name_any(), tier.name);
    planning.fail(
        format!("{at}: {kind} {name} does not exist; correct the name or create it"),
        format!("{at}:{kind} {name} 不存在;请更正名称或创建它"),
    )
}

fn too_many(planning: &Planning, system: &BusinessSystem, tier: &Tier) -> anyhow::Error {
    let at = format!("{} spec.tiers[{}].replicas", system.name_any(), tier.name);
    let replicas = tier.replicas;
    planning.fail(
        format!("{at}: {replicas} is not from 0 to {REPLICAS_MAX}; correct the number"),
        format!("{at}:{replicas} 不在 0 到 {REPLICAS_MAX} 之间;请更正"),
    )
}

/// Namespace and name are the same.
fn same(one: &impl ResourceExt, two: &impl ResourceExt) -> bool {
    one.name_any() == two.name_any() && one.namespace() == two.namespace()
}

/// Puts objects into the place of those of the same name, or beside them.
fn replace<K: ResourceExt>(list: &mut Vec<Arc<K>>, with: &[Arc<K>]) {
    for object in with {
        list.retain(|known| !same(known.as_ref(), object.as_ref()));
        list.push(object.clone());
    }
}

fn named(kind: &str, object: &impl ResourceExt) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{kind} {namespace}/{}", object.name_any())
}

/// Fields in which two specs differ.
fn differing(
    fields: &[&'static str],
    before: &Value,
    after: &Value,
) -> Vec<(&'static str, String, String)> {
    let told = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = fields.iter().filter(|name| before[**name] != after[**name]);
    fields
        .map(|name| (*name, told(&before[*name]), told(&after[*name])))
        .collect()
}
