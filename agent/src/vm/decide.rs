//! The door from the API's and libvirt's words to those of `failover::agent::copy`, which decides
//! what this host does with one VM.

use api::{CloseReason, RuntimePhase};
use failover::copy::{CloseCause, CopyPhase};
use hypervisor::{DomainState, Owner};

pub use failover::agent::copy::{Action, ApiFacts, Domain, Facts, decide};

/// A domain of ours as the decision reads it.
pub fn domain(state: DomainState, owner: &Owner) -> Domain {
    Domain {
        boot_id: owner.boot_id.clone(),
        epoch: owner.epoch,
        ending: state == DomainState::Ending,
        stalled: state == DomainState::Stalled,
    }
}

/// A reported phase as the decision reads it.
pub fn copy_phase(phase: RuntimePhase) -> CopyPhase {
    match phase {
        RuntimePhase::Preparing => CopyPhase::Preparing,
        RuntimePhase::Starting => CopyPhase::Starting,
        RuntimePhase::Running => CopyPhase::Running,
        RuntimePhase::Arrived => CopyPhase::Arrived,
        RuntimePhase::Stopping => CopyPhase::Stopping,
        RuntimePhase::Closed => CopyPhase::Closed,
        RuntimePhase::HandedOver => CopyPhase::HandedOver,
        RuntimePhase::CloseStuck => CopyPhase::CloseStuck,
        RuntimePhase::Stalled => CopyPhase::Stalled,
    }
}

/// A decided phase as the API has it.
pub fn runtime_phase(phase: CopyPhase) -> RuntimePhase {
    match phase {
        CopyPhase::Preparing => RuntimePhase::Preparing,
        CopyPhase::Starting => RuntimePhase::Starting,
        CopyPhase::Running => RuntimePhase::Running,
        CopyPhase::Arrived => RuntimePhase::Arrived,
        CopyPhase::Stopping => RuntimePhase::Stopping,
        CopyPhase::Closed => RuntimePhase::Closed,
        CopyPhase::HandedOver => RuntimePhase::HandedOver,
        CopyPhase::CloseStuck => RuntimePhase::CloseStuck,
        CopyPhase::Stalled => RuntimePhase::Stalled,
    }
}

/// A decided cause as the API has it.
pub fn close_reason(cause: CloseCause) -> CloseReason {
    match cause {
        CloseCause::Requested => CloseReason::Requested,
        CloseCause::GuestShutdown => CloseReason::GuestShutdown,
        CloseCause::Crashed => CloseReason::Crashed,
        CloseCause::StartFailed => CloseReason::StartFailed,
        CloseCause::ImageLocked => CloseReason::ImageLocked,
        CloseCause::Superseded => CloseReason::Superseded,
        CloseCause::Declined => CloseReason::Declined,
        CloseCause::MigrationFailed => CloseReason::MigrationFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_survives_the_door_both_ways() {
        for phase in [
            RuntimePhase::Preparing,
            RuntimePhase::Starting,
            RuntimePhase::Running,
            RuntimePhase::Arrived,
            RuntimePhase::Stopping,
            RuntimePhase::Closed,
            RuntimePhase::HandedOver,
            RuntimePhase::CloseStuck,
            RuntimePhase::Stalled,
        ] {
            assert_eq!(runtime_phase(copy_phase(phase)), phase);
        }
    }
}
