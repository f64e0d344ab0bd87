//! Judges: whether endpoints answered, whether every disk write happened exactly once, and whether
//! the product's fault ledger tells what was really done to a site.
//!
//! They share no code with the product, not even its vocabulary, so that a mistake in one is not
//! repeated in the other. Judging ([`report`], [`ledger`], [`chaos`]) is pure: samples or sectors in, verdict
//! out. Gathering ([`probe`], [`disk`]) does the I/O and judges nothing.

pub mod chaos;
pub mod disk;
pub mod history;
pub mod http;
pub mod incident;
pub mod ledger;
pub mod probe;
pub mod record;
pub mod report;
pub mod results;
pub mod spans;
pub mod witness;

use std::collections::BTreeSet;
use std::path::Path;

/// Reads the disk in `path` and judges its log against what its guest told the prober in `samples`
/// (possibly nothing). `samples` must have been gathered before the call. A disk in use may change
/// while it is read, so a log that looks wrong is read once more: what is really wrong stays so.
pub fn judge_disk(
    path: &Path,
    samples: &[results::Sample],
) -> Result<ledger::Verdict, disk::DiskError> {
    let verdict = look_once(path, samples)?;
    if verdict.is_clean() {
        Ok(verdict)
    } else {
        look_once(path, samples)
    }
}

fn look_once(path: &Path, samples: &[results::Sample]) -> Result<ledger::Verdict, disk::DiskError> {
    let bytes = disk::read_log(path)?;
    // The disk itself says whose it is; what that guest acknowledged is compared in a second pass.
    let name = ledger::judge(&bytes, &BTreeSet::new()).guest;
    Ok(ledger::judge(
        &bytes,
        &witness::acknowledged(samples, &name),
    ))
}
