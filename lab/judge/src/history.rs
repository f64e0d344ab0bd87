//! What was done to a site and what was seen of it: one JSON object a line, in the order of writing.
//! Whoever throws faults writes it; [`crate::chaos`] judges it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One line of a history. Times are nanoseconds since 1970 by the clock of the machine that threw
/// the faults, which is the prober's too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// Faults begin after this moment; the site is well.
    Begin {
        /// When.
        at: u64,
        /// Seed of the plan.
        seed: u64,
        /// Boot id of every host.
        hosts: BTreeMap<String, String>,
        /// Silence on both ways after which an armed guard kills, seconds; none where guards are not armed.
        #[serde(default)]
        contract_seconds: Option<u64>,
    },
    /// A fault is about to be made.
    Fault {
        /// When.
        at: u64,
        /// Which, such as `power-loss`.
        fault: String,
        /// At which host; none: the site's.
        host: Option<String>,
    },
    /// A fault could not be made, because its host was off by then: it does not count.
    Spared {
        /// When.
        at: u64,
        /// Which.
        fault: String,
        /// At which host.
        host: Option<String>,
        /// Why.
        why: String,
    },
    /// A fault has been ended.
    Heal {
        /// When.
        at: u64,
        /// Which.
        fault: String,
        /// At which host.
        host: Option<String>,
    },
    /// A host was switched: the ground truth, told by the machine itself.
    Power(Power),
    /// A host's guard says that it killed every guest of its host.
    Guard {
        /// When.
        at: u64,
        /// Which host.
        host: String,
    },
    /// Where each guest has a process, whenever that changes.
    Copies {
        /// When.
        at: u64,
        /// Hosts by guest.
        guests: BTreeMap<String, Vec<String>>,
    },
    /// What a VM is assigned to, whenever that changes.
    Right {
        /// When.
        at: u64,
        /// The VM.
        guest: String,
        /// Epoch of the assignment.
        epoch: i64,
        /// Its host.
        host: String,
        /// Incarnation of that host.
        boot_id: String,
    },
    /// All faults are healed and the site has come to rest.
    Rest {
        /// When.
        at: u64,
        /// How long after the last healing, seconds.
        after_seconds: f64,
    },
    /// All faults are healed and the site did not come to rest in time.
    Restless {
        /// When.
        at: u64,
        /// What was not as it should be.
        what: Vec<String>,
    },
    /// A data disk was judged.
    Disk {
        /// Which volume.
        volume: String,
        /// Name of the guest that wrote.
        guest: String,
        /// Number of the newest write.
        writes: u64,
        /// What is wrong; empty: nothing.
        problems: Vec<String>,
    },
    /// An Incident of the product, as the API gave it in the end.
    Incident {
        /// The object.
        object: serde_json::Value,
    },
}

/// A host was switched on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// When.
    pub at: u64,
    /// Which host.
    pub host: String,
    /// On; else off.
    pub on: bool,
    /// The incarnation that began or ended.
    pub boot_id: String,
    /// `bmc`: by a command to its BMC; `watchdog`: by the host's own; `lab`: by a fault or its healing.
    pub by: String,
}

/// Why a history can not be read.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The file can not be read.
    #[error("{path}: reading failed")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no entry.
    #[error("{path}: line {line} is no entry of a history")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// Reads a history.
pub fn read(path: &Path) -> Result<Vec<Entry>, HistoryError> {
    let wrap = |source| HistoryError::Read {
        path: path.to_owned(),
        source,
    };
    let file = BufReader::new(File::open(path).map_err(wrap)?);
    let mut entries = Vec::new();
    for (index, line) in file.lines().enumerate() {
        let parsed =
            serde_json::from_str(&line.map_err(wrap)?).map_err(|source| HistoryError::Line {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?;
        entries.push(parsed);
    }
    Ok(entries)
}
