//! A schedule: the site, and what happens to it when. Made from a seed, or read from a
//! scenario. What a seed may combine, and what it may not because no operator could tell it
//! from death, is decided here and explained in `tests/sim/README.md`.

use std::collections::BTreeSet;

use crate::faults::{BmcMode, Fault, HostIndex, OperatorIndex, VmIndex};
use crate::rng::Rng;
use crate::story::Pattern;
use failover::Policy;
use model::Priority;

/// A VM of the site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmSpec {
    /// Where it runs at the start; none: it is new.
    pub home: Option<usize>,
    /// Index of its volume; two VMs that name the same one quarrel.
    pub volume: usize,
    /// The host whose local pool holds its data.
    pub pinned: Option<usize>,
    /// It is not restarted elsewhere.
    pub stays: bool,
    /// Never on one host with others of its kind.
    pub apart: bool,
    /// Order of its tier in the one business system; none: it stands alone.
    pub tier: Option<i32>,
    /// Who is given the last room; VMs of the business system share one.
    pub priority: Priority,
}

/// A fault and when, milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// When.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// A fault that follows the first event of some kind: a crash at just that point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The event's kind and properties, as in expectations.
    pub on: Pattern,
    /// How long after it, milliseconds.
    pub after: u64,
    /// What.
    pub fault: Fault,
}

/// The death of an operator at one of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Number of the write, from 0, counted over both operators.
    pub write: u64,
    /// The write has arrived by then; else it never does.
    pub arrived: bool,
    /// How long the operator stays away, milliseconds.
    pub span: u64,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of all chance in delays and losses.
    pub seed: u64,
    /// Number of hosts.
    pub hosts: usize,
    /// VMs that fit on one host.
    pub room: u64,
    /// VMs.
    pub vms: Vec<VmSpec>,
    /// The pool's server can cut hosts off.
    pub cuts: bool,
    /// A pool carries storage heartbeats, and guards keep their contract.
    pub heartbeat: bool,
    /// The watchdog that the contract needs is there.
    pub watchdog: bool,
    /// BMCs of each host: one or two.
    pub bmcs: u32,
    /// The policy has hosts fenced that run but are isolated.
    pub fence_isolated: bool,
    /// VMs have addresses of their own that are probed.
    pub probes: bool,
    /// A host that is off when the faults end may stay off.
    pub leave_one_off: bool,
    /// What happens, in order of time.
    pub faults: Vec<Timed>,
    /// What happens upon events.
    pub triggers: Vec<Trigger>,
    /// All faults end at `heal_at` and the world must come to rest; else it just ends.
    pub heals: bool,
    /// The operator that sends the write of this number dies with it.
    pub dies: Option<Death>,
    /// When all faults end.
    pub heal_at: u64,
    /// How long after that everything must be at rest.
    pub settle_bound: u64,
}

/// Faults begin after this and end before `heal_at`.
const FIRST: u64 = 4_000;
/// Latest begin of a fault.
const LAST: u64 = 60_000;
/// Priorities have chance of their own: all else of older seeds is as it was.
const PRIORITIES: u64 = 0x9a1b_0e5d;

impl Plan {
    /// The schedule of a seed.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = 3 + rng.index(2);
        let count = 2 + rng.index(4);
        let special = rng.chance(300);
        let mut vms: Vec<VmSpec> = (0..count)
            .map(|volume| VmSpec {
                home: rng.chance(900).then(|| rng.index(hosts)),
                volume,
                ..VmSpec::default()
            })
            .collect();
        if special {
            specialise(&mut vms, hosts, &mut rng);
        }
        prioritise(&mut vms, &mut Rng::new(seed ^ PRIORITIES));
        let shares = vms.iter().enumerate().any(|(index, vm)| vm.volume != index);
        let tight = u64::try_from(count.div_ceil(hosts - 1)).unwrap_or(1);
        let ample = u64::try_from(count).unwrap_or(1);
        let packed: bool = !special && !shares && fits(&vms, hosts, tight) && rng.chance(500);
        let room = if packed { tight } else { ample };
        let mut plan = Self {
            seed,
            hosts,
            room,
            vms,
            cuts: rng.chance(300),
            heartbeat: rng.chance(350),
            watchdog: true,
            // Not drawn: older seeds keep their stories.
            bmcs: if seed.is_multiple_of(5) { 2 } else { 1 },
            fence_isolated: true,
            probes: rng.chance(400),
            leave_one_off: rng.chance(500),
            faults: Vec::new(),
            triggers: Vec::new(),
            heals: true,
            dies: None,
            heal_at: 0,
            settle_bound: 240_000,
        };
        for _ in 0..1 + rng.index(6) {
            let at = rng.range(FIRST, LAST);
            plan.add_random(at, &mut rng);
        }
        plan.keep_honest_enough();
        plan.faults.sort_by_key(|timed| timed.at);
        let last = plan.faults.last().map_or(FIRST, |timed| timed.at);
        plan.heal_at = last + rng.range(5_000, 80_000);
        plan
    }

    /// The site's policy: the defaults, with shorter waits after failures so that a schedule
    /// ends soon.
    pub fn policy(&self) -> Policy {
        Policy {
            back_off_milliseconds: 1_000,
            back_off_maximum_milliseconds: 8_000,
            back_off_reset_milliseconds: 20_000,
            migration_prepare_milliseconds: 10_000,
            migration_milliseconds: 30_000,
            fence_isolated: self.fence_isolated,
            ..Policy::default()
        }
    }

    fn push(&mut self, at: u64, fault: Fault) {
        self.faults.push(Timed { at, fault });
    }

    fn add_random(&mut self, at: u64, rng: &mut Rng) {
        let host = HostIndex(rng.index(self.hosts));
        let vm = VmIndex(rng.index(self.vms.len()));
        let operator = OperatorIndex(rng.index(2));
        let span = rng.range(1_000, 40_000);
        let later = at + rng.range(2_000, 40_000);
        match rng.below(38) {
            0..=2 => {
                let bmc = rng.chance(300);
                self.push(at, Fault::PowerLoss { host, bmc });
                if rng.chance(500) {
                    self.push(later, Fault::PowerOn { host });
                }
            }
            3..=4 => self.push(at, Fault::Hang { host, span }),
            5 => {
                // Not drawn, as below.
                if later.is_multiple_of(3) {
                    self.push(at, Fault::ReplaceNics { host, all: false });
                }
                self.push(at, Fault::Reboot { host });
            }
            6..=7 => {
                self.push(at, Fault::ManagementCut { host, span });
                self.add_false_beats(at, host, span);
                self.add_business_cut(at, host, span);
            }
            8 => {
                self.push(at, Fault::StorageCut { host, span });
                let host = HostIndex((host.0 + 1) % self.hosts);
                self.add_business_cut(at, host, span);
            }
            9 => self.push(at, Fault::SwitchReboot { span }),
            10..=12 => self.add_bad_bmc(at, host, span, rng),
            13 => self.push(
                at,
                Fault::OperatorCrash {
                    operator,
                    span: span / 4,
                },
            ),
            14..=15 => self.push(
                at,
                Fault::OperatorPause {
                    operator,
                    span: span / 2,
                },
            ),
            16 => {
                self.push(
                    at,
                    Fault::SplitLeaders {
                        span: span + 20_000,
                    },
                );
                if rng.chance(600) {
                    self.push(at, Fault::StaleOperator { operator, span });
                    self.push(at + 500, Fault::PowerLoss { host, bmc: false });
                }
            }
            17 => self.push(at, Fault::StaleOperator { operator, span }),
            18 => self.push(at, Fault::StaleAgent { host, span }),
            19 => self.push(at, Fault::ApiDown { span }),
            20 => self.push(at, Fault::ApiLossy { span }),
            21..=22 => self.push(
                at,
                Fault::AgentCrash {
                    host,
                    span: span / 4,
                },
            ),
            23 => self.push(at, Fault::AgentStuck { host, span }),
            24 => self.push(
                at,
                Fault::GuardStop {
                    host,
                    span: span / 4,
                },
            ),
            25 => self.push(at, Fault::GuestCrash { vm }),
            26 => {
                self.push(at, Fault::Halt { vm });
                self.push(later, Fault::Run { vm });
            }
            27 => {
                self.push(at, Fault::Delete { vm });
                self.push(later, Fault::Recreate { vm });
            }
            28 => {
                self.push(at, Fault::Drain { host });
                self.push(later, Fault::EndDrain { host });
            }
            29..=30 => {
                self.push(at, Fault::Move { vm, to: None });
                if rng.chance(300) {
                    self.push(at + rng.range(500, 8_000), Fault::CancelMoves);
                }
                // Not drawn: the other schedules keep their stories.
                let until = span + 10_000;
                self.add_source_dies(at, span, until);
                if span.is_multiple_of(4) {
                    self.push(at, Fault::HandOverDisturbed { span: until });
                }
                if span.is_multiple_of(5) {
                    // Asked elsewhere while it is under way.
                    let to = Some(host);
                    self.push(at + 700, Fault::Move { vm, to });
                }
            }
            31 => {
                self.push(at, Fault::Move { vm, to: None });
                self.push(at, Fault::FinishLost { span });
                self.add_source_dies(at, span, span);
            }
            36..=37 => {
                // etcd is restored after something has moved.
                let earlier = at.saturating_sub(rng.range(1_000, 30_000));
                self.push(earlier, Fault::BackUp);
                match rng.below(4) {
                    0 => self.push(earlier + 500, Fault::Move { vm, to: None }),
                    1 => self.push(earlier + 500, Fault::PowerLoss { host, bmc: false }),
                    2 => self.push(earlier + 500, Fault::GuestCrash { vm }),
                    _ => self.push(at - 1, Fault::ManagementCut { host, span }),
                }
                self.push(at, Fault::Restore { span: span / 8 });
                self.push(later, Fault::Rebase);
            }
            34..=35 => {
                // Recovery while messages get lost and come late.
                self.push(
                    at,
                    Fault::ApiLossy {
                        span: span + 10_000,
                    },
                );
                self.push(at + 1_000, Fault::PowerLoss { host, bmc: false });
            }
            32 => {
                let hangs = rng.chance(500);
                self.push(
                    at,
                    if hangs {
                        Fault::StartHangs { host, span }
                    } else {
                        Fault::StartFails { host, span }
                    },
                );
                self.push(at + 100, Fault::GuestCrash { vm });
            }
            _ => match rng.below(8) {
                5 => self.push(at, Fault::FalseWord { host, vm }),
                6 => self.push(
                    at,
                    Fault::Twin {
                        host,
                        span,
                        same_uuid: span.is_multiple_of(2),
                    },
                ),
                7 => {
                    let ahead = rng.chance(500);
                    self.push(at, Fault::OperatorClock { operator, ahead });
                }
                0 => self.push(
                    at,
                    Fault::ClockJump {
                        host,
                        by: 3_600_000,
                    },
                ),
                1 => self.push(at, Fault::Disarm { span }),
                2 => self.push(at, Fault::GuestShutdown { vm }),
                3 => {
                    self.push(at, Fault::Alarm { host });
                    self.push(later, Fault::EndAlarm { host });
                }
                _ => {
                    self.push(at, Fault::PowerLoss { host, bmc: true });
                    self.push(at + rng.range(1_000, 15_000), Fault::Confirm { host });
                }
            },
        }
    }

    /// Of two cut hosts one of whose heartbeat its neighbour lies meanwhile. Not drawn: the other schedules keep
    /// their stories.
    fn add_false_beats(&mut self, at: u64, cut: HostIndex, span: u64) {
        if self.heartbeat && span.is_multiple_of(2) {
            let host = HostIndex((cut.0 + 1) % self.hosts);
            self.push(at, Fault::FalseBeats { host, span });
        }
    }

    /// Where VMs are probed, a host in three is cut off from their users too. Not drawn either.
    fn add_business_cut(&mut self, at: u64, host: HostIndex, span: u64) {
        if self.probes && span.is_multiple_of(3) {
            self.push(at, Fault::BusinessCut { host, span });
        }
    }

    /// Of three moves one whose source dies at switch-over.
    fn add_source_dies(&mut self, at: u64, number: u64, span: u64) {
        if number.is_multiple_of(3) {
            let finished = number.is_multiple_of(2);
            self.push(at, Fault::SourceDies { finished, span });
        }
    }

    /// A BMC that misbehaves matters when its host is in trouble.
    fn add_bad_bmc(&mut self, at: u64, host: HostIndex, span: u64, rng: &mut Rng) {
        let (mode, long) = (any_bmc(rng), span + 40_000);
        self.push(
            at,
            Fault::Bmc {
                host,
                mode,
                span: long,
            },
        );
        let soon = at + rng.range(100, 5_000);
        match rng.below(5) {
            0 => self.push(
                soon,
                Fault::Hang {
                    host,
                    span: span + 20_000,
                },
            ),
            1 => {
                self.push(soon, Fault::ManagementCut { host, span: long });
                self.add_false_beats(at, host, long);
            }
            2 => {
                self.push(soon, Fault::ManagementCut { host, span: long });
                self.push(soon, Fault::StorageCut { host, span: long });
                self.add_false_beats(at, host, long);
            }
            3 => self.push(soon, Fault::PowerLoss { host, bmc: false }),
            _ => {}
        }
    }

    /// What nobody could tell from the truth is left out.
    fn keep_honest_enough(&mut self) {
        self.keep_a_witness();
        self.keep_bmcs_honest();
    }

    /// An observer that lies can not be told from one that does not where no other one sees the host: such
    /// schedules silence one host beside it at most, and lose no messages.
    fn keep_a_witness(&mut self) {
        let lies = |fault: &Fault| match fault {
            Fault::FalseBeats { host, .. } => Some(*host),
            _ => None,
        };
        let liars: BTreeSet<_> = self
            .faults
            .iter()
            .filter_map(|it| lies(&it.fault))
            .collect();
        let silenced = |fault: &Fault| match fault {
            Fault::PowerLoss { host, .. }
            | Fault::Hang { host, .. }
            | Fault::Reboot { host }
            | Fault::ManagementCut { host, .. }
            | Fault::StorageCut { host, .. }
            | Fault::GuardStop { host, .. }
            | Fault::Twin { host, .. } => Some(*host),
            _ => None,
        };
        let silent = self.faults.iter().filter_map(|it| silenced(&it.fault));
        let hosts: BTreeSet<_> = silent.chain(liars.iter().copied()).collect();
        let lost = |timed: &Timed| {
            matches!(
                timed.fault,
                Fault::SwitchReboot { .. } | Fault::ApiLossy { .. } | Fault::ApiDown { .. }
            )
        };
        if liars.len() > 1 || hosts.len() > 2 || self.faults.iter().any(lost) {
            self.faults.retain(|timed| lies(&timed.fault).is_none());
        }
    }

    /// A BMC that says Off of a running host, while nothing else shows that it lives, can not be
    /// told from a dead host by anybody: such schedules get a silent BMC instead.
    fn keep_bmcs_honest(&mut self) {
        let silences = |fault: &Fault| {
            matches!(
                fault,
                Fault::ManagementCut { .. }
                    | Fault::Hang { .. }
                    | Fault::StorageCut { .. }
                    | Fault::SwitchReboot { .. }
                    | Fault::StaleOperator { .. }
                    | Fault::ApiDown { .. }
                    | Fault::ApiLossy { .. }
                    | Fault::GuardStop { .. }
                    | Fault::OperatorCrash { .. }
            )
        };
        if self.faults.iter().any(|timed| silences(&timed.fault)) {
            for timed in &mut self.faults {
                if let Fault::Bmc { mode, .. } = &mut timed.fault
                    && *mode == BmcMode::LiesOff
                {
                    *mode = BmcMode::Dead;
                }
            }
        }
    }
}

fn any_bmc(rng: &mut Rng) -> BmcMode {
    [
        BmcMode::Dead,
        BmcMode::Slow,
        BmcMode::AcksOnly,
        BmcMode::LiesOn,
        BmcMode::LiesOff,
        BmcMode::OtherMachine,
    ][rng.index(6)]
}

/// One VM that is unlike the others.
fn specialise(vms: &mut [VmSpec], hosts: usize, rng: &mut Rng) {
    let count = vms.len();
    match rng.below(5) {
        0 => {
            let home = rng.index(hosts);
            (vms[0].pinned, vms[0].home) = (Some(home), Some(home));
        }
        1 => vms[0].stays = true,
        2 => {
            for (index, vm) in vms.iter_mut().enumerate().take((hosts - 1).min(count)) {
                (vm.apart, vm.home) = (true, Some(index));
            }
        }
        3 => {
            for (order, vm) in (0..).zip(vms.iter_mut()) {
                vm.tier = Some(order / 2);
            }
        }
        _ => {
            // Two VMs declare one volume: the second never starts.
            let last = count - 1;
            (vms[last].volume, vms[last].home) = (0, None);
            if vms[0].home.is_none() {
                vms[0].home = Some(0);
            }
        }
    }
}

/// Each VM has a priority of its own, and the tiers of the business system have one.
fn prioritise(vms: &mut [VmSpec], rng: &mut Rng) {
    let all = [
        Priority::Critical,
        Priority::High,
        Priority::Normal,
        Priority::Low,
    ];
    let mut system = None;
    for vm in vms {
        let drawn = all[rng.index(all.len())];
        vm.priority = match vm.tier {
            Some(_) => *system.get_or_insert(drawn),
            None => drawn,
        };
    }
}

/// No host starts with more VMs than it has room for.
fn fits(vms: &[VmSpec], hosts: usize, room: u64) -> bool {
    (0..hosts).all(|host| {
        let here = vms.iter().filter(|vm| vm.home == Some(host)).count();
        u64::try_from(here).is_ok_and(|here| here <= room)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_differ_and_the_tiers_of_a_system_share_one() {
        let mut seen = BTreeSet::new();
        let mut systems = 0;
        for seed in 1..=200 {
            let vms = Plan::random(seed).vms;
            seen.extend(vms.iter().map(|vm| vm.priority));
            let tiers = vms.iter().filter(|vm| vm.tier.is_some());
            let shared: BTreeSet<Priority> = tiers.map(|vm| vm.priority).collect();
            assert!(shared.len() < 2, "seed {seed}: {shared:?}");
            systems += shared.len();
        }
        assert_eq!(seen.len(), 4);
        assert!(systems > 0, "no seed has a business system");
    }
}
