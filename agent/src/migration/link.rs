//! The link that moves go over. Peers connect to a host's name, which is its management address: so it is the interface
//! that bears this address, and what it lies on.

use std::net::IpAddr;
use std::path::Path;

use api::MigrationLink;
use hardware::link_speed_megabits;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

/// The link of this host's management address; none where no interface bears it (it is translated on the way) or its
/// speed is not known. Blocks: the kernel answers for a speed when it has a moment.
///
/// # Errors
/// One sentence: the interfaces or sysfs can not be read.
pub fn find(sysfs_root: &Path, address: IpAddr) -> Result<Option<MigrationLink>, String> {
    let interfaces = getifaddrs()
        .map_err(|error| format!("interface of the management address {address}: {error}"))?;
    let Some(interface) = bearing(address, interfaces) else {
        return Ok(None);
    };
    let speed = link_speed_megabits(sysfs_root, &interface)
        .map_err(|error| format!("speed of {interface}: {}", error.sentence()))?;
    let speed = speed.and_then(|megabits| i64::try_from(megabits).ok());
    Ok(speed.map(|speed_megabits| MigrationLink {
        interface,
        speed_megabits,
    }))
}

/// Name of the interface that bears an address.
fn bearing(
    address: IpAddr,
    interfaces: impl IntoIterator<Item = InterfaceAddress>,
) -> Option<String> {
    let mut interfaces = interfaces.into_iter();
    let found = interfaces.find(|interface| address_of(interface) == Some(address))?;
    // An address may have a label: `eth0:1` is on eth0.
    let name = found.interface_name.split(':').next();
    name.map(str::to_owned)
}

fn address_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|own| IpAddr::from(own.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|own| IpAddr::from(own.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel of this machine has one interface that every machine has.
    #[test]
    fn the_interface_of_the_address_is_found_and_its_speed_read_below_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        let loopback: IpAddr = "127.0.0.1".parse().expect("an address");
        let found = || find(root.path(), loopback);
        assert_eq!(found(), Ok(None), "nothing is known of its speed");
        let folder = root.path().join("class/net/lo");
        std::fs::create_dir_all(&folder).expect("a device");
        std::fs::write(folder.join("speed"), "25000\n").expect("written");
        let link = found().expect("readable").expect("known");
        assert_eq!(
            (link.interface.as_str(), link.speed_megabits),
            ("lo", 25_000)
        );
        std::fs::write(folder.join("speed"), "fast\n").expect("written");
        let error = found().expect_err("no number");
        assert!(error.starts_with("speed of lo: "), "{error}");
        // Of documentation (RFC 5737): nobody bears it.
        let other: IpAddr = "192.0.2.7".parse().expect("an address");
        assert_eq!(find(root.path(), other), Ok(None));
    }
}
