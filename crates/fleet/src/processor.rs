//! Processor models: what hosts offer to guests, and what running VMs see.
//!
//! A pool names the model that every VM is started with. Where it names none, a VM sees the model of the
//! host that started it, with everything that this host has, and moves only to hosts of the same one. A
//! VM goes on with what it was started with whatever becomes of its pool.

use std::collections::{BTreeMap, BTreeSet};

use api::{Host, HostReport, VirtualMachine};

use crate::{Objects, name};

/// Which models matter: hosts offer dozens, of which pools and VMs name a few.
pub(crate) struct Models<'a> {
    named: BTreeSet<&'a str>,
    hosts: BTreeMap<&'a str, &'a HostReport>,
}

/// The model of a host itself, where guests can see that: under emulation they see another.
fn own(report: &HostReport) -> Option<String> {
    let shows = report.domain_type == "kvm" && !report.cpu_model.is_empty();
    shows.then(|| format!("{} (the host's own)", report.cpu_model))
}

impl<'a> Models<'a> {
    pub(crate) fn of(objects: &'a Objects) -> Self {
        let pools = objects.host_pools.iter();
        let pools = pools.filter_map(|pool| pool.spec.cpu_model.as_deref());
        let vms = objects.vms.iter();
        let vms = vms.filter_map(|vm| vm.status.as_ref()?.cpu_model.as_deref());
        let hosts = objects.hosts.iter();
        Self {
            named: pools.chain(vms).collect(),
            hosts: hosts
                .filter_map(|host| Some((name(host.as_ref()), host.reported()?)))
                .collect(),
        }
    }

    /// Of the models that matter, those that a host offers; none where its agent does not tell.
    pub(crate) fn offered_by(&self, host: &Host) -> Option<BTreeSet<String>> {
        let report = host.reported()?;
        let offered = report.cpu_models.as_ref()?.iter();
        let named = offered.filter(|model| self.named.contains(model.as_str()));
        Some(named.cloned().chain(own(report)).collect())
    }

    /// The model that the running copy of a VM sees.
    pub(crate) fn running(&self, vm: &VirtualMachine) -> Option<String> {
        let status = vm.status.as_ref()?;
        let host = status.assignment.as_ref()?.host.as_str();
        status
            .cpu_model
            .clone()
            .or_else(|| own(self.hosts.get(host)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use placement::Filter;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).expect("an object"))
    }

    fn host(name: &str, own: &str, kind: &str, models: Option<&[&str]>) -> Arc<Host> {
        let mut value = json!({
            "metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
            "status": {"reported": {
                "incarnation": {"bootId": "b", "systemUuid": "u"}, "capacity": {"cpu": 8, "memory": "64Gi"},
                "architecture": "x86_64", "cpuModel": own, "domainType": kind, "vtepAddress": "10.1.0.1"}}});
        if let Some(models) = models {
            value["status"]["reported"]["cpuModels"] = json!(models);
        }
        typed(value)
    }

    fn vm(name: &str, on: Option<&str>, model: Option<&str>) -> Arc<VirtualMachine> {
        let right = on.map(|host| json!({"host": host, "bootId": "b", "epoch": 1}));
        typed(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
            "status": {"assignment": right, "cpuModel": model}}))
    }

    fn site(model: Option<&str>, hosts: Vec<Arc<Host>>, vms: Vec<Arc<VirtualMachine>>) -> Objects {
        let pool = json!({"metadata": {"name": "main"}, "spec":
            {"zones": ["Common"], "architecture": "x86_64", "cpuModel": model, "failuresToTolerate": 0}});
        Objects {
            host_pools: vec![typed(pool)],
            hosts,
            vms,
            ..Objects::default()
        }
    }

    /// Hosts that a VM is refused, by name of the model.
    fn removed(objects: &Objects, vm: &str) -> Vec<String> {
        let mut fleet = objects.fleet(|_| None);
        for host in fleet.hosts.values_mut() {
            // Nothing else but models decides, and nobody has room.
            host.memory_bytes = 0;
        }
        let refusal = placement::place(&fleet, &vm.into(), &BTreeSet::new()).expect_err("no room");
        let models = refusal
            .removed
            .into_keys()
            .filter_map(|filter| match filter {
                Filter::CpuModel(model) => Some(model),
                _ => None,
            });
        models.collect()
    }

    #[test]
    fn a_new_vm_needs_the_pools_model_and_who_does_not_tell_is_not_judged() {
        let hosts = vec![
            host("old", "Nehalem", "qemu", Some(&["Nehalem"])),
            host("new", "Haswell", "qemu", Some(&["Nehalem", "Haswell"])),
            host("quiet", "Nehalem", "qemu", None),
        ];
        let objects = site(Some("Haswell"), hosts, vec![vm("v", None, None)]);
        assert_eq!(removed(&objects, "v"), ["Haswell"]);
        let fleet = objects.fleet(|_| None);
        let offered = |name: &str| fleet.hosts[&name.into()].cpu_models.clone();
        assert_eq!(offered("new"), Some(BTreeSet::from(["Haswell".to_owned()])));
        assert_eq!(offered("old"), Some(BTreeSet::new()));
        assert_eq!(offered("quiet"), None);
    }

    #[test]
    fn a_running_vm_keeps_what_it_was_started_with() {
        let hosts = vec![host("a", "Nehalem", "kvm", Some(&["Nehalem"]))];
        let objects = site(
            Some("Nehalem"),
            hosts,
            vec![vm("v", Some("a"), Some("Haswell"))],
        );
        let fleet = objects.fleet(|_| None);
        let vm = &fleet.vms[&"v".into()];
        assert_eq!(vm.runs_with, BTreeSet::from(["Haswell".to_owned()]).into());
        assert_eq!(removed(&objects, "v"), ["Haswell"]);
    }

    #[test]
    fn without_a_model_hosts_must_be_alike_for_a_move_but_not_under_emulation() {
        let hosts = |kind: &str| {
            vec![
                host("a", "Haswell", kind, Some(&["Nehalem", "Haswell"])),
                host(
                    "b",
                    "Icelake",
                    kind,
                    Some(&["Nehalem", "Haswell", "Icelake"]),
                ),
            ]
        };
        let vms = || vec![vm("v", Some("a"), None), vm("w", None, None)];
        let real = site(None, hosts("kvm"), vms());
        assert_eq!(removed(&real, "v"), ["Haswell (the host's own)"]);
        assert!(removed(&real, "w").is_empty(), "a new one starts anywhere");
        assert!(removed(&site(None, hosts("qemu"), vms()), "v").is_empty());
    }
}
