//! MAC and IP addresses of NICs: given once, kept as long as the VM lives, never given twice.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::{Network, Nic, Subnet, VirtualMachine};
use kube::ResourceExt;

use super::networks;
use crate::runtime::Context;

/// Addresses tried in one subnet.
const TRIED_MAX: u32 = 65_536;

/// NICs of a VM: those that it has, or new ones.
///
/// # Errors
/// Which network is missing or full.
pub fn of(context: &Context, vm: &VirtualMachine) -> Result<Vec<Nic>, String> {
    let standing = vm.status.clone().unwrap_or_default().nics;
    if standing.len() == vm.spec.networks.len() && !standing.is_empty() {
        return Ok(standing);
    }
    let networks = context.stores.networks.state();
    let vms = context.stores.vms.state();
    let taken: BTreeSet<String> = vms
        .iter()
        .flat_map(|vm| vm.status.clone().unwrap_or_default().nics)
        .flat_map(|nic| {
            nic.addresses
                .into_iter()
                .map(|address| address.split('/').next().unwrap_or_default().to_owned())
        })
        .collect();
    let taken = {
        let mut taken = taken;
        taken.extend(reserved(
            &networks.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        ));
        taken
    };
    // A lock in memory, as two VMs are given addresses within one turn.
    let mut given = GIVEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    if let Some((_, nics)) = given.iter().find(|(other, _)| *other == uid) {
        return Ok(nics.clone());
    }
    given.retain(|(other, _)| vms.iter().any(|vm| vm.metadata.uid.as_ref() == Some(other)));
    let mut taken: BTreeSet<String> = taken;
    taken.extend(
        given
            .iter()
            .flat_map(|(_, nics)| nics)
            .flat_map(|nic| &nic.addresses)
            .map(|address| address.split('/').next().unwrap_or_default().to_owned()),
    );
    let mut nics = Vec::new();
    for (index, name) in vm.spec.networks.iter().enumerate() {
        let network = networks
            .iter()
            .find(|network| network.name_any() == *name)
            .ok_or_else(|| format!("spec.networks: Network {name} does not exist"))?;
        if let Some(why) = networks::collision(network, &networks) {
            return Err(format!("Network {name} is not ready: {why}"));
        }
        let mut addresses = Vec::new();
        for subnet in &network.spec.subnets {
            let address = allocate(subnet, &taken).ok_or_else(|| {
                format!(
                    "Network {name}: subnet {} is full; add another network",
                    subnet.cidr
                )
            })?;
            taken.insert(address.split('/').next().unwrap_or_default().to_owned());
            addresses.push(address);
        }
        addresses.sort_by_key(|address| address.contains(':'));
        nics.push(Nic {
            network: name.clone(),
            mac_address: mac_address(&uid, index),
            addresses,
        });
    }
    given.push((uid, nics.clone()));
    Ok(nics)
}

/// What was given and may not be in the cache yet, by VM uid.
static GIVEN: std::sync::Mutex<Vec<(String, Vec<Nic>)>> = std::sync::Mutex::new(Vec::new());

fn reserved(networks: &[&Network]) -> Vec<String> {
    networks
        .iter()
        .flat_map(|network| &network.spec.subnets)
        .filter_map(|subnet| subnet.gateway.clone())
        .collect()
}

/// A locally administered hardware address from the VM's uid, the same for ever.
fn mac_address(uid: &str, index: usize) -> String {
    // FNV-1a: spreads uids over 40 bits; the index keeps one VM's NICs apart.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let bytes = hash
        .wrapping_add(u64::try_from(index).unwrap_or(0))
        .to_be_bytes();
    format!(
        "52:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]
    )
}

/// The first free address of a subnet with its prefix length.
fn allocate(subnet: &Subnet, taken: &BTreeSet<String>) -> Option<String> {
    let (base, length) = subnet.cidr.split_once('/')?;
    let (base, length): (IpAddr, u32) = (base.parse().ok()?, length.parse().ok()?);
    let bits = if base.is_ipv4() { 32 } else { 128 };
    let size = 1_u128.checked_shl(bits - length).unwrap_or(u128::MAX);
    let first = u128::try_from(subnet.first_host_number).ok()?;
    (first..)
        .take(usize::try_from(TRIED_MAX).ok()?)
        // The last one is IPv4's broadcast address.
        .take_while(|number| number + 1 < size)
        .map(|number| match base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(
                u32::from(base).wrapping_add(u32::try_from(number).unwrap_or(u32::MAX)),
            )),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(number))),
        })
        .find(|address| !taken.contains(&address.to_string()))
        .map(|address| format!("{address}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(cidr: &str, first: i32) -> Subnet {
        Subnet {
            cidr: cidr.to_owned(),
            gateway: None,
            first_host_number: first,
        }
    }

    #[test]
    fn addresses_are_given_once_and_a_full_subnet_says_so() {
        let mut taken = BTreeSet::new();
        let tiny = subnet("10.0.0.0/29", 4);
        for wanted in ["10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29"] {
            let address = allocate(&tiny, &taken).expect("free");
            assert_eq!(address, wanted);
            taken.insert(address.split('/').next().expect("an address").to_owned());
        }
        assert_eq!(
            allocate(&tiny, &taken),
            None,
            "the broadcast address is never given"
        );
        assert_eq!(
            allocate(&subnet("fd00::/64", 10), &taken).as_deref(),
            Some("fd00::a/64")
        );
    }

    #[test]
    fn hardware_addresses_are_local_and_differ() {
        assert_ne!(mac_address("a", 0), mac_address("a", 1));
        assert_ne!(mac_address("a", 0), mac_address("b", 0));
        assert!(mac_address("a", 0).starts_with("52:"));
    }
}
