//! Programs of a lab: run to their end, or started for good inside the lab's cgroup and a
//! network namespace. No shell anywhere.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// How long any condition may take; machines may be heavily loaded.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Whether somebody has interrupted this process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread removes what was started, which an interruption does not stop.
    static UNDISTURBED: Cell<bool> = const { Cell::new(false) };
}

/// Ends the work of this process at its next step: no program is started and nothing is waited for
/// any more, except by who is [`Undisturbed`].
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Asked before every step.
///
/// # Errors
/// The process was interrupted.
pub fn go_on() -> Result<()> {
    if interrupted() && !UNDISTURBED.get() {
        bail!("interrupted");
    }
    Ok(())
}

/// While it lives, no interruption stops this thread.
pub struct Undisturbed {
    before: bool,
}

impl Undisturbed {
    /// From now on.
    pub fn begin() -> Self {
        Self {
            before: UNDISTURBED.replace(true),
        }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        UNDISTURBED.set(self.before);
    }
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// Names the command line and what it printed on standard error.
pub fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String> {
    go_on()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("{program} can not be run; run scripts/setup.sh"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until a condition holds.
///
/// # Errors
/// What was waited for, and the condition's last error.
pub fn wait_for(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        go_on().with_context(|| format!("waiting for {what}"))?;
        let result = condition();
        if matches!(result, Ok(true)) {
            return Ok(());
        }
        if begin.elapsed() > patience {
            result.with_context(|| format!("waited {patience:?} for {what}"))?;
            bail!("waited {patience:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a child has ended; `meanwhile` is called whenever it has not. The child is killed when that
/// fails, or when this process is interrupted.
///
/// # Errors
/// What `meanwhile` said, or the interruption.
pub fn wait_for_end(
    child: &mut Child,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let Err(error) = go_on().and_then(|()| meanwhile()) {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The `zylab` program: itself, or for tests the one beside them.
///
/// # Errors
/// It is not built.
pub fn zylab() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ZYLAB_BIN") {
        return Ok(path.into());
    }
    let current = std::env::current_exe()?;
    if current.file_name() == Some(OsStr::new("zylab")) {
        return Ok(current);
    }
    let beside = current
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("zylab"))
        .find(|path| path.is_file());
    beside.context("zylab is not built; run: cargo build -p lab")
}

/// A program to start for good.
pub struct Daemon<'a> {
    /// Cgroup that it and all its children belong to.
    pub cgroup: &'a Path,
    /// Network namespace to enter, by name.
    pub namespace: Option<&'a str>,
    /// File for its output.
    pub log: &'a Path,
    /// Program and arguments.
    pub command: Vec<std::ffi::OsString>,
}

impl Daemon<'_> {
    /// Starts it, detached from this process. It is in its cgroup when this returns: whoever kills
    /// the cgroup next kills it too.
    ///
    /// # Errors
    /// The program or the log can not be opened.
    pub fn start(self) -> Result<()> {
        go_on()?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log)
            .with_context(|| format!("{}: can not be opened", self.log.display()))?;
        let mut command = Command::new(zylab()?);
        command.arg("enter").arg("--cgroup").arg(self.cgroup);
        if let Some(namespace) = self.namespace {
            command.arg("--namespace").arg(namespace);
        }
        command.arg("--").args(&self.command);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = command.spawn().context("zylab enter can not be run")?;
        // `enter` forks once, so that the daemon is nobody's zombie when it ends.
        let status = child.wait()?;
        if !status.success() {
            bail!(
                "{:?} did not start; see {}",
                self.command,
                self.log.display()
            );
        }
        Ok(())
    }
}

/// The `enter` subcommand: joins the cgroup and the namespace, then becomes the program.
///
/// # Errors
/// Returns only on failure.
pub fn enter(
    cgroup: &Path,
    namespace: Option<&str>,
    foreground: bool,
    command: &[std::ffi::OsString],
) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program named")?;
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("{}: can not be joined", cgroup.display()))?;
    if !foreground {
        // A second copy of this program does the rest; this one returns to the starter. The copy is
        // born in the cgroup: one that joined it later could do so after the cgroup was killed.
        Command::new(std::env::current_exe()?)
            .arg("enter")
            .arg("--foreground")
            .arg("--cgroup")
            .arg(cgroup)
            .args(namespace.iter().flat_map(|name| ["--namespace", name]))
            .arg("--")
            .args(command)
            .process_group(0)
            .spawn()?;
        return Ok(());
    }
    if let Some(name) = namespace {
        join_namespace(name)?;
    }
    // A session of its own: no terminal's Ctrl-C reaches it.
    let _ = nix::unistd::setsid();
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("{} can not be run", program.display()))
}

/// Moves this thread into a named network namespace.
///
/// # Errors
/// The namespace does not exist.
pub fn join_namespace(name: &str) -> Result<()> {
    let path = Path::new("/run/netns").join(name);
    let file =
        File::open(&path).with_context(|| format!("{}: no such namespace", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("{name}: can not be entered"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_waited_for_and_ended_when_the_wait_is_given_up() {
        let mut quick = Command::new("true").spawn().expect("a child");
        let status = wait_for_end(&mut quick, || Ok(())).expect("its end");
        assert!(status.success());

        let mut slow = Command::new("sleep").arg("600").spawn().expect("a child");
        let mut looked = 0;
        let error = wait_for_end(&mut slow, || {
            looked += 1;
            if looked == 3 {
                bail!("enough");
            }
            Ok(())
        })
        .expect_err("given up");
        assert_eq!((error.to_string().as_str(), looked), ("enough", 3));
        let status = slow.try_wait().expect("a status").expect("it has ended");
        assert!(!status.success());
    }
}
