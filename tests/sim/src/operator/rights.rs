//! Writes of rights, claims and moves, as they are made at the API server.

use failover::assignment::Rights;
use failover::vm::VmPhase;
use model::{Assignment, VmUid};

use super::name;
use super::writes::{MoveEdit, Outcome};
use crate::mutant::Mutant;
use crate::world::World;

impl World {
    /// Claims are written first; a foreign one stands.
    pub(super) fn claim(
        &mut self,
        vm: usize,
        expected: u64,
        uid: &VmUid,
        right: &Assignment,
        incoming: bool,
    ) -> Outcome {
        let index = self.api.objects.vms[vm].volume;
        let volume = self.api.objects.volumes[index].clone();
        let standing = if incoming {
            &volume.incoming_claim
        } else {
            &volume.claim
        };
        let wanted = Some((uid.clone(), right.clone()));
        if *standing == wanted {
            return Outcome::Next;
        }
        if standing.as_ref().is_some_and(|(holder, _)| holder != uid) {
            return Outcome::Conflict;
        }
        let blind = self.mutant == Mutant::NoCompareAndSwap;
        let expected = (!blind).then_some(expected);
        let written = self.api.volume(index, expected, |volume| {
            if incoming {
                volume.incoming_claim = wanted;
            } else {
                volume.claim = wanted;
            }
        });
        if written {
            self.tell(
                "claimed",
                &[("vm", uid), ("host", &right.host), ("epoch", &right.epoch)],
            );
            Outcome::Next
        } else {
            Outcome::Conflict
        }
    }

    pub(super) fn write_rights(
        &mut self,
        operator: usize,
        vm: usize,
        version: u64,
        after: &Rights,
        phase: Option<VmPhase>,
    ) -> bool {
        let before = self.api.objects.vms[vm].clone();
        let blind = self.mutant == Mutant::NoCompareAndSwap;
        let mut after = after.clone();
        if self.mutant == Mutant::LosesEpoch
            && after.incoming.is_none()
            && let Some(right) = &after.assignment
        {
            after.last_epoch = right.epoch;
        }
        if before.uid != after.vm {
            return false;
        }
        let rights = after.clone();
        let written = self.api.vm(vm, (!blind).then_some(version), |object| {
            object.rights = rights;
            if let Some(phase) = phase {
                object.phase = phase;
            }
        });
        if written {
            self.checker.rights_changed(&before.rights, &after);
            let by = (operator, self.operators[operator].run);
            let apart = &mut self.checker.apart;
            apart.rights_changed(by, &before.rights, &after);
            self.tell_rights(operator, &before.rights, &after);
            let concerned: Vec<Assignment> = [&before.rights, &after]
                .iter()
                .flat_map(|rights| rights.assignment.iter().chain(&rights.incoming))
                .cloned()
                .collect();
            self.wake(concerned.iter());
        }
        written
    }

    fn tell_rights(&mut self, operator: usize, before: &Rights, after: &Rights) {
        if !self.story.heard {
            return;
        }
        let proof = after
            .proofs
            .last()
            .map_or("none".to_owned(), |proof| format!("{:?}", proof.kind));
        let show = |right: &Option<Assignment>| {
            right
                .as_ref()
                .map_or("none".to_owned(), |right| right.host.to_string())
        };
        let (host, incoming) = (show(&after.assignment), show(&after.incoming));
        let what = match (&after.assignment, before.assignment == after.assignment) {
            (None, _) => "cleared",
            (_, true) => "incoming",
            (_, false) => "assigned",
        };
        self.tell_as(
            name(operator),
            what,
            &[
                ("vm", &after.vm),
                ("host", &host),
                ("incoming", &incoming),
                ("epoch", &after.last_epoch),
                ("proof", &proof),
            ],
        );
    }

    pub(super) fn begin_stage(
        &mut self,
        operator: usize,
        stage: u8,
        index: usize,
        vm: usize,
        versions: (u64, u64, u64),
        after: &Rights,
    ) -> Outcome {
        let (Some(source), Some(target)) = (&after.assignment, &after.incoming) else {
            return Outcome::Over;
        };
        match stage {
            0 => self.claim(vm, versions.2, &after.vm, target, true),
            1 if self.write_rights(operator, vm, versions.1, after, None) => Outcome::Next,
            1 => Outcome::Conflict,
            _ => {
                let edit = MoveEdit::Record(source.clone(), target.clone());
                self.edit_move(operator, index, versions.0, &edit);
                Outcome::Over
            }
        }
    }

    pub(super) fn edit_move(
        &mut self,
        operator: usize,
        index: usize,
        version: u64,
        edit: &MoveEdit,
    ) -> bool {
        let object = self.api.objects.moves[index].clone();
        let (what, text): (&'static str, String) = match edit {
            MoveEdit::Abort(why) => ("abortRequested", why.clone()),
            MoveEdit::Refuse(why) => ("refuseRequested", why.clone()),
            MoveEdit::Finish(outcome, _) => ("moveEnded", format!("{outcome:?}")),
            MoveEdit::Message(why) => ("moveWaits", format!("\"{why}\"")),
            MoveEdit::Record(_, target) => ("moveBegins", target.host.to_string()),
        };
        let written = self.api.moving(index, Some(version), |object| match edit {
            MoveEdit::Abort(why) => (object.abort_requested, object.message) = (true, why.clone()),
            MoveEdit::Refuse(why) => {
                (object.refuse_requested, object.message) = (true, why.clone())
            }
            MoveEdit::Finish(outcome, why) => {
                (object.outcome, object.message) = (Some(*outcome), why.clone());
            }
            MoveEdit::Message(why) => object.message.clone_from(why),
            MoveEdit::Record(source, target) => {
                object.sides = Some((source.clone(), target.clone()));
                // Words about other sides are none (operator/src/door.rs): here they carry no copy.
                (object.source, object.target) = (None, None);
            }
        });
        if written {
            self.tell_as(name(operator), what, &[("vm", &object.uid), ("to", &text)]);
            let sides = self.api.objects.moves[index].sides.clone();
            if let Some((source, target)) = sides {
                self.wake([source, target].iter());
            }
        }
        written
    }
}
