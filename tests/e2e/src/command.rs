//! The real programs that people use, on a running lab.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use lab::process::wait_for;

/// No command of a person takes longer, seconds.
const ZYCTL_SECONDS: u32 = 240;

/// `zyctl` as the administrator, in English.
///
/// # Errors
/// Nobody knows where it lies.
pub fn zyctl_command(lab: &Lab) -> Result<Command> {
    let mut command = Command::new(lab::process::zylab()?.with_file_name("zyctl"));
    command
        .args(["--language", "en", "--kubeconfig"])
        .arg(lab.files.kubeconfig("admin"));
    Ok(command)
}

/// A command, ended after so many seconds.
pub fn within(seconds: u32, command: &Command) -> Command {
    let mut limited = Command::new("timeout");
    limited
        .arg(seconds.to_string())
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

/// Runs `zyctl` and returns what it printed.
///
/// # Errors
/// It failed, with what it said.
pub fn zyctl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    zyctl_within(ZYCTL_SECONDS, lab, arguments)
}

/// The same, ended after so many seconds.
///
/// # Errors
/// It failed, with what it said.
pub fn zyctl_within(seconds: u32, lab: &Lab, arguments: &[&str]) -> Result<String> {
    let output = within(seconds, &zyctl_command(lab)?)
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

/// Declares a host's faults as dealt with, as a person does.
///
/// # Errors
/// It failed, with what it said.
pub fn clear(lab: &Lab, host: &str, reason: &str) -> Result<()> {
    let words = ["host", "clear", host, "--reason", reason, "--confirm", host];
    zyctl(lab, &words).map(drop)
}

/// A command that follows something until it ends by itself; it does not outlive the test.
pub struct Following(pub Child);

impl Following {
    /// Waits until it has ended by itself: whether it succeeded, and what it said where that is piped.
    ///
    /// # Errors
    /// It goes on; with what it has said so far.
    pub fn ended(mut self, what: &str, patience: Duration) -> Result<(bool, String)> {
        let ended = wait_for(what, patience, || Ok(self.0.try_wait()?.is_some()));
        // One that goes on is ended here, as its output has no end before.
        let _ = self.0.kill();
        let succeeded = self.0.wait()?.success();
        let mut said = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            output.read_to_string(&mut said)?;
        }
        if let Some(mut errors) = self.0.stderr.take() {
            errors.read_to_string(&mut said)?;
        }
        ended.with_context(|| format!("it said: {said}"))?;
        Ok((succeeded, said))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `kubectl` prints with these arguments.
///
/// # Errors
/// It is missing, or it failed, with what it said.
pub fn kubectl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let program = kubectl_program().context("kubectl is missing; run scripts/setup.sh")?;
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
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// kubectl: `$KUBECTL`, else the machine's own, by its name, else what `scripts/setup.sh` fetched.
pub fn kubectl_program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("KUBECTL") {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file()) {
        return Some("kubectl".into());
    }
    let fetched = lab::files::cache().join("tools/kubectl");
    fetched.is_file().then_some(fetched)
}
