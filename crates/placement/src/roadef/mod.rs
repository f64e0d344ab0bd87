//! The ROADEF/EURO 2012 machine reassignment benchmark, mapped onto `crate::core`: machines are
//! hosts, processes are items, services are groups, locations are zones.
//!
//! It is the public problem closest to rebalancing, so it judges the search that production uses.
//! [`judge`] knows nothing of the core: it recomputes legality and cost from the text's own terms.

mod clock;
#[cfg(test)]
mod file_tests;
mod instance;
mod judge;
#[cfg(test)]
mod reach_tests;
mod run;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use clock::Clock;
pub use instance::{BalanceRule, Instance, Machine, Process, Service};
pub use judge::{Parts, Violation, cost, violations};
pub use run::{Answer, Effort, Options, RunError, solve_files};
pub use text::{ParseError, parse_assignment, parse_model, write_assignment};
