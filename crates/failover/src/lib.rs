//! Failover: is a host dead, may a VM start elsewhere, what becomes of a migration, what
//! stands in the fault ledger. Pure: `(state, facts, now) → (state, actions, reasons)`,
//! where `now` is the observer's monotonic clock in milliseconds, passed in.
//!
//! The one property that must never break: at every instant at most one running copy of a
//! VM can write to its disks. It rests on two types: [`proof::StopProof`], which only
//! checked evidence can build, and the functions of [`assignment`], which take proofs by
//! value and are the only ones that make assignments.
//!
//! ```text
//!  signals ─► host::machine ─► HostStopProof ─► vm / migration ─► assignment ─► RightsChange
//!              │   ▲                               ▲
//!          host::fencing  storm                 recovery (order, stagger)
//! ```
//!
//! May not live here: performing an action, sleeping, clocks, I/O, unordered maps.

#![forbid(unsafe_code)]

pub mod agent;
pub mod assignment;
pub mod copy;
pub mod guard;
pub mod host;
pub mod incident;
pub mod migration;
pub mod policy;
pub mod proof;
pub mod reason;
pub mod recovery;
pub mod severity;
pub mod signs;
pub mod storm;
pub mod time;
pub mod vm;

pub use assignment::{AssignmentError, CopiesStopped, Rights, RightsChange};
pub use policy::{Policy, PolicyError};
pub use proof::{HostStopProof, ProofError, StopProof};
pub use reason::{Reason, Sentence};
pub use time::Moment;
