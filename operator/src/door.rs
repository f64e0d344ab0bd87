//! The door from CRD objects to the types of `failover` and `placement`.

mod tunables;

use api::{
    CloseReason, Host, MigrationSourcePhase, MigrationTargetPhase, Runtime, RuntimePhase,
    VirtualMachine, VirtualMachineMigrationStatus,
};
use failover::copy::{CloseCause, CopyPhase, CopyReport};
use failover::migration::{SourcePhase, TargetPhase};
use failover::severity::ReportedFault;
use failover::{Policy, Rights};
use fleet::Objects;
use kube::ResourceExt;
use model::{Assignment, Epoch, Fault, HostName};
use placement::Fleet;

use crate::runtime::Context;

pub use fleet::uid;
pub use tunables::{checked_policy, policy};

/// The faults that a host reports, as `failover` reads them.
pub fn faults(host: &Host) -> Vec<ReportedFault> {
    let reported = host.reported();
    let fault = |fault: &Fault| ReportedFault {
        component: fault.component.clone(),
        kind: fault.kind,
        severity: fault.severity,
        evidence: fault.evidence.clone(),
        // A time that can not be read is now: no clearance of the past covers it.
        last_seen_seconds: fault
            .last_seen
            .parse::<jiff::Timestamp>()
            .unwrap_or_else(|_| jiff::Timestamp::now())
            .as_second(),
    };
    reported
        .into_iter()
        .flat_map(|reported| &reported.faults)
        .map(fault)
        .collect()
}

/// Who may run a VM, as stored.
pub fn rights(vm: &VirtualMachine) -> Rights {
    // Asked for every VM each turn: only what is told is copied.
    let status = vm.status.as_ref();
    Rights {
        vm: uid(vm),
        assignment: status.and_then(|status| status.assignment.clone()),
        incoming: status.and_then(|status| status.incoming.clone()),
        last_epoch: Epoch(status.map_or_else(Default::default, |status| status.last_epoch)),
        proofs: status.map_or_else(Default::default, |status| status.proofs.clone()),
    }
}

/// An agent's report as `failover` reads it.
pub fn report(runtime: &Runtime) -> CopyReport {
    CopyReport {
        assignment: runtime.assignment.clone(),
        phase: match runtime.phase {
            RuntimePhase::Preparing => CopyPhase::Preparing,
            RuntimePhase::Starting => CopyPhase::Starting,
            RuntimePhase::Running => CopyPhase::Running,
            RuntimePhase::Arrived => CopyPhase::Arrived,
            RuntimePhase::Stopping => CopyPhase::Stopping,
            RuntimePhase::Closed => CopyPhase::Closed,
            RuntimePhase::HandedOver => CopyPhase::HandedOver,
            RuntimePhase::CloseStuck => CopyPhase::CloseStuck,
            RuntimePhase::Stalled => CopyPhase::Stalled,
        },
        cause: runtime.close_reason.map(|reason| match reason {
            CloseReason::Requested => CloseCause::Requested,
            CloseReason::GuestShutdown => CloseCause::GuestShutdown,
            CloseReason::Crashed => CloseCause::Crashed,
            CloseReason::StartFailed => CloseCause::StartFailed,
            CloseReason::ImageLocked => CloseCause::ImageLocked,
            CloseReason::Superseded => CloseCause::Superseded,
            CloseReason::Declined => CloseCause::Declined,
            CloseReason::MigrationFailed => CloseCause::MigrationFailed,
        }),
    }
}

/// What a move's object tells of its two sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveSides {
    /// Source and target, once begun.
    pub sides: Option<(Assignment, Assignment)>,
    /// The source's word, if it is about the recorded source.
    pub source: Option<SourcePhase>,
    /// The target's word, if it is about the recorded target.
    pub target: Option<TargetPhase>,
}

/// A move as `failover` reads it: a side's word about another copy than the recorded one is none.
pub fn sides(status: &VirtualMachineMigrationStatus) -> MoveSides {
    let source = status
        .source
        .as_ref()
        .filter(|source| Some(&source.assignment) == status.source_assignment.as_ref())
        .map(|source| match source.phase {
            MigrationSourcePhase::Migrating => SourcePhase::Migrating,
            MigrationSourcePhase::HandedOver => SourcePhase::HandedOver,
            MigrationSourcePhase::StillRunning => SourcePhase::StillRunning,
            MigrationSourcePhase::Closed => SourcePhase::Closed,
        });
    let target = status
        .target
        .as_ref()
        .filter(|target| Some(&target.assignment) == status.target_assignment.as_ref())
        .map(|target| match target.phase {
            MigrationTargetPhase::Prepared => TargetPhase::Prepared,
            MigrationTargetPhase::Arrived => TargetPhase::Arrived,
            MigrationTargetPhase::Resumed => TargetPhase::Resumed,
            MigrationTargetPhase::Refused => TargetPhase::Refused,
        });
    let sides = status
        .source_assignment
        .clone()
        .zip(status.target_assignment.clone());
    MoveSides {
        sides,
        source,
        target,
    }
}

/// The objects that `placement` reads.
pub fn objects(context: &Context) -> Objects {
    Objects {
        host_pools: context.stores.host_pools.state(),
        hosts: context.stores.hosts.state(),
        vms: context.stores.vms.state(),
        volumes: context.stores.volumes.state(),
        networks: context.stores.networks.state(),
        images: context.stores.images.state(),
        storage_pools: context.stores.storage_pools.state(),
    }
}

/// The fleet as `placement` reads it, with hosts closed as `failover` says now.
pub fn fleet(context: &Context, policy: &Policy) -> Fleet {
    let watch = context
        .hosts
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    objects(context).fleet(|host| watch.closed(&HostName(host.name_any()), policy))
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod hostile_statuses;
