//! The three programs of the control plane: those of the machine when they fit, else built
//! once from the pinned Go modules of `lab/controlplane` into the cache.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::files::{cache, lock, tail};

const GO_MOD: &str = include_str!("../../controlplane/go.mod");
const GO_SUM: &str = include_str!("../../controlplane/go.sum");
/// The pinned version, which the built programs say of themselves.
const VERSION: &str = "v1.37.2";
/// Oldest minor version of Kubernetes 1 that knows everything that our CRDs and policies use.
const MINOR_LEAST: u32 = 33;
const PACKAGES: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
];

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
}

impl Binaries {
    /// Finds or builds them, telling what takes long.
    ///
    /// # Errors
    /// Go is not there, or the build failed.
    pub fn get() -> Result<Self> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = assets.into_iter().chain(std::env::split_paths(&path));
        for folder in folders {
            let binaries = Self::in_folder(&folder);
            if binaries.complete() && fits(&binaries.apiserver) {
                return Ok(binaries);
            }
        }
        let binaries = Self::in_folder(&built_folder());
        if !binaries.complete() {
            build()?;
        }
        Ok(binaries)
    }

    fn in_folder(folder: &Path) -> Self {
        Self {
            etcd: folder.join("etcd"),
            apiserver: folder.join("kube-apiserver"),
            controller_manager: folder.join("kube-controller-manager"),
        }
    }

    fn complete(&self) -> bool {
        [&self.etcd, &self.apiserver, &self.controller_manager]
            .iter()
            .all(|path| path.is_file())
    }
}

/// Whether a kube-apiserver is recent enough.
fn fits(apiserver: &Path) -> bool {
    let Ok(output) = Command::new(apiserver).arg("--version").output() else {
        return false;
    };
    minor_version(&String::from_utf8_lossy(&output.stdout))
        .is_some_and(|minor| minor >= MINOR_LEAST)
}

/// The minor version in `Kubernetes v1.37.2`.
fn minor_version(text: &str) -> Option<u32> {
    text.trim()
        .strip_prefix("Kubernetes v1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// Folder of the built programs: named by what they are built from.
fn built_folder() -> PathBuf {
    let digest = Sha256::new()
        .chain_update(GO_MOD)
        .chain_update(GO_SUM)
        .chain_update(VERSION)
        .finalize();
    let key: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    cache().join("controlplane").join(key)
}

fn build() -> Result<()> {
    let folder = built_folder();
    let _lock = lock(&folder.with_extension("lock"))?;
    if Binaries::in_folder(&folder).complete() {
        return Ok(());
    }
    eprintln!(
        "Building etcd, kube-apiserver and kube-controller-manager {VERSION} once, about 10 minutes, into {}",
        folder.display()
    );
    let work = folder.with_extension("work");
    fs::create_dir_all(&work)?;
    fs::write(work.join("go.mod"), GO_MOD)?;
    fs::write(work.join("go.sum"), GO_SUM)?;
    let out = work.join("bin");
    fs::create_dir_all(&out)?;
    for (name, package) in PACKAGES {
        build_one(&work, &out.join(name), name, package)?;
    }
    fs::rename(&out, &folder)
        .with_context(|| format!("{}: can not be put in place", folder.display()))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn build_one(work: &Path, target: &Path, name: &str, package: &str) -> Result<()> {
    let flags = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={VERSION} -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
    );
    let log = work.join(format!("{name}.log"));
    let mut child = Command::new("go")
        .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(target)
        .arg(package)
        .current_dir(work)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()
        .context("go can not be run; install Go 1.26 or newer, or name a folder with the three programs in $KUBEBUILDER_ASSETS")?;
    let begin = Instant::now();
    let mut told = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() - told > Duration::from_secs(15) {
            told = begin.elapsed();
            eprintln!("  {name}: {} s", told.as_secs());
            std::io::stderr().flush()?;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        bail!("{name} could not be built:\n{}", tail(&log, 4_000));
    }
    eprintln!("  {name}: built in {} s", begin.elapsed().as_secs());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_that_a_server_says() {
        assert_eq!(minor_version("Kubernetes v1.37.2\n"), Some(37));
        assert_eq!(minor_version("Kubernetes v0.0.0-master+$Format:%H$"), None);
        assert_eq!(minor_version(""), None);
    }
}
