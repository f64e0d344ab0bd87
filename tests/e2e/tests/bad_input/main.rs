//! What people get wrong and only the operator can know: each gives a sentence that names field,
//! value and remedy as a condition, and changes nothing. What others rely on can not be deleted.
//! A pool is filled to one VM past N+1: refused; removing one admits it; then any host may die.

mod full_pool;
mod refused;
mod site;

use anyhow::Result;
use e2e::story::check_programs;
use full_pool::{
    any_host_may_die, fill_the_pool, one_disk_for_two, what_exists_already, what_is_in_use_is_kept,
};
use lab::{Lab, LabOptions, declarations, guest};
use refused::{
    a_model_that_no_host_offers, systems_that_do_not_fit, vms_that_find_no_place,
    volumes_past_their_pool,
};
use serde_json::json;
use site::put;

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
    // What is told of volumes and of VMs has nothing to do with each other.
    tokio::try_join!(
        volumes_past_their_pool(&lab),
        vms_that_hosts_can_not_take(&lab, &image)
    )?;
    fill_the_pool(&lab, &image).await?;
    // None of these is given a host, and none touches what the others do.
    tokio::try_join!(
        what_exists_already(&lab, &image),
        what_is_in_use_is_kept(&lab, &image),
        one_disk_for_two(&lab, &image)
    )?;
    any_host_may_die(&lab).await?;
    lab.down()
}

/// One after the other: that no VM at all has a host is part of the first.
async fn vms_that_hosts_can_not_take(lab: &Lab, image: &str) -> Result<()> {
    vms_that_find_no_place(lab, image).await?;
    a_model_that_no_host_offers(lab, image).await
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
