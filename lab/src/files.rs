//! Where a lab keeps its files, and which index it has.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::address::{Addresses, LABS_MAX};
use crate::owner::Owner;

/// Folder that holds all labs of a machine, unless `ZYLAB_DIR` names another.
const DEFAULT_ROOT: &str = "/var/lib/zylab";

/// The folder of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabFiles {
    /// Name of the lab.
    pub name: String,
    /// Its folder.
    pub root: PathBuf,
}

impl LabFiles {
    /// The folder of a lab by name; nothing is created.
    ///
    /// # Errors
    /// The name is not made of a few lower-case letters and digits.
    pub fn of(name: &str) -> Result<Self> {
        let fits = !name.is_empty()
            && name.len() <= 12
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !fits {
            bail!(
                "--name {name:?}: use 1 to 12 lower-case letters and digits, as namespaces are named after it"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            root: all_labs().join(name),
        })
    }

    /// Folder of the control plane.
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// Folder of certificates and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Folder of logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Folder of a host.
    pub fn host(&self, host: &str) -> PathBuf {
        self.root.join("hosts").join(host)
    }

    /// The one folder that all hosts share.
    pub fn shared(&self) -> PathBuf {
        self.root.join("shared")
    }

    /// A kubeconfig by the name of its user: `admin`, `operator`, `h1`, `department`.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.pki().join(format!("{user}.kubeconfig"))
    }

    /// Whether the lab uses an existing cluster instead of a control plane of its own.
    pub fn is_on_existing_cluster(&self) -> bool {
        !self.pki().join("ca.key").exists()
    }

    /// The lab's addresses, once [`LabFiles::create`] has given it an index.
    ///
    /// # Errors
    /// The lab does not run.
    pub fn addresses(&self) -> Result<Addresses> {
        let text = fs::read_to_string(self.root.join("index")).with_context(|| {
            format!(
                "lab {} does not run; start it with: zylab up --name {}",
                self.name, self.name
            )
        })?;
        Ok(Addresses {
            index: text
                .trim()
                .parse()
                .context("the lab's index file is damaged; run zylab down")?,
        })
    }

    /// Makes the folder, notes whose the lab is, and takes the lowest free index.
    ///
    /// # Errors
    /// All indexes are taken, or the folder can not be made.
    pub fn create(&self, owner: Option<Owner>) -> Result<Addresses> {
        let labs = all_labs();
        fs::create_dir_all(&labs)
            .with_context(|| format!("{}: can not be made", labs.display()))?;
        let _lock = lock(&labs.join("lock"))?;
        let mut taken = Vec::new();
        for entry in fs::read_dir(&labs)? {
            if let Ok(text) = fs::read_to_string(entry?.path().join("index")) {
                taken.extend(text.trim().parse::<u8>());
            }
        }
        let index = (0..LABS_MAX)
            .find(|index| !taken.contains(index))
            .context("64 labs run already; stop one with zylab down --name NAME")?;
        fs::create_dir_all(&self.root)?;
        if let Some(owner) = owner {
            owner.note(self)?;
        }
        for folder in [
            self.control(),
            self.pki(),
            self.logs(),
            self.shared(),
            self.root.join("hosts"),
        ] {
            fs::create_dir_all(folder)?;
        }
        fs::write(self.root.join("index"), index.to_string())?;
        Ok(Addresses { index })
    }
}

/// The folder that holds all labs.
pub fn all_labs() -> PathBuf {
    std::env::var_os("ZYLAB_DIR").map_or_else(|| PathBuf::from(DEFAULT_ROOT), PathBuf::from)
}

/// Folder of what is built once and kept: control plane, guests, BMC simulators.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home =
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    base.unwrap_or_else(home).join("zhengyun")
}

/// Takes an exclusive lock on a file, waiting for it.
///
/// # Errors
/// The file can not be made or locked.
pub fn lock(path: &Path) -> Result<Flock<File>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("{}: can not be locked", path.display()))
}

/// Writes a file at once: readers see the old or the new content, never a part.
///
/// # Errors
/// The folder can not be written.
pub fn write_at_once(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = File::create(&temporary)
        .with_context(|| format!("{}: can not be written", temporary.display()))?;
    file.write_all(content)?;
    fs::rename(&temporary, path)?;
    Ok(())
}

/// The last lines of a log, for error messages.
pub fn tail(path: &Path, bytes_max: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(std::io::SeekFrom::Start(length.saturating_sub(bytes_max)))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("({}: {error})", path.display()))
}
