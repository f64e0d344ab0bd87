//! The table of kernel messages that mean hardware trouble, with the reason for each. Pure.
//!
//! Corrected memory errors are not here: EDAC counts them exactly. Messages that only echo
//! another one are left out, so that one event is one fault.

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

use crate::finding::id_part;

/// How a message is rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rating {
    /// The same each time.
    Always(Severity),
    /// By number, as disk errors.
    DiskErrors,
    /// By number, as hung tasks.
    HungTasks,
}

/// A recognised message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Component id.
    pub component: String,
    /// What is wrong.
    pub kind: FaultKind,
    /// How bad.
    pub rating: Rating,
}

/// Where the component's name stands in the message.
enum Component {
    /// It is always this.
    Fixed(&'static str),
    /// `room/` and the word after the marker.
    After(&'static str, &'static str),
}

struct Pattern {
    /// All must occur, in this order (so that a later word can not match an earlier place).
    words: &'static [&'static str],
    component: Component,
    kind: FaultKind,
    rating: Rating,
}

const CRITICAL: Rating = Rating::Always(Severity::Critical);
const DEGRADED: Rating = Rating::Always(Severity::Degraded);
const INFO: Rating = Rating::Always(Severity::Info);

const fn pattern(
    words: &'static [&'static str],
    component: Component,
    kind: FaultKind,
    rating: Rating,
) -> Pattern {
    Pattern {
        words,
        component,
        kind,
        rating,
    }
}

use Component::{After, Fixed};

/// First match wins: the more exact stand before the more general.
const PATTERNS: &[Pattern] = &[
    // Firmware's error records (CPER): fatal ones that were survived, and memory among the
    // recoverable ones.
    pattern(
        &["[Hardware Error]", "event severity: fatal"],
        Fixed("firmware/cper"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["[Hardware Error]", "Error ", "type: fatal"],
        Fixed("firmware/cper"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["[Hardware Error]", "event severity: recoverable"],
        Fixed("firmware/cper"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    // Machine checks that the processor could not correct.
    pattern(
        &["Hardware Error", "Processor context corrupt"],
        Fixed("processor/mce"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["Fatal machine check"],
        Fixed("processor/mce"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["Machine Check Exception"],
        Fixed("processor/mce"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["mce:", "Uncorrected hardware memory error"],
        Fixed("memory/kernel"),
        FaultKind::MemoryUncorrectedError,
        CRITICAL,
    ),
    pattern(
        &["Memory failure:", "recovery action for"],
        Fixed("memory/kernel"),
        FaultKind::MemoryUncorrectedError,
        CRITICAL,
    ),
    pattern(
        &["Memory failure:", "Killing"],
        Fixed("memory/kernel"),
        FaultKind::MemoryUncorrectedError,
        CRITICAL,
    ),
    pattern(
        &["EDAC ", " UE "],
        Fixed("memory/kernel"),
        FaultKind::MemoryUncorrectedError,
        CRITICAL,
    ),
    pattern(
        &["AER:", "Uncorrected (Fatal) error"],
        Fixed("pcie/aer"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["PCIe Bus Error: severity=Uncorrected (Fatal)"],
        Fixed("pcie/aer"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    pattern(
        &["PCIe Bus Error: severity=Uncorrectable (Fatal)"],
        Fixed("pcie/aer"),
        FaultKind::FatalHardwareError,
        CRITICAL,
    ),
    // File systems that stopped writing to protect themselves.
    pattern(
        &["EXT4-fs (", "emounting filesystem read-only"],
        After("filesystem", "EXT4-fs ("),
        FaultKind::FileSystemReadOnly,
        DEGRADED,
    ),
    pattern(
        &["EXT4-fs (", "shut down"],
        After("filesystem", "EXT4-fs ("),
        FaultKind::FileSystemReadOnly,
        DEGRADED,
    ),
    pattern(
        &["EXT3-fs (", "emounting filesystem read-only"],
        After("filesystem", "EXT3-fs ("),
        FaultKind::FileSystemReadOnly,
        DEGRADED,
    ),
    pattern(
        &["XFS (", "ilesystem has been shut down"],
        After("filesystem", "XFS ("),
        FaultKind::FileSystemReadOnly,
        DEGRADED,
    ),
    pattern(
        &["XFS (", "hutting down filesystem"],
        After("filesystem", "XFS ("),
        FaultKind::FileSystemReadOnly,
        DEGRADED,
    ),
    pattern(
        &["BTRFS", "(device ", "orced readonly"],
        After("filesystem", "(device "),
        FaultKind::FileSystemReadOnly,
        DEGRADED,
    ),
    pattern(
        &["EXT4-fs error (device "],
        After("disk", "(device "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["XFS (", "Corruption"],
        After("disk", "XFS ("),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["BTRFS", "(device ", "corrupt"],
        After("disk", "(device "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    // Controllers that gave a disk up, then those that only stumble.
    pattern(
        &["nvme ", "emoving after probe failure"],
        After("disk", "nvme "),
        FaultKind::DiskFailing,
        DEGRADED,
    ),
    pattern(
        &["nvme ", "isabling device after reset failure"],
        After("disk", "nvme "),
        FaultKind::DiskFailing,
        DEGRADED,
    ),
    pattern(
        &["nvme ", "evice not ready"],
        After("disk", "nvme "),
        FaultKind::DiskFailing,
        DEGRADED,
    ),
    pattern(
        &["nvme ", " timeout, "],
        After("disk", "nvme "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["nvme ", "controller is down"],
        After("disk", "nvme "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["rejecting I/O to dead device"],
        After("disk", "["),
        FaultKind::DiskFailing,
        DEGRADED,
    ),
    pattern(
        &["rejecting I/O to offline device"],
        After("disk", "["),
        FaultKind::DiskFailing,
        DEGRADED,
    ),
    // The block layer's words for one failed request (old and new kernels).
    pattern(
        &["Buffer I/O error on dev "],
        After("disk", "on dev "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["Buffer I/O error on device "],
        After("disk", "on device "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["critical medium error, dev "],
        After("disk", "error, dev "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["critical target error, dev "],
        After("disk", "error, dev "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["I/O error, dev "],
        After("disk", "error, dev "),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["exception Emask"],
        After("disk", ""),
        FaultKind::DiskErrors,
        Rating::DiskErrors,
    ),
    pattern(
        &["md/raid", "Disk failure on "],
        After("disk", "Disk failure on "),
        FaultKind::DiskFailing,
        DEGRADED,
    ),
    // Links, heat, and a kernel that stands still.
    pattern(
        &["NETDEV WATCHDOG: ", "timed out"],
        After("nic", "NETDEV WATCHDOG: "),
        FaultKind::LinkErrors,
        DEGRADED,
    ),
    pattern(
        &["critical temperature reached"],
        Fixed("temperature/kernel"),
        FaultKind::Temperature,
        DEGRADED,
    ),
    pattern(
        &["emperature above threshold, cpu clock"],
        Fixed("temperature/processor"),
        FaultKind::Temperature,
        INFO,
    ),
    pattern(
        &["atchdog detected hard LOCKUP"],
        Fixed("kernel"),
        FaultKind::KernelHang,
        CRITICAL,
    ),
    pattern(
        &["BUG: soft lockup"],
        Fixed("kernel"),
        FaultKind::KernelHang,
        DEGRADED,
    ),
    pattern(
        &["rcu", "detected stall"],
        Fixed("kernel"),
        FaultKind::KernelHang,
        DEGRADED,
    ),
    pattern(
        &["INFO: task ", " blocked for more than "],
        Fixed("kernel"),
        FaultKind::KernelHang,
        Rating::HungTasks,
    ),
];

/// Devices that are no disks of the host: removable media answer with I/O errors when empty, and
/// loop, RAM and network block devices echo what lies below them.
const NOT_DISKS: &[&str] = &["sr", "fd", "loop", "ram", "zram", "nbd"];

/// What a message means, if it means hardware trouble. `root_device` (such as `sda2`) is the
/// device of the root file system: its file system failing is critical.
pub fn recognise(message: &str, root_device: Option<&str>) -> Option<Event> {
    let pattern = PATTERNS
        .iter()
        .find(|pattern| in_order(message, pattern.words))?;
    let (component, device) = match pattern.component {
        Component::Fixed(id) => (id.to_owned(), None),
        Component::After(room, marker) => {
            let device = word_after(message, marker)?;
            (format!("{room}/{}", id_part(device)), Some(device))
        }
    };
    if let Some(device) = device
        && component.starts_with("disk/")
        && is_no_disk(device)
    {
        return None;
    }
    let is_root = device.is_some() && device == root_device;
    let rating = if pattern.kind == FaultKind::FileSystemReadOnly && is_root {
        CRITICAL
    } else {
        pattern.rating
    };
    let component = if is_root && pattern.kind == FaultKind::FileSystemReadOnly {
        "filesystem/root".to_owned()
    } else {
        component
    };
    Some(Event {
        component,
        kind: pattern.kind,
        rating,
    })
}

fn in_order(message: &str, words: &[&str]) -> bool {
    let mut rest = message;
    words.iter().all(|word| match rest.find(word) {
        Some(at) => {
            rest = &rest[at + word.len()..];
            true
        }
        None => false,
    })
}

/// The name that begins after the marker and ends where device names do.
fn word_after<'a>(message: &'a str, marker: &str) -> Option<&'a str> {
    let start = message.find(marker)? + marker.len();
    let rest = message[start..].trim_start();
    let end = rest
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '!')))
        .unwrap_or(rest.len());
    // `nvme nvme0:` and `ata1.00:` end in the colon; a trailing full stop is no part of a name.
    let word = rest[..end].trim_end_matches('.');
    (!word.is_empty()).then_some(word)
}

fn is_no_disk(device: &str) -> bool {
    // `loop12p1` is `loop`; `sda1` is `sda`.
    let letters = device
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    NOT_DISKS.contains(&letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(message: &str) -> Option<(String, FaultKind, Rating)> {
        recognise(message, Some("sda2")).map(|event| (event.component, event.kind, event.rating))
    }

    #[test]
    fn each_kind_of_message_is_recognised() {
        let disk = |name: &str| {
            Some((
                format!("disk/{name}"),
                FaultKind::DiskErrors,
                Rating::DiskErrors,
            ))
        };
        let cases = [
            (
                "{1}[Hardware Error]: event severity: fatal",
                Some((
                    "firmware/cper".to_owned(),
                    FaultKind::FatalHardwareError,
                    CRITICAL,
                )),
            ),
            ("{1}[Hardware Error]: event severity: corrected", None),
            ("mce: [Hardware Error]: Machine check events logged", None),
            (
                "Memory failure: 0x3a5: recovery action for dirty LRU page: Recovered",
                Some((
                    "memory/kernel".to_owned(),
                    FaultKind::MemoryUncorrectedError,
                    CRITICAL,
                )),
            ),
            (
                "EDAC MC0: 1 UE memory read error on CPU_SrcID#0",
                Some((
                    "memory/kernel".to_owned(),
                    FaultKind::MemoryUncorrectedError,
                    CRITICAL,
                )),
            ),
            ("EDAC MC0: 1 CE memory read error on CPU_SrcID#0", None),
            (
                "blk_update_request: I/O error, dev sdb, sector 81920",
                disk("sdb"),
            ),
            (
                "I/O error, dev nvme0n1, sector 0 op 0x1:(WRITE)",
                disk("nvme0n1"),
            ),
            (
                "critical medium error, dev sdc, sector 7 op 0x0:(READ)",
                disk("sdc"),
            ),
            (
                "Buffer I/O error on dev dm-0, logical block 1, async page read",
                disk("dm-0"),
            ),
            ("I/O error, dev sr0, sector 0", None),
            ("I/O error, dev loop12, sector 0", None),
            ("I/O error, dev fd0, sector 0", None),
            ("nvme nvme0: I/O 12 QID 3 timeout, aborting", disk("nvme0")),
            (
                "nvme nvme1: I/O tag 5 (1005) opcode 0x2 (I/O Cmd) QID 4 timeout, reset controller",
                disk("nvme1"),
            ),
            (
                "ata3.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen",
                disk("ata3.00"),
            ),
            (
                "nvme nvme2: Removing after probe failure status: -19",
                Some(("disk/nvme2".to_owned(), FaultKind::DiskFailing, DEGRADED)),
            ),
            (
                "EXT4-fs (sdb1): Remounting filesystem read-only",
                Some((
                    "filesystem/sdb1".to_owned(),
                    FaultKind::FileSystemReadOnly,
                    DEGRADED,
                )),
            ),
            (
                "EXT4-fs (sda2): Remounting filesystem read-only",
                Some((
                    "filesystem/root".to_owned(),
                    FaultKind::FileSystemReadOnly,
                    CRITICAL,
                )),
            ),
            (
                "XFS (dm-3): Filesystem has been shut down due to log error (0x2).",
                Some((
                    "filesystem/dm-3".to_owned(),
                    FaultKind::FileSystemReadOnly,
                    DEGRADED,
                )),
            ),
            (
                "EXT4-fs error (device sdb1): ext4_find_entry:1463: inode #2",
                disk("sdb1"),
            ),
            (
                "NETDEV WATCHDOG: eth0 (ixgbe): transmit queue 2 timed out",
                Some(("nic/eth0".to_owned(), FaultKind::LinkErrors, DEGRADED)),
            ),
            (
                "INFO: task qemu-system-x86:4711 blocked for more than 120 seconds.",
                Some((
                    "kernel".to_owned(),
                    FaultKind::KernelHang,
                    Rating::HungTasks,
                )),
            ),
            (
                "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [qemu:1]",
                Some(("kernel".to_owned(), FaultKind::KernelHang, DEGRADED)),
            ),
            (
                "EXT4-fs (sda2): mounted filesystem with ordered data mode",
                None,
            ),
            ("usb 1-1: new high-speed USB device number 2", None),
            ("", None),
        ];
        for (message, expected) in cases {
            assert_eq!(seen(message), expected, "{message}");
        }
    }
}
