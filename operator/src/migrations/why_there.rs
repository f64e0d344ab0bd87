//! Why a VM moves and why it goes to that host, for its status and for an event.

use api::names::ANNOTATION_WHY;
use api::{MigrationReason, PlacementReport, VirtualMachineMigration};
use fleet::readiness::evens_out;
use kube::ResourceExt;
use model::HostName;
use placement::Choice;
use serde_json::{Value, json};

use crate::evacuation;

/// What for, in a few words.
fn purpose(reason: MigrationReason) -> &'static str {
    match reason {
        MigrationReason::User => "someone asked for it",
        MigrationReason::Maintenance => "the host is emptied for maintenance",
        MigrationReason::HardwareFault => "the host's hardware fails",
        MigrationReason::Rebalance => "the pool is better balanced afterwards",
    }
}

fn message(migration: &VirtualMachineMigration, source: &HostName, target: &HostName) -> String {
    let purpose = purpose(migration.spec.reason);
    format!("moved from {source} to {target}: {purpose}")
}

/// Why it goes there: the plan's reason where the platform planned the move, else that of the choice.
pub(super) fn report(
    migration: &VirtualMachineMigration,
    source: &HostName,
    choice: &Choice,
) -> PlacementReport {
    let planned = evacuation::empties(migration).is_some() || evens_out(migration);
    let why = migration.annotations().get(ANNOTATION_WHY);
    let reasons = match (why.filter(|_| planned), &migration.spec.target_host) {
        (Some(why), _) => vec![why.clone()],
        (None, Some(_)) => vec!["its move names this host".to_owned()],
        (None, None) => choice.reasons.clone(),
    };
    PlacementReport {
        host: Some(choice.host.to_string()),
        message: message(migration, source, &choice.host),
        reasons,
        removed: Vec::new(),
    }
}

/// The report of a VM that has moved. Where the leader that chose the host could not write why, the move alone is
/// told.
pub(super) fn moved(migration: &VirtualMachineMigration) -> Option<PlacementReport> {
    let status = migration.status.as_ref()?;
    let (source, target) = (
        status.source_assignment.as_ref()?,
        status.target_assignment.as_ref()?,
    );
    Some(status.placement.clone().unwrap_or_else(|| PlacementReport {
        host: Some(target.host.to_string()),
        message: message(migration, &source.host, &target.host),
        ..PlacementReport::default()
    }))
}

/// The report as a merge patch: what it does not have is cleared.
pub(super) fn patch(report: &PlacementReport) -> Value {
    json!({"host": report.host, "message": report.message, "reasons": report.reasons, "removed": report.removed})
}

/// The event of a move that begins.
pub(super) fn note(
    migration: &VirtualMachineMigration,
    source: &HostName,
    target: &HostName,
    report: Option<&PlacementReport>,
) -> String {
    let purpose = std::iter::once(purpose(migration.spec.reason).to_owned());
    let reasons = report.into_iter().flat_map(|report| report.reasons.clone());
    let told: Vec<String> = purpose.chain(reasons).collect();
    format!("moves {source} -> {target}: {}", told.join("; "))
}
