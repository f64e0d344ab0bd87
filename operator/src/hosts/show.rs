//! What people see of a host: state, reasons, conditions, registration.

use api::Host;
use failover::host::machine::{HostState, HostView};
use failover::proof::power::PowerAnswer;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::{Assignment, HostName};
use serde_json::{Value, json};

use super::{gather, lock};
use crate::clock;
use crate::conditions::{Judged, conditions};
use crate::runtime::Context;
use crate::writer::logged;

/// Writes what people see, when it changed.
pub(super) async fn show(context: &Context, host: &Host, view: &failover::host::machine::HostView) {
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
    let faults = lock(context).quarantining(&HostName(name.clone()));
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
    let judged = judged(context, host, view, faults);
    let conditions = conditions(&status.conditions, &judged, host.metadata.generation);
    set("conditions", json!(status.conditions), json!(conditions));
    if changes.contains_key("state") {
        changes.insert("stateSince".to_owned(), json!(clock::wall()));
    }
    // The registration: accepted incarnation and retired boot ids.
    if let Some((accepted, retired)) = gather::registration(context, host) {
        changes.insert("accepted".to_owned(), accepted);
        changes.insert("retiredBootIds".to_owned(), retired);
    }
    if changes.is_empty() || !context.writer.settled(host) {
        return;
    }
    let turned = changes.contains_key("state");
    let result = context
        .writer
        .swap_status(host, Value::Object(changes))
        .await;
    if turned && result.is_ok() {
        let kind = if state == "Ready" {
            EventType::Normal
        } else {
            EventType::Warning
        };
        context.writer.tell(host, kind, &state, &reason).await;
    }
    logged("host", &name, result);
}

/// What `kubectl wait` and alerts ask of a host.
fn judged(context: &Context, host: &Host, view: &HostView, faults: u32) -> [Judged; 5] {
    let state = format!("{:?}", view.state);
    let stuck = agent_is_stuck(context, &host.name_any());
    let seen = |good: bool, yes: &str, no: &str| if good { yes } else { no }.to_owned();
    let closed = view.not_placeable.as_ref().map(failover::Reason::english);
    let bmc = lock(context)
        .readings
        .get(&HostName(host.name_any()))
        .is_none_or(|reading| reading.answer != PowerAnswer::NoAnswer);
    let bmc = bmc && !host.spec.bmcs.is_empty();
    [
        Judged::new(
            "Ready",
            view.state == HostState::Ready,
            &state,
            view.reasons
                .iter()
                .map(failover::Reason::english)
                .collect::<Vec<_>>()
                .join("; "),
        ),
        Judged::new(
            "AgentReady",
            !view.silent && !stuck,
            seen(!view.silent && !stuck, "Converging", "AgentDown"),
            if stuck {
                "the guard lives and the agent's loop stands still: nothing new is placed here; look at the agent's log, then restart it (no VM stops)"
            } else {
                ""
            },
        ),
        Judged::new(
            "BmcReady",
            bmc,
            seen(bmc, "Answers", "NoAnswer"),
            seen(
                bmc,
                "",
                "the last reading of its BMC failed or none is declared: this host can not be fenced; check spec.bmcs, its Secret and the cable",
            ),
        ),
        Judged::new(
            "HardwareHealthy",
            faults == 0,
            seen(faults == 0, "NoFault", "Faults"),
            if faults == 0 {
                String::new()
            } else {
                format!(
                    "{faults} standing faults, see status.reported.faults; after repair: zyctl host clear {} --reason ...",
                    host.name_any()
                )
            },
        ),
        Judged::new(
            "Schedulable",
            closed.is_none(),
            seen(closed.is_none(), "Open", "Closed"),
            closed.unwrap_or_default(),
        ),
    ]
}

/// Past this age of its loop an agent does not converge any more, though its guard renews the Lease.
const STUCK_MILLISECONDS: u64 = 15_000;

fn agent_is_stuck(context: &Context, host: &str) -> bool {
    context
        .stores
        .renewals(host)
        .and_then(|renewals| renewals.loop_age)
        .is_some_and(|age| age > STUCK_MILLISECONDS)
}
