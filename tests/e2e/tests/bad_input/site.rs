//! What the cases of this test declare and wait for.

use anyhow::Result;
use api::names::LABEL_SYSTEM;
use api::{BusinessSystem, VirtualMachine};
use e2e::watch::{runs, systems, until, vms};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use lab::{Lab, declarations};
use serde_json::{Value, json};

pub fn system(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem",
        "metadata": {"name": name, "namespace": "egov-center"},
        "spec": {"displayName": name, "mlpsGrade": 2, "tiers": [{
            "name": "web", "replicas": 1, "flavor": "fill", "image": image, "networks": ["common"],
            "storagePool": "shared", "spread": {"over": "Host", "required": false},
            "cloudInit": {"userData": "#cloud-config\nzhengyun: {role: default, tier: web}\n"}}]}
    })
}

/// Applies an object; one of a department waits for the department's namespace.
pub async fn put(lab: &Lab, object: &Value) -> Result<()> {
    declarations::apply(&lab.client, std::slice::from_ref(object)).await
}

pub async fn until_vm(lab: &Lab, what: &str, name: &str, sentence: &str) -> Result<()> {
    until(&lab.client, what, async || {
        Ok(vms(&lab.client).await?.iter().any(|vm| {
            vm.name_any() == name
                && vm
                    .status
                    .as_ref()
                    .and_then(|status| status.message.clone())
                    .is_some_and(|message| message.contains(sentence))
        }))
    })
    .await
    .map(drop)
}

pub async fn until_refused(lab: &Lab, name: &str, sentence: &str) -> Result<()> {
    until(&lab.client, name, async || {
        Ok(systems(&lab.client).await?.iter().any(|system| {
            let status = system.status.clone().unwrap_or_default();
            let valid = status
                .conditions
                .iter()
                .find(|condition| condition.type_ == "Valid");
            system.name_any() == name
                && status.state == "Invalid"
                && valid.is_some_and(|valid| {
                    valid.status == "False" && valid.message.contains(sentence)
                })
        }))
    })
    .await
    .map(drop)
}

pub async fn remove(lab: &Lab, namespace: &str, name: &str) -> Result<()> {
    let api: Api<BusinessSystem> = Api::namespaced(lab.client.clone(), namespace);
    api.delete(name, &DeleteParams::default()).await?;
    until(&lab.client, "the system's VMs to go", async || {
        let of_it = |vm: &VirtualMachine| {
            vm.namespace().as_deref() == Some(namespace)
                && vm.labels().get(LABEL_SYSTEM).map(String::as_str) == Some(name)
        };
        Ok(!vms(&lab.client).await?.iter().any(of_it))
    })
    .await
    .map(drop)
}

pub async fn running(lab: &Lab) -> Result<usize> {
    Ok(vms(&lab.client).await?.iter().filter(|vm| runs(vm)).count())
}
