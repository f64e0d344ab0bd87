//! Networks are apart: what is sent into one reaches no guest of another, though both have guests on one host.

use anyhow::{Context as _, Result, ensure};
use api::{Network, VirtualMachine};
use kube::{Api, ResourceExt};
use lab::process::run;
use lab::{Lab, namespace};
use serde_json::Value;

use crate::hands::{host_of, is_on};
use crate::watch::{until, vms};

/// From the edge, which is in each network: a guest answers in its own and is not there in the other.
///
/// # Errors
/// A guest does not answer in its own network, or is heard in the other one.
pub async fn networks_are_apart(lab: &Lab, one: &str, other: &str) -> Result<()> {
    let machines = vms(&lab.client).await?;
    let (inside, outside) = machines
        .iter()
        .filter(|vm| is_on(vm, one))
        .find_map(|vm| {
            let beside = |beside: &&VirtualMachine| {
                is_on(beside, other) && host_of(beside).is_some() && host_of(beside) == host_of(vm)
            };
            Some((vm, machines.iter().find(beside)?))
        })
        .with_context(|| format!("no host carries guests of {one} and of {other}"))?;
    let (near, far) = (device(lab, one).await?, device(lab, other).await?);
    for (vm, device) in [(inside, &near), (outside, &far)] {
        ensure!(
            answers(lab, device, &address(vm)?),
            "{} does not answer in its own network, by {device}",
            vm.name_any()
        );
    }
    for (vm, device) in [(outside, &near), (inside, &far)] {
        let (name, address) = (vm.name_any(), address(vm)?);
        ensure!(
            !answers(lab, device, &address),
            "{name} answers by {device}, which is of another network"
        );
        let asked = neighbours(lab, device, &address)?;
        ensure!(!asked.is_empty(), "{name} was not looked for by {device}");
        ensure!(
            asked.iter().all(|entry| entry["lladdr"].is_null()),
            "{name} was heard by {device}, which is of another network: {asked:?}"
        );
    }
    println!("networks {one} and {other} share a host and hear nothing of each other");
    Ok(())
}

/// Waits until a guest answers in its first network: it has booted, and hears the power button that whoever
/// stops it presses. A guest that is asked earlier is switched off only when the agent's patience ends, after 30 s.
///
/// # Errors
/// It does not answer.
pub async fn until_answers(lab: &Lab, name: &str) -> Result<()> {
    until(&lab.client, &format!("{name} to answer"), async || {
        let machines = vms(&lab.client).await?;
        let vm = machines.iter().find(|vm| vm.name_any() == name);
        let vm = vm.with_context(|| format!("{name} does not exist"))?;
        let network = vm.spec.networks.first();
        let network = network.with_context(|| format!("{name} is on no network"))?;
        Ok(answers(lab, &device(lab, network).await?, &address(vm)?))
    })
    .await
    .map(drop)
}

/// The edge's device in a network.
async fn device(lab: &Lab, network: &str) -> Result<String> {
    let network: Network = Api::all(lab.client.clone()).get(network).await?;
    let vxlan = network
        .spec
        .vxlan
        .context("a network of the lab has a VNI")?;
    Ok(format!("zye{}", vxlan.vni))
}

/// First IPv4 address of a VM.
fn address(vm: &VirtualMachine) -> Result<String> {
    let nics = vm.status.iter().flat_map(|status| &status.nics);
    let mut addresses = nics.flat_map(|nic| &nic.addresses);
    let text = addresses.find(|text| text.contains('.'));
    let text = text.with_context(|| format!("{} has no IPv4 address", vm.name_any()))?;
    Ok(text.split('/').next().unwrap_or_default().to_owned())
}

/// Whether a guest's web server answers to what is sent by this device alone.
fn answers(lab: &Lab, device: &str, address: &str) -> bool {
    let (inside, url) = (
        namespace::control(&lab.files.name),
        format!("http://{address}/healthz"),
    );
    // The time-out is shorter than three unanswered requests for its hardware address.
    let arguments = [
        "netns",
        "exec",
        inside.as_str(),
        "curl",
        "--silent",
        "--interface",
        device,
        "--max-time",
        "2",
        url.as_str(),
    ];
    run("ip", arguments).is_ok()
}

/// What the edge knows of an address at this device; an entry without `lladdr` was asked for in vain.
fn neighbours(lab: &Lab, device: &str, address: &str) -> Result<Vec<Value>> {
    let inside = namespace::control(&lab.files.name);
    let arguments = [
        "-n",
        inside.as_str(),
        "-j",
        "neigh",
        "show",
        "to",
        address,
        "dev",
        device,
    ];
    Ok(serde_json::from_str(&run("ip", arguments)?)?)
}
