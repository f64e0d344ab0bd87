//! Aborting a migration, so that it ends.
//!
//! Two moves never end when an abort meets the moment at which memory is copied and the guest is about to stand
//! still (`pre-switchover`):
//!
//! - libvirt (seen with 9.0) sees that memory is copied, asks QEMU for its statistics, and then waits until
//!   the guest stands still. When an abort arrives in between, the guest has stood still and runs again, QEMU
//!   says `cancelled`, and that wait never ends. A short suspension ends it: libvirt goes on, hears from QEMU
//!   that nothing is to be continued, and lets the guest run, as it does after every failed move.
//! - QEMU (seen with 7.2, `migration_maybe_pause`) looks whether it was cancelled, and then waits to be continued.
//!   When an abort arrives in between, it says `cancelling`, and that wait never ends: the guest stands still.
//!   The word to continue ends it; QEMU then sees that it was cancelled, and lets the guest run. A word that
//!   nobody waits for is used up by the next move before it waits.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;
use virt::sys;

use super::{ASK, LibvirtHypervisor};
use crate::Hypervisor;
use crate::types::{DomainState, Result};

/// Between two aborts of one job.
const AGAIN: Duration = Duration::from_millis(100);
/// A job that QEMU has cancelled ends within milliseconds, unless the target is slow to hear of it, or somebody
/// waits for ever.
const STUCK_AFTER: Duration = Duration::from_secs(1);
const QUERY: &str = r#"{"execute":"query-migrate"}"#;
/// Refused by QEMU unless its move is being cancelled.
const CONTINUE: &str = r#"{"execute":"migrate-continue","arguments":{"state":"cancelling"}}"#;
/// How often a guest that was suspended is looked at after its job, which a suspension may just have outlived.
const LOOKS_AFTERWARDS: u32 = 10;

impl LibvirtHypervisor {
    /// Aborts until the job has ended or the bound of a call is over.
    pub(super) async fn abort(&self, uuid: Uuid) -> Result<()> {
        let begin = tokio::time::Instant::now();
        while let Some((kind, _)) = self.job_now(uuid).await? {
            self.moves().aborted.insert(uuid);
            // An abort that meets a job before QEMU has begun to copy is lost: it is said until heard.
            let said = self
                .on_domain("abort", ASK, uuid, super::ffi::abort_job)
                .await;
            if begin.elapsed() > ASK {
                return said;
            }
            if begin.elapsed() > STUCK_AFTER {
                self.end_wait(uuid, kind).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.let_run(uuid).await
    }

    /// Ends a wait that would not end, if it is one. What can not be asked now is asked again.
    async fn end_wait(&self, uuid: Uuid, kind: i32) {
        let Ok(answer) = self.monitor(uuid, QUERY).await else {
            return;
        };
        // While libvirt knows that a job was cancelled, and tells the target, it calls it so: then it does not wait
        // for the guest. And QEMU's word may still be about an earlier move.
        let unaware = kind == sys::VIR_DOMAIN_JOB_UNBOUNDED as i32
            && !self.moves().cancelled_before.contains(&uuid);
        match Stuck::of(&answer) {
            Some(Stuck::Libvirt) if unaware && self.moves().suspended.insert(uuid) => {
                tracing::warn!(%uuid, "libvirt waits for a move that QEMU has cancelled; the guest is suspended for a moment");
                let said = self.on_domain("suspend", ASK, uuid, |domain| domain.suspend());
                if let Err(error) = said.await {
                    tracing::warn!(%uuid, %error, "the guest was not suspended");
                }
            }
            Some(Stuck::Qemu) => {
                tracing::warn!(%uuid, "QEMU waits with a move that it was told to cancel; it is told to go on");
                if let Err(error) = self.monitor(uuid, CONTINUE).await {
                    tracing::warn!(%uuid, %error, "QEMU was not told to go on");
                }
            }
            _ => {}
        }
    }

    /// Asked before a move: QEMU tells of an earlier one until the next has begun there.
    pub(super) async fn note_earlier_move(&self, uuid: Uuid) -> Result<()> {
        let answer = self.monitor(uuid, QUERY).await?;
        let mut moves = self.moves();
        if Stuck::of(&answer) == Some(Stuck::Libvirt) {
            moves.cancelled_before.insert(uuid);
        } else {
            moves.cancelled_before.remove(&uuid);
        }
        Ok(())
    }

    async fn monitor(&self, uuid: Uuid, command: &'static str) -> Result<String> {
        self.on_domain("monitor", ASK, uuid, move |domain| {
            domain.qemu_monitor_command(command, 0)
        })
        .await
    }

    /// Lets a guest run that was suspended here to end its job, when that has failed: libvirt does so itself only for one
    /// that stood still by then. It is the only copy: QEMU had cancelled.
    pub(super) async fn let_run(&self, uuid: Uuid) -> Result<()> {
        if !self.moves().suspended.contains(&uuid) {
            return Ok(());
        }
        for _ in 0..LOOKS_AFTERWARDS {
            let domains = self.list().await?;
            let paused = |domain: &crate::types::Domain| {
                let still = matches!(domain.state, DomainState::Paused | DomainState::Suspended);
                domain.uuid == uuid && still
            };
            if domains.iter().any(paused) {
                self.resume(uuid).await?;
                // It was suspended once: nothing else is under way.
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.moves().suspended.remove(&uuid);
        Ok(())
    }
}

/// Who waits for ever when an abort is not followed by the end of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    Libvirt,
    Qemu,
}

impl Stuck {
    fn of(answer: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(answer).ok()?;
        match answer["return"]["status"].as_str()? {
            "cancelled" => Some(Self::Libvirt),
            "cancelling" => Some(Self::Qemu),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_qemus_own_word() {
        let says =
            |status: &str| format!(r#"{{"return":{{"status":"{status}"}},"id":"libvirt-458"}}"#);
        assert_eq!(Stuck::of(&says("cancelled")), Some(Stuck::Libvirt));
        assert_eq!(Stuck::of(&says("cancelling")), Some(Stuck::Qemu));
        for other in ["active", "completed", "failed", "pre-switchover", "device"] {
            assert_eq!(Stuck::of(&says(other)), None, "{other}");
        }
        for other in [
            r#"{"return":{}}"#,
            r#"{"error":{"desc":"cancelled"}}"#,
            "cancelled",
        ] {
            assert_eq!(Stuck::of(other), None, "{other}");
        }
    }
}
