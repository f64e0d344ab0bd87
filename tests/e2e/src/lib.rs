//! The main job as a story, on a real lab: played by `make demo`, asserted by the tests. What
//! happened is judged by the prober and the disk ledger, which share no code with the product.

pub mod balance;
pub mod bench;
pub mod bench_failover;
pub mod calm;
pub mod command;
pub mod declared;
pub mod disks;
mod evacuation;
pub mod fan;
pub mod figures;
mod footprint;
pub mod hands;
pub mod isolation;
pub mod ledger;
pub mod moving;
pub mod packer;
pub mod plays;
pub mod power;
pub mod recovery;
pub mod standing;
mod stolen;
#[cfg(test)]
mod stories;
pub mod story;
pub mod watch;
