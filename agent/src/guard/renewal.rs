//! One renewal of the host's Lease, by compare-and-swap: a renewal whose answer was lost can not
//! arrive after a later one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use api::names::{LEASE_GUARD, LEASE_TOKEN, lease_name};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// From a conflict to the next try.
const AGAIN: Duration = Duration::from_millis(50);

/// What a renewal carries.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The host.
    pub host: String,
    /// How often it renews.
    pub interval: Duration,
    /// Everything that it tells.
    pub annotations: BTreeMap<&'static str, Option<String>>,
}

impl Renewal {
    fn body(&self, version: Option<&str>) -> Value {
        json!({
            "metadata": {
                "name": lease_name(&self.host),
                "resourceVersion": version,
                "annotations": self.annotations,
            },
            "spec": {
                "holderIdentity": self.host,
                "leaseDurationSeconds": self.interval.as_secs(),
                "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(jiff::Timestamp::now()),
            }
        })
    }
}

/// What the API server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Version of the Lease, for the next renewal.
    pub version: Option<String>,
    /// The operator's token for this guard.
    pub token: Option<String>,
}

/// Renews; `version` is that of the last answer. Reads the Lease first where that is unknown,
/// or where somebody else (the operator, with a token) wrote meanwhile.
///
/// # Errors
/// The API can not be reached or refuses.
pub async fn renew(
    leases: &Api<Lease>,
    renewal: &Renewal,
    version: Option<String>,
) -> Result<Renewed> {
    if let Some(version) = version {
        match patch(leases, renewal, &version).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => return other.context("renewal"),
        }
    }
    let name = lease_name(&renewal.host);
    let standing = leases.get_opt(&name).await.context("the Lease")?;
    let Some(standing) = standing else {
        let mut body = renewal.body(None);
        if let Some(annotations) = body["metadata"]["annotations"].as_object_mut() {
            annotations.retain(|_, value| !value.is_null());
        }
        let lease: Lease = serde_json::from_value(body)?;
        let made = leases.create(&PostParams::default(), &lease).await;
        return Ok(answer(made.context("new Lease")?));
    };
    let version = standing.metadata.resource_version.unwrap_or_default();
    patch(leases, renewal, &version).await.context("renewal")
}

/// Renews until the Lease was read back with what the renewal registers. A request that its sender has given
/// up may still be on its way: it arrives before this one, which then meets another version and is sent again,
/// or after it, and is refused for its own version.
///
/// # Errors
/// The API can not be reached or refuses. Without end while others write: whoever calls bounds it.
pub async fn establish(leases: &Api<Lease>, renewal: &Renewal) -> Result<()> {
    let wanted = renewal.annotations.get(LEASE_GUARD);
    let wanted = wanted.and_then(Option::as_ref);
    loop {
        match renew(leases, renewal, None).await {
            Ok(_) => {
                let standing = leases.get(&lease_name(&renewal.host)).await;
                let standing = standing.context("the Lease")?.metadata.annotations;
                if standing.unwrap_or_default().get(LEASE_GUARD) == wanted {
                    return Ok(());
                }
            }
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

async fn patch(
    leases: &Api<Lease>,
    renewal: &Renewal,
    version: &str,
) -> Result<Renewed, kube::Error> {
    let body = renewal.body(Some(version));
    let lease = leases
        .patch(
            &lease_name(&renewal.host),
            &PatchParams::default(),
            &Patch::Merge(&body),
        )
        .await?;
    Ok(answer(lease))
}

fn answer(lease: Lease) -> Renewed {
    let annotations = lease.metadata.annotations.unwrap_or_default();
    Renewed {
        version: lease.metadata.resource_version,
        token: annotations.get(LEASE_TOKEN).cloned(),
    }
}
