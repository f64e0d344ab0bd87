//! Agents that say what is not so, and machines that bear a name which is not theirs. What the API
//! server does not refuse, the operator must not believe.

use failover::copy::{CopyPhase, CopyReport};
use failover::host::incarnation::Identity;
use failover::migration::{SourcePhase, TargetPhase};
use model::{Assignment, BootId, Epoch};

use crate::agent::Patch;
use crate::world::{Event, World};

/// How often a twin reports and renews, milliseconds.
const TWIN_EVERY: u64 = 1_000;
/// So far beyond what was issued lie the epochs that a false word names.
const AHEAD: i64 = 1_000;

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
    /// board of its own.
    pub(crate) fn twin_turn(&mut self, host: usize, until: u64) {
        if self.now >= until || self.healed {
            return;
        }
        self.push(TWIN_EVERY, Event::Twin(host, until));
        if !self.api_takes_writes() || self.message_lost() {
            return;
        }
        let boot_id = BootId(format!("h{}-twin", host + 1));
        let identity = Identity {
            boot_id: boot_id.clone(),
            system_uuid: format!("{:08}-8888-4888-8888-888888888888", host + 1),
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
