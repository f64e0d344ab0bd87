//! Errors planted on purpose: each breaks one rule, and a checker must notice.

use failover::Policy;

/// A planted error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    /// None: the real thing.
    #[default]
    None,
    /// The operator takes a force-off's return code for a reading of Off.
    TrustsCommand,
    /// The operator writes rights and claims without comparing versions.
    NoCompareAndSwap,
    /// The operator does not compare a BMC's system UUID with the host's.
    TrustsAnyBmc,
    /// The agent forgets what it did with an epoch.
    LedgerForgets,
    /// libvirt's hook lets a start pass whatever the ledger says by then.
    HookPasses,
    /// The agent does not mind a copy without an entry in the ledger.
    KeepsStarting,
    /// The target lets its copy run when it has arrived.
    ResumesEagerly,
    /// The source says the hand-over when its guest stands still, and its QEMU is not dead.
    HandsOverStopped,
    /// The operator forgets the epoch of a move that failed.
    LosesEpoch,
    /// The operator shows a VM as it last reported, whatever its host.
    ShowsStale,
    /// The operator never reads or switches power.
    NeverFences,
    /// The operator takes a host for unreachable that has missed two renewals.
    Hasty,
    /// The operator sees no renewal of the first host any more.
    DeafToOne,
    /// The operator knows machines by their system UUID alone.
    UuidAlone,
    /// The operator hears of heartbeats from one host only, which may lie.
    BelievesOne,
    /// The operator forces off although a person has disarmed failover.
    IgnoresDisarm,
    /// The operator restarts VMs of dead hosts only in the first seconds of each two minutes.
    Dawdles,
    /// An agent that starts stops what runs.
    AgentStopsVms,
    /// The operator begins moves and forgets them.
    ForgetsMoves,
    /// The guard never kills, though it gave its word.
    GuardSleeps,
    /// A guard that is started again does not know its pools before the API answers.
    GuardForgetsPools,
    /// A cut is lifted as soon as the host renews again.
    LiftsEarly,
    /// Agents and operators forget which versions of the API they saw.
    ForgetsVersions,
    /// After a rebase agents keep starts that were allowed before the restore.
    RebaseKeepsStarts,
    /// A rebase does not wait for every host's word.
    RebaseUnheard,
    /// The operator gives room and slots as VMs are listed, whatever their priority.
    PlansAsListed,
    /// The operator keeps no room for a VM that waits for another tier.
    KeepsNoRoom,
    /// The operator forgets where it placed a VM until its watch shows it.
    ForgetsSeats,
}

impl Mutant {
    /// All of them, with the name that the command line takes.
    pub const ALL: [(&'static str, Mutant); 28] = [
        ("trusts-command", Mutant::TrustsCommand),
        ("no-compare-and-swap", Mutant::NoCompareAndSwap),
        ("trusts-any-bmc", Mutant::TrustsAnyBmc),
        ("ledger-forgets", Mutant::LedgerForgets),
        ("hook-passes", Mutant::HookPasses),
        ("keeps-starting", Mutant::KeepsStarting),
        ("resumes-eagerly", Mutant::ResumesEagerly),
        ("hands-over-stopped", Mutant::HandsOverStopped),
        ("loses-epoch", Mutant::LosesEpoch),
        ("shows-stale", Mutant::ShowsStale),
        ("never-fences", Mutant::NeverFences),
        ("hasty", Mutant::Hasty),
        ("deaf-to-one", Mutant::DeafToOne),
        ("uuid-alone", Mutant::UuidAlone),
        ("believes-one", Mutant::BelievesOne),
        ("ignores-disarm", Mutant::IgnoresDisarm),
        ("dawdles", Mutant::Dawdles),
        ("agent-stops-vms", Mutant::AgentStopsVms),
        ("forgets-moves", Mutant::ForgetsMoves),
        ("guard-sleeps", Mutant::GuardSleeps),
        ("guard-forgets-pools", Mutant::GuardForgetsPools),
        ("lifts-early", Mutant::LiftsEarly),
        ("forgets-versions", Mutant::ForgetsVersions),
        ("rebase-keeps-starts", Mutant::RebaseKeepsStarts),
        ("rebase-unheard", Mutant::RebaseUnheard),
        ("plans-as-listed", Mutant::PlansAsListed),
        ("keeps-no-room", Mutant::KeepsNoRoom),
        ("forgets-seats", Mutant::ForgetsSeats),
    ];

    /// The site's policy under the error.
    pub fn policy(self, policy: Policy) -> Policy {
        let unreachable_after_milliseconds = match self {
            Mutant::Hasty => 2 * policy.lease_interval_milliseconds + policy.grace_milliseconds,
            _ => policy.unreachable_after_milliseconds,
        };
        Policy {
            unreachable_after_milliseconds,
            ..policy
        }
    }

    /// By name.
    pub fn named(name: &str) -> Option<Mutant> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, mutant)| *mutant)
    }
}
