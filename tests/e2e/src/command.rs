//! The real programs that people use, on a running lab.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;

/// No command of a person takes longer, seconds.
const ZYCTL_SECONDS: &str = "240";

/// Runs `zyctl` as the administrator, in English, and returns what it printed.
///
/// # Errors
/// It failed, with what it said.
pub fn zyctl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let program = lab::process::zylab()?.with_file_name("zyctl");
    let output = Command::new("timeout")
        .arg(ZYCTL_SECONDS)
        .arg(program)
        .args(["--language", "en", "--kubeconfig"])
        .arg(lab.files.kubeconfig("admin"))
        .args(arguments)
        .output()
        .context("zyctl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "zyctl {}: {}{text}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// What `kubectl` prints with these arguments; none where the machine has no kubectl.
///
/// # Errors
/// It failed, with what it said.
pub fn kubectl(lab: &Lab, arguments: &[&str]) -> Result<Option<String>> {
    let Some(program) = kubectl_program() else {
        return Ok(None);
    };
    let output = Command::new(program)
        .arg("--kubeconfig")
        .arg(lab.files.kubeconfig("admin"))
        .args(arguments)
        .output()
        .context("kubectl")?;
    ensure!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// kubectl: `$KUBECTL`, else what `scripts/setup.sh` fetched, else the machine's own.
fn kubectl_program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("KUBECTL") {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(lab::files::cache().join("tools"))
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.is_file())
}
