//! Everything but hosts, VMs and moves: one file per kind. Level-triggered: each turn looks at the
//! whole state and writes only what differs.

pub mod addresses;
mod departments;
pub mod hosts;
mod images;
mod networks;
mod policies;
pub mod pools;
pub mod rebalance;
mod systems;
pub mod volumes;

use std::sync::Arc;

use crate::freeze;
use crate::runtime::Context;

/// One turn over all kinds.
pub async fn turn(context: &Arc<Context>) {
    policies::turn(context).await;
    departments::turn(context).await;
    hosts::turn(context).await;
    networks::turn(context).await;
    if freeze::message(context).is_none() {
        images::turn(context).await;
        systems::turn(context).await;
        volumes::turn(context).await;
        pools::turn(context).await;
    }
    crate::incidents::turn(context).await;
}
