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

use super::{ASK, LibvirtHypervisor};
use crate::Hypervisor;
use crate::types::{DomainState, Result};

/// Between two aborts of one job.
const AGAIN: Duration = Duration::from_millis(100);
/// A job that QEMU has cancelled ends within milliseconds, unless libvirt waits for ever.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Refused by QEMU unless its move is being cancelled.
const CONTINUE: &str = r#"{"execute":"migrate-continue","arguments":{"state":"cancelling"}}"#;

impl LibvirtHypervisor {
    /// Aborts until the job has ended or the bound of a call is over.
    pub(super) async fn abort(&self, uuid: Uuid) -> Result<()> {
        let begin = tokio::time::Instant::now();
        let mut suspended = false;
        while self.job(uuid).await?.is_some() {
            self.note_aborted(uuid);
            // An abort that meets a job before QEMU has begun to copy is lost: it is said until heard.
            let said = self
                .on_domain("abort", ASK, uuid, super::ffi::abort_job)
                .await;
            if begin.elapsed() > ASK {
                return said;
            }
            if begin.elapsed() > STUCK_AFTER {
                match self.stuck(uuid).await? {
                    Some(Stuck::Libvirt) if !suspended => {
                        tracing::warn!(%uuid, "libvirt waits for a move that QEMU has cancelled; the guest is suspended for a moment");
                        self.on_domain("suspend", ASK, uuid, |domain| domain.suspend())
                            .await?;
                        suspended = true;
                    }
                    Some(Stuck::Qemu) => {
                        tracing::warn!(%uuid, "QEMU waits with a move that it was told to cancel; it is told to go on");
                        self.monitor(uuid, CONTINUE).await?;
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        if suspended {
            self.let_run(uuid).await?;
        }
        Ok(())
    }

    /// Who waits, by what QEMU itself says of its last migration.
    async fn stuck(&self, uuid: Uuid) -> Result<Option<Stuck>> {
        let answer = self.monitor(uuid, r#"{"execute":"query-migrate"}"#).await?;
        Ok(Stuck::of(&answer))
    }

    async fn monitor(&self, uuid: Uuid, command: &'static str) -> Result<String> {
        self.on_domain("monitor", ASK, uuid, move |domain| {
            domain.qemu_monitor_command(command, 0)
        })
        .await
    }

    /// The job may have ended by itself just before the guest was suspended; then nobody else lets it run.
    /// It is the only copy: QEMU had cancelled.
    async fn let_run(&self, uuid: Uuid) -> Result<()> {
        let domains = self.list().await?;
        let paused = |domain: &crate::types::Domain| {
            domain.uuid == uuid && domain.state == DomainState::Paused
        };
        if domains.iter().any(paused) {
            self.resume(uuid).await?;
        }
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
