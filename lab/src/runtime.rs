//! How a program that brings a lab up runs: on a runtime of its own, and nothing is left behind when
//! it is interrupted.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::files::LabFiles;
use crate::lifecycle::remove;
use crate::process::{interrupt, interrupted};

/// Does the work; when somebody interrupts it (Ctrl-C, SIGTERM, a closed terminal), it ends at its next
/// step and everything of the lab is removed. A second Ctrl-C ends the program at once; the next
/// lab that comes up then removes what is left.
///
/// # Errors
/// The work's own, or that it was interrupted.
pub fn interruptible<T>(lab: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let files = LabFiles::of(lab)?;
    let runtime = new_runtime(2)?;
    // Signals have a thread of their own: the work may hold up its threads for long.
    let listener = new_runtime(1)?;
    let (tell, told) = oneshot::channel();
    let signals = {
        let _context = listener.enter();
        Signals::new()?
    };
    listener.spawn(listen(signals, tell));
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = work => ended,
            Ok(()) = told => Err(anyhow!("interrupted")),
        }
    });
    // Waits for what runs on its threads, so that nobody makes anew what is removed now.
    drop(runtime);
    if ended.is_err() && interrupted() {
        remove(&files)?;
        bail!("interrupted");
    }
    ended
}

fn new_runtime(threads: usize) -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?)
}

/// Interrupts the work, then the program.
async fn listen(mut signals: Signals, tell: oneshot::Sender<()>) {
    signals.next().await;
    interrupt();
    // The work may have ended of itself, and then nobody listens.
    let _ = tell.send(());
    tell_person("interrupted; removing what was started");
    // A terminal that closes may say so twice; Ctrl-C again is a person who will not wait.
    signals.interrupt.recv().await;
    tell_person("interrupted again; the next lab that comes up removes what is left");
    std::process::exit(1);
}

/// Tells what happens on standard error, also when that is a terminal which may be gone: eprintln would
/// end the work in the middle then, and leave it as it is.
pub fn tell_person(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// What people and machines end a program with.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        // Who starts a program with nohup wants it to outlive the terminal.
        let hang_up = if ignores(&status, SignalKind::hangup()) {
            None
        } else {
            Some(signal(SignalKind::hangup()).context("SIGHUP")?)
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            hang_up,
        })
    }

    async fn next(&mut self) {
        let Self {
            interrupt,
            terminate,
            hang_up,
        } = self;
        let hung_up = async {
            match hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    }
}

/// Whether a process ignores a signal, by its `/proc/PID/status`.
fn ignores(status: &str, kind: SignalKind) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (kind.as_raw_value() - 1)) & 1 == 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_heeded() {
        let status =
            |mask: &str| format!("Name:\tzylab\nSigIgn:\t{mask}\nSigCgt:\t0000000000000000\n");
        assert!(ignores(&status("0000000000000001"), SignalKind::hangup()));
        assert!(!ignores(&status("0000000000001000"), SignalKind::hangup()));
        assert!(!ignores("", SignalKind::hangup()));
    }
}
