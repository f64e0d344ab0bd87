//! Every rule removed, one at a time: the checker must find what it was there for.

use model_check::Mutation;
use model_check::check::hunt;
use model_check::cluster::Cluster;
use model_check::cluster::configurations::{
    AUTOSTART, AUTOSTART_WITHOUT_HOOK, CALM, CRASHES, CUTS, HALT, ISOLATION, POWER, STUCK_AGENT,
};

/// The rule, the configuration in which it is needed, and the property that breaks without it.
type Row = (&'static [Mutation], Cluster, &'static str);

const WRITER: &str = model_check::cluster::ONE_WRITER;
const STUCK: &str = "never stuck";
const RESTARTS: &str = "agent, libvirt and API may restart";

const RECOVERY: &[Row] = &[
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
