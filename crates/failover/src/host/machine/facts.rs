//! What a host's machine is told, what it wants, and what it lets others know.

use std::collections::BTreeSet;

use model::{BootId, HostName};
use serde::{Deserialize, Serialize};

use crate::host::fencing::CommandEnd;
use crate::host::incarnation::Identity;
use crate::proof::HostStopProof;
use crate::proof::confirmation::{Confirmation, ConfirmationError};
use crate::proof::power::{PowerReading, PowerState};
use crate::proof::storage::StorageFacts;
use crate::reason::Reason;
use crate::signs::LifeSigns;
use crate::time::Moment;

/// The fencing intent as it stands in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// None.
    #[default]
    None,
    /// Written by this operator.
    #[serde(rename_all = "camelCase")]
    Ours {
        /// The incarnation to stop.
        boot_id: BootId,
        /// When it is void, on this operator's clock.
        expires_at: Moment,
    },
    /// Written by another operator, or before a restart.
    Foreign {
        /// When it has certainly passed: first sight plus expiry plus send time-out.
        until: Moment,
    },
}

/// Everything that the decision about one host rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostFacts {
    /// The accepted incarnation.
    pub identity: Option<Identity>,
    /// Boot ids that never come back.
    pub retired: BTreeSet<BootId>,
    /// Why a report was refused.
    pub identity_problem: Option<String>,
    /// Boot id that its guard renews under.
    pub lease_boot_id: Option<BootId>,
    /// Signs of life.
    pub signs: LifeSigns,
    /// Age of the agent's converge loop, as its guard tells.
    pub loop_age_milliseconds: Option<u64>,
    /// The agent says that its storage is lost.
    pub storage_lost: bool,
    /// How many BMCs it has.
    pub bmcs: u32,
    /// The latest reading of its power.
    pub reading: Option<PowerReading>,
    /// Its status tells that its BMC read Off while it lived, and has not read On since, as this operator or a former one found.
    pub bmc_told_lying: bool,
    /// The latest force-off that ended.
    pub command: Option<CommandEnd>,
    /// A force-off is on its way, of the fencing that stands or of a former one.
    pub forcing: bool,
    /// The fencing intent in the API.
    pub intent: Intent,
    /// A person's word, and when this operator first saw it.
    pub confirmation: Option<(Confirmation, Moment)>,
    /// A word that was found void before, by this operator or a former one.
    pub void_confirmation: Option<Confirmation>,
    /// Observers on other hosts saw that its guard must have fenced it.
    #[serde(skip)]
    pub self_fenced: Option<HostStopProof>,
    /// Cutting it off from its storage.
    pub storage: StorageFacts,
    /// Planned work.
    pub maintenance: bool,
    /// It is being deleted.
    pub deleted: bool,
    /// Nothing keeps it yet from being deleted under what is assigned to it.
    pub unkept: bool,
    /// Hardware faults that quarantine it.
    pub faults: u32,
    /// Copies of the accepted incarnation that its agent can not end, as it says.
    pub close_stuck: u32,
    /// VMs still assigned to former incarnations.
    pub unsettled: u32,
}

impl HostFacts {
    /// Whether its Lease is renewed under an incarnation, as far as is known: without one the window that began with the
    /// observation decides.
    pub(super) fn lease_is_of(&self, identity: &Identity) -> bool {
        self.lease_boot_id
            .as_ref()
            .is_none_or(|boot_id| *boot_id == identity.boot_id)
    }
}

/// Life of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Life {
    /// No incarnation was accepted yet.
    NotRegistered,
    /// Renews.
    Ready,
    /// Missed a renewal.
    Suspect,
    /// Silent past the time-out.
    Unreachable,
    /// Being forced off.
    Fencing,
    /// Proven dead.
    Fenced,
    /// Back with a new boot; VMs of former ones wait.
    Recovering,
}

/// State of a host in one word, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "documented at the API's HostState, which they equal"
)]
pub enum HostState {
    NotRegistered,
    Ready,
    Suspect,
    Unreachable,
    Fencing,
    Fenced,
    Recovering,
    Maintenance,
    Quarantined,
}

/// Whether a host may be forced off now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FencePermit {
    /// It may.
    Granted,
    /// It may not, and why.
    Refused(Reason),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all_fields = "camelCase")]
pub enum HostAction {
    /// Read the power now, unless a reading is under way.
    ReadPower,
    /// Write a fencing intent by compare-and-swap.
    WriteIntent {
        /// The incarnation to stop.
        boot_id: BootId,
        /// After which it is void.
        expires_after_milliseconds: u64,
    },
    /// Force it off, never gracefully; not sent past `expires_at`.
    ForceOff {
        /// Index of the BMC.
        bmc: u32,
        /// Names the command.
        attempt: u32,
        /// When the intent is void.
        expires_at: Moment,
    },
    /// Remove the fencing intent.
    ClearIntent,
    /// Order the cut in the API, then have every pool that can cut the host off, and read back.
    CutStorage {
        /// The incarnation that it is for.
        boot_id: BootId,
    },
    /// Let it in again on every pool, then take the order back.
    LiftCut,
}

/// What kind of thing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// A fact that was observed.
    Seen,
    /// A decision.
    Decided,
    /// An act.
    Done,
    /// An act deliberately left undone.
    NotDone,
}

/// Something worth telling about a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEvent {
    /// The host.
    pub host: HostName,
    /// Its incarnation.
    pub boot_id: BootId,
    /// What kind.
    pub kind: EventKind,
    /// What.
    pub reason: Reason,
}

/// What the other deciders and people may know about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// State in one word.
    pub state: HostState,
    /// Why, the weightiest first.
    pub reasons: Vec<Reason>,
    /// Why nothing new may be placed there; none when it may.
    pub not_placeable: Option<Reason>,
    /// Why the person's word that stands counts for nothing, or not yet.
    pub refused_word: Option<ConfirmationError>,
    /// Its power as last read, where the reading still counts.
    pub power: Option<PowerState>,
    /// It misses renewals.
    pub silent: bool,
    /// It is silent past the time-out, or proven dead.
    pub lost: bool,
    /// The person's word that was found void while the host lived.
    pub void_confirmation: Option<Confirmation>,
}
