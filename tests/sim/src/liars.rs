//! Agents that say what is not so, and machines that bear a name which is not theirs. What the API
//! server does not refuse, the operator must not believe.

use std::collections::BTreeMap;

use failover::Moment;
use failover::copy::{CopyPhase, CopyReport};
use failover::guard::heartbeats::HeartbeatReport;
use failover::guard::observer::Run;
use failover::host::incarnation::Identity;
use failover::migration::{SourcePhase, TargetPhase};
use model::{Assignment, BootId, Epoch, HostName};

use crate::agent::Patch;
use crate::hardware::POOL;
use crate::machine::nics;
use crate::world::{Event, World};

/// How often a twin reports and renews, milliseconds.
const TWIN_EVERY: u64 = 1_000;
/// So far beyond what was issued lie the epochs that a false word names.
const AHEAD: i64 = 1_000;

/// What a guard tells that lies of every other host: it was read without end, and never changed.
pub(crate) fn false_beats(
    told: HeartbeatReport,
    host: usize,
    names: &[HostName],
) -> HeartbeatReport {
    let run = Run {
        beat: u64::MAX,
        since: Moment(0),
        until: Moment(u64::MAX),
    };
    let others = names.iter().enumerate().filter(|(other, _)| *other != host);
    let runs = others.map(|(_, name)| (name.clone(), run)).collect();
    HeartbeatReport {
        token_seen_at: told.token.as_ref().map(|_| Moment(0)),
        pools: BTreeMap::from([(POOL.to_owned(), runs)]),
        ..told
    }
}

impl World {
    /// A host's agent claims another host's copy, or one of epochs that nobody has issued, and words of
    /// moves that are not its own.
    pub(crate) fn false_word(&mut self, host: usize, vm: usize) {
        if !self.machines[host].on_management(self.now) || !self.api_takes_writes() {
            return;
        }
        let object = self.api.objects.vms[vm].clone();
        let uid = &object.uid;
        let future = Assignment {
            host: self.names[host].clone(),
            boot_id: self.machines[host].boot_id.clone(),
            epoch: Epoch(object.rights.last_epoch.0.saturating_add(AHEAD)),
        };
        let standing = object
            .rights
            .assignment
            .iter()
            .chain(&object.rights.incoming);
        // Of its own copy an agent is believed: nobody else can know.
        let others = standing.filter(|right| right.host != self.names[host]);
        let claimed: Vec<Assignment> = others.cloned().chain([future]).collect();
        for right in claimed {
            for phase in [CopyPhase::HandedOver, CopyPhase::Running, CopyPhase::Closed] {
                let report = CopyReport::new(right.clone(), phase);
                self.apply(host, Patch::Incoming(vm, uid.clone(), report.clone()));
                self.apply(host, Patch::Runtime(vm, uid.clone(), report));
            }
        }
        for index in 0..self.api.objects.moves.len() {
            let sides = self.api.objects.moves[index].sides.clone();
            let own = |side: &Assignment| side.host == self.names[host];
            if sides.is_some_and(|(source, target)| !own(&source) && !own(&target)) {
                self.apply(host, Patch::Source(index, SourcePhase::HandedOver));
                self.apply(host, Patch::Target(index, TargetPhase::Resumed));
            }
        }
    }

    /// A machine that booted a clone of a host's disk: it has the host's name and right to write, and a
    /// board of its own, which has the UUID that its vendor gives to every one where `same_uuid` is set.
    pub(crate) fn twin_turn(&mut self, host: usize, until: u64, same_uuid: bool) {
        if self.now >= until || self.healed {
            return;
        }
        self.push(TWIN_EVERY, Event::Twin(host, until, same_uuid));
        if !self.api_takes_writes() || self.message_lost() {
            return;
        }
        let boot_id = BootId(format!("h{}-twin", host + 1));
        let identity = Identity {
            boot_id: boot_id.clone(),
            system_uuid: if same_uuid {
                self.machines[host].uuid.clone()
            } else {
                format!("{:08}-8888-4888-8888-888888888888", host + 1)
            },
            mac_addresses: nics(host, "bb"),
        };
        self.apply(host, Patch::Reported(host, identity));
        self.api.lease(host, None, |lease| {
            lease.renewals += 1;
            lease.boot_id = Some(boot_id);
            lease.loop_age = 0;
            (lease.guard, lease.report) = Default::default();
            lease.api_seen = None;
        });
    }
}
