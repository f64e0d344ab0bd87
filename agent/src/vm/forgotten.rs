//! An epoch that this incarnation has said something of and its ledger does not know: the ledger was lost, and no copy of
//! the VM runs here that would have shown it (`crate::alarm`). It is never started again. The VM comes back under a new
//! epoch, elsewhere, as this host starts nothing until it has booted anew.

use std::sync::Arc;

use anyhow::Result;
use api::{CloseReason, VirtualMachine};
use failover::agent::copy::forgotten;
use failover::copy::CopyPhase;
use model::Assignment;

use super::worker::{self, VmRef};
use crate::agent::{Context, api_facts};

/// Whether an object of the VM says something of an epoch that the ledger does not know.
///
/// # Errors
/// The ledger can not be read.
pub(super) fn shows(
    context: &Context,
    vm: &VirtualMachine,
    assignment: &Assignment,
) -> Result<bool> {
    let uid = vm.metadata.uid.as_deref().unwrap_or_default();
    let entry = context.ledger.entry(uid)?;
    let facts = api_facts(context, vm);
    Ok(forgotten(&facts, assignment.epoch, &entry).is_some())
}

/// Raises the alarm, notes the epoch as over, and says that it is closed.
///
/// # Errors
/// What is tried again at the next turn; the alarm is raised by then.
pub(super) async fn give_up(
    context: &Arc<Context>,
    vm: &VmRef,
    assignment: &Assignment,
    said: CopyPhase,
) -> Result<()> {
    let why = lost(vm, assignment, said);
    context.alarms.ledger_lost(why.clone())?;
    context.ledger.recall(&vm.uid, assignment.epoch.0, said)?;
    if is_last_word(said) {
        // It is told already how the copy ended: a hand-over above all must not be taken back.
        return Ok(());
    }
    worker::close_and_report(context, vm, assignment, CloseReason::Declined, Some(why)).await
}

/// Whether nothing is said of a copy after this.
fn is_last_word(said: CopyPhase) -> bool {
    matches!(said, CopyPhase::Closed | CopyPhase::HandedOver)
}

fn lost(vm: &VmRef, assignment: &Assignment, said: CopyPhase) -> String {
    format!(
        "the ledger in the run folder was lost: it has no entry for epoch {} of VM {}/{}, of which this host has reported {said:?}; move the VMs away and boot this host anew",
        assignment.epoch.0, vm.namespace, vm.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_about_the_end_of_a_copy_stands() {
        for last in [CopyPhase::Closed, CopyPhase::HandedOver] {
            assert!(is_last_word(last), "{last:?}");
        }
        for other in [
            CopyPhase::Starting,
            CopyPhase::Running,
            CopyPhase::Arrived,
            CopyPhase::Stopping,
            CopyPhase::CloseStuck,
            CopyPhase::Stalled,
        ] {
            assert!(!is_last_word(other), "{other:?}");
        }
    }
}
