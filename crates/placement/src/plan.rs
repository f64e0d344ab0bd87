//! A plan of live migrations: a value that leaves no choice to whoever carries it out.

use std::collections::BTreeMap;

use model::{HostName, Priority, VmUid};

use crate::fleet::Fleet;

/// What the network and the hosts bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes per second that a host sends, and as many that it receives, by host.
    pub links: BTreeMap<HostName, u64>,
    /// The same for hosts that are not named in `links`.
    pub link_default: u64,
    /// Bytes per second that one move takes at most, whatever the links have.
    pub per_move: u64,
    /// Moves at once on one host, leaving and arriving together.
    pub moves_per_host: u32,
    /// Moves at once in the whole site.
    pub moves_per_site: u32,
    /// Milliseconds of each move before and after its copy, in which it takes its turn on both hosts and nothing of
    /// a link: the target is prepared, the VM handed over.
    pub overhead_ms: u64,
}

impl Default for Limits {
    /// Ten gigabits per second, two moves per host, sixteen per site, and nothing besides the copy.
    fn default() -> Self {
        Self {
            links: BTreeMap::new(),
            link_default: 1_250_000_000,
            per_move: u64::MAX,
            moves_per_host: 2,
            moves_per_site: 16,
            overhead_ms: 0,
        }
    }
}

impl Limits {
    /// Bytes per second of a host's link; a link without any counts as one byte, so that every
    /// estimate is finite.
    pub fn link(&self, host: &HostName) -> u64 {
        self.links
            .get(host)
            .copied()
            .unwrap_or(self.link_default)
            .max(1)
    }

    /// Bytes per second of a move that has both of its links for itself.
    pub fn fastest(&self, from: &HostName, to: &HostName) -> u64 {
        let links = self.link(from).min(self.link(to));
        links.min(self.per_move.max(1))
    }
}

/// One live migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The VM.
    pub vm: VmUid,
    /// Where it is.
    pub from: HostName,
    /// Where it goes.
    pub to: HostName,
    /// Predicted start, milliseconds from the start of the plan.
    pub start_ms: u64,
    /// Predicted end.
    pub end_ms: u64,
    /// Bytes expected on the wire: its memory, and what it writes meanwhile.
    pub bytes: u64,
    /// Moves of these VMs must have ended before it starts: they make room.
    pub after: Vec<VmUid>,
    /// Why it goes there.
    pub reason: String,
}

/// A VM that stays, and why; known before anything starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The VM.
    pub vm: VmUid,
    /// Where it stays.
    pub host: HostName,
    /// Why, one sentence.
    pub why: String,
}

/// An ordered schedule of live migrations.
#[must_use = "a plan says what cannot move"]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they start.
    pub moves: Vec<Move>,
    /// What cannot move, by uid.
    pub stuck: Vec<Stuck>,
    /// VMs that leave already, by a move that is not of this plan.
    pub leaving: Vec<VmUid>,
    /// VMs that do not run and keep their seat on a host that is emptied: nothing is left to do for them.
    pub idle: Vec<VmUid>,
    /// Predicted end of everything, milliseconds.
    pub end_ms: u64,
    /// No schedule of these moves can end sooner, milliseconds: the busiest link, the longest
    /// single move or chain of moves that wait for one another, and the limits on moves at once.
    pub bound_ms: u64,
}

impl Plan {
    /// A fleet with all of its moves made.
    pub fn carried_out(&self, fleet: &Fleet) -> Fleet {
        let mut after = fleet.clone();
        for step in &self.moves {
            if let Some(vm) = after.vms.get_mut(&step.vm) {
                (vm.host, vm.incoming) = (Some(step.to.clone()), None);
            }
        }
        after
    }

    /// The moves in the order in which they are to begin where not all can at once, each with its urgency:
    /// the most urgent first, then as they are scheduled. Who makes room is as urgent as the most urgent that
    /// waits for it.
    pub fn in_order(&self, priorities: &BTreeMap<VmUid, Priority>) -> Vec<(Priority, &Move)> {
        let own = |vm: &VmUid| priorities.get(vm).copied().unwrap_or_default();
        let mut urgency: BTreeMap<&VmUid, Priority> = self
            .moves
            .iter()
            .map(|step| (&step.vm, own(&step.vm)))
            .collect();
        // Whoever waits starts later: from the last on, each hands its urgency to those before it.
        for step in self.moves.iter().rev() {
            let waits = urgency.get(&step.vm).copied().unwrap_or_default();
            for before in &step.after {
                if let Some(urgency) = urgency.get_mut(before) {
                    *urgency = (*urgency).min(waits);
                }
            }
        }
        let mut order: Vec<(Priority, &Move)> = self
            .moves
            .iter()
            .map(|step| (urgency.get(&step.vm).copied().unwrap_or_default(), step))
            .collect();
        order.sort_by_key(|(urgency, _)| *urgency);
        order
    }
}
