//! The inside of a host that is on: its mounts, its network, its processes.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::files::LabFiles;
use crate::host::processes;
use crate::process;

/// PID 1 of a host.
fn init(files: &LabFiles, host: &str) -> Result<i32> {
    let pids = processes(files, host, "zylab")?;
    let init = pids.last().copied();
    init.with_context(|| format!("host {host} is not on"))
}

/// The words that stand before a command that is to run inside a host.
///
/// # Errors
/// It is off.
pub fn words(files: &LabFiles, host: &str) -> Result<Vec<String>> {
    let pid = init(files, host)?.to_string();
    let words = ["nsenter", "--target", &pid, "--mount", "--uts", "--net"];
    let words = words.into_iter().chain(["--pid", "--"]);
    Ok(words.map(str::to_owned).collect())
}

/// Runs a command inside a host and returns what it printed.
///
/// # Errors
/// The host is off, or the command failed.
pub fn run(files: &LabFiles, host: &str, command: &[&str]) -> Result<String> {
    let mut words = words(files, host)?;
    words.extend(command.iter().map(|word| (*word).to_owned()));
    process::run(&words[0], &words[1..])
}

/// The folder that agent and guard of a host share, as this machine sees it.
///
/// # Errors
/// It is off.
pub fn run_dir(files: &LabFiles, host: &str) -> Result<PathBuf> {
    let init = init(files, host)?;
    Ok(PathBuf::from(format!("/proc/{init}/root/run/zhengyun")))
}
