//! Jobs on volumes: create, resize, delete. Idempotent by the volume's uid: a file that is
//! there is a finished creation; what is being made lies under another name. The file system is called on threads
//! of their own: a pool that hangs keeps none that the agent works on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::VolumeFormat;
use serde_json::Value;
use thiserror::Error;
use tokio::fs;

use super::{format_name, volume_file};
use crate::process::{ProgramError, run};

/// Bound of a job; copying a large image takes long.
const BOUND: Duration = Duration::from_secs(3600);

/// Why a job failed.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// qemu-img failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// qemu-img printed something else than JSON.
    #[error("{0}: qemu-img can not read it")]
    Unreadable(PathBuf),
    /// The volume would lose data.
    #[error("{path} has {present} bytes and would shrink to {wanted}; a volume never shrinks")]
    Shrink {
        /// The file.
        path: PathBuf,
        /// Its size.
        present: u64,
        /// The size asked for.
        wanted: u64,
    },
}

/// A volume's file and the size that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// The file.
    pub path: PathBuf,
    /// Bytes that the guest sees.
    pub size_bytes: u64,
}

/// Makes a volume, empty or from an image's file; it is there at once or not at all. What is being
/// made bears the job's number: a disk tool that outlived its agent never writes into what a later
/// job makes.
///
/// # Errors
/// See [`VolumeError`].
pub async fn create(
    pool: &Path,
    uid: &str,
    format: VolumeFormat,
    size_bytes: u64,
    image: Option<(&Path, &str)>,
    job: i64,
) -> Result<VolumeFile, VolumeError> {
    let path = volume_file(pool, uid, format);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| VolumeError::Io { path, source }
    };
    if fs::try_exists(&path).await.map_err(io(&path))? {
        return Ok(VolumeFile {
            size_bytes: size(&path, format).await?,
            path,
        });
    }
    let folder = path.parent().unwrap_or(pool);
    fs::create_dir_all(folder).await.map_err(io(folder))?;
    let temporary = path.with_extension(format!("making-{job}"));
    let (name, target) = (format_name(format), temporary.display().to_string());
    match image {
        Some((file, image_format)) => {
            let file = file.display().to_string();
            run(
                "qemu-img",
                &[
                    "convert",
                    "-f",
                    image_format,
                    "-O",
                    name,
                    "-t",
                    "none",
                    &file,
                    &target,
                ],
                BOUND,
            )
            .await?;
            let made = size(&temporary, format).await?;
            if made < size_bytes {
                run(
                    "qemu-img",
                    &["resize", "-f", name, &target, &size_bytes.to_string()],
                    BOUND,
                )
                .await?;
            }
        }
        None => {
            run(
                "qemu-img",
                &["create", "-q", "-f", name, &target, &size_bytes.to_string()],
                BOUND,
            )
            .await?;
        }
    }
    let size_bytes = size(&temporary, format).await?;
    fs::rename(&temporary, &path).await.map_err(io(&path))?;
    remove_unfinished(folder, uid).await?;
    Ok(VolumeFile { path, size_bytes })
}

/// What earlier jobs began and did not end.
async fn remove_unfinished(folder: &Path, uid: &str) -> Result<(), VolumeError> {
    let io = |source| VolumeError::Io {
        path: folder.to_owned(),
        source,
    };
    let prefix = format!("{uid}.making");
    let mut entries = match fs::read_dir(folder).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io)?,
    };
    while let Some(entry) = entries.next_entry().await.map_err(io)? {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(entry.path()).await.map_err(io)?;
        }
    }
    Ok(())
}

/// Grows a volume that no VM uses.
///
/// # Errors
/// See [`VolumeError`].
pub async fn resize(
    pool: &Path,
    uid: &str,
    format: VolumeFormat,
    size_bytes: u64,
) -> Result<VolumeFile, VolumeError> {
    let path = volume_file(pool, uid, format);
    let present = size(&path, format).await?;
    if present > size_bytes {
        return Err(VolumeError::Shrink {
            path,
            present,
            wanted: size_bytes,
        });
    }
    if present < size_bytes {
        let file = path.display().to_string();
        run(
            "qemu-img",
            &[
                "resize",
                "-f",
                format_name(format),
                &file,
                &size_bytes.to_string(),
            ],
            BOUND,
        )
        .await?;
    }
    Ok(VolumeFile {
        size_bytes: size(&path, format).await?,
        path,
    })
}

/// Removes a volume's file; succeeds when there is none.
///
/// # Errors
/// See [`VolumeError`].
pub async fn delete(pool: &Path, uid: &str, format: VolumeFormat) -> Result<(), VolumeError> {
    let path = volume_file(pool, uid, format);
    match fs::remove_file(&path).await {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(VolumeError::Io { path, source })
        }
        _ => remove_unfinished(path.parent().unwrap_or(pool), uid).await,
    }
}

/// Bytes that a guest sees.
async fn size(path: &Path, format: VolumeFormat) -> Result<u64, VolumeError> {
    let file = path.display().to_string();
    let text = run(
        "qemu-img",
        &[
            "info",
            "-U",
            "--output",
            "json",
            "-f",
            format_name(format),
            &file,
        ],
        BOUND,
    )
    .await?;
    let info: Value =
        serde_json::from_str(&text).map_err(|_| VolumeError::Unreadable(path.to_owned()))?;
    info["virtual-size"]
        .as_u64()
        .ok_or_else(|| VolumeError::Unreadable(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn a_volume_is_made_once_grows_and_never_shrinks() {
        let pool = tempfile::tempdir().expect("a folder");
        let pool = pool.path();
        for format in [VolumeFormat::Raw, VolumeFormat::Qcow2] {
            let made = create(pool, "v", format, 4 * MIB, None, 1)
                .await
                .expect("create");
            assert_eq!(made.size_bytes, 4 * MIB);
            std::fs::write(pool.join("volumes/v.making"), "left by a crash").expect("write");
            assert_eq!(
                create(pool, "v", format, 9 * MIB, None, 2)
                    .await
                    .expect("again"),
                made,
                "what is there stays"
            );
            assert_eq!(
                resize(pool, "v", format, 8 * MIB)
                    .await
                    .expect("grow")
                    .size_bytes,
                8 * MIB
            );
            assert!(matches!(
                resize(pool, "v", format, MIB).await,
                Err(VolumeError::Shrink { .. })
            ));
            std::fs::write(pool.join("volumes/v.making-7"), "unfinished").expect("write");
            delete(pool, "v", format).await.expect("delete");
            assert!(!pool.join("volumes/v.making-7").exists());
            let again = delete(pool, "v", format).await;
            again.expect("nothing to delete is fine");
        }
    }

    #[tokio::test]
    async fn what_an_interrupted_job_left_is_neither_used_nor_kept() {
        let pool = tempfile::tempdir().expect("a folder");
        let folder = pool.path().join("volumes");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (left, other) = (folder.join("v.making-1"), folder.join("w.making-1"));
        let tool = std::fs::File::create(&left).expect("an unfinished file");
        std::fs::write(&other, "another volume's").expect("write");
        let made = create(pool.path(), "v", VolumeFormat::Raw, MIB, None, 2)
            .await
            .expect("create");
        // The disk tool of the agent that died writes on.
        std::io::Write::write_all(&mut &tool, &[7; 512]).expect("write");
        let content = std::fs::read(&made.path).expect("content");
        assert!(content.iter().all(|byte| *byte == 0));
        assert!(!left.exists() && other.exists());
    }

    #[tokio::test]
    async fn a_volume_from_an_image_has_its_content_and_the_size_asked_for() {
        let pool = tempfile::tempdir().expect("a folder");
        let image = pool.path().join("image");
        std::fs::write(&image, vec![7_u8; MIB as usize]).expect("image");
        let made = create(
            pool.path(),
            "v",
            VolumeFormat::Raw,
            2 * MIB,
            Some((&image, "raw")),
            1,
        )
        .await
        .expect("create");
        let content = std::fs::read(&made.path).expect("content");
        assert_eq!(
            (content.len() as u64, content[0], content[MIB as usize]),
            (2 * MIB, 7, 0)
        );
    }
}
