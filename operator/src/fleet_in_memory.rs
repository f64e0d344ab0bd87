//! Small fleets for tests: what every pool, host and VM has that a test does not ask about.

use placement::{Host, Names, Pool, Rules, Vm};

/// A pool that bears the loss of one host and promises no more than there is.
pub(crate) fn pool() -> Pool {
    Pool {
        zones: Default::default(),
        architecture: model::Architecture::x86_64,
        cpu_model: None,
        cpu_overcommit_percent: 100,
        memory_overcommit_percent: 100,
        failures_to_tolerate: 1,
        mlps_grade: 3,
    }
}

/// An open host.
pub(crate) fn host(pool: &str, cpu: u64, memory_bytes: u64) -> Host {
    Host {
        pool: pool.to_owned(),
        closed: None,
        stands: true,
        may_fail: true,
        cpu,
        memory_bytes,
        storage_pools: Default::default(),
        has_tunnels: true,
        unready_networks: Default::default(),
        cpu_models: None,
    }
}

/// A VM on a host.
pub(crate) fn vm(name: &str, on: &str, cpu: u64, memory_bytes: u64) -> Vm {
    Vm {
        name: model::NamespacedName::new("oa", name),
        cpu,
        memory_bytes,
        zones: Default::default(),
        networks: Names::default(),
        needs_tunnels: false,
        architecture: model::Architecture::x86_64,
        runs_with: Names::default(),
        storage_pools: Names::default(),
        new_volumes: Default::default(),
        pinned_to: None,
        mlps_grade: 1,
        rules: Rules::default(),
        restarts_elsewhere: true,
        host: Some(on.into()),
        incoming: None,
    }
}
