//! The vocabulary of Zhengyun as plain types: identities, quantities, assignments,
//! proofs, faults. Shared by the API types, the pure deciders and the programs.
//!
//! May not live here: kube, tokio, libvirt, clocks, randomness, I/O.
//! The design is explained in `docs/contract.md`.

#![forbid(unsafe_code)]

pub mod assignment;
pub mod fault;
pub mod ids;
pub mod quantity;
pub mod zone;

pub use assignment::{Assignment, Claim, ClaimHolder, StopProofKind, StopProofRecord};
pub use fault::{Fault, FaultKind, Severity};
pub use ids::{BootId, Epoch, HostName, NamespacedName, VmUid};
pub use quantity::{Bytes, QuantityError};
pub use zone::{Architecture, Priority, Zone};
