//! A host's root disk, which may turn read-only as the kernel does with a file system that fails it: what is open stays
//! open, and nothing is written any more. The hosts of a lab share the machine's disk, so each one's mounts of it
//! are made read-only, not the disk.

use anyhow::Result;

use crate::files::LabFiles;
use crate::inside;

/// What of a host lies on its root disk.
const MOUNTS: [&str; 4] = ["/", "/etc", "/var/lib/libvirt", "/var/cache/libvirt"];

/// Makes it read-only, or writable again.
///
/// # Errors
/// The host is off, or something on the disk is written right now.
pub fn set_read_only(files: &LabFiles, host: &str, read_only: bool) -> Result<()> {
    let options = match read_only {
        true => "remount,bind,ro",
        false => "remount,bind,rw",
    };
    MOUNTS
        .iter()
        .try_for_each(|at| inside::run(files, host, &["mount", "-o", options, at]).map(drop))
}
