//! The control plane: gathers facts, asks `placement` and `failover`, carries out what
//! they answer through one leader-checked writer.

#![forbid(unsafe_code)]

#[cfg(test)]
mod api_in_memory;
pub mod arming;
#[cfg(test)]
mod chance;
pub mod clock;
pub mod conditions;
#[cfg(test)]
mod context_in_memory;
pub mod door;
pub mod evacuation;
#[cfg(test)]
mod fleet_in_memory;
pub mod freeze;
pub mod health;
pub mod hosts;
pub mod incidents;
pub mod leader;
pub mod merge;
pub mod metrics;
pub mod migrations;
pub mod on_panic;
pub mod options;
pub mod planner;
pub mod probes;
pub mod reconcile;
pub mod runtime;
pub mod seed;
pub mod store;
pub mod vms;
pub mod writer;
