//! Where a storage pool lies on this host. The folder below a mount that is gone, or is not there yet, is an empty one on the
//! root disk: what is written there is on no other host, and hides below the mount later.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use api::StoragePool;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// The folder of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolFolder {
    path: PathBuf,
    must_be_mounted: bool,
}

impl PoolFolder {
    /// A folder; one that must be mounted is none before it is.
    pub fn new(path: impl Into<PathBuf>, must_be_mounted: bool) -> Self {
        Self {
            path: path.into(),
            must_be_mounted,
        }
    }

    /// Of a pool as it is declared: what all hosts share comes to each of them by a mount.
    pub fn of(pool: &StoragePool) -> Self {
        Self::new(&pool.spec.path, pool.spec.shared)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there. Blocks, as long as the storage hangs.
    ///
    /// # Errors
    /// It must be mounted, and nothing is: it lies on the root disk or in memory.
    pub fn check(&self) -> io::Result<()> {
        if !self.must_be_mounted {
            return Ok(());
        }
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let device = fs::metadata(&self.path).map_err(named)?.dev();
        let on_root = device == fs::metadata("/")?.dev();
        if on_root || statfs(&self.path)?.filesystem_type() == TMPFS_MAGIC {
            return Err(io::Error::new(
                ErrorKind::NotFound,
                format!(
                    "nothing is mounted at {}, the path of a shared pool; mount the shared storage there",
                    self.path.display()
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_pool_is_there_only_when_it_is_mounted() {
        let folder = tempfile::tempdir().expect("a folder");
        PoolFolder::new(folder.path(), false)
            .check()
            .expect("a local pool is a folder");
        // Temporary folders lie on the root disk or in memory.
        let below = PoolFolder::new(folder.path(), true).check();
        let error = below.expect_err("not mounted").to_string();
        assert!(error.contains("nothing is mounted"), "{error}");
        let missing = PoolFolder::new(folder.path().join("p"), true).check();
        let error = missing.expect_err("no folder").to_string();
        assert!(error.contains("No such file"), "{error}");
        PoolFolder::new("/proc", true).check().expect("a mount");
    }
}
