//! Small numbers for the words of the production types, so that a state is a few bytes.

use failover::agent::ledger::{Entry, EpochState};
use failover::guard::heartbeats::{HeartbeatReport, Heartbeats};
use failover::guard::observer::{PoolWatch, Run};
use failover::proof::power::{PowerAnswer, PowerReading, PowerWitness};
use failover::proof::self_fence::{self, GuardRegistration, LastLook};
use failover::signs::{LifeSigns, Sign};
use failover::{HostStopProof, Moment, Policy};
use model::{Assignment, BootId, Epoch, HostName, VmUid};

/// Hosts at most.
pub const HOSTS: usize = 3;
/// Epochs at most; `no epoch beyond the model` fails when a configuration needs more.
pub const EPOCHS: usize = 9;

/// The one VM.
pub fn vm() -> VmUid {
    VmUid::from("vm")
}

/// Name of a host.
pub fn host_name(host: u8) -> HostName {
    HostName::from(["h0", "h1", "h2"][usize::from(host) % HOSTS])
}

/// Boot id of one boot of a host.
pub fn boot_id(host: u8, boot: u8) -> BootId {
    BootId::new(format!("h{host}-{boot}"))
}

/// An assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The host.
    pub host: u8,
    /// Its boot.
    pub boot: u8,
    /// The epoch.
    pub epoch: u8,
}

impl Slot {
    /// As production has it.
    pub fn assignment(self) -> Assignment {
        Assignment {
            host: host_name(self.host),
            boot_id: boot_id(self.host, self.boot),
            epoch: Epoch(i64::from(self.epoch)),
        }
    }

    /// From production's.
    pub fn of(assignment: &Assignment) -> Self {
        let digit = |text: &str| {
            text.bytes()
                .last()
                .map_or(0, |byte| byte.wrapping_sub(b'0'))
        };
        Self {
            host: digit(assignment.host.as_str()),
            boot: digit(assignment.boot_id.as_str()),
            epoch: u8::try_from(assignment.epoch.0).unwrap_or(u8::MAX),
        }
    }
}

/// Who may run the VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Who may run it.
    pub assignment: Option<Slot>,
    /// Who may receive it.
    pub incoming: Option<Slot>,
    /// Highest epoch issued.
    pub last: u8,
}

impl Rights {
    /// As production has it; proof records are for people and left out.
    pub fn to_production(self) -> failover::Rights {
        failover::Rights {
            vm: vm(),
            assignment: self.assignment.map(Slot::assignment),
            incoming: self.incoming.map(Slot::assignment),
            last_epoch: Epoch(i64::from(self.last)),
            proofs: Vec::new(),
        }
    }

    /// From production's.
    pub fn of(rights: &failover::Rights) -> Self {
        Self {
            assignment: rights.assignment.as_ref().map(Slot::of),
            incoming: rights.incoming.as_ref().map(Slot::of),
            last: u8::try_from(rights.last_epoch.0).unwrap_or(u8::MAX),
        }
    }
}

/// A host's ledger for the one VM: a number per epoch, and the guard's firings as noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger([u8; EPOCHS], u8);

const STATES: [EpochState; 4] = [
    EpochState::Used,
    EpochState::Started,
    EpochState::Closed,
    EpochState::HandedOver,
];

impl Ledger {
    /// As production has it.
    pub fn entry(self) -> Entry {
        let known = self.0.iter().zip(0_i64..).filter_map(|(state, epoch)| {
            let index = usize::from(*state).checked_sub(1)?;
            Some((epoch, *STATES.get(index)?))
        });
        Entry {
            epochs: known.collect(),
            guard_firings: u64::from(self.1),
        }
    }

    /// State of an epoch.
    pub fn state(self, epoch: u8) -> Option<EpochState> {
        let index = usize::from(*self.0.get(usize::from(epoch))?).checked_sub(1)?;
        STATES.get(index).copied()
    }

    /// One step of production's ledger; whether it was allowed.
    #[must_use]
    pub fn change<E>(&mut self, step: impl FnOnce(&mut Entry) -> Result<(), E>) -> bool {
        let mut entry = self.entry();
        if step(&mut entry).is_err() {
            return false;
        }
        for (epoch, slot) in (0_i64..).zip(&mut self.0) {
            let index = entry
                .state(epoch)
                .and_then(|state| STATES.iter().position(|known| *known == state));
            *slot = index.map_or(0, |index| u8::try_from(index + 1).unwrap_or(0));
        }
        self.1 = u8::try_from(entry.guard_firings).unwrap_or(u8::MAX);
        true
    }
}

/// The proof that production's witness gives for a host that is honestly read Off twice, a
/// silent window apart. Whether readings can deceive it is the affair of the model `power`.
pub fn powered_off(host: u8, boot: u8) -> Option<HostStopProof> {
    const UUID: &str = "11111111-2222-3333-4444-555555555555";
    let policy = Policy::default();
    let signs = LifeSigns {
        lease: Some(Sign {
            changes: 1,
            changed_at: Moment(0),
        }),
        ..LifeSigns::default()
    };
    let mut witness = PowerWitness::new(host_name(host), boot_id(host, boot), UUID.to_owned());
    let window = policy.suspect_after_milliseconds();
    for at in [window, 2 * window] {
        let reading = PowerReading {
            answer: PowerAnswer::Off,
            system_uuid: Some(UUID.to_owned()),
            unanimous: true,
            contradicted: false,
            sent_at: Moment(at),
            received_at: Moment(at),
        };
        witness.observe(&reading, &signs);
    }
    witness.conclude(&signs, &policy, Moment(2 * window))
}

/// The proof that production's witness gives for a host with an armed guard that an observer on
/// another host watches for the whole window. Whether an observer can be deceived is the affair
/// of the model `fence`.
pub fn self_fenced(host: u8, boot: u8) -> Option<HostStopProof> {
    let policy = Policy::default();
    let guard = GuardRegistration {
        armed: true,
        contract_milliseconds: policy.contract_milliseconds,
        watchdog_milliseconds: policy.watchdog_milliseconds,
        pools: ["pool".to_owned()].into(),
    };
    let run = Run {
        beat: 1,
        since: Moment(0),
        until: Moment(policy.self_fence_window_milliseconds()),
    };
    let watch = PoolWatch {
        wrote_at: Some(run.until),
        runs: [(host_name(host), run)].into(),
    };
    let mut heartbeats = Heartbeats::default();
    let token = heartbeats.token("operator", Moment(0));
    let report = HeartbeatReport::of(Some((token, Moment(0))), [("pool", &watch)]);
    heartbeats.take(&"observer".into(), &"o".into(), report, run.until);
    let look = LastLook {
        lease_changed_at: Moment(0),
        lease_confirmed_unchanged: true,
        assigned_at: Moment(0),
        probe_answered_at: None,
        at: run.until,
    };
    let incarnation = (&host_name(host), &boot_id(host, boot));
    self_fence::self_fenced(incarnation, &guard, &heartbeats, &look, &policy).ok()
}

/// The proof that production gives for a boot that another one has followed.
pub fn rebooted(host: u8, boot: u8, registered: u8) -> Option<HostStopProof> {
    let retired = (0..registered).map(|old| boot_id(host, old)).collect();
    HostStopProof::rebooted(
        &host_name(host),
        &boot_id(host, boot),
        &boot_id(host, registered),
        &retired,
    )
    .ok()
}
