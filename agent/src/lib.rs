//! The host's side of Zhengyun: converges the VMs assigned to this host, works on volumes,
//! images and networks, moves VMs, reports hardware. Decides nothing about other hosts.
//!
//! Stopping or restarting it stops no VM.

#![deny(unsafe_code)]

pub mod agent;
pub mod alarm;
pub mod certificates;
pub mod clock;
pub mod ending;
pub mod ends;
pub mod freeze;
pub mod guard;
pub mod hardware_report;
pub mod hook;
pub mod hook_check;
pub mod ledger;
pub mod metrics;
pub mod migration;
pub mod network;
pub mod options;
pub mod process;
pub mod report;
pub mod storage;
pub mod under_way;
pub mod view;
pub mod vm;
