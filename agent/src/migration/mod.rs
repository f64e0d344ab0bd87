//! This host's side of live migrations, as the contract in `docs/contract.md` has it:
//! `source` sends and hands over, `target` receives paused and resumes only on the hand-over.

pub mod handover;
pub mod link;
mod source;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::{MigrationSourcePhase, MigrationTargetPhase, VirtualMachineMigration};
use failover::migration::{SourcePhase, TargetPhase};
use hypervisor::Domain;
use kube::Api;
use kube::api::{Patch, PatchParams};
use model::Assignment;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::agent::{Context, in_task};
use crate::under_way::UnderWay;
use crate::vm::worker::VmRef;

/// How long an agent that is told to stop waits for its moves: an abort takes a second or two, and systemd is patient for 90 s.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Work on a VM's move as its source.
pub(crate) const SOURCE: &str = "source";
/// Work on a VM's move as its target.
pub(crate) const TARGET: &str = "target";

/// How far a VM that is being sent from here has come.
#[derive(Clone, Copy, Debug, Default)]
struct Sending {
    /// Its switch-over is near: frames should reach both copies.
    near: bool,
}

/// Migrations from here that are under way, by VM uid.
#[derive(Default)]
pub struct Moves {
    sending: Mutex<BTreeMap<String, Sending>>,
    stopping: AtomicBool,
    changed: watch::Sender<()>,
}

impl Moves {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Sending>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a VM is being sent from here right now.
    pub fn is_moving(&self, uid: &str) -> bool {
        self.all().contains_key(uid)
    }

    fn is_near(&self, uid: &str) -> bool {
        self.all().get(uid).is_some_and(|sending| sending.near)
    }

    fn begin(&self, uid: &str) -> bool {
        // Looked at under the lock: who stops sees every move that begins before.
        let mut all = self.all();
        !self.is_stopping() && all.insert(uid.to_owned(), Sending::default()).is_none()
    }

    /// Whether the agent ends: its moves are aborted.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Begins no move any more, and waits until each that is under way has ended and was told of, whether it was aborted in
    /// time or handed over. A switch-over that nobody sees costs the guest: the next agent finds its domain gone, can not
    /// tell that from a crash, and the VM starts from its disks. False: some have not ended within this time.
    pub async fn stop(&self, within: Duration) -> bool {
        let mut changes = self.changes();
        {
            let _all = self.all();
            self.stopping.store(true, Ordering::Release);
        }
        let ended = async {
            while !self.all().is_empty() {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(within, ended).await.is_ok()
    }

    /// Says that a VM's switch-over is near, to whoever waits for it.
    fn set_near(&self, uid: &str) {
        if let Some(sending) = self.all().get_mut(uid)
            && !sending.near
        {
            sending.near = true;
            self.tell();
        }
    }

    fn end(&self, uid: &str) {
        self.all().remove(uid);
        self.tell();
    }

    /// Wakes who waits for a change of a move or of the ledger.
    fn tell(&self) {
        self.changed.send_replace(());
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// One migration as both sides see it.
#[derive(Clone, Debug)]
struct Move {
    object: Arc<VirtualMachineMigration>,
    vm: VmRef,
    source: Assignment,
    target: Assignment,
}

impl Move {
    fn of(object: &Arc<VirtualMachineMigration>) -> Option<Self> {
        let status = object.status.clone()?;
        Some(Self {
            vm: VmRef {
                uid: status.vm_uid?,
                namespace: object.metadata.namespace.clone()?,
                name: object.spec.virtual_machine.clone(),
            },
            source: status.source_assignment?,
            target: status.target_assignment?,
            object: object.clone(),
        })
    }

    /// What the source said last, if it speaks of this move's source.
    fn source_said(&self) -> Option<SourcePhase> {
        let said = self.object.status.as_ref()?.source.as_ref()?;
        (said.assignment == self.source).then_some(match said.phase {
            MigrationSourcePhase::Migrating => SourcePhase::Migrating,
            MigrationSourcePhase::HandedOver => SourcePhase::HandedOver,
            MigrationSourcePhase::StillRunning => SourcePhase::StillRunning,
            MigrationSourcePhase::Closed => SourcePhase::Closed,
        })
    }

    /// What the target said last, if it speaks of this move's target.
    fn target_said(&self) -> Option<TargetPhase> {
        let said = self.object.status.as_ref()?.target.as_ref()?;
        (said.assignment == self.target).then_some(match said.phase {
            MigrationTargetPhase::Prepared => TargetPhase::Prepared,
            MigrationTargetPhase::Arrived => TargetPhase::Arrived,
            MigrationTargetPhase::Resumed => TargetPhase::Resumed,
            MigrationTargetPhase::Refused => TargetPhase::Refused,
        })
    }

    fn name(&self) -> String {
        self.object.metadata.name.clone().unwrap_or_default()
    }

    /// The same move by a read that no cache answers.
    async fn afresh(&self, context: &Context) -> Result<Self> {
        let api: Api<VirtualMachineMigration> =
            Api::namespaced(context.client.clone(), &self.vm.namespace);
        let fresh = context.freezer.read(&api, &self.name()).await?;
        let uid = &self.object.metadata.uid;
        let object = fresh
            .filter(|fresh| fresh.metadata.uid == *uid)
            .context("the migration is gone")?;
        Ok(Self {
            object: Arc::new(object),
            ..self.clone()
        })
    }

    /// Merges into the migration's status.
    async fn patch(&self, context: &Context, status: Value) -> Result<()> {
        let api: Api<VirtualMachineMigration> =
            Api::namespaced(context.client.clone(), &self.vm.namespace);
        let patch = json!({ "status": status });
        api.patch_status(&self.name(), &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("status of the migration")?;
        Ok(())
    }
}

fn is_mine(context: &Context, assignment: &Assignment) -> bool {
    assignment.host == context.host && assignment.boot_id == context.boot_id
}

/// The key of the work on one side of a move of a VM.
pub(crate) fn key(side: &str, uid: &str, migration: &str) -> String {
    format!("{side}/{uid}/{migration}")
}

/// What ended while domains were listed is decided by the next list, and not only at the next tick: a guest may stand still.
fn look_again(context: &Context, busy: &Mutex<BTreeSet<String>>, key: &str) {
    if !UnderWay::now(busy).has(key) {
        context.view.changed.notify_one();
    }
}

/// Begins what is due for every migration that concerns this host, by domains that were listed after `before`.
pub fn turn(
    context: &Arc<Context>,
    busy: &Arc<Mutex<BTreeSet<String>>>,
    before: &UnderWay,
    domains: &[Domain],
) {
    for object in context.view.leaving.state() {
        let Some(moving) = Move::of(&object).filter(|moving| is_mine(context, &moving.source))
        else {
            continue;
        };
        let key = key(SOURCE, &moving.vm.uid, &moving.name());
        if before.has(&key) {
            look_again(context, busy, &key);
            continue;
        }
        if let Some(step) = source::decide(context, &moving, domains) {
            let context = context.clone();
            in_task(busy, key, async move {
                logged(
                    &moving.name(),
                    source::carry_out(&context, &moving, step).await,
                )
            });
        }
    }
    for object in context.view.arriving.state() {
        let Some(moving) = Move::of(&object).filter(|moving| is_mine(context, &moving.target))
        else {
            continue;
        };
        let key = key(TARGET, &moving.vm.uid, &moving.name());
        if before.has(&key) {
            look_again(context, busy, &key);
            continue;
        }
        if let Some(step) = target::decide(context, &moving, domains) {
            let context = context.clone();
            in_task(busy, key, async move {
                logged(
                    &moving.name(),
                    target::carry_out(&context, &moving, step).await,
                )
            });
        }
    }
}

fn logged(migration: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(
            migration,
            error = format!("{error:#}"),
            "tried again at the next turn"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test takes, and shorter than anybody waits.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn an_agent_that_stops_begins_no_move_and_sees_those_under_way_to_their_end() {
        let moves = Moves::default();
        assert!(moves.begin("u1") && moves.begin("u2"));
        let stop = moves.stop(LONG);
        tokio::pin!(stop);
        let waits = tokio::time::timeout(SHORT, &mut stop).await;
        assert!(waits.is_err(), "two are under way");
        assert!(moves.is_stopping() && !moves.begin("u3"));
        moves.end("u1");
        let waits = tokio::time::timeout(SHORT, &mut stop).await;
        assert!(waits.is_err(), "one is left");
        moves.end("u2");
        assert!(stop.await);
        assert!(moves.stop(LONG).await, "nothing moves");
    }

    #[tokio::test]
    async fn a_move_that_does_not_end_holds_up_nobody_for_ever() {
        let moves = Moves::default();
        assert!(moves.begin("u1"));
        assert!(!moves.stop(SHORT).await);
    }
}
