//! What does not fit is refused with a sentence, and nothing is made of it.

use anyhow::{Result, ensure};
use api::{HostPool, VirtualMachine, VirtualMachinePhase, Volume};
use e2e::isolation::until_answers;
use e2e::watch::{until, vms};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::Lab;
use serde_json::{Value, json};

use crate::site::{put, remove, system, until_refused, until_vm};

/// Department of the volumes that are refused: a quota counts every volume that is declared, so that beside
/// one of 900 TiB no VM of its department would start.
const VOLUMES_OF: &str = "tourism";

/// Names of things that do not exist, and demands that no host can meet: `Valid` is False, nothing
/// is made.
pub async fn systems_that_do_not_fit(lab: &Lab, image: &str) -> Result<()> {
    let cases = [
        (
            "unknown-image",
            json!({"image": "windows-95"}),
            "spec.tiers[web].image: Image windows-95 does not exist; create it, or name another here: nothing of this tier is made yet",
        ),
        (
            "unknown-flavor",
            json!({"flavor": "99c999g"}),
            "spec.tiers[web].flavor: Flavor 99c999g does not exist",
        ),
        (
            "unknown-pool",
            json!({"storagePool": "tape"}),
            "spec.tiers[web].storagePool: StoragePool tape does not exist",
        ),
        (
            "unknown-net",
            json!({"networks": ["lan"]}),
            "spec.tiers[web].networks: Network lan does not exist",
        ),
        (
            "wrong-zone",
            json!({"networks": ["dedicated"]}),
            "spec.tiers[web].networks: no host pool serves Dedicated (专用网络区); let a pool serve it, or name networks of one zone here: nothing of this tier is made yet",
        ),
        (
            "spread",
            json!({"replicas": 5, "spread": {"over": "Host", "required": true}}),
            "spec.tiers[web].replicas: 5 replicas must be on different hosts and the pool has 4",
        ),
    ];
    for (name, change, _) in &cases {
        let mut object = system(name, image);
        let tier = &mut object["spec"]["tiers"][0];
        for (field, value) in change.as_object().into_iter().flatten() {
            tier[field] = value.clone();
        }
        put(lab, &object).await?;
    }
    let mut object = system("grade", image);
    object["spec"]["mlpsGrade"] = json!(4);
    put(lab, &object).await?;
    let grade = (
        "grade",
        json!({}),
        "spec.mlpsGrade: 4 is above the grade of every host pool of that zone; lower it or raise a pool's mlpsGrade",
    );
    for (name, _, sentence) in cases.iter().chain([&grade]) {
        until_refused(lab, name, sentence).await?;
    }
    ensure!(
        vms(&lab.client).await?.is_empty(),
        "a VM was made for a system that does not fit"
    );
    corrected_in_place(lab, image).await?;
    for (name, ..) in cases.iter().chain([&grade]) {
        remove(lab, "egov-center", name).await?;
    }
    println!("{} systems refused with a sentence", cases.len() + 1);
    Ok(())
}

/// A system that was refused is declared again under its name as it was meant: its VM is made of what
/// stands there now, and from then on what the tier is made of stays.
async fn corrected_in_place(lab: &Lab, image: &str) -> Result<()> {
    let name = "unknown-flavor";
    put(lab, &system(name, image)).await?;
    until(&lab.client, "the corrected system's VM", async || {
        let vms = vms(&lab.client).await?;
        let vm = vms
            .iter()
            .find(|vm| vm.name_any() == "unknown-flavor-web-0");
        Ok(vm.is_some_and(|vm| vm.spec.memory == crate::MEMORY))
    })
    .await?;
    let mut late = system(name, image);
    late["spec"]["tiers"][0]["flavor"] = json!("wide");
    let answer = put(lab, &late).await.map_err(|error| format!("{error:#}"));
    ensure!(
        answer
            .as_ref()
            .is_err_and(|error| error
                .contains("changing the flavor of a running tier is not supported yet")),
        "a tier that is made took another flavor: {answer:?}"
    );
    Ok(())
}

/// An impossible size and an exceeded quota: the VM waits and says why.
pub async fn vms_that_find_no_place(lab: &Lab, image: &str) -> Result<()> {
    let mut huge = system("huge", image);
    huge["spec"]["tiers"][0]["flavor"] = json!("huge");
    put(lab, &huge).await?;
    let mut wide = system("wide", image);
    wide["metadata"]["namespace"] = json!("trade-union");
    wide["spec"]["tiers"][0]["flavor"] = json!("wide");
    put(lab, &wide).await?;
    until_vm(
        lab,
        "the refusal of an impossible size",
        "huge-web-0",
        "no host fits (4 hosts: not enough memory)",
    )
    .await?;
    until_vm(
        lab,
        "the refusal by quota",
        "wide-web-0",
        "spec.quota.cpu of department trade-union: 17 would be used of 16; release something or raise the quota",
    )
    .await?;
    for object in untold(image) {
        put(lab, &object).await?;
    }
    until_vm(
        lab,
        "the missing Secret to be named",
        "untold",
        "spec.cloudInit.name: Secret untold-seed does not exist in egov-center; make it",
    )
    .await?;
    for vm in vms(&lab.client).await? {
        let status = vm.status.clone().unwrap_or_default();
        ensure!(
            status.assignment.is_none(),
            "{} was assigned",
            vm.name_any()
        );
        let scheduled = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Scheduled");
        ensure!(
            scheduled.is_some_and(|condition| condition.status == "False"),
            "{}: condition Scheduled: {scheduled:?}",
            vm.name_any()
        );
    }
    let api: Api<VirtualMachine> = Api::namespaced(lab.client.clone(), "egov-center");
    api.delete("untold", &DeleteParams::default()).await?;
    remove(lab, "egov-center", "huge").await?;
    remove(lab, "trade-union", "wide").await?;
    until(&lab.client, "the untold VM to go", async || {
        let mut vms = vms(&lab.client).await?.into_iter();
        Ok(!vms.any(|vm| vm.name_any() == "untold"))
    })
    .await?;
    let volumes: Api<Volume> = Api::namespaced(lab.client.clone(), "egov-center");
    volumes
        .delete("untold-system", &DeleteParams::default())
        .await?;
    Ok(())
}

/// A VM that would be told what is not there, and its volume.
fn untold(image: &str) -> [Value; 2] {
    let of = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": "egov-center"}, "spec": spec})
    };
    let volume = json!({"pool": "shared", "size": "64Mi", "reclaimPolicy": "Delete"});
    let vm = json!({"cpu": 1, "memory": "32Mi", "image": image, "networks": ["common"],
        "cloudInit": {"name": "untold-seed"},
        "disks": [{"name": "system", "volume": "untold-system"}]});
    [
        of("Volume", "untold-system", volume),
        of("VirtualMachine", "untold", vm),
    ]
}

/// A volume that is larger than its pool is not made; one that would grow past it stays as it is, and its
/// size may be set back.
pub async fn volumes_past_their_pool(lab: &Lab) -> Result<()> {
    let of = |name: &str, size: &str| {
        json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume",
            "metadata": {"name": name, "namespace": VOLUMES_OF},
            "spec": {"pool": "shared", "size": size, "reclaimPolicy": "Delete"}})
    };
    let api: Api<Volume> = Api::namespaced(lab.client.clone(), VOLUMES_OF);
    let is = async |name: &str, phase: &str, sentence: &str| {
        let status = api.get(name).await?.status.unwrap_or_default();
        let message = status.message.unwrap_or_default();
        Ok(status.phase.as_deref() == Some(phase)
            && message.contains(sentence)
            && message.is_empty() == sentence.is_empty())
    };
    put(lab, &of("boundless", "900Ti")).await?;
    put(lab, &of("modest", "64Mi")).await?;
    until(
        &lab.client,
        "a volume past its pool to be refused",
        async || is("boundless", "Pending", "spec.size: 900Ti is more than the").await,
    )
    .await?;
    let ready = async || is("modest", "Ready", "").await;
    until(&lab.client, "the modest volume", ready).await?;
    put(lab, &of("modest", "900Ti")).await?;
    until(
        &lab.client,
        "a growth past the pool to be refused",
        async || {
            is(
                "modest",
                "Ready",
                "more than the volume has, and pool shared may still promise",
            )
            .await
        },
    )
    .await?;
    put(lab, &of("modest", "64Mi")).await?;
    until(&lab.client, "the growth to be taken back", ready).await?;
    put(lab, &of("modest", "128Mi")).await?;
    until(&lab.client, "a growth that fits", async || {
        let status = api.get("modest").await?.status.unwrap_or_default();
        let size = status.reported.and_then(|report| report.size_bytes);
        Ok(size == Some(128 << 20) && ready().await?)
    })
    .await?;
    for name in ["boundless", "modest"] {
        api.delete(name, &DeleteParams::default()).await?;
    }
    println!("volumes past their pool were refused, and one took its growth back");
    Ok(())
}

/// The pool names a processor model that no host has: nothing new is placed, and the model is named.
pub async fn a_model_that_no_host_offers(lab: &Lab, image: &str) -> Result<()> {
    let pools: Api<HostPool> = Api::all(lab.client.clone());
    let model = pools.get("main").await?.spec.cpu_model;
    let name_model = async |model: &Value| {
        let patch = json!({"spec": {"cpuModel": model}});
        pools
            .patch("main", &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    name_model(&json!("Nonesuch")).await?;
    put(lab, &system("exotic", image)).await?;
    let sentence = "no host fits (4 hosts: it does not offer processor model Nonesuch)";
    until_vm(lab, "the refusal for a model", "exotic-web-0", sentence).await?;
    until(&lab.client, "the pool to name its hosts", async || {
        let status = pools.get("main").await?.status.unwrap_or_default();
        Ok(status.conditions.iter().any(|condition| {
            condition.type_ == "ModelOffered"
                && condition.status == "False"
                && condition
                    .message
                    .contains("Nonesuch is not offered by h1, h2, h3, h4")
        }))
    })
    .await?;
    name_model(&json!(model)).await?;
    until(
        &lab.client,
        "the VM to run with the pool's model",
        async || {
            Ok(vms(&lab.client).await?.iter().any(|vm| {
                let status = vm.status.clone().unwrap_or_default();
                vm.name_any() == "exotic-web-0"
                    && status.phase == Some(VirtualMachinePhase::Running)
                    && status.cpu_model == model
            }))
        },
    )
    .await?;
    until_answers(lab, "exotic-web-0").await?;
    remove(lab, "egov-center", "exotic").await
}
