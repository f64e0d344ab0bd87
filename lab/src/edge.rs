//! The edge: where the control node enters each VM network, over the business network. The
//! operator's probes and the judges go through it, as a site's router would.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use api::Network;
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, config::Kubeconfig};

use crate::address::Addresses;
use crate::files::LabFiles;
use crate::namespace;
use crate::process::{join_namespace, run as command};

/// Watches the networks and keeps a tunnel end point for each, until it is killed.
///
/// # Errors
/// The API can not be reached at all.
pub fn run(files: &LabFiles) -> Result<()> {
    join_namespace(&namespace::control(&files.name))?;
    let addresses = files.addresses()?;
    let kubeconfig = files.kubeconfig("edge");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let client = Client::try_from(
                Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?,
            )?;
            let events =
                watcher(Api::<Network>::all(client), watcher::Config::default()).default_backoff();
            let mut events = events.boxed();
            while let Some(event) = events.next().await {
                let result = match event {
                    Ok(watcher::Event::Apply(network) | watcher::Event::InitApply(network)) => {
                        apply(&network, addresses)
                    }
                    Ok(watcher::Event::Delete(network)) => remove(&network),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = result {
                    eprintln!("edge: {error:#}");
                }
            }
            Ok(())
        })
}

fn device(network: &Network) -> Option<(String, i32)> {
    let vni = network.spec.vxlan.as_ref()?.vni;
    Some((format!("zye{vni}"), vni))
}

fn remove(network: &Network) -> Result<()> {
    match device(network) {
        Some((device, _)) => command("ip", ["link", "delete", &device]).map(drop),
        None => Ok(()),
    }
}

fn apply(network: &Network, addresses: Addresses) -> Result<()> {
    let Some((device, vni)) = device(network) else {
        return Ok(());
    };
    if command("ip", ["link", "show", &device]).is_err() {
        make(network, addresses, &device, vni)?;
    }
    let present: serde_json::Value =
        serde_json::from_str(&command("bridge", ["-j", "fdb", "show", "dev", &device])?)?;
    let flooded: BTreeSet<String> = present
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["mac"] == "00:00:00:00:00:00")
        .filter_map(|entry| entry["dst"].as_str().map(str::to_owned))
        .collect();
    let status = network.status.clone().unwrap_or_default();
    let own = addresses.edge().to_string();
    let wanted: BTreeSet<String> = status
        .vteps
        .into_iter()
        .map(|vtep| vtep.address)
        .filter(|address| *address != own)
        .collect();
    for (action, peers) in [
        ("append", wanted.difference(&flooded)),
        ("delete", flooded.difference(&wanted)),
    ] {
        for peer in peers {
            command(
                "bridge",
                [
                    "fdb",
                    action,
                    "00:00:00:00:00:00",
                    "dev",
                    &device,
                    "dst",
                    peer,
                ],
            )?;
        }
    }
    Ok(())
}

fn make(network: &Network, addresses: Addresses, device: &str, vni: i32) -> Result<()> {
    let (vni, local) = (vni.to_string(), addresses.edge().to_string());
    // No learning: every frame goes to all peers, so a VM is reached on both hosts while it moves.
    command(
        "ip",
        [
            "link",
            "add",
            device,
            "mtu",
            &network.spec.mtu.to_string(),
            "type",
            "vxlan",
            "id",
            &vni,
            "local",
            &local,
            "dstport",
            "4789",
            "nolearning",
        ],
    )?;
    for subnet in &network.spec.subnets {
        let Some(gateway) = &subnet.gateway else {
            continue;
        };
        let length = subnet
            .cidr
            .split_once('/')
            .context("a subnet has a prefix length")?
            .1;
        let address = format!("{gateway}/{length}");
        if gateway.contains(':') {
            command("ip", ["address", "add", &address, "dev", device, "nodad"])?;
        } else {
            command("ip", ["address", "add", &address, "dev", device])?;
        }
    }
    command("ip", ["link", "set", device, "up"]).map(drop)
}
