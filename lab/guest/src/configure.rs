//! Gives the NICs their addresses, by busybox `ip`. The only module that changes the guest's system.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use crate::seed::Nic;

const BUSYBOX: &str = "/bin/busybox";
const NICS: &str = "/sys/class/net";

/// Configures every NIC; returns one sentence for each that could not be, and goes on with the rest:
/// a guest with half its addresses can still be reached and looked into.
pub fn apply(nics: &[Nic]) -> Vec<String> {
    let mut problems = Vec::new();
    for nic in nics {
        match device_of(&nic.mac_address) {
            Ok(Some(device)) => {
                if let Err(problem) = apply_one(&device, nic) {
                    problems.push(problem);
                }
            }
            Ok(None) => problems.push(format!(
                "no NIC has the hardware address {}",
                nic.mac_address
            )),
            Err(error) => problems.push(format!("{NICS} can not be read: {error}")),
        }
    }
    problems
}

/// Name of the NIC with a hardware address.
fn device_of(mac_address: &str) -> io::Result<Option<String>> {
    for entry in fs::read_dir(NICS)? {
        let entry = entry?;
        let address = fs::read_to_string(entry.path().join("address"))?;
        if address.trim().eq_ignore_ascii_case(mac_address) {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn apply_one(device: &str, nic: &Nic) -> Result<(), String> {
    // Addresses are given out once per site, so looking for duplicates would only cost a second
    // in which IPv6 does not answer. And neighbours that already wait for this address are told at
    // once: a neighbour asks only every second.
    set("ipv6", device, "accept_dad", "0")?;
    set("ipv6", device, "ndisc_notify", "1")?;
    set("ipv4", device, "arp_notify", "1")?;
    for (address, length) in &nic.addresses {
        ip(&["addr", "add", &format!("{address}/{length}"), "dev", device])?;
    }
    let mtu = nic.mtu.map(|mtu| mtu.to_string());
    let mut link = vec!["link", "set", device];
    link.extend(mtu.iter().flat_map(|mtu| ["mtu", mtu]));
    link.push("up");
    // Up comes after the addresses: it is the moment at which neighbours are told.
    ip(&link)?;
    for (destination, gateway) in &nic.routes {
        let family = family_option(gateway);
        let to = destination.map_or("default".to_owned(), |(address, length)| {
            format!("{address}/{length}")
        });
        ip(&[
            family,
            "route",
            "replace",
            &to,
            "via",
            &gateway.to_string(),
            "dev",
            device,
        ])?;
    }
    Ok(())
}

/// Sets an option of a NIC in the kernel, where the kernel has it.
fn set(family: &str, device: &str, option: &str, value: &str) -> Result<(), String> {
    let file = format!("/proc/sys/net/{family}/conf/{device}/{option}");
    if !Path::new(&file).exists() {
        return Ok(());
    }
    fs::write(&file, value).map_err(|error| format!("{file}: {error}"))
}

fn family_option(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "-4" } else { "-6" }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(BUSYBOX)
        .arg("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("{BUSYBOX} can not be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), said.trim()))
}
