//! How fast a network device is (`class/net/NAME/speed`), also one that lies on others.
//!
//! NICs, bonds and VLANs tell their own speed. A bridge has none that means anything: kernels tell nothing, or the fastest
//! port's, and its guests' taps claim 10 Gbit/s. So a bridge is as fast as its fastest port with hardware below it.

use std::path::Path;

use crate::link::is_physical;
use crate::source::{self, ReadError};

/// Megabits per second above which no link is believed; old kernels say 2^32 - 1 where they do not know.
const MEGABITS_MAX: i64 = 100_000_000;
/// Devices below one another that are followed: a bridge on a VLAN on a bond on a NIC.
const DEPTH_MAX: u32 = 4;

/// Megabits per second of a network device each way; none where the kernel can not tell, as while it is down.
///
/// # Errors
/// sysfs can not be read.
pub fn link_speed_megabits(sysfs: &Path, device: &str) -> Result<Option<u64>, ReadError> {
    speed(&sysfs.join("class/net"), device, DEPTH_MAX)
}

fn speed(root: &Path, device: &str, depth: u32) -> Result<Option<u64>, ReadError> {
    let folder = root.join(device);
    let is_bridge = folder.join("bridge").exists();
    if !is_bridge && let Some(own) = own_speed(&folder)? {
        return Ok(Some(own));
    }
    let mut fastest = None;
    for lower in lower_devices(&folder)? {
        let has_hardware =
            is_physical(&root.join(&lower)) || !lower_devices(&root.join(&lower))?.is_empty();
        if depth > 0 && (has_hardware || !is_bridge) {
            fastest = fastest.max(speed(root, &lower, depth - 1)?);
        }
    }
    Ok(fastest)
}

fn own_speed(folder: &Path) -> Result<Option<u64>, ReadError> {
    let told = source::number(&folder.join("speed"))?;
    let known = told.filter(|megabits| (1..=MEGABITS_MAX).contains(megabits));
    Ok(known.and_then(|megabits| u64::try_from(megabits).ok()))
}

/// Devices that this one lies on.
fn lower_devices(folder: &Path) -> Result<Vec<String>, ReadError> {
    let names = source::names(folder)?.into_iter();
    let lower = names.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned));
    Ok(lower.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Sysfs(tempfile::TempDir);

    impl Sysfs {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A device with these files and folders, and what it says of its speed.
        fn device(&self, name: &str, speed: &str, parts: &[&str]) {
            let folder = self.0.path().join("class/net").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("speed"), format!("{speed}\n")).unwrap();
            for part in parts {
                fs::create_dir_all(folder.join(part)).unwrap();
            }
        }

        fn speed(&self, device: &str) -> Option<u64> {
            link_speed_megabits(self.0.path(), device).unwrap()
        }
    }

    #[test]
    fn a_device_tells_its_speed_or_that_of_what_it_lies_on() {
        let sysfs = Sysfs::new();
        sysfs.device("eth0", "25000", &["device"]);
        sysfs.device("eth1", "-1", &["device"]);
        sysfs.device("eth2", "4294967295", &["device"]);
        sysfs.device("bond0", "50000", &["lower_eth0"]);
        sysfs.device("vlan7", "-1", &["lower_bond0"]);
        sysfs.device("veth0", "10000", &[]);
        assert_eq!(sysfs.speed("eth0"), Some(25_000));
        assert_eq!(sysfs.speed("bond0"), Some(50_000), "the bond's own");
        assert_eq!(sysfs.speed("vlan7"), Some(50_000), "what it lies on");
        assert_eq!(sysfs.speed("veth0"), Some(10_000), "a lab's");
        for unknown in ["eth1", "eth2", "gone"] {
            assert_eq!(sysfs.speed(unknown), None, "{unknown}");
        }
    }

    /// The taps of its guests claim more than its NIC has.
    #[test]
    fn a_bridge_is_as_fast_as_its_fastest_port_with_hardware_below_it() {
        let sysfs = Sysfs::new();
        sysfs.device("eth0", "1000", &["device"]);
        sysfs.device("eth1", "100", &["device"]);
        sysfs.device("eth1.7", "100", &["lower_eth1"]);
        sysfs.device("tap0", "10000", &["tun_flags"]);
        let ports = ["bridge", "lower_eth0", "lower_eth1.7", "lower_tap0"];
        sysfs.device("br0", "10000", &ports);
        sysfs.device("br1", "10000", &["bridge", "lower_tap0"]);
        assert_eq!(sysfs.speed("br0"), Some(1_000));
        assert_eq!(sysfs.speed("br1"), None, "guests only");
    }

    #[test]
    fn devices_that_lie_on_each_other_come_to_an_end() {
        let sysfs = Sysfs::new();
        sysfs.device("a", "-1", &["lower_b"]);
        sysfs.device("b", "-1", &["lower_a"]);
        assert_eq!(sysfs.speed("a"), None);
    }

    #[test]
    fn what_is_no_speed_is_an_error_and_not_taken_for_unknown() {
        let sysfs = Sysfs::new();
        sysfs.device("eth0", "fast", &["device"]);
        let error = link_speed_megabits(sysfs.0.path(), "eth0").unwrap_err();
        assert!(error.sentence().contains("fast"), "{}", error.sentence());
    }
}
