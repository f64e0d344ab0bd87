//! A host that misses renewals: its power is asked for, a proof is sought, and at last it is
//! fenced, if it may be.

use model::StopProofKind;

use super::{EventKind, FencePermit, HostAction, HostFacts, HostMachine, HostStep, Intent, Life};
use crate::host::fencing::{Fencing, Sight, Stage};
use crate::host::table::{Conclusion, Response};
use crate::policy::Policy;
use crate::proof::HostStopProof;
use crate::proof::confirmation::{Confirmation, ConfirmationError, confirm};
use crate::reason::Reason;
use crate::signs::LifeSigns;
use crate::time::Moment;

impl HostMachine {
    #[allow(
        clippy::too_many_arguments,
        reason = "one step's whole picture, passed once"
    )]
    pub(super) fn be_silent(
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
            // Taking the intent back may have met another write; nothing is sent any more.
            if matches!(facts.intent, Intent::Ours { .. }) {
                out.actions.push(HostAction::ClearIntent);
            }
            self.doubt_a_word(facts, signs, now);
            self.seek_a_first_hand_proof(facts, signs, conclusion, policy, now, out);
            return;
        }
        let silent_milliseconds = signs.lease.map_or(0, |sign| now.since(sign.changed_at));
        if matches!(
            self.life,
            Life::Ready | Life::Recovering | Life::NotRegistered
        ) {
            self.enter(Life::Suspect, now);
            // One that failed while the host still lived says nothing about the silent one.
            (self.fencing, self.concluded) = (None, None);
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
            self.concluded = Some((conclusion, now));
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
        let void = facts.confirmation.as_ref();
        if self.life == Life::Unreachable && void.is_some_and(|(word, _)| self.is_void(word, facts))
        {
            self.tell(out, EventKind::NotDone, Reason::WordIsVoid);
        }
        match self.life {
            Life::Unreachable => self.consider_fencing(
                facts,
                conclusion,
                silent_milliseconds,
                lifeless_milliseconds(conclusion, signs, policy, now),
                permit,
                policy,
                now,
                out,
            ),
            Life::Fencing => {
                self.wants_off = true;
                match (permit, &self.fencing) {
                    (
                        FencePermit::Refused(
                            reason @ (Reason::Frozen | Reason::Disarmed | Reason::NoOtherHost),
                        ),
                        Some(begun),
                    ) if !begun.in_flight() => {
                        self.call_off(reason.clone(), facts, now, out);
                    }
                    _ => self.advance_fencing(facts, policy, now, out),
                }
            }
            _ => {}
        }
    }

    /// The site was frozen, a person disarmed it, or the last other host fell silent too, before the
    /// force-off was sent.
    fn call_off(&mut self, reason: Reason, facts: &HostFacts, now: Moment, out: &mut HostStep) {
        self.fencing = None;
        if matches!(facts.intent, Intent::Ours { .. }) {
            out.actions.push(HostAction::ClearIntent);
        }
        self.enter(Life::Unreachable, now);
        self.tell(out, EventKind::NotDone, reason);
    }

    /// A person's word is proof for as long as nothing speaks against it: any sign of life since takes it back,
    /// and whoever has not been started elsewhere yet waits for another proof.
    fn doubt_a_word(&mut self, facts: &HostFacts, signs: &LifeSigns, now: Moment) {
        let kind = self.proof.as_ref().map(HostStopProof::kind);
        if kind != Some(StopProofKind::Confirmed) {
            return;
        }
        let (then, before) = *self.signs_at_confirmation.get_or_insert((now, *signs));
        if signs.show_life_after(&before, then) {
            if let Some((word, _)) = &facts.confirmation {
                self.void(word);
            }
            (self.proof, self.alive_after_proof) = (None, true);
            (self.witness, self.power) = (None, None);
            self.told.clear();
            self.enter(Life::Suspect, now);
        }
    }

    /// `SelfFenced` rests on what the host promised. It is enough to restart its VMs, but not for
    /// a rebase, whose API may have forgotten a newer promise: the power is read on, and a
    /// person's word is taken, as of a host without a proof.
    fn seek_a_first_hand_proof(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        conclusion: Conclusion,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        let kind = self.proof.as_ref().map(HostStopProof::kind);
        if kind != Some(StopProofKind::SelfFenced) {
            return;
        }
        self.ask_for_power(facts, policy, now, out);
        if let Some(better) = self.prove_first_hand(facts, signs, conclusion, policy, now) {
            self.accept(better, facts, now, out);
        }
    }

    pub(super) fn ask_for_power(
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

    pub(super) fn prove(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        conclusion: Conclusion,
        policy: &Policy,
        now: Moment,
    ) -> Option<HostStopProof> {
        self.prove_first_hand(facts, signs, conclusion, policy, now)
            .or_else(|| {
                let registered = self.incarnation.as_ref().map(|identity| &identity.boot_id);
                facts
                    .self_fenced
                    .clone()
                    .filter(|proof| registered == Some(proof.boot_id()))
            })
    }

    /// What was read of the host itself, or a person's word.
    fn prove_first_hand(
        &mut self,
        facts: &HostFacts,
        signs: &LifeSigns,
        conclusion: Conclusion,
        policy: &Policy,
        now: Moment,
    ) -> Option<HostStopProof> {
        if conclusion == Conclusion::Dead
            && !self.bmc_lies()
            && let Some(proof) = self
                .witness
                .as_ref()
                .and_then(|witness| witness.conclude(signs, policy, now))
        {
            return Some(proof);
        }
        let (confirmation, seen_at) = facts.confirmation.as_ref()?;
        if self.is_void(confirmation, facts) {
            return None;
        }
        let seen_at = (*seen_at).max(self.floor);
        // Each word is judged by what came after it, not by what spoke against an earlier one.
        self.signs_at_confirmation
            .take_if(|(then, _)| *then != seen_at);
        let (then, before) = *self.signs_at_confirmation.get_or_insert((seen_at, *signs));
        let power = self.power_that_counts(policy, now);
        let registered = &self.incarnation.as_ref()?.boot_id;
        let judged = confirm(
            confirmation,
            registered,
            (then, &before),
            (power, signs),
            policy,
            now,
        );
        match judged {
            Ok(proof) => {
                self.refused_word = None;
                Some(proof)
            }
            Err(why) => {
                self.refused_word = Some((confirmation.clone(), why));
                None
            }
        }
    }

    /// From now on a word counts for nothing.
    pub(super) fn void(&mut self, word: &Confirmation) {
        let why = ConfirmationError::Void(self.host.clone());
        self.refused_word = Some((word.clone(), why));
    }

    /// The word that this observer has found void.
    pub(super) fn void_word(&self) -> Option<&Confirmation> {
        let refused = self.refused_word.as_ref();
        refused.and_then(|(word, why)| why.voids().then_some(word))
    }

    /// Whether a word counts for nothing any more, as this observer or a former one found.
    pub(super) fn is_void(&self, word: &Confirmation, facts: &HostFacts) -> bool {
        let known = [self.void_word(), facts.void_confirmation.as_ref()];
        known.into_iter().flatten().any(|void| void == word)
    }

    pub(super) fn accept(
        &mut self,
        proof: HostStopProof,
        facts: &HostFacts,
        now: Moment,
        out: &mut HostStep,
    ) {
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
    pub(super) fn consider_fencing(
        &mut self,
        facts: &HostFacts,
        conclusion: Conclusion,
        silent_milliseconds: u64,
        lifeless_milliseconds: u64,
        permit: &FencePermit,
        policy: &Policy,
        now: Moment,
        out: &mut HostStep,
    ) {
        let refusal = match conclusion.response() {
            Response::None | Response::Wait | Response::Prove => return,
            Response::AlertOnly => Reason::Concluded { conclusion },
            Response::Fence | Response::OtherProofs
                if lifeless_milliseconds < policy.unreachable_after_milliseconds =>
            {
                return;
            }
            Response::OtherProofs if facts.bmcs == 0 => Reason::NoBmc,
            Response::OtherProofs => Reason::NeedsPerson {
                host: self.host.clone(),
            },
            Response::FenceIsolated if !policy.fence_isolated => Reason::IsolatedKept,
            Response::FenceIsolated
                if silent_milliseconds.min(lifeless_milliseconds)
                    < policy.fence_isolated_after_milliseconds =>
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
                (FencePermit::Refused(reason), _) => {
                    self.wants_off = true;
                    return self.tell_refusal(reason, out);
                }
                (FencePermit::Granted, _) => {
                    self.wants_off = true;
                    self.begin_fencing(facts, policy, now, out);
                    return;
                }
            },
        };
        let helpless = matches!(refusal, Reason::NoBmc | Reason::NeedsPerson { .. });
        if helpless && facts.storage.cuttable {
            return self.cut_storage(permit, out);
        }
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

    /// Why it is not forced off; that its own turn is about to come is nothing to tell.
    pub(super) fn tell_refusal(&mut self, reason: &Reason, out: &mut HostStep) {
        if !matches!(reason, Reason::StormReleases { other } if *other == self.host) {
            self.tell(out, EventKind::NotDone, reason.clone());
        }
    }

    /// No BMC helps, and its pools' servers can cut it off.
    fn cut_storage(&mut self, permit: &FencePermit, out: &mut HostStep) {
        self.wants_off = !self.storage_cut;
        match (permit, &self.incarnation) {
            (FencePermit::Refused(reason), _) => self.tell_refusal(reason, out),
            (FencePermit::Granted, Some(identity)) => {
                let boot_id = identity.boot_id.clone();
                self.tell(out, EventKind::Decided, Reason::CutsStorage);
                out.actions.push(HostAction::CutStorage { boot_id });
            }
            (FencePermit::Granted, None) => {}
        }
    }

    pub(super) fn begin_fencing(
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

    pub(super) fn advance_fencing(
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
            forcing: facts.forcing,
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
}

/// For how long a silent host has shown no other life than its Lease: a wait before it is forced off begins with the last
/// that it showed. One whose VMs answer is only half alive once its heart has stood still for as long as its Lease.
/// And a probe or two that get lost are no reason to cut down VMs that answered all the while that their host
/// was silent; an answer from before that says nothing of the kind.
fn lifeless_milliseconds(
    conclusion: Conclusion,
    signs: &LifeSigns,
    policy: &Policy,
    now: Moment,
) -> u64 {
    let late = policy.lease_interval_milliseconds + policy.grace_milliseconds;
    let seen = match conclusion {
        Conclusion::HalfAlive => signs.heartbeat.map(|heartbeat| heartbeat.changed_at),
        Conclusion::Isolated | Conclusion::Hung | Conclusion::NothingAnswers => {
            signs.answered_probe_sent_at.filter(|sent| {
                signs
                    .lease
                    .is_some_and(|lease| sent.since(lease.changed_at) > late)
            })
        }
        _ => None,
    };
    seen.map_or(u64::MAX, |seen| now.since(seen))
}
