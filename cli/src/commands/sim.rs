//! `zyctl sim`: one simulated schedule as a readable log. The simulation belongs to the tests, which
//! nothing here depends on: the program `sim` is run as it lies beside this one.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Replays the schedule of a seed.
///
/// # Errors
/// `sim` is not built, or a rule was broken in that schedule.
pub fn run(seed: u64) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("sim");
    let status = Command::new(&program)
        .args(["--seed", &seed.to_string()])
        .status()
        .with_context(|| {
            format!(
                "{}: can not be run; build it in the source tree: cargo build -p sim",
                program.display()
            )
        })?;
    if !status.success() {
        bail!("sim --seed {seed}: {status}");
    }
    Ok(())
}
