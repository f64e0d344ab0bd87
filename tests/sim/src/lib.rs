//! A seeded simulation of a site in virtual time: hosts, networks, BMCs, an API server with
//! conflicts, stale watches and outages, and the programs of the platform deciding with their
//! production code (`failover`, `placement`). Judges that share no code with it watch.
//!
//! ```text
//!  seed or scenario ─► plan ─► world ◄── faults
//!                               │ ▲
//!                operator, agent, libvirt, hardware (events in virtual time)
//!                               ▼
//!                             check ─► story
//! ```

#![forbid(unsafe_code)]

pub mod agent;
mod apart;
pub mod api;
pub mod check;
pub mod faults;
mod hardware;
mod healthy;
mod inflict;
pub mod job;
mod liars;
pub mod libvirt;
pub mod machine;
pub mod mutant;
pub mod operator;
pub mod plan;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod story;
pub mod world;
