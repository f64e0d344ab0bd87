//! Network namespaces and cgroups of a lab: the control node with both bridges, and one
//! namespace per host with a link to each. Nothing lies in the machine's own namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address::Addresses;
use crate::process::{run, wait_for};

/// The networks that link hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// eth0: API, migration, BMC.
    Management,
    /// eth1: tunnels between VMs, and the edge.
    Business,
}

/// Name of the control node's namespace.
pub fn control(lab: &str) -> String {
    format!("zy{lab}-ctl")
}

/// Name of a host's namespace.
pub fn host(lab: &str, host: &str) -> String {
    format!("zy{lab}-{host}")
}

fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

/// Makes the control node's namespace: bridges `mgmt` and `biz` with the control addresses.
///
/// # Errors
/// What `ip` said.
pub fn make_control(lab: &str, addresses: Addresses) -> Result<()> {
    let name = control(lab);
    ip(&["netns", "add", &name])?;
    ip(&["-n", &name, "link", "set", "lo", "up"])?;
    for (bridge, address) in [("mgmt", addresses.control()), ("biz", addresses.edge())] {
        ip(&["-n", &name, "link", "add", bridge, "type", "bridge"])?;
        ip(&[
            "-n",
            &name,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            bridge,
        ])?;
        ip(&["-n", &name, "link", "set", bridge, "up"])?;
    }
    Ok(())
}

/// The NICs of a host.
pub const NICS: [&str; 2] = ["eth0", "eth1"];

/// The hardware address of a NIC: it tells the host and the NIC, as a machine keeps its own over boots.
pub fn hardware_address(addresses: Addresses, number: u8, nic: &str) -> String {
    format!(
        "02:5a:{:02x}:00:{:02x}:{number:02x}",
        addresses.index,
        u8::from(nic == "eth1")
    )
}

/// Makes a host's namespace, linked to both networks; the links are down until power on.
///
/// # Errors
/// What `ip` said.
pub fn make_host(lab: &str, addresses: Addresses, host_name: &str, number: u8) -> Result<()> {
    let (control, name) = (control(lab), host(lab, host_name));
    ip(&["netns", "add", &name])?;
    ip(&["-n", &name, "link", "set", "lo", "up"])?;
    for (device, bridge, address) in [
        ("eth0", "mgmt", addresses.management(number)),
        ("eth1", "biz", addresses.business(number)),
    ] {
        let peer = format!("{bridge}{number}");
        let mac = hardware_address(addresses, number, device);
        ip(&[
            "-n", &control, "link", "add", &peer, "type", "veth", "peer", "name", device,
            "address", &mac, "netns", &name,
        ])?;
        ip(&["-n", &control, "link", "set", &peer, "master", bridge, "up"])?;
        ip(&[
            "-n",
            &name,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            device,
        ])?;
    }
    Ok(())
}

/// Plugs or unplugs a host's cable, at the switch's end: the host sees its carrier go.
///
/// # Errors
/// What `ip` said.
pub fn set_link(lab: &str, number: u8, link: Link, up: bool) -> Result<()> {
    let peer = match link {
        Link::Management => format!("mgmt{number}"),
        Link::Business => format!("biz{number}"),
    };
    ip(&[
        "-n",
        &control(lab),
        "link",
        "set",
        &peer,
        if up { "up" } else { "down" },
    ])
    .map(drop)
}

/// Sets the host's own ends up, as its boot does.
///
/// # Errors
/// What `ip` said.
pub fn raise_host(lab: &str, host_name: &str) -> Result<()> {
    for device in ["eth0", "eth1"] {
        ip(&["-n", &host(lab, host_name), "link", "set", device, "up"])?;
    }
    Ok(())
}

/// Drops all devices that a former boot left in the host's namespace (bridges, tunnels, taps).
///
/// # Errors
/// What `ip` said.
pub fn clear_host(lab: &str, host_name: &str) -> Result<()> {
    let name = host(lab, host_name);
    let listing: serde_json::Value =
        serde_json::from_str(&ip(&["-n", &name, "-j", "link", "show"])?)?;
    for device in listing.as_array().into_iter().flatten() {
        let device = device["ifname"].as_str().unwrap_or_default();
        if !["lo", "eth0", "eth1"].contains(&device) {
            // Deleting a bridge or tunnel may take others with it.
            let _ = ip(&["-n", &name, "link", "delete", device]);
        }
    }
    Ok(())
}

/// Removes a host's namespace with its links, so that another may have its number at once.
///
/// # Errors
/// What `ip` said.
pub fn remove_host(lab: &str, host_name: &str, number: u8) -> Result<()> {
    // The kernel clears a namespace up later, and its links with it.
    for peer in [format!("mgmt{number}"), format!("biz{number}")] {
        ip(&["-n", &control(lab), "link", "delete", &peer])?;
    }
    remove(&host(lab, host_name))
}

/// Removes a namespace, if it exists.
///
/// # Errors
/// What `ip` said, unless it is gone all the same.
pub fn remove(name: &str) -> Result<()> {
    let place = Path::new("/run/netns").join(name);
    if !place.exists() {
        return Ok(());
    }
    match ip(&["netns", "delete", name]) {
        // Somebody else may have removed it meanwhile.
        Err(error) if place.exists() => Err(error),
        _ => Ok(()),
    }
}

/// Names of the namespaces that a lab (perhaps one that crashed) has.
pub fn of_lab(lab: &str) -> Vec<String> {
    let prefix = format!("zy{lab}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// The cgroup2 mount point of this machine.
///
/// # Errors
/// cgroup2 is not mounted.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(PathBuf::from))
        .context("cgroup2 is not mounted; mount it: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// Cgroup of a part of a lab: `control`, or a host.
///
/// # Errors
/// cgroup2 is not mounted.
pub fn cgroup(lab: &str, part: &str) -> Result<PathBuf> {
    Ok(cgroup_root()?.join(format!("zylab-{lab}-{part}")))
}

/// Makes a cgroup.
///
/// # Errors
/// The folder can not be made.
pub fn make_cgroup(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}: can not be made", path.display()))
}

/// Cgroups that a lab (perhaps one that crashed) has.
pub fn cgroups_of_lab(lab: &str) -> Result<Vec<PathBuf>> {
    let prefix = format!("zylab-{lab}-");
    let entries = fs::read_dir(cgroup_root()?)?.flatten();
    Ok(entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect())
}

/// Whether any process lives in a cgroup.
pub fn populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events"))
        .is_ok_and(|events| events.contains("populated 1"))
}

/// Freezes or thaws everything in a cgroup: a hung kernel.
///
/// # Errors
/// The cgroup does not exist.
pub fn freeze(path: &Path, frozen: bool) -> Result<()> {
    fs::write(path.join("cgroup.freeze"), if frozen { "1" } else { "0" })
        .with_context(|| format!("{}: can not be frozen", path.display()))
}

/// Kills everything in a cgroup at once and waits until it is gone. Whatever joins meanwhile (what a
/// program that was itself killed had just started) is killed as well.
///
/// # Errors
/// Something survived.
pub fn kill_cgroup(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    wait_for(
        &format!("{} to be empty", path.display()),
        Duration::from_secs(60),
        || {
            fs::write(path.join("cgroup.kill"), "1")
                .with_context(|| format!("{}: can not be killed", path.display()))?;
            Ok(!populated(path))
        },
    )
}

/// Kills and removes a cgroup.
///
/// # Errors
/// Something survived.
pub fn remove_cgroup(path: &Path) -> Result<()> {
    kill_cgroup(path)?;
    if path.exists() {
        wait_for(
            &format!("{} to be removed", path.display()),
            Duration::from_secs(10),
            || Ok(fs::remove_dir(path).is_ok()),
        )?;
    }
    Ok(())
}

/// Cuts or mends a host's network behind its NIC: the carrier stays, nothing passes.
///
/// # Errors
/// What `ip` said.
pub fn cut(lab: &str, number: u8, link: Link, cut: bool) -> Result<()> {
    let (peer, bridge) = match link {
        Link::Management => (format!("mgmt{number}"), "mgmt"),
        Link::Business => (format!("biz{number}"), "biz"),
    };
    let control = control(lab);
    let arguments: &[&str] = if cut {
        &["-n", &control, "link", "set", &peer, "nomaster"]
    } else {
        &["-n", &control, "link", "set", &peer, "master", bridge]
    };
    ip(arguments).map(drop)
}
