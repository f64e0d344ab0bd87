//! Programs of the host: arguments as a list, never a shell; bounded in time.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is not there.
    #[error("{program} can not be run: {source}; install it")]
    Missing {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("{command}: {message}")]
    Failed {
        /// The command line.
        command: String,
        /// What it printed on standard error.
        message: String,
    },
    /// It did not end.
    #[error("{command} did not end within {} s", .bound.as_secs())]
    TimedOut {
        /// The command line.
        command: String,
        /// Its bound.
        bound: Duration,
    },
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// See [`ProgramError`].
pub async fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    bound: Duration,
) -> Result<String, ProgramError> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let words: Vec<_> = arguments
        .iter()
        .map(|argument| argument.as_ref().to_string_lossy())
        .collect();
    let line = format!("{program} {}", words.join(" "));
    match tokio::time::timeout(bound, command.output()).await {
        Err(_) => Err(ProgramError::TimedOut {
            command: line,
            bound,
        }),
        Ok(Err(source)) => Err(ProgramError::Missing {
            program: program.to_owned(),
            source,
        }),
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => Err(ProgramError::Failed {
            command: line,
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
