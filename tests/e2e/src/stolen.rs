//! How much of the processor the machine's own host took away meanwhile: of what is measured then, more
//! is the machine's than the platform's.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// What is measured while a larger share of the processors' time was taken away is not counted.
pub(crate) const TOO_MUCH: f64 = 0.1;

/// A moment from which on the share is looked at.
pub(crate) struct Stolen(Ticks);

/// Processor time of all processors since boot, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Stolen {
    /// From now on.
    pub(crate) fn since_now() -> Result<Self> {
        Ok(Self(read(Path::new("/proc/stat"))?))
    }

    /// The share that was taken away since, from 0 to 1.
    pub(crate) fn share(&self) -> Result<f64> {
        Ok(share(self.0, read(Path::new("/proc/stat"))?))
    }
}

fn read(path: &Path) -> Result<Ticks> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| format!("{}: line \"cpu\"", path.display()))
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; what follows is
/// contained in the first two (proc(5)).
fn parse(text: &str) -> Result<Ticks> {
    let line = text.lines().next().unwrap_or_default();
    let fields = line.strip_prefix("cpu ").context("is not there")?;
    let ticks = fields
        .split_ascii_whitespace()
        .take(8)
        .map(str::parse::<u64>)
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(ticks.len() == 8, "has {} fields instead of 8", ticks.len());
    Ok(Ticks {
        all: ticks.iter().sum(),
        stolen: ticks[7],
    })
}

fn share(before: Ticks, after: Ticks) -> f64 {
    let all = after.all.saturating_sub(before.all).max(1);
    after.stolen.saturating_sub(before.stolen) as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_all_processors_since_then() {
        let before = parse("cpu  10 0 20 30 5 0 5 30 7 7\ncpu0 1 2").expect("a line");
        assert_eq!((before.all, before.stolen), (100, 30));
        let after = parse("cpu  60 0 20 60 5 0 5 50 9 9").expect("a line");
        assert!((share(before, after) - 0.2).abs() < 1e-9);
        assert_eq!(share(before, before), 0.0);
    }

    #[test]
    fn another_text_is_an_error() {
        for text in ["", "intr 1", "cpu  1 2 3", "cpu  1 2 3 4 5 6 7 x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
