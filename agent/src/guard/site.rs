//! What the guard reads of the API now and then: the policy's timers, whether its host opted in,
//! and which pools carry heartbeats.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use api::names::POLICY_NAME;
use api::{CloudPolicy, FailoverPolicy, Host, StoragePool};
use failover::Policy;
use kube::api::ListParams;
use kube::{Api, Client};

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The timers; none until they were read once.
    pub policy: Option<Policy>,
    /// `spec.selfFencing` of this host.
    pub opted_in: bool,
    /// Pools that carry heartbeats and that this host should reach, with their folders.
    pub pools: BTreeMap<String, PathBuf>,
}

/// Reads it.
///
/// # Errors
/// The API can not be read.
pub async fn read(client: &Client, host: &str) -> Result<Site> {
    let policies: Api<CloudPolicy> = Api::all(client.clone());
    let hosts: Api<Host> = Api::all(client.clone());
    let pools: Api<StoragePool> = Api::all(client.clone());
    let list = ListParams::default();
    let (policy, host, pools) = futures::try_join!(
        policies.get_opt(POLICY_NAME),
        hosts.get_opt(host),
        pools.list(&list)
    )?;
    let spec = policy.map(|policy| policy.spec).unwrap_or_default();
    let host_pool = host.as_ref().map(|host| host.spec.pool.clone());
    let reached = |pool: &StoragePool| {
        let of = &pool.spec.host_pools;
        of.is_empty() || host_pool.as_ref().is_some_and(|mine| of.contains(mine))
    };
    Ok(Site {
        policy: Some(timers(&spec.failover)),
        opted_in: host.is_some_and(|host| host.spec.self_fencing),
        pools: pools
            .items
            .into_iter()
            .filter(|pool| pool.spec.heartbeat && pool.spec.shared && reached(pool))
            .filter_map(|pool| Some((pool.metadata.name?, PathBuf::from(pool.spec.path))))
            .collect(),
    })
}

/// The timers that concern the guard; the defaults where they contradict each other, as in the
/// operator.
fn timers(failover: &FailoverPolicy) -> Policy {
    let milliseconds = |seconds: i32| u64::try_from(seconds).unwrap_or(0) * 1000;
    let policy = Policy {
        lease_interval_milliseconds: milliseconds(failover.lease_interval_seconds),
        heartbeat_interval_milliseconds: milliseconds(failover.heartbeat_interval_seconds),
        unreachable_after_milliseconds: milliseconds(failover.unreachable_after_seconds),
        fence_isolated_after_milliseconds: milliseconds(failover.fence_isolated_after_seconds),
        contract_milliseconds: milliseconds(failover.contract_seconds),
        watchdog_milliseconds: milliseconds(failover.watchdog_seconds),
        self_fence_margin_milliseconds: milliseconds(failover.self_fence_margin_seconds),
        ..Policy::default()
    };
    match policy.check() {
        Ok(()) => policy,
        Err(_) => Policy::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradicting_timers_are_not_used() {
        let mut failover = FailoverPolicy::default();
        assert_eq!(timers(&failover), Policy::default());
        failover.contract_seconds = 15;
        assert_eq!(timers(&failover).contract_milliseconds, 15_000);
        failover.watchdog_seconds = 40;
        assert_eq!(
            timers(&failover),
            Policy::default(),
            "more than 50 s together"
        );
    }
}
