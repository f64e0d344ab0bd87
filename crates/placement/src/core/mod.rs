//! The incremental model under rebalancing: hosts with many resources, items that live on them,
//! groups of items with rules between them, and a cost. Every change is judged in time that depends
//! on what it touches (two hosts, one group), never on the size of the fleet.
//!
//! What the words mean:
//! - **host**: capacity per resource (hard) and a safety load per resource (going over it costs).
//! - **item**: a need per resource, a group, and a *home*, the host it runs on today.
//! - **transient resource**: an item away from home uses it on both hosts, for the time of the move.
//! - **group**: items that may have to stay apart (exclusive), be spread over zones, or have an item
//!   of another group in the same neighbourhood (dependency).
//! - **balance**: of two resources, so much of the second should stay free for each unit of the first.
//!
//! Pure: no clock, no randomness, no unordered maps. Who searches over it is `crate::search`.

mod check;
mod delta;
mod error;
mod lanes;
mod model;
mod reach;
mod rules;
mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use error::ModelError;
pub use model::Model;
pub use spec::{Balance, Group, Host, Item, PairCost, Resource, Spec};
pub use state::{Cost, NOWHERE, State};
