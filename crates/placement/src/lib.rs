//! Where VMs go, and why: hard rules as filters, a choice among what is left, and the proof that
//! every VM still finds a place when a host fails. Pure: same fleet, same answer.
//!
//! | module | answers |
//! |---|---|
//! | `filter` | the hard rules, in one place for every planner |
//! | `place` | one VM: which host, or how many hosts each rule removed |
//! | `admit` | a new VM: the best host with which N+1 is still proven, or what was tried |
//! | `engine` | the same from indexes that are kept between questions |
//! | `headroom` | N+1 per host and rack, room left, the most dangerous failure |
//! | `evacuation` | a timed schedule of moves that empties hosts, and what cannot move |
//! | `rebalance` | the few moves that improve a pool most, or hosts that can be emptied |
//! | `what_if` | the same questions about a fleet that is not there yet |
//! | `words` | the Chinese of all that is said here |
//! | `lint` | an independent judge of fleets and plans; shares no rule with `filter` |
//! | `core`, `search`, `roadef` | a general search over the same kind of problem, and its public benchmark |
//!
//! Stories in `scenarios/`, figures from `cargo run --release -p placement --bin bench_placement`.
//!
//! May not live here: async, clients, CRD types, iteration over unordered maps.

#![forbid(unsafe_code)]

mod admit;
pub mod core;
mod engine;
mod evacuation;
mod filter;
mod fleet;
mod headroom;
mod lint;
mod names;
mod place;
mod plan;
mod rebalance;
pub mod roadef;
mod rules;
pub mod search;
mod storage;
mod what_if;
mod words;

pub use admit::{Admission, Tried};
pub use engine::Engine;
pub use evacuation::{EvacuationRequest, plan_evacuation, plan_evacuation_on};
pub use filter::Filter;
pub use fleet::{Fleet, Free, Host, Pool, Vm};
pub use headroom::{Failure, FailureReport, Headroom, HeadroomReport, RoomLeft, Survival};
pub use headroom::{headroom_report, prove_headroom, room_left};
pub use lint::{PlanFault, PlanViolation, Violation, lint, lint_change, lint_plan};
pub use names::Names;
pub use place::{Choice, Refusal, place};
pub use plan::{Limits, Move, Plan, Stuck};
pub use rebalance::{Gain, Goal, Mode, Rebalance, RebalanceRequest, plan_rebalance};
pub use rules::{Domain, Relation, Rules, Side};
pub use storage::StorageRoom;
pub use what_if::{HostDown, host_down, with_hosts};
pub use words::phrases;
