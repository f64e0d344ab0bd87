//! The decisions of a host's agent, from facts alone: what it does with one VM (`copy`), what
//! this incarnation did with each epoch (`ledger`), and its two sides of a live migration
//! (`moving`). The agent gathers the facts and carries the answers out; a simulation does the
//! same with made-up ones.

pub mod copy;
pub mod ledger;
pub mod moving;
