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

use std::collections::BTreeSet;

use model::{BootId, HostName};
use serde::{Deserialize, Serialize};

use super::fencing::{CommandEnd, Fencing, Sight, Stage};
use super::incarnation::Identity;
use super::table::{
    Conclusion, Freshness, PowerSignal, ProbeSignal, Response, Signals, conclude, power_signal,
};
use crate::policy::Policy;
use crate::proof::HostStopProof;
use crate::proof::confirmation::{Confirmation, confirm};
use crate::proof::power::{PowerReading, PowerState, PowerWitness};
use crate::reason::Reason;
use crate::signs::{LifeSigns, Sign};
use crate::time::Moment;

/// The fencing intent as it stands in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// None.
    #[default]
    None,
    /// Written by this operator.
    #[serde(rename_all = "camelCase")]
    Ours {
        /// The incarnation to stop.
        boot_id: BootId,
        /// When it is void, on this operator's clock.
        expires_at: Moment,
    },
    /// Written by another operator, or before a restart.
    Foreign {
        /// When it has certainly passed: first sight plus expiry plus send time-out.
        until: Moment,
    },
}

/// Everything that the decision about one host rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostFacts {
    /// The accepted incarnation.
    pub identity: Option<Identity>,
    /// Boot ids that never come back.
    pub retired: BTreeSet<BootId>,
    /// Why a report was refused.
    pub identity_problem: Option<String>,
    /// Boot id that its guard renews under.
    pub lease_boot_id: Option<BootId>,
    /// Signs of life.
    pub signs: LifeSigns,
    /// Age of the agent's converge loop, as its guard tells.
    pub loop_age_milliseconds: Option<u64>,
    /// The agent says that its storage is lost.
    pub storage_lost: bool,
    /// How many BMCs it has.
    pub bmcs: u32,
    /// The latest reading of its power.
    pub reading: Option<PowerReading>,
    /// The latest force-off that ended.
    pub command: Option<CommandEnd>,
    /// The fencing intent in the API.
    pub intent: Intent,
    /// A person's word, and when this operator first saw it.
    pub confirmation: Option<(Confirmation, Moment)>,
    /// A word that was found void before, by this operator or a former one.
    pub void_confirmation: Option<Confirmation>,
    /// Observers on other hosts saw that its guard must have fenced it.
    #[serde(skip)]
    pub self_fenced: Option<HostStopProof>,
    /// Planned work.
    pub maintenance: bool,
    /// Hardware faults that quarantine it.
    pub faults: u32,
    /// VMs still assigned to former incarnations.
    pub unsettled: u32,
}

/// Life of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Life {
    /// No incarnation was accepted yet.
    NotRegistered,
    /// Renews.
    Ready,
    /// Missed a renewal.
    Suspect,
    /// Silent past the time-out.
    Unreachable,
    /// Being forced off.
    Fencing,
    /// Proven dead.
    Fenced,
    /// Back with a new boot; VMs of former ones wait.
    Recovering,
}

/// State of a host in one word, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "documented at the API's HostState, which they equal"
)]
pub enum HostState {
    NotRegistered,
    Ready,
    Suspect,
    Unreachable,
    Fencing,
    Fenced,
    Recovering,
    Maintenance,
    Quarantined,
}

/// Whether a host may be forced off now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FencePermit {
    /// It may.
    Granted,
    /// It may not, and why.
    Refused(Reason),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all_fields = "camelCase")]
pub enum HostAction {
    /// Read the power now, unless a reading is under way.
    ReadPower,
    /// Write a fencing intent by compare-and-swap.
    WriteIntent {
        /// The incarnation to stop.
        boot_id: BootId,
        /// After which it is void.
        expires_after_milliseconds: u64,
    },
    /// Force it off, never gracefully; not sent past `expires_at`.
    ForceOff {
        /// Index of the BMC.
        bmc: u32,
        /// Names the command.
        attempt: u32,
        /// When the intent is void.
        expires_at: Moment,
    },
    /// Remove the fencing intent.
    ClearIntent,
}

/// What kind of thing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// A fact that was observed.
    Seen,
    /// A decision.
    Decided,
    /// An act.
    Done,
    /// An act deliberately left undone.
    NotDone,
}

/// Something worth telling about a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEvent {
    /// The host.
    pub host: HostName,
    /// Its incarnation.
    pub boot_id: BootId,
    /// What kind.
    pub kind: EventKind,
    /// What.
    pub reason: Reason,
}

/// What the other deciders and people may know about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// State in one word.
    pub state: HostState,
    /// Why, the weightiest first.
    pub reasons: Vec<Reason>,
    /// Why nothing new may be placed there; none when it may.
    pub not_placeable: Option<Reason>,
    /// Its power as last read, where the reading still counts.
    pub power: Option<PowerState>,
    /// It misses renewals.
    pub silent: bool,
    /// It is silent past the time-out, or proven dead.
    pub lost: bool,
    /// The person's word that was found void while the host lived.
    pub void_confirmation: Option<Confirmation>,
}

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
    proof: Option<HostStopProof>,
    alive_after_proof: bool,
    fencing: Option<Fencing>,
    read_at: Option<Moment>,
    last_asked: Option<Moment>,
    power: Option<(PowerState, Moment)>,
    told: BTreeSet<String>,
    signs_at_confirmation: Option<(Moment, LifeSigns)>,
    /// A person's word that stood while the host lived: it counts for nothing, ever.
    void_word: Option<Confirmation>,
    /// Renewals seen when it fell silent: only another one ends the silence.
    renewals_at_silence: u64,
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
            proof: None,
            alive_after_proof: false,
            fencing: None,
            read_at: None,
            last_asked: None,
            power: None,
            told: BTreeSet::new(),
            signs_at_confirmation: None,
            void_word: None,
            renewals_at_silence: 0,
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

    /// Whether it wants to be forced off and waits only for the permit.
    pub fn is_silent(&self) -> bool {
        matches!(self.life, Life::Suspect | Life::Unreachable | Life::Fencing)
    }

    /// Starts all windows anew: the observer was paused, or failover was re-armed.
    pub fn restart_windows(&mut self, now: Moment) {
        self.floor = now;
        self.witness = None;
        self.power = None;
        self.signs_at_confirmation = None;
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
        let Some(identity) = &facts.identity else {
            self.enter(Life::NotRegistered, now);
            return out;
        };
        self.meet_incarnation(identity, facts, now, &mut out);
        let signs = self.floored(&facts.signs);
        self.take_reading(facts, &signs);
        let signals = self.signals(facts, &signs, policy, now);
        let conclusion = conclude(signals);
        let renewals = signs.lease.map_or(0, |sign| sign.changes);
        let known_silent = self.is_silent() || self.life == Life::Fenced;
        let only_windows_began_anew = known_silent && renewals == self.renewals_at_silence;
        if signals.lease == Freshness::Fresh && only_windows_began_anew {
            self.wait_anew(facts, policy, now, &mut out);
        } else if signals.lease == Freshness::Fresh {
            self.live(facts, policy, now, &mut out);
        } else {
            self.be_silent(facts, &signs, conclusion, permit, policy, now, &mut out);
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

    fn floored(&self, signs: &LifeSigns) -> LifeSigns {
        let floor = |sign: Sign| Sign {
            changed_at: sign.changed_at.max(self.floor),
            ..sign
        };
        LifeSigns {
            // A registered host without a Lease counts from when this observer began.
            lease: Some(signs.lease.map_or(
                Sign {
                    changes: 0,
                    changed_at: self.floor,
                },
                floor,
            )),
            heartbeat: signs.heartbeat.map(floor),
            ..*signs
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

    fn take_reading(&mut self, facts: &HostFacts, signs: &LifeSigns) {
        let Some(identity) = self.incarnation.clone() else {
            return;
        };
        if let Some(reading) = &facts.reading
            && self.read_at.is_none_or(|read| reading.sent_at > read)
            && reading.sent_at >= self.floor
        {
            self.read_at = Some(reading.sent_at);
            let witness = self.witness.get_or_insert_with(|| {
                PowerWitness::new(self.host.clone(), identity.boot_id, identity.system_uuid)
            });
            self.power = Some((witness.observe(reading, signs), reading.sent_at));
        }
        if let Some(witness) = &mut self.witness {
            witness.watch(signs);
        }
    }

    fn signals(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        policy: &Policy,
        now: Moment,
    ) -> Signals {
        let freshness = |sign: Option<Sign>, interval| match sign {
            None => Freshness::Unknown,
            Some(sign) if sign.is_fresh(interval, policy, now) => Freshness::Fresh,
            Some(_) => Freshness::Stale,
        };
        let same_boot = match (&facts.lease_boot_id, &facts.identity) {
            (Some(lease), Some(identity)) => *lease == identity.boot_id,
            // No Lease yet: the window that began with the observation decides.
            _ => true,
        };
        let lease = if same_boot {
            freshness(signs.lease, policy.lease_interval_milliseconds)
        } else {
            Freshness::Stale
        };
        let probes = match (signs.probe_sent_at, signs.answered_probe_sent_at) {
            (None, _) => ProbeSignal::Unknown,
            (_, Some(sent)) if now.since(sent) <= policy.probe_valid_milliseconds => {
                ProbeSignal::Answer
            }
            _ => ProbeSignal::Silent,
        };
        let silent = signs.all_silent(policy, now) && probes != ProbeSignal::Answer;
        let contradicted = self.witness.as_mut().is_some_and(|witness| {
            if silent {
                witness.settle();
            }
            witness.watch(signs)
        });
        let state = self.current_power(policy, now);
        Signals {
            lease,
            heartbeat: match freshness(signs.heartbeat, policy.heartbeat_seen_milliseconds()) {
                Freshness::Stale if signs.heartbeat_unobserved => Freshness::Unknown,
                seen => seen,
            },
            power: power_signal(state, contradicted, facts.bmcs > 0),
            probes,
            storage_lost: facts.storage_lost,
        }
    }

    fn current_power(&self, policy: &Policy, now: Moment) -> Option<PowerState> {
        self.power
            .filter(|(_, sent)| now.since(*sent) <= policy.power_valid_milliseconds)
            .map(|(state, _)| state)
    }

    fn live(&mut self, facts: &HostFacts, policy: &Policy, now: Moment, out: &mut HostStep) {
        if self.fencing.as_ref().is_some_and(Fencing::in_flight) {
            // A command may take effect at any moment: alive or not is decided by the read-back.
            self.advance_fencing(facts, policy, now, out);
            return;
        }
        if self.life == Life::Fenced {
            // Renewed after all, or a renewal came late: a new proof needs a new window.
            self.alive_after_proof = true;
            (self.witness, self.power) = (None, None);
            self.told.clear();
        }
        if self.fencing.take().is_some() || matches!(facts.intent, Intent::Ours { .. }) {
            out.actions.push(HostAction::ClearIntent);
        }
        if self.is_silent() {
            self.told.clear();
            self.tell(out, EventKind::Seen, Reason::Alive);
            self.told.clear();
            self.witness = None;
            self.power = None;
        }
        self.signs_at_confirmation = None;
        if let Some((word, _)) = &facts.confirmation {
            self.void_word = Some(word.clone());
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

    #[allow(
        clippy::too_many_arguments,
        reason = "one step's whole picture, passed once"
    )]
    fn be_silent(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        conclusion: Conclusion,
        permit: &FencePermit,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        if self.life == Life::Fenced {
            return;
        }
        let silent_milliseconds = signs.lease.map_or(0, |sign| now.since(sign.changed_at));
        if matches!(
            self.life,
            Life::Ready | Life::Recovering | Life::NotRegistered
        ) {
            self.enter(Life::Suspect, now);
            self.renewals_at_silence = signs.lease.map_or(0, |sign| sign.changes);
            self.tell(
                out,
                EventKind::Seen,
                Reason::MissedRenewal {
                    silent_milliseconds,
                },
            );
        }
        self.ask_for_power(facts, policy, now, out);
        if let Some(proof) = self.prove(facts, signs, conclusion, policy, now) {
            self.accept(proof, facts, now, out);
            return;
        }
        if !matches!(conclusion, Conclusion::PowerNotRead) {
            self.tell(out, EventKind::Seen, Reason::Concluded { conclusion });
        }
        if self.life == Life::Suspect
            && silent_milliseconds >= policy.unreachable_after_milliseconds
        {
            self.enter(Life::Unreachable, now);
            self.tell(
                out,
                EventKind::Seen,
                Reason::Unreachable {
                    silent_milliseconds,
                },
            );
        }
        match self.life {
            Life::Unreachable => self.consider_fencing(
                facts,
                conclusion,
                // A host whose VMs answer is only half alive once its heart has stood still for
                // as long as its Lease.
                match signs.heartbeat {
                    Some(heartbeat) if conclusion == Conclusion::HalfAlive => {
                        silent_milliseconds.min(now.since(heartbeat.changed_at))
                    }
                    _ => silent_milliseconds,
                },
                permit,
                policy,
                now,
                out,
            ),
            Life::Fencing => self.advance_fencing(facts, policy, now, out),
            _ => {}
        }
    }

    fn ask_for_power(
        &mut self,
        facts: &HostFacts,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        if facts.bmcs == 0 {
            return;
        }
        let closing = self
            .witness
            .as_ref()
            .and_then(|witness| witness.closing_reading_due(policy));
        let due = match self.last_asked {
            None => true,
            Some(asked) => {
                now.since(asked) >= policy.power_interval_milliseconds
                    || closing.is_some_and(|at| now >= at && asked < at)
            }
        };
        if due {
            self.last_asked = Some(now);
            out.actions.push(HostAction::ReadPower);
        }
    }

    fn prove(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        conclusion: Conclusion,
        policy: &Policy,
        now: Moment,
    ) -> Option<HostStopProof> {
        if conclusion == Conclusion::Dead
            && let Some(proof) = self
                .witness
                .as_ref()
                .and_then(|witness| witness.conclude(signs, policy, now))
        {
            return Some(proof);
        }
        if let Some(proof) = &facts.self_fenced
            && self.incarnation.as_ref().map(|identity| &identity.boot_id) == Some(proof.boot_id())
        {
            return Some(proof.clone());
        }
        let (confirmation, seen_at) = facts.confirmation.as_ref()?;
        if [&self.void_word, &facts.void_confirmation].contains(&&Some(confirmation.clone())) {
            return None;
        }
        let seen_at = (*seen_at).max(self.floor);
        let (then, before) = *self.signs_at_confirmation.get_or_insert((seen_at, *signs));
        let power = self.current_power(policy, now);
        let registered = &self.incarnation.as_ref()?.boot_id;
        confirm(
            confirmation,
            registered,
            (then, &before),
            (power, signs),
            policy,
            now,
        )
        .ok()
    }

    fn accept(&mut self, proof: HostStopProof, facts: &HostFacts, now: Moment, out: &mut HostStep) {
        if self.fencing.take().is_some() || matches!(facts.intent, Intent::Ours { .. }) {
            out.actions.push(HostAction::ClearIntent);
        }
        let reason = Reason::Proven {
            kind: proof.kind(),
            evidence: proof.evidence().to_owned(),
        };
        self.proof = Some(proof);
        self.alive_after_proof = false;
        self.enter(Life::Fenced, now);
        self.tell(out, EventKind::Decided, reason);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one step's whole picture, passed once"
    )]
    fn consider_fencing(
        &mut self,
        facts: &HostFacts,
        conclusion: Conclusion,
        silent_milliseconds: u64,
        permit: &FencePermit,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        let refusal = match conclusion.response() {
            Response::None | Response::Wait | Response::Prove => return,
            Response::AlertOnly => Reason::Concluded { conclusion },
            Response::OtherProofs if facts.bmcs == 0 => Reason::NoBmc,
            Response::OtherProofs => Reason::NeedsPerson {
                host: self.host.clone(),
            },
            Response::FenceIsolated if !policy.fence_isolated => Reason::IsolatedKept,
            Response::FenceIsolated
                if silent_milliseconds < policy.fence_isolated_after_milliseconds =>
            {
                return;
            }
            Response::Fence | Response::FenceIsolated => match (permit, self.fencing.as_ref()) {
                (
                    _,
                    Some(Fencing {
                        stage: Stage::Failed,
                        ..
                    }),
                ) => Reason::NeedsPerson {
                    host: self.host.clone(),
                },
                (FencePermit::Refused(reason), _) => reason.clone(),
                (FencePermit::Granted, _) => {
                    self.begin_fencing(facts, policy, now, out);
                    return;
                }
            },
        };
        let no_bmc = refusal == Reason::NoBmc;
        self.tell(out, EventKind::NotDone, refusal);
        if no_bmc {
            self.tell(
                out,
                EventKind::NotDone,
                Reason::NeedsPerson {
                    host: self.host.clone(),
                },
            );
        }
    }

    fn begin_fencing(
        &mut self,
        facts: &HostFacts,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        let Some(identity) = &self.incarnation else {
            return;
        };
        self.fencing = Some(Fencing::begin(identity.boot_id.clone()));
        self.enter(Life::Fencing, now);
        self.tell(out, EventKind::Decided, Reason::FenceIntended);
        self.advance_fencing(facts, policy, now, out);
    }

    fn advance_fencing(
        &mut self,
        facts: &HostFacts,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        let Some(mut fencing) = self.fencing.take() else {
            return;
        };
        let sight = Sight {
            reading: self.power,
            intent: &facts.intent,
            command: facts.command,
            bmcs: facts.bmcs,
        };
        let wants = fencing.step(sight, policy, now);
        for action in wants.actions {
            if !out.actions.contains(&action) {
                out.actions.push(action);
            }
        }
        for reason in wants.done {
            let kind = if reason == Reason::FenceFailed {
                EventKind::NotDone
            } else {
                EventKind::Done
            };
            self.tell(out, kind, reason);
        }
        if fencing.stage == Stage::Failed {
            self.enter(Life::Unreachable, now);
            let person = Reason::NeedsPerson {
                host: self.host.clone(),
            };
            self.tell(out, EventKind::NotDone, person);
            out.actions.push(HostAction::ClearIntent);
        }
        self.fencing = Some(fencing);
    }

    /// What others may know.
    pub fn view(&self, facts: &HostFacts, policy: &Policy, now: Moment) -> HostView {
        let power = self.current_power(policy, now);
        let silent_milliseconds = facts
            .signs
            .lease
            .map_or(0, |sign| now.since(sign.changed_at.max(self.floor)));
        let agent_down = facts
            .loop_age_milliseconds
            .filter(|age| *age > policy.agent_down_after_milliseconds);
        let problem = self
            .alive_after_proof
            .then(|| "it shows life although it was proven off".to_owned());
        let problem = facts.identity_problem.clone().or(problem);
        let overlay = problem
            .map(|detail| Reason::IdentityConflict { detail })
            .or((facts.faults > 0).then_some(Reason::FaultsStand {
                count: facts.faults,
            }))
            .map(|reason| (HostState::Quarantined, reason))
            .or(facts
                .maintenance
                .then_some((HostState::Maintenance, Reason::InMaintenance)));
        let (state, mut reasons) = match (self.life, overlay) {
            (Life::NotRegistered, _) => (HostState::NotRegistered, vec![Reason::NotRegistered]),
            (Life::Suspect, _) => (
                HostState::Suspect,
                vec![Reason::MissedRenewal {
                    silent_milliseconds,
                }],
            ),
            (Life::Unreachable, _) => (
                HostState::Unreachable,
                self.unreachable_reasons(facts, silent_milliseconds),
            ),
            (Life::Fencing, _) => (HostState::Fencing, vec![Reason::FenceIntended]),
            (Life::Fenced, _) => (HostState::Fenced, self.proof.iter().map(proven).collect()),
            (_, Some((state, reason))) => (state, vec![reason]),
            (Life::Recovering, None) => (
                HostState::Recovering,
                vec![Reason::Reconciling {
                    left: facts.unsettled,
                }],
            ),
            (Life::Ready, None) if facts.storage_lost => (
                HostState::Ready,
                vec![Reason::Concluded {
                    conclusion: Conclusion::AliveWithoutStorage,
                }],
            ),
            (Life::Ready, None) => (HostState::Ready, vec![Reason::Alive]),
        };
        reasons.extend(agent_down.map(|age_milliseconds| Reason::AgentDown { age_milliseconds }));
        let boot_confirmed = facts.identity.as_ref().map(|identity| &identity.boot_id)
            == facts.lease_boot_id.as_ref();
        let foreign = matches!(&facts.intent, Intent::Foreign { until } if *until > now);
        let not_placeable = match state {
            HostState::Ready | HostState::Recovering if foreign => Some(Reason::FenceIntended),
            HostState::Ready | HostState::Recovering if !boot_confirmed => {
                Some(Reason::BootNotConfirmed)
            }
            HostState::Ready | HostState::Recovering if facts.storage_lost => {
                Some(Reason::Concluded {
                    conclusion: Conclusion::AliveWithoutStorage,
                })
            }
            HostState::Ready | HostState::Recovering => {
                agent_down.map(|age_milliseconds| Reason::AgentDown { age_milliseconds })
            }
            _ => reasons.first().cloned(),
        };
        let lost = matches!(self.life, Life::Unreachable | Life::Fencing | Life::Fenced);
        HostView {
            state,
            reasons,
            not_placeable,
            power,
            silent: lost || self.life == Life::Suspect,
            lost,
            void_confirmation: self.void_word.clone().filter(|word| {
                facts
                    .confirmation
                    .as_ref()
                    .is_some_and(|(given, _)| given == word)
            }),
        }
    }

    fn unreachable_reasons(&self, facts: &HostFacts, silent_milliseconds: u64) -> Vec<Reason> {
        let mut reasons = vec![Reason::Unreachable {
            silent_milliseconds,
        }];
        let failed = self
            .fencing
            .as_ref()
            .is_some_and(|fencing| fencing.stage == Stage::Failed);
        let mute = matches!(
            self.power,
            Some((PowerState::NoAnswer | PowerState::OtherMachine, _))
        );
        if failed || facts.bmcs == 0 || mute {
            reasons.push(Reason::NeedsPerson {
                host: self.host.clone(),
            });
        }
        reasons
    }

    /// Power as it would be shown: for tests and metrics.
    pub fn power_signal(&self, facts: &HostFacts, policy: &Policy, now: Moment) -> PowerSignal {
        power_signal(self.current_power(policy, now), false, facts.bmcs > 0)
    }
}

fn proven(proof: &HostStopProof) -> Reason {
    Reason::Proven {
        kind: proof.kind(),
        evidence: proof.evidence().to_owned(),
    }
}
