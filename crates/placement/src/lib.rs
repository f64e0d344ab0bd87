//! Where VMs go, and why: hard rules as filters, a choice among what is left, and the proof that
//! every VM still finds a place when a host fails. Pure: same fleet, same answer.
//!
//! May not live here: async, clients, CRD types, iteration over unordered maps.

#![forbid(unsafe_code)]

pub mod core;
mod engine;
mod evacuation;
mod filter;
mod fleet;
mod headroom;
mod lint;
mod place;
mod plan;
pub mod roadef;
pub mod search;
mod rebalance;

pub use engine::Engine;
pub use evacuation::{EvacuationRequest, plan_evacuation, plan_evacuation_on};
pub use filter::{Filter, removes};
pub use fleet::{Fleet, Free, Host, Pool, Vm};
pub use headroom::{Failure, FailureReport, Headroom, HeadroomReport, RoomLeft, Survival};
pub use headroom::{headroom_report, prove_headroom, room_left};
pub use lint::{PlanFault, PlanViolation, Violation, lint, lint_plan};
pub use place::{Choice, Refusal, place};
pub use plan::{Limits, Move, Plan, Stuck};
pub use rebalance::{Gain, Goal, Mode, Rebalance, RebalanceRequest, plan_rebalance};
