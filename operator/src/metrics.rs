//! What whoever watches the site reads of hosts, business systems and conditions on `/metrics`, as the
//! leader's caches hold them at that moment; alerting rules in `charts/zhengyun/alerts`.

use std::sync::{Arc, PoisonError};

use api::{BusinessSystem, CloudPolicy, Host, NO_BMC, VirtualMachine, VirtualMachinePhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::runtime::Context;

/// A family of gauges: name, help, labels.
type Family = (&'static str, &'static str, &'static [&'static str]);

const HOST_STATE: Family = (
    "zhengyun_host_state",
    "1 for the state that the host is in",
    &["host", "state"],
);
const SYSTEM_STATE: Family = (
    "zhengyun_business_system_state",
    "1 for the state that the business system is in",
    &["namespace", "system", "state"],
);
const CONDITION: Family = (
    "zhengyun_condition",
    "1 while a condition of a Host or of the CloudPolicy is True, 0 while it is not; no BmcReady of a host without BMC",
    &["kind", "name", "type"],
);

const STALLED: Family = (
    "zhengyun_virtual_machine_stalled",
    "1 for a VM whose guest stands still since a disk failed",
    &["namespace", "vm"],
);
/// What only single hosts are asked about is held back by it: see `HostWatch::storm_stands`.
const STORM: Family = (
    "zhengyun_storm",
    "1 while the storm guard stands and several hosts are silent: none is forced off, or one at a time; 0 else",
    &[],
);

/// The site, as Prometheus reads it.
pub struct Site {
    context: Arc<Context>,
    descriptions: Vec<Desc>,
}

impl Site {
    /// Reads the caches of this operator whenever it is asked, as long as it leads.
    ///
    /// # Errors
    /// A name that Prometheus does not take.
    pub fn new(context: Arc<Context>) -> Result<Self, prometheus::Error> {
        let describe = |family| options(family).describe();
        let families = [HOST_STATE, SYSTEM_STATE, CONDITION, STALLED, STORM].into_iter();
        Ok(Self {
            context,
            descriptions: families.map(describe).collect::<Result<_, _>>()?,
        })
    }
}

impl Collector for Site {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if !self.context.writer.leads() {
            return Vec::new();
        }
        let stores = &self.context.stores;
        let storm = {
            let watch = self.context.hosts.lock();
            watch.unwrap_or_else(PoisonError::into_inner).storm_stands()
        };
        families(
            &stores.hosts.state(),
            &stores.systems.state(),
            &stores.policies.state(),
            &stores.vms.state(),
            storm,
        )
        .unwrap_or_else(|error| {
            tracing::error!(%error, "metrics of the site");
            Vec::new()
        })
    }
}

fn options((name, help, labels): Family) -> Opts {
    let labels = labels.iter().map(|label| (*label).to_owned());
    Opts::new(name, help).variable_labels(labels.collect())
}

fn gauges(family: Family) -> Result<IntGaugeVec, prometheus::Error> {
    let (name, help, labels) = family;
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn families(
    hosts: &[Arc<Host>],
    systems: &[Arc<BusinessSystem>],
    policies: &[Arc<CloudPolicy>],
    vms: &[Arc<VirtualMachine>],
    storm: bool,
) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let (host_states, system_states) = (gauges(HOST_STATE)?, gauges(SYSTEM_STATE)?);
    let (conditions, stalled) = (gauges(CONDITION)?, gauges(STALLED)?);
    let stands = gauges(STORM)?;
    stands.with_label_values::<&str>(&[]).set(storm.into());
    // Of what a host does not have there is nothing to watch.
    let watched = |one: &&Condition| one.reason != NO_BMC;
    let tell = |kind: &str, name: &str, judged: &[Condition]| {
        for condition in judged.iter().filter(watched) {
            let labels = [kind, name, condition.type_.as_str()];
            let is_true = condition.status == "True";
            conditions.with_label_values(&labels).set(is_true.into());
        }
    };
    for host in hosts {
        let (name, status) = (host.name_any(), host.status.clone().unwrap_or_default());
        if let Some(state) = status.state {
            let labels = [name.as_str(), &format!("{state:?}")];
            host_states.with_label_values(&labels).set(1);
        }
        tell("Host", &name, &status.conditions);
    }
    for system in systems {
        let status = system.status.clone().unwrap_or_default();
        if !status.state.is_empty() {
            let namespace = system.namespace().unwrap_or_default();
            let labels = [namespace.as_str(), &system.name_any(), &status.state];
            system_states.with_label_values(&labels).set(1);
        }
    }
    for policy in policies {
        let status = policy.status.clone().unwrap_or_default();
        tell("CloudPolicy", &policy.name_any(), &status.conditions);
    }
    for vm in vms {
        let phase = vm.status.as_ref().and_then(|status| status.phase);
        if phase == Some(VirtualMachinePhase::Stalled) {
            let namespace = vm.namespace().unwrap_or_default();
            let labels = [namespace.as_str(), &vm.name_any()];
            stalled.with_label_values(&labels).set(1);
        }
    }
    let all = [host_states, system_states, conditions, stalled, stands];
    Ok(all.iter().flat_map(Collector::collect).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    /// Names of what is told here.
    pub(crate) fn names() -> BTreeSet<String> {
        [HOST_STATE, SYSTEM_STATE, CONDITION, STALLED, STORM]
            .map(|(name, _, _)| name.to_owned())
            .into()
    }

    fn series(families: &[MetricFamily]) -> BTreeSet<String> {
        let one = |family: &MetricFamily| {
            let metrics = family.get_metric().iter();
            let lines = metrics.map(|metric| {
                let labels = metric.get_label().iter();
                let labels: Vec<_> = labels
                    .map(|label| format!("{}={}", label.name(), label.value()))
                    .collect();
                let value = metric.get_gauge().get_value();
                format!("{} {} {value}", family.name(), labels.join(" "))
            });
            lines.collect::<Vec<_>>()
        };
        families.iter().flat_map(one).collect()
    }

    #[test]
    fn states_and_conditions_are_told_as_they_stand() {
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": "X", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let host: Host = serde_json::from_value(json!({
            "metadata": {"name": "h1"}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
            "status": {"state": "Unreachable", "conditions": [condition("SelfFencing", "False")]},
        }))
        .expect("a host");
        let bare: Host = serde_json::from_value(json!({
            "metadata": {"name": "h2"}, "spec": {"pool": "main", "managementAddress": "10.0.0.2"},
            "status": {"conditions": [
                {"type": "BmcReady", "status": "False", "reason": NO_BMC, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"},
                condition("HardwareHealthy", "True"),
            ]},
        }))
        .expect("a host without BMC");
        let system: BusinessSystem = serde_json::from_value(json!({
            "metadata": {"name": "oa", "namespace": "egov-center"},
            "spec": {"displayName": "OA", "tiers": [], "endpoints": []},
            "status": {"state": "Down"},
        }))
        .expect("a system");
        let policy: CloudPolicy = serde_json::from_value(json!({
            "metadata": {"name": "default"}, "spec": {},
            "status": {"conditions": [condition("Valid", "True")]},
        }))
        .expect("a policy");
        let vm = |name: &str, phase: &str| -> Arc<VirtualMachine> {
            let vm = json!({
                "metadata": {"name": name, "namespace": "n"},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
                "status": {"phase": phase},
            });
            Arc::new(serde_json::from_value(vm).expect("a VM"))
        };
        let vms = [vm("db", "Stalled"), vm("web", "Running")];
        let told = families(
            &[host.into(), bare.into()],
            &[system.into()],
            &[policy.into()],
            &vms,
            false,
        );
        let told = told.expect("families");
        let expected = [
            "zhengyun_business_system_state namespace=egov-center state=Down system=oa 1",
            "zhengyun_condition kind=CloudPolicy name=default type=Valid 1",
            "zhengyun_condition kind=Host name=h1 type=SelfFencing 0",
            "zhengyun_condition kind=Host name=h2 type=HardwareHealthy 1",
            "zhengyun_host_state host=h1 state=Unreachable 1",
            "zhengyun_storm  0",
            "zhengyun_virtual_machine_stalled namespace=n vm=db 1",
        ];
        assert_eq!(series(&told), expected.map(str::to_owned).into());
        let told = families(&[], &[], &[], &[], true).expect("families");
        assert_eq!(series(&told), ["zhengyun_storm  1".to_owned()].into());
    }
}
