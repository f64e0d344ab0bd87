//! Reads and switches the power of hosts through their BMCs.

use std::sync::Arc;
use std::time::Duration;

use api::Host;
use bmc::{Bmc, Credentials};
use failover::Moment;
use failover::host::fencing::CommandEnd;
use failover::proof::power::{PowerAnswer, PowerReading, PowerState, together};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::reflector::ObjectRef;
use model::HostName;

use super::{is_own_intent, lock};
use crate::clock;
use crate::runtime::Context;

/// Longest time for reading the Secrets of BMCs before a command.
const SECRETS: Duration = Duration::from_secs(3);
/// How long after one usable answer the other BMCs of a host are waited for.
const OTHERS: Duration = Duration::from_millis(300);

/// Clients of a host's BMCs, with the credentials that the declaration names.
pub(super) async fn controllers(
    context: &Context,
    host: &Host,
) -> Vec<Result<Box<dyn Bmc>, String>> {
    let secrets: Api<Secret> =
        Api::namespaced(context.writer.client(), api::names::SYSTEM_NAMESPACE);
    let mut controllers = Vec::new();
    for spec in &host.spec.bmcs {
        let controller = async {
            let secret = secrets
                .get(&spec.credentials.name)
                .await
                .map_err(|error| format!("Secret {}: {error}", spec.credentials.name))?;
            Credentials::from_secret(&secret)
                .and_then(|credentials| bmc::connect(spec, credentials))
                .map_err(|error| error.to_string())
        };
        controllers.push(controller.await);
    }
    controllers
}

pub(super) fn uuid_of(host: &Host) -> String {
    let status = host.status.clone().unwrap_or_default();
    status
        .accepted
        .or(status.reported.map(|reported| reported.incarnation))
        .map(|incarnation| incarnation.system_uuid)
        .unwrap_or_default()
}

/// One BMC's answer, as a reading.
pub(super) async fn one(
    controller: Result<Box<dyn Bmc>, String>,
    uuid: &str,
) -> Result<PowerReading, String> {
    let sent_at = clock::now();
    let report = controller?
        .read(uuid)
        .await
        .map_err(|error| error.to_string())?;
    Ok(PowerReading {
        answer: report.power,
        system_uuid: report.system_uuid,
        unanimous: false,
        contradicted: false,
        sent_at,
        received_at: clock::now(),
    })
}

/// No BMC gave a usable answer to what was asked then.
fn no_answer(sent_at: Moment) -> PowerReading {
    PowerReading {
        answer: PowerAnswer::NoAnswer,
        system_uuid: None,
        unanimous: true,
        contradicted: false,
        sent_at,
        received_at: clock::now(),
    }
}

/// Reads the power from all BMCs of a host at once: a dead one holds up no other.
pub(super) async fn read_power(context: &Arc<Context>, host: &Host, name: &HostName) {
    let uuid = uuid_of(host);
    let begun = clock::now();
    let mut readings = Vec::new();
    let mut answers: FuturesUnordered<_> = controllers(context, host)
        .await
        .into_iter()
        .map(|controller| one(controller, &uuid))
        .collect();
    let mut until: Option<tokio::time::Instant> = None;
    loop {
        let next = match until {
            None => answers.next().await,
            Some(until) => tokio::time::timeout_at(until, answers.next())
                .await
                .unwrap_or_default(),
        };
        match next {
            None => break,
            Some(Ok(reading)) => {
                if matches!(reading.judge(&uuid), PowerState::On | PowerState::Off) {
                    until.get_or_insert_with(|| tokio::time::Instant::now() + OTHERS);
                }
                readings.push(reading);
            }
            Some(Err(error)) => tracing::warn!(host = %name, error, "a BMC could not be read"),
        }
    }
    let said = together(readings, host.spec.bmcs.len(), &uuid);
    let mut watch = lock(context);
    watch.reading.remove(name);
    let said = said.unwrap_or_else(|| no_answer(begun));
    watch.readings.insert(name.clone(), said);
}

pub(super) async fn force_off(
    context: &Arc<Context>,
    host: &Host,
    name: &HostName,
    bmc: u32,
    attempt: u32,
    expires_at: Moment,
) {
    let known = tokio::time::timeout(SECRETS, controllers(context, host)).await;
    let controller = known
        .unwrap_or_default()
        .into_iter()
        .nth(usize::try_from(bmc).unwrap_or(0));
    // Checked at the moment of sending: the intent, that it is still this operator's and about the boot that is
    // accepted, and that this operator still leads.
    let current = context.stores.hosts.get(&ObjectRef::new(name.as_str()));
    let meant = current.is_some_and(|host| is_meant(&host, context.writer.identity()));
    if clock::now() < expires_at && meant && context.writer.leads() {
        let result = match controller {
            Some(Ok(controller)) => controller
                .force_off(&uuid_of(host))
                .await
                .map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error),
            None => Err("no such BMC, or the Secrets of BMCs could not be read in time".to_owned()),
        };
        match result {
            Ok(()) => {
                tracing::warn!(host = %name, attempt, "force-off was sent; the power is read back")
            }
            Err(error) => tracing::error!(host = %name, attempt, error, "force-off failed"),
        }
    }
    let mut watch = lock(context);
    watch.forcing.remove(name);
    watch.commands.insert(
        name.clone(),
        CommandEnd {
            attempt,
            at: clock::now(),
        },
    );
}

/// Whether the fencing intent of a host is this operator process's, and about the incarnation that is accepted: what
/// was forced off already must not be forced off again once it has booted anew.
fn is_meant(host: &Host, identity: &str) -> bool {
    let status = host.status.as_ref();
    let sides = status.and_then(|status| status.accepted.as_ref().zip(status.fencing.as_ref()));
    is_own_intent(host, identity)
        && sides.is_some_and(|(accepted, intent)| accepted.boot_id == intent.boot_id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_host_that_has_booted_anew_is_not_forced_off_for_its_former_boot() {
        let host = |by: &str, accepted: &str| -> Host {
            serde_json::from_value(json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h1"},
                "spec": {"pool": "p", "managementAddress": "10.0.0.1"}, "status": {
                    "accepted": {"bootId": accepted, "systemUuid": "u"},
                    "fencing": {"bootId": "b1", "startedAt": "2026-01-01T00:00:00Z", "expiresAfterSeconds": 60,
                        "reason": "", "by": by}},
            }))
            .expect("a host")
        };
        assert!(is_meant(&host("operator-a", "b1"), "operator-a"));
        assert!(!is_meant(&host("operator-a", "b2"), "operator-a"));
        assert!(!is_meant(&host("operator-b", "b1"), "operator-a"));
    }
}
