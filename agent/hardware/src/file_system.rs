//! File systems that turned read-only, from the kernel's mount table.

use std::collections::BTreeSet;
use std::path::Path;

use model::{FaultKind, Severity};
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings, Quantity, id_part, quote};
use crate::source;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device, such as `/dev/sda2`.
    pub device: String,
    /// Where it is mounted.
    pub point: String,
    /// Type, such as `ext4`.
    pub kind: String,
    /// The file system itself (not only this mount of it) is read-only.
    pub read_only: bool,
}

/// File systems seen writable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemHistory {
    writable: BTreeSet<String>,
}

/// A mount table of thousands of mounts.
const TABLE_BYTES_MAX: u64 = 4 << 20;
/// File systems on disks, which the kernel turns read-only when the disk fails them. Others
/// (squashfs, overlay, tmpfs, network file systems) are read-only by design or judged as pools.
const DISK_KINDS: &[&str] = &[
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "bcachefs",
];
/// Mounts looked at.
const MOUNTS_MAX: usize = 4096;

/// Reads the mount table of the first process, else our own: a hardened service sees its own
/// root read-only, which says nothing about the disk.
pub fn read(procfs: &Path, findings: &mut Findings) -> Option<Vec<Mount>> {
    let mut errors = Vec::new();
    for (file, parse) in [
        ("1/mountinfo", parse_mountinfo as fn(&str) -> Vec<Mount>),
        ("self/mountinfo", parse_mountinfo),
        ("mounts", parse_mounts),
    ] {
        match source::text(&procfs.join(file), TABLE_BYTES_MAX) {
            Ok(Some(text)) => return Some(parse(&text)),
            Ok(None) => {}
            // One of the others may do: an agent without rights over process 1 has its own.
            Err(error) => errors.push(error.sentence()),
        }
    }
    errors.push(format!(
        "no mount table below {}; check the agent's option for procfs",
        procfs.display()
    ));
    findings.fail(None, errors.join("; "));
    None
}

/// Mounts in the text of `/proc/PID/mountinfo`; judged by the file system's own options.
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let point = head.split(' ').nth(4)?;
        let mut fields = tail.split(' ');
        let (kind, device, options) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount {
            device: unescape(device),
            point: unescape(point),
            kind: kind.to_owned(),
            read_only: is_read_only(options),
        })
    };
    text.lines().take(MOUNTS_MAX).filter_map(parse).collect()
}

/// Mounts in the text of `/proc/mounts`; a mount that is read-only of itself looks the same as a
/// read-only file system.
pub fn parse_mounts(text: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        let (device, point, kind, options) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        Some(Mount {
            device: unescape(device),
            point: unescape(point),
            kind: kind.to_owned(),
            read_only: is_read_only(options),
        })
    };
    text.lines().take(MOUNTS_MAX).filter_map(parse).collect()
}

fn is_read_only(options: &str) -> bool {
    // Newer ext4 keeps `rw` and adds `emergency_ro` or `shutdown` when it stops writing.
    options
        .split(',')
        .any(|option| matches!(option, "ro" | "emergency_ro" | "shutdown"))
}

/// The kernel writes blanks, tabs, line ends and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Name of the root file system's device without its folder, as kernel messages have it.
pub fn root_device(mounts: &[Mount]) -> Option<&str> {
    let root = mounts.iter().rev().find(|mount| mount.point == "/")?;
    root.device
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
}

/// Judges mounts: a read-only root is critical, another file system that was writable before is
/// degraded.
pub fn judge(mounts: &[Mount], history: &mut FileSystemHistory) -> Findings {
    let mut findings = Findings::default();
    let mut points = BTreeSet::new();
    // A later mount hides an earlier one at the same place.
    for mount in mounts
        .iter()
        .rev()
        .filter(|mount| points.insert(mount.point.clone()))
    {
        if !DISK_KINDS.contains(&mount.kind.as_str()) {
            continue;
        }
        let is_root = mount.point == "/";
        let component = if is_root {
            "filesystem/root".to_owned()
        } else {
            format!(
                "filesystem/{}",
                id_part(mount.point.trim_start_matches('/'))
            )
        };
        findings.read(
            &component,
            Quantity::FileSystemReadOnly,
            f64::from(u8::from(mount.read_only)),
        );
        let key = format!("{} {}", mount.device, mount.point);
        if !mount.read_only {
            if history.writable.len() < MOUNTS_MAX {
                history.writable.insert(key);
            }
        } else if is_root || history.writable.contains(&key) {
            let severity = if is_root {
                Severity::Critical
            } else {
                Severity::Degraded
            };
            let evidence = format!(
                "{} ({}, {}) is read-only",
                quote(&mount.point, 120),
                quote(&mount.device, 80),
                mount.kind
            );
            findings.add(Finding::new(
                component,
                FaultKind::FileSystemReadOnly,
                severity,
                evidence,
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, history: &mut FileSystemHistory) -> Vec<(String, Severity)> {
        judge(&parse_mounts(text), history)
            .findings
            .into_iter()
            .map(|f| (f.component, f.severity))
            .collect()
    }

    #[test]
    fn a_read_only_root_is_critical_and_a_disk_that_turns_so_is_degraded() {
        let mut history = FileSystemHistory::default();
        assert!(found("/dev/sda2 / ext4 rw,relatime 0 0\n/dev/sdb1 /srv xfs rw 0 0\n/dev/sr0 /cd iso9660 ro 0 0\n/dev/sdc1 /arch ext4 ro 0 0\n", &mut history).is_empty());
        let after = found(
            "/dev/sda2 / ext4 ro,relatime 0 0\n/dev/sdb1 /srv xfs ro 0 0\n/dev/sr0 /cd iso9660 ro 0 0\n/dev/sdc1 /arch ext4 ro 0 0\n",
            &mut history,
        );
        assert_eq!(
            after,
            [
                ("filesystem/srv".to_owned(), Severity::Degraded),
                ("filesystem/root".to_owned(), Severity::Critical)
            ]
        );
    }

    #[test]
    fn the_last_mount_counts_and_roots_made_read_only_are_no_fault() {
        let mut history = FileSystemHistory::default();
        assert!(
            found(
                "/dev/sda2 / ext4 ro 0 0\noverlay / overlay ro 0 0\n",
                &mut history
            )
            .is_empty()
        );
        assert!(found("/dev/loop0 / squashfs ro 0 0\n", &mut history).is_empty());
    }

    #[test]
    fn mountinfo_is_judged_by_the_file_system_and_not_by_the_mount() {
        let text = "36 35 98:0 / / ro,noatime master:1 - ext4 /dev/sda2 rw,errors=remount-ro\n37 36 98:1 / /my\\040disk rw - ext4 /dev/sdb1 rw,emergency_ro\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert!(!mounts[0].read_only);
        assert_eq!(mounts[1].point, "/my disk");
        assert!(mounts[1].read_only);
        assert_eq!(root_device(&mounts), Some("sda2"));
    }
}
