//! Why something was decided, and why something was not: a closed set, each with a stable
//! key for programs and one sentence for people in English and Chinese (`words`).

mod words;

use model::{HostName, StopProofKind};
use serde::{Deserialize, Serialize};

use crate::host::table::Conclusion;

/// A reason. Durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
#[allow(
    missing_docs,
    reason = "each variant's sentence in `words` is its documentation"
)]
pub enum Reason {
    // Hosts.
    NotRegistered,
    Alive,
    MissedRenewal {
        silent_milliseconds: u64,
    },
    Unreachable {
        silent_milliseconds: u64,
    },
    Concluded {
        conclusion: Conclusion,
    },
    WaitsBeforeFence {
        left_milliseconds: u64,
    },
    WatchesPowerOff,
    IsolatedKept,
    Storm {
        silent: u32,
        of: u32,
    },
    StormReleases {
        other: HostName,
    },
    NoOtherHost,
    Disarmed,
    CutsStorage,
    StorageIsCut,
    Frozen,
    CannotWrite,
    FenceIntended,
    PowerAlreadyOff,
    ForcedOff {
        bmc: u32,
        attempt: u32,
    },
    StaysOn {
        bmc: u32,
        attempts: u32,
    },
    OffNotProven {
        bmc: u32,
    },
    NextBmc {
        bmc: u32,
    },
    FenceFailed,
    NoBmc,
    BmcOfOtherMachine,
    Proven {
        kind: StopProofKind,
        evidence: String,
    },
    NeedsPerson {
        host: HostName,
    },
    WordIsVoid,
    IdentityConflict {
        detail: String,
    },
    AgentDown {
        age_milliseconds: u64,
    },
    BootNotConfirmed,
    NotKeptYet,
    BeingDeleted,
    Returned,
    Reconciling {
        left: u32,
    },
    InMaintenance,
    FaultsStand {
        count: u32,
    },
    ObserverPaused {
        milliseconds: u64,
    },
    // VMs.
    Runs,
    Starts,
    Stops,
    Stopped,
    ShutDownInside,
    Moves,
    NeedsHost,
    WaitsForVolumes {
        detail: String,
    },
    HostSilent {
        host: HostName,
    },
    WaitsForProof {
        host: HostName,
    },
    PinnedTo {
        host: HostName,
    },
    WaitsForItsHost {
        host: HostName,
    },
    BacksOff {
        left_milliseconds: u64,
        failures: u32,
    },
    KeepsFailing {
        failures: u32,
    },
    Restarts {
        kind: StopProofKind,
    },
    CloseStuck {
        host: HostName,
    },
    StuckTogether {
        hosts: u32,
    },
    Stalled {
        host: HostName,
    },
    EpochsWentBack,
    IncomingLeft {
        host: HostName,
    },
    NotResumed {
        host: HostName,
    },
    WaitsForTier {
        order: i32,
    },
    WaitsForSlot {
        host: HostName,
        starting: u32,
    },
    // Migrations.
    NeedsTarget,
    NotRunning,
    TargetPrepares,
    MemoryCopied,
    TargetResumes,
    ResumedTooLate,
    CancelRequested,
    NoLongerWanted,
    PreparedTooLate,
    TookTooLong,
    TargetLost {
        host: HostName,
    },
    SourceLost {
        host: HostName,
    },
    SourceRunsOn,
    SourceStopped,
    TargetRefused,
    WaitsForSource,
    WaitsForRefusal,
    ColdStart,
    WaitsForOtherMove,
    Moved,
    RunsThere {
        host: HostName,
    },
    SourceProvenStopped {
        host: HostName,
        kind: StopProofKind,
    },
    RestartedElsewhere {
        host: HostName,
    },
    // Evacuations.
    EvacuatedRecently {
        left_milliseconds: u64,
    },
    TooManyEvacuations {
        at_once: u32,
    },
}

/// One sentence in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// English.
    pub english: String,
    /// Chinese (zh-CN).
    pub chinese: String,
}

impl Reason {
    /// Stable key: the variant's name, bounded, fit for metrics and events.
    pub fn key(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{', '('])
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// The sentence in English.
    pub fn english(&self) -> String {
        self.sentence().english
    }

    /// The sentence in Chinese.
    pub fn chinese(&self) -> String {
        self.sentence().chinese
    }

    /// The sentence in both languages.
    pub fn sentence(&self) -> Sentence {
        self.of_host()
            .or_else(|| self.of_fencing())
            .or_else(|| self.of_vm())
            .unwrap_or_else(|| self.of_migration())
    }
}
