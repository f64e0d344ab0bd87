//! The guard: a small process of its own that renews the host's Lease with the boot id and
//! the age of the agent's converge loop. An agent that is stopped or stuck shows so here,
//! and the host still counts as alive.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use api::CloudPolicy;
use api::names::{LEASE_BOOT_ID, LEASE_LOOP_AGE, POLICY_NAME, SYSTEM_NAMESPACE, lease_name};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::options::GuardOptions;

/// How often the policy is read again.
const POLICY_EVERY: Duration = Duration::from_secs(30);
/// A renewal that takes longer is given up, and the next one tried.
const RENEWAL_BOUND: Duration = Duration::from_millis(1500);
/// Age that is reported when the agent's loop was never seen, milliseconds.
const NEVER: u64 = 86_400_000;

/// Boot id of the running kernel.
///
/// # Errors
/// procfs is not mounted.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path)
        .with_context(|| path.to_owned())?
        .trim()
        .to_owned())
}

/// Renews the Lease until the process ends.
///
/// # Errors
/// The kubeconfig can not be used.
pub async fn run(options: GuardOptions) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)
        .with_context(|| format!("--kubeconfig {}", options.kubeconfig.display()))?;
    let client = Client::try_from(
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?,
    )?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let policies: Api<CloudPolicy> = Api::all(client);
    let boot_id = boot_id()?;
    let mut interval = Duration::from_secs(2);
    let mut policy_read: Option<tokio::time::Instant> = None;
    loop {
        let begin = tokio::time::Instant::now();
        if policy_read.is_none_or(|read| read.elapsed() > POLICY_EVERY)
            && let Ok(Ok(policy)) =
                tokio::time::timeout(RENEWAL_BOUND, policies.get_opt(POLICY_NAME)).await
        {
            policy_read = Some(begin);
            let seconds = policy.map_or(2, |policy| policy.spec.failover.lease_interval_seconds);
            interval = Duration::from_secs(u64::try_from(seconds).unwrap_or(2));
        }
        let body = renewal(
            &options.host,
            &boot_id,
            interval,
            loop_age(&options.run_dir),
        );
        match tokio::time::timeout(RENEWAL_BOUND, renew(&leases, &options.host, &body)).await {
            Ok(Ok(())) => tracing::debug!("renewed"),
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "the Lease was not renewed")
            }
            Err(_) => tracing::warn!("the API server did not answer; the Lease was not renewed"),
        }
        tokio::time::sleep_until(begin + interval).await;
    }
}

/// Milliseconds since the agent's converge loop last went round.
fn loop_age(run_dir: &Path) -> u64 {
    let modified = std::fs::metadata(run_dir.join("loop")).and_then(|metadata| metadata.modified());
    let age = modified
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.map_or(NEVER, |age| u64::try_from(age.as_millis()).unwrap_or(NEVER))
}

fn renewal(host: &str, boot_id: &str, interval: Duration, loop_age: u64) -> Value {
    json!({
        "metadata": {"name": lease_name(host), "annotations": {LEASE_BOOT_ID: boot_id, LEASE_LOOP_AGE: loop_age.to_string()}},
        "spec": {
            "holderIdentity": host,
            "leaseDurationSeconds": interval.as_secs(),
            "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(jiff::Timestamp::now()),
        }
    })
}

async fn renew(leases: &Api<Lease>, host: &str, body: &Value) -> Result<()> {
    match leases
        .patch(
            &lease_name(host),
            &PatchParams::default(),
            &Patch::Merge(body),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            leases
                .create(
                    &PostParams::default(),
                    &serde_json::from_value(body.clone())?,
                )
                .await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
