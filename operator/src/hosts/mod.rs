//! Hosts: gathers what is seen of each, runs `failover`'s state machines every 100 ms, and carries
//! out what they answer: reads and switches BMCs, writes intents, states and proofs.

pub mod bmc;
mod gather;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::Host;
use failover::host::fencing::CommandEnd;
use failover::host::fleet::{Hosts, ObserverFacts};
use failover::host::machine::{HostAction, HostFacts};
use failover::proof::power::{PowerAnswer, PowerReading};
use failover::vm::HostSight;
use failover::{Moment, Policy};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use model::{Assignment, HostName};
use serde_json::{Value, json};

use crate::runtime::Context;
use crate::writer::logged;
use crate::{clock, door};
use bmc::{Bmc, Credentials};

/// Turn of the loop.
const TURN: Duration = Duration::from_millis(100);

/// What is known and decided about hosts.
#[derive(Default)]
pub struct HostWatch {
    machines: Hosts,
    facts: BTreeMap<HostName, HostFacts>,
    readings: BTreeMap<HostName, PowerReading>,
    commands: BTreeMap<HostName, CommandEnd>,
    reading: BTreeSet<HostName>,
    forcing: BTreeSet<HostName>,
    /// Fencing intents first seen, with the moment.
    intents: BTreeMap<HostName, (String, Moment)>,
    /// Confirmations first seen.
    confirmations: BTreeMap<HostName, Moment>,
}

impl HostWatch {
    /// What deciders need about the host of one assignment.
    pub fn sight(&self, assignment: &Assignment) -> HostSight {
        self.machines.sight(
            &assignment.host,
            &assignment.boot_id,
            self.facts.get(&assignment.host),
        )
    }

    /// The accepted incarnation of a host that may take VMs now, or why it may not.
    ///
    /// # Errors
    /// Why nothing may be placed there.
    pub fn placeable(&self, host: &HostName, policy: &Policy) -> Result<model::BootId, String> {
        let facts = self.facts.get(host).ok_or("not registered")?;
        let view = self
            .machines
            .view(host, facts, policy, clock::now())
            .ok_or("not watched yet")?;
        if let Some(reason) = view.not_placeable {
            return Err(reason.english());
        }
        facts
            .identity
            .as_ref()
            .map(|identity| identity.boot_id.clone())
            .ok_or_else(|| "not registered".to_owned())
    }

    /// Whether something is wrong with any host just now: probes then look more often.
    pub fn troubled(&self) -> bool {
        self.facts.keys().any(|host| {
            self.machines
                .machine(host)
                .is_some_and(failover::host::machine::HostMachine::is_silent)
        })
    }
}

fn lock(context: &Context) -> std::sync::MutexGuard<'_, HostWatch> {
    context.hosts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs for ever.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        turn(context).await;
    }
}

async fn turn(context: &Arc<Context>) {
    let policy = door::policy(&context.stores.policy());
    let hosts = context.stores.hosts.state();
    let now = clock::now();
    let leads = context.writer.leads();
    let (actions, views) = {
        let mut watch = lock(context);
        gather::update(context, &mut watch, &hosts, now);
        let observer = ObserverFacts {
            can_write: leads,
            disarmed: disarmed(context),
        };
        let HostWatch {
            machines, facts, ..
        } = &mut *watch;
        let step = machines.step(facts, observer, &policy, now);
        for event in &step.events {
            tracing::info!(host = %event.host, kind = ?event.kind, "{}", event.reason.english());
        }
        if step.storm_began {
            tracing::error!("many hosts fell silent at once: nothing is forced off");
        }
        crate::reconcile::incidents::note(context, &step.events);
        let views: BTreeMap<HostName, _> = facts
            .iter()
            .filter_map(|(name, facts)| {
                Some((name.clone(), machines.view(name, facts, &policy, now)?))
            })
            .collect();
        (step.actions, views)
    };
    if !leads {
        return;
    }
    for (name, action) in actions {
        let Some(host) = hosts.iter().find(|host| host.name_any() == name.as_str()) else {
            continue;
        };
        carry_out(context, host, &name, action, &policy).await;
    }
    for host in &hosts {
        if let Some(view) = views.get(&HostName(host.name_any())) {
            show(context, host, view).await;
        }
    }
}

fn disarmed(context: &Context) -> bool {
    let policy = context.stores.policy();
    policy
        .failover
        .disarmed
        .is_some_and(|disarmed| disarmed.until.0 > jiff::Timestamp::now())
}

async fn carry_out(
    context: &Arc<Context>,
    host: &Arc<Host>,
    name: &HostName,
    action: HostAction,
    policy: &Policy,
) {
    match action {
        HostAction::ReadPower => {
            if lock(context).reading.insert(name.clone()) {
                let (context, host, name) = (context.clone(), host.clone(), name.clone());
                tokio::spawn(async move { read_power(&context, &host, &name).await });
            }
        }
        HostAction::WriteIntent {
            boot_id,
            expires_after_milliseconds,
        } => {
            let intent = json!({"fencing": {
                "bootId": boot_id, "startedAt": clock::wall(), "expiresAfterSeconds": expires_after_milliseconds / 1000,
                "attempts": 0, "reason": host.status.as_ref().and_then(|status| status.state_reason.clone()).unwrap_or_default(),
                "by": context.writer.identity()}});
            if context.writer.settled(host.as_ref()) {
                logged(
                    "fencing intent",
                    name.as_str(),
                    context.writer.swap_status(host.as_ref(), intent).await,
                );
            }
        }
        HostAction::ForceOff {
            bmc,
            attempt,
            expires_at,
        } => {
            if lock(context).forcing.insert(name.clone()) {
                let (context, host, name) = (context.clone(), host.clone(), name.clone());
                tokio::spawn(async move {
                    force_off(&context, &host, &name, bmc, attempt, expires_at).await
                });
            }
        }
        HostAction::ClearIntent => {
            logged(
                "fencing intent",
                name.as_str(),
                context
                    .writer
                    .status(host.as_ref(), json!({"fencing": null}))
                    .await,
            );
        }
    }
    let _ = policy;
}

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
async fn read_power(context: &Arc<Context>, host: &Host, name: &HostName) {
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

async fn force_off(
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

/// Writes what people see, when it changed.
async fn show(context: &Context, host: &Host, view: &failover::host::machine::HostView) {
    let status = host.status.clone().unwrap_or_default();
    let state = format!("{:?}", view.state);
    let reason = view
        .reasons
        .iter()
        .map(failover::Reason::english)
        .collect::<Vec<_>>()
        .join("; ");
    let vms = context.stores.vms.state();
    let name = host.name_any();
    let here = |assignment: &Option<Assignment>| {
        assignment
            .as_ref()
            .is_some_and(|assignment| assignment.host.as_str() == name)
    };
    let count = vms
        .iter()
        .filter(|vm| {
            vm.status
                .as_ref()
                .is_some_and(|status| here(&status.assignment) || here(&status.incoming))
        })
        .count();
    let faults = door::standing_faults(host, &context.stores.policy());
    let power = view.power.map(|power| format!("{power:?}"));
    let mut changes = serde_json::Map::new();
    let mut set = |field: &str, old: Value, new: Value| {
        if old != new {
            changes.insert(field.to_owned(), new);
        }
    };
    set("state", json!(status.state), json!(state));
    set("stateReason", json!(status.state_reason), json!(reason));
    set("power", json!(status.power), json!(power));
    set(
        "virtualMachines",
        json!(status.virtual_machines),
        json!(count),
    );
    set("faultCount", json!(status.fault_count), json!(faults));
    if changes.contains_key("state") {
        changes.insert("stateSince".to_owned(), json!(clock::wall()));
    }
    // The registration: accepted incarnation and retired boot ids.
    if let Some((accepted, retired)) = gather::registration(context, host) {
        changes.insert("accepted".to_owned(), accepted);
        changes.insert("retiredBootIds".to_owned(), retired);
    }
    if !changes.is_empty() && context.writer.settled(host) {
        logged(
            "host",
            &name,
            context
                .writer
                .swap_status(host, Value::Object(changes))
                .await,
        );
    }
}
