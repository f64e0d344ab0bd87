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
        isolations: 1,
        power_losses: 1,
        power_returns: 1,
        pauses: 1,
        ..Faults::NONE
    },
    bmc: false,
    cuts: true,
    ..Cluster::new(2)
};

/// Recovery: the same with an armed guard instead; a start hangs meanwhile.
pub const GUARD: Cluster = Cluster {
    faults: Faults {
        isolations: 1,
        hangs: 1,
        pauses: 1,
        ..Faults::NONE
    },
    bmc: false,
    guard: true,
    ..Cluster::new(2)
};

/// The same with one leader.
pub const GUARD_ONE_LEADER: Cluster = Cluster {
    faults: Faults {
        pauses: 0,
        ..GUARD.faults
    },
    ..GUARD
};

/// Isolation with QEMU's image locking on.
pub const LOCKED: Cluster = Cluster {
    locking: true,
    ..ISOLATION
};

/// etcd is restored while guests crash and a host is cut off.
pub const RESTORE: Cluster = Cluster {
    faults: Faults {
        guest_crashes: 2,
        isolations: 1,
        restores: 1,
        ..Faults::NONE
    },
    bmc: false,
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

/// Three hosts, and the VM moves.
const MOVE: Cluster = Cluster {
    moves: true,
    ..Cluster::new(3)
};

/// Migration: its connection breaks, a person cancels.
pub const MOVE_BREAKS: Cluster = Cluster {
    faults: Faults {
        job_breaks: 1,
        cancels: 1,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: hosts die.
pub const MOVE_POWER: Cluster = Cluster {
    faults: Faults {
        power_losses: 1,
        power_returns: 1,
        job_breaks: 1,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: both hosts die.
pub const MOVE_BOTH_DIE: Cluster = Cluster {
    faults: Faults {
        power_losses: 2,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: agents die.
pub const MOVE_AGENTS: Cluster = Cluster {
    faults: Faults {
        agent_crashes: 2,
        job_breaks: 1,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: guest and agent crash.
pub const MOVE_GUEST: Cluster = Cluster {
    faults: Faults {
        guest_crashes: 1,
        agent_crashes: 1,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: the guest crashes, and its connection breaks.
pub const MOVE_GUEST_BREAKS: Cluster = Cluster {
    faults: Faults {
        guest_crashes: 1,
        job_breaks: 1,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: the target can not let the copy run, agents die, and a person cancels, or its user halts the VM.
pub const MOVE_RESUME: Cluster = Cluster {
    faults: Faults {
        resume_failures: 2,
        agent_crashes: 1,
        cancels: 1,
        halts: 1,
        ..Faults::NONE
    },
    ..MOVE
};

/// Migration: a leader is paused at any of its steps; a person cancels, its user halts
/// the VM.
pub const MOVE_LEADERS: Cluster = Cluster {
    faults: Faults {
        pauses: 1,
        cancels: 1,
        halts: 1,
        ..Faults::NONE
    },
    ..MOVE
};
