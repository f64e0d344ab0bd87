//! Reads the log at the front of a disk file, raw or qcow2, also while a VM writes to it. Judges nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use crate::record::{SECTOR_BYTES, SLOTS_MAXIMUM};

/// Bytes of a disk that can hold log.
pub const LOG_BYTES: usize = SLOTS_MAXIMUM * SECTOR_BYTES;

/// First bytes of a qcow2 file.
const QCOW2_MAGIC: &[u8; 4] = b"QFI\xfb";

/// Why a disk can not be read.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The file can not be read.
    #[error("{path}: reading failed")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// qemu-img can not be started.
    #[error("qemu-img can not be started; install the package qemu-utils")]
    Start {
        /// Why.
        source: io::Error,
    },
    /// qemu-img does not read the file.
    #[error("{path}: qemu-img failed: {message}")]
    Convert {
        /// Which file.
        path: PathBuf,
        /// What it said.
        message: String,
    },
}

/// The first [`LOG_BYTES`] of the disk in `path`. Images of running VMs are read without their lock:
/// a judge must look while others write.
pub fn read_log(path: &Path) -> Result<Vec<u8>, DiskError> {
    let wrap = |source| DiskError::Read {
        path: path.to_owned(),
        source,
    };
    let mut front = [0u8; 4];
    let mut file = File::open(path).map_err(wrap)?;
    let count = file.read(&mut front).map_err(wrap)?;
    if count == 4 && &front == QCOW2_MAGIC {
        return read_qcow2(path);
    }
    let mut bytes = front[..count].to_vec();
    file.take((LOG_BYTES - count) as u64)
        .read_to_end(&mut bytes)
        .map_err(wrap)?;
    Ok(bytes)
}

fn read_qcow2(path: &Path) -> Result<Vec<u8>, DiskError> {
    let folder = tempfile::tempdir().map_err(|source| DiskError::Read {
        path: path.to_owned(),
        source,
    })?;
    let raw = folder.path().join("log.raw");
    let output = Command::new("qemu-img")
        .args(["dd", "-U", "-f", "qcow2", "-O", "raw", "bs=1048576"])
        .arg(format!("count={}", LOG_BYTES / (1 << 20)))
        .arg(joined("if=", path))
        .arg(joined("of=", &raw))
        .output()
        .map_err(|source| DiskError::Start { source })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DiskError::Convert {
            path: path.to_owned(),
            message,
        });
    }
    std::fs::read(&raw).map_err(|source| DiskError::Read { path: raw, source })
}

fn joined(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(prefix);
    argument.push(path);
    argument
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn run(arguments: &[&str], folder: &Path) {
        let status = Command::new("qemu-img")
            .args(arguments)
            .current_dir(folder)
            .status()
            .unwrap();
        assert!(status.success(), "qemu-img {arguments:?}");
    }

    #[test]
    fn raw_and_qcow2_read_alike() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![0u8; 1 << 20];
        bytes[700] = 42;
        std::fs::write(folder.path().join("a.raw"), &bytes).unwrap();
        run(
            &["convert", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2"],
            folder.path(),
        );
        assert_eq!(read_log(&folder.path().join("a.raw")).unwrap(), bytes);
        assert_eq!(read_log(&folder.path().join("a.qcow2")).unwrap(), bytes);
    }

    #[test]
    fn no_more_than_the_log_is_read() {
        let folder = tempfile::tempdir().unwrap();
        run(
            &["create", "-q", "-f", "raw", "b.raw", "64M"],
            folder.path(),
        );
        run(
            &["create", "-q", "-f", "qcow2", "b.qcow2", "64M"],
            folder.path(),
        );
        assert_eq!(
            read_log(&folder.path().join("b.raw")).unwrap().len(),
            LOG_BYTES
        );
        assert_eq!(
            read_log(&folder.path().join("b.qcow2")).unwrap().len(),
            LOG_BYTES
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read_log(Path::new("/nowhere/disk.raw")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/disk.raw"), "{error}");
    }
}
