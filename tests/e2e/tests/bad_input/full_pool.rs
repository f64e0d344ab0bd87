//! A pool that is full to one VM: what is refused then, and what is kept.

use anyhow::{Context, Result, ensure};
use api::names::LABEL_SYSTEM;
use api::{BusinessSystem, Host, NETWORK_COLLIDES, Network, VirtualMachine};
use e2e::isolation::until_answers;
use e2e::packer;
use e2e::watch::{busy_host, headroom, on_host, until, vms};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::{Fault, Lab};
use serde_json::{Value, json};

use crate::PLACES;
use crate::site::{put, remove, running, system, until_refused, until_vm};

/// Nine VMs fit with N+1; the tenth waits until one of them goes.
pub async fn fill_the_pool(lab: &Lab, image: &str) -> Result<()> {
    let mut fill = system("fill", image);
    fill["spec"]["tiers"][0]["replicas"] = json!(PLACES);
    put(lab, &fill).await?;
    let all = usize::try_from(PLACES)?;
    until(&lab.client, "the pool to be full", async || {
        Ok(running(lab).await? == all)
    })
    .await?;
    put(lab, &system("more", image)).await?;
    until_vm(
        lab,
        "the refusal of one VM past N+1",
        "more-web-0",
        "N+1 of pool main would break",
    )
    .await?;
    until(&lab.client, "N+1 to be shown as proven", async || {
        Ok(headroom(&lab.client).await? == "Proven")
    })
    .await?;
    // The one that goes.
    until_answers(lab, &format!("fill-web-{}", PLACES - 1)).await?;
    let api: Api<BusinessSystem> = Api::namespaced(lab.client.clone(), "egov-center");
    fill["spec"]["tiers"][0]["replicas"] = json!(PLACES - 1);
    fill["spec"]["priority"] = json!("High");
    api.patch(
        "fill",
        &PatchParams::apply("zylab").force(),
        &Patch::Apply(&fill),
    )
    .await?;
    until(&lab.client, "the waiting VM to be admitted", async || {
        let admitted = vms(&lab.client).await?.iter().any(|vm| {
            vm.name_any() == "more-web-0"
                && vm
                    .status
                    .as_ref()
                    .is_some_and(|status| status.assignment.is_some())
        });
        Ok(admitted && running(lab).await? == all)
    })
    .await?;
    until(&lab.client, "VMs to follow their system", async || {
        let follows = |vm: &VirtualMachine| {
            let fill = vm.labels().get(LABEL_SYSTEM).map(String::as_str) == Some("fill");
            !fill || json!(vm.spec.priority) == "High"
        };
        Ok(vms(&lab.client).await?.iter().all(follows))
    })
    .await?;
    println!("{PLACES} VMs fill the pool; one more waits until one goes");
    Ok(())
}

/// Of two systems whose VMs come to one name, and of two networks of one VNI, the later one is refused, and
/// no host builds the network.
pub async fn what_exists_already(lab: &Lab, image: &str) -> Result<()> {
    let named = |name: &str, tier: &str| {
        let mut object = system(name, image);
        object["spec"]["tiers"][0]["name"] = json!(tier);
        // Its VM stands and finds no host.
        object["spec"]["tiers"][0]["flavor"] = json!("huge");
        object
    };
    put(lab, &named("a-b", "c")).await?;
    let owners = async || -> Result<Vec<String>> {
        let all = vms(&lab.client).await?;
        let of_the_name = all.iter().filter(|vm| vm.name_any() == "a-b-c-0");
        Ok(of_the_name
            .filter_map(|vm| vm.labels().get(LABEL_SYSTEM).cloned())
            .collect())
    };
    until(&lab.client, "the first system's VM", async || {
        Ok(owners().await? == ["a-b"])
    })
    .await?;
    put(lab, &named("a", "b-c")).await?;

    let networks: Api<Network> = Api::all(lab.client.clone());
    let common = networks.get("common").await?.spec.vxlan;
    let vni = common.context("network common is no VXLAN")?.vni;
    let twin = json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "Network", "metadata": {"name": "twin"},
        "spec": {"zone": "InternetAccess", "vxlan": {"vni": vni}, "subnets": [{"cidr": "10.250.0.0/24"}]}
    });
    put(lab, &twin).await?;
    let mut on_twin = system("on-twin", image);
    on_twin["spec"]["tiers"][0]["networks"] = json!(["twin"]);
    put(lab, &on_twin).await?;

    until_refused(
        lab,
        "a",
        "spec.tiers[b-c].name: VM a-b-c-0 of this tier exists already and belongs to business system a-b",
    )
    .await?;
    let collides = format!("spec.vxlan.vni: {vni} is the VNI of network common");
    until_refused(
        lab,
        "on-twin",
        &format!("spec.tiers[web].networks: Network twin is not ready: {collides}"),
    )
    .await?;
    until(&lab.client, "the network to be refused", async || {
        Ok(networks.get("twin").await?.ready().is_some_and(|ready| {
            ready.status == "False"
                && ready.reason == NETWORK_COLLIDES
                && ready.message.contains(&collides)
        }))
    })
    .await?;
    let hosts: Api<Host> = Api::all(lab.client.clone());
    let mut reported = Vec::new();
    for host in hosts.list(&ListParams::default()).await?.items {
        let report = host.status.unwrap_or_default().reported;
        reported.extend(report.into_iter().flat_map(|report| report.networks));
    }
    ensure!(
        reported.iter().any(|network| network.name == "common"),
        "no host reports a network: {reported:?}"
    );
    ensure!(
        reported.iter().all(|network| network.name != "twin"),
        "a host built a network that was refused: {reported:?}"
    );
    ensure!(owners().await? == ["a-b"], "the VM changed its system");
    for name in ["a", "on-twin", "a-b"] {
        remove(lab, "egov-center", name).await?;
    }
    networks.delete("twin", &DeleteParams::default()).await?;
    println!("a name and a VNI that exist already were refused");
    Ok(())
}

/// Nothing that others rely on is deleted, by whomever.
pub async fn what_is_in_use_is_kept(lab: &Lab, image: &str) -> Result<()> {
    let host = busy_host(&lab.client).await?;
    let cases = [
        (
            "StoragePool",
            "",
            "shared",
            "storage pool shared is in use by",
        ),
        ("Image", "", image, "is in use by"),
        ("Host", "", host.as_str(), "drain it first: zyctl drain"),
        (
            "HostPool",
            "",
            "main",
            "host pool main is in use by 4 hosts",
        ),
        ("Network", "", "common", "network common is in use by"),
        (
            "Department",
            "",
            "egov-center",
            "department egov-center is in use by",
        ),
        (
            "Volume",
            "egov-center",
            "fill-web-0-system",
            "is claimed by a VM",
        ),
    ];
    for (kind, namespace, name, sentence) in cases {
        let gvk = kube::core::GroupVersionKind::gvk("zhengyun.io", "v1alpha1", kind);
        let (resource, _) = kube::discovery::pinned_kind(&lab.client, &gvk).await?;
        let api: Api<DynamicObject> = if namespace.is_empty() {
            Api::all_with(lab.client.clone(), &resource)
        } else {
            Api::namespaced_with(lab.client.clone(), namespace, &resource)
        };
        // Refused as soon as the operator has counted its users.
        until(
            &lab.client,
            &format!("{kind} {name} to be kept"),
            async || {
                let answer = api
                    .delete(
                        name,
                        &DeleteParams {
                            dry_run: true,
                            ..DeleteParams::default()
                        },
                    )
                    .await;
                Ok(matches!(answer, Err(error) if error.to_string().contains(sentence)))
            },
        )
        .await?;
        let refused = api.delete(name, &DeleteParams::default()).await;
        ensure!(refused.is_err(), "{kind} {name} was deleted");
        ensure!(
            api.get(name).await?.metadata.deletion_timestamp.is_none(),
            "{kind} {name} is being deleted"
        );
    }
    println!("{} objects in use were kept", cases.len());
    Ok(())
}

/// A VM that declares another's volume waits and names the holder.
pub async fn one_disk_for_two(lab: &Lab, image: &str) -> Result<()> {
    let contender = |name: &str, volume: &str| {
        json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": name, "namespace": "egov-center"},
            "spec": {"cpu": 1, "memory": "32Mi", "image": image, "networks": ["common"],
                     "disks": [{"name": "system", "volume": volume}]}
        })
    };
    put(lab, &contender("contender", "fill-web-0-system")).await?;
    put(lab, &contender("diskless", "nowhere")).await?;
    until_vm(
        lab,
        "the refusal of a claimed volume",
        "contender",
        "volume fill-web-0-system is claimed by",
    )
    .await?;
    until_vm(
        lab,
        "the missing volume to be named",
        "diskless",
        "volume nowhere of spec.disks[system], which does not exist; create it or correct the name",
    )
    .await?;
    disks_of_a_running_vm_stay(lab).await?;
    let api: Api<VirtualMachine> = Api::namespaced(lab.client.clone(), "egov-center");
    for name in ["contender", "diskless"] {
        let vm = api.get(name).await?;
        let started = vm.status.is_some_and(|status| status.assignment.is_some());
        ensure!(!started, "{name} was assigned");
        api.delete(name, &DeleteParams::default()).await?;
    }
    until(&lab.client, "both to go", async || {
        Ok(vms(&lab.client)
            .await?
            .iter()
            .all(|vm| !["contender", "diskless"].contains(&vm.name_any().as_str())))
    })
    .await
    .map(drop)
}

/// A running VM keeps its disks: with another's in its place it would be moved onto that one's data. One that has no host
/// may be given others.
async fn disks_of_a_running_vm_stay(lab: &Lab) -> Result<()> {
    let api: Api<VirtualMachine> = Api::namespaced(lab.client.clone(), "egov-center");
    let give = async |name: &str, disks: Value| {
        let patch = json!({"spec": {"disks": disks}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    let disk = |volume: &str| json!({"name": "system", "volume": volume});
    let added = json!([disk("fill-web-0-system"), {"name": "more", "volume": "nowhere"}]);
    for disks in [json!([disk("fill-web-1-system")]), added] {
        let answer = give("fill-web-0", disks).await;
        let refused = "spec.disks: can not be changed while the VM is assigned to a host";
        ensure!(
            answer
                .as_ref()
                .is_err_and(|error| error.to_string().contains(refused)),
            "{answer:?}"
        );
    }
    give("diskless", json!([disk("nowhere-else")])).await?;
    Ok(())
}

/// The full pool loses a host: every VM finds a place. One dies really, each by count. What the VMs of that one were told at
/// their first boot is gone meanwhile, and nobody misses it.
pub async fn any_host_may_die(lab: &Lab) -> Result<()> {
    packer::any_host_may_die(lab).await?;
    let host = busy_host(&lab.client).await?;
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), "egov-center");
    for vm in on_host(&lab.client, &host).await? {
        let reference = vm.spec.cloud_init.context("it was told something")?;
        secrets
            .delete(&reference.name, &DeleteParams::default())
            .await?;
    }
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let all = usize::try_from(PLACES)?;
    until(&lab.client, "every VM to run on three hosts", async || {
        Ok(on_host(&lab.client, &host).await?.is_empty() && running(lab).await? == all)
    })
    .await?;
    println!("{host} died with the pool full: all {PLACES} VMs run");
    Ok(())
}
