//! The guard's decisions: when a host has kept its contract, when it must kill, and what its
//! guard may register.
//!
//! ```text
//!  offer ──► renewal sent ──acknowledged──► registered
//!                                             │ neither Lease nor heartbeat for the contract
//!                                             ▼
//!  keep ◄── renewed or beaten, nothing left ─ fired: count, kill until all is gone, feed no more
//! ```
//!
//! The guard is bound by what it has registered **or offered**: a renewal whose answer was lost
//! may have arrived. Of several it keeps the strictest: the shortest contract, and only pools
//! that stand in all of them. Time is the host's CLOCK_BOOTTIME, passed in, since *sending*
//! what was acknowledged. Everything in [`GuardMemory`] outlives the guard's process.
//!
//! A firing ends the incarnation ([`incarnation`]): an assignment that was proven void must not
//! be started when the host is back, before the write that rests on the proof.

pub mod heartbeats;
pub mod observer;

use std::collections::{BTreeMap, BTreeSet};

use model::BootId;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::proof::self_fence::GuardRegistration;
use crate::reason::Sentence;
use crate::time::Moment;

/// Name of an incarnation of a host: its boot, and behind a `+` how often the guard has fired
/// in that boot. After a firing nothing of the former incarnation runs, and none of its
/// assignments is ever started.
pub fn incarnation(boot: &BootId, firings: u64) -> BootId {
    if firings == 0 {
        boot.clone()
    } else {
        BootId(format!("{boot}+{firings}"))
    }
}

/// The boot of an incarnation, by their names.
pub fn boot(incarnation: &str) -> &str {
    incarnation
        .split_once('+')
        .map_or(incarnation, |(boot, _)| boot)
}

/// What a guard knows and must not forget when it is restarted. Means something for one boot.
/// Fields of a later version are read over: a guard that does not start ends in a reset of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuardMemory {
    /// When the last renewal that was acknowledged had been sent.
    pub renewed_at: Moment,
    /// When the last heartbeat that was read back had been begun, by pool.
    pub beaten_at: BTreeMap<String, Moment>,
    /// The registration that was last acknowledged.
    pub registered: Option<GuardRegistration>,
    /// Registrations that were sent since, and may have arrived.
    pub offered: Vec<GuardRegistration>,
    /// The contract has passed, and neither Lease nor heartbeat came since.
    pub lapsed: bool,
    /// Something may be left of what had to be killed.
    pub killing: bool,
    /// How often it has fired in this boot.
    pub firings: u64,
    /// What stood here could not be read: a registration may stand that the guard does not know, and can not
    /// keep. The watchdog is not fed before another one is acknowledged: it keeps that promise until then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// What binds a guard now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Silence after which it kills, milliseconds.
    pub contract_milliseconds: u64,
    /// Pools whose heartbeat keeps the host alive.
    pub pools: BTreeSet<String>,
}

/// What a guard is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct GuardStep {
    /// It fires now: the firing is counted durably before anything is killed.
    pub fires: bool,
    /// Kill everything that can write, and look what is left.
    pub kill: bool,
}

impl GuardMemory {
    /// A renewal that carries this registration is about to be sent.
    pub fn offer(&mut self, registration: &GuardRegistration) {
        if !self.offered.contains(registration) {
            self.offered.push(registration.clone());
        }
    }

    /// The API server acknowledged a renewal that was sent at `sent_at`. Renewals are written by
    /// compare-and-swap, so none that was sent before can still arrive.
    pub fn acknowledged(&mut self, sent_at: Moment, registration: &GuardRegistration) {
        self.renewed_at = self.renewed_at.max(sent_at);
        self.registered = Some(registration.clone());
        self.offered.clear();
        self.lost = false;
    }

    /// A heartbeat that was begun at `begun_at` was written and read back.
    pub fn beaten(&mut self, pool: &str, begun_at: Moment) {
        let known = self.beaten_at.entry(pool.to_owned()).or_default();
        *known = (*known).max(begun_at);
    }

    /// What binds the guard; none when no registration that may stand is armed.
    pub fn bound(&self) -> Option<Bound> {
        let armed: Vec<&GuardRegistration> = self
            .registered
            .iter()
            .chain(&self.offered)
            .filter(|registration| registration.armed)
            .collect();
        let contract_milliseconds = armed
            .iter()
            .map(|registration| registration.contract_milliseconds)
            .min()?;
        let mut pools = armed.first()?.pools.clone();
        for registration in &armed {
            pools.retain(|pool| registration.pools.contains(pool));
        }
        Some(Bound {
            contract_milliseconds,
            pools,
        })
    }

    /// Longest time-out that the watchdog may have, milliseconds: what the policy allows, and no more than
    /// what a registration that may stand has promised, whatever became of the policy.
    pub fn watchdog_allowed(&self, policy: &Policy) -> u64 {
        let standing = self.registered.iter().chain(&self.offered);
        let armed = standing.filter(|registration| registration.armed);
        armed
            .map(|registration| registration.watchdog_milliseconds)
            .fold(policy.watchdog_milliseconds, u64::min)
    }

    /// Milliseconds since the youngest sign of life that counts.
    pub fn silence_milliseconds(&self, bound: &Bound, now: Moment) -> u64 {
        let beats = bound
            .pools
            .iter()
            .filter_map(|pool| self.beaten_at.get(pool));
        beats
            .chain([&self.renewed_at])
            .map(|at| now.since(*at))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// One look at the clock.
    pub fn step(&mut self, now: Moment) -> GuardStep {
        let silent = self.bound().is_some_and(|bound| {
            self.silence_milliseconds(&bound, now) >= bound.contract_milliseconds
        });
        let fires = silent && !self.lapsed;
        if fires {
            self.firings += 1;
            self.killing = true;
        }
        self.lapsed = silent;
        GuardStep {
            fires,
            kill: self.lapsed || self.killing,
        }
    }

    /// What the kill left.
    pub fn killed(&mut self, anything_left: bool) {
        self.killing = anything_left;
    }

    /// Whether the watchdog may be fed. One that is not fed resets the host.
    pub fn may_feed(&self) -> bool {
        !self.killing && !self.lost
    }

    /// Whether a renewal may be sent: not under the new incarnation's name before everything of
    /// the old one is gone, as that name is proof of its death; nor under the old one's, as
    /// nothing of it shall be started any more.
    pub fn may_renew(&self) -> bool {
        !self.killing
    }
}

/// Why a guard is not armed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "why", rename_all_fields = "camelCase")]
pub enum NotArmed {
    /// The host did not opt in.
    NotOptedIn,
    /// No pool that carries a heartbeat could be written and read back.
    NoHeartbeatPool {
        /// What went wrong, pool by pool; empty where no pool carries one.
        problems: String,
    },
    /// There is no watchdog that would reset the host.
    NoWatchdog {
        /// What is wrong with it.
        problem: String,
    },
    /// The guard has not read policy, host and pools since it was started.
    NoPolicy,
    /// What the guard had registered could not be read when it was started.
    MemoryLost,
    /// The guard is being stopped.
    Stopping,
    /// None of the pools by which the guard is bound carries a heartbeat any more, and others do.
    PoolsReplaced,
}

impl NotArmed {
    /// In one sentence, with the remedy.
    pub fn sentence(&self) -> Sentence {
        let (english, chinese) = match self {
            NotArmed::NotOptedIn => (
                "the host did not opt in; set spec.selfFencing to true".to_owned(),
                "该宿主机未选择自我隔离;请将 spec.selfFencing 设为 true".to_owned(),
            ),
            NotArmed::NoHeartbeatPool { problems } if problems.is_empty() => (
                "no storage pool carries a heartbeat; set spec.heartbeat on a shared pool"
                    .to_owned(),
                "没有存储池承载心跳;请在共享存储池上设置 spec.heartbeat".to_owned(),
            ),
            NotArmed::NoHeartbeatPool { problems } => (
                format!("no heartbeat could be written: {problems}"),
                format!("无法写入心跳:{problems}"),
            ),
            NotArmed::NoWatchdog { problem } => (
                format!("no hardware watchdog: {problem}"),
                format!("没有硬件看门狗:{problem}"),
            ),
            NotArmed::NoPolicy => (
                "the guard was started and has not read policy, host and pools yet; if this stays, see its log"
                    .to_owned(),
                "守护进程已启动,尚未读取策略、宿主机和存储池;如持续存在,请查看其日志".to_owned(),
            ),
            NotArmed::MemoryLost => (
                "the guard was started and could not read what it had registered; if this stays, see its log"
                    .to_owned(),
                "守护进程已启动,但无法读取其先前登记的内容;如持续存在,请查看其日志".to_owned(),
            ),
            NotArmed::Stopping => (
                "the guard is being stopped or restarted".to_owned(),
                "守护进程正在停止或重启".to_owned(),
            ),
            NotArmed::PoolsReplaced => (
                "all of its heartbeat pools were replaced by others; these are registered next".to_owned(),
                "其心跳存储池已全部更换;新的存储池将随后登记".to_owned(),
            ),
        };
        Sentence { english, chinese }
    }
}

/// What a guard finds before it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// `spec.selfFencing` of the host.
    pub opted_in: bool,
    /// Pools that carry heartbeats, as declared.
    pub declared: BTreeSet<String>,
    /// Those on which one was written and read back within the last intervals.
    pub beating: BTreeSet<String>,
    /// What keeps the other pools that carry one from beating.
    pub problems: String,
    /// Time-out of the armed watchdog, milliseconds, or what is wrong with it.
    pub watchdog: Result<u64, String>,
}

/// What a guard may register, given what it finds; a guard that is bound already keeps its
/// pools although one of them fails: only its own silence ends that. Without a policy nothing was read of
/// the host either. Between two registrations that share no pool, of which either may stand, no heartbeat would count: one
/// that is not armed comes between them.
///
/// # Errors
/// Why it is not armed.
pub fn arm(
    ready: &Readiness,
    memory: &GuardMemory,
    policy: Option<&Policy>,
) -> Result<GuardRegistration, NotArmed> {
    if memory.lost {
        return Err(NotArmed::MemoryLost);
    }
    let policy = policy.ok_or(NotArmed::NoPolicy)?;
    if !ready.opted_in {
        return Err(NotArmed::NotOptedIn);
    }
    let mut pools = ready.beating.clone();
    let standing = memory.registered.iter().filter(|known| known.armed);
    pools.extend(standing.flat_map(|known| known.pools.iter().cloned()));
    pools.retain(|pool| ready.declared.contains(pool));
    if pools.is_empty() {
        return Err(NotArmed::NoHeartbeatPool {
            problems: ready.problems.clone(),
        });
    }
    let bound = memory.bound();
    if bound.is_some_and(|bound| bound.pools.is_disjoint(&pools)) {
        return Err(NotArmed::PoolsReplaced);
    }
    let watchdog_milliseconds = ready
        .watchdog
        .clone()
        .map_err(|problem| NotArmed::NoWatchdog { problem })?;
    if watchdog_milliseconds > policy.watchdog_milliseconds {
        return Err(NotArmed::NoWatchdog {
            problem: format!(
                "its time-out is {watchdog_milliseconds} ms, the policy allows {} ms",
                policy.watchdog_milliseconds
            ),
        });
    }
    Ok(GuardRegistration {
        armed: true,
        contract_milliseconds: policy.contract_milliseconds,
        watchdog_milliseconds,
        pools,
    })
}

#[cfg(test)]
#[path = "../guard_tests.rs"]
mod tests;
