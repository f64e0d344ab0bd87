//! Storage of the host: pools, volumes, images, seeds. A hung pool holds up nothing but
//! what lies on it.

pub mod claims;
pub mod fetching;
pub mod folder;
pub mod images;
pub mod jobs;
mod locks;
pub mod pools;
pub mod seed;
pub mod volumes;

use std::path::{Path, PathBuf};

use api::VolumeFormat;

/// Folder of volumes on a pool.
pub fn volume_file(pool: &Path, uid: &str, format: VolumeFormat) -> PathBuf {
    pool.join("volumes")
        .join(format!("{uid}.{}", format_name(format)))
}

/// File of an image's part on a pool, named by its digest.
pub fn image_file(pool: &Path, sha256: &str) -> PathBuf {
    pool.join("images").join(sha256)
}

/// Seed of a VM on a pool.
pub fn seed_file(pool: &Path, vm_uid: &str) -> PathBuf {
    pool.join("seeds").join(format!("{vm_uid}.iso"))
}

/// Name of a format as qemu-img and libvirt know it.
pub fn format_name(format: VolumeFormat) -> &'static str {
    match format {
        VolumeFormat::Qcow2 => "qcow2",
        VolumeFormat::Raw => "raw",
    }
}
