//! How a guard ends: it says that it is not armed any more, and stops the watchdog only when that stands.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use api::names::SYSTEM_NAMESPACE;
use failover::guard::NotArmed;
use failover::proof::self_fence::GuardRegistration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use super::renewal::establish;
use super::{Guard, TURN, clock};

/// How long it may take to say so.
const BOUND: Duration = Duration::from_secs(3);

impl Guard {
    /// Ends. A guard that is bound says first that it is not armed any more; only when the Lease was
    /// read back with that is the watchdog stopped. Else it runs on, and a guard that is started
    /// again in time takes it over.
    pub(super) async fn stop(mut self) -> Result<()> {
        // A renewal under way that met the word of the end would read the Lease anew, and arm it again.
        if let Some(under_way) = self.under_way.take() {
            under_way.abort();
            // It says only that it was ended, or had ended.
            let _ = under_way.await;
        }
        if self.memory.bound().is_some() && self.memory.may_renew() {
            let registration = GuardRegistration::default();
            let sent_at = clock::now()?;
            let renewal = self.renewal(&Err(NotArmed::Stopping), sent_at)?;
            self.memory.offer(&registration);
            let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
            match self.meanwhile(establish(&leases, &renewal)).await {
                Ok(()) => self.memory.acknowledged(sent_at, &registration),
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "the guard stops while it is armed; start it again within the watchdog's time-out"
                ),
            }
            self.store();
        }
        if self.memory.bound().is_none()
            && self.memory.may_feed()
            && let Some((watchdog, _)) = &mut self.watchdog
            && let Err(error) = watchdog.disarm()
        {
            tracing::warn!(%error, "the watchdog runs on; start the guard again within its time-out");
        }
        tracing::info!("stopped on request; VMs run on");
        Ok(())
    }

    /// Waits for a call, and keeps the contract meanwhile.
    async fn meanwhile(&mut self, call: impl Future<Output = Result<()>>) -> Result<()> {
        let mut call = pin!(tokio::time::timeout(BOUND, call));
        let mut turns = tokio::time::interval(TURN);
        loop {
            tokio::select! {
                ended = &mut call => return ended.context("the API server did not answer in time")?,
                _ = turns.tick() => self.keep_contract(clock::now()?),
            }
        }
    }
}
