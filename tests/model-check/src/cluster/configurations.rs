//! The configurations that are walked. Several small ones rather than one large: each holds
//! the faults that can meet.

use super::{Cluster, Faults};

/// Recovery: power is lost on both hosts and returns on one, while an old leader holds a write.
pub const POWER: Cluster = Cluster {
    faults: Faults {
        power_losses: 2,
        power_returns: 1,
        pauses: 1,
        ..Faults::NONE
    },
    ..Cluster::new(2)
};

/// Recovery: agent, guest and libvirt fail in the middle of a start, and caches are late.
pub const CRASHES: Cluster = Cluster {
    faults: Faults {
        power_losses: 1,
        power_returns: 1,
        agent_crashes: 1,
        guest_crashes: 1,
        hangs: 1,
        ..Faults::NONE
    },
    stale_caches: true,
    ..Cluster::new(2)
};

/// Recovery: its user halts the VM while host and agent fail.
pub const HALT: Cluster = Cluster {
    faults: Faults {
        power_losses: 1,
        agent_crashes: 1,
        pauses: 1,
        halts: 1,
        ..Faults::NONE
    },
    ..Cluster::new(2)
};

/// Recovery: a host runs on without its management network, and has a BMC.
pub const ISOLATION: Cluster = Cluster {
    faults: Faults {
        isolations: 1,
        power_returns: 1,
        agent_crashes: 1,
        pauses: 1,
        ..Faults::NONE
    },
    ..Cluster::new(2)
};

/// Recovery: the same without a BMC; storage cuts hosts off.
pub const CUTS: Cluster = Cluster {
    faults: Faults {
        isolations: 2,
        power_losses: 1,
        power_returns: 1,
        ..Faults::NONE
    },
    bmc: false,
    cuts: true,
    ..Cluster::new(2)
};

/// Nothing that happens here is a reason to stop the VM.
pub const CALM: Cluster = Cluster {
    faults: Faults {
        isolations: 2,
        agent_crashes: 2,
        libvirt_restarts: 1,
        ..Faults::NONE
    },
    bmc: false,
    calm: true,
    ..Cluster::new(2)
};

/// An agent that is stuck, on a host with a BMC.
pub const STUCK_AGENT: Cluster = Cluster {
    bmc: true,
    faults: Faults {
        agent_crashes: 2,
        libvirt_restarts: 1,
        ..Faults::NONE
    },
    ..CALM
};

/// Power returns, and libvirt starts by itself what ran last.
pub const AUTOSTART: Cluster = Cluster {
    faults: Faults {
        power_losses: 1,
        power_returns: 1,
        pauses: 1,
        ..Faults::NONE
    },
    autostart: true,
    ..Cluster::new(2)
};

/// The same where nobody installed the hook, and no BMC answers.
pub const AUTOSTART_WITHOUT_HOOK: Cluster = Cluster {
    faults: Faults {
        power_losses: 1,
        power_returns: 1,
        ..Faults::NONE
    },
    autostart: true,
    hook: false,
    bmc: false,
    ..Cluster::new(2)
};
