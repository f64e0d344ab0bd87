//! The decisions of a host's agent, from facts alone: what it does with one VM (`copy`), what
//! this incarnation did with each epoch (`ledger`), its two sides of a live migration
//! (`moving`), and when it freezes because the API went back (`freeze`). The agent gathers the facts and carries the answers out; a simulation does the
//! same with made-up ones.

pub mod copy;
pub mod freeze;
pub mod ledger;
pub mod moving;
