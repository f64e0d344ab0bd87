//! etcd restored from yesterday: what the API server holds goes back, the world does not.
//!
//! Agents and leader remember the highest version that they saw; who meets a lower one, or
//! runs an epoch above the API's, has everything frozen: nothing is started, stopped or
//! assigned until a person rebases. A rebase needs every host's report, or that it is off; it
//! raises `lastEpoch` above all that was seen, makes the copy that runs the assignment, and has
//! every agent close all other epochs.
//! Versions count the writes to the VM's rights.

use failover::agent::ledger::EpochState;
use failover::rebase::{HostSaid, HostWord, SeenCopy, rebase};
use model::{Epoch, HostName};

use super::{Cluster, Host, State};
use crate::mutation::Mutation;
use crate::words::{EPOCHS, HOSTS, Rights, Slot, vm};

/// A copy of what the API server held, and what is remembered of versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Versions {
    /// The present version.
    pub now: u8,
    /// The highest that each agent saw.
    pub seen: [u8; HOSTS],
    /// The highest that the leader saw.
    pub leader: u8,
    /// Nothing is started, stopped or assigned.
    pub frozen: bool,
    /// The copy that can be restored: rights, accepted boots, version.
    pub copy: Option<(Rights, [u8; HOSTS], u8)>,
    /// It was.
    pub restored: bool,
}

fn reachable(host: &Host) -> bool {
    host.on && !host.isolated
}

impl Cluster {
    /// Whether this agent may start or stop anything.
    pub(super) fn agent_acts(&self, state: &State, index: u8) -> bool {
        let versions = state.versions;
        !versions.frozen && versions.now >= versions.seen[usize::from(index)]
    }

    /// Whether the leader may write rights.
    pub(super) fn leader_acts(&self, state: &State) -> bool {
        let versions = state.versions;
        let lower = versions.now < versions.leader && !self.lacks(Mutation::LeaderForgets);
        !versions.frozen && !lower
    }

    /// Everybody who is reachable sees the present version.
    pub(super) fn remember(&self, state: &mut State) {
        if self.faults.restores == 0 {
            return;
        }
        let now = state.versions.now;
        for (seen, host) in state.versions.seen.iter_mut().zip(&state.hosts) {
            if reachable(host) {
                *seen = now.max(*seen);
            }
        }
        state.versions.leader = now.max(state.versions.leader);
    }

    pub(super) fn back_up(&self, state: &State) -> Option<State> {
        if state.left.restores == 0 || state.versions.copy.is_some() || state.versions.restored {
            return None;
        }
        let mut next = *state;
        next.versions.copy = Some((state.api.rights, state.api.registered, state.versions.now));
        Some(next)
    }

    pub(super) fn restore(&self, state: &State) -> Option<State> {
        let mut next = *state;
        let (rights, registered, version) = next.versions.copy.take()?;
        next.left.restores = next.left.restores.checked_sub(1)?;
        (next.api.rights, next.api.registered) = (rights, registered);
        // Reports are written again by who has something to report.
        next.api.report = None;
        next.versions.now = version;
        next.versions.restored = true;
        Some(next)
    }

    /// Somebody meets a lower version, or a running epoch above the API's.
    pub(super) fn freeze(&self, state: &State) -> Option<State> {
        let versions = state.versions;
        let last = state.api.rights.last;
        let met = |(host, seen): (&Host, u8)| {
            let above = host.domain.is_some_and(|domain| domain.epoch > last);
            reachable(host) && (versions.now < seen || above)
        };
        let agents = state.hosts.iter().zip(versions.seen).any(met);
        let leader = versions.now < versions.leader && !self.lacks(Mutation::LeaderForgets);
        if self.faults.restores == 0 || versions.frozen || !(agents || leader) {
            return None;
        }
        let mut next = *state;
        next.versions.frozen = true;
        Some(next)
    }

    /// What the agent of a host says when a person rebases.
    fn said(&self, index: u8, host: &Host) -> (HostName, HostSaid) {
        let slot = |boot, epoch| {
            let slot = Slot {
                host: index,
                boot,
                epoch,
            };
            slot.assignment()
        };
        let here = slot(host.boot, 0);
        let domain = host.domain.filter(|_| reachable(host));
        let runs = domain.filter(|domain| {
            domain.boot == host.boot && host.ledger.state(domain.epoch) == Some(EpochState::Started)
        });
        let copies = runs.map(|domain| SeenCopy {
            vm: vm(),
            name: "vm".to_owned(),
            epoch: slot(domain.boot, domain.epoch).epoch,
            runs: true,
        });
        let said = if reachable(host) || self.lacks(Mutation::RebaseUnheard) {
            HostSaid::Heard(HostWord {
                boot_id: here.boot_id,
                copies: copies.into_iter().collect(),
                highest: Epoch(0),
            })
        } else {
            HostSaid::Silent
        };
        (here.host, said)
    }

    /// A person rebases the fleet.
    pub(super) fn rebase(&self, state: &State) -> Option<State> {
        let heard = state
            .hosts
            .iter()
            .all(|host| !host.isolated || self.lacks(Mutation::RebaseUnheard));
        if !state.versions.frozen || !heard {
            return None;
        }
        let mut next = *state;
        let heard = || state.hosts.iter().filter(|host| !host.isolated);
        let known = |host: &Host, epoch: u8| {
            host.ledger.state(epoch).is_some()
                || host.cache.is_some_and(|(a, b)| {
                    [a, b].into_iter().flatten().any(|slot| slot.epoch == epoch)
                })
        };
        let highest = (0..u8::try_from(EPOCHS).unwrap_or(0))
            .filter(|epoch| heard().any(|host| known(host, *epoch)))
            .max();
        let stored = state.api.rights;
        let floor = if self.lacks(Mutation::RebaseKeepsLast) {
            stored.last
        } else {
            stored.last.max(highest.unwrap_or(0)) + 1
        };
        let said = (0..)
            .zip(&state.hosts)
            .map(|(index, host)| self.said(index, host));
        let plan = rebase(
            &[stored.to_production()],
            &said.collect(),
            Some(Epoch(i64::from(floor))),
            0,
        );
        let rights = &mut next.api.rights;
        for change in plan.ok()?.changes {
            *rights = Rights::of(change.after());
        }
        if self.lacks(Mutation::RebaseWithoutAdopting) {
            rights.assignment = stored.assignment;
        }
        // With its report an agent closes every epoch up to the new one but that of a copy that
        // runs: a start may be under way that was allowed before the restore.
        let last = rights.last;
        for host in next.hosts.iter_mut().filter(|host| reachable(host)) {
            let runs = host.domain.map(|domain| domain.epoch);
            for epoch in (1..=last).filter(|epoch| Some(*epoch) != runs) {
                let kept = self.lacks(Mutation::RebaseKeepsStarts)
                    && host.ledger.state(epoch) != Some(EpochState::Started);
                // What was handed over stays so.
                let _ = kept || host.ledger.change(|entry| entry.close(i64::from(epoch)));
            }
        }
        let versions = &mut next.versions;
        versions.now = versions
            .seen
            .into_iter()
            .max()
            .unwrap_or(0)
            .max(versions.leader)
            + 1;
        versions.frozen = false;
        Some(next)
    }
}
