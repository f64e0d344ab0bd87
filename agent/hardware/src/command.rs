//! Running a program with a time-out and bounded output, never through a shell. A program that
//! hangs in the kernel (a dead disk) can not be killed; it is left to a thread of its own, and
//! nothing else is started meanwhile.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("{program} can not be started")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} {argument} did not answer within {seconds} s")]
    TimeOut {
        /// The program.
        program: String,
        /// Its last argument, which names the device.
        argument: String,
        /// The limit.
        seconds: u64,
    },
    /// An earlier one can not even be killed.
    #[error("an earlier {program} still hangs in the kernel; a disk does not answer")]
    Stuck {
        /// The program.
        program: String,
    },
    /// Its output could not be read or is too large.
    #[error("the output of {program} can not be read (at most {bytes_max} bytes)")]
    Output {
        /// The program.
        program: String,
        /// The limit.
        bytes_max: u64,
    },
}

impl CommandError {
    /// Message with its cause, in one line.
    pub fn sentence(&self) -> String {
        match self {
            CommandError::Start { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// Runs programs one after another.
#[derive(Debug, Default)]
pub struct Runner {
    stuck: Option<JoinHandle<()>>,
}

/// How long a killed program may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(1);

impl Runner {
    /// Standard output of a program that ended, whatever its exit status said.
    ///
    /// # Errors
    /// It did not start, end in time, or wrote too much.
    pub fn run(
        &mut self,
        program: &Path,
        arguments: &[&str],
        time_out: Duration,
        bytes_max: u64,
    ) -> Result<Vec<u8>, CommandError> {
        let name = program.display().to_string();
        if self
            .stuck
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return Err(CommandError::Stuck { program: name });
        }
        self.stuck = None;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| CommandError::Start {
                program: name.clone(),
                source,
            })?;
        let deadline = Instant::now() + time_out;
        let output = read_until(&mut child, deadline, bytes_max);
        // Who has written all of its output is about to end; who floods is not waited for.
        let patience = if matches!(output, Some(Some(_))) {
            deadline.max(Instant::now() + KILL_GRACE)
        } else {
            Instant::now()
        };
        let ended = wait_until(&mut child, patience);
        if !ended {
            self.kill(child);
        }
        match output {
            Some(Some(bytes)) if ended => Ok(bytes),
            Some(None) => Err(CommandError::Output {
                program: name,
                bytes_max,
            }),
            _ => Err(CommandError::TimeOut {
                program: name,
                argument: arguments.last().copied().unwrap_or_default().to_owned(),
                seconds: time_out.as_secs(),
            }),
        }
    }

    fn kill(&mut self, mut child: Child) {
        // It fails only if the program has ended meanwhile, which the wait below sees.
        let _ = child.kill();
        if !wait_until(&mut child, Instant::now() + KILL_GRACE) {
            self.stuck = Some(thread::spawn(move || {
                let _ = child.wait();
            }));
        }
    }
}

/// Outer `None`: out of time. Inner `None`: too much or unreadable.
fn read_until(child: &mut Child, deadline: Instant, bytes_max: u64) -> Option<Option<Vec<u8>>> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(bytes_max + 1).read_to_end(&mut bytes);
        let fits = read.is_ok() && bytes.len() as u64 <= bytes_max;
        // Nobody listens any more when the time is up.
        let _ = sender.send(fits.then_some(bytes));
    });
    receiver
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .ok()
}

fn wait_until(child: &mut Child, deadline: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            Ok(None) if Instant::now() < deadline => thread::park_timeout(Duration::from_millis(5)),
            Ok(None) | Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], seconds: u64, bytes_max: u64) -> Result<Vec<u8>, CommandError> {
        Runner::default().run(
            Path::new("/bin/sh"),
            arguments,
            Duration::from_secs(seconds),
            bytes_max,
        )
    }

    #[test]
    fn output_is_given_whatever_the_exit_status() {
        assert_eq!(
            run(&["-c", "printf hello; exit 8"], 60, 100).unwrap(),
            b"hello"
        );
    }

    #[test]
    fn hanging_flooding_and_absent_programs_are_told_apart() {
        let begun = Instant::now();
        assert!(matches!(
            run(&["-c", "exec cat /dev/zero"], 60, 100),
            Err(CommandError::Output { .. })
        ));
        assert!(matches!(
            run(&["-c", "exec tail -f /dev/null"], 1, 100),
            Err(CommandError::TimeOut { .. })
        ));
        assert!(begun.elapsed() < Duration::from_secs(60));
        let absent = Runner::default().run(
            Path::new("/nonexistent/smartctl"),
            &[],
            Duration::from_secs(1),
            1,
        );
        assert!(matches!(absent, Err(CommandError::Start { .. })));
    }
}
