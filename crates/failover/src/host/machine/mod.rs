//! The state machine of one host.
//!
//! ```text
//! NotRegistered ─► Ready ──missed renewal──► Suspect ──time-out──► Unreachable ──permitted──► Fencing
//!                   ▲  ▲                       │  │ reads Off, silent window        │              │
//!                   │  └──── renews again ─────┘  └────────────► Fenced ◄───────────┴──read back───┘
//!                   │                                              │
//!                   └────────── its old VMs settled ── Recovering ◄┴── same machine, new boot
//! ```
//!
//! Happy path: Ready for ever. Power lost: Suspect, reads Off, a silent window, Fenced; no
//! time-out is waited for. Hung: Suspect, Unreachable, Fencing, Fenced. No BMC answers:
//! Unreachable with one explicit "needs a person", until a confirmation, a returning BMC or
//! a reboot proves more. Maintenance and Quarantined are shown over a living host; they are
//! no states of life. Decides about one host only; whether forcing off is permitted at all
//! comes from `storm`.

mod facts;
mod signals;
mod silence;
mod told_lie;
mod view;

use std::collections::BTreeSet;

use model::{BootId, HostName, StopProofKind};

pub use self::facts::{
    EventKind, FencePermit, HostAction, HostEvent, HostFacts, HostState, HostView, Intent, Life,
};
use self::told_lie::ToldLie;
use super::fencing::{Fencing, Stage};
use super::incarnation::Identity;
use super::table::{Conclusion, Freshness, conclude};
use crate::policy::Policy;
use crate::proof::HostStopProof;
use crate::proof::confirmation::{Confirmation, ConfirmationError};
use crate::proof::power::{PowerState, PowerWitness};
use crate::reason::Reason;
use crate::signs::LifeSigns;
use crate::time::Moment;

/// The state of one host.
#[derive(Clone, Debug)]
pub struct HostMachine {
    host: HostName,
    life: Life,
    since: Moment,
    /// Windows begin here at the earliest (observer's start, pause or re-arming).
    floor: Moment,
    incarnation: Option<Identity>,
    witness: Option<PowerWitness>,
    /// What is told of its BMC beside what this observer's own witness saw.
    told_lie: ToldLie,
    /// Since when this observer's own witness has held its BMC for lying.
    lies_since: Option<Moment>,
    proof: Option<HostStopProof>,
    alive_after_proof: bool,
    fencing: Option<Fencing>,
    read_at: Option<Moment>,
    last_asked: Option<Moment>,
    power: Option<(PowerState, Moment)>,
    told: BTreeSet<String>,
    signs_at_confirmation: Option<(Moment, LifeSigns)>,
    /// Renewals seen when it fell silent: only another one ends the silence.
    renewals_at_silence: u64,
    /// What its signals meant last in this silence, and when they did.
    concluded: Option<(Conclusion, Moment)>,
    /// Its storage is, or is being, cut off.
    storage_cut: bool,
    /// Since when it says that it can not end a copy.
    stuck_since: Option<Moment>,
    /// The last problem with its identity, and when it was seen last.
    identity_problem: Option<(String, Moment)>,
    /// The last person's word that was refused, and why: for good where the reason voids it.
    refused_word: Option<(Confirmation, ConfirmationError)>,
    /// It would be forced off now, or is being, if the site lets it: it may have the turn after a storm.
    wants_off: bool,
}

/// The result of one step.
#[derive(Debug)]
#[must_use]
pub struct HostStep {
    /// What to do.
    pub actions: Vec<HostAction>,
    /// What to tell.
    pub events: Vec<HostEvent>,
}

impl HostMachine {
    /// A host that this observer sees for the first time.
    pub fn new(host: HostName, now: Moment) -> Self {
        Self {
            host,
            life: Life::NotRegistered,
            since: now,
            floor: now,
            incarnation: None,
            witness: None,
            told_lie: ToldLie::default(),
            lies_since: None,
            proof: None,
            alive_after_proof: false,
            fencing: None,
            read_at: None,
            last_asked: None,
            power: None,
            told: BTreeSet::new(),
            signs_at_confirmation: None,
            renewals_at_silence: 0,
            concluded: None,
            storage_cut: false,
            stuck_since: None,
            identity_problem: None,
            refused_word: None,
            wants_off: false,
        }
    }

    /// Life of the host.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The fencing under way.
    pub fn fencing(&self) -> Option<&Fencing> {
        self.fencing.as_ref()
    }

    /// Whether it is silent and not proven dead.
    pub fn is_silent(&self) -> bool {
        matches!(self.life, Life::Suspect | Life::Unreachable | Life::Fencing)
    }

    /// Whether it was silent past the time-out and has not come back: its VMs are, or are to be, recovered.
    pub fn is_lost(&self) -> bool {
        matches!(self.life, Life::Unreachable | Life::Fencing | Life::Fenced)
    }

    /// Whether its BMC read Off while it lived, as this observer or a former one found, and has not read On since (of several
    /// BMCs all together, as nobody knows which one lied): what it reads is no proof.
    pub fn bmc_lies(&self) -> bool {
        self.told_lie.holds || self.witness.as_ref().is_some_and(PowerWitness::lies)
    }

    /// Whether that is to stand in the Host's status, and so be held by whoever leads next. What this observer found itself
    /// must have stood for as long as makes a host unreachable: by then it has noticed that what it took for signs of life
    /// were old ones (a restored API), and takes its finding back. Nobody could take back what a former leader wrote.
    pub fn tells_that_bmc_lies(&self, policy: &Policy, now: Moment) -> bool {
        let stands = |since: Moment| now.since(since) >= policy.unreachable_after_milliseconds;
        let found = self.witness.as_ref().is_some_and(PowerWitness::lies);
        self.told_lie.holds || (found && self.lies_since.is_some_and(stands))
    }

    /// Hears whether the Host tells that its BMC lies, before a step.
    pub(super) fn hear_of_lies(&mut self, told: bool, leads: bool) {
        self.told_lie.hear(told, leads);
    }

    /// Whether it would be forced off now, or is being, if the site lets it.
    pub fn wants_off(&self) -> bool {
        self.wants_off
    }

    /// Everything is told anew: whoever keeps the ledger may not have heard it.
    pub fn tell_anew(&mut self) {
        self.told.clear();
    }

    /// Starts all windows anew: the observer was paused, or failover was re-armed.
    pub fn restart_windows(&mut self, now: Moment) {
        self.floor = now;
        self.witness.iter_mut().for_each(PowerWitness::restart);
        self.power = None;
        self.signs_at_confirmation = None;
        self.stuck_since = None;
        self.tell_anew();
    }

    /// Signs that are seen from now on may have been given long ago.
    pub fn signs_are_old(&mut self) {
        self.witness
            .iter_mut()
            .for_each(PowerWitness::signs_are_old);
    }

    /// The proof that one incarnation of this host is dead, if there is one.
    pub fn stop_proof(&self, boot_id: &BootId, facts: &HostFacts) -> Option<HostStopProof> {
        let read = self
            .proof
            .as_ref()
            .filter(|proof| proof.boot_id() == boot_id && !self.alive_after_proof);
        read.cloned().or_else(|| {
            let registered = &self.incarnation.as_ref()?.boot_id;
            HostStopProof::rebooted(&self.host, boot_id, registered, &facts.retired).ok()
        })
    }

    /// Whether the cut incarnation is gone, by what was read of the machine itself: let in sooner, what was started under
    /// it would write again. Its VMs are safe as long as the cut stands, so nothing is lost by waiting for its next boot,
    /// while a person's word that is wrong would let the old copies' last writes through to disks that are in use elsewhere.
    /// Only where the host is deleted too is it taken: such a machine may never boot again, and its name is to be free.
    fn may_be_let_in(&self, cut: &BootId, facts: &HostFacts) -> bool {
        let kind = self.stop_proof(cut, facts).map(|proof| proof.kind());
        match kind {
            Some(StopProofKind::PoweredOff | StopProofKind::Rebooted) => true,
            Some(StopProofKind::Confirmed) => facts.deleted,
            _ => false,
        }
    }

    /// One step.
    pub fn step(
        &mut self,
        facts: &HostFacts,
        permit: &FencePermit,
        policy: &Policy,
        now: Moment,
    ) -> HostStep {
        let mut out = HostStep {
            actions: Vec::new(),
            events: Vec::new(),
        };
        self.wants_off = false;
        let Some(identity) = &facts.identity else {
            self.note_identity_problem(facts, policy, now);
            self.enter(Life::NotRegistered, now);
            return out;
        };
        self.meet_incarnation(identity, facts, now, &mut out);
        self.note_identity_problem(facts, policy, now);
        self.storage_cut = facts.storage.ordered.is_some();
        let cut = facts.storage.ordered.as_ref();
        if cut.is_some_and(|cut| self.may_be_let_in(cut, facts)) {
            out.actions.push(HostAction::LiftCut);
        }
        let signs = self.floored(&facts.signs);
        if self.identity_problem.is_some() || !facts.lease_is_of(identity) {
            // Another machine may have renewed.
            self.signs_are_old();
        }
        self.take_reading(facts, &signs, policy);
        let found = self.witness.as_ref().is_some_and(PowerWitness::lies);
        self.lies_since = found.then(|| self.lies_since.unwrap_or(now));
        let signals = self.signals(facts, &signs, policy, now);
        let conclusion = conclude(signals);
        let renewals = signs.lease.map_or(0, |sign| sign.changes);
        let known_silent = self.is_silent() || self.life == Life::Fenced;
        let only_windows_began_anew = known_silent && renewals == self.renewals_at_silence;
        if signals.lease == Freshness::Fresh && only_windows_began_anew {
            self.wait_anew(facts, policy, now, &mut out);
        } else if signals.lease == Freshness::Fresh {
            self.live(facts, permit, policy, now, &mut out);
        } else {
            self.be_silent(facts, &signs, conclusion, permit, policy, now, &mut out);
        }
        if facts.forcing {
            // Others wait for as long as the intent stands, and so for the command.
            let clears = |action: &HostAction| *action == HostAction::ClearIntent;
            out.actions.retain(|action| !clears(action));
        }
        out
    }

    fn enter(&mut self, life: Life, now: Moment) {
        if self.life != life {
            self.life = life;
            self.since = now;
        }
    }

    fn tell(&mut self, out: &mut HostStep, kind: EventKind, reason: Reason) {
        let Some(identity) = &self.incarnation else {
            return;
        };
        // Each thing once per silence: a timeline, not a log of every step.
        let key = match &reason {
            Reason::Concluded { conclusion } => format!("{kind:?}/Concluded/{conclusion:?}"),
            Reason::Proven { kind: proof, .. } => format!("{kind:?}/Proven/{proof:?}"),
            Reason::ForcedOff { attempt, .. } => format!("{kind:?}/ForcedOff/{attempt}"),
            Reason::StaysOn { bmc, .. } => format!("{kind:?}/StaysOn/{bmc}"),
            other => format!("{kind:?}/{}", other.key()),
        };
        if self.told.insert(key) {
            let event = HostEvent {
                host: self.host.clone(),
                boot_id: identity.boot_id.clone(),
                kind,
                reason,
            };
            out.events.push(event);
        }
    }

    fn meet_incarnation(
        &mut self,
        identity: &Identity,
        facts: &HostFacts,
        now: Moment,
        out: &mut HostStep,
    ) {
        let known = self.incarnation.as_ref().map(|known| known.boot_id.clone());
        if known.as_ref() == Some(&identity.boot_id) {
            return;
        }
        let fenced = self.fencing.take().is_some();
        if fenced || matches!(facts.intent, Intent::Ours { .. }) {
            out.actions.push(HostAction::ClearIntent);
        }
        self.incarnation = Some(identity.clone());
        (
            self.witness,
            self.proof,
            self.power,
            self.read_at,
            self.last_asked,
        ) = (None, None, None, None, None);
        (self.alive_after_proof, self.signs_at_confirmation) = (false, None);
        if known.is_some() {
            // That was of its former boot.
            self.told_lie.end();
        }
        // What the new incarnation renewed before its report had come was no other machine's.
        self.identity_problem = None;
        self.told.clear();
        if known.is_some() {
            // Its first renewal as the new incarnation may be the one that is just seen.
            self.floor = now;
            self.enter(Life::Recovering, now);
            self.tell(out, EventKind::Seen, Reason::Returned);
        } else {
            self.enter(
                if facts.unsettled > 0 {
                    Life::Recovering
                } else {
                    Life::Ready
                },
                now,
            );
        }
    }

    /// A problem stands on for a while after it was seen last.
    fn note_identity_problem(&mut self, facts: &HostFacts, policy: &Policy, now: Moment) {
        if let Some(problem) = &facts.identity_problem {
            self.identity_problem = Some((problem.clone(), now));
        }
        let hold = policy.identity_problem_milliseconds;
        self.identity_problem
            .take_if(|(_, seen)| now.since(*seen) >= hold);
    }

    fn live(
        &mut self,
        facts: &HostFacts,
        permit: &FencePermit,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        if facts.forcing || self.fencing.as_ref().is_some_and(Fencing::in_flight) {
            // A command may take effect at any moment: alive or not is decided by the read-back.
            self.advance_fencing(facts, policy, now, out);
            return;
        }
        self.signs_at_confirmation = None;
        if let Some((word, _)) = &facts.confirmation {
            self.void(word);
        }
        if facts.close_stuck == 0 {
            self.stuck_since = None;
        }
        let at_rest = matches!(self.life, Life::Ready | Life::Recovering);
        if facts.close_stuck > 0 && (at_rest || self.fencing.is_some()) {
            return self.end_stuck_close(facts, permit, policy, now, out);
        }
        if self.life == Life::Fenced {
            // Renewed after all, or a renewal came late: a new proof needs a new window.
            self.alive_after_proof = true;
            self.witness.iter_mut().for_each(PowerWitness::close);
            self.power = None;
            self.told.clear();
        }
        if self.fencing.take().is_some() || matches!(facts.intent, Intent::Ours { .. }) {
            out.actions.push(HostAction::ClearIntent);
        }
        if self.is_silent() {
            self.told.clear();
            self.tell(out, EventKind::Seen, Reason::Alive);
            self.told.clear();
            self.witness.iter_mut().for_each(PowerWitness::close);
            self.power = None;
        }
        let recovering = facts.unsettled > 0 && matches!(self.life, Life::Recovering);
        self.enter(
            if recovering {
                Life::Recovering
            } else {
                Life::Ready
            },
            now,
        );
    }

    /// A copy that its agent can not end may write for ever, and its VM starts nowhere: the host is
    /// forced off although it renews. Not at once: where other hosts' copies do not end either, their
    /// storage is the matter, and that shows within seconds. Tried once; what then is left needs a person.
    fn end_stuck_close(
        &mut self,
        facts: &HostFacts,
        permit: &FencePermit,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        let host = self.host.clone();
        self.tell(out, EventKind::Seen, Reason::CloseStuck { host });
        let needs_person = Reason::NeedsPerson {
            host: self.host.clone(),
        };
        match (self.fencing.as_ref().map(|fencing| fencing.stage), permit) {
            (Some(Stage::Failed), _) => self.enter(Life::Ready, now),
            (Some(_), _) => {
                self.wants_off = true;
                self.ask_for_power(facts, policy, now, out);
                self.advance_fencing(facts, policy, now, out);
            }
            (None, _) if !policy.fence_close_stuck || facts.bmcs == 0 => {
                self.tell(out, EventKind::NotDone, needs_person);
            }
            (None, FencePermit::Refused(reason)) => {
                self.wants_off = true;
                self.stuck_since = None;
                self.tell_refusal(reason, out);
            }
            (None, FencePermit::Granted) => {
                self.wants_off = true;
                let since = *self.stuck_since.get_or_insert(now);
                if now.since(since) >= policy.fence_isolated_after_milliseconds {
                    self.begin_fencing(facts, policy, now, out);
                }
            }
        }
    }

    /// The windows began anew and no renewal has been seen since: nobody knows more than
    /// before, so it is no sign of life, and nothing is forced off before the windows are over.
    fn wait_anew(&mut self, facts: &HostFacts, policy: &Policy, now: Moment, out: &mut HostStep) {
        if self.fencing.as_ref().is_some_and(Fencing::in_flight) {
            self.advance_fencing(facts, policy, now, out);
            return;
        }
        if self.life == Life::Fenced {
            return;
        }
        if self.fencing.take().is_some() || matches!(facts.intent, Intent::Ours { .. }) {
            out.actions.push(HostAction::ClearIntent);
        }
        self.enter(Life::Suspect, now);
    }
}

#[cfg(test)]
#[path = "close_stuck_tests.rs"]
mod close_stuck_tests;
#[cfg(test)]
#[path = "cut_tests.rs"]
mod cut_tests;
#[cfg(test)]
mod fixtures;
