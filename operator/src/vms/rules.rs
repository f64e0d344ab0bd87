//! What becomes of the rules that VMs have about one another, for the condition `RulesObeyed`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use api::VirtualMachine;
use fleet::affinity::Read;
use model::VmUid;

use crate::conditions::Judged;
use crate::door;

/// What is to be said of rules, by who has them.
#[derive(Default)]
pub struct RuleNotes(Mutex<BTreeMap<VmUid, Judged>>);

impl RuleNotes {
    /// Remembers what was read.
    pub fn note(&self, read: Read) {
        let mut notes = BTreeMap::new();
        for (uid, why) in read.stricter {
            notes.insert(uid, Judged::new("RulesObeyed", true, "Stricter", why));
        }
        for (uid, sentences) in read.named_nothing {
            let judged = Judged::new("RulesObeyed", false, "NamesNothing", sentences.join("; "));
            notes.insert(uid, judged);
        }
        for (uid, rules) in read.rules {
            if let Some(why) = rules.contradiction {
                notes.insert(uid, Judged::new("RulesObeyed", false, "Contradiction", why));
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// What is said of a VM's rules; nothing of a VM that has none and is named by none.
    pub fn of(&self, vm: &VirtualMachine) -> Option<Judged> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = notes.get(&door::uid(vm)).cloned();
        let obeyed = || {
            Judged::new(
                "RulesObeyed",
                true,
                "Obeyed",
                "its rules about other VMs hold for every placement",
            )
        };
        noted.or_else(|| (!vm.spec.affinity.is_empty()).then(obeyed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn vm(name: &str, kind: &str, label: &str) -> Arc<VirtualMachine> {
        let value = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": [],
                "affinity": [{"kind": kind, "matchLabels": {"app": label}}]}});
        Arc::new(serde_json::from_value(value).expect("a VM"))
    }

    #[test]
    fn a_spread_that_names_nothing_or_gives_way_is_told() {
        let say = |forms: &[bool], labels: serde_json::Value| {
            let vms = forms.iter().enumerate().map(|(index, required)| {
                let name = index.to_string();
                let value = json!({
                    "metadata": {"name": name, "namespace": "n", "uid": name, "labels": labels},
                    "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": [],
                        "spread": {"over": "Host", "required": required}}});
                Arc::new(serde_json::from_value(value).expect("a VM"))
            });
            let vms: Vec<Arc<VirtualMachine>> = vms.collect();
            let notes = RuleNotes::default();
            notes.note(fleet::affinity::read(&vms));
            let told = notes.of(&vms[0]);
            told.map(|judged| (judged.good, judged.reason))
        };
        let tier = json!({"zhengyun.io/system": "s", "zhengyun.io/tier": "t"});
        assert_eq!(say(&[true, true], tier.clone()), None, "as every tier");
        assert_eq!(
            say(&[false, true], tier),
            Some((true, "Stricter".to_owned()))
        );
        assert_eq!(
            say(&[true], json!({})),
            Some((false, "NamesNothing".to_owned()))
        );
    }

    #[test]
    fn wrong_rules_are_named_and_good_ones_confirmed() {
        let say = |vms: &[Arc<VirtualMachine>]| {
            let notes = RuleNotes::default();
            notes.note(fleet::affinity::read(vms));
            notes.of(&vms[0]).map(|judged| judged.reason)
        };
        let (good, lost) = (vm("x", "Apart", "a"), vm("x", "Apart", "zz"));
        let other = vm("y", "Together", "a");
        assert_eq!(say(&[lost]).as_deref(), Some("NamesNothing"));
        assert_eq!(
            say(&[good.clone(), other]).as_deref(),
            Some("Contradiction")
        );
        assert_eq!(
            say(&[good, vm("y", "Apart", "a")]).as_deref(),
            Some("Obeyed")
        );
    }
}
