//! How a business system is, in one word, with its endpoints and conditions.

use std::sync::Arc;

use api::names::LABEL_SYSTEM;
use api::{BusinessSystem, EndpointStatus, VirtualMachine, VirtualMachinePhase};
use kube::ResourceExt;

use crate::conditions::{Judged, conditions};
use crate::probes::{Seen, endpoint_key};
use crate::runtime::Context;
use crate::writer::logged;

pub(super) async fn update_status(
    context: &Context,
    system: &BusinessSystem,
    problems: &[String],
    claimed: Vec<String>,
) {
    let status = system.status.clone().unwrap_or_default();
    let name = system.name_any();
    let vms: Vec<_> = context
        .stores
        .vms
        .state()
        .into_iter()
        .filter(|vm| {
            vm.namespace() == system.namespace() && vm.labels().get(LABEL_SYSTEM) == Some(&name)
        })
        .collect();
    let alive = |vm: &&Arc<VirtualMachine>| {
        matches!(
            vm.status.as_ref().and_then(|status| status.phase),
            Some(VirtualMachinePhase::Running | VirtualMachinePhase::Migrating)
        )
    };
    let wanted: usize = system
        .spec
        .tiers
        .iter()
        .map(|tier| usize::try_from(tier.replicas).unwrap_or(0))
        .sum();
    let running = vms.iter().filter(alive).count();
    let mut endpoints = Vec::new();
    for endpoint in &system.spec.endpoints {
        let (seen, since, up, replicas) = context.probes.endpoint(&endpoint_key(system, endpoint));
        let state = format!("{seen:?}");
        let known = status
            .endpoints
            .iter()
            .find(|known| known.name == endpoint.name && known.state == state);
        let since = known.map_or_else(|| since.map(api::Time), |known| known.since.clone());
        endpoints.push(EndpointStatus {
            name: endpoint.name.clone(),
            state,
            since,
            replicas_up: up,
            replicas,
        });
    }
    let up = endpoints
        .iter()
        .filter(|endpoint| endpoint.state == "Up")
        .count();
    let down: Vec<&str> = endpoints
        .iter()
        .filter(|endpoint| endpoint.state == format!("{:?}", Seen::Down))
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    let was_up = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready"
            && (condition.status == "True"
                || condition.reason == "Down"
                || condition.reason == "Degraded")
    });
    let waiting = vms.iter().find(|vm| !alive(vm)).map(|vm| {
        format!(
            "VM {}: {}",
            vm.name_any(),
            vm.status
                .as_ref()
                .and_then(|status| status.message.clone())
                .unwrap_or_else(|| "waits".to_owned())
        )
    });
    let (state, message) = if !problems.is_empty() {
        ("Invalid", problems.join("; "))
    } else if !down.is_empty() && was_up {
        ("Down", format!("no replica answers: {}", down.join(", ")))
    } else if running == wanted && up == endpoints.len() {
        ("Ready", String::new())
    } else if was_up {
        ("Degraded", waiting.unwrap_or_default())
    } else {
        (
            "Progressing",
            waiting.unwrap_or_else(|| "waits for its endpoints to answer".to_owned()),
        )
    };
    let valid = Judged::new(
        "Valid",
        problems.is_empty(),
        if problems.is_empty() {
            "Accepted"
        } else {
            "Refused"
        },
        problems.join("; "),
    );
    let ready = Judged::new("Ready", state == "Ready", state, &message);
    let conditions = conditions(
        &status.conditions,
        &[ready, valid],
        system.metadata.generation,
    );
    let mut after = status.clone();
    after.state = state.to_owned();
    after.message = message;
    after.endpoints_up = format!("{up}/{}", endpoints.len());
    after.virtual_machines_running = format!("{running}/{wanted}");
    after.endpoints = endpoints;
    after.made_tiers = Some(claimed);
    after.observed_generation = system.metadata.generation.unwrap_or_default();
    after.conditions = conditions;
    if after != status && context.writer.settled(system) {
        logged(
            "business system",
            &name,
            context.writer.replace_status(system, &status, &after).await,
        );
    }
}
