//! What happens to hosts, libvirt and the VM's user.

use failover::host::incarnation::{Identity, Registration, register};

use super::restore::Versions;
use super::{Api, Cluster, Domain, Host, Job, State, Task};
use crate::mutation::Mutation;
use crate::words::{HOSTS, Ledger, Rights, Slot, boot_id};

const UUIDS: [&str; HOSTS] = [
    "11111111-2222-3333-4444-000000000000",
    "11111111-2222-3333-4444-000000000001",
    "11111111-2222-3333-4444-000000000002",
];

impl Cluster {
    /// All hosts are up, and the VM runs on the first at epoch 1; where its start is in
    /// question, it is assigned there and not started yet.
    pub(super) fn first(&self) -> State {
        let host = Host {
            on: true,
            isolated: false,
            boot: 0,
            cut: None,
            ledger: Ledger::default(),
            domain: None,
            pending: None,
            hung: false,
            firings: 0,
            fired: false,
            autostart: None,
            cache: None,
            task: Task::Idle,
        };
        let slot = Slot {
            host: 0,
            boot: 0,
            epoch: 1,
        };
        let mut hosts = [host; HOSTS];
        let mut report = None;
        if self.moves || self.calm {
            let me = &mut hosts[0];
            let _ = me.ledger.change(|entry| entry.take(1, 0));
            let _ = me.ledger.change(|entry| entry.start(1, 0));
            me.domain = Some(Domain::started(0, 1));
            report = Some(super::Report {
                slot,
                phase: failover::copy::CopyPhase::Running,
            });
        }
        State {
            hosts,
            api: Api {
                rights: Rights {
                    assignment: Some(slot),
                    incoming: None,
                    last: 1,
                },
                report,
                incoming_report: None,
                registered: [0; HOSTS],
                moving: super::Move::default(),
                halt: false,
            },
            proofs: [0; HOSTS],
            paused: None,
            versions: Versions::default(),
            job: Job::None,
            left: self.faults,
            disturbed: false,
            forced_healthy: false,
            quiet: false,
        }
    }

    /// Libvirt reaches the start that it was asked for, and asks the hook.
    pub(super) fn libvirt(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        let locked = self.locking
            && !self.lacks(Mutation::NoImageLocking)
            && state
                .hosts
                .iter()
                .any(|other| other.on && other.domain.is_some_and(|domain| domain.runs));
        let firings = u64::from(self.firings(&state.hosts[usize::from(index)]));
        let me = &mut next.hosts[usize::from(index)];
        let (boot, epoch) = me.pending.take()?;
        me.hung = false;
        let known = me.ledger.state(epoch);
        let passed = me
            .ledger
            .change(|entry| entry.start(i64::from(epoch), firings))
            || !self.hook
            || (self.lacks(Mutation::HookPassesUnknown) && known.is_none())
            || (self.lacks(Mutation::HookPassesClosed) && known.is_some())
            || self.lacks(Mutation::CrashRestarts)
            || self.lacks(Mutation::ReuseEpoch);
        if passed && me.domain.is_none() && !locked {
            me.domain = Some(Domain::started(boot, epoch));
            if self.autostart {
                me.autostart = Some((boot, epoch));
            }
            for (other, host) in next.hosts.iter_mut().enumerate() {
                if other != usize::from(index)
                    && let Some(domain) = &mut host.domain
                    && !domain.runs
                {
                    domain.old_memory = true;
                }
            }
        }
        Some(next)
    }

    pub(super) fn hang(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.hangs = next.left.hangs.checked_sub(1)?;
        let me = &mut next.hosts[usize::from(index)];
        if me.pending.is_none() || me.hung {
            return None;
        }
        (me.hung, next.disturbed) = (true, true);
        Some(next)
    }

    /// The agent registers its boot, after its start-up clean-up.
    pub(super) fn register(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let registered = state.api.registered[usize::from(index)];
        let clean = host.domain.is_none_or(|domain| domain.boot == host.boot)
            && (self.hook || host.pending.is_none_or(|(boot, _)| boot == host.boot));
        if !host.on || host.isolated || !(clean || self.lacks(Mutation::KeepOtherBoot)) {
            return None;
        }
        let identity = |boot| Identity {
            boot_id: boot_id(index, boot),
            system_uuid: UUIDS[usize::from(index)].to_owned(),
            mac_addresses: std::collections::BTreeSet::new(),
        };
        let retired = (0..registered).map(|boot| boot_id(index, boot)).collect();
        let answer = register(
            Some(&identity(registered)),
            &retired,
            &identity(host.boot),
            Some(&boot_id(index, host.boot)),
            &[],
        );
        let Registration::Retire(_) = answer else {
            return None;
        };
        let mut next = *state;
        next.api.registered[usize::from(index)] = host.boot;
        Some(next)
    }

    pub(super) fn power_loss(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.power_losses = next.left.power_losses.checked_sub(1)?;
        self.goes_dark(next, index)
    }

    /// A host loses everything that is not on its disks.
    pub(super) fn goes_dark(&self, state: State, index: u8) -> Option<State> {
        let mut next = state;
        if !next.hosts[usize::from(index)].on {
            return None;
        }
        self.job_loses(&mut next, index);
        let me = &mut next.hosts[usize::from(index)];
        *me = Host {
            on: false,
            isolated: false,
            ledger: Ledger::default(),
            domain: None,
            pending: None,
            hung: false,
            firings: 0,
            fired: false,
            cache: None,
            task: Task::Idle,
            ..*me
        };
        next.disturbed = true;
        Some(next)
    }

    pub(super) fn power_on(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.power_returns = next.left.power_returns.checked_sub(1)?;
        let me = &mut next.hosts[usize::from(index)];
        if me.on {
            return None;
        }
        me.on = true;
        me.boot += 1;
        me.pending = me.autostart;
        Some(next)
    }

    pub(super) fn agent_crash(&self, state: &State, index: u8) -> Option<State> {
        let host = state.hosts[usize::from(index)];
        let stops = self.lacks(Mutation::RestartStopsVms) && host.domain.is_some();
        // An idle agent that dies and comes back has forgotten nothing but its cache.
        if !host.on || (host.task == Task::Idle && !host.isolated && !stops && !self.calm) {
            return None;
        }
        let mut next = *state;
        next.left.agent_crashes = next.left.agent_crashes.checked_sub(1)?;
        let me = &mut next.hosts[usize::from(index)];
        (me.task, me.cache) = (Task::Idle, None);
        if stops {
            me.domain = None;
        }
        next.disturbed = true;
        Some(next)
    }

    pub(super) fn libvirt_restart(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.libvirt_restarts = next.left.libvirt_restarts.checked_sub(1)?;
        let me = &mut next.hosts[usize::from(index)];
        if !me.on {
            return None;
        }
        if self.lacks(Mutation::HookFailsReconnect) {
            me.domain = None;
        }
        Some(next)
    }

    pub(super) fn guest_crash(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.guest_crashes = next.left.guest_crashes.checked_sub(1)?;
        if let Some(mut died) = self.dies_at_switch_over(&next, index) {
            died.disturbed = true;
            return Some(died);
        }
        let me = &mut next.hosts[usize::from(index)];
        let domain = me.domain.take().filter(|domain| domain.runs)?;
        if self.lacks(Mutation::CrashRestarts) {
            me.pending = Some((domain.boot, domain.epoch));
        }
        next.disturbed = true;
        Some(next)
    }

    pub(super) fn isolate(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        next.left.isolations = next.left.isolations.checked_sub(1)?;
        let me = &mut next.hosts[usize::from(index)];
        if !me.on || me.isolated {
            return None;
        }
        me.isolated = true;
        next.disturbed = true;
        Some(next)
    }

    pub(super) fn heal(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        let me = &mut next.hosts[usize::from(index)];
        if !me.isolated {
            return None;
        }
        (me.isolated, me.fired) = (false, false);
        Some(next)
    }

    /// The contract time has passed without Lease and heartbeat: the guard counts, and kills.
    pub(super) fn fire(&self, state: &State, index: u8) -> Option<State> {
        let mut next = *state;
        let me = &mut next.hosts[usize::from(index)];
        if !self.guard || !me.isolated || me.fired {
            return None;
        }
        me.firings += 1;
        (me.fired, me.domain) = (true, None);
        // A firing ends the incarnation: else an assignment that was proven void could be
        // started when the host is back, before the write that rests on the proof.
        if !self.lacks(Mutation::FiringKeepsIncarnation) {
            me.boot += 1;
        }
        Some(next)
    }

    pub(super) fn halt(&self, state: &State) -> Option<State> {
        let mut next = *state;
        next.left.halts = next.left.halts.checked_sub(1)?;
        (next.api.halt, next.disturbed) = (true, true);
        Some(next)
    }
}
