//! Aborting a migration, so that it ends.
//!
//! libvirt (seen with 9.0) can wait for ever for a move that QEMU has cancelled. It sees that memory is
//! copied (`pre-switchover`), asks QEMU for its statistics, and then waits until the guest stands still. When
//! an abort arrives in between, the guest has stood still and runs again, and that wait never ends. A
//! short suspension ends it: libvirt goes on, hears from QEMU that nothing is to be continued, and lets
//! the guest run, as it does after every failed move.

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
            if !suspended && begin.elapsed() > STUCK_AFTER && self.is_cancelled(uuid).await? {
                tracing::warn!(%uuid, "libvirt waits for a move that QEMU has cancelled; the guest is suspended for a moment");
                self.on_domain("suspend", ASK, uuid, |domain| domain.suspend())
                    .await?;
                suspended = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
        if suspended {
            self.let_run(uuid).await?;
        }
        Ok(())
    }

    /// What QEMU itself says of its last migration.
    async fn is_cancelled(&self, uuid: Uuid) -> Result<bool> {
        let answer = self
            .on_domain("query-migrate", ASK, uuid, |domain| {
                domain.qemu_monitor_command(r#"{"execute":"query-migrate"}"#, 0)
            })
            .await?;
        Ok(says_cancelled(&answer))
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

fn says_cancelled(answer: &str) -> bool {
    serde_json::from_str::<Value>(answer)
        .is_ok_and(|answer| answer["return"]["status"] == "cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_qemus_own_word_is_cancelled() {
        assert!(says_cancelled(
            r#"{"return":{"status":"cancelled"},"id":"libvirt-458"}"#
        ));
        for other in [
            r#"{"return":{"status":"cancelling"}}"#,
            r#"{"return":{}}"#,
            r#"{"error":{"desc":"cancelled"}}"#,
            "cancelled",
        ] {
            assert!(!says_cancelled(other), "{other}");
        }
    }
}
