//! What an agent says about its copy of a VM, as this crate reads it. The API's types are
//! turned into these at the operator's door.

use model::Assignment;
use serde::{Deserialize, Serialize};

/// State of one copy of a VM on one host, as its agent reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CopyPhase {
    /// Being prepared; the epoch is not used yet.
    Preparing,
    /// The epoch is used; QEMU is being started.
    Starting,
    /// Runs.
    Running,
    /// Arrived by migration, paused until the source has handed over.
    Arrived,
    /// Being shut down on request.
    Stopping,
    /// The epoch is closed for ever and no domain is left.
    Closed,
    /// Migrated away; never ran after switch-over.
    HandedOver,
    /// A close does not finish.
    CloseStuck,
    /// Stands still since a disk failed.
    Stalled,
}

/// Why an epoch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CloseCause {
    /// Its user wants it halted or deleted.
    Requested,
    /// The guest shut itself down.
    GuestShutdown,
    /// QEMU crashed or was killed.
    Crashed,
    /// The start failed or took too long.
    StartFailed,
    /// QEMU's image lock refused a disk: another process has it open for writing.
    ImageLocked,
    /// The assignment moved elsewhere.
    Superseded,
    /// The agent declined to start it: before using the epoch, or as its ledger was lost and the epoch may have been used.
    Declined,
    /// The migration that this copy was to receive failed.
    MigrationFailed,
}

/// An agent's report about one copy. It counts only for the assignment that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyReport {
    /// The assignment that the report is about.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// State of the copy.
    pub phase: CopyPhase,
    /// Why it was closed, when it was.
    #[serde(default)]
    pub cause: Option<CloseCause>,
}

impl CopyReport {
    /// A report without a cause.
    pub fn new(assignment: Assignment, phase: CopyPhase) -> Self {
        Self {
            assignment,
            phase,
            cause: None,
        }
    }

    /// A report of a closed epoch with its cause.
    pub fn closed(assignment: Assignment, cause: CloseCause) -> Self {
        Self {
            assignment,
            phase: CopyPhase::Closed,
            cause: Some(cause),
        }
    }
}
