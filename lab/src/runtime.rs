//! How a program that brings a lab up runs: on a runtime of its own, and nothing is left behind when
//! it is interrupted.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::files::LabFiles;
use crate::lifecycle::remove;

/// Does the work; when somebody interrupts it (Ctrl-C), everything of the lab is removed.
///
/// # Errors
/// The work's own, or that it was interrupted.
pub fn interruptible<T>(lab: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let files = LabFiles::of(lab)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            ended = work => ended,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("interrupted; removing what was started");
                remove(&files)?;
                bail!("interrupted")
            }
        }
    })
}

/// What a program of this name ends with; an error is told on standard error.
pub fn exit_code(program: &str, result: &Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
