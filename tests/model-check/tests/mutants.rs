//! Every rule removed, one at a time: the checker must find what it was there for.

use model_check::Mutation;
use model_check::check::hunt;
use model_check::cluster::Cluster;
use model_check::cluster::configurations::{
    AUTOSTART, AUTOSTART_WITHOUT_HOOK, CALM, CRASHES, CUTS, GUARD, GUARD_ONE_LEADER, HALT,
    ISOLATION, LOCKED, MOVE_AGENTS, MOVE_BREAKS, MOVE_GUEST_BREAKS, MOVE_LEADERS, MOVE_POWER,
    POWER, RESTORE, STUCK_AGENT,
};
use model_check::mutation::ALL;

/// The rule, the configuration in which it is needed, and the property that breaks without it.
type Row = (&'static [Mutation], Cluster, &'static str);

const WRITER: &str = model_check::cluster::ONE_WRITER;
const STUCK: &str = "never stuck";
const RESTARTS: &str = "agent, libvirt and API may restart";

const OLD_MEMORY: &str = "no old memory over newer disks";

const RECOVERY: &[Row] = &[
    // Beside the rule that a firing ends the incarnation, which covers for it with one leader.
    (
        &[Mutation::StartFromCache, Mutation::FiringKeepsIncarnation],
        GUARD_ONE_LEADER,
        WRITER,
    ),
    (&[Mutation::NoFiringCount], GUARD, WRITER),
    (&[Mutation::FiringKeepsIncarnation], GUARD, WRITER),
    // The last line: see the test of image locking.
    (
        &[Mutation::TimeOutIsProof, Mutation::NoImageLocking],
        LOCKED,
        WRITER,
    ),
    (&[Mutation::IgnoreBootId], POWER, WRITER),
    (&[Mutation::ReuseEpoch], CRASHES, WRITER),
    (&[Mutation::NoStartDeadline], CRASHES, STUCK),
    (&[Mutation::KeepSuperseded], CUTS, STUCK),
    (&[Mutation::ReportBeforeDestroy], HALT, "closed is true"),
    (&[Mutation::CloseWithoutLedger], CRASHES, WRITER),
    (&[Mutation::KeepClosedDomain], HALT, "closed is true"),
    (&[Mutation::KeepOtherBoot], AUTOSTART_WITHOUT_HOOK, WRITER),
    (&[Mutation::UnreachableDestroys], CALM, RESTARTS),
    (&[Mutation::HookPassesUnknown], AUTOSTART, WRITER),
    (&[Mutation::HookPassesClosed], CRASHES, WRITER),
    (&[Mutation::CrashRestarts], CRASHES, WRITER),
    (&[Mutation::HookFailsReconnect], CALM, RESTARTS),
    (
        &[Mutation::FenceStuckAgent],
        STUCK_AGENT,
        "no healthy host is forced off",
    ),
    (&[Mutation::RestartStopsVms], CALM, RESTARTS),
    (&[Mutation::ControlPlaneInside], POWER, STUCK),
    (&[Mutation::TimeOutIsProof], ISOLATION, WRITER),
    (&[Mutation::ReturnCodeIsProof], ISOLATION, WRITER),
    (&[Mutation::ProofForAnyBoot], ISOLATION, WRITER),
    (&[Mutation::WriteWithoutCompare], POWER, WRITER),
    (&[Mutation::SameEpochAgain], CRASHES, STUCK),
    (&[Mutation::LiftCutAtOnce], CUTS, WRITER),
    (&[Mutation::LeaderForgets], RESTORE, WRITER),
    (&[Mutation::RebaseKeepsLast], RESTORE, STUCK),
    (&[Mutation::RebaseUnheard], RESTORE, WRITER),
    (&[Mutation::RebaseKeepsStarts], RESTORE, WRITER),
    (&[Mutation::RebaseWithoutAdopting], RESTORE, WRITER),
];

const MIGRATION: &[Row] = &[
    (&[Mutation::StopIncoming], MOVE_BREAKS, "a move stops no VM"),
    (&[Mutation::TargetWritesLate], MOVE_BREAKS, "moved"),
    (&[Mutation::PrepareBeforeIncoming], MOVE_BREAKS, WRITER),
    (&[Mutation::IncomingNeedsNoProof], MOVE_POWER, WRITER),
    (&[Mutation::ArrivesRunning], MOVE_BREAKS, WRITER),
    (&[Mutation::ResumeOnSilence], MOVE_POWER, OLD_MEMORY),
    (&[Mutation::ResumeOnClosed], MOVE_GUEST_BREAKS, OLD_MEMORY),
    (&[Mutation::PromoteOnAnyProof], MOVE_POWER, STUCK),
    (&[Mutation::NeverRefuse], MOVE_POWER, STUCK),
    (&[Mutation::HandOverStopped], MOVE_BREAKS, WRITER),
    (&[Mutation::HandOverOfAny], MOVE_GUEST_BREAKS, OLD_MEMORY),
    (&[Mutation::NeverPromote], MOVE_BREAKS, STUCK),
    (&[Mutation::RefuseFirst], MOVE_BREAKS, "a move stops no VM"),
    (
        &[Mutation::SayRunningEarly],
        MOVE_BREAKS,
        "a move stops no VM",
    ),
    (&[Mutation::SayRunningUnseen], MOVE_AGENTS, STUCK),
    (&[Mutation::DropUnrefused], MOVE_BREAKS, STUCK),
    (&[Mutation::NeverDrop], MOVE_BREAKS, STUCK),
    (&[Mutation::NeverAdopt], MOVE_LEADERS, STUCK),
];

fn killed(rows: &[Row]) {
    let mut survivors = Vec::new();
    for (without, model, property) in rows {
        let found = hunt(model.without(without), property);
        let broken = found.violations.contains_key(property) || found.missing.contains(property);
        if !broken {
            survivors.push(format!(
                "{without:?} breaks {property:?} not: {}",
                found.story()
            ));
        }
    }
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}

#[test]
fn no_rule_of_the_agent_or_the_operator_can_be_spared() {
    killed(RECOVERY);
}

#[test]
fn no_line_of_the_live_migration_can_be_spared() {
    killed(MIGRATION);
}

/// Where a row removes two rules, removing one of them alone breaks nothing: the other covers.
#[test]
fn the_rules_that_cover_for_another_do_so() {
    let covered = [
        (
            LOCKED.without(&[Mutation::TimeOutIsProof]),
            "rule 8 covers for a proof that was none",
        ),
        (
            GUARD_ONE_LEADER.without(&[Mutation::FiringKeepsIncarnation]),
            "the fresh read covers for an incarnation that goes on",
        ),
    ];
    for (model, why) in covered {
        let found = hunt(model, WRITER);
        assert!(
            !found.violations.contains_key(WRITER),
            "{why}: {}",
            found.story()
        );
    }
}

/// A rule that is in the list and in no row would be one that nobody checks.
#[test]
fn every_rule_of_the_list_is_removed_once() {
    let rows = || RECOVERY.iter().chain(MIGRATION);
    for rule in ALL {
        assert!(
            rows().any(|(without, ..)| without.contains(&rule)),
            "{rule:?}"
        );
    }
    assert_eq!((ALL.len(), rows().count()), (49, 49));
}
