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
use crate::process::{run, wait_for_end};

const GO_MOD: &str = include_str!("../../controlplane/go.mod");
const GO_SUM: &str = include_str!("../../controlplane/go.sum");
/// The pinned version, which the built programs say of themselves.
const VERSION: &str = "v1.37.2";
/// Oldest version of Kubernetes that knows everything that our CRDs and policies use.
const KUBERNETES_LEAST: (u32, u32) = (1, 33);
/// Oldest version of etcd that API servers from that one on are tested with.
const ETCD_LEAST: (u32, u32) = (3, 5);
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
            if !binaries.complete() {
                continue;
            }
            match binaries.check() {
                Ok(()) => return Ok(binaries),
                Err(error) => eprintln!(
                    "The control plane in {} is not used: {error:#}",
                    folder.display()
                ),
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

    /// Whether the programs are recent enough and fit together.
    fn check(&self) -> Result<()> {
        judge(&Versions {
            etcd: ask(&self.etcd)?,
            apiserver: ask(&self.apiserver)?,
            controller_manager: ask(&self.controller_manager)?,
        })
    }
}

/// What the programs say of themselves.
struct Versions {
    etcd: String,
    apiserver: String,
    controller_manager: String,
}

fn judge(versions: &Versions) -> Result<()> {
    let etcd = version("etcd", &versions.etcd)?;
    let apiserver = version("kube-apiserver", &versions.apiserver)?;
    let manager = version("kube-controller-manager", &versions.controller_manager)?;
    for (program, found, least) in [
        ("etcd", etcd, ETCD_LEAST),
        ("kube-apiserver", apiserver, KUBERNETES_LEAST),
        ("kube-controller-manager", manager, KUBERNETES_LEAST),
    ] {
        if found < least {
            bail!(
                "{program} is of version {}.{}; {}.{} or newer is needed",
                found.0,
                found.1,
                least.0,
                least.1
            );
        }
    }
    // Kubernetes' rule of version skew: not newer, and at most one minor version older.
    let fits =
        manager.0 == apiserver.0 && (manager.1 == apiserver.1 || manager.1 + 1 == apiserver.1);
    if !fits {
        bail!(
            "kube-controller-manager is of version {}.{}; kube-apiserver {}.{} works with its own version and the one before",
            manager.0,
            manager.1,
            apiserver.0,
            apiserver.1
        );
    }
    Ok(())
}

fn ask(program: &Path) -> Result<String> {
    let path = program.display().to_string();
    run(&path, ["--version"])
}

/// Major and minor version in `Kubernetes v1.37.2`, or in `etcd Version: 3.7.0` and what follows.
fn version(program: &str, text: &str) -> Result<(u32, u32)> {
    let line = text.lines().next().unwrap_or_default().trim();
    let read = || -> Option<(u32, u32)> {
        let rest = line
            .strip_prefix("Kubernetes v")
            .or_else(|| line.strip_prefix("etcd Version: "))?;
        let mut numbers = rest.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    read().with_context(|| format!("{program} --version says {line:?}, which is no version"))
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
    let status = wait_for_end(&mut child, || {
        if begin.elapsed() - told > Duration::from_secs(15) {
            told = begin.elapsed();
            eprintln!("  {name}: {} s", told.as_secs());
            std::io::stderr().flush()?;
        }
        Ok(())
    })
    .with_context(|| format!("building {name}"))?;
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
    fn reads_the_version_that_a_program_says() {
        let read = |text| version("it", text).ok();
        assert_eq!(read("Kubernetes v1.37.2\n"), Some((1, 37)));
        let etcd = "etcd Version: 3.7.0\nGit SHA: Not provided\nGo Version: go1.26.8\n";
        assert_eq!(read(etcd), Some((3, 7)));
        assert_eq!(
            read("Kubernetes v0.0.0-master+$Format:%H$"),
            Some((0, 0)),
            "too old"
        );
        assert_eq!(read("3.7.0"), None);
        let error = version("etcd", "").unwrap_err().to_string();
        assert_eq!(error, "etcd --version says \"\", which is no version");
    }

    #[test]
    fn programs_must_be_recent_and_fit_together() {
        let judge = |etcd: &str, apiserver: &str, manager: &str| {
            let versions = Versions {
                etcd: format!("etcd Version: {etcd}"),
                apiserver: format!("Kubernetes v{apiserver}"),
                controller_manager: format!("Kubernetes v{manager}"),
            };
            super::judge(&versions)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(judge("3.7.0", "1.37.2", "1.37.2"), "");
        assert_eq!(judge("3.5.21", "1.34.0", "1.33.9"), "");
        for (etcd, apiserver, manager, sentence) in [
            (
                "3.4.1",
                "1.37.2",
                "1.37.2",
                "etcd is of version 3.4; 3.5 or newer",
            ),
            (
                "3.7.0",
                "1.32.9",
                "1.32.9",
                "kube-apiserver is of version 1.32; 1.33 or newer",
            ),
            (
                "3.7.0",
                "1.33.0",
                "1.32.0",
                "kube-controller-manager is of version 1.32; 1.33",
            ),
            (
                "3.7.0",
                "1.36.0",
                "1.37.0",
                "kube-controller-manager is of version 1.37; kube-apiserver 1.36",
            ),
            (
                "3.7.0",
                "1.37.0",
                "1.35.0",
                "kube-controller-manager is of version 1.35; kube-apiserver 1.37",
            ),
        ] {
            let said = judge(etcd, apiserver, manager);
            assert!(said.starts_with(sentence), "{said:?}");
        }
    }
}
