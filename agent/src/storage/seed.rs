//! Seed disks: cloud-init's NoCloud, an ISO image labelled `cidata` made by genisoimage from
//! the Secret that the operator put into this host's namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::fs;

use super::seed_file;
use crate::process::{ProgramError, run};

/// Bound of making a seed.
const BOUND: Duration = Duration::from_secs(60);
/// Files of a seed; the Secret's other keys are left out.
const FILES: [&str; 3] = ["meta-data", "user-data", "network-config"];

/// Why a seed could not be made.
#[derive(Debug, Error)]
pub enum SeedError {
    /// genisoimage failed.
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
}

/// Makes a VM's seed on its pool.
///
/// # Errors
/// See [`SeedError`].
pub async fn make(
    pool: &Path,
    run_dir: &Path,
    vm_uid: &str,
    content: &BTreeMap<String, Vec<u8>>,
) -> Result<PathBuf, SeedError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SeedError::Io { path, source }
    };
    let work = run_dir.join("seeds").join(vm_uid);
    fs::create_dir_all(&work).await.map_err(io(&work))?;
    for name in FILES {
        let path = work.join(name);
        let file = content.get(name).map(Vec::as_slice).unwrap_or_default();
        fs::write(&path, file).await.map_err(io(&path))?;
    }
    let seed = seed_file(pool, vm_uid);
    let folder = seed.parent().unwrap_or(pool).to_owned();
    fs::create_dir_all(&folder).await.map_err(io(&folder))?;
    let temporary = seed.with_extension("making");
    let (target, source) = (temporary.display().to_string(), work.display().to_string());
    run(
        "genisoimage",
        &[
            "-quiet", "-output", &target, "-volid", "cidata", "-joliet", "-rock", &source,
        ],
        BOUND,
    )
    .await?;
    fs::rename(&temporary, &seed).await.map_err(io(&seed))?;
    fs::remove_dir_all(&work).await.map_err(io(&work))?;
    Ok(seed)
}
