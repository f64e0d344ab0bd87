//! An operator's writes on their way to the API server: a chain of requests, each of which may
//! be late, lost, or arrive after its sender has died, lost its lead or fallen asleep.

use failover::assignment::Rights;
use failover::claims::Claims;
use failover::host::incarnation::Identity;
use failover::migration::MigrationOutcome;
use failover::proof::confirmation::Confirmation;
use failover::vm::VmPhase;
use model::{Assignment, BootId, Epoch, VmUid};

use super::vms::{HOST, MOVE, VM, VOLUME};
use super::{name, vms};
use crate::api::MoveObject;
use crate::faults::{Fault, OperatorIndex};
use crate::mutant::Mutant;
use crate::world::{Event, World};

/// A change of a move's status.
#[derive(Clone, Debug)]
pub enum MoveEdit {
    /// The source is asked to abort.
    Abort(String),
    /// The target is asked to refuse.
    Refuse(String),
    /// It ended, and why.
    Finish(MigrationOutcome, String),
    /// What it waits for.
    Message(String),
    /// Its sides.
    Record(Assignment, Assignment),
}

/// A chain of writes.
#[derive(Clone, Debug)]
pub enum Work {
    /// A VM's phase.
    Show(usize, u64, VmPhase),
    /// The claim, then the rights: VM, its version, rights, phase, the volume's version.
    Assign(usize, u64, Box<Rights>, VmPhase, u64),
    /// Rights taken away.
    Rights(usize, u64, Box<Rights>, VmPhase),
    /// Claims that follow the rights: volume, its version, both claims.
    Mend(usize, u64, Claims),
    /// Claims of a volume released.
    Release(usize, u64),
    /// The VM is gone.
    Finalize(usize, u64),
    /// A new incarnation: host, version, identity, the boot id that is retired.
    Register(usize, u64, Identity, Option<BootId>),
    /// A fencing intent: host, version, incarnation, writer, expiry.
    Intent(usize, u64, BootId, usize, u64),
    /// The intent is over.
    ClearIntent(usize, u64),
    /// A person's word counts for nothing any more.
    Void(usize, u64, Confirmation),
    /// What a host's BMC reads is no proof, or is one again.
    BmcLies(usize, u64, bool),
    /// A host's storage is cut off for an incarnation, or not any more.
    Cut(usize, u64, Option<BootId>),
    /// A move's status.
    Move(usize, u64, MoveEdit),
    /// A move begins: claim, `incoming`, record (versions of move, VM and volume).
    Begin(usize, usize, (u64, u64, u64), Box<Rights>),
    /// A move's end in the rights, then in the claims.
    Swap(usize, u64, Box<Rights>),
    /// The site is frozen: the policy's version.
    Freeze(u64),
    /// The hosts of a frozen site are asked anew; whether etcd went back once more.
    CallTheRoll(u64, bool),
    /// Where epochs begin after the rebase.
    Floor(u64, Epoch),
    /// A VM's rights as a rebase sets them.
    Adopt(usize, u64, Box<Rights>),
    /// A volume is claimed by the copy that runs, by a rebase.
    AdoptClaim(usize, u64, Option<(VmUid, Assignment)>),
    /// The rebase is done; its name.
    Thaw(u64, String),
    /// A move is made to empty a host, or (cancelled) to take back an orphan `incoming`.
    CreateMove(usize, VmUid, bool),
}

/// What became of one request.
pub(super) enum Outcome {
    /// Written; another one follows.
    Next,
    /// Written, or nothing to write; the chain is over.
    Over,
    /// Somebody else was faster.
    Conflict,
}

impl World {
    /// Sends the first request of a chain.
    pub(super) fn write(&mut self, operator: usize, work: Work) {
        let run = self.operators[operator].run;
        self.operators[operator].works += 1;
        let wait = self.latency();
        self.push(wait, Event::Write(operator, run, Box::new(work), 0));
    }

    /// A request arrives at the API server.
    pub fn write_arrives(&mut self, operator: usize, run: u64, work: Box<Work>, stage: u8) {
        if self.dies_at_write(operator, &work, stage) {
            return;
        }
        if !self.api_takes_writes() {
            return self.chain_over(operator, run);
        }
        if self.message_lost() {
            if self.rng.chance(500) {
                // It comes late, when its sender has given it up.
                let wait = self.rng.range(500, 20_000);
                self.push(wait, Event::Write(operator, u64::MAX, work.clone(), stage));
                return self.chain_over(operator, run);
            }
            if self.rng.chance(500) {
                // It was written, and the reply is lost.
                self.carry_out(operator, &work, stage);
            }
            return self.chain_over(operator, run);
        }
        match self.carry_out(operator, &work, stage) {
            Outcome::Next => self.send_next(operator, run, work, stage + 1),
            Outcome::Over => {
                self.note_written(operator, run, &work);
                self.chain_over(operator, run);
            }
            Outcome::Conflict => self.chain_over(operator, run),
        }
    }

    /// Counts a write, and lets its sender die with it when the plan says so: before the write arrives,
    /// or after, without having heard the answer.
    fn dies_at_write(&mut self, operator: usize, work: &Work, stage: u8) -> bool {
        let number = self.writes;
        self.writes += 1;
        let Some(death) = self.plan.dies.filter(|death| death.write == number) else {
            return false;
        };
        if death.arrived && self.api_takes_writes() {
            self.carry_out(operator, work, stage);
        }
        self.inflict(&Fault::OperatorCrash {
            operator: OperatorIndex(operator),
            span: death.span,
        });
        true
    }

    fn send_next(&mut self, operator: usize, run: u64, work: Box<Work>, stage: u8) {
        let wait = self.latency();
        let this = &self.operators[operator];
        if !this.alive || this.run != run {
            return;
        }
        let asleep = this.paused_until.saturating_sub(self.now);
        // Leadership is checked at the moment of sending, after a pause too.
        let led_then = this
            .renewed_at
            .is_some_and(|at| self.now + asleep - at < super::WRITES_FOR);
        if led_then || self.now < self.split_until {
            self.push(asleep + wait, Event::Write(operator, run, work, stage));
        } else {
            self.chain_over(operator, run);
        }
    }

    pub(crate) fn chain_over(&mut self, operator: usize, run: u64) {
        let this = &mut self.operators[operator];
        if this.run == run {
            this.works = this.works.saturating_sub(1);
        }
    }

    /// Remembers from which version an object was written, so that nobody decides twice from it.
    fn note_written(&mut self, operator: usize, run: u64, work: &Work) {
        let now = self.now;
        let this = &mut self.operators[operator];
        if this.run != run {
            return;
        }
        let (kind, index, version) = match work {
            Work::Show(vm, version, _)
            | Work::Assign(vm, version, ..)
            | Work::Rights(vm, version, ..)
            | Work::Swap(vm, version, ..)
            | Work::Adopt(vm, version, _)
            | Work::Finalize(vm, version) => (VM, *vm, *version),
            Work::Begin(_, vm, versions, _) => (VM, *vm, versions.1),
            Work::Move(index, version, _) => (MOVE, *index, *version),
            Work::Register(host, version, ..)
            | Work::Cut(host, version, _)
            | Work::ClearIntent(host, version)
            | Work::Void(host, version, _)
            | Work::BmcLies(host, version, _)
            | Work::Intent(host, version, ..) => (HOST, *host, *version),
            Work::Release(volume, version) | Work::Mend(volume, version, _) => {
                (VOLUME, *volume, *version)
            }
            Work::Freeze(_)
            | Work::CallTheRoll(..)
            | Work::AdoptClaim(..)
            | Work::Floor(..)
            | Work::Thaw(..)
            | Work::CreateMove(..) => return,
        };
        this.written.insert((kind, index), (version, now));
    }

    fn carry_out(&mut self, operator: usize, work: &Work, stage: u8) -> Outcome {
        let done = |written: bool| {
            if written {
                Outcome::Over
            } else {
                Outcome::Conflict
            }
        };
        match work {
            Work::Freeze(_)
            | Work::CallTheRoll(..)
            | Work::AdoptClaim(..)
            | Work::Floor(..)
            | Work::Adopt(..)
            | Work::Thaw(..) => done(self.freeze_write(operator, work)),
            Work::Show(vm, version, phase) => {
                let (uid, shown) = (self.api.objects.vms[*vm].uid.clone(), format!("{phase:?}"));
                let written = self
                    .api
                    .vm(*vm, Some(*version), |object| object.phase = *phase);
                if written {
                    self.tell_as(name(operator), "shows", &[("vm", &uid), ("phase", &shown)]);
                }
                done(written)
            }
            Work::Assign(vm, version, after, phase, volume) => match (stage, &after.assignment) {
                (0, Some(right)) => self.claim(*vm, *volume, &after.vm, right, false),
                _ => done(self.write_rights(operator, *vm, *version, after, Some(*phase))),
            },
            Work::Rights(vm, version, after, phase) => {
                done(self.write_rights(operator, *vm, *version, after, Some(*phase)))
            }
            Work::Mend(volume, version, claims) => {
                let expected = (self.mutant != Mutant::NoCompareAndSwap).then_some(*version);
                let written = self
                    .api
                    .volume(*volume, expected, |volume| volume.set_claims(claims));
                if written {
                    let claim = |claim: &Option<model::Claim>| match claim {
                        Some(claim) => {
                            format!("{}/{}", claim.assignment.host, claim.assignment.epoch)
                        }
                        None => "none".to_owned(),
                    };
                    let (now, incoming) = (claim(&claims.claim), claim(&claims.incoming));
                    self.tell_as(
                        name(operator),
                        "claimsMended",
                        &[("claim", &now), ("incoming", &incoming)],
                    );
                }
                done(written)
            }
            Work::Release(volume, version) => {
                done(self.api.volume(*volume, Some(*version), |volume| {
                    (volume.claim, volume.incoming_claim) = (None, None);
                }))
            }
            Work::Finalize(vm, version) => {
                let uid = self.api.objects.vms[*vm].uid.clone();
                let written = self
                    .api
                    .vm(*vm, Some(*version), |object| object.exists = false);
                if written {
                    self.tell_as(name(operator), "deleted", &[("vm", &uid)]);
                }
                done(written)
            }
            Work::Register(host, version, identity, retired) => {
                let boot = identity.boot_id.clone();
                let written = self.api.host(*host, Some(*version), |object| {
                    object.accepted = Some(identity.clone());
                    object.retired.extend(retired.iter().cloned());
                });
                if written {
                    let host = self.names[*host].clone();
                    self.tell_as(
                        name(operator),
                        "accepted",
                        &[("host", &host), ("boot", &boot)],
                    );
                }
                done(written)
            }
            Work::Intent(host, version, boot_id, by, expires) => {
                let mark = self.now;
                done(self.api.host(*host, Some(*version), |object| {
                    object.intent = Some((boot_id.clone(), *by, *expires, mark));
                }))
            }
            Work::Cut(host, version, boot) => {
                let order = self.api.revision() + 1;
                done(self.api.host(*host, Some(*version), |object| {
                    object.cut = boot.clone().map(|boot| (boot, order));
                }))
            }
            Work::Void(host, version, word) => {
                done(self.api.host(*host, Some(*version), |object| {
                    object.void = Some(word.clone());
                }))
            }
            Work::BmcLies(host, version, lies) => {
                done(self.api.host(*host, Some(*version), |object| {
                    object.bmc_lies = *lies;
                }))
            }
            Work::ClearIntent(host, version) => {
                let expected = (self.mutant != Mutant::NoCompareAndSwap).then_some(*version);
                done(
                    self.api
                        .host(*host, expected, |object| object.intent = None),
                )
            }
            Work::Move(index, version, edit) => {
                done(self.edit_move(operator, *index, *version, edit))
            }
            Work::Begin(index, vm, versions, after) => {
                self.begin_stage(operator, stage, *index, *vm, *versions, after)
            }
            Work::Swap(vm, version, after) => {
                if stage == 0 {
                    return if self.write_rights(operator, *vm, *version, after, None) {
                        Outcome::Next
                    } else {
                        Outcome::Conflict
                    };
                }
                let volume = self.api.objects.vms[*vm].volume;
                let seen = &self.operators[operator].cache.volumes[volume];
                let Some(claims) = seen.mended(after, true) else {
                    return Outcome::Over;
                };
                let version = seen.version;
                done(
                    self.api
                        .volume(volume, Some(version), |volume| volume.set_claims(&claims)),
                )
            }
            Work::CreateMove(vm, uid, cancel) => {
                // What takes an `incoming` back is named by its epoch; what empties a host, one a VM.
                let incoming = self.api.objects.vms[*vm].rights.incoming.clone();
                let moving = self.api.objects.moves.iter().any(|object| match &incoming {
                    Some(incoming) if *cancel => self.ends_incoming(object, uid, incoming),
                    _ => object.outcome.is_none() && object.uid == uid.as_str(),
                });
                if !moving {
                    self.api.create_move(MoveObject {
                        vm: *vm,
                        uid: uid.to_string(),
                        drain: !cancel,
                        cancel: *cancel,
                        ..MoveObject::default()
                    });
                }
                Outcome::Over
            }
        }
    }
}

/// Kinds are told apart by their number alone; they must differ.
const _: () = assert!(vms::VM != vms::MOVE && vms::MOVE != vms::HOST && vms::HOST != vms::VOLUME);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    /// A leader that was paused takes its intent back late, after the next one has written its own.
    #[test]
    fn a_late_clear_leaves_the_next_leaders_intent() {
        let mut world = World::new(Plan::random(1), Mutant::None, false);
        let intent = |by: usize| Some((BootId::from("h1-boot1"), by, 60_000, 0));
        world.api.host(0, None, |host| host.intent = intent(0));
        let seen = world.api.objects.hosts[0].version;
        world.api.host(0, None, |host| host.intent = intent(1));
        let _late = world.carry_out(0, &Work::ClearIntent(0, seen), 0);
        assert_eq!(world.api.objects.hosts[0].intent, intent(1));
        let seen = world.api.objects.hosts[0].version;
        let _own = world.carry_out(0, &Work::ClearIntent(0, seen), 0);
        assert_eq!(world.api.objects.hosts[0].intent, None);
    }

    /// A leader died between the rights and the claims of a move's end: the next one finishes, once.
    #[test]
    fn claims_that_a_dead_leader_left_follow_the_rights() {
        let right = |epoch: i64| Assignment {
            host: "h1".into(),
            boot_id: "h1-boot1".into(),
            epoch: Epoch(epoch),
        };
        // Promoted, and dropped.
        for stays in [2, 1] {
            let mut world = World::new(Plan::random(1), Mutant::None, false);
            let (uid, volume) = {
                let vm = &world.api.objects.vms[0];
                (vm.uid.clone(), vm.volume)
            };
            world.api.vm(0, None, |vm| {
                (vm.rights.assignment, vm.rights.incoming) = (Some(right(stays)), None);
                vm.rights.last_epoch = Epoch(2);
            });
            world.api.volume(volume, None, |volume| {
                volume.claim = Some((uid.clone(), right(1)));
                volume.incoming_claim = Some((uid.clone(), right(2)));
            });
            world.operators[0].cache = world.api.objects.clone();
            let vm = world.api.objects.vms[0].clone();
            let work = world.mend(0, &vm).expect("claims to mend");
            let _written = world.carry_out(0, &work, 0);
            let mended = |world: &World| {
                let volume = &world.api.objects.volumes[volume];
                let held = Some((uid.clone(), right(stays)));
                volume.claim == held && volume.incoming_claim.is_none()
            };
            assert!(mended(&world), "epoch {stays} stays");
            // The same write once more, late: the version has moved on.
            let next = Some((uid.clone(), right(3)));
            world
                .api
                .volume(volume, None, |volume| volume.incoming_claim = next);
            let _late = world.carry_out(0, &work, 0);
            assert!(!mended(&world), "a late write wins");
        }
    }
}
