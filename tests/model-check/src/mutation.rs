//! The rules of the design, each as the mutation that removes it.

/// One rule removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    // Rules of the agent and the guard.
    /// Rule 1: a start rests on the cache; no fresh read before it.
    StartFromCache,
    /// Rule 1: an assignment that names another boot counts too.
    IgnoreBootId,
    /// Rule 1: an epoch that the ledger knows is started again.
    ReuseEpoch,
    /// Rule 1: a start that hangs is waited for without a deadline.
    NoStartDeadline,
    /// Rules 1, 4 and 6: a firing of the guard does not void a start that was allowed before.
    NoFiringCount,
    /// Rule 6: a host whose guard fired goes on as the same incarnation.
    FiringKeepsIncarnation,
    /// Rule 2: a higher epoch elsewhere stops nothing.
    KeepSuperseded,
    /// Rule 2: no exception for the host that is exactly `incoming`.
    StopIncoming,
    /// Words, closed epoch: reported before the domain is gone.
    ReportBeforeDestroy,
    /// Words, closed epoch: the domain is destroyed, but `closed` is not written.
    CloseWithoutLedger,
    /// Rule 3: a domain whose epoch is closed is left alone on start-up.
    KeepClosedDomain,
    /// Rule 3: a domain of another boot is left alone on start-up.
    KeepOtherBoot,
    /// Rule 3: without the API, what runs is destroyed.
    UnreachableDestroys,
    /// Rule 4: the hook lets pass what the ledger does not know.
    HookPassesUnknown,
    /// Rule 4: the hook lets pass what was closed.
    HookPassesClosed,
    /// Rule 4: `on_crash restart` is used.
    CrashRestarts,
    /// Rule 4: the hook fails on reconnect.
    HookFailsReconnect,
    /// Rule 4: a migration's target writes its entry after the source began.
    TargetWritesLate,
    /// Rule 5: an agent that is stuck gets its host fenced.
    FenceStuckAgent,
    /// Rule 7: a restart of the agent stops its VMs.
    RestartStopsVms,
    /// Rule 8: image locking is off (the last line, checked beside another broken rule).
    NoImageLocking,
    /// Rule 9: the control plane runs in a VM of the platform.
    ControlPlaneInside,

    // The operator.
    /// A time-out counts as a stop proof.
    TimeOutIsProof,
    /// A power command's return code counts as a stop proof.
    ReturnCodeIsProof,
    /// A proof about one boot counts for the next.
    ProofForAnyBoot,
    /// Assignments are written without compare-and-swap.
    WriteWithoutCompare,
    /// An epoch is issued again.
    SameEpochAgain,
    /// A cut from storage is lifted before its host gave another proof.
    LiftCutAtOnce,

    /// Restored etcd: the leader does not remember the highest version.
    LeaderForgets,
    /// Restored etcd: a rebase does not raise `lastEpoch`.
    RebaseKeepsLast,
    /// Restored etcd: a rebase does not wait for every host's report.
    RebaseUnheard,
    /// Restored etcd: starts that were allowed before the restore outlive the rebase.
    RebaseKeepsStarts,
    /// Restored etcd: a rebase leaves the restored assignment beside a copy that runs.
    RebaseWithoutAdopting,

    // Live migration, line by line.
    /// Line 1: `incoming` is not written before the target prepares.
    PrepareBeforeIncoming,
    /// Line 1: a VM with `incoming` is restarted with a proof of the source alone.
    IncomingNeedsNoProof,
    /// Line 2: the copy arrives running.
    ArrivesRunning,
    /// Line 2: the target resumes when the source is silent.
    ResumeOnSilence,
    /// Line 2: the target resumes when the source is closed.
    ResumeOnClosed,
    /// Line 2: after another proof of the source the target is made the assignment.
    PromoteOnAnyProof,
    /// Line 2: after another proof of the source the target is not told to close.
    NeverRefuse,
    /// Line 2, decision 0019: the source says the hand-over when its guest stands still and its QEMU is not dead.
    HandOverStopped,
    /// Line 2, decision 0019: the source says the hand-over of a QEMU that died after its guest had run again.
    HandOverOfAny,
    /// Line 3: `incoming` is never moved into the assignment.
    NeverPromote,
    /// Line 4: the target refuses before the source has said that it runs.
    RefuseFirst,
    /// Line 4: the source says that it runs while its job goes on.
    SayRunningEarly,
    /// Line 4: the source says that it runs without a look after the job's end.
    SayRunningUnseen,
    /// Line 4: `incoming` is removed before the target has refused.
    DropUnrefused,
    /// Line 4: `incoming` stays for ever after a failed move.
    NeverDrop,
    /// Line 4: `incoming` that an old leader wrote after the move's end is not taken up.
    NeverAdopt,
}

/// Every rule, in the order of the list above.
pub const ALL: [Mutation; 49] = [
    Mutation::StartFromCache,
    Mutation::IgnoreBootId,
    Mutation::ReuseEpoch,
    Mutation::NoStartDeadline,
    Mutation::NoFiringCount,
    Mutation::FiringKeepsIncarnation,
    Mutation::KeepSuperseded,
    Mutation::StopIncoming,
    Mutation::ReportBeforeDestroy,
    Mutation::CloseWithoutLedger,
    Mutation::KeepClosedDomain,
    Mutation::KeepOtherBoot,
    Mutation::UnreachableDestroys,
    Mutation::HookPassesUnknown,
    Mutation::HookPassesClosed,
    Mutation::CrashRestarts,
    Mutation::HookFailsReconnect,
    Mutation::TargetWritesLate,
    Mutation::FenceStuckAgent,
    Mutation::RestartStopsVms,
    Mutation::NoImageLocking,
    Mutation::ControlPlaneInside,
    Mutation::TimeOutIsProof,
    Mutation::ReturnCodeIsProof,
    Mutation::ProofForAnyBoot,
    Mutation::WriteWithoutCompare,
    Mutation::SameEpochAgain,
    Mutation::LiftCutAtOnce,
    Mutation::LeaderForgets,
    Mutation::RebaseKeepsLast,
    Mutation::RebaseUnheard,
    Mutation::RebaseKeepsStarts,
    Mutation::RebaseWithoutAdopting,
    Mutation::PrepareBeforeIncoming,
    Mutation::IncomingNeedsNoProof,
    Mutation::ArrivesRunning,
    Mutation::ResumeOnSilence,
    Mutation::ResumeOnClosed,
    Mutation::PromoteOnAnyProof,
    Mutation::NeverRefuse,
    Mutation::HandOverStopped,
    Mutation::HandOverOfAny,
    Mutation::NeverPromote,
    Mutation::RefuseFirst,
    Mutation::SayRunningEarly,
    Mutation::SayRunningUnseen,
    Mutation::DropUnrefused,
    Mutation::NeverDrop,
    Mutation::NeverAdopt,
];
