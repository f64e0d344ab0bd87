//! What people get wrong and only the operator can know: each gives a sentence that names field,
//! value and remedy as a condition, and changes nothing. What others rely on can not be deleted.
//! A pool is filled to one VM past N+1: refused; removing one admits it; then any host may die.

use anyhow::{Context, Result, ensure};
use api::names::LABEL_SYSTEM;
use api::{
    BusinessSystem, Host, HostPool, NETWORK_COLLIDES, Network, VirtualMachine, VirtualMachinePhase,
    Volume,
};
use e2e::packer;
use e2e::story::check_programs;
use e2e::watch::{busy_host, headroom, on_host, systems, until, vms};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use lab::{Fault, Lab, LabOptions, declarations, guest};
use serde_json::{Value, json};

/// Room of each host: three VMs of the size below.
const CAPACITY: &str = "cpu=8,memory=512Mi";
/// Size of the VMs that fill the pool.
const MEMORY: &str = "160Mi";
/// With four hosts of three places each, N+1 leaves nine.
const PLACES: i32 = 9;

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_get_a_sentence_and_change_nothing() -> Result<()> {
    check_programs()?;
    let lab = Lab::up(LabOptions {
        name: "mistakes".to_owned(),
        capacity: CAPACITY.to_owned(),
        ..LabOptions::default()
    })
    .await?;
    let image = prepare(&lab).await?;
    systems_that_do_not_fit(&lab, &image).await?;
    vms_that_find_no_place(&lab, &image).await?;
    volumes_past_their_pool(&lab).await?;
    a_model_that_no_host_offers(&lab, &image).await?;
    fill_the_pool(&lab, &image).await?;
    what_exists_already(&lab, &image).await?;
    what_is_in_use_is_kept(&lab, &image).await?;
    one_disk_for_two(&lab, &image).await?;
    any_host_may_die(&lab).await?;
    lab.down()
}

/// The site's base without its systems; the pool serves two of three zones. The image's name.
async fn prepare(lab: &Lab) -> Result<String> {
    let folder = guest::build()?;
    let values = guest::serve(&lab.files, &folder)?;
    let mut objects = declarations::for_lab(&declarations::folder(), &values)?;
    objects.retain(|object| object["kind"] != "BusinessSystem");
    for object in &mut objects {
        if object["kind"] == "HostPool" {
            object["spec"]["zones"] = json!(["Common", "InternetAccess"]);
        }
    }
    declarations::apply(&lab.client, &objects).await?;
    for (name, cpu, memory) in [
        ("fill", 1, MEMORY),
        ("wide", 17, "128Mi"),
        ("huge", 4, "1Gi"),
    ] {
        let flavor = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "Flavor", "metadata": {"name": name}, "spec": {"cpu": cpu, "memory": memory}});
        put(lab, &flavor).await?;
    }
    Ok(values["image.name"].clone())
}

fn system(name: &str, image: &str) -> Value {
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
async fn put(lab: &Lab, object: &Value) -> Result<()> {
    declarations::apply(&lab.client, std::slice::from_ref(object)).await
}

async fn until_vm(lab: &Lab, what: &str, name: &str, sentence: &str) -> Result<()> {
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

async fn until_refused(lab: &Lab, name: &str, sentence: &str) -> Result<()> {
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

async fn remove(lab: &Lab, namespace: &str, name: &str) -> Result<()> {
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

/// Names of things that do not exist, and demands that no host can meet: `Valid` is False, nothing
/// is made.
async fn systems_that_do_not_fit(lab: &Lab, image: &str) -> Result<()> {
    let cases = [
        (
            "unknown-image",
            json!({"image": "windows-95"}),
            "spec.tiers[web].image: Image windows-95 does not exist; create it, or replace this tier by a new one",
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
            "spec.tiers[web].networks: no host pool serves Dedicated (专用网络区); let a pool serve it, or replace this tier",
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
    for (name, ..) in cases.iter().chain([&grade]) {
        remove(lab, "egov-center", name).await?;
    }
    println!("{} systems refused with a sentence", cases.len() + 1);
    Ok(())
}

/// An impossible size and an exceeded quota: the VM waits and says why.
async fn vms_that_find_no_place(lab: &Lab, image: &str) -> Result<()> {
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
    remove(lab, "egov-center", "huge").await?;
    remove(lab, "trade-union", "wide").await
}

/// A volume that is larger than its pool is not made; one that would grow past it stays as it is, and its
/// size may be set back.
async fn volumes_past_their_pool(lab: &Lab) -> Result<()> {
    let of = |name: &str, size: &str| {
        json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume",
            "metadata": {"name": name, "namespace": "egov-center"},
            "spec": {"pool": "shared", "size": size, "reclaimPolicy": "Delete"}})
    };
    let api: Api<Volume> = Api::namespaced(lab.client.clone(), "egov-center");
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
async fn a_model_that_no_host_offers(lab: &Lab, image: &str) -> Result<()> {
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
    remove(lab, "egov-center", "exotic").await
}

async fn running(lab: &Lab) -> Result<usize> {
    let runs = |vm: &VirtualMachine| {
        vm.status.as_ref().and_then(|status| status.phase) == Some(VirtualMachinePhase::Running)
    };
    Ok(vms(&lab.client).await?.iter().filter(|vm| runs(vm)).count())
}

/// Nine VMs fit with N+1; the tenth waits until one of them goes.
async fn fill_the_pool(lab: &Lab, image: &str) -> Result<()> {
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
async fn what_exists_already(lab: &Lab, image: &str) -> Result<()> {
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
async fn what_is_in_use_is_kept(lab: &Lab, image: &str) -> Result<()> {
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
async fn one_disk_for_two(lab: &Lab, image: &str) -> Result<()> {
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

/// The full pool loses a host: every VM finds a place. One dies really, each by count.
async fn any_host_may_die(lab: &Lab) -> Result<()> {
    packer::any_host_may_die(lab).await?;
    let host = busy_host(&lab.client).await?;
    lab.fault(Some(&host), Fault::PowerLoss)?;
    let all = usize::try_from(PLACES)?;
    until(&lab.client, "every VM to run on three hosts", async || {
        Ok(on_host(&lab.client, &host).await?.is_empty() && running(lab).await? == all)
    })
    .await?;
    println!("{host} died with the pool full: all {PLACES} VMs run");
    Ok(())
}
