//! Reads and switches the power of hosts through their BMCs.

use std::sync::Arc;

use api::Host;
use failover::Moment;
use failover::host::fencing::CommandEnd;
use failover::proof::power::{PowerAnswer, PowerReading};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use model::HostName;

use super::bmc::{self, Bmc, Credentials};
use super::lock;
use crate::clock;
use crate::runtime::Context;

/// Clients of a host's BMCs, with the credentials that the declaration names.
async fn controllers(context: &Context, host: &Host) -> Vec<Result<Box<dyn Bmc>, String>> {
    let secrets: Api<Secret> =
        Api::namespaced(context.writer.client(), api::names::SYSTEM_NAMESPACE);
    let mut controllers = Vec::new();
    for spec in &host.spec.bmcs {
        let controller = async {
            let secret = secrets
                .get(&spec.credentials.name)
                .await
                .map_err(|error| format!("Secret {}: {error}", spec.credentials.name))?;
            let field = |name: &str| {
                let bytes = secret
                    .data
                    .as_ref()
                    .and_then(|data| data.get(name))
                    .ok_or_else(|| {
                        format!("Secret {}: key {name} is missing", spec.credentials.name)
                    })?;
                String::from_utf8(bytes.0.clone())
                    .map_err(|_| format!("Secret {}: key {name} is no text", spec.credentials.name))
            };
            let credentials = Credentials {
                username: field("username")?,
                password: field("password")?,
            };
            bmc::connect(spec, credentials).map_err(|error| error.to_string())
        };
        controllers.push(controller.await);
    }
    controllers
}

fn uuid_of(host: &Host) -> String {
    let status = host.status.clone().unwrap_or_default();
    status
        .accepted
        .or(status.reported.map(|reported| reported.incarnation))
        .map(|incarnation| incarnation.system_uuid)
        .unwrap_or_default()
}

/// Reads the power from the first BMC that answers.
pub(super) async fn read_power(context: &Arc<Context>, host: &Host, name: &HostName) {
    let uuid = uuid_of(host);
    let mut reading = PowerReading {
        answer: PowerAnswer::NoAnswer,
        system_uuid: None,
        sent_at: clock::now(),
        received_at: clock::now(),
    };
    for controller in controllers(context, host).await {
        let sent_at = clock::now();
        let answer = match controller {
            Ok(controller) => controller
                .read(&uuid)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match answer {
            Ok(report) => {
                reading = PowerReading {
                    answer: report.power,
                    system_uuid: report.system_uuid,
                    sent_at,
                    received_at: clock::now(),
                };
                break;
            }
            Err(error) => {
                tracing::warn!(host = %name, error, "a BMC could not be read");
                (reading.sent_at, reading.received_at) = (sent_at, clock::now());
            }
        }
    }
    let mut watch = lock(context);
    watch.reading.remove(name);
    watch.readings.insert(name.clone(), reading);
}

pub(super) async fn force_off(
    context: &Arc<Context>,
    host: &Host,
    name: &HostName,
    bmc: u32,
    attempt: u32,
    expires_at: Moment,
) {
    let controller = controllers(context, host)
        .await
        .into_iter()
        .nth(usize::try_from(bmc).unwrap_or(0));
    // Checked at the moment of sending: the intent, and that this operator still leads.
    if clock::now() < expires_at && context.writer.leads() {
        let result = match controller {
            Some(Ok(controller)) => controller
                .force_off(&uuid_of(host))
                .await
                .map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error),
            None => Err("no such BMC".to_owned()),
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
