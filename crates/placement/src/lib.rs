//! Where VMs go, and why: hard rules as filters, a choice among what is left, and the proof that
//! every VM still finds a place when a host fails. Pure: same fleet, same answer.
//!
//! May not live here: async, clients, CRD types, iteration over unordered maps.

#![forbid(unsafe_code)]

mod filter;
mod fleet;
mod headroom;
mod lint;
mod place;

pub use filter::{Filter, removes};
pub use fleet::{Fleet, Host, Pool, Vm};
pub use headroom::{Headroom, prove_headroom};
pub use lint::{Violation, lint};
pub use place::{Choice, Refusal, place};
