//! Everything but hosts, VMs and moves: one file per kind. Level-triggered: each turn looks at the
//! whole state and writes only what differs.

pub mod addresses;
mod departments;
mod images;
pub mod incidents;
mod networks;
mod pools;
mod systems;
mod volumes;

use std::sync::Arc;

use crate::runtime::Context;

/// One turn over all kinds.
pub async fn turn(context: &Arc<Context>) {
    departments::turn(context).await;
    networks::turn(context).await;
    images::turn(context).await;
    systems::turn(context).await;
    volumes::turn(context).await;
    pools::turn(context).await;
    incidents::turn(context).await;
}

/// A condition as a list, keeping the time of its last transition.
pub fn condition(
    known: &[api::Condition],
    kind: &str,
    good: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Vec<api::Condition> {
    let status = if good { "True" } else { "False" };
    let last = known
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status);
    vec![api::Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: last.map_or_else(crate::clock::wall, |condition| {
            condition.last_transition_time.clone()
        }),
    }]
}
