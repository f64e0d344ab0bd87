//! Model checks of failover: every order of steps, crashes and lost messages within a small
//! configuration, walked by stateright over the production decisions of `failover`.
//!
//! ```text
//!   cluster   hosts, libvirt, agents, one VM, its API object, two leaders, one live migration
//!   power     one host's machine against its BMC, in time
//!   fence     one guard against an observer on another host, in time
//! ```
//!
//! A model holds the world as small numbers; whenever somebody in it decides, the numbers are
//! turned into the production types, the production function is called, and its answer is
//! carried out. `Mutation` removes one rule at a time: the checker must then find a violation,
//! or the rule is not needed or the model is blind to it.
//!
//! Liveness: stateright looks at `eventually` only where a path ends, and forgets it where
//! paths join. So the condition here is one of the end state itself ("ended, and recovered"),
//! and `never stuck` asserts it as well wherever nothing but a fault can happen next.

#![forbid(unsafe_code)]

pub mod check;
pub mod cluster;
pub mod fence;
pub mod mutation;
pub mod power;
pub mod words;

pub use mutation::Mutation;
