//! Images: fetched once per pool from their URL, checked against their digest, and checked
//! again before each use.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use api::{ImageFile, ImageSpec};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::fs as asynchronous;
use tokio::io::AsyncWriteExt;

use super::image_file;

/// Largest file that is fetched.
const BYTES_MAX: u64 = 2 << 40;
/// Silence of the server after which a fetch is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// Why an image is not usable.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The server failed.
    #[error("{url}: {source}")]
    Fetch {
        /// The URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server fell silent.
    #[error("{0}: the server sent nothing for {n} s", n = SILENCE.as_secs())]
    Silent(String),
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Too large.
    #[error("{0}: larger than 2 TiB")]
    TooLarge(String),
    /// Not what was declared.
    #[error(
        "{what} has SHA-256 {found}, declared is {declared}; the file was changed or damaged, correct the image's sha256 or its url"
    )]
    Digest {
        /// URL or path.
        what: String,
        /// Its digest.
        found: String,
        /// The declared digest.
        declared: String,
    },
}

/// Every file of an image.
pub fn files(spec: &ImageSpec) -> Vec<&ImageFile> {
    std::iter::once(&spec.disk)
        .chain(&spec.kernel)
        .chain(&spec.initrd)
        .collect()
}

/// Fetches a file onto a pool, unless it is there; it is there whole and checked, or not at all.
///
/// # Errors
/// See [`ImageError`].
pub async fn fetch(
    client: &reqwest::Client,
    pool: &Path,
    file: &ImageFile,
) -> Result<(), ImageError> {
    let path = image_file(pool, &file.sha256);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Io { path, source }
    };
    if asynchronous::try_exists(&path).await.map_err(io(&path))? {
        return Ok(());
    }
    let failed = |source| ImageError::Fetch {
        url: file.url.clone(),
        source,
    };
    let folder = path.parent().unwrap_or(pool).to_owned();
    let made = asynchronous::create_dir_all(&folder).await;
    made.map_err(io(&folder))?;
    let temporary = folder.join(format!("{}.{}.fetching", file.sha256, std::process::id()));
    let target = asynchronous::File::create(&temporary).await;
    let mut target = target.map_err(io(&temporary))?;
    let silent = || ImageError::Silent(file.url.clone());
    let response = tokio::time::timeout(SILENCE, client.get(&file.url).send())
        .await
        .map_err(|_| silent())?
        .and_then(reqwest::Response::error_for_status)
        .map_err(failed)?;
    let mut body = response.bytes_stream();
    let (mut digest, mut length) = (Sha256::new(), 0);
    while let Some(chunk) = tokio::time::timeout(SILENCE, body.next())
        .await
        .map_err(|_| silent())?
    {
        let chunk = chunk.map_err(failed)?;
        length += chunk.len() as u64;
        if length > BYTES_MAX {
            return Err(ImageError::TooLarge(file.url.clone()));
        }
        digest.update(&chunk);
        target.write_all(&chunk).await.map_err(io(&temporary))?;
    }
    // What the last write met is told by a flush, and not by what writes to the disk.
    target.flush().await.map_err(io(&temporary))?;
    target.sync_all().await.map_err(io(&temporary))?;
    let found = hex(&digest.finalize());
    if found != file.sha256 {
        let _ = asynchronous::remove_file(&temporary).await;
        return Err(ImageError::Digest {
            what: file.url.clone(),
            found,
            declared: file.sha256.clone(),
        });
    }
    let renamed = asynchronous::rename(&temporary, &path).await;
    renamed.map_err(io(&path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Remembers which files were found whole, by inode, size and time of change, so that a check
/// before each use costs a look.
#[derive(Default)]
pub struct Checked(Mutex<BTreeMap<PathBuf, (u64, u64, i64, i64)>>);

impl Checked {
    /// Checks a file against its digest. Blocks.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn check(&self, path: &Path, sha256: &str) -> Result<(), ImageError> {
        let io = |source| ImageError::Io {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(io)?;
        let mark = (
            metadata.ino(),
            metadata.size(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        let known = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(path)
            == Some(&mark);
        if known {
            return Ok(());
        }
        let mut file = File::open(path).map_err(io)?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer).map_err(io)? {
                0 => break,
                length => digest.update(&buffer[..length]),
            }
        }
        let found = hex(&digest.finalize());
        if found != sha256 {
            return Err(ImageError::Digest {
                what: path.display().to_string(),
                found,
                declared: sha256.to_owned(),
            });
        }
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(path.to_owned(), mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_byte_is_found_before_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        fs::write(&path, b"good").expect("write");
        let sha256 = hex(&Sha256::digest(b"good"));
        let checked = Checked::default();
        checked.check(&path, &sha256).expect("whole");
        checked.check(&path, &sha256).expect("whole, from memory");
        fs::write(&path, b"gooe").expect("write");
        assert!(matches!(
            checked.check(&path, &sha256),
            Err(ImageError::Digest { .. })
        ));
    }
}
