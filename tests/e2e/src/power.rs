//! The machines' own record of power, which the product does not write.

use anyhow::Result;
use judge::history::{self, Entry};
use lab::{Lab, host};

/// When hosts were forced off through their BMC, nanoseconds since 1970.
///
/// # Errors
/// The record can not be read.
pub fn fences(lab: &Lab) -> Result<Vec<u64>> {
    let entries = history::read(&host::power_file(&lab.files))?;
    let forced = entries.into_iter().filter_map(|entry| match entry {
        Entry::Power(power) if power.by == "bmc" && !power.on => Some(power.at),
        _ => None,
    });
    Ok(forced.collect())
}
