//! What the guard reads of the API now and then: the policy's timers, whether its host opted in,
//! and which pools carry heartbeats. What was last read is kept in the run folder: a guard that is
//! started again while the API server is away must go on to beat, else it kills a host that
//! reaches its storage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use api::names::POLICY_NAME;
use api::{CloudPolicy, FailoverPolicy, Host, StoragePool};
use failover::Policy;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};

use super::files::replace;

/// Largest file that is kept, bytes: thousands of pools. What is larger is not read back, so not written.
const KEPT_MAX: usize = 1024 * 1024;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The timers; none until they were read once.
    pub policy: Option<Policy>,
    /// `spec.selfFencing` of this host.
    pub opted_in: bool,
    /// Pools that carry heartbeats and that this host should reach, with their folders.
    pub pools: BTreeMap<String, PathBuf>,
    /// Pools that carry none any more, while the guard is still bound by them.
    pub left: BTreeMap<String, PathBuf>,
}

impl Site {
    /// The folder of a pool on which the guard beats.
    pub fn path(&self, pool: &str) -> Option<&PathBuf> {
        self.pools.get(pool).or_else(|| self.left.get(pool))
    }

    /// What was read now, with those pools of `before` that it does not name any more and by which the guard is bound.
    pub fn leaving(mut self, before: &Self, bound: &BTreeSet<String>) -> Self {
        let known = before.pools.iter().chain(&before.left);
        let left =
            known.filter(|(pool, _)| bound.contains(*pool) && !self.pools.contains_key(*pool));
        self.left = left
            .map(|(pool, path)| (pool.clone(), path.clone()))
            .collect();
        self
    }
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
        left: BTreeMap::new(),
    })
}

/// The timers that concern the guard; the defaults where they contradict each other, as in the
/// operator.
fn timers(failover: &FailoverPolicy) -> Policy {
    let milliseconds = |seconds: i32| u64::try_from(seconds).unwrap_or(0) * 1000;
    let timers = Timers {
        lease_interval: milliseconds(failover.lease_interval_seconds),
        heartbeat_interval: milliseconds(failover.heartbeat_interval_seconds),
        unreachable_after: milliseconds(failover.unreachable_after_seconds),
        fence_isolated_after: milliseconds(failover.fence_isolated_after_seconds),
        contract: milliseconds(failover.contract_seconds),
        watchdog: milliseconds(failover.watchdog_seconds),
        self_fence_margin: milliseconds(failover.self_fence_margin_seconds),
    };
    timers.policy()
}

/// The timers that concern the guard, milliseconds. Kept by themselves: of a policy that a later version wrote
/// an earlier one reads nothing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Timers {
    lease_interval: u64,
    heartbeat_interval: u64,
    unreachable_after: u64,
    fence_isolated_after: u64,
    contract: u64,
    watchdog: u64,
    self_fence_margin: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self::of(&Policy::default())
    }
}

impl Timers {
    fn of(policy: &Policy) -> Self {
        Self {
            lease_interval: policy.lease_interval_milliseconds,
            heartbeat_interval: policy.heartbeat_interval_milliseconds,
            unreachable_after: policy.unreachable_after_milliseconds,
            fence_isolated_after: policy.fence_isolated_after_milliseconds,
            contract: policy.contract_milliseconds,
            watchdog: policy.watchdog_milliseconds,
            self_fence_margin: policy.self_fence_margin_milliseconds,
        }
    }

    fn policy(self) -> Policy {
        let policy = Policy {
            lease_interval_milliseconds: self.lease_interval,
            heartbeat_interval_milliseconds: self.heartbeat_interval,
            unreachable_after_milliseconds: self.unreachable_after,
            fence_isolated_after_milliseconds: self.fence_isolated_after,
            contract_milliseconds: self.contract,
            watchdog_milliseconds: self.watchdog,
            self_fence_margin_milliseconds: self.self_fence_margin,
            ..Policy::default()
        };
        match policy.check() {
            Ok(()) => policy,
            Err(_) => Policy::default(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    boot_id: String,
    timers: Timers,
    opted_in: bool,
    pools: BTreeMap<String, PathBuf>,
    /// An earlier version wrote none.
    #[serde(default)]
    left: BTreeMap<String, PathBuf>,
}

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("guard-site.json")
}

/// Keeps what was read, for this boot.
///
/// # Errors
/// It can not be written, or is too large to be read back.
pub fn keep(run_dir: &Path, boot_id: &str, site: &Site) -> io::Result<()> {
    let kept = Kept {
        boot_id: boot_id.to_owned(),
        timers: Timers::of(&site.policy.clone().unwrap_or_default()),
        opted_in: site.opted_in,
        pools: site.pools.clone(),
        left: site.left.clone(),
    };
    let bytes = serde_json::to_vec(&kept)?;
    if bytes.len() > KEPT_MAX {
        return Err(too_large(run_dir));
    }
    replace(&file(run_dir), &bytes)
}

/// What was kept in this boot; none where nothing was.
///
/// # Errors
/// It is there and can not be read.
pub fn kept(run_dir: &Path, boot_id: &str) -> io::Result<Option<Site>> {
    let file = match File::open(file(run_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = file.take(KEPT_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if read > KEPT_MAX {
        return Err(too_large(run_dir));
    }
    let kept: Kept = serde_json::from_slice(&bytes)?;
    let this_boot = kept.boot_id == boot_id;
    Ok(this_boot.then(|| Site {
        policy: Some(kept.timers.policy()),
        opted_in: kept.opted_in,
        pools: kept.pools,
        left: kept.left,
    }))
}

fn too_large(run_dir: &Path) -> io::Error {
    let text = format!("{} has more than {KEPT_MAX} bytes", file(run_dir).display());
    io::Error::new(ErrorKind::InvalidData, text)
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

    fn site() -> Site {
        Site {
            policy: Some(Policy {
                contract_milliseconds: 15_000,
                ..Policy::default()
            }),
            opted_in: true,
            pools: BTreeMap::from([("p".to_owned(), PathBuf::from("/mnt/p"))]),
            left: BTreeMap::from([("q".to_owned(), PathBuf::from("/mnt/q"))]),
        }
    }

    #[test]
    fn a_pool_that_is_gone_is_left_only_when_nothing_is_bound_by_it() {
        let read = Site {
            pools: BTreeMap::from([("r".to_owned(), PathBuf::from("/mnt/r"))]),
            left: BTreeMap::new(),
            ..site()
        };
        let bound = |pools: &[&str]| -> BTreeSet<String> {
            pools.iter().map(|pool| (*pool).to_owned()).collect()
        };
        let after = |pools: &[&str]| read.clone().leaving(&site(), &bound(pools));
        let both = after(&["p", "q", "s"]);
        assert_eq!(both.path("p"), Some(&PathBuf::from("/mnt/p")));
        assert_eq!(both.path("q"), Some(&PathBuf::from("/mnt/q")));
        assert_eq!(both.left.len(), 2, "where s lies nobody knows");
        assert_eq!(both.pools, read.pools);
        assert_eq!(after(&["r"]), read, "it is declared");
        assert_eq!(after(&[]), read);
    }

    #[test]
    fn what_an_earlier_version_kept_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        keep(folder.path(), "b1", &site()).expect("kept");
        let text = std::fs::read_to_string(file(folder.path())).expect("read");
        let mut earlier: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        earlier.as_object_mut().expect("fields").remove("left");
        std::fs::write(file(folder.path()), earlier.to_string()).expect("write");
        let kept = kept(folder.path(), "b1").expect("read");
        let without = Site {
            left: BTreeMap::new(),
            ..site()
        };
        assert_eq!(kept, Some(without));
    }

    #[test]
    fn what_was_read_is_kept_for_this_boot() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = |boot: &str| super::kept(folder.path(), boot).expect("read");
        assert_eq!(kept("b1"), None);
        keep(folder.path(), "b1", &site()).expect("kept");
        assert_eq!(kept("b1"), Some(site()));
        assert_eq!(kept("b2"), None);
        let text = std::fs::read_to_string(file(folder.path())).expect("read");
        let mut later: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        later["timers"]["learnt"] = 1.into();
        later["learnt"] = 1.into();
        std::fs::write(file(folder.path()), later.to_string()).expect("write");
        assert_eq!(kept("b1"), Some(site()), "fields of a later version");
    }

    #[test]
    fn a_kept_file_that_is_none_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = " ".repeat(KEPT_MAX + 1);
        for wrong in ["", "{", r#"{"bootId": "b1"}"#, &large] {
            std::fs::write(file(folder.path()), wrong).expect("write");
            kept(folder.path(), "b1").expect_err("broken");
        }
        let mut many = site();
        for pool in 0..300 {
            many.pools
                .insert(format!("{pool}"), "p".repeat(4096).into());
        }
        keep(folder.path(), "b1", &many).expect_err("it could not be read back");
    }
}
