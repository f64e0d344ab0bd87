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
//! | where | decides |
//! |---|---|
//! | `host/table` | what the signals of a host mean together, and what may be done: the signal table |
//! | `host` (the machine) | from state to state: missed renewal, suspect, unreachable, fenced, back again; whether VMs may be placed there |
//! | `host/fencing` | how a host is forced off: intent, look, command, read back, next BMC |
//! | `host/incarnation` | which boot of which machine stands behind a name |
//! | `host/fleet`, `storm` | all hosts in one step; whether anything may be forced off now |
//! | `proof` | what proves that a host or a copy has stopped, one file a kind of evidence |
//! | `guard` | when a host must kill its own VMs, and what other hosts saw of its heartbeat |
//! | `assignment` | who has the right to run a VM: changed by proof only |
//! | `claims` | what the claims of a VM's volumes are to be: they follow the rights |
//! | `vm`, `failures`, `recovery` | what becomes of one VM: first host, restart, back-off, end; in which order and how many at once |
//! | `migration`, `hand_over`, `agent` | one live migration seen by the operator, and since when its VM is handed over; what a host does with one copy, and its ledger |
//! | `severity` | which hardware faults stand, how severe they are, whether a host is evacuated |
//! | `freeze`, `rebase` | when a site whose etcd was restored is kept still, and what ends that |
//! | `incident` | what stands in the fault ledger: one incident per root cause |
//! | `reason` | every sentence of why and why not, in English and Chinese |
//! | `policy` | every timer and bound, its default and its safe range |
//!
//! A timer lives in three places: [`policy`] (default, range, what it contradicts), the field of the
//! `CloudPolicy` in `crates/api/src/kinds/cloud_policy.rs` if a site may set it, and the translation
//! between the two in `operator/src/door.rs`. A rule that changes also changes a story of
//! `tests/scenarios`, what `tests/model-check` walks, and what `tests/sim` throws at it.
//!
//! May not live here: performing an action, sleeping, clocks, I/O, unordered maps.

#![forbid(unsafe_code)]

pub mod agent;
pub mod assignment;
pub mod claims;
pub mod copy;
pub mod failures;
pub mod freeze;
pub mod guard;
pub mod hand_over;
pub mod host;
pub mod incident;
pub mod migration;
pub mod policy;
pub mod proof;
pub mod reason;
pub mod rebase;
pub mod recovery;
pub mod severity;
pub mod signs;
pub mod storm;
pub mod time;
pub mod vm;

pub use assignment::{AssignmentError, CopiesStopped, Rights, RightsChange};
pub use policy::{Bounds, Policy, PolicyError};
pub use proof::{HostStopProof, ProofError, StopProof};
pub use reason::{Reason, Sentence};
pub use time::Moment;
